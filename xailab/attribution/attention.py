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
from xailab.core.scores import graph, layer_gradient, outputs_of, select
from xailab.core.state import frozen
from xailab.models.transformers import attention_layers

Inputs = Tensor | Mapping[str, Tensor]


def attention_maps(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    r"""Return the attention weights of every layer.

    $$A = \mathrm{softmax}(Q K^\top / \sqrt{d})$$

    Args:
        model: a transformer of `xailab.models` (its weights leave a `MaskedSoftmax`), or one of
            the transformers library, which returns them when called with
            `output_attentions=True`. Such a one must have been loaded with
            `attn_implementation="eager"`: the fast ways never have the weights in memory.
        inputs: what the model takes: ids (N, T), pictures (N, C, H, W), or a tokenizer's mapping
            of tensors, which becomes keyword arguments.

    Returns:
        For each layer, from the input upwards, (N, heads, T, T), detached; rows sum to 1, and
        padding gets 0.

    Raises:
        TypeError: inputs that are neither a tensor nor a mapping of tensors.
        ValueError: a model that has no attention weights to give; what the model refuses.

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
            return _returned(model, inputs)
        x = _check_inputs(model, inputs)
        with capture(model, layers) as kept:
            outputs_of(model, x)
        return [output_of(kept, layer, len(x)).detach() for layer in layers]


def attention_rollout(maps: Sequence[Tensor] | Tensor, *, residual: bool = True) -> Tensor:
    r"""Multiply the maps of all layers: how much of each input is in each output.

    $$\tilde A^{(l)} = A^{(l)} \tilde A^{(l-1)}, \qquad
      A^{(l)} = \tfrac12 \bar W^{(l)} + \tfrac12 I$$

    $\bar W$ is the mean over heads; the identity stands for the residual connection, which hands
    half of every position on unchanged. Values, norms and the layers between are left out, and no
    class is asked for: the same map explains every score.

    Args:
        maps: for each layer, from the input upwards, (N, heads, T, T) or, with the mean over
            heads taken already, (N, T, T).
        residual: add the identity; False multiplies the attention alone.

    Returns:
        (N, T, T): row i holds the shares of the inputs in position i of the last layer, which sum
        to 1. Row 0, the class token's, is the one usually drawn.

    Raises:
        TypeError: something else than tensors.
        ValueError: no map, maps of different or other shapes, or rows that do not sum to 1 (maps
            times gradients are no shares).

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
    return rolled


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
    with frozen(model), graph():
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

    def scores() -> Tensor:
        outputs = batched(
            lambda rows: outputs_of(model, rows), x, batch_size=batch_size, owner=model
        )
        return select(outputs, target)

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


def _returned(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Ask a model of the transformers library, or one like it, for its weights."""
    forward = model.forward if isinstance(model, nn.Module) else model
    known = inspect.signature(forward).parameters.values()
    if not any(p.name == "output_attentions" or p.kind is p.VAR_KEYWORD for p in known):
        raise ValueError(
            f"{type(model).__name__} gives no attention weights: it neither holds a MaskedSoftmax "
            "nor takes output_attentions"
        )
    if isinstance(inputs, Mapping):
        found = model(**inputs, output_attentions=True)
    else:
        found = model(_check_inputs(model, inputs), output_attentions=True)
    maps = getattr(found, "attentions", None)
    if not maps or any(weights is None for weights in maps):
        raise ValueError(
            f"{type(model).__name__} returned no attentions; load it with "
            'attn_implementation="eager"'
        )
    return [weights.detach() for weights in maps]


def _means(maps: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """Return the mean over heads of each map, (N, T, T), all of one shape, rows summing to 1."""
    if not all(isinstance(weights, Tensor) for weights in maps):
        raise TypeError("maps must be tensors, one for each layer")
    means = [
        weights.detach().mean(1) if weights.ndim == 4 else weights.detach() for weights in maps
    ]
    shapes = {tuple(mean.shape) for mean in means}
    if len(shapes) != 1 or any(len(shape) != 3 or shape[1] != shape[2] for shape in shapes):
        came = [tuple(weights.shape) for weights in maps]
        raise ValueError(f"maps must all be (N, heads, T, T) of the same N and T, got {came}")
    worst = max(float((mean.sum(-1) - 1).abs().max()) for mean in means)
    if not worst < 1e-2:  # half precision is off by a few thousandths
        raise ValueError(f"rows of attention sum to 1, these are off by up to {worst:.3g}")
    return means
