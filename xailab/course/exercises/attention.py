"""Exercises of lesson `attention`: attention by hand, and what its weights do not say."""

from typing import TYPE_CHECKING, Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_finite,
    expect_shape,
    expect_share,
    question,
)
from xailab.course.compare import as_array

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "attention.scaled",
    kind="code",
    points=3,
    minutes=10,
    difficulty=2,
    hints=(
        "Three steps: scores, softmax over the positions that are looked at, mix of the values.",
        "Scores (N, T, T) are q @ k.transpose(1, 2) / d ** 0.5. Before the softmax, give the "
        "columns of padding a score of minus infinity.",
        "weights = scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=2); "
        "return weights @ v, weights",
    ),
)
def scaled(answer: Any) -> None:
    """Weights and mix on two texts, one of them padded."""
    q, k, v, mask = _two_texts()
    want = _weights(q, k, mask)
    given = [part.clone() for part in (q, k, v, mask)]
    came = answer(*given)
    if not isinstance(came, tuple) or len(came) != 2:
        raise Mistake("return two things, in this order: the mix and the weights.")
    mix, weights = came
    if getattr(mix, "shape", None) == want.shape != v.shape:
        raise Mistake("the two come in the other order: first the mix, then the weights.")
    expect_shape(weights, (2, 3, 3), "the weight matrix")
    _expect_weights(weights, want, (q, k, mask))
    expect_close(
        mix,
        want @ v,
        "the mix",
        known={
            "these are the keys mixed: what is handed over are the values.": want @ k,
            "the weights are transposed in the mix: row i mixes what position i looks at.": want.mT
            @ v,
            "x is added already: the residual step comes later, in the block.": want @ v + v,
        },
    )
    if not all((now == before).all() for now, before in zip(given, (q, k, v, mask), strict=True)):
        raise Mistake("right, but your function changed what it was given.")


def _two_texts() -> tuple["Tensor", ...]:
    import torch

    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 4, generator=generator, dtype=torch.float64)
    return q, k, v, torch.tensor([[True, True, True], [True, True, False]])


def _weights(q: "Tensor", k: "Tensor", mask: "Tensor", root: float = 2.0) -> "Tensor":
    import torch

    return (q @ k.mT / root).masked_fill(~mask[:, None, :], -torch.inf).softmax(2)


def _expect_weights(came: Any, want: "Tensor", inputs: tuple["Tensor", "Tensor", "Tensor"]) -> None:
    """Name the usual mistakes, also those that leave nan where nothing is left to look at."""
    import torch

    numbers = torch.as_tensor(as_array(came, "the weight matrix")).nan_to_num(0)
    slips = _slips(*inputs, numbers)
    if not any(torch.allclose(numbers, slip, rtol=1e-5, atol=1e-7) for slip in slips.values()):
        expect_finite(came, "the weight matrix", "Does a row look at nothing but padding?")
    expect_close(numbers, want, "the weight matrix", known=slips)


def _slips(q: "Tensor", k: "Tensor", mask: "Tensor", came: "Tensor") -> dict[str, "Tensor"]:
    """Return the weights of each usual mistake; what hangs on how padding is hidden is as it came."""
    import torch

    scores, hidden = q @ k.mT / 2, ~mask[:, None, :]
    plain = scores.softmax(2)
    down = scores.masked_fill(hidden, -torch.inf).softmax(1)
    turned = torch.stack([came[0], _weights(q, k, ~mask)[1]])
    return {
        "nothing is divided: the scores go by the root of d.": _weights(q, k, mask, 1.0),
        "the scores are divided by d; divide by its root.": _weights(q, k, mask, 4.0),
        "the scores are divided by the root of 2; here the vectors are longer: d is q.shape[-1].": (
            _weights(q, k, mask, 2**0.5)
        ),
        "the padding gets attention: use the mask.": plain,
        "padding got the score 0, which is a score like any other: e^0 is 1. Give it minus "
        "infinity.": scores.masked_fill(hidden, 0).softmax(2),
        "the padding is set to 0 after the softmax, so these rows no longer sum to 1: mask the "
        "scores.": plain * mask[:, None, :],
        "the softmax runs over dim 1, who looks; it belongs over dim 2, what is looked at.": (
            torch.where(hidden, came, down)
        ),
        "the mask hides rows, who looks; it has to hide columns, what is looked at: "
        "mask[:, None, :].": torch.where(mask[:, :, None], plain, came),
        "the mask hides the wrong side, and the words are what nobody sees.": turned,
        "queries and keys have changed places: row i is the question of position i.": (
            _weights(k, q, mask)
        ),
    }


@exercise(
    "attention.rollout",
    kind="code",
    points=2,
    minutes=7,
    difficulty=2,
    hints=(
        "Half of a word stays where it is (the identity), half comes from where it looks.",
        "Begin with the identity. For each layer, from the first to the last, the new map is "
        "(half attention + half identity) @ the map so far.",
        "rolled = torch.eye(T); for A in maps: rolled = (0.5 * A + 0.5 * torch.eye(T)) @ rolled",
    ),
)
def rollout(answer: Any) -> None:
    """Two layers on paper, then three."""
    import torch

    first = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    second = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    maps = [first, second, first.flip(0)]
    for n in (2, 3):
        expect_close(
            answer([each.clone() for each in maps[:n]]),
            _rolled(maps[:n]),
            f"the rollout of {n} layers",
            known=_rollout_slips(maps[:n]),
        )


def _rolled(maps: list["Tensor"], keep: float = 0.5, *, turned: bool = False) -> "Tensor":
    import torch

    eye = torch.eye(3)
    rolled = eye
    for weights in maps:
        step = (1 - keep) * weights + keep * eye
        rolled = rolled @ step if turned else step @ rolled
    return rolled


