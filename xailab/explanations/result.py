"""What several methods said about the same prediction: as numbers, in words, as a picture."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from xailab import plots
from xailab.core.checks import check_index, split_target
from xailab.core.outputs import as_array

if TYPE_CHECKING:
    import pandas as pd

# What a model computes before its answer: the numbers do not add up to the score that is shown.
_RAW = ("log-odds", "half log-odds", "logit", "log of the output", "decision function")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one method said, and what it cost.

    Attributes:
        name: the method.
        title: what the field calls it.
        attribution: (N, ...) Tensor, as the method returned it.
        seconds: wall time.
        rows: rows that went forward through the model (0 where it is no `nn.Module`).
        gap: per row, what the attribution's sum misses of f(x) - f(baseline), or of f(x) minus the
            mean over the background; None for methods that promise no such sum.
        layer: the layer that it explains through, where it needs one.
        units: of the attribution.
        names: of the numbers of each row, where they are words of a text.
        tokens: how the layer's tokens were laid out as maps, as in "14 x 14 tokens"; "" for maps.
    """

    name: str
    title: str
    attribution: Tensor
    seconds: float
    rows: int
    gap: Tensor | None
    layer: str | None = None
    units: str = "score"
    names: list[list[str]] | None = None
    tokens: str = ""

    @property
    def place(self) -> str | None:
        """The layer that it explains through, and how its tokens were laid out."""
        return f"{self.layer}, {self.tokens}" if self.tokens else self.layer

    @property
    def heading(self) -> str:
        """Its title, with its layer, or with units that are not the score's."""
        if self.units in _RAW:
            return f"{self.title} ({self.units})"
        return f"{self.title} at {self.place}" if self.layer else self.title


