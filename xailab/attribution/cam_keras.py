"""The same methods for Keras models: channels last, and TensorFlow's tape in place of autograd.

Lesson `cam_keras` teaches this file, the only one that loads TensorFlow. Inputs and answers are
NumPy arrays (N, H, W, C); names, signs, units and errors are those of the PyTorch functions.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from xailab.core.batching import batched
from xailab.core.checks import (
    Target,
    check_baseline,
    check_input,
    check_positive,
    check_target,
    split_target,
)
from xailab.core.company import check_company
from xailab.core.quadrature import quadrature
from xailab.core.state import frozen
from xailab.core.stderr import muted

# Torch loads triton late, by itself. After TensorFlow that ends the process (both carry an LLVM):
# so it comes first, or, where TensorFlow was first, never; torch does without it.
if "tensorflow" in sys.modules:
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
else:
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

    Args:
        model: a Keras model, (N, H, W, C) -> (N, K), (N, 1) or (N,): functional, sequential or
            subclassed, built already.
        x: (N, H, W, C) floats.
        target: class index, (N,) class indices, None for a single-output model, or a function of
            the model's answer that gives (N,).
        layer: name of the layer whose maps are weighted, channels last. A layer inside another
            model or layer is found by its own name, or by the names on the way to it,
            "body/conv", where several have that name.
        relu: keep what speaks for the target only.
        upsample: enlarge bilinearly to (H, W).

    Returns:
        (N, H, W, 1), or (N, h, w, 1) without `upsample`, in units of the score.

    Raises:
        TypeError: as for `saliency`.
        ValueError: as for `saliency`; no such layer, several of that name, one that runs more
            than once or not at all, or one whose output has no positions or channels first.

    Reference: Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via
        Gradient-based Localization.
    Elsewhere: `xailab.attribution.cam.grad_cam` for PyTorch, tf-explain `GradCAM`.
    """
    rows = _checked(model, x)
    if upsample and rows.ndim != 4:
        raise ValueError(f"x must be (N, H, W, C) for upsample=True, got shape {rows.shape}")
    chosen, kept = _find_layer(model, layer), []  # type: ignore[var-annotated]
    _refuse_channels_first(model, chosen)
    start = tf.convert_to_tensor(rows)
    with frozen(model), tf.GradientTape() as tape:
        tape.watch(start)  # else maps that no weight stands before would have no slopes
        scores = _scores(model, start, target, partial(_keeping, chosen, kept))
    maps = _maps(kept, layer, len(rows))
    if upsample and not (maps.shape[1] <= rows.shape[1] and maps.shape[2] <= rows.shape[2]):
        raise ValueError(
            f"layer {layer!r} gives {tuple(maps.shape)}, larger than x {rows.shape}, which must "
            "be (N, H, W, C), channels last: pass upsample=False"
        )
    slopes = tf.cast(_slopes(tape, scores, maps, f"layer {layer!r}"), start.dtype)
    _refuse_company(model, rows)
    weights = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)
    heat = tf.reduce_sum(weights * tf.cast(maps, start.dtype), axis=-1, keepdims=True)
    heat = tf.nn.relu(heat) if relu else heat
    if upsample:  # half-pixel centers, as PyTorch's align_corners=False
        heat = tf.image.resize(heat, rows.shape[1:3], method="bilinear")
    return heat.numpy().astype(x.dtype)


def saliency(model: Any, x: Array, target: Target, *, absolute: bool = False) -> Array:
    r"""Gradient of the target's score with respect to the input.

    $$S = \frac{\partial f_t(x)}{\partial x}$$

    Args:
        model: a Keras model, (N, ...) -> (N, K), (N, 1) or (N,), written in any way (functional,
            sequential, subclassed), built already.
        x: (N, ...) floats: float32, float64, or half precision, which is widened on the way.
        target: class index, (N,) class indices, None for a single-output model, or a function of
            the model's answer that gives (N,).
        absolute: return $|S|$.

    Returns:
        The shape and dtype of `x`, in units of the score per unit of `x`.

    Raises:
        TypeError: `x` is no array of floats, `target` no integer, `model` no Keras model, or one
            that returns something else than one tensor.
        ValueError: NaN in `x`, wrong shape, target out of range; a model that is not built, takes
            several inputs, returns something else than (N, K) or (N,), runs a layer with
            training=True, or lets rows influence each other; no gradient reaches the input.
        RuntimeError: Keras runs on another backend than TensorFlow.

    Reference: Simonyan, Vedaldi, Zisserman (2013), Deep Inside Convolutional Networks.
    Elsewhere: `xailab.attribution.saliency.saliency` for PyTorch, tf-explain `VanillaGradients`.
    """
    rows = _checked(model, x)
    gradient = _gradients(model, rows, target).astype(x.dtype)
    _refuse_company(model, rows)
    return np.abs(gradient) if absolute else gradient


