"""Exercises of lesson `lime`: explaining a box that only answers."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_number,
    question,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]


@exercise(
    "lime.core",
    kind="code",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Two steps: a weight for each sample, then a weighted ridge regression with an intercept.",
        "d = 1 - np.sqrt(samples.mean(axis=1)); the weight is the square root of "
        "exp(-d**2 / kernel_width**2). Put a column of ones before the samples.",
        "Z = np.column_stack([np.ones(len(samples)), samples]); penalty = np.eye(F + 1) with "
        "penalty[0, 0] = 0; solve (Z.T * weights) @ Z + penalty against (Z.T * weights) @ scores; "
        "leave the intercept out with [1:].",
    ),
)
def core(answer: Any) -> None:
    """The coefficients of LIME's weighted ridge regression, kernel and intercept included."""
    samples, scores = _questions()
    width = 0.3
    want = _ridge(samples, scores, _kernel(samples, width))
    given = samples.copy(), scores.copy()
    got = answer(samples, scores, width)
    if np.shape(got) == (samples.shape[1] + 1,):
        raise Mistake("one number too many: leave the intercept out, [1:].")
    known = _slips(samples, scores, width)
    expect_close(got, want, "the coefficients", known=known, rtol=1e-6)
    if not (np.array_equal(samples, given[0]) and np.array_equal(scores, given[1])):
        raise Mistake("the coefficients are right, but your function changed its arguments.")


def _slips(samples: "Floats", scores: "Floats", width: float) -> "dict[str, Floats]":
    """Return what the usual mistakes would give, each with the words that name it."""
    weights, distance = _kernel(samples, width), _distance(samples)
    ridge, hidden = partial(_ridge, samples, scores), 1 - samples.mean(1)
    return {
        "each sample counts with its weight squared: the square root around the exponential is "
        "missing, or the weights are multiplied in twice.": ridge(weights**2),
        "this has no weights: every sample counts the same.": ridge(np.ones_like(weights)),
        "the ridge penalty is missing (add 1 to the diagonal, except for the intercept).": ridge(
            weights, penalty=0.0
        ),
        "the intercept is penalized too: penalty[0, 0] has to be 0.": ridge(
            weights, on_intercept=1.0
        ),
        "there is no intercept: put a column of ones beside the samples.": _without_intercept(
            samples, scores, weights
        ),
        "the kernel width is not squared.": ridge(np.sqrt(np.exp(-(distance**2) / width))),
        "the distance is not squared.": ridge(np.sqrt(np.exp(-distance / width**2))),
        "the weight is the distance: near samples have to count more, so take exp(-d**2 / "
        "width**2).": ridge(distance),
        "the distance is the share of hidden features; the cosine takes the square root of the "
        "share of ones.": ridge(np.sqrt(np.exp(-(hidden**2) / width**2))),
        "the width is .25 whatever is asked for: use kernel_width.": ridge(_kernel(samples, 0.25)),
    }


def _questions() -> "tuple[Floats, Floats]":
    """Return switches (40, 3) and scores with a part that is no straight line."""
    samples = np.random.default_rng(3).integers(2, size=(40, 3)).astype(float)
    samples[0] = 1
    scores = samples @ np.array([3.0, -2.0, 0.5]) + 4 + 2 * samples[:, 0] * samples[:, 1]
    return samples, scores


def _distance(samples: "Floats") -> "Floats":
    return 1 - np.sqrt(samples.mean(axis=1))


def _kernel(samples: "Floats", width: float) -> "Floats":
    return np.sqrt(np.exp(-(_distance(samples) ** 2) / width**2))


def _ridge(
    samples: "Floats",
    scores: "Floats",
    weights: "Floats",
    *,
    penalty: float = 1.0,
    on_intercept: float = 0.0,
) -> "Floats":
    columns = np.column_stack([np.ones(len(samples)), samples])
    diagonal = np.diag([on_intercept, *[penalty] * samples.shape[1]])
    curvature = (columns.T * weights) @ columns + diagonal
    return np.linalg.solve(curvature, (columns.T * weights) @ scores)[1:]


def _without_intercept(samples: "Floats", scores: "Floats", weights: "Floats") -> "Floats":
    curvature = (samples.T * weights) @ samples + np.eye(samples.shape[1])
    return np.linalg.solve(curvature, (samples.T * weights) @ scores)


