"""The coalition explorer: features switched in one after another, and means over more orders.

Lesson `shap` uses this file. The worth of every team is computed once; after that a picture takes
no call of the model.
"""

from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from xailab import plots
from xailab.attribution.shapley import kernel_shap
from xailab.plots.words import number
from xailab.widgets.show import explorer_of, labeled, show

if TYPE_CHECKING:
    from ipywidgets import VBox

Array = np.ndarray
_MOST = 5  # features: six have 720 orders, too many for a slider


def coalition_explorer(
    predict: Callable[[Array], Array],
    x: Array,
    background: Array,
    names: Sequence[str],
    *,
    xlabel: str = "",
) -> None:
    """Show what each feature adds in the order in which you switch it in, and means over orders.

    A box switches a feature in or out (space bar); those that are in keep the order in which they
    came. The slider runs through all orders, in a random sequence that is always the same: it
    switches all features in, in that order, and shows the means over all orders so far beside the
    exact Shapley values. Where widgets do not run, the first order stands in.

    Args:
        predict: maps (M, F) to (M,).
        x: (F,) the row to be explained, F from 2 to 5.
        background: (B, F) rows whose values stand in for missing features.
        names: F names.
        xlabel: what is measured, with its unit.

    Raises:
        TypeError, ValueError: as `kernel_shap`; not one row of 2 to 5 features with a name each,
            or several outputs.
    """
    teams = Teams(predict, x, background, names, xlabel=xlabel)
    show(explorer(teams), teams.picture(teams.orders[0], 1))


class Teams:
    """The worth of every team, all orders, and how to draw one of them."""

    def __init__(
        self,
        predict: Callable[[Array], Array],
        x: Array,
        background: Array,
        names: Sequence[str],
        *,
        xlabel: str = "",
    ) -> None:
        """Compute all worths; arguments and errors as for `coalition_explorer`."""
        if np.ndim(x) != 1 or not 2 <= len(x) <= _MOST or len(names) != len(x):
            raise ValueError(
                f"expected one row of 2 to {_MOST} features with a name each, got shape "
                f"{np.shape(x)} and {len(names)} names"
            )
        self.names, self.xlabel = [str(name) for name in names], xlabel
        self.exact = kernel_shap(predict, x, background)
        if self.exact.ndim != 1:
            raise ValueError(f"predict must give one number a row, got {self.exact.shape[1]}")
        players = range(len(x))
        teams = (frozenset(team) for k in (*players, len(x)) for team in combinations(players, k))
        self.worths = {team: _worth(predict, x, background, team) for team in teams}
        every = list(permutations(players))
        shuffled = np.random.default_rng(0).permutation(len(every))
        self.orders = [every[i] for i in shuffled]
        added = np.array([self._by_player(order) for order in self.orders])
        self.means = added.cumsum(0) / np.arange(1, len(added) + 1)[:, None]  # (orders, F)

    def steps(self, joined: Sequence[int]) -> Array:
        """Return what each of these features added, in the order in which they came."""
        worths = [self.worths[frozenset(joined[:k])] for k in range(len(joined) + 1)]
        return np.diff(worths)

    def _by_player(self, order: Sequence[int]) -> Array:
        return self.steps(order)[np.argsort(order)]

    def picture(self, joined: Sequence[int], count: int) -> plots.Picture:
        """Draw the features that are in, in their order, beside the means over `count` orders."""
        worth = number(self.worths[frozenset(joined)])
        return plots.arrivals(
            self.steps(joined),
            [self.names[i] for i in joined],
            self.means[count - 1],
            self.exact,
            self.names,
            base=self.worths[frozenset()],
            orders=count,
            title=f"{len(joined)} of {len(self.names)} features are in: the team is worth {worth}",
            xlabel=self.xlabel,
        )


def _worth(
    predict: Callable[[Array], Array], x: Array, background: Array, team: frozenset[int]
) -> float:
    """Return the mean answer with a team's features from x and the others from the background."""
    known = np.isin(np.arange(len(x)), list(team))
    return float(np.mean(predict(np.where(known, x, background))))


def explorer(teams: Teams) -> "VBox":
    """Return the explorer as a widget.

    CSS classes: `xailab-coalitions` on the whole, `xailab-coalitions-0` and so on for the box of
    each feature, `xailab-coalitions-orders` on the slider.
    """
    from ipywidgets import IntSlider

    joined = list(teams.orders[0])
    boxes = {str(player): _box(name) for player, name in enumerate(teams.names)}
    look = labeled("Orders", "How many orders the means are over")
    orders = IntSlider(value=1, min=1, max=len(teams.orders), **look)

    def switch(moved: str) -> None:
        if moved == "orders":
            joined[:] = teams.orders[orders.value - 1]
            for box in boxes.values():
                box.value = True
        elif boxes[moved].value != (int(moved) in joined):  # else the slider put it there
            joined.remove(int(moved)) if int(moved) in joined else joined.append(int(moved))

    return explorer_of(
        "coalitions",
        boxes | {"orders": orders},
        teams.picture,
        position=lambda: (tuple(joined), orders.value),
        moved=switch,
    )


def _box(name: str) -> Any:
    from ipywidgets import Checkbox, Layout

    return Checkbox(
        value=True,
        description=name,
        tooltip=f"Whether the model knows {name}; the space bar switches it",
        indent=False,
        layout=Layout(width="auto"),
    )
