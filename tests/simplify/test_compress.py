"""Compression against paper, torch's pruning and fake quantization, NumPy's SVD, a real file."""

import warnings
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from tests.toys import inputs, linear, toy
from xailab import data
from xailab.attribution.cam import grad_cam
from xailab.attribution.saliency import input_x_gradient, saliency
from xailab.evaluate.localization import pointing_game
from xailab.models.bayesian import BayesLinear
from xailab.models.digits import DigitCNN, digit_cnn, digit_cnn_marked
from xailab.models.training import Pair, evaluate, fit
from xailab.simplify.compress import (
    LowRank,
    keep_zeros,
    latencies,
    latency,
    low_rank,
    prune,
    quantize,
    remove_channels,
    size_on_disk,
    sparsity,
)
from xailab.simplify.distill import explanation_agreement

LAYERS = ("conv1", "conv2", "fc")


def digits() -> DigitCNN:
    """The digit network with drawn weights: nothing here depends on what it learnt."""
    torch.manual_seed(3)
    return DigitCNN().eval()


def rows(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(4))


# ---- pruning -------------------------------------------------------------------------------------


def test_the_smallest_weights_of_the_whole_network_go_by_hand() -> None:
    """Six weights, half of them: 0.1, 0.2 and -0.3, wherever they are; the bias stays."""
    net = nn.Sequential(linear([[0.1, -2.0], [0.2, 5.0]], [0.01, 0.02]), linear([[-0.3, 4.0]]))
    smaller = prune(net, 0.5)
    assert smaller[0].weight.tolist() == [[0, -2], [0, 5]]
    assert smaller[1].weight.tolist() == [[0, 4]]
    assert torch.equal(smaller[0].bias, net[0].bias)
    assert sparsity(smaller) == 0.5


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.5, 0.8, 0.95])
def test_pruning_equals_torchs(amount: float) -> None:
    ours, theirs = prune(toy(), amount), toy()
    pairs = [(getattr(theirs, name), "weight") for name in LAYERS]
    torch_prune.global_unstructured(pairs, torch_prune.L1Unstructured, amount=amount)
    for name in LAYERS:
        assert torch.equal(getattr(ours, name).weight, getattr(theirs, name).weight)


def test_whole_channels_go_by_hand() -> None:
    """Lengths 5, 1 and 13: the second channel goes, bias included; the last layer stays."""
    first = linear([[3.0, 4.0], [1.0, 0.0], [5.0, 12.0]], [1.0, 9.0, 1.0])
    smaller = prune(nn.Sequential(first, linear([[1.0, 0.1, 1.0]])), 0.34, structured=True)
    assert smaller[0].weight.tolist() == [[3, 4], [0, 0], [5, 12]]
    assert smaller[0].bias.tolist() == [1, 0, 1]
    assert smaller[1].weight.tolist() == [[1, pytest.approx(0.1), 1]]


@pytest.mark.parametrize("amount", [0.25, 0.5, 0.8])
def test_channels_equal_torchs_but_for_the_bias_that_it_leaves(amount: float) -> None:
    ours, theirs = prune(toy(), amount, structured=True), toy()
    for name in LAYERS[:-1]:
        layer = getattr(theirs, name)
        torch_prune.ln_structured(layer, "weight", amount=amount, n=2, dim=0)
        assert torch.equal(getattr(ours, name).weight, layer.weight)
        gone = layer.weight.flatten(1).abs().sum(1) == 0
        assert (getattr(ours, name).bias[gone] == 0).all()
        assert (layer.bias[gone] != 0).all()  # with it, the channel goes on saying a constant
    assert torch.equal(ours.fc.weight, toy().fc.weight)


def test_one_channel_always_stays_and_shared_weights_count_once() -> None:
    smaller = prune(toy(), 0.99, structured=True)
    assert [int(getattr(smaller, n).weight.flatten(1).any(1).sum()) for n in LAYERS] == [1, 1, 4]
    shared = linear([[1.0, 2.0], [3.0, 4.0]])
    both = nn.Sequential(shared, nn.ReLU(), linear([[0.0, 0.0], [0.0, 0.0]]))
    both[2].weight = shared.weight
    smaller = prune(both, 0.5)
    assert smaller[0].weight.tolist() == [[0, 0], [3, 4]]
    assert smaller[2].weight is smaller[0].weight


