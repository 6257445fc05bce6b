"""Explanations out of one backward pass: which way does the score move when a pixel moves?

Lesson `saliency` teaches this file. All functions take `(model, x, target)` and give one number per
input number, in units of score per unit of input (`input_x_gradient`: in units of the score).
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from xailab.core.callable_module import make_callable
from xailab.core.checks import Model, Target, check_input, check_positive
from xailab.core.layers import replaced
from xailab.core.noise import noisy_copies
from xailab.core.parts import at_layer
from xailab.core.registry import method
from xailab.core.scores import (
    gradient_at,
    gradients_of,
    gradients_on,
    nodes_of,
    scores_of,
    summed_gradients,
)
from xailab.core.state import frozen


@method("gradient", units="score per unit of x", keras="xailab.attribution.cam_keras:saliency")
def saliency(
    model: Model, x: Tensor, target: Target, *, absolute: bool = False, layer: str | None = None
) -> Tensor:
    r"""Gradient of the target's score with respect to the input.

    $$S = \frac{\partial f_t(x)}{\partial x}$$

    This is sensitivity, not contribution: the gradient of $3x$ is 3 wherever $x$ is.

    Args:
        model: maps (N, ...) to logits (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, None for a single-output model, or a function of
            the outputs that gives (N,), such as `lambda out: out[:, 1] - out[:, 0]`.
        absolute: return $|S|$, as Simonyan et al. draw it.
        layer: dotted name of a layer: the gradient by what that layer gives, $h_l(x)$, in place of
            x (the model is then an `nn.Module`). None: by x.

    Returns:
        The shape of `x` (of the layer's output), in units of the score per unit of that.

    Raises:
        TypeError: `x` is not a float tensor, or `target` neither integers nor a function.
        ValueError: NaN in `x`, wrong shape, target out of range; a layer that does not exist or
            does not run exactly once; no gradient that reaches x, or the layer.

    Reference: Simonyan, Vedaldi, Zisserman (2013), Deep Inside Convolutional Networks:
        Visualising Image Classification Models and Saliency Maps.
    Elsewhere: captum `Saliency` (takes the absolute value by default); of one unit inside,
        `saliency(core.up_to(model, layer), x, unit)`, captum's `NeuronGradient`.

    >>> net = nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -2.0]]))
    >>> saliency(net, torch.tensor([[1.0, 1.0]]), 0)
    tensor([[ 3., -2.]])
    """
    _, gradient = gradient_at(model, check_input(model, x), target, layer)
    return gradient.abs() if absolute else gradient


@method("gradient")
def input_x_gradient(
    model: Model, x: Tensor, target: Target, *, layer: str | None = None
) -> Tensor:
    r"""Input times gradient: what each input number adds if the model were linear.

    $$A = x \odot \frac{\partial f_t(x)}{\partial x}$$

    For a linear model without offset the numbers add up to the score; a bias is left out.

    Args:
        model: maps (N, ...) to logits (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, None, or a function, as for
            `saliency`.
        layer: dotted name of a layer: activation times gradient, $h_l(x)$ in place of x.

    Returns:
        The shape of `x` (of the layer's output), in units of the score.

    Raises:
        TypeError, ValueError: as for `saliency`.

    Reference: Shrikumar, Greenside, Shcherbina, Kundaje (2016), Not Just a Black Box: Learning
        Important Features Through Propagating Activation Differences.
    Elsewhere: captum `InputXGradient`, `LayerGradientXActivation`.

    >>> net = nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -2.0]]))
    >>> input_x_gradient(net, torch.tensor([[1.0, 2.0]]), 0)
    tensor([[ 3., -4.]])
    """
    values, gradient = gradient_at(model, check_input(model, x), target, layer)
    return values * gradient


@method(
    "gradient",
    "relu",
    units="score per unit of x",
    keras="xailab.attribution.cam_keras:guided_backprop",
)
def guided_backprop(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    r"""Backward pass that keeps only positive gradients at every ReLU.

    $$R^{l} = \mathbb 1[a^l > 0] \cdot \mathbb 1[R^{l+1} > 0] \cdot R^{l+1}$$

    $a^l$ is the ReLU's input, $R^{l+1}$ the signal from above. It draws clean edges, and it
    draws them for a network with random weights too (Adebayo et al. 2018).

    Args:
        model: its ReLUs must be modules (`nn.ReLU`, `nn.ReLU6`), never function calls.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.

    Returns:
        The shape of `x`, in units of the score per unit of `x`.

    Raises:
        TypeError: as for `saliency`, or a model that is not an `nn.Module`.
        ValueError: as for `saliency`, or a model without ReLU modules, or with a functional one.

    Reference: Springenberg, Dosovitskiy, Brox, Riedmiller (2014), Striving for Simplicity: The
        All Convolutional Net.
    Elsewhere: captum `GuidedBackprop`.

    >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    >>> for layer, weight in ((net[0], 2.0), (net[2], -3.0)):
    ...     _ = layer.weight.data.fill_(weight), layer.bias.data.fill_(1.0)
    >>> x = torch.tensor([[1.0]])
    >>> saliency(net, x, 0), guided_backprop(net, x, 0)
    (tensor([[-6.]]), tensor([[0.]]))
    """
    return _rectified(_Guided, model, x, target)


@method("gradient", "relu", units="score per unit of x")
def deconvnet(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    r"""Backward pass with a ReLU on the signal itself, blind to what the forward pass did.

    $$R^{l} = \mathbb 1[R^{l+1} > 0] \cdot R^{l+1}$$

    Args:
        model: its ReLUs must be modules (`nn.ReLU`, `nn.ReLU6`), never function calls.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.

    Returns:
        The shape of `x`, in units of the score per unit of `x`.

    Raises:
        TypeError, ValueError: as for `guided_backprop`.

    Reference: Zeiler, Fergus (2013), Visualizing and Understanding Convolutional Networks.
    Elsewhere: captum `Deconvolution`.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
    >>> for layer, weight in ((net[0], -2.0), (net[2], 3.0)):
    ...     _ = layer.weight.data.fill_(weight)
    >>> x = torch.tensor([[1.0]])  # the ReLU is off: its input is -2
    >>> saliency(net, x, 0).item(), deconvnet(net, x, 0).item()
    (0.0, -6.0)
    """
    return _rectified(_Deconv, model, x, target)


@method(
    "gradient",
    title="SmoothGrad",
    units="score per unit of x",
    rows=lambda subject, options: options.get("n_samples", 25),
)
def smoothgrad(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    noise: float = 0.1,
    n_samples: int = 25,
    seed: int = 0,
    layer: str | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Mean gradient over noisy copies of the input.

    $$\hat S = \frac{1}{n} \sum_{k=1}^{n} \frac{\partial f_t(x + \epsilon_k)}{\partial x}, \qquad
      \epsilon_k \sim \mathcal N\big(0, (\text{noise} \cdot (x_{max} - x_{min}))^2\big)$$

    Every row sees the same draws, so a batch gives what its rows give one by one.

    Args:
        model: maps (N, ...) to logits (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, None, or a function, as for
            `saliency`.
        noise: standard deviation of the noise as a share of the row's own range.
        n_samples: noisy copies of each row.
        seed: of the noise; the global random state is neither used nor changed.
        layer: dotted name of a layer: $h_l(x)$ in place of x, which is what gets the noise.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x` (of the layer's output), in units of the score per unit of that.

    Raises:
        TypeError, ValueError: as for `saliency`; `noise` < 0, `n_samples` < 1.

    Reference: Smilkov, Thorat, Kim, Viégas, Wattenberg (2017), SmoothGrad: removing noise by
        adding noise.
    Elsewhere: captum `NoiseTunnel(Saliency(...))`, whose `stdevs` are in units of `x`.

    >>> net = nn.Linear(2, 1)
    >>> torch.allclose(smoothgrad(net, torch.ones(1, 2), 0), net.weight)
    True
    """
    x = check_input(model, x).detach()
    n = check_positive("n_samples", n_samples)
    at = None if layer is None else at_layer(model, x, layer, target, batch_size=batch_size)
    values = x if at is None else at.outputs
    return summed_gradients(
        model,
        values,
        target,
        n,
        noisy_copies(values, noise, n, seed),
        lambda rows, numbers: 1 / n,
        batch_size=batch_size,
        slope=None if at is None else at.slope,
    )


