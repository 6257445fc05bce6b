"""Progress of one lesson, which never goes stale, and of the whole course."""

import io
import json

import pytest
from rich.console import Console

from xailab.course import check, predict, progress, records, results, tick

TEXT = "The gradient map is flat there and far away."


@pytest.fixture
def some_done(demo):
    records.record("demo.softmax", passed=True)
    records.record("demo.share", passed=False)
    check("demo.why", TEXT)
    tick("demo.why", 1, 2, 3)
    return demo


def test_a_lesson_lists_its_exercises_and_adds_up_its_points(some_done, capsys):
    capsys.readouterr()
    progress("demo")
    assert capsys.readouterr().out.splitlines() == [
        "demo: 2 of 3 exercises, 3.5 of 5 points",
        "● done           demo.softmax  2 of 2  (code, 5 min)",
        "○ open           demo.share    0 of 1  (predict, 1 min)",
        "☑ ticked by you  demo.why      1.5 of 2  (criticize, 3 min)",
    ]


def test_a_text_that_nobody_ticked_is_named(demo, capsys):
    check("demo.why", TEXT)
    progress("demo")
    assert capsys.readouterr().out.endswith("Nothing ticked yet: demo.why.\n")


def test_the_lesson_is_the_one_whose_exercise_was_asked_last(demo, capsys):
    predict("demo.share", 0.3)
    progress()
    assert "demo: 1 of 3 exercises" in capsys.readouterr().out


def test_the_server_tells_which_notebook_this_is(demo, capsys, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/work/01_demo.ipynb")
    progress()
    assert "demo: 0 of 3 exercises" in capsys.readouterr().out


def test_outside_of_a_lesson_the_course_is_shown(demo, capsys, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/work/notes.ipynb")
    progress()
    assert "whole course" in capsys.readouterr().out


def test_an_unknown_lesson_gives_near_names(demo):
    with pytest.raises(ValueError, match=r"no exercises for 'dmeo'; did you mean demo\?"):
        progress("dmeo")


@pytest.fixture
def page(demo, monkeypatch):
    """Return what a notebook shows after one check in a cell with an id."""
    shown = []
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/my work/01_demo.ipynb")
    monkeypatch.setattr("xailab.course.whereabouts._running_cell", lambda: "ab12")
    check("demo.softmax", None)
    monkeypatch.setattr("xailab.course.messages.show", lambda plain, html: shown.append(html))
    progress()
    return shown[0]


def test_open_exercises_are_linked_to_their_cells(page):
    assert "<caption>demo: 0 of 3 exercises, 0 of 5 points</caption>" in page
    assert "<a href='01_demo.ipynb#cell-id=ab12'>demo.softmax</a>" in page
    assert "<th scope='row'>demo.share</th>" in page  # never asked: its cell is not known


def test_what_is_done_needs_no_link(demo, monkeypatch):
    shown = []
    monkeypatch.setenv("JPY_SESSION_NAME", "01_demo.ipynb")
    monkeypatch.setattr("xailab.course.whereabouts._running_cell", lambda: "ab12")
    predict("demo.share", 0.3)
    monkeypatch.setattr("xailab.course.messages.show", lambda plain, html: shown.append(html))
    progress()
    assert "<a " not in shown[0]


def test_a_kernel_tells_the_id_of_its_cell():
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    code = "from xailab.course import whereabouts\nprint(repr(whereabouts._running_cell()))"
    notebook = new_notebook(cells=[new_code_cell(code)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0].text == "''\n"  # a build sends none, and needs none


def rows(width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(results.course_table())
    return [line.split() for line in console.export_text().splitlines()]


def test_the_course_is_a_table_by_part(some_done):
    assert rows() == [
        ["lesson", "done", "ticked", "points"],
        ["All", "2", "of", "3", "1", "of", "1", "3.5", "of", "5"],
        ["01", "Demo", "2", "of", "3", "1", "of", "1", "3.5", "of", "5"],
        ["whole", "course", "2", "of", "3", "1", "of", "1", "3.5", "of", "5"],
    ]


def test_records_of_older_form_count_as_done(demo):
    exercises = {"demo.why": {"passed": True, "tries": 1}, "demo.gone": {"passed": True}}
    stored = {"version": 1, "exercises": exercises}
    (demo / "progress.json").write_text(json.dumps(stored))
    assert rows()[1] == ["All", "1", "of", "3", "0", "of", "1", "0", "of", "5"]


def test_ticks_of_a_teacher_are_told(demo, capsys):
    check("demo.why", TEXT)
    tick("demo.why", 4, by="teacher")
    progress()
    assert "☑ by a teacher   demo.why      0.5 of 2" in capsys.readouterr().out
