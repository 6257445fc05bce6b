"""Exercises of lesson `cam_keras`: the tape, a second door, a backward pass of one's own, and five bugs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_number,
    expect_shape,
    question,
)
from xailab.course.toys import uneven_network

Array = np.ndarray


# ---- Grad-CAM -----------------------------------------------------------------------------------


@exercise(
    "cam_keras.grad_cam",
    kind="code",
    points=3,
    minutes=12,
    difficulty=3,
    hints=(
        "Five steps: a model with two outputs, both of them computed under the tape, the slopes of "
        "logits[:, target], their mean over positions, the weighted sum with a ReLU.",
        "Channels stand last, (N, h, w, K): positions are the axes 1 and 2, channels the axis -1.",
        "both = keras.Model(model.inputs[0], [model.get_layer(layer).output, model.outputs[0]]); "
        "alpha = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True); then "
        "tf.nn.relu(tf.reduce_sum(alpha * maps, axis=-1, keepdims=True))",
    ),
)
def grad_cam(answer: Any) -> None:
    """Right where the slopes differ from place to place, row by row, with nothing changed."""
    model, x = _uneven(), _two_pictures()
    before, given = model.get_weights(), x.copy()
    try:
        heat = answer(model, given, 1, "maps")
    except (AttributeError, TypeError, ValueError) as error:
        if "None" not in str(error):
            raise
        raise Mistake(
            "the tape answers None: the maps and the logits have to come out of one call of one "
            "model, inside the `with` block."
        ) from error
    _expect_untouched(model, before, "your function")
    if not np.array_equal(given, x):
        raise Mistake("your function changed x.")
    slopes = _head()[1] * (x > 0)
    want = _heat(slopes.mean((1, 2), keepdims=True), x)
    expect_close(heat, want, "the map of class 1", known=_slips(model, x, slopes), atol=1e-5)


def _uneven() -> Any:
    """Return `uneven_network` in Keras; a batch norm in front does nothing, unless it is trained."""
    from xailab.attribution.cam_keras import keras

    layers = keras.layers
    maps = layers.Conv2D(2, 1, use_bias=False, name="maps")  # its ReLU makes slopes differ by row
    norm = layers.BatchNormalization(epsilon=1e-12)
    head = [layers.ReLU(), layers.Flatten(), layers.Dense(3, name="logits")]
    model = keras.Sequential([keras.Input((2, 2, 2)), norm, maps, *head])
    maps.set_weights([np.eye(2).reshape(1, 1, 2, 2)])
    bias = uneven_network()[3].bias.detach().numpy()
    model.get_layer("logits").set_weights([_head().reshape(3, 8).T, bias])
    return model


def _head() -> Array:
    """Weights of the three classes at every place, channels last: (3, 2, 2, 2)."""
    weight = uneven_network()[3].weight.detach().reshape(3, 2, 2, 2)
    return weight.permute(0, 2, 3, 1).numpy()


def _two_pictures() -> Array:
    first = [[[0.0, 0.4], [1.0, 0.0]], [[0.2, 0.5], [0.3, 0.0]]]
    second = [[[0.1, 0.0], [0.0, 0.6]], [[0.0, 0.1], [0.5, 0.2]]]
    return np.array([first, second], dtype=np.float32)


def _heat(weights: Array, maps: Array) -> Array:
    return (weights * maps).sum(-1, keepdims=True).clip(0)


def _slips(model: Any, maps: Array, slopes: Array) -> dict[str, Array]:
    """Return what each of the usual mistakes computes."""
    alpha = slopes.mean((1, 2), keepdims=True)
    logits = model(maps, training=False).numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    contrast = _head()[1] - np.einsum("nc,cijk->nijk", shares, _head())
    of_chance = shares[:, 1, None, None, None] * contrast * (maps > 0)
    every = _head().sum(0) * (maps > 0)
    only_first = _heat(alpha, maps) * np.array([1.0, 0.0]).reshape(2, 1, 1, 1)
    return {
        "the mean goes over the axes 2 and 3, as in PyTorch. Here positions are the axes 1 and "
        "2.": _heat(slopes.mean((2, 3), keepdims=True), maps),
        "the sum goes over the axis 1, as in PyTorch. Here channels are the last axis.": (
            (alpha * maps).sum(1, keepdims=True).clip(0)
        ),
        "keepdims=True is missing in the mean: the weights of one row meet the places of "
        "another.": _heat(slopes.mean((1, 2)), maps),
        "the mean goes over the rows of the batch as well: each row has its own weights.": _heat(
            alpha.mean(0, keepdims=True), maps
        ),
        "the ReLU cuts the weights; it belongs after the sum over channels.": _heat(
            alpha.clip(0), maps
        ),
        "each place is weighed by its own slope: the mean over positions is missing.": _heat(
            slopes, maps
        ),
        "this explains the probability; take the logit, before the softmax.": _heat(
            of_chance.mean((1, 2), keepdims=True), maps
        ),
        "this explains the sum of all logits: pick the one of `target`.": _heat(
            every.mean((1, 2), keepdims=True), maps
        ),
        "only the first row of the batch has a map: logits[0, target] leaves out the "
        "others.": only_first,
    }


def _expect_untouched(model: Any, before: list[Array], what: str) -> None:
    """Raise `Mistake` if a weight or a stored mean is another one than before."""
    if not all(map(np.array_equal, before, model.get_weights())):
        raise Mistake(
            f"{what} changed the model: under training=True a batch norm uses the batch's own mean "
            "and moves the stored one. Call the model with training=False."
        )


# ---- guided backprop ----------------------------------------------------------------------------


@exercise(
    "cam_keras.guided_relu6",
    kind="code",
    points=2,
    minutes=8,
    difficulty=2,
    hints=(
        "What is the slope of min(max(a, 0), 6) at a = -1, at 3, and at 8?",
        "Start from `guided_relu` above. The value is tf.nn.relu6(a); which places pass a signal?",
        "return tf.nn.relu6(a), backward, with the mask (a > 0) & (a < 6) cast to R's dtype",
    ),
)
def guided_relu6(answer: Any) -> None:
    """The value stops at 0 and 6, and only positive signals pass, only in between."""
    from xailab.attribution.cam_keras import tf

    a = np.array([-2.0, -1.0, 1.0, 3.0, 8.0, 7.0], dtype=np.float32)
    signal = np.array([5.0, -3.0, -4.0, 9.0, 7.0, -1.0], dtype=np.float32)
    value, back = _both_ways(answer, tf.constant(a), tf.constant(signal))
    known_values = {
        "it does not stop at 6.": a.clip(0),
        "it lets negative values in.": a.clip(None, 6),
    }
    expect_close(value, a.clip(0, 6), "the value", known=known_values)
    on, inside = a > 0, (a > 0) & (a < 6)
    known = {
        "this is the plain gradient: drop the negative signals, too.": signal * inside,
        "where a > 6 the unit is flat: nothing passes there.": signal.clip(0) * on,
        "where a < 0 the unit is off: nothing passes there.": signal.clip(0) * (a < 6),
        "the signal may be larger than 6: only `a` stops there.": signal.clip(0, 6) * inside,
        "this is the plain gradient of a ReLU without the stop at 6.": signal * on,
        "this is deconvnet: a unit that was off passes nothing.": signal.clip(0),
        "the signal from above is missing: multiply by R.": inside,
        "the ReLU acts on `a`, not on the signal R.": a.clip(0, 6) * signal,
    }
    expect_close(back, signal.clip(0) * inside, "what is passed back", known=known)


def _both_ways(answer: Callable[[Any], Any], a: Any, signal: Any) -> tuple[Any, Any]:
    """Return the value at a, and what comes back of the signal; decorated answers work, too."""
    from xailab.attribution.cam_keras import tf

    pair = answer(a)
    if isinstance(pair, tuple):
        if len(pair) != 2 or not callable(pair[1]):
            raise Mistake("return two things: the value, and the function `backward`.")
        return pair[0], pair[1](signal)
    if not tf.is_tensor(pair):
        raise Mistake(f"return the pair (value, backward); a {type(pair).__name__} came.")
    with tf.GradientTape() as tape:
        tape.watch(a)
        value = answer(a)
    return value, tape.gradient(value, a, output_gradients=signal)


# ---- guesses ------------------------------------------------------------------------------------


@exercise(
    "cam_keras.padding",
    kind="predict",
    points=1,
    minutes=2,
    hints=("The maps have 7 cells a side, and the spot should slip by nearly one of them.",),
)
def padding(guess: Any) -> None:
    """A correlation."""
    expect_number(guess, -1, 1)


# ---- debug this ---------------------------------------------------------------------------------


@exercise(
    "cam_keras.debug",
    kind="code",
    points=5,
    minutes=15,
    difficulty=3,
    hints=(
        "The first four want the same function, the recipe of section 2. What does the tape need "
        "to see, and when?",
        "Watch the rows; call the model, not `predict`, inside the `with` block; training=False. "
        "nested: begin at the door of the body, model.get_layer('body').inputs[0].",
        "nested: inside = model.get_layer('body'); x = inside.outputs[0]; "
        "for layer in model.layers[1:]: x = layer(x); then "
        "keras.Model(inside.inputs[0], [inside.get_layer('maps').output, x])",
    ),
)
def debug(answer: Any) -> None:
    """All five pieces work on another network of the same kind; the first that does not is named."""
    if not isinstance(answer, dict):
        raise Mistake(f"expected a dictionary with five pieces, got {type(answer).__name__}.")
    if missing := [name for name in (*_GRADIENTS, "nested") if name not in answer]:
        raise Mistake(f"these pieces are missing: {', '.join(missing)}.")
    for name in (*_GRADIENTS, "nested"):
        test = _nested if name == "nested" else _slopes
        try:
            test(name, answer[name])
        except Mistake:
            raise
        except Exception as error:
            raise Mistake(f"{name} still has its bug: {error}") from error


_GRADIENTS = ("unwatched", "outside", "predicted", "trained")


def _wrapped() -> tuple[Any, Array]:
    """Return a network with a body as one layer and stored means that matter, and two inputs."""
    from xailab.attribution.cam_keras import keras

    layers, random = keras.layers, np.random.default_rng(1)
    maps = layers.Conv2D(3, 2, activation="relu", name="maps")
    stack = [keras.Input((5, 5, 2)), layers.BatchNormalization(), maps]
    body = keras.Sequential(stack, name="body")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(4, activation="tanh"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((5, 5, 2)), body, *head])
    small = [random.uniform(0.1, 0.5, weight.shape) for weight in model.get_weights()]
    model.set_weights(small)  # large ones would saturate tanh, and every slope would be 0
    return model, random.random((2, 5, 5, 2), dtype=np.float32)


def _slopes(name: str, piece: Callable[..., Any]) -> None:
    from xailab.attribution.cam_keras import saliency

    model, x = _wrapped()
    before = model.get_weights()
    got = piece(model, x, 1)
    _expect_untouched(model, before, name)
    if got is None:
        raise Mistake(
            f"{name}: the tape answers None. Either it was not told to watch the rows, or the "
            "score was computed where it could not see it."
        )
    of_class = [saliency(model, x, target) for target in range(3)]
    known = {
        "these are the slopes of class 0; take `target`.": of_class[0],
        "these are the slopes of all logits together: take [:, target].": sum(of_class),
        "only the first row has slopes: take [:, target], not [0, target].": (
            of_class[1] * np.array([1.0, 0.0]).reshape(2, 1, 1, 1)
        ),
    }
    expect_close(got, of_class[1], f"{name}: the gradient", known=known, atol=1e-6)


def _nested(name: str, piece: Callable[[Any], Any]) -> None:
    model, x = _wrapped()
    outputs = piece(model)(x, training=False)
    if not isinstance(outputs, list | tuple) or len(outputs) != 2:
        raise Mistake(f"{name}: the model should give two outputs, the maps and the logits.")
    maps, logits = outputs
    body = model.get_layer("body")
    expect_shape(maps, (2, 4, 4, 3), f"{name}: the maps")
    expect_close(maps, body(x, training=False), f"{name}: the maps")
    if np.shape(logits) == np.shape(maps):
        raise Mistake(f"{name}: the second output is that of the body; its head is missing.")
    want = model(x, training=False)
    expect_close(logits, want, f"{name}: the logits of the whole model", rtol=1e-4, atol=1e-6)


# ---- free text ----------------------------------------------------------------------------------


criticize(
    "cam_keras.agreement",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "What would have had to go wrong for the two maps to differ? What could go wrong without "
        "their differing?",
        "The network is the same, and so is the formula. On the marked digits the maps agreed as "
        "well: where was their heat?",
        "It tests the code, not the method; shared mistakes stay; ask for masks of the tumors and "
        "the value of chance.",
    ),
    model="""
    The agreement shows that the weights were carried over well and that both programs compute
    the same formula: it tests the code. The two maps are not independent evidence, because the
    network and the method are the same, so a mistake of the method occurs twice; on the marked
    digits, two maps that agreed to six digits both missed the mark. Even two wrong programs
    could agree, for example if both explain the probability or share one wrong preprocessing. I
    would ask for a test against a known answer: masks of the tumors, drawn by radiologists,
    with the share of the heat inside beside the share that chance gives, or a planted mark. I
    would also ask for other methods on the same images, for what happens when the tumor is
    covered, and for the maps of a network with random weights.
    """,
    rubric={
        "tests the code": "The agreement shows that the weights were carried over and that both "
        "programs compute the same formula.",
        "not independent": "The two maps are not independent evidence: the network and the method "
        "are the same.",
        "shared mistakes": "A mistake of the method, or of the preprocessing, occurs in both: "
        "maps that agree can both miss the mark.",
        "known answer": "Whether the model looks at the tumor needs masks or a planted mark, "
        "beside the share that chance gives.",
        "other controls": "Ask for another experiment: cover the tumor, use other methods, or "
        "randomize the weights.",
    },
)


question(
    "cam_keras.q_watch",
    "You want the slopes of the logit with respect to a photo, a NumPy array that you turned into "
    "a constant, and forget tape.watch. What does tape.gradient give?",
    choices={
        "An array of zeros.": "Zeros would mean that the logit does not depend on the photo. The tape "
        "does not know: it never looked.",
        "None.": "The tape follows weights by itself, and constants only if told to. If you ask "
        "for unconnected_gradients='zero', even this warning is gone.",
        "An error that names the photo.": "There is none, until a later line tries to use None.",
        "The right slopes: the network's weights are watched anyway.": "They are, so you can ask "
        "for the slopes of weights and of layers behind them, but not of what comes before.",
    },
    right="None.",
)

question(
    "cam_keras.q_softmax",
    "Two classes, and the network is sure of the first: p = .999. You compute Grad-CAM of its "
    "probability. What do you get?",
    choices={
        "The map of the logit, a thousand times smaller.": "The factor is right: p (1 - p) is about "
        ".001. But the map of the rival is taken off as well.",
        "The map of the logit: a softmax keeps the order of the classes.": "It keeps their order, not "
        "their slopes.",
        "The difference of the two classes' maps, a thousand times smaller.": "And drawn up to its "
        "own top, nobody sees how small it is.",
    },
    right="The difference of the two classes' maps, a thousand times smaller.",
)
