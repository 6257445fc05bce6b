"""Exercises of lesson `feature_visualization`: one step uphill, the price of roughness, and what a picture proves."""

from typing import TYPE_CHECKING, Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_detached,
    expect_number,
    expect_share,
    question,
)

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "feature_visualization.above",
    kind="predict",
    points=1,
    minutes=2,
    hints=("The picture was made for this logit. The digits were drawn by people, for people.",),
)
def above(guess: Any) -> None:
    """A number of digits."""
    expect_number(guess, 0, 5000)


@exercise(
    "feature_visualization.shift",
    kind="predict",
    points=1,
    minutes=2,
    hints=("Fine noise: after a shift by three pixels, which of its dots meet the same weights?",),
)
def shift(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "feature_visualization.ascend",
    kind="code",
    points=3,
    minutes=8,
    difficulty=2,
    hints=(
        "Make a copy of x that wants gradients, take the slope of the logit, go along it.",
        "model(x)[:, target].sum() holds every row's own slope; its length: "
        "slope.flatten(1).norm(dim=1), one number a row.",
        "x = x.detach().clone().requires_grad_(); (slope,) = torch.autograd.grad(..., x); "
        "return (x + rate * slope / length).clamp(0, 1).detach()",
    ),
)
def ascend(answer: Any) -> None:
    """Right for a batch whose rows have slopes of other lengths; nothing changed or left behind."""
    import torch

    net, x = _curved_network(), _two_pictures()
    slope, of_chance = (
        _slope(net, x, lambda z: z[:, 1]),
        _slope(net, x, lambda z: z.softmax(1)[:, 1]),
    )
    given = x.clone()
    moved = answer(net, given, 1, 0.5)
    expect_close(
        moved, _step(x, slope, 0.5), "the moved pictures", known=_slips(x, slope, of_chance)
    )
    expect_detached(moved, "the picture")
    if not torch.equal(given, x) or given.requires_grad:
        raise Mistake("the step is right, but your function changed x: work on a copy.")
    if any(parameter.grad is not None for parameter in net.parameters()):
        raise Mistake(
            "the step is right, but .backward() left a gradient in every weight of the network; "
            "torch.autograd.grad leaves nothing behind."
        )


def _curved_network() -> Any:
    """Two classes on 2 x 2 pixels; the slope of class 1 grows with the picture."""
    import torch
    from torch import nn

    class Curved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 2.0, 0.5, -1.0], [3.0, -1.0, 2.0, 0.4]]))

        def forward(self, x: "Tensor") -> "Tensor":
            return x.flatten(1) ** 2 @ self.weight.T

    return Curved()


def _two_pictures() -> "Tensor":
    import torch

    return torch.tensor([[[[0.9, 0.2], [0.3, 0.5]]], [[[0.1, 0.05], [0.4, 0.6]]]])


def _slope(net: Any, x: "Tensor", score: Any) -> "Tensor":
    import torch

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(score(net(leaf)).sum(), leaf)
    return slope


def _step(x: "Tensor", slope: "Tensor", rate: float) -> "Tensor":
    length = slope.flatten(1).norm(dim=1)[:, None, None, None]
    return (x + rate * slope / length).clamp(0, 1)


def _slips(x: "Tensor", slope: "Tensor", of_chance: "Tensor") -> dict[str, "Tensor"]:
    """Return what each of the usual mistakes computes."""
    length = slope.flatten(1).norm(dim=1)[:, None, None, None]
    whole = slope / slope.norm()
    first = _step(x, slope, 0.5)
    return {
        "this walks downhill: add the slope.": _step(x, -slope, 0.5),
        "values below 0 or above 1 are no picture: clamp.": x + 0.5 * slope / length,
        "the slope is not divided by its length.": (x + 0.5 * slope).clamp(0, 1),
        "divide each row by the length of its own slope, not by that of the whole batch.": (
            x + 0.5 * whole
        ).clamp(0, 1),
        "this climbs the probability; take the logit, before the softmax.": _step(
            x, of_chance, 0.5
        ),
        "this takes the sign of the slope; it is to be divided by its length.": (
            x + 0.5 * slope.sign()
        ).clamp(0, 1),
        "the step has length 1: multiply by `rate`.": _step(x, slope, 1.0),
        "only the first row moves: logits[0, target] leaves out the others.": first.where(
            (first * 0 + 1).cumsum(0) == 1, x
        ),
    }


