"""The rules of LRP for single layers against paper, composites against zennit."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import (
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    LayerMapComposite,
    layer_map_base,
)
from zennit.rules import AlphaBeta, Epsilon, Gamma, ZPlus
from zennit.torchvision import ResNetCanonizer
from zennit.types import Linear

from tests.networks import network, photo
from tests.toys import linear, pictures, small_cnn
from xailab.attribution.relevance import lrp, relevance_balance

X = torch.tensor([[2.0, 1.0]])


# ---- by hand -----------------------------------------------------------------------------------


def test_flat_by_hand() -> None:
    """z = 2 * 3 - 1 * 2 = 4, half of it for each, whatever it was multiplied by."""
    assert lrp(linear([[3.0, -2.0]]), X, 0, rule="flat").tolist() == [[2.0, 2.0]]


def test_flat_gives_the_edge_less() -> None:
    """Three positions with a zero at each end: two, three and two inputs share a 1 equally."""
    conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    conv.weight.data.fill_(1.0)
    net, x = nn.Sequential(conv, nn.Flatten()), torch.tensor([[[1.0, 0.0, 0.0]]])
    assert lrp(net, x, 0, rule="flat").tolist() == [[[0.5, 0.5, 0.0]]]
    found = relevance_balance(net, x, 2, rule="flat")  # its score is 0
    assert found.relevance.tolist() == [[[0.0, 0.0, 0.0]]]


def test_zbox_by_hand() -> None:
    """Between -1 and 3: 3 * (2 + 1) = 9 and -2 * (1 - 3) = 4 of 13; the score is 4."""
    got = lrp(linear([[3.0, -2.0]]), X, 0, rule="zbox", low=-1.0, high=3.0)
    torch.testing.assert_close(got, torch.tensor([[36 / 13, 16 / 13]]))
    bounds = {"low": torch.tensor([-1.0, 0.0]), "high": torch.tensor([3.0, 1.0])}
    got = lrp(linear([[3.0, -2.0]]), X, 0, rule="zbox", **bounds)  # the second stands at its bound
    torch.testing.assert_close(got, torch.tensor([[4.0, 0.0]]))


def test_a_rule_for_each_type_of_layer() -> None:
    net, x = small_cnn(), pictures()
    convs = {"0": "z_plus", "3": "z_plus"}
    for rule in ("epsilon_plus", {nn.Conv2d: "z_plus"}):
        torch.testing.assert_close(lrp(net, x, 0, rule=rule), lrp(net, x, 0, per_layer=convs))
    flat = lrp(net, x, 0, per_layer={**convs, "0": "flat"})
    for rule in ("epsilon_plus_flat", {"first": "flat", nn.Conv2d: "z_plus"}):
        torch.testing.assert_close(lrp(net, x, 0, rule=rule), flat)
    box = lrp(net, x, 0, rule="epsilon_gamma_box", low=0.0, high=1.0)
    layers = {"0": "zbox", "3": "gamma"}
    torch.testing.assert_close(box, lrp(net, x, 0, per_layer=layers, low=0.0, high=1.0))
    other = lrp(net, x, 0, rule={nn.Linear: "z_plus"}, per_layer={"7": "epsilon"})  # a name first
    torch.testing.assert_close(other, lrp(net, x, 0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "zbox"}, "needs low= and high="),
        ({"rule": "epsilon_gamma_box", "low": 0.0}, "needs low= and high="),
        ({"rule": "zbox", "low": torch.zeros(5), "high": 1.0}, r"\(5,\) does not broadcast"),
        ({"rule": {nn.ReLU: "flat"}}, "nn.Linear, nn.Conv2d.*got.*ReLU"),
        ({"rule": {nn.Conv2d: "box"}}, "got 'box'"),
    ],
)
def test_bad_composites(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lrp(small_cnn(), pictures(), 0, **options)


def test_no_first_layer_is_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_cnn()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x / 0.5)

    with pytest.raises(ValueError, match=r"reads x itself.*per_layer="):
        lrp(Scaled(), pictures(), 0, rule="epsilon_plus_flat")


# ---- zennit ------------------------------------------------------------------------------------


TINY = 1e-12


def of_all(rule: Any, stabilizer: float = TINY) -> Callable[..., Any]:
    """Return zennit's composite with one rule for linear and convolution layers."""
    layers = [*layer_map_base(stabilizer), (Linear, rule)]
    return partial(LayerMapComposite, layers)


