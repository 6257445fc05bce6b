"""Sharing out what a game is worth: Shapley values, interactions, and players in groups.

Lesson `shap` teaches this file. The Shapley value averages over all orders in which players could
come. Where players belong together, the Owen value takes only the orders in which a group comes as
one block: a question of its own, and one that costs far fewer coalitions.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from numbers import Real
from operator import add
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from xailab.attribution.lime import WordWeights
from xailab.attribution.occlusion import check_feature_mask
from xailab.core.black_boxes import ask_in_chunks, chosen_of
from xailab.core.checks import Model, Target, as_integer, check_baseline, check_input
from xailab.core.coalitions import all_coalitions, countable, order_weight, shared_out
from xailab.core.registry import grid_of, method
from xailab.core.scores import variant_scores
from xailab.core.subjects import Subject
from xailab.core.tables import finite_floats
from xailab.core.words import spans_of

Array = np.ndarray

_MOST = 2**20  # coalitions that are looked at, before those that are the same are put together


def shapley_of_game(value: Callable[[frozenset[int]], float], n_players: int) -> Array:
    r"""Share out what a game is worth, straight from the definition.

    $$\phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n - |S| - 1)!}{n!}
      \big(v(S \cup i) - v(S)\big)$$

    Args:
        value: $v$, what a coalition (a frozenset of players 0..n-1) is worth.
        n_players: n.

    Returns:
        (n,) float64, in units of the worth; the sum is v(all) - v(nobody).

    Raises:
        TypeError: `n_players` is not an integer, a worth is not a number.
        ValueError: n below 1, too many players to enumerate, or a worth that is NaN or infinite.

    Reference: Shapley (1953), A value for n-person games.

    >>> glove = {frozenset({0, 1}): 1.0, frozenset({0, 2}): 1.0, frozenset({0, 1, 2}): 1.0}
    >>> shapley_of_game(lambda team: glove.get(team, 0.0), 3).round(3)
    array([0.667, 0.167, 0.167])
    """
    return shared_out(_game(value, all_coalitions(countable(n_players, "players"))))


def shapley_interactions(value: Callable[[frozenset[int]], float], n_players: int) -> Array:
    r"""Split the shares into what players add alone and what they add only together.

    $$\phi_{ij} = \sum_{S \subseteq N \setminus \{i, j\}}
      \frac{|S|!\,(n - |S| - 2)!}{2\,(n - 1)!}
      \big(v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)\big), \qquad
      \phi_{ii} = \phi_i - \sum_{j \ne i} \phi_{ij}$$

    Args:
        value: what a coalition (a frozenset of players 0..n-1) is worth.
        n_players: n, at least 1.

    Returns:
        (n, n) float64, symmetric; row i sums to the Shapley value of player i.

    Raises:
        TypeError, ValueError: as `shapley_of_game`.

    Reference: Grabisch, Roubens (1999), An axiomatic approach to the concept of interaction among
        players in cooperative games; Lundberg et al. (2020), From local explanations to global
        understanding with explainable AI for trees (the half, and the diagonal).
    Elsewhere: shap `TreeExplainer.shap_interaction_values`.

    >>> shapley_interactions(lambda team: float(len(team) == 2), 2)  # worth 1 only together
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    n = countable(n_players, "players")
    masks = all_coalitions(n)
    worths = _game(value, masks)
    found = np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        without = ~masks[:, i] & ~masks[:, j]
        base, sizes = np.flatnonzero(without), masks[without].sum(1)
        weights = np.array([order_weight(size, n - 1) / 2 for size in sizes])
        both = worths[base + 2**i + 2**j] - worths[base + 2**i] - worths[base + 2**j]
        found[i, j] = found[j, i] = weights @ (both + worths[base])
    return found + np.diag(shared_out(worths) - found.sum(1))


