"""Games: Shapley and Owen values against paper, all orders, and the shap package."""

from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import shap
import torch
from torch import Tensor, nn

from tests.oracles import flat, owen
from tests.snapshots import Snapshot
from tests.toys import inputs, toy
from xailab.attribution.games import (
    halves,
    owen_of_game,
    owen_text,
    owen_values,
    shapley_interactions,
    shapley_of_game,
)

Array = np.ndarray
Game = Callable[[frozenset[int]], float]


def random_game(n: int, seed: int = 0) -> Game:
    worths = np.random.default_rng(seed).normal(size=2**n)
    return lambda team: float(worths[sum(2**player for player in team)])


def over(orders: Any, value: Game, n: int) -> Array:
    """Average what each player adds over some orders: the definition, slow and plain."""
    found = np.zeros(n)
    for order in orders:
        for at, player in enumerate(order):
            before = frozenset(order[:at])
            found[player] += (value(before | {player}) - value(before)) / len(orders)
    return found


def orders_of(groups: Any) -> list[tuple[int, ...]]:
    """All orders in which every group comes as one block, and so do the groups in it."""
    if isinstance(groups, int):
        return [(groups,)]
    inner = [orders_of(part) for part in groups]
    return [
        sum(blocks, ())
        for way in permutations(range(len(groups)))
        for blocks in product(*(inner[i] for i in way))
    ]


# ---- games -------------------------------------------------------------------------------------


def test_three_players_by_hand() -> None:
    """1 earns 10, 2 earns 20, 0 nothing; 0 and 1 together earn 30 more.

    0 adds 30 in the orders where it comes after 1 (half of them), and so does 1 after 0.
    """

    def value(team: frozenset[int]) -> float:
        return 10 * (1 in team) + 20 * (2 in team) + 30 * ({0, 1} <= team)

    assert shapley_of_game(value, 3).tolist() == pytest.approx([15, 25, 20])
    pairs = shapley_interactions(value, 3)
    want = np.array([[0.0, 15, 0], [15, 10, 0], [0, 0, 20]])  # 30 split in two halves
    np.testing.assert_allclose(pairs, want, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_a_game_equals_all_orders(n: int) -> None:
    game = random_game(n)
    np.testing.assert_allclose(
        shapley_of_game(game, n), over(list(permutations(range(n))), game, n), atol=1e-12
    )


def test_interactions_by_the_other_definition() -> None:
    """Half of what i and j gain together, over what they gain apart, behind those who came first.

    In all orders that hold the pair as one player: those before it are its coalition.
    """
    n, game = 5, random_game(5)
    found = shapley_interactions(game, n)
    for i, j in [(0, 1), (1, 3), (2, 4)]:
        gains = []
        for order in permutations([p for p in range(n) if p != j]):
            before = frozenset(order[: order.index(i)])
            both = game(before | {i, j}) + game(before)
            gains.append(both - game(before | {i}) - game(before | {j}))
        assert found[i, j] == pytest.approx(np.mean(gains) / 2)


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_efficiency_of_games_and_of_interactions(n: int) -> None:
    game = random_game(n, seed=n)
    shares, pairs = shapley_of_game(game, n), shapley_interactions(game, n)
    everybody = game(frozenset(range(n))) - game(frozenset())
    assert shares.sum() == pytest.approx(everybody)
    np.testing.assert_allclose(pairs.sum(1), shares, atol=1e-12)
    np.testing.assert_allclose(pairs, pairs.T)


def test_who_adds_nothing_gets_nothing_and_equals_get_the_same() -> None:
    shares = shapley_of_game(lambda team: float(len(team - {3}) ** 2), 4)
    assert shares.tolist() == pytest.approx([3, 3, 3, 0])


@pytest.mark.parametrize(
    ("n", "error", "words"),
    [(0, ValueError, "players"), (21, ValueError, r"2\^21.*at most 20"), (2.0, TypeError, "float")],
)
def test_bad_numbers_of_players(n: Any, error: type[Exception], words: str) -> None:
    for function in (shapley_of_game, shapley_interactions):
        with pytest.raises(error, match=words):
            function(lambda team: 0.0, n)


@pytest.mark.parametrize("function", [shapley_of_game, shapley_interactions])
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (lambda team: np.nan, ValueError, r"value\(coalition\).*NaN"),
        (lambda team: [1.0, 2.0], TypeError, "one number, got"),
        (lambda team: np.ones(2), TypeError, "one number, got"),
        (lambda team: "much", TypeError, "'much'"),
        (lambda team: None, TypeError, "None"),
        ({}, TypeError, "function, got dict"),
    ],
)
def test_what_is_no_game(function: Any, value: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        function(value, 2)


# ---- players in groups ---------------------------------------------------------------------------

NESTED = [
    [0, 1, 2, 3],
    [[0], [1], [2]],
    [[0, 1], [2, 3]],
    [[3, 0], 1, [4, 2]],
    [[0, [1, 5]], [[2, 3], 4]],
    [[[0, 1], [2]], [3, [4, 5]]],
]


def test_owen_by_hand() -> None:
    """Who holds 0 and one of 1, 2 earns 1. Orders in which 1 and 2 come together: 0 first, or last.

    012, 021: the second comes and earns it. 120, 210: 0 earns it. So 0 gets 2/4, 1 and 2 get 1/4.
    If 0 goes with 1: 012, 102 (the block first): 1 and 0 earn; 201, 210: 0 earns, then 0 again.
    """
    glove = lambda team: float(0 in team and len(team) > 1)  # noqa: E731
    assert owen_of_game(glove, [0, [1, 2]]).tolist() == pytest.approx([1 / 2, 1 / 4, 1 / 4])
    assert owen_of_game(glove, [[0, 1], 2]).tolist() == pytest.approx([3 / 4, 1 / 4, 0])
    assert owen_of_game(glove, [[0, 1, 2]]).tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])


