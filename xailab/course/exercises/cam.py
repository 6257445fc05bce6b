"""Exercises of lesson `cam`: class activation maps by hand, and what may be read into them."""

import math
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
from xailab.course.toys import uneven_network

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "cam.logit",
    kind="code",
    points=1,
    minutes=3,
    difficulty=1,
    hints=(
        "Two steps: one number for each feature map, then one number for the class.",
        "maps.mean(dim=(1, 2)) averages over the cells and leaves (K,); weight[target] is (K,) too.",
        "return weight[target] @ maps.mean(dim=(1, 2)) + ...",
    ),
)
def logit(answer: Any) -> None:
    """Global average pooling, then the row of the class and its bias."""
    import torch

    maps, weight, bias = _small_head()
    pooled = maps.mean((1, 2))
    want = weight[1] @ pooled + bias[1]
    known = {
        "the bias is missing.": weight[1] @ pooled,
        "the cells of a feature map are summed; the network averages them.": weight[1]
        @ maps.sum((1, 2))
        + bias[1],
        "this takes the largest cell of each feature map; the network averages them.": weight[1]
        @ maps.amax((1, 2))
        + bias[1],
        "these are the weights of class 0: pick the row of `target`.": weight[0] @ pooled + bias[0],
        "this takes a column of `weight`; the row of a class holds its weights.": weight[:, 1]
        @ pooled
        + bias[1],
        "average over the channels? The logit is a sum over them.": (weight[1] * pooled).mean()
        + bias[1],
        "this is the softmax of the logits: the logit comes before it.": (
            weight @ pooled + bias
        ).softmax(0)[1],
    }
    got = answer(maps, weight, bias, 1)
    if tuple(getattr(got, "shape", ())) == tuple(bias.shape):
        raise Mistake("these are the logits of all classes: take the row and the bias of `target`.")
    expect_close(torch.as_tensor(got) if got is not None else got, want, "the logit", known=known)


def _small_head() -> "tuple[Tensor, Tensor, Tensor]":
    """Return maps (3, 1, 2), weight (3, 3) and bias (3,)."""
    import torch

    maps = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 1.0]]])
    weight = torch.tensor([[1.0, 2.0, -1.0], [0.5, -3.0, 1.0], [2.0, 0.0, 4.0]])
    return maps, weight, torch.tensor([0.5, 2.0, -1.0])


@exercise(
    "cam.class_map",
    kind="code",
    points=2,
    minutes=4,
    difficulty=2,
    hints=(
        "The map is a weighted sum of the K feature maps. Which K numbers of `weight` belong "
        "to this class?",
        "The mean of a map goes up by b if every cell goes up by b.",
        "return (weight[target][:, None, None] * maps).sum(0) + ...",
    ),
)
def class_map(answer: Any) -> None:
    """A map with a class's own weights, whose plain mean is the logit."""
    import torch

    maps = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 1.0]]])  # (3, 1, 2)
    weight = torch.tensor([[1.0, 2.0, -1.0], [0.5, -3.0, 1.0], [2.0, 0.0, 4.0]])
    bias = torch.tensor([0.5, 2.0, -1.0])
    bare = _weighted(weight[1], maps)
    want = bare + 2
    known = {
        "the bias is missing: the mean should be the whole logit.": bare,
        "the bias is shared out among the cells: each of them has to get all of it, or the mean "
        "gets too little.": bare + 2 / 2,
        "the bias is divided by 49: each cell has to get all of it.": bare + 2 / 49,
        "the bias is added once for each feature map; add it once, after the sum.": bare + 3 * 2,
        "its mean is right, but with one value everywhere it does not say where.": want.mean().expand(
            1, 2
        ),
        "these are the weights of class 0: pick the row of `target`.": _weighted(weight[0], maps)
        + 0.5,
        "this takes a column of `weight`; the row of a class holds its weights.": _weighted(
            weight[:, 1], maps
        )
        + 2,
        "average over the channels? The logit is a sum over them.": bare / 3 + 2,
        "negative cells are cut off: the logit needs them too.": want.relu(),
        "what speaks against the class is cut off: the logit needs it too.": bare.relu() + 2,
    }
    expect_close(answer(maps, weight, bias, 1), want, "the map of class 1", known=known)
    _check_mean(answer)


