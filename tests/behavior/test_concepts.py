"""A graph of which every link is computed by hand, and peers for each kind of link."""

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from captum.attr import LayerFeatureAblation
from scipy.stats import norm, pearsonr
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from tests.snapshots import Boom, tripped, unchanged
from tests.toys import BAD_INPUTS, inputs, linear, toy
from xailab.behavior.concepts import knowledge_graph, write_graphml
from xailab.behavior.surrogates import Rule, rules_of

# Two units read the two numbers of a row; the classes are unit 0 and unit 0 + 2 * unit 1.
NET = nn.Sequential(nn.Identity(), linear([[1.0, 0.0], [1.0, 2.0]]))
X = torch.tensor([[4.0, -1.0], [2.0, 1.0], [1.0, 3.0], [0.0, 5.0]])  # says 0, 1, 1, 1
Y = [0, 0, 1, 1]
NAMES = ("left", "right")
RULES = [
    Rule({1: (0.0, np.inf)}, 1, 0.75, NAMES),  # fires on the last three rows
    Rule({1: (-np.inf, 0.0)}, 0, 0.25, NAMES),
    Rule({0: (9.0, np.inf)}, 0, 0.0, NAMES),  # never fires
]


def edges(graph: nx.DiGraph, relation: str) -> dict[tuple[str, str], float]:
    return {(a, b): d["weight"] for a, b, d in graph.edges(data=True) if d["relation"] == relation}


def test_links_by_hand() -> None:
    graph = knowledge_graph(NET, X, Y, layer="0", rules=RULES, class_names=["a", "b"])
    assert edges(graph, "raises") == pytest.approx(
        {
            ("0: unit 0", "a"): 3.0,  # mean of 4 and 2
            ("0: unit 1", "b"): 8.0,  # mean of 2 * 3 and 2 * 5
            ("0: unit 0", "b"): 0.5,  # mean of 1 and 0
        }
    )  # unit 1 does nothing for class a: no link
    assert edges(graph, "concludes") == pytest.approx({("rule 0", "b"): 2 / 3, ("rule 1", "a"): 1})
    assert edges(graph, "taken for") == {("a", "b"): 0.5}
    assert edges(graph, "goes with") == {}  # four rows prove nothing
    assert graph.nodes["rule 0"] == {
        "kind": "rule",
        "rule": 0,
        "text": "IF right > 0 THEN 1",
        "coverage": 0.75,
        "class": "b",
    }


def many() -> tuple[Tensor, Tensor]:
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    return x, NET(x).argmax(1)


def test_rules_are_joined_to_units_that_go_with_them() -> None:
    """The weight is scipy's correlation; rule 0 asks unit 1 alone, and unit 0 is not joined."""
    x, y = many()
    found = edges(knowledge_graph(NET, x, y, layer="0", rules=RULES[:1]), "goes with")
    expected = pearsonr(x[:, 1].numpy(), RULES[0].fires(x.numpy())).statistic
    assert found == pytest.approx({("0: unit 1", "rule 0"): expected}, abs=1e-9)


def test_chance_joins_at_most_one_graph_in_twenty() -> None:
    """A rule about a third number that no unit sees: the promise is 5 % for all pairs."""
    rules = [Rule({0: (0.0, np.inf)}, 1, 0.5, ("noise",))]
    x, y = many()
    joined = [
        bool(edges(knowledge_graph(NET, x, y, layer="0", rules=rules, features=z), "goes with"))
        for z in np.random.default_rng(0).normal(size=(200, 300, 1))
    ]
    assert 0 < sum(joined) <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_the_limit_of_chance() -> None:
    """Two pairs: 1.25 % on each side, Fisher's z of 300 rows."""
    x, y = many()
    limit = np.tanh(norm.isf(0.0125) / np.sqrt(297))
    table = x[:, :1].numpy()
    units = torch.randn(300, 2, generator=torch.Generator().manual_seed(3))
    rule = Rule({0: (0.0, np.inf)}, 0, 0.5, ("first",))
    for strength in np.linspace(0, 0.5, 21):
        seen = units + strength * x[:, :1].repeat(1, 2)
        graph = knowledge_graph(NET, seen, y, layer="0", rules=[rule], features=table)
        near = [abs(pearsonr(seen[:, u].numpy(), table[:, 0] > 0).statistic) for u in (0, 1)]
        shown = [graph.has_edge(f"0: unit {u}", "rule 0") for u in (0, 1)]
        assert shown == [value > limit for value in near]


