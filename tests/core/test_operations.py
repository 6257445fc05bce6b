"""However an operation is written, it is followed, or refused by name.

Both methods that follow operations are asked: what holds for one spelling holds for the other.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from xailab.attribution.deeplift import deep_lift
from xailab.attribution.relevance import lrp

METHODS = pytest.mark.parametrize("method", [deep_lift, lrp])
Body = Callable[[Any, Tensor], Tensor]  # layers, rows -> (N, 3)


class Layers(nn.Module):
    """Some layers, and a function that says what is done with them; (N, 6) -> (N, 3)."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm, self.layer_norm = nn.BatchNorm1d(6), nn.LayerNorm(6)
        self.heads = nn.MultiheadAttention(6, 2, batch_first=True)
        self.scale = nn.Parameter(torch.rand(6))
        nn.init.uniform_(self.norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(self.norm.running_var, 0.5, 1.5)
        nn.init.normal_(self.heads.in_proj_bias)
        for one in (self.layer_norm.weight, self.layer_norm.bias):
            nn.init.normal_(one)
        self.double().eval()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def rows() -> Tensor:
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def plain(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.a(x)))


def in_place(m: Any, x: Tensor) -> Tensor:
    z = m.a(x)
    other = z
    F.relu(z, inplace=True)
    return m.c(other)


def scaled_in_place(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.a(x)).mul_(m.scale).div_(2))


def added_in_place(m: Any, x: Tensor) -> Tensor:
    z = m.norm(m.a(x))
    z += x
    return m.c(z.relu_())


def gated_in_place(m: Any, x: Tensor) -> Tensor:
    z = m.a(x)
    z *= z.sigmoid()
    return m.c(z)


def the_input_in_place(m: Any, x: Tensor) -> Tensor:
    return plain(m, x.mul_(2))


def norm_by_hand(m: Any, x: Tensor) -> Tensor:
    z = m.a(x)
    around = z - z.mean(-1, keepdim=True)
    spread = torch.sqrt(z.var(-1, keepdim=True, unbiased=False) + 1e-5)
    return m.c(around / spread * m.layer_norm.weight + m.layer_norm.bias)


def rms_by_hand(m: Any, x: Tensor) -> Tensor:
    z = m.a(x)
    return m.c(z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6) * m.scale)


def tokens(x: Tensor) -> Tensor:
    return torch.stack([x, x.flip(1), 2 * x], 1)


