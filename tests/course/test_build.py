"""Building a tiny course: what is written, what runs again and what not, what counts as drift."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from xailab.course import build
from xailab.course.build import main
from xailab.course.readme import BEGIN, END
from xailab.course.runs import Run

LESSON = f'''# %% [markdown]
# # Tiny
#
# **Question:** Does it build?
#
# **Time:** [[time]]

# %%
import os

from IPython.display import HTML

# %% tags=["exercise"]
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %%
print(double, double(21), os.getcwd(), len(open("../facts.csv").read()))
print("strict", os.environ["XAILAB_STRICT"], "quiet", os.environ["XAILAB_QUIET"])
print(sorted(key for key in os.environ if key == "{__name__}"))

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = 0.3
### END SOLUTION

# %% tags=["exercise"]
answer = """
### BEGIN SOLUTION
A secret.
### END SOLUTION
"""

# %%
HTML("<b>shown</b>")

# %% tags=["readme-dot"]
display({{"image/png": "iVBORw0KGgo="}}, raw=True)
'''


TABLE = """[[parts]]
title = "All"
lessons = [
    { name = "later", title = "Later", needs = [], planned = true },
    { name = "tiny", title = "Tiny", needs = [] },
]
"""


def make(root, lesson=LESSON):
    (root / "lessons").mkdir(parents=True)
    (root / "lessons" / "course.toml").write_text(TABLE)
    (root / "lessons" / "tiny.py").write_text(lesson)
    (root / "constraints.txt").write_text("numpy==2\n")
    (root / "facts.csv").write_text("read by the lesson\n")
    (root / "README.md").write_text(f"Above\n{BEGIN}\nold\n{END}\nBelow\n")
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the tiny course once."""
    root = make(tmp_path_factory.mktemp("course") / "course")
    assert main([], False, root=root) == 0
    return root


@pytest.fixture
def course(built, tmp_path):
    """Return a copy of the built course that a test may spoil."""
    return shutil.copytree(built, tmp_path / "course")


@pytest.fixture
def no_execution(monkeypatch):
    """Make it an error to execute a lesson."""

    def refuse(*arguments, **options):
        raise AssertionError("executed")

    monkeypatch.setattr(build, "execute", refuse)


def notebook(root, folder):
    return nbformat.read(root / folder / "01_tiny.ipynb", 4)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_learner_gets_stubs_and_no_outputs(built):
    sources = [cell.source for cell in notebook(built, "notebooks").cells]
    assert sources[2] == 'def double(x):\n    """Twice x."""\n    # YOUR CODE HERE\n    ...'
    assert sources[4] == "# YOUR CODE HERE\nguess = ..."
    assert sources[5] == 'answer = """\n(your answer here)\n"""'
    code = [cell for cell in notebook(built, "notebooks").cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_the_solution_is_executed_strict_and_its_outputs_hold_anywhere(built):
    cells = notebook(built, "solutions").cells
    assert cells[2].source == 'def double(x):\n    """Twice x."""\n    return 2 * x'
    assert cells[3].outputs[0].text == "<function double> 42 ./notebooks 19\nstrict 1 quiet 1\n[]\n"
    assert cells[6].outputs[0].data["text/html"] == "<b>shown</b>"
    assert [c.execution_count for c in cells if c.cell_type == "code"] == [1, 2, 3, 4, 5, 6, 7]


def test_seconds_memory_and_what_was_read_are_stored(built):
    run = Run.read(built, "tiny")
    assert 0 <= run.seconds < 60
    assert 20 < run.peak_mb < 500
    assert {"facts.csv", "constraints.txt", "xailab/course/memory.py"} <= set(run.reached)
    assert run.changed(built) == []


def test_nothing_of_the_machine_is_stored(built):
    text = (built / "solutions" / "01_tiny.ipynb").read_text()
    stored = json.loads(text)
    assert set(stored["metadata"]) == {"kernelspec", "language_info"}
    assert all(set(cell["metadata"]) <= {"tags"} for cell in stored["cells"])
    assert str(built) not in text


def test_a_picture_of_the_readme_is_written_and_watched(built, tmp_path):
    course = shutil.copytree(built, tmp_path / "course")
    dot = course / "docs" / "pictures" / "dot.png"
    assert dot.read_bytes() == b"\x89PNG\r\n\x1a\n"
    dot.write_bytes(b"another picture")
    assert main([], True, root=course) == 1
    assert main([], False, root=course) == 0
    assert dot.read_bytes() == b"\x89PNG\r\n\x1a\n"


def test_the_table_of_the_readme_is_written(built):
    run = Run.read(built, "tiny")
    row = (
        "| 01 | [Tiny](notebooks/01_tiny.ipynb) ([solution](solutions/01_tiny.ipynb)) "
        f"| Does it build? | 2 min | - | {run.seconds:.0f} s | {run.peak_mb} MB |"
    )
    text = (built / "README.md").read_text()
    assert text.startswith(f"Above\n{BEGIN}\n| | Lesson |")
    assert f"\n{row}\n\nText, code and exercises of the cores take 0 hours together." in text
    assert text.endswith(f"\nPlanned, not written yet: 00 Later.\n{END}\nBelow\n")


def test_what_has_not_changed_is_neither_executed_nor_written(course, no_execution):
    files = [*course.glob("*/*.ipynb"), *course.glob("solutions/runs/*"), course / "README.md"]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    assert main(["tiny"], False, root=course) == 0
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in files] == before
    assert main([], True, root=course) == 0


