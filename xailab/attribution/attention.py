"""Where a transformer looks, and whether that matters.

Lesson `attention` teaches this file. Attention maps are weights (N, heads, T, T), one tensor a
layer: row i says how position i mixes what it reads, and sums to 1. They are no explanation by
themselves: `gradient_attention`, `gradient_rollout` and `head_ablation` ask what they do to a
score.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.checks import Target, check_input
from xailab.core.layers import capture, edited, output_of
from xailab.core.scores import gradients_on, layer_gradient, outputs_of, scores_of, target_of_rows
from xailab.core.state import frozen
from xailab.models.transformers import attention_layers

Inputs = Tensor | Mapping[str, Tensor]

# What models of the transformers library call their maps.
KINDS = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")


def attention_maps(model: nn.Module, inputs: Inputs, *, kind: str | None = None) -> list[Tensor]:
    r"""Return the attention weights of every layer.

    $$A = \mathrm{softmax}(Q K^\top / \sqrt{d})$$

    Args:
        model: a transformer of `xailab.models` (its weights leave a `MaskedSoftmax`), or one of
            the transformers library, which returns them when called with
            `output_attentions=True`, in an output, a dict or a tuple. Such a one must have been
            loaded with `attn_implementation="eager"`: the fast ways never have the weights in
            memory.
        inputs: what the model takes: ids (N, T), pictures (N, C, H, W), or a tokenizer's mapping
            of tensors, which becomes keyword arguments.
        kind: which maps are meant where a model returns several: "attentions",
            "encoder_attentions", "decoder_attentions" or "cross_attentions". None: the only ones.

    Returns:
        For each layer, from the input upwards, (N, heads, T, T), detached; rows sum to 1, and
        padding gets 0. Cross-attention is (N, heads, T, S).

    Raises:
        TypeError: inputs that are neither a tensor nor a mapping of tensors; a layer that gives
            something else than one tensor.
        ValueError: a model that has no attention weights to give, or several kinds and `kind`
            does not say which; maps of windows, or of another shape; what the model refuses.

    Reference: Vaswani et al. (2017), Attention Is All You Need.
    Elsewhere: transformers `model(..., output_attentions=True).attentions`; BertViz draws them.

    >>> from xailab.models import DigitViT
    >>> first, second = attention_maps(DigitViT(depth=2), torch.zeros(1, 1, 28, 28))
    >>> first.shape, bool(torch.allclose(first.sum(-1), torch.ones(())))
    (torch.Size([1, 4, 50, 50]), True)
    """
    layers = attention_layers(model) if isinstance(model, nn.Module) else []
    with frozen(model), torch.no_grad():
        if not layers:
            return _returned(model, inputs, kind)
        if kind is not None:
            raise ValueError(f"kind={kind!r}, but the model's maps are of one kind: leave it out")
        x = _check_inputs(model, inputs)
        with capture(model, layers) as kept:
            outputs_of(model, x)
        maps = [output_of(kept, layer, len(x)).detach() for layer in layers]
    return _checked(maps, len(x), model)


def attention_rollout(maps: Sequence[Tensor] | Tensor, *, residual: bool = True) -> Tensor:
    r"""Multiply the maps of all layers: how much of each input is in each output.

    $$\tilde A^{(l)} = A^{(l)} \tilde A^{(l-1)}, \qquad
      A^{(l)} = \tfrac12 \bar W^{(l)} + \tfrac12 I$$

    $\bar W$ is the mean over heads; the identity stands for the residual connection, which hands
    half of every position on unchanged. Values, norms and the layers between are left out, and no
    class is asked for: the same map explains every score.

    Args:
        maps: for each layer, from the input upwards, (N, heads, T, T) or, with the mean over
            heads taken already, (N, T, T). A list, even of one layer; or the layers stacked,
            (layers, N, heads, T, T). They are multiplied in float32 or finer.
        residual: add the identity; False multiplies the attention alone.

    Returns:
        (N, T, T), in the dtype of the maps: row i holds the shares of the inputs in position i
        of the last layer, which sum to 1. Row 0, the class token's, is the one usually drawn.

    Raises:
        TypeError: something else than tensors of floats.
        ValueError: one tensor that may be one layer or several; no map, maps of different or
            other shapes, negative ones, or rows that do not sum to 1 (maps times gradients are no
            shares).

    Reference: Abnar, Zuidema (2020), Quantifying Attention Flow in Transformers.
    Elsewhere: the authors' `attention_flow` code; none in captum.

    >>> look_left = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> attention_rollout([look_left, look_left])
    tensor([[[1.0000, 0.0000],
             [0.7500, 0.2500]]])
    """
    means = _means(maps)
    eye = torch.eye(means[0].shape[-1], dtype=means[0].dtype, device=means[0].device)
    rolled = eye.expand_as(means[0])
    for mean in means:
        rolled = (0.5 * mean + 0.5 * eye if residual else mean) @ rolled
    return rolled.to(maps[0].dtype)


def gradient_attention(model: nn.Module, inputs: Inputs, target: Target) -> list[Tensor]:
    r"""Attention times gradient: weights that the target's score would miss.

    $$R^{(l)} = A^{(l)} \odot \frac{\partial f_t}{\partial A^{(l)}}$$

    A weight that nothing above reads gets 0, however large it is. As with input times gradient,
    this is what each weight would add if the score were linear in it.

    Args:
        model: a transformer of `xailab.models`, or any whose weights leave a `MaskedSoftmax`; or
            one of the transformers library, which computes them as "eager" does while it is asked,
            whatever it was loaded with.
        inputs: ids (N, T), floats (N, ...), or a tokenizer's mapping of tensors.
        target: class index, (N,) class indices, or None for a single-output model.

    Returns:
        For each layer, from the input upwards, (N, heads, T, T), signed, in units of the score.
        The last layer has nonzero rows only where its output is read: the class token's.

    Raises:
        TypeError: inputs that are no tensors; a target that is no integer.
        ValueError: as for `attention_maps`; a target out of range; weights that were returned but
            that the score is not made of.

    Reference: Barkan, Hauon, Caciularu, Katz, Malkiel, Armstrong, Koenigstein (2021), Grad-SAM:
        Explaining Transformers via Gradient Self-Attention Maps (which keeps positive gradients).
    Elsewhere: captum `LayerGradientXActivation` at the softmax.

    >>> from xailab.models import sms_transformer
    >>> model = sms_transformer()
    >>> last = gradient_attention(model, model.encode(["WIN a prize"]), 1)[-1]
    >>> last.shape, bool((last[:, :, 1:] == 0).all())
    (torch.Size([1, 4, 4, 4]), True)
    """
    return [weights * gradient for weights, gradient in _with_gradients(model, inputs, target)]


class GradientRollout(NamedTuple):
    """What each position of the last layer holds of each input, as the score wants it.

    Attributes:
        relevance: (N, T, T), row i for position i of the last layer; not negative.
        read: (N, T), the shares in which the score reads those positions; they sum to 1.
    """

    relevance: Tensor
    read: Tensor

    @property
    def inputs(self) -> Tensor:
        """The rows that the score reads, averaged: how much of each input it holds, (N, T)."""
        return (self.read[:, None] @ self.relevance)[:, 0]

    @property
    def brought(self) -> Tensor:
        """What attention brought there: `inputs` without the identity they began with, (N, T)."""
        return self.inputs - self.read


def gradient_rollout(model: nn.Module, inputs: Inputs, target: Target) -> GradientRollout:
    r"""Roll attention out with the gradients of a score: which inputs reach what it reads?

    $$R \leftarrow R + \bar A^{(l)} R, \qquad \bar A^{(l)} = \operatorname{mean}_h \Big(
      \frac{\partial f_t}{\partial A^{(l)}} \odot A^{(l)}\Big)^{+}, \qquad R = I \text{ at first}$$

    Unlike `attention_rollout` it is about one class: a weight counts as far as the score grows with
    it. Which positions of the last layer the score reads is seen from the gradients, which are 0
    everywhere else: the class token's, the last token's, or all where their mean is taken. A
    position that is read holds itself from the start: the 1 of the identity, which would outshine
    all others where a word is read (by GPT-2, the last one), and which `brought` leaves out.

    Args:
        model: as for `gradient_attention`.
        inputs: ids (N, T), floats (N, ...), or a tokenizer's mapping of tensors.
        target: class index, (N,) class indices, or None for a single-output model.

    Returns:
        `GradientRollout(relevance, read)`; its `brought` (N, T) is what is drawn. It has no unit,
        and promises no sum.

    Raises:
        TypeError, ValueError: as for `gradient_attention`; layers of different numbers of
            positions; a last layer that the score does not read.

    Reference: Chefer, Gur, Wolf (2021), Generic Attention-Model Explainability for Interpreting
        Bi-Modal and Encoder-Decoder Transformers (self-attention: their equations 5 and 6).
    Elsewhere: the authors' `Transformer-MM-Explainability`, which draws the class token's row and
        puts its own entry at 0.

    >>> from xailab.models import sms_transformer
    >>> model = sms_transformer()
    >>> found = gradient_rollout(model, model.encode(["WIN a prize"]), 1)
    >>> found.read  # the class token alone
    tensor([[1., 0., 0., 0.]])
    >>> found.brought.shape, bool((found.brought >= 0).all())
    (torch.Size([1, 4]), True)
    """
    found = [(_widened(a), _widened(g)) for a, g in _with_gradients(model, inputs, target)]
    shapes = {tuple(a.shape[2:]) for a, _ in found}
    if len(shapes) > 1 or len(set(*shapes)) > 1:
        raise ValueError(f"layers must attend among the same positions to be rolled out: {shapes}")
    first, last = found[0][0], found[-1][1]
    rolled = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    rolled = rolled.expand(len(first), -1, -1)
    for weights, gradient in found:
        rolled = rolled + (gradient * weights).clamp(min=0).mean(1) @ rolled
    read = (last != 0).any(-1).any(1).to(first.dtype)
    if not read.any(1).all():
        raise ValueError("the score does not depend on what the last layer of attention gives")
    return GradientRollout(rolled, read / read.sum(1, keepdim=True))


def head_ablation(
    model: nn.Module, inputs: Tensor, target: Target, *, batch_size: int | None = None
) -> Tensor:
    r"""Switch off one head at a time and note how far the score falls.

    $$D_{lh} = f_t(x) - f_t\big(x;\ A^{(l)}_h \leftarrow 0\big)$$

    With its weights at zero a head hands on nothing; the other heads and the residual connection
    go on. Heads may stand in for one another, so the drops need not add up to anything.

    Args:
        model: a transformer of `xailab.models`, or any whose weights leave a `MaskedSoftmax`.
        inputs: ids (N, T), or floats (N, ...).
        target: class index, (N,) class indices, or None for a single-output model.
        batch_size: rows evaluated at once; None measures.

    Returns:
        (N, layers, heads), in units of the score: positive where the head helped.

    Raises:
        TypeError: as for `gradient_attention`; a `batch_size` that is no integer.
        ValueError: as for `gradient_attention`; layers with different numbers of heads.

    Reference: Michel, Levy, Neubig (2019), Are Sixteen Heads Really Better than One?
    Elsewhere: `head_mask` in transformers before version 5.

    >>> from xailab.models import sms_transformer
    >>> model = sms_transformer()
    >>> head_ablation(model, model.encode(["WIN a prize", "ok"]), 1).shape
    torch.Size([2, 2, 4])
    """
    layers, x = _layers(model), _check_inputs(model, inputs)
    of_rows = target_of_rows(target, len(x))

    def scores() -> Tensor:
        return batched(
            lambda rows: scores_of(model, x[rows], of_rows(rows)),
            torch.arange(len(x)),
            batch_size=batch_size,
            owner=model,
            row_bytes=x[0].nbytes,
        )

    with frozen(model), torch.no_grad():
        whole = scores()
        counts = [weights.shape[1] for weights in attention_maps(model, x[:1])]
        if len(set(counts)) > 1:
            raise ValueError(f"all layers must have the same number of heads, got {counts}")
        drops = x.new_zeros(len(x), len(layers), counts[0], dtype=whole.dtype)
        for i, layer in enumerate(layers):
            for head in range(counts[0]):
                with edited(model, layer, partial(_without, head=head)):
                    drops[:, i, head] = whole - scores()
    return drops


def _without(weights: Tensor, head: int) -> Tensor:
    """Return the weights (N, heads, T, T) with those of one head at zero."""
    others = torch.arange(weights.shape[1], device=weights.device) != head
    return weights * others[:, None, None]


def _layers(model: nn.Module) -> list[str]:
    """Return the names of the layers that give attention weights, at least one."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    layers = attention_layers(model)
    if not layers:
        raise ValueError(
            "the model has no layer that gives attention weights: let them be the output of a "
            "module xailab.models.transformers.MaskedSoftmax"
        )
    return layers