def _check_mean(answer: Any) -> None:
    """Ask for the promise itself, at the size of the lesson's network."""
    import torch

    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1280, 7, 7, generator=generator, dtype=torch.float64)
    weight = torch.randn(10, 1280, generator=generator, dtype=torch.float64)
    bias = torch.randn(10, generator=generator, dtype=torch.float64)
    logit = weight[7] @ maps.mean((1, 2)) + bias[7]
    given = maps.clone()
    heat = answer(given, weight, bias, 7)
    if not torch.equal(given, maps):
        raise Mistake("the map is right, but your function changed `maps`.")
    expect_close(heat.mean(), logit, "the mean of the map")


def _weighted(weights: "Tensor", maps: "Tensor") -> "Tensor":
    return (weights[:, None, None] * maps).sum(0)


@exercise(
    "cam.ratio",
    kind="predict",
    points=1,
    minutes=1,
    hints=("Brighten one cell of channel k by 1. By how much does the mean of its 49 cells rise?",),
)
def ratio(guess: Any) -> None:
    """One number; 0 for "it differs"."""
    expect_number(guess, 0, 10_000)


@exercise(
    "cam.channel_weights",
    kind="code",
    points=2,
    minutes=3,
    difficulty=2,
    hints=(
        "Two steps: the gradient of the logit at every cell, then its mean over the cells.",
        "(grads,) = torch.autograd.grad(logit, maps) unpacks the tuple; grads is (1, K, h, w).",
        "return grads.mean(dim=(2, 3), keepdim=...)",
    ),
)
def channel_weights(answer: Any) -> None:
    """The mean gradient of each channel, (1, K, 1, 1)."""
    import torch

    gradient = torch.tensor([[[[4.0, 0.0], [3.0, 1.0]], [[-2.0, -2.0], [1.0, -5.0]]]])
    maps = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]], [[5.0, 0.0], [1.0, 1.0]]]]).requires_grad_()
    got = answer((gradient * maps).sum(), maps)
    if isinstance(got, tuple):
        raise Mistake(
            "a tuple came: torch.autograd.grad gives a tuple with one gradient in it; unpack it "
            "with (grads,) = ..."
        )
    known = {
        "the mean goes over the channels (dim 1), not over the cells (dims 2 and 3).": (
            gradient.mean(1, keepdim=True)
        ),
        "these are the gradients of all cells: their mean over the cells is missing.": gradient,
        "the mean goes over the feature maps; take it over their gradients.": maps.detach().mean(
            (2, 3), keepdim=True
        ),
        "the gradients are made positive first: what speaks against the class has to stay "
        "negative.": gradient.abs().mean((2, 3), keepdim=True),
        "negative gradients are cut off: what speaks against the class has to stay negative.": (
            gradient.relu().mean((2, 3), keepdim=True)
        ),
    }
    expect_close(got, gradient.mean((2, 3), keepdim=True), "alpha", known=known)
    if maps.grad is not None:
        raise Mistake(
            "the weights are right, but .backward() left a gradient behind; torch.autograd.grad "
            "leaves nothing."
        )


