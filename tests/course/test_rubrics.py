"""Free text: never scored by a machine, ticked by a person, kept over a restart."""

import json
import sys

import pytest

from tests.course.conftest import MODEL, RUBRIC
from tests.course.exercises.answers import LESSONS
from xailab.course import check, records, registry, rubrics, tick
from xailab.course.registry import exercises_of, find_exercise
from xailab.course.stubs import answers

TEXTS = [e for topic in registry.topics() for e in exercises_of(topic) if e.kind == "criticize"]
OPPOSITE = """The release is right. It carries no bias, false alarms are equal, only 18 people is
enough for a test, and people who are charged again are criminals, so some groups are simply more
dangerous than others; all metrics hold at once."""
EXPERTS = {
    "fairness.press": "Removing the race column is cosmetic: what is left still lets the model "
    "recover group membership, so the disparity survives.",
    "adversarial.claim": "Quantisation makes derivatives vanish so the attack stands still; use a "
    "score-based search or BPDA.",
    "compression.report": "The heat maps were validated for another set of weights and must be "
    "redone.",
}


@pytest.fixture
def mine(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


def earned(id):
    entry = find_exercise(id)
    return rubrics.worth(entry, rubrics.ticked(entry, records.read().get(id, {})))


@pytest.mark.parametrize("id", [entry.id for entry in TEXTS])
def test_what_says_the_opposite_of_the_truth_gets_no_points(mine, capsys, id):
    check(id, OPPOSITE)
    assert "0 of" in capsys.readouterr().out
    assert records.read()[id] == {"passed": True, "tries": 1}
    assert earned(id) == 0


@pytest.mark.parametrize("id", EXPERTS)
def test_an_expert_in_own_words_is_not_refused(mine, capsys, id):
    check(id, EXPERTS[id])
    assert capsys.readouterr().out.startswith("● Noted")
    tick(id, 1)
    assert earned(id) > 0


@pytest.mark.parametrize("entry", TEXTS, ids=lambda entry: entry.id)
def test_each_rubric_is_short_enough_to_tick(entry):
    assert 4 <= len(entry.rubric) <= 6
    for name, sentence in entry.rubric.items():
        assert len(name.split()) <= 6, name
        assert 5 <= len(sentence.split()) <= 32, sentence
        assert sentence[-1] in ".?", sentence
    assert 25 <= len(entry.model.split()) <= 160


CORRECTED = {  # the lesson's own answer still says what the model answer no longer says
    "fairness.press",
}


@pytest.mark.parametrize("entry", TEXTS, ids=lambda entry: entry.id)
def test_the_lesson_holds_the_same_model_answer(entry, request):
    if entry.id in CORRECTED:
        request.applymarker(pytest.mark.xfail(reason="the lesson has to follow", strict=True))
    topic = registry.topic_of(entry.id)
    lesson = (LESSONS / f"{topic}.py").read_text(encoding="utf-8")
    before, check_of_it, _ = lesson.partition(f'check("{entry.id}"')
    assert check_of_it
    assert " ".join(answers(before)[-1].split()) == entry.model


def test_the_model_answer_and_the_points_appear_with_the_first_text(demo, capsys):
    check("demo.why", "The gradient map is flat there and far away.")
    out = capsys.readouterr().out
    assert f"Model answer:\n{MODEL}" in out
    assert "[ ] 1 flat: The slope is 0 there." in out
    assert 'tick("demo.why", 1, 3)' in out
    assert "Done; nothing is ticked yet: 0 of 2 points" in out


@pytest.mark.parametrize("text", ["", "(your answer here)", "I do not know.", "one two three"])
def test_before_a_text_is_written_nothing_is_shown(demo, capsys, text):
    check("demo.why", text)
    out = capsys.readouterr().out
    assert out.startswith("○ Not done yet: demo.why\nWrite some sentences")
    assert MODEL not in out
    assert records.read() == {}


def test_the_model_answer_itself_is_not_repeated(demo, capsys):
    check("demo.why", MODEL.replace(" ", "\n"))
    assert "Model answer" not in capsys.readouterr().out


def test_an_answer_that_is_no_text_is_told(demo, capsys):
    check("demo.why", 3.0)
    assert "as text in quotes; a float came" in capsys.readouterr().out


def test_ticks_give_points_and_are_kept(demo, capsys):
    check("demo.why", "The gradient map is flat there and far away.")
    tick("demo.why", 3, "flat")
    out = capsys.readouterr().out
    assert "[x] 1 flat" in out
    assert "[ ] 2 far" in out
    assert out.endswith("2 of 4 ticked by you: 1 of 2 points\n")
    stored = json.loads((demo / "progress.json").read_text())["exercises"]["demo.why"]
    assert stored == {"passed": True, "tries": 1, "ticked": ["flat", "one"], "by": "you"}
    check("demo.why", "The gradient map is flat there and far away.")  # as after a restart
    assert "[x] 3 one" in capsys.readouterr().out


def test_the_last_ticks_count_and_none_are_none(demo, capsys):
    check("demo.why", "The gradient map is flat there and far away.")
    tick("demo.why", 1)
    tick("demo.why")
    assert capsys.readouterr().out.endswith("0 of 4 ticked by you: 0 of 2 points\n")


def test_what_a_teacher_ticked_stays(demo, capsys):
    check("demo.why", "The gradient map is flat there and far away.")
    tick("demo.why", 1, 2, by="teacher")
    tick("demo.why", 1, 2, 3, 4)
    out = capsys.readouterr().out
    assert "2 of 4 ticked by a teacher: 1 of 2 points" in out
    assert "A teacher has ticked this answer" in out
    assert records.read()["demo.why"]["ticked"] == ["flat", "far"]


def test_ticks_wait_for_an_answer(demo, capsys):
    tick("demo.why", 1)
    assert "Write your answer and run its check first" in capsys.readouterr().out
    assert records.read() == {}


@pytest.mark.parametrize("point", [0, 5, "fla", True, 1.0])
def test_a_point_that_is_not_there_is_refused(demo, point):
    with pytest.raises(ValueError, match=r"the points 1 to 4 \(flat, far, one, test\)"):
        tick("demo.why", point)


def test_only_free_text_is_ticked_and_by_two_kinds_of_people(demo):
    with pytest.raises(ValueError, match=r"demo.softmax is no free text"):
        tick("demo.softmax", 1)
    with pytest.raises(ValueError, match="by is"):
        tick("demo.why", 1, by="machine")


def test_a_record_of_older_form_counts_as_done_without_points(demo):
    old = {"version": 1, "exercises": {"demo.why": {"passed": True, "tries": 2}}}
    (demo / "progress.json").write_text(json.dumps(old))
    assert earned("demo.why") == 0
    tick("demo.why", "test")
    assert records.read()["demo.why"] == {
        "passed": True, "tries": 2, "ticked": ["test"], "by": "you"
    }  # fmt: skip
    assert earned("demo.why") == 0.5


def test_a_tick_for_a_point_that_a_later_edition_dropped_is_left_out(demo):
    assert rubrics.ticked(find_exercise("demo.why"), {"ticked": ["gone", "far"]}) == ["far"]


@pytest.fixture
def shown(demo, monkeypatch):
    calls = []
    monkeypatch.setattr("xailab.course.messages.in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: calls.append(data))
    return calls


def test_in_a_notebook_boxes_are_ticked_and_saved_at_once(shown):
    from ipywidgets import Checkbox
    from ipywidgets.widgets.widget import _instances

    check("demo.why", "The gradient map is flat there and far away.")
    view = shown[0]["application/vnd.jupyter.widget-view+json"]
    page = shown[0]["text/html"]
    assert "☐ <strong>flat</strong>" in page  # stands in where no widget runs
    box = _instances[view["model_id"]]
    boxes = [row.children[0] for row in box.children if hasattr(row, "children")]
    assert [each.description for each in boxes] == list(RUBRIC)
    assert all(isinstance(each, Checkbox) for each in boxes)
    boxes[1].value = True
    assert records.read()["demo.why"]["ticked"] == ["far"]
    assert "1 of 4 ticked by you: 0.5 of 2 points" in box.children[-1].value
    boxes[1].value = False
    assert records.read()["demo.why"]["ticked"] == []


def test_without_widgets_the_list_is_html(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    check("demo.why", "The gradient map is flat there and far away.")
    assert sorted(shown[0]) == ["text/html", "text/plain"]


def test_a_build_stores_no_widget(shown, monkeypatch):
    monkeypatch.setenv("XAILAB_STRICT", "1")
    check("demo.why", MODEL)
    assert sorted(shown[0]) == ["text/html", "text/plain"]


def test_texts_of_a_rubric_are_escaped(shown):
    entry = find_exercise("demo.why")
    registry._exercises["demo.why"] = type(entry)(
        **(vars(entry) | {"rubric": RUBRIC | {"flat": "x < 0 & y"}, "model": "a < b"})
    )
    check("demo.why", "The gradient map is flat there and far away.")
    assert "x &lt; 0 &amp; y" in shown[0]["text/html"]
    assert "a &lt; b" in shown[0]["text/html"]
