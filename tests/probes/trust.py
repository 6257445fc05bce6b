"""The methods of trust."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.probes import TARGETS, Probe, dtype_of, probe
from tests.toys import inputs
from xailab.attribution.saliency import saliency
from xailab.core import frozen
from xailab.trust import adversarial, faults, uncertainty


def attack(function: Any, **usual: Any) -> Probe:
    def call(model: Any, x: Any, *, target: Any = TARGETS, **more: Any) -> Tensor:
        return function(model, x, target, epsilon=0.1, **usual, **more)

    return probe(function, "x target batch_size rows tensors mode runs", call)


def squeezing(model: Any, x: Any, **more: Any) -> Tensor:
    return adversarial.FeatureSqueezing(model).score(x, **more)


def mahalanobis(model: Any, x: Any, *, layer: Any = "relu2", **more: Any) -> Tensor:
    known = inputs(dtype=dtype_of(model))
    return adversarial.Mahalanobis(model, layer, known, TARGETS).score(x, **more)


def isolation(model: Any, x: Any, *, layer: Any = "relu2", **more: Any) -> Tensor:
    known = inputs(dtype=dtype_of(model))
    return adversarial.Isolation(model, layer, known, n_trees=5).score(x, **more)


def disagreement(model: Any, x: Any, **more: Any) -> Tensor:
    return adversarial.Disagreement([model, lambda x: 2 * model(x)]).score(x, **more)


def drawn_weights(model: Any, x: Any, **more: Any) -> Any:
    """The toy with a Bayesian layer behind it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        last = uncertainty.BayesLinear(4, 4, initial_std=0.5).to(dtype_of(model))
    return uncertainty.mc_weights(nn.Sequential(model, last), x, n_samples=3, **more)


def laplace(model: Any, x: Any, **more: Any) -> Any:
    known = inputs(dtype=dtype_of(model))
    fitted = uncertainty.laplace_last_layer(model, known, TARGETS, **more)
    return fitted.predict(x, n_samples=3, **more)


def spread(model: Any, x: Any, *, target: Any = TARGETS) -> Any:
    return uncertainty.explanation_uncertainty(model, x, target, explain=saliency, n_samples=3)


def under_fault(fault: Any, **usual: Any) -> Callable[..., Tensor]:
    """Ask the model inside the block: at the end of it, and by an error, all must be as it was."""

    def call(model: Any, x: Any, *, layer: Any = "conv1", **more: Any) -> Tensor:
        with fault(model, layer, n_faults=2, **usual, **more), frozen(model), torch.no_grad():
            return model(x)

    return call


def damaged(model: Any, x: Any, *, layer: Any = "conv1", where: str = "weight", **more: Any) -> Any:
    options = {"bits": [22], "n_faults": 2, "n_repeats": 1, "where": where}
    y = [0, 1, 2][: len(x)] if hasattr(x, "__len__") else [0, 1, 2]
    return faults.damage_table(model, x, y, layers=[layer], **options, **more)


def watched(model: Any, x: Any, *, layer: Any = "relu2") -> Any:
    known = inputs(4, dtype_of(model))
    return faults.Monitor(model, layers=[layer]).fit(known, batch_size=2).observe(x)


STEPS = {"step_size": 0.05, "n_steps": 3}
SCORES = "x batch_size rows tensors mode runs"
PROBES = {
    "fgsm": attack(adversarial.fgsm),
    "pgd": attack(adversarial.pgd, **STEPS),
    "pgd in l2": attack(adversarial.pgd, norm="l2", **STEPS),
    "square_attack": attack(adversarial.square_attack, n_queries=8),
    "adaptive_attack": attack(
        adversarial.adaptive_attack, suspicion=lambda x: x.flatten(1).sum(1), **STEPS
    ),
    "pgd from a random start": attack(adversarial.pgd, random_start=True, **STEPS),
    "feature squeezing": probe(adversarial.FeatureSqueezing, SCORES, squeezing),
    "mahalanobis": probe(adversarial.Mahalanobis, f"{SCORES} layer", mahalanobis),
    "isolation": probe(adversarial.Isolation, f"{SCORES} layer", isolation),
    "disagreement": probe(adversarial.Disagreement, SCORES, disagreement),
    "mc_dropout": probe(
        uncertainty.mc_dropout, SCORES, partial(uncertainty.mc_dropout, n_samples=3)
    ),
    "mc_weights": probe(uncertainty.mc_weights, SCORES, drawn_weights),
    "ensemble": probe(
        uncertainty.ensemble,
        SCORES,
        lambda model, x, **more: uncertainty.ensemble([model, model], x, **more),
    ),
    "laplace_last_layer": probe(uncertainty.laplace_last_layer, SCORES, laplace),
    # Of a weight, no layer that does not run: functions may use it too. Other bad layers are
    # tested in tests/trust/test_bit_faults.py.
    "flip_bits": probe(faults.flip_bits, "runs", under_fault(faults.flip_bits, bit=30)),
    "flip_bits of activations": probe(
        faults.flip_bits, "layer runs", under_fault(faults.flip_bits, bit=22, where="activation")
    ),
    "stuck_at": probe(faults.stuck_at, "layer runs", under_fault(faults.stuck_at, value=0.5)),
    "stuck_at of weights": probe(
        faults.stuck_at, "runs", under_fault(faults.stuck_at, value=0.5, where="weight")
    ),
    "damage_table": probe(faults.damage_table, "x batch_size mode runs", damaged),
    "damage_table of activations": probe(
        faults.damage_table,
        "x layer batch_size mode runs",
        partial(damaged, where="activation"),
    ),
    "corrupt": probe(
        faults.corrupt,
        "rows tensors",
        lambda model, x, **more: faults.corrupt(x.sigmoid(), "contrast", 2),
    ),
    "monitor": probe(faults.Monitor, "x layer runs", watched),
    "explanation_uncertainty": probe(
        uncertainty.explanation_uncertainty, "x target rows tensors mode runs", spread
    ),
}
