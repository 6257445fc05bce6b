"""How much noise and blur does a model bear: pictures spoiled on purpose.

Lesson `faults` teaches this file.
"""

from collections.abc import Callable
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from xailab.core.checks import as_integer, check_input, check_positive


def _noise(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    return x + spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _shot(x: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(x * photons, generator=generator) / photons


def _impulse(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    salted = torch.where(drawn < share / 2, 1.0, x)
    return torch.where(drawn > 1 - share / 2, 0.0, salted)


def _blur(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    sigma = spread * min(x.shape[2:])
    side = 2 * round(4 * sigma + 0.5) + 1
    edge = side // 2
    # Edges are repeated: a reflection cannot be wider than the picture.
    padded = F.pad(x, (edge, edge, edge, edge), mode="replicate")
    blurred = vision.gaussian_blur(padded, [side, side], [sigma, sigma])
    return blurred[..., edge:-edge, edge:-edge]


def _brightness(x: Tensor, more: float, generator: torch.Generator) -> Tensor:
    return x + more


def _contrast(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + share * (x - mean)


def _pixelate(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    height, width = x.shape[2:]
    small = (max(1, round(share * height)), max(1, round(share * width)))
    coarse = F.interpolate(x, small, mode="area")
    return F.interpolate(coarse, (height, width), mode="nearest-exact")


# Kind: what is done, and how much of it at severities 1 to 5.
_KINDS: dict[str, tuple[Callable[[Tensor, float, torch.Generator], Tensor], tuple[float, ...]]] = {
    "gaussian_noise": (_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot, (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (_blur, (0.0125, 0.02, 0.03, 0.04, 0.06)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
}
CORRUPTIONS = tuple(_KINDS)


def corrupt(images: Tensor, kind: str, severity: int, *, seed: int = 0) -> Tensor:
    r"""Spoil pictures as cameras, lamps and cables do, at one of five severities.

    $$x' = \operatorname{clip}_{[0, 1]} c_{\text{kind}, s}(x), \qquad s \in \{1, \dots, 5\}$$

    | kind | what it does | at severity 1 ... 5 |
    |---|---|---|
    | gaussian_noise | adds normal noise | standard deviation .08 ... .38 |
    | shot_noise | counts photons | 60 ... 3 photons for white |
    | impulse_noise | makes pixels black or white | 3 % ... 27 % of them |
    | gaussian_blur | blurs | standard deviation 1.25 % ... 6 % of the shorter side |
    | brightness | adds to all | .1 ... .5 |
    | contrast | draws all towards each channel's mean | 40 % ... 5 % is left |
    | pixelate | makes coarse | 60 % ... 25 % of the pixels along a side |

    Args:
        images: (N, C, H, W) floats in 0..1.
        kind: one of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: of the noise.

    Returns:
        The shape and dtype of `images`, in 0..1; computed in float32 or finer.

    Raises:
        TypeError: not a tensor of floats; a severity or seed that is no integer.
        ValueError: an unknown kind (the message lists near names), a severity outside 1..5, no
            (N, C, H, W), or numbers outside 0..1.

    Reference: Hendrycks, Dietterich (2019), Benchmarking Neural Network Robustness to Common
        Corruptions and Perturbations (kinds and amounts; blur in shares of the side, so that it
        suits any size; brightness there in HSV).
    Elsewhere: imagecorruptions `corrupt(image, severity, corruption_name)`.

    >>> corrupt(torch.full((1, 1, 1, 2), 0.25), "brightness", 5)
    tensor([[[[0.7500, 0.7500]]]])
    """
    check_input(lambda x: x, images)
    if kind not in CORRUPTIONS:
        near = get_close_matches(str(kind), CORRUPTIONS, n=3) or CORRUPTIONS
        raise ValueError(f"there is no corruption {kind!r}; near names: {', '.join(near)}")
    level = check_positive("severity", severity)
    if level > 5:
        raise ValueError(f"severity must lie in 1..5, got {severity}")
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), got {tuple(images.shape)}")
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"images must lie in 0..1, got {low:.4g}..{high:.4g}")
    change, amounts = _KINDS[kind]
    generator = torch.Generator().manual_seed(as_integer("seed", seed))
    x = images.detach().cpu().to(torch.promote_types(images.dtype, torch.float32))
    return change(x, amounts[level - 1], generator).clamp(0, 1).to(images)
