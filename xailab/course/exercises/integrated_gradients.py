"""Exercises of lesson `integrated_gradients`: paths, baselines, and relevance handed down by hand."""

from typing import TYPE_CHECKING, Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_detached,
    expect_finite,
    expect_share,
    question,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


@exercise(
    "integrated_gradients.midpoint",
    kind="code",
    points=3,
    minutes=12,
    difficulty=3,
    hints=(
        "The middle of step k (counted from 0) is alpha = (k + 0.5) / n_steps. What does the "
        "network see there?",
        "Rows do not touch each other: the gradient of model(leaf)[rows, targets].sum() holds "
        "every row's own, with rows = torch.arange(len(x)).",
        "Loop over k: place = baseline + (k + 0.5) / n_steps * (x - baseline); leaf = "
        "place.detach().requires_grad_(); add up torch.autograd.grad(...)[0]. At the end: "
        "(x - baseline) * total / n_steps.",
    ),
)
def midpoint(answer: Any) -> None:
    """Right on a smooth network for a batch with targets of its own, detached, x untouched."""
    import torch

    net, x, targets, baseline = _bent_network(), *_two_rows()
    given = x.clone()
    want = _along(net, x, targets, baseline, [0.125, 0.375, 0.625, 0.875])
    found = answer(net, x, targets, baseline, 4)
    expect_close(found, want, "the map with 4 steps", known=_slips(net, given, targets, baseline))
    expect_detached(found, "the map")
    if any(parameter.grad is not None for parameter in net.parameters()):
        raise Mistake(
            "the map is right, but .backward() left a gradient in every weight of the network; "
            "torch.autograd.grad leaves nothing behind."
        )
    if not torch.equal(x, given) or x.requires_grad:
        raise Mistake("the map is right, but your function changed x.")


