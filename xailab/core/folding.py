"""A network that answers the same but faster: its batch norms worked into its convolutions.

Whether a batch norm may be folded is decided by what the network does, never by a trial: its graph
is traced, and only a norm that is the one reader of one convolution's output is folded.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xailab.core.outputs import answer_of, as_array


def folded(model: nn.Module) -> nn.Module:
    """Return a copy in which every batch norm is worked into the convolution before it.

    In evaluation mode a batch norm multiplies and adds fixed numbers. The copy gives the same
    outputs up to rounding, faster, and is for evaluation only. Layers keep their names; where a
    batch norm was, its activation stands (timm keeps the two in one module). A norm is left as it
    is where anything stands between the two, where either runs twice, or where someone else
    reads the convolution's output.

    Args:
        model: a network that `torch.fx` can trace, so that its structure is known.

    Raises:
        TypeError: no `nn.Module`.
        ValueError: the network cannot be traced, so nothing is known about who reads what.

    Elsewhere: `torch.fx.experimental.optimization.fuse`; `torch.nn.utils.fusion.fuse_conv_bn_eval`
        for one such pair.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    >>> folded(net)[1], net[1].num_features
    (Identity(), 2)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    copy = deepcopy(model).eval()
    for convolution, norm in _pairs(copy):
        conv, bn = copy.get_submodule(convolution), copy.get_submodule(norm)
        fused: nn.Module = fuse_conv_bn_eval(conv, bn)  # type: ignore[type-var, arg-type]
        if next(fused.parameters()).dtype == torch.float32:
            fused = fused.to(memory_format=torch.channels_last)
        _put(copy, convolution, fused.eval().requires_grad_(False))
        _put(copy, norm, getattr(bn, "act", nn.Identity()))
    return copy


def predictor(model: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Return a network as a black box, arrays to arrays, as LIME and KernelSHAP ask for it.

    It is a copy of the network as it is now, in evaluation mode, folded where that is certain to
    change no answer; training the network later does not reach it.

    Args:
        model: maps (N, ...) tensors to (N, K) or (N,).

    Returns:
        A function that maps (M, ...) arrays to (M, K) or (M,) arrays, in the model's own units.

    Raises:
        TypeError: no `nn.Module`; a network that returns something else than its logits.

    Elsewhere: the `predict` or `classifier_fn` that users of lime and shap write by hand.

    >>> predictor(nn.Linear(2, 1).requires_grad_(False))(np.zeros((3, 2))).shape
    (3, 1)
    """
    try:
        copy = folded(model)
    except ValueError:  # cannot be traced
        copy = deepcopy(model).eval()
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))

    def predict(rows: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(np.asarray(rows), dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            return as_array(answer_of(copy, x))

    return predict


class _Tracer(fx.Tracer):
    """Follows the data through a network, and looks into no convolution and no batch norm."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(
            module, name
        )


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and batch norm that may become one."""
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # a tracer meets whatever a forward pass does with its values
        raise ValueError(
            f"the network's structure cannot be told ({error}), so nothing in it can be folded"
        ) from error
    modules = dict(model.named_modules())
    runs = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and len(before.users) == 1
            and runs[node.target] == runs[before.target] == 1
            and _foldable(modules[str(before.target)], modules[str(node.target)])
        ):
            yield str(before.target), str(node.target)


def _foldable(convolution: nn.Module, norm: nn.Module) -> bool:
    """Tell whether two layers are the plain kinds, without hooks, weights computed on access."""
    return (
        type(convolution).forward is nn.Conv2d.forward
        and isinstance(norm, nn.BatchNorm2d)
        and norm.running_var is not None
        and (type(norm).forward is nn.BatchNorm2d.forward or hasattr(norm, "act"))
        and not any(_altered(layer) for layer in (convolution, norm))
    )


def _altered(layer: nn.Module) -> bool:
    """Tell whether a layer does more than its class says: by hooks or a forward of its own."""
    hooks = (held for name, held in vars(layer).items() if name.endswith("_hooks"))
    return any(hooks) or hasattr(layer, "parametrizations") or "forward" in vars(layer)


def _put(model: nn.Module, name: str, layer: Any) -> None:
    """Exchange a layer by its dotted name."""
    parent, _, own = name.rpartition(".")
    model.get_submodule(parent)._modules[own] = layer
