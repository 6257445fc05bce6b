"""Exercises of lesson `compression`: pruning and rounding by hand, and what may be claimed of the result."""

from typing import TYPE_CHECKING, Any

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


# fmt: off
_PRUNED_WRONG = {  # what comes of 1, -20, 2, 50 and -3, 40, 30, -60 when 3 of the 8 should go
    "the largest weights went; the smallest should.": [1, -20, 2, 0, -3, 0, 30, 0],
    "this sorts by value: -6 is small as a number, but a large weight. Sort sizes.":
        [1, 0, 2, 50, 0, 40, 30, 0],
    "each tensor has a threshold of its own; one threshold serves all.":
        [0, -20, 0, 50, 0, 40, 0, -60],
    "one weight too few went: the threshold itself has to go too.":
        [0, -20, 0, 50, -3, 40, 30, -60],
    "one weight too many went.": [0, 0, 0, 50, 0, 40, 30, -60],
    "the amount is the share that goes, not the share that stays.": [0, 0, 0, 50, 0, 40, 0, -60],
    "the weights have lost their signs.": [0, 20, 0, 50, 0, 40, 30, 60],
    "nothing went. The amount is a share of the weights, not the size below which they go.":
        [1, -20, 2, 50, -3, 40, 30, -60],
    "this is the mask of those that stay; multiply the weights by it.": [0, 1, 0, 1, 0, 1, 1, 1],
}
# fmt: on


@exercise(
    "compression.threshold",
    kind="code",
    points=1,
    minutes=3,
    difficulty=2,
    hints=(
        "Put the sizes of all weights of all tensors into one row and sort it. Where in that row "
        "does the share end?",
        "Of n sizes, round(amount * n) go. The last one of them is the threshold. What if none "
        "goes?",
        "sizes = torch.cat([weight.abs().flatten() for weight in weights]).sort().values; then "
        "sizes[count - 1], or 0 where count is 0",
    ),
)
def threshold(answer: Any) -> None:
    """The largest size that goes, of all tensors together."""
    import torch

    weights = [
        torch.tensor([[1.0, -20.0], [2.0, 50.0]]),
        torch.tensor([-3.0, 40.0, 30.0, -60.0]),
    ]
    known = {
        "this sorts by value; sort sizes, without their signs.": -3.0,
        "this is the first size that stays; the threshold is the last one that goes.": 20.0,
        "one weight too few would go.": 2.0,
        "this is the share times the largest size; take the share of the weights.": 22.5,
        "this is the threshold of the first tensor alone; put all tensors into one row.": 1.5,
        "the amount is the share that goes, not the share that stays.": 30.0,
    }
    expect_close(answer(weights, 3 / 8), 3.0, "the threshold for 3 of 8 weights", known=known)
    none = answer(weights, 0.0)
    expect_close(none, 0.0, "the threshold where nothing is to go", known={
        "an index of -1 is the last: where nothing is to go, return 0.": 60.0,
    })  # fmt: skip


@exercise(
    "compression.prune",
    kind="code",
    points=1,
    minutes=2,
    difficulty=1,
    hints=(
        "`weight.abs() > tau` is a mask: true where the weight stays.",
        "A number times a mask is the number or 0, and makes a new tensor.",
        "return [weight * (weight.abs() > tau) for weight in weights]",
    ),
)
def prune(answer: Any) -> None:
    """One threshold for all tensors, by magnitude; what came stays as it was."""
    import torch

    weights = [
        torch.tensor([[1.0, -20.0], [2.0, 50.0]]),
        torch.tensor([-3.0, 40.0, 30.0, -60.0]),
    ]
    given = [weight.clone() for weight in weights]
    want = [0, -20, 0, 50, 0, 40, 30, -60]  # 1, 2 and -3 go
    got = answer(weights, 3 / 8)
    _check_list(got, given)
    expect_close(_row(got), want, "3 of 8 weights pruned", known=_PRUNED_WRONG)
    if any(not torch.equal(a, b) for a, b in zip(weights, given, strict=True)):
        raise Mistake("the copies are right, but your function changed the tensors it was given.")
    expect_close(_row(answer(given, 0.0)), _row(given), "a share of 0, where nothing goes,")


def _check_list(got: Any, given: "list[Tensor]") -> None:
    """Ask for one tensor a tensor, of the same shape."""
    shapes = [tuple(weight.shape) for weight in given]
    if got is None:
        raise Mistake("your function returned None: does it end with `return`?")
    if [tuple(getattr(one, "shape", ())) for one in got] != shapes:
        raise Mistake(f"return a list with one tensor for each, of the shapes {shapes}.")


def _row(tensors: Any) -> "Tensor":
    import torch

    return torch.cat([tensor.detach().flatten().float() for tensor in tensors])


