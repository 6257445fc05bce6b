"""Activations, importance, mining and clusters against paper, captum and slow second versions."""

from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor, nn

from tests.toys import linear
from xailab import data
from xailab.core.layers import edited
from xailab.foundations.activations import (
    cluster_units,
    layer_activations,
    layer_conductance,
    neuron_importance,
    top_inputs,
)
from xailab.models import digit_cnn, digit_cnn_marked

METHODS = ["conductance", "activation_x_gradient", "ablation"]


def hand_net() -> nn.Sequential:
    """x -> h = relu(x, x - 1, 2 - x) -> 2 h1 - 3 h2 + h3."""
    hidden = linear([[1.0], [1.0], [-1.0]], [0.0, -1.0, 2.0])
    return nn.Sequential(hidden, nn.ReLU(), linear([[2.0, -3.0, 1.0]]))


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    rows = data.load("mnist5k").images[[0, 900, 1800, 2700]]
    return (
        digit_cnn(),
        torch.tensor(rows / 255, dtype=torch.float32)[:, None],
        torch.tensor([0, 1, 3, 9]),
    )


# ---- by hand ----------------------------------------------------------------------------------


def test_activations_by_hand() -> None:
    found = layer_activations(hand_net(), torch.tensor([[3.0], [0.5]]), ["1", "2"])
    assert list(found) == ["1", "2"]
    assert found["1"].tolist() == [[3.0, 2.0, 0.0], [0.5, 0.0, 1.5]]
    assert found["2"].tolist() == [[0.0], [2.5]]


@pytest.mark.parametrize("method", ["activation_x_gradient", "ablation"])
def test_importance_by_hand(method: str) -> None:
    # Behind the layer all is linear: both are weight times activation.
    got = neuron_importance(hand_net(), torch.tensor([[3.0]]), 0, layer="1", method=method)
    assert got.tolist() == [[6.0, -6.0, 0.0]]


def test_conductance_by_hand() -> None:
    # From x = 0 to 3: h1 rises 0 -> 3, h2 0 -> 2 and h3 falls 2 -> 0, which counts although h3 is
    # 0 at the end. In 300 steps the ends and the kinks cost up to a step: 6 / 300.
    got = layer_conductance(hand_net(), torch.tensor([[3.0]]), 0, layer="1", n_steps=300)
    torch.testing.assert_close(got, torch.tensor([[6.0, -6.0, -2.0]]), rtol=0, atol=0.03)


def test_conductance_of_two_steps_by_hand() -> None:
    # f = h^2 with h = x, from 0 to 1. Three Gauss-Legendre points: 1/2 and 1/2 -+ sqrt(3/5) / 2.
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.h(x) ** 2

    d = (3 / 5) ** 0.5 / 2
    want = 2 * (0.5 - d) * d + 2 * 0.5 * d
    x = torch.ones(1, 1, dtype=torch.float64)
    got = layer_conductance(Square(), x, 0, layer="h", n_steps=2)
    assert got.item() == pytest.approx(want, abs=1e-12)


