"""For all tests: nobody's own progress is touched, and no window opens."""

import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def own_progress(tmp_path_factory, monkeypatch):
    """Keep the records of exercises in a folder of the test."""
    folder = tmp_path_factory.mktemp("progress")
    monkeypatch.setenv("XAILAB_PROGRESS", str(folder / "progress.json"))
    monkeypatch.delenv("XAILAB_STRICT", raising=False)
