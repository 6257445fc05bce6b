"""The same methods for Keras models: channels last, and TensorFlow's tape in place of autograd.

Lesson 09 teaches this file, the only one that loads TensorFlow. Inputs and answers are NumPy arrays
(N, H, W, C); names, signs, units and errors are those of the PyTorch functions.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from xailab.core.batching import batched
from xailab.core.checks import Target, check_baseline, check_input, check_target, split_target
from xailab.core.quadrature import quadrature
from xailab.core.stderr import muted

# Torch loads triton late, by itself. After TensorFlow that ends the process (both carry an LLVM).
with suppress(ImportError):
    import triton  # noqa: F401

with muted():  # it reports on the machine's processor
    import keras
    import tensorflow as tf

Array = np.ndarray


def grad_cam(
    model: Any,
    x: Array,
    target: Target,
    *,
    layer: str,
    relu: bool = True,
    upsample: bool = True,
) -> Array:
    r"""Grad-CAM: a layer's maps, each weighted by its mean gradient.

    $$\alpha_k = \frac{1}{hw}\sum_{i,j} \frac{\partial f_t}{\partial A^k_{ij}}, \qquad
      L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big)$$

    A second model with the same layers gives the maps beside the answer.

    Args:
        model: a functional or sequential Keras model, (N, H, W, C) -> (N, K) or (N, 1).
        x: (N, H, W, C) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: name of the layer whose maps are weighted.
        relu: keep what speaks for the target only.
        upsample: enlarge bilinearly to (H, W).

    Returns:
        (N, H, W, 1), or (N, h, w, 1) without `upsample`, in units of the score.

    Raises:
        TypeError: as for `saliency`.
        ValueError: as for `saliency`; no such layer, or one whose output has no positions.

    Reference: Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via
        Gradient-based Localization.
    Elsewhere: `xailab.attribution.cam.grad_cam` for PyTorch, tf-explain `GradCAM`.
    """
    rows = tf.convert_to_tensor(_checked(model, x))
    both = _with_maps(model, layer)
    with tf.GradientTape() as tape:
        tape.watch(rows)  # else maps that no weight stands before would have no slopes
        maps, outputs = _outputs(both, rows)
        scores = _select(outputs, target)
    slopes = tape.gradient(scores, maps, unconnected_gradients="zero")
    weights = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)
    heat = tf.reduce_sum(weights * maps, axis=-1, keepdims=True)
    heat = tf.nn.relu(heat) if relu else heat
    if upsample:  # half-pixel centers, as PyTorch's align_corners=False
        heat = tf.image.resize(heat, rows.shape[1:3], method="bilinear")
    return heat.numpy()


def saliency(model: Any, x: Array, target: Target, *, absolute: bool = False) -> Array:
    r"""Gradient of the target's score with respect to the input.

    $$S = \frac{\partial f_t(x)}{\partial x}$$

    Args:
        model: a Keras model, (N, ...) -> (N, K) or (N, 1).
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        absolute: return $|S|$.

    Returns:
        The shape of `x`, in units of the score per unit of `x`.

    Raises:
        TypeError: `x` is no array of floats, `target` no integer, `model` no Keras model.
        ValueError: NaN in `x`, wrong shape, target out of range.

    Reference: Simonyan, Vedaldi, Zisserman (2013), Deep Inside Convolutional Networks.
    Elsewhere: `xailab.attribution.saliency.saliency` for PyTorch, tf-explain `VanillaGradients`.
    """
    rows = _checked(model, x)
    gradient = _gradients(model, rows, target)
    return np.abs(gradient) if absolute else gradient


def guided_backprop(model: Any, x: Array, target: Target) -> Array:
    r"""Backward pass that keeps only positive gradients at every ReLU.

    $$R^{l} = \mathbb 1[a^l > 0] \cdot \mathbb 1[R^{l+1} > 0] \cdot R^{l+1}$$

    A copy of the model, with the same weights, gets ReLUs whose gradient is written anew by
    `tf.custom_gradient`.

    Args:
        model: a functional or sequential Keras model; its ReLUs are layers, or the `activation`
            of layers, never function calls.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.

    Returns:
        The shape of `x`, in units of the score per unit of `x`.

    Raises:
        TypeError: as for `saliency`.
        ValueError: as for `saliency`; a model without ReLUs, with one called as a function, or
            without a graph to copy.

    Reference: Springenberg, Dosovitskiy, Brox, Riedmiller (2014), Striving for Simplicity: The
        All Convolutional Net.
    Elsewhere: `xailab.attribution.saliency.guided_backprop` for PyTorch.
    """
    rows = _checked(model, x)
    return _gradients(_guided_copy(model), rows, target)


def integrated_gradients(
    model: Any,
    x: Array,
    target: Target,
    *,
    baseline: float | Array = 0.0,
    n_steps: int = 50,
    rule: str = "gauss-legendre",
    multiply_by_inputs: bool = True,
    batch_size: int | None = None,
) -> Array:
    r"""Mean gradient on the straight path from the baseline $b$ to $x$, times the way gone.

    $$A = (x - b) \odot \sum_{k=1}^{n} w_k
      \frac{\partial f_t}{\partial x}\big(b + \alpha_k (x - b)\big)$$

    Args:
        model: a Keras model, (N, ...) -> (N, K) or (N, 1).
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        baseline: where the path begins: a number, or an array that broadcasts to `x`.
        n_steps: points on the path.
        rule: "gauss-legendre", "trapezoid", "midpoint", "left" or "right".
        multiply_by_inputs: False returns the mean gradient alone.
        batch_size: points evaluated at once; None measures.

    Returns:
        The shape of `x`, in units of the score.

    Raises:
        TypeError, ValueError: as for `saliency`; a baseline that does not fit, an unknown rule,
            `n_steps` < 1.

    Reference: Sundararajan, Taly, Yan (2017), Axiomatic Attribution for Deep Networks.
    Elsewhere: `xailab.attribution.paths.integrated_gradients` for PyTorch.
    """
    rows = _checked(model, x)
    number = baseline if np.isscalar(baseline) else torch.as_tensor(np.asarray(baseline))
    start = check_baseline(number, torch.as_tensor(rows)).numpy()
    points, weights = quadrature(rule, n_steps, like=torch.as_tensor(rows))
    means = []
    for begin, end, t in zip(start, rows, split_target(target, len(rows)), strict=True):
        path = begin + points.numpy().reshape(-1, *[1] * begin.ndim) * (end - begin)
        slopes = batched(
            partial(_gradients, model, target=t),
            path,
            batch_size=batch_size,
            owner=model,
            gradients=True,
        )
        means.append(np.tensordot(weights.numpy(), slopes, axes=1))
    mean = np.stack(means)
    return (rows - start) * mean if multiply_by_inputs else mean


# ---- the network of the other lessons -----------------------------------------------------------


def efficientnet_lite0() -> Any:
    """Build EfficientNet-Lite0 in Keras, with the weights of `models.pretrained`.

    Layers have PyTorch's names with underscores; what a batch norm's name stands for there, the
    values after its ReLU6, has that name here (`bn2` are the last maps).

    Returns:
        A functional model, (N, H, W, 3) normalized as for PyTorch -> logits (N, 1000).
    """
    from xailab.models import pretrained

    net = pretrained("efficientnet_lite0").model
    x = inputs = keras.Input((None, None, 3))
    x = _normed(x, net.conv_stem, net.bn1, "conv_stem", "bn1")
    for name, block in net.blocks.named_modules():
        if hasattr(block, "conv_dw"):
            x = _block(x, block, f"blocks_{name.replace('.', '_')}")
    x = _normed(x, net.conv_head, net.bn2, "conv_head", "bn2")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    classifier = keras.layers.Dense(net.classifier.out_features, name="classifier")
    logits = classifier(x)
    classifier.set_weights([_array(net.classifier.weight).T, _array(net.classifier.bias)])
    return keras.Model(inputs, logits, name="efficientnet_lite0")


def _block(x: Any, block: Any, name: str) -> Any:
    """Apply one inverted residual block (or the first, which does not widen)."""
    pairs = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
    if hasattr(block, "conv_pwl"):
        pairs = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
    out = x
    for conv, norm in pairs:
        one, other = getattr(block, conv), getattr(block, norm)
        out = _normed(out, one, other, f"{name}_{conv}", f"{name}_{norm}")
    return keras.layers.Add(name=name)([x, out]) if block.has_skip else out


def _normed(x: Any, conv: Any, norm: Any, conv_name: str, name: str) -> Any:
    """Apply a convolution, a batch norm and, where the PyTorch one has it, ReLU6."""
    size = {"strides": conv.stride[0], "padding": "same", "use_bias": False, "name": conv_name}
    kernel = _array(conv.weight).transpose(2, 3, 1, 0)  # (O, I, h, w) -> (h, w, I, O)
    if conv.groups > 1:
        layer = keras.layers.DepthwiseConv2D(conv.kernel_size, **size)
        kernel = kernel.transpose(0, 1, 3, 2)
    else:
        layer = keras.layers.Conv2D(conv.out_channels, conv.kernel_size, **size)
    x = layer(x)
    layer.set_weights([kernel])
    active = isinstance(norm.act, nn.ReLU6)
    scale = keras.layers.BatchNormalization(
        epsilon=norm.eps, name=f"{name}_norm" if active else name
    )
    x = scale(x)
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    scale.set_weights([_array(part) for part in parts])
    return keras.layers.ReLU(6.0, name=name)(x) if active else x


def _array(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy()


# ---- parts --------------------------------------------------------------------------------------


def _checked(model: Any, x: Any) -> Array:
    """Return x if it is a finite batch of floats, and the model one of Keras."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"the model must be a Keras model, got {type(model).__name__}")
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a NumPy array, got {type(x).__name__}")
    check_input(nn.Identity(), torch.as_tensor(x))  # no model: its dtype is Keras's own business
    return x