@exercise("compression.bytes", kind="predict", points=1, minutes=1)
def bytes_share(answer: Any) -> None:
    """A share."""
    expect_share(answer)


_STEPS_WRONG = {
    "one step for the whole tensor; each output channel (row) has its own.": 0.2,
    "a step for each column; an output channel is a row.": [0.2, 12.5 / 127, 0.1 / 127],
    "divide by 127, not by 128: the largest weight has to get a level that exists.": [
        *(1.27 / 128, 25.4 / 128)
    ],
    "the largest size is without its sign: -25.4 is the largest of row 1.": [0.01, 12.5 / 127],
    "255 steps from -max to max, but 127 of them from 0 to max.": [1.27 / 255, 25.4 / 255],
}


@exercise(
    "compression.steps",
    kind="code",
    points=1,
    minutes=2,
    difficulty=2,
    hints=(
        "The step of a channel is its largest size divided by 127. Along which axes do you take "
        "the largest?",
        "weight.flatten(1) is (C, everything else), whatever axes the weight has.",
        "largest = weight.flatten(1).abs().amax(dim=1); "
        "return torch.where(largest > 0, largest, 1) / 127",
    ),
)
def steps(answer: Any) -> None:
    """Of a linear layer by hand, of a channel of zeros, and of a convolution."""
    import torch

    weight = torch.tensor([[1.27, 0.308, -0.004], [-25.4, 12.5, 0.1]])
    expect_close(answer(weight), [0.01, 0.2], "the steps", known=_STEPS_WRONG)
    zeros = answer(torch.tensor([[0.0, 0.0], [1.27, 0.0]]))
    expect_close(zeros, [1 / 127, 0.01], "the steps beside a channel of zeros", known={
        "a channel of zeros has a step of 0, by which nothing can be divided: use 1/127.": [0, 0.01],
    })  # fmt: skip
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    want = weight.flatten(1).abs().amax(1) / 127
    expect_close(answer(weight), want, "the steps of a convolution (right for a linear layer)")


@exercise(
    "compression.int8",
    kind="code",
    points=2,
    minutes=3,
    difficulty=2,
    hints=(
        "`steps_of` gives (C,). To divide by it, it needs as many axes as the weight.",
        "steps.reshape(-1, 1) for a linear layer, steps.reshape(-1, 1, 1, 1) for a convolution.",
        "levels = weight / steps.reshape(-1, *[1] * (weight.ndim - 1)); "
        "return levels.round().to(torch.int8), steps",
    ),
)
def int8(answer: Any) -> None:
    """Levels and steps of a linear layer by hand, of a channel of zeros, and of a convolution."""
    import torch

    weight = torch.tensor([[1.27, 0.308, -0.004], [-25.4, 12.5, 0.1]])
    given = weight.clone()
    levels, steps = _two(answer(given))
    expect_close(steps.flatten(), [0.01, 0.2], "the steps", known=_STEPS_WRONG)
    known = {
        "these are cut off, not rounded: 30.8 steps are nearest to level 31.": [
            *([127, 30, 0], [-127, 62, 0])
        ],
        "these are the rounded weights; the levels are whole numbers.": [
            *([1.27, 0.31, 0.0], [-25.4, 12.4, 0.0])
        ],
    }
    expect_close(levels, [[127, 31, 0], [-127, 62, 0]], "the levels", atol=1e-4, known=known)
    if not torch.equal(given, weight):
        raise Mistake(
            "levels and steps are right, but your function changed the weight it was given."
        )
    if levels.dtype != torch.int8:
        raise Mistake(
            f"the levels are right, but stored as {levels.dtype}; torch.int8 is a byte each."
        )
    _check_zeros_and_convolution(answer)


