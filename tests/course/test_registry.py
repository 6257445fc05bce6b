import re

import pytest

from tests.course.conftest import share
from xailab.course import registry
from xailab.course.registry import criticize, exercise, find_exercise, find_question, question

GOOD = {"kind": "predict", "points": 1, "minutes": 1}


def test_an_exercise_is_found_by_its_id(demo):
    entry = find_exercise("demo.softmax")
    assert (entry.points, entry.minutes, entry.difficulty) == (2, 5, 1)
    assert entry.hints == ("first", "second")


def test_topics_know_their_lessons_and_exercises(demo):
    assert registry.topics() == ["demo"]
    assert registry.lesson_of("demo") == "01_demo"
    ids = [entry.id for entry in registry.exercises_of("demo")]
    assert ids == ["demo.softmax", "demo.share", "demo.why"]
    assert [entry.id for entry in registry.questions_of("demo")] == ["demo.q"]


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("demo.softmx", "no exercise 'demo.softmx'; did you mean demo.softmax"),
        ("dmeo.softmax", "no exercises for 'dmeo'; did you mean demo?"),
        ("softmax", "an id is written \"topic.name\", not 'softmax'"),
        ("a.b.c", "an id is written \"topic.name\", not 'a.b.c'"),
    ],
)
def test_an_unknown_id_gives_near_names(demo, id, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_exercise(id)


def test_an_unknown_question_gives_near_names(demo):
    with pytest.raises(ValueError, match=r"no question 'demo.p'; did you mean demo.q\?"):
        find_question("demo.p")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "essay"}, "kind is 'essay'"),
        ({"kind": "criticize"}, "has a model answer"),
        ({"points": 0}, "points and minutes start at 1"),
        ({"minutes": 0}, "points and minutes start at 1"),
        ({"difficulty": 6}, "difficulty is 6, not 1 to 5"),
        ({"hints": ("a", "b", "c", "d")}, "4 hints; at most 3"),
    ],
)
def test_a_bad_exercise_is_refused(demo, change, match):
    with pytest.raises(ValueError, match=match):
        exercise("demo.new", **(GOOD | change))(share)


TEXT = {"points": 1, "minutes": 1, "model": "Because.", "rubric": dict.fromkeys("abcd", "x")}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": ""}, "has a model answer"),
        ({"rubric": dict.fromkeys("abc", "x")}, "3 points to tick, not 4 to 6"),
        ({"rubric": dict.fromkeys("abcdefg", "x")}, "7 points to tick, not 4 to 6"),
    ],
)
def test_a_bad_free_text_is_refused(demo, change, match):
    with pytest.raises(ValueError, match=match):
        criticize("demo.new", **(TEXT | change))


def test_a_free_text_is_taken_once_but_a_module_may_be_reloaded(demo):
    criticize("demo.new", **TEXT)
    criticize("demo.new", **TEXT)
    with pytest.raises(ValueError, match=r"demo.new: this id is taken"):
        criticize("demo.new", **(TEXT | {"model": "Since."}))


def test_an_id_is_taken_once_but_a_module_may_be_reloaded(demo):
    exercise("demo.share", **GOOD)(share)
    with pytest.raises(ValueError, match=r"demo.softmax: this id is taken"):
        exercise("demo.softmax", **GOOD)(share)


def test_an_id_stands_in_the_module_of_its_topic(demo):
    with pytest.raises(ValueError, match=r"other.share: stands in xailab.course.exercises.demo"):
        exercise("other.share", **GOOD)(share)


@pytest.mark.parametrize(
    ("choices", "right", "match"),
    [
        ({"a": "x"}, "a", "two choices"),
        ({"a": "x", "b": "y"}, "c", "'c' is none of the choices"),
        ({"a": "x", "b": ""}, "a", "every choice needs feedback"),
    ],
)
def test_a_bad_question_is_refused(demo, choices, right, match):
    with pytest.raises(ValueError, match=match):
        question("demo.new", "Why?", choices=choices, right=right)


def test_a_question_id_is_taken_once(demo):
    with pytest.raises(ValueError, match=r"demo.q: this id is taken"):
        question("demo.q", "Another?", choices={"a": "x", "b": "y"}, right="a")
