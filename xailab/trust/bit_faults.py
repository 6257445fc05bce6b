"""Which bit of which layer may not fail: broken memory, and broken numbers in flight.

Lesson `faults` teaches this file.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.checks import as_integer, check_index, check_input, check_positive
from xailab.core.layers import edited, find_layer
from xailab.core.outputs import class_logits, classes_of, labels_of
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.trust.bits import bit_names, check_bit, flipped, with_bit
from xailab.trust.memory import (
    Fault,
    Places,
    broken_memory,
    changed,
    check_arrived,
    layer_names,
    stored,
    warn_unless,
)

Where = Literal["weight", "bias", "activation"]
Labels = Tensor | np.ndarray | Sequence[int]


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

    On leaving, also by an error, the weights are bit for bit as they were. A weight that layers
    share is broken in all of them. A flip that changes no value (the sign of a zero) is allowed,
    and a warning says so.

    A weight that is computed is broken where its numbers lie: in the integer codes of a layer
    that `quantize` made, in the `original` of a parametrization, in `weight_v` of weight norm,
    in `weight_orig` of torch's pruning and spectral norm.

    Args:
        model: the network.
        layer: dotted name of the layer.
        bit: b, which bit of the numbers that are stored; see `bit_names`.
        n_faults: how many numbers are hit, drawn at random.
        at: the places J themselves, as flat numbers: of the weight tensor, or of one row's
            output. None: drawn.
        where: "weight" or "bias" (memory), or "activation": the layer's output, at the same
            places in every row.
        seed: of the places.

    Raises:
        TypeError: no module; `bit`, `n_faults`, `seed` or a place no integer; an output that is
            not one tensor.
        ValueError: a layer that does not exist (the message lists near names) or has no such
            tensor in a parameter or buffer (the message says what it holds), a bit that the
            dtype does not have, no fault, more faults than numbers, a place outside, or places
            of which nothing arrives in a computed weight (behind a mask); on leaving, an
            activation's layer that did not run though the model did.

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
    _check_where(where)
    _check_early(model, layer, where, bit)
    places = _drawn(n_faults, at, seed)
    with _faulty(model, layer, where, partial(flipped, bit=bit), places):
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
    value. A number that is stuck at what it is does nothing either; where that is so at all
    places, a warning says it. Computed and shared weights are broken as by `flip_bits`.

    Args:
        model: the network.
        layer: dotted name of the layer.
        value: what the numbers are stuck at; with `bit`, 0 or 1. The integer codes of a
            quantized layer are stuck at a code.
        bit: hold only this bit; see `bit_names`.
        n_faults: how many numbers are hit, drawn at random.
        at: the places themselves, as flat numbers: of the weight tensor, or of one row's
            output. None: drawn.
        where: "activation" (the layer's output), "weight" or "bias".
        seed: of the places.

    Raises:
        TypeError, ValueError: as `flip_bits`; a value that is no number, or that the dtype does
            not have; a bit's value that is neither 0 nor 1.

    Reference: Torres-Huitzil, Girau (2017), Fault and Error Tolerance in Neural Networks: A Review.
    Elsewhere: PyTorchFI.

    >>> net = nn.Sequential(nn.Identity())
    >>> with stuck_at(net, "0", value=0.0, at=[1]):
    ...     net(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[1., 0.],
            [3., 0.]])
    """
    _check_where(where)
    number = _number(value)
    if bit is None:
        fault = partial(_filled, value=number)
    else:
        if number not in (0, 1):
            raise ValueError(f"a bit can be stuck at 0 or 1, got {value}")
        _check_early(model, layer, where, bit)
        fault = partial(with_bit, bit=bit, value=int(number))
    places = _drawn(n_faults, at, seed)
    with _faulty(model, layer, where, fault, places, may_rest=bit is not None):
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
    y: Labels,
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

    A row whose outputs are not all finite counts as wrong. A flip that changes no value (the sign
    of a zero) does no damage, and counts as such.

    Args:
        model: maps (N, ...) to logits (N, K), or to one logit of a binary network.
        x: (N, ...) floats.
        y: (N,) true classes.
        layers: dotted names. All hold numbers of one dtype.
        bits: which bits; see `bit_names`. Of a quantized layer those of its integer codes.
        n_faults: numbers hit at once.
        n_repeats: R, draws of the places; the same for all bits.
        where: "weight", "bias" or "activation".
        seed: of the places.
        batch_size: rows evaluated at once; None measures.

    Returns:
        A `Damage` of shares of rows, -1 to 1.

    Raises:
        TypeError, ValueError: as `flip_bits` and, for x, `saliency`; not one class a row; layers
            whose numbers differ in dtype; a layer on whose weight or bias no answer depends.

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
    names, wanted = layer_names(model, layers), [as_integer("bit", bit) for bit in bits]
    first = as_integer("seed", seed)
    repeats = range(first, first + check_positive("n_repeats", n_repeats))
    words = _words(model, names, wanted, where, rows)
    answer = partial(_logits, model, rows, batch_size)
    with frozen(model):
        sound = answer()
        truth = labels_of(y, *sound.shape).to(sound.device)
        right, found = _accuracy(sound, truth), {}
        for layer in names:
            _check_used(model, layer, where, sound, answer)
            seen = []
            for bit in wanted:
                fault, drops = partial(flipped, bit=bit), []
                for draw in repeats:
                    places = _drawn(n_faults, None, draw)
                    with _faulty(model, layer, where, fault, places, tell=False) as arrived:
                        drops.append(right - _accuracy(answer(), truth))
                    seen.append(arrived)
                found[words[bit], layer] = np.mean(drops), np.max(drops)
            check_arrived(any(seen), layer, where, "other numbers")
    order = {"index": [words[bit] for bit in wanted], "columns": names}
    table = pd.DataFrame(found, index=["mean", "worst"]).T.unstack()
    return Damage(table["mean"].reindex(**order), table["worst"].reindex(**order))


