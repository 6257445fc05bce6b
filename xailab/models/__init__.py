"""Networks to explain: a pretrained one for photos, small trained ones for digits."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Pretrained": "imagenet",
    "pretrained": "imagenet",
    "normalize": "imagenet",
    "DigitCNN": "digits",
    "digit_cnn": "digits",
    "digit_cnn_marked": "digits",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"xailab.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'xailab.models' has no attribute {name!r}")
