"""Keras against paper, and against PyTorch on the same network and the same photos."""

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

if find_spec("tensorflow") is None:  # not importorskip: cam_keras must be the one to import it
    pytest.skip("TensorFlow has no build for this Python", allow_module_level=True)

from xailab.attribution import cam, cam_keras, paths, saliency
from xailab.attribution.cam_keras import (
    efficientnet_lite0,
    grad_cam,
    guided_backprop,
    integrated_gradients,
    keras,
    tf,
)
from xailab.data import photos
from xailab.models import pretrained

X = np.random.default_rng(0).random((2, 6, 6, 2), dtype=np.float32)


def small(activation: Any = "relu", seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, padding="same", activation=activation, name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def both() -> tuple[Any, torch.nn.Module, torch.Tensor]:
    """The same network twice, and ten photos as PyTorch takes them."""
    net = pretrained("efficientnet_lite0")
    rows = torch.cat([net.preprocess(image) for image in photos().images[:10]])
    return efficientnet_lite0(), net.model, rows


def last(rows: torch.Tensor) -> np.ndarray:
    """Channels last, as Keras wants them."""
    return rows.permute(0, 2, 3, 1).contiguous().numpy()


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_it_is_the_same_network(both: Any) -> None:
    model, net, rows = both
    with torch.no_grad():
        want = net(rows).numpy()
    np.testing.assert_allclose(model.predict(last(rows), verbose=0), want, rtol=0, atol=5e-5)


def test_heat_maps_agree_on_ten_photos(both: Any) -> None:
    model, net, rows = both
    target = net(rows).argmax(1)
    for layer, name in (("bn2", "bn2"), ("blocks.4.0", "blocks_4_0_bn3")):
        ours = grad_cam(model, last(rows), target, layer=name)
        theirs = last(cam.grad_cam(net, rows, target, layer=layer))
        assert ours.shape == (10, 224, 224, 1)
        for one, other in zip(ours, theirs, strict=True):
            assert correlation(one, other) > 0.999


@pytest.mark.parametrize("name", ["saliency", "guided_backprop"])
def test_gradients_agree(both: Any, name: str) -> None:
    model, net, rows = both
    ours = getattr(cam_keras, name)(model, last(rows[:2]), 282)
    theirs = last(getattr(saliency, name)(net, rows[:2], 282))
    assert correlation(ours, theirs) > 0.999


def test_grad_cam_by_hand() -> None:
    """Maps A = x (two channels copied), score = 2 mean(A0) - mean(A1): alpha = (2, -1) / 36."""
    model = small(None)
    kernel = np.zeros((3, 3, 2, 4), dtype=np.float32)
    kernel[1, 1, 0, 0] = kernel[1, 1, 1, 1] = 1
    model.get_layer("maps").set_weights([kernel, np.zeros(4)])
    weights = np.zeros((4, 3))
    weights[0, 1], weights[1, 1] = 2, -1
    model.get_layer("logits").set_weights([weights, np.zeros(3)])
    want = (2 * X[..., :1] - X[..., 1:]) / 36
    got = grad_cam(model, X, 1, layer="maps", relu=False, upsample=False)
    np.testing.assert_allclose(got, want, atol=1e-6)
    got = grad_cam(model, X, 1, layer="maps", upsample=False)
    np.testing.assert_allclose(got, want.clip(0), atol=1e-6)


def test_guided_backprop_by_hand() -> None:
    """f = -3 ReLU(2 x): the signal at the ReLU is negative, so nothing comes back."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, activation="relu"), keras.layers.Dense(1)]
    )
    model.set_weights([np.array([[2.0]]), np.ones(1), np.array([[-3.0]]), np.ones(1)])
    x = np.ones((1, 1), dtype=np.float32)
    assert cam_keras.saliency(model, x, None).tolist() == [[-6]]
    assert cam_keras.saliency(model, x, None, absolute=True).tolist() == [[6]]
    assert guided_backprop(model, x, None).tolist() == [[0]]
    model.set_weights([np.array([[2.0]]), np.ones(1), np.array([[3.0]]), np.ones(1)])
    assert guided_backprop(model, x, None).tolist() == [[6]]
    assert cam_keras.saliency(model, x, None).tolist() == [[6]]


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_guided_activations_equal_guided_layers(activation: str) -> None:
    inside = small(activation)
    cap = 6.0 if activation == "relu6" else None
    outside = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.ReLU(cap),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    outside.set_weights(inside.get_weights())
    want = guided_backprop(inside, 9 * X, 2)
    np.testing.assert_allclose(guided_backprop(outside, 9 * X, 2), want, atol=1e-7)
    assert not np.allclose(want, cam_keras.saliency(inside, 9 * X, 2))


def test_guided_backprop_reaches_into_a_nested_model() -> None:
    """A pretrained body is often one layer of another model: its ReLUs count, too."""
    flat = [
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="relu"),
        keras.layers.Dense(3),
    ]
    plain = keras.Sequential([keras.Input((6, 6, 2)), *flat])
    inputs = keras.Input((6, 6, 2))
    body = keras.Model(inputs, flat[0](inputs))
    wrapped = keras.Sequential([keras.Input((6, 6, 2)), body, *flat[1:]])
    want = guided_backprop(plain, X, 1)
    assert not np.allclose(want, cam_keras.saliency(plain, X, 1))
    np.testing.assert_allclose(guided_backprop(wrapped, X, 1), want, atol=1e-7)


def test_guided_backprop_leaves_leaky_relus_as_they_are() -> None:
    """f = ReLU(-4 leaky(x)) at -1: the signal at the leaky one is -4, and a ReLU would drop it."""
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.ReLU(negative_slope=0.5),
            keras.layers.Dense(1),
            keras.layers.ReLU(),
        ]
    )
    model.set_weights([np.array([[-4.0]]), np.zeros(1)])
    x = np.array([[-1.0]], dtype=np.float32)
    assert model(x).numpy().tolist() == [[2]]  # -4 * -.5
    assert guided_backprop(model, x, None).tolist() == [[-2]]  # 1 * -4 * .5


def test_grad_cam_of_maps_before_any_weight() -> None:
    """f = 3 mean(2 x): every slope is 3 / 36, though the maps depend on no weight."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Rescaling(2.0, name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.set_weights([np.array([[3.0]]), np.zeros(1)])
    got = grad_cam(model, X[..., :1], None, layer="maps")
    np.testing.assert_allclose(got, 2 * X[..., :1] * 3 / 36, atol=1e-6)


def test_integrated_gradients_add_up_and_equal_pytorchs() -> None:
    model = small("tanh")

    class Same(torch.nn.Module):
        """Keras's numbers in PyTorch's layers, channels last outside."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Linear(4, 3)
            kernel, bias, weight, offset = map(torch.as_tensor, model.get_weights())
            self.conv.weight.data, self.conv.bias.data = kernel.permute(3, 2, 0, 1), bias
            self.fc.weight.data, self.fc.bias.data = weight.T, offset

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x.permute(0, 3, 1, 2)).tanh().mean((2, 3)))

    target = np.array([0, 2])
    got = integrated_gradients(model, X, target, baseline=0.2, n_steps=20)
    want = paths.integrated_gradients(
        Same(), torch.as_tensor(X), torch.as_tensor(target), baseline=0.2, n_steps=20
    )
    np.testing.assert_allclose(got, want.numpy(), atol=1e-6)
    outputs, empty = model(X).numpy(), model(np.full_like(X, 0.2)).numpy()
    change = (outputs - empty)[[0, 1], target]
    np.testing.assert_allclose(got.sum((1, 2, 3)), change, atol=1e-5)
    mean = integrated_gradients(model, X, target, baseline=0.2, multiply_by_inputs=False)
    np.testing.assert_allclose(mean * (X - 0.2), got, atol=1e-5)


CALLS = {
    "grad_cam": lambda model, x, target: grad_cam(model, x, target, layer="maps"),
    "saliency": cam_keras.saliency,
    "guided_backprop": guided_backprop,
    "integrated_gradients": lambda model, x, target: integrated_gradients(
        model, x, target, n_steps=3
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_promises(name: str) -> None:
    """A batch equals its rows, and neither the model nor x is changed."""
    model, x = small(), X.copy()
    before = [weight.copy() for weight in model.get_weights()]
    got = CALLS[name](model, x, [1, 2])
    for i, target in enumerate([1, 2]):
        np.testing.assert_allclose(CALLS[name](model, x[i : i + 1], target)[0], got[i], atol=1e-6)
    assert np.array_equal(x, X)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.get_layer("maps").activation is keras.activations.relu


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"target": 3}, ValueError, r"0\.\.2, got 3"),
        ({"target": -1}, ValueError, r"0\.\.2"),
        ({"target": None}, ValueError, "3 outputs"),
        ({"target": 1.0}, TypeError, "float"),
        ({"x": X * np.nan}, ValueError, "NaN"),
        ({"x": X[:0]}, ValueError, "empty"),
        ({"x": X[..., :1]}, ValueError, r"refuses x of shape \(\d, 6, 6, 1\)"),
        ({"x": X.astype(int)}, TypeError, "int64"),
        ({"x": torch.as_tensor(X)}, TypeError, "Tensor"),
        ({"model": torch.nn.Linear(2, 2)}, TypeError, "Keras model, got Linear"),
    ],
)
def test_bad_input(name: str, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"model": small(), "x": X, "target": 1, **changes}
    with pytest.raises(error, match=words):
        CALLS[name](**arguments)


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("map", ValueError, "no layer 'map'.*maps"),
        ("logits", ValueError, "no positions"),
        (3, TypeError, "int"),
    ],
)
def test_bad_layers(layer: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        grad_cam(small(), X, 1, layer=layer)


def test_guided_backprop_refuses_what_it_cannot_replace() -> None:
    with pytest.raises(ValueError, match="no ReLUs"):
        guided_backprop(small("tanh"), X, 1)
    inputs = keras.Input((2,))
    called = keras.Model(inputs, keras.layers.Dense(2)(keras.ops.relu(inputs)))
    wrapped = keras.Sequential([keras.Input((2,)), called])
    for model in (called, wrapped):
        with pytest.raises(ValueError, match="as a function"):
            guided_backprop(model, np.ones((1, 2), dtype=np.float32), 0)


# ---- however a model is written ------------------------------------------------------------------

PICTURE = (6, 6, 2)


class Written(keras.Model):
    """A subclassed model: convolution, batch norm, whatever function, dropout, three logits."""

    def __init__(self, function: Any = None, **options: Any) -> None:
        super().__init__()
        self.maps = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="maps")
        self.norm = keras.layers.BatchNormalization()
        self.drop, self.flat = keras.layers.Dropout(0.5), keras.layers.Flatten()
        self.logits = keras.layers.Dense(3)
        self.function, self.options = function, options

    def call(self, x: Any, training: Any = None) -> Any:
        hidden = self.norm(self.maps(x), **self.options)
        hidden = hidden if self.function is None else self.function(hidden)
        return self.logits(self.drop(self.flat(hidden)))


class Compiled(Written):
    @tf.function
    def call(self, x: Any, training: Any = None) -> Any:
        return super().call(x)


def built(model: Any) -> Any:
    """Call the model once, as Keras builds it, then set its batch norm's statistics."""
    keras.utils.set_random_seed(0)
    model(X)
    model.norm.set_weights([np.full(4, value) for value in (0.5, 0.1, 0.2, 4.0)])
    return model


def functional(model: Any, nested: bool = False) -> Any:
    """The layers of a written model in a graph; the first two perhaps in a model inside."""
    inputs = keras.Input(PICTURE)
    body = model.norm(model.maps(inputs))
    if nested:
        inner, inputs = keras.Model(inputs, body, name="body"), keras.Input(PICTURE)
        body = inner(inputs)
    return keras.Model(inputs, model.logits(model.drop(model.flat(body))))


@pytest.mark.parametrize("name", CALLS)
def test_however_the_model_is_written(name: str) -> None:
    """Subclassed, compiled, functional, nested, sequential: the same layers, the same answer."""
    written = built(Written())
    want = CALLS[name](written, X, [1, 2])
    assert np.abs(want).max() > 0
    compiled = built(Compiled())
    compiled.set_weights(written.get_weights())
    parts = [written.maps, written.norm, written.drop, written.flat, written.logits]
    forms = [functional(written), functional(written, nested=True), keras.Sequential(parts)]
    forms[-1].build((None, *PICTURE))
    for model in (compiled, *forms):
        np.testing.assert_allclose(CALLS[name](model, X, [1, 2]), want, rtol=1e-4, atol=1e-7)
    for layer in [compiled.maps, compiled.norm, *parts]:
        assert "call" not in vars(layer)
    assert not tf.config.functions_run_eagerly()


def test_the_written_model_by_hand() -> None:
    """What is drawn or counted while training is not: the slopes of the stored statistics."""
    model = built(Written())
    kernel, bias, *_ = model.get_weights()
    weights = model.logits.get_weights()[0]
    padded = np.pad(X[0], ((1, 1), (1, 1), (0, 0)))
    want = np.zeros((8, 8, 2))
    for i, j in np.ndindex(6, 6):
        hidden = np.einsum("abc,abck->k", padded[i : i + 3, j : j + 3], kernel) + bias
        below = weights[(6 * i + j) * 4 : (6 * i + j) * 4 + 4, 1] * 0.5 / np.sqrt(4.0 + 1e-3)
        want[i : i + 3, j : j + 3] += kernel @ (below * (hidden > 0))
    got = cam_keras.saliency(model, X[:1], 1)[0]
    np.testing.assert_allclose(got, want[1:-1, 1:-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_models_that_cannot_be_asked(name: str) -> None:
    trains = built(Written(training=True))
    before = trains.get_weights()
    inputs, other = keras.Input(PICTURE), keras.Input((3,), name="age")
    sum_of_two = keras.layers.Add()([keras.layers.Dense(3)(inputs[:, 0, 0]), other])
    refused = [
        (Written(), "not built"),
        (keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]), "not built"),
        (trains, "'batch_normalization.*training=True"),
        (keras.Model([inputs, other], sum_of_two), r"one input, it takes 2 \(.*age\)"),
    ]
    for model, words in refused:
        with pytest.raises(ValueError, match=words):
            CALLS[name](model, X, 1)
    for one, two in zip(before, trains.get_weights(), strict=True):
        assert np.array_equal(one, two)  # its moving mean has not moved


def test_a_layer_without_weights_yet() -> None:
    class Half(Written):
        def build(self, shape: Any) -> None:
            self.built = True

    model = Half()
    model.build(None)
    with pytest.raises(ValueError, match="'maps' of the model was not built"):
        cam_keras.saliency(model, X, 1)


def test_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"TensorFlow.*jax"):
        cam_keras.saliency(small(), X, 1)


