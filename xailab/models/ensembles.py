"""Networks that are asked together: five from other beginnings, or one with distributed weights.

Small, and trained on few examples without any tricks, so that they are as sure of themselves as
networks usually are: lesson `uncertainty` asks what that is worth.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from xailab.models.bayesian import BayesLinear
from xailab.models.weight_files import with_weights

MOON_NOISES = (0.1, 0.2, 0.3, 0.4)  # one entry of `moon_nets()` each
_MEMBERS = 5


def mlp(
    sizes: Sequence[int], *, dropout: float = 0.0, linear: Callable[..., Any] = nn.Linear
) -> nn.Sequential:
    """Return dense layers with ReLU and dropout between them; the last one gives logits.

    Args:
        sizes: units of every layer, the inputs first.
        dropout: share of hidden units that are dropped while training.
        linear: makes a layer of its numbers of inputs and outputs, for example `BayesLinear`.

    >>> [type(layer).__name__ for layer in mlp([2, 8, 3], dropout=0.1)]
    ['Linear', 'ReLU', 'Dropout', 'Linear']
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def digit_mlp(*, dropout: float = 0.3, linear: Callable[..., Any] = nn.Linear) -> nn.Sequential:
    """Return an untrained network for digits: (N, 1, 28, 28) in [0, 1] -> logits (N, 10).

    Squares of 2 x 2 pixels are averaged, two hidden layers of 48 units follow.
    """
    layers = mlp([196, 48, 48, 10], dropout=dropout, linear=linear)
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), *layers)


def bayesian_digit_mlp() -> nn.Sequential:
    """Return the same with a distribution for every weight, untrained."""
    return digit_mlp(dropout=0.0, linear=partial(BayesLinear, prior_std=0.2))


def digit_committee() -> nn.ModuleList:
    """Return five digit networks trained on 1,000 digits from five beginnings.

    >>> sum(p.numel() for p in digit_committee()[0].parameters())
    12298
    """
    members = nn.ModuleList(digit_mlp() for _ in range(_MEMBERS))
    return with_weights("digit_committee", members)


def digit_bayes() -> nn.Sequential:
    """Return the Bayesian digit network, trained on the same 1,000 digits.

    >>> digit_bayes()[2]
    BayesLinear(in_features=196, out_features=48, bias=True)
    """
    return with_weights("digit_bayes", bayesian_digit_mlp())


class MoonNets(nn.Module):
    """Networks for points in the plane, all trained on the same two moons: (N, 2) -> (N, 2).

    Attributes:
        members: five plain networks with dropout.
        bayes: one with distributed weights.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = [2, 32, 32, 2]
        self.members = nn.ModuleList(mlp(sizes, dropout=0.1) for _ in range(_MEMBERS))
        self.bayes = mlp(sizes, linear=BayesLinear)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the first member: what one network says."""
        return self.members[0](x)


def moon_nets() -> nn.ModuleList:
    """Return trained networks for two moons, one `MoonNets` for each of `MOON_NOISES`.

    >>> [len(nets.members) for nets in moon_nets()]
    [5, 5, 5, 5]
    """
    return with_weights("moon_nets", nn.ModuleList(MoonNets() for _ in MOON_NOISES))
