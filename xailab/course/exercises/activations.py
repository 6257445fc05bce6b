"""Exercises of lesson `activations`: importance of units, mining, and what a caption may claim."""

from typing import TYPE_CHECKING, Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_detached,
    expect_number,
    question,
)
from xailab.course.toys import uneven_network

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "activations.importance",
    kind="code",
    points=3,
    minutes=10,
    difficulty=3,
    hints=(
        "Forward inside `capture(model, layer, leaf=True)`, gradient of the logit, product, sum "
        "over places.",
        "Rows do not touch each other: the gradient of logits[:, target].sum() with respect to "
        "the maps holds every row's own gradient.",
        "(slopes,) = torch.autograd.grad(logits[:, target].sum(), A); "
        "return (A * slopes).sum(dim=(2, 3)).detach()",
    ),
)
def importance(answer: Any) -> None:
    """Right for a batch on a network whose slopes differ from place to place; detached."""
    import torch

    net, x = uneven_network(), _two_pictures()
    maps = x.clone()
    slopes = net[3].weight[1].detach().reshape(1, 2, 2, 2) * (maps > 0)
    want = (maps * slopes).sum((2, 3))
    found = answer(net, x, 1, "0")
    expect_close(found, want, "the importance for class 1", known=_slips(net, maps, slopes))
    expect_detached(found, "the importance")
    if any(parameter.grad is not None for parameter in net.parameters()):
        raise Mistake(
            "the numbers are right, but .backward() left a gradient in every weight of the "
            "network; torch.autograd.grad leaves nothing behind."
        )
    if not torch.equal(x, maps):
        raise Mistake("the numbers are right, but your function changed x.")


def _two_pictures() -> "Tensor":
    import torch

    first = [[[0.0, 1.0], [0.2, 0.3]], [[0.4, 0.0], [0.5, -0.6]]]
    second = [[[0.1, 0.0], [-0.4, 0.5]], [[0.0, 0.6], [0.1, 0.2]]]
    return torch.tensor([first, second])


def _slips(net: Any, maps: "Tensor", slopes: "Tensor") -> dict[str, "Tensor"]:
    """Return what each of the usual mistakes computes."""
    import torch

    leaf = maps.clone().requires_grad_()
    (of_chance,) = torch.autograd.grad(net(leaf).softmax(1)[:, 1].sum(), leaf)
    (of_largest,) = torch.autograd.grad(net(leaf).amax(1).sum(), leaf)
    every = net[3].weight.detach().sum(0).reshape(1, 2, 2, 2) * (maps > 0)
    right = (maps * slopes).sum((2, 3))
    return {
        "this is the gradient alone: multiply it by the activation, place by place.": slopes.sum(
            (2, 3)
        ),
        "this is the activation alone: multiply it by the gradient, place by place.": maps.sum(
            (2, 3)
        ),
        "the means are multiplied; multiply first, place by place, and sum then.": maps.sum((2, 3))
        * slopes.mean((2, 3)),
        "a quarter of what it should be: sum over the places, do not average.": right / 4,
        "half of what it should be: logits[:, target] is averaged over the rows.": right / 2,
        "the signs are lost: a unit may speak against the class.": (maps * slopes)
        .abs()
        .sum((2, 3)),
        "the sign of each unit is lost: it may speak against the class.": right.abs(),
        "units against the class are cut off: there is no ReLU here.": right.relu(),
        "this explains the probability; take the logit, before the softmax.": (
            maps * of_chance
        ).sum((2, 3)),
        "this explains the largest logit: pick the one of `target`.": (maps * of_largest).sum(
            (2, 3)
        ),
        "this explains the sum of all logits: pick the one of `target`.": (maps * every).sum(
            (2, 3)
        ),
        "only the first row has numbers: logits[0, target] leaves out the others.": right
        * torch.tensor([[1.0], [0.0]]),
    }


@exercise(
    "activations.loudness",
    kind="predict",
    points=1,
    minutes=2,
    hints=("A unit may be loud on every digit. Does the logit listen to it?",),
)
def loudness(guess: Any) -> None:
    """A rank correlation."""
    if isinstance(guess, str) and guess.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise Mistake(f"write the number without quotes: {guess.strip()}.")
    if isinstance(guess, int | float) and 1 < abs(guess) <= 100:
        raise Mistake(f"a correlation runs from -1 to 1: write {guess}% as {guess / 100:g}.")
    expect_number(guess, -1, 1)