# ---- what a model returns ------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_outputs_that_are_refused_as_pytorchs_are(name: str) -> None:
    inputs = keras.Input(PICTURE)
    maps = keras.layers.Conv2D(3, 3, padding="same", name="maps")(inputs)
    rows = keras.layers.Reshape((36, 3))(maps)
    logits, age = keras.layers.Dense(3)(keras.layers.Flatten()(maps)), maps[:, 0, 0, :1]
    for outputs, shape in ((maps, r"\(\d, 6, 6, 3\)"), (rows, r"\(\d, 36, 3\)")):
        with pytest.raises(ValueError, match=rf"must return \(N,\) or \(N, K\).*{shape}"):
            CALLS[name](keras.Model(inputs, outputs), X, 1)
    over_rows = keras.Model(inputs, keras.ops.mean(logits, axis=0))
    with pytest.raises(ValueError, match=r"it returned \(3,\)"):
        CALLS[name](over_rows, X, 1)
    for several in ([logits, age], {"class": logits, "age": age}):
        with pytest.raises(TypeError, match=r"one tensor, it returned (list|dict) with 2"):
            CALLS[name](keras.Model(inputs, several), X, 1)


@pytest.mark.parametrize("name", CALLS)
def test_outputs_that_hold_one_tensor(name: str) -> None:
    model = small()
    inputs, logits = model.inputs[0], model.outputs[0]
    want = CALLS[name](model, X, 1)
    for outputs in ([logits], {"class": logits}, {"logits": logits, "mean": logits[:, 0]}):
        np.testing.assert_array_equal(CALLS[name](keras.Model(inputs, outputs), X, 1), want)
    single = keras.Model(inputs, logits[:, 1])  # (N,)
    np.testing.assert_allclose(CALLS[name](single, X, None), want, atol=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_a_target_may_be_a_function(name: str) -> None:
    """A contrast of two classes, and the pixels of a segmentation, which have no class index."""
    model = small(keras.activations.softplus if name != "guided_backprop" else "relu")
    inputs, maps = model.inputs[0], model.get_layer("maps").output
    got = CALLS[name](model, X, lambda outputs: outputs[:, 2] * 0.5)
    np.testing.assert_allclose(got, CALLS[name](model, X, 2) * 0.5, atol=1e-6)
    pixels = keras.Model(inputs, maps)
    pooled = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps))
    got = CALLS[name](pixels, X, lambda outputs: tf.reduce_mean(outputs[..., 1], (1, 2)))
    np.testing.assert_allclose(got, CALLS[name](pooled, X, 1), atol=1e-6)
    for wrong, came in ((lambda y: y, r"\(\d, 3\)"), (lambda y: y.numpy()[:, 0], "ndarray")):
        with pytest.raises(ValueError, match=f"target as a function must give .*{came}"):
            CALLS[name](model, X, wrong)


