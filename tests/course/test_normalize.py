from pathlib import Path
from tempfile import gettempdir

import pytest
from nbformat import v4

from xailab.core.files import home
from xailab.course.normalize import clean_outputs, clean_text

ROOT = Path("/somewhere/course")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("<function f at 0x7f3fae88dbc0>", "<function f>"),
        ("[<Line2D object at 0x7F3FAE88>, 1]", "[<Line2D object>, 1]"),
        ("the byte at 0x1f", "the byte at 0x1f"),
        ("/tmp/ipykernel_12/345.py:2: UserWarning", "<cell>:2: UserWarning"),
        ("/somewhere/course/notebooks", "./notebooks"),
        ("in /somewhere/course", "in ."),
        ("/somewhere/course2/x", "/somewhere/course2/x"),
        ("/else/somewhere/course/x", "/else/somewhere/course/x"),
        (f"{Path.home()}/data.csv", "~/data.csv"),
        (f"{Path(pytest.__file__).parent}/x.py", "site-packages/pytest/x.py"),
        (f"--logdir {gettempdir()}/run-a8_x3/log", "--logdir <temporary>/log"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_what_differs_between_machines_is_taken_out(text, clean):
    assert clean_text(text, ROOT) == clean


def test_the_cache_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    assert clean_text(str(home() / "mnist.npz"), ROOT) == "<cache>/mnist.npz"


def test_pictures_and_numbers_are_left_alone():
    data = {"image/png": "/somewhere/course", "text/plain": "/somewhere/course"}
    output = v4.new_output("display_data", data, metadata={"image/png": {"alt": "a cat"}})
    (clean,) = clean_outputs([output], ROOT)
    assert clean.data == {"image/png": "/somewhere/course", "text/plain": "."}
    assert clean.metadata == {"image/png": {"alt": "a cat"}}


def test_a_widget_leaves_its_picture():
    view = "application/vnd.jupyter.widget-view+json"
    both = v4.new_output("display_data", {view: {"model_id": "1f"}, "image/png": "x"})
    alone = v4.new_output("display_data", {view: {"model_id": "1f"}})
    assert clean_outputs([both, alone], ROOT) == [both]
    assert both.data == {"image/png": "x"}


def test_streams_are_cleaned():
    output = v4.new_output("stream", name="stderr", text="/somewhere/course/a.py:1: UserWarning\n")
    assert clean_outputs([output], ROOT)[0].text == "./a.py:1: UserWarning\n"
