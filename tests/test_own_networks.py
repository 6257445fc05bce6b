"""Every network that the package makes, in every function that takes one: an answer or a refusal.

A refusal is an error that xailab itself raises on purpose. Another library's traceback, or an
error that nobody meant, fails.
"""

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xailab
from tests.probes import TARGETS
from tests.test_contract import ALL
from tests.test_contract import run as attribute
from tests.test_contract_packages import ROWS, tensors
from tests.toys import inputs, toy
from xailab.core.folding import folded, predictor
from xailab.models.bayesian import BayesConv2d, BayesLinear
from xailab.models.loop import evaluate
from xailab.models.training import fit
from xailab.simplify.compress import keep_zeros, low_rank, prune, quantize, remove_channels


def bayesian() -> nn.Module:
    """The toy with two layers of distributions."""
    net = toy()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.conv2, net.fc = BayesConv2d(6, 5, 3, padding=1), BayesLinear(5, 4)
    return net


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "quantized": lambda: quantize(toy()),
    "quantized with activations": lambda: quantize(toy(), activations=True),
    "pruned": lambda: prune(toy(), 0.5),
    "pruned by channels": lambda: prune(toy(), 0.5, structured=True),
    "thinned": lambda: remove_channels(prune(toy(), 0.5, structured=True)),
    "low rank": lambda: low_rank(toy(), 0.3),
    "low rank, quantized": lambda: quantize(low_rank(toy(), 0.3)),
    "Bayesian": bayesian,
}


def trained_on(model: nn.Module, x: Tensor) -> Any:
    return fit(model, (x, TARGETS), (x, TARGETS), epochs=1)


def with_zeros(model: nn.Module, x: Tensor) -> Any:
    with keep_zeros(model):
        model(x).sum().backward()
    return x


FUNCTIONS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    **{name: row.call for name, row in ROWS.items()},
    **{
        f"attribution: {one.id}": lambda model, x, card=one.values[0]: attribute(card, model, x)
        for one in ALL
    },
    "core: folded": lambda model, x: folded(model)(x),
    "core: predictor": lambda model, x: predictor(model)(x.numpy()),
    "core: predictor of no rows": lambda model, x: predictor(model)(x[:0].numpy()),
    "models: evaluate": lambda model, x: evaluate(model, (x, TARGETS)),
    "models: fit": trained_on,
    "simplify: keep_zeros": with_zeros,
}


def refused(error: Exception) -> bool:
    """Tell whether xailab raised an error of its own, by a `raise` of its own."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    own = last.filename.startswith(xailab.__path__[0]) and (last.line or "").startswith("raise")
    return own and isinstance(error, (ValueError, TypeError, RuntimeError))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_an_answer_or_a_refusal(network: str, function: str) -> None:
    model, x = NETWORKS[network](), inputs()
    try:
        answer = FUNCTIONS[function](model, x)
    except Exception as error:
        if not refused(error):
            raise
        return
    assert answer is not None
    for found in tensors(answer):
        assert found.isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_networks_differ_from_the_toy_and_answer(network: str) -> None:
    model, x = NETWORKS[network]().eval(), inputs()
    with torch.no_grad():
        answers = model(x)
    assert answers.shape == (3, 4)
    assert np.isfinite(answers.numpy()).all()
    assert not torch.equal(answers, toy().eval()(x))