@pytest.mark.parametrize("name", CALLS)
def test_rows_in_company(name: str) -> None:
    together = built(Written(lambda x: x - keras.ops.mean(x, axis=0, keepdims=True)))
    with pytest.raises(ValueError, match="rows influence each other"):
        CALLS[name](together, X, 1)


# ---- no gradient, and a gradient of zero ---------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "step",
    [
        tf.stop_gradient,
        tf.round,
        lambda x: tf.cast(tf.argmax(x, -1), tf.float32)[..., None] * tf.ones(4),
        lambda x: tf.reshape(tf.numpy_function(lambda a: 2 * a, [x], tf.float32), tf.shape(x)),
    ],
)
def test_no_gradient_is_an_error(name: str, step: Any) -> None:
    model = built(Written(step))
    with pytest.raises(ValueError, match=r"no gradient reaches (the input|layer 'maps')"):
        CALLS[name](model, X, 1)


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_of_zero_is_an_answer(name: str) -> None:
    assert (CALLS[name](built(Written(lambda x: 0 * x)), X, 1) == 0).all()


def test_a_layer_that_the_score_does_not_read() -> None:
    inputs = keras.Input(PICTURE)
    flat, maps = keras.layers.Flatten(), keras.layers.Conv2D(1, 3, name="maps")(inputs)
    unread = keras.layers.Lambda(tf.stop_gradient)(maps)
    model = keras.Model(inputs, keras.layers.Dense(3)(flat(inputs)) + 0 * flat(unread)[:, :3])
    with pytest.raises(ValueError, match="no gradient reaches layer 'maps'"):
        grad_cam(model, X, 1, layer="maps")
    assert np.abs(cam_keras.saliency(model, X, 1)).min() > 0


