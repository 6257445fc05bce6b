"""The LIME sampler: how many samples, how wide a kernel, how large the patches, and what moves.

Lesson `lime` uses this file. The network is asked once, about two fixed sets of random copies for
each way to cut the picture; a slider only chooses how many of the answers count, and how much.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from xailab import plots
from xailab.attribution.lime import Fit, lime_fit, lime_penalty, lime_weights
from xailab.core.batching import batched
from xailab.core.checks import check_positive
from xailab.widgets.show import explorer_of, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox

Array = np.ndarray

WIDTHS = (0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0)
_SIZES = (10, 20, 50, 100, 200, 400, 800, 1600, 3200)
_SEEDS = (0, 1)
_START = (100, 0.25)  # samples and kernel width


def lime_sampler(
    predict: Callable[[Array], Array],
    image: Array,
    target: int,
    *,
    patches: Mapping[str, Array],
    hide: float = 0.0,
    n_samples: int = 800,
) -> None:
    """Show LIME of one picture for two seeds, with sliders for patches, samples and kernel width.

    Under the two maps stand the fidelity of both fits (R2) and the rank correlation of their
    weights. Tab walks from one control to the next, the arrow keys move it. Where widgets do not
    run, the first cut with 100 samples stands in.

    Args:
        predict: maps pictures (M, ...) like `image` to scores (M, K).
        image: (H, W) or (H, W, 3), what can be drawn: uint8, or floats in 0..1.
        target: which of the K scores.
        patches: readable name -> (H, W) integers, one number for each patch.
        hide: what hidden patches are painted with, in units of `image`.
        n_samples: the most samples a slider can ask for.

    Raises:
        TypeError: patches that are not integers, a count that is no integer.
        ValueError: a picture or patches of another shape, no patches, fewer than 10 samples, a
            target or answers that do not fit.
    """
    pools = Pools(predict, image, target, patches=patches, hide=hide, n_samples=n_samples)
    show(explorer(pools), pools.picture(pools.cuts[0], *pools.start))


class Pool(NamedTuple):
    """Random copies of a picture, and what the network said about them.

    Attributes:
        switches: (M, F) of 0 (hidden) and 1 (shown); the first row shows everything.
        scores: (M,).
    """

    switches: Array
    scores: Array

    def fit(self, n_samples: int, width: float) -> tuple[Fit, float]:
        """Return LIME on the first samples, and its R2 (0 where all answers are the same)."""
        z, y = self.switches[:n_samples], self.scores[:n_samples]
        weights = lime_weights(z, width)
        found = lime_fit(z, y, weights, lime_penalty(z, weights))
        missed = weights @ (y - found.intercept - z @ found.coefficients) ** 2
        spread = weights @ (y - np.average(y, weights=weights)) ** 2
        return found, float(1 - missed / spread) if spread > 0 else 0.0


class Pools:
    """The network's answers for every cut and seed, and how to draw what LIME makes of them."""

    def __init__(
        self,
        predict: Callable[[Array], Array],
        image: Array,
        target: int,
        *,
        patches: Mapping[str, Array],
        hide: float = 0.0,
        n_samples: int = 800,
    ) -> None:
        """Ask the network; arguments and errors as for `lime_sampler`."""
        self.image = np.asarray(image)
        if self.image.ndim not in (2, 3) or self.image.shape[2:] not in ((), (3,)):
            raise ValueError(f"image must be (H, W) or (H, W, 3), got {self.image.shape}")
        if not patches:
            raise ValueError("patches is empty: give at least one way to cut the picture")
        if check_positive("n_samples", n_samples) < _SIZES[0]:
            raise ValueError(f"n_samples must be at least {_SIZES[0]}, got {n_samples}")
        self.sizes = [size for size in _SIZES if size <= n_samples]
        self.start = (min(_START[0], self.sizes[-1]), _START[1])
        self.labels = {name: self._labels(name, cut) for name, cut in patches.items()}
        self.cuts = list(self.labels)
        self._pools = {
            (name, seed): self._asked(predict, target, label, hide, seed)
            for name, label in self.labels.items()
            for seed in _SEEDS
        }

    def _labels(self, name: str, cut: Array) -> Array:
        """Return the patches numbered from 0, (H, W)."""
        numbers = np.asarray(cut)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"patches {name!r} must hold integers, got {numbers.dtype}")
        if numbers.shape != self.image.shape[:2]:
            raise ValueError(
                f"patches {name!r} must have shape {self.image.shape[:2]}, got {numbers.shape}"
            )
        return np.unique(numbers, return_inverse=True)[1].reshape(numbers.shape)

    def _asked(
        self, predict: Callable[[Array], Array], target: int, label: Array, hide: float, seed: int
    ) -> Pool:
        """Return random copies for one cut and seed with the network's scores."""
        size = (self.sizes[-1], int(label.max()) + 1)
        switches = np.random.default_rng(seed).integers(2, size=size)
        switches[0] = 1
        shown = switches[:, label].reshape(
            len(switches), *label.shape, *[1] * (self.image.ndim - 2)
        )
        copies = np.where(shown == 1, self.image, np.asarray(hide, dtype=self.image.dtype))
        answers = np.asarray(batched(predict, copies, owner=predict))
        if answers.ndim != 2 or not 0 <= target < answers.shape[1]:
            raise ValueError(
                f"predict must give scores (M, K) with K > target = {target}, got {answers.shape}"
            )
        return Pool(switches, answers[:, target])

    def explain(self, cut: str, n_samples: int, width: float, seed: int) -> tuple[Fit, float]:
        """Return LIME's fit for one cut and seed on the first so many samples, and its R2."""
        return self._pools[cut, seed].fit(n_samples, width)

    def picture(self, cut: str, n_samples: int, width: float) -> plots.Picture:
        """Draw both seeds' weights over the picture, with their R2 and rank correlation."""
        fits, quality = zip(
            *(self.explain(cut, n_samples, width, seed) for seed in _SEEDS), strict=True
        )
        agree = _rank_correlation(*(fit.coefficients for fit in fits))
        gray = self.image.ndim == 2
        return plots.compare(
            [fit.coefficients[self.labels[cut]] for fit in fits],
            over=self.image[None] if gray else self.image,
            titles=[f"seed {s}: R2 {r:.2f}" for s, r in zip(_SEEDS, quality, strict=True)],
            title=f"{n_samples} samples, width {width:g}, {cut}: rank correlation {agree:.2f}",
            label="LIME (score)",
        )


def _rank_correlation(a: Array, b: Array) -> float:
    """Return Spearman's rank correlation; 0 where one side is constant and has no order."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


def explorer(pools: Pools) -> "VBox":
    """Return the sampler as a widget.

    CSS classes: `xailab-lime` on the whole, `xailab-lime-patches`, `xailab-lime-samples` and
    `xailab-lime-width` on the controls.
    """
    look = {"style": {"description_width": "7em"}}
    cuts, sizes = pools.cuts, pools.sizes
    controls = {
        "patches": slider("Patches", "How the picture is cut", cuts, cuts[0], **look),
        "samples": slider("Samples", "How many questions count", sizes, pools.start[0], **look),
        "width": slider("Kernel width", "How far samples count", WIDTHS, pools.start[1], **look),
    }
    return explorer_of("lime", controls, pools.picture)
