"""Networks that answer with a picture or a list of boxes: the target is a function of that."""

from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
import torchvision.models as vision
from torch import Tensor, nn

import xailab
from tests.snapshots import Snapshot
from xailab.attribution import grad_cam, occlusion, saliency

X = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
NO_WEIGHTS: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 3}


def made(make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(**NO_WEIGHTS, **options)


def in_the_corner(answer: Any) -> Tensor:
    """The mean score of class 1 in the upper left quarter."""
    maps = answer if isinstance(answer, Tensor) else answer["out"]
    return maps[:, 1, :24, :32].mean((1, 2))


@pytest.mark.parametrize(
    ("make", "options", "layer"),
    [
        (vision.segmentation.lraspp_mobilenet_v3_large, {}, "classifier.cbr"),
        (vision.segmentation.fcn_resnet50, {"aux_loss": True}, "classifier.3"),
        (vision.segmentation.deeplabv3_mobilenet_v3_large, {}, "classifier.3"),
    ],
)
def test_a_segmentation_by_some_of_its_pixels(
    make: Callable[..., nn.Module], options: dict[str, Any], layer: str
) -> None:
    """The layer is the last one before the classes, and not of the branch that trains beside."""
    model = made(make, **options)
    before = Snapshot(model, X)
    found = xailab.explain(model, X, in_the_corner, methods=["saliency", "grad_cam"])
    before.check()
    assert found.table().loc["grad_cam", "layer"] == layer
    leaf = X.clone().requires_grad_()
    (want,) = torch.autograd.grad(in_the_corner(model.eval()(leaf)["out"]).sum(), leaf)
    torch.testing.assert_close(found["saliency"], want, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(
        found["grad_cam"], grad_cam(model, X, in_the_corner, layer=layer), rtol=1e-4, atol=1e-8
    )


def test_captum_sees_the_same_through_a_wrapper() -> None:
    model = made(vision.segmentation.lraspp_mobilenet_v3_large).eval()
    layer = captum.attr.LayerGradCam(lambda x: in_the_corner(model(x)["out"]), model.classifier.cbr)
    want = layer.attribute(X, attribute_to_layer_input=False)
    got = grad_cam(model, X, in_the_corner, layer="classifier.cbr", relu=False, upsample=False)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-9)


def test_what_a_class_of_a_segmentation_would_be_is_not_guessed() -> None:
    one = made(vision.segmentation.lraspp_mobilenet_v3_large)
    with pytest.raises(ValueError, match=r"it returned \(2, 3, 48, 64\).*let target be a function"):
        xailab.explain(one, X, 1)
    two = made(vision.segmentation.fcn_resnet50, aux_loss=True)
    with pytest.raises(TypeError, match=r"2 tensors.*lambda answer: answer\['out'\]"):
        saliency(two, X, 1)


@pytest.mark.parametrize(
    "make",
    [
        vision.detection.ssdlite320_mobilenet_v3_large,
        vision.detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    ],
)
def test_a_detector_by_the_score_of_a_box(make: Callable[..., nn.Module]) -> None:
    """Its answer is a list with a dict a picture; the first box is the surest."""
    model = made(make)

    def surest(answer: list[dict[str, Tensor]]) -> Tensor:
        return torch.stack([one["scores"][0] for one in answer])

    found = saliency(model, X, surest)
    leaf = X.clone().requires_grad_()
    (want,) = torch.autograd.grad(surest(model.eval()(leaf)).sum(), leaf)
    assert want.abs().amax((1, 2, 3)).min() > 0
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())
    covered = occlusion(model, X[:1], surest, window=(3, 24, 64), stride=(3, 24, 64))
    with torch.no_grad():
        upper = X[:1].clone()
        upper[..., :24, :] = 0
        drop = surest(model(X[:1])) - surest(model(upper))
    torch.testing.assert_close(covered[0, 0, 0, 0], drop[0], rtol=1e-3, atol=1e-6)
    with pytest.raises(TypeError, match=r"\[0\]\['boxes'\].*by a function as target"):
        saliency(model, X, 1)


class Branched(nn.Module):
    """The last maps are of a branch that another answer is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.apart = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body(x).relu()
        return {"logits": self.fc(maps.mean((2, 3))), "apart": self.apart(maps)}


def test_a_branch_beside_the_answer_is_not_explained() -> None:
    found = xailab.explain(Branched(), X, 1)
    assert found.table()["layer"].dropna().to_dict() == {"grad_cam": "body"}