@exercise(
    "activations.mine",
    kind="code",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "First one number an input: how strongly is the unit excited at its best place?",
        "maps[:, unit] has the shape (N, h, w); .amax(dim=(1, 2)) leaves (N,).",
        "return maps[:, unit].amax(dim=(1, 2)).argsort(descending=True)[:k]",
    ),
)
def mine(answer: Any) -> None:
    """The rows with the highest peaks of the right unit, strongest first."""
    import torch

    maps = torch.zeros(5, 3, 2, 2)
    maps[:, 1] = torch.tensor(
        [
            [[0.0, 9.0], [0.0, 0.0]],
            [[4.0, 4.0], [4.0, 4.0]],  # the largest mean
            [[7.0, 6.0], [1.0, 0.0]],  # two of the three best places
            [[-10.0, 0.0], [0.0, 2.0]],  # the largest absolute value
            [[5.0, 0.0], [0.0, 4.5]],
        ]
    )
    maps[:, 0, 0, 0] = torch.tensor([1.0, 2.0, 3.0, 5.0, 4.0])
    maps[:, 2, 1, 1] = torch.tensor([2.0, 8.0, 1.0, 9.0, 3.0])
    given = maps.clone()
    rows = answer(given, 1, 3)
    peaks = maps[:, 1].amax((1, 2))
    mean, loud = maps[:, 1].mean((1, 2)), maps[:, 1].abs().amax((1, 2))
    known = {
        "these are the inputs with the largest mean: an input counts by its best place.": _first(
            mean, 3
        ),
        "these are the largest absolute values: -10 does not excite a unit.": _first(loud, 3),
        "the weakest inputs came: sort in descending order.": peaks.argsort()[:3],
        "the right inputs, but the weakest of them first.": _first(peaks, 3).flip(0),
        "these are the activations; the numbers of the rows are asked for.": peaks.sort(
            descending=True
        ).values[:3],
        "an input came twice: first its best place, then the order.": _first(
            maps[:, 1].flatten(), 3
        )
        // 4,
        "every unit of the layer was searched: look at `unit` alone.": _first(
            maps.amax((1, 2, 3)), 3
        ),
        "this is unit 0: look at maps[:, unit].": _first(maps[:, 0].amax((1, 2)), 3),
    }
    expect_close(rows, _first(peaks, 3), "the rows", known=known)
    if not torch.equal(given, maps):
        raise Mistake("the rows are right, but your function changed `maps`.")


def _first(values: "Tensor", k: int) -> "Tensor":
    return values.argsort(descending=True)[:k]


criticize(
    "activations.caption",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Sentence one: at half its strength, how many digits excite the unit, and which?",
        "Sentence two: excited by a thing, and causing a decision: which experiment tells them "
        "apart?",
        "Name three things: the whole range of activations (or all classes), switching the unit "
        "off, and the data set that was searched.",
    ),
    model="""
    Nine top inputs out of 1,000 are only the extreme end: at half its maximum, the unit answers
    to hundreds of digits of most classes, probably to one stroke that they share, so it is not
    specific to threes and no detector of them. I would show inputs from the whole range of its
    activation, and count how often it is active for each class. Being excited by threes is a
    correlation and no cause: whether it matters for the logit of 3 has to be tested by
    switching it off. The top inputs also depend on the data set that was searched, so I would
    repeat the search on other digits.
    """,
    rubric={
        "extreme end": "Nine top inputs are the extreme end of 1,000: they do not show what the "
        "unit answers to at half its strength.",
        "not class-specific": "It is active for digits of most classes (a stroke they share), so "
        "it is no detector of threes.",
        "no cause": "Being excited by threes is a correlation; it does not show that the unit "
        "causes the answer 3.",
        "ablation": "Whether it matters has to be tested: switch the unit off and see what the "
        "logit of 3, or the answer, does.",
        "other digits": "Top inputs depend on the digits that were searched: look at the whole "
        "range, or repeat it on others.",
    },
)


question(
    "activations.q_methods",
    "A unit is silent on your photo, but was loud on the gray baseline, and the logit listens to "
    "it. Which method gives it a number other than 0?",
    choices={
        "activation x gradient": "Its activation is 0 here, so the product is 0.",
        "ablation": "Switching off what is silent changes nothing: the drop is 0.",
        "conductance": "It adds up what the unit gave and took along the whole path, and "
        "falling silent is a change.",
        "none of them": "One of the three looks at the way to the photo, not at the photo alone.",
    },
    right="conductance",
)

question(
    "activations.q_tsne",
    "On a t-SNE page, the cloud of ones lies far from the cloud of zeros and close to the sevens. "
    "What may you conclude?",
    choices={
        "The network finds ones more like sevens than like zeros.": "Distances between clouds "
        "depend on the settings and the start; measure it in the full space.",
        "Most near neighbors of a one are ones.": "Neighborhoods are what t-SNE tries to "
        "keep, and all that may be read from it.",
        "The ones vary less than the zeros if their cloud is smaller.": "You saw a cloud ten "
        "times as wide drawn hardly wider: t-SNE evens out densities.",
    },
    right="Most near neighbors of a one are ones.",
)