def test_ablation_switches_off_a_whole_channel_and_shares_its_drop_out() -> None:
    # score = max over places of channel 1, plus 5 times the sum of channel 2
    class Peaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.maps(x)
            return x[:, :1].amax((2, 3)) + 5 * x[:, 1:].sum((2, 3))

    x = torch.tensor([[[[4.0, 1.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]])
    got = neuron_importance(Peaks(), x, 0, layer="maps", method="ablation")
    assert got[0, 0].tolist() == [[1.0, 1.0], [1.0, 1.0]]  # a drop of 4 over 4 places
    assert got[0, 1].tolist() == [[1.25, 1.25], [1.25, 1.25]]


def test_ablation_counts_what_a_gradient_misses() -> None:
    # min(h1, h2) with h = (1, 1.5): the gradient sees h1 alone, but without h2 all is lost as well.
    class Least(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.h(x).amin(1)

    x = torch.tensor([[1.0, 1.5]])
    by = {m: neuron_importance(Least(), x, None, layer="h", method=m).tolist() for m in METHODS[1:]}
    assert by == {"activation_x_gradient": [[1.0, 0.0]], "ablation": [[1.0, 1.0]]}


def counting(layer: nn.Module, rows: list[int]) -> None:
    layer.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))


def test_silent_units_are_not_run_and_what_lies_below_runs_on_one_row() -> None:
    net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(6, 2))
    below: list[int] = []
    above: list[int] = []
    counting(net[0], below)
    counting(net[2], above)
    x = torch.tensor([[1.0, -1.0, 2.0, -1.0, -1.0, 3.0]])
    got = neuron_importance(net, x, 0, layer="1", method="ablation", batch_size=10)
    assert below == [1, 1, 1]
    assert above == [1, 2, 3]  # the score; may a row become two? yes; three units are not silent
    assert (got[0] != 0).tolist() == [True, False, True, False, False, True]
    silent = neuron_importance(net, -x.abs(), 0, layer="1", method="ablation")
    assert not silent.any()