def _two(got: Any) -> "tuple[Tensor, Tensor]":
    """Ask for two tensors."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake("return two tensors: the levels, and the step of each channel.")
    levels, steps = got
    if any(not hasattr(part, "dtype") for part in (levels, steps)):
        raise Mistake("levels and steps should both be tensors.")
    return levels, steps


def _check_zeros_and_convolution(answer: Any) -> None:
    import torch

    levels, steps = _two(answer(torch.tensor([[0.0, 0.0], [1.27, 0.0]])))
    if levels[0].any() or not (steps > 0).all():  # 0 / 0 as int8 is whatever the processor makes
        raise Mistake(
            "a channel of zeros was divided by a step of 0: give it any step above 0, and its "
            "levels are 0."
        )
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    levels, steps = _two(answer(weight))
    want = weight.flatten(1).abs().amax(1) / 127
    expect_close(steps.flatten(), want, "the steps of a convolution (right for a linear layer)")
    exact = weight / want.reshape(5, 1, 1, 1)
    if levels.shape != weight.shape or ((levels - exact).abs() > 0.501).any():
        raise Mistake("the levels of a convolution (5, 3, 3, 3) are off by more than half a step.")


_RANKS_WRONG = {
    "this is the correlation of the values; rank both maps first.": 0.8829979797498272,
    "one argsort gives which pixel comes first; the argsort of that gives the ranks.": -0.3,
    "the table's diagonal is each map with itself: take the number beside it.": 1.0,
    "this is the correlation of the sizes; a map keeps its signs.": 0.2,
}


@exercise(
    "compression.ranks",
    kind="code",
    points=2,
    minutes=4,
    difficulty=2,
    hints=(
        "`a.flatten().argsort()` lists the pixels from the smallest up. What does the `argsort` of "
        "that list say of each pixel?",
        "Two rows of ranks, stacked, go into `torch.corrcoef`; it wants floating-point numbers.",
        "ranks = [each.flatten().argsort().argsort().double() for each in (a, b)]; "
        "torch.corrcoef(torch.stack(ranks))[0, 1]",
    ),
)
def ranks(answer: Any) -> None:
    """Five numbers by hand: the ranks differ by 1, 1, 0, 0, 2, so rho is 1 - 6 * 6 / (5 * 24)."""
    import torch

    a = torch.tensor([[5.0, -1.0, 30.0, -4.0, 9.0]])
    b = torch.tensor([[2.0, -3.0, 80.0, -90.0, -7.0]])
    expect_close(answer(a, b), 0.7, "the rank correlation of five numbers", known=_RANKS_WRONG)
    expect_close(answer(a, -a), -1.0, "the rank correlation of a map with its opposite")
    expect_close(answer(a.reshape(5, 1), b.reshape(5, 1)), 0.7, "rho of maps with two axes")


@exercise("compression.maps", kind="predict", points=1, minutes=1)
def maps(answer: Any) -> None:
    """A rank correlation."""
    expect_number(answer, -1, 1)


criticize(
    "compression.report",
    points=2,
    minutes=5,
    hints=(
        "Take the four claims one by one: unchanged, smaller, faster, more interpretable.",
        "What does a zero cost on disk? Section 1 measured it. And is it multiplied?",
        "What came back when the network was fine-tuned, and what did not? Section 3.",
    ),
    model="""
    One point of accuracy says nothing about which answers changed or why: I would ask for
    accuracy by group and for the inputs whose answer changed. The zeros save no bytes in a
    plain file and no time in dense arithmetic, so I would ask for measured bytes and latency,
    with the machine and the batch size. The explanations do not carry over: after fine-tuning
    the answers came back and the maps did not, so the rank correlation with the original's maps
    is needed, beside the level that chance gives. Smaller is not more interpretable by itself:
    I would ask for a test on data whose answer is known. The validation has to be repeated on
    the network that is shipped.
    """,
    rubric={
        "which answers": "One point of accuracy does not say which answers changed: ask for "
        "accuracy by class or group.",
        "bytes": "A zero takes as many bytes as any other weight in a plain file: ask for the "
        "measured size.",
        "time": "Dense arithmetic multiplies zeros as well: ask for measured latency, with the "
        "machine and the batch size.",
        "maps": "Fine-tuning brings the answers back, not the maps: compare the maps of both "
        "networks, beside what chance gives.",
        "interpretable": "Smaller is not more interpretable by itself: test it on data whose "
        "answer is known.",
        "validate again": "The explanations were validated for another set of weights: repeat it "
        "on the network that is shipped.",
    },
)


question(
    "compression.q_zeros",
    "A network has 95% zeros, in ordinary arrays. Why is it not faster?",
    choices={
        "the zeros are multiplied as all other numbers": "To win time, the zeros have to be skipped "
        "(by kernels made for it) or to leave the arrays.",
        "the biases were not pruned": "There are few of them: 122 of 23,946 numbers.",
        "it has to be zipped first": "Zipping saves bytes on disk. Before it runs, it is unzipped.",
        "evaluation mode is missing": "`latencies` sets it. Dropout and batch norm are not there "
        "anyway.",
    },
    right="the zeros are multiplied as all other numbers",
)
question(
    "compression.q_chance",
    "Two maps have a rank correlation of .6. What do you have to know before you call them alike?",
    choices={
        "what maps of other digits, or of another network, reach": "Maps that are empty "
        "where the input is empty agree with strangers; |gradient| maps share the middle of the "
        "picture.",
        "how many pixels were compared": "With 784 pixels the number itself is hardly in doubt. "
        "What it means is.",
        "whether the maps have the same scale": "Ranks do not depend on the scale.",
        "nothing: above .5 is alike": "There is no such line. What would two maps that have nothing "
        "to do with each other score?",
    },
    right="what maps of other digits, or of another network, reach",
)
