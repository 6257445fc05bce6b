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


OTHER_WAY = (
    "There is hardly any background, so a map cannot be anywhere but on the cat. "
    "Hide the cheek and look whether the probability falls."
)
WHERE_NOT_WHAT = (
    "The map only says where the network found evidence, not what it saw there: it could use a "
    "collar. I would blur the face and see if the probability falls."
)
OWN_SCALE = (
    "Every map has a bright spot, because it is drawn on its own scale, also where there is no "
    "cat. I would ask for another class and compare the tops."
)


@pytest.mark.parametrize("argument", [OTHER_WAY, WHERE_NOT_WHAT, OWN_SCALE])
def test_right_reason_accepts_each_doubt_with_a_test(argument):
    assert_accepted("start_here.right_reason", argument)


def test_right_reason_accepts_the_model_answer():
    assert_accepted("start_here.right_reason", solution_of(LESSON, "argument"))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("No.", "at least 15 words"),
        (
            "It does follow, because the map is warm on the cat and so the network looks at the "
            "cat and has learned what a cat looks like.",
            "agree with your friend",
        ),
        (
            "I think the map is warm on the cat because the network has seen cats in training and "
            "so it must be right.",
            "Could this map have missed",
        ),
        (
            "The network is only 39 percent sure of tiger cat, so one should take another network "
            "that is better trained.",
            "How sure the network is, is another question",
        ),
        (
            "The cat is the whole photo, so the map is always warm on the cat, and that tells us "
            "nothing about the true reason.",
            "needs a test",
        ),
        (42, "as text"),
    ],
)
def test_right_reason_asks_for_what_is_missing(wrong, match):
    assert_rejected("start_here.right_reason", wrong, match)


def test_the_stubs_count_as_not_done():
    assert is_empty("\n(your answer here)\n")
    assert is_empty(...)
