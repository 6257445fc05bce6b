"""What breaks a model that works: weak spots in the data, broken memory, spoiled inputs, drift.

Lesson 24 teaches this file. Four questions: on which rows is the model wrong (`slices`)? Which bit
of which layer may not fail (`flip_bits`, `stuck_at`, `damage_table`)? How much noise and blur does
it bear (`corrupt`)? And who tells us when what comes in is no longer what it was built for
(`Monitor`)?
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import combinations_with_replacement, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import false_discovery_control, ttest_ind_from_stats
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision

from xailab.core.batching import batched
from xailab.core.checks import check_input, check_positive
from xailab.core.layers import edited, find_layer
from xailab.core.state import frozen
from xailab.trust.monitor import Monitor

__all__ = [
    "CORRUPTIONS",
    "Damage",
    "Monitor",
    "bit_names",
    "corrupt",
    "damage_table",
    "flip_bits",
    "flipped",
    "slices",
    "stuck_at",
]

Array = np.ndarray
Where = Literal["weight", "bias", "activation"]

# Of each dtype: an integer of the same size, and how many bits hold the fraction.
_BITS = {
    torch.float64: (torch.int64, 52),
    torch.float32: (torch.int32, 23),
    torch.float16: (torch.int16, 10),
    torch.bfloat16: (torch.int16, 7),
}


# ---- bits ----------------------------------------------------------------------------------------


def flipped(values: Tensor, bit: int) -> Tensor:
    r"""Flip one bit of every number: what a particle does to a memory cell.

    $$v = (-1)^{s}\; 2^{e - 127}\; (1 + f), \qquad
      \text{float32: } s = \text{bit } 31,\; e = \text{bits } 30..23,\; f = \text{bits } 22..0$$

    A flip in the fraction changes a number by less than half of itself. A flip of an exponent bit
    multiplies or divides it by $2^{(2^k)}$: of bit 30, by $2^{128}$.

    Args:
        values: floats.
        bit: which; 0 is the lowest of the fraction, the highest is the sign.

    Returns:
        A copy with the bit flipped, in the shape and dtype of `values`.

    Raises:
        TypeError: not a tensor of floats, or `bit` no integer.
        ValueError: a bit that the dtype does not have.

    Reference: IEEE (2019), Standard for Floating-Point Arithmetic, 754.
    Elsewhere: PyTorchFI, TensorFI.

    >>> flipped(torch.tensor([1.5]), 31), flipped(torch.tensor([1.5]), 22)
    (tensor([-1.5000]), tensor([1.]))
    >>> flipped(torch.tensor([1.5]), 23), flipped(torch.tensor([1.5]), 30)
    (tensor([0.7500]), tensor([nan]))
    """
    whole, mask = _bit(values, bit)
    return values.detach().contiguous().view(whole).bitwise_xor(mask).view(values.dtype)


def bit_names(dtype: torch.dtype = torch.float32) -> list[str]:
    """Return what each bit of a dtype is for, from the lowest to the highest.

    Raises:
        TypeError: no floating-point dtype.

    >>> names = bit_names()
    >>> names[0], names[22], names[23], names[30], names[31]
    ('fraction 0', 'fraction 22', 'exponent 0', 'exponent 7', 'sign')
    """
    whole, fraction = _layout(dtype)
    width = torch.iinfo(whole).bits - 1
    low = [f"fraction {i}" for i in range(fraction)]
    return [*low, *(f"exponent {i}" for i in range(width - fraction)), "sign"]


@contextmanager
def flip_bits(
    model: nn.Module,
    layer: str,
    *,
    bit: int,
    n_faults: int = 1,
    at: Sequence[int] | None = None,
    where: Where = "weight",
    seed: int = 0,
) -> Iterator[None]:
    r"""Flip a bit of some of a layer's numbers inside the `with` block.

    $$w_j \mapsto \operatorname{float}\big(\operatorname{bits}(w_j) \oplus 2^b\big), \quad j \in J$$

    On leaving, also by an error, the weights are bit for bit as they were.

    Args:
        model: the network.
        layer: dotted name of the layer.
        bit: b, which bit; see `bit_names`.
        n_faults: how many numbers are hit, drawn at random.
        at: the places J themselves, as flat numbers: of the weight tensor, or of one row's
            output. None: drawn.
        where: "weight" or "bias" (memory), or "activation": the layer's output, at the same
            places in every row.
        seed: of the places.

    Raises:
        TypeError: no module; `bit` or `n_faults` no integer.
        ValueError: a layer that does not exist (the message lists near names) or has no such
            tensor, a bit that the dtype does not have, more faults than numbers, or a place
            outside; on leaving, an activation's layer that did not run though the model did.

    Reference: Li, Hari, Sullivan, Tsai, Pattabiraman, Emer, Keckler (2017), Understanding Error
        Propagation in Deep Learning Neural Network (DNN) Accelerators and Applications.
    Elsewhere: PyTorchFI.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False))
    >>> net[0].weight.data.fill_(3.0)
    tensor([[3.]])
    >>> with flip_bits(net, "0", bit=31):
    ...     print(net[0].weight.item())
    -3.0
    >>> net[0].weight.item()
    3.0
    """
    with _faulty(model, layer, where, lambda values: flipped(values, bit), n_faults, at, seed):
        yield


@contextmanager
def stuck_at(
    model: nn.Module,
    layer: str,
    *,
    value: float,
    bit: int | None = None,
    n_faults: int = 1,
    at: Sequence[int] | None = None,
    where: Where = "activation",
    seed: int = 0,
) -> Iterator[None]:
    r"""Hold some of a layer's numbers, or one bit of them, at a value inside the `with` block.

    $$a_j \mapsto v, \quad j \in J; \qquad
      \text{with a bit: } \operatorname{bits}(a_j)_b \mapsto v$$

    A dead unit is stuck at 0. Unlike a flip, a stuck bit does nothing where it already has its
    value.

    Args:
        model: the network.
        layer: dotted name of the layer.
        value: what the numbers are stuck at; with `bit`, 0 or 1.
        bit: hold only this bit; see `bit_names`.
        n_faults: how many numbers are hit, drawn at random.
        at: the places themselves, as flat numbers: of the weight tensor, or of one row's
            output. None: drawn.
        where: "activation" (the layer's output), "weight" or "bias".
        seed: of the places.

    Raises:
        TypeError, ValueError: as `flip_bits`; a bit's value that is neither 0 nor 1.

    Reference: Torres-Huitzil, Girau (2017), Fault and Error Tolerance in Neural Networks: A Review.
    Elsewhere: PyTorchFI.

    >>> net = nn.Sequential(nn.Identity())
    >>> with stuck_at(net, "0", value=0.0, at=[1]):
    ...     net(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[1., 0.],
            [3., 0.]])
    """
    if bit is not None and value not in (0, 1):
        raise ValueError(f"a bit can be stuck at 0 or 1, got {value}")

    def stuck(values: Tensor) -> Tensor:
        if bit is None:
            return torch.full_like(values, value)
        whole, mask = _bit(values, bit)
        bits = values.detach().contiguous().view(whole)
        held = bits.bitwise_or(mask) if value else bits.bitwise_and(~mask)
        return held.view(values.dtype)

    with _faulty(model, layer, where, stuck, n_faults, at, seed):
        yield


class Damage(NamedTuple):
    """What faults cost, one row a bit and one column a layer.

    Attributes:
        mean: lost accuracy on average over the drawn places.
        worst: lost accuracy at the worst of them.
    """

    mean: pd.DataFrame
    worst: pd.DataFrame


def damage_table(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layers: Sequence[str],
    bits: Sequence[int],
    n_faults: int = 1,
    n_repeats: int = 5,
    where: Where = "weight",
    seed: int = 0,
    batch_size: int | None = None,
) -> Damage:
    r"""Measure which bits of which layers may not fail.

    $$\text{damage}(b, \ell) = \text{accuracy} - \frac1R \sum_r
      \text{accuracy with bit } b \text{ flipped at places } J_r \text{ of layer } \ell$$

    A row whose outputs are not all finite counts as wrong.

    Args:
        model: maps (N, ...) to logits (N, K).
        x: (N, ...) floats.
        y: (N,) true classes.
        layers: dotted names.
        bits: which bits; see `bit_names`.
        n_faults: numbers hit at once.
        n_repeats: R, draws of the places; the same for all bits.
        where: "weight", "bias" or "activation".
        seed: of the places.
        batch_size: rows evaluated at once; None measures.

    Returns:
        A `Damage` of shares of rows, -1 to 1.

    Raises:
        TypeError, ValueError: as `flip_bits` and, for x, `saliency`; not one class a row.

    Reference: Li, Hari, Sullivan, Tsai, Pattabiraman, Emer, Keckler (2017), Understanding Error
        Propagation in Deep Learning Neural Network (DNN) Accelerators and Applications.
    Elsewhere: PyTorchFI, which leaves the table to its user.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> rows, y = torch.tensor([[1.0, 0.1], [0.1, 1.0]]), torch.tensor([0, 1])
    >>> damage_table(net, rows, y, layers=["0"], bits=[0, 31], n_faults=4).mean
                  0
    fraction 0  0.0
    sign        1.0
    """
    rows = check_input(model, x).detach()
    if y.shape != (len(x),):
        raise ValueError(f"expected one y a row, got {tuple(y.shape)} for {len(x)} rows")
    repeats = range(seed, seed + check_positive("n_repeats", n_repeats))
    names = bit_names(x.dtype)
    sound = _accuracy(model, rows, y, batch_size)
    found = {}
    for layer in layers:
        for bit in bits:
            drops = []
            for draw in repeats:
                with flip_bits(model, layer, bit=bit, n_faults=n_faults, where=where, seed=draw):
                    drops.append(sound - _accuracy(model, rows, y, batch_size))
            found[names[bit], layer] = np.mean(drops), np.max(drops)
    order = {"index": [names[bit] for bit in bits], "columns": list(layers)}
    table = pd.DataFrame(found, index=["mean", "worst"]).T.unstack()
    return Damage(table["mean"].reindex(**order), table["worst"].reindex(**order))


# ---- spoiled inputs ------------------------------------------------------------------------------


def _noise(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    return x + spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _shot(x: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(x * photons, generator=generator) / photons


def _impulse(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    salted = torch.where(drawn < share / 2, 1.0, x)
    return torch.where(drawn > 1 - share / 2, 0.0, salted)


def _blur(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    sigma = spread * min(x.shape[2:])
    side = 2 * round(4 * sigma + 0.5) + 1
    edge = side // 2
    # Edges are repeated: a reflection cannot be wider than the picture.
    padded = F.pad(x, (edge, edge, edge, edge), mode="replicate")
    blurred = vision.gaussian_blur(padded, [side, side], [sigma, sigma])
    return blurred[..., edge:-edge, edge:-edge]


def _brightness(x: Tensor, more: float, generator: torch.Generator) -> Tensor:
    return x + more


def _contrast(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + share * (x - mean)


def _pixelate(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    height, width = x.shape[2:]
    small = (max(1, round(share * height)), max(1, round(share * width)))
    coarse = F.interpolate(x, small, mode="area")
    return F.interpolate(coarse, (height, width), mode="nearest-exact")


# Kind: what is done, and how much of it at severities 1 to 5.
_KINDS: dict[str, tuple[Callable[[Tensor, float, torch.Generator], Tensor], tuple[float, ...]]] = {
    "gaussian_noise": (_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot, (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (_blur, (0.0125, 0.02, 0.03, 0.04, 0.06)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
}
CORRUPTIONS = tuple(_KINDS)


def corrupt(images: Tensor, kind: str, severity: int, *, seed: int = 0) -> Tensor:
    r"""Spoil pictures as cameras, lamps and cables do, at one of five severities.

    $$x' = \operatorname{clip}_{[0, 1]} c_{\text{kind}, s}(x), \qquad s \in \{1, \dots, 5\}$$

    | kind | what it does | at severity 1 ... 5 |
    |---|---|---|
    | gaussian_noise | adds normal noise | standard deviation .08 ... .38 |
    | shot_noise | counts photons | 60 ... 3 photons for white |
    | impulse_noise | makes pixels black or white | 3 % ... 27 % of them |
    | gaussian_blur | blurs | standard deviation 1.25 % ... 6 % of the shorter side |
    | brightness | adds to all | .1 ... .5 |
    | contrast | draws all towards each channel's mean | 40 % ... 5 % is left |
    | pixelate | makes coarse | 60 % ... 25 % of the pixels along a side |

    Args:
        images: (N, C, H, W) floats in 0..1.
        kind: one of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: of the noise.

    Returns:
        The shape of `images`, in 0..1.

    Raises:
        TypeError: not a tensor of floats; a severity that is no integer.
        ValueError: an unknown kind (the message lists near names), a severity outside 1..5, no
            (N, C, H, W), or numbers outside 0..1.

    Reference: Hendrycks, Dietterich (2019), Benchmarking Neural Network Robustness to Common
        Corruptions and Perturbations (kinds and amounts; blur in shares of the side, so that it
        suits any size; brightness there in HSV).
    Elsewhere: imagecorruptions `corrupt(image, severity, corruption_name)`.

    >>> corrupt(torch.full((1, 1, 1, 2), 0.25), "brightness", 5)
    tensor([[[[0.7500, 0.7500]]]])
    """
    check_input(lambda x: x, images)
    if kind not in _KINDS:
        near = get_close_matches(str(kind), CORRUPTIONS, n=3) or CORRUPTIONS
        raise ValueError(f"there is no corruption {kind!r}; near names: {', '.join(near)}")
    if check_positive("severity", severity) > 5:
        raise ValueError(f"severity must lie in 1..5, got {severity}")
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), got {tuple(images.shape)}")
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"images must lie in 0..1, got {low:.4g}..{high:.4g}")
    change, amounts = _KINDS[kind]
    x, generator = images.detach().cpu(), torch.Generator().manual_seed(seed)
    return change(x, amounts[severity - 1], generator).clamp(0, 1).to(images.device)


# ---- slices --------------------------------------------------------------------------------------


def slices(
    errors: Array | Sequence[float],
    features: pd.DataFrame | Mapping[str, Any],
    *,
    k: int = 5,
    n_bins: int = 4,
    min_size: int = 20,
    alpha: float = 0.05,
) -> pd.DataFrame:
    r"""Find the groups of rows on which a model is worst: by one condition, or by two.

    $$t_S = \frac{\bar e_S - \bar e_{\bar S}}
      {\sqrt{s_S^2 / |S| + s_{\bar S}^2 / |\bar S|}}$$

    All groups that one value (or quarter of the range) of a feature makes, and all pairs of these,
    are compared with the remaining rows by Welch's t-test. Looking at many groups finds bad ones by
    chance, so p-values are adjusted (Benjamini-Hochberg): of the groups returned, a share of at
    most `alpha` is expected to be chance.

    Args:
        errors: (N,) 1 where the model is wrong, else 0; or losses. On held-out rows: on training
            rows a model knows its weak spots by heart.
        features: (N, F) what is known of each row: a table, or name -> column. Numbers with more
            than `n_bins` values are cut at their quantiles; all else counts as categories.
        k: how many groups at most.
        n_bins: parts that numbers are cut into.
        min_size: rows a group needs, at least 2.
        alpha: false discovery rate, in (0, 1).

    Returns:
        Up to k groups, the largest $t_S$ first, named by a condition for `features.query(...)`:
        `n`, `error` (its mean), `rest` (the others' mean), `t` and `p` (adjusted, one-sided).

    Raises:
        TypeError: errors that are not numbers.
        ValueError: lengths that differ, NaN in errors or features, `alpha` outside (0, 1), counts
            below 1, or `min_size` below 2.

    Reference: Chung, Kraska, Polyzotis, Tae, Whang (2020), Automated Data Slicing for Model
        Validation: A Big Data - AI Integration Approach (Slice Finder); Benjamini, Hochberg
        (1995), Controlling the False Discovery Rate.
    Elsewhere: SliceLine, Error Analysis (responsible-ai-toolbox), by a tree.

    >>> table = {"color": ["red", "blue"] * 50, "size": ["s", "s", "m", "m"] * 25}
    >>> wrong = [1, 0, 0, 0] * 25  # what is red and small
    >>> slices(wrong, table, k=1)[["n", "error", "rest"]].reset_index()
                                    slice   n  error  rest
    0  `color` == 'red' and `size` == 's'  25    1.0   0.0
    """
    wrong = _errors(errors)
    table = _features(features, len(wrong))
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if check_positive("min_size", min_size) < 2:
        raise ValueError(f"min_size must be at least 2, got {min_size}")
    names, members = _conditions(table, check_positive("n_bins", n_bins))
    found = _compare(wrong, names, members, min_size)
    worst = found[found.p <= alpha].sort_values("t", ascending=False, kind="stable")
    return worst.head(check_positive("k", k))


# ---- parts ---------------------------------------------------------------------------------------


def _layout(dtype: Any) -> tuple[torch.dtype, int]:
    if dtype not in _BITS:
        raise TypeError(f"bits are known of {', '.join(map(str, _BITS))}, not of {dtype}")
    return _BITS[dtype]


def _bit(values: Tensor, bit: int) -> tuple[torch.dtype, int]:
    """Return the integer dtype and the mask with which to reach a bit."""
    if not isinstance(values, Tensor):
        raise TypeError(f"values must be a torch.Tensor, got {type(values).__name__}")
    whole, fraction = _layout(values.dtype)
    highest = torch.iinfo(whole).bits - 1
    if isinstance(bit, bool) or not isinstance(bit, (int, np.integer)):
        raise TypeError(f"bit must be an integer, got {type(bit).__name__}")
    if not 0 <= bit <= highest:
        raise ValueError(
            f"bit must lie in 0..{highest} for {values.dtype} (fraction 0..{fraction - 1}, "
            f"exponent {fraction}..{highest - 1}, sign {highest}), got {bit}"
        )
    return whole, -(2**highest) if bit == highest else 2 ** int(bit)


def _places(n: int, n_faults: int, at: Sequence[int] | None, seed: int) -> Tensor:
    """Return which of n numbers are hit: those named, or as many as wanted, drawn."""
    if at is not None:
        if any(not 0 <= place < n for place in at):
            raise ValueError(f"places must lie in 0..{n - 1}, got {list(at)}")
        return torch.tensor([int(place) for place in at], dtype=torch.int64)
    if check_positive("n_faults", n_faults) > n:
        raise ValueError(f"there are {n} numbers to hit, got n_faults={n_faults}")
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:n_faults]


@contextmanager
def _faulty(
    model: nn.Module,
    layer: str,
    where: str,
    fault: Callable[[Tensor], Tensor],
    n_faults: int,
    at: Sequence[int] | None,
    seed: int,
) -> Iterator[None]:
    """Let a fault change some numbers of a layer's memory or of its output."""
    if where not in ("weight", "bias", "activation"):
        raise ValueError(f"where must be weight, bias or activation, got {where!r}")
    module = find_layer(model, layer)
    if where == "activation":
        weight = next(model.parameters(), torch.zeros(1))
        fault(torch.zeros_like(weight))  # a bit that does not exist is refused before it runs

        def edit(output: Tensor) -> Tensor:
            changed = output.flatten(1).clone()
            places = _places(changed.shape[1], n_faults, at, seed).to(changed.device)
            changed[:, places] = fault(changed[:, places])
            return changed.reshape(output.shape)

        with _striking(model, layer), edited(model, layer, edit):
            yield
        return
    memory = _memory(module, layer, where)
    places = _places(memory.numel(), n_faults, at, seed).to(memory.device)
    cells = torch.unravel_index(places, memory.shape)
    kept = memory[cells]
    broken = fault(kept)
    try:
        memory[cells] = broken
        yield
    finally:
        memory[cells] = kept


@contextmanager
def _striking(model: nn.Module, layer: str) -> Iterator[None]:
    """Refuse a block in which the model ran but the layer did not: its fault hit nothing."""
    ran: set[str] = set()
    watched = {"the model": model, "the layer": find_layer(model, layer)}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, module in watched.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if ran == {"the model"}:
        raise ValueError(f"layer {layer!r} did not run: the fault hit nothing")


def _memory(module: nn.Module, layer: str, where: str) -> Tensor:
    """Return a layer's weight or bias, outside of any graph, in its own memory."""
    tensor = getattr(module, where, None)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"layer {layer!r} ({type(module).__name__}) has no {where}")
    return tensor.detach()


