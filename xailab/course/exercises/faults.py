"""Exercises of lesson `faults`: bits by hand, what a fault costs, and what a guard promises."""

import math
import struct
from typing import Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_choice,
    expect_close,
    expect_shape,
    expect_share,
    question,
)

# The names that the lesson's `corrupt` knows; importing them would import torch.
_KINDS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "brightness",
    "contrast",
    "pixelate",
)


@exercise(
    "faults.flip",
    kind="code",
    points=2,
    minutes=8,
    difficulty=2,
    hints=(
        "Three steps: the float's bits as a whole number, one bit turned over, and back to a float.",
        "`whole ^ (1 << bit)` turns over exactly one bit, whether it was 0 or 1.",
        '(whole,) = struct.unpack(">I", struct.pack(">f", value)); then '
        'struct.unpack(">f", struct.pack(">I", ...))[0]',
    ),
)
def flip(answer: Any) -> None:
    """Bits of all three kinds, where they are 0 and where they are 1."""
    cases = [(0.15625, 31), (0.15625, 30), (0.15625, 29), (0.15625, 22), (-3.0, 31), (0.0, 30)]
    want = [_flipped(value, bit) for value, bit in cases]
    got = [_number(answer(value, bit), value, bit) for value, bit in cases]
    known = {what: [slip(value, bit) for value, bit in cases] for what, slip in _FLIP_SLIPS.items()}
    expect_close(got, want, f"the numbers {_listed(cases)}", rtol=1e-6, atol=0, known=known)
    expect_close(
        [_number(answer(1.5, bit), 1.5, bit) for bit in range(30)],
        [_flipped(1.5, bit) for bit in range(30)],
        "1.5 with each of the bits 0 to 29 flipped",
        rtol=0,
        atol=0,
    )


def _number(came: Any, value: float, bit: int) -> float:
    """Return the one number that came; refuse all else in words that fit this exercise."""
    if isinstance(came, bytes):
        raise Mistake("bytes came: read them as a float with struct.unpack('>f', ...)[0].")
    if isinstance(came, tuple):
        raise Mistake("a tuple came: struct.unpack always returns one; take its element [0].")
    if isinstance(came, int) and came == _whole(value) ^ 1 << bit:
        raise Mistake("the bits are right, but they are still a whole number: back to a float.")
    expect_shape(came, (), "the flipped number")
    return float(came)


def _listed(cases: list[tuple[float, int]]) -> str:
    return ", ".join(f"{value:g} with bit {bit}" for value, bit in cases) + " flipped"


def _whole(value: float) -> int:
    return int(struct.unpack(">I", struct.pack(">f", value))[0])


def _float(whole: int) -> float:
    return float(struct.unpack(">f", struct.pack(">I", whole % 2**32))[0])


def _flipped(value: float, bit: int) -> float:
    return _float(_whole(value) ^ 1 << bit)


def _as_double(value: float, bit: int) -> float:
    """Flip the bit of a 64-bit float."""
    (whole,) = struct.unpack(">Q", struct.pack(">d", value))
    return float(struct.unpack(">d", struct.pack(">Q", whole ^ 1 << bit))[0])


_FLIP_SLIPS = {
    "the bits are counted from the other end: bit 0 is the lowest of the fraction, so it stands "
    "last in the text.": lambda value, bit: _flipped(value, 31 - bit),
    "`|` sets the bit; where it is 1 already, nothing happens. Turn it over with ^.": (
        lambda value, bit: _float(_whole(value) | 1 << bit)
    ),
    "`& ~` clears the bit; where it is 0 already, nothing happens. Turn it over with ^.": (
        lambda value, bit: _float(_whole(value) & ~(1 << bit))
    ),
    "`whole ^ bit` turns over the bits of the number `bit`; the mask is 1 << bit.": (
        lambda value, bit: _float(_whole(value) ^ bit)
    ),
    "`whole + (1 << bit)` carries over into the next bits where the bit is 1; use ^.": (
        lambda value, bit: _float(_whole(value) + (1 << bit))
    ),
    "this is a double, of 64 bits: a float32 is '>f' beside '>I'.": _as_double,
    "the number came back as it was.": lambda value, bit: value,
}


@exercise(
    "faults.ks",
    kind="code",
    points=3,
    minutes=8,
    difficulty=2,
    hints=(
        "The share of a sample at or below v is (sample <= v).mean().",
        "Compute both shares at every number of both samples: np.concatenate([now, reference]).",
        "np.searchsorted(np.sort(now), values, side='right') / len(now) gives all shares at once; "
        "then the largest absolute difference.",
    ),
)
def ks(answer: Any) -> None:
    """Paper, ties, samples of unlike length, either one above the other."""
    cases = [
        ([1.0, 2.0], [2.0, 3.0, 4.0, 5.0]),
        ([4.0, 5.0, 6.0], [1.0, 2.0]),
        ([1.0, 1.0, 2.0, 3.0, 3.0], [1.0, 3.0, 3.0, 4.0]),
        ([3.0, 1.0, 9.0], [2.0, 8.0, 1.5, 2.5]),
        ([0.0, 0.001, 0.002], [0.0015, 5.0]),
    ]
    samples = [(np.array(now), np.array(reference)) for now, reference in cases]
    want = [_distance(now, reference) for now, reference in samples]
    got = [answer(now.copy(), reference.copy()) for now, reference in samples]
    for came in got:
        expect_shape(came, (), "the distance")
    known = {what: [slip(*pair) for pair in samples] for what, slip in _KS_SLIPS.items()}
    expect_close(got, want, "the distances of five pairs of samples", known=known)