@exercise(
    "cam.grad_cam",
    kind="code",
    points=3,
    minutes=5,
    difficulty=3,
    hints=(
        "Four steps: forward inside `capture`, gradient of the score, mean over positions, "
        "weighted sum and ReLU.",
        "Rows do not touch each other: the gradient of logits[:, target].sum() with respect to "
        "the maps holds every row's own gradient.",
        "(grads,) = torch.autograd.grad(logits[:, target].sum(), A); "
        "alpha = grads.mean(dim=(2, 3), keepdim=True); then sum over dim=1, relu, detach.",
    ),
)
def grad_cam(answer: Any) -> None:
    """Right on a network whose gradient differs from place to place, for a batch, detached."""
    import torch

    net, x = uneven_network(), _two_pictures()
    maps = x.clone()
    gradient = net[3].weight[1].detach().reshape(1, 2, 2, 2) * (maps > 0)
    alpha = gradient.mean((2, 3), keepdim=True)
    want = (alpha * maps).sum(1, keepdim=True).relu()
    heat = answer(net, x, 1, "0")
    expect_close(heat, want, "the map of class 1", known=_slips(net, maps, gradient))
    expect_detached(heat, "the map")
    if any(parameter.grad is not None for parameter in net.parameters()):
        raise Mistake(
            "the map is right, but .backward() left a gradient in every weight of the network; "
            "torch.autograd.grad leaves nothing behind."
        )
    if not torch.equal(x, maps):
        raise Mistake("the map is right, but your function changed x.")


def _two_pictures() -> "Tensor":
    import torch

    first = [[[0.0, 1.0], [0.2, 0.3]], [[0.4, 0.0], [0.5, 0.0]]]
    second = [[[0.1, 0.0], [0.0, 0.5]], [[0.0, 0.6], [0.1, 0.2]]]
    return torch.tensor([first, second])


def _slips(net: Any, maps: "Tensor", gradient: "Tensor") -> dict[str, "Tensor"]:
    """Return what each of the usual mistakes computes."""
    import torch

    def heat(weights: "Tensor") -> "Tensor":
        return (weights * maps).sum(1, keepdim=True).relu()

    alpha = gradient.mean((2, 3), keepdim=True)
    leaf = maps.clone().requires_grad_()
    chance = net(leaf).softmax(1)[:, 1].sum()
    (of_chance,) = torch.autograd.grad(chance, leaf)
    every = net[3].weight.detach().sum(0).reshape(1, 2, 2, 2) * (maps > 0)
    only_first = heat(alpha) * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1)
    return {
        "the mean goes over the channels (dim 1), not over the positions (dims 2 and 3).": heat(
            gradient.mean(1, keepdim=True)
        ),
        "the mean goes over the rows of the batch as well: each row has its own weights.": heat(
            alpha.mean(0, keepdim=True)
        ),
        "the ReLU cuts the weights; it belongs after the sum over channels.": heat(alpha.relu()),
        "each place is weighed by its own gradient: the mean over positions is missing.": heat(
            gradient
        ),
        "this explains the probability; take the logit, before the softmax.": heat(
            of_chance.mean((2, 3), keepdim=True)
        ),
        "this explains the sum of all logits: pick the one of `target`.": heat(
            every.mean((2, 3), keepdim=True)
        ),
        "only the first row of the batch has a map: logits[0, target] leaves out the "
        "others.": only_first,
        "the weights are absolute values: what speaks against the class now speaks for it.": heat(
            alpha.abs()
        ),
        "half of what it should be: the sum over channels, or over logits[:, target], is a mean "
        "here.": heat(alpha) / 2,
    }


