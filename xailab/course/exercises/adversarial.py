"""Exercises of lesson `adversarial`: attacks by hand, and what a claim of robustness is worth."""

from typing import TYPE_CHECKING, Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_detached,
    expect_share,
    question,
)

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "adversarial.fgsm",
    kind="code",
    points=3,
    minutes=8,
    difficulty=2,
    hints=(
        "Three steps: the loss of a copy of x that wants a gradient, its gradient, one signed step.",
        "Rows do not touch each other: the gradient of the summed loss holds every row's own.",
        "leaf = x.clone().requires_grad_(); (grad,) = torch.autograd.grad(F.cross_entropy("
        "model(leaf), y, reduction='sum'), leaf); then x + epsilon * grad.sign(), clamp, detach.",
    ),
)
def fgsm(answer: Any) -> None:
    """Right on a network of two logits, where one pixel does not count and one is at the edge."""
    import torch
    from torch import nn

    model = nn.Linear(4, 2, bias=False)
    model.weight.data = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, -1.0, 0.5, 0.0]])
    x, y = torch.tensor([[0.4, 0.5, 0.6, 0.5], [0.5, 0.05, 0.9, 0.5]]), torch.tensor([1, 0])
    given = x.clone()
    moved = answer(model, x, y, 0.2)
    want = torch.tensor([[0.2, 0.7, 0.4, 0.5], [0.7, 0.0, 1.0, 0.5]])
    expect_close(moved, want, "the attacked rows", known=_slips(given, want), atol=1e-6)
    expect_detached(moved, "what you return")
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise Mistake(
            "the rows are right, but .backward() left a gradient in the network's weights; "
            "torch.autograd.grad leaves nothing behind."
        )
    if x.requires_grad or not torch.equal(x, given):
        raise Mistake("the rows are right, but your function changed x: work on a copy.")


def _slips(x: "Tensor", want: "Tensor") -> dict[str, "Tensor"]:
    """Return what each of the usual mistakes computes on the check's two rows."""
    import torch

    sign = torch.tensor([[-1.0, 1.0, -1.0, 0.0], [1.0, -1.0, 1.0, 0.0]])
    raised = x + 0.2 * sign
    away = torch.tensor([[2.0, -1.0, 0.5, 0.0], [2.0, -1.0, 0.5, 0.0]])
    slopes = torch.stack([-away[0] * _other(x[0], 1), away[1] * _other(x[1], 0)])
    logit = torch.stack([want[0], x[1]])  # of class 0, whose weights are 0
    same_class = x + 0.2 * torch.tensor([[-1.0, 1.0, -1.0, 0.0], [-1.0, 1.0, -1.0, 0.0]])
    return {
        "pixels leave 0..1: the clamp is missing.": raised,
        "this walks downhill: it makes the network surer of the true class. Add the signed "
        "gradient.": (x - 0.2 * sign).clamp(0, 1),
        "this walks along the gradient; FGSM walks along its sign.": (x + 0.2 * slopes).clamp(0, 1),
        "this walks along the gradient of the mean loss; FGSM walks along its sign.": (
            x + 0.1 * slopes
        ).clamp(0, 1),
        "epsilon is missing: each pixel moved by 1.": (x + sign).clamp(0, 1),
        "only the change came back: add it to x.": 0.2 * sign,
        "this lowers the true class's logit; FGSM raises the loss, which sees every logit.": logit,
        "the second row moved as if its class were 1: give the loss each row's own `y`.": (
            same_class.clamp(0, 1)
        ),
    }


def _other(row: "Tensor", true: int) -> "Tensor":
    """Return the probability of the class that is not the true one, on the check's network."""
    import torch

    score = row @ torch.tensor([2.0, -1.0, 0.5, 0.0])  # of class 1 over class 0
    return (-score if true else score).sigmoid()


