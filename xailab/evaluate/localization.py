"""Does the map lie where the truth lies? Scores for data whose answer is known.

Every function takes an attribution and a mask of the true place, and gives one number per row
between 0 and 1. Channels are summed with their signs first. Only evidence *for* the target counts:
what is negative is taken as zero, unless `absolute=True` takes all magnitudes. Lessons 08 and 26
teach this file.

| what     | attribution                  | mask: one a row, or one for all rows       |
|----------|------------------------------|--------------------------------------------|
| picture  | (N, C, H, W) or (N, H, W)    | (N, 1, H, W), (N, H, W) or (H, W)          |
| sequence | (N, C, L)                    | (N, 1, L) or (1, 1, L)                     |
| table    | (N, F), or sequence (N, L)   | (N, F) or (F,)                             |

A mask holds two values: False and True, 0 and 1, or 0 and 255. One without a place is refused; in
one that covers everything any map scores 1 (of the mass: any map with evidence).
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
        attribution: (N, C, H, W), (N, H, W), (N, C, L) or (N, F); see the table above.
        mask: where the answer is; two values, in the shape of the attribution without channels.
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64; 1 is a hit.

    Raises:
        TypeError: an attribution or a mask that does not hold real numbers.
        ValueError: shapes that do not fit, NaN in one of them, a mask with other numbers than two,
            or without a place.

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
        attribution: (N, C, H, W), (N, H, W), (N, C, L) or (N, F); see the table above.
        mask: where the answer is; two values, in the shape of the attribution without channels.
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64, a share of 1.

    Raises:
        TypeError, ValueError: as for `pointing_game`.

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
        attribution: (N, C, H, W), (N, H, W), (N, C, L) or (N, F); see the table above.
        mask: where the answer is; two values, in the shape of the attribution without channels.
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64, a share of 1; ties count by their share, as in `pointing_game`.

    Raises:
        TypeError, ValueError: as for `pointing_game`.

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
        attribution: (N, C, H, W), (N, H, W), (N, C, L) or (N, F); see the table above.
        mask: where the answer is; two values, in the shape of the attribution without channels.
        k: how many places, at most as many as there are (H W of a picture).
        absolute: use magnitudes instead of positive values.

    Returns:
        (N,) float64, a share of 1; ties count by their share, as in `pointing_game`.

    Raises:
        TypeError: as for `pointing_game`; k is not an integer.
        ValueError: as for `pointing_game`; k < 1 or k larger than the map.

    Reference: Theiner, Müller-Budack, Ewerth (2021), Interpretable Semantic Photo Geolocation.
    Elsewhere: Quantus `TopKIntersection`.

    >>> top_k_intersection(torch.tensor([[[0.0, 3.0], [1.0, 2.0]]]), [[[0, 1], [0, 0]]], 2)
    tensor([0.5000], dtype=torch.float64)
    """
    evidence, inside = _flat(attribution, mask, absolute)
    count = check_positive("k", k)
    if count > evidence.shape[1]:
        raise ValueError(f"k = {count} is more than the {evidence.shape[1]} places of the map")
    return _hits(evidence, inside, [count] * len(inside))


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
    """Return evidence and mask as (N, places) float64, or say what does not fit."""
    signed = _numbers(attribution, "attribution").double()
    if signed.ndim not in (2, 3, 4):
        raise ValueError(
            "attribution must be (N, C, H, W) or (N, H, W), (N, C, L), or (N, F), got "
            f"{tuple(signed.shape)}"
        )
    if signed.numel() == 0:
        raise ValueError(f"the attribution is empty: shape {tuple(signed.shape)}")
    if not torch.isfinite(signed).all():
        raise ValueError("the attribution holds NaN or infinity")
    places = _two_valued(_numbers(mask, "mask"))
    if signed.ndim == 4 or (signed.ndim == 3 and _is_sequence(places)):
        signed = signed.sum(1)
    inside = _fitted(places, tuple(signed.shape))
    evidence = signed.abs() if absolute else signed.clamp(min=0)
    return evidence.flatten(1), inside.flatten(1).double()


def _numbers(values: Any, name: str) -> Tensor:
    """Return what came as a tensor on the CPU, if it holds real numbers of one shape."""
    if not isinstance(values, Tensor):
        try:
            values = np.asarray(values)
        except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths, ...
            raise TypeError(f"{name} must hold numbers of one shape, got {values!r:.60}") from error
        if values.dtype.kind not in "biuf":
            raise TypeError(f"{name} must hold real numbers, got {values.dtype}")
        values = torch.tensor(values.astype(np.float64))  # torch knows neither flips nor '>f4'
    if values.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {values.dtype}")
    return values.detach().cpu()


def _two_valued(mask: Tensor) -> Tensor:
    """Return a mask of two values as booleans, and refuse to guess where any other ends."""
    if mask.is_floating_point() and mask.isnan().any():
        raise ValueError("the mask holds NaN: say for each place whether it is inside")
    values = mask.unique().tolist()
    if not (set(values) <= {0, 1} or set(values) <= {0, 255}):
        ends = f"{len(values)} different numbers from {values[0]:.4g} to {values[-1]:.4g}"
        raise ValueError(
            f"a mask must hold two values, 0 and 1 (or 255), this one has {ends}: say where it "
            "ends, for instance mask > 0.5"
        )
    return mask.bool()


def _is_sequence(mask: Tensor) -> bool:
    """Tell whether a mask says that all channels of a position belong together: (N, 1, L)."""
    return mask.ndim == 3 and mask.shape[1] == 1


def _fitted(inside: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the mask in the shape (N, places...) of an attribution without channels."""
    came = tuple(inside.shape)
    if inside.ndim == len(shape) + 1 and came[1] == 1:
        inside = inside[:, 0]
    if (
        inside.ndim not in (len(shape) - 1, len(shape))
        or inside.shape[1 - len(shape) :] != shape[1:]
    ):
        raise ValueError(f"mask {came} does not fit attributions of {shape}")
    if inside.ndim == len(shape) and len(inside) not in (1, shape[0]):
        raise ValueError(f"{len(inside)} masks for {shape[0]} attributions")
    inside = inside.expand(shape)
    if not inside.flatten(1).any(1).all():
        raise ValueError("a mask is empty: there is no right place to hit")
    return inside
