"""Exercises of lesson `saliency`: gradients of the input, noise, and what a pretty map proves."""

from collections.abc import Callable
from typing import Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_detached,
    expect_number,
    question,
)


@exercise(
    "saliency.sensitivity",
    kind="code",
    points=2,
    minutes=8,
    difficulty=2,
    hints=(
        "The rows do not influence each other: what is the gradient of the SUM of their scores?",
        "Work on leaf = x.clone().requires_grad_(); pick each row's own logit with "
        "model(leaf)[torch.arange(len(x)), targets].",
        "(gradient,) = torch.autograd.grad(scores.sum(), leaf); it hangs in no graph.",
    ),
)
def sensitivity(answer: Any) -> None:
    """Each row's own logit, signed, detached, and nothing left behind."""
    import torch

    from xailab.attribution.saliency import saliency

    model = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.Softplus(), torch.nn.Linear(4, 3)
    ).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator)
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], dtype=torch.float64)
    targets, before = torch.tensor([0, 2, 1]), x.clone()
    got = answer(model, x, targets)
    _expect_tidy(model, x, before)
    expect_close(
        got,
        saliency(model, x, targets),
        "the gradient for the targets 0, 2, 1",
        known=_slips(model, x, targets),
    )
    expect_detached(got, "your gradient")


def _slips(model: Any, x: Any, targets: Any) -> dict[str, Any]:
    """Return what usual slips compute, each under the words that name it."""
    from xailab.attribution.saliency import saliency

    def loss(rows: Any) -> Any:
        return -model(rows).log_softmax(1)

    return {
        "every row was explained for the first row's target; each row has its own.": saliency(
            model, x, 0
        ),
        "all logits were summed; pick the target's logit of each row.": saliency(
            lambda rows: model(rows).sum(1), x, None
        ),
        "that explains the largest logit, not the target.": saliency(
            lambda rows: model(rows).amax(1), x, None
        ),
        "that is the gradient of the probability; leave softmax away.": saliency(
            lambda rows: model(rows).softmax(1), x, targets
        ),
        "that is the gradient of the loss; explain the logit itself.": saliency(loss, x, targets),
        "that is the gradient of the mean loss; explain the logit itself.": saliency(
            loss, x, targets
        )
        / len(x),
        "that is input x gradient; the gradient alone was asked for.": x
        * saliency(model, x, targets),
    }


def _expect_tidy(model: Any, x: Any, before: Any) -> None:
    """Raise `Mistake` if the learner's code changed the input or left gradients behind."""
    import torch

    if not torch.equal(x.detach(), before):
        raise Mistake("your code changed x itself: work on x.clone().")
    if x.requires_grad:
        raise Mistake("x.requires_grad is still on after the call: work on x.clone().")
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise Mistake(
            "the model's parameters hold gradients now: .backward() fills them, "
            "torch.autograd.grad(score, leaf) does not."
        )


@exercise("saliency.alarm", kind="predict", points=1, minutes=1)
def alarm(guess: Any) -> None:
    """A slope."""
    expect_number(guess, -10, 10)


@exercise("saliency.noisy_four", kind="predict", points=1, minutes=1)
def noisy_four(guess: Any) -> None:
    """A probability."""
    expect_number(guess, 0, 1)


@exercise("saliency.espresso", kind="predict", points=1, minutes=1)
def espresso(guess: Any) -> None:
    """A correlation."""
    expect_number(guess, -1, 1)


_SAMPLES = 3000  # the mean of so many draws lies within a few percent of its limit


@exercise(
    "saliency.smooth",
    kind="code",
    points=3,
    minutes=12,
    difficulty=3,
    hints=(
        "Make n_samples noisy copies of the one row, (n_samples, ...), then take one gradient.",
        "sigma = noise * (x.max() - x.min()); draw with torch.randn(..., generator=generator), "
        "where generator = torch.Generator().manual_seed(seed).",
        "copies = x + sigma * torch.randn(n_samples, *x.shape[1:], generator=generator); "
        "return saliency(model, copies, target).mean(0, keepdim=True)",
    ),
)
def smooth(answer: Any) -> None:
    """Mean gradient over copies, noise in shares of the range, a random state of its own."""
    import torch

    x = torch.tensor([[2.0, 2.0, 2.0, -8.0]])  # range 10: noise 0.1 has the deviation 1
    state = torch.get_rng_state()
    got = answer(_wavy, x, 1, 0.1, _SAMPLES, 0)
    if not torch.equal(state, torch.get_rng_state()):
        raise Mistake(
            "your code used the global random state: draw from "
            "torch.Generator().manual_seed(seed) and pass it on as generator=."
        )
    _expect_smooth(got, x)
    expect_detached(got, "your map")
    _expect_seeded(lambda seed: answer(_wavy, x, 1, 0.1, 5, seed))


