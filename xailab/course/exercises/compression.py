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
    "compression.prune",
    kind="code",
    points=2,
    minutes=8,
    difficulty=2,
    hints=(
        "Put the sizes of all weights of all tensors into one row and sort it. Where in that row "
        "does the share end?",
        "Of n sizes, round(amount * n) go. The last one of them is the threshold. What if none "
        "goes?",
        "tau = sizes[count - 1]; return [weight * (weight.abs() > tau) for weight in weights]",
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


@exercise("compression.bytes", kind="predict", points=1, minutes=2)
def bytes_share(answer: Any) -> None:
    """A share."""
    expect_share(answer)


@exercise(
    "compression.int8",
    kind="code",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "The step of a channel is its largest size divided by 127. Along which axes do you take "
        "the largest?",
        "weight.flatten(1) is (C, everything else). To divide by the steps, they need as many axes "
        "as the weight: (C, 1) or (C, 1, 1, 1). And a channel of zeros must not be divided by 0.",
        "steps = torch.where(largest > 0, largest, 1) / 127; levels = weight / "
        "steps.reshape(-1, *[1] * (weight.ndim - 1)); return levels.round().to(torch.int8), steps",
    ),
)
def int8(answer: Any) -> None:
    """Levels and steps of a linear layer by hand, of a channel of zeros, and of a convolution."""
    import torch

    weight = torch.tensor([[1.27, 0.308, -0.004], [-25.4, 12.5, 0.1]])
    given = weight.clone()
    levels, steps = _two(answer(given))
    known_steps = {
        "one step for the whole tensor; each output channel (row) has its own.": 0.2,
        "a step for each column; an output channel is a row.": [0.2, 12.5 / 127, 0.1 / 127],
        "divide by 127, not by 128: the largest weight has to get a level that exists.": [
            *(1.27 / 128, 25.4 / 128)
        ],
        "the largest size is without its sign: -25.4 is the largest of row 1.": [0.01, 12.5 / 127],
        "255 steps from -max to max, but 127 of them from 0 to max.": [1.27 / 255, 25.4 / 255],
    }
    expect_close(steps.flatten(), [0.01, 0.2], "the steps", known=known_steps)
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


@exercise("compression.maps", kind="predict", points=1, minutes=2)
def maps(answer: Any) -> None:
    """A rank correlation."""
    expect_number(answer, -1, 1)


criticize(
    "compression.report",
    points=2,
    minutes=8,
    hints=(
        "Take the four claims one by one: unchanged, smaller, faster, more interpretable.",
        "What does a zero cost on disk, and in time? Section 1 measured it.",
        "What came back when the network was trained on, and what did not? Section 7.",
    ),
    model="""
    One point of accuracy says nothing about which answers changed or why: I would ask for
    accuracy by group and for the inputs whose answer changed. The zeros save no bytes in a
    plain file and no time in dense arithmetic, so I would ask for measured bytes and latency,
    with the machine and the batch size. The explanations do not carry over: after fine-tuning
    the answers came back and the maps did not, so the rank correlation with the original's maps
    is needed, beside the level that chance gives. Smaller is not more interpretable by itself:
    I would ask for a test on data whose answer is known, where the pruned network pointed at
    the true reason no more often than the original. The validation has to be repeated on the
    network that is shipped.
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
