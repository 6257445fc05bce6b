"""Explorers with sliders, each with a picture that stands in where nothing can slide."""

from importlib import import_module
from typing import Any

# Not lazy: a module imported later under the name of its function would hide the function.
from xailab.widgets.show import show

_HOMES = {
    "backprop_stepper": "backprop",
    "cam_browser": "cam",
    "coalition_explorer": "shapley",
    "epsilon_slider": "adversarial",
    "growth_browser": "feature_visualization",
    "head_browser": "attention",
    "layer_browser": "activations",
    "lime_sampler": "lime",
    "method_chooser": "chooser",
    "path_slider": "paths",
    "playground": "training",
    "recommend": "chooser",
    "threshold_explorer": "fairness",
    "uncertainty_surface": "uncertainty",
}
__all__ = [
    "backprop_stepper",
    "cam_browser",
    "coalition_explorer",
    "epsilon_slider",
    "growth_browser",
    "head_browser",
    "layer_browser",
    "lime_sampler",
    "method_chooser",
    "path_slider",
    "playground",
    "recommend",
    "show",
    "threshold_explorer",
    "uncertainty_surface",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xailab.widgets' has no attribute {name!r}")
    return getattr(import_module(f"xailab.widgets.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
