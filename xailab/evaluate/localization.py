"""Does the map lie where the truth lies? Scores for data whose answer is known.

Every function takes an attribution (N, C, H, W), (N, 1, H, W) or (N, H, W) and a mask of the
true place that broadcasts to (N, H, W), and gives one number per row between 0 and 1. Channels
are summed with their signs first. Only evidence *for* the target counts: what is negative is
taken as zero, unless `absolute=True` takes all magnitudes. Lessons 08 and 26 teach this file.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xailab.core.checks import check_positive


def pointing_game(attribution: Tensor, mask: Any, *, absolute: bool = False) -> Tensor:
    r"""Does the largest value lie inside the mask?

    $$\mathbb 1[\arg\max_{ij} A_{ij} \in M]$$

    Where several places share the largest value, the share of them that lies inside: a map that
    is constant scores what chance scores.

    Args:
        attribution: (N, C, H, W) or (N, H, W).
        mask: true where the answer is; (N, 1, H, W), (N, H, W) or (H, W).
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64; 1 is a hit.

    Raises:
        ValueError: shapes that do not fit, NaN in the attribution, an empty mask.

    Reference: Zhang, Bargal, Lin, Brandt, Shen, Sclaroff (2018), Top-down Neural Attention by
        Excitation Backprop.
    Elsewhere: Quantus `PointingGame`.

    >>> pointing_game(torch.tensor([[[0.0, 3.0], [1.0, 0.0]]]), [[[0, 1], [0, 0]]])
    tensor([1.], dtype=torch.float64)
    """
    evidence, inside = _flat(attribution, mask, absolute)
    return _hits(evidence, inside, [1] * len(inside))


def relevance_mass_accuracy(attribution: Tensor, mask: Any, *, absolute: bool = False) -> Tensor:
    r"""Which share of the evidence lies inside the mask?

    $$\sum_{ij \in M} A_{ij} \Big/ \sum_{ij} A_{ij}$$

    A map without any evidence scores 0: none of it is in the right place.

    Args:
        attribution: (N, C, H, W) or (N, H, W).
        mask: true where the answer is; (N, 1, H, W), (N, H, W) or (H, W).
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64, a share of 1.

    Raises:
        ValueError: as for `pointing_game`.

    Reference: Arras, Osman, Samek (2022), CLEVR-XAI: A Benchmark Dataset for the Ground Truth
        Evaluation of Neural Network Explanations.
    Elsewhere: Quantus `RelevanceMassAccuracy`.

    >>> relevance_mass_accuracy(torch.tensor([[[0.0, 3.0], [1.0, -9.0]]]), [[[0, 1], [0, 0]]])
    tensor([0.7500], dtype=torch.float64)
    """
    evidence, inside = _flat(attribution, mask, absolute)
    total = evidence.sum(1)
    return (evidence * inside).sum(1) / total.where(total > 0, 1)


def relevance_rank_accuracy(attribution: Tensor, mask: Any, *, absolute: bool = False) -> Tensor:
    r"""Of the K largest values, K being the size of the mask, which share lies inside it?

    $$|\mathrm{top}_{|M|}(A) \cap M| \,/\, |M|$$

    Args:
        attribution: (N, C, H, W) or (N, H, W).
        mask: true where the answer is; (N, 1, H, W), (N, H, W) or (H, W).
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64, a share of 1; ties count by their share, as in `pointing_game`.

    Raises:
        ValueError: as for `pointing_game`.

    Reference: Arras, Osman, Samek (2022), as for `relevance_mass_accuracy`.
    Elsewhere: Quantus `RelevanceRankAccuracy`.

    >>> relevance_rank_accuracy(torch.tensor([[[0.0, 3.0], [1.0, 2.0]]]), [[[1, 1], [0, 0]]])
    tensor([0.5000], dtype=torch.float64)
    """
    evidence, inside = _flat(attribution, mask, absolute)
    return _hits(evidence, inside, [int(row.sum()) for row in inside])


def top_k_intersection(attribution: Tensor, mask: Any, k: int, *, absolute: bool = False) -> Tensor:
    r"""Of the k largest values, which share lies inside the mask?

    $$|\mathrm{top}_k(A) \cap M| \,/\, k$$

    Args:
        attribution: (N, C, H, W) or (N, H, W).
        mask: true where the answer is; (N, 1, H, W), (N, H, W) or (H, W).
        k: how many places, at most H W.
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64, a share of 1; ties count by their share, as in `pointing_game`.

    Raises:
        ValueError: as for `pointing_game`; k < 1 or k larger than the map.

    Reference: Theiner, Müller-Budack, Ewerth (2021), Interpretable Semantic Photo Geolocation.
    Elsewhere: Quantus `TopKIntersection`.

    >>> top_k_intersection(torch.tensor([[[0.0, 3.0], [1.0, 2.0]]]), [[[0, 1], [0, 0]]], 2)
    tensor([0.5000], dtype=torch.float64)
    """
    evidence, inside = _flat(attribution, mask, absolute)
    if check_positive("k", k) > evidence.shape[1]:
        raise ValueError(f"k = {k} is more than the {evidence.shape[1]} places of the map")
    return _hits(evidence, inside, [k] * len(inside))


def _hits(evidence: Tensor, inside: Tensor, sizes: list[int]) -> Tensor:
    """Return the expected share of each row's k largest values that lies inside.

    Values above the k-th largest count whole; those equal to it share the places that are left.
    """
    shares = []
    for values, hit, k in zip(evidence, inside, sizes, strict=True):
        edge = values.topk(k).values[-1]
        above, tied = values > edge, values == edge
        left = (k - int(above.sum())) / int(tied.sum())  # in Python: torch divides in float32
        shares.append((hit[above].sum() + left * hit[tied].sum()) / k)
    return torch.stack(shares)


def _flat(attribution: Tensor, mask: Any, absolute: bool) -> tuple[Tensor, Tensor]:
    """Return evidence and mask as (N, H W) float64, or say what does not fit."""
    signed = torch.as_tensor(attribution).detach().cpu().double()
    if signed.ndim not in (3, 4):
        raise ValueError(
            f"attribution must be (N, C, H, W) or (N, H, W), got {tuple(signed.shape)}"
        )
    if signed.numel() == 0:
        raise ValueError(f"the attribution is empty: shape {tuple(signed.shape)}")
    if not torch.isfinite(signed).all():
        raise ValueError("the attribution holds NaN or infinity")
    signed = signed.sum(1) if signed.ndim == 4 else signed
    inside = _mask(mask, tuple(signed.shape))
    evidence = signed.abs() if absolute else signed.clamp(min=0)
    return evidence.flatten(1), inside.flatten(1).double()


def _mask(mask: Any, shape: tuple[int, ...]) -> Tensor:
    """Return the mask as booleans of the attribution's (N, H, W)."""
    array = torch.as_tensor(np.asarray(mask)) if not isinstance(mask, Tensor) else mask.cpu()
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (2, 3) or tuple(array.shape[-2:]) != shape[1:]:
        raise ValueError(f"mask {tuple(array.shape)} does not fit attributions of {shape}")
    if array.ndim == 3 and len(array) not in (1, shape[0]):
        raise ValueError(f"{len(array)} masks for {shape[0]} attributions")
    inside = array.bool().expand(shape)
    if not inside.flatten(1).any(1).all():
        raise ValueError("a mask is empty: there is no right place to hit")
    return inside
