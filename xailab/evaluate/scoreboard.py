"""The scoreboard: every method on every data set whose answer is known, with its speed.

A known-answer set is a question to a model together with the place where the answer has to lie,
because we put it there. The running board is a file of the learner's own, in `core.files.home()`.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype
from torch import Tensor, nn
from tqdm import tqdm

from xailab import data, models
from xailab.attribution import register_all
from xailab.core.batching import batched, quiet
from xailab.core.checks import check_positive
from xailab.core.files import home, write_atomically
from xailab.core.registry import Card, chosen, refuse_unknown
from xailab.core.subjects import subject
from xailab.evaluate.localization import (
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
)

COLUMNS = ["method", "dataset", "pointing", "mass", "rank", "chance", "rows", "ms_per_row"]
_CHUNK = 2  # rows explained at once: a row of mosaics takes a few hundred MB of gradients


@dataclass(frozen=True)
class KnownAnswer:
    """A model, inputs, targets, and where the evidence has to be.

    Attributes:
        name: of the set.
        model: the network that is asked.
        x: (N, C, H, W), what it is shown.
        target: (N,) int64, the output to be explained.
        truth: (N, H, W) bool, the place of the answer.
        layer: the layer for methods that need one.
    """

    name: str
    model: nn.Module
    x: Tensor
    target: Tensor
    truth: Tensor
    layer: str


def marked_digits_known_answer() -> KnownAnswer:
    """Digits that the cheating network calls 8 only because of a mark: the mark is the answer.

    Only digits that it calls something else once the mark is taken away are asked about, so that
    the mark is known to be the reason.
    """
    digits = data.marked_digits(seed=0).test
    model = models.digit_cnn_marked()
    x = torch.as_tensor(digits.images[digits.marked])[:, None]
    truth = torch.as_tensor(digits.truth[digits.marked])
    with torch.no_grad():
        marked, bare = (
            batched(model, rows, batch_size=100, progress=False).argmax(1)
            for rows in (x, x * ~truth[:, None])
        )
    asked = (marked == digits.shortcut) & (bare != digits.shortcut)
    target = torch.full((int(asked.sum()),), digits.shortcut)
    return KnownAnswer("marked_digits", model, x[asked], target, truth[asked], "relu3")


def mosaics_known_answer() -> KnownAnswer:
    """Four photos of four classes in one picture: the cell of the class is the answer."""
    grids = data.mosaics(seed=0)
    x = models.normalize(grids.images)
    target, truth = torch.as_tensor(grids.target), torch.as_tensor(grids.truth)
    model = models.pretrained("efficientnet_lite0").model
    return KnownAnswer("mosaics", model, x, target, truth, "bn2")


@cache  # the network is trained here: some seconds, so once a session
def tones_known_answer() -> KnownAnswer:
    """Clips of a second in which one note decides: its rectangle in the spectrogram is the answer.

    Only clips that the network gets right, and no longer once that note is silenced, are asked
    about, so that the note is known to be the reason.
    """
    clips = data.tones(seed=0)
    model, test = models.tone_cnn(clips), clips.test
    x, y = torch.as_tensor(test.spectrograms)[:, None], torch.as_tensor(test.y)
    truth = torch.as_tensor(test.truth)
    with torch.no_grad():
        heard, silenced = model(x).argmax(1), model(x * ~truth[:, None]).argmax(1)
    asked = (heard == y) & (silenced != y)
    return KnownAnswer("tones", model, x[asked], y[asked], truth[asked], "relu3")


SETS: dict[str, Callable[[], KnownAnswer]] = {
    "marked_digits": marked_digits_known_answer,
    "mosaics": mosaics_known_answer,
    "tones": tones_known_answer,
}


def score(
    methods: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]],
    datasets: Sequence[str] = ("marked_digits", "mosaics"),
    *,
    limit: int | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Score methods where the right answer is known, and time them.

    Args:
        methods: names out of `xailab.methods()`, functions `(model, x, target)`, or a mapping
            name -> function.
        datasets: names of known-answer sets: "marked_digits", "mosaics", "tones".
        limit: ask only about the first so many rows of each set; None asks about all.
        options: keyword arguments for those methods that know them (`seed`, `n_samples`, ...).

    Returns:
        One line per method and set: `pointing`, `mass` and `rank` as in `evaluate.localization`
        (means, 1 is best), `chance` (the mask's share of the picture, which is what a constant
        map scores), `rows` and `ms_per_row`.

    Raises:
        TypeError: an option that none of the methods takes.
        ValueError: no such method or set, `limit` < 1, or what a method raises on these models.

    >>> score(["saliency"], ["marked_digits"], limit=2)["rows"].item()
    2
    """
    register_all()
    wanted = chosen(methods)
    refuse_unknown(options, wanted)
    if limit is not None:
        check_positive("limit", limit)
    questions = [_set(name) for name in ([datasets] if isinstance(datasets, str) else datasets)]
    lines = []
    with tqdm(total=len(wanted) * len(questions), delay=2, leave=False, disable=quiet()) as bar:
        for question in questions:
            for method in wanted:
                lines.append(_line(method, question, limit, options))
                bar.update()
    return pd.DataFrame(lines, columns=COLUMNS)