def guided_backprop(model: Any, x: Array, target: Target) -> Array:
    r"""Backward pass that keeps only positive gradients at every ReLU.

    $$R^{l} = \mathbb 1[a^l > 0] \cdot \mathbb 1[R^{l+1} > 0] \cdot R^{l+1}$$

    While it runs, the model's ReLUs have a gradient written anew by `tf.custom_gradient`. Leaky
    ones and other activations keep their own.

    Args:
        model: a Keras model; its ReLUs are layers, or the `activation` of layers, never function
            calls or the like (a maximum, a mask).
        x: (N, ...) floats.
        target: class index, (N,) class indices, None for a single-output model, or a function of
            the model's answer that gives (N,).

    Returns:
        The shape and dtype of `x`, in units of the score per unit of `x`.

    Raises:
        TypeError: as for `saliency`.
        ValueError: as for `saliency`; a model without ReLUs, with one that is written in another
            way, or whose graph cannot be traced to look for those.

    Reference: Springenberg, Dosovitskiy, Brox, Riedmiller (2014), Striving for Simplicity: The
        All Convolutional Net.
    Elsewhere: `xailab.attribution.saliency.guided_backprop` for PyTorch.
    """
    rows = _checked(model, x)
    passed: list[str] = []
    with frozen(model), _guided_activations(model, passed):
        gradient = _gradients(model, rows, target, partial(_guided_layer, passed))
        found = len(passed)
        _refuse_other_relus(model, rows)
    if not found:
        raise ValueError("the model has no ReLUs to work on")
    _refuse_company(model, rows)
    return gradient.astype(x.dtype)


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
        model: a Keras model, as for `saliency`.
        x: (N, ...) floats.
        target: class index, (N,) class indices, None for a single-output model, or a function of
            the model's answer that gives (N,).
        baseline: where the path begins: a number, or an array that broadcasts to `x`.
        n_steps: points on the path.
        rule: "gauss-legendre", "trapezoid", "midpoint", "left" or "right".
        multiply_by_inputs: False returns the mean gradient alone.
        batch_size: points evaluated at once; None measures.

    Returns:
        The shape and dtype of `x`, in units of the score.

    Raises:
        TypeError, ValueError: as for `saliency`; a baseline that does not fit, an unknown rule,
            `n_steps` < 1.

    Reference: Sundararajan, Taly, Yan (2017), Axiomatic Attribution for Deep Networks.
    Elsewhere: `xailab.attribution.paths.integrated_gradients` for PyTorch.
    """
    rows, n_steps = _checked(model, x), check_positive("n_steps", n_steps)
    start = _start(baseline, x, rows)
    points, weights = quadrature(rule, n_steps, like=torch.as_tensor(rows))
    targets = [target] * len(x) if callable(target) else split_target(target, len(x))
    means = []
    for begin, end, t in zip(start, rows, targets, strict=True):
        path = begin + points.numpy().reshape(-1, *[1] * begin.ndim) * (end - begin)
        slopes = batched(
            partial(_gradients, model, target=t),
            path,
            batch_size=batch_size,
            owner=model,
            gradients=True,
        )
        means.append(np.tensordot(weights.numpy(), slopes, axes=1))
    _refuse_company(model, rows, of=n_steps)
    mean = np.stack(means)
    return ((rows - start) * mean if multiply_by_inputs else mean).astype(x.dtype)


# ---- the network of the other lessons -----------------------------------------------------------


def efficientnet_lite0() -> Any:
    """Build EfficientNet-Lite0 in Keras, with the weights of `models.pretrained`.

    Layers have PyTorch's names with underscores; what a batch norm's name stands for there, the
    values after its ReLU6, has that name here (`bn2` are the last maps).

    Returns:
        A functional model, (N, H, W, 3) normalized as for PyTorch -> logits (N, 1000).
    """
    from xailab.models import pretrained

    net: Any = pretrained("efficientnet_lite0").model
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
    """Return x, float32 or finer, if it is a finite batch of floats and the model can take it."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"the model must be a Keras model, got {type(model).__name__}")
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras must run on TensorFlow here, it runs on {keras.backend.backend()}"
        )
    if not model.built:
        raise ValueError("the model is not built, it has no weights yet: call it on data first")
    names = [one.name for one in getattr(model, "inputs", None) or []]
    if len(names) > 1:
        raise ValueError(
            f"the model must take one input, it takes {len(names)} ({', '.join(names)}): hold the "
            "others fixed in a model around it"
        )
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a NumPy array, got {type(x).__name__}")
    rows = _widened("x", x)
    check_input(nn.Identity(), torch.as_tensor(rows))  # the model's dtype is Keras's own business
    return rows


