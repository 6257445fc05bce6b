"""Checks of `faults`: right answers pass, also unlike ours; wrong ones are named."""

import struct

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.exercises import faults as module
from xailab.course.registry import exercises_of, find_exercise
from xailab.trust import faults

LESSON = "faults"


def whole_of(value):
    return struct.unpack(">I", struct.pack(">f", value))[0]


def float_of(whole):
    return struct.unpack(">f", struct.pack(">I", whole % 2**32))[0]


def by_text(value, bit):
    """Turn the character over."""
    text = list(f"{whole_of(value):032b}")
    text[31 - bit] = "1" if text[31 - bit] == "0" else "0"
    return float_of(int("".join(text), 2))


def test_flip_takes_the_model_answer_and_other_ways():
    assert_accepted("faults.flip", solution_of(LESSON, "flip"))
    assert_accepted("faults.flip", by_text)
    assert_accepted("faults.flip", lambda v, bit: faults.flipped(torch.tensor(v), bit))
    assert_accepted(
        "faults.flip",
        lambda v, bit: (np.float32(v).view(np.uint32) ^ np.uint32(1 << bit)).view(np.float32),
    )


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda v, bit: by_text(v, 31 - bit), "from the other end"),
        (lambda v, bit: float_of(whole_of(v) | 1 << bit), "sets the bit"),
        (lambda v, bit: float_of(whole_of(v) & ~(1 << bit)), "clears the bit"),
        (lambda v, bit: float_of(whole_of(v) ^ bit), "bits of the number"),
        (lambda v, bit: float_of(whole_of(v) + (1 << bit)), "carries over"),
        (lambda v, bit: module._as_double(v, bit), "a double, of 64 bits"),
        (lambda v, bit: v, "as it was"),
        (lambda v, bit: whole_of(v) ^ 1 << bit, "still a whole number"),
        (lambda v, bit: struct.pack(">I", whole_of(v) ^ 1 << bit), "bytes came"),
        (lambda v, bit: (by_text(v, bit),), r"element \[0\]"),
        (lambda v, bit: -v, "expected"),
        (lambda v, bit: None, "None"),
    ],
)
def test_flip_names_the_mistake(wrong, match):
    assert_rejected("faults.flip", wrong, match)


def test_an_answer_for_the_named_cases_alone_is_not_enough():
    cases = {(0.15625, 31), (0.15625, 30), (0.15625, 29), (0.15625, 22), (-3.0, 31), (0.0, 30)}
    cheat = lambda v, bit: by_text(v, bit) if (v, bit) in cases else v  # noqa: E731
    assert_rejected("faults.flip", cheat, "bits 0 to 29")


def slow_ks(now, reference):
    return max(abs((now <= v).mean() - (reference <= v).mean()) for v in [*now, *reference])


def test_ks_takes_the_model_answer_and_other_ways():
    assert_accepted("faults.ks", solution_of(LESSON, "ks_distance"))
    assert_accepted("faults.ks", slow_ks)
    assert_accepted("faults.ks", lambda now, reference: ks_2samp(now, reference).statistic)
    # Strictly below one number is at or below the number before it: the same gaps.
    assert_accepted("faults.ks", lambda a, b: np.abs(module._gaps(a, b, "left")).max())


def on_a_grid(a, b, n=1000):
    values = np.linspace(both(a, b).min(), both(a, b).max(), n)
    return np.abs(shares(a, values) - shares(b, values)).max()


def shares(sample, values):
    return np.searchsorted(np.sort(sample), values, side="right") / len(sample)


def both(now, reference):
    return np.concatenate([now, reference])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda a, b: (shares(a, both(a, b)) - shares(b, both(a, b))).max(), "no sign"),
        (lambda a, b: (shares(b, both(a, b)) - shares(a, both(a, b))).max(), "order is turned"),
        (lambda a, b: np.abs(shares(a, both(a, b)) - shares(b, both(a, b))).mean(), "the mean of"),
        (lambda a, b: abs(a.mean() - b.mean()), "difference of the means"),
        (
            lambda a, b: max(abs((a <= v).sum() - (b <= v).sum()) for v in both(a, b)),
            "counts, not shares",
        ),
        (lambda a, b: np.abs(shares(a, a) - shares(b, a)).max(), "numbers of `now` alone"),
        (lambda a, b: np.abs(shares(a, b) - shares(b, b)).max(), "of the reference alone"),
        (module._unsorted, "needs a sorted sample"),
        (on_a_grid, "even grid"),
        (lambda a, b: np.abs(shares(a, both(a, b)) - shares(b, both(a, b))), "shape"),
        (lambda a, b: None, "None"),
    ],
)
def test_ks_names_the_mistake(wrong, match):
    assert_rejected("faults.ks", wrong, match)


def test_no_two_mistakes_look_alike():
    """A slip that computes the right numbers, or another slip's, would be named wrongly."""
    pairs = [
        ([1.0, 2.0], [2.0, 3.0, 4.0, 5.0]),
        ([4.0, 5.0, 6.0], [1.0, 2.0]),
        ([1.0, 1.0, 2.0, 3.0, 3.0], [1.0, 3.0, 3.0, 4.0]),
        ([3.0, 1.0, 9.0], [2.0, 8.0, 1.5, 2.5]),
        ([0.0, 0.001, 0.002], [0.0015, 5.0]),
    ]
    ways = [slow_ks, *module._KS_SLIPS.values()]
    found = [[float(way(np.array(a), np.array(b))) for a, b in pairs] for way in ways]
    for i, numbers in enumerate(found):
        assert not any(np.allclose(numbers, other) for other in found[:i])


def test_guesses():
    assert_accepted("faults.negative", 0.5)
    assert_rejected("faults.negative", 97, "write 97% as 0.97")
    assert_accepted("faults.kind", "contrast")
    assert_rejected("faults.kind", "fog", "gaussian_noise")


def test_the_kinds_are_those_of_the_package():
    assert module._KINDS == faults.CORRUPTIONS


def test_the_quiz_counts_right():
    assert module._alarms_a_day() == 29


def test_an_int8_cannot_be_flooded():
    """The quiz on formats: the worst of 8 bits is worth 128 steps."""
    values = np.arange(-128, 128, dtype=np.int8)
    masks = (np.uint8(1) << np.arange(8, dtype=np.uint8))[:, None]
    flips = (values.view(np.uint8) ^ masks).view(np.int8)
    assert np.abs(flips.astype(int) - values.astype(int)).max() == 128


def test_every_exercise_with_a_number_of_steps_has_hints():
    steps = {e.id: len(e.hints) for e in exercises_of("faults") if e.kind != "predict"}
    assert steps == dict.fromkeys(["faults.flip", "faults.ks", "faults.report"], 3)
    assert find_exercise("faults.negative").hints
