"""Small networks of every make, drawn at random: each answer is its definition's, or is refused.

Hypothesis draws the networks (always the same ones: `derandomize`), and shrinks what fails to the
plainest network that still fails.
"""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.snapshots import Snapshot
from tests.test_own_networks import refused
from xailab.attribution import cam as cams
from xailab.attribution.occlusion import feature_ablation, occlusion
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.relevance import deep_lift, lrp
from xailab.attribution.saliency import input_x_gradient, saliency, smoothgrad
from xailab.attribution.shapley import shapley_values
from xailab.core.folding import folded
from xailab.foundations.activations import neuron_importance
from xailab.foundations.gradient_flow import bypass
from xailab.simplify.channels import remove_channels
from xailab.simplify.compress import low_rank, prune, quantize
from xailab.trust.adversarial import fgsm
from xailab.trust.bit_faults import flip_bits

MODULES: dict[str, Callable[[bool], nn.Module]] = {
    "relu": lambda inplace: nn.ReLU(inplace),
    "tanh": lambda inplace: nn.Tanh(),
    "gelu": lambda inplace: nn.GELU(),
    "silu": lambda inplace: nn.SiLU(inplace),
    "sigmoid": lambda inplace: nn.Sigmoid(),
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu, "silu": F.silu, "sigmoid": torch.sigmoid
}  # fmt: skip
# Where sums are taken in another order, this share of the largest number may be lost.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
SHAPES = {"table": (5,), "sequence": (2, 6), "picture": (2, 6, 6)}


@dataclass(frozen=True)
class Plan:
    """What a network is made of."""

    layout: str
    depth: int
    width: int
    activation: str
    functional: bool
    inplace: bool
    norm: str
    skip: bool
    pool: str
    flat: bool  # the head reads every position, not their mean
    outputs: int  # 0: (N,)
    bias: bool
    dtype: torch.dtype
    training: bool
    seed: int

    @property
    def axes(self) -> int:
        return len(SHAPES[self.layout]) - 1

    @property
    def exact(self) -> bool:
        return self.dtype == torch.float64


@st.composite
def plans(draw: st.DrawFn, **fixed: st.SearchStrategy[Any]) -> Plan:
    """Draw a plan; `fixed` says of some of its parts what may be drawn."""
    halves = [torch.float16, torch.bfloat16]
    parts: dict[str, st.SearchStrategy[Any]] = {
        "layout": st.sampled_from(["table", "sequence", "picture"]),
        "depth": st.integers(1, 4),
        "width": st.integers(2, 4),
        "activation": st.sampled_from(list(MODULES)),
        "functional": st.booleans(),
        "inplace": st.booleans(),
        "norm": st.sampled_from(["none", "batch", "layer", "group", "instance"]),
        "skip": st.booleans(),
        "pool": st.sampled_from(["none", "max", "avg"]),
        "flat": st.booleans(),
        "outputs": st.sampled_from([3, 1, 0]),
        "bias": st.booleans(),
        "dtype": st.sampled_from([torch.float64, torch.float32, *halves]),
        "training": st.booleans(),
        "seed": st.integers(0, 99),
    }
    return Plan(**{name: draw(fixed.get(name, part)) for name, part in parts.items()})


class Block(nn.Module):
    """Weights, norm, activation, and a way around them."""

    def __init__(self, plan: Plan, wide: int) -> None:
        super().__init__()
        kinds: list[Any] = [nn.Linear, nn.Conv1d, nn.Conv2d]
        more = {"kernel_size": 3, "padding": 1} if plan.axes else {}
        self.weights = kinds[plan.axes](wide, plan.width, bias=plan.bias, **more)
        self.norm = _norm(plan)
        self.act = nn.Identity() if plan.functional else MODULES[plan.activation](plan.inplace)
        self.function = FUNCTIONS[plan.activation] if plan.functional else None
        self.skip = plan.skip and wide == plan.width

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.norm(self.weights(x)))
        out = out if self.function is None else self.function(out)
        return out + x if self.skip else out


def _norm(plan: Plan) -> nn.Module:
    several: dict[str, list[Any]] = {
        "batch": [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d],
        "instance": [None, nn.InstanceNorm1d, nn.InstanceNorm2d],
    }
    if plan.norm == "layer":
        return nn.LayerNorm(6 if plan.axes else plan.width)
    if plan.norm == "group" or (plan.norm == "instance" and plan.axes == 0):
        return nn.GroupNorm(1, plan.width)
    return several[plan.norm][plan.axes](plan.width) if plan.norm in several else nn.Identity()


