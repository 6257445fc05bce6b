"""What every loader returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from xailab.data import registry


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples, answers, and what they are called; one of `X` (a table), `images`, `texts` is set.

    Attributes:
        name: name in the registry.
        X: table (N, D): a float64 array where every column is a number, else a DataFrame.
        images: uint8, (N, H, W) gray or (N, H, W, 3) RGB; a list of (H, W, 3) where sizes differ.
        texts: a list of N strings.
        y: answers (N,): int64 class numbers, float64 for a regression, None if there are none.
        names: of a table, its D column names; of images, N readable names, one for each image; of
            texts, none.
        classes: readable name of each class, so that `classes[y[i]]` is the answer of example i.
        target: what y is, in words.
        extra: further arrays (N, ...) that are no features (a score under audit, the official
            split); the card explains them.
    """

    name: str
    y: Any  # which parts there are depends on the set: a union would burden callers
    names: list[str]
    X: Any = None
    images: Any = None
    texts: Any = None
    classes: list[str] = field(default_factory=list)
    target: str = ""
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def card(self) -> str:
        """The data card, Markdown: what, where from, licence, size, known problems."""
        return registry.card(self.name)

    def __len__(self) -> int:
        rows = next((part for part in (self.X, self.images, self.texts) if part is not None), ())
        return len(rows)

    def __repr__(self) -> str:
        what = "images" if self.texts is None else "texts"
        if self.X is not None:
            what = f"rows of {len(self.names)} columns"
        return f"Dataset({self.name!r}: {len(self)} {what}; y: {self.target or 'none'})"

    def image(self, name: str) -> np.ndarray:
        """Return the (first) image of a readable name, for example `photos().image("yurt")`.

        Raises:
            ValueError: there is no image of that name, or this is no set of images.
        """
        if self.images is None:
            raise ValueError(f"{self.name!r} has no images")
        if name not in self.names:
            near = get_close_matches(name, self.names, n=3) or sorted(set(self.names))[:10]
            raise ValueError(f"{self.name!r} has no image {name!r}; there are {', '.join(near)}")
        return self.images[self.names.index(name)]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Dataset":
        """Return the data set cut to some examples, in the order asked for.

        Args:
            rows: example numbers, or a boolean mask (N,).
        """
        numbers = np.arange(len(self))[np.asarray(rows)]
        changes: dict = {key: value[numbers] for key, value in self.extra.items()}
        changes = {"extra": changes, "y": None if self.y is None else self.y[numbers]}
        for part in ("X", "images", "texts"):
            changes[part] = _cut(getattr(self, part), numbers)
        if self.images is not None:
            changes["names"] = _cut(self.names, numbers)
        return replace(self, **changes)


def _cut(part: Any, numbers: np.ndarray) -> Any:
    """Return some rows of a frame, an array or a list, as the same kind; None of None."""
    if isinstance(part, pd.DataFrame):
        return part.iloc[numbers]
    if isinstance(part, list):
        return [part[i] for i in numbers]
    return None if part is None else part[numbers]
