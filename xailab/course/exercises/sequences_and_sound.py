"""Exercises of lesson `sequences_and_sound`: one step of a GRU, frames of a sound, and what silencing proves."""

from typing import TYPE_CHECKING, Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_number,
    expect_share,
    question,
)

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "sequences_and_sound.gru_step",
    kind="code",
    points=3,
    minutes=8,
    difficulty=2,
    hints=(
        "W @ x + b holds three answers, one below the other: for r, for z and for n. So does "
        "U @ h + c.",
        "r and z are sigmoids of the sum of their two thirds. In n, r multiplies the third of "
        "U @ h + c before the sum.",
        "wr, wz, wn = (W @ x + b).chunk(3); ur, uz, un = (U @ h + c).chunk(3); "
        "n = torch.tanh(wn + r * un); then mix n and h with z.",
    ),
)
def gru_step(answer: Any) -> None:
    """One step as torch's GRUCell takes it, biases included."""
    x, h, W, U, b, c = given = _one_step()
    copies = [each.clone() for each in given]
    wr, wz, wn = (W @ x + b).chunk(3)
    ur, uz, un = (U @ h + c).chunk(3)
    r, z = (wr + ur).sigmoid(), (wz + uz).sigmoid()
    n = (wn + r * un).tanh()
    _, _, inner = (U @ h).chunk(3)
    outside = (wn + r * inner + c.chunk(3)[2]).tanh()
    on_state = (wn + U.chunk(3)[2] @ (r * h) + c.chunk(3)[2]).tanh()
    known = {
        "z and 1 - z have changed places: z keeps the old state.": z * n + (1 - z) * h,
        "r and z have changed places: the order is r, z, n.": _mixed(r, (wn + z * un).tanh(), h),
        "the reset gate r is missing in n.": _mixed(z, (wn + un).tanh(), h),
        "r has to multiply the bias of U h, too.": _mixed(z, outside, h),
        "r multiplies h before U: torch multiplies U h + c.": _mixed(z, on_state, h),
        "r multiplies the word's part, too: it belongs to U h + c alone.": _mixed(
            z, (r * (wn + un)).tanh(), h
        ),
        "the biases b and c are missing.": _step(x, h, W, U, 0 * b, 0 * c),
        "the bias b of the word's part is missing.": _step(x, h, W, U, 0 * b, c),
        "the bias c of the state's part is missing.": _step(x, h, W, U, b, 0 * c),
        "n has no tanh.": _mixed(z, wn + r * un, h),
        "n goes through a sigmoid; it needs tanh, to become negative too.": _mixed(
            z, (wn + r * un).sigmoid(), h
        ),
        "this is the candidate n; mix it with the old state.": n,
    }
    want = _mixed(z, n, h)
    expect_close(answer(*given), want, "the new state", known=known)
    if any(not bool((a == b).all()) for a, b in zip(given, copies, strict=True)):
        raise Mistake("the new state is right, but your function changed what it was given.")


def _step(*given: "Tensor") -> "Tensor":
    """Return the new state as torch computes it."""
    import torch

    x, h, *weights = given
    return torch.gru_cell(x[None], h[None], *weights)[0]


def _mixed(z: "Tensor", n: "Tensor", h: "Tensor") -> "Tensor":
    return (1 - z) * n + z * h


