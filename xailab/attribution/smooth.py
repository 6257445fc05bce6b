"""Any method, smoothed: its mean over noisy copies of the input, and how far these maps spread.

Lesson `saliency` does this to the gradient, and calls it SmoothGrad.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xailab.core.batching import batched
from xailab.core.callable_module import make_callable
from xailab.core.checks import Model, Target, check_input, check_positive
from xailab.core.noise import noisy_copies
from xailab.core.registry import Card, chosen
from xailab.core.scores import target_of_rows

_LIKE_X = ("baseline", "feature_mask")  # options that may hold one entry a row


class Smoothed(NamedTuple):
    """What a method says of noisy copies of each row.

    Attributes:
        mean: (N, ...), its mean map.
        spread: (N, ...), the standard deviation over the copies, in the same units.
    """

    mean: Tensor
    spread: Tensor


class Smooth:
    """A method smoothed by `smooth`: called as the method is, it gives the mean map.

    Attributes:
        method: the method.
        noise, n_samples, seed, batch_size: as for `smooth`.
        card: what `explain` and the scoreboard know of it.
    """

    def __init__(
        self,
        method: str | Callable[..., Any],
        noise: float,
        n_samples: int,
        seed: int,
        batch_size: int | None,
    ) -> None:
        (known,) = chosen([method])
        if known.takes != "model" or known.run is not None:
            raise ValueError(f"smooth takes methods (model, x, target), and {known.name} is none")
        noisy_copies(torch.zeros(1, 1), noise, n_samples, seed)  # what is wrong is said now
        self.method, self.noise, self.n_samples = known.function, noise, int(n_samples)
        self.seed, self.batch_size = seed, batch_size
        self.__name__ = f"smooth {known.name}"
        self.__signature__ = inspect.signature(known.function)
        self.card: Card = replace(
            known,
            name=self.__name__,
            function=self,
            title=f"smooth {known.title}",
            promises="",
            rows=lambda subject, options: self.n_samples * known.rows(subject, options),
            keras="",
        )

    def __call__(self, model: Model, x: Tensor, target: Target, **options: Any) -> Tensor:
        """Return the mean map over noisy copies; options are the method's own."""
        return self.spread(model, x, target, **options).mean

    def spread(self, model: Model, x: Tensor, target: Target, **options: Any) -> Smoothed:
        """Return the mean map and the standard deviation over noisy copies."""
        x = check_input(model, x).detach()
        if isinstance(options.get("layer_baseline"), Tensor):
            raise ValueError("smooth takes a number for layer_baseline, not a tensor")
        copies = noisy_copies(x, self.noise, self.n_samples, self.seed)
        asked, numbers = target_of_rows(target, len(x)), torch.arange(self.n_samples)
        found = []
        for row in range(len(x)):
            rows = torch.full((self.n_samples,), row)
            own = {name: _of_row(name, one, row, x) for name, one in options.items()}
            maps = self._maps(model, copies(rows, numbers), asked(rows), own)
            exact = maps.to(torch.promote_types(maps.dtype, torch.float32))
            found.append((exact.mean(0).to(maps), exact.std(0, correction=0).to(maps)))
        means, spreads = zip(*found, strict=True)
        return Smoothed(torch.stack(means), torch.stack(spreads))

    def _maps(
        self, model: Model, copies: Tensor, target: Target, options: dict[str, Any]
    ) -> Tensor:
        """Return the method's map of each copy of one row; all have one target."""
        one = target[:1] if isinstance(target, Tensor) else target

        def explained(chunk: Tensor) -> Tensor:
            t = one.expand(len(chunk)) if isinstance(one, Tensor) else one
            return self.method(model, chunk, t, **options)

        return batched(
            explained,
            copies,
            batch_size=self.batch_size,
            progress=False,
            owner=self,
            gradients=True,
        )


def smooth(
    method: str | Callable[..., Any],
    *,
    noise: float = 0.1,
    n_samples: int = 25,
    seed: int = 0,
    batch_size: int | None = None,
) -> Smooth:
    r"""Smooth any method: explain noisy copies of each row, and take the mean of the maps.

    $$\hat A = \frac1n \sum_{k=1}^{n} A(x + \epsilon_k), \qquad
      S^2 = \frac1n \sum_{k=1}^{n} \big(A(x + \epsilon_k) - \hat A\big)^2, \qquad
      \epsilon_k \sim \mathcal N\big(0, (\text{noise} \cdot (x_{max} - x_{min}))^2\big)$$

    What it returns is called as the method is, `smooth(grad_cam)(model, x, target, layer="conv2")`,
    stands wherever a method stands, in `explain` and the scoreboard, and tells the spread $S$ too:
    `smooth(saliency).spread(model, x, target)`, a `Smoothed(mean, spread)`. A sum that the method
    promises for x is not one that the mean keeps. Every row sees the same draws.

    Args:
        method: a method (model, x, target), or its name.
        noise: standard deviation of the noise as a share of the row's own range.
        n_samples: noisy copies of each row.
        seed: of the noise; a `seed` among the method's own options stays the method's.
        batch_size: copies handed to the method at once; None measures.

    Returns:
        A method: maps in the shape and the units of those of `method`.

    Raises:
        TypeError: `n_samples` or `batch_size` is not an integer; no method.
        ValueError: `noise` < 0, `n_samples` < 1; no method of that name; one with another call
            form (a black box, a text).

    Reference: Smilkov, Thorat, Kim, Viégas, Wattenberg (2017), SmoothGrad: removing noise by
        adding noise (the mean); Adebayo, Gilmer, Goodfellow, Kim (2018), Local Explanation Methods
        for Deep Neural Networks Lack Sensitivity to Parameter Values ($S^2$, VarGrad).
    Elsewhere: captum `NoiseTunnel(method)`, "smoothgrad" and "vargrad"; `stdevs` are in units of x.

    >>> doubled = smooth(lambda model, x, target: 2 * x, noise=0.0)
    >>> doubled(torch.neg, torch.ones(1, 2), 0)
    tensor([[2., 2.]])
    >>> doubled.spread(torch.neg, torch.ones(1, 2), 0).spread
    tensor([[0., 0.]])
    """
    if batch_size is not None:
        check_positive("batch_size", batch_size)
    return Smooth(method, noise, n_samples, seed, batch_size)


def _of_row(name: str, option: Any, row: int, x: Tensor) -> Any:
    """Return an option that holds one entry a row for this row alone; any other as it is."""
    own = name in _LIKE_X and isinstance(option, Tensor) and option.ndim == x.ndim
    return option[row : row + 1] if own and len(option) == len(x) else option


make_callable(__name__)