@exercise(
    "feature_visualization.roughness",
    kind="code",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "A slice without the first row minus one without the last row holds all vertical pairs.",
        "x[:, :, 1:] - x[:, :, :-1]; absolute values; a mean for each picture.",
        "(...).abs().mean(dim=(1, 2, 3)) for the rows, plus the same for the columns.",
    ),
)
def roughness(answer: Any) -> None:
    """One number a picture, of absolute differences, by hand."""
    import torch

    x = torch.tensor([[[[0.0, 1.0, 0.5], [0.4, 1.0, 0.1]]], [[[0.0, 0.0, 0.0], [0.3, 0.0, 0.0]]]])
    down, across = x.diff(dim=2), x.diff(dim=3)
    inside = (1, 2, 3)
    want = down.abs().mean(inside) + across.abs().mean(inside)
    known = {
        "the differences are squared; take absolute values.": (down**2).mean(inside)
        + (across**2).mean(inside),
        "rising and falling pixels cancel: take absolute values.": down.mean(inside)
        + across.mean(inside),
        "this is a sum over the pixels; take the mean.": down.abs().sum(inside)
        + across.abs().sum(inside),
        "only vertical neighbors are compared.": down.abs().mean(inside),
        "only horizontal neighbors are compared.": across.abs().mean(inside),
        "the two means are averaged; add them.": want / 2,
    }
    got = answer(x)
    if isinstance(got, torch.Tensor) and got.ndim == 0:
        raise Mistake("one number came for the whole batch; each picture has a price of its own.")
    expect_close(got, want, "the price of two pictures", known=known)
    colors = x.repeat(1, 3, 1, 1) * torch.tensor([3.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    expect_close(answer(colors), want, "the price of pictures with three channels")


criticize(
    "feature_visualization.melanoma",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "There are four claims in these sentences. Which of them could one picture support?",
        "Where does such a picture lie, compared with photos of skin? Who gave it its name? What "
        "would a shuffled network paint?",
        "Optimized, not photographed; real photos that excite the unit; other seeds and a control; "
        "does the decision change without the unit?",
    ),
    model="""
    The picture was optimized, so it shows what excites the unit most, far outside any photo of
    skin, and not what the unit does on patients: I want the strongest and the middling real
    photos beside it, and how its activation differs between melanoma and harmless moles on all
    test images. "Clearly shows" is the authors' reading: another seed or several diverse
    pictures may show something else, and the recipe (jitter, waves, penalties) makes any
    picture look natural. A network with shuffled weights gives textures, too, so that control
    is missing. Even a good detector need not be used: remove the unit and see if the decisions
    change. Nothing of this says that the network is safe; that takes accuracy on other
    hospitals' patients.
    """,
    rubric={
        "optimum": "The picture was optimized: it shows what excites the unit most, far outside "
        "any photo of skin.",
        "real photos": "Ask for strong and middling real photos, and for its activation on "
        "melanoma and on harmless moles.",
        "one reading": "The name is the authors' reading of one picture; another seed, or several "
        "pictures, may show something else.",
        "control": "The recipe makes any picture look natural: a network with shuffled weights is "
        "the missing control.",
        "use": "A detector need not be used: remove the unit and see whether decisions change.",
        "the clinic": "None of this says that it is safe: that takes accuracy on patients of "
        "other hospitals.",
    },
)


question(
    "feature_visualization.q_survive",
    "Two pictures of one class: A has logit 70, after shaking 14. B has 38, after shaking 37. Which "
    "one tells more about the class?",
    choices={
        "A: its logit is the highest.": "Only in one position. Move it by three pixels and it is "
        "below what an ordinary photo may reach.",
        "B: what excites the network in it is still there after a move.": "A class is what moves, "
        "turns and grows leave alone; A has found a lock that fits one key.",
        "Neither: logits do not compare.": "It is one network, one class and one unit of measure.",
    },
    right="B: what excites the network in it is still there after a move.",
)

question(
    "feature_visualization.q_shuffled",
    "The trained network's channel gives stripes, the shuffled network's channel gives blobs. What "
    "follows?",
    choices={
        "The trained channel detects stripes in photos.": "The picture is an extreme that no photo "
        "reaches. Look at which photos excite the channel.",
        "Structure alone shows nothing; the difference to the shuffled network is worth a look.": (
            "The texture comes partly from the architecture and the recipe, so only what the "
            "control does not show can come from training."
        ),
        "The visualization is broken.": "It does what its formula says, for any network.",
    },
    right="Structure alone shows nothing; the difference to the shuffled network is worth a look.",
)
