"""Where a transformer looks, and whether that matters.

Lesson 12 teaches this file. Attention maps are weights (N, heads, T, T), one tensor a layer: row i
says how position i mixes what it reads, and sums to 1. They are no explanation by themselves:
`gradient_attention` and `head_ablation` ask what they do to a score.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

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
    return _checked(maps, len(x), "MaskedSoftmax")


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


def gradient_attention(model: nn.Module, inputs: Tensor, target: Target) -> list[Tensor]:
    r"""Attention times gradient: weights that the target's score would miss.

    $$R^{(l)} = A^{(l)} \odot \frac{\partial f_t}{\partial A^{(l)}}$$

    A weight that nothing above reads gets 0, however large it is. As with input times gradient,
    this is what each weight would add if the score were linear in it.

    Args:
        model: a transformer of `xailab.models`, or any whose weights leave a `MaskedSoftmax`.
        inputs: ids (N, T), or floats (N, ...).
        target: class index, (N,) class indices, or None for a single-output model.

    Returns:
        For each layer, from the input upwards, (N, heads, T, T), signed, in units of the score.
        The last layer has nonzero rows only where its output is read: the class token's.

    Raises:
        TypeError: inputs that are no tensor; a target that is no integer.
        ValueError: as for `attention_maps`; a target out of range.

    Reference: Barkan, Hauon, Caciularu, Katz, Malkiel, Armstrong, Koenigstein (2021), Grad-SAM:
        Explaining Transformers via Gradient Self-Attention Maps (which keeps positive gradients).
    Elsewhere: captum `LayerGradientXActivation` at the softmax.

    >>> from xailab.models import sms_transformer
    >>> model = sms_transformer()
    >>> last = gradient_attention(model, model.encode(["WIN a prize"]), 1)[-1]
    >>> last.shape, bool((last[:, :, 1:] == 0).all())
    (torch.Size([1, 4, 4, 4]), True)
    """
    layers, x = _layers(model), _check_inputs(model, inputs)
    with frozen(model), gradients_on():
        found = [layer_gradient(model, x, target, layer) for layer in layers]
    return [weights * gradient for weights, gradient in found]


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


def _returned(model: nn.Module, inputs: Any, kind: str | None) -> list[Tensor]:
    """Ask a model of the transformers library, or one like it, for its weights."""
    if not callable(model):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    forward = model.forward if isinstance(model, nn.Module) else model
    known = inspect.signature(forward).parameters.values()
    if not any(p.name == "output_attentions" or p.kind is p.VAR_KEYWORD for p in known):
        raise ValueError(
            f"{type(model).__name__} gives no attention weights: it neither holds a MaskedSoftmax "
            "nor takes output_attentions"
        )
    options = {"output_attentions": True}
    if hasattr(getattr(model, "config", None), "return_dict"):
        options["return_dict"] = True  # names say what is what; a tuple does not
    if isinstance(inputs, Mapping):
        named = {name: _tensor(name, value) for name, value in inputs.items()}
        rows, answer = len(next(iter(named.values()), ())), model(**named, **options)
    else:
        rows, answer = len(_check_inputs(model, inputs)), model(inputs, **options)
    return _checked(_chosen(model, _groups(answer), answer, kind), rows, type(model).__name__)


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


def _checked(maps: list[Tensor], rows: int, name: str) -> list[Tensor]:
    """Return the maps, detached, if each is (N, heads, T, S)."""
    for weights in maps:
        if weights.ndim != 4 or len(weights) != rows:
            raise ValueError(
                f"attention maps must be (N, heads, T, T) with N = {rows} rows; {name} gave "
                f"{tuple(weights.shape)}: are these windows of the input?"
            )
    return [weights.detach() for weights in maps]


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
