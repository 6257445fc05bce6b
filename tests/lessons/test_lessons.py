"""Every lesson keeps every rule; the notebooks and the README are what the lessons give."""

from pathlib import Path

import pytest

from tests.lessons.rules import RULES, Built
from xailab.course import build, readme

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "lessons").glob("[0-9]*_*.py"))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson(path, name):
    assert list(RULES[name](Built.read(path))) == []


def test_there_are_lessons():
    assert LESSONS


def test_nothing_has_drifted():
    assert build.check_all(LESSONS, ROOT) == []


def test_the_readme_shows_the_measured_lessons():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition(readme.BEGIN)[2].partition(readme.END)[0].strip()
    assert shown == readme.table(LESSONS, ROOT)
    assert all(readme.measured(path, ROOT) for path in LESSONS)