def _rollout_slips(maps: list["Tensor"]) -> dict[str, "Tensor"]:
    import torch

    doubled = torch.eye(3)
    for weights in maps:
        doubled = (weights + torch.eye(3)) @ doubled
    return {
        "the identity is missing: half of each word is handed on by the residual.": _rolled(
            maps, 0
        ),
        "the layers are multiplied in the wrong order: a new layer stands on the left.": _rolled(
            maps, turned=True
        ),
        "the rows do not sum to 1: half attention plus half identity.": doubled,
        "this is the last layer alone.": _rolled(maps[-1:]),
        "the last layer is missing.": _rolled(maps[:-1]),
        "this is the mean of the layers; multiply them.": torch.stack(maps).mean(0),
        "this is the mean of the layers, half identity; multiply them.": (
            torch.stack(maps).mean(0) / 2 + torch.eye(3) / 2
        ),
    }


@exercise(
    "attention.cls",
    kind="predict",
    points=1,
    minutes=2,
    hints=(
        "A head that knows nothing gives each of some 27 pieces the same. But weights must "
        "sum to 1: where can a head look that has nothing to look for?",
    ),
)
def cls(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "attention.twin",
    kind="code",
    points=2,
    minutes=5,
    difficulty=2,
    hints=(
        "What does the head hand over with the weights of the text? Only this sum has to stay.",
        "It hands over .5 * 1 + .5 * 5 = 3. Which words can make 3 without the first two?",
        "One word has the value 3 already; so have 2 and 4, half each.",
    ),
)
def twin(answer: Any) -> None:
    """Weights that share no word with [.5, .5, 0, 0, 0] and hand over the same."""
    import torch

    weights = torch.as_tensor(answer, dtype=torch.float64)
    if weights.shape != (5,):
        raise Mistake(f"five weights are asked for, one a word; {tuple(weights.shape)} came.")
    if not weights.isfinite().all() or weights.min() < 0:
        raise Mistake("attention weights are 0 or positive: a softmax gives no others.")
    if abs(float(weights.sum()) - 1) > 1e-6:
        raise Mistake(f"attention weights sum to 1; these sum to {weights.sum().item():.4g}.")
    if weights[:2].max() > 0:
        raise Mistake("the first two words must get nothing: this is to be the other pattern.")
    handed = float(weights @ torch.tensor([1.0, 5.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    if abs(handed - 3) > 1e-6:
        raise Mistake(f"these hand over {handed:.4g}; the pattern above hands over 3.")


@exercise(
    "attention.moved",
    kind="predict",
    points=1,
    minutes=2,
    hints=(
        "The class token looks at 36 places in four heads: 144 weights. How many numbers must "
        "stay as they are?",
    ),
)
def moved(guess: Any) -> None:
    """A share."""
    expect_share(guess)


criticize(
    "attention.report",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Three claims: what the words mean, that they decide, and that the model reads as people "
        "do. Which of them does an attention map support?",
        "What is at a position in the last layer: the word, or a mix of words? What stands behind "
        "a weight? How many heads were there to choose from?",
        "Values; mixing by earlier layers; other patterns with the same output; delete the words "
        "and see; compare with integrated gradients; one head and one text, chosen.",
    ),
    model="""
    The figure shows the weights of one head of 72, chosen by the authors; other heads look
    elsewhere, and a head that can be switched off without harm proves nothing. A weight is half
    of a product: how much is handed over depends on the value behind it. In layer 5 a position
    no longer holds the word that is printed there but a mix made by earlier layers, and other
    patterns can give the same output. Attention has no sign and no class, so it cannot say that
    "tepid" spoke against and "delight" for. I would ask for the fall of the logit when these
    words are deleted, beside random words, over many reviews; for integrated gradients on the
    embeddings; and for the same test on data where the deciding word is known.
    """,
    rubric={
        "one of many": "It is one head of 72 on one review, chosen by the authors: what do the "
        "others show?",
        "values": "A weight is half of a product: what is handed on also depends on the value "
        "vector behind it.",
        "mixing": "In layer 5 a position holds a mix of words made by earlier layers, not the "
        "word printed there.",
        "no sign": "Attention has neither sign nor class: it cannot say that one word spoke for "
        "the verdict, another against.",
        "not unique": "Other attention patterns can give the same output, so the pattern is not "
        "the reason.",
        "experiment": "Test it: delete or replace these words, beside random ones, on many "
        "reviews, and watch the logit; or use data where the deciding word is known.",
    },
)


question(
    "attention.q_value",
    "A head gives 80% of its attention to [CLS]. What does it hand over?",
    choices={
        "Mostly what stands at [CLS].": "Only if the value at [CLS] is large. Measured above, it is small: looking there is a way to do little.",
        "That depends on the values: 80% of a small vector is little.": "The mix is weight times "
        "value. The picture of the weights shows one half of the product.",
        "Nothing: [CLS] is no word.": "It has a value vector like every other piece.",
    },
    right="That depends on the values: 80% of a small vector is little.",
)

question(
    "attention.q_class",
    "You draw the rollout of one digit for the class 4, and again for the class 9. What differs?",
    choices={
        "The map of 4 marks the open top, the map of 9 the closed one.": "Where would it take the "
        "class from? No logit and no gradient goes into it.",
        "Nothing: rollout is not asked for a class.": "It multiplies attention weights, and these "
        "are the same whatever you ask.",
        "Only the sign.": "There is no sign either: a product of weights that are 0 or positive.",
    },
    right="Nothing: rollout is not asked for a class.",
)