def _refuse_company(model: Any, rows: Array, of: int | None = None) -> None:
    """Refuse a model whose rows influence each other, at the end: its own errors come first."""
    with frozen(model):
        check_company(partial(_as_torch, model), torch.as_tensor(rows), of=of)


def _as_torch(model: Any, rows: torch.Tensor) -> torch.Tensor:
    """Return what a Keras model answers to a tensor of PyTorch."""
    answer = _answer(model, tf.convert_to_tensor(rows.numpy()))
    return torch.as_tensor(tf.cast(answer, tf.float64).numpy())


def _widened(name: str, values: Array) -> Array:
    """Return floats as a new array of float32, or float64 where they are that fine."""
    if values.dtype not in (np.float16, np.float32, np.float64, tf.bfloat16.as_numpy_dtype):
        raise TypeError(f"{name} must hold floating-point numbers, got {values.dtype}")
    return values.astype(np.promote_types(values.dtype, np.float32), order="C")


def _start(baseline: Any, x: Array, rows: Array) -> Array:
    """Return the baseline, a number or an array of the dtype of x, in the shape of the rows."""
    if isinstance(baseline, np.ndarray):
        if baseline.dtype != x.dtype:
            raise TypeError(f"baseline is {baseline.dtype}, but x is {x.dtype}")
        baseline = torch.as_tensor(_widened("baseline", baseline))
    elif isinstance(baseline, bool) or not isinstance(baseline, (int, float, np.number)):
        raise TypeError(
            f"baseline must be a number or a NumPy array, got {type(baseline).__name__}"
        )
    return check_baseline(baseline, torch.as_tensor(rows)).numpy()


def _gradients(model: Any, x: Array, target: Target, change: Any = None) -> Array:
    """Return the gradient of every row's score, the shape of x."""
    rows = tf.convert_to_tensor(x)
    with frozen(model), tf.GradientTape() as tape:
        tape.watch(rows)
        scores = _scores(model, rows, target, change)
    return _slopes(tape, scores, rows, "the input").numpy()


def _slopes(tape: Any, scores: Any, source: Any, name: str) -> Any:
    """Return the gradient of the scores; one that is not there is no gradient of zeros."""
    try:
        found = tape.gradient(scores, source)
    except LookupError:  # an operation without a gradient
        found = None
    if found is None:
        raise ValueError(
            f"no gradient reaches {name}: the score does not depend on it, or passes a step that "
            "has no gradient (tf.stop_gradient, rounding, argmax, NumPy)"
        )
    return tf.convert_to_tensor(found)  # where parts were taken: dense again


# ---- what a model returns, and what its layers do ------------------------------------------------


def _answer(model: Any, rows: Any, change: Any = None) -> Any:
    """Return the one tensor that the model returns, of any shape.

    Args:
        model: a Keras model.
        rows: (N, ...) tensor.
        change: (layer, its `call`) -> what the layer computes instead; None: what it did.

    Raises:
        TypeError: the model returns something else than one tensor.
        ValueError: it refuses the shape of x, or trains.
    """
    problems: list[ValueError] = []
    try:
        with _changed(model, partial(_watched, problems, _unbuilt(model), change)):
            answer = model(rows, training=False)
    except Exception as error:
        if problems:  # Keras words errors anew: this is what was raised
            raise problems[0] from None
        if not isinstance(error, (ValueError, tf.errors.OpError)):
            raise
        raise ValueError(f"the model refuses x of shape {tuple(rows.shape)}: {error}") from error
    return _one_tensor(answer)


