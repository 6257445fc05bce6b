"""Class activation maps: where in the picture is the evidence for a class?

All of them weigh the maps of one convolution and add them up; they differ in the weights. Lesson
08 teaches this file. Maps come back as (N, 1, H, W), in units of the model's output.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xailab.attribution.saliency import guided_backprop
from xailab.core.batching import batched
from xailab.core.callable_module import make_callable
from xailab.core.channels_last import channels_last
from xailab.core.checks import Target, check_input, split_target
from xailab.core.company import check_company
from xailab.core.layers import capture, find_layer, output_of, units_axis
from xailab.core.registry import method
from xailab.core.scores import gradients_on, layer_gradient, outputs_of, scores_of, select
from xailab.core.state import frozen

Reshape = Callable[[Tensor], Tensor]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@method("layer", "gap", title="CAM")
def cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    classifier: str | None = None,
    upsample: bool = True,
    interpolation: str = "bilinear",
    reshape: Reshape | None = None,
) -> Tensor:
    r"""Class activation map of a network that ends in global average pooling and one linear layer.

    $$M_c = \sum_k w_{ck} A^k, \qquad \frac{1}{hw} \sum_{ij} M_{c,ij} + b_c = f_c(x)$$

    $A^k$ is the k-th map of the last convolution, $w_{ck}$ the classifier's weight. The map's
    mean plus the bias *is* the logit, so nothing is approximated.

    Args:
        model: ends in pooling and a linear classifier.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are pooled.
        classifier: dotted name of the `nn.Linear`; None takes the model's last one.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w), where it gives tokens; it may
            move and leave out numbers, not compute. None: maps, channels first or last.

    Returns:
        (N, 1, H, W), signed, in units of the score.

    Raises:
        TypeError: `x` not a float tensor, `target` not an integer, `model` not an `nn.Module`.
        ValueError: NaN, no such layer, a layer without positions, target out of range, or a
            model whose logits are not the classifier applied to the averages of this layer.

    Reference: Zhou, Khosla, Lapedriza, Oliva, Torralba (2016), Learning Deep Features for
        Discriminative Localization.
    Elsewhere: torch-cam `CAM`.

    >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> net = nn.Sequential(nn.Identity(), net)
    >>> _ = net[1][2].weight.data.copy_(torch.tensor([[2.0], [-1.0]]))
    >>> cam(net, torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), 0, layer="0")
    tensor([[[[0., 2.],
              [4., 6.]]]])
    """
    check_input(model, x)
    head = _linear(model, classifier)
    with frozen(model), torch.no_grad(), capture(model, layer) as kept:
        logits = outputs_of(model, x)
        select(logits, target)
        (maps,) = _as_maps(model, x, layer, reshape, output_of(kept, layer, len(x)))
        pooled = maps.flatten(2).mean(2)
        if head.in_features != pooled.shape[1] or not torch.allclose(
            head(pooled).reshape(logits.shape), logits, rtol=1e-3, atol=1e-4
        ):
            raise ValueError(
                f"CAM needs logits = linear(average of {layer!r}), which this model's are not; "
                "name the pooled layer and the classifier, or use grad_cam"
            )
        rows = [0 if t is None else t for t in split_target(target, len(x))]
        weights = head.weight[rows]
    return _sized(_weighted(weights, maps), x, upsample, interpolation)


@method("gradient", "layer", title="Grad-CAM", keras="xailab.attribution.cam_keras:grad_cam")
def grad_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    relu: bool = True,
    upsample: bool = True,
    interpolation: str = "bilinear",
    reshape: Reshape | None = None,
    per_channel: bool = False,
) -> Tensor:
    r"""Gradient-weighted class activation map.

    $$\alpha_k = \frac{1}{hw} \sum_{ij} \frac{\partial f_t}{\partial A^k_{ij}}, \qquad
      L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big)$$

    Args:
        model: an `nn.Module` with convolutions.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed, often the last convolution.
        relu: keep only evidence for the class, as in the paper; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w), where it gives tokens; it may
            move and leave out numbers, not compute. None: maps, channels first or last.
        per_channel: return every $\alpha_k A^k$ instead of their sum.

    Returns:
        (N, 1, H, W), or (N, K, H, W) per channel, in units of the score.

    Raises:
        TypeError: `x` not a float tensor, `target` not an integer, `model` not an `nn.Module`.
        ValueError: NaN, no such layer, a layer without positions, target out of range.

    Reference: Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra (2017), Grad-CAM: Visual
        Explanations from Deep Networks via Gradient-Based Localization.
    Elsewhere: captum `LayerGradCam` (no ReLU, no upsampling by default), pytorch-grad-cam.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 6.0]]))
    >>> grad_cam(net, torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]]), 0, layer="0")  # alpha = 3
    tensor([[[[0., 3.],
              [6., 0.]]]])
    """
    maps, gradients = _maps_and_gradients(model, x, target, layer, reshape)
    weights = gradients.flatten(2).mean(2)
    heat = _spread(weights, maps) * maps if per_channel else _weighted(weights, maps)
    return _sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("gradient", "layer", title="Grad-CAM++")
def grad_cam_plus_plus(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    relu: bool = True,
    upsample: bool = True,
    interpolation: str = "bilinear",
    reshape: Reshape | None = None,
) -> Tensor:
    r"""Grad-CAM with positions weighed so that several objects of a class all count.

    $$\alpha^k_{ij} = \frac{g^2}{2 g^2 + g^3 \sum_{ab} A^k_{ab}}, \quad
      w_k = \sum_{ij} \alpha^k_{ij}\, \mathrm{ReLU}(g), \quad
      L = \mathrm{ReLU}\Big(\sum_k w_k A^k\Big)$$

    with $g = \partial f_t / \partial A^k_{ij}$ and $\alpha = 0$ where $g = 0$. The denominator
    holds the **sum** of the map, not its mean.

    Args:
        model: an `nn.Module` with convolutions.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w), where it gives tokens; it may
            move and leave out numbers, not compute. None: maps, channels first or last.

    Returns:
        (N, 1, H, W), in units of the score.

    Raises:
        TypeError, ValueError: as for `grad_cam`.

    Reference: Chattopadhay, Sarkar, Howlader, Balasubramanian (2018), Grad-CAM++: Generalized
        Gradient-based Visual Explanations for Deep Convolutional Networks.
    Elsewhere: pytorch-grad-cam `GradCAMPlusPlus`; torch-cam's divides something else.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    >>> x = torch.tensor([[[[1.0, 1.0], [2.0, 4.0]]]])  # sum 8: alpha = 1 / (2 + 8) at one place
    >>> grad_cam_plus_plus(net, x, 0, layer="0")
    tensor([[[[0.1000, 0.1000],
              [0.2000, 0.4000]]]])
    """
    maps, gradients = _maps_and_gradients(model, x, target, layer, reshape)
    total = _spread(maps.flatten(2).sum(2), maps)
    below = 2 * gradients**2 + gradients**3 * total
    alpha = torch.where(below == 0, 0, gradients**2 / torch.where(below == 0, 1, below))
    heat = _weighted((alpha * gradients.relu()).flatten(2).sum(2), maps)
    return _sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("gradient", "layer", title="LayerCAM")
def layer_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    relu: bool = True,
    upsample: bool = True,
    interpolation: str = "bilinear",
    reshape: Reshape | None = None,
) -> Tensor:
    r"""Every position weighed by its own positive gradient, so that early layers work too.

    $$L = \mathrm{ReLU}\Big(\sum_k \mathrm{ReLU}\Big(\frac{\partial f_t}{\partial A^k}\Big)
      \odot A^k\Big)$$

    Args:
        model: an `nn.Module` with convolutions.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w), where it gives tokens; it may
            move and leave out numbers, not compute. None: maps, channels first or last.

    Returns:
        (N, 1, H, W), in units of the score.

    Raises:
        TypeError, ValueError: as for `grad_cam`.

    Reference: Jiang, Zhang, Hou, Cheng, Wei (2021), LayerCAM: Exploring Hierarchical Class
        Activation Maps for Localization.
    Elsewhere: pytorch-grad-cam `LayerCAM`.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 2.0, -3.0, 4.0]]))
    >>> layer_cam(net, torch.tensor([[[[1.0, 1.0], [1.0, -1.0]]]]), 0, layer="0")
    tensor([[[[1., 2.],
              [0., 0.]]]])
    """
    maps, gradients = _maps_and_gradients(model, x, target, layer, reshape)
    heat = (gradients.relu() * maps).sum(1, keepdim=True)
    return _sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("layer", title="Score-CAM", units="activation")
def score_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    relu: bool = True,
    upsample: bool = True,
    interpolation: str = "bilinear",
    reshape: Reshape | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Maps weighed by the score of the input seen through each of them; no gradient needed.

    $$H^k = \frac{u(A^k) - \min}{\max - \min}, \quad
      w_k = \mathrm{softmax}_k\, f_t(x \odot H^k), \quad
      L = \mathrm{ReLU}\Big(\sum_k w_k A^k\Big)$$

    $u$ stretches a map to the size of `x`. The paper subtracts the score of a baseline first,
    which the softmax cancels. A constant map hides everything, and is evaluated once.

    Args:
        model: an `nn.Module` with convolutions.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed; one forward pass per channel.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the result to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest", for the masks and the result.
        reshape: lays the layer's output out as maps (N, K, h, w), where it gives tokens; it may
            move and leave out numbers, not compute. None: maps, channels first or last.
        batch_size: masked inputs evaluated at once; None measures.

    Returns:
        (N, 1, H, W), in units of the layer's activation: the weights are shares.

    Raises:
        TypeError, ValueError: as for `grad_cam`.

    Reference: Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu (2020), Score-CAM: Score-Weighted
        Visual Explanations for Convolutional Neural Networks.
    Elsewhere: pytorch-grad-cam `ScoreCAM`.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1))
    >>> x = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    >>> torch.equal(score_cam(net, x, 0, layer="0"), x)  # one channel: weight 1
    True
    """
    check_input(model, x)
    with frozen(model), torch.no_grad():
        with capture(model, layer) as kept:
            scores_of(model, x, target)
        check_company(model, x)
        (maps,) = _as_maps(model, x, layer, reshape, output_of(kept, layer, len(x)))
        weights = [
            _channel_scores(model, row, channels, t, interpolation, batch_size).softmax(0)
            for row, channels, t in zip(x, maps, split_target(target, len(x)), strict=True)
        ]
    heat = _weighted(torch.stack(weights), maps)
    return _sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("gradient", "layer", "relu", title="guided Grad-CAM", units="none: a product of two")
