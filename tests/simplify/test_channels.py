"""Channels that go: many architectures, each of which answers as its pruned network does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xailab.simplify import channels
from xailab.simplify.channels import remove_channels
from xailab.simplify.compress import prune


class Steps(nn.Module):
    """Layers a and b, and a function of both and of the rows: a forward pass in one line."""

    def __init__(self, a: nn.Module, b: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.steps = forward

    def forward(self, x: Tensor) -> Any:
        return self.steps(self.a, self.b, x)


def stack(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


class Permute(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


class View(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), *self.shape)


def shuffled(x: Tensor) -> Tensor:
    """Channels of two groups, taken in turns."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def trained(norm: nn.Module) -> nn.Module:
    """A norm that shifts, as one does after training."""
    for one in (*norm.parameters(), *norm.buffers()):
        if one.is_floating_point():
            nn.init.uniform_(one.data, 0.5, 1.5)
    return norm


CONV, TOKENS, ROWS, SERIES = (2, 3, 6, 6), (2, 3, 4), (2, 4), (2, 4, 5)
conv, tail = lambda **o: nn.Conv2d(3, 8, 3, padding=1, **o), lambda: nn.Conv2d(8, 2, 1)

# name -> (network, shape of rows, width of the first layer when half of its 8 channels are dead)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    # channels on the last axis
    "tokens, flatten": (
        lambda: stack(nn.Linear(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)), TOKENS, 4),
    "tokens, pooled over features": (
        lambda: stack(nn.Linear(4, 8), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2)),
        TOKENS, 8),
    "tokens, max over features": (
        lambda: stack(nn.Linear(4, 8), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 2)), TOKENS, 8),
    "tokens, transposed, pooled over tokens": (
        lambda: stack(nn.Linear(4, 8), Permute(0, 2, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                      nn.Linear(8, 2)), TOKENS, 4),
    "tokens, mean over tokens": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: b(a(x).relu().mean(1))),
        TOKENS, 4),
    "tokens, the first one": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: b(a(x)[:, 0])), TOKENS, 4),
    "tokens, transposed, flatten": (
        lambda: stack(nn.Linear(4, 8), Permute(0, 2, 1), nn.Flatten(), nn.Linear(24, 2)),
        TOKENS, 4),
    "tokens, then a convolution over them": (
        lambda: stack(nn.Linear(4, 8), Permute(0, 2, 1), nn.Conv1d(8, 2, 3)), TOKENS, 4),
    "tokens, a convolution that takes tokens for channels": (
        lambda: stack(nn.Linear(4, 8), nn.Conv1d(3, 2, 3)), TOKENS, 8),
    "tokens, layer norm over features": (
        lambda: stack(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)), TOKENS, 8),
    "tokens, softmax over features": (
        lambda: stack(nn.Linear(4, 8), nn.Softmax(-1), nn.Linear(8, 2)), TOKENS, 8),
    "tokens, softmax over tokens": (  # zeros become 1/3
        lambda: stack(nn.Linear(4, 8), nn.Softmax(1), nn.Linear(8, 2)), TOKENS, 8),
    "tokens, batch norm of tokens": (
        lambda: stack(nn.Linear(4, 8), trained(nn.BatchNorm1d(3)), nn.Linear(8, 2)), TOKENS, 8),
    "a grid, channels last": (
        lambda: stack(nn.Linear(4, 8), nn.GELU(), nn.Flatten(1, 2), nn.Linear(8, 2)),
        (2, 3, 3, 4), 4),
    "a grid, channels last, flatten": (
        lambda: stack(nn.Linear(4, 8), nn.GELU(), nn.Flatten(), nn.Linear(72, 2)),
        (2, 3, 3, 4), 4),
    # rows
    "rows": (lambda: stack(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), ROWS, 4),
    "rows, by hand GELU, two readers in between": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2),
                      lambda a, b, x: b((h := a(x)) * torch.sigmoid(1.7 * h))), ROWS, 4),
    "rows, sigmoid": (lambda: stack(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2)), ROWS, 8),
    "rows, softplus": (lambda: stack(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 2)), ROWS, 8),
    "rows, batch norm untrained": (
        lambda: stack(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), ROWS, 8),
    "rows, PReLU": (lambda: stack(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 2)), ROWS, 4),
    "rows, PReLU a channel": (
        lambda: stack(nn.Linear(4, 8), nn.PReLU(8), nn.Linear(8, 2)), ROWS, 8),
    "rows, their own mean taken away": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2),
                      lambda a, b, x: b((h := a(x)) - h.mean(1, keepdim=True))), ROWS, 8),
    "rows, sorted": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: b(a(x).sort(1)[0])),
        ROWS, 8),
    "rows, scaled by their length": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: b(F.normalize(a(x)))),
        ROWS, 8),
    "rows, flipped": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: b(a(x).flip(-1))), ROWS, 4),
    "rows or tokens, flipped on the axis that depends": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: b(a(x).flip(1))),
        TOKENS, 4),
    "rows, cut in halves that are multiplied": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(4, 2),
                      lambda a, b, x: b(F.glu(a(x), 1))), ROWS, 8),
    "rows, a shift": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: b(a(x) + 1)), ROWS, 8),
    "rows, two readers": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2),
                      lambda a, b, x: (b(h := a(x)), h.sum(1))), ROWS, 8),
    "rows, a skip": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2),
                      lambda a, b, x: b(a(x) + torch.cat([x, x], 1))), ROWS, 8),
    "rows, a gate of the input": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2),
                      lambda a, b, x: b(a(x) * x[:, :1])), ROWS, 8),
    "rows, the same layer twice": (
        lambda: Steps(nn.Linear(8, 8), nn.Linear(8, 2), lambda a, b, x: b(a(a(x)))), (2, 8), 8),
    "rows, read by weight": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2),
                      lambda a, b, x: F.linear(a(x), b.weight)), ROWS, 8),
    "rows, in place": (
        lambda: stack(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)), ROWS, 4),
    "rows, in place without a name": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2),
                      lambda a, b, x: (h := a(x), h.add_(1), b(h))[2]), ROWS, 8),
    "rows, an answer with a name": (
        lambda: Steps(nn.Linear(4, 8), nn.Linear(8, 2), lambda a, b, x: {"logits": b(a(x))}),
        ROWS, 4),
    # pictures
    "pictures, pool, flatten": (
        lambda: stack(conv(), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 2)),
        CONV, 4),
    "pictures, view by the size of the rows": (
        lambda: Steps(conv(), nn.Linear(288, 2),
                      lambda a, b, x: b(a(x).view(x.size(0), -1))), CONV, 4),
    "pictures, view by its own size": (
        lambda: Steps(conv(), nn.Linear(288, 2),
                      lambda a, b, x: b((h := a(x)).view(h.size(0), -1))), CONV, 4),
    "pictures, view by numbers": (
        lambda: Steps(conv(), nn.Linear(288, 2), lambda a, b, x: b(a(x).view(-1, 8 * 36))),
        CONV, 8),
    "pictures, channels last, flatten": (
        lambda: stack(conv(), Permute(0, 2, 3, 1), nn.Flatten(), nn.Linear(288, 2)), CONV, 4),
    "pictures, channels last, linear": (
        lambda: stack(conv(), Permute(0, 2, 3, 1), nn.Linear(8, 2)), CONV, 4),
    "pictures, a linear layer on the width": (
        lambda: stack(conv(), nn.ReLU(), nn.Linear(6, 2)), CONV, 8),
    "pictures, patches to tokens": (
        lambda: stack(conv(), nn.Flatten(2), Permute(0, 2, 1), nn.Linear(8, 2)), CONV, 4),
    "pictures, two poolings side by side": (
        lambda: Steps(conv(), nn.Linear(16, 2),
                      lambda a, b, x: b(torch.cat([(h := a(x)).mean((2, 3)), h.amax((2, 3))], 1))),
        CONV, 4),
    "pictures, batch norm": (lambda: stack(conv(), trained(nn.BatchNorm2d(8)), tail()), CONV, 8),
    "pictures, group norm": (lambda: stack(conv(), nn.GroupNorm(2, 8), tail()), CONV, 8),
    "pictures, instance norm": (lambda: stack(conv(), nn.InstanceNorm2d(8), tail()), CONV, 8),
    "pictures, depthwise": (
        lambda: stack(conv(), nn.Conv2d(8, 8, 3, groups=8), tail()), CONV, 8),
    "pictures, groups": (lambda: stack(conv(), nn.Conv2d(8, 2, 3, groups=2)), CONV, 8),
    "pictures, softmax over channels": (lambda: stack(conv(), nn.Softmax(1), tail()), CONV, 8),
    "pictures, largest channel": (
        lambda: Steps(conv(), nn.Conv2d(1, 2, 1),
                      lambda a, b, x: b(a(x).amax(1, keepdim=True))), CONV, 8),
    "pictures, dropout of channels": (lambda: stack(conv(), nn.Dropout2d(), tail()), CONV, 4),
    "pictures, upsampled": (lambda: stack(conv(), nn.Upsample(scale_factor=2), tail()), CONV, 4),
    "pictures, padded": (lambda: stack(conv(), nn.ZeroPad2d(1), tail()), CONV, 4),
    "pictures, padded with 1": (lambda: stack(conv(), nn.ConstantPad2d(1, 1.0), tail()), CONV, 8),
    "pictures, response norm": (lambda: stack(conv(), nn.LocalResponseNorm(3), tail()), CONV, 8),
    "pictures, channels folded to pixels": (
        lambda: stack(conv(), nn.PixelShuffle(2), nn.Conv2d(2, 2, 1)), CONV, 8),
    "pictures, pixels folded to channels": (
        lambda: stack(conv(), nn.PixelUnshuffle(2), nn.Conv2d(32, 2, 1)), CONV, 4),
    "pictures, shuffled channels": (
        lambda: Steps(conv(), tail(), lambda a, b, x: b(shuffled(a(x)))), CONV, 8),
    "pictures, transposed convolution": (
        lambda: stack(conv(), nn.ConvTranspose2d(8, 8, 2), tail()), CONV, 8),
    "pictures, attention over channels": (
        lambda: Steps(conv(), tail(),
                      lambda a, b, x: b((h := a(x)) * h.mean((2, 3), keepdim=True).softmax(1))),
        CONV, 8),
    "pictures, a gate for each channel": (
        lambda: Steps(conv(), tail(),
                      lambda a, b, x: b((h := a(x)) * h.mean((2, 3), keepdim=True).sigmoid())),
        CONV, 4),
    "pictures, without a bias": (lambda: stack(conv(bias=False), nn.ReLU(), tail()), CONV, 4),
    # series and volumes
    "series": (lambda: stack(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 2, 1)), SERIES, 4),
    "series, flatten": (
        lambda: stack(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)), SERIES, 4),
    "series, to tokens, recurrent": (
        lambda: Steps(stack(nn.Conv1d(4, 8, 3), Permute(0, 2, 1), nn.GRU(8, 8, batch_first=True)),
                      nn.Linear(8, 2), lambda a, b, x: b(a(x)[0])), SERIES, 8),
    "volumes": (
        lambda: stack(nn.Conv3d(1, 8, 2), nn.ReLU(), nn.Conv3d(8, 2, 1)), (2, 1, 4, 4, 4), 4),
    "words": (
        lambda: stack(nn.Embedding(9, 4), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (2, 5), 4),
}  # fmt: skip


