"""Quiz questions as plain HTML: every choice opens its own feedback, with no script and offline."""

from html import escape
from string import ascii_lowercase

from xailab.course import messages
from xailab.course.registry import Question, find_question


def quiz(id: str) -> None:
    """Show a question; opening a choice (click, or Tab and Enter) shows its feedback.

    Args:
        id: `TOPIC.NAME` of a question in `xailab.course.exercises.TOPIC`.

    Raises:
        ValueError: there is no such question; the message lists near names.
    """
    entry = find_question(id)
    messages.show(_plain(entry), _html(entry))


def _plain(entry: Question) -> str:
    """The question without its answers: what a reader without HTML should see."""
    lines = [f"  {letter}) {choice}" for letter, choice, _ in _lettered(entry)]
    return "\n".join([f"Question: {entry.text}", *lines])


def _html(entry: Question) -> str:
    name = f"quiz-{entry.id.replace('.', '-')}"
    choices = "".join(
        f"<details id='{name}-{letter}' style='margin:.3em 0'><summary>{escape(choice)}</summary>"
        f"<p style='margin:.2em 1.2em'>{_verdict(entry, choice)} {escape(feedback)}</p></details>"
        for letter, choice, feedback in _lettered(entry)
    )
    return (
        f"<section id='{name}' aria-labelledby='{name}-text'>"
        f"<p id='{name}-text'><strong>Question.</strong> {escape(entry.text)}</p>"
        f"{choices}</section>"
    )


def _lettered(entry: Question) -> list[tuple[str, str, str]]:
    pairs = zip(ascii_lowercase, entry.choices.items(), strict=False)
    return [(letter, choice, feedback) for letter, (choice, feedback) in pairs]


def _verdict(entry: Question, choice: str) -> str:
    return "<strong>✓ Right.</strong>" if choice == entry.right else "<strong>✗ No.</strong>"