def _one_step() -> "list[Tensor]":
    """Return x (2,), h (3,), W (9, 2), U (9, 3), b and c (9,), all different."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shapes = [(2,), (3,), (9, 2), (9, 3), (9,), (9,)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


@exercise(
    "sequences_and_sound.fading",
    kind="predict",
    points=1,
    minutes=2,
    hints=("If one step keeps 90 %, 24 steps keep 0.9 to the power of 24.",),
)
def fading(guess: Any) -> None:
    """A factor, at least 1."""
    expect_number(guess, 1, 1e12)


@exercise(
    "sequences_and_sound.frames",
    kind="code",
    points=2,
    minutes=5,
    difficulty=1,
    hints=(
        "Frame t is wave[t * hop : t * hop + size].",
        "How many begin early enough to be whole? The last may begin at len(wave) - size.",
        "np.stack([wave[t * hop : t * hop + size] for t in range(1 + (len(wave) - size) // hop)])",
    ),
)
def frames(answer: Any) -> None:
    """Whole frames only, one a row, for a sound that does not divide evenly."""
    wave = np.arange(11.0)
    want = np.array([[0.0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]])
    got = answer(wave.copy(), 4, 3)
    shape = _shape(got)
    if shape == (4, 3):
        raise Mistake("the axes have changed places: one frame a row, (T, size).")
    if shape == (2, 4) and np.array_equal(got, want[:2]):
        raise Mistake("the last whole frame is missing: T = 1 + (S - size) // hop.")
    if shape == (2, 4) and np.array_equal(got, wave[:8].reshape(2, 4)):
        raise Mistake("the frames begin every `size` samples: they have to begin every `hop`.")
    if shape == (8, 4):
        raise Mistake("a frame begins at every sample: they have to begin every `hop`.")
    if shape is None or (len(shape) == 2 and shape[0] > 3):
        raise Mistake("there are frames that are not whole: drop what is left at the end.")
    expect_close(got, want, "frames of 0, 1, ..., 10 with size 4 and hop 3")
    even = answer(np.arange(8.0), 4, 4)
    expect_close(even, [[0.0, 1, 2, 3], [4, 5, 6, 7]], "frames of 0, 1, ..., 7, size 4, hop 4")


def _shape(got: Any) -> tuple[int, ...] | None:
    """Return the shape; None if the rows are of different lengths."""
    try:
        return np.shape(got)
    except ValueError:
        return None


@exercise(
    "sequences_and_sound.grad_cam",
    kind="predict",
    points=1,
    minutes=1,
    hints=("This network does not end in an average over places.",),
)
def grad_cam(guess: Any) -> None:
    """A share."""
    expect_share(guess)


criticize(
    "sequences_and_sound.nightingale",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "What did silencing one line of the horn do to its probability? And all three?",
        "Three things to speak of: what stands in for a missing band, what the probability does "
        "near 1, and how you would test 'background' directly.",
        "Harmonics are silenced together; logits, not probabilities; keep only the bird, or only "
        "the background, beside a random part of equal size or clips whose answer is known.",
    ),
    model="""
    That no single band is needed does not mean that none is used: a song has harmonics, and the
    other bands stand in for the one that is missing. The bands should be silenced together, a
    note with its harmonics, or the song kept alone and all the rest removed. The probability is
    flat near 1, so its drop hides what happens; the drop of the logit should be reported. Bands
    set to zero are also sounds that the network never met, so I would mask in a second way, for
    example with faded edges or noise, and compare with random parts of the same size. Whether
    it uses the background can be tested directly: play it the background without the bird, and
    clips in which we planted the song ourselves and know when and how high it is.
    """,
    rubric={
        "redundancy": "That no single band is needed does not mean that none is used: other bands "
        "stand in for the one that is missing.",
        "together": "A song has harmonics: silence the bands together, or keep only the song.",
        "logit": "The probability is flat near 1 and hides what happens: report the fall of the "
        "logit.",
        "masking": "A band set to zero is a sound the network never met: mask in a second way, "
        "and compare with random parts of the same size.",
        "direct test": "Test the background directly: play it without the bird, or plant the song "
        "in clips where you know when it comes.",
    },
)


question(
    "sequences_and_sound.q_halves",
    "A message says 'free' twice. Deleting either leaves the logit of spam where it was; deleting "
    "both lowers it by 4. What do integrated gradients (complete, from no words at all) give?",
    choices={
        "0 and 0, because neither is needed.": "Then they would not add up. Deletion of one word "
        "gives 0 and 0.",
        "Something like 2 and 2: their part of the whole.": "Both fade in together, so both share "
        "what they add together.",
        "4 and 4, because either one is enough.": "That adds up to 8, twice what there is to "
        "share.",
    },
    right="Something like 2 and 2: their part of the whole.",
)

question(
    "sequences_and_sound.q_probability",
    "Silencing a band leaves the probability at .999, where it was, and lowers the logit by 5. Was "
    "the band used?",
    choices={
        "No: the answer is as sure as before.": "The margin shrank by 5; it was so large that the "
        "probability, flat near 1, does not show it.",
        "Yes: the evidence got weaker, and what is left is still plenty.": "Say both numbers: used, "
        "and not needed here.",
        "It cannot be told without the spectrogram.": "The drop of the logit is a fact about the "
        "network, whatever the band looks like.",
    },
    right="Yes: the evidence got weaker, and what is left is still plenty.",
)