def _accuracy(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> float:
    with frozen(model), torch.no_grad():
        logits = batched(model, x, batch_size=batch_size, owner=model, progress=False)
    right = (logits.argmax(1) == y) & logits.isfinite().all(1)
    return right.double().mean().item()


def _errors(errors: Any) -> Array:
    wrong = np.asarray(errors)
    if wrong.dtype.kind not in "biuf":
        raise TypeError(f"errors must be numbers, got {wrong.dtype}")
    if wrong.ndim != 1 or len(wrong) == 0 or not np.isfinite(wrong).all():
        raise ValueError(f"errors must be (N,) finite numbers, got shape {wrong.shape}")
    return wrong.astype(np.float64)


def _features(features: Any, n: int) -> pd.DataFrame:
    table = pd.DataFrame(features)
    if len(table) != n or table.shape[1] == 0:
        raise ValueError(f"features must have a column and {n} rows, as errors, got {table.shape}")
    holes = [str(name) for name in table if table[name].isna().any()]
    if holes:
        raise ValueError(f"features hold missing values in {', '.join(holes)}: fill or name them")
    return table


def _conditions(table: pd.DataFrame, n_bins: int) -> tuple[list[str], Array]:
    """Return every single condition as text for `query`, and whom it holds for, (C, N)."""
    names: list[str] = []
    members: list[Array] = []
    for name, column in table.items():
        numeric = column.dtype.kind in "iuf" and column.nunique() > n_bins
        for text, inside in _ranges(name, column, n_bins) if numeric else _values(name, column):
            names.append(text)
            members.append(np.asarray(inside, dtype=bool))
    return names, np.stack(members)


def _values(name: Any, column: pd.Series) -> Iterator[tuple[str, Any]]:
    for value in column.unique():
        plain = value.item() if isinstance(value, np.generic) else value
        yield f"`{name}` == {plain!r}", column == value


def _ranges(name: Any, column: pd.Series, n_bins: int) -> Iterator[tuple[str, Any]]:
    """Yield the parts between quantiles, rounded so that the text is exact."""
    cuts = np.quantile(column, np.arange(1, n_bins) / n_bins)
    edges = sorted({float(f"{cut:.4g}") for cut in cuts})
    yield f"`{name}` <= {edges[0]!r}", column <= edges[0]
    for low, high in pairwise(edges):
        yield f"{low!r} < `{name}` <= {high!r}", (column > low) & (column <= high)
    yield f"`{name}` > {edges[-1]!r}", column > edges[-1]


def _compare(wrong: Array, names: list[str], members: Array, min_size: int) -> pd.DataFrame:
    """Compare every condition, and every pair, with the remaining rows.

    A pair's counts and sums are the entries of matrix products.
    """
    inside = members.astype(np.float64)
    totals = [len(wrong), wrong.sum(), (wrong**2).sum()]
    sums = [inside @ inside.T, (inside * wrong) @ inside.T, (inside * wrong**2) @ inside.T]
    first, second = np.transpose(list(combinations_with_replacement(range(len(names)), 2)))
    n, total, squares = (each[first, second] for each in sums)
    fits = (n >= min_size) & (totals[0] - n >= min_size)
    # A pair that is no smaller than one of its halves says nothing new.
    fits &= (first == second) | (n < np.minimum(np.diag(sums[0])[first], np.diag(sums[0])[second]))
    first, second, n, total, squares = (each[fits] for each in (first, second, n, total, squares))
    ours = _moments(n, total, squares)
    others = _moments(totals[0] - n, totals[1] - total, totals[2] - squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        t, p = ttest_ind_from_stats(*ours, *others, equal_var=False, alternative="greater")
    # Two groups without any spread: they are equal, or as far apart as can be.
    even, worse = np.isnan(p), ours[0] > others[0]
    p = np.where(even, np.where(worse, 0.0, 1.0), p)
    t = np.where(even, np.where(worse, np.inf, 0.0), t)
    columns = {"n": n.astype(int), "error": ours[0], "rest": others[0], "t": t}
    texts = [
        names[a] if a == b else f"{names[a]} and {names[b]}"
        for a, b in zip(first, second, strict=True)
    ]
    adjusted = false_discovery_control(p) if len(p) else p
    return pd.DataFrame({**columns, "p": adjusted}, index=pd.Index(texts, name="slice"))


def _moments(n: Array, total: Array, squares: Array) -> tuple[Array, Array, Array]:
    """Return mean, standard deviation and count."""
    mean = total / n
    variance = np.maximum(squares / n - mean**2, 0) * n / (n - 1)
    return mean, np.sqrt(variance), n