def _check_inputs(model: nn.Module, inputs: Any) -> Tensor:
    """Return ids as they are, if there are any; floats are checked as every method does."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a torch.Tensor, got {type(inputs).__name__}")
    if inputs.is_floating_point():
        return check_input(model, inputs).detach()
    if inputs.ndim < 2 or not inputs.numel():
        raise ValueError(f"inputs must be a batch of ids (N, T), got shape {tuple(inputs.shape)}")
    return inputs


def _with_gradients(
    model: nn.Module, inputs: Inputs, target: Target
) -> list[tuple[Tensor, Tensor]]:
    r"""Return for every layer its weights $A$ and $\partial f_t / \partial A$, both detached."""
    library = isinstance(model, nn.Module) and not attention_layers(model) and _gives_maps(model)
    if library:
        return _returned_with_gradients(model, inputs, target)
    layers, x = _layers(model), _check_inputs(model, inputs)
    with frozen(model), gradients_on():
        return [layer_gradient(model, x, target, layer) for layer in layers]


def _returned_with_gradients(
    model: nn.Module, inputs: Inputs, target: Target
) -> list[tuple[Tensor, Tensor]]:
    """Ask a model of the transformers library for its weights, and how its score depends on them.

    Parameters record the graph for a while: ids cannot.
    """
    with frozen(model), gradients_on(), _eager(model):
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        answer, first = _answer(model, inputs)
        maps = _checked(_chosen(model, _groups(answer), answer, None), len(first), model)
        scores = scores_of(lambda _: answer, first, target)
        reached = scores.requires_grad and all(one.requires_grad for one in maps)
        slopes = torch.autograd.grad(scores.sum(), maps, allow_unused=True) if reached else (None,)
    found = [slope.detach() for slope in slopes if slope is not None]
    if len(found) < len(maps):
        raise ValueError(
            f"the score of {type(model).__name__} is not made of the attention weights that it "
            "returned: no gradient reaches them"
        )
    return [(a.detach(), slope) for a, slope in zip(maps, found, strict=True)]


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Let a model of the transformers library have its weights in memory, for a while.

    Its way to compute attention is put back, and the hooks are taken off that it sets when it is
    asked for its weights for the first time.
    """
    modules = list(model.modules())
    configs = {id(one): one for module in modules if hasattr(one := _config(module), "__dict__")}
    ways = [(one, way) for one in configs.values() if (way := _way(one)) in vars(one)]
    before = [(one, way, vars(one)[way]) for one, way in ways]
    with _hooks_as_they_were(modules):
        try:
            for one, way, _ in before:
                setattr(one, way, "eager")
            yield
        finally:
            for one, way, value in before:
                setattr(one, way, value)