def test_gradients_of_parts_are_dense() -> None:
    """A gather's gradient comes as slices: f = x_1, so the slope is (0, 1, 0)."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: tf.gather(x[0], 1)[None])]
    )
    x = np.arange(3, dtype=np.float32)[None]
    assert cam_keras.saliency(model, x, None).tolist() == [[0, 1, 0]]


# ---- layers of Grad-CAM --------------------------------------------------------------------------


def test_a_layer_inside_another_model_is_found_by_its_way() -> None:
    inputs = keras.Input(PICTURE)
    conv = [keras.layers.Conv2D(2, 3, padding="same", name="maps") for _ in range(3)]
    one, two = (
        keras.Model(inputs, layer(inputs), name=name)
        for layer, name in zip(conv, ("a", "b"), strict=False)
    )
    outer = keras.layers.Concatenate()([one(inputs), two(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(outer)))
    with pytest.raises(ValueError, match="2 layers 'maps': say a/maps or b/maps"):
        grad_cam(model, X, 1, layer="maps")
    for name in "ab":
        inside, whole = (grad_cam(model, X, 1, layer=way) for way in (f"{name}/maps", name))
        np.testing.assert_array_equal(inside, whole)
    assert not np.allclose(grad_cam(model, X, 1, layer="a"), grad_cam(model, X, 1, layer="b"))


def test_layers_that_give_no_maps_are_named() -> None:
    inputs, first = keras.Input(PICTURE, name="picture"), keras.Input((2, 6, 6))
    conv = keras.layers.Conv2D(2, 3, padding="same", name="conv")
    flat, names = keras.layers.Flatten(), "channels first"
    refused = [
        (inputs, conv(conv(inputs)), "conv", "'conv' ran more than once"),
        (inputs, conv(inputs), "picture", "did not run"),
        (inputs, keras.layers.Softmax(name="soft")(conv(inputs)), "soft", "not maps"),
        (inputs, keras.layers.Reshape((36, 2), name="rows")(inputs), "rows", "no positions"),
        (first, keras.layers.BatchNormalization(axis=1, name="norm")(first), "norm", names),
        (
            first,
            keras.layers.ZeroPadding2D(data_format="channels_first", name="pad")(first),
            "pad",
            names,
        ),
        (
            first,
            conv(keras.layers.Permute((2, 3, 1))(first)),
            "conv",
            "larger than x.*channels last",
        ),
    ]
    for start, maps, layer, words in refused:
        model = keras.Model(start, keras.layers.Dense(3)(flat(maps)))
        x = X if start is inputs else X.transpose(0, 3, 1, 2)
        with pytest.raises(ValueError, match=words):
            grad_cam(model, x, 1, layer=layer)


def test_vectors_are_not_enlarged_to() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Reshape((2, 2, 1), name="maps"), keras.layers.Flatten()]
    )
    x = np.ones((1, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=r"upsample=True, got shape \(1, 4\)"):
        grad_cam(model, x, 1, layer="maps")
    assert (
        grad_cam(model, x, 1, layer="maps", upsample=False)[0, ..., 0].tolist() == [[0.25] * 2] * 2
    )


# ---- ReLUs of any writing ------------------------------------------------------------------------

HIDDEN = {
    "relu": lambda x: keras.ops.relu(x + 0),
    "maximum": lambda x: keras.ops.maximum(x, 0.0),
    "where": lambda x: keras.ops.where(x > 0, x, 0.0),
    "mask": lambda x: x * keras.ops.cast(x > 0, "float32"),
    "clip": lambda x: keras.ops.clip(x, 0.0, 1e9),
    "abs": lambda x: (x + keras.ops.abs(x)) / 2,
    "sign": lambda x: x * (1 + keras.ops.sign(x)) / 2,
    "largest": lambda x: keras.ops.max(keras.ops.stack([x, 0 * x]), axis=0),
    "leaky": lambda x: keras.ops.leaky_relu(x, 0.0),
    "threshold": lambda x: keras.ops.threshold(x, 0.0, 0.0),
    "loop": lambda x: tf.map_fn(tf.nn.relu, x),
    "function": tf.function(tf.nn.relu),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_relus_are_refused(name: str) -> None:
    """All of these are a ReLU; none has a backward pass that could be replaced."""
    relu = HIDDEN[name]
    x = np.array([[-1.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(relu(tf.constant(x)), [[0, 2]], atol=1e-6)
    inputs = keras.Input(PICTURE)
    dense = keras.layers.Dense(2, activation=relu)
    lambda_ = keras.layers.Lambda(relu)
    visible = keras.layers.ReLU()(inputs)  # one more that can be replaced: one is enough
    models = [
        built(Written(relu)),
        keras.Model(inputs, keras.layers.Flatten()(dense(visible))),
        keras.Model(inputs, keras.layers.Flatten()(lambda_(visible))),
    ]
    for model in models:
        with pytest.raises(ValueError, match="what may be one, as a function"):
            guided_backprop(model, X, 1)


@pytest.mark.parametrize("function", [keras.ops.gelu, lambda x: 3 * x - 1])
def test_other_functions_keep_their_gradient(function: Any) -> None:
    """With every hidden value and every weight above it positive, nothing is cut."""
    model = built(Written(function))
    for layer in (model.maps, model.logits):
        layer.set_weights([np.abs(weight) for weight in layer.get_weights()])
    model.norm.set_weights([np.full(4, value) for value in (0.5, 1.0, 0.2, 4.0)])
    want = cam_keras.saliency(model, X, 1)
    assert want.min() > 0
    np.testing.assert_allclose(guided_backprop(model, X, 1), want, rtol=1e-5)


def ends(layer: Any) -> np.ndarray:
    """Return what guided backprop gives of 2 layer(x) at 7 points; the layer keeps the shape."""
    points = np.array([-3, -0.2, 0, 0.2, 0.6, 3, 9], dtype=np.float32)[:, None]
    head = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(2.0))
    last = keras.layers.ReLU()  # so that there always is one
    return guided_backprop(keras.Sequential([keras.Input((1,)), layer, head, last]), points, None)[
        :, 0
    ]


@pytest.mark.parametrize(
    ("layer", "slopes"),
    [
        (lambda: keras.layers.ReLU(), [0, 0, 0, 2, 2, 2, 2]),
        (lambda: keras.layers.ReLU(6.0), [0, 0, 0, 2, 2, 2, 0]),
        (lambda: keras.layers.ReLU(threshold=0.5), [0, 0, 0, 0, 2, 2, 2]),
        (lambda: keras.layers.LeakyReLU(negative_slope=0.0), [0, 0, 0, 2, 2, 2, 2]),
        (lambda: keras.layers.LeakyReLU(negative_slope=0.5), [0, 0, 0, 2, 2, 2, 2]),
        (lambda: keras.layers.Activation("relu"), [0, 0, 0, 2, 2, 2, 2]),
        (lambda: keras.layers.Activation("relu6"), [0, 0, 0, 2, 2, 2, 0]),
        (lambda: keras.layers.Activation(tf.nn.relu), [0, 0, 0, 2, 2, 2, 2]),
        (lambda: keras.layers.Activation(keras.layers.ReLU(6.0)), [0, 0, 0, 2, 2, 2, 0]),
        (lambda: keras.layers.Activation("leaky_relu"), [0, 0, 0, 2, 2, 2, 2]),
        (lambda: keras.layers.Lambda(lambda x: 3 * x), [0, 0, 0, 6, 6, 6, 6]),
    ],
)
def test_slopes_by_hand(layer: Any, slopes: list[float]) -> None:
    """The last ReLU lets only positive answers' signals through."""
    assert ends(layer()).tolist() == slopes