def _set(name: str) -> KnownAnswer:
    if name not in SETS:
        near = get_close_matches(name, SETS, n=3) or sorted(SETS)
        raise ValueError(f"there is no known-answer set {name!r}; there is {', '.join(near)}")
    return SETS[name]()


def _line(
    method: Card, question: KnownAnswer, limit: int | None, options: Mapping[str, Any]
) -> list[Any]:
    """Explain all rows of one set by one method; return its line of the table."""
    began = perf_counter()
    maps = torch.cat(list(_maps(method, question, limit, options)))
    seconds = perf_counter() - began
    truth = question.truth[:limit]
    measures = (pointing_game, relevance_mass_accuracy, relevance_rank_accuracy)
    scores = [measure(maps, truth).mean().item() for measure in measures]
    chance = truth.double().mean().item()
    return [method.name, question.name, *scores, chance, len(maps), 1000 * seconds / len(maps)]


def _maps(
    method: Card, question: KnownAnswer, limit: int | None, options: Mapping[str, Any]
) -> Iterator[Tensor]:
    """Yield the maps of a few rows at a time, channels summed: (n, H, W)."""
    offered = {"layer": question.layer, **options}
    rows = torch.arange(len(question.x))[:limit]
    for chunk in rows.split(_CHUNK):
        of = subject(question.model, question.x[chunk])
        if reason := method.why_not(of, offered):
            raise ValueError(f"{method.name} on {question.name}: {reason}")
        maps, *_ = method.ask(of, question.target[chunk], method.options_for(of, offered))
        yield maps.sum(1) if maps.ndim == 4 else maps


def _board() -> Path:
    """Return the board's file: `XAILAB_SCOREBOARD`, or `scoreboard.csv` at home."""
    return Path(os.environ.get("XAILAB_SCOREBOARD") or home() / "scoreboard.csv")


def record(table: pd.DataFrame) -> pd.DataFrame:
    """Enter scores into the running board; a method's newer score replaces its older one.

    Args:
        table: what `score` returned.

    Returns:
        The board as it stands now.

    Raises:
        ValueError: a table with other columns.
    """
    if list(table.columns) != COLUMNS:
        raise ValueError(f"a score table has the columns {COLUMNS}, got {list(table.columns)}")
    both = table if (old := standings()).empty else pd.concat([old, table], ignore_index=True)
    newest = both.drop_duplicates(["method", "dataset"], keep="last", ignore_index=True)
    write_atomically(_board(), newest.to_csv(index=False))
    return newest


def standings() -> pd.DataFrame:
    """Return the running board; empty if nothing was recorded, or if its file is damaged."""
    try:
        table = pd.read_csv(io.StringIO(_board().read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):  # pandas' parse errors are ValueErrors
        return pd.DataFrame(columns=COLUMNS)
    whole = list(table.columns) == COLUMNS and table.notna().all(axis=None)
    numbers = whole and all(map(is_numeric_dtype, table[COLUMNS[2:]].dtypes))
    return table if numbers else pd.DataFrame(columns=COLUMNS)