def test_raises_is_captums_layer_ablation() -> None:
    model, x, y = toy().eval(), inputs(12), torch.arange(12) % 4
    graph = knowledge_graph(model, x, y, layer="relu2", n_units=5)
    masks = torch.arange(5).view(1, 5, 1, 1).expand(1, 5, 4, 4)
    peer = LayerFeatureAblation(model, model.relu2).attribute(x, target=y, layer_mask=masks)
    drops = peer[:, :, 0, 0].detach()
    for c in range(4):
        for unit in range(5):
            mean = float(drops[y == c, unit].mean())
            edge = graph.get_edge_data(f"relu2: unit {unit}", f"class {c}")
            assert (edge is None) == (mean <= 1e-7)  # a change by rounding is no link
            assert edge is None or edge["weight"] == pytest.approx(mean, abs=1e-5)


def test_the_strongest_units_and_the_most_used_rules() -> None:
    x, _ = many()
    y = (x[:, 1] > x[:, 0]).long()
    tree = DecisionTreeClassifier(max_leaf_nodes=6).fit(x.numpy(), y.numpy())
    rules = rules_of(tree, NAMES)
    graph = knowledge_graph(NET, x, y, layer="0", rules=rules, n_units=1, n_rules=2)
    kinds = [kind for _, kind in graph.nodes(data="kind")]
    assert (kinds.count("class"), kinds.count("rule")) == (2, 4)
    assert edges(graph, "raises").keys() == {("0: unit 0", "class 0"), ("0: unit 1", "class 1")}
    for c in (0, 1):
        used = [rule.fires(x.numpy()).mean() for rule in rules if rule.conclusion == c]
        shown = [d["coverage"] for _, d in graph.nodes(data=True) if d.get("class") == f"class {c}"]
        assert sorted(shown) == pytest.approx(sorted(used)[-2:])


def test_graphml_comes_back_as_it_went(tmp_path: Path) -> None:
    graph = knowledge_graph(NET, X, Y, layer="0", rules=RULES)
    path = write_graphml(graph, tmp_path / "new" / "graph.graphml")
    again = nx.read_graphml(path)
    assert dict(again.nodes(data=True)) == dict(graph.nodes(data=True))
    assert {(a, b): d for a, b, d in again.edges(data=True)} == {
        (a, b): d for a, b, d in graph.edges(data=True)
    }


def test_a_graph_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.graphml"
    path.write_text("old")
    with pytest.raises(nx.NetworkXError):
        write_graphml(nx.DiGraph([("a", "b", {"weight": object()})]), path)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_left_behind(dtype: torch.dtype) -> None:
    model, x = toy(dtype), inputs(dtype=dtype)
    with unchanged(model, x):
        knowledge_graph(model, x, [0, 1, 2], layer="relu2")


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 2, 4])
def test_nothing_is_left_behind_on_error(error: type[BaseException], after: int) -> None:
    model, x = tripped(toy(), error, after), inputs()
    with unchanged(model, x), pytest.raises(error):
        knowledge_graph(model, x, [0, 1, 2], layer="relu2")


@pytest.mark.parametrize(("x", "error", "words"), BAD_INPUTS)
def test_bad_x(x: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        knowledge_graph(toy(), x, [0, 1, 2], layer="relu2")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"layer": "relu3"}, ValueError, "no layer 'relu3'; near names: relu2"),
        ({"y": [0, 1, 4]}, ValueError, r"y, the classes.*0\.\.3.*4"),
        ({"y": [0, 1]}, ValueError, r"y, the classes.*\(3,\)"),
        ({"y": [0.0, 1.0, 2.0]}, TypeError, "y, the classes.*float"),
        ({"y": None}, ValueError, "y, the classes.*None"),
        ({"class_names": ["a", "b"]}, ValueError, r"4 different names, got \['a', 'b'\]"),
        ({"class_names": ["a"] * 4}, ValueError, "4 different names"),
        ({"class_names": ["a", "b", "c", "rule 1"]}, ValueError, r"named as rules.*'rule 1'"),
        ({"rules": ["IF a"]}, TypeError, "those of rules_of, got str"),
        ({"n_units": 0}, ValueError, "n_units must be at least 1"),
        ({"n_rules": 1.5}, TypeError, "n_rules must be an integer"),
        ({"rules": RULES}, ValueError, r"shape \(N, 2\), got \(3, 192\)"),
        (
            {"features": np.zeros((2, 2)), "rules": RULES},
            ValueError,
            "features holds 2 rows, x holds 3",
        ),
        (
            {"features": np.zeros((3, 1)), "rules": [Rule({}, 7, 1.0, ("a",))]},
            ValueError,
            r"classes 0\.\.3, got 7 in: ALWAYS 7",
        ),
        (
            {"features": np.zeros((3, 1)), "rules": [Rule({}, "cat", 1.0, ("a",))]},
            ValueError,
            "got 'cat'",
        ),
    ],
)
def test_bad_words(change: dict[str, Any], error: type[Exception], words: str) -> None:
    options: dict[str, Any] = {"y": [0, 1, 2], "layer": "relu2", **change}
    with pytest.raises(error, match=words):
        knowledge_graph(toy(), inputs(), options.pop("y"), **options)


