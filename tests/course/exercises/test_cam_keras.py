"""Checks of `cam_keras`: right answers pass, also unlike ours; wrong ones are named."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("tensorflow") is None:  # not importorskip: cam_keras must be the one to import it
    pytest.skip("TensorFlow has no build for this Python", allow_module_level=True)

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.attribution import cam_keras as package
from xailab.attribution.cam_keras import keras, tf
from xailab.course.exercises import cam_keras as exercises
from xailab.course.registry import exercises_of, find_exercise

LESSON = "cam_keras"


# ---- Grad-CAM


def the_score(logits, target):
    return logits[:, target]


def by_steps(weigh, *, finish=tf.nn.relu, score=the_score, axis=-1, training=False):
    """Grad-CAM with one step replaced."""

    def answer(model, x, target, layer):
        both = keras.Model(model.inputs[0], [model.get_layer(layer).output, model.outputs[0]])
        with tf.GradientTape() as tape:
            maps, logits = both(x, training=training)
            wanted = score(logits, target)
        slopes = tape.gradient(wanted, maps)
        return finish(tf.reduce_sum(weigh(slopes) * maps, axis=axis, keepdims=True))

    return answer


def mean(slopes):
    return tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)


def test_grad_cam_takes_the_model_answer_and_other_ways():
    assert_accepted("cam_keras.grad_cam", solution_of(LESSON, "my_grad_cam"))
    assert_accepted("cam_keras.grad_cam", by_steps(mean))

    def from_the_package(model, x, target, layer):
        return package.grad_cam(model, x, target, layer=layer, upsample=False)

    assert_accepted("cam_keras.grad_cam", from_the_package)


def of_probability(logits, target):
    return tf.nn.softmax(logits)[:, target]


def two_passes(model, x, target, layer):
    door = keras.Model(model.inputs[0], model.get_layer(layer).output)
    with tf.GradientTape() as tape:
        maps, logits = door(x, training=False), model(x, training=False)
        score = logits[:, target]
    return tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2))


def changes_x(model, x, target, layer):
    heat = by_steps(mean)(model, x, target, layer)
    x += 1
    return heat


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (by_steps(lambda s: tf.reduce_mean(s, axis=(2, 3), keepdims=True)), "axes 2 and 3"),
        (by_steps(mean, axis=1), "sum goes over the axis 1"),
        (by_steps(lambda s: tf.reduce_mean(s, axis=(0, 1, 2), keepdims=True)), "rows of the batch"),
        (by_steps(lambda s: tf.reduce_mean(s, axis=(1, 2))), "keepdims=True is missing"),
        (by_steps(lambda s: tf.nn.relu(mean(s))), "cuts the weights"),
        (by_steps(lambda s: s), "mean over positions is missing"),
        (by_steps(mean, score=of_probability), "explains the probability"),
        (by_steps(mean, score=lambda logits, target: logits), "sum of all logits"),
        (by_steps(mean, score=lambda logits, target: logits[0, target]), "only the first row"),
        (by_steps(lambda s: 4 * mean(s)), "4 times"),
        (by_steps(mean, finish=tf.identity), "is a ReLU missing"),
        (by_steps(mean, finish=lambda heat: tf.nn.relu(heat)[..., 0]), "axis of length 1"),
        (by_steps(mean, training=True), "training=True"),
        (changes_x, "changed x"),
        (two_passes, "one call of one model"),
        (lambda model, x, target, layer: None, "None"),
    ],
)
def test_grad_cam_names_the_mistake(wrong, match):
    assert_rejected("cam_keras.grad_cam", wrong, match)


# ---- guided ReLU6


def pair(passes, value=tf.nn.relu6):
    return lambda a: (value(a), lambda R: tf.cast(passes(a, R), R.dtype))


def number(condition):
    return tf.cast(condition, tf.float32)


def test_guided_relu6_takes_the_model_answer_and_other_ways():
    assert_accepted("cam_keras.guided_relu6", solution_of(LESSON, "guided_relu6"))
    decorated = tf.custom_gradient(solution_of(LESSON, "guided_relu6"))
    assert_accepted("cam_keras.guided_relu6", decorated)

    def by_where(a):
        flat = (a <= 0) | (a >= 6)
        return tf.clip_by_value(a, 0, 6), lambda R: tf.where(flat | (R < 0), tf.zeros_like(R), R)

    assert_accepted("cam_keras.guided_relu6", by_where)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (pair(lambda a, R: R * number((a > 0) & (a < 6))), "plain gradient: drop"),
        (pair(lambda a, R: tf.nn.relu(R) * number(a > 0)), "where a > 6 the unit is flat"),
        (pair(lambda a, R: R * number(a > 0)), "without the stop at 6"),
        (pair(lambda a, R: tf.nn.relu(R)), "deconvnet"),
        (pair(lambda a, R: tf.nn.relu(R) * number(a < 6)), "where a < 0 the unit is off"),
        (pair(lambda a, R: tf.nn.relu6(R) * number((a > 0) & (a < 6))), "larger than 6"),
        (pair(lambda a, R: number((a > 0) & (a < 6))), "multiply by R"),
        (pair(lambda a, R: tf.nn.relu6(a) * R), "not on the signal"),
        (pair(lambda a, R: tf.nn.relu(R) * number((a > 0) & (a < 6)), tf.nn.relu), "not stop at 6"),
        (tf.nn.relu6, "plain gradient: drop"),
        (lambda a: (tf.nn.relu6(a), 1), "two things"),
        (lambda a: None, "NoneType came"),
    ],
)
def test_guided_relu6_names_the_mistake(wrong, match):
    assert_rejected("cam_keras.guided_relu6", wrong, match)


# ---- debug


def mended(**changes):
    return solution_of(LESSON, "mended") | changes


def test_debug_takes_the_model_answer_and_another_way():
    assert_accepted("cam_keras.debug", mended())

    def nested(model):
        body, pool, *head = model.layers
        both = keras.Model(body.inputs[0], [body.get_layer("maps").output, body.outputs[0]])
        maps, out = both(model.inputs[0])
        return keras.Model(model.inputs[0], [maps, keras.Sequential([pool, *head])(out)])

    slopes = dict.fromkeys(["unwatched", "outside", "predicted", "trained"], package.saliency)
    assert_accepted("cam_keras.debug", slopes | {"nested": nested})


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("unwatched", "unwatched: the tape answers None"),
        ("outside", "outside: the tape answers None"),
        ("predicted", "predicted still has its bug: .*_id"),
        ("trained", "trained changed the model"),
        ("nested", "nested still has its bug: .*not connected"),
    ],
)
def test_debug_names_the_piece(name, match):
    """Every piece of the lesson, put back in with its bug."""
    assert_rejected("cam_keras.debug", mended(**{name: broken_piece(name)}), match)


def broken_piece(name):
    def piece(model, x, target):
        rows = tf.constant(x)
        with tf.GradientTape() as tape:
            if name != "unwatched":
                tape.watch(rows)
            if name == "predicted":
                score = model.predict(rows, verbose=0)[:, target]
            else:
                score = model(rows, training=name == "trained")[:, target]
        if name == "outside":
            score = model(rows, training=False)[:, target]
        return tape.gradient(score, rows)

    def nested(model):
        maps = model.get_layer("body").get_layer("maps").output
        return keras.Model(model.inputs[0], [maps, model.outputs[0]])

    return nested if name == "nested" else piece


def of_all_logits(model, x, target):
    return sum(package.saliency(model, x, each) for each in range(3))


def without_head(model):
    body = model.get_layer("body")
    return keras.Model(body.inputs[0], [body.get_layer("maps").output, body.outputs[0]])


def other_head(model):
    body = model.get_layer("body")
    logits = model.layers[-1](keras.layers.Dense(4)(model.layers[1](body.outputs[0])))
    return keras.Model(body.inputs[0], [body.outputs[0], logits])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"outside": lambda model, x, t: package.saliency(model, x, 0)}, "slopes of class 0"),
        ({"outside": of_all_logits}, "all logits together"),
        (
            {
                "trained": lambda model, x, t: (
                    package.saliency(model, x, t) * np.eye(2)[0].reshape(2, 1, 1, 1)
                )
            },
            "only the first row",
        ),
        ({"unwatched": lambda model, x, t: np.zeros_like(x)}, "unwatched: the gradient"),
        ({"nested": lambda model: model}, "two outputs"),
        ({"nested": without_head}, "head is missing"),
        ({"nested": other_head}, "logits of the whole model"),
    ],
)
def test_debug_names_what_runs_and_is_still_wrong(changes, match):
    assert_rejected("cam_keras.debug", mended(**changes), match)


def test_debug_asks_about_slopes_that_are_there():
    model, x = exercises._wrapped()
    slopes = package.saliency(model, x, 1)
    assert np.abs(slopes).min() > 1e-5
    assert not np.allclose(slopes, package.saliency(model, x, 0), rtol=0.1)


def test_debug_wants_all_five():
    some = {"unwatched": package.saliency, "nested": without_head}
    assert_rejected("cam_keras.debug", some, "missing: outside, predicted, trained")
    assert_rejected("cam_keras.debug", [1, 2], "dictionary")


# ---- guess and free text


def test_padding_takes_a_correlation():
    for guess in (-1, 0.47, 1.0):
        assert_accepted("cam_keras.padding", guess)
    for guess, match in ((47, "from -1 to 1"), ([0.5], "from -1 to 1"), ("high", "a str came")):
        assert_rejected("cam_keras.padding", guess, match)


def test_every_exercise_has_hints():
    for entry in exercises_of("cam_keras"):
        assert 1 <= len(find_exercise(entry.id).hints) <= 3
