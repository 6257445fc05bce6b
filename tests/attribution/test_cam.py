"""Class activation maps against hand-computed numbers, captum and pytorch-grad-cam."""

import copy
from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from tests.toys import BAD_INPUTS, inputs, linear, toy
from xailab.attribution.cam import (
    cam,
    grad_cam,
    grad_cam_plus_plus,
    guided_grad_cam,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from xailab.attribution.saliency import guided_backprop
from xailab.models import digit_cnn

A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 4.0], [0.0, 0.0]]]])  # (1, 2, 2, 2)
# score = sum of G * A, so that the gradient with respect to A is G
G = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[-2.0, -2.0], [-2.0, -2.0]]])


def hand_net() -> nn.Sequential:
    """Layer "0" hands A through; the one output has the gradient G."""
    return nn.Sequential(nn.Identity(), nn.Flatten(), linear([G.flatten().tolist()]))


def small(method: Callable[..., Tensor], **options: Any) -> list[list[float]]:
    return method(hand_net(), A, 0, layer="0", upsample=False, **options)[0, 0].tolist()


def test_grad_cam_by_hand() -> None:
    # alpha = means of G = [1, -2]; 1 * A1 - 2 * A2 = [[1, -6], [3, 4]]
    assert small(grad_cam) == [[1.0, 0.0], [3.0, 4.0]]
    assert small(grad_cam, relu=False) == [[1.0, -6.0], [3.0, 4.0]]


def test_grad_cam_per_channel_by_hand() -> None:
    maps = grad_cam(hand_net(), A, 0, layer="0", upsample=False, relu=False, per_channel=True)
    torch.testing.assert_close(maps, torch.tensor([1.0, -2.0])[None, :, None, None] * A)


def test_grad_cam_plus_plus_by_hand() -> None:
    # Sum of A1 = 10: alpha = 1 / (2 + 10) where g = 1, 9 / (18 + 270) = 1/32 where g = 3.
    # w1 = 1/12 * 1 + 1/32 * 3 = 17/96; w2 = 0, since its gradients are negative.
    want = 17 / 96 * A[0, 0]
    got = grad_cam_plus_plus(hand_net(), A, 0, layer="0", upsample=False)[0, 0]
    torch.testing.assert_close(got, want)


def test_grad_cam_plus_plus_survives_a_zero_denominator() -> None:
    # g = -1 and sum of A = 2: 2 g^2 + g^3 * 2 = 0
    net = nn.Sequential(nn.Identity(), nn.Flatten(), linear([[-1.0, 1.0]]))
    got = grad_cam_plus_plus(net, torch.tensor([[[[1.0, 1.0]]]]), 0, layer="0", upsample=False)
    torch.testing.assert_close(got, torch.full((1, 1, 1, 2), 0.25))  # 1 / (2 + 2)


def test_layer_cam_by_hand() -> None:
    # relu(G) * A: only the first map has positive gradients
    assert small(layer_cam) == [[1.0, 0.0], [0.0, 12.0]]


def test_cam_mean_plus_bias_is_the_logit() -> None:
    model, x = digit_cnn().double(), torch.rand(3, 1, 28, 28, dtype=torch.float64)
    target = torch.tensor([7, 0, 4])
    maps = cam(model, x, target, layer="relu3", upsample=False)
    logits = model(x).gather(1, target[:, None])[:, 0]
    got = maps.mean((1, 2, 3)) + model.fc.bias[target]
    torch.testing.assert_close(got, logits, rtol=0, atol=1e-12)


def test_hires_cam_by_hand() -> None:
    assert small(hires_cam) == [[1.0, 0.0], [0.0, 12.0]]
    assert small(hires_cam, relu=False) == [[1.0, -8.0], [0.0, 12.0]]


def test_xgrad_cam_by_hand() -> None:
    """w1 = (1 + 12) / 10, w2 = -8 / 4; of a map that sums to 0 the weight is 0."""
    got = torch.tensor(small(xgrad_cam, relu=False))
    torch.testing.assert_close(got, torch.tensor([[1.3, -5.4], [3.9, 5.2]]))
    both = torch.tensor([[[[1.0, 2.0]], [[-3.0, 3.0]]]])
    net = nn.Sequential(nn.Identity(), nn.Flatten(), linear([[1.0, 1.0, 5.0, 9.0]]))
    assert xgrad_cam(net, both, 0, layer="0").flatten().tolist() == [1.0, 2.0]


def test_both_add_up_to_the_score_of_a_linear_head() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).double()
    x = inputs(dtype=torch.float64)
    want = net(x)[:, 2] - net[3].bias[2]
    for method in (hires_cam, xgrad_cam):
        heat = method(net, x, 2, layer="1", relu=False, upsample=False)
        torch.testing.assert_close(heat.sum((1, 2, 3)), want.detach())


def test_grad_cam_equals_cam_where_both_exist() -> None:
    model, x = digit_cnn().double(), torch.rand(2, 1, 28, 28, dtype=torch.float64)
    from_gradients = grad_cam(model, x, 5, layer="relu3", relu=False)
    weights = cam(model, x, 5, layer="relu3")
    torch.testing.assert_close(49 * from_gradients, weights, rtol=0, atol=1e-12)


