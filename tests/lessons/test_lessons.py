"""Every lesson keeps every rule; the notebooks and the README are what the lessons give."""

from pathlib import Path

import pytest

from tests.lessons.rules import RULES, Built
from xailab.course import build, readme
from xailab.course.runs import Run

ROOT = Path(__file__).parents[2]
LESSONS = build.choose([], ROOT)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("lesson", [lesson.name for lesson in LESSONS])
def test_lesson(lesson, name):
    assert list(RULES[name](Built.read(ROOT / "lessons" / f"{lesson}.py"))) == []


def test_every_source_is_in_the_table():
    sources = {path.stem for path in (ROOT / "lessons").glob("*.py")}
    assert sources == {lesson.name for lesson in LESSONS}


def test_nothing_has_drifted():
    assert build.check_all(LESSONS, ROOT) == []


def test_the_readme_shows_the_measured_lessons():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition(readme.BEGIN)[2].partition(readme.END)[0].strip()
    assert shown == readme.table(LESSONS, ROOT)
    assert all(Run.read(ROOT, lesson.name) for lesson in LESSONS)
