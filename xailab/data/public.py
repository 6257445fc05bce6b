"""Full public data sets through torchvision, for those with internet; no lesson needs them."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xailab.core.callable_module import make_callable
from xailab.core.files import home, passing_folder
from xailab.data.dataset import Dataset
from xailab.data.registry import entry

_TORCHVISION = {"mnist": "MNIST", "cifar10": "CIFAR10"}


def place(name: str) -> Path:
    """Return the folder where a downloaded set stands (or will stand)."""
    return home() / "data" / "torchvision" / name


def download(name: str) -> Path:
    """Download a set to a temporary folder and rename it when it is whole.

    torchvision checks the hash of what it downloads, but not what it unpacks from it: after an
    interrupt in the middle it would read a short file. A folder renamed at the end cannot be short.

    Returns:
        The folder, at once if it is there already.

    Raises:
        ConnectionError: the download failed.
        OSError: the disk is full.
    """
    final = place(name)
    if final.is_dir():
        return final
    with passing_folder(final.parent) as temporary:
        try:
            for train in (True, False):
                _torchvision(name)(root=str(temporary), train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise _download_error(name, error) from error
        temporary.rename(final)
    return final


def _download_error(name: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        message = f"the disk is full: {name!r} needs {entry(name).size / 1e6:.0f} MB in {home()}"
        return OSError(errno.ENOSPC, message)
    return ConnectionError(
        f"could not download {name!r}: {error}. This set is optional and needs the open internet; "
        f"check the connection and run `xailab data get {name}`"
    )


def _torchvision(name: str) -> Callable[..., Any]:
    from torchvision import datasets  # imported here: it brings torch

    return getattr(datasets, _TORCHVISION[name])


def public(name: str) -> Dataset:
    """Load "mnist" or "cifar10", downloading it first if it is not there.

    Returns:
        `.images` uint8, training part first; `.y`; `.extra["train"]` (N,) bool.

    Raises:
        What `download` raises.
    """
    root = str(download(name))
    parts = [_torchvision(name)(root=root, train=train, download=False) for train in (True, False)]
    y = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    classes = [str(label) for label in parts[0].classes]
    return Dataset(
        name=name,
        images=np.concatenate([np.asarray(part.data, dtype=np.uint8) for part in parts]),
        y=y,
        names=[classes[i] for i in y],
        classes=classes,
        target="class number, 0 to 9",
        extra={"train": np.arange(len(y)) < len(parts[0].targets)},
    )


make_callable(__name__)
