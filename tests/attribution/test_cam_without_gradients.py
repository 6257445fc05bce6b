"""CAMs that ask for answers only: by hand, by definition, and on the tokens of transformers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from tests.attribution.test_cam import A, G, digits, hand_net
from tests.toys import BAD_INPUTS, linear, toy
from xailab.attribution.cam_without_gradients import ablation_cam, eigen_cam, score_cam
from xailab.core.company import trying

__all__ = ["digits"]  # a fixture


# ---- Score-CAM -----------------------------------------------------------------------------------


def test_score_cam_by_hand() -> None:
    # H1 = (A1 - 1) / 3, H2 = A2 / 4; the input is A itself, two channels both masked:
    # f(A * H) = sum G * A * H
    masks = torch.stack([(A[0, 0] - 1) / 3, A[0, 1] / 4])
    scores = torch.stack([(G * A[0] * mask).sum() for mask in masks])
    want = (scores.softmax(0)[:, None, None] * A[0]).sum(0)
    got = score_cam(hand_net(), A, 0, layer="0", upsample=False)[0, 0]
    torch.testing.assert_close(got, want)


def test_score_cam_takes_constant_maps_once() -> None:
    rows = []

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.head = nn.Conv2d(1, 6, 1), linear([[1.0], [2.0]])
            self.maps.weight.data.zero_()  # every map is constant zero
            self.maps.bias.data.zero_()

        def forward(self, x: Tensor) -> Tensor:
            rows.append(0 if trying() else len(x))
            return self.head(x.mean((1, 2, 3))[:, None] + 0 * self.maps(x).sum((1, 2, 3))[:, None])

    heat = score_cam(Counts(), torch.rand(1, 1, 4, 4), 0, layer="maps")
    assert sum(rows) == 2  # the picture itself, and one empty one for all six maps
    assert not heat.any()


def test_score_cam_stretches_a_map_from_its_least_to_its_largest() -> None:
    """All maps are above 0, and the scores so close that the weights tell the masks apart."""
    maps = A + 1
    masks = torch.stack([A[0, 0] - 1, A[0, 1]]) / torch.tensor([3.0, 4.0])[:, None, None]
    scores = torch.stack([(0.1 * G * maps[0] * mask).sum() for mask in masks])
    want = (scores.softmax(0)[:, None, None] * maps[0]).sum(0)
    net = nn.Sequential(nn.Identity(), nn.Flatten(), linear([(0.1 * G).flatten().tolist()]))
    got = score_cam(net, maps, 0, layer="0", upsample=False)[0, 0]
    torch.testing.assert_close(got, want)


# ---- Ablation-CAM --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [0.0, -10.0])
def test_ablation_cam_by_hand(bias: float) -> None:
    """The score is 13 - 8 = 5, or -5: without A1 it loses 13, without A2 it wins 8."""
    net = hand_net()
    net[2].bias = nn.Parameter(torch.tensor([bias]))
    got = ablation_cam(net, A, 0, layer="0", upsample=False, relu=False)[0, 0]
    torch.testing.assert_close(got, torch.tensor([[2.6, -1.2], [7.8, 10.4]]))


def test_a_score_of_zero_has_no_shares() -> None:
    net = hand_net()
    net[2].bias = nn.Parameter(torch.tensor([-5.0]))
    with pytest.raises(ValueError, match="a score is 0"):
        ablation_cam(net, A, 0, layer="0")


# ---- Eigen-CAM -----------------------------------------------------------------------------------


def test_eigen_cam_by_definition() -> None:
    """The first eigenvector of the channels' products; the strongest place is positive."""
    maps = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(60, 2)).double()
    got = eigen_cam(net, maps, 0, layer="0", relu=False)[:, 0]
    for heat, one in zip(got, maps, strict=True):
        places = one.flatten(1).T.numpy()
        vector = np.linalg.eigh(places.T @ places)[1][:, -1]
        want = places @ vector
        want *= np.sign(want[np.abs(want).argmax()])
        np.testing.assert_allclose(heat.flatten(), want, atol=1e-10)
    assert torch.equal(got, eigen_cam(net, maps, 1, layer="0", relu=False)[:, 0])  # whatever class
    assert eigen_cam(net, maps, 0, layer="0").min() == 0


# ---- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "peer", "layer"),
    [
        # Theirs aligns corners when it stretches masks; relu1 is as large as the picture.
        (score_cam, ScoreCAM, "relu1"),
        (ablation_cam, AblationCAM, "relu3"),
    ],
)
def test_equal_pytorch_grad_cam(
    digits: tuple[nn.Module, Tensor, Tensor],
    ours: Any,
    peer: Any,
    layer: str,
) -> None:
    """Theirs is stretched and scaled to 0..1, so ours is scaled the same way; 1e-3 of the range."""
    model, x, target = copy.deepcopy(digits[0]), digits[1], digits[2]
    model.fc.bias.data += 20  # their Ablation-CAM divides by the score, whatever its sign
    goals = [ClassifierOutputTarget(int(t)) for t in target]
    heat = ours(model, x, target, layer=layer)[:, 0]
    with peer(model=model, target_layers=[model.get_submodule(layer)]) as other:
        theirs = np.asarray(other(input_tensor=x.clone(), targets=goals))
    above = heat - heat.amin((1, 2), keepdim=True)
    scaled = above / above.amax((1, 2), keepdim=True)
    some = above.amax((1, 2)) > 0  # a map of zeros has no range
    assert some.sum() >= 2
    torch.testing.assert_close(scaled[some], torch.as_tensor(theirs)[some], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("x", "error", "words"), BAD_INPUTS)
@pytest.mark.parametrize("method", [score_cam, ablation_cam, eigen_cam])
def test_bad_inputs(method: Any, x: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        method(toy().eval(), x, 1, layer="conv2")
