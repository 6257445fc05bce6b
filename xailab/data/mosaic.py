"""Photo mosaics: four photos in one picture, so that we know which cell a class is in."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from xailab.data.images import photos

CELL = 224  # pixels a side: what the network was trained on


@dataclass(frozen=True, eq=False)
class Mosaics:
    """2 x 2 grids of photos of four different classes, and which cell is asked for.

    Attributes:
        images: (N, 448, 448, 3) uint8.
        target: (N,) int64, ImageNet class number of the cell asked for.
        truth: (N, 448, 448) bool, the pixels of that cell.
        position: (N,) int64, the cell: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
        classes: (N, 4) int64, the class number in each cell, by position.
        names: N readable names of the targets.
    """

    images: np.ndarray
    target: np.ndarray
    truth: np.ndarray
    position: np.ndarray
    classes: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.target)

    def __repr__(self) -> str:
        return f"Mosaics({len(self)} grids; targets: {', '.join(dict.fromkeys(self.names))})"


def mosaics(seed: int = 0, *, n: int = 15) -> Mosaics:
    """Build mosaics of the fifteen well-classified photos; the same seed gives the same pixels.

    Every 15 grids ask for each photo once; 60 grids ask for each photo in each of the four cells.
    The other three cells are drawn among the other photos.

    Args:
        seed: decides the order, the cells and the companions.
        n: how many grids.

    Raises:
        ValueError: n is below 1.
        What `fetch` raises.

    >>> grids = mosaics(n=2)
    >>> grids.images.shape, int(grids.truth[0].sum()) == 224 * 224
    ((2, 448, 448, 3), True)
    """
    if n < 1:
        raise ValueError(f"n is a number of mosaics, at least 1, got {n!r}")
    data = photos(well_classified=True)
    cells = np.stack([_cell(image) for image in data.images])
    chosen, position = _layout(np.random.default_rng(seed), n, len(cells))
    asked = chosen[np.arange(n), position]
    return Mosaics(
        images=np.stack([_grid(cells[four]) for four in chosen]),
        target=data.y[asked],
        truth=_truth(position),
        position=position,
        classes=data.y[chosen],
        names=[data.names[photo] for photo in asked],
    )


def _cell(image: np.ndarray) -> np.ndarray:
    """Shrink one photo as the network's preprocessing does: bicubic."""
    return np.asarray(Image.fromarray(image).resize((CELL, CELL), Image.Resampling.BICUBIC))


def _layout(generator: np.random.Generator, n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the photos of each grid, (n, 4), and the position of the one asked for, (n,).

    All `count` photos are of different classes, so four different photos are four classes.
    """
    order, start = generator.permutation(count), generator.permutation(count)
    chosen, position = np.empty((n, 4), dtype=np.int64), np.empty(n, dtype=np.int64)
    for i in range(n):
        photo, lap = order[i % count], i // count
        position[i] = (start[i % count] + lap) % 4  # every lap moves each photo one cell on
        others = np.delete(np.arange(count), photo)
        chosen[i] = np.insert(generator.choice(others, 3, replace=False), position[i], photo)
    return chosen, position


def _grid(four: np.ndarray) -> np.ndarray:
    """Lay four cells (4, 224, 224, 3) out as one picture (448, 448, 3)."""
    return four.reshape(2, 2, CELL, CELL, 3).swapaxes(1, 2).reshape(2 * CELL, 2 * CELL, 3)


def _truth(position: np.ndarray) -> np.ndarray:
    """Mark the cell asked for: (N, 448, 448) bool."""
    row, column = np.divmod(position, 2)
    half = np.arange(2 * CELL) // CELL  # 0 for the first cell, 1 for the second
    return (half[None, :, None] == row[:, None, None]) & (half == column[:, None, None])
