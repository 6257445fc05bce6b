"""Plugin for nbval: kernels without network, without progress bars, with a progress file of theirs.

    python -m pytest -p tests.lessons.kernels --nbval-lax notebooks solutions -n 2 --dist loadfile

The same environment as that of the build, except that a missing answer raises nothing.
"""

import tempfile
from pathlib import Path

import pytest

from xailab.course.execute import environment


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop():
    with tempfile.TemporaryDirectory() as own, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(Path(own)).items():
            patch.setenv(name, value)
        patch.delenv("XAILAB_STRICT")
        return (yield)