def _scores(model: Any, rows: Any, target: Target, change: Any = None) -> Any:
    """Return the score of every row, (N,), as `core.scores.scores_of` does."""
    outputs = _answer(model, rows, change)
    if callable(target):
        return _made(target, outputs, rows.shape[0])
    if outputs.shape.rank not in (1, 2) or outputs.shape[0] != rows.shape[0]:
        raise ValueError(
            f"the model must return (N,) or (N, K) with N = {rows.shape[0]} rows, it returned "
            f"{tuple(outputs.shape)} for x of shape {tuple(rows.shape)}"
        )
    return _select(outputs, target)


def _select(outputs: Any, target: Target) -> Any:
    """Pick the score of the target of every row, with the errors of PyTorch's methods."""
    index = check_target(target, torch.empty(tuple(outputs.shape)))  # the shape is all it asks
    if index is None:
        return tf.reshape(outputs, (-1,))
    return tf.gather(outputs, index.numpy(), axis=1, batch_dims=1)


def _made(target: Callable[[Any], Any], outputs: Any, rows: int) -> Any:
    """Return the scores that a target makes of what the model returned."""
    scores = target(outputs)
    if not isinstance(scores, tf.Tensor) or scores.shape != (rows,):
        came = tuple(scores.shape) if isinstance(scores, tf.Tensor) else type(scores).__name__
        raise ValueError(f"target as a function must give ({rows},), one number a row, got {came}")
    return scores


def _one_tensor(answer: Any) -> Any:
    """Return the logits out of what a model returned, as `core.outputs.logits_of` does."""
    if isinstance(answer, Mapping) and "logits" in answer:
        return _one_tensor(answer["logits"])
    parts = answer.values() if isinstance(answer, Mapping) else answer
    parts = list(parts) if isinstance(answer, (Mapping, list, tuple)) else [answer]
    if len(parts) == 1 and isinstance(parts[0], tf.Tensor):
        return parts[0]
    raise TypeError(
        f"the model must return one tensor, it returned {type(answer).__name__} with {len(parts)} "
        "parts: take one, for instance with keras.Model(model.inputs, model.outputs[0])"
    )