def test_cam_refuses_another_head() -> None:
    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.fc = nn.Identity(), nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.maps(x) ** 2).mean((2, 3)))

    with pytest.raises(ValueError, match=r"linear\(average of 'maps'\)"):
        cam(Squared(), torch.rand(1, 1, 3, 3), 0, layer="maps")
    with pytest.raises(ValueError, match=r"'conv1'.*use grad_cam"):
        cam(toy(), inputs(), 0, layer="conv1")
    with pytest.raises(ValueError, match=r"Conv2d, not nn\.Linear"):
        cam(toy(), inputs(), 0, layer="relu2", classifier="conv1")


def test_nearest_repeats_and_bilinear_stretches() -> None:
    model = digit_cnn()
    x = torch.rand(1, 1, 28, 28)
    coarse = grad_cam(model, x, 3, layer="relu3", upsample=False)
    assert coarse.shape == (1, 1, 7, 7)
    nearest = grad_cam(model, x, 3, layer="relu3", interpolation="nearest")
    torch.testing.assert_close(nearest, coarse.repeat_interleave(4, 2).repeat_interleave(4, 3))
    smooth = grad_cam(model, x, 3, layer="relu3")
    want = nn.functional.interpolate(coarse, (28, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(smooth, want)
    with pytest.raises(ValueError, match="bicubic"):
        grad_cam(model, x, 3, layer="relu3", interpolation="bicubic")


def test_works_on_sequences() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    assert grad_cam(net, torch.rand(2, 2, 6), 0, layer="1").shape == (2, 1, 6)


def test_a_layer_that_works_in_place_afterwards_does_not_spoil_the_map() -> None:
    def net(inplace: bool) -> nn.Sequential:
        torch.manual_seed(0)
        head = (nn.Flatten(), nn.Linear(32, 3))
        return nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=inplace), *head)

    x = torch.rand(1, 1, 4, 4)
    a, b = (grad_cam(net(i), x, 1, layer="0", relu=False) for i in (False, True))
    torch.testing.assert_close(a, b)


def test_a_layer_used_twice_is_refused() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(1, 2, 1), relu, nn.Conv2d(2, 2, 1), relu, nn.Flatten())
    with pytest.raises(ValueError, match="'1' ran more than once"):
        grad_cam(net, torch.rand(1, 1, 2, 2), 0, layer="1")


# ---- the peers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return digit_cnn(), x, torch.tensor([1, 3, 9])


def test_grad_cam_equals_captum(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, target = digits
    peer = captum.attr.LayerGradCam(model, model.relu3)
    for relu in (False, True):
        theirs = peer.attribute(x, target, relu_attributions=relu).detach()
        ours = grad_cam(model, x, target, layer="relu3", relu=relu, upsample=False)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    channels = peer.attribute(x, target, attr_dim_summation=False).detach()
    ours = grad_cam(model, x, target, layer="relu3", relu=False, upsample=False, per_channel=True)
    torch.testing.assert_close(ours, channels, rtol=1e-5, atol=1e-5)


def test_guided_grad_cam_equals_captum(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, target = digits
    theirs = captum.attr.GuidedGradCam(model, model.relu3).attribute(x, target).detach()
    ours = guided_grad_cam(model, x, target, layer="relu3", interpolation="nearest")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    heat = grad_cam(model, x, target, layer="relu3", interpolation="nearest")
    torch.testing.assert_close(ours, heat * guided_backprop(model, x, target))


@pytest.mark.parametrize(
    ("ours", "peer", "layer"),
    [
        (grad_cam_plus_plus, GradCAMPlusPlus, "relu3"),
        (layer_cam, LayerCAM, "relu3"),
        (hires_cam, HiResCAM, "relu3"),
        (xgrad_cam, XGradCAM, "relu3"),
    ],
)
def test_equal_pytorch_grad_cam(
    digits: tuple[nn.Module, Tensor, Tensor], ours: Callable[..., Tensor], peer: Any, layer: str
) -> None:
    """Theirs is stretched and scaled to 0..1, so ours is scaled the same way; 1e-3 of the range."""
    model, x, target = copy.deepcopy(digits[0]), digits[1], digits[2]
    model.fc.weight.data *= 100  # their Grad-CAM++ adds 1e-6 to squares of gradients: drown it
    goals = [ClassifierOutputTarget(int(t)) for t in target]
    with peer(model=model, target_layers=[model.get_submodule(layer)]) as other:
        theirs = np.asarray(other(input_tensor=x.clone(), targets=goals))
    heat = ours(model, x, target, layer=layer)[:, 0]
    above = heat - heat.amin((1, 2), keepdim=True)
    scaled = above / above.amax((1, 2), keepdim=True)
    torch.testing.assert_close(scaled, torch.as_tensor(theirs), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("x", "error", "words"), BAD_INPUTS)
@pytest.mark.parametrize("method", [grad_cam, layer_cam, hires_cam, xgrad_cam])
def test_bad_inputs(method: Any, x: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        method(toy().eval(), x, 1, layer="conv2")


def test_xgrad_cam_of_a_map_whose_sum_is_one() -> None:
    """Weight 1/4 * 8 + 3/4 * 4 = 5 by the shares 1/4 and 3/4 themselves."""
    net = nn.Sequential(nn.Identity(), nn.Flatten(), linear([[8.0, 4.0]]))
    x = torch.tensor([[[[0.25, 0.75]]]])
    assert xgrad_cam(net, x, 0, layer="0").flatten().tolist() == [1.25, 3.75]
