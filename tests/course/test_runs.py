"""A lesson runs again when something that it reached has changed, and only then."""

import json
import subprocess
import sys

import pytest

from xailab.core.curriculum import place
from xailab.course import runs
from xailab.course.runs import HOME, Run, essence

PY = '''"""A module."""
import os  # why


def f(x):
    """Twice."""
    return "#" + x  # no comment of the string
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# why", "# how", True),
        ("Twice.", "Two\n    times.", True),
        ("A module.", "Un module: éàü.", True),
        ("\n\n\n", "\n\n", True),
        ('"#"', '"?"', False),
        ("return", "yield", False),
        ("import os", "import re", False),
        ('    """Twice."""\n', "", True),
    ],
)
def test_comments_and_docstrings_change_nothing(old, new, same):
    assert old in PY
    assert (essence(PY.replace(old, new)) == essence(PY)) == same


def test_an_indent_is_code():
    source = "if a:\n    b()\nc()\n"
    assert essence(source) != essence(source.replace("\nc()", "\n    c()"))


def course(root):
    (root / "lessons").mkdir()
    (root / "lessons" / "course.toml").write_text(place().read_text())
    (root / "constraints.txt").write_text("torch==1\n")
    (root / "table.csv").write_text("a,b\n")
    return root


def ran(root, *names):
    run = Run.of([*names, "constraints.txt"], root, seconds=1.0, peak_mb=2)
    run.write(root, "cam")
    return run


def test_what_it_read_and_did_not_change_needs_no_run(tmp_path):
    ran(course(tmp_path), "table.csv", "lessons/course.toml: cam", "xailab/core/files.py")
    assert runs.stale(tmp_path, "cam") == []
    assert Run.read(tmp_path, "cam").seconds == 1.0


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        ("table.csv", "a,b", "a,c", "table.csv"),
        ("constraints.txt", "==1", "==2", "constraints.txt"),
        ("lessons/course.toml", "Class activation maps", "CAM", "lessons/course.toml: cam"),
        ("lessons/course.toml", 'title = "LIME"', 'title = "Lime"', None),  # not looked up
    ],
)
def test_what_changed_is_named(tmp_path, path, old, new, said):
    ran(course(tmp_path), "table.csv", "lessons/course.toml: cam")
    text = (tmp_path / path).read_text()
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new))
    assert runs.stale(tmp_path, "cam") == ([said] if said else [])


def test_what_is_gone_or_unknown_runs(tmp_path):
    ran(course(tmp_path), "table.csv")
    (tmp_path / "table.csv").unlink()
    assert runs.stale(tmp_path, "cam") == ["table.csv"]
    assert runs.stale(tmp_path, "lime") == ["it has not run"]
    Run(1.0, 2).write(tmp_path, "cam")
    assert runs.stale(tmp_path, "cam") == ["what it reaches is not known"]
    runs.place(tmp_path, "cam").write_text("{")
    assert runs.stale(tmp_path, "cam") == ["it has not run"]


def test_the_watched_process_tells_modules_weights_and_lines_of_the_table(tmp_path):
    """In a process of its own: an audit hook stays for good."""
    (course(tmp_path) / "notebooks").mkdir()
    (tmp_path / "notebooks" / "made.txt").write_text("by the lesson")
    code = f"""
from xailab.course import runs
runs.watch()
import json
from xailab.course.registry import lesson_of
from xailab.models.weight_files import weights_file
lesson_of("cam")
weights_file("digit_cnn")
open({str(tmp_path / "table.csv")!r}).close()
open({str(tmp_path / "notebooks" / "made.txt")!r}).close()
print(json.dumps(runs.reached({str(tmp_path)!r})))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = json.loads(out.stdout)
    assert {
        "table.csv",
        "constraints.txt",
        "lessons/course.toml: cam",
        "xailab/course/registry.py",
        "xailab/models/weights/digit_cnn.safetensors",
    } <= set(names)
    assert not [n for n in names if "made.txt" in n or n == "lessons/course.toml" or ".pyc" in n]
    assert not [n for n in names if n.startswith("xailab/trust")]
    assert all((tmp_path / n).exists() or (HOME / n).exists() for n in names if ": " not in n)


def test_the_state_of_both_notebooks_changes_with_each_of_them(tmp_path):
    ran(course(tmp_path), "table.csv")
    for folder in ("notebooks", "solutions"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "09_cam.ipynb").write_text("{}")
    states = [runs.state(tmp_path, "cam", "09_cam")]
    for path in ("notebooks/09_cam.ipynb", "solutions/09_cam.ipynb", "table.csv"):
        (tmp_path / path).write_text("another")
        states.append(runs.state(tmp_path, "cam", "09_cam"))
    assert len(set(states)) == 4