def test_the_maps_of_a_pruned_network_are_no_more_than_its_own() -> None:
    """Methods take the copies as they take the network: layers keep their names and types."""
    x = rows(2)
    for smaller in (prune(digits(), 0.9), quantize(digits()), low_rank(digits(), 0.5)):
        assert saliency(smaller, x, 3).shape == x.shape
        assert torch.isfinite(grad_cam(smaller, x, 3, layer="relu3")).all()


def test_zeros_stay_while_training_goes_on() -> None:
    torch.manual_seed(0)
    net = prune(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), 0.5, structured=True)
    net = prune(net, 0.6)
    before = [p.detach().clone() for p in net.parameters()]
    steps = torch.optim.Adam(net.parameters(), 0.1)
    x = torch.randn(32, 6)
    with keep_zeros(net):
        for _ in range(5):
            steps.zero_grad()
            F.cross_entropy(net(x), (x[:, 0] > 0).long()).backward()
            steps.step()
    for layer, old in ((net[0], before[0]), (net[2], before[2])):
        assert torch.equal(layer.weight == 0, old == 0)
        assert not torch.equal(layer.weight, old)
    dead = ~before[0].any(1)
    assert dead.any()
    assert torch.equal(net[0].bias[dead], before[1][dead])
    net(x).sum().backward()  # behind the block every weight learns again
    assert all(not (p._backward_hooks or {}) for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_channels_of_half_precision_go_by_their_true_length(dtype: torch.dtype) -> None:
    """Lengths 1 and 1.001 are one number in half: the first would go, and the second should."""
    small = 0.03125 * torch.ones(1024)
    longer = small.clone()
    longer[0] = 0.0625 if dtype == torch.float16 else 0.125
    net = nn.Sequential(nn.Linear(1024, 2, bias=False), nn.Linear(2, 1)).to(dtype)
    net[0].weight.data = torch.stack([longer, small]).to(dtype)
    smaller = prune(net, 0.5, structured=True)
    assert smaller[0].weight.any(1).tolist() == [True, False]


def test_shared_weights_count_once_among_the_zeros() -> None:
    one, two = linear([[0.0, 0.0], [1.0, 1.0]]), linear([[1.0, 1.0]])
    again = nn.Linear(2, 2, bias=False)
    again.weight = one.weight
    assert sparsity(nn.Sequential(one, again, two)) == pytest.approx(2 / 6)


def normalized() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))


def masked() -> nn.Module:
    return torch_prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)


def drawn() -> nn.Module:
    return nn.Sequential(BayesLinear(4, 4))


def unknown() -> nn.Module:
    return nn.LazyLinear(4)


def not_a_number() -> nn.Module:
    return linear([[float("nan"), 1.0]])


