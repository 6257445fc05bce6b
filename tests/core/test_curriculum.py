"""The table of the course: numbers by order, what is planned, what a table may not say."""

import sys
from pathlib import Path

import pytest

from xailab.core import curriculum
from xailab.core.curriculum import Curriculum

ROW = '{{ name = "{0}", title = "{1}", needs = {2}{3} }},\n'
STEP = '[[tracks]]\nname = "lab"\ntitle = "Lab"\nsteps = [{{ when = "1", lessons = ["{}"] }}]\n'


def read(folder: Path, *rows: str, tracks: str = "") -> Curriculum:
    path = folder / "course.toml"
    path.write_text(f'[[parts]]\ntitle = "All: why?"\nlessons = [\n{"".join(rows)}]\n\n{tracks}')
    return Curriculum.read(path)


FIRST = ROW.format("first", "First one", "[]", "")
LATER = ROW.format("later", "Later", '["first"]', ", planned = true")
LAST = ROW.format("last", "Last", "[]", ', form = "old"')


def test_the_number_is_the_place_and_planned_is_said(tmp_path):
    table = read(tmp_path, FIRST, LATER, LAST)
    assert [entry.words for entry in table.entries] == [
        "00 First one",
        "01 Later (planned)",
        "02 Last",
    ]
    assert [entry.link for entry in table.entries][1:] == [
        "01 Later (planned)",
        "[02 Last](02_last.ipynb)",
    ]
    assert [entry.form for entry in table.entries] == ["new", "new", "old"]


def test_a_line_moved_moves_the_number(tmp_path):
    assert read(tmp_path, FIRST, LAST).find("last").stem == "01_last"
    assert read(tmp_path, LAST, FIRST).find("last").stem == "00_last"


def test_neighbors_are_written(tmp_path):
    table = read(tmp_path, FIRST, LATER, LAST)
    assert table.neighbors("last") == (table.find("first"), None)
    assert table.neighbors("first") == (None, table.find("last"))


def test_a_step_of_a_track_may_name_a_part(tmp_path):
    table = read(tmp_path, FIRST, LAST, tracks=STEP.format("All"))
    assert table.tracks["lab"].steps[0].lessons == ("first", "last")


@pytest.mark.parametrize(
    ("rows", "tracks", "message"),
    [
        ((FIRST, FIRST), "", "course.toml: first stands there twice"),
        ((LATER, FIRST), "", r"later needs \['first'\], not before it"),
        ((FIRST.replace("needs = []", "x = 1"),), "", "needs"),
        ((LAST.replace('"old"', '"odd"'),), "", "last: form is \"old\" or not given, not 'odd'"),
        ((FIRST,), STEP.format("frst"), "no lesson 'frst'; did you mean first?"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, rows, tracks, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, *rows, tracks=tracks)


def test_an_unknown_lesson_gives_near_names():
    with pytest.raises(ValueError, match=r"no lesson 'salency'; did you mean saliency"):
        curriculum.lesson("salency")


def test_what_is_looked_up_is_announced():
    heard = []
    sys.addaudithook(lambda event, args: event == "xailab.curriculum" and heard.append(args[0]))
    curriculum.lesson("cam")
    assert heard == ["cam"]
    assert [entry.name for entry in curriculum.lessons()] == heard[1:]


def test_without_a_table_the_mend_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(curriculum, "__file__", str(tmp_path / "a" / "b" / "curriculum.py"))
    with pytest.raises(FileNotFoundError, match="reinstall xailab"):
        curriculum.place()
