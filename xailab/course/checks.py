"""What a lesson calls under an exercise: `check`, `hint`, `predict` and `reveal`."""

import linecache
import traceback
from typing import Any

from xailab.course import records, rubrics, stubs, whereabouts
from xailab.course.compare import Mistake, as_text
from xailab.course.limits import Ended, limited
from xailab.course.messages import Message
from xailab.course.registry import Exercise, find_exercise

_hints_given: dict[str, int] = {}
_guesses: dict[str, Any] = {}


def check(id: str, answer: Any) -> None:
    """Test an answer and say what is right or wrong with it.

    A free text is not tested: its model answer and a rubric are shown, for a person to tick. Code
    runs within limits (`xailab.course.limits`): whatever it does, the notebook goes on.

    Args:
        id: `TOPIC.NAME` of an exercise of kind "code" or "criticize".
        answer: the learner's function, class, value or text.

    Raises:
        ValueError: there is no such exercise, or it is a prediction (`predict`).
        Mistake: the answer is wrong or missing, and `XAILAB_STRICT=1`.
    """
    entry = find_exercise(id)
    whereabouts.note(id)
    if entry.kind == "predict":
        raise ValueError(f"{id} is a prediction: use predict({id!r}, guess)")
    message = _judge(entry, answer)
    if entry.kind == "criticize" and message.status == "noted":
        records.record(id, passed=True)
        return rubrics.show(entry, answer)
    _finish(entry, message)


def predict(id: str, guess: Any) -> None:
    """Note a guess before the cell that shows the answer; `reveal` puts both side by side.

    Raises:
        ValueError: there is no such exercise, or it is not a prediction (`check`).
        Mistake: the guess is missing or not of the form asked for, and `XAILAB_STRICT=1`.
    """
    entry = find_exercise(id)
    whereabouts.note(id)
    if entry.kind != "predict":
        raise ValueError(f"{id} is no prediction: use check({id!r}, answer)")
    message = _judge(entry, guess)
    if message.status != "noted":
        return _finish(entry, message)
    _guesses[id] = guess
    _finish(entry, message, as_text(guess))


def reveal(id: str, actual: Any) -> None:
    """Show the guess noted by `predict` beside what came; without a guess, ask for one.

    Raises:
        ValueError: there is no such exercise.
        Mistake: there is no guess, and `XAILAB_STRICT=1`.
    """
    entry = find_exercise(id)
    guess = _guesses.get(id, records.read().get(id, {}).get("guess"))
    if guess is None:
        text = "Write your guess in the cell above first; this cell then shows what came."
        return _finish(entry, Message("not done", id, text))
    lines = [f"you guessed: {as_text(guess)}", f"what came:   {as_text(actual)}"]
    Message("noted", id, "\n".join([*lines, *_distance(guess, actual)])).show()


def hint(id: str) -> None:
    """Show the next hint; after the last one, the last one again.

    Raises:
        ValueError: there is no such exercise.
    """
    entry = find_exercise(id)
    if not entry.hints:
        return Message("noted", id, "There is no hint for this one.").show()
    number = min(_hints_given.get(id, 0) + 1, len(entry.hints))
    _hints_given[id] = number
    text = entry.hints[number - 1]
    Message("noted", f"hint {number} of {len(entry.hints)} for {id}", text).show()


def _judge(entry: Exercise, answer: Any) -> Message:
    """Run the check; whatever happens in the learner's code becomes a message."""
    if stubs.is_empty(answer) or _is_short(entry, answer):
        return Message("not done", entry.id, _how_to_start(entry))
    try:
        with limited(entry.seconds):
            remark = entry.check(answer)
    except Ended as end:
        return Message("stopped", entry.id, str(end))
    except Exception as error:
        if stubs.has_open_stub(answer):
            return Message("not done", entry.id, f"Replace the ... under {stubs.CODE!r}.")
        return Message("wrong", entry.id, explain(error, answer))
    return _accepted(entry, answer, remark)


def _is_short(entry: Exercise, answer: Any) -> bool:
    free = entry.kind == "criticize" and isinstance(answer, str)
    return free and len(answer.split()) < rubrics.FEWEST_WORDS


def _accepted(entry: Exercise, answer: Any, remark: str | None) -> Message:
    if entry.kind == "code":
        worth = f"{entry.id} ({entry.points} point{'s' * (entry.points != 1)})"
        return Message("right", worth, remark or "")
    return Message("noted", entry.id, remark or f"Your guess: {as_text(answer)}. Run on.")


def _how_to_start(entry: Exercise) -> str:
    where = {
        "code": f"Replace the ... under {stubs.CODE!r} and run both cells.",
        "predict": "Write your guess in place of ... and run the cell.",
        "criticize": f"Write some sentences in place of {stubs.TEXT!r}; then the model answer "
        "and the points to tick appear.",
    }
    return f"{where[entry.kind]} About {entry.minutes} min."


def _finish(entry: Exercise, message: Message, guess: str | None = None) -> None:
    passed = message.status in ("right", "noted")
    if message.status != "not done":
        records.record(entry.id, passed=passed, guess=guess)
    message.show()
    if records.strict() and not passed:
        raise Mistake(message.plain)


def explain(error: Exception, answer: Any) -> str:
    """Return what went wrong in plain words, with the line of the learner's code it happened in."""
    if isinstance(error, Mistake):
        return str(error)
    what = f"{type(error).__name__}: {error}"
    name = getattr(answer, "__name__", "your answer")
    module = getattr(answer, "__module__", None)
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [(f, line) for f, line in frames if f.f_globals.get("__name__") == module]
    if not own:
        return f"Calling {name} as the exercise asks, or reading what it returns, failed.\n{what}"
    frame, line = own[-1]
    code = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    return f"{name} stopped in line {line} of its cell: {code}\n{what}"


def _distance(guess: Any, actual: Any) -> list[str]:
    if isinstance(guess, int | float) and isinstance(actual, int | float):
        return [f"off by:      {abs(guess - actual):.4g}"]
    same = as_text(guess).strip().casefold() == as_text(actual).strip().casefold()
    return ["As you guessed."] if same else []