def _bent_network() -> "nn.Sequential":
    """Return a network without kinks: any two sets of points on a path give different maps."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 3)).eval()
    net[0].weight.data = torch.tensor([[1.0, -0.5], [0.7, 1.5]])
    net[0].bias.data = torch.tensor([0.2, -0.4])
    net[2].weight.data = torch.tensor([[2.0, 1.0], [-1.0, 3.0], [0.5, -2.0]])
    net[2].bias.data = torch.zeros(3)
    return net


def _two_rows() -> "tuple[Tensor, Tensor, Tensor]":
    """Return x (2, 2), targets (2,) and a baseline (2,)."""
    import torch

    return (
        torch.tensor([[2.0, 1.0], [-1.0, 3.0]]),
        torch.tensor([2, 0]),
        torch.tensor([0.5, -1.0]),
    )


def _along(
    net: Any, x: "Tensor", targets: "Tensor", baseline: "Tensor | float", points: list[float]
) -> "Tensor":
    """Mean gradient at these points of the path, times the distance covered."""
    gradients = [_gradient(net, baseline + point * (x - baseline), targets) for point in points]
    return (x - baseline) * sum(gradients) / len(points)


def _gradient(net: Any, place: "Tensor", targets: "Tensor") -> "Tensor":
    import torch

    leaf = place.clone().requires_grad_()
    scores = net(leaf).gather(1, targets[:, None])
    return torch.autograd.grad(scores.sum(), leaf)[0]


def _slips(net: Any, x: "Tensor", targets: "Tensor", b: "Tensor") -> dict[str, "Tensor"]:
    """Return what each of the usual mistakes computes with 4 steps."""
    import torch

    middles = [0.125, 0.375, 0.625, 0.875]
    right = _along(net, x, targets, b, middles)
    mean = right / (x - b)
    every = torch.stack(
        [_along(net, x, torch.full_like(targets, t), b, middles) for t in range(3)]
    ).sum(0)
    chance = torch.nn.Sequential(net, torch.nn.Softmax(1))
    weighed = torch.stack([k * _along(net, x, targets, b, [k]) for k in middles]).mean(0)
    return {
        "these are the left ends of the steps; take their midpoints, (k + 0.5) / n.": _along(
            net, x, targets, b, [0, 0.25, 0.5, 0.75]
        ),
        "these are the right ends of the steps; take their midpoints, (k + 0.5) / n.": _along(
            net, x, targets, b, [0.25, 0.5, 0.75, 1]
        ),
        "these points run from 0 to 1, both included; take the midpoints of n equal steps.": _along(
            net, x, targets, b, [0, 1 / 3, 2 / 3, 1]
        ),
        "this is the mean gradient: the distance covered, x - baseline, is missing as a factor.": mean,
        "the factor is x; it has to be the distance covered, x - baseline.": mean * x,
        "this path begins at 0: your function does not use the baseline.": _along(
            net, x, targets, 0.0, middles
        ),
        "only the factor uses the baseline: the path has to begin there, too.": (x - b)
        * (_along(net, x, targets, 0.0, middles) / x),
        "this is the gradient at x alone: ask on the way as well.": _along(net, x, targets, b, [1]),
        "these gradients are taken with respect to x, which moves the place on the path by alpha only; "
        "take them with respect to the place.": weighed,
        "the gradients are added up; take their mean, or the map grows with n_steps.": 4 * right,
        "half of what it should be: is the sum over the rows' scores a mean?": right / 2,
        "this explains the sum of all logits: pick each row's own target.": every,
        "this explains the probability; take the logit, before a softmax.": _along(
            chance, x, targets, b, middles
        ),
        "all rows use the first row's target.": _along(
            net, x, targets[:1].expand_as(targets), b, middles
        ),
    }


@exercise(
    "integrated_gradients.lrp_step",
    kind="code",
    points=3,
    minutes=10,
    difficulty=3,
    hints=(
        "What fed the outputs: z = x @ weight.T + bias, (N, J). Divide relevance_out by it first.",
        "Input i gets x_i times the sum over j of w_ji * (relevance_out_j / z_j): a matrix product.",
        "away = torch.where(z >= 0, epsilon, -epsilon); "
        "return x * ((relevance_out / (z + away)) @ weight)",
    ),
)
def lrp_step(answer: Any) -> None:
    """Shares in proportion, bias and epsilon in the denominator, finite where the sum is 0."""
    import torch

    x = torch.tensor([[1.0, 2.0, 3.0], [2.0, 0.5, 1.0]])
    weight = torch.tensor([[1.0, -1.0, 2.0], [-3.0, 1.0, -1.0]])
    bias, above = torch.tensor([1.0, -2.0]), torch.tensor([[4.0, -3.0], [2.0, 5.0]])
    z = x @ weight.T + bias
    want = _shared(x, weight, above, z + torch.where(z >= 0, 0.5, -0.5))
    found = answer(x, weight, bias, above, 0.5)
    known = _wrong_shares(x, weight, bias, above, 0.5)
    expect_close(found, want, "the relevance of the inputs", known=known)
    still = answer(
        torch.ones(1, 2), torch.tensor([[1.0, -1.0]]), torch.zeros(1), above[:1, :1], 0.5
    )
    why = "A sum of exactly 0 has to be moved too, by +epsilon: torch.sign(0) is 0."
    expect_finite(still, "the relevance where the products add up to 0", why)
    expect_close(still, [[8.0, -8.0]], "the relevance where the products add up to 0")


def _shared(x: "Tensor", weight: "Tensor", above: "Tensor", below: "Tensor") -> "Tensor":
    return x * ((above / below) @ weight)


def _wrong_shares(
    x: "Tensor", weight: "Tensor", bias: "Tensor", above: "Tensor", epsilon: float
) -> dict[str, "Tensor"]:
    """Return what each of the usual mistakes computes."""
    import torch

    z = x @ weight.T + bias
    bare = z - bias
    away = torch.where(z >= 0, epsilon, -epsilon)
    products = x[:, None, :] * weight  # (N, J, I)
    with_bias = products + bias[:, None] / x.shape[1]
    positive = products.clamp(min=0)
    per_unit = (above / (z + away))[:, :, None]
    return {
        "the bias is missing in the denominator: it fed the unit as well.": _shared(
            x, weight, above, bare + torch.where(bare >= 0, epsilon, -epsilon)
        ),
        "epsilon is added to negative sums too, which moves them toward 0: there it has to be "
        "subtracted.": _shared(x, weight, above, z + epsilon),
        "epsilon is subtracted where it should be added: it has to move the sum away from 0.": (
            _shared(x, weight, above, z - away)
        ),
        "epsilon is missing.": _shared(x, weight, above, z),
        "relevance_out is to be divided by what fed the unit, before it goes down.": _shared(
            x, weight, above, torch.ones_like(z)
        ),
        "this is the signal without its input: multiply by x.": (above / (z + away)) @ weight,
        "the bias keeps its own share; here the inputs have got it.": (with_bias * per_unit).sum(1),
        "only positive products share here: that is the z-plus rule.": (
            positive * (above / positive.sum(2).clamp(min=1e-9))[:, :, None]
        ).sum(1),
        "each input gets the mean over the outputs; add up what they hand down.": (
            products * per_unit
        ).mean(1),
    }


@exercise(
    "integrated_gradients.first_tenth",
    kind="predict",
    points=1,
    minutes=2,
    hints=("Look at the third picture: do you see the cat?",),
)
def first_tenth(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "integrated_gradients.black_share",
    kind="predict",
    points=1,
    minutes=2,
    hints=("What is the factor x - b at a black pixel?",),
)
def black_share(guess: Any) -> None:
    """A share."""
    expect_share(guess)


criticize(
    "integrated_gradients.report",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "There are three claims: about the axioms, about the sum, about the income. Take them one "
        "by one.",
        "What does a gap of 8% tell? Who is the applicant whose standardized numbers are all 0?",
        "Too few steps; x - b is 0 at an average income, whatever the network does with it; axioms "
        "hold for every baseline, so they cannot choose one.",
    ),
    model="""
    A gap of 8% is no rounding error, it says that 20 steps were too few: take more until the
    gap is small. In a standardized table the baseline 0 is the average applicant, and it was
    never said why that should be the comparison. An applicant with average income equals the
    baseline there, so the factor x - b is 0 and the attribution has to be 0, used or not: the
    method is blind to it. I would ask for other baselines, for example a background of accepted
    applicants, and test whether changing the income changes the score. The axioms hold for any
    baseline, and so they cannot make an explanation correct; scores on a model where we know
    the answer would say more.
    """,
    rubric={
        "gap": "A gap of 8% is no rounding: 20 steps were too few, so take more until it is small.",
        "baseline": "In a standardized table the baseline 0 is the average applicant, and nobody "
        "said why that is the comparison.",
        "blind": "At an average income the factor x - b is 0, so the attribution is 0 whether "
        "income is used or not.",
        "test": "Ask for other baselines, or change the income and see whether the score moves.",
        "axioms": "The axioms hold for every baseline and do not make an explanation correct; a "
        "model whose answer is known would test it.",
    },
)


question(
    "integrated_gradients.q_gap",
    "A map with 50 steps adds up to 7.0, and the score rose by 8.0. What do you do?",
    choices={
        "Multiply the map by 8/7.": "Then the sum is right and the map is not: the missing part "
        "belongs to certain pixels, and you do not know which.",
        "Take more steps until the gap is small.": "The gap is the error of adding up in steps. "
        "If it does not shrink, suspect the code.",
        "Nothing: 50 steps are the usual number.": "What is enough depends on the network and on "
        "the path. The gap tells; here an eighth of the rise is missing.",
    },
    right="Take more steps until the gap is small.",
)

question(
    "integrated_gradients.q_invariance",
    "A team writes its network anew, layer by layer in another way, with exactly the same outputs "
    "for all inputs. The DeepLIFT maps change. What do you know?",
    choices={
        "The new network has a bug.": "The outputs are the same for all inputs: as a function, it "
        "is the same network.",
        "The maps describe how the function is computed, too.": "DeepLIFT's secants depend on where "
        "the layers bend. That may be of interest, but the function alone does not decide it.",
        "DeepLIFT no longer adds up.": "Both maps add up to the same rise, only shared out in "
        "another way.",
    },
    right="The maps describe how the function is computed, too.",
)
