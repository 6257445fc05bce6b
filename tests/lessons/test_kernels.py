"""The plugin for nbval keeps notebooks off the network and off the learner's own progress."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from xailab import data
from xailab.course.runs import Run

ROOT = Path(__file__).parents[2]
NETWORK = "import socket\nsocket.getaddrinfo('example.com', 443)"
CHILD = """import subprocess, sys
code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
assert not said, said"""
INSIDE = """import os
from xailab.course import records
assert str(records.place()) != os.path.join(os.environ["XAILAB_HOME"], "progress.json")
assert os.environ["XAILAB_QUIET"] == "1"
assert not records.strict()
from pathlib import Path
from xailab import data
home = Path(os.environ["XAILAB_HOME"])
assert [path.name for path in (home / "data").iterdir()] == [data.entry("photos").file]"""


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [(NETWORK, 1, "NetworkForbidden"), (CHILD, 1, "NetworkForbidden"), (INSIDE, 0, "")],
)
def test_notebooks_run_apart(tmp_path, source, code, says):
    (tmp_path / "data").mkdir()
    for fetched in (data.entry("photos").file, "what no lesson loads"):
        (tmp_path / "data" / fetched).touch()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "planted.ipynb")
    command = "-m pytest -p tests.lessons.kernels -p no:cacheprovider --nbval-lax -c /dev/null"
    result = subprocess.run(
        [sys.executable, *command.split(), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"XAILAB_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stdout
    assert says in result.stdout


# ---- what has passed need not run again ----------------------------------------------------------

TABLE = """[[parts]]
title = "All"
lessons = [{ name = "one", title = "One", needs = [] }]
"""


@pytest.fixture
def course(tmp_path):
    """A course of one lesson, whose run read the file `reached.txt`."""
    for folder in ("lessons", "notebooks", "solutions/runs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lessons/course.toml").write_text(TABLE)
    (tmp_path / "reached.txt").write_text("as it was")
    write(tmp_path, "print(1)")
    names = ["reached.txt"]
    Run.of(names, tmp_path, seconds=1.0, peak_mb=1).write(tmp_path, "one")
    return tmp_path


def write(root, code, folders=("notebooks", "solutions")):
    cells = [nbformat.v4.new_code_cell(code, id="a"), nbformat.v4.new_code_cell("x = 1", id="b")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    for folder in folders:
        nbformat.write(notebook, root / folder / "00_one.ipynb")


def run(root, *more, **env):
    """Run the notebooks under nbval; return the exit code and how many cells ran."""
    command = "-m pytest -q -p tests.lessons.kernels -p no:cacheprovider --nbval-lax -c /dev/null"
    result = subprocess.run(
        [sys.executable, *command.split(), "--rootdir", str(root), *more, "notebooks", "solutions"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    ran = re.search(r"(\d+) passed", result.stdout)
    return result.returncode, int(ran[1]) if ran else 0


def test_a_lesson_that_passed_is_left_out_until_something_it_reaches_changes(course):
    assert run(course) == (0, 4)
    assert run(course) == (0, 0)
    assert run(course, XAILAB_ALL="1") == (0, 4)
    (course / "reached.txt").write_text("as it is")
    assert run(course) == (0, 4)
    write(course, "print(2)", ["solutions"])  # what is stored there is what is tested
    assert run(course) == (0, 4)
    assert run(course) == (0, 0)


def test_what_fails_or_runs_in_part_has_not_passed(course):
    assert run(course, "--deselect", "notebooks/00_one.ipynb::Cell 0") == (0, 3)
    assert run(course) == (0, 4)
    write(course, "1 / 0", ["notebooks"])
    assert run(course) == (1, 3)
    assert run(course) == (1, 3)


def test_a_pass_of_what_reaches_nothing_known_does_not_count(course):
    Run(seconds=1.0, peak_mb=1).write(course, "one")
    assert run(course) == (0, 4)
    assert run(course) == (0, 4)


def test_all_left_out_is_no_failure_on_two_cores_either(course):
    two = ("-n", "2", "--dist", "loadfile")
    assert run(course, *two) == (0, 4)
    assert run(course, *two) == (0, 0)
