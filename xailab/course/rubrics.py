"""Free texts: no machine scores them. The model answer is shown, and a person ticks a rubric."""

from html import escape
from typing import TYPE_CHECKING, Any

from xailab.course import messages, records
from xailab.course.messages import Message
from xailab.course.registry import Exercise, find_exercise
from xailab.course.saved import VIEW

if TYPE_CHECKING:
    from ipywidgets import VBox

FEWEST_WORDS = 8  # below that, nothing was tried yet, and the model answer stays hidden


def tick(id: str, *points: int | str, by: records.By = "you") -> None:
    """Note which points of its rubric an answer makes; the last call counts.

    Args:
        id: `TOPIC.NAME` of a free text whose answer has been written.
        points: numbers (from 1) or names of the points; none: it makes none of them.
        by: "you" for the learner's own judgment, "teacher" for a teacher's, which stays.

    Raises:
        ValueError: there is no such exercise or point, or it is no free text.
    """
    entry = find_exercise(id)
    if entry.kind != "criticize":
        raise ValueError(f"{id} is no free text: a machine checks it")
    if by not in ("you", "teacher"):
        raise ValueError(f'by is "you" or "teacher", not {by!r}')
    chosen = {_name(entry, point) for point in points}
    names = [name for name in entry.rubric if name in chosen]
    if refusal := _refusal(entry, by):
        return Message("not done", id, refusal).show()
    records.record_ticks(id, names, by)
    said = [f"{_box(name in names)} {line}" for name, line in _lines(entry).items()]
    Message("noted", id, "\n".join([*said, score(entry, names, by)])).show()


def _name(entry: Exercise, point: int | str) -> str:
    names = list(entry.rubric)
    if isinstance(point, str) and point in names:
        return point
    if isinstance(point, int) and not isinstance(point, bool) and 1 <= point <= len(names):
        return names[point - 1]
    raise ValueError(f"{entry.id} has the points 1 to {len(names)} ({', '.join(names)}): {point!r}")


def _refusal(entry: Exercise, by: str) -> str:
    record = records.read().get(entry.id, {})
    if by == "you" and record.get("by") == "teacher":
        return "A teacher has ticked this answer; that stays."
    if records.place() and not record.get("passed"):
        return "Write your answer and run its check first; then tick what it says."
    return ""


def ticked(entry: Exercise, record: records.Record) -> list[str]:
    """Return the points ticked in a record, as far as the rubric still has them."""
    return [name for name in entry.rubric if name in record.get("ticked", [])]


def worth(entry: Exercise, names: list[str]) -> float:
    """Return the points that so many ticks give.

    >>> from types import SimpleNamespace
    >>> worth(SimpleNamespace(points=3, rubric=dict.fromkeys("abcde", "")), ["a", "c"])
    1.2
    """
    return round(entry.points * len(names) / len(entry.rubric), 2)


def score(entry: Exercise, names: list[str], by: str) -> str:
    """Return in one line how many points were ticked, by whom, and what that gives."""
    who = "by a teacher" if by == "teacher" else "by you"
    return (
        f"{len(names)} of {len(entry.rubric)} ticked {who}: "
        f"{worth(entry, names):g} of {entry.points} points"
    )


def show(entry: Exercise, answer: str) -> None:
    """Show the model answer, unless this is it, and the rubric to tick."""
    record = records.read().get(entry.id, {})
    model = "" if " ".join(answer.split()) == entry.model else entry.model
    plain = Message("noted", entry.id, _plain(entry, model, record)).plain
    html = _head(entry, model) + _html(entry, record)
    if records.strict() or record.get("by") == "teacher" or not messages.in_notebook():
        return messages.show(plain, html)
    messages.show(plain, html, view=_view(_checklist(entry, model, record)))


def _view(widget: "VBox | None") -> dict[str, Any]:
    if widget is None:
        return {}
    return {VIEW: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}


_ASK = "No machine scores a text. Tick what yours says, in its own words"


def _plain(entry: Exercise, model: str, record: records.Record) -> str:
    names = ticked(entry, record)
    shown = ["Model answer:", model, ""] if model else []
    lines = [f"{_box(name in names)} {line}" for name, line in _lines(entry).items()]
    return "\n".join([*shown, f"{_ASK}: {_call(entry)}", *lines, _standing(entry, record)])


def _call(entry: Exercise) -> str:
    return f'tick("{entry.id}", 1, 3)'


def _lines(entry: Exercise) -> dict[str, str]:
    numbered = enumerate(entry.rubric.items(), 1)
    return {name: f"{number} {name}: {text}" for number, (name, text) in numbered}


def _box(is_ticked: bool) -> str:
    return "[x]" if is_ticked else "[ ]"


def _standing(entry: Exercise, record: records.Record) -> str:
    if "by" in record:
        return score(entry, ticked(entry, record), record["by"])
    return f"Done; nothing is ticked yet: 0 of {entry.points} points"


def _head(entry: Exercise, model: str) -> str:
    """The box of the message, with the model answer as a paragraph."""
    paragraph = f"<p style='max-width:60em'><em>Model answer.</em> {escape(model)}</p>"
    return Message("noted", entry.id).html_with(paragraph * bool(model))


def _html(entry: Exercise, record: records.Record) -> str:
    names = ticked(entry, record)
    items = "".join(
        f"<li>{'☑' if name in names else '☐'} <strong>{escape(name)}</strong>: {escape(text)}</li>"
        for name, text in entry.rubric.items()
    )
    return (
        f"<p>{_ASK}: <code>{escape(_call(entry))}</code></p><ol>{items}</ol>"
        f"<p>{escape(_standing(entry, record))}</p>"
    )


def _checklist(entry: Exercise, model: str, record: records.Record) -> "VBox | None":
    """Return boxes to tick that write the records at once; None without ipywidgets."""
    try:
        from ipywidgets import HTML, Checkbox, HBox, Layout, VBox
    except ImportError:
        return None
    from xailab.widgets.show import announced

    names = ticked(entry, record)
    boxes = {
        name: Checkbox(name in names, description=name, indent=False, layout=Layout(width="14em"))
        for name in entry.rubric
    }
    standing = HTML(announced(escape(_standing(entry, record))))

    def update(_: object) -> None:
        chosen = [name for name, box in boxes.items() if box.value]
        records.record_ticks(entry.id, chosen, "you")
        standing.value = announced(escape(score(entry, chosen, "you")))

    for box in boxes.values():
        box.observe(update, "value")
    rows = [HBox([box, HTML(escape(entry.rubric[name]))]) for name, box in boxes.items()]
    return VBox([HTML(_head(entry, model)), HTML(f"<p>{_ASK}.</p>"), *rows, standing])