@exercise(
    "lime.debug",
    kind="code",
    points=2,
    minutes=8,
    difficulty=2,
    hints=(
        "Three steps: take one of the three channels, make a tensor of it, make probabilities of "
        "the logits.",
        "pictures[..., 0] is (M, H, W); the network wants a channel axis after the first: "
        "[:, None]. It wants float32.",
        "gray = torch.as_tensor(pictures[..., 0], dtype=torch.float32)[:, None]; inside "
        "torch.no_grad(): network(gray).softmax(dim=1).numpy()",
    ),
)
def debug(answer: Any) -> None:
    """An array of probabilities out of channels-last pictures, for any number and size of them."""
    import torch

    pictures = np.random.default_rng(0).random((3, 4, 6, 1)).repeat(3, axis=3)
    network = _strict_network()
    gray = torch.tensor(pictures[..., 0], dtype=torch.float32)[:, None]
    with torch.no_grad():
        logits, of_sum, dark = (network(scale * gray) for scale in (1, 3, 1 / 255))
    got = answer(network, pictures.copy())
    if isinstance(got, torch.Tensor):
        raise Mistake("a tensor came back; LIME wants an array: end with .numpy().")
    known = {
        "these are logits: LIME's function returns probabilities, so add softmax(dim=1).": logits,
        "softmax over the pictures (dim 0), not over the classes (dim 1).": logits.softmax(0),
        "these are log-probabilities: softmax, not log_softmax.": logits.log_softmax(1),
        "each class for itself: softmax, not sigmoid, so that a row sums to 1.": logits.sigmoid(),
        "the three channels are added up: take one of them, pictures[..., 0].": of_sum.softmax(1),
        "the pictures lie in 0..1 already: do not divide them by 255.": dark.softmax(1),
    }
    expect_close(got, logits.softmax(1), "the probabilities", known=known, rtol=1e-4)


def _strict_network() -> Any:
    """Return a network that says in words what it wants, with three classes."""
    import torch
    from torch import nn

    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))  # as in any network: .numpy() needs no_grad

        def forward(self, x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                raise Mistake("the network got an array: make a tensor of it.")
            if x.ndim != 4 or x.shape[1:] != (1, 4, 6):
                raise Mistake(
                    f"the network wants (M, 1, H, W), here (3, 1, 4, 6), and got {tuple(x.shape)}."
                )
            if x.dtype != torch.float32:
                raise Mistake(f"the network wants float32, and got {str(x.dtype)[6:]}.")
            sums = [x.sum((1, 2, 3)), x[:, 0, 0].sum(1), x[:, 0, :, 0].sum(1)]
            return self.scale * torch.stack(sums, 1)

    return Strict()


@exercise(
    "lime.seeds",
    kind="predict",
    points=1,
    minutes=2,
    hints=("100 equations with noise for 50 unknowns: would you trust their order?",),
)
def seeds(guess: Any) -> None:
    """A rank correlation."""
    expect_number(guess, -1, 1)


criticize(
    "lime.report",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "There are three claims: convincing, based on the mole, stable. Which of them was tested?",
        "Whose opinion do the dermatologists give: about the mole, or about the network? And "
        "what does running the same seed again repeat?",
        "Plausible is not faithful: cover the region and ask. Other seeds, more samples, other "
        "superpixels, the R2 of the fit, all test images.",
    ),
    model="""
    That dermatologists are convinced makes the maps plausible; it does not test whether the
    network uses the mole. I would ask them to cover the green superpixels and to report how far
    the score falls, beside the same number of random ones, for all test images and not for one
    figure. Running the notebook again with seed 42 draws the same samples, so the figure has to
    be the same: I want the rank correlation between several seeds, and how it grows with the
    number of samples. One choice of 50 superpixels may cut the mole or join it with a ruler in
    the picture; I would try other segmentations and other hiding colors. The R2 of the fit is
    missing, so nobody knows whether a line describes the network at all. Finally, gray holes
    never occur in real photos, so some of the answers may be about holes.
    """,
    rubric={
        "plausible": "That dermatologists are convinced is about them: plausible is not faithful "
        "to the network.",
        "cover it": "Ask the network: cover the green superpixels, beside as many random ones, "
        "and report how far the score falls.",
        "every image": "One figure is no evidence about the others: report it for all test images.",
        "seeds": "The same seed draws the same samples, so the figure had to be the same: compare "
        "several seeds.",
        "choices": "Other segmentations, another number of samples and another hiding color may "
        "give another map.",
        "fit": "The R2 of the fit is missing: nobody knows whether a linear model describes the "
        "network there.",
    },
)


question(
    "lime.q_seed",
    "x5 does nothing in the box, and one run of LIME gave it a coefficient of .2. What do you do?",
    choices={
        "Report that x5 raises the answer by .2.": "Its truth is 0. Ten seeds scatter by a tenth "
        "and more: one run cannot tell .2 from 0.",
        "Run several seeds, and read only what is larger than their spread.": "The spread shows "
        "what is noise. More samples make it smaller, as one over the square root of their number.",
        "Make the kernel narrower, so that the fit is more local.": "Fewer samples would count, "
        "and the noise would grow.",
    },
    right="Run several seeds, and read only what is larger than their spread.",
)

question(
    "lime.q_fixed",
    "A paper fixes the seed to 42, 'so that LIME is stable'. What is stable now?",
    choices={
        "The explanation.": "Another seed would rank the patches in another order, as before. "
        "Nobody gets to see it.",
        "The figure: the same noise is drawn each time.": "Fix the seed to repeat a figure, and "
        "vary it to learn how far to trust the figure.",
        "Nothing: the network itself is random.": "The network gives the same answer to the same "
        "picture. It is the samples that are drawn.",
    },
    right="The figure: the same noise is drawn each time.",
)