class Net(nn.Module):
    """Blocks, a pooling, and a linear head: (N, ...) -> (N, K), (N, 1) or (N,)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        wide = [SHAPES[plan.layout][0], *[plan.width] * plan.depth]
        blocks = [Block(plan, one) for one in wide[:-1]]
        kinds: dict[str, list[Any]] = {
            "max": [None, nn.MaxPool1d, nn.MaxPool2d],
            "avg": [None, nn.AvgPool1d, nn.AvgPool2d],
        }
        pooled = plan.axes > 0 and plan.pool != "none"
        pool = [kinds[plan.pool][plan.axes](2)] if pooled else []
        self.body = nn.Sequential(*blocks, *pool)
        mean = [nn.Identity(), nn.AdaptiveAvgPool1d(1), nn.AdaptiveAvgPool2d(1)][plan.axes]
        places = (3 if pooled else 6) ** plan.axes if plan.flat else 1
        self.head = nn.Sequential(
            nn.Identity() if plan.flat else mean,
            nn.Flatten(),
            nn.Linear(plan.width * places, max(plan.outputs, 1), bias=plan.bias),
        )
        self.one = plan.outputs == 0

    def forward(self, x: Tensor) -> Tensor:
        out = self.head(self.body(x))
        return out[:, 0] if self.one else out


def made(plan: Plan) -> tuple[Net, Tensor, Any]:
    """Return a network, two rows for it, and what is to be explained."""
    torch.manual_seed(plan.seed)
    net = Net(plan)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias)
    x = (torch.randn(2, *SHAPES[plan.layout]) * 16).round() / 16  # sums of them are exact
    target = torch.tensor([2, 0]) if plan.outputs == 3 else None
    return net.to(plan.dtype).train(plan.training), x.to(plan.dtype), target


def score(net: nn.Module, x: Tensor, target: Any) -> Tensor:
    """Return the scores of a network that is in evaluation mode, (N,)."""
    out = net(x.clone())
    if target is not None:
        return out[torch.arange(len(out)), target]
    return out.reshape(len(out))


def still(net: Net, dtype: torch.dtype | None = None) -> Net:
    """Return the network by itself, in evaluation mode."""
    copy = deepcopy(net).eval().requires_grad_(False)
    return copy if dtype is None else copy.to(dtype)


def by_hand(net: Net, x: Tensor, target: Any) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(score(still(net), leaf, target).sum(), leaf)[0]


def close(got: Tensor, want: Tensor, scale: float = 0.0) -> None:
    """Compare, up to rounding in proportion to the largest number (or what it was made of).

    Numbers below the smallest normal one have few digits, or one.
    """
    assert got.shape == want.shape, (got.shape, want.shape)
    assert got.dtype == want.dtype, (got.dtype, want.dtype)
    size = max(want.abs().max().item(), scale, torch.finfo(want.dtype).smallest_normal)
    gap = (got.double() - want.double()).abs().max().item()
    assert gap <= ROUNDING[want.dtype] * size, f"off by {gap:.3g} of {size:.3g}"


def answered(call: Callable[[], Any], must: bool = False) -> Any:
    """Return an answer; None if xailab refuses, which it must not where an answer is known."""
    try:
        return call()
    except Exception as error:
        if must or not refused(error):
            raise
        return None


def some(n: int) -> Any:
    health = [HealthCheck.too_slow]
    return settings(
        max_examples=n, deadline=None, derandomize=True, database=None, suppress_health_check=health
    )


# ---- attribution ---------------------------------------------------------------------------------


@some(30)
@given(plans())
def test_gradients_are_those_of_autograd(plan: Plan) -> None:
    net, x, target = made(plan)
    want, before = by_hand(net, x, target), Snapshot(net, x)
    close(saliency(net, x, target), want)
    close(input_x_gradient(net, x, target), x * want)
    close(smoothgrad(net, x, target, noise=0, n_samples=2), want)
    before.check()


@some(20)
@given(plans(), st.sampled_from([0.0, 0.5]))
def test_integrated_gradients_sum_to_the_change_or_warn(plan: Plan, baseline: float) -> None:
    net, x, target = made(plan)
    copy = still(net)
    start = torch.full_like(x, baseline)
    change = (score(copy, x, target) - score(copy, start, target)).double()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = integrated_gradients(net, x, target, baseline=baseline, n_steps=100)
    parts = found.double().flatten(1)
    size = torch.maximum(parts.abs().sum(1), score(copy, x, target).double().abs())
    share = ((parts.sum(1) - change).abs() / size.clamp(min=1e-30)).max().item()
    assert share <= 0.11 + ROUNDING[plan.dtype] or any("misses" in str(one.message) for one in told)
    if plan.exact and plan.activation != "relu" and plan.norm in ("none", "batch"):
        assert share < 0.02 or plan.pool == "max"  # a smooth path, and many steps


@some(25)
@given(plans(), st.sampled_from([0.0, 0.5]))
def test_deep_lift_sums_to_the_change(plan: Plan, baseline: float) -> None:
    net, x, target = made(plan)
    known = not plan.functional and plan.activation != "silu" and plan.norm in ("none", "batch")
    found = answered(lambda: deep_lift(net, x, target, baseline=baseline), must=known)
    if found is not None:
        copy = still(net, torch.float64)
        ends = [score(copy, one.double(), target) for one in (x, torch.full_like(x, baseline))]
        parts = found.double().flatten(1)
        rounding = 1e-3 + torch.finfo(plan.dtype).eps
        size = parts.abs().sum(1) + ends[0].abs() + ends[1].abs()
        assert ((parts.sum(1) - (ends[0] - ends[1])).abs() <= rounding * size).all()


@some(25)
@given(plans(bias=st.just(False), dtype=st.just(torch.float64)))
def test_lrp_conserves_the_score(plan: Plan) -> None:
    net, x, target = made(plan)
    known = not plan.functional and plan.activation != "silu" and plan.norm == "none"
    alone = not any(block.skip for block in net.body if isinstance(block, Block))
    found = answered(lambda: lrp(net, x, target, epsilon=0.0), must=known and alone)
    if found is not None and plan.norm == "none":  # a norm's shift keeps its share
        parts, want = found.flatten(1), score(still(net), x, target)
        size = parts.abs().sum(1) + want.abs()
        assert ((parts.sum(1) - want).abs() <= 1e-6 * size).all()


def _grad_cam(maps: Tensor, slopes: Tensor) -> Tensor:
    heat = sum(slopes[:, k].mean((*range(1, maps.ndim - 1),), keepdim=True) * maps[:, k]
               for k in range(maps.shape[1]))  # fmt: skip
    return heat[:, None].clamp(min=0)


def _layer_cam(maps: Tensor, slopes: Tensor) -> Tensor:
    return (slopes.clamp(min=0) * maps).sum(1, keepdim=True).clamp(min=0)


@some(30)
@given(plans())
def test_cams_weigh_the_maps_as_defined(plan: Plan) -> None:
    net, x, target = made(plan)
    copy = still(net)
    maps = copy.body(x.clone()).requires_grad_()
    out = copy.head(maps)
    rows = torch.zeros(2, dtype=torch.int64) if target is None else target
    (slopes,) = torch.autograd.grad(out[torch.arange(2), rows].sum(), maps)
    for method, define in ((cams.grad_cam, _grad_cam), (cams.layer_cam, _layer_cam)):
        ask = lambda: method(net, x, target, layer="body", upsample=False)  # noqa: B023, E731
        found = answered(ask, must=plan.axes > 0 and plan.norm in ("none", "batch"))
        if found is not None:
            assert plan.axes > 0
            close(found, define(maps, slopes).detach(), scale=(maps * slopes).abs().max().item())
    found = answered(lambda: cams.cam(net, x, target, layer="body", upsample=False))
    if found is not None:
        weights = copy.head[2].weight[rows].reshape(2, plan.width, *[1] * plan.axes)
        assert not plan.flat
        close(found, (weights * maps).sum(1, keepdim=True).detach(), scale=maps.abs().max().item())


def drop(net: Net, x: Tensor, target: Any, covered: Tensor) -> Tensor:
    """Return by how much the score falls when these numbers of x become 0.5, (N,)."""
    copy = still(net)
    other = torch.where(covered, torch.full_like(x, 0.5), x)
    return score(copy, x, target) - score(copy, other, target)


@some(12)
@given(plans(), st.integers(1, 3))
def test_occlusion_is_a_slow_loop(plan: Plan, window: int) -> None:
    net, x, target = made(plan)
    total, hits = torch.zeros_like(x), torch.zeros_like(x)
    scale = score(still(net), x, target).abs().max().item()
    sides = x.shape[-1] - window + 1
    corners = [[i] * (plan.axes or 1) for i in range(sides)]
    if plan.axes == 2:
        corners = [[i, j] for i in range(sides) for j in range(sides)]
    for corner in corners:
        covered = torch.zeros_like(x, dtype=torch.bool)
        covered[(..., *[slice(at, at + window) for at in corner])] = True
        fall = drop(net, x, target, covered).reshape(-1, *[1] * (x.ndim - 1))
        total, hits = total + fall * covered, hits + covered
    found = occlusion(net, x, target, window=window, baseline=0.5)
    close(found, total / hits, scale=scale)


@some(12)
@given(plans())
def test_ablation_and_shapley_by_their_definitions(plan: Plan) -> None:
    net, x, target = made(plan)
    labels = (torch.arange(x[0].numel()) % 3).reshape(x.shape[1:])
    scale = score(still(net), x, target).abs().max().item() + 0.1

    @cache
    def worth(shown: frozenset[int]) -> Tensor:
        missing = torch.stack([labels == k for k in range(3) if k not in shown] or [labels < 0])
        return -drop(net, x, target, missing.any(0).expand_as(x))

    ablated, shares = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(3):
        orders = list(permutations(range(3)))
        before = [frozenset(order[: order.index(k)]) for order in orders]
        added = [worth(shown | {k}) - worth(shown) for shown in before]
        value = torch.stack(added).mean(0).reshape(-1, *[1] * (x.ndim - 1))
        fall = -worth(frozenset(range(3)) - {k}).reshape(value.shape)
        ablated, shares = ablated + fall * (labels == k), shares + value * (labels == k)
    options: dict[str, Any] = {"feature_mask": labels, "baseline": 0.5}
    close(feature_ablation(net, x, target, **options), ablated, scale=scale)
    close(shapley_values(net, x, target, **options), shares, scale=scale)


@some(20)
@given(plans())
def test_a_batch_is_its_rows(plan: Plan) -> None:
    net, x, target = made(plan)
    scale = score(still(net), x, target).abs().max().item()
    methods: list[Any] = [
        saliency,
        lambda *call: integrated_gradients(*call, n_steps=8),
        lambda *call: occlusion(*call, window=2),
        lambda *call: answered(lambda: deep_lift(*call)),
    ]
    for method in methods:
        with warnings.catch_warnings(action="ignore"):  # few steps
            both = method(net, x, target)
            rows = [method(net, x[[i]], target if target is None else target[[i]]) for i in (0, 1)]
        if both is None or any(row is None for row in rows):
            assert both is None
        else:
            close(both, torch.cat(rows), scale=scale)


# ---- trust ---------------------------------------------------------------------------------------


@some(20)
@given(plans(), st.integers(0, 15), st.integers(1, 3), st.integers(0, 9))
def test_a_bit_flipped_twice_is_as_before(plan: Plan, bit: int, n: int, seed: int) -> None:
    net, x, _ = made(plan)
    weight = net.head[2].weight
    before, state = weight.detach().clone(), Snapshot(net, x)
    n = min(n, weight.numel())
    options: dict[str, Any] = {"bit": bit, "n_faults": n, "seed": seed}
    with flip_bits(net, "head.2", **options):
        assert int((weight != before).sum()) == n
        with flip_bits(net, "head.2", **options):
            assert torch.equal(weight, before)
        assert int((weight != before).sum()) == n
    state.check()


@pytest.mark.filterwarnings("ignore:.*gradient")  # rows that nothing moves
@some(30)
@given(plans())
def test_fgsm_steps_along_the_sign_of_the_gradient(plan: Plan) -> None:
    net, x, target = made(plan)
    classes = torch.tensor([1, 0]) if target is None else target
    step = fgsm(net, x, classes, epsilon=0.25, clip=None) - x
    assert step.dtype == x.dtype
    assert set(step.abs().unique().tolist()) <= {0.0, 0.25}
    if plan.exact:
        leaf = x.clone().requires_grad_()
        out = still(net)(leaf.clone()).reshape(2, -1)
        columns = torch.cat([torch.zeros_like(out), out], 1) if target is None else out
        (uphill,) = torch.autograd.grad(F.cross_entropy(columns, classes, reduction="sum"), leaf)
        clear = uphill.abs() > 1e-9 * uphill.abs().flatten(1).amax(1).max()
        assert torch.equal(step[clear], 0.25 * uphill.sign()[clear])
        assert (step[uphill == 0] == 0).all()


# ---- simplify and folding ------------------------------------------------------------------------


def same_answers(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    got, want = deepcopy(one).eval()(x.clone()), deepcopy(other).eval()(x.clone())
    close(got.detach(), want.detach(), scale=0.1)


@some(25)
@given(plans())
def test_removing_dead_channels_changes_no_answer(plan: Plan) -> None:
    net, x, _ = made(plan)
    pruned, before = prune(net, 0.5, structured=True), Snapshot(net, x)
    smaller = answered(lambda: remove_channels(pruned, x))
    if smaller is not None:
        same_answers(smaller, pruned, x)
        assert sum(p.numel() for p in smaller.parameters()) <= sum(
            p.numel() for p in pruned.parameters()
        )
    before.check()


@some(25)
@given(plans())
def test_full_rank_changes_no_answer(plan: Plan) -> None:
    net, x, _ = made(plan)
    same_answers(low_rank(net, 1.0), net, x)


WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


@some(20)
@given(plans(), st.integers(2, 8))
def test_quantized_weights_are_within_half_a_step(plan: Plan, bits: int) -> None:
    net, x, _ = made(plan)
    small, want = quantize(net, n_bits=bits), deepcopy(net)
    most = 2 ** (bits - 1) - 1
    for name, module in want.named_modules():
        if isinstance(module, WEIGHTED):
            got, fine = small.get_submodule(name).weight, module.weight.detach().double()
            largest = fine.flatten(1).abs().amax(1).reshape(-1, *[1] * (fine.ndim - 1))
            rounding = 2 * torch.finfo(plan.dtype).eps * largest  # the step is a float itself
            assert ((got.double() - fine).abs() <= largest / most / 2 + rounding).all()
            assert all(len(channel.unique()) <= 2 * most + 1 for channel in got)
            module.weight.data = got.detach()
    same_answers(small, want, x)


@some(25)
@given(
    plans(layout=st.sampled_from(["picture", "sequence"]), norm=st.sampled_from(["batch", "group"]))
)
def test_folding_changes_no_answer(plan: Plan) -> None:
    net, x, _ = made(plan)
    before = Snapshot(net, x)
    copy = answered(lambda: folded(net), must=True)
    same_answers(copy, net, x)
    left = sum(isinstance(one, nn.BatchNorm2d) for one in copy.modules())
    assert left == 0
    before.check()


# ---- foundations ---------------------------------------------------------------------------------


@some(25)
@given(plans(), st.sampled_from(["act", "norm"]))
def test_bypass_is_a_network_without_that_layer(plan: Plan, part: str) -> None:
    net, x, _ = made(plan)
    want = still(net)
    name = f"body.{plan.depth - 1}.{part}"
    setattr(want.body[plan.depth - 1], part, nn.Identity())
    net.eval()
    before = Snapshot(net, x)
    with bypass(net, name), torch.no_grad():
        found = net(x.clone())
    close(found, want(x.clone()))
    before.check()


@some(25)
@given(plans())
def test_importance_by_ablation_is_the_drop_without_the_unit(plan: Plan) -> None:
    net, x, target = made(plan)
    copy = still(net)
    maps = copy.body(x.clone())

    def tail(values: Tensor) -> Tensor:
        out = copy.head(values)
        return out[:, 0] if target is None else out[torch.arange(2), target]

    want = torch.zeros_like(maps)
    for k in range(maps.shape[1]):
        off = maps.clone()
        off[:, k] = 0
        fall = (tail(maps) - tail(off)) / maps[0, 0].numel()
        want[:, k] = fall.reshape(-1, *[1] * (maps.ndim - 2))
    ask = lambda: neuron_importance(net, x, target, layer="body", method="ablation")  # noqa: E731
    found = answered(ask, must=plan.norm in ("none", "batch"))
    if found is not None:
        close(found, want, scale=tail(maps).abs().max().item() / maps[0, 0].numel())
