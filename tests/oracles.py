"""Every method a second time: slow, straight from its definition, and from nothing of the package.

An oracle is given a kind of model and the options of the call, and returns (N, ...) float64 with
channels first, or the numbers of each word. Random methods are computed with the draws that their
docstrings name.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import combinations
from math import exp, factorial, floor, sqrt
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.kinds import Kind, Options, first

Oracle = Callable[[Kind, Options], Tensor]
ORACLES: dict[str, Oracle] = {}
Score = Callable[[Tensor], Tensor]  # rows -> (M,)


def oracle(function: Oracle) -> Oracle:
    ORACLES[function.__name__] = function
    return function


def score_of(kind: Kind, target: int | None) -> Score:
    """The score of the target, of rows as float64 tensors, (M,)."""

    def score(rows: Tensor) -> Tensor:
        answers = kind.answer(rows)
        return answers.reshape(len(rows)) if target is None else answers[:, target]

    return score


def each(kind: Kind) -> Iterator[tuple[Tensor, Score]]:
    """Every row with its own score."""
    for row, target in zip(kind.rows, kind.targets, strict=True):
        yield row, score_of(kind, target)


def slope(score: Score, row: Tensor) -> Tensor:
    leaf = row[None].clone().requires_grad_()
    return torch.autograd.grad(score(leaf).sum(), leaf)[0][0]


def slopes(score: Score, rows: Tensor) -> Tensor:
    leaf = rows.clone().requires_grad_()
    return torch.autograd.grad(score(leaf).sum(), leaf)[0]


def drops(score: Score, row: Tensor, covered: list[Tensor]) -> list[float]:
    """By how much the score falls with each copy of the row."""
    with torch.no_grad():
        return (score(row[None]) - score(torch.stack(covered))).tolist()


# ---- gradients -----------------------------------------------------------------------------------


@oracle
def saliency(kind: Kind, options: Options) -> Tensor:
    return torch.stack([slope(score, row) for row, score in each(kind)])


@oracle
def input_x_gradient(kind: Kind, options: Options) -> Tensor:
    return torch.stack([row * slope(score, row) for row, score in each(kind)])


@oracle
def smoothgrad(kind: Kind, options: Options) -> Tensor:
    n = options["n_samples"]
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((n, *kind.rows.shape[1:]), generator=generator, dtype=torch.float64)
    found = []
    for row, score in each(kind):
        spread = 0.1 * (row.max() - row.min())
        found.append(sum(slope(score, row + spread * one) for one in draws) / n)
    return torch.stack(found)


@oracle
def integrated_gradients(kind: Kind, options: Options) -> Tensor:
    """Four hundred middle points of the path, all of one weight."""
    points = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    found = []
    for row, score in each(kind):
        on_the_way = points.reshape(-1, *[1] * row.ndim) * row
        found.append(row * sum(slopes(score, some).sum(0) for some in on_the_way.split(100)) / 400)
    return torch.stack(found)


@oracle
def expected_gradients(kind: Kind, options: Options) -> Tensor:
    n, background = options["n_samples"], kind.background
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(background), (n,), generator=generator).tolist()
    within = torch.rand(n, generator=generator, dtype=torch.float64).tolist()
    found = []
    for row, score in each(kind):
        total = torch.zeros_like(row)
        for k in range(n):
            start, point = background[chosen[k]], (k + within[k]) / n
            total += (row - start) * slope(score, start + point * (row - start))
        found.append(total / n)
    return torch.stack(found)


class _Relus(TorchFunctionMode):
    """Let every ReLU have another backward pass: of what is above 0 only, or of the signal alone.

    A hook on a ReLU's answer sees the signal from above; adding what is cut off as a constant makes
    its own slope 1.
    """

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function.__name__ not in ("relu", "relu_"):
            return function(*args, **(kwargs or {}))
        before = args[0]
        after = torch.relu(before)
        if self.blind:
            after = before + (after - before).detach()
        after.register_hook(lambda signal: signal.clamp(min=0))
        return after


def _rectified(kind: Kind, blind: bool) -> Tensor:
    with _Relus(blind):
        return torch.stack([slope(score, row) for row, score in each(kind)])


@oracle
def guided_backprop(kind: Kind, options: Options) -> Tensor:
    return _rectified(kind, blind=False)


@oracle
def deconvnet(kind: Kind, options: Options) -> Tensor:
    return _rectified(kind, blind=True)


# ---- DeepLIFT and LRP ----------------------------------------------------------------------------


class _Steps(TorchFunctionMode):
    """A forward pass in which each step is exchanged for one whose slopes at this point are a rule.

    Exchanged is a step on numbers that depend on the row. Its slopes come from constants around
    it: of `z * (phi(z) / z).detach()` the slope is phi(z) / z.
    """

    ACTIVATIONS = ("relu", "tanh", "gelu", "silu", "sigmoid")

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "").strip("_")
        if not any(map(_moving, args)):
            return function(*args, **kwargs)
        if name == "multi_head_attention_forward":
            with self:
                return _heads(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            with self:
                return _attention(*args, **kwargs)
        if name == "max_pool2d":
            sizes = [kwargs.get(one, 0) for one in ("kernel_size", "stride", "padding")]
            sizes[: len(args) - 1] = args[1:4]
            return self.maximum(function, args, kwargs, sizes)
        if name in self.ACTIVATIONS:
            return self.activation(lambda z: function(z.clone(), *args[1:], **kwargs), args[0])
        if name in ("mul", "matmul", "bmm") and all(map(_moving, args)):
            return self.product(function, *args)
        if name in ("add", "sub", "radd", "iadd", "baddbmm"):
            return self.sum(function(*args, **kwargs))
        if name in ("linear", "conv2d", "addmm"):
            return self.weighted(function(*args, **kwargs))
        if name == "batch_norm":
            return self.batch_norm(function, *args, **kwargs)
        if name == "softmax":
            return self.softmax(args[0], args[1] if len(args) > 1 else kwargs["dim"])
        if name == "layer_norm":
            return self.norm(*args, **kwargs)
        return function(*args, **kwargs)

    def maximum(self, function: Any, args: Any, kwargs: Any, sizes: Any) -> Tensor:
        return function(*args, **kwargs)

    def sum(self, out: Tensor) -> Tensor:
        return out

    def weighted(self, out: Tensor) -> Tensor:
        return out

    def batch_norm(self, function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(x, *args, **kwargs)

    def norm(self, x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        found = self.normed(x, eps)
        with self:
            return found * weight + bias


def _moving(one: Any) -> bool:
    return isinstance(one, Tensor) and one.requires_grad and not isinstance(one, nn.Parameter)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **more: Any,
) -> Tensor:
    products = (q @ k.transpose(-1, -2)) * (scale or 1 / sqrt(q.shape[-1]))
    if is_causal:
        attn_mask = torch.ones(products.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        products = products.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        products = products + attn_mask
    return products.softmax(-1) @ v


def _heads(query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, weight: Tensor,
           bias: Tensor, *more: Any, need_weights: bool = True, **options: Any) -> Any:  # fmt: skip
    """One tensor (T, N, width) looks at itself, without masks."""
    x = query.transpose(0, 1)
    parts = []
    for i in range(3):
        rows = slice(i * width, (i + 1) * width)
        part = nn.functional.linear(x, weight[rows], bias[rows])
        parts.append(torch.stack(part.split(width // heads, -1), 1))
    found = _attention(*parts)
    joined = torch.cat(list(found.unbind(1)), -1)
    return nn.functional.linear(joined, more[4], more[5]).transpose(0, 1), None


class _Rescaled(_Steps):
    """Record the steps of a baseline, then give those of a row the slopes between the two."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, ...]] = []
        self.at: int | None = None  # None while recording

    def base(self, *now: Tensor) -> tuple[Tensor, ...]:
        if self.at is None:
            self.kept.append(tuple(one.detach().clone() for one in now))
            return self.kept[-1]
        self.at += 1
        return self.kept[self.at - 1]

    def maximum(self, function: Any, args: Any, kwargs: Any, sizes: Any) -> Tensor:
        return _shared_maximum(args[0], *self.base(args[0]), *sizes)

    def activation(self, plain: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        return _between(plain, z, *self.base(z))

    def product(self, function: Any, a: Tensor, b: Tensor) -> Tensor:
        base_a, base_b = self.base(a, b)
        middle_a, middle_b = (a.detach() + base_a) / 2, (b.detach() + base_b) / 2
        way = function(a - a.detach(), middle_b) + function(middle_a, b - b.detach())
        return function(a.detach(), b.detach()) + way

    def ratio(self, a: Tensor, b: Tensor) -> Tensor:
        """a = q b, so that a changes by (mean q) db + (mean b) dq."""
        base_a, base_b = self.base(a, b)
        now = a.detach() / b.detach()
        q, below = (now + base_a / base_b) / 2, (b.detach() + base_b) / 2
        return now + ((a - a.detach()) - q * (b - b.detach())) / below

    def softmax(self, z: Tensor, dim: int) -> Tensor:
        e = _between(torch.exp, z, *self.base(z))
        return self.ratio(e, e.sum(dim, keepdim=True))

    def normed(self, x: Tensor, eps: float) -> Tensor:
        c = x - x.mean(-1, keepdim=True)
        square = _between(torch.square, c, *self.base(c))
        spread = square.mean(-1, keepdim=True) + eps
        return self.ratio(c, _between(torch.sqrt, spread, *self.base(spread)))


class _Handed(_Steps):
    """Slopes with which input x slope is LRP: every relevance is a number times its slope."""

    def activation(self, plain: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        now = plain(z.detach())
        return now + _over(now, z.detach()) * (z - z.detach())

    def sum(self, out: Tensor) -> Tensor:
        now = out.detach()
        away = now + 1e-6 * torch.where(now < 0, -1.0, 1.0)
        return now + _over(now, away) * (out - now)

    def weighted(self, out: Tensor) -> Tensor:
        """By the same epsilon; a norm behind it takes the sum as it was."""
        found = self.sum(out)
        found.before = out
        return found

    def batch_norm(self, function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found = function(getattr(x, "before", x), *args, **kwargs)
        return self.sum(found) if hasattr(x, "before") else found

    def product(self, function: Any, a: Tensor, b: Tensor) -> Tensor:
        out = (function(a, b.detach()) + function(a.detach(), b)) / 2
        return out if function.__name__.strip("_") == "mul" else self.sum(out)

    def softmax(self, z: Tensor, dim: int) -> Tensor:
        return z.softmax(dim)

    def normed(self, x: Tensor, eps: float) -> Tensor:
        c = x - x.mean(-1, keepdim=True)
        spread = (c.detach() ** 2).mean(-1, keepdim=True) + eps
        return self.sum(c / spread.sqrt())


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where a number is cut off."""
    return torch.where((a == 0) | (b == 0), 0, a / torch.where(b == 0, 1, b))


@contextmanager
def _stepwise(kind: Kind, rule: _Steps) -> Iterator[None]:
    """Exchange the steps; activations that are written with several of them are one."""

    def whole(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        return nn.functional.gelu(inputs[0], approximate="tanh")

    found = [one for one in kind.twin.modules() if type(one).__name__ == "NewGELUActivation"]
    handles = [one.register_forward_hook(whole) for one in found]
    with rule:
        yield
    for handle in handles:
        handle.remove()


def _between(plain: Callable[[Tensor], Tensor], z: Tensor, base: Tensor) -> Tensor:
    now, way = plain(z.detach()), z.detach() - base
    still = (way == 0) | way.isnan()
    ratio = torch.where(still, 0, (now - plain(base)) / torch.where(still, 1, way))
    return now + ratio * torch.where(still, 0, z - z.detach())


def _shared_maximum(z: Tensor, base: Tensor, size: Any, stride: Any, padding: Any) -> Tensor:
    """Give what lies above the baseline's maximum to the winner now, the rest to the one then."""
    size, stride, padding = (
        one if isinstance(one, int) else one[0] for one in (size, stride, padding)
    )

    def windows(maps: Tensor) -> Tensor:
        wide = nn.functional.pad(maps, [padding] * 4, value=-1e9)
        return wide.unfold(2, size, stride).unfold(3, size, stride).flatten(4)

    z, base = windows(z), windows(base)
    (now, here), (then, there) = z.detach().max(4, keepdim=True), base.max(4, keepdim=True)
    top, found = torch.maximum(now, then), now
    for change, place in ((top - then, here), (now - top, there)):
        mine = z.gather(4, place)
        way = mine.detach() - base.gather(4, place)
        share = torch.where(way == 0, 0, change / torch.where(way == 0, 1, way))
        found = found + share * (mine - mine.detach())
    return found[..., 0]


def _rescale(kind: Kind, score: Score, row: Tensor, start: Tensor) -> Tensor:
    rule = _Rescaled()
    with _stepwise(kind, rule):
        score(start[None].clone().requires_grad_())
        rule.at = 0
        return (row - start) * slope(score, row)


@oracle
def deep_lift(kind: Kind, options: Options) -> Tensor:
    return torch.stack(
        [_rescale(kind, score, row, torch.zeros_like(row)) for row, score in each(kind)]
    )


@oracle
def deep_shap(kind: Kind, options: Options) -> Tensor:
    found = []
    for row, score in each(kind):
        parts = [_rescale(kind, score, row, one) for one in kind.background]
        found.append(sum(parts) / len(parts))
    return torch.stack(found)


@oracle
def lrp(kind: Kind, options: Options) -> Tensor:
    """The epsilon rule: with the matrix of every layer of a chain, else as input x slope."""
    if isinstance(kind.twin, nn.Sequential):
        with torch.no_grad():
            return torch.cat([_relevance(kind, i) for i in range(len(kind.rows))])
    found = []
    for row, score in each(kind):
        with _stepwise(kind, _Handed()):
            found.append(row * slope(score, row))
    return torch.stack(found)


def _relevance(kind: Kind, i: int) -> Tensor:
    inputs, value, layers = [], kind.rows[i : i + 1], _with_norms(kind.twin)
    for layer in layers:
        inputs.append(value)
        value = layer(value)
    relevance = torch.zeros_like(value)
    t = kind.targets[i] or 0
    relevance[0, t] = value[0, t]
    for layer, x in zip(reversed(layers), reversed(inputs), strict=True):
        relevance = _handed_back(layer, x, relevance)
    return relevance


def _with_norms(chain: nn.Sequential) -> list[nn.Module]:
    """A convolution and the norm right behind it are one layer."""
    found: list[nn.Module] = []
    for layer in chain:
        if isinstance(layer, nn.BatchNorm2d) and isinstance(found[-1], nn.Conv2d):
            layer = nn.Sequential(found.pop(), layer)
        found.append(layer)
    return found


def _handed_back(layer: nn.Module, x: Tensor, relevance: Tensor) -> Tensor:
    if isinstance(layer, (nn.ReLU, nn.Tanh, nn.GELU, nn.Flatten, nn.Dropout)):
        return relevance.reshape(x.shape)
    if isinstance(layer, nn.MaxPool2d):
        (n, c, h, w), k, handed = relevance.shape, layer.kernel_size, torch.zeros_like(x)
        for a, b, i, j in np.ndindex(n, c, h, w):
            window = x[a, b, i * k : i * k + k, j * k : j * k + k]
            place = int(window.argmax())
            handed[a, b, i * k + place // k, j * k + place % k] += relevance[a, b, i, j]
        return handed
    ones = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
    weights = (layer(ones) - layer(torch.zeros_like(x))).flatten(1)  # from i to j
    products, total = x.reshape(-1, 1) * weights, layer(x).flatten()
    epsilon = 1e-6 if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Sequential)) else 0.0
    below = total + epsilon * torch.where(total < 0, -1.0, 1.0)
    shares = torch.where(total == 0, 0, products / torch.where(below == 0, 1, below))
    return (shares @ relevance.flatten()).reshape(x.shape)


# ---- maps of a layer -----------------------------------------------------------------------------


def _seen(kind: Kind, i: int) -> tuple[Tensor, Tensor]:
    """The layer's maps for one row, and the score's slope at each of their places, (K, h, w)."""
    kept: list[Tensor] = []
    layer = kind.twin.get_submodule(kind.layer)

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    row = kind.rows[i : i + 1].clone().requires_grad_()
    score = score_of(kind, kind.targets[i])(row)
    handle.remove()
    (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    maps, gradient = kind.layout(kept[0].detach()), kind.layout(gradient)
    return maps[0], gradient[0]


def _stretched(heat: Tensor, shape: tuple[int, int]) -> Tensor:
    """Enlarge (h, w) bilinearly; the corners of the outermost pixels fall together."""
    return _weights_of(shape[0], heat.shape[0]) @ heat @ _weights_of(shape[1], heat.shape[1]).T


def _weights_of(large: int, small: int) -> Tensor:
    found = torch.zeros(large, small, dtype=torch.float64)
    for i in range(large):
        place = max((i + 0.5) * small / large - 0.5, 0.0)
        low = floor(place)
        high = min(low + 1, small - 1)
        found[i, low] += 1 - (place - low)
        found[i, high] += place - low
    return found


def _heat(kind: Kind, weighed: Callable[[Tensor, Tensor], Tensor], relu: bool = True) -> Tensor:
    """(maps, slopes) of every row -> (h, w), stretched to the rows."""
    found = []
    for i in range(len(kind.rows)):
        heat = weighed(*_seen(kind, i))
        heat = heat.clamp(min=0) if relu else heat
        found.append(_stretched(heat, tuple(kind.rows.shape[2:]))[None])
    return torch.stack(found)


def _all(maps: Tensor) -> Iterator[int]:
    return iter(range(len(maps)))


@oracle
def grad_cam(kind: Kind, options: Options) -> Tensor:
    return _heat(kind, lambda maps, g: sum(g[k].sum() / g[k].numel() * maps[k] for k in _all(maps)))


@oracle
def grad_cam_plus_plus(kind: Kind, options: Options) -> Tensor:
    def weighed(maps: Tensor, g: Tensor) -> Tensor:
        heat = torch.zeros_like(maps[0])
        for k in _all(maps):
            weight = 0.0
            for i, j in np.ndindex(*maps[k].shape):
                one = g[k, i, j].item()
                below = 2 * one**2 + one**3 * maps[k].sum().item()
                weight += (one**2 / below if below else 0.0) * max(one, 0.0)
            heat += weight * maps[k]
        return heat

    return _heat(kind, weighed)


@oracle
def layer_cam(kind: Kind, options: Options) -> Tensor:
    return _heat(kind, lambda maps, g: sum(g[k].clamp(min=0) * maps[k] for k in _all(maps)))


@oracle
def cam(kind: Kind, options: Options) -> Tensor:
    classifier = [one for one in kind.twin.modules() if isinstance(one, nn.Linear)][-1]
    targets = iter(kind.targets)

    def weighed(maps: Tensor, g: Tensor) -> Tensor:
        weights = classifier.weight[next(targets) or 0].detach()
        return sum(weights[k] * maps[k] for k in _all(maps))

    return _heat(kind, weighed, relu=False)


@oracle
def score_cam(kind: Kind, options: Options) -> Tensor:
    rows = iter(each(kind))

    def weighed(maps: Tensor, g: Tensor) -> Tensor:
        row, score = next(rows)
        scores = []
        for one in maps:
            large = _stretched(one, tuple(row.shape[1:]))
            low, high = large.min(), large.max()
            mask = (large - low) / (high - low) if high > low else torch.zeros_like(large)
            scores.append(score((row * mask)[None]).item())
        shares = [exp(s - max(scores)) for s in scores]
        return sum(share / sum(shares) * one for share, one in zip(shares, maps, strict=True))

    return _heat(kind, weighed)


@oracle
def hires_cam(kind: Kind, options: Options) -> Tensor:
    return _heat(kind, lambda maps, g: sum(g[k] * maps[k] for k in _all(maps)))


@oracle
def xgrad_cam(kind: Kind, options: Options) -> Tensor:
    def weighed(maps: Tensor, g: Tensor) -> Tensor:
        weights = [
            (maps[k] / maps[k].sum() * g[k]).sum() if maps[k].any() else 0 for k in _all(maps)
        ]
        return sum(weights[k] * maps[k] for k in _all(maps))

    return _heat(kind, weighed)


@oracle
def eigen_cam(kind: Kind, options: Options) -> Tensor:
    """The first eigenvector of the channels' products, as every place sees it."""

    def weighed(maps: Tensor, g: Tensor) -> Tensor:
        places = maps.flatten(1).T
        first_one = torch.linalg.eigh(places.T @ places).eigenvectors[:, -1]
        heat = places @ first_one
        return (heat * heat[heat.abs().argmax()].sign()).reshape(maps[0].shape)

    return _heat(kind, weighed)


@oracle
def ablation_cam(kind: Kind, options: Options) -> Tensor:
    rows = iter(each(kind))
    layer = kind.twin.get_submodule(kind.layer)

    def weighed(maps: Tensor, g: Tensor) -> Tensor:
        row, score = next(rows)
        whole = score(row[None]).item()
        lost = [whole - score_without(k, row, score) for k in _all(maps)]
        return sum(one / abs(whole) * maps[k] for k, one in enumerate(lost))

    def score_without(k: int, row: Tensor, score: Score) -> float:
        def take(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            taken = output.clone().flatten()
            numbers = torch.arange(len(taken)).reshape(output.shape)
            for place in kind.layout(numbers)[0, k].flatten():
                taken[place] = 0
            return taken.reshape(output.shape)

        handle = layer.register_forward_hook(take)
        found = score(row[None]).item()
        handle.remove()
        return found

    return _heat(kind, weighed)


@oracle
def guided_grad_cam(kind: Kind, options: Options) -> Tensor:
    return guided_backprop(kind, options) * grad_cam(kind, options)


# ---- covering ------------------------------------------------------------------------------------


def _starts(length: int, window: int, step: int) -> list[int]:
    """Where a window begins; the last one, cut or not, is the first that reaches the edge."""
    found = [0]
    while found[-1] + window < length:
        found.append(found[-1] + step)
    return found


@oracle
def occlusion(kind: Kind, options: Options) -> Tensor:
    shape = kind.rows.shape[1:]
    sides = shape[1:] if len(shape) > 1 else shape
    short = min(sides)
    window = max(1, short // (7 if short > 200 else 4)) if len(shape) == 3 else 1
    step = max(1, window // 2)
    every = [_starts(side, window, step) for side in sides]
    places = [tuple(every[a][i] for a, i in enumerate(at)) for at in np.ndindex(*map(len, every))]
    found = []
    for row, score in each(kind):
        covered, masks = [], []
        for place in places:
            mask = torch.zeros(shape, dtype=torch.bool)
            mask[(..., *(slice(at, at + window) for at in place))] = True
            masks.append(mask)
            covered.append(torch.where(mask, 0.0, row))
        total, hits = torch.zeros_like(row), torch.zeros_like(row)
        for mask, drop in zip(masks, drops(score, row, covered), strict=True):
            total[mask] += drop
            hits[mask] += 1
        found.append(total / hits)
    return torch.stack(found)


def groups(kind: Kind, options: Options, cells: int) -> Tensor:
    """The label of every number of a row: as told, else squares of a picture, else its own."""
    shape = kind.rows.shape[1:]
    if "feature_mask" in options:
        mask = options["feature_mask"]
        own = kind.rows.movedim(1, -1).shape[1:] if kind.last else shape
        return first(mask.expand(1, *own), kind.last)[0].long()
    if len(shape) != 3:
        return torch.arange(shape.numel()).reshape(shape)
    label = torch.zeros(shape, dtype=torch.int64)
    for i, j in np.ndindex(*shape[1:]):
        label[:, i, j] = (i * cells // shape[1]) * cells + j * cells // shape[2]
    return label


@oracle
def feature_ablation(kind: Kind, options: Options) -> Tensor:
    label = groups(kind, options, 7)
    found = []
    for row, score in each(kind):
        here, names = torch.zeros_like(row), label.unique().tolist()
        covered = [torch.where(label == name, 0.0, row) for name in names]
        for name, drop in zip(names, drops(score, row, covered), strict=True):
            here[label == name] = drop
        found.append(here)
    return torch.stack(found)


@oracle
def rise(kind: Kind, options: Options) -> Tensor:
    n, grid = options["n_masks"], options["grid"]
    height, width = kind.rows.shape[2:]
    down, right = -(-height // grid), -(-width // grid)
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(n, 1, grid, grid, generator=generator) < 0.5
    masks = []
    for one in kept:
        top = int(torch.randint(down, (), generator=generator))
        left = int(torch.randint(right, (), generator=generator))
        whole = _stretched(one[0].double(), ((grid + 1) * down, (grid + 1) * right))
        masks.append(whole[top : top + height, left : left + width])
    found = []
    for row, score in each(kind):
        seen = [score((row * mask)[None]).item() * mask for mask in masks]
        found.append((sum(seen) / (n * 0.5)).expand(row.shape))
    return torch.stack(found)


@oracle
def band_occlusion(kind: Kind, options: Options) -> Tensor:
    found, dark = [], kind.rows.min()
    rows, frames = kind.rows.shape[2:]
    for row, score in each(kind):
        time = _mean_drops(score, row, dark, frames, lambda a, b: (..., slice(a, b)))
        pitch = _mean_drops(score, row, dark, rows, lambda a, b: (..., slice(a, b), slice(None)))
        both = pitch.clamp(min=0)[:, None] * time.clamp(min=0)[None]
        found.append(both.sqrt()[None])
    return torch.stack(found)


def _mean_drops(
    score: Score, row: Tensor, dark: Tensor, length: int, part: Callable[[int, int], Any]
) -> Tensor:
    starts, covered = _starts(length, 4, 1), []
    for start in starts:
        covered.append(row.clone())
        covered[-1][part(start, start + 4)] = dark
    total, hits = (torch.zeros(length, dtype=torch.float64) for _ in range(2))
    for start, drop in zip(starts, drops(score, row, covered), strict=True):
        total[start : start + 4] += drop
        hits[start : start + 4] += 1
    return total / hits


# ---- sharing out ---------------------------------------------------------------------------------


def shares(worth: Callable[[tuple[int, ...]], float], n: int) -> np.ndarray:
    """Shapley values, one sum over coalitions for each player."""
    found = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for team in combinations(others, size):
                found[i] += weight * (worth(tuple(sorted((*team, i)))) - worth(team))
    return found


def _teams(n: int) -> list[tuple[int, ...]]:
    return [team for size in range(n + 1) for team in combinations(range(n), size)]


@oracle
def shapley_values(kind: Kind, options: Options) -> Tensor:
    label = groups(kind, options, 3)
    names = label.unique().tolist()
    found = []
    for row, score in each(kind):
        teams = _teams(len(names))
        shown = [torch.isin(label, torch.tensor([names[i] for i in team])) for team in teams]
        with torch.no_grad():
            scores = score(torch.stack([torch.where(one, row, 0.0) for one in shown])).tolist()
        worths = dict(zip(teams, scores, strict=True))
        here = torch.zeros_like(row)
        for name, share in zip(names, shares(worths.__getitem__, len(names)), strict=True):
            here[label == name] = share
        found.append(here)
    return torch.stack(found)


def owen(worth: Callable[[frozenset[int]], float], nested: Any) -> dict[int, float]:
    """Owen values as Owen defined them: of a game that the members of a group play among them.

    There a team of members is worth what it would get, in its group's place, among the groups.
    """
    if isinstance(nested, int):
        return {nested: worth(frozenset([nested])) - worth(frozenset())}
    members = [frozenset(flat(part)) for part in nested]
    found: dict[int, float] = {}
    for k, part in enumerate(nested):

        @cache
        def inner(team: frozenset[int], k: int = k) -> float:
            blocks = [team if j == k else one for j, one in enumerate(members)]
            union = lambda some: worth(frozenset().union(*(blocks[j] for j in some)))  # noqa: E731
            return float(shares(union, len(blocks))[k])

        found |= owen(inner, part)
    return found


def flat(nested: Any) -> list[int]:
    return [nested] if isinstance(nested, int) else [one for part in nested for one in flat(part)]


def halved(places: dict[int, tuple[float, ...]]) -> Any:
    """Cut features in two along the side on which they lie farthest apart, and again."""
    if len(places) == 1:
        return next(iter(places))
    sides = list(zip(*places.values(), strict=True))
    long = [max(side) - min(side) for side in sides]
    order = sorted(places, key=lambda one: (places[one][long.index(max(long))], one))
    cut = (len(order) + 1) // 2
    return [halved({one: places[one] for one in some}) for some in (order[:cut], order[cut:])]


@oracle
def owen_values(kind: Kind, options: Options) -> Tensor:
    """With 0 as the baseline; features are grouped as told, or by where they are."""
    label = groups(kind, options, 8)
    nested = options.get("groups")
    if nested is None:
        where = {
            n: (label == n).nonzero().double().mean(0).tolist() for n in label.unique().tolist()
        }
        nested = halved({n: tuple(place) for n, place in where.items()})
    found = []
    for row, score in each(kind):

        @cache
        def worth(team: frozenset[int], row: Tensor = row, score: Score = score) -> float:
            shown = torch.isin(label, torch.tensor(sorted(team)))
            with torch.no_grad():
                return score(torch.where(shown, row, 0.0)[None]).item()

        here = torch.zeros_like(row)
        for name, share in owen(worth, nested).items():
            here[label == name] = share
        found.append(here)
    return torch.stack(found)


def _game(
    kind: Kind, options: Options, i: int
) -> tuple[Callable[[tuple[int, ...]], float], int, Tensor]:
    """The game of a row: its worth, the number of players, and whose each number is.

    Of a table the players are columns, hidden by the background; of a picture the parts that are
    told, else the squares of a grid of 4 x 4, hidden by its darkest value.
    """
    row, score = kind.rows[i], score_of(kind, kind.targets[i])
    table = row.ndim == 1
    label = torch.arange(len(row)) if table else groups(kind, options, 4)
    others = kind.background if table else row.min().expand(1, *row.shape)
    known: dict[tuple[int, ...], float] = {}

    def worth(team: tuple[int, ...]) -> float:
        if team not in known:
            shown = torch.isin(label, torch.tensor(team, dtype=torch.int64))
            with torch.no_grad():
                known[team] = score(torch.where(shown, row, others)).mean().item()
        return known[team]

    return worth, int(label.max()) + 1, label


@oracle
def kernel_shap(kind: Kind, options: Options) -> Tensor:
    """Exact Shapley values of few players; of many the regression on the documented draws."""
    found = []
    for i in range(len(kind.rows)):
        worth, n, label = _game(kind, options, i)
        exact = 2**n - 2 <= options.get("n_samples", 2**11)
        values = shares(worth, n) if exact else _regressed(worth, n, options)
        found.append(torch.as_tensor(values)[label])
    return torch.stack(found)


def _regressed(worth: Callable[[tuple[int, ...]], float], n: int, options: Options) -> np.ndarray:
    """Solve the regression with its constraint by a Lagrange multiplier."""
    generator, pairs = np.random.default_rng(0), options["n_samples"] // 2
    share = np.array([(n - 1) / (k * (n - k)) for k in range(1, n)])
    sizes = generator.choice(np.arange(1, n), size=pairs, p=share / share.sum())
    ranks = generator.random((pairs, n)).argsort(1)
    teams = [tuple(np.flatnonzero(r < size).tolist()) for r, size in zip(ranks, sizes, strict=True)]
    teams += [tuple(sorted(set(range(n)) - set(team))) for team in teams]
    z = np.array([[float(i in team) for i in range(n)] for team in teams])
    nobody, everybody = worth(()), worth(tuple(range(n)))
    y = np.array([worth(team) for team in teams]) - nobody
    ones = np.ones((n, 1))
    system = np.block([[2 * z.T @ z, ones], [ones.T, np.zeros((1, 1))]])
    return np.linalg.solve(system, np.append(2 * z.T @ y, everybody - nobody))[:n]


@oracle
def permutation_shap(kind: Kind, options: Options) -> Tensor:
    found = []
    for i in range(len(kind.rows)):
        worth, n, label = _game(kind, options, i)
        generator, values = np.random.default_rng(0), np.zeros(n)
        for _ in range(options["n_permutations"]):
            order = generator.permutation(n).tolist()
            for way in (order, order[::-1]):
                for at, player in enumerate(way):
                    before = tuple(sorted(way[:at]))
                    values[player] += worth(tuple(sorted(way[: at + 1]))) - worth(before)
        found.append(torch.as_tensor(values / 2 / options["n_permutations"])[label])
    return torch.stack(found)


@oracle
def linear_shap(kind: Kind, options: Options) -> Tensor:
    """Exact Shapley values of what the model decides by, a weighted sum."""
    model, found = kind.model, []
    for row, target in zip(kind.rows.numpy(), kind.targets, strict=True):
        sign = -1 if target == 0 else 1

        def worth(team: tuple[int, ...], row: np.ndarray = row, sign: int = sign) -> float:
            rows = kind.background.numpy().copy()
            rows[:, list(team)] = row[list(team)]
            return sign * (rows @ model.coef_.ravel()).mean()

        found.append(torch.as_tensor(shares(worth, len(row))))
    return torch.stack(found)


@oracle
def tree_shap(kind: Kind, options: Options) -> Tensor:
    """Exact Shapley values of the game with a background, by the model's answers alone."""
    found = []
    for i in range(len(kind.rows)):
        worth, n, _ = _game(kind, options, i)
        found.append(torch.as_tensor(shares(worth, n)))
    return torch.stack(found)


def parts_of(model: Any, target: int | None) -> list[tuple[Any, np.ndarray]]:
    """Return the trees of a scikit-learn model, and what each node of them adds to the answer."""
    if hasattr(model, "tree_"):
        return [(model.tree_, model.tree_.value[:, 0, target or 0])]
    if hasattr(model, "learning_rate"):
        return [(one.tree_, model.learning_rate * one.tree_.value[:, 0, 0])
                for one in model.estimators_[:, 0]]  # fmt: skip
    share = 1 / len(model.estimators_)
    return [(one.tree_, share * one.tree_.value[:, 0, target or 0]) for one in model.estimators_]


def mean_below(
    tree: Any, value: np.ndarray, node: int, row: np.ndarray | None = None, team: Any = ()
) -> float:
    """Return the mean of the leaves below; features of the team are those of the row."""
    left, right = tree.children_left[node], tree.children_right[node]
    if left < 0:
        return float(value[node])
    feature = tree.feature[node]
    if feature in team:
        low = np.float32(row[feature]) <= tree.threshold[node]
        return mean_below(tree, value, left if low else right, row, team)
    size = tree.weighted_n_node_samples
    sums = [size[child] * mean_below(tree, value, child, row, team) for child in (left, right)]
    return float(sum(sums) / size[node])


@oracle
def path_attribution(kind: Kind, options: Options) -> Tensor:
    """On a row's way down each tree, the change of the mean answer of the leaves below."""
    found = []
    for row, target in zip(kind.rows.numpy(), kind.targets, strict=True):
        values = np.zeros(len(row))
        for tree, value in parts_of(kind.model, target):
            node = 0
            while (left := tree.children_left[node]) >= 0:
                feature = tree.feature[node]
                low = np.float32(row[feature]) <= tree.threshold[node]
                child = left if low else tree.children_right[node]
                step = mean_below(tree, value, child) - mean_below(tree, value, node)
                values[feature] += step
                node = child
        found.append(torch.as_tensor(values))
    return torch.stack(found)


# ---- LIME ----------------------------------------------------------------------------------------


def _ridge(samples: np.ndarray, scores: list[float]) -> np.ndarray:
    """The weighted regression with LIME's penalty, solved by scikit-learn."""
    n = samples.shape[1]
    near = []
    for z in samples:
        distance = 1 - (z.sum() / sqrt(n * z.sum()) if z.any() else 0)
        near.append(sqrt(exp(-(distance**2) / 0.25**2)))
    mean = np.average(samples, axis=0, weights=near)
    spread = sum(weight * (z - mean) ** 2 for weight, z in zip(near, samples, strict=True))
    alpha = 0.0 if n == 1 else min(1.0, 0.01 * float(spread.mean()))
    return Ridge(alpha=alpha, tol=1e-12).fit(samples, scores, sample_weight=near).coef_


def _samples(options: Options, n: int) -> np.ndarray:
    samples = np.random.default_rng(0).integers(2, size=(options["n_samples"], n))
    samples[0] = 1
    return samples


@oracle
def lime_tabular(kind: Kind, options: Options) -> Tensor:
    background = kind.background.numpy()
    found = []
    for row, score in each(kind):
        samples = _samples(options, len(row))
        drawn = np.random.default_rng([0, 1]).integers(len(background), size=samples.shape)
        copies = np.stack([
            [row[i] if z[i] else background[d[i], i] for i in range(len(row))]
            for z, d in zip(samples, drawn, strict=True)
        ])  # fmt: skip
        with torch.no_grad():
            found.append(torch.as_tensor(_ridge(samples, score(torch.as_tensor(copies)).tolist())))
    return torch.stack(found)


@oracle
def lime_image(kind: Kind, options: Options) -> Tensor:
    from skimage.segmentation import slic

    found = []
    for given, (row, score) in zip(kind.x, each(kind), strict=True):
        # the superpixels are those of the picture in its own precision
        pixels = np.asarray(given) if kind.last else np.moveaxis(np.asarray(given), 0, -1)
        label = torch.as_tensor(slic(pixels, n_segments=50, compactness=10, start_label=0))
        label = label.unique(return_inverse=True)[1]
        samples = _samples(options, int(label.max()) + 1)
        shown = torch.as_tensor(samples)[:, label].bool()[:, None]
        with torch.no_grad():
            scores = score(torch.where(shown, row, row.min())).tolist()
        found.append(torch.as_tensor(_ridge(samples, scores))[label].expand(row.shape))
    return torch.stack(found)


def _padded(rows: list[Any]) -> Tensor:
    found = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.float64)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = torch.as_tensor(values)
    return found


@oracle
def lime_text(kind: Kind, options: Options) -> Tensor:
    found = []
    for text, target in zip(kind.x, kind.targets, strict=True):
        words = re.findall(r"\w+", text)
        samples, scores = _samples(options, len(words)), []
        for z in samples:
            parts = iter(z)
            shown = re.sub(r"\w+", lambda word, parts=parts: word[0] if next(parts) else "", text)
            scores.append(_answer_to(kind.model, shown, target))
        found.append(_ridge(samples, scores))
    return _padded(found)


@oracle
def owen_text(kind: Kind, options: Options) -> Tensor:
    """Words at their places, in halves of halves; what is hidden leaves its blanks."""
    found = []
    for text, target in zip(kind.x, kind.targets, strict=True):
        n = len(re.findall(r"\w+", text))

        @cache
        def worth(team: frozenset[int], text: str = text, target: int = target) -> float:
            at = iter(range(99))
            shown = re.sub(r"\w+", lambda word: word[0] if next(at) in team else "", text)
            return _answer_to(kind.model, shown, target)

        values = owen(worth, halved({place: (float(place),) for place in range(n)}))
        found.append(np.array([values[place] for place in range(n)]))
    return _padded(found)


def _answer_to(model: Any, text: str, target: int) -> float:
    if not isinstance(model, nn.Module):
        return float(model([text])[0, target])
    with torch.no_grad():
        return float(model.eval()(model.encode([text]))[0, target])


@oracle
def token_attributions(kind: Kind, options: Options) -> Tensor:
    """Integrated gradients of the words' vectors, summed over each vector."""
    if hasattr(kind.model, "tokenizer"):
        return _padded([_of_pieces(kind, *one) for one in zip(kind.x, kind.targets, strict=True)])
    points, found = (torch.arange(1000) + 0.5) / 1000, []
    for text, target in zip(kind.x, kind.targets, strict=True):
        vectors = kind.model.embed(kind.model.encode([text])).detach()
        leaf = (points[:, None, None] * vectors).requires_grad_()
        score = kind.model.eval().forward_embedded(leaf)[:, target].sum()
        (gradient,) = torch.autograd.grad(score, leaf)
        found.append((vectors[0] * gradient.mean(0)).sum(1))
    return _padded(found)


def _of_pieces(kind: Kind, text: str, target: int) -> Tensor:
    """The same of pieces, from [MASK] in the words' place, summed over words by the tokenizer."""
    model, tokenizer = kind.model.model.eval(), kind.model.tokenizer
    batch = tokenizer(text, return_tensors="pt")
    vectors = model.get_input_embeddings()(batch["input_ids"]).detach()
    own = torch.tensor([word is not None for word in batch.word_ids(0)])[:, None]
    mask = model.get_input_embeddings().weight[tokenizer.mask_token_id].detach()
    start = torch.where(own, mask, vectors)
    leaf = start + (torch.arange(500) + 0.5)[:, None, None] / 500 * (vectors - start)
    score = model(inputs_embeds=leaf.requires_grad_()).logits[:, target].sum()
    (gradient,) = torch.autograd.grad(score, leaf)
    parts = ((vectors - start)[0] * gradient.mean(0)).sum(1)
    words = parts.new_zeros(2 + len(text.split()))  # [CLS] and [SEP] stay as they are, at 0
    for word, part in zip(batch.word_ids(0), parts, strict=True):
        if word is not None:
            words[1 + word] += part
    return words