def _gaps(now: np.ndarray, reference: np.ndarray, side: Any = "right") -> np.ndarray:
    """Return F_now - F_reference at every number."""
    values = np.concatenate([now, reference])
    shares = [
        np.searchsorted(np.sort(sample), values, side=side) / len(sample)
        for sample in (now, reference)
    ]
    return np.asarray(shares[0] - shares[1])


def _distance(now: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(_gaps(now, reference)).max())


def _counts(now: np.ndarray, reference: np.ndarray) -> float:
    values = np.concatenate([now, reference])
    return max(abs(int((now <= v).sum()) - int((reference <= v).sum())) for v in values)


def _unsorted(now: np.ndarray, reference: np.ndarray) -> float:
    values = np.concatenate([now, reference])
    shares = [np.searchsorted(s, values, side="right") / len(s) for s in (now, reference)]
    return float(np.abs(shares[0] - shares[1]).max())


def _grid(now: np.ndarray, reference: np.ndarray) -> float:
    both = np.concatenate([now, reference])
    values = np.linspace(both.min(), both.max(), 100)
    return max(abs(float((now <= v).mean() - (reference <= v).mean())) for v in values)


_KS_SLIPS = {
    "the gap has no sign: take its absolute value, for now may lie above or below.": (
        lambda now, reference: _gaps(now, reference).max()
    ),
    "the gap has no sign, and its order is turned: take the absolute value.": (
        lambda now, reference: (-_gaps(now, reference)).max()
    ),
    "this is the mean of the gaps; the largest is asked for.": (
        lambda now, reference: np.abs(_gaps(now, reference)).mean()
    ),
    "this is the difference of the means; the distance compares the whole cumulative shares.": (
        lambda now, reference: abs(now.mean() - reference.mean())
    ),
    "these are counts, not shares: divide by the length of each sample.": _counts,
    "the gaps are looked for at the numbers of `now` alone; the largest may be at one of the "
    "reference.": lambda now, reference: np.abs(_gaps(now, reference)[: len(now)]).max(),
    "the gaps are looked for at the numbers of the reference alone; the largest may be at one of "
    "`now`.": lambda now, reference: np.abs(_gaps(now, reference)[len(now) :]).max(),
    "np.searchsorted needs a sorted sample: sort both first.": _unsorted,
    "an even grid of values can miss the largest gap; look at the numbers of the samples.": _grid,
}


@exercise(
    "faults.negative",
    kind="predict",
    points=1,
    minutes=2,
    hints=("What does a ReLU make of a very negative number? And how many units are there?",),
)
def negative(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "faults.kind",
    kind="predict",
    points=1,
    minutes=2,
    hints=("Which of them makes something that no training digit has: think of the background.",),
)
def kind(guess: Any) -> None:
    """The name of a corruption."""
    expect_choice(guess, _KINDS)


criticize(
    "faults.report",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "One average stands for 1,000 flips. Over which three things does it average?",
        "Which bits can do harm at all, and what share of 1,000 random bits are they? Who is hurt "
        "when one class is never answered?",
        "Bit by bit and layer by layer; the worst beside the mean; errors by class or slice; NaN; "
        "activations, several flips, stuck values; how often flips happen.",
    ),
    model="""
    Most of the 32 bits do nothing, so the mean over random bits is small whatever the worst
    does: bit 30, one in 32, can take all the accuracy, and half of its hits are saved by a
    ReLU. I would ask for a table by bit and layer, with the worst case beside the mean, and for
    how the answers fail: NaN, one class for everything, or one class that is never found. A
    fault in the last layer can remove one answer, say pedestrians, and hardly move the
    accuracy, so I want the errors by class and slice. Bits in activations, several flips at
    once and flips that stay for hours were not tested. The risk also needs the rate of flips
    per hour and the number of cars. A limit on the activations and error correction for the
    high exponent bits alone would be cheap.
    """,
    rubric={
        "which bits": "Most of the 32 bits do nothing, so a mean over random bits is small; a "
        "high exponent bit is hit once in 32 flips.",
        "worst case": "A mean hides the worst flip, which can take all the accuracy: ask for it "
        "by bit and by layer.",
        "how it fails": "Accuracy hides how answers fail: NaN, one class for everything, or "
        "pedestrians never found. Ask for errors by class.",
        "untested faults": "Bits in activations, several flips at once, and flips that stay were "
        "not tested.",
        "rate": "The risk also needs the rate of flips per hour and the number of cars.",
        "protection": "Limits on activations, or error correction for the exponent bits alone, "
        "would be cheap.",
    },
)


def _alarms_a_day() -> int:
    return math.ceil(24 * 60 * 0.02)


question(
    "faults.q_format",
    "You store the weights with 8 bits each, as whole numbers from -128 to 127 times one scale "
    "(lesson `compression`). What is the worst that one flipped bit in a weight can do now?",
    choices={
        "As bad as before: it may become gigantic.": "An int8 has no exponent. No pattern of its "
        "bits stands for a number beyond 127 times the scale.",
        "Change it by 128 steps of the scale.": "The highest bit is worth 128 steps: as much as the "
        "largest weight there is. That hurts, but nothing is flooded.",
        "Nothing that one could notice.": "The highest bit moves the weight by as much as the "
        "largest weight of its layer has.",
    },
    right="Change it by 128 steps of the scale.",
)

question(
    "faults.q_rate",
    "Your monitor promises at most 2% false alarms a batch. One batch comes each minute, day and "
    "night. How many false alarms a day do you tell the people who will get them?",
    choices={
        "None, if nothing is wrong.": "That is what the 2% are about: alarms while nothing is wrong.",
        "About two.": "2% of 100 batches are two. A day has 1,440 of them.",
        f"Up to about {_alarms_a_day()}.": "1,440 batches, 2% of each. Nobody answers to so many: "
        "promise less, or ask for two alarms in a row.",
    },
    right=f"Up to about {_alarms_a_day()}.",
)
