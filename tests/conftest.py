"""For all tests: nobody's own progress is touched, and no window opens."""

import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True, scope="session")
def own_progress(tmp_path_factory):
    """Keep the records of exercises in a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAILAB_PROGRESS", str(tmp_path_factory.mktemp("progress") / "progress.json"))
        patch.setenv("XAILAB_SCOREBOARD", str(tmp_path_factory.mktemp("scores") / "board.csv"))
        patch.delenv("XAILAB_STRICT", raising=False)
        yield
