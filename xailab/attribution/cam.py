"""Class activation maps: where in the picture is the evidence for a class?

All of them weigh the maps of one layer and add them up; they differ in the weights. Lesson `cam`
teaches this file. Maps come back as (N, 1, H, W), in units of the model's output. A transformer's
tokens are maps too, once it is known which patch each stands for (`core.tokens`). Those that ask no
gradient are in `cam_without_gradients`, and can be imported from here.
"""

import torch
from torch import Tensor, nn

from xailab.attribution._cam_maps import (
    Reshape,
    as_maps,
    maps_and_gradients,
    sized,
    spread,
    weighted,
)
from xailab.attribution.cam_without_gradients import ablation_cam as ablation_cam
from xailab.attribution.cam_without_gradients import eigen_cam as eigen_cam
from xailab.attribution.cam_without_gradients import score_cam as score_cam
from xailab.attribution.saliency import guided_backprop
from xailab.core.callable_module import make_callable
from xailab.core.checks import Target, check_input, split_target
from xailab.core.layers import capture, find_layer, output_of
from xailab.core.registry import method
from xailab.core.scores import outputs_of, select
from xailab.core.state import frozen


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
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.

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
        (maps,) = as_maps(model, x, layer, reshape, output_of(kept, layer, len(x)))
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
    return sized(weighted(weights, maps), x, upsample, interpolation)


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
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed, often the last convolution.
        relu: keep only evidence for the class, as in the paper; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.
        per_channel: return every $\alpha_k A^k$ instead of their sum.

    Returns:
        (N, 1, H, W), or (N, K, H, W) per channel, in units of the score.

    Raises:
        TypeError: `x` not a float tensor, `target` not an integer, `model` not an `nn.Module`.
        ValueError: NaN, no such layer, a layer without positions, target out of range.

    Of a transformer the maps are of tokens, not of patches: behind several blocks the tokens have
    read each other, and the evidence may lie in those of other patches. Deletion tells.

    Reference: Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra (2017), Grad-CAM: Visual
        Explanations from Deep Networks via Gradient-Based Localization.
    Elsewhere: captum `LayerGradCam` (no ReLU, no upsampling by default), pytorch-grad-cam.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 6.0]]))
    >>> grad_cam(net, torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]]), 0, layer="0")  # alpha = 3
    tensor([[[[0., 3.],
              [6., 0.]]]])
    """
    maps, gradients = maps_and_gradients(model, x, target, layer, reshape)
    weights = gradients.flatten(2).mean(2)
    heat = spread(weights, maps) * maps if per_channel else weighted(weights, maps)
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


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
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.

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
    maps, gradients = maps_and_gradients(model, x, target, layer, reshape)
    total = spread(maps.flatten(2).sum(2), maps)
    below = 2 * gradients**2 + gradients**3 * total
    alpha = torch.where(below == 0, 0, gradients**2 / torch.where(below == 0, 1, below))
    heat = weighted((alpha * gradients.relu()).flatten(2).sum(2), maps)
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


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
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.

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
    maps, gradients = maps_and_gradients(model, x, target, layer, reshape)
    heat = (gradients.relu() * maps).sum(1, keepdim=True)
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("gradient", "layer", title="HiResCAM")
def hires_cam(
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
    r"""Every number of the maps times its own gradient, summed over channels.

    $$L = \mathrm{ReLU}\Big(\sum_k \frac{\partial f_t}{\partial A^k} \odot A^k\Big)$$

    Where the layer is followed by one linear map (flattened, or averaged) the sum over all places,
    before the ReLU, is the score without its bias: then this says what the network adds up, which
    Grad-CAM's mean over places blurs. Behind global average pooling it is CAM divided by h w.

    Args:
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.

    Returns:
        (N, 1, H, W), in units of the score.

    Raises:
        TypeError, ValueError: as for `grad_cam`.

    Reference: Draelos, Carin (2020), Use HiResCAM instead of Grad-CAM for faithful explanations of
        convolutional neural networks.
    Elsewhere: pytorch-grad-cam `HiResCAM`; captum `LayerGradientXActivation`, summed over channels.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 2.0, -3.0, -4.0]]))
    >>> hires_cam(net, torch.tensor([[[[1.0, 1.0], [1.0, -1.0]]]]), 0, layer="0", relu=False)
    tensor([[[[ 1.,  2.],
              [-3.,  4.]]]])
    """
    maps, gradients = maps_and_gradients(model, x, target, layer, reshape)
    heat = (gradients * maps).sum(1, keepdim=True)
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("gradient", "layer", title="XGrad-CAM")
def xgrad_cam(
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
    r"""Grad-CAM whose mean of the gradients counts a place as much as the map is active there.

    $$w_k = \sum_{ij} \frac{A^k_{ij}}{\sum_{ab} A^k_{ab}} \frac{\partial f_t}{\partial A^k_{ij}},
      \qquad L = \mathrm{ReLU}\Big(\sum_k w_k A^k\Big)$$

    and $w_k = 0$ for a map whose sum is 0. Before the ReLU the map's sum is that of HiResCAM: the
    score, behind a linear head. The paper's maps are behind a ReLU; where a map has both signs, as
    tokens have, its sum may be close to 0 and its weight large.

    Args:
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.

    Returns:
        (N, 1, H, W), in units of the score.

    Raises:
        TypeError, ValueError: as for `grad_cam`.

    Reference: Fu, Hu, Dong, Guo, Gao, Li (2020), Axiom-based Grad-CAM: Towards Accurate
        Visualization and Explanation of CNNs.
    Elsewhere: pytorch-grad-cam `XGradCAM`, which adds 1e-7 to every sum.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[8.0, 0.0, 0.0, 4.0]]))
    >>> x = torch.tensor([[[[1.0, 1.0], [0.0, 2.0]]]])  # 1/4 of 8 and 2/4 of 4: weight 4
    >>> xgrad_cam(net, x, 0, layer="0")
    tensor([[[[4., 4.],
              [0., 8.]]]])
    """
    maps, gradients = maps_and_gradients(model, x, target, layer, reshape)
    total = maps.flatten(2).sum(2)
    found = (maps * gradients).flatten(2).sum(2)
    weights = torch.where(total == 0, 0, found / torch.where(total == 0, 1, total))
    heat = weighted(weights, maps)
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


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
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.

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


make_callable(__name__)
