"""Plugin for nbval: kernels without network, without progress bars, with a progress file of theirs.

    python -m pytest -p tests.lessons.kernels --nbval-lax notebooks solutions -n 2 --dist loadfile

The same environment as that of the build, except that a missing answer raises nothing. A lesson
whose two notebooks passed, and that reaches nothing that has changed since, is left out; a pass is
noted in `solutions/runs/NAME.json`. `XAILAB_ALL=1` runs all.
"""

import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from xailab.core.curriculum import Curriculum, Entry
from xailab.course import runs
from xailab.course.execute import environment

FOLDERS = ("notebooks", "solutions")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop():
    with tempfile.TemporaryDirectory() as own, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(Path(own)).items():
            patch.setenv(name, value)
        patch.delenv("XAILAB_STRICT")
        return (yield)


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(Passes(Path(config.rootpath)), "xailab-passes")


class Passes:
    """Which notebooks of the course's repository have passed, and need not run again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        table = root / "lessons" / "course.toml"
        written = Curriculum.read(table).written if table.exists() else []
        self.lessons = {entry.stem: entry for entry in written}
        # Not while collecting: the process that sums up, of several (xdist), collects nothing.
        ours = [] if os.environ.get("XAILAB_ALL") else written
        self.left_out = {entry.name for entry in ours if self._has_passed(entry)}
        self.cells: Counter[str] = Counter()  # notebook -> cells that passed
        self.failed = False

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        entry = self.lessons.get(collection_path.stem)
        ours = collection_path.suffix == ".ipynb" and collection_path.parent.name in FOLDERS
        return True if ours and entry and entry.name in self.left_out else None

    def _has_passed(self, entry: Entry) -> bool:
        run = runs.Run.read(self.root, entry.name)
        known = run is not None and bool(run.reached)
        return known and run.passed == runs.state(self.root, entry.name, entry.stem)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            self.cells[report.nodeid.partition("::")[0]] += 1
        self.failed |= report.failed

    def pytest_sessionfinish(self, session: Any, exitstatus: int) -> None:
        if hasattr(session.config, "workerinput"):
            return
        for entry in self.lessons.values():
            if all(
                self._is_through(self.root / f"{folder}/{entry.stem}.ipynb") for folder in FOLDERS
            ):
                self._note(entry)
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.left_out:
            session.exitstatus = pytest.ExitCode.OK

    def _is_through(self, path: Path) -> bool:
        """Tell whether every cell of a notebook has passed in this session."""
        cells = self.cells[path.relative_to(self.root).as_posix()]
        return bool(cells) and cells == sum(
            cell.cell_type == "code" for cell in nbformat.read(path, 4).cells
        )

    def _note(self, entry: Entry) -> None:
        run = runs.Run.read(self.root, entry.name)
        if run is not None:
            state = runs.state(self.root, entry.name, entry.stem)
            replace(run, passed=state).write(self.root, entry.name)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.left_out:
            terminalreporter.write_line(
                f"{len(self.left_out)} lessons passed before and reach nothing that has changed; "
                "XAILAB_ALL=1 runs them too"
            )
