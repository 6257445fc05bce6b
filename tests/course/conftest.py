"""Exercises of a topic `demo` that no lesson has, so that tests do not depend on lessons."""

import sys
from types import ModuleType

import numpy as np
import pytest

from xailab.course import compare, exercises, registry

SOFTMAX = np.array([[0.25, 0.75]])


def softmax(answer):
    got = answer(np.array([[0.0, np.log(3.0)]]))
    compare.expect_close(got, SOFTMAX, "softmax of [[0, ln 3]]")
    compare.expect_close(answer(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]], "softmax of 1000")


def share(guess):
    compare.expect_number(guess, 0, 1)


def why(text):
    compare.expect_words(text, 3)


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Register the topic for one test, with empty records and no hints given."""
    module = ModuleType(f"{exercises.__name__}.demo")
    module.LESSON = "01_demo"
    for check in (softmax, share, why):
        monkeypatch.setattr(check, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "_exercises", {})
    monkeypatch.setattr(registry, "_questions", {})
    monkeypatch.setattr("xailab.course.checks._hints_given", {})
    monkeypatch.setattr("xailab.course.checks._guesses", {})
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "demo.py").touch()
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path / "exercises")])
    monkeypatch.setenv("XAILAB_PROGRESS", str(tmp_path / "progress.json"))
    hints = ("first", "second")
    registry.exercise("demo.softmax", kind="code", points=2, minutes=5, hints=hints)(softmax)
    registry.exercise("demo.share", kind="predict", points=1, minutes=1)(share)
    registry.exercise("demo.why", kind="criticize", points=1, minutes=3)(why)
    choices = {"A & <b>": "No: <i>.", "C": "Because."}
    registry.question("demo.q", "Which <one>?", choices=choices, right="C")
    return tmp_path