def owen_of_game(value: Callable[[frozenset[int]], float], groups: Sequence[Any]) -> Array:
    r"""Share out what a game is worth among players in groups, and groups of groups.

    $$\phi_i = \sum_{H \subseteq M \setminus k} \sum_{T \subseteq B_k \setminus i}
      \frac{h!\,(m - h - 1)!}{m!} \, \frac{t!\,(b_k - t - 1)!}{b_k!}
      \big(v(\cup H \cup T \cup i) - v(\cup H \cup T)\big)$$

    Player i is one of the $b_k$ in the group $B_k$, which is one of the m in M; H are h whole
    groups, T are t others of the own group. It is the mean over those orders in which every group
    comes as one block. Groups in groups add one such sum for each level.

    The difference to Shapley: no coalition has a part of another group. The groups share as single
    players, then each divides what it got; so a player's value depends on whom it is grouped
    with. One group of all, or each player in a group of its own, is the Shapley value.

    Args:
        value: $v$, what a coalition (a frozenset of players 0..n-1) is worth.
        groups: nested lists of the players, like `[[0, 1], [2, [3, 4]]]`.

    Returns:
        (n,) float64, in units of the worth; the sum is v(all) - v(nobody).

    Raises:
        TypeError: groups that are no lists of integers; as `shapley_of_game`.
        ValueError: players missing or named twice; groups too large to enumerate; as
            `shapley_of_game`.

    Reference: Owen (1977), Values of games with a priori unions; Winter (1989), A value for
        cooperative games with levels structure of cooperation (groups of groups).

    >>> glove = {frozenset({0, 1}): 1.0, frozenset({0, 2}): 1.0, frozenset({0, 1, 2}): 1.0}
    >>> worth = lambda team: glove.get(team, 0.0)
    >>> owen_of_game(worth, [0, 1, 2]).round(3), owen_of_game(worth, [0, [1, 2]])
    (array([0.667, 0.167, 0.167]), array([0.5 , 0.25, 0.25]))
    """
    players = sorted(_members(groups))
    if players != list(range(len(players))) or not players:
        raise ValueError(f"groups must name each of the players 0..n-1 once, got {players}")
    masks, parts = _owen_sums(groups, len(players))
    return parts @ _game(value, masks)


