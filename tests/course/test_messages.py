import subprocess
import sys

import pytest

from xailab.course import messages
from xailab.course.messages import Message


def test_status_is_told_by_symbol_and_words_not_by_color():
    plain = {status: Message(status, "a.b").plain for status in ("right", "wrong", "not done")}
    assert plain["right"] == "✓ Right: a.b"
    assert plain["wrong"] == "✗ Not yet right: a.b"
    assert plain["not done"] == "○ Not done yet: a.b"
    for status, text in plain.items():
        words = text.partition(":")[0][2:]
        assert words in Message(status, "a.b").html


def test_what_the_learner_wrote_cannot_become_html():
    page = Message("wrong", "a.b", "came: <script>alert(1)</script>").html
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_html_and_text_are_shown_together_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr(messages, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    Message("right", "a.b").show()
    assert shown == [
        ({"text/plain": "✓ Right: a.b", "text/html": Message("right", "a.b").html}, True)
    ]


def test_text_alone_is_printed_elsewhere(capsys):
    Message("right", "a.b").show()
    assert capsys.readouterr().out == "✓ Right: a.b\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys, xailab.course as c; c.check, c.progress; assert 'torch' not in sys.modules",
        "import xailab.course.records, xailab.course as c; assert callable(c.progress)",
    ],
)
def test_the_course_costs_no_torch_and_its_names_are_functions(code):
    subprocess.run([sys.executable, "-c", code], check=True)
