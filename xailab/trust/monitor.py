"""A guard beside a running model: it knows how things looked when all was well.

Lesson `faults` teaches this file. Four signals are watched: how far inputs are from any that are
known, how far activations leave their range, how sure the model is, and how long it takes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from xailab.core.checks import check_input, check_positive
from xailab.core.layers import capture, units_axis, units_of
from xailab.core.outputs import as_array, probabilities_of
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.trust.memory import layer_names

Array = np.ndarray

_TESTED = ("input", "activation", "confidence")  # by their distribution; latency by its size


class Monitor:
    r"""Raise an alarm when the last batches no longer look like the reference.

    Each row is given three numbers: the distance to the nearest reference input, the share of
    units outside their reference range, and the highest probability (0 if it is NaN; of one logit
    that of the likelier class). The rows of
    the last few batches are compared with reference rows by the two-sample Kolmogorov-Smirnov
    test:

    $$D = \sup_v \big|F_{\text{now}}(v) - F_{\text{reference}}(v)\big|, \qquad
      \text{alarm if } p(D) < \alpha / 3$$

    so that, while nothing changes, a batch raises a false alarm with a chance of $\alpha$ at most.
    Latency has no such promise, since other programs on the machine slow a model too: its alarm is
    a time per row beyond `slack` times the slowest reference batch.

    Args:
        model: maps (N, ...) to logits (N, K), or to one logit of a binary network.
        layers: dotted names of the layers whose activations are watched.
        false_alarms: $\alpha$, for a batch, in (0, 1).
        window: how many batches are judged together: more see weaker drift, and see it later.
        slack: of the latency.
        clock: tells the time in seconds; a test may bring its own.

    Raises:
        TypeError: no module; counts that are not integers.
        ValueError: a layer that does not exist (the message lists near names), or none;
            `false_alarms` outside (0, 1), `window` below 1, `slack` below 1.

    Reference: Rabanser, Günnemann, Lipton (2019), Failing Loudly: An Empirical Study of Methods
        for Detecting Dataset Shift (the test on what a model says, with Bonferroni's correction);
        Henzinger, Lukina, Schilling (2020), Outside the Box: Abstraction-Based Monitoring of
        Neural Networks (the ranges).
    Elsewhere: alibi-detect `KSDrift`, Evidently.

    >>> draw = lambda n, seed: torch.rand(n, 2, generator=torch.Generator().manual_seed(seed))
    >>> monitor = Monitor(nn.Sequential(nn.Identity()), layers=["0"], slack=1e6)
    >>> monitor = monitor.fit(draw(400, 0), batch_size=20)
    >>> monitor.observe(draw(20, 1))
    {}
    >>> sorted(monitor.observe(draw(20, 2) + 1))
    ['activation', 'input']
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[str],
        false_alarms: float = 0.01,
        window: int = 1,
        slack: float = 3.0,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        names = layer_names(model, layers)
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms must lie between 0 and 1, got {false_alarms}")
        if not slack >= 1:
            raise ValueError(f"slack must be at least 1, got {slack}")
        self.model, self.layers, self.clock = model, names, clock
        self.false_alarms, self.slack = false_alarms, slack
        self.window = check_positive("window", window)

    def fit(self, x: Tensor, *, batch_size: int) -> "Monitor":
        """Learn how things look when all is well; the monitor starts afresh.

        The first half of the rows gives the known inputs and the ranges, the second half the
        distributions: what is measured against itself would look better than it is.

        Args:
            x: (N, ...) rows that the model was not trained on, in random order, at least 4.
            batch_size: rows of a batch as they will come; their time is measured.

        Returns:
            The monitor itself.

        Raises:
            TypeError, ValueError: as `saliency` for x; fewer than 4 rows, `batch_size` below 1, a
                layer of which nothing tells which axis holds its units.
        """
        size, rows = check_positive("batch_size", batch_size), check_input(self.model, x).detach()
        if len(rows) < 4:
            raise ValueError(f"the reference needs at least 4 rows, got {len(rows)}")
        self.__dict__.pop("_reference", None)  # nothing is judged by half a reference
        self._shape = rows.shape[1:]
        self._axes = {layer: units_axis(self.model, layer, rows) for layer in self.layers}
        known, rest = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        self._neighbors = NearestNeighbors(n_neighbors=1).fit(_flat(known))
        seen = [self._activations(batch) for batch in known.split(size)]
        self._low = np.min([batch.min(0) for batch, _, _ in seen], axis=0)
        self._high = np.max([batch.max(0) for batch, _, _ in seen], axis=0)
        looks = [self._look(batch) for batch in rest.split(size)]
        self._reference = pd.concat([frame for frame, _ in looks])
        self._slowest = max(seconds for _, seconds in looks)
        self._recent: deque[pd.DataFrame] = deque(maxlen=self.window)
        self._log: list[dict[str, float]] = []
        return self

    def observe(self, x: Tensor) -> dict[str, str]:
        """Look at one batch; return what is alarming about the last few, in words.

        Args:
            x: (N, ...) floats.

        Returns:
            A mapping from the signals that raise an alarm ("input", "activation", "confidence",
            "latency") to a sentence. Empty, and so false, while all is well.

        Raises:
            TypeError, ValueError: as `saliency` for x; rows of another shape than the reference.
            RuntimeError: `fit` has not been called.
        """
        if not hasattr(self, "_reference"):
            raise RuntimeError("the monitor has no reference yet: call fit first")
        frame, seconds = self._look(check_input(self.model, x).detach())
        self._recent.append(frame)
        now, then = pd.concat(list(self._recent)), self._reference
        p = {name: float(ks_2samp(now[name], then[name]).pvalue) for name in _TESTED}
        self._log.append({**now.mean(), **{f"p_{name}": p[name] for name in p}, "latency": seconds})
        limit = self.false_alarms / len(_TESTED)
        alarms = {
            name: f"mean {now[name].mean():.3g}, was {then[name].mean():.3g}, p = {p[name]:.2g}"
            for name in _TESTED
            if p[name] < limit
        }
        if seconds > self.slack * self._slowest:
            alarms["latency"] = f"{seconds:.2g} s a row, reference at most {self._slowest:.2g} s"
        return alarms

    @property
    def history(self) -> pd.DataFrame:
        """One row a batch since `fit`: the signals' means, their p-values, and seconds a row."""
        return pd.DataFrame(self._log)

    def _look(self, x: Tensor) -> tuple[pd.DataFrame, float]:
        """Return three numbers a row, and the seconds a row that the model took."""
        activations, logits, seconds = self._activations(x)
        if x.shape[1:] != self._shape:
            raise ValueError(
                f"the reference has rows of shape {tuple(self._shape)}, got {tuple(x.shape[1:])}"
            )
        outside = ~((activations >= self._low) & (activations <= self._high))  # NaN is outside
        distance, _ = self._neighbors.kneighbors(_flat(x))
        confidence = as_array(probabilities_of(logits.double()).amax(1))
        columns = (distance[:, 0], outside.mean(1), np.nan_to_num(confidence, nan=0.0))
        return pd.DataFrame(dict(zip(_TESTED, columns, strict=True))), seconds

    def _activations(self, x: Tensor) -> tuple[Array, Tensor, float]:
        """Return all watched units, averaged over positions, (N, U); logits; seconds a row."""
        with frozen(self.model), torch.no_grad(), capture(self.model, self.layers) as kept:
            began = self.clock()
            logits = outputs_of(self.model, x)
            seconds = (self.clock() - began) / len(x)
        outputs = [units_of(kept, layer, len(x), axis) for layer, axis in self._axes.items()]
        units = [each.unsqueeze(-1).flatten(2).double().mean(2) for each in outputs]
        return as_array(torch.cat(units, dim=1)), logits, seconds


def _flat(x: Tensor) -> Array:
    return as_array(x.flatten(1).double())