@method(
    title="Owen values",
    promises="baseline",
    defaults={"feature_mask": grid_of(8)},
    rows=lambda subject, options: _count_owen(subject, options),
)
def owen_values(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    groups: Sequence[Any] | None = None,
    feature_mask: Tensor | None = None,
    baseline: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Exact Owen values: Shapley values where features come in groups, and groups of groups.

    $$\phi_i = \sum_{H \subseteq M \setminus k} \sum_{T \subseteq B_k \setminus i}
      \frac{h!\,(m - h - 1)!}{m!} \, \frac{t!\,(b_k - t - 1)!}{b_k!}
      \big(f_t(x_{\cup H \cup T \cup i}) - f_t(x_{\cup H \cup T})\big)$$

    The symbols are those of `owen_of_game`; $x_S$ has the features of S from x and the others from
    the baseline. With `groups=None` the features of pictures and sequences are halved by their
    position, and the halves again: n features then ask about $\frac43 n^2$ coalitions and not
    $2^n$, so that 64 patches of a picture, or 64 words, have exact values.

    The difference to Shapley: features of one half are never shown without the rest of it to the
    other half. What neighbors do together stays with them; what a patch does together with one far
    away is divided by the halves that they are in.

    Args:
        model: maps (N, ...) to scores (N, K) or (N,); any function of tensors.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        groups: nested lists of the labels of `feature_mask`; None halves by position. Of a table,
            whose columns have no position, it has to be given.
        feature_mask: integers that broadcast to a row of `x`: numbers with one label are one
            feature. None: each number by itself.
        baseline: what stands in for a missing feature: a number, or a tensor that broadcasts.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x`, in units of the score. Every number of a feature carries the feature's
        value, as in `shapley_values`; over features it sums to $f_t(x) - f_t(b)$.

    Raises:
        TypeError: as for `shapley_values`; groups that are no lists of integers.
        ValueError: as for `shapley_values`; groups that do not name each label once, or are too
            large to enumerate; a table without groups.

    Reference: Owen (1977), Values of games with a priori unions; Winter (1989), A value for
        cooperative games with levels structure of cooperation.
    Elsewhere: shap `PartitionExplainer`, which stops after `max_evals` and divides what is left of
        a group equally.

    >>> product = lambda x: x[:, 0] * (x[:, 1] + x[:, 2])  # x1 and x2 act through x0 alone
    >>> owen_values(product, torch.tensor([[2.0, 3.0, 3.0]]), None, groups=[0, [1, 2]])
    tensor([[6., 3., 3.]])
    """
    x = check_input(model, x).detach()
    start = check_baseline(baseline, x)
    names, label = check_feature_mask(feature_mask, x).unique(return_inverse=True)
    made = _grouped(groups, names.tolist(), label)
    masks, parts = _owen_sums(made, len(names))
    shown = torch.as_tensor(masks, device=x.device)
    label = label.expand(x.shape)

    def composed(rows: Tensor, numbers: Tensor) -> Tensor:
        seen = shown[numbers].gather(1, label[rows].flatten(1)).reshape(len(rows), *x.shape[1:])
        return torch.where(seen, x[rows], start[rows])

    worths = variant_scores(model, x, target, len(masks), composed, batch_size=batch_size)
    found = torch.as_tensor((parts @ worths.double().cpu().numpy().T).T, device=x.device)
    return found.gather(1, label.flatten(1)).reshape(x.shape).to(x.dtype)


def owen_text(
    predict: Callable[[list[str]], Any],
    text: str,
    target: int | None,
    *,
    groups: Sequence[Any] | None = None,
    hide: str = "",
    batch_size: int | None = None,
) -> WordWeights:
    r"""Exact Owen values of the words of a text: Shapley values where neighbors belong together.

    $$\phi_i = \sum_{H \subseteq M \setminus k} \sum_{T \subseteq B_k \setminus i}
      \frac{h!\,(m - h - 1)!}{m!} \, \frac{t!\,(b_k - t - 1)!}{b_k!}
      \big(f_t(x_{\cup H \cup T \cup i}) - f_t(x_{\cup H \cup T})\big)$$

    The symbols are those of `owen_of_game`; $x_S$ is the text with the words of S. The features
    are the words, as `words_of` finds them, each place by itself. A word is missing where `hide`
    stands in its place. n words ask about $\frac43 n^2$ texts, where all coalitions would be
    $2^n$.

    Args:
        predict: maps a list of texts to (M,) or (M, K).
        text: what is explained.
        target: which of K outputs, or None for a single one.
        groups: nested lists of places of words, 0..n-1, like phrases in sentences; None halves the
            text, and the halves again.
        hide: what stands in place of a missing word: nothing, or a model's own mask.
        batch_size: texts evaluated at once; None measures.

    Returns:
        `WordWeights(words, weights)`, in units of the score; the sum is the score of the text minus
        that of a text whose words are all hidden.

    Raises:
        TypeError: as `lime_text`; groups that are no lists of integers.
        ValueError: as `lime_text`; groups that do not name each place once, or are too large.

    Reference: Owen (1977), Values of games with a priori unions; Winter (1989), A value for
        cooperative games with levels structure of cooperation.
    Elsewhere: shap `PartitionExplainer` with `maskers.Text`.

    >>> good = lambda texts: np.array([float("good" in t and "not" not in t) for t in texts])
    >>> owen_text(good, "not a good film", None).weights.tolist()
    [-0.5, 0.0, 0.5, 0.0]
    """
    if not (isinstance(text, str) and isinstance(hide, str)):
        raise TypeError(f"text and hide must be strings, got {text!r:.40} and {hide!r:.40}")
    spans = spans_of(text)
    if not spans:
        raise ValueError(f"there is no word in {text!r:.60}")
    places = list(range(len(spans)))
    made = halves(np.array(spans)[:, :1]) if groups is None else _renamed(groups, places, "words")
    masks, parts = _owen_sums(made, len(spans))

    def read(some: Array) -> Array:
        texts = [_left(text, spans, row, hide) for row in some]
        return chosen_of(predict(texts), len(texts), target)

    worths = ask_in_chunks(predict, read, masks, batch_size=batch_size)
    return WordWeights([text[a:b] for a, b in spans], parts @ worths)


def without_words(text: str, hide: str = "") -> str:
    """Return a text whose words are all hidden: `owen_text` starts from its score.

    >>> without_words("a good film", "_")
    '_ _ _'
    """
    spans = spans_of(text)
    return _left(text, spans, np.zeros(len(spans), dtype=bool), hide)


def _left(text: str, spans: list[tuple[int, int]], shown: Array, hide: str) -> str:
    """Return the text with some of its words hidden."""
    starts = [0, *(end for _, end in spans)]
    words = [text[a:b] if seen else hide for (a, b), seen in zip(spans, shown, strict=True)]
    blanks = [text[a:b] for a, (b, _) in zip(starts, spans, strict=False)]
    return "".join(map(add, blanks, words)) + text[spans[-1][1] :]


def halves(positions: Any) -> list[Any]:
    """Group points by where they are: two halves along the longest side, halved again and again.

    Args:
        positions: (n, D), where each player is.

    Returns:
        Nested pairs of the numbers 0..n-1, as `owen_of_game` takes them.

    Raises:
        TypeError, ValueError: no table of finite numbers.

    Elsewhere: shap's `maskers.Image` cuts pictures so; a k-d tree.

    >>> halves([[0.0], [1.0], [2.0], [3.0]])
    [[0, 1], [2, 3]]
    """
    points = finite_floats("positions", positions, 2)
    made = _halved(points, np.arange(len(points)))
    return made if isinstance(made, list) else [made]


def _halved(points: Array, some: Array) -> Any:
    if len(some) == 1:
        return int(some[0])
    here = points[some]
    order = some[np.argsort(here[:, np.ptp(here, axis=0).argmax()], kind="stable")]
    middle = (len(order) + 1) // 2
    return [_halved(points, order[:middle]), _halved(points, order[middle:])]


def _members(groups: Any) -> list[int]:
    """Return all players of nested lists."""
    if isinstance(groups, (list, tuple)):
        return [player for one in groups for player in _members(one)]
    return [as_integer("a player in groups", groups)]


def _grouped(groups: Any, names: list[int], label: Tensor) -> Any:
    """Return nested lists of the numbers of the features, 0..n-1."""
    if groups is None:
        return _by_position(label, len(names))
    return _renamed(groups, names, "labels of feature_mask")


def _renamed(groups: Any, names: list[int], what: str) -> Any:
    """Return nested lists of 0..n-1 for those of the n names, each of which stands there once."""
    told = sorted(_members(groups))
    if told != names:
        few = f"{told[:9]}{'...' if len(told) > 9 else ''}"
        raise ValueError(
            f"groups must name each of the {len(names)} {what} once, {names[0]}..{names[-1]}, "
            f"got {few}"
        )
    numbers = {name: number for number, name in enumerate(names)}

    def renamed(one: Any) -> Any:
        if isinstance(one, (list, tuple)):
            return [renamed(part) for part in one]
        return numbers[as_integer("a player in groups", one)]

    return renamed(groups)


def _by_position(label: Tensor, n: int) -> Any:
    """Halve features by the middle of the places that they take."""
    if len(label) > 1:
        raise ValueError("each row has a feature_mask of its own: say groups=, which fits all")
    if label.ndim < 3:
        raise ValueError(
            "the columns of a table have no position to group them by: say groups=, nested lists "
            "such as [[0, 1], [2, 3]]; shapley_values needs none"
        )
    places = np.stack(np.unravel_index(np.arange(label.numel()), label.shape[1:]), 1)
    flat = label.flatten().cpu().numpy()
    sums = np.stack([np.bincount(flat, weights=side, minlength=n) for side in places.T], 1)
    return halves(sums / np.bincount(flat, minlength=n)[:, None])


def _count_owen(subject: Subject, options: Any) -> int:
    """Return how many coalitions are asked about."""
    x = torch.as_tensor(subject.x)
    names, label = check_feature_mask(options.get("feature_mask"), x).unique(return_inverse=True)
    return len(_owen_sums(_grouped(options.get("groups"), names.tolist(), label), len(names))[0])


def _owen_sums(groups: Any, n: int) -> tuple[Array, csr_matrix]:
    """Return coalitions (M, n), and what their worths are multiplied with for each player, (n, M).

    Player i gets, of every company it may come into, the weight of that company times what it adds.
    """
    _check_enumerable(groups)
    players, companies, weights = [], [], []
    for player, company, weight in _companies(groups, n):
        players.append(np.full(len(company), player))
        companies.append(company)
        weights.append(weight)
    who, before, weight = map(np.concatenate, (players, companies, weights))
    after = before.copy()
    after[np.arange(len(after)), who] = True
    every = np.concatenate([after, before])
    _, first, place = np.unique(
        np.packbits(every, axis=1), axis=0, return_index=True, return_inverse=True
    )
    signed = np.concatenate([weight, -weight])
    parts = csr_matrix((signed, (np.tile(who, 2), place.ravel())), (n, len(first)))
    return every[first], parts


def _companies(groups: Any, n: int) -> list[tuple[int, Array, Array]]:
    """Return for each player who may be there before it, (C, n) bools, and how often, (C,)."""
    found, waiting = [], [(groups, np.zeros((1, n), dtype=bool), np.ones(1))]
    while waiting:
        group, company, weight = waiting.pop()
        if not isinstance(group, (list, tuple)):
            found.append((int(group), company, weight))
            continue
        blocks = np.zeros((len(group), n), dtype=bool)
        for block, part in zip(blocks, group, strict=True):
            block[_members(part)] = True
        teams = all_coalitions(len(group) - 1)  # of the other blocks
        often = np.array([order_weight(k, len(group)) for k in range(len(group))])[teams.sum(1)]
        for k, part in enumerate(group):
            came = teams @ np.delete(blocks, k, axis=0)
            both = (company[:, None] | came).reshape(-1, n)
            waiting.append((part, both, np.outer(weight, often).ravel()))
    return found


def _check_enumerable(groups: Any) -> None:
    """Refuse groups with too many coalitions before any is made."""

    def count(part: Any, companies: float) -> float:
        if not isinstance(part, (list, tuple)):
            return 2 * companies
        if not part:
            raise ValueError("groups has an empty list")
        inner = companies * 2.0 ** min(len(part) - 1, 200)
        return sum(count(one, inner) for one in part)

    needed = count(groups, 1.0)
    if needed > _MOST:
        raise ValueError(
            f"these groups have {needed:.3g} coalitions, more than can be enumerated (at most "
            f"{_MOST:,}): group them more finely (halves of halves, as groups=None does), or take "
            "fewer features by a coarser feature_mask"
        )


def _game(value: Callable[[frozenset[int]], float], masks: Array) -> Array:
    """Return what coalitions are worth, (M,) float64."""
    if not callable(value):
        raise TypeError(f"value must be a function, got {type(value).__name__}")
    worths = [value(frozenset(np.flatnonzero(mask).tolist())) for mask in masks]
    for worth in worths:
        if not isinstance(worth, (Real, np.bool_, np.ndarray, Tensor)) or np.ndim(worth):
            raise TypeError(f"value must give one number, got {worth!r:.60}")
    return finite_floats("value(coalition)", [float(worth) for worth in worths], 1)
