"""A network that answers the same but faster: its batch norms worked into its convolutions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_FEW = 16  # fewer rows do not pay for the folding
_TOLERANCE = 1e-4  # of the largest output
_alike: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class Pair(NamedTuple):
    """A convolution and the batch norm listed after it, by their names in their parent."""

    parent: nn.Module
    convolution: str
    norm: str


@contextmanager
def folding(model: Any, example: Tensor, n: int) -> Iterator[None]:
    """Let a frozen model run with folded batch norms while `n` rows are evaluated.

    In evaluation mode a batch norm multiplies and adds fixed numbers, which the weights of the
    convolution before it can take over; those weights are laid out channels last besides, which
    the CPU's convolutions like. The layers are exchanged inside the model, so that hooks on the
    model go on counting, and put back on leaving. Nothing is exchanged for fewer than 16 rows,
    around layers with hooks, or where a trial on `example` answers otherwise than before (the
    order in which a model lists its layers need not be the order in which it uses them).

    Args:
        model: any callable; only an `nn.Module` is touched.
        example: (1, ...), a row like those to come.
        n: how many rows there are to evaluate.
    """
    pairs = _pairs(model) if n >= _FEW else []
    if not pairs or not _answers_alike(model, pairs, example):
        yield
        return
    with _exchanged(pairs):
        yield


def folded(model: nn.Module) -> nn.Module:
    """Return a copy in which every batch norm is worked into the convolution before it.

    In evaluation mode a batch norm multiplies and adds fixed numbers. The copy gives the same
    outputs up to rounding, faster, and is for evaluation only. Layers keep their names; where a
    batch norm was, its activation stands (timm keeps the two in one module).

    Args:
        model: a network whose modules list each batch norm right after its convolution, such as
            `models.pretrained` gives.

    Elsewhere: `torch.nn.utils.fusion.fuse_conv_bn_eval`, for one such pair.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    >>> folded(net)[1], net[1].num_features
    (Identity(), 2)
    """
    copy = deepcopy(model).eval()
    for pair in _pairs(copy):
        pair.parent._modules.update(_folded(pair))
    return copy


def predictor(model: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Return a network as a black box, arrays to arrays, as LIME and KernelSHAP ask for it.

    It is a copy of the network as it is now, in evaluation mode, folded where that changes no
    answer; training the network later does not reach it.

    Args:
        model: maps (N, ...) tensors to (N, K) or (N,).

    Returns:
        A function that maps (M, ...) arrays to (M, K) or (M,) arrays, in the model's own units.

    Elsewhere: the `predict` or `classifier_fn` that users of lime and shap write by hand.

    >>> predictor(nn.Linear(2, 1).requires_grad_(False))(np.zeros((3, 2))).shape
    (3, 1)
    """
    quick, plain = folded(model), deepcopy(model).eval()
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    trusted: list[nn.Module] = []

    def predict(rows: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(np.asarray(rows), dtype=dtype)
        with torch.no_grad():
            if not trusted:
                trusted.append(quick if _close(quick(x[:1]), plain(x[:1])) else plain)
            return trusted[0](x).numpy()

    return predict


def _pairs(model: Any) -> list[Pair]:
    """Return the layers to fold: listed one after the other, with statistics, without hooks."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        return []
    return [
        Pair(parent, first, second)
        for parent in model.modules()
        for (first, conv), (second, norm) in pairwise(parent._modules.items())
        if isinstance(conv, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.running_var is not None
        and not (_has_hooks(conv) or _has_hooks(norm))
    ]


def _has_hooks(module: nn.Module) -> bool:
    return any(
        hooks for name, hooks in vars(module).items() if name.endswith(("_hooks", "_pre_hooks"))
    )


def _folded(pair: Pair) -> dict[str, nn.Module]:
    """Return what stands in for the two: one convolution, and the norm's activation (timm's)."""
    convolution, norm = (pair.parent.get_submodule(name) for name in pair[1:])
    fused: nn.Module = fuse_conv_bn_eval(convolution, norm)  # type: ignore[type-var, arg-type]
    if next(fused.parameters()).dtype == torch.float32:
        fused = fused.to(memory_format=torch.channels_last)
    fused.eval().requires_grad_(False)
    return {pair.convolution: fused, pair.norm: getattr(norm, "act", nn.Identity())}


@contextmanager
def _exchanged(pairs: list[Pair]) -> Iterator[None]:
    """Exchange the layers, and put the same objects back, whatever happens in between."""
    before = [
        (pair.parent, name, pair.parent._modules[name]) for pair in pairs for name in pair[1:]
    ]
    try:
        for pair in pairs:
            pair.parent._modules.update(_folded(pair))
        yield
    finally:
        for parent, name, module in before:
            parent._modules[name] = module


def _answers_alike(model: nn.Module, pairs: list[Pair], example: Tensor) -> bool:
    """Compare the outputs with and without folding, once for each model."""
    if model not in _alike:
        try:
            with torch.no_grad():
                plain = model(example.clone())
                with _exchanged(pairs):
                    _alike[model] = _close(model(example.clone()), plain)
        except Exception:  # the evaluation itself will fail in the same way, and say why
            return False
    return _alike[model]


def _close(quick: Tensor, plain: Tensor) -> bool:
    return bool((quick - plain).abs().max() <= _TOLERANCE * plain.abs().max())