@contextmanager
def _changed(model: Any, change: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Let every layer compute `change(layer, its call)`, uncompiled, inside the `with` block.

    The layers themselves are used and not copies: those cannot be had of every model (`Lambda`).
    """
    layers = list(_named_layers(model).values())
    own = [(layer, vars(layer)["call"]) for layer in layers if "call" in vars(layer)]
    eager = tf.config.functions_run_eagerly()
    try:
        for layer in layers:
            vars(layer)["call"] = change(layer, layer.call)
        tf.config.run_functions_eagerly(True)  # compiled functions would not see the change
        yield
    finally:
        tf.config.run_functions_eagerly(eager)
        for layer in layers:
            vars(layer).pop("call", None)
        for layer, call in own:
            vars(layer)["call"] = call


def _watched(
    problems: list[ValueError], unbuilt: set[int], change: Any, layer: Any, call: Any
) -> Callable[..., Any]:
    """Return a layer's call that stops where it would train, or has only now got weights."""
    inner = call if change is None else change(layer, call)

    def watched(*inputs: Any, **options: Any) -> Any:
        if options.get("training"):
            problems.append(
                ValueError(
                    f"layer {layer.name!r} is called with training=True: its answers are random, "
                    "or depend on the other rows"
                )
            )
        elif id(layer) in unbuilt and layer.weights:
            problems.append(ValueError(f"layer {layer.name!r} of the model was not built"))
        if problems:
            raise problems[0]
        return inner(*inputs, **options)

    return watched


def _unbuilt(model: Any) -> set[int]:
    """Return which layers have no weights yet; functions of a functional model never have any."""
    layers = _named_layers(model).values()
    return {id(layer) for layer in layers if not getattr(layer, "built", True)}


def _named_layers(model: Any) -> dict[str, Any]:
    """Return the layers and functions of a model, also those inside others, each once.

    Names are those on the way to a layer, "body/conv"; a second one of the same name gets a #.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def visit(parent: Any, way: str) -> None:
        for layer in [*getattr(parent, "operations", ()), *getattr(parent, "_layers", ())]:
            if id(layer) not in seen:
                seen.add(id(layer))
                name = f"{way}{layer.name}"
                found[name if name not in found else f"{name}#{len(found)}"] = layer
                visit(layer, f"{name}/")

    visit(model, "")
    return found


def _find_layer(model: Any, name: Any) -> Any:
    """Return the layer of this name, which must be the only one."""
    if not isinstance(name, str):
        raise TypeError(f"layer must be a layer's name (str), got {type(name).__name__}")
    known = _named_layers(model)
    ends = [way for way in known if way.split("#")[0].endswith(f"/{name}") or way == name]
    ways = [name] if name in known else ends
    if len(ways) > 1:
        raise ValueError(f"the model has {len(ways)} layers {name!r}: say {' or '.join(ways)}")
    if not ways:
        near = get_close_matches(name, known, n=5, cutoff=0.4) or list(known)[-5:]
        raise ValueError(f"the model has no layer {name!r}; near names: {', '.join(near)}")
    return known[ways[0]]


def _refuse_channels_first(model: Any, chosen: Any) -> None:
    """Refuse maps (N, K, h, w), as far as layers say so, and weights, which are no maps."""
    norm = isinstance(chosen, keras.layers.BatchNormalization) and chosen.axis in (1, -3)
    layers = list(_named_layers(model).values())
    first = [one for one in layers if getattr(one, "data_format", "") == "channels_first"]
    if norm or first:
        name = (first or [chosen])[0].name
        raise ValueError(f"layer {name!r} has channels first: grad_cam needs them last")
    if isinstance(chosen, keras.layers.Softmax):
        raise ValueError(f"layer {chosen.name!r} gives weights that sum to 1, not maps")


def _keeping(chosen: Any, kept: list[Any], layer: Any, call: Any) -> Callable[..., Any]:
    """Return the call of a layer; that of the chosen one keeps what it gives."""
    if layer is not chosen:
        return call

    def keeping(*inputs: Any, **options: Any) -> Any:
        kept.append(call(*inputs, **options))
        return kept[-1]

    return keeping


def _maps(kept: list[Any], layer: str, rows: int) -> Any:
    """Return the maps (N, h, w, K) of the one time that the layer ran."""
    if len(kept) != 1:
        often = "ran more than once" if kept else "did not run"
        raise ValueError(f"layer {layer!r} {often} in one forward pass")
    (maps,) = kept
    if not isinstance(maps, tf.Tensor):
        raise TypeError(f"layer {layer!r} returns {type(maps).__name__}, not one tensor")
    shape = tuple(maps.shape)
    if tf.is_symbolic_tensor(maps):
        raise ValueError(f"layer {layer!r} runs inside a compiled function, out of sight")
    if len(shape) != 4 or shape[0] != rows:
        raise ValueError(f"layer {layer!r} gives {shape}, which has no positions (N, h, w, K)")
    return maps


# ---- ReLUs --------------------------------------------------------------------------------------

# Where a ReLU is flat: above this.
_RELUS = {
    keras.activations.relu: np.inf,
    keras.activations.relu6: 6.0,
    keras.ops.relu: np.inf,
    keras.ops.relu6: 6.0,
    tf.nn.relu: np.inf,
    tf.nn.relu6: 6.0,
}
# Layers of Keras that run what somebody else wrote.
_OPEN = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
# What a ReLU may be made of, where it is no layer.
_PARTS = {
    *("Relu", "Relu6", "LeakyRelu", "Maximum", "Minimum", "Max", "Min", "ClipByValue"),
    *("Select", "SelectV2", "Greater", "GreaterEqual", "Less", "LessEqual", "Abs", "Sign"),
}
_KNOWN = "known_to_xailab"  # the scope of operations that are no hidden ReLUs


def _is_relu(layer: Any) -> bool:
    """Tell whether a layer is a ReLU: flat below 0 (or a threshold), perhaps flat above a cap."""
    kinds = (keras.layers.ReLU, keras.layers.LeakyReLU)
    return isinstance(layer, kinds) and not np.any(layer.negative_slope)


class _Guided:
    """A ReLU whose backward pass keeps what is positive below and above.

    Args:
        function: the ReLU itself.
        passed: gets one entry each time that it runs.
        low: flat below this.
        top: flat above this.
    """

    def __init__(
        self, function: Callable[[Any], Any], passed: list[str], low: float, top: float
    ) -> None:
        self.function, self.passed, self.low, self.top = function, passed, low, top

    def __call__(self, inputs: Any) -> Any:
        self.passed.append("relu")
        return self._guided(inputs)

    def _guided(self, inputs: Any) -> Any:
        @tf.custom_gradient
        def relu(x: Any) -> Any:
            def backward(signal: Any) -> Any:
                open_there = (x > self.low) & (x < self.top)
                return tf.nn.relu(signal) * tf.cast(open_there, signal.dtype)

            with tf.name_scope(_KNOWN):
                return self.function(x), backward

        return relu(inputs)


def _guided_layer(passed: list[str], layer: Any, call: Any) -> Callable[..., Any]:
    """Return a layer's call, that of a ReLU with the guided gradient."""
    if not _is_relu(layer):
        return call
    cap = getattr(layer, "max_value", None)
    return _Guided(call, passed, getattr(layer, "threshold", 0.0), np.inf if cap is None else cap)


@contextmanager
def _guided_activations(model: Any, passed: list[str]) -> Iterator[None]:
    """Give the ReLUs that are activations of layers the guided gradient inside the block."""
    relus = [
        (layer, name, function, top)
        for layer in _named_layers(model).values()
        for name, function in _activations(layer)
        for relu, top in _RELUS.items()
        if function is relu
    ]
    try:
        for layer, name, function, top in relus:
            vars(layer)[name] = _Guided(function, passed, 0.0, top)
        yield
    finally:
        for layer, name, function, _ in relus:
            vars(layer)[name] = function


def _activations(layer: Any) -> list[tuple[str, Any]]:
    """Return the functions that a layer applies, with the names of its attributes."""
    return [(name, value) for name, value in vars(layer).items() if name.endswith("activation")]


def _is_known(layer: Any) -> bool:
    """Tell whether a layer runs nothing but Keras's own code: no ReLU is hidden in there."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model):
        return False
    own = type(layer).__module__.startswith("keras.") and type(layer).__name__ not in _OPEN
    named = all(_is_named(function) for _, function in _activations(layer))
    return own and named and all(map(_is_known, layer._layers))


def _is_named(function: Any) -> bool:
    if isinstance(function, keras.Layer):
        return _is_known(function)
    known = function is None or isinstance(function, _Guided)
    return known or any(function is one for one in vars(keras.activations).values())


def _refuse_other_relus(model: Any, rows: Array) -> None:
    """Refuse a model whose scores pass something like a ReLU that is not a layer's.

    Its graph is searched: what layers of Keras do, ReLUs with the guided gradient among them, is
    known and stands in a scope of that name; everything else must not compare or cut floats.
    """
    try:
        with _changed(model, _scoped):
            seen = tf.function(lambda x: model(x, training=False)).get_concrete_function(
                tf.TensorSpec(rows.shape, rows.dtype)
            )
    except Exception as error:
        raise ValueError(
            f"the model's graph cannot be traced, so a ReLU may be hidden in it: {error}"
        ) from error
    definition = seen.graph.as_graph_def()
    nodes = _reached(definition.node, {seen.inputs[0].op.name})
    for node in [*nodes, *_inside(nodes, definition.library.function)]:
        if node.op in _PARTS and tf.as_dtype(node.attr["T"].type).is_floating:
            raise ValueError(
                f"the model calls a ReLU, or what may be one, as a function ({node.op}, "
                f"{node.name!r}): write every one as a layer (keras.layers.ReLU) so that its "
                "backward pass can be replaced"
            )


def _scoped(layer: Any, call: Any) -> Callable[..., Any]:
    """Return a layer's call inside the scope of what is known, if the layer is."""
    inner = _guided_layer([], layer, call)
    if not (_is_relu(layer) or _is_known(layer)):
        return inner

    def scoped(*inputs: Any, **options: Any) -> Any:
        with tf.name_scope(_KNOWN):
            return inner(*inputs, **options)

    return scoped


def _reached(nodes: Any, reached: set[str]) -> list[Any]:
    """Return the nodes outside known scopes that depend on those reached; they come in order."""
    found = []
    for node in nodes:
        if any(name.split(":")[0] in reached for name in node.input):
            reached.add(node.name)
            if _KNOWN not in node.name:
                found.append(node)
    return found


def _inside(nodes: Any, library: Any) -> list[Any]:
    """Return the nodes inside the functions (loops, branches) that nodes call, in any depth."""
    found, waiting, known = [], list(nodes), {one.signature.name: one for one in library}
    while waiting:
        for value in waiting.pop().attr.values():
            for function in [value.func, *value.list.func]:
                body = known.pop(function.name, None)
                if body is not None:
                    found += body.node_def
                    waiting += body.node_def
    return found
