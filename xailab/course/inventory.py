"""The concept inventory: 20 questions on what is often misunderstood, before and after the course.

The answers stay in the learner's records on this machine. What is right is told only after the
second time, so that the first does not teach the test.
"""

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import ascii_lowercase
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, get_args

from xailab.core import curriculum
from xailab.course import messages, records
from xailab.course.items import Items, item_analysis
from xailab.course.saved import VIEW

if TYPE_CHECKING:
    from ipywidgets import VBox

When = Literal["before", "after"]
SKIP = "-"
_RULES = "Do not look anything up, and do not guess: '-' means that you do not know."


@dataclass(frozen=True)
class Choice:
    """One choice of a question, why it is right or wrong, and whether it is right."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Item:
    """One question; `lesson` names where the matter is taught."""

    name: str
    lesson: str
    text: str
    choices: tuple[Choice, ...]

    @property
    def right(self) -> Choice:
        """The one choice that is right."""
        return next(choice for choice in self.choices if choice.right)

    def chosen(self, text: str | None) -> Choice | None:
        """Return the choice of this text; None: unknown, or there was no answer."""
        return next((choice for choice in self.choices if choice.text == text), None)

    @property
    def lettered(self) -> dict[str, Choice]:
        """The choices by their letters, in order."""
        return dict(zip(ascii_lowercase, self.choices, strict=False))


@cache
def items() -> tuple[Item, ...]:
    """Return the questions in their order.

    >>> items()[0].name
    'where_not_why'
    """
    stored = tomllib.loads(Path(__file__).with_name("inventory.toml").read_text(encoding="utf-8"))
    return tuple(
        Item(row["name"], row["lesson"], row["text"], tuple(Choice(**c) for c in row["choices"]))
        for row in stored["questions"]
    )


def right(answers: Mapping[str, str]) -> dict[str, bool]:
    """Return for each question whether it was answered rightly; no answer is not right."""
    return {item.name: answers.get(item.name) == item.right.text for item in items()}


def gain(before: int, after: int, questions: int) -> float | None:
    r"""Return the normalized gain: what was learned of what was not yet known.

    $$g = \frac{after - before}{questions - before}$$

    Args:
        before: how many were right.
        after: how many are right now.
        questions: how many there are.

    Returns:
        At most 1, negative after a loss; None where all were right from the start.

    Reference: Hake (1998), Interactive-engagement versus traditional methods.

    >>> gain(8, 14, 20)
    0.5
    """
    return None if before == questions else (after - before) / (questions - before)


def concept_inventory(when: When | None = None, letters: str | None = None) -> None:
    """Take the 20 questions in a notebook, before or after the course.

    Args:
        when: "before" or "after"; None: show how far you are.
        letters: the answers as letters in the order of the questions, "-" for one that you do not
            know: "abdc-..."; None: show the questions, with buttons where widgets run.

    Raises:
        ValueError: another time, too few or too many letters, or letters of no choice.
    """
    if when is None or _is_over(when):
        return show_standing()
    if letters is not None:
        return hand_in(when, _by_letters(letters))
    plain, html = _plain(when), _html(when)
    if records.strict() or not messages.in_notebook():
        return messages.show(plain, html)
    messages.show(plain, html, view=_view(_form(when)))


def _is_over(when: str) -> bool:
    """Return whether it is too late for "before": the first answers stand, or all was explained."""
    if when not in get_args(When):
        raise ValueError(f'the inventory is taken "before" or "after" the course, not {when!r}')
    return when == "before" and bool(records.answers())


def _by_letters(letters: str) -> dict[str, str]:
    given = "".join(letters.split()).lower()
    if len(given) != len(items()):
        raise ValueError(f"expected {len(items())} letters, one a question, but {len(given)} came")
    pairs = zip(items(), given, strict=True)
    answers = {item.name: _by_letter(item, letter) for item, letter in pairs}
    return {name: text for name, text in answers.items() if text}


def _by_letter(item: Item, letter: str) -> str:
    """Return the text of a choice; nothing for "-"."""
    if letter == SKIP:
        return ""
    if letter not in item.lettered:
        raise ValueError(f"{letter!r} is none of {', '.join(item.lettered)}, {SKIP} ({item.text})")
    return item.lettered[letter].text


def hand_in(when: When, answers: Mapping[str, str]) -> None:
    """Store the answers; after the second time, show the gain and explain every question."""
    if not _is_over(when):
        records.record_answers(when, dict(answers))
    show_standing()


def show_standing() -> None:
    """Show what was taken; after the course the gain, and each question with its explanation."""
    stored = records.answers()
    plain = standing(stored)
    html = "".join(f"<p>{escape(line)}</p>" for line in plain.splitlines())
    if "after" in stored:
        plain = "\n\n".join([plain, *(explained(item, stored) for item in items())])
        html += "".join(_explained_html(item, stored) for item in items())
    messages.show(plain, html)


def standing(stored: Mapping[str, Mapping[str, str]]) -> str:
    """Return in words what was taken, and the gain where it can be told."""
    score = {when: sum(right(answers).values()) for when, answers in stored.items()}
    of = len(items())
    if "after" not in score:
        taken = "Your answers before the course are kept." if score else "Nothing is stored yet."
        next_time = "after" if score else "before"
        return f"{taken} Next: the same {of} questions {next_time} the course."
    lines = [f"after the course:  {score['after']} of {of}"]
    if "before" in score:
        lines.insert(0, f"before the course: {score['before']} of {of}")
        part = gain(score["before"], score["after"], of)
        told = "none was missing" if part is None else f"{part:.2f} of what was missing"
        lines.append(f"gain:              {told}")
    return "\n".join(lines)


def explained(item: Item, stored: Mapping[str, Mapping[str, str]]) -> str:
    """Return a question with what was chosen, what is right, and why."""
    times = [when for when in get_args(When) if when in stored]
    chosen = {when: item.chosen(stored[when].get(item.name)) for when in times}
    marks = ", ".join(f"{when}: {_mark(choice)}" for when, choice in chosen.items())
    wrong = dict.fromkeys(choice for choice in chosen.values() if choice and not choice.right)
    lines = [f"{item.text} ({marks})"]
    for sign, choice in [*(("✗", choice) for choice in wrong), ("✓", item.right)]:
        lines += [f"  {sign} {choice.text}", f"    {choice.why}"]
    lines.append(f"    Lesson: {curriculum.lesson(item.lesson).words}")
    return _folded(lines)


def _mark(choice: Choice | None) -> str:
    return "no answer" if choice is None else "right" if choice.right else "wrong"


def _folded(lines: Iterable[str]) -> str:
    """Return lines of at most 96 characters; what goes on is indented."""
    return "\n".join(fill(line, 96, subsequent_indent=" " * 4) for line in lines)


def _explained_html(item: Item, stored: Mapping[str, Mapping[str, str]]) -> str:
    text = escape(explained(item, stored))
    return (
        f"<details><summary>{escape(item.text)}</summary>"
        f"<pre style='white-space:pre-wrap'>{text}</pre></details>"
    )


def asked(item: Item, number: int) -> str:
    """Return a question with its choices, as text."""
    lines = [f"  {letter}) {choice.text}" for letter, choice in item.lettered.items()]
    return _folded([f"{number}. {item.text}", *lines])


def _plain(when: When) -> str:
    questions = [asked(item, number) for number, item in enumerate(items(), 1)]
    how = f'Answer with concept_inventory("{when}", "abcd..."): one letter a question. {_RULES}'
    return "\n\n".join([*questions, how])


def _html(when: When) -> str:
    questions = "".join(f"<li>{_asked_html(item)}</li>" for item in items())
    how = f'concept_inventory("{when}", "abcd...")'
    return (
        f"<ol>{questions}</ol><p>Answer with <code>{escape(how)}</code>: one letter a question. "
        f"{_RULES}</p>"
    )


def _asked_html(item: Item) -> str:
    choices = "".join(f"<li>{escape(choice.text)}</li>" for choice in item.choices)
    return f"{escape(item.text)}<ol type='a'>{choices}</ol>"


def _view(form: "VBox | None") -> dict[str, Any]:
    if form is None:
        return {}
    return {VIEW: {"version_major": 2, "version_minor": 0, "model_id": form.model_id}}


def _form(when: When) -> "VBox | None":
    """Return the questions with buttons for the letters; None without ipywidgets."""
    try:
        from ipywidgets import HTML, Button, Output, ToggleButtons, VBox
    except ImportError:
        return None

    look: Any = {"value": SKIP, "style": {"button_width": "3em"}}
    buttons = {item.name: ToggleButtons(options=[*item.lettered, SKIP], **look) for item in items()}
    done, result = Button(description="Hand in", button_style="primary"), Output()

    def submit(_: object) -> None:
        letters = "".join(str(each.value) for each in buttons.values())
        result.clear_output()
        with result:
            hand_in(when, _by_letters(letters))
        done.disabled = True

    done.on_click(submit)
    rows: list[Any] = []
    for number, item in enumerate(items(), 1):
        rows += [HTML(f"<p><strong>{number}.</strong> {_asked_html(item)}</p>"), buttons[item.name]]
    return VBox([HTML(f"<p>{_RULES}</p>"), *rows, done, result])


def ask(when: When, prompt: Callable[[str], str]) -> None:
    """Ask the questions one by one in a terminal; nothing is stored before the last.

    Args:
        when: "before" or "after".
        prompt: shows a text and returns what was typed.
    """
    if _is_over(when):
        return show_standing()
    print(_RULES)
    letters = [_letter_of(item, number, prompt) for number, item in enumerate(items(), 1)]
    hand_in(when, _by_letters("".join(letters)))


def _letter_of(item: Item, number: int, prompt: Callable[[str], str]) -> str:
    print(f"\n{asked(item, number)}")
    allowed = [*item.lettered, SKIP]
    while (letter := prompt(", ".join(allowed)).strip().lower()) not in allowed:
        print(f"Type one of {', '.join(allowed)}.")
    return letter


def analyze(files: Iterable[Path], when: When) -> Items:
    """Return the item analysis of a class, from the records that learners handed in.

    Args:
        files: `progress.json` of each learner; those without answers of that time are left out.
        when: "before" or "after".

    Raises:
        ValueError: fewer than two of them hold answers, or one is no file of records.
    """
    table = []
    for file in files:
        try:
            answers = json.loads(file.read_text(encoding="utf-8"))["inventory"].get(when)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{file} is no file of records: {error!r}") from None
        if answers is not None:
            table.append(list(right(answers).values()))
    if len(table) < 2:
        raise ValueError(f'{len(table)} of the files hold answers "{when}": at least 2 are needed')
    return item_analysis(table)


def report(files: Iterable[Path], when: When) -> str:
    """Return the item analysis of a class as a table in text; errors as for `analyze`."""
    found = analyze(files, when)
    width = max(len(item.name) for item in items())
    rows = zip(items(), found.difficulty, found.discrimination, strict=True)
    lines = [
        f"{item.name:<{width}}  {share:8.2f}  {apart:12.2f}{_warning(apart)}"
        for item, share, apart in rows
    ]
    head = f"{'question':<{width}}  {'right':>8}  {'discrimination':>12}"
    return "\n".join([head, *lines, f"reliability (KR-20): {found.kr20:.2f}"])


def _warning(discrimination: float) -> str:
    if discrimination < 0:
        return "  those who know the rest get it wrong: read it again"
    return "  hardly tells who knows the rest" if discrimination < 0.2 else ""
