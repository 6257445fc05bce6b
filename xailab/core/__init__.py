"""What every method stands on: state guard, layer capture, checks, batched evaluation, files."""

from importlib import import_module
from typing import Any

_HOMES = {
    "frozen": "state",
    "capture": "layers",
    "batched": "batching",
    "folded": "folding",
    "predictor": "folding",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"xailab.core.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'xailab.core' has no attribute {name!r}")