@exercise(
    "adversarial.ball",
    kind="code",
    points=2,
    minutes=5,
    difficulty=2,
    hints=(
        "A row's length is the root of the sum of its squares, over all of its pixels.",
        "Multiply by epsilon / length where the length is above epsilon; leave the others.",
        "length = change.flatten(1).norm(dim=1), reshaped to (N, 1, 1, 1); torch.where(length > "
        "epsilon, change * epsilon / length, change)",
    ),
)
def ball(answer: Any) -> None:
    """Right for rows that are too long, short, and zero; pictures and plain rows."""
    import torch

    change = torch.tensor([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0]])
    want = torch.tensor([[0.6, -0.8], [0.3, 0.4], [0.0, 0.0]])
    known = {
        "each number is cut for itself: that is the L-inf box, not the L2 ball.": change.clamp(
            -1, 1
        ),
        "every row is shortened by the length of the whole batch: a row has a length of its own.": (
            change / change.norm()
        ),
        "short rows are stretched to the full length: they may stay as they are.": torch.tensor(
            [[0.6, -0.8], [0.6, 0.8], [0.0, 0.0]]
        ),
        "the length is the root of the sum of squares: the root is missing.": torch.tensor(
            [[0.12, -0.16], [0.3, 0.4], [0.0, 0.0]]
        ),
        "the length is the root of the sum of squares, not the sum of sizes.": torch.tensor(
            [[3 / 7, -4 / 7], [0.3, 0.4], [0.0, 0.0]]
        ),
        "only the length is right, the direction is lost: divide by it.": want.abs(),
    }
    nonzero = {name: rows[:2] for name, rows in known.items()}
    expect_close(answer(change[:2].clone(), 1.0), want[:2], "rows in the ball of 1", known=nonzero)
    expect_close(answer(change.clone(), 1.0), want, "rows in the ball of 1, one of zeros")
    pictures = change.reshape(3, 1, 1, 2).expand(3, 2, 2, 2).clone()
    lengths = pictures.flatten(1).norm(dim=1).reshape(3, 1, 1, 1)
    shorter = pictures * (2 / lengths).nan_to_num(posinf=1.0).clamp(max=1)
    known = {
        f"the length is taken along {axis} only: a row's length counts all of its pixels.": (
            pictures
            * (2 / pictures.norm(dim=dim, keepdim=True)).nan_to_num(posinf=1.0).clamp(max=1)
        )
        for dim, axis in ((1, "axis 1"), (-1, "the last axis"))
    }
    expect_close(
        answer(pictures, 2.0), shorter, "pictures (3, 2, 2, 2) in the ball of 2", known=known
    )


@exercise(
    "adversarial.noise",
    kind="predict",
    points=1,
    minutes=2,
    hints=("Half of a coin's steps help the network, and most cancel in the sum.",),
)
def noise(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "adversarial.double",
    kind="predict",
    points=1,
    minutes=2,
    hints=("Training never showed it a change of more than .1.",),
)
def double(guess: Any) -> None:
    """A share."""
    expect_share(guess)


criticize(
    "adversarial.claim",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Go through the sentences: which attack, which defense, which detector, and who attacked "
        "the detector?",
        "FGSM is one step. What is the slope of quantizing? On which attack was the alarm tuned, "
        "and how many false alarms does it give?",
        "Stronger attacks and curves over epsilon; hidden gradients, so black-box or borrowed "
        "gradients; attacks the detector has not seen, its false alarms; an adaptive attacker.",
    ),
    model="""
    FGSM is one step, the weakest attack there is: I would ask for PGD with many steps and
    random starts, and for a curve over epsilon that falls to 0, because at .3 a working attack
    should leave little. That the quantized model withstands as well points to a hidden
    gradient: rounding has slope 0, so I would attack it with a black-box search such as
    squares, and with the gradient borrowed from the bare network. The detector was tuned on the
    attack that it is tested on; I want its ROC on attacks it has not seen, L2 for example, and
    the false alarms on clean checks that the 99.2 % cost. And nobody has tried to escape it: an
    adaptive attacker, who knows the detector, is the test that counts. An epsilon ball is not
    all that happens to a check either: folds, stamps and pens are not in it.
    """,
    rubric={
        "one step": "FGSM is a single step, a weak attack: ask for PGD with many steps and random "
        "starts.",
        "curve": "One epsilon is one point: ask for accuracy over epsilon, which has to fall to 0 "
        "if the attack works.",
        "hidden gradient": "Quantizing has slope 0, so attacks by gradient stand still; that is "
        "masking, not safety. Attack without gradients, or with borrowed ones.",
        "unseen attacks": "The detector was tuned on the attack it is tested on: test it on "
        "attacks that it has not seen.",
        "false alarms": "99.2% means little without the false alarms on clean checks: ask for the "
        "ROC curve.",
        "adaptive attacker": "Nobody who knows the detector has tried to escape it; that attacker "
        "is the test that counts.",
    },
)


question(
    "adversarial.q_hidden",
    "A network with a new layer keeps 97 % under PGD of .3, where every other network has nothing "
    "left. What do you check first?",
    choices={
        "Whether PGD is better with more steps.": "If the gradient is 0, a thousand steps stand "
        "still as well as one.",
        "Whether an attack without gradients, or with those of a network without the layer, "
        "gets through.": "If it does, the layer hides the gradient and protects nothing.",
        "Whether accuracy on clean inputs is high, too.": "Worth knowing, but the hidden gradient "
        "of section 4 has a perfect clean accuracy.",
    },
    right="Whether an attack without gradients, or with those of a network without the layer, "
    "gets through.",
)

question(
    "adversarial.q_adaptive",
    "An attacker who knows the detector fails in 93 % of the tries. What follows?",
    choices={
        "The detector withstands adaptive attacks.": "So did Disagreement, until the attacker took "
        "a suspicion with a slope.",
        "This attack fails; look for the reason, and attack the reason.": "If you find one, such as "
        "a flat probability or pixels that are black and white already, you know what the figure "
        "is worth elsewhere.",
        "Nothing at all.": "It is a lower bound on what attackers can do, which is something.",
    },
    right="This attack fails; look for the reason, and attack the reason.",
)
