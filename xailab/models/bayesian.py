"""Layers whose weights are distributions.

Lesson `uncertainty` teaches this file; `xailab.trust.bayes` trains such layers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

_PARTS = ("weight", "bias")


class BayesianLayer(nn.Module):
    r"""What a layer with distributions for weights adds to torch's layer with numbers.

    The layer's own `weight` and `bias` are the means $\mu$; $\rho$ gives the standard deviations,
    $\sigma = \log(1 + e^\rho)$, which are above 0 for any $\rho$.
    """

    def _widen(self, prior_std: float, initial_std: float) -> None:
        if not (prior_std > 0 and initial_std > 0):
            raise ValueError(
                f"standard deviations must be above 0, got prior_std={prior_std} and "
                f"initial_std={initial_std}"
            )
        self.prior_std = float(prior_std)
        rho = torch.tensor(float(initial_std)).expm1().log().item()
        for name in ("weight", "bias"):
            mean = getattr(self, name)
            wide = None if mean is None else nn.Parameter(torch.full_like(mean, rho))
            self.register_parameter(f"{name}_rho", wide)

    def posterior(self) -> dict[str, Normal]:
        """Return the distributions of `weight` and, where there is one, `bias`."""
        pairs = {name: (getattr(self, name), getattr(self, f"{name}_rho")) for name in _PARTS}
        return {
            name: Normal(mean, F.softplus(rho))
            for name, (mean, rho) in pairs.items()
            if mean is not None
        }

    def _weights(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias: drawn while training, the means in evaluation mode."""
        if not self.training:
            return self._parameters["weight"], self._parameters["bias"]  # type: ignore[return-value]
        drawn = {name: one.rsample() for name, one in self.posterior().items()}
        return drawn["weight"], drawn.get("bias")


class BayesLinear(BayesianLayer, nn.Linear):
    r"""A dense layer whose weights are independent normal distributions.

    $$w \sim \mathcal N(\mu, \sigma^2), \quad \sigma = \log(1 + e^\rho), \quad
      w = \mu + \sigma \odot \varepsilon, \; \varepsilon \sim \mathcal N(0, 1)$$

    Writing a draw as mean plus scaled noise lets gradients reach $\mu$ and $\rho$. In training
    mode every call draws anew, from torch's random state, as `nn.Dropout` does; in evaluation mode
    the layer is `nn.Linear` with the means, so every explanation method works on it.

    Args:
        in_features: numbers a row that come in.
        out_features: numbers a row that go out.
        bias: add an offset, a distribution too.
        prior_std: standard deviation of the prior $\mathcal N(0, s^2)$ of every weight.
        initial_std: $\sigma$ to begin with.

    Raises:
        ValueError: a standard deviation that is not above 0.

    Reference: Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), Weight Uncertainty in Neural
        Networks.
    Elsewhere: Pyro `PyroModule` with `AutoNormal`.

    >>> layer = BayesLinear(3, 2, initial_std=0.1)
    >>> layer.posterior()["weight"].stddev.unique().item()  # doctest: +ELLIPSIS
    0.1...
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        prior_std: float = 1.0,
        initial_std: float = 0.02,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._widen(prior_std, initial_std)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_features)."""
        return F.linear(x, *self._weights())


class BayesConv2d(BayesianLayer, nn.Conv2d):
    """A convolution whose weights are independent normal distributions: see `BayesLinear`.

    Args:
        *args: as for `nn.Conv2d`.
        prior_std: standard deviation of the prior of every weight.
        initial_std: standard deviation of every weight to begin with.
        **kwargs: as for `nn.Conv2d`.

    Raises:
        ValueError: a standard deviation that is not above 0.

    >>> BayesConv2d(1, 4, 3, padding=1)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self, *args: Any, prior_std: float = 1.0, initial_std: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._widen(prior_std, initial_std)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H, W)."""
        return self._conv_forward(x, *self._weights())
