"""Noisy copies of rows: the same draws for every row, each in the row's own range."""

from collections.abc import Callable

import torch
from torch import Tensor

from xailab.core.checks import check_positive


def noisy_copies(
    x: Tensor, noise: float, n_samples: int, seed: int
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""Return what makes noisy copies of rows, (row numbers, copy numbers) -> (m, ...).

    $$x + \epsilon_k, \qquad
      \epsilon_k \sim \mathcal N\big(0, (\text{noise} \cdot (x_{max} - x_{min}))^2\big)$$

    Args:
        x: (N, ...) floats.
        noise: standard deviation of the noise as a share of the row's own range.
        n_samples: how many copies there are of each row.
        seed: of the draws; the global random state is neither used nor changed.

    Raises:
        TypeError: `n_samples` is not an integer.
        ValueError: `noise` < 0, `n_samples` < 1.

    >>> noisy_copies(torch.ones(1, 2), 0.1, 5, 0)(torch.tensor([0, 0]), torch.tensor([3, 4]))
    tensor([[1., 1.],
            [1., 1.]])
    """
    if not noise >= 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    n = check_positive("n_samples", n_samples)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn((n, *x.shape[1:]), generator=generator, dtype=x.dtype).to(x.device)
    flat = x.flatten(1)
    sigma = noise * (flat.amax(1) - flat.amin(1)).reshape(-1, *[1] * (x.ndim - 1))
    return lambda rows, copies: x[rows] + sigma[rows] * draws[copies]