def _gradients(model: Any, x: Array, target: Target) -> Array:
    """Return the gradient of every row's score, the shape of x."""
    rows = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        scores = _select(_outputs(model, rows), target)
    return tape.gradient(scores, rows, unconnected_gradients="zero").numpy()


def _outputs(model: Any, rows: Any) -> Any:
    try:
        return model(rows, training=False)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(f"the model refuses x of shape {tuple(rows.shape)}: {error}") from error


def _select(outputs: Any, target: Target) -> Any:
    """Pick the score of the target of every row, with the errors of PyTorch's methods."""
    index = check_target(target, torch.as_tensor(outputs.numpy()))
    if index is None:
        return tf.reshape(outputs, (-1,))
    return tf.gather(outputs, index.numpy(), axis=1, batch_dims=1)


def _with_maps(model: Any, layer: str) -> Any:
    """Return a model of the same layers that gives one layer's output, too."""
    if not isinstance(layer, str):
        raise TypeError(f"layer must be a layer's name (str), got {type(layer).__name__}")
    names = [one.name for one in model.layers]
    if layer not in names:
        near = get_close_matches(layer, names, n=5, cutoff=0.4) or names[-5:]
        raise ValueError(f"the model has no layer {layer!r}; near names: {', '.join(near)}")
    maps = model.get_layer(layer).output
    if len(maps.shape) != 4:
        raise ValueError(f"layer {layer!r} gives {tuple(maps.shape)}, which has no positions")
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, [maps, model.outputs[0]])