class _Guided(torch.autograd.Function):
    """ReLU whose backward keeps what is positive below and above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < cap))
        return x.clamp(0, cap)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        (passed,) = ctx.saved_tensors
        return signal.clamp(min=0) * passed, None


class _Deconv(torch.autograd.Function):
    """ReLU whose backward is a ReLU on the signal from above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float) -> Tensor:
        return x.clamp(0, cap)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        return signal.clamp(min=0), None


def _rectified(
    rule: type[_Guided] | type[_Deconv], model: nn.Module, x: Tensor, target: Target
) -> Tensor:
    """Gradient of the score with every ReLU's backward pass replaced by the rule."""
    x, relus = check_input(model, x), _relus(model)
    with frozen(model), gradients_on(), replaced({relu: _by(rule, relu) for relu in relus}):
        leaf = x.detach().clone().requires_grad_()
        scores = scores_of(model, leaf, target)
        _refuse_functional_relus(scores)
        return gradients_of(scores, leaf)


def _relus(model: nn.Module) -> list[nn.Module]:
    """Return the ReLU modules of the model."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    relus: list[nn.Module] = [
        module for module in model.modules() if isinstance(module, (nn.ReLU, nn.ReLU6))
    ]
    if not relus:
        raise ValueError(
            "the model has no ReLU modules (nn.ReLU or nn.ReLU6) to work on: saliency needs none"
        )
    return relus


def _by(rule: Any, relu: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a forward pass that is the ReLU's own, with the rule's backward pass."""
    cap = 6.0 if isinstance(relu, nn.ReLU6) else float("inf")
    return lambda x: rule.apply(x, cap)


