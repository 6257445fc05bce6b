"""The growth browser: a picture that a network paints, step by step.

Lesson `feature_visualization` uses this file. The frames were kept while the picture was painted,
so that moving the slider only draws.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from xailab import plots
from xailab.widgets.show import explorer_of, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox

_SHOWN = 4  # frames of the picture that stands in


class Frame(NamedTuple):
    """One moment: the number of steps taken, the picture (C, H, W) in [0, 1] and its score."""

    step: int
    picture: Tensor
    score: float

    def words(self) -> str:
        """Say when it was and what it scored."""
        return f"step {self.step}: {self.score:.1f}"


def growth_browser(frames: Sequence[Frame], *, title: str) -> None:
    """Show a slider over the steps in which a picture was painted.

    The arrow keys move the slider once it has the focus (Tab). Where widgets do not run, four of
    the frames stand in, side by side.

    Args:
        frames: in order, kept by the `callback` of `maximize`.
        title: what is painted.

    Raises:
        ValueError: fewer than two frames, or steps that do not rise.
    """
    show(explorer(frames, title=title), strip(frames, title=title))


def strip(frames: Sequence[Frame], *, title: str) -> plots.Picture:
    """Draw four frames from the first to the last; arguments as for `growth_browser`."""
    _check(frames)
    places = np.linspace(0, len(frames) - 1, min(_SHOWN, len(frames))).round().astype(int)
    shown = [frames[i] for i in places]
    return plots.images(
        [one.picture for one in shown], titles=[one.words() for one in shown], title=title
    )


def explorer(frames: Sequence[Frame], *, title: str) -> "VBox":
    """Return the browser as a widget; arguments as for `growth_browser`.

    CSS classes: `xailab-growth` on the whole, `xailab-growth-step` on the slider.
    """
    _check(frames)
    steps = [(str(one.step), i) for i, one in enumerate(frames)]
    meaning = "How many steps were taken"
    step = slider("Step", meaning, steps, len(frames) - 1, continuous_update=True)

    def draw(i: int) -> plots.Picture:
        return plots.images([frames[i].picture], titles=[frames[i].words()], title=title)

    return explorer_of("growth", {"step": step}, draw)


def _check(frames: Sequence[Frame]) -> None:
    if len(frames) < 2:
        raise ValueError(f"at least two frames are needed, got {len(frames)}")
    steps = [one.step for one in frames]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"the steps must rise, got {steps}")