def named(composite: Any, **options: Any) -> Callable[..., Any]:
    return partial(composite, epsilon=TINY, stabilizer=TINY, **options)


BOUNDS = {"low": torch.zeros(1), "high": torch.ones(1)}
# zennit's composite, our options, how far the two may be apart (a share of the largest number)
PEERS: dict[str, tuple[Callable[..., Any], dict[str, Any], float]] = {
    # zennit's epsilon is also at averages
    "epsilon": (of_all(Epsilon(1e-6), 1e-6), {"epsilon": 1e-6}, 1e-4),
    "a large epsilon": (of_all(Epsilon(0.01), 1e-6), {"epsilon": 0.01}, 1e-4),
    "z_plus": (of_all(ZPlus(TINY)), {"rule": "z_plus"}, 1e-8),
    "gamma": (of_all(Gamma(0.5, TINY)), {"rule": "gamma", "gamma": 0.5}, 1e-8),
    "alpha_beta": (of_all(AlphaBeta(2, 1, TINY)), {"rule": "alpha_beta"}, 1e-8),
    "epsilon_plus": (named(EpsilonPlus), {"rule": "epsilon_plus"}, 1e-8),
    "epsilon_plus_flat": (named(EpsilonPlusFlat), {"rule": "epsilon_plus_flat"}, 1e-8),
    "epsilon_gamma_box": (
        named(EpsilonGammaBox, **BOUNDS),
        {"rule": "epsilon_gamma_box", **BOUNDS},
        1e-8,
    ),
}


def zennits(model: nn.Module, x: Tensor, target: int, composite: Any) -> tuple[Tensor, Tensor]:
    """Return the score as zennit's canonized network has it, and relevance."""
    with Gradient(deepcopy(model), composite(canonizers=[ResNetCanonizer()])) as run:
        scores, _ = run(x, torch.zeros(len(x), 10, dtype=x.dtype))
        seed = torch.zeros_like(scores)
        seed[:, target] = scores[:, target].detach()
        return seed[:, target], run(x, seed)[1].detach()


def resnet(eps: float) -> nn.Module:
    model = deepcopy(network("ResNet-18 (torchvision)")).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    return model


@pytest.mark.parametrize("name", PEERS)
def test_equals_zennits_on_resnet(name: str) -> None:
    composite, options, share = PEERS[name]
    model, x = resnet(eps=0.0), photo().double()[..., ::2, ::2]
    want = zennits(model, x, 3, composite)[1]
    got = lrp(model, x, 3, **{"epsilon": TINY, **options})
    torch.testing.assert_close(got, want, rtol=0, atol=share * want.abs().max().item())


def test_where_zennit_explains_another_network() -> None:
    """It folds norms into convolutions and leaves their eps behind: each divides once more.

    By sqrt(1 + 1e-5), twenty times one after the other: the scores are not the model's.
    """
    model, x = resnet(eps=1e-5), photo(2).double()[..., ::2, ::2]
    score, relevance = zennits(model, x, 3, EpsilonPlus)
    off = (score / model(x)[:, 3] - 1).abs().max().item()
    assert 2e-5 < off < 1e-3
    found = lrp(model, x, 3, rule="epsilon_plus")
    assert 1e-5 < ((found - relevance).abs().max() / found.abs().max()).item() < 1e-3
    told = relevance_balance(model, x, 3, rule="epsilon_plus")
    torch.testing.assert_close(told.score, model(x)[:, 3].detach())


def test_bounds_are_those_of_every_row() -> None:
    rows = torch.tensor([[0.5, 1.0], [2.0, -1.0], [1.0, 1.0]])
    net = linear([[3.0, -2.0]])
    for low, high in ((-1.0, 3.0), (torch.tensor([[-1.0, -2.0]]), torch.tensor([[3.0, 2.0]]))):
        got = lrp(net, rows, 0, rule="zbox", low=low, high=high)
        one = [lrp(net, row[None], 0, rule="zbox", low=low, high=high) for row in rows]
        torch.testing.assert_close(got, torch.cat(one))