class Joined(nn.Module):
    """Its head wants as many rows as the input had, so no row may multiply on the way."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.h, self.mean = nn.Identity(), mean

    def forward(self, x: Tensor) -> Tensor:
        h = self.h(x)
        other = h.mean(1, keepdim=True) if self.mean else x[:, :1]
        return torch.cat([h**2, 3 * other], 1).reshape(len(x), -1).sum(1)


@pytest.mark.parametrize("mean", [True, False])
def test_ablation_where_rows_may_not_multiply(mean: bool) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    got = neuron_importance(Joined(mean), x, None, layer="h", method="ablation")
    torch.testing.assert_close(got, x**2 + (1.5 * x if mean else 0))


def test_top_inputs_by_hand() -> None:
    maps = torch.tensor([[0.0, 3.0], [5.0, 0.0], [3.0, 1.0], [-1.0, -2.0]]).reshape(4, 1, 1, 2)
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    found = top_inputs(net, maps, layer="0", unit=0, k=3)
    assert found.rows.tolist() == [1, 0, 2]  # of the two with 3, the first comes first
    assert found.activations.tolist() == [5.0, 3.0, 3.0]
    assert found.places.tolist() == [[0, 0], [0, 1], [0, 0]]
    dense = top_inputs(net, maps, layer="1", unit=1, k=1)
    assert (dense.rows.tolist(), dense.places.shape) == ([0], (1, 0))


def test_clusters_by_hand() -> None:
    # Columns 0, 2 and 4 rise together, 1 and 3 fall together, 5 never moves.
    up = torch.tensor([0.0, 1.0, 4.0, 2.0])
    units = torch.stack([up, 7 - up, 2 * up, -up, up + 9, 0 * up + 3], 1)
    assert cluster_units(units, 2).tolist() == [0, 1, 0, 1, 0, -1]
    # With positions, every position is one more sample.
    maps = units.reshape(2, 2, 6).permute(0, 2, 1)
    assert cluster_units(maps, 2).tolist() == [0, 1, 0, 1, 0, -1]


# ---- integers, axes, precision, rows in company -------------------------------------------------


@pytest.mark.parametrize("as_given", [np.int64, np.uint8, np.array, torch.tensor, np.int8])
def test_a_unit_is_an_integer_of_any_kind(as_given: Any) -> None:
    x = torch.tensor([[1.0, 0.0, 4.0], [3.0, 9.0, 2.0]])
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    for unit, (row, value) in enumerate([(1, 3.0), (1, 9.0), (0, 4.0)]):
        found = top_inputs(net, x, layer="0", unit=as_given(unit), k=as_given(1))
        assert (found.rows.tolist(), found.activations.tolist()) == ([row], [value])


@pytest.mark.parametrize("unit", [True, 1.0, "1", None, [1], np.array([1, 2])])
def test_what_is_no_integer_is_no_unit(unit: Any) -> None:
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    with pytest.raises(TypeError, match="unit must be an integer"):
        top_inputs(net, torch.ones(2, 3), layer="0", unit=unit, k=1)


class Tokens(nn.Module):
    """(N, 3, 2): three tokens of two numbers -> ReLU of a linear layer (N, 3, 4) -> one score."""

    def __init__(self, first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lift = nn.Conv1d(2, 4, 1) if first else nn.Linear(2, 4)
        self.relu, self.head, self.first = nn.ReLU(), nn.Linear(12, 2), first

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.lift(x.movedim(2, 1) if self.first else x))
        return self.head((h.movedim(1, 2) if self.first else h).flatten(1))


def tokens_twice() -> tuple[Tokens, Tokens, Tensor]:
    """The same network with its units on the last axis and on axis 1."""
    last, first = Tokens(), Tokens(first=True)
    first.load_state_dict(last.state_dict() | {"lift.weight": last.lift.weight[:, :, None]})
    return last, first, torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
def test_units_of_tokens_are_on_the_last_axis(method: str) -> None:
    last, first, x = tokens_twice()
    target = [0, 1, 0, 1, 1]
    ours = neuron_importance(last, x, target, layer="relu", method=method)
    theirs = neuron_importance(first, x, target, layer="relu", method=method)
    assert ours.shape == (5, 3, 4)
    torch.testing.assert_close(ours, theirs.movedim(1, 2))


def test_mining_and_clusters_of_tokens() -> None:
    last, first, x = tokens_twice()
    for unit in range(4):
        ours, theirs = (top_inputs(net, x, layer="relu", unit=unit, k=3) for net in (last, first))
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert ours.places.tolist() == theirs.places.tolist()
        torch.testing.assert_close(ours.activations, theirs.activations)
    with pytest.raises(ValueError, match=r"unit must lie in 0\.\.3, got 4"):
        top_inputs(last, x, layer="relu", unit=4, k=1)
    ours, theirs = (layer_activations(net, x, "lift")["lift"] for net in (last, first))
    assert torch.equal(cluster_units(ours, 2, axis=2), cluster_units(theirs, 2))
    for axis in (0, 3):
        with pytest.raises(ValueError, match="axis must lie in"):
            cluster_units(ours, 2, axis=axis)


def test_clusters_of_tiny_and_huge_numbers() -> None:
    units = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 2.0], [2.0, 1.0, 4.0]]).double()
    for size in (1e-180, 1e180):
        assert cluster_units(units * size, 2).tolist() == cluster_units(units, 2).tolist()


@pytest.mark.parametrize(
    ("dtype", "rel"), [(torch.float64, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
@pytest.mark.parametrize("method", METHODS)
def test_importance_in_every_precision(method: str, dtype: torch.dtype, rel: float) -> None:
    last, _, x = tokens_twice()
    want = neuron_importance(last, x, 1, layer="relu", method=method)
    got = neuron_importance(last.to(dtype), x.to(dtype), 1, layer="relu", method=method)
    assert got.dtype == dtype
    atol = rel * want.abs().max().item()
    torch.testing.assert_close(got.float(), want, rtol=rel, atol=atol)


@pytest.mark.parametrize("batch_size", [1, 7, 64, None])
def test_conductance_of_many_rows_is_that_of_each(batch_size: int | None) -> None:
    """Chunks end and begin anywhere on the paths."""
    x, target = torch.randn(6, 1), [0, 0, 0, 0, 0, 0]
    options: dict[str, Any] = {"layer": "1", "n_steps": 9, "baseline": 0.5}
    got = layer_conductance(hand_net(), x, target, batch_size=batch_size, **options)
    alone = [layer_conductance(hand_net(), row[None], 0, **options) for row in x]
    torch.testing.assert_close(got, torch.cat(alone))


def test_nothing_silent_where_no_gradient_reaches_the_layer() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.head = nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.relu(x).detach())

    for method in METHODS[:2]:
        with pytest.raises(ValueError, match="no gradient reaches layer 'relu'"):
            neuron_importance(Cut(), torch.ones(2, 3), 0, layer="relu", method=method)


def test_rows_that_influence_each_other_are_refused() -> None:
    class Centered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(x) - x.mean(0)

    x = torch.randn(4, 3)
    for call in (
        lambda net: layer_activations(net, x, "relu"),
        lambda net: top_inputs(net, x, layer="relu", unit=0, k=1),
        *(lambda net, m=m: neuron_importance(net, x, 0, layer="relu", method=m) for m in METHODS),
    ):
        with pytest.raises(ValueError, match="influence each other"):
            call(Centered())


def test_ablation_of_many_rows_shares_what_lies_below() -> None:
    net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(6, 2))
    below: list[int] = []
    x = torch.rand(10, 6) + 0.1
    whole = neuron_importance(net, x, 0, layer="1", method="ablation")
    counting(net[0], below)
    got = neuron_importance(net, x, 0, layer="1", method="ablation", batch_size=12)
    torch.testing.assert_close(got, whole)
    torch.testing.assert_close(got, x * net[2].weight[0])
    # five chunks of twelve pairs, two rows each; before them the trials and the scores
    assert below[-5:] == [2] * 5


# ---- a second version, straight from the formula ------------------------------------------------


@pytest.mark.parametrize("layer", ["relu1", "pool2", "gap"])
def test_ablation_equals_zeroing_one_channel_after_the_other(
    digits: tuple[nn.Module, Tensor, Tensor], layer: str
) -> None:
    model, x, target = digits
    got = neuron_importance(model, x, target, layer=layer, method="ablation")
    bare = model(x)
    for k in range(got.shape[1]):

        def off(module: nn.Module, given: Any, output: Tensor, k: int = k) -> Tensor:
            kept = torch.ones(output.shape[1])
            kept[k] = 0
            return output * kept[:, None, None]

        handle = model.get_submodule(layer).register_forward_hook(off)
        drop = (bare - model(x)).gather(1, target[:, None])[:, 0]
        handle.remove()
        torch.testing.assert_close(got[:, k].flatten(1).sum(1), drop, rtol=0, atol=1e-4)


def test_top_inputs_equal_a_search_through_all_activations(
    digits: tuple[nn.Module, Tensor, Tensor],
) -> None:
    model, x = digits[:2]
    maps = layer_activations(model, x, "relu2")["relu2"]
    for unit in range(32):
        found = top_inputs(model, x, layer="relu2", unit=unit, k=4, batch_size=3)
        for row, value, (i, j) in zip(*found, strict=True):
            assert maps[row, unit, i, j] == maps[row, unit].max()
            torch.testing.assert_close(maps[row, unit, i, j], value, rtol=0, atol=1e-5)
        assert (found.activations.diff() <= 0).all()


def test_clusters_equal_scipy(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x = digits[:2]
    maps = layer_activations(model, x, "relu3")["relu3"]
    labels = cluster_units(maps, 8)
    live = labels >= 0
    samples = maps.movedim(1, -1).reshape(-1, 64)[:, live]
    tree = linkage(samples.T.double().numpy(), "average", metric="correlation")
    theirs = fcluster(tree, 8, "maxclust")
    together = labels[live][:, None] == labels[live][None]
    assert np.array_equal(together.numpy(), theirs[:, None] == theirs[None])
    sizes = torch.bincount(labels[live])
    assert (sizes.diff() <= 0).all()
    assert torch.equal(labels, cluster_units(maps.clone(), 8))


# ---- the peers --------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv1", "relu2", "pool2", "relu3", "gap", "fc"])
@pytest.mark.parametrize("n_steps", [1, 7, 50])
def test_conductance_equals_captum(
    digits: tuple[nn.Module, Tensor, Tensor], layer: str, n_steps: int
) -> None:
    model, x, target = digits
    peer = captum.attr.LayerConductance(model, model.get_submodule(layer))
    baseline = torch.full_like(x, 0.1)
    theirs = peer.attribute(x, baseline, target, n_steps=n_steps).detach()
    ours = layer_conductance(model, x, target, layer=layer, baseline=0.1, n_steps=n_steps)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_activation_x_gradient_equals_captum(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, target = digits
    peer = captum.attr.LayerGradientXActivation(model, model.relu2)
    theirs = peer.attribute(x, target).detach()
    ours = neuron_importance(model, x, target, layer="relu2", method="activation_x_gradient")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_ablation_equals_captum(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Captum gives the whole drop to every position of a group, ours shares it out."""
    model, x, target = digits
    peer = captum.attr.LayerFeatureAblation(model, model.relu3)
    mask = torch.arange(64)[None, :, None, None].expand(1, 64, 7, 7)
    theirs = peer.attribute(x, target=target, layer_mask=mask).detach()
    ours = neuron_importance(model, x, target, layer="relu3", method="ablation")
    torch.testing.assert_close(49 * ours, theirs, rtol=1e-4, atol=1e-4)


