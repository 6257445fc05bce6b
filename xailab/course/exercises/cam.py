"""Exercises of lesson `cam`: class activation maps by hand, and what may be read into them."""

import math
from typing import TYPE_CHECKING, Any

from xailab.course import (
    Mistake,
    exercise,
    expect_close,
    expect_detached,
    expect_mentions,
    expect_share,
    expect_words,
    question,
)
from xailab.course.toys import uneven_network

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "cam.class_map",
    kind="code",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "The map is a weighted sum of the K small pictures. Which K numbers of `weight` belong "
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
        "the bias is added once for each small picture; add it once, after the sum.": bare + 3 * 2,
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
    "cam.grad_cam",
    kind="code",
    points=3,
    minutes=12,
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
    "cam.plus_plus",
    kind="predict",
    points=1,
    minutes=2,
    hints=("Read the formula again: what happens to a small picture with a negative slope?",),
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


@exercise(
    "cam.radiology",
    kind="criticize",
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
)
def radiology(answer: Any) -> None:
    """Speaks of resolution, of scoring against a truth, and of where versus why."""
    expect_words(answer, 40)
    expect_mentions(
        answer,
        r"7 ?(x|×|by) ?7|seven by seven|49|cells?\b|coarse|resolution|stretch|interpolat|upsampl"
        r"|blow|blown|enlarg|smooth(ed|ing|ness)|drawn smooth|grid",
        "Where does the smooth outline come from? Speak of the size of the map.",
    )
    expect_mentions(
        answer,
        r"mask|truth|annotat|radiologist.{0,40}(draw|mark|outline)|pointing|chance|score[ds]? "
        r"(it|the|them|on|against)|(all|many|more|other|every|hundred\w*) (of )?(the )?(test )?"
        r"(image|picture|case|patient|x.ray|example|photo)|how often|anecdot|cherry|cover|hide|hiding"
        r"|occlu|delet|(one|single|chosen) (image|picture|figure|x.ray|example|case)",
        "One picture proves little: against what, and on how many pictures, would you score it?",
    )
    expect_mentions(
        answer,
        r"\bwhy\b|not what|reason|tag|marker|text(ure)?|shortcut|other class|wrong class|healthy"
        r"|other target|another class|randomi[sz]",
        "Warm is a place, not a reason: what else could the network use there, and what would "
        "the map of another class look like?",
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
