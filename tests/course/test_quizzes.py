from html.parser import HTMLParser

import pytest

from xailab.course import messages, quiz


class Page(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.ids = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]


@pytest.fixture
def shown(demo, monkeypatch):
    calls = []
    monkeypatch.setattr(messages, "show", lambda plain, html: calls.append((plain, html)))
    quiz("demo.q")
    return calls[0]


def test_each_choice_opens_its_feedback_without_a_script(shown):
    page = Page(shown[1])
    assert page.tags.count("details") == page.tags.count("summary") == 2
    assert "script" not in page.tags
    assert "http" not in shown[1]


def test_ids_are_stable_and_unique(shown):
    ids = Page(shown[1]).ids
    assert ids == ["quiz-demo-q", "quiz-demo-q-text", "quiz-demo-q-a", "quiz-demo-q-b"]


def test_texts_are_escaped_and_the_verdict_is_a_word(shown):
    assert "Which &lt;one&gt;?" in shown[1]
    assert "<summary>A &amp; &lt;b&gt;</summary>" in shown[1]
    assert "✗ No.</strong> No: &lt;i&gt;." in shown[1]
    assert "✓ Right.</strong> Because." in shown[1]


def test_plain_text_asks_without_answering(shown):
    assert shown[0] == "Question: Which <one>?\n  a) A & <b>\n  b) C"


def test_an_unknown_question_is_refused(demo):
    with pytest.raises(ValueError, match=r"did you mean demo\.q"):
        quiz("demo.qq")
