"""xailab: explain neural networks, and check the explanations.

`import xailab` costs almost nothing: torch and its kin are loaded when a name is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["explain", "methods"]

_ROOMS = {
    "attribution",
    "core",
    "course",
    "data",
    "evaluate",
    "foundations",
    "models",
    "plots",
    "widgets",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("xailab.explanations"), name)
    if name in _ROOMS:
        return import_module(f"xailab.{name}")
    raise AttributeError(f"module 'xailab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
