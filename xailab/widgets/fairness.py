"""The threshold explorer: a cut for each group, and what it does to every rate, gap and error.

Lesson `fairness` uses this file. Nothing is chosen for the reader: each slider moves one group's
threshold, and all that follows from the cuts is counted anew.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from xailab import plots
from xailab.trust import fairness
from xailab.widgets.show import explorer_of, labeled, show

if TYPE_CHECKING:
    from ipywidgets import FloatSlider, VBox

Array = np.ndarray

_RATES = {
    "selection_rate": "selected",
    "tpr": "of y = 1: selected",
    "fpr": "of y = 0: selected",
    "precision": "of selected: y = 1",
}


def threshold_explorer(
    y: fairness.Labels, probs: fairness.Numbers, group: fairness.Groups, *, start: float = 0.5
) -> None:
    """Show one threshold slider a group, and what the thresholds do, counted on these rows.

    Drawn are each group's selection rate, true and false positive rates and precision, with 95 %
    intervals; written are the accuracy and the three gaps. Tab walks from one slider to the next,
    the arrow keys move it. Where widgets do not run, the first position stands in.

    Args:
        y: (N,) what happened, 0 or 1.
        probs: (N,) probabilities of a 1; at its group's threshold or above, a row is selected.
        group: (N,) which group each row belongs to, two groups or more.
        start: where all sliders stand first, in 0..1.

    Raises:
        TypeError: y or probs that are not numbers.
        ValueError: labels other than 0 and 1, probabilities outside 0..1, lengths that differ,
            fewer than two groups, a group without any y = 1 or any y = 0, a start outside 0..1.
    """
    crowd = Crowd(y, probs, group)
    if not 0 <= start <= 1:
        raise ValueError(f"start must lie in 0..1, got {start}")
    show(explorer(crowd, start), crowd.picture([start] * len(crowd.names)))


class Outcome(NamedTuple):
    """What thresholds do: accuracy, three gaps, and a table with a row for each group."""

    accuracy: float
    parity: float
    opportunity: float
    odds: float
    table: pd.DataFrame


class Crowd:
    """The rows that thresholds are tried on."""

    def __init__(self, y: fairness.Labels, probs: fairness.Numbers, group: fairness.Groups) -> None:
        """Check the rows; arguments and errors as for `threshold_explorer`."""
        nobody = np.zeros(len(y), dtype=int)
        self.names = list(fairness.group_table(y, nobody, group, probs=probs).index)
        fairness.equalized_odds_difference(y, nobody, group)  # refuses what has no rates
        self.y, self.probs, self.group = np.asarray(y), np.asarray(probs), np.asarray(group)
        self._codes = pd.Categorical(self.group, categories=self.names).codes

    def outcome(self, thresholds: Sequence[float]) -> Outcome:
        """Count what one threshold for each group (in the order of `names`) does."""
        pred = (self.probs >= np.asarray(thresholds)[self._codes]).astype(int)
        rows = self.y, pred, self.group
        return Outcome(
            float(np.mean(pred == self.y)),
            fairness.demographic_parity_difference(*rows),
            fairness.equal_opportunity_difference(*rows),
            fairness.equalized_odds_difference(*rows),
            fairness.group_table(*rows),
        )

    def picture(self, thresholds: Sequence[float]) -> plots.Picture:
        """Draw the rates of every group, with accuracy and gaps in the title."""
        found = self.outcome(thresholds)
        cuts = ", ".join(f"{g} {t:.2f}" for g, t in zip(self.names, thresholds, strict=True))
        title = (
            f"Thresholds {cuts}: accuracy {found.accuracy:.3f}; gaps: parity {found.parity:.3f}, "
            f"opportunity {found.opportunity:.3f}, odds {found.odds:.3f}"
        )
        drawn = plots.intervals(
            {str(name): _spans(row) for name, row in found.table.iterrows()},
            list(_RATES.values()),
            title=title,
            xlabel="share, with a 95 % interval",
        )
        drawn.figure.axes[0].set_xlim(-0.02, 1.02)  # the same axis in every position
        return drawn


def _spans(row: pd.Series) -> Array:
    """Return values, lower and upper ends (3, 4) of one group's rates."""
    ends = ("", "_low", "_high")
    return np.array([[row[f"{rate}{end}"] for rate in _RATES] for end in ends], dtype=float)


def explorer(crowd: Crowd, start: float) -> "VBox":
    """Return the explorer as a widget.

    CSS classes: `xailab-thresholds` on the whole, `xailab-thresholds-0`, `-1`, ... on the sliders,
    in the order of the groups' names.
    """
    sliders = {str(i): _slider(name, start) for i, name in enumerate(crowd.names)}

    def thresholds() -> tuple[float, ...]:
        return tuple(round(slider.value, 2) for slider in sliders.values())

    return explorer_of(
        "thresholds", sliders, lambda *cuts: crowd.picture(cuts), position=thresholds
    )


def _slider(name: Any, start: float) -> "FloatSlider":
    from ipywidgets import FloatSlider

    look = labeled(str(name), f"Threshold of {name}")
    width = {"description_width": "9em"}
    return FloatSlider(value=start, min=0.0, max=1.0, step=0.01, style=width, **look)
