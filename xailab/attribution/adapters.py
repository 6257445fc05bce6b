"""Cards of the methods that are not called `(model, x, target)`: how each is asked about a subject.

LIME and SHAP ask a black box, tree SHAP reads a tree, a text is explained word by word. Here stands
what they need of a subject, so that `explain`, the scoreboard and others can call them all alike.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xailab.attribution import games, lime, sequences, shapley, trees
from xailab.attribution.occlusion import check_feature_mask
from xailab.core.checks import check_positive, split_target
from xailab.core.registry import METHODS, Card
from xailab.core.subjects import PICTURE, Subject
from xailab.core.words import spans_of

TABLE, TEXT = frozenset({"table"}), frozenset({"text"})
_CELLS = 4  # squares along a side of a picture
_LARGEST = 8  # so many players are asked in all their coalitions: 256
_OF_WORDS = {
    "input_x_gradient": "input x gradient of words",
    "occlusion": "occlusion of words",
    "lrp": "LRP of words",
    "gradient_attention": "gradient x attention rollout of words",
}
Options = Mapping[str, Any]


class Answer(NamedTuple):
    """What a method said about a subject.

    Attributes:
        values: (N, ...), one map a row.
        names: of the numbers of each row, where they are words; None: those of the subject.
        gap: what the sum of each row misses, (N,), where the method promises one and tells.
    """

    values: Tensor
    names: list[list[str]] | None = None
    gap: Tensor | None = None


def _row_by_row(subject: Subject, target: Any, ask: Callable[[Any, Any], Any]) -> Answer:
    """Ask about one row after the other, as arrays."""
    targets = split_target(target, len(subject.x))
    rows = np.asarray(subject.rows.detach().cpu())
    found = [ask(row, t) for row, t in zip(rows, targets, strict=True)]
    return Answer(torch.as_tensor(np.stack(found)))


def _background(subject: Subject, options: Options) -> np.ndarray:
    given = subject.background if subject.background is not None else options["background"]
    return np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)


def _lime_tabular(subject: Subject, target: Any, options: Options) -> Answer:
    options = {**options, "background": _background(subject, options)}
    ask = lambda row, t: lime.lime_tabular(subject.ask, row, t, **options)  # noqa: E731
    return _row_by_row(subject, target, ask)


def _lime_image(subject: Subject, target: Any, options: Options) -> Answer:
    """Hidden patches have the darkest value of the picture, unless `hide` says otherwise."""

    def ask(row: np.ndarray, t: Any) -> np.ndarray:
        own = {"hide": row.min().item(), **options, "channel_axis": 0}
        return lime.lime_image(subject.ask, row, t, **own)

    return _row_by_row(subject, target, ask)


def _of_words(
    method: Callable[..., lime.WordWeights],
) -> Callable[[Subject, Any, Options], Answer]:
    def run(subject: Subject, target: Any, options: Options) -> Answer:
        targets = split_target(target, len(subject.x))
        found = [
            method(subject.predict, text, t, **options)
            for text, t in zip(subject.x, targets, strict=True)
        ]
        values = torch.zeros(len(found), max(len(one.words) for one in found), dtype=torch.float64)
        for row, one in zip(values, found, strict=True):
            row[: len(one.words)] = torch.as_tensor(one.weights)
        return Answer(values, [one.words for one in found])

    return run


def _owen_text(subject: Subject, target: Any, options: Options) -> Answer:
    """Return the values, and what their sum misses of the change from a text without its words."""
    found = _of_words(games.owen_text)(subject, target, options)
    empty = [games.without_words(text, options.get("hide", "")) for text in subject.x]
    change = subject.scores(target) - subject.scores(target, empty)
    return found._replace(gap=found.values.sum(1) - change.to(found.values))


def _token_attributions(subject: Subject, target: Any, options: Options) -> Answer:
    found = sequences.token_attributions(subject.model, subject.x, target, **options)
    promised = options.get("method", sequences.METHODS[0]) == "integrated_gradients"
    return Answer(found.weights, found.tokens, found.gap if promised else None)


def _shap(method: Callable[..., np.ndarray]) -> Callable[[Subject, Any, Options], Answer]:
    """Return how a SHAP estimate is asked: by columns of a table, by squares of a picture."""

    def run(subject: Subject, target: Any, options: Options) -> Answer:
        options = dict(options)
        if subject.kind == "table":
            background = _background(subject, options)
            options.pop("background", None)
            ask = lambda row, t: _column(method(subject.ask, row, background, **options), t)  # noqa: E731
            return _row_by_row(subject, target, ask)
        return _row_by_row(subject, target, _by_squares(subject, method, options))

    return run


def _by_squares(
    subject: Subject, method: Callable[..., np.ndarray], options: dict[str, Any]
) -> Callable[[np.ndarray, Any], np.ndarray]:
    """Let the parts of a picture be the players, hidden by its darkest value."""
    options.pop("background", None)
    label = _parts(subject, options.pop("feature_mask", None), options.pop("cells", _CELLS))
    players = np.ones(label.max() + 1), np.zeros((1, label.max() + 1))

    def ask(row: np.ndarray, t: Any) -> np.ndarray:
        def shown(coalitions: np.ndarray) -> np.ndarray:
            mask = coalitions.astype(bool)[:, label]
            return _chosen(subject.ask(np.where(mask, row, row.min())), t)

        values = method(shown, *players, **options)
        return np.broadcast_to(values[label], row.shape)

    return ask


def _parts(subject: Subject, mask: Tensor | None, cells: int) -> np.ndarray:
    """Return the part that each pixel belongs to: as told, or the square of a grid."""
    if mask is None:
        return subject.grid(check_positive("cells", cells)).numpy()[0]
    label = check_feature_mask(subject.turned(torch.as_tensor(mask)), subject.rows)
    if len(label) > 1:
        raise ValueError("feature_mask must be the same for all rows here: explain one by one")
    return label[0].unique(return_inverse=True)[1].numpy()


def _column(values: np.ndarray, target: Any) -> np.ndarray:
    """Return the values (F,) for one output out of (F,) or (F, K)."""
    return values if values.ndim == 1 else values[:, target or 0]


def _chosen(answers: Any, target: Any) -> np.ndarray:
    answers = np.asarray(answers)
    return answers if answers.ndim == 1 else answers[:, target or 0]


def _of_tree(method: Callable[..., np.ndarray]) -> Callable[[Subject, Any, Options], Answer]:
    """Return how trees are asked: about all rows of one target at once, and what the sum misses."""

    def run(subject: Subject, target: Any, options: Options) -> Answer:
        targets = split_target(target, len(subject.x))
        values, gap = np.empty(subject.x.shape), np.empty(len(subject.x))
        for t in dict.fromkeys(targets):
            mine = [i for i, other in enumerate(targets) if other == t]
            rows = subject.x[mine]
            values[mine] = method(subject.model, rows, target=t, **options)
            change = trees.tree_answers(subject.model, rows, target=t)
            change = change - trees.tree_start(subject.model, target=t, **options)
            gap[mine] = values[mine].sum(1) - change[:, 0]
        return Answer(torch.as_tensor(values), gap=torch.as_tensor(gap))

    return run


def _linear_shap(subject: Subject, target: Any, options: Options) -> Answer:
    options = {**options, "background": _background(subject, options)}
    weights = np.atleast_2d(subject.model.coef_)

    def ask(row: np.ndarray, t: Any) -> np.ndarray:
        own = weights[0] * (-1 if t == 0 and hasattr(subject.model, "classes_") else 1)
        return shapley.linear_shap(own if len(weights) == 1 else weights[t], row, **options)

    return _row_by_row(subject, target, ask)


def _band_occlusion(subject: Subject, target: Any, options: Options) -> Answer:
    dark = {"baseline": subject.rows.min().item(), **options}
    found = sequences.band_occlusion(subject.tensors, subject.rows, target, **dark)
    return Answer(found.map())


def _samples(option: str, usual: int) -> Callable[[Subject, Options], int]:
    return lambda subject, options: options.get(option) or usual


def _players(subject: Subject, options: Options) -> int:
    """Return the number of columns, or of the parts of a picture, that play."""
    if options.get("feature_mask") is not None:
        return len(np.unique(options["feature_mask"]))
    cells = options.get("cells", _CELLS)
    return subject.rows.shape[1] if subject.kind == "table" else cells * cells


def _coalitions(subject: Subject, options: Options) -> int:
    """Return how many rows Kernel SHAP runs."""
    hidden = len(subject.background) if subject.kind == "table" else 1
    return (options.get("n_samples") or 2 ** _players(subject, options)) * hidden


def _walks(subject: Subject, options: Options) -> int:
    """Return how many rows permutation SHAP runs: each order is walked in both directions."""
    hidden = len(subject.background) if subject.kind == "table" else 1
    return 2 * options.get("n_permutations", 10) * (_players(subject, options) + 1) * hidden


def _owen_texts(subject: Subject, options: Options) -> int:
    """Return how many texts are asked about halves of halves of the longest."""
    longest = max(len(spans_of(text)) for text in subject.x)
    return max(2, 4 * longest * longest // 3)


def _few(subject: Subject) -> int | None:
    """Return how many coalitions are drawn: all of few players, 2,048 of many."""
    players = _players(subject, {})
    return None if players <= _LARGEST else 2048


def register() -> None:
    """Enter the cards of all methods with a call form of their own."""
    black_box: dict[str, Any] = {
        "takes": "predict",
        "needs": frozenset({"background"}),
        "kinds": TABLE,
    }
    of_trees: dict[str, Any] = {
        "takes": "tree",
        "refuses": trees.why_no_trees,
        "kinds": TABLE,
        "units_of": lambda subject: trees.read_trees(subject.model).units,
        "units": "probability; of boosting the raw score",
        "promises": "rows",
    }
    either: dict[str, Any] = {
        "takes": "predict",
        "kinds": TABLE | PICTURE,
        "extra": frozenset({"cells"}),
        "promises": "background",
    }
    for card in (
        Card("lime_tabular", lime.lime_tabular, title="LIME", run=_lime_tabular,
             rows=_samples("n_samples", 1000), **black_box),
        Card("lime_image", lime.lime_image, title="LIME", takes="predict", kinds=PICTURE,
             run=_lime_image, rows=_samples("n_samples", 1000)),
        Card("lime_text", lime.lime_text, title="LIME", takes="predict", kinds=TEXT,
             run=_of_words(lime.lime_text), rows=_samples("n_samples", 1000)),
        Card("owen_text", games.owen_text, title="Owen values of words", takes="predict",
             kinds=TEXT, promises="baseline", run=_owen_text, rows=_owen_texts),
        Card("kernel_shap", shapley.kernel_shap, needs=frozenset({"background"}),
             title="Kernel SHAP", run=_shap(shapley.kernel_shap), rows=_coalitions,
             defaults={"n_samples": _few}, **either),
        Card("permutation_shap", shapley.permutation_shap, needs=frozenset({"background"}),
             title="permutation SHAP", run=_shap(shapley.permutation_shap),
             rows=_walks, **either),
        Card("linear_shap", shapley.linear_shap, needs=frozenset({"background"}),
             title="linear SHAP", takes="linear", units="decision function", kinds=TABLE,
             run=_linear_shap),
        Card("tree_shap", trees.tree_shap, title="tree SHAP", run=_of_tree(trees.tree_shap),
             **of_trees),
        Card("path_attribution", trees.path_attribution, title="path of the tree (Saabas)",
             run=_of_tree(trees.path_attribution), **of_trees),
        Card("token_attributions", sequences.token_attributions, needs=frozenset({"gradient"}),
             title="integrated gradients of words", titles=_OF_WORDS, takes="tokens", kinds=TEXT,
             run=_token_attributions, rows=_samples("n_steps", 200)),
        Card("band_occlusion", sequences.band_occlusion, title="occlusion of bands",
             kinds=PICTURE, run=_band_occlusion),
    ):  # fmt: skip
        METHODS[card.name] = card