def test_activations_equal_captum(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x = digits[:2]
    theirs = captum.attr.LayerActivation(model, model.pool2).attribute(x).detach()
    torch.testing.assert_close(layer_activations(model, x, "pool2")["pool2"], theirs)


# ---- what is claimed ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n_steps", "share"), [(50, 0.02), (200, 0.005)])
@pytest.mark.parametrize("layer", ["relu1", "relu2", "relu3"])
def test_conductance_is_complete_in_the_limit(
    digits: tuple[nn.Module, Tensor, Tensor], layer: str, n_steps: int, share: float
) -> None:
    model, x, target = digits[0], digits[1][:2], digits[2][:2]
    found = layer_conductance(model, x, target, layer=layer, n_steps=n_steps)
    scores, empty = model(x).gather(1, target[:, None])[:, 0], model(torch.zeros_like(x[:1]))[0]
    want = scores - empty[target]
    gap = (found.flatten(1).sum(1) - want).abs()
    assert (gap <= share * want.abs().max()).all(), gap


@pytest.mark.parametrize("method", METHODS[1:])
def test_before_a_linear_head_gradient_and_ablation_are_exact(
    digits: tuple[nn.Module, Tensor, Tensor], method: str
) -> None:
    """The units' importances and the bias add up to the logit, and each is weight x average."""
    model, x, target = digits
    found = neuron_importance(model, x, target, layer="relu3", method=method).sum((2, 3))
    pooled = layer_activations(model, x, "gap")["gap"].flatten(1)
    torch.testing.assert_close(found, model.fc.weight[target] * pooled, rtol=1e-4, atol=1e-4)


def test_a_baseline_tensor_broadcasts(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, _ = digits
    options = {"layer": "gap", "n_steps": 5}
    one = layer_conductance(model, x, 2, baseline=torch.full((28, 28), 0.5), **options)
    torch.testing.assert_close(one, layer_conductance(model, x, 2, baseline=0.5, **options))
    at_itself = layer_conductance(model, x, 2, baseline=x, **options)
    assert not at_itself.any()


def test_the_unit_that_reads_the_planted_mark_is_found() -> None:
    """Known answer: importance, mining and switching off all point at one unit of relu3."""
    test, model = data.marked_digits().test, digit_cnn_marked()
    x = torch.tensor(test.images)[:, None]
    fooled = test.marked & (test.y != 8)

    def called_8() -> np.ndarray:
        with torch.no_grad():
            return (model(x).argmax(1) == 8).numpy()[fooled]

    rows = np.flatnonzero(fooled)[called_8()][:30]
    found = neuron_importance(model, x[rows], 8, layer="relu3", method="ablation")
    peaks = layer_activations(model, x, "relu3")["relu3"].amax((2, 3))
    marked = torch.tensor([test.marked[peaks[:, u].topk(50).indices].mean() for u in range(64)])
    unit = int(marked.argmax())
    assert marked[unit] == 1.0  # half of all test digits are marked
    assert marked.topk(2).values[1] < 0.8  # no other unit is like it
    mined = top_inputs(model, x, layer="relu3", unit=unit, k=50)
    assert test.marked[mined.rows].all()
    assert (mined.places <= 2).all()  # the mark lies in rows and columns 1 to 6 of 28
    assert unit in found.sum((2, 3)).mean(0).topk(2).indices
    before = called_8().mean()
    with edited(model, "relu3", lambda output: output.index_fill(1, torch.tensor(unit), 0)):
        assert called_8().mean() < before / 2


# ---- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, x: layer_activations(m, x, []), ValueError, "layers is empty"),
        (
            lambda m, x: neuron_importance(m, x, 0, layer="gap", method="shapley"),
            ValueError,
            "'conductance', 'activation_x_gradient', 'ablation'.*'shapley'",
        ),
        (lambda m, x: layer_conductance(m, x, 0, layer="gap", n_steps=0), ValueError, "n_steps"),
        (lambda m, x: layer_conductance(m, x, 0, layer="gap", n_steps=2.0), TypeError, "n_steps"),
        (
            lambda m, x: layer_conductance(m, x, 0, layer="gap", baseline=float("nan")),
            ValueError,
            "baseline.*NaN",
        ),
        (
            lambda m, x: layer_conductance(m, x, 0, layer="gap", baseline=torch.zeros(3)),
            ValueError,
            r"baseline of shape \(3,\).*x \(4, 1, 28, 28\)",
        ),
        (lambda m, x: top_inputs(m, x, layer="gap", unit=64, k=1), ValueError, r"0\.\.63, got 64"),
        (lambda m, x: top_inputs(m, x, layer="gap", unit=-1, k=1), ValueError, "unit"),
        (lambda m, x: top_inputs(m, x, layer="gap", unit=1.0, k=1), TypeError, "unit.*float"),
        (lambda m, x: top_inputs(m, x, layer="gap", unit=0, k=0), ValueError, "k must"),
        (lambda m, x: top_inputs(m, x, layer="gap", unit=0, k=5), ValueError, "4 inputs.*got 5"),
    ],
)
def test_refusals_say_what_came(
    digits: tuple[nn.Module, Tensor, Tensor], call: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(*digits[:2])


@pytest.mark.parametrize(
    ("activations", "n_clusters", "error", "words"),
    [
        (torch.tensor([[1.0, float("nan")]]), 1, ValueError, "NaN"),
        (torch.ones(3), 1, ValueError, r"\(3,\)"),
        (torch.ones(3, 2, dtype=torch.int64), 1, TypeError, "int64"),
        (torch.ones(3, 2), 1, ValueError, "0 of the units vary.*1 clusters"),
        (torch.rand(3, 2), 3, ValueError, "2 of the units vary.*3 clusters"),
        (torch.rand(3, 2), 0, ValueError, "n_clusters"),
        (torch.rand(3, 2), 1.5, TypeError, "n_clusters"),
    ],
)
def test_clusters_refuse(
    activations: Tensor, n_clusters: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cluster_units(activations, n_clusters)


def test_a_layer_without_units_is_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = nn.Flatten(0)

        def forward(self, x: Tensor) -> Tensor:
            return self.total(x)

    x = torch.ones(3, 1)
    for call in (
        lambda: top_inputs(Flat(), x, layer="total", unit=0, k=1),
        lambda: neuron_importance(Flat(), x, None, layer="total", method="ablation"),
    ):
        with pytest.raises(ValueError, match=r"'total' gives .*no units"):
            call()


def test_a_layer_that_does_not_answer_row_by_row_is_refused() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.flat(x.flatten()).reshape(x.shape)

    with pytest.raises(ValueError, match="not one answer a row"):
        layer_activations(Mixed(), torch.ones(3, 2), "flat")
