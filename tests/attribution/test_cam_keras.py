"""Keras against paper, and against PyTorch on the same network and the same photos."""

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
