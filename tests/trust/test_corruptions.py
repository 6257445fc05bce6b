"""Spoiled pictures by hand and against skimage."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from skimage.filters import gaussian
from torch import Tensor
from torchvision.transforms.functional import adjust_contrast

from xailab.trust.corruptions import CORRUPTIONS, corrupt

NAN = float("nan")


def pictures(n: int = 4, side: int = 32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_severity_spoils_more(kind: str) -> None:
    x = gaussian(pictures().numpy(), sigma=(0, 0, 3, 3))
    x = torch.as_tensor((x - x.min()) / (x.max() - x.min()))
    far = [(corrupt(x, kind, severity) - x).square().mean().item() for severity in range(1, 6)]
    assert far[0] > 0
    assert far[4] > 2 * far[0]
    # 19 pixels into 32 fit worse than 16 do, so "pixelate" may step back a little.
    assert all(more > 0.9 * less for less, more in pairwise(far))
    for severity in (1, 5):
        spoiled = corrupt(x, kind, severity)
        assert spoiled.shape == x.shape
        assert spoiled.dtype == x.dtype
        assert 0 <= spoiled.min() <= spoiled.max() <= 1


def test_spoiled_by_hand() -> None:
    x = torch.tensor([[[[0.0, 0.25], [0.5, 0.25]]]])
    assert corrupt(x, "brightness", 2).flatten().tolist() == pytest.approx([0.2, 0.45, 0.7, 0.45])
    assert corrupt(x, "contrast", 1).flatten().tolist() == pytest.approx([0.15, 0.25, 0.35, 0.25])
    assert corrupt(x, "pixelate", 5).flatten().tolist() == [0.25] * 4


def test_noise_has_the_promised_spread() -> None:
    gray = torch.full((1, 1, 200, 200), 0.5)
    assert corrupt(gray, "gaussian_noise", 1).std().item() == pytest.approx(0.08, rel=0.03)
    assert corrupt(gray, "shot_noise", 1).var().item() == pytest.approx(0.5 / 60, rel=0.05)
    pepper = corrupt(gray, "impulse_noise", 5)
    assert (pepper == 0).float().mean().item() == pytest.approx(0.135, abs=0.01)
    assert (pepper == 1).float().mean().item() == pytest.approx(0.135, abs=0.01)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_blur_equals_skimages(severity: int) -> None:
    x, sigma = pictures(2), (0.0125, 0.02, 0.03, 0.04, 0.06)[severity - 1] * 32
    want = gaussian(x.numpy(), sigma=(0, 0, sigma, sigma), mode="nearest", truncate=4)
    got = corrupt(x, "gaussian_blur", severity)
    np.testing.assert_allclose(got, want, atol=2e-4)  # beyond 4 sigma


def test_contrast_equals_torchvisions_on_gray() -> None:
    x = pictures(1)[:, :1]
    torch.testing.assert_close(corrupt(x, "contrast", 2), adjust_contrast(x, 0.3))


def test_seed_decides_and_nothing_else() -> None:
    x, state = pictures(), torch.get_rng_state()
    for kind in ("gaussian_noise", "shot_noise", "impulse_noise"):
        assert torch.equal(corrupt(x, kind, 3), corrupt(x, kind, 3))
        assert not torch.equal(corrupt(x, kind, 3), corrupt(x, kind, 3, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, pictures())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"kind": "gausian_noise"}, ValueError, "no corruption 'gausian_noise'.*gaussian_noise"),
        ({"kind": 3}, ValueError, "pixelate"),
        ({"severity": 6}, ValueError, r"1\.\.5, got 6"),
        ({"severity": 0}, ValueError, "severity"),
        ({"severity": 1.5}, TypeError, "severity must be an integer"),
        ({"images": 255 * pictures()}, ValueError, r"0\.\.1, got"),
        ({"images": torch.rand(3, 8)}, ValueError, r"\(N, C, H, W\).*\(3, 8\)"),
        ({"images": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, TypeError, "uint8"),
        ({"images": torch.full((1, 1, 2, 2), NAN)}, ValueError, "NaN"),
    ],
)
def test_bad_corruption(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"images": pictures(1), "kind": "contrast", "severity": 1, **changes}
    with pytest.raises(error, match=words):
        corrupt(**arguments)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_spoiled_as_float32_is(kind: str, dtype: torch.dtype) -> None:
    x = pictures(2, 16).to(dtype)
    got = corrupt(x, kind, 3)
    assert got.dtype == dtype
    if dtype != torch.float64:  # which draws other noise
        want = corrupt(x.float(), kind, 3)
        assert torch.equal(got, want.to(dtype))


def test_severity_and_seed_of_any_integer_kind() -> None:
    x = pictures(1)
    want = corrupt(x, "gaussian_noise", 2, seed=3)
    assert torch.equal(corrupt(x, "gaussian_noise", np.int64(2), seed=np.uint8(3)), want)
    for bad in ({"severity": 2.0}, {"severity": True}, {"severity": 1, "seed": 0.5}):
        with pytest.raises(TypeError, match="must be an integer"):
            corrupt(x, "gaussian_noise", **bad)
    with pytest.raises(ValueError, match="no corruption"):
        corrupt(x, ["contrast"], 1)
    with pytest.raises(TypeError, match="uint8"):
        corrupt((x * 255).byte(), "contrast", 1)