@pytest.mark.parametrize("how", ["source", "force", "missing", "no run", "reached"])
def test_what_changed_or_is_forced_is_executed(course, no_execution, how):
    if how == "source":
        edit(course / "lessons" / "tiny.py", "21", "22")
    if how == "missing":
        (course / "solutions" / "01_tiny.ipynb").unlink()
    if how == "no run":
        (course / "solutions" / "runs" / "tiny.json").unlink()
    if how == "reached":
        (course / "facts.csv").write_text("changed")
    with pytest.raises(AssertionError, match="executed"):
        main([], False, force=how == "force", root=course)


def test_a_learners_copy_alone_is_mended_without_executing(course, no_execution):
    edit(course / "notebooks" / "01_tiny.ipynb", "YOUR CODE HERE", "my code")
    assert main([], False, root=course) == 0
    assert main([], True, root=course) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Tiny\n", "# Tiny: is it?\n"),
        ("# %%\nprint(double", "# %% [markdown]\n# New.\n\n# %%\nprint(double"),
        (' tags=["readme-dot"]', ""),
    ],
)
def test_where_only_text_changed_the_outputs_stay(course, no_execution, old, new):
    before = [cell.outputs for cell in notebook(course, "solutions").cells if "outputs" in cell]
    edit(course / "lessons" / "tiny.py", old, new)
    assert main([], False, root=course) == 0
    after = [cell.outputs for cell in notebook(course, "solutions").cells if "outputs" in cell]
    assert after == before
    assert main([], True, root=course) == 0


def test_a_new_number_moves_the_files_and_keeps_the_outputs(course, no_execution, capsys):
    line = '{ name = "later"'
    more = '{ name = "x", title = "X", needs = [], planned = true },'
    edit(course / "lessons" / "course.toml", line, f"{more}\n{line}")
    assert main([], True, root=course) == 1
    error = capsys.readouterr().err
    assert "notebooks/02_tiny.ipynb is missing" in error
    assert "notebooks/01_tiny.ipynb has no lesson" in error
    assert main([], False, root=course) == 0
    assert main([], True, root=course) == 0
    assert not (course / "solutions" / "01_tiny.ipynb").exists()


