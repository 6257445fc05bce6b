import json

import numpy as np
import pytest

from xailab.course import Mistake, check, hint, predict, reveal
from xailab.course.stubs import cut


def good(x):
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def stub(x):
    """Not written yet."""
    # YOUR CODE HERE
    ...


def scaffold(x):
    # YOUR CODE HERE
    ...
    return result  # noqa: F821


def crash(x):
    total = x.sum()
    return total.missing


def recorded(demo):
    path = demo / "progress.json"
    return json.loads(path.read_text())["exercises"] if path.exists() else {}


def test_a_right_answer(demo, capsys):
    check("demo.softmax", good)
    assert capsys.readouterr().out == "✓ Right: demo.softmax (2 points)\n"
    assert recorded(demo)["demo.softmax"] == {"passed": True, "tries": 1}


def test_a_wrong_answer_shows_what_came(demo, capsys):
    check("demo.softmax", lambda x: x)
    out = capsys.readouterr().out
    assert out.startswith("✗ Not yet right: demo.softmax\nsoftmax of [[0, ln 3]]")
    assert "expected: [[0.25, 0.75]]" in out
    assert recorded(demo)["demo.softmax"] == {"passed": False, "tries": 1}


def test_an_unstable_answer_is_named(demo, capsys):
    with np.errstate(all="ignore"):
        check("demo.softmax", lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True))
    assert "softmax of 1000 holds nan or inf" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [stub, scaffold, None, ...])
def test_an_untouched_stub_is_not_done_and_raises_nothing(demo, capsys, answer):
    check("demo.softmax", answer)
    assert capsys.readouterr().out.startswith("○ Not done yet: demo.softmax\nReplace the ...")
    assert recorded(demo) == {}


def test_a_crash_in_the_answer_is_told_in_words_with_its_line(demo, capsys):
    check("demo.softmax", crash)
    out = capsys.readouterr().out
    assert "crash stopped in line" in out
    assert "of its cell: return total.missing\nAttributeError:" in out
    assert "Traceback" not in out
    assert "compare.py" not in out


def test_an_answer_that_cannot_be_called_is_told(demo, capsys):
    check("demo.softmax", lambda: np.zeros(3))
    assert "Calling <lambda> as the exercise asks" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [stub, crash, lambda x: x])
def test_strict_mode_raises(demo, monkeypatch, answer):
    monkeypatch.setenv("XAILAB_STRICT", "1")
    with pytest.raises(Mistake, match=r"demo\.softmax"):
        check("demo.softmax", answer)


def test_strict_mode_lets_a_right_answer_pass(demo, monkeypatch):
    monkeypatch.setenv("XAILAB_STRICT", "1")
    check("demo.softmax", good)


def test_a_guess_stands_beside_what_came(demo, capsys):
    predict("demo.share", 0.3)
    reveal("demo.share", 0.25)
    out = capsys.readouterr().out
    assert "you guessed: 0.3\nwhat came:   0.25\noff by:      0.05" in out
    assert recorded(demo)["demo.share"] == {"passed": True, "tries": 1, "guess": "0.3"}


def test_a_guess_survives_a_restart_of_the_kernel(demo, capsys, monkeypatch):
    predict("demo.share", 0.3)
    monkeypatch.setattr("xailab.course.checks._guesses", {})
    reveal("demo.share", 0.3)
    assert "you guessed: 0.3\nwhat came:   0.3\nAs you guessed." in capsys.readouterr().out


def test_without_a_guess_the_answer_stays_hidden(demo, capsys):
    predict("demo.share", ...)
    reveal("demo.share", 0.25)
    out = capsys.readouterr().out
    assert out.count("○ Not done yet: demo.share") == 2
    assert "0.25" not in out
    assert recorded(demo) == {}


def test_a_guess_of_the_wrong_form_is_not_noted(demo, capsys):
    predict("demo.share", 30)
    reveal("demo.share", 0.25)
    out = capsys.readouterr().out
    assert "your guess should be a number from 0 to 1, not 30" in out
    assert "0.25" not in out


def test_revealing_without_a_guess_raises_when_strict(demo, monkeypatch):
    monkeypatch.setenv("XAILAB_STRICT", "1")
    with pytest.raises(Mistake, match="Write your guess"):
        reveal("demo.share", 0.25)


def test_kinds_are_not_mixed_up(demo):
    with pytest.raises(ValueError, match="use predict"):
        check("demo.share", 0.3)
    with pytest.raises(ValueError, match="use check"):
        predict("demo.softmax", 0.3)


def test_hints_come_one_by_one_and_the_last_stays(demo, capsys):
    for _ in range(3):
        hint("demo.softmax")
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "hint" not in line] == [
        "first",
        "second",
        "second",
    ]
    assert "hint 2 of 2 for demo.softmax" in out


def test_no_hint_is_said(demo, capsys):
    hint("demo.why")
    assert "There is no hint" in capsys.readouterr().out


def test_the_stub_that_the_build_cuts_is_the_one_that_is_recognized(demo, capsys):
    lesson = (
        "def softmax(x):\n    'Doc.'\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION"
    )
    names = {}
    exec(cut(lesson), names)
    check("demo.softmax", names["softmax"])
    assert "Not done yet" in capsys.readouterr().out