def guided_grad_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    interpolation: str = "bilinear",
    reshape: Reshape | None = None,
) -> Tensor:
    r"""Guided backprop, kept only where Grad-CAM is warm.

    $$G = R_{\text{guided}} \odot u(L_{\text{Grad-CAM}})$$

    Args:
        model: its ReLUs must be modules.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of Grad-CAM's layer.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w), where it gives tokens; it may
            move and leave out numbers, not compute. None: maps, channels first or last.

    Returns:
        The shape of `x`; a product of two units, so only its pattern means something.

    Raises:
        TypeError, ValueError: as for `grad_cam` and `guided_backprop`.

    Reference: Selvaraju et al. (2017), Grad-CAM, section 3.2.
    Elsewhere: captum `GuidedGradCam` (nearest by default).

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    >>> guided_grad_cam(net, torch.rand(1, 1, 2, 2), 0, layer="1").shape
    torch.Size([1, 1, 2, 2])
    """
    guided = guided_backprop(model, x, target)
    return guided * grad_cam(
        model, x, target, layer=layer, interpolation=interpolation, reshape=reshape
    )


def _maps_and_gradients(
    model: nn.Module, x: Tensor, target: Target, layer: str, reshape: Reshape | None
) -> tuple[Tensor, Tensor]:
    """Return the layer's maps $A$ and $\\partial f_t / \\partial A$, both (N, K, h, w)."""
    check_input(model, x)
    with frozen(model), gradients_on():
        found = layer_gradient(model, x.detach(), target, layer)
    maps, gradients = _as_maps(model, x, layer, reshape, *found)
    return maps, gradients