def _config(module: nn.Module) -> Any:
    return getattr(module, "config", None)


def _way(config: Any) -> str:
    inner = "_attn_implementation_internal"
    return inner if inner in vars(config) else "_attn_implementation"


@contextmanager
def _hooks_as_they_were(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Take off the forward hooks that modules got inside the block, and the mark that they did."""
    mark = "_output_capturing_hooks_installed"
    hooks = [(module, set(module._forward_hooks)) for module in modules]
    bare = [module for module in modules if mark not in vars(module)]
    try:
        yield
    finally:
        for module, before in hooks:
            for key in set(module._forward_hooks) - before:
                del module._forward_hooks[key]
        for module in bare:
            vars(module).pop(mark, None)


def _gives_maps(model: Any) -> bool:
    """Tell whether a model can be asked for its weights by `output_attentions=True`."""
    forward = model.forward if isinstance(model, nn.Module) else model
    known = inspect.signature(forward).parameters.values()
    return any(p.name == "output_attentions" or p.kind is p.VAR_KEYWORD for p in known)


def _returned(model: nn.Module, inputs: Any, kind: str | None) -> list[Tensor]:
    """Ask a model of the transformers library, or one like it, for its weights."""
    if not callable(model):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    if not _gives_maps(model):
        raise ValueError(
            f"{type(model).__name__} gives no attention weights: it neither holds a MaskedSoftmax "
            "nor takes output_attentions"
        )
    answer, first = _answer(model, inputs)
    maps = _checked(_chosen(model, _groups(answer), answer, kind), len(first), model)
    return [weights.detach() for weights in maps]


def _answer(model: Any, inputs: Any) -> tuple[Any, Tensor]:
    """Return what a model answers together with its weights, and the first of its inputs."""
    options = {"output_attentions": True}
    if hasattr(getattr(model, "config", None), "return_dict"):
        options["return_dict"] = True  # names say what is what; a tuple does not
    if not isinstance(inputs, Mapping):
        return model(_check_inputs(model, inputs), **options), inputs
    named = {name: _tensor(name, value) for name, value in inputs.items()}
    if not named:
        raise ValueError("inputs is empty")
    return model(**named, **options), next(iter(named.values()))


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or not value.ndim:
        raise TypeError(f"inputs[{name!r}] must be a torch.Tensor, got {type(value).__name__}")
    return value


def _groups(answer: Any) -> dict[str, list[Tensor]]:
    """Return the groups of maps in what a model returned, by their names or places."""
    if isinstance(answer, Mapping):
        parts = dict(answer)
    elif isinstance(answer, (tuple, list)):
        parts = {f"[{i}]": part for i, part in enumerate(answer)}
    else:
        parts = {name: getattr(answer, name, None) for name in KINDS}
    return {
        str(name): list(part)
        for name, part in parts.items()
        if isinstance(part, (tuple, list)) and part and (name in KINDS or _are_shares(part))
    }


def _are_shares(part: Sequence[Any]) -> bool:
    """Tell whether these are attention maps, where no name says so."""
    return all(
        isinstance(weights, Tensor)
        and weights.ndim == 4
        and weights.is_floating_point()
        and _off(weights.detach()) < _TOLERANCE
        for weights in part
    )


def _chosen(
    model: Any, groups: dict[str, list[Tensor]], answer: Any, kind: str | None
) -> list[Tensor]:
    """Return the maps of the kind asked for, or the only ones."""
    whole = {
        name: maps for name, maps in groups.items() if all(isinstance(one, Tensor) for one in maps)
    }
    if kind is not None and kind not in whole:
        has = ", ".join(whole) or "none"
        raise ValueError(f"kind must name maps that the model returned ({has}), got {kind!r}")
    if kind is None and len(whole) > 1:
        raise ValueError(
            f"{type(model).__name__} returned several kinds of maps: say which with kind="
            + " or ".join(map(repr, whole))
        )
    if whole:
        return whole[next(iter(whole)) if kind is None else kind]
    used = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if used == "eager":
        raise ValueError(
            f"{type(model).__name__} is eager, but there are no attentions in what it returned "
            f"({type(answer).__name__})"
        )
    raise ValueError(
        f"{type(model).__name__} returned no attentions; load it with "
        f'attn_implementation="eager"' + (f", it is {used!r}" if used else "")
    )


def _checked(maps: list[Tensor], rows: int, model: Any) -> list[Tensor]:
    """Return the maps if each is (N, heads, T, S)."""
    name = type(model).__name__
    for weights in maps:
        if weights.ndim != 4 or len(weights) != rows:
            raise ValueError(
                f"attention maps must be (N, heads, T, T) with N = {rows} rows; {name} gave "
                f"{tuple(weights.shape)}: are these windows of the input?"
            )
    return maps


_TOLERANCE = 1e-2  # of sums: half precision is off by a few thousandths


def _off(weights: Tensor) -> float:
    """Return by how much rows miss being shares: not negative, and summing to 1."""
    fine = _widened(weights)
    return max(float((fine.sum(-1) - 1).abs().max()), -float(fine.min()))


def _widened(weights: Tensor) -> Tensor:
    return weights.to(torch.promote_types(weights.dtype, torch.float32))


def _means(maps: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """Return the mean over heads of each map, (N, T, T), all of one shape, rows summing to 1."""
    if isinstance(maps, Tensor) and maps.ndim != 5:
        raise ValueError(
            "maps must be a list, one tensor for each layer (of one layer: [maps]), got one "
            f"tensor of shape {tuple(maps.shape)}"
        )
    if not all(isinstance(weights, Tensor) and weights.is_floating_point() for weights in maps):
        raise TypeError("maps must be tensors of floats, one for each layer")
    fine = [_widened(weights.detach()) for weights in maps]
    means = [weights.mean(1) if weights.ndim == 4 else weights for weights in fine]
    shapes = {tuple(mean.shape) for mean in means}
    if len(shapes) != 1 or any(len(shape) != 3 or shape[1] != shape[2] for shape in shapes):
        came = [tuple(weights.shape) for weights in maps]
        raise ValueError(f"maps must all be (N, heads, T, T) of the same N and T, got {came}")
    if not all(mean.numel() for mean in means):
        raise ValueError(f"maps are empty: {shapes.pop()}")
    wrong = [off for off in map(_off, fine) if not off < _TOLERANCE]  # NaN is wrong, too
    if wrong:
        raise ValueError(
            f"rows of attention are not negative and sum to 1, these are off by {wrong[0]:.3g}"
        )
    return means
