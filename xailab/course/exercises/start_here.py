"""Exercises of lesson `start_here`."""

from typing import Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_number,
    question,
)

_NAMES = ("ant", "bee", "cat", "dog", "eel")
_LOGITS = (1.0, 4.0, -9.0, 3.0, 0.5)


@exercise(
    "start_here.astronaut",
    kind="predict",
    points=1,
    minutes=1,
    hints=("Has the network seen a class that fits? Its probabilities still add up to 1.",),
)
def astronaut(answer: Any) -> None:
    """A probability."""
    if isinstance(answer, str) and answer.rstrip().endswith("%"):
        raise Mistake("a probability runs from 0 to 1: write 80 % as the number 0.8.")
    if isinstance(answer, int | float) and 1 < answer <= 100:
        raise Mistake(f"a probability runs from 0 to 1: write {answer} % as {answer / 100:g}.")
    expect_number(answer, 0, 1)


question(
    "start_here.q_bright",
    "In the map for tiger cat, one cell is bright. What do you know?",
    choices={
        "There is a tiger cat in that cell.": "The map speaks about the network, not about the "
        "world. You will see a bright cell for tiger cat in a photo without a cat.",
        "What the network found there raised its score for tiger cat.": "And no more than that: "
        "not what it found, and not whether the answer is true.",
        "The network is sure that it is a tiger cat.": "Bright means: the largest value of this "
        "map. How sure the network is, its probability says.",
    },
    right="What the network found there raised its score for tiger cat.",
)


criticize(
    "start_here.right_reason",
    points=2,
    minutes=4,
    hints=(
        "Find a place in the photo where the map could have been wrong. And what does a warm cell "
        "not tell you?",
        "The face fills the photo. Which photo would let a wrong map show itself? Or what could you "
        "cover, as you covered the helmet?",
        "Say: the cat is nearly everywhere, so the map cannot miss it. Test on a photo with other "
        "things beside the cat, such as a mosaic, and score the map there.",
    ),
    model="""
    The face fills the whole photo, so the map could not miss the cat: it would be warm on the
    cat whatever the reason was. A cell that is warm also does not say what was found there, fur
    or a shadow. I would ask about photos with other things beside the cat, or a mosaic where I
    know the right cell, score the map there, and cover the warm cells to see whether the score
    really falls.
    """,
    rubric={
        "could not miss": "The cat is nearly everywhere in this photo, so the map could not miss "
        "it, whatever the reason was.",
        "where, not what": "A warm cell does not say what was found there: fur, a shadow, a "
        "texture.",
        "a photo where it could fail": "Try photos with other things beside the cat, or a mosaic, "
        "and score the map there.",
        "cover it": "Cover the warm cells, beside as many others, and see whether the score falls.",
    },
)


question(
    "start_here.q_scope",
    '"For this bank\'s model, income matters most." What kind of explanation is that?',
    choices={
        "A local one: it explains one prediction.": "Then it would be about one customer: "
        '"your loan was refused because of your income".',
        "A global one: it says what the model has learned.": "It is about the model as a whole, "
        "and may be wrong for any single customer.",
        "A gradient.": "It may have been found with gradients or without: the sentence does not "
        "say. Ask what it is about.",
    },
    right="A global one: it says what the model has learned.",
)


@exercise(
    "start_here.top_names",
    kind="code",
    points=2,
    minutes=5,
    hints=(
        "Two steps: find where the largest logits stand, then look up the names of those places.",
        "`logits.argsort(descending=True)` gives all places, the place of the largest first.",
        "`places = logits.argsort(descending=True)[:k]`, then `[names[i] for i in places]`.",
    ),
)
def top_names(answer: Any) -> None:
    """Names, largest logit first, as many as asked for."""
    import torch

    for k in (2, 1, 4):
        _judge_names(answer(torch.tensor(_LOGITS), list(_NAMES), k), k)


def _judge_names(got: Any, k: int) -> None:
    """Compare the k names with the right ones, and say which mistake makes the difference."""
    asked = f"with the logits {list(_LOGITS)} of {', '.join(_NAMES)} and k = {k}"
    if isinstance(got, str) or not hasattr(got, "__iter__"):
        raise Mistake(f"{asked}, return a list of names; {got!r} came.")
    came = list(got)
    if not all(isinstance(name, str) for name in came):
        raise Mistake(f"{asked}, {came} came: look up the name of each place, names[i].")
    rising = sorted(range(len(_NAMES)), key=lambda i: _LOGITS[i])
    right = [_NAMES[i] for i in rising[::-1][:k]]
    if came != right:
        raise Mistake(f"{asked}, expected {right}, but {came} came: {_reason(came, right)}")


def _reason(came: list[str], right: list[str]) -> str:
    by_size = sorted(_NAMES, key=lambda name: -abs(_LOGITS[_NAMES.index(name)]))
    rising = sorted(_NAMES, key=lambda name: _LOGITS[_NAMES.index(name)])
    if len(came) != len(right):
        return f"{len(right)} asked for, {len(came)} returned; where do you use k?"
    if came == rising[: len(came)]:
        return "these have the smallest logits; turn the order around."
    if came == list(_NAMES[: len(came)]):
        return "these are the first names; the logits were not used."
    if sorted(came) == sorted(right):
        return "the right names, but the largest logit comes first."
    if came == by_size[: len(came)]:
        return "a logit below zero speaks against its class; sort without the absolute value."
    return "sort the places by their logit."