def halved(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A network, half of the channels of whose first layer are zero; and that layer."""
    torch.manual_seed(0)
    net = make().eval()
    first = next(m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d
                                                         | nn.Conv3d))  # fmt: skip
    dead = [1, 2, 4, 7]
    first.weight.data[dead] = 0
    if first.bias is not None:
        first.bias.data[dead] = 0
    return net, first


def rows_for(net: nn.Module, shape: tuple[int, ...]) -> Tensor:
    words = any(isinstance(module, nn.Embedding) for module in net.modules())
    return torch.randint(9, shape) if words else torch.randn(shape)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_answers_stay_and_what_can_go_goes(name: str, given: bool) -> None:
    make, shape, width = NETWORKS[name]
    net, first = halved(make)
    place = next(n for n, module in net.named_modules() if module is first)
    x = rows_for(net, shape)
    smaller = remove_channels(net, x) if given else remove_channels(net)
    for rows in (x, rows_for(net, (5, *shape[1:]))):  # also rows that it has not been tried on
        want, told = net(rows), smaller(rows)
        torch.testing.assert_close(told, want, rtol=0, atol=1e-5)
    doubt = "axis that depends" in name and not given  # the drawn rows are of both kinds
    assert smaller.get_submodule(place).weight.shape[0] == (8 if doubt else width)
    assert first.weight.shape[0] == 8


def test_only_the_inputs_that_belong_to_a_channel_go() -> None:
    """Two tokens, four channels of which the second is dead: flattened, it is at 1 and at 5."""
    net = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Flatten(), nn.Linear(8, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0], [0.0], [2.0], [3.0]])
    net[2].weight.data = torch.arange(8.0)[None]
    smaller = remove_channels(net)
    assert smaller[0].weight.flatten().tolist() == [1, 2, 3]
    assert smaller[2].weight.tolist() == [[0, 2, 3, 4, 6, 7]]
    assert (smaller[0].out_features, smaller[2].in_features) == (3, 6)


def test_shapes_that_no_guess_meets_must_be_given() -> None:
    net, _ = halved(lambda: stack(conv(), nn.Flatten(), nn.Linear(8 * 3 * 50, 2)))
    with pytest.raises(ValueError, match=r"no shape of rows.*remove_channels\(model, x\)"):
        remove_channels(net)
    x = torch.randn(2, 3, 3, 50)
    smaller = remove_channels(net, x)
    assert smaller[2].in_features == 600
    torch.testing.assert_close(smaller(x), net(x), rtol=0, atol=1e-5)


def test_networks_that_take_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.b(self.a(x).relu()) * scale

    net, _ = halved(Two)
    x = torch.randn(5, 4), torch.randn(5, 1)
    smaller = remove_channels(net, x)
    assert smaller.a.out_features == 4
    torch.testing.assert_close(smaller(*x), net(*x), rtol=0, atol=1e-6)


def test_a_hook_that_gives_dead_channels_something_to_say_keeps_them() -> None:
    net, first = halved(NETWORKS["rows"][0])
    first.register_forward_hook(lambda *call: call[-1] + 1)
    assert remove_channels(net)[0].out_features == 8


def test_a_network_without_dead_channels_needs_no_rows() -> None:
    recurrent = nn.Sequential(nn.Linear(4, 8), nn.Flatten(0), nn.Unflatten(0, (7, 11)))
    assert remove_channels(recurrent)[0].out_features == 8


def test_at_least_one_channel_stays() -> None:
    net, first = halved(NETWORKS["rows"][0])
    nn.init.zeros_(first.weight)
    nn.init.zeros_(first.bias)
    smaller = remove_channels(net)
    assert smaller[0].out_features == 1
    torch.testing.assert_close(smaller(torch.ones(3, 4)), net(torch.ones(3, 4)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    net, _ = halved(NETWORKS["pictures, pool, flatten"][0])
    net, x = net.to(dtype), torch.randn(CONV).to(dtype)
    smaller = remove_channels(net)
    assert (smaller[0].out_channels, smaller[4].weight.dtype) == (4, dtype)
    tolerance = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(smaller(x), net(x), rtol=0, atol=tolerance)


def test_flags_and_gradients_are_as_in_the_network() -> None:
    net, first = halved(NETWORKS["rows"][0])
    first.bias.requires_grad_(False)
    net.train()
    smaller = remove_channels(net)
    assert [p.requires_grad for p in smaller.parameters()] == [True, False, True, True]
    assert smaller.training
    assert smaller[1].training


def test_a_smaller_network_that_answers_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if a step had deceived every trial: the inputs of other channels are taken out."""
    net, _ = halved(NETWORKS["rows"][0])
    wrong = torch.tensor([True, False, False, True, False, True, True, False])
    monkeypatch.setattr(channels, "_arrivals", lambda *_: wrong)
    with pytest.raises(RuntimeError, match="answers otherwise"):
        remove_channels(net)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        ([[1.0] * 4], TypeError, "x must be a torch.Tensor, got list"),
        (torch.zeros(2, 4, dtype=torch.float64), TypeError, "float64.*float32"),
        (torch.zeros(0, 4), ValueError, "x is empty"),
        (torch.full((2, 4), torch.nan), ValueError, "8 values that are NaN"),
        (torch.zeros(2, 5), ValueError, r"refuses x of shape \(2, 5\)"),
    ],
)
def test_rows_that_do_not_fit(x: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        remove_channels(halved(NETWORKS["rows"][0])[0], x)


def test_pruned_digits_and_structured_pruning_fit_together() -> None:
    net = prune(stack(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), 0.5,
                structured=True)  # fmt: skip
    smaller, x = remove_channels(net), torch.randn(7, 4)
    assert [smaller[i].out_features for i in (0, 2, 4)] == [4, 3, 2]
    torch.testing.assert_close(smaller(x), net(x), rtol=0, atol=1e-6)