@pytest.mark.parametrize(
    "change",
    [
        lambda net: prune(net, 0.5),
        lambda net: prune(net, 0.5, structured=True),
        quantize,
        lambda net: low_rank(net, 0.5),
        remove_channels,
        lambda net: keep_zeros(net).__enter__(),
    ],
)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (normalized, "computes its weight"),
        (masked, "computes its weight.*prune.remove"),
        (drawn, "'0' has distributions for weights"),
        (unknown, "has no weights yet: run the model once"),
        (lambda: torch.compile(nn.Linear(4, 4)), "model._orig_mod"),
    ],
)
def test_weights_that_no_change_would_reach(change: Any, make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        change(make())


@pytest.mark.parametrize(
    "change", [lambda net: prune(net, 0.5), quantize, lambda net: low_rank(net, 0.5)]
)
def test_weights_that_are_no_numbers(change: Any) -> None:
    with pytest.raises(ValueError, match="not all finite"):
        change(not_a_number())


# ---- channels that really go ---------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.0, 0.5, 0.8, 0.99])
def test_without_dead_channels_the_answers_are_the_same(amount: float) -> None:
    zeroed = prune(digits(), amount, structured=True)
    smaller, x = remove_channels(zeroed), rows()
    torch.testing.assert_close(smaller(x), zeroed(x), rtol=0, atol=1e-6)
    left = [max(1, c - round(amount * c)) for c in (16, 32, 64)]
    assert [getattr(smaller, f"conv{i}").out_channels for i in (1, 2, 3)] == left
    assert smaller.conv3.weight.shape == (left[2], left[1], 3, 3)
    assert smaller.fc.in_features == left[2]
    count = sum(p.numel() for p in smaller.parameters())
    sizes = [1, *left]
    want = sum(b * (9 * a + 1) for a, b in zip(sizes, left, strict=False)) + 10 * (left[2] + 1)
    assert count == want


def test_channels_behind_a_flattening_take_all_their_positions_along() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4)
    )
    zeroed = prune(net, 0.5, structured=True)
    smaller, x = remove_channels(zeroed), inputs()
    assert smaller[4].in_features == 27
    torch.testing.assert_close(smaller(x), zeroed(x), rtol=0, atol=1e-6)


class Tricky(nn.Module):
    """Places where nothing may be removed: a sum, a layer that runs twice, groups, a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6)
        self.twice = nn.Linear(6, 6)
        self.squash, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = x + self.b(x)
        x = self.twice(torch.relu(self.twice(x)))
        return self.last(torch.sigmoid(self.squash(x)))


def test_where_zero_is_heard_channels_stay() -> None:
    torch.manual_seed(0)
    zeroed = prune(Tricky(), 0.5, structured=True)
    smaller, x = remove_channels(zeroed), torch.randn(5, 4)
    torch.testing.assert_close(smaller(x), zeroed(x), rtol=0, atol=1e-6)
    assert all(
        a.shape == b.shape for a, b in zip(smaller.parameters(), zeroed.parameters(), strict=True)
    )
    grouped = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1, groups=3))
    assert remove_channels(prune(grouped, 0.5, structured=True))[0].out_channels == 6
    # a batch norm turns a dead channel into a constant, which the next layer hears
    assert remove_channels(prune(toy(), 0.5, structured=True)).conv1.out_channels == 6
    per_row = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Linear(8, 2))  # a linear layer on W
    assert remove_channels(prune(per_row, 0.5, structured=True))[0].out_channels == 8


class Undecided(nn.Module):
    """Its forward pass depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else x


def test_a_forward_pass_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot follow the model's forward pass"):
        remove_channels(Undecided())


# ---- fewer bits ----------------------------------------------------------------------------------


