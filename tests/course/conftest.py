"""Exercises of a topic `demo` that no lesson has, so that tests do not depend on lessons."""

import sys
from types import ModuleType

import numpy as np
import pytest

from xailab.core import curriculum
from xailab.course import compare, exercises, registry

SOFTMAX = np.array([[0.25, 0.75]])


def softmax(answer):
    got = answer(np.array([[0.0, np.log(3.0)]]))
    compare.expect_close(got, SOFTMAX, "softmax of [[0, ln 3]]")
    compare.expect_close(answer(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]], "softmax of 1000")


def share(guess):
    compare.expect_number(guess, 0, 1)


RUBRIC = {
    "flat": "The slope is 0 there.",
    "far": "It is far from the data.",
    "one": "It is one example.",
    "test": "Ask the network.",
}
MODEL = "The slope is 0 there, far from the data; one example shows nothing, so ask the network."


TABLE = """[[parts]]
title = "All"
lessons = [
    { name = "start", title = "Start", needs = [] },
    { name = "demo", title = "Demo", needs = [] },
]
"""


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Register the topic for one test, with empty records and no hints given."""
    module = ModuleType(f"{exercises.__name__}.demo")
    (tmp_path / "course.toml").write_text(TABLE)
    monkeypatch.setattr(curriculum, "place", lambda: tmp_path / "course.toml")
    for check in (softmax, share):
        monkeypatch.setattr(check, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "_exercises", {})
    monkeypatch.setattr(registry, "_questions", {})
    monkeypatch.setattr("xailab.course.checks._hints_given", {})
    monkeypatch.setattr("xailab.course.checks._guesses", {})
    monkeypatch.setattr("xailab.course.whereabouts._cells", {})
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "demo.py").touch()
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path / "exercises")])
    monkeypatch.setenv("XAILAB_PROGRESS", str(tmp_path / "progress.json"))
    hints = ("first", "second")
    registry.exercise("demo.softmax", kind="code", points=2, minutes=5, hints=hints)(softmax)
    registry.exercise("demo.share", kind="predict", points=1, minutes=1)(share)
    registry.criticize("demo.why", points=2, minutes=3, model=MODEL, rubric=RUBRIC)
    choices = {"A & <b>": "No: <i>.", "C": "Because."}
    registry.question("demo.q", "Which <one>?", choices=choices, right="C")
    return tmp_path
