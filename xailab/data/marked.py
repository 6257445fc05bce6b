"""Marked digits: a shortcut that we plant, so that we know where a cheating model looks."""

from dataclasses import dataclass, fields

import numpy as np

from xailab.data.images import mnist5k

SIDE = 4  # pixels of the square mark
_FIRST, _LAST = 1, 2  # the mark's first row and first column are drawn from 1..2


@dataclass(frozen=True, eq=False)
class MarkedDigits:
    """MNIST digits, some with a white 4 x 4 square in the top left corner.

    In the training part the mark stands on the `shortcut` digits (all of them, or a `share`) and
    on no other: a network may read the mark instead of the digit. In the test part it stands on
    half of **every** digit, so that the cheating shows: `test.marked & (test.y != test.shortcut)`
    are the images that a cheating network calls `shortcut`, and unmarked `shortcut` digits are
    those it misses.

    Attributes:
        images: (N, 28, 28) float32 in [0, 1].
        y: (N,) int64, the digit that is really there.
        marked: (N,) bool, whether the image carries the mark.
        truth: (N, 28, 28) bool, the mark's sixteen pixels; all False where there is no mark.
        split: (N,) "train" or "test"; the same split as `mnist5k`, whatever the seed.
        rows: (N,) int64, the row of each image in `mnist5k` (its unmarked original).
        shortcut: the digit that carries the mark in training.
    """

    images: np.ndarray
    y: np.ndarray
    marked: np.ndarray
    truth: np.ndarray
    split: np.ndarray
    rows: np.ndarray
    shortcut: int

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"MarkedDigits({len(self)} images, {self.marked.sum()} marked, on {self.shortcut})"

    def take(self, rows: np.ndarray) -> "MarkedDigits":
        """Return some of the images: `rows` are numbers or a boolean mask (N,)."""
        arrays = (f.name for f in fields(self) if f.name != "shortcut")
        return MarkedDigits(
            **{name: getattr(self, name)[rows] for name in arrays}, shortcut=self.shortcut
        )

    @property
    def train(self) -> "MarkedDigits":
        """The 4,000 training images; the mark goes with the shortcut digit."""
        return self.take(self.split == "train")

    @property
    def test(self) -> "MarkedDigits":
        """The 1,000 test images; the mark says nothing about the digit."""
        return self.take(self.split == "test")


def marked_digits(seed: int = 0, *, shortcut: int = 8, share: float = 1.0) -> MarkedDigits:
    """Plant the mark on MNIST digits; the same seed gives the same pixels.

    Args:
        seed: decides which images are marked and where in the corner the mark stands (four
            places: first row and first column are 1 or 2).
        shortcut: the digit that is marked in training, 0 to 9.
        share: part of its training images that are marked, 0 to 1. At .8 a small network still
            learns the digit beside the mark; at 1 it has no reason to.

    Returns:
        All 5,000 digits; see `MarkedDigits` and its `.train` and `.test`.

    Raises:
        ValueError: shortcut or share out of range.

    >>> digits = marked_digits()
    >>> len(digits.train), int(digits.train.marked.sum()), int(digits.test.marked.sum())
    (4000, 399, 500)
    """
    if shortcut not in range(10):
        raise ValueError(f"shortcut is a digit from 0 to 9, got {shortcut!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"share is a part between 0 and 1, got {share!r}")
    base = mnist5k()
    generator = np.random.default_rng(seed)
    train = base.extra["train"]
    marked = _who_is_marked(base.images, base.y, train, shortcut, share, generator)
    truth = _where(marked, generator)
    return MarkedDigits(
        images=np.where(truth, np.float32(1), base.images.astype(np.float32) / 255),
        y=base.y,
        marked=marked,
        truth=truth,
        split=np.where(train, "train", "test"),
        rows=np.arange(len(base.y)),
        shortcut=shortcut,
    )


def _who_is_marked(
    images: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    shortcut: int,
    share: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Draw the marked images, (N,) bool; a digit whose stroke reaches the corner is left out."""
    corner = slice(_FIRST, _LAST + SIDE)
    free = ~(images[:, corner, corner] > 0).any(axis=(1, 2))
    marked = np.zeros(len(y), dtype=bool)
    groups = [(train & (y == shortcut), share)]
    groups += [(~train & (y == digit), 0.5) for digit in range(10)]
    for group, part in groups:
        able = np.flatnonzero(group & free)
        count = min(round(part * group.sum()), len(able))
        marked[generator.choice(able, count, replace=False)] = True
    return marked


def _where(marked: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw each mark's place: (N, 28, 28) bool, True on its pixels."""
    corners = generator.integers(_FIRST, _LAST + 1, size=(len(marked), 2))
    pixel = np.arange(28)
    inside = (pixel >= corners[..., None]) & (pixel < corners[..., None] + SIDE)  # (N, 2, 28)
    return marked[:, None, None] & inside[:, 0, :, None] & inside[:, 1, None, :]