def test_a_relu_that_runs_twice() -> None:
    """f = -2 ReLU(3 ReLU(x)): one layer, and both its calls are guided: nothing comes back."""
    relu, inputs = keras.layers.ReLU(), keras.Input((1,))
    x = np.ones((1, 1), dtype=np.float32)
    for factor, want in ((-2.0, 0), (2.0, 6)):
        model = keras.Model(inputs, factor * relu(3 * relu(inputs)))
        assert cam_keras.saliency(model, x, None).item() == 3 * factor
        assert guided_backprop(model, x, None).item() == want


def test_recurrent_relus() -> None:
    """h1 = ReLU(x1), h2 = ReLU(x2 - h1), f = h2 at (1, 3): the signal -1 at h1 is dropped."""
    model = keras.Sequential([keras.Input((2, 1)), keras.layers.SimpleRNN(1, activation="relu")])
    model.set_weights([np.ones((1, 1)), -np.ones((1, 1)), np.zeros(1)])
    x = np.array([[[1.0], [3.0]]], dtype=np.float32)
    assert cam_keras.saliency(model, x, None).ravel().tolist() == [-1, 1]
    assert guided_backprop(model, x, None).ravel().tolist() == [0, 1]
    assert model.layers[-1].cell.activation is keras.activations.relu


