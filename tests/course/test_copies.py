"""The learner's copies: work is never lost, the rest follows the course."""

import json

import pytest

from xailab.course.copies import lesson, renew


class Course:
    """A course of two lessons, and somebody's folder of copies."""

    def __init__(self, root):
        self.root, self.own = root / "course", root / "own"
        for name in ("09_cam", "02_gradient_flow"):
            self.write(name, "v1")

    def write(self, name, text):
        for folder in ("notebooks", "solutions"):
            path = self.root / folder / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text} of {folder}")

    def rename(self, old, new):
        for folder in ("notebooks", "solutions"):
            path = self.root / folder / f"{old}.ipynb"
            path.rename(path.with_stem(new))

    def renew(self, fresh=None):
        return renew(self.root, self.own, fresh)

    def files(self):
        return {
            path.relative_to(self.own).as_posix(): path.read_text()
            for path in self.own.rglob("*.ipynb")
        }


@pytest.fixture
def course(tmp_path):
    return Course(tmp_path)


def test_lessons_and_solutions_are_copied_once(course):
    assert course.renew() == []
    assert course.files() == {
        "09_cam.ipynb": "v1 of notebooks",
        "02_gradient_flow.ipynb": "v1 of notebooks",
        "solutions/09_cam.ipynb": "v1 of solutions",
        "solutions/02_gradient_flow.ipynb": "v1 of solutions",
    }
    times = {path: path.stat().st_mtime_ns for path in course.own.rglob("*")}
    assert course.renew() == []
    assert {path: path.stat().st_mtime_ns for path in course.own.rglob("*")} == times


def test_a_copy_nobody_worked_in_follows_the_course(course):
    course.renew()
    course.write("09_cam", "v2")
    assert course.renew() == []
    assert course.files()["09_cam.ipynb"] == "v2 of notebooks"
    assert course.files()["solutions/09_cam.ipynb"] == "v2 of solutions"


def test_work_is_kept_and_the_newer_original_is_announced(course):
    course.renew()
    (course.own / "09_cam.ipynb").write_text("mine")
    assert course.renew() == []  # nothing is newer
    course.write("09_cam", "v2")
    for _ in range(2):  # until it is taken
        (said,) = course.renew()
        assert "newer than your copies of cam, which are kept" in said
        assert "`xailab lab --fresh cam`" in said
    assert course.files()["09_cam.ipynb"] == "mine"


def test_fresh_sets_the_old_one_aside(course):
    course.renew()
    for number, mine in enumerate(("first try", "second try"), 1):
        (course.own / "09_cam.ipynb").write_text(mine)
        course.write("09_cam", f"v{number + 1}")
        (said,) = course.renew("cam")
        assert said.startswith("09_cam.ipynb is fresh; yours is old/09_cam")
        assert course.files()["09_cam.ipynb"] == f"v{number + 1} of notebooks"
    assert course.files()["old/09_cam.ipynb"] == "first try"
    assert course.files()["old/09_cam-2.ipynb"] == "second try"
    assert course.renew() == []
    assert course.renew("cam") == ["09_cam.ipynb is as the course has it"]


def test_a_lesson_with_a_new_number_keeps_the_work(course):
    course.renew()
    (course.own / "09_cam.ipynb").write_text("mine")
    course.rename("09_cam", "10_cam")
    course.rename("02_gradient_flow", "03_gradient_flow")
    assert course.renew() == [
        "02_gradient_flow.ipynb is called 03_gradient_flow.ipynb now; your copy was renamed",
        "09_cam.ipynb is called 10_cam.ipynb now; your copy was renamed",
    ]
    assert course.files() == {
        "10_cam.ipynb": "mine",
        "03_gradient_flow.ipynb": "v1 of notebooks",
        "solutions/10_cam.ipynb": "v1 of solutions",
        "solutions/03_gradient_flow.ipynb": "v1 of solutions",
    }


def test_two_numbers_that_change_places(course):
    course.write("03_saliency", "v1")
    course.renew()
    (course.own / "02_gradient_flow.ipynb").write_text("mine")
    course.rename("02_gradient_flow", "04_gradient_flow")
    course.rename("03_saliency", "02_saliency")
    course.rename("04_gradient_flow", "03_gradient_flow")
    course.renew()
    assert course.files()["03_gradient_flow.ipynb"] == "mine"
    assert course.files()["02_saliency.ipynb"] == "v1 of notebooks"


@pytest.mark.parametrize("note", [None, "[1, 2]", "{half", "\xff\xfe"])
def test_without_a_note_all_work_is_kept(course, note):
    course.renew()
    (course.own / "09_cam.ipynb").write_text("mine")
    place = course.own / ".xailab.json"
    place.unlink() if note is None else place.write_bytes(note.encode("latin-1"))
    course.renew()
    assert course.files()["09_cam.ipynb"] == "mine"
    course.write("09_cam", "v2")
    assert "copies of cam" in course.renew()[0]
    assert json.loads(place.read_text())


def test_a_deleted_copy_comes_back(course):
    course.renew()
    (course.own / "09_cam.ipynb").unlink()
    assert course.renew() == []
    assert course.files()["09_cam.ipynb"] == "v1 of notebooks"


@pytest.mark.parametrize("name", ["cam", "09_cam", "9", "09", "09_cam.ipynb", "work/09_cam.ipynb"])
def test_a_lesson_is_found_by_any_of_its_names(course, name):
    assert lesson(course.root, name).name == "09_cam.ipynb"


def test_an_unknown_lesson_names_near_ones(course):
    with pytest.raises(ValueError, match="no lesson 'cams'; did you mean cam"):
        lesson(course.root, "cams")
