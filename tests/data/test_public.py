import errno
from pathlib import Path

import numpy as np
import pytest

from xailab.data import archives, load, public


class FakeMNIST:
    """Like torchvision's: downloads to root, or reads what is there."""

    error = None
    classes = ("0 - zero", "1 - one")

    def __init__(self, root, train, download):
        file = Path(root) / ("train" if train else "test")
        if download:
            file.write_text("half")
            if self.error and not train:
                raise self.error
            file.write_text("whole")
        assert file.read_text() == "whole"
        self.targets = [0, 1, 1] if train else [1]
        self.data = np.full((len(self.targets), 28, 28), 7, dtype=np.uint8)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    monkeypatch.setattr(public, "_torchvision", lambda name: FakeMNIST)
    monkeypatch.setattr(FakeMNIST, "error", None)
    return FakeMNIST


def test_both_parts_are_loaded_in_order(fake):
    assert archives.verify("mnist") == "missing"
    data = load("mnist")
    assert data.y.tolist() == [0, 1, 1, 1]
    assert data.images.shape == (4, 28, 28)
    assert data.names[1] == "1 - one"
    assert data.extra["train"].tolist() == [True, True, True, False]
    assert archives.verify("mnist") == "ok"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("hash"), OSError("no route")])
def test_nothing_half_downloaded_is_used(fake, monkeypatch, error):
    monkeypatch.setattr(fake, "error", error)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ConnectionError
    with pytest.raises(expected):
        load("mnist")
    assert archives.verify("mnist") == "missing"
    assert list(public.place("mnist").parent.iterdir()) == []
    monkeypatch.setattr(fake, "error", None)
    assert len(load("mnist")) == 4


def test_errors_say_what_to_do(fake, monkeypatch):
    monkeypatch.setattr(fake, "error", OSError("no route to host"))
    with pytest.raises(ConnectionError, match=r"'mnist': no route.*xailab data get mnist"):
        load("mnist")
    monkeypatch.setattr(fake, "error", OSError(errno.ENOSPC, "No space left"))
    with pytest.raises(OSError, match="disk is full: 'mnist' needs 12 MB"):
        load("mnist")


def test_get_downloads_public_sets(fake):
    assert archives.get(["mnist"], progress=False) == {"mnist": "ok"}


def test_the_names_are_torchvisions():
    from torchvision import datasets

    assert public._torchvision("mnist") is datasets.MNIST
    assert public._torchvision("cifar10") is datasets.CIFAR10