def _as_maps(
    model: nn.Module, x: Tensor, layer: str, reshape: Reshape | None, *outputs: Tensor
) -> list[Tensor]:
    """Return a layer's outputs as maps (N, K, h, w), refusing what says nothing about where."""
    came = tuple(outputs[0].shape)
    if len(came) < 3:
        raise ValueError(
            f"layer {layer!r} gives {came}, which has no positions: take an earlier one"
        )
    if reshape is not None:
        maps = [reshape(one) for one in outputs]
    else:
        axis = units_axis(model, layer, x)
        maps = [one.movedim(axis, 1) for one in outputs]
    if maps[0].ndim != x.ndim or len(maps[0]) != len(x):
        what = "" if reshape is None else f", which reshape makes {tuple(maps[0].shape)}"
        raise ValueError(
            f"layer {layer!r} gives {came}{what}: no maps over x {tuple(x.shape)}. Tokens are laid "
            "out by reshape=, for instance `lambda t: t[:, 1:].mT.unflatten(2, (14, 14))` for a "
            "class token before 14 x 14 patches"
        )
    return maps


def _linear(model: nn.Module, name: str | None) -> nn.Linear:
    """Return the classifier of that name, or the model's last linear layer."""
    if name is not None:
        linear = find_layer(model, name)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"classifier {name!r} is {type(linear).__name__}, not nn.Linear")
        return linear
    modules = model.modules() if isinstance(model, nn.Module) else []
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    if not linears:
        raise ValueError("the model has no nn.Linear to take class weights from; use grad_cam")
    return linears[-1]