# ---- parts ---------------------------------------------------------------------------------------


@contextmanager
def _faulty(
    model: nn.Module,
    layer: str,
    where: str,
    fault: Fault,
    places: Places,
    *,
    tell: bool = True,
    may_rest: bool = False,
) -> Iterator[bool]:
    """Let a fault change some numbers of a layer's memory or of its output."""
    if where == "activation":
        with _broken_output(model, layer, fault, places, tell and not may_rest):
            yield True
    else:
        with broken_memory(
            model, layer, where, fault, places, tell=tell, may_rest=may_rest
        ) as arrived:
            yield arrived


@contextmanager
def _broken_output(
    model: nn.Module, layer: str, fault: Fault, places: Places, tell: bool
) -> Iterator[None]:
    """Let a fault change the same numbers of every row that a layer hands on."""
    moved: list[bool] = []

    def edit(output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim == 0:
            came = "no rows" if isinstance(output, Tensor) else type(output).__name__
            raise TypeError(f"layer {layer!r} returns {came}, not one tensor with a row each")
        rows = output.reshape(len(output), -1).clone()
        hit = places(rows.shape[1]).to(rows.device)
        broken = fault(rows[:, hit])
        moved.append(changed(rows[:, hit], broken))
        rows[:, hit] = broken
        return rows.reshape(output.shape)

    with edited(model, layer, edit):
        yield
    if tell and moved:
        warn_unless(any(moved), layer)


def _drawn(n_faults: int, at: Sequence[int] | None, seed: int) -> Places:
    """Return what says which of n numbers are hit: those named, or as many as wanted, drawn."""
    start = as_integer("seed", seed)
    if at is not None:
        if np.ndim(at) != 1 or len(at) == 0:
            raise ValueError(f"at must be a list of one place or more, got {at!r}")
        return lambda n: torch.tensor([check_index("a place in at", place, n) for place in at])
    count = check_positive("n_faults", n_faults)

    def draw(n: int) -> Tensor:
        if count > n:
            raise ValueError(f"there are {n} numbers to hit, got n_faults={count}")
        return torch.randperm(n, generator=torch.Generator().manual_seed(start))[:count]

    return draw


def _check_where(where: Any) -> None:
    if where not in ("weight", "bias", "activation"):
        raise ValueError(f"where must be weight, bias or activation, got {where!r}")


def _dtype(model: nn.Module, layer: str, where: str) -> tuple[torch.dtype, str]:
    """Return the dtype of a layer's stored or expected numbers, and words on whose they are."""
    find_layer(model, layer)
    if where == "activation":
        floats = (one.dtype for one in model.parameters() if one.is_floating_point())
        return next(floats, torch.float32), ""
    name, tensor = stored(model, layer, where)
    return tensor.dtype, f", in which layer {layer!r} stores its {where} ({name})"


def _check_early(model: nn.Module, layer: str, where: str, bit: Any) -> None:
    """Refuse a bit that the numbers do not have before anything runs."""
    dtype, of = _dtype(model, layer, where)
    check_bit(dtype, bit, of=of)


def _number(value: Any) -> float:
    """Return what numbers are stuck at, refusing what is no number."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"value must be a number, got {type(value).__name__}")
    return int(value) if isinstance(value, Integral) else float(value)


def _filled(values: Tensor, value: float) -> Tensor:
    """Return the value in the dtype of the numbers, refusing one that the dtype does not have."""
    bit_names(values.dtype)  # neither floats nor integers: refused
    if values.is_floating_point():
        limits: Any = torch.finfo(values.dtype)
        fits = not math.isfinite(value) or limits.min <= value <= limits.max
    else:
        limits = torch.iinfo(values.dtype)
        fits = math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max
    if not fits:
        kind = "a number" if values.is_floating_point() else "a whole number"
        raise ValueError(
            f"value must be {kind} in {limits.min}..{limits.max}, as {values.dtype} holds what is "
            f"stored there, got {value}"
        )
    return torch.full_like(values, value)


def _words(
    model: nn.Module, layers: list[str], bits: list[int], where: str, x: Tensor
) -> dict[int, str]:
    """Return what each bit is for, in the one dtype that the layers' numbers have."""
    _check_where(where)
    if not bits:
        raise ValueError("bits must name a bit, got none")
    dtypes = [_dtype(model, layer, where) for layer in layers]
    kinds = {x.dtype} if where == "activation" else {dtype for dtype, _ in dtypes}
    if len(kinds) > 1:
        found = ", ".join(
            f"{name}: {dtype}" for name, (dtype, _) in zip(layers, dtypes, strict=True)
        )
        raise ValueError(f"layers store numbers of several dtypes, make a table of each: {found}")
    dtype = kinds.pop()
    names = bit_names(dtype)
    return {bit: names[check_bit(dtype, bit, of=dtypes[0][1])] for bit in bits}


def _check_used(
    model: nn.Module, layer: str, where: str, sound: Tensor, answer: Callable[[], Tensor]
) -> None:
    """Refuse a layer whose memory nothing reads: it would seem to bear every fault.

    NaN in all of its numbers would show in the answers. (Of activations `edited` sees to it.)
    """
    if where == "activation" or not sound.isfinite().all():
        return
    with broken_memory(model, layer, where, _ruined, torch.arange, tell=False):
        same = torch.equal(sound, answer())
    if same:
        raise ValueError(
            f"no answer depends on the {where} of layer {layer!r}: a fault there would hit nothing"
        )


def _ruined(values: Tensor) -> Tensor:
    if values.is_floating_point():
        return torch.full_like(values, math.nan)
    return values.bitwise_not()


def _logits(model: nn.Module, x: Tensor, batch_size: int | None) -> Tensor:
    """Return logits with a column for every class."""
    with torch.no_grad():
        return class_logits(
            batched(
                lambda rows: outputs_of(model, rows),
                x,
                batch_size=batch_size,
                owner=model,
                progress=False,
            )
        )


def _accuracy(logits: Tensor, y: Tensor) -> float:
    right = (classes_of(logits) == y) & logits.isfinite().all(1)
    return right.double().mean().item()