def _wavy(x: Any) -> Any:
    """Two outputs: the sum of a row, and (x0 - x1)^3, whose slope feels the noise."""
    import torch

    return torch.stack([x.sum(1), (x[:, 0] - x[:, 1]) ** 3], dim=1)


def _expect_smooth(got: Any, x: Any) -> None:
    """Compare with the limit for many samples: the slope 3 d^2 has the mean 3 * 2 sigma^2 = 6."""
    import torch

    from xailab.attribution.saliency import saliency

    one_draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def slope(mean: float) -> list[list[float]]:
        return [[mean, -mean, 0.0, 0.0]]

    expect_close(
        got,
        slope(6.0),
        f"the mean slope of (x0 - x1)^3 over {_SAMPLES} copies of [2, 2, 2, -8]",
        rtol=0.13,
        atol=0.02,
        known={
            "the noise is not scaled: its deviation is noise * (x.max() - x.min()).": slope(0.06),
            "without noise, with one draw for all numbers, or with the copies averaged before "
            "the gradient, 0 comes out. Every number of every copy needs its own draw.": slope(0),
            "the deviation is a share of the range max - min, not of the maximum.": slope(0.24),
            "the deviation is a share of the range max - min, not of x.std().": slope(1.5),
            "the noise is uniform; SmoothGrad's is normal: torch.randn.": slope(2.0),
            "the noise is uniform from 0 to 1; SmoothGrad's is normal: torch.randn.": slope(0.5),
            "noise is a deviation, not a variance: no square root.": slope(60.0),
            "that explains output 0; the target was 1.": [[1.0, 1.0, 1.0, 1.0]],
            "that is SmoothGrad times the input; the mean gradient alone was asked for.": slope(12),
            "that is the slope at one noisy copy; average over n_samples of them.": saliency(
                _wavy, x + one_draw, 1
            ),
        },
    )


def _expect_seeded(smooth_of: Callable[[int], Any]) -> None:
    """Raise `Mistake` unless the seed, and nothing else, decides the draws."""
    import torch

    first, again, other = (torch.as_tensor(smooth_of(seed)) for seed in (1, 1, 2))
    if not torch.equal(first, again):
        raise Mistake("two calls with one seed differ: seed the generator inside the function.")
    if torch.equal(first, other):
        raise Mistake("two seeds give the same map: does your code use seed?")


criticize(
    "saliency.report",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "The report argues from how the map looks. What would the map of a network look like "
        "whose upper half knows nothing?",
        "Ask the method for another class and for a network with random weights.",
    ),
    model="""
    The map tells where a bent gradient is large, so at best where a small change of a pixel
    would move the score. It says neither what contributed to the score nor what the network
    "attends to". The map is nearly the same for the class espresso, and nearly the same after
    most of the weights have been replaced by random ones: what the network knows about cats
    hardly enters it. That it is sharp says nothing. I would ask for a method that changes with
    the class and with the weights, for its score on data with a known answer, and for what
    happens to the logit when the face is covered.
    """,
    rubric={
        "what it says": "It tells, at best, where a small change would move the score; not what "
        "contributed, nor what the network attends to.",
        "other class": "On this photo the map is nearly the same for another class, such as "
        "espresso.",
        "random weights": "It stays nearly the same when most weights are replaced by random ones.",
        "sharpness": "That a map is sharp, or lies where a person would look, is no evidence "
        "about the network.",
        "instead": "Ask for a map that changes with class and weights, its score on data with a "
        "known answer, or the logit with the face covered.",
    },
)


question(
    "saliency.q_zero",
    "The gradient of the cat's logit at one pixel is exactly 0. What do you know?",
    choices={
        "The network does not use this pixel.": (
            "Both sensors of the alarm have slope 0, and together they decide."
        ),
        "A tiny change of this pixel alone does not move the logit.": (
            "That, and no more: how the logit got where it is, the slope does not say."
        ),
        "The pixel is black.": (
            "That makes input x gradient 0 (if black is stored as 0), not the gradient."
        ),
    },
    right="A tiny change of this pixel alone does not move the logit.",
)

question(
    "saliency.q_controls",
    "On the marked digits, the picture itself points at the mark more often than any of the five "
    "methods. What follows?",
    choices={
        "The picture is the best explanation of the network.": (
            "It never asked the network. On the mosaics it does no better than chance."
        ),
        "The score is worthless.": (
            "It still tells methods from guessing; it needs a control beside it to be read."
        ),
        "On this set, pointing rewards a method for finding bright places.": (
            "The mark is the brightest block. Whatever multiplies by the input profits from that."
        ),
    },
    right="On this set, pointing rewards a method for finding bright places.",
)