def _spread(weights: Tensor, maps: Tensor) -> Tensor:
    """Give (N, K) weights one dimension of length 1 per dimension of positions."""
    return weights.reshape(*weights.shape, *(1,) * (maps.ndim - 2))


def _weighted(weights: Tensor, maps: Tensor) -> Tensor:
    """Return the weighted sum of maps over channels, (N, 1, h, w)."""
    return (_spread(weights, maps) * maps).sum(1, keepdim=True)


def _sized(heat: Tensor, x: Tensor, upsample: bool, interpolation: str) -> Tensor:
    """Return maps stretched to the size of `x`, if that is wanted."""
    return (_stretched(heat, x, interpolation) if upsample else heat).detach()


def _stretched(maps: Tensor, x: Tensor, interpolation: str) -> Tensor:
    """Interpolate (N, K, h, w) to the height and width of (N, C, H, W)."""
    if interpolation not in ("bilinear", "nearest"):
        raise ValueError(f"interpolation must be 'bilinear' or 'nearest', got {interpolation!r}")
    if maps.ndim != x.ndim:
        raise ValueError(f"maps {tuple(maps.shape)} cannot be laid over x {tuple(x.shape)}")
    if interpolation == "nearest":
        return F.interpolate(maps, size=x.shape[2:], mode="nearest")
    return F.interpolate(maps, size=x.shape[2:], mode=_MODES[x.ndim - 2], align_corners=False)


def _channel_scores(
    model: nn.Module,
    row: Tensor,
    channels: Tensor,
    target: int | None,
    interpolation: str,
    batch_size: int | None,
) -> Tensor:
    """Return the score of one input seen through each of its (K, h, w) maps, (K,)."""

    def seen_through(small: Tensor) -> Tensor:
        large = _stretched(small[:, None], row[None], interpolation)
        positions = tuple(range(1, large.ndim))
        low, high = large.amin(positions, keepdim=True), large.amax(positions, keepdim=True)
        masks = torch.where(high > low, (large - low) / (high - low), 0)
        return scores_of(model, row * masks, target)

    with channels_last(model, len(channels)):
        return batched(
            seen_through, channels, batch_size=batch_size, owner=model, row_bytes=row.nbytes
        )


make_callable(__name__)
