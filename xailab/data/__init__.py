"""Data sets: the registry, fetching, loaders, and data whose explanation is known."""

from importlib import import_module
from typing import Any

_HOMES = {
    "card": "registry",
    "entries": "registry",
    "entry": "registry",
    "fetch": "archives",
    "get": "archives",
    "read_member": "archives",
    "read_members": "archives",
    "verify": "archives",
    "Dataset": "dataset",
    "load": "loaders",
    "imagenet_classes": "images",
    "photos": "images",
    "additive_table": "additive",
    "marked_digits": "marked",
    "mosaics": "mosaic",
    "plane": "toy2d",
    "resound": "tone",
    "spectrogram": "tone",
    "tones": "tone",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"xailab.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'xailab.data' has no attribute {name!r}")