@exercise(
    "cam.pointing",
    kind="code",
    points=2,
    minutes=4,
    difficulty=2,
    hints=(
        "Three steps: flatten each map, find its largest cell, look the truth up there.",
        "heat.flatten(1).argmax(dim=1) is (N,): one place for each map.",
        "truth.flatten(1)[torch.arange(len(truth)), hottest] picks one value from each row; then "
        "the mean.",
    ),
)
def pointing(answer: Any) -> None:
    """The share of four maps whose largest cell lies in the truth."""
    import torch

    heat = torch.tensor(
        [
            [[[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]],  # hottest at [0, 2]: a hit
            [[[1.0, 0.0, 0.0], [0.0, 9.0, 0.0]]],  # at [1, 1]: beside the truth
            [[[2.0, 0.0, 0.0], [0.0, 0.0, -5.0]]],  # at [0, 0], a hit; -5 is evidence against
            [[[0.0, 0.0, 0.5], [0.0, 0.1, 0.0]]],  # at [0, 2]: a hit
        ]
    )
    truth = torch.zeros(4, 2, 3, dtype=torch.bool)
    truth[0, 0, 2] = truth[1, 0, 0] = truth[2, 0, 0] = truth[3, :, 1:] = True
    known = {
        "the largest absolute value was taken: in the third map that speaks against the "
        "class.": 0.5,
        "hits are counted; their share is asked for.": 3.0,
        "the largest value of the whole batch was taken: each map has its own.": 0.0,
        "this is the share of the heat in the truth (mass); only the hottest place counts "
        "here.": _mass(heat, truth),
        "this is how much of the picture is true, which is what chance gives.": truth.float().mean(),
    }
    got = answer(heat, truth)
    if isinstance(got, (tuple, list)) or getattr(got, "ndim", 0) == 1:
        raise Mistake(
            f"one number for all {len(heat)} maps is asked for: take the mean of the hits."
        )
    expect_close(got, 0.75, "the pointing score of four maps", known=known)


def _mass(heat: "Tensor", truth: "Tensor") -> "Tensor":
    positive = heat[:, 0].clamp(min=0)
    return ((positive * truth).sum((1, 2)) / positive.sum((1, 2))).mean()


@exercise(
    "cam.mended",
    kind="code",
    points=2,
    minutes=4,
    difficulty=2,
    hints=(
        "Grad-CAM takes the mean of 1, -1, 1, -1. What is left of it?",
        "Do not average: multiply each cell by its own gradient.",
        "return (grads * A).sum(dim=1, keepdim=True) and .detach()",
    ),
)
def mended(answer: Any) -> None:
    """HiResCAM without its ReLU."""
    net, x = uneven_network(), _two_pictures()
    maps = x.clone()
    gradient = net[3].weight[1].detach().reshape(1, 2, 2, 2) * (maps > 0)
    want = (gradient * maps).sum(1, keepdim=True)
    mean = gradient.mean((2, 3), keepdim=True)
    known = {
        "the mean over the cells is still there: it is the step that loses the answer.": (
            (mean * maps).sum(1, keepdim=True)
        ),
        "this is still Grad-CAM: the mean over the cells is the step that loses the answer.": (
            (mean * maps).sum(1, keepdim=True).relu()
        ),
        "right, but for the ReLU at the end: leave it out, so that the sign stays.": want.relu(),
        "negative gradients are cut off (that is LayerCAM): keep their sign.": (
            (gradient.relu() * maps).sum(1, keepdim=True)
        ),
        "the gradients have lost their signs.": (gradient.abs() * maps).sum(1, keepdim=True),
        "these are the gradients alone: multiply them by the feature maps.": gradient.sum(
            1, keepdim=True
        ),
    }
    heat = answer(net, x, 1, "0")
    expect_close(heat, want, "the map of class 1", known=known)
    expect_detached(heat, "the map")


@exercise(
    "cam.plus_plus",
    kind="predict",
    points=1,
    minutes=2,
    hints=("Read the formula again: what happens to a feature map with a negative gradient?",),
)
def plus_plus(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "cam.layer",
    kind="predict",
    points=1,
    minutes=2,
    hints=("A map that knows nothing has a quarter of its heat in the right quarter.",),
)
def layer(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "cam.blind",
    kind="code",
    points=2,
    minutes=5,
    difficulty=2,
    hints=(
        "Grad-CAM sees only the mean of the four weights.",
        "Make the mean 0: what one weight gives, the others have to take.",
        "A large weight where the picture is bright (3), its negative where the picture is 0.",
    ),
)
def blind(answer: Any) -> str | None:
    """Weights with a score of at least 6 and a Grad-CAM map of zeros."""
    import torch

    weights = torch.as_tensor(answer, dtype=torch.float32)
    if weights.shape != (2, 2):
        raise Mistake(f"four weights are asked for, (2, 2); {tuple(weights.shape)} came.")
    bright = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    score, mean = (weights * bright).sum().item(), weights.mean().item()
    if not math.isfinite(score):
        raise Mistake("four finite numbers are asked for.")
    if score < 6:
        raise Mistake(f"the score is {score:.4g}; it has to be at least 6.")
    if mean > 1e-6:
        top = mean * 3
        raise Mistake(
            f"Grad-CAM sees this network: the mean weight is {mean:.4g}, so its map goes up to "
            f"{top:.4g}."
        )
    if mean < -1e-6:
        return "Your mean is negative, so it is the ReLU that empties the map: that counts too."
    return None


criticize(
    "cam.radiology",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "There are four claims in these sentences. Which of them could a heat map support?",
        "How many numbers does the smooth shape come from? How many pictures were shown, and who "
        "chose them? What would the map for *healthy* look like?",
        "Resolution; no truth to score against (masks drawn by a radiologist); warm says where, "
        "not why; a map for the wrong class looks as good.",
    ),
    model="""
    The smooth outline is drawn by interpolation: such maps often have 7 x 7 cells, too coarse
    to follow a lobe, and each cell sees far beyond its own square. One figure, chosen by the
    authors, says nothing about the other patients: I would ask for the pointing game and the
    mass on all test images, against masks that radiologists drew, beside the value that chance
    gives. Warm says where, not why: a hospital tag or a drain in the same place would warm the
    same cell. I would want the map for "healthy" on the same scale, because a map for the wrong
    class can look as good, and the evidence against, which the ReLU hides. Accuracy and a
    plausible map together still do not test use in a clinic.
    """,
    rubric={
        "resolution": "The smooth outline is interpolation: such maps often have 7 x 7 cells, too "
        "coarse to follow a lobe.",
        "one picture": "One figure, chosen by the authors, says nothing about the other patients: "
        "ask for all test images.",
        "known answer": "The map has to be scored against a truth, such as masks that "
        "radiologists drew, beside what chance gives.",
        "where, not why": "Warm says where, not why: a hospital tag or a drain in the same place "
        "would warm the same cells.",
        "other classes": "Ask for the map of another class or of a network with random weights: "
        "it may look as good, and the ReLU hides what speaks against.",
        "the clinic": "Accuracy and a plausible map do not test use in a clinic: that takes "
        "patients of other hospitals.",
    },
)


question(
    "cam.q_agree",
    "You add a second linear layer and a ReLU between the averages and the classes. What becomes "
    "of the two methods?",
    choices={
        "CAM and Grad-CAM still agree up to a factor.": "CAM needs one weight per picture and "
        "class. With a layer in between there is no such weight any more.",
        "CAM has no weights to take; Grad-CAM works as before.": "The gradient goes through any "
        "number of layers. Its mean is then the weight for this one picture, not for all.",
        "Neither works.": "The gradient with respect to the last maps still exists.",
    },
    right="CAM has no weights to take; Grad-CAM works as before.",
)

question(
    "cam.q_goose",
    "The logit of goose is 10 below the cat's, and Grad-CAM for goose has a bright spot on the "
    "bridge of the cat's nose. What do you know?",
    choices={
        "The network thinks there is a goose at the nose.": "It gives a goose less than one part "
        "in 10,000. The ReLU hid what speaks against it.",
        "Grad-CAM is broken for this network.": "It does what its formula says: it draws the "
        "largest of what is left, however small.",
        "This is the largest of the little that speaks for a goose.": "And since every map is "
        "drawn up to its own top, little looks like much.",
    },
    right="This is the largest of the little that speaks for a goose.",
)
