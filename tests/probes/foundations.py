"""The methods of foundations."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tests.probes import TARGETS, probe
from xailab.foundations import activations, feature_visualization, gradient_flow


def layer_activations(model: Any, x: Any, *, layer: Any = "relu2", **more: Any) -> Any:
    return activations.layer_activations(model, x, [layer, "relu1"], **more)


def importance(method: str) -> Callable[..., Tensor]:
    def call(
        model: Any, x: Any, *, target: Any = TARGETS, layer: Any = "relu2", **more: Any
    ) -> Any:
        options = {"layer": layer, "method": method, **more}
        return activations.neuron_importance(model, x, target, **options)

    return call


def conductance(
    model: Any, x: Any, *, target: Any = TARGETS, layer: Any = "relu2", **more: Any
) -> Any:
    return activations.layer_conductance(model, x, target, layer=layer, n_steps=5, **more)


def top_inputs(model: Any, x: Any, *, layer: Any = "relu2", **more: Any) -> Any:
    return activations.top_inputs(model, x, layer=layer, unit=1, k=2, **more)


def maximize(model: Any, x: Any, *, layer: Any = "norm", **more: Any) -> Tensor:
    size = {"shape": (3, 8, 8), "n_steps": 3}
    return feature_visualization.maximize(model, layer=layer, unit=1, **size, **more)


def deep_dream(model: Any, x: Any, *, layer: Any = "conv2", **more: Any) -> Tensor:
    return feature_visualization.deep_dream(model, x[:1], layer=layer, n_steps=2, **more)


def gradient_norms(model: Any, x: Any) -> dict[str, float]:
    return gradient_flow.gradient_norms(model, x, TARGETS, nn.functional.cross_entropy)


def activation_scales(model: Any, x: Any, *, layer: Any = "relu2") -> dict[str, float]:
    return gradient_flow.activation_scales(model, x, layers=[layer])


def block_ablation(model: Any, x: Any, *, layer: Any = "relu2") -> dict[str, float]:
    return gradient_flow.block_ablation(model, x, TARGETS, layers=[layer])


EVERYTHING = "x target none layer batch_size rows tensors mode runs"
NEURONS = activations.neuron_importance
PROBES = {
    "layer_activations": probe(
        activations.layer_activations,
        "x layer batch_size rows tensors mode runs",
        layer_activations,
    ),
    "importance by conductance": probe(NEURONS, EVERYTHING, importance("conductance")),
    "importance by activation x gradient": probe(
        NEURONS, EVERYTHING, importance("activation_x_gradient")
    ),
    "importance by ablation": probe(NEURONS, EVERYTHING, importance("ablation")),
    "layer_conductance": probe(activations.layer_conductance, EVERYTHING, conductance),
    "top_inputs": probe(activations.top_inputs, "x layer batch_size tensors mode runs", top_inputs),
    "maximize": probe(feature_visualization.maximize, "layer runs", maximize),
    "deep_dream": probe(feature_visualization.deep_dream, "layer runs", deep_dream),
    # These give numbers, and the first two depend on the mode, as training does.
    "gradient_norms": probe(gradient_flow.gradient_norms, "x runs", gradient_norms),
    "activation_scales": probe(gradient_flow.activation_scales, "x layer runs", activation_scales),
    "block_ablation": probe(gradient_flow.block_ablation, "x layer mode runs", block_ablation),
}