@pytest.mark.parametrize("groups", NESTED)
def test_owen_is_the_mean_over_orders_in_blocks(groups: Any) -> None:
    n = len(flat(groups))
    game = random_game(n, seed=n)
    got = owen_of_game(game, groups)
    np.testing.assert_allclose(got, over(orders_of(groups), game, n), atol=1e-12)
    assert got.sum() == pytest.approx(game(frozenset(range(n))) - game(frozenset()))


@pytest.mark.parametrize("groups", NESTED)
def test_owen_is_what_owen_defined(groups: Any) -> None:
    """The oracle of the table: a game among the members, of what they would get in its place."""
    game = random_game(6, seed=1)
    want = owen(game, groups)
    got = owen_of_game(game, groups)
    np.testing.assert_allclose(got, [want[i] for i in range(len(want))], atol=1e-12)


def test_one_group_or_none_is_shapley_and_groups_share_as_players() -> None:
    game = random_game(5)
    want = shapley_of_game(game, 5)
    for groups in ([0, 1, 2, 3, 4], [[4, 1, 2, 3, 0]], [[0], [1], [2], [3], [4]]):
        np.testing.assert_allclose(owen_of_game(game, groups), want, atol=1e-12)
    blocks = [[0, 3], [1], [2, 4]]
    among = shapley_of_game(lambda team: game(frozenset(flat([blocks[i] for i in team]))), 3)
    got = owen_of_game(game, blocks)
    np.testing.assert_allclose([got[block].sum() for block in blocks], among, atol=1e-12)


def linkage(n: int) -> Array:
    """Halves of halves of 0..n-1 as shap takes them, n a power of two."""
    rows, level, size = [], list(range(n)), 2
    while len(level) > 1:
        pairs = list(zip(level[::2], level[1::2], strict=True))
        level = [n + len(rows) + i for i in range(len(pairs))]
        rows += [[one, two, size, size] for one, two in pairs]
        size *= 2
    return np.array(rows, dtype=float)