def test_one_logit_joins_units_to_its_two_classes() -> None:
    """The score of class 0 is the constant 0, so that nothing raises it; that of class 1 is x."""
    net = nn.Sequential(nn.Identity(), linear([[1.0, 2.0]]))
    for one in (net, nn.Sequential(*net, nn.Flatten(0))):
        graph = knowledge_graph(one, X, Y, layer="0")
        assert edges(graph, "raises") == pytest.approx(
            {("0: unit 1", "class 1"): 8.0, ("0: unit 0", "class 1"): 0.5}
        )
        assert edges(graph, "taken for") == {("class 0", "class 1"): 1.0}  # 2, 4 and 7, 10


class Tokens(nn.Module):
    """(N, T, 2) tokens; each class is the mean of one feature over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = linear([[1.0, 0.0], [0.0, 1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x).mean(1)


def test_units_of_tokens_lie_on_their_last_axis() -> None:
    """Three tokens of two features: unit 0 off takes the mean of feature 0 away, 2 and 1."""
    x = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], [[1.0, 4.0], [1.0, 5.0], [1.0, 6.0]]])
    graph = knowledge_graph(Tokens(), x, [0, 1], layer="mix")
    assert edges(graph, "raises") == pytest.approx(
        {("mix: unit 0", "class 0"): 2.0, ("mix: unit 1", "class 1"): 5.0}
    )


def test_attention_weights_have_no_units() -> None:
    class Attentive(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.softmax = nn.Softmax(-1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.softmax(x @ x.transpose(1, 2)) @ x).mean(1)

    with pytest.raises(ValueError, match=r"'softmax' gives.*nothing tells which axis"):
        knowledge_graph(Attentive(), torch.rand(2, 3, 2), [0, 1], layer="softmax")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_links_of_single(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Identity(), linear([[1.0, 0.0], [1.0, 2.0]])).to(dtype)
    graph = knowledge_graph(net, X.to(dtype), Y, layer="0", rules=RULES)
    want = knowledge_graph(NET, X, Y, layer="0", rules=RULES)
    for relation in ("raises", "concludes", "taken for"):
        assert edges(graph, relation) == pytest.approx(edges(want, relation), rel=0.01)


def test_networks_that_answer_nan_are_refused() -> None:
    class Broken(nn.Module):
        def __init__(self, scores: float, unit: float) -> None:
            super().__init__()
            self.unit, self.last = nn.Hardtanh(), nn.Identity()
            self.scores, self.value = scores, unit

        def forward(self, x: Tensor) -> Tensor:
            self.last(self.value * x)
            return self.scores * x

    with pytest.raises(ValueError, match="8 scores that are NaN"):
        knowledge_graph(Broken(torch.nan, 1.0), X, Y, layer="last")
    with pytest.raises(ValueError, match="'last' gives 8 NaN or infinity"):
        knowledge_graph(Broken(1.0, torch.nan), X, Y, layer="last")


def test_numpys_integers_conclude_and_texts_of_borders_are_true() -> None:
    """The border between 2009 and 2010 is printed as such, and not as 2010."""
    years = np.arange(2006, 2014)[:, None]
    x = torch.as_tensor(years, dtype=torch.float32) - 2000
    tree = DecisionTreeClassifier().fit(years, years[:, 0] >= 2010)
    rules = [
        rule._replace(conclusion=np.int64(rule.conclusion)) for rule in rules_of(tree, ["year"])
    ]
    net = nn.Sequential(nn.Identity(), linear([[-1.0], [1.0]]))
    graph = knowledge_graph(net, x, [0] * 4 + [1] * 4, layer="0", rules=rules, features=years)
    texts = {text for _, text in graph.nodes(data="text") if text}
    assert texts == {"IF year <= 2009.5 THEN 0", "IF year > 2009.5 THEN 1"}


def test_models_without_classes_or_units() -> None:
    narrow = nn.Sequential(
        linear([[1.0, 1.0]]), nn.Flatten(0), nn.Unflatten(0, (-1, 1)), linear([[1.0], [2.0]])
    )
    with pytest.raises(ValueError, match=r"layer '1' gives \(\d,\): it has no units"):
        knowledge_graph(narrow, X, Y, layer="1")