def test_a_graph_that_cannot_be_traced() -> None:
    model = built(Written())
    model.function = lambda x: x * float(tf.reduce_mean(x).numpy())
    with pytest.raises(ValueError, match="cannot be traced"):
        guided_backprop(model, X, 1)


# ---- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float64"])
def test_precision_of_x_and_of_the_model(name: str, policy: str) -> None:
    """Whatever the two are, the answer has the dtype of x, and the error is the coarser one's."""
    model = small()
    want = CALLS[name](model, X, 1)
    keras.config.set_dtype_policy(policy)
    try:
        same = small()
    finally:
        keras.config.set_dtype_policy("float32")
    same.set_weights(model.get_weights())
    for kind in (np.float16, np.float32, np.float64, tf.bfloat16.as_numpy_dtype):
        got = CALLS[name](same, X.astype(kind), 1)
        assert got.dtype == kind
        error = np.abs(got.astype(float) - want).max() / np.abs(want).max()
        coarse = "bfloat16" in policy or kind not in (np.float16, np.float32, np.float64)
        assert error < (0.05 if coarse else 0.01)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_any_layout(name: str) -> None:
    model = small()
    want = CALLS[name](model, X[:, ::-1].copy(), 1)
    np.testing.assert_array_equal(CALLS[name](model, X[:, ::-1], 1), want)
    frozen_array = X[:, ::-1].copy()
    frozen_array.flags.writeable = False
    np.testing.assert_array_equal(CALLS[name](model, frozen_array, 1), want)
    with pytest.raises(TypeError, match="floating-point numbers, got object"):
        CALLS[name](model, X.astype(object), 1)


@pytest.mark.parametrize(
    ("baseline", "error", "words"),
    [
        ("black", TypeError, "number or a NumPy array, got str"),
        (True, TypeError, "bool"),
        (torch.zeros(1), TypeError, "NumPy array, got Tensor"),
        (np.zeros(2), TypeError, "float64, but x is float32"),
        (np.zeros(5, dtype=np.float32), ValueError, "broadcast"),
        (np.nan, ValueError, "NaN"),
    ],
)
def test_bad_baselines(baseline: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        integrated_gradients(small(), X, 1, baseline=baseline, n_steps=2)


def test_keras_may_come_first() -> None:
    """Torch's compiler, loaded later by torch itself, must not end the process."""
    code = "import keras, xailab.attribution.cam_keras, torch._dynamo"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