def _refuse_functional_relus(scores: Tensor) -> None:
    """Raise if the recorded graph still holds a ReLU: it would pass the plain gradient."""
    for node in nodes_of(scores):
        if _may_be_relu(node):
            raise ValueError(
                f"the model calls a ReLU as a function ({node.name()}), or a mask, a comparison or "
                "a function of its own that may be one: write every one as a module (nn.ReLU) so "
                "that its backward pass can be replaced"
            )


# Operations that cut off by themselves, and the saved number at 0 of those that may.
_CUTS = {"Relu", "Threshold", "Where", "MaskedFill", "MaskedScatter", "MaskedSelect", "IndexPut"}
_CUTS |= {"IndexFill", "Abs", "Sign", "Heaviside", "Rrelu", "RreluWithNoise"}
_CUTS_AT_ZERO = {
    "Clamp": ("min", "max"),
    "ClampMin": ("min",),
    "ClampMax": ("max",),
    "Hardtanh": ("min_val", "max_val"),
    "LeakyRelu": ("negative_slope",),
    "PreluKernel": ("weight",),
    "Elu": ("alpha",),
    "Maximum": ("self", "other"),
    "Minimum": ("self", "other"),
    "Fmax": ("self", "other"),
    "Fmin": ("self", "other"),
}
# Operations that multiply, and the saved numbers that may be a mask.
_FACTORS = {
    "Mul": ("self", "other"),
    "Div": ("other",),
    "Addcmul": ("tensor1", "tensor2"),
    "Bmm": ("self", "mat2"),
}


def _may_be_relu(node: Any) -> bool:
    """Tell whether a node of the graph cuts off what is below zero, or might."""
    name = re.sub(r"Backward\w*$", "", node.name())
    if isinstance(node, BackwardCFunction):  # a function that Python code differentiates
        return not isinstance(node, (_Guided._backward_cls, _Deconv._backward_cls))
    if name in _CUTS_AT_ZERO:
        return any(_is_zero(getattr(node, f"_saved_{of}", None)) for of in _CUTS_AT_ZERO[name])
    if name in _FACTORS:
        return any(_is_mask(getattr(node, f"_saved_{of}", None)) for of in _FACTORS[name])
    if name == "Index":
        return any(_is_mask(index) for index in node._saved_indices)
    below = [parent for parent, _ in node.next_functions if parent is not None]
    if name == "Sqrt":  # of a square: an absolute value
        return any(re.match("Pow|Mul", parent.name()) for parent in below)
    if name in {"Max", "Amax"}:  # over a pile with a constant in it
        piles = [parent for parent in below if re.match("Stack|Cat", parent.name())]
        return any(parent is None for pile in piles for parent, _ in pile.next_functions)
    return name in _CUTS


def _is_zero(value: Any) -> bool:
    return value is not None and not torch.as_tensor(value).any()


def _is_mask(factor: Tensor | None) -> bool:
    """Tell whether factors say yes and no: bools, 0 and 1, or (of a divisor) 1 and infinity."""
    if factor is None or factor.dtype == torch.bool or factor.dtype == torch.int64:
        return factor is not None and factor.dtype == torch.bool
    no = (factor == 0) | factor.isinf()
    return bool((no | (factor == 1)).all() and no.any() and not no.all())


make_callable(__name__)
