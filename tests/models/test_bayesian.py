"""Layers with distributions for weights: their means, their draws, their gradients."""

import pytest
import torch
from torch import nn

from xailab.models.bayesian import BayesConv2d, BayesLinear


def test_evaluation_mode_is_the_means() -> None:
    torch.manual_seed(0)
    linear, conv = BayesLinear(3, 2, initial_std=1.0), BayesConv2d(1, 2, 3, initial_std=1.0)
    for layer, plain, x in (
        (linear, nn.Linear(3, 2), torch.rand(4, 3)),
        (conv, nn.Conv2d(1, 2, 3), torch.rand(4, 1, 5, 5)),
    ):
        plain.load_state_dict({name: getattr(layer, name) for name in ("weight", "bias")})
        assert torch.equal(layer.eval()(x), plain(x))
        assert not torch.allclose(layer.train()(x), plain(x), atol=0.1)


def test_training_draws_have_the_mean_and_width_that_they_should() -> None:
    torch.manual_seed(0)
    layer = BayesLinear(2, 1, initial_std=0.3)
    x = torch.tensor([[2.0, 1.0]])
    with torch.no_grad():
        got = torch.stack([layer(x) for _ in range(2000)]).flatten()
        want = layer.eval()(x).item()
    assert got.mean().item() == pytest.approx(want, abs=0.06)
    assert got.std().item() == pytest.approx(0.3 * (4 + 1 + 1) ** 0.5, rel=0.05)


def test_gradients_reach_mean_and_width() -> None:
    layer = BayesConv2d(1, 2, 3, padding=1, bias=False)
    layer(torch.rand(2, 1, 4, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight_rho.grad.abs().sum() > 0
    assert layer.bias is None
    assert layer.bias_rho is None


def test_standard_deviations_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="prior_std=0"):
        BayesLinear(1, 1, prior_std=0)
    with pytest.raises(ValueError, match="initial_std=-1"):
        BayesConv2d(1, 1, 1, initial_std=-1)
