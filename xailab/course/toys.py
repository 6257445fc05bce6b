"""Small networks that checks of several lessons try answers on."""

from typing import Any


def uneven_network() -> Any:
    """Return a network whose gradient differs from place to place: its weights, or 0.

    Layer "0" hands on its input, (N, 2, 2, 2), and remembers the graph; three classes.

    >>> [layer.__class__.__name__ for layer in uneven_network()]
    ['Conv2d', 'ReLU', 'Flatten', 'Linear']
    """
    import torch
    from torch import nn

    first = nn.Conv2d(2, 2, 1, bias=False)
    first.weight.data = torch.eye(2).reshape(2, 2, 1, 1)
    net = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    rows = [[9, 9, 9, 9, 9, 9, 9, 9], [4, 0, 3, 1, -2, -2, 1, -5], [1, 0, 0, 0, 2, 0, 0, 5]]
    net[3].weight.data = torch.tensor(rows).float()
    net[3].bias.data = torch.tensor([-1.0, 0.5, 2.0])
    return net