@pytest.mark.parametrize("n", [4, 8, 16])
def test_halves_equal_shaps_partitions(n: int) -> None:
    """shap computes them too, as long as `max_evals` lets it split every group."""
    game = random_game(n, seed=n)
    predict = lambda rows: np.array([game(frozenset(np.flatnonzero(row).tolist())) for row in rows])  # noqa: E731
    masker = shap.maskers.Partition(np.zeros((1, n)), clustering=linkage(n))
    peer = shap.PartitionExplainer(predict, masker)
    want = peer(np.ones((1, n)), max_evals=10**6, silent=True).values[0]
    got = owen_of_game(game, halves(np.arange(n)[:, None]))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_halves_by_hand() -> None:
    """A picture of 2 x 4 is cut across its long side, squares across rows; of three, 2 and 1."""
    places = [[row, column] for row in range(2) for column in range(4)]
    assert halves(places) == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    assert halves([[2.0], [0.0], [1.0]]) == [[1, 2], 0]
    assert halves([[5.0]]) == [0]
    with pytest.raises(ValueError, match="positions must be a table"):
        halves([1.0, 2.0])


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ([[0, 1], [1, 2]], ValueError, r"once, got \[0, 1, 1, 2\]"),
        ([[0, 1], [3]], ValueError, r"once, got \[0, 1, 3\]"),
        ([], ValueError, r"once, got \[\]"),
        ([[0, 1], []], ValueError, "empty list"),
        ([[0, 1.0]], TypeError, "a player in groups.*float"),
        ("01", TypeError, "a player in groups.*str"),
        (list(range(21)), ValueError, r"4\.4e.07 coalitions.*at most 1,048,576.*more finely"),
        (list(range(500)), ValueError, "more than can be enumerated"),
    ],
)
def test_bad_groups(groups: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        owen_of_game(lambda team: 0.0, groups)


# ---- features in groups --------------------------------------------------------------------------


def test_values_of_a_product_by_hand() -> None:
    """x0 max(x1, x2) from 0 to (2, 3, 3) is six times the game above."""
    product_of = lambda x: x[:, 0] * torch.maximum(x[:, 1], x[:, 2])  # noqa: E731
    x = torch.tensor([[2.0, 3.0, 3.0]])
    assert owen_values(product_of, x, None, groups=[0, [1, 2]]).tolist() == [[3, 1.5, 1.5]]
    assert owen_values(product_of, x, None, groups=[[0, 1], 2]).tolist() == [[4.5, 1.5, 0]]
    base = torch.tensor([[0.0, 1.0, 3.0]])  # now x2 is there from the start
    got = owen_values(product_of, x, None, groups=[[0, 1], 2], baseline=base)
    assert got.tolist() == [[6, 0, 0]]


def game_of(net: nn.Module, row: Tensor, base: Tensor, target: int) -> Game:
    def value(team: frozenset[int]) -> float:
        mixed = base.clone()
        mixed[sorted(team)] = row[sorted(team)]
        with torch.no_grad():
            return net(mixed[None])[0, target].item()

    return value


def test_a_network_equals_the_game_that_it_plays() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, base, groups = torch.randn(2, 6).double(), torch.randn(6).double(), [[0, 3], [1, [2, 4]], 5]
    before = Snapshot(net, x)
    got = owen_values(net, x, torch.tensor([2, 0]), groups=groups, baseline=base)
    before.check()
    for row, found, target in zip(x, got, [2, 0], strict=True):
        want = over(orders_of(groups), game_of(net, row, base, target), 6)
        np.testing.assert_allclose(found.numpy(), want, atol=1e-12)


def test_labels_name_the_groups() -> None:
    """Numbers with one label are one feature; groups are lists of labels, whatever they are."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x, label = torch.randn(2, 6).double(), torch.tensor([10, -3, 10, 7, 7, 10])
    got = owen_values(net, x, None, groups=[[7, -3], 10], feature_mask=label)
    members = {7: [3, 4], -3: [1], 10: [0, 2, 5]}
    names = [7, -3, 10]
    for row, found in zip(x, got, strict=True):
        game = game_of(net, row, torch.zeros(6).double(), 0)
        whole = lambda team, game=game: game(frozenset(flat([members[names[i]] for i in team])))  # noqa: E731
        want = over(orders_of([[0, 1], 2]), whole, 3)
        for name, value in zip(names, want, strict=True):
            np.testing.assert_allclose(found[members[name]].numpy(), value, atol=1e-12)


def squares(side: int, cells: int) -> Tensor:
    at = torch.arange(side) * cells // side
    return at[:, None] * cells + at


def test_64_squares_of_a_picture_sum_to_its_score() -> None:
    """2^64 coalitions cannot be asked; halves of halves are asked in 5,461 rows at most."""
    model, x, label = toy(torch.float64).eval(), inputs(2, dtype=torch.float64), squares(8, 8)
    asked = 0

    def counted(rows: Tensor) -> Tensor:
        nonlocal asked
        asked += len(rows)
        return model(rows)

    got = owen_values(counted, x, 1, feature_mask=label, baseline=0.3)
    assert 2000 < asked / len(x) < 4 / 3 * 64**2 + 20
    with torch.no_grad():
        change = model(x)[:, 1] - model(torch.full_like(x, 0.3))[:, 1]
    torch.testing.assert_close(got[:, 0].flatten(1).sum(1), change, rtol=0, atol=1e-10)
    assert (got == got[:, :1]).all()  # channels of a square have the square's value


def test_positions_halve_what_is_not_grouped() -> None:
    """Four quarters: the upper two go together, as a tie between the sides goes to the rows."""
    model, x, label = toy(torch.float64).eval(), inputs(2, dtype=torch.float64), squares(8, 2)
    got = owen_values(model, x, 1, feature_mask=label)
    want = owen_values(model, x, 1, feature_mask=label, groups=[[0, 1], [2, 3]])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    other = owen_values(model, x, 1, feature_mask=label, groups=[[0, 2], [1, 3]])
    assert (got - other).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "columns of a table have no position.*say groups=.*shapley_values"),
        ({"groups": [[0, 1], [2]]}, ValueError, r"each of the 4 labels.*0..3, got \[0, 1, 2\]"),
        ({"groups": [[0, 1], [1, 2, 3]]}, ValueError, r"once.*got \[0, 1, 1, 2, 3\]"),
        ({"groups": [[0, 1], [2, 3.0]]}, TypeError, "a player in groups.*float"),
        ({"groups": [0, 1], "feature_mask": torch.ones(4)}, TypeError, "integers"),
    ],
)
def test_bad_groups_of_features(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        owen_values(nn.Linear(4, 1), torch.ones(1, 4), None, **options)


def test_too_many_features_and_masks_of_each_row() -> None:
    with pytest.raises(ValueError, match=r"coalitions.*more finely.*coarser feature_mask"):
        owen_values(nn.Linear(40, 1), torch.ones(1, 40), None, groups=list(range(40)))
    masks = torch.stack([squares(8, 2), squares(8, 4)])[:, None]
    with pytest.raises(ValueError, match=r"each row has a feature_mask of its own: say groups="):
        owen_values(toy().eval(), inputs(2), 0, feature_mask=masks)


# ---- words ---------------------------------------------------------------------------------------


def test_words_by_hand() -> None:
    """ "good" without "not" is 1. Halves: (not, a), (good, film).

    The block (not, a) first: "not" takes nothing, "good" adds nothing. Second: "good" added 1,
    "not" takes it. So half of the orders give 1 to "good" and -1 to "not".
    """
    good = lambda texts: np.array([float("good" in t and "not" not in t) for t in texts])  # noqa: E731
    found = owen_text(good, "not a good film", None)
    assert found.words == ["not", "a", "good", "film"]
    assert found.weights.tolist() == [-0.5, 0, 0.5, 0]
    twice = owen_text(lambda texts: np.array([t.count("so") for t in texts]), "so so!", None)
    assert (twice.words, twice.weights.tolist()) == (["so", "so", "!"], [1, 1, 0])


def test_texts_are_asked_with_their_blanks_and_what_hides() -> None:
    asked: set[str] = set()

    def predict(texts: list[str]) -> Array:
        asked.update(texts)
        return np.array([len(t) for t in texts])

    owen_text(predict, " a b, c", None)  # in halves: (a, b), (",", c)
    assert {" a b, c", "   ", " a , c", "  b ", " a b ", " a  "} <= asked
    assert " a  c" not in asked  # a without b, with half of the other half
    asked.clear()
    owen_text(predict, "a b", None, hide="[MASK]")
    assert asked == {"a b", "[MASK] b", "a [MASK]", "[MASK] [MASK]"}


def test_a_long_text_and_phrases() -> None:
    """Sixty words: worth the square of how many are there; by symmetry each gets 60."""
    text = " ".join(["word"] * 60)
    found = owen_text(lambda texts: np.array([len(t.split()) ** 2 for t in texts]), text, None)
    np.testing.assert_allclose(found.weights, np.full(60, 60.0), atol=1e-8)
    glove = lambda texts: np.array([float("a" in t and ("b" in t or "c" in t)) for t in texts])  # noqa: E731
    phrases = owen_text(glove, "a b c", None, groups=[0, [1, 2]])
    assert phrases.weights.tolist() == pytest.approx([1 / 2, 1 / 4, 1 / 4])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"text": ["a"]}, TypeError, "must be strings"),
        ({"hide": None}, TypeError, "must be strings"),
        ({"text": " "}, ValueError, "no word"),
        ({"groups": [0, 1]}, ValueError, r"each of the 3 words once, 0..2, got \[0, 1\]"),
        ({"predict": 3}, TypeError, "function, got int"),
        ({"target": 1}, ValueError, "single output"),
    ],
)
def test_bad_texts(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    usual = {"predict": lambda texts: np.zeros(len(texts)), "text": "a b c", "target": None}
    with pytest.raises(error, match=words):
        owen_text(**{**usual, **changes})
