"""Explorers with sliders, each with a picture that stands in where nothing can slide."""

from importlib import import_module
from typing import Any

_HOMES = {"show": "show"}
__all__ = ["show"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xailab.widgets' has no attribute {name!r}")
    return getattr(import_module(f"xailab.widgets.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
