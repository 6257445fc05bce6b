"""The checks of lesson `start_here` take what is right and name what is wrong."""

import numpy as np
import pytest

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.stubs import is_empty

LESSON = "start_here"


def by_sorting(logits, names, k):
    pairs = sorted(zip(logits.tolist(), names, strict=True), reverse=True)
    return tuple(name for _, name in pairs[:k])


def by_numpy(logits, names, k):
    return np.array(names)[np.argsort(-logits.numpy())[:k]]


@pytest.mark.parametrize("answer", [by_sorting, by_numpy])
def test_top_names_accepts_other_ways(answer):
    assert_accepted("start_here.top_names", answer)


def test_top_names_accepts_the_model_answer():
    assert_accepted("start_here.top_names", solution_of(LESSON, "top_names"))


def picked(places):
    return lambda logits, names, k: [names[i] for i in places(logits)[:k]]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (picked(lambda z: z.argsort()), "smallest logits"),
        (picked(lambda z: z.abs().argsort(descending=True)), "without the absolute value"),
        (picked(lambda z: range(len(z))), "the logits were not used"),
        (lambda z, names, k: [names[i] for i in z.argsort()[-k:]], "the largest logit comes first"),
        (lambda z, names, k: [names[i] for i in z.argsort(descending=True)], "where do you use k"),
        (lambda z, names, k: z.argsort(descending=True)[:k], r"look up the name"),
        (lambda z, names, k: names[z.argmax()], "a list of names"),
        (lambda z, names, k: None, "None came"),
        (picked(lambda z: [3, 4, 0, 1]), "sort the places"),
    ],
)
def test_top_names_names_the_mistake(wrong, match):
    assert_rejected("start_here.top_names", wrong, match)


@pytest.mark.parametrize("guess", [0, 0.16, 1, np.float32(0.5)])
def test_astronaut_accepts_probabilities(guess):
    assert_accepted("start_here.astronaut", guess)


def test_astronaut_accepts_the_guess_of_the_solution():
    assert_accepted("start_here.astronaut", solution_of(LESSON, "guess"))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (80, "write 80 % as 0.8"),
        ("80 %", "as the number 0.8"),
        (-0.1, "from 0 to 1"),
        (1000, "from 0 to 1"),
        ("astronaut", "should be numbers"),
        ([0.2, 0.3], "a number from 0 to 1"),
    ],
)
def test_astronaut_names_the_mistake(wrong, match):
    assert_rejected("start_here.astronaut", wrong, match)


def test_the_stubs_count_as_not_done():
    assert is_empty("\n(your answer here)\n")
    assert is_empty(...)