def test_rounding_by_hand() -> None:
    """Largest weight 1.27: steps of 0.01. Of 3 bits, levels -3..3 in steps of 1.27 / 3."""
    net = linear([[1.27, 0.302, -0.004], [0.0, 0.0, 0.0]], [0.5, 0.5])
    eight = quantize(net)
    want = torch.tensor([[1.27, 0.30, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(eight.weight, want)
    levels = eight.parametrizations.weight.original0
    assert (levels.dtype, levels.tolist()) == (torch.int8, [[127, 30, 0], [0, 0, 0]])
    assert quantize(net, n_bits=3).parametrizations.weight.original0.tolist()[0] == [3, 1, 0]
    assert torch.equal(eight.bias, net.bias)


@pytest.mark.parametrize("n_bits", [2, 4, 8])
def test_rounding_equals_torchs_fake_quantization(n_bits: int) -> None:
    most = 2 ** (n_bits - 1) - 1
    for name, layer in digits().named_children():
        if not hasattr(layer, "weight"):
            continue
        steps = layer.weight.detach().flatten(1).abs().amax(1) / most
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        want = torch.fake_quantize_per_channel_affine(layer.weight, steps, zeros, 0, -most, most)
        ours = getattr(quantize(digits(), n_bits=n_bits), name).weight
        torch.testing.assert_close(ours, want, rtol=0, atol=1e-6)
        assert (
            (ours - layer.weight).abs() <= steps.reshape(-1, *[1] * (ours.ndim - 1)) * 0.501
        ).all()


def test_torchs_own_int8_layers_answer_alike() -> None:
    """torch.ao rounds with one step a layer and rounds inputs too: alike, and not equal.

    It is deprecated, and says so: the reason why this course has its own.
    """
    net, x = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)), torch.rand(8, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
        answers = theirs(x)
    largest = net(x).abs().max().item()
    for ours in (quantize(net), quantize(net, activations=True)):
        torch.testing.assert_close(ours(x), answers, rtol=0, atol=0.02 * largest)


def test_it_warns_of_nothing_and_saves_as_a_state() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smaller = quantize(digits())
        answers = smaller(rows())
        other = quantize(DigitCNN())
        other.load_state_dict(smaller.state_dict())
    assert torch.equal(other.eval()(rows()), answers)
    assert isinstance(smaller.conv1, nn.Conv2d)
    assert not smaller.conv1.weight.requires_grad


def test_fewer_bits_are_further_from_the_answer() -> None:
    x, want = rows(), digits()(rows())
    gaps = [(quantize(digits(), n_bits=n)(x) - want).abs().max().item() for n in (8, 6, 4, 2)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.01 * want.abs().max().item()


def test_rounded_inputs_by_hand_row_by_row_and_with_a_gradient() -> None:
    """Row one has steps of 0.01; 0.302 becomes 0.30. Row two is 100 times as large: steps of 1."""
    net = quantize(linear([[1.0, 1.0]]), activations=True)
    x = torch.tensor([[1.27, 0.302], [127.0, 0.302], [0.0, 0.0]], requires_grad=True)
    answers = net(x)
    torch.testing.assert_close(answers, torch.tensor([[1.57], [127.0], [0.0]]))
    (gradient,) = torch.autograd.grad(answers.sum(), x)
    torch.testing.assert_close(gradient, torch.ones(3, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("largest", [1.0, 0.37, 6e-8, 1e-40])
def test_levels_stay_within_their_bits_in_every_dtype(dtype: torch.dtype, largest: float) -> None:
    """In bfloat16 1 / (1 / 127) is 128, which a byte would turn into -128."""
    shares = torch.linspace(-1, 1, 41, dtype=torch.float64)
    for n_bits in (2, 5, 8):
        net = nn.Linear(41, 1).to(dtype)
        net.weight.data = (largest * shares)[None].to(dtype)
        smaller = quantize(net, n_bits=n_bits)
        most = 2 ** (n_bits - 1) - 1
        assert smaller.parametrizations.weight.original0.abs().max() <= most
        off = (smaller.weight.double() - net.weight.double()).abs().max().item()
        finest = torch.finfo(dtype).smallest_normal
        size = net.weight.abs().max().item()
        allowed = 0.5 * max(size / most, finest) + 3 * torch.finfo(dtype).eps * size
        assert off <= allowed * (1 + 1e-6)


def test_rounded_inputs_in_half_and_by_name() -> None:
    x = torch.tensor([[1.27, 0.302]])
    for dtype in (torch.float16, torch.bfloat16):
        net = quantize(linear([[1.0, 1.0]]).to(dtype), activations=True)
        assert net(x.to(dtype)).item() == pytest.approx(1.57, rel=0.01)
    net = quantize(linear([[1.0, 1.0]]), activations=True)
    torch.testing.assert_close(net(input=x), torch.tensor([[1.57]]))


def test_attention_is_rounded_but_for_its_inputs() -> None:
    """`out_proj` is read and not called: a hook on it would round nothing."""
    net, x = Encoder().eval(), torch.randn(2, 5, 32)
    assert (quantize(net)(x) - net(x)).abs().max() < 0.1
    with pytest.raises(ValueError, match=r"'layer\.self_attn'.*activations=True cannot round"):
        quantize(net, activations=True)


# ---- lower rank ----------------------------------------------------------------------------------


@pytest.mark.parametrize("energy", [0.3, 0.6, 0.9])
def test_a_matrix_loses_what_its_small_singular_values_hold(energy: float) -> None:
    torch.manual_seed(0)
    net = nn.Linear(40, 30).double()
    smaller = low_rank(net, energy)
    sigma = np.linalg.svd(net.weight.detach().numpy(), compute_uv=False) ** 2
    rank = int(np.searchsorted(np.cumsum(sigma) / sigma.sum(), energy)) + 1
    if rank * 70 >= 1200:
        assert isinstance(smaller, nn.Linear)
        return
    product = smaller[1].weight @ smaller[0].weight
    assert smaller[0].out_features == rank
    numbers = sum(parameter.numel() for parameter in smaller.parameters())
    assert 0 < size_on_disk(smaller) - 8 * numbers < 3000  # no more than its numbers is kept
    lost = (product - net.weight).square().sum().item()
    assert lost == pytest.approx(sigma[rank:].sum(), rel=1e-9)
    x = torch.randn(3, 40, dtype=torch.float64)
    torch.testing.assert_close(smaller(x), x @ product.T + net.bias)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "padding_mode": "circular"}])
def test_a_convolution_of_rank_two_becomes_two(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(4, 12, 3, **options)
    net.weight.data = (torch.randn(12, 2) @ torch.randn(2, 36)).reshape(12, 4, 3, 3)
    smaller, x = low_rank(net, 0.99999), torch.randn(2, 4, 9, 9)
    assert [one.out_channels for one in smaller] == [2, 12]
    torch.testing.assert_close(smaller(x), net(x), rtol=0, atol=1e-3)


def test_what_would_grow_stays_as_it_is() -> None:
    net = digits()
    everything = low_rank(net, 1.0)
    assert size_on_disk(everything) <= size_on_disk(net)
    torch.testing.assert_close(everything(rows()), net(rows()), rtol=0, atol=1e-4)
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    assert isinstance(low_rank(depthwise, 0.1)[0], nn.Conv2d)
    square = linear([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0] * 4, [0] * 4])
    assert isinstance(low_rank(square, 1.0), nn.Linear)  # 2 * (4 + 4) numbers for 16: no gain
    assert isinstance(low_rank(linear([[0.0] * 9] * 9), 0.5), nn.Sequential)  # all zero: rank 1


def truncated(weight: Tensor, rank: int) -> Tensor:
    """The nearest weight of this rank, by NumPy's SVD in double precision."""
    left, sigma, right = np.linalg.svd(weight.detach().double().flatten(1).numpy())
    nearest = (left[:, :rank] * sigma[:rank]) @ right[:rank]
    return torch.as_tensor(nearest).reshape(weight.shape).to(weight.dtype)


class Encoder(nn.Module):
    """torch's transformer layer, whose attention reads `out_proj.weight` and does not call it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.last = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).mean(1))


@pytest.mark.parametrize("grad", [True, False])
def test_the_copy_is_the_network_with_truncated_weights(grad: bool) -> None:
    """Without gradients torch takes a fast path that reads weights alone."""
    torch.manual_seed(0)
    net, x = Encoder().eval(), torch.randn(2, 5, 32)
    thin, want = low_rank(net, 0.5), deepcopy(net)
    replaced = [name for name, module in thin.named_modules() if isinstance(module, LowRank)]
    assert replaced == [f"layer.{n}" for n in ("self_attn.out_proj", "linear1", "linear2")] + [
        "last"
    ]
    for name in replaced:
        one = want.get_submodule(name)
        one.weight.data = truncated(one.weight, thin.get_submodule(name)[0].out_features)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(thin(x), want(x), rtol=0, atol=1e-5)
        assert (want(x) - net(x)).abs().max() > 0.01


def test_a_layer_of_low_rank_reads_like_the_one_it_replaces() -> None:
    torch.manual_seed(0)
    dense, conv = nn.Linear(40, 30), nn.Conv2d(8, 24, 3, stride=2, padding=1)
    for layer in (dense, conv):
        layer.weight.requires_grad_(False)
        thin = low_rank(layer, 0.3)
        assert isinstance(thin, LowRank)
        rank = thin[0].weight.shape[0]
        torch.testing.assert_close(thin.weight, truncated(layer.weight, rank), rtol=0, atol=1e-5)
        assert torch.equal(thin.bias, layer.bias)
        assert not thin[0].weight.requires_grad
        assert thin.bias.requires_grad
    assert (low_rank(dense, 0.3).in_features, low_rank(dense, 0.3).out_features) == (40, 30)
    assert (thin.in_channels, thin.out_channels, thin.stride) == (8, 24, (2, 2))
    assert low_rank(nn.Linear(40, 30, bias=False), 0.3).bias is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_low_rank_of_other_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(40, 30).to(dtype), torch.randn(3, 40, dtype=dtype)
    thin = low_rank(layer, 0.3)
    want = F.linear(x, truncated(layer.weight, thin[0].out_features), layer.bias)
    assert thin(x).dtype == thin.weight.dtype == dtype
    tolerance = (100 if dtype == torch.float64 else 20) * torch.finfo(dtype).eps
    torch.testing.assert_close(thin(x), want, rtol=0, atol=tolerance)


class Shared(nn.Module):
    """One layer under two names, and a weight that two modules hold."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = nn.Linear(20, 20)
        self.words, self.last = nn.Embedding(30, 20), nn.Linear(20, 30)
        self.last.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.b(self.a(self.words(x)).relu())).mean(1)


def test_shared_layers_are_replaced_everywhere_and_tied_weights_stay() -> None:
    torch.manual_seed(0)
    net, x = Shared(), torch.randint(30, (4, 5))
    thin = low_rank(net, 0.4)
    assert thin.a is thin.b
    assert thin.last.weight is thin.words.weight
    net.a.weight.data = truncated(net.a.weight, thin.a[0].out_features)
    torch.testing.assert_close(thin(x), net(x), rtol=0, atol=1e-5)
    assert size_on_disk(thin) < size_on_disk(net)


class Scaled(nn.Linear):
    """A layer that computes something of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight), self.bias)


def test_layers_that_do_more_than_their_class_says_stay() -> None:
    own, hooked = Scaled(40, 30), nn.Linear(40, 30)
    hooked.register_forward_hook(lambda *call: 2 * call[-1])
    for layer in (own, hooked):
        net, x = nn.Sequential(layer, nn.Linear(30, 2)), torch.randn(2, 40)
        torch.testing.assert_close(low_rank(net, 0.1)[0](x), net[0](x))


# ---- what it saves -------------------------------------------------------------------------------


def test_the_size_is_that_of_the_file(tmp_path: Any) -> None:
    net = digits()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    assert size_on_disk(net) == pytest.approx((tmp_path / "net.pt").stat().st_size, rel=0.01)
    numbers = sum(p.numel() for p in net.parameters())
    assert 0 < size_on_disk(net) - 4 * numbers < 6000  # names and shapes


def test_what_each_way_saves() -> None:
    """Zeros take their bytes until the file is zipped; int8 takes a quarter; channels really go."""
    net = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300))
    whole = size_on_disk(net)
    pruned = prune(net, 0.9)
    assert size_on_disk(pruned) == whole
    assert size_on_disk(pruned, compressed=True) < 0.25 * size_on_disk(net, compressed=True)
    zeroed = prune(net, 0.5, structured=True)
    assert size_on_disk(zeroed) == whole
    assert size_on_disk(remove_channels(zeroed)) == pytest.approx(whole / 2, rel=0.01)
    assert size_on_disk(quantize(net)) == pytest.approx(whole / 4, rel=0.05)
    assert size_on_disk(quantize(net, n_bits=4)) == size_on_disk(quantize(net))


def test_a_slow_model_is_seen_to_be_slow() -> None:
    x, small, large = torch.rand(64, 400), nn.Linear(400, 1), nn.Linear(400, 4000)
    fast, slow = (latency(net, x, n_repeats=9) for net in (small, large))
    assert slow.median > 3 * fast.median  # 4000 times the work
    assert 0 < fast.low <= fast.median <= fast.high


def test_models_take_turns_and_each_has_its_own_time() -> None:
    x, turns = torch.rand(64, 400), []

    def noting(name: str, width: int) -> nn.Module:
        layer = nn.Linear(400, width)
        layer.register_forward_hook(lambda *_: turns.append(name))
        return layer

    took = latencies({"s": noting("s", 1), "l": noting("l", 4000)}, x, n_repeats=9, n_warmup=2)
    assert "".join(turns) == "ss" + "ll" + 9 * "sl"
    assert took["l"].median > 3 * took["s"].median
    assert list(took) == ["s", "l"]
    assert all(one.low <= one.median <= one.high for one in took.values())


# ---- the figures of lesson `compression`, on trained networks ------------------------------------


@pytest.fixture(scope="module")
def parts() -> tuple[Pair, Pair]:
    """The 4,000 digits to learn from, and the 1,000 others."""
    digits = data.load("mnist5k")
    x = torch.as_tensor(np.asarray(digits.images) / np.float32(255))[:, None]
    y, learn = torch.as_tensor(digits.y), torch.as_tensor(digits.extra["train"])
    return (x[learn], y[learn]), (x[~learn], y[~learn])


@pytest.mark.parametrize(
    ("make", "accuracy", "size", "zipped"),
    [
        (lambda net: net, 0.972, 98_957, 90_844),
        (lambda net: prune(net, 0.5), 0.957, 98_957, 51_888),
        (lambda net: prune(net, 0.8), 0.587, 98_957, 23_700),
        (lambda net: prune(net, 0.95), 0.131, 98_957, 8_086),
        (lambda net: remove_channels(prune(net, 0.5, structured=True)), 0.197, 28_109, 24_615),
        (quantize, 0.972, 29_695, 24_980),
        (lambda net: quantize(net, activations=True), 0.971, 29_695, 24_980),
        (lambda net: low_rank(net, 0.9), 0.911, 36_159, 31_666),
    ],
)
def test_accuracy_and_bytes(
    make: Any, accuracy: float, size: int, zipped: int, parts: tuple[Pair, Pair]
) -> None:
    smaller = make(digit_cnn())
    assert evaluate(smaller, parts[1]).accuracy == pytest.approx(accuracy, abs=0.01)
    assert size_on_disk(smaller) == pytest.approx(size, rel=0.02)
    assert size_on_disk(smaller, compressed=True) == pytest.approx(zipped, rel=0.02)


def test_zeros_save_no_time_and_channels_do(parts: tuple[Pair, Pair]) -> None:
    net, x = digit_cnn(), parts[1][0][::10]
    nets = {
        "dense": net,
        "zeros": prune(net, 0.95),
        "int8": quantize(net),
        "cut": remove_channels(prune(net, 0.5, structured=True)),
    }
    times = {name: took.median for name, took in latencies(nets, x, n_repeats=15).items()}
    assert 0.7 < times["zeros"] / times["dense"] < 1.4
    assert times["int8"] > 0.7 * times["dense"]
    assert times["cut"] < 0.75 * times["dense"]  # measured 0.5


def test_training_on_brings_answers_back_and_not_the_maps(parts: tuple[Pair, Pair]) -> None:
    """On 200 digits: .90, .54, .06; .6 after training; int8 .996; another digit .01."""
    (train, test), net = parts, digit_cnn()
    x, y = test[0][::5], test[1][::5]
    reference = saliency(net, x, y)

    def agreement(model: nn.Module) -> float:
        return explanation_agreement(reference, saliency(model, x, y)).nanmean().item()

    tuned = prune(net, 0.8)
    with keep_zeros(tuned):
        fit(tuned, train, test, epochs=1, learning_rate=2e-3)
    assert evaluate(tuned, test).accuracy > 0.93  # .952, from .587
    assert sparsity(tuned) == pytest.approx(0.8, abs=0.001)
    assert abs(explanation_agreement(reference, reference.roll(100, 0)).mean().item()) < 0.05
    for amount, want in ((0.5, 0.90), (0.8, 0.54), (0.95, 0.06)):
        assert agreement(prune(net, amount)) == pytest.approx(want, abs=0.05)
    assert 0.4 < agreement(tuned) < 0.8
    assert agreement(quantize(net)) > 0.98


def test_fewer_numbers_do_not_make_maps_more_faithful() -> None:
    """The mark is the reason: dense .40 of the maps have their top on it, of low rank .23.

    Zeros alone, .46 on fewer digits, are within two standard errors of it; int8 changes nothing.
    """
    marked = data.marked_digits().test
    x = torch.as_tensor(marked.images[marked.marked])[:, None]
    truth = torch.as_tensor(marked.truth[marked.marked])
    bare, net = x * ~truth[:, None], digit_cnn_marked()

    def points(model: nn.Module) -> tuple[float, int]:
        with torch.no_grad():
            asked = (model(x).argmax(1) == 8) & (model(bare).argmax(1) != 8)
        heat = input_x_gradient(model, x[asked], 8)
        return pointing_game(heat, truth[asked]).mean().item(), int(asked.sum())

    dense, whole = points(net)
    zeros, fewer = points(prune(net, 0.5))
    assert dense == pytest.approx(0.40, abs=0.05)
    assert fewer < 0.7 * whole  # the shortcut fades: 120 digits for 216
    assert zeros - dense < 2 * (0.25 / fewer + 0.25 / whole) ** 0.5
    assert points(quantize(net))[0] == pytest.approx(dense, abs=0.03)
    assert points(low_rank(net, 0.9))[0] < dense - 0.1


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: prune(toy(), 1.0), ValueError, "amount.*got 1.0"),
        (lambda: prune(toy(), -0.1), ValueError, "amount"),
        (lambda: prune(toy(), float("nan"), structured=True), ValueError, "amount"),
        (lambda: prune(len, 0.5), TypeError, "nn.Module, got builtin"),  # type: ignore[arg-type]
        (lambda: prune(nn.ReLU(), 0.5), ValueError, "no linear and no convolutional"),
        (lambda: quantize(nn.ReLU()), ValueError, "no linear and no convolutional"),
        (lambda: quantize(toy(), n_bits=1), ValueError, r"2\.\.8, got 1"),
        (lambda: quantize(toy(), n_bits=9), ValueError, r"2\.\.8, got 9"),
        (lambda: quantize(toy(), n_bits=8.0), TypeError, "n_bits"),  # type: ignore[arg-type]
        (lambda: quantize(linear([[float("inf"), 1.0]])), ValueError, "not all finite"),
        (lambda: low_rank(toy(), 0.0), ValueError, "energy"),
        (lambda: low_rank(toy(), 1.1), ValueError, "energy"),
        (lambda: low_rank(toy(), "all"), TypeError, "energy must be one number, got str"),  # type: ignore[arg-type]
        (lambda: prune(toy(), True), TypeError, "amount must be one number, got bool"),
        (lambda: latencies({}, inputs()), ValueError, "models is empty"),
        (lambda: size_on_disk("model"), TypeError, "nn.Module, got str"),  # type: ignore[arg-type]
        (lambda: prune(quantize(toy()), 0.5), ValueError, "'conv1' computes its weight.*last"),
        (lambda: quantize(quantize(toy())), ValueError, "'conv1' computes its weight"),
        (lambda: latency(toy(), inputs(), n_repeats=0), ValueError, "n_repeats"),
        (lambda: latency(toy(), inputs(), n_warmup=1.5), TypeError, "n_warmup"),  # type: ignore[arg-type]
        (lambda: keep_zeros("model").__enter__(), TypeError, "nn.Module, got str"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
