"""Class activation maps that ask for answers only: no gradient has to reach the layer.

They weigh the maps of a layer by what the network says of the input seen through a map (Score-CAM)
or when a map is taken away (Ablation-CAM), or look at the maps alone (Eigen-CAM).
"""

import torch
from torch import Tensor, nn

from xailab.attribution._cam_maps import Reshape, as_maps, check_read, sized, stretched, weighted
from xailab.core.batching import batched
from xailab.core.channels_last import channels_last
from xailab.core.checks import Target, check_input, split_target
from xailab.core.company import check_company
from xailab.core.layers import capture, edited, output_of
from xailab.core.registry import method
from xailab.core.scores import scores_of
from xailab.core.state import frozen


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
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed; one forward pass per channel.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the result to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest", for the masks and the result.
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.
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
        (maps,) = as_maps(model, x, layer, reshape, output_of(kept, layer, len(x)))
        weights = [
            _channel_scores(model, row, channels, t, interpolation, batch_size).softmax(0)
            for row, channels, t in zip(x, maps, split_target(target, len(x)), strict=True)
        ]
    heat = weighted(torch.stack(weights), maps)
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("layer", title="Ablation-CAM", units="activation")
def ablation_cam(
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
    r"""Maps weighed by the share of the score that is lost without each of them.

    $$w_k = \frac{f_t(x) - f_t(x \mid A^k = 0)}{|f_t(x)|}, \qquad
      L = \mathrm{ReLU}\Big(\sum_k w_k A^k\Big)$$

    The paper divides by $f_t$ and has positive scores. Of a negative one that would turn the signs
    of all weights around, so that what speaks against the class would be shown: hence $|f_t|$.
    Of tokens a channel is taken from all patches, and left to tokens of no patch.

    Args:
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer whose maps are weighed; one forward pass per channel.
        relu: keep only evidence for the class; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.
        batch_size: copies of a row evaluated at once; None measures.

    Returns:
        (N, 1, H, W), in units of the layer's activation: the weights are shares.

    Raises:
        TypeError, ValueError: as for `grad_cam`.
        ValueError: a score of 0, of which there are no shares.

    Reference: Desai, Ramaswamy (2020), Ablation-CAM: Visual Explanations for Deep Convolutional
        Network via Gradient-free Localization.
    Elsewhere: pytorch-grad-cam `AblationCAM`: the same behind a ReLU; where a layer has negative
        numbers it puts -1e7 in place of 0, and it divides by a negative score.

    >>> net = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    >>> _ = net[3].weight.data.copy_(torch.tensor([[1.0, 3.0]])), net[3].bias.data.zero_()
    >>> x = torch.tensor([[[[4.0, 0.0]], [[0.0, 4.0]]]])  # score 1 * 2 + 3 * 2 = 8: 1/4 and 3/4
    >>> ablation_cam(net, x, 0, layer="0")
    tensor([[[[1., 3.]]]])
    """
    check_input(model, x)
    with frozen(model), torch.no_grad():
        with capture(model, layer) as kept:
            scores = scores_of(model, x, target)
        check_company(model, x)
        output = output_of(kept, layer, len(x))
        places = torch.arange(output[0].numel(), device=x.device).reshape(output[:1].shape)
        numbered = (places.expand(output.shape), output)
        every, maps = as_maps(model, x, layer, reshape, *numbered)
        if (scores == 0).any():
            raise ValueError("a score is 0: there is no share of it that a map could take away")
        lost = [
            score - _without(model, row, layer, every[0].flatten(1), t, batch_size)
            for score, row, t in zip(scores, x, split_target(target, len(x)), strict=True)
        ]
        if every[0].numel() < places.numel():
            check_read(layer, torch.stack(lost), places + 1)
    weights = torch.stack(lost) / scores.abs()[:, None]
    heat = weighted(weights, maps)
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


@method("layer", title="Eigen-CAM", units="activation")
def eigen_cam(
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
    r"""What the maps have most in common: their first principal component, whatever the class.

    $$A = U \Sigma V^\top \;(hw \times K), \qquad L = \mathrm{ReLU}(\pm A v_1)$$

    $v_1$ is the first right singular vector of the maps as they are (not centered, as in the
    paper): the mixture of channels in which the most happens. Its sign is arbitrary; here the place
    where it is strongest is positive, which for maps behind a ReLU is the one sign for which no
    place is negative. **No class enters**: every target gets the same map, so that it says where
    something is, never why it is this class.

    Args:
        model: an `nn.Module` on pictures, with convolutions or patches.
        x: (N, C, H, W) floats.
        target: as for every method; it is looked at and makes no difference.
        layer: dotted name of the layer.
        relu: keep only places on the side of the strongest one; False gives signed maps.
        upsample: stretch the maps to the size of `x`; False gives the layer's own size.
        interpolation: "bilinear" or "nearest".
        reshape: lays the layer's output out as maps (N, K, h, w) by hand; it may move and leave
            out numbers, not compute. None: maps, or tokens whose patches are known.

    Returns:
        (N, 1, H, W), in units of the layer's activation.

    Raises:
        TypeError, ValueError: as for `grad_cam`.

    Reference: Muhammad, Yeasin (2020), Eigen-CAM: Class Activation Map using Principal Components.
    Elsewhere: pytorch-grad-cam `EigenCAM`, which subtracts each map's mean first and leaves the
        sign to the solver.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.tensor([[[[3.0, 6.0]], [[4.0, 8.0]]]])  # one direction, 3-4-5: lengths 5 and 10
    >>> eigen_cam(net, x, 0, layer="0").round(decimals=4)
    tensor([[[[ 5., 10.]]]])
    """
    check_input(model, x)
    with frozen(model), torch.no_grad():
        with capture(model, layer) as kept:
            scores_of(model, x, target)
        check_company(model, x)
        (maps,) = as_maps(model, x, layer, reshape, output_of(kept, layer, len(x)))
        heat = _first_component(maps.flatten(2)).reshape(len(x), 1, *maps.shape[2:])
    return sized(heat.relu() if relu else heat, x, upsample, interpolation)


def _first_component(maps: Tensor) -> Tensor:
    """Return the projection of every place, (N, K, hw) -> (N, hw), on the first component."""
    exact = maps.mT.to(torch.promote_types(maps.dtype, torch.float32))
    left, sizes, _ = torch.linalg.svd(exact, full_matrices=False)
    heat = left[:, :, 0] * sizes[:, :1]
    strongest = heat.gather(1, heat.abs().argmax(1, keepdim=True))
    return (heat * torch.where(strongest < 0, -1, 1)).to(maps.dtype)


def _without(
    model: nn.Module,
    row: Tensor,
    layer: str,
    places: Tensor,
    target: int | None,
    batch_size: int | None,
) -> Tensor:
    """Return the score of one input without each of the layer's channels, (K,).

    Args:
        model, layer, batch_size: as for `ablation_cam`.
        row: without a batch dimension.
        places: (K, hw), where in the layer's output the numbers of each channel lie.
        target: of this row.
    """

    def asked(channels: Tensor) -> Tensor:
        def edit(output: Tensor) -> Tensor:
            flat = output.flatten(1)
            return flat.scatter(1, channels, 0.0).reshape(output.shape)

        with edited(model, layer, edit):
            return scores_of(model, row.expand(len(channels), *row.shape), target)

    with channels_last(model, len(places)):
        return batched(asked, places, batch_size=batch_size, owner=model, row_bytes=row.nbytes)


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
        large = stretched(small[:, None], row[None], interpolation)
        positions = tuple(range(1, large.ndim))
        low, high = large.amin(positions, keepdim=True), large.amax(positions, keepdim=True)
        masks = torch.where(high > low, (large - low) / (high - low), 0)
        return scores_of(model, row * masks, target)

    with channels_last(model, len(channels)):
        return batched(
            seen_through, channels, batch_size=batch_size, owner=model, row_bytes=row.nbytes
        )
