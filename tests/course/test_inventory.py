"""The concept inventory: its form, taking it, the gain, and a class handed in."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from xailab.cli import app
from xailab.core import curriculum
from xailab.course import concept_inventory, inventory, records
from xailab.course.inventory import gain, items, right

ALL_RIGHT = "".join(
    next(letter for letter, choice in item.lettered.items() if choice.right) for item in items()
)
NONE = "-" * len(items())


def with_wrong(*numbers):
    """Return letters that are right but for these questions (from 0)."""
    letters = list(ALL_RIGHT)
    for number in numbers:
        letters[number] = next(letter for letter in "abcd" if letter != ALL_RIGHT[number])
    return "".join(letters)


@pytest.fixture
def mine(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


def test_twenty_questions_of_four_choices_each_with_a_reason():
    assert len(items()) == len({item.name for item in items()}) == 20
    for item in items():
        assert len(item.choices) == len({choice.text for choice in item.choices}) == 4, item.name
        assert sum(choice.right for choice in item.choices) == 1, item.name
        assert all(len(choice.why.split()) >= 5 for choice in item.choices), item.name
        assert not curriculum.lesson(item.lesson).planned, item.name


def test_neither_place_nor_length_nor_all_of_the_above_gives_the_answer_away():
    assert sorted(Counter(ALL_RIGHT).items()) == [("a", 5), ("b", 5), ("c", 5), ("d", 5)]
    lengths = [[len(choice.text) for choice in item.choices] for item in items()]
    marked = [[choice.right for choice in item.choices] for item in items()]
    longest = sum(m[int(np.argmax(n))] for n, m in zip(lengths, marked, strict=True))
    shortest = sum(m[int(np.argmin(n))] for n, m in zip(lengths, marked, strict=True))
    assert longest <= 7
    assert shortest <= 7
    words = " ".join(choice.text for item in items() for choice in item.choices)
    assert not re.search(r"of the above|always false|\bboth a and b\b", words, re.IGNORECASE)


def test_the_key_of_what_can_be_computed_is_computed():
    keys = {item.name: item.right.text for item in items()}
    assert keys["map_resolution"] == str(7 * 7)

    def f(x1, x2):
        return x1 * x2

    # Shapley value of x1 at (0, 3) against (0, 0): mean over both orders of what joining adds.
    alone, after_x2 = f(0, 0) - f(0, 0), f(0, 3) - f(0, 3)
    assert float(keys["shapley_slope"]) == (alone + after_x2) / 2

    def fpr(base, precision=0.7, tpr=0.6):
        return base / (1 - base) * (1 - precision) / precision * tpr

    assert fpr(0.5) > fpr(0.3)
    assert keys["base_rates"].startswith("higher in the group with the higher base rate")


def test_taken_before_and_after_shows_the_gain_and_then_explains(mine, capsys):
    concept_inventory("before", with_wrong(*range(12)))
    out = capsys.readouterr().out
    assert out == (
        "Your answers before the course are kept. Next: the same 20 questions after the course.\n"
    )
    concept_inventory("after", with_wrong(0, 1, 2))
    out = capsys.readouterr().out
    assert out.startswith(
        "before the course: 8 of 20\nafter the course:  17 of 20\n"
        "gain:              0.75 of what was missing\n"
    )
    out = " ".join(out.split())
    assert out.count("(before: wrong, after: wrong)") == 3
    assert out.count("(before: wrong, after: right)") == 9
    assert out.count("(before: right, after: right)") == 8
    assert all(" ".join(item.right.why.split()) in out for item in items())
    assert set(json.loads(mine.read_text())["inventory"]) == {"before", "after"}


def test_the_first_answers_before_the_course_stand(mine, capsys):
    concept_inventory("before", NONE)
    concept_inventory("before", ALL_RIGHT)
    assert records.answers() == {"before": {}}
    concept_inventory("after", ALL_RIGHT)
    assert sum(right(records.answers()["after"]).values()) == 20


def test_after_the_explanations_there_is_no_before(mine, capsys):
    concept_inventory("after", NONE)
    assert "after the course:  0 of 20" in capsys.readouterr().out
    concept_inventory("before", ALL_RIGHT)
    assert "before" not in records.answers()


def test_what_was_not_answered_is_not_right(mine):
    concept_inventory("before", NONE)
    assert not any(right(records.answers()["before"]).values())


@pytest.mark.parametrize(
    ("letters", "match"),
    [("abc", "expected 20 letters, one a question, but 3 came"), ("e" * 20, "'e' is none of a, b")],
)
def test_other_letters_are_refused(mine, letters, match):
    with pytest.raises(ValueError, match=match):
        concept_inventory("before", letters)
    assert records.answers() == {}


def test_another_time_is_refused(mine):
    with pytest.raises(ValueError, match="not 'later'"):
        concept_inventory("later")


def test_normalized_gain_by_hand():
    assert gain(8, 14, 20) == 0.5
    assert gain(10, 5, 20) == -0.5
    assert gain(0, 20, 20) == 1
    assert gain(20, 20, 20) is None


def test_without_a_widget_the_questions_are_shown_without_their_answers(mine, capsys):
    concept_inventory("before")
    out = " ".join(capsys.readouterr().out.split())
    assert 'concept_inventory("before", "abcd...")' in out
    for item in items():
        assert " ".join(item.text.split()) in out
        assert not any(choice.why in out for choice in item.choices)


@pytest.fixture
def form(mine, monkeypatch):
    """Return the form of a notebook and what is shown."""
    from ipywidgets.widgets.widget import _instances

    shown = []
    monkeypatch.setattr("xailab.course.messages.in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    concept_inventory("before")
    return _instances[shown[0]["application/vnd.jupyter.widget-view+json"]["model_id"]], shown


def test_in_a_notebook_letters_are_clicked_and_handed_in(form):
    box, shown = form
    assert all(choice.why not in shown[0]["text/html"] for i in items() for choice in i.choices)
    clicks = [child for child in box.children if hasattr(child, "options")]
    assert len(clicks) == 20
    for child, letter in zip(clicks, with_wrong(3), strict=True):
        child.value = letter
    button = next(child for child in box.children if hasattr(child, "click"))
    button.click()
    assert button.disabled
    assert sum(right(records.answers()["before"]).values()) == 19


def test_a_terminal_asks_until_a_letter_comes(mine):
    typed = "\n".join(["x", "", *with_wrong(0)]) + "\n"
    result = CliRunner().invoke(app, ["quiz", "--before"], input=typed)
    assert result.exit_code == 0, result.output
    assert "Type one of a, b, c, d, -." in result.output
    assert sum(right(records.answers()["before"]).values()) == 19


def test_a_quiz_that_is_left_stores_nothing(mine):
    result = CliRunner().invoke(app, ["quiz", "--after"], input="a\nb\n")
    assert result.exit_code != 0
    assert records.answers() == {}


def test_one_time_is_chosen(mine):
    assert CliRunner().invoke(app, ["quiz", "--before", "--after"]).exit_code == 2
    assert "Nothing is stored yet" in CliRunner().invoke(app, ["quiz"]).output


def test_a_class_hands_in_files_and_the_worth_of_each_question_is_shown(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    ability = rng.normal(size=(200, 1))
    hard = np.linspace(-2, 2, 20)
    knows = rng.random((200, 20)) < 1 / (1 + np.exp(-2 * (ability - hard)))
    knows[:, 4] = ~knows[:, 4]  # as if its key were wrong
    files = []
    for number, row in enumerate(knows):
        files.append(tmp_path / f"{number}.json")
        monkeypatch.setenv("XAILAB_PROGRESS", str(files[-1]))
        inventory.records.record_answers(
            "after",
            {item.name: item.right.text for item, known in zip(items(), row, strict=True) if known},
        )
    found = inventory.analyze(files, "after")
    np.testing.assert_allclose(found.difficulty, knows.mean(axis=0))
    result = CliRunner().invoke(app, ["quiz", *map(str, files)])
    lines = result.output.splitlines()
    assert len(lines) == 22
    assert [items()[i].name for i in range(20) if "read it again" in lines[i + 1]] == [
        items()[4].name
    ]


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"a\.json is no file of records"):
        inventory.analyze([tmp_path / "a.json"], "after")
    (tmp_path / "b.json").write_text('{"inventory": {}}')
    with pytest.raises(ValueError, match="0 of the files hold answers"):
        inventory.analyze([tmp_path / "b.json"], "after")