_RELUS = (keras.activations.relu, keras.activations.relu6)


def _operations(model: Any) -> Iterator[Any]:
    """Yield the layers and operations of a model, also those of the models inside it."""
    if not (isinstance(model, keras.Sequential) and model.built) and not hasattr(
        model, "operations"
    ):
        raise ValueError("guided backprop needs a functional or sequential model, built already")
    for operation in getattr(model, "operations", model.layers):  # Sequential holds layers only
        yield operation
        if isinstance(operation, keras.Model):
            yield from _operations(operation)


def _guided_copy(model: Any) -> Any:
    """Return a copy of the model, weights included, whose ReLUs have the guided gradient."""
    for operation in _operations(model):
        if type(operation).__name__ in {"Relu", "Relu6"}:
            raise ValueError(
                f"the model calls a ReLU as a function ({operation.name}): write every one as a "
                "layer (keras.layers.ReLU) so that its backward pass can be replaced"
            )
    found = []

    def copied(layer: Any) -> Any:
        twin = layer.__class__.from_config(layer.get_config())
        if isinstance(layer, keras.layers.ReLU) and not (layer.negative_slope or layer.threshold):
            found.append(layer)
            return _GuidedReLU(layer.max_value, name=layer.name)
        if getattr(layer, "activation", None) in _RELUS:
            found.append(layer)
            capped = layer.activation is keras.activations.relu6
            twin.activation = _guided(6.0 if capped else None)
        return twin

    copy = keras.models.clone_model(model, clone_function=copied, recursive=True)
    if not found:
        raise ValueError("the model has no ReLUs to work on")
    copy.set_weights(model.get_weights())
    return copy


def _guided(cap: float | None) -> Callable[[Any], Any]:
    """Return a ReLU whose backward pass keeps what is positive below and above."""
    top = float("inf") if cap is None else cap

    @tf.custom_gradient
    def relu(x: Any) -> Any:
        def backward(signal: Any) -> Any:
            passed = tf.cast((x > 0) & (x < top), x.dtype)
            return tf.nn.relu(signal) * passed

        return tf.clip_by_value(x, 0.0, top), backward

    return relu


class _GuidedReLU(keras.layers.Layer):
    """A ReLU layer with the guided gradient."""

    def __init__(self, cap: float | None, **options: Any) -> None:
        super().__init__(**options)
        self.relu = _guided(cap)

    def call(self, x: Any) -> Any:
        return self.relu(x)