def heads_by_hand(m: Any, x: Tensor) -> Tensor:
    weights, biases = m.heads.in_proj_weight.chunk(3), m.heads.in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(tokens(x), *both).unflatten(-1, (2, 3)).transpose(1, 2)
        for both in zip(weights, biases, strict=True)
    )
    found = ((q @ k.mT / 3**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    return m.c(m.heads.out_proj(found).mean(1))


# name -> the same network twice
SPELLINGS: dict[str, tuple[Body, Body]] = {
    "relu in place": (in_place, plain),
    "scale in place": (scaled_in_place, lambda m, x: m.c(F.relu(m.a(x)) * m.scale / 2)),
    "sum in place": (added_in_place, lambda m, x: m.c(F.relu(m.norm(m.a(x)) + x))),
    "gate in place": (gated_in_place, lambda m, x: m.c(F.silu(m.a(x)))),
    "input in place": (the_input_in_place, lambda m, x: plain(m, 2 * x)),
    "swish": (lambda m, x: m.c(m.a(x) * m.a(x).sigmoid()), lambda m, x: m.c(F.silu(m.a(x)))),
    "clamp": (lambda m, x: m.c(m.a(x).clamp(min=0)), plain),
    "matrices": (lambda m, x: F.relu(torch.addmm(m.a.bias, x, m.a.weight.T)) @ m.c.weight.T + m.c.bias, plain),  # noqa: E501
    "einsum": (lambda m, x: torch.einsum("ni,ki->nk", F.relu(m.a(x)), m.c.weight) + m.c.bias, plain),  # noqa: E501
    "row by row": (lambda m, x: torch.stack([plain(m, row) for row in x]), plain),
    "checkpoint": (lambda m, x: m.c(checkpoint(lambda z: m.a(z).relu(), x, use_reentrant=False)), plain),  # noqa: E501
    "dropout": (lambda m, x: F.dropout(plain(m, x), 0.5, m.training), plain),
    "moves": (lambda m, x: m.c(F.relu(m.a(x[:, None]).squeeze(1).view(-1, 2, 3).mT.mT.reshape(-1, 6))), plain),  # noqa: E501
    "padding": (lambda m, x: m.c(F.pad(F.relu(m.a(x))[:, :4], (1, 1))),
                lambda m, x: m.c(torch.cat([x.new_zeros(len(x), 1), F.relu(m.a(x))[:, :4], torch.zeros_like(x[:, :1])], 1))),  # noqa: E501
    "one less a gate": (lambda m, x: m.c(1 - m.a(x).sigmoid()), lambda m, x: m.c(-m.a(x).sigmoid() + 1)),  # noqa: E501
    "sum of a list": (lambda m, x: m.c(sum([F.relu(m.a(x)), x])), lambda m, x: m.c(F.relu(m.a(x)) + x)),  # noqa: E501
    "cube": (lambda m, x: m.c(m.a(x) ** 3), lambda m, x: m.c(m.a(x) * m.a(x) * m.a(x))),
    "layer norm": (norm_by_hand, lambda m, x: m.c(m.layer_norm(m.a(x)))),
    "RMS norm": (rms_by_hand, lambda m, x: m.c(F.rms_norm(m.a(x), (6,), m.scale, 1e-6))),
    "attention": (heads_by_hand, lambda m, x: m.c(m.heads(*[tokens(x)] * 3, need_weights=False)[0].mean(1))),  # noqa: E501
    "attention, weights shown": (lambda m, x: m.c(m.heads(*[tokens(x)] * 3)[0].mean(1)), heads_by_hand),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
@METHODS
def test_two_spellings_of_a_network_have_one_answer(method: Any, name: str) -> None:
    one, other = (Layers(body) for body in SPELLINGS[name])
    torch.testing.assert_close(one(rows()), other(rows()))
    want = method(other, rows(), torch.tensor([0, 1]))
    got = method(one, rows(), torch.tensor([0, 1]))
    # LRP's epsilon stands before or behind a factor
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * want.abs().max().item())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@METHODS
def test_wrapped_networks_have_the_answer_of_what_they_wrap(method: Any) -> None:
    inside = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    want = method(inside, rows(), 1)
    for wrap in (
        lambda net: torch.compile(net, backend="eager"),
        torch.fx.symbolic_trace,
        nn.DataParallel,
        lambda net: nn.Sequential(weight_norm(net[0]), *net[1:]),  # changes net: last
    ):
        torch.testing.assert_close(method(wrap(inside), rows(), 1), want)


# ---- refused -----------------------------------------------------------------------------------


def relu_of_a_view(m: Any, x: Tensor) -> Tensor:
    z = m.a(x)
    z.view(-1, 2, 3).relu_()
    return m.c(z)


def assigned(m: Any, x: Tensor) -> Tensor:
    z = m.a(x)
    z[:, :3] = F.relu(z[:, :3])
    return m.c(z)


def logsumexp(m: Any, x: Tensor) -> Tensor:
    return m.c(torch.logsumexp(m.a(x), 1, keepdim=True) + x)


class OwnRelu(torch.autograd.Function):
    """A ReLU that somebody wrote; torch tells nobody what it computes."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        return signal * (ctx.saved_tensors[0] > 0)


UNKNOWN: dict[str, tuple[Body, str]] = {
    "CumprodBackward0": (lambda m, x: m.c(m.a(x).cumprod(1)), "cumprod, in 'the model'"),
    "SortBackward0": (lambda m, x: m.c(m.a(x).sort(1)[0]), "sort"),
    "LogsumexpBackward0": (logsumexp, "logsumexp"),
    "ViewAsRealBackward0": (lambda m, x: m.c(torch.fft.fft(m.a(x)).real), ""),
    "LogSoftmaxBackward0": (lambda m, x: m.c(m.a(x).log_softmax(1)), "log_softmax"),
    "OwnReluBackward": (lambda m, x: m.c(OwnRelu.apply(m.a(x))), ""),
    "NativeBatchNormBackward0": (lambda m, x: m.c(F.batch_norm(m.a(x), None, None, training=True)), "batch_norm"),  # noqa: E501
    "CopySlices": (assigned, ""),
    "TopkBackward0": (lambda m, x: m.c(m.a(x).topk(6, 1)[0]), "topk"),
}  # fmt: skip


@pytest.mark.parametrize("node", UNKNOWN)
@METHODS
def test_unknown_operations_are_refused_by_name(method: Any, node: str) -> None:
    body, told = UNKNOWN[node]
    words = rf"no rule is known for the operation \S*{node}.*{told}.*as modules or as functions"
    with pytest.raises(ValueError, match=words):
        method(Layers(body), rows(), 0)


@METHODS
def test_a_change_through_a_view_is_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="in place through other names"):
        method(Layers(relu_of_a_view), rows(), 0)


def held(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = m.b(x).sigmoid()
    return m.c(m.a(x) * gate)


def written_behind_the_graph(m: Any, x: Tensor) -> Tensor:
    z = F.relu(m.a(x))
    z.data.add_(1)
    return m.c(z)


CUT: dict[str, Body] = {
    "mul": held,
    "add": lambda m, x: m.c(m.a(x) + m.b(x).data),
    "sub": lambda m, x: m.c(m.a(x) - m.a(x).detach().mean(1, keepdim=True)),
    "cat": lambda m, x: m.c(torch.cat([m.a(x)[:, :3], m.b(x)[:, :3].detach()], 1)),
    "where": lambda m, x: m.c(torch.where(x > 0, m.a(x), m.b(x).detach())),
    "__iadd__|add": lambda m, x: m.c(m.a(x) + (m.b(x) * 9).int().float()),
    "add_": written_behind_the_graph,
}


@pytest.mark.parametrize("name", CUT)
@METHODS
def test_numbers_of_x_that_left_the_graph_may_not_come_back(method: Any, name: str) -> None:
    """Autograd takes them for constants, and a map would leave out what x does through them."""
    with pytest.raises(ValueError, match=rf"cut off from the graph.*used again \(({name}), in"):
        method(Layers(CUT[name]), rows(), 0)


@pytest.mark.parametrize(
    "body",
    [
        lambda m, x: m.c(m.a(x) * (m.a(x) > 0)),
        lambda m, x: m.c(m.a(x) * (m.a(x) > 0).double()),
        lambda m, x: m.c(torch.where(m.a(x) > 0, m.a(x), 0.0)),
        lambda m, x: m.c(m.a(x).masked_fill(m.a(x) < 0, 0)),
    ],
)
def test_a_comparison_is_a_relu_to_lrp_and_a_broken_sum_to_deep_lift(body: Body) -> None:
    want = lrp(Layers(plain), rows(), 1)
    torch.testing.assert_close(lrp(Layers(body), rows(), 1), want)
    with pytest.raises(ValueError, match="the sum misses"):
        deep_lift(Layers(body), rows(), 1)


@METHODS
def test_a_plain_function_and_torchscript_are_refused(method: Any) -> None:
    net = nn.Sequential(nn.Linear(6, 3)).double()
    with pytest.raises(TypeError, match=r"nn\.Module, got function"):
        method(lambda x: net(x), rows(), 0)
    with pytest.raises(TypeError, match=r"TorchScript.*hand over the nn\.Module"):
        method(torch.jit.trace(net, rows()), rows(), 0)


def test_an_answer_that_is_no_number_is_told() -> None:
    """All numbers of the baseline are equal: their deviation is 0."""

    def standardized(m: Any, x: Tensor) -> Tensor:
        return m.c(x / x.std(1, keepdim=True))

    with pytest.raises(ValueError, match=r"answers NaN.*0 / 0"):
        deep_lift(Layers(standardized), rows(), 0)
    assert lrp(Layers(standardized), rows(), 0).isfinite().all()


@METHODS
def test_a_hidden_class_is_none_of_the_others_business(method: Any) -> None:
    hidden = torch.tensor([0.0, 0.0, -torch.inf], dtype=torch.float64)
    got, want = (
        method(Layers(body), rows(), 1) for body in (lambda m, x: plain(m, x) + hidden, plain)
    )
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())


@METHODS
def test_a_row_alone_behind_a_norm_has_its_own_order(method: Any) -> None:
    """Torch's own backward pass misreads what comes back from tokens to a norm of one row."""

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)
            self.last = nn.Linear(48, 2)
            nn.init.uniform_(self.norm.running_mean)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
            return self.last(tokens.flatten(1))

    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    both = method(Stem(), x, 0)
    torch.testing.assert_close(method(Stem(), x[:1], 0), both[:1], rtol=1e-4, atol=1e-6)