def code_notebook(*sources, count=None):
    """Cells that were executed have a count, and their own source as output."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell in cells:
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("stream", text=cell.source)] if count else []
    return nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_markdown_cell("end")])


@pytest.mark.parametrize(
    ("old", "new", "kept", "whole"),
    [
        ("abc", "abc", 3, True),
        ("abc", "axc", 1, False),  # c is the same, but not all before it
        ("abc", "ab", 2, False),
        ("ab", "abc", 2, False),
        ("abc", "xabc", 0, False),
    ],
)
def test_an_output_is_kept_while_all_code_up_to_it_is_the_same(old, new, kept, whole):
    target = code_notebook(*new)
    assert build.carry(code_notebook(*old, count=1), target) is whole
    outputs = [cell.outputs[0].text for cell in target.cells[:-1] if cell.outputs]
    assert outputs == list(new[:kept])


def test_without_a_stored_notebook_nothing_is_kept():
    assert build.carry(None, code_notebook("a")) is False
    assert build.carry(code_notebook("a"), code_notebook("a")) is False  # never executed


def test_texts_alone_are_written_without_executing(course, no_execution, capsys):
    (course / "facts.csv").write_text("changed")
    edit(course / "lessons" / "tiny.py", "# Tiny\n", "# Tiny: is it?\n")
    assert main([], False, text=True, root=course) == 0
    assert "# 1. Tiny: is it?" in notebook(course, "solutions").cells[0].source
    edit(course / "lessons" / "tiny.py", "21", "22")
    assert main([], False, text=True, root=course) == 1
    assert "tiny was written, but has to run" in capsys.readouterr().err


def test_a_lesson_that_reached_what_changed_is_told(course, no_execution, capsys):
    (course / "facts.csv").write_text("changed")
    edit(course / "constraints.txt", "2", "3")
    assert main([], True, root=course) == 1
    assert "01_tiny has to run again: constraints.txt, facts.csv\n" in capsys.readouterr().err


def spoil_execution(course):
    path = course / "solutions" / "01_tiny.ipynb"
    stored = json.loads(path.read_text())
    stored["cells"][1]["execution_count"] = None
    path.write_text(json.dumps(stored, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


DRIFT = {
    "lesson edited": (
        lambda c: edit(c / "lessons" / "tiny.py", "21", "22"),
        "notebooks/01_tiny.ipynb is not what lessons/tiny.py gives",
    ),
    "answer edited": (
        lambda c: edit(c / "lessons" / "tiny.py", "2 * x", "x + x"),
        "solutions/01_tiny.ipynb is not what lessons/tiny.py gives",
    ),
    "learner's copy edited": (
        lambda c: edit(c / "notebooks" / "01_tiny.ipynb", "double(21)", "double(1)"),
        "notebooks/01_tiny.ipynb is not what",
    ),
    "solution edited": (
        lambda c: edit(c / "solutions" / "01_tiny.ipynb", "return 2 * x", "return x"),
        "solutions/01_tiny.ipynb is not what",
    ),
    "notebook missing": (
        lambda c: (c / "notebooks" / "01_tiny.ipynb").unlink(),
        "notebooks/01_tiny.ipynb is missing",
    ),
    "solution missing": (
        lambda c: (c / "solutions" / "01_tiny.ipynb").unlink(),
        "solutions/01_tiny.ipynb is missing",
    ),
    "solution broken": (
        lambda c: (c / "solutions" / "01_tiny.ipynb").write_text('{"cells": ['),
        "solutions/01_tiny.ipynb is no valid notebook",
    ),
    "not in the table": (
        lambda c: (c / "lessons" / "more.py").write_text(""),
        "lessons/more.py is not a written lesson of lessons/course.toml",
    ),
    "planned, yet there": (
        lambda c: (c / "lessons" / "later.py").write_text(""),
        "lessons/later.py is not a written lesson of lessons/course.toml",
    ),
    "run of no lesson": (
        lambda c: (c / "solutions" / "runs" / "gone.json").write_text("{}"),
        "solutions/runs/gone.json has no lesson",
    ),
    "not executed": (spoil_execution, "solutions/01_tiny.ipynb was not executed"),
    "stray notebook": (
        lambda c: (c / "notebooks" / "99_gone.ipynb").write_text("{}"),
        "notebooks/99_gone.ipynb has no lesson",
    ),
    "table edited": (lambda c: edit(c / "README.md", "2 min", "1 min"), "README.md is old"),
    "markers missing": (lambda c: edit(c / "README.md", END, ""), "README.md lacks the lines"),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_found_without_executing(course, no_execution, capsys, name):
    spoil, message = DRIFT[name]
    spoil(course)
    assert main([], True, root=course) == 1
    assert message in capsys.readouterr().err


def test_an_answer_left_in_the_learners_copy_is_found(course, monkeypatch, capsys):
    monkeypatch.setattr("xailab.course.stubs.TEXT", "A secret.")
    assert main([], True, root=course) == 1
    assert "the learner's copy shows the answer 'A secret.'" in capsys.readouterr().err


def test_a_failing_cell_is_told_and_the_old_pair_stays(course, capsys):
    before = [path.read_bytes() for path in sorted(course.glob("*/*.ipynb"))]
    edit(course / "lessons" / "tiny.py", "return 2 * x", "return x.missing")
    assert main([], False, root=course) == 1
    error = capsys.readouterr().err
    assert "lessons/tiny.py, line 21 (cell 4) failed:" in error
    assert "AttributeError: 'int' object has no attribute 'missing'" in error
    assert [path.read_bytes() for path in sorted(course.glob("*/*.ipynb"))] == before


def test_a_wrong_model_answer_fails_the_build(tmp_path, capsys):
    cell = 'from xailab.course.checks import Mistake\nraise Mistake("the sign is wrong")'
    root = make(tmp_path / "course", LESSON.split("# %%\nimport")[0] + f"# %%\n{cell}\n")
    assert main([], False, root=root) == 1
    assert "the sign is wrong" in capsys.readouterr().err
    assert not (root / "notebooks" / "01_tiny.ipynb").exists()


def test_the_network_is_out_of_reach_of_a_lesson(tmp_path, capsys):
    cell = "import socket\nsocket.getaddrinfo('example.com', 443)"
    root = make(tmp_path / "course", LESSON.split("# %%\nimport")[0] + f"# %%\n{cell}\n")
    assert main([], False, root=root) == 1
    assert "NetworkForbidden: socket.getaddrinfo to 'example.com'" in capsys.readouterr().err


def test_a_kernel_that_dies_is_told(tmp_path, capsys):
    cell = "import os\nos._exit(1)"
    root = make(tmp_path / "course", LESSON.split("# %%\nimport")[0] + f"# %%\n{cell}\n")
    assert main([], False, root=root) == 1
    assert "the kernel died" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals are Unix")
def test_an_interrupted_build_leaves_the_old_pair_and_no_kernel(course):
    before = [path.read_bytes() for path in sorted(course.glob("*/*.ipynb"))]
    slow = (
        "import time\nprint(os.getpid(), file=open('pid', 'w'), flush=True)\ntime.sleep(60)\nprint("
    )
    edit(course / "lessons" / "tiny.py", "print(double,", f"{slow}double,")
    code = "import sys; from xailab.course.build import main; sys.exit(main([], False))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=course,
        env=os.environ | {"PYTHONPATH": str(Path(build.__file__).parents[2])},
        stderr=subprocess.PIPE,
    )
    pid = course / "notebooks" / "pid"
    deadline = time.monotonic() + 120
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert not psutil.pid_exists(int(pid.read_text()))
    assert [path.read_bytes() for path in sorted(course.glob("*/*.ipynb"))] == before


@pytest.mark.parametrize("name", ["tiny", "01_tiny", "lessons/tiny.py", "01_tiny.ipynb"])
def test_a_lesson_is_named_in_any_way(course, name):
    assert [lesson.name for lesson in build.choose([name], course)] == ["tiny"]


def test_a_planned_lesson_cannot_be_built(course):
    with pytest.raises(ValueError, match="not written yet: later"):
        main(["later"], False, root=course)


def test_an_unknown_lesson_gives_near_names(course):
    with pytest.raises(ValueError, match=r"no lesson 'tny'; did you mean .*tiny"):
        main(["tny"], True, root=course)


def test_the_root_is_found_from_inside(course, monkeypatch):
    monkeypatch.chdir(course / "notebooks")
    assert build.find_root() == course


def test_a_lesson_without_opening_gives_no_table(course, capsys):
    edit(course / "lessons" / "tiny.py", "# **Question:** Does it build?\n", "#\n")
    assert main([], True, root=course) == 1
    assert "no table of lessons: lessons/tiny.py: its opening lacks" in capsys.readouterr().err