@dataclass(frozen=True, eq=False)
class Explanations:
    """What several methods said about the same prediction; get one by its name.

    `a + b` joins two of them, and refuses if they explain different things. `skipped` says which
    of the usual methods were left out, and why.
    """

    model: Any = field(repr=False)
    x: Any = field(repr=False)
    target: Any = field(repr=False)
    scores: Tensor = field(repr=False)
    items: tuple[Explanation, ...] = field(repr=False)
    feature_names: list[str] | None = field(repr=False, default=None)
    skipped: dict[str, str] = field(repr=False, default_factory=dict)
    channel_axis: int = field(repr=False, default=1)
    _weights: str = field(repr=False, default="")

    def __repr__(self) -> str:
        rows = "1 row" if len(self.x) == 1 else f"{len(self.x)} rows"
        return f"Explanations of {rows} by {', '.join(self.names)}"

    def __getitem__(self, name: str) -> Tensor:
        for item in self.items:
            if item.name == name:
                return item.attribution
        why = f"; it was left out: {self.skipped[name]}" if name in self.skipped else ""
        raise KeyError(f"no method {name!r} here; there is {', '.join(self.names)}{why}")

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[str]:
        """The methods, in the order asked for."""
        return [item.name for item in self.items]

    def __add__(self, other: "Explanations") -> "Explanations":
        if self.model is not other.model or self._weights != other._weights:
            raise ValueError("these explain different models; a comparison would mean nothing")
        if not _same_rows(self.x, other.x):
            raise ValueError("these explain different inputs; a comparison would mean nothing")
        if self._targets() != other._targets() or not torch.equal(self.scores, other.scores):
            raise ValueError(f"these explain different targets: {self.target} and {other.target}")
        if twice := set(self.names) & set(other.names):
            raise ValueError(f"both hold {', '.join(sorted(twice))}")
        return Explanations(
            self.model,
            self.x,
            self.target,
            self.scores,
            (*self.items, *other.items),
            self.feature_names or other.feature_names,
            {**self.skipped, **other.skipped},
            self.channel_axis,
            self._weights,
        )

    def _targets(self) -> list[Any]:
        """Return one class per row; a single output may be asked for as None or as 0."""
        if callable(self.target):
            return [self.target] * len(self.x)
        return [target or 0 for target in split_target(self.target, len(self.x))]

    # -- numbers

    def table(self) -> "pd.DataFrame":
        """Return what each method cost, through which layer it went, and what its sum misses.

        "completeness gap" is the mean over the rows, and empty for methods that promise no sum.
        """
        import pandas as pd

        gaps = [None if item.gap is None else item.gap.abs().mean().item() for item in self.items]
        columns = {
            "seconds": [item.seconds for item in self.items],
            "rows": [item.rows for item in self.items],
            "layer": [item.place for item in self.items],
            "units": [item.units for item in self.items],
            "completeness gap": pd.array(gaps, dtype="Float64").to_numpy(float, na_value=np.nan),
        }
        return pd.DataFrame(columns, index=pd.Index(self.names, name="method"))

    def to_frame(self) -> "pd.DataFrame":
        """Return every number: one line for each row and feature, one column for each method.

        Features are the columns of a table by name, the words of a text, or the places of a
        picture, as in "0,12,7" (channel, row, column). Maps of one channel count for all channels;
        words that a row has not are empty.

        Raises:
            ValueError: maps of another size than x (`upsample=False`): they share no places.
        """
        import pandas as pd

        parts = []
        for item in self.items:
            for row in range(len(self.x)):
                values, names = self._flat(item, row)
                index = pd.MultiIndex.from_product([[row], names], names=["row", "feature"])
                parts.append(pd.DataFrame({item.name: values}, index=index))
        by_method = [
            pd.concat(parts[i : i + len(self.x)]) for i in range(0, len(parts), len(self.x))
        ]
        return pd.concat(by_method, axis=1)

    def _flat(self, item: Explanation, row: int) -> tuple[np.ndarray, list[str]]:
        """Return the numbers of one row and what they are called."""
        if item.names is not None:
            words = item.names[row]
            return as_array(item.attribution[row])[: len(words)], _numbered(words)
        shape = self.x.shape[1:]
        try:
            values = np.broadcast_to(as_array(item.attribution[row]), shape).reshape(-1)
        except ValueError as error:
            came = tuple(item.attribution.shape[1:])
            raise ValueError(
                f"{item.name} gave maps {came} for rows {tuple(shape)}: they share no places"
            ) from error
        if len(shape) == 1:
            return values, self._columns()
        return values, [",".join(map(str, place)) for place in np.ndindex(*shape)]

    def _columns(self) -> list[str]:
        return self.feature_names or [f"x[{i}]" for i in range(self.x.shape[1])]

    def save(self, path: str | Path, *, row: int = 0, over: Any = None) -> Path:
        """Save the picture of one row (.png, .svg, .pdf) or all numbers (.csv, .npz).

        An .npz file holds one array a method, and "scores"; a .csv file is `to_frame()`.

        Returns:
            The path.

        Raises:
            ValueError: another kind of file.
        """
        path = Path(path)
        if path.suffix in (".png", ".svg", ".pdf"):
            self.plot(over, row=row).save(path)
        elif path.suffix == ".csv":
            self.to_frame().to_csv(path)
        elif path.suffix == ".npz":
            arrays = {item.name: as_array(item.attribution) for item in self.items}
            np.savez_compressed(path, scores=as_array(self.scores), **arrays)  # type: ignore[arg-type]
        else:
            raise ValueError(f"save as .png, .svg, .pdf, .csv or .npz, got {path.name!r}")
        return path

    # -- pictures and words

    def plot(self, over: Any = None, *, row: int = 0, title: str = "") -> Any:
        """Draw all maps of one row side by side, each on its own scale; of a text its words.

        Args:
            over: the photo that the model saw, to be laid under the maps.
            row: which row of `x`.
            title: what the picture shows; the default names the target and its score.
        """
        row = check_index("row", row, len(self.x))
        title = title or self._headline(row)
        if self.items[0].names is not None:
            return self._plot_words(row, title)
        maps = [item.attribution[row] for item in self.items]
        if self.x.ndim == 2:
            values = torch.cat([one.double().flatten() for one in maps]).tolist()
            names = [f"{item.heading}: {name}" for item in self.items for name in self._columns()]
            return plots.bars(values, names, title=title)
        titles = [item.heading for item in self.items]
        axis = 0 if self.channel_axis == 1 else -1
        return plots.compare(
            maps, over=over, titles=titles, shared=False, title=title, channel_axis=axis
        )

    def _plot_words(self, row: int, title: str) -> Any:
        """Draw the words of a text: of one method above the text, of several as bars."""
        values, names = zip(*(self._flat(item, row) for item in self.items), strict=True)
        if len(self.items) == 1:
            return plots.tokens(self.items[0].names[row], values[0].tolist(), title=title)  # type: ignore[index]
        heads = [item.title for item in self.items]
        named = [
            f"{head}: {word}" for head, words in zip(heads, names, strict=True) for word in words
        ]
        return plots.bars(np.concatenate(values).tolist(), named, title=title)

    def describe(self, row: int = 0) -> str:
        """Say in words what each method found for one row, and what was left out."""
        row = check_index("row", row, len(self.x))
        lines = [self._headline(row)]
        for item in self.items:
            words = self._words(item, row)
            rows = f", {_rows(item.rows)}" if item.rows else ""
            rows += f", in {item.units}" if item.units in _RAW else ""
            lines.append(f"{item.name} ({item.seconds:.2f} s{rows}): {words}")
        lines += [f"{name} was left out: {why}" for name, why in self.skipped.items()]
        return "\n".join(lines)

    def _words(self, item: Explanation, row: int) -> str:
        one = item.attribution[row]
        if one.ndim == 1:
            values, names = self._flat(item, row)
            return plots.describe_bars(values.tolist(), names)
        axis = 0 if self.channel_axis == 1 else -1
        return plots.describe(one, name=item.heading, channel_axis=axis)

    def _headline(self, row: int) -> str:
        if callable(self.target):
            name = getattr(self.target, "__name__", "<lambda>")
            output = "the target, a function" if name == "<lambda>" else f"the target {name}"
        else:
            target = split_target(self.target, len(self.x))[row]
            output = "the output" if target is None else f"output {target}"
        return f"Evidence for {output}, which scores {self.scores[row].item():.2f}"


def _same_rows(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)):
        return one == other
    return one.shape == other.shape and bool((one == other).all())


def _numbered(words: list[str]) -> list[str]:
    """Tell a word's occurrences apart: "so", "so (2)"."""
    seen: dict[str, int] = {}
    names = []
    for word in words:
        seen[word] = seen.get(word, 0) + 1
        names.append(word if seen[word] == 1 else f"{word} ({seen[word]})")
    return names


def fingerprint(model: Any) -> str:
    """Return a digest of all weights and buffers ("" for what is no PyTorch network)."""
    if not isinstance(model, nn.Module):
        return ""
    digest = hashlib.blake2b()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
