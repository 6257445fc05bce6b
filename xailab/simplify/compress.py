"""The same network in fewer numbers: pruning, fewer bits, lower rank; and what each one saves.

Lesson `compression` teaches this file. Every function hands back a copy and leaves the network it
was given as it was. What is saved is measured and not promised: a zero takes as many bytes as any
number, and as much time, until somebody stores or computes it in another way.
"""

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xailab.core.checks import Model, check_input, check_positive
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.simplify.channels import remove_channels
from xailab.simplify.layers import (
    CONVOLUTIONS,
    Layer,
    check_number,
    copied,
    is_plain,
    layers_of,
    stored_layers,
    tied,
)

__all__ = [
    "Latency",
    "LowRank",
    "keep_zeros",
    "latencies",
    "latency",
    "low_rank",
    "prune",
    "quantize",
    "remove_channels",
    "size_on_disk",
    "sparsity",
]

# ---- pruning -------------------------------------------------------------------------------------


def prune(model: nn.Module, amount: float, *, structured: bool = False) -> nn.Module:
    r"""Set the weights of least magnitude to zero, one by one or by whole channels.

    $$w_i \leftarrow 0 \;\text{ where } |w_i| \le \tau \qquad \text{or} \qquad
      (w_c, b_c) \leftarrow 0 \;\text{ where } \|w_c\|_2 \le \tau_{\text{layer}}$$

    Unstructured, one threshold serves all linear and convolutional layers, and biases stay.
    Structured, every such layer but the last loses the same share of its output channels, bias
    included; one channel always stays. The channels are zeroed and still there: shapes, bytes and
    time are as before until `remove_channels` takes them out.

    Args:
        model: the network; the last layer is the one it registers last.
        amount: share of the weights, or of each layer's channels, 0 to below 1.
        structured: whole channels.

    Returns:
        A pruned copy.

    Raises:
        TypeError: the model is no `nn.Module`, the amount no number.
        ValueError: an amount outside [0, 1), a model without a linear or convolutional layer, or
            one whose weights are computed, as those of a quantized one are, drawn or not finite.

    Reference: Han, Pool, Tran, Dally (2015), Learning both Weights and Connections for Efficient
        Neural Networks; Li, Kadav, Durdanovic, Samet, Graf (2017), Pruning Filters for Efficient
        ConvNets (of channels, by the sum of magnitudes).
    Elsewhere: torch `prune.global_unstructured(..., L1Unstructured)`, `prune.ln_structured(n=2,
        dim=0)`, which leaves the bias.

    >>> net = nn.Linear(4, 1)
    >>> net.weight.data = torch.tensor([[1.0, -5.0, 3.0, -2.0]])
    >>> prune(net, 0.5).weight.data
    tensor([[ 0., -5.,  3.,  0.]])
    """
    amount = check_number("amount", amount)
    if not 0 <= amount < 1:
        raise ValueError(f"amount must be a share, 0 <= amount < 1, got {amount}")
    smaller, layers = copied(model)
    with torch.no_grad():
        if structured:
            for layer in list(layers.values())[:-1]:
                _zero_channels(layer, amount)
        else:
            _zero_smallest([layer.weight for layer in layers.values()], amount)
    return smaller


def _zero_smallest(weights: list[Tensor], amount: float) -> None:
    """Zero this share of all weights together."""
    different = _different(weights)
    wide = torch.promote_types(torch.float32, different[0].dtype)  # also of a mixed network
    sizes = torch.cat([weight.abs().flatten().to(wide) for weight in different])
    gone = torch.zeros_like(sizes, dtype=torch.bool)
    gone[sizes.argsort(stable=True)[: round(amount * len(sizes))]] = True
    parts = gone.split([weight.numel() for weight in different])
    for weight, part in zip(different, parts, strict=True):
        weight.masked_fill_(part.reshape(weight.shape), 0)


def _different(weights: list[Tensor]) -> list[Tensor]:
    """Return each weight once: layers may share them."""
    return list({id(weight): weight for weight in weights}.values())


def _zero_channels(layer: Layer, amount: float) -> None:
    """Zero this share of a layer's output channels, but never all of them."""
    wide = torch.promote_types(torch.float32, layer.weight.dtype)  # half would make ties
    norms = layer.weight.flatten(1).to(wide).norm(dim=1)
    count = min(round(amount * len(norms)), len(norms) - 1)
    gone = norms.argsort(stable=True)[:count]
    layer.weight[gone] = 0
    if layer.bias is not None:
        layer.bias[gone] = 0


def sparsity(model: nn.Module) -> float:
    r"""Measure the share of zeros among the weights of linear and convolutional layers.

    $$\frac{|\{i : w_i = 0\}|}{|\{i\}|}$$

    Args:
        model: the network.

    Returns:
        A share, 0 to 1; biases do not count, and weights that layers share count once.

    Raises:
        TypeError: the model is no `nn.Module`.
        ValueError: it has no linear and no convolutional layer.

    Reference: Han, Pool, Tran, Dally (2015), Learning both Weights and Connections for Efficient
        Neural Networks.
    Elsewhere: torch leaves it to the caller.

    >>> sparsity(prune(nn.Linear(10, 10), 0.8))
    0.8
    """
    weights = _different([layer.weight for layer in layers_of(model).values()])
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


@contextmanager
def keep_zeros(model: nn.Module) -> Iterator[None]:
    """Let a pruned network be trained on without its zeros coming back, inside the `with` block.

    The gradient of every weight that is zero is held at zero, so that SGD and Adam leave it alone;
    weight decay shrinks and never wakes it. The biases of channels that are all zero stay as well.

    Args:
        model: a network that `prune` gave.

    Raises:
        TypeError: the model is no `nn.Module`.
        ValueError: it has no linear and no convolutional layer, or one whose weight is computed.

    Elsewhere: the masks of torch `nn.utils.prune`, which store every weight twice.

    >>> net = prune(nn.Linear(2, 2), 0.5)
    >>> with keep_zeros(net):
    ...     net(torch.ones(1, 2)).sum().backward()
    >>> int((net.weight.grad == 0).sum())
    2
    """
    layers, handles = stored_layers(model).values(), []
    try:
        for layer in layers:
            alive = layer.weight.detach() != 0
            handles.append(_masked(layer.weight, alive))
            if layer.bias is not None:
                handles.append(_masked(layer.bias, alive.flatten(1).any(1)))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _NoHandle:
    def remove(self) -> None:
        """There is nothing to remove."""


def _masked(parameter: Tensor, alive: Tensor) -> Any:
    """Hold the gradient of dead numbers at zero; one that wants no gradient needs no hook."""
    return parameter.register_hook(alive.mul) if parameter.requires_grad else _NoHandle()


# ---- fewer bits ----------------------------------------------------------------------------------


class _Rounded(nn.Module):
    """Weights as int8 levels and one step a channel; torch's `parametrize` calls both ways."""

    def __init__(self, n_bits: int) -> None:
        super().__init__()
        self.most = 2 ** (n_bits - 1) - 1

    def forward(self, levels: Tensor, step: Tensor) -> Tensor:
        return levels * step

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return levels and steps whose product is nearest to the weight."""
        largest = weight.flatten(1).abs().amax(1).reshape(-1, *[1] * (weight.ndim - 1))
        step = (torch.where(largest > 0, _fine(largest), 1) / self.most).to(weight.dtype)
        step = step.clamp_min(torch.finfo(step.dtype).smallest_normal)
        levels = (_fine(weight) / _fine(step)).round()  # in half, 127 / step may reach 128
        return levels.clamp(-self.most, self.most).to(torch.int8), step


def _fine(numbers: Tensor) -> Tensor:
    """Return numbers in single precision or finer."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def quantize(model: nn.Module, *, n_bits: int = 8, activations: bool = False) -> nn.Module:
    r"""Store the weights of linear and convolutional layers as small integers times a step.

    $$w \approx \Delta_c\, q, \qquad \Delta_c = \frac{\max_{i \in c} |w_i|}{2^{b - 1} - 1}, \qquad
      q = \mathrm{round}(w / \Delta_c)$$

    One step for each output channel c; biases stay. This saves bytes, on disk and in memory, and
    no time: before each use the weights become floats again, which costs some. Time is won by
    integer arithmetic, for which torch has no API in its core that is there to stay. Levels take
    a byte each also where `n_bits` is less than 8. Weights that no such layer holds stay as they
    are, as do queries, keys and values of `nn.MultiheadAttention`.

    Args:
        model: the network.
        n_bits: b, 2 to 8.
        activations: round what enters each layer as well, with a step measured for every row
            while it runs ("dynamic" quantization). This shows what is lost, in float arithmetic.

    Returns:
        A copy whose layers keep names and types; `layer.weight` gives the rounded weights, as
        floats that cannot be trained.

    Raises:
        TypeError: the model is no `nn.Module`; `n_bits` is not an integer.
        ValueError: `n_bits` outside 2..8, no linear or convolutional layer, weights that are not
            finite, that are computed or drawn; `activations` of a network with torch's own
            attention, which reads a layer's weights and does not call it.

    Reference: Jacob et al. (2018), Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference; Krishnamoorthi (2018), Quantizing deep convolutional
        networks for efficient inference: A whitepaper (a step for each channel).
    Elsewhere: torchao `quantize_(model, Int8WeightOnlyConfig())`; torch `ao.quantization`, which
        is deprecated.

    >>> net = nn.Linear(3, 1)
    >>> net.weight.data = torch.tensor([[1.27, 0.302, -0.004]])
    >>> quantize(net).weight
    tensor([[1.2700, 0.3000, 0.0000]])
    """
    if not 2 <= check_positive("n_bits", n_bits) <= 8:
        raise ValueError(f"n_bits must lie in 2..8, got {n_bits}")
    smaller, layers = copied(model)
    if activations:
        _check_called(smaller)
    for layer in layers.values():
        layer.weight.requires_grad_(False)  # integers have no gradient
        parametrize.register_parametrization(layer, "weight", _Rounded(n_bits))
        if activations:
            layer.register_forward_pre_hook(_Entrance(n_bits), with_kwargs=True)
    return smaller


def _check_called(model: nn.Module) -> None:
    """Refuse owners that read their layers' weights: what enters such a layer is not seen."""
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            raise ValueError(
                f"module {name!r}, an nn.MultiheadAttention, reads the weights of 'out_proj' and "
                "does not call it: activations=True cannot round what enters; leave it False"
            )


class _Entrance:
    """Rounds what enters a layer; the gradient passes as if it did not (straight through)."""

    def __init__(self, n_bits: int) -> None:
        self.most = 2 ** (n_bits - 1) - 1

    def __call__(
        self, module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        if inputs:
            return (self._rounded(inputs[0]), *inputs[1:]), named
        return inputs, {**named, "input": self._rounded(named["input"])}

    def _rounded(self, x: Tensor) -> Tensor:
        """Return a row's numbers as whole steps, the largest of which is the row's largest."""
        fine = _fine(x.detach())
        step = fine.flatten(1).abs().amax(1).reshape(-1, *[1] * (x.ndim - 1)) / self.most
        rounded = torch.where(step > 0, (fine / step).round() * step, fine)
        return x + (rounded.to(x.dtype) - x).detach()


# ---- lower rank ----------------------------------------------------------------------------------


def low_rank(model: nn.Module, energy: float) -> nn.Module:
    r"""Write each layer as two thinner ones, by the largest singular values of its weights.

    $$W = \sum_i \sigma_i u_i v_i^\top \approx (U_r \Sigma_r)\, V_r^\top, \qquad
      r = \min\Big\{r : \sum_{i \le r} \sigma_i^2 \ge e \sum_i \sigma_i^2\Big\}$$

    No other matrix of rank r is nearer. A convolution becomes one with r channels and a 1 x 1
    convolution. Where two layers would hold no fewer numbers than one, the one stays; so do
    grouped convolutions, weights that several modules share, and layers that compute something
    of their own (a forward of another class, hooks). Singular values are found in single
    precision or finer, whatever the dtype.

    Args:
        model: the network.
        energy: e, the share of the squared weights to keep, above 0 up to 1.

    Returns:
        A copy; a layer that is written as two is a `LowRank` under the old name, which answers
        as the layer would with the matrix of rank r for its weight.

    Raises:
        TypeError: the model is no `nn.Module`, the energy no number.
        ValueError: an energy outside (0, 1], no linear or convolutional layer, weights that are
            computed, drawn or not finite.

    Reference: Eckart, Young (1936), The approximation of one matrix by another of lower rank;
        Denton, Zaremba, Bruna, LeCun, Fergus (2014), Exploiting Linear Structure Within
        Convolutional Networks for Efficient Evaluation.
    Elsewhere: scikit-learn `TruncatedSVD`, of a matrix.

    >>> net = nn.Linear(6, 6, bias=False)
    >>> net.weight.data = torch.ones(6, 6)
    >>> low_rank(net, 0.9)
    LowRank(
      (0): Linear(in_features=6, out_features=1, bias=False)
      (1): Linear(in_features=1, out_features=6, bias=False)
    )
    """
    energy = check_number("energy", energy)
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be a share, 0 < energy <= 1, got {energy}")
    smaller, layers = copied(model)
    shared = tied(smaller)
    thin = {
        layer: two
        for layer in layers.values()
        if id(layer.weight) not in shared and (two := _two_layers(layer, energy)) is not None
    }
    for module in list(smaller.modules()):
        for name, child in module._modules.items():  # a layer may have several names
            module._modules[name] = thin.get(child, child)  # type: ignore[call-overload]
    return thin.get(smaller, smaller)  # type: ignore[call-overload]


class LowRank(nn.Sequential):
    r"""Two layers in the place of one, which can be read like the one: `weight`, `bias`, sizes.

    $$W = W_2 W_1, \qquad b = b_2$$

    Calling it runs the two, which is where work is saved. Owners that read a layer's weight in
    place of calling it, as torch's attention does, get the product, computed when it is read.

    Args:
        first: what makes r numbers of those that come in, without a bias.
        second: what makes the layer's numbers of them.
        like: the layer that they replace; its sizes and settings are taken over.
    """

    def __init__(self, first: nn.Module, second: nn.Module, like: Layer) -> None:
        super().__init__(first, second)
        known = vars(like).items()
        vars(self).update({k: v for k, v in known if k[0] != "_" and k not in vars(self)})
        self.train(like.training)

    @property
    def weight(self) -> Tensor:
        """The weight of the one layer, of rank r."""
        first, second = (cast(Tensor, one.weight) for one in self)
        return (second.flatten(1) @ first.flatten(1)).reshape(-1, *first.shape[1:])

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias of the one layer."""
        return cast("nn.Parameter | None", self[1].bias)


def _two_layers(layer: Layer, energy: float) -> LowRank | None:
    """Return two layers with fewer numbers than the one, or None where there are none."""
    weight = layer.weight.detach()
    if not is_plain(layer):
        return None
    left, sigma, right = torch.linalg.svd(_fine(weight).flatten(1), full_matrices=False)
    kept = sigma.square().cumsum(0)
    enough = (energy - 1e-6) * kept[-1]  # of 1.0, rounding leaves a little less
    rank = min(int((kept < enough).sum()) + 1, len(sigma))
    if rank * sum(weight.flatten(1).shape) >= weight.numel():
        return None
    first, second = _shapes(layer, rank)
    # clones: a slice would be saved together with all that it is a slice of
    parts = right[:rank].clone(), (left * sigma)[:, :rank].clone()
    for one, part in zip((first, second), parts, strict=True):
        numbers = part.to(weight.dtype).reshape(one.weight.shape)
        one.weight = nn.Parameter(numbers, layer.weight.requires_grad)
    second.bias = layer.bias
    return LowRank(first, second, layer)


def _shapes(layer: Layer, rank: int) -> tuple[Layer, Layer]:
    """Return the two layers without storage: their weights come from elsewhere."""
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            wide = nn.Linear(layer.in_features, rank, bias=False)
            return wide, nn.Linear(rank, layer.out_features, bias=False)
        make: Callable[..., Any] = CONVOLUTIONS[layer.weight.ndim]
        same = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        options = {name: getattr(layer, name) for name in same}
        wide = make(layer.in_channels, rank, bias=False, **options)
        return wide, make(rank, layer.out_channels, 1, bias=False)


# ---- what it saves -------------------------------------------------------------------------------


def size_on_disk(model: nn.Module, *, compressed: bool = False) -> int:
    r"""Measure how long the file is that `torch.save` writes of a model's state.

    $$\text{bytes} \approx 4 \cdot (\text{floats}) + 1 \cdot (\text{int8}) + \text{names and
      shapes}$$

    Args:
        model: the network.
        compressed: measure the file zipped (DEFLATE), which makes zeros and repetitions short.

    Returns:
        Bytes; nothing is left on the disk.

    Raises:
        TypeError: the model is no `nn.Module`.

    Reference: Han, Mao, Dally (2016), Deep Compression: Compressing Deep Neural Networks with
        Pruning, Trained Quantization and Huffman Coding.
    Elsewhere: `os.path.getsize` of the saved file.

    >>> size_on_disk(nn.Linear(1000, 1000)) // 1_000_000
    4
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return len(zlib.compress(file.getvalue(), 9) if compressed else file.getvalue())


class Latency(NamedTuple):
    """Milliseconds that one forward pass takes: the median, and the middle half of all passes."""

    median: float
    low: float
    high: float


def latency(model: Model, x: Tensor, *, n_repeats: int = 30, n_warmup: int = 3) -> Latency:
    r"""Measure how long a model takes for a batch, in evaluation mode and without gradients.

    $$\mathrm{median}_r\,(\text{end}_r - \text{begin}_r)$$

    The median, since something else always runs on the machine. To compare models, let them take
    turns: `latencies`.

    Args:
        model: maps (N, ...) to outputs; any function of tensors.
        x: (N, ...) floats; the batch size matters.
        n_repeats: passes that are timed.
        n_warmup: passes before, which are not: the first ones fill caches.

    Returns:
        A `Latency` in milliseconds a pass.

    Raises:
        TypeError, ValueError: as `check_input`; counts that are no integers or below 1.

    Reference: Georges, Buytaert, Eeckhout (2007), Statistically Rigorous Java Performance
        Evaluation (why one timing is none).
    Elsewhere: torch `utils.benchmark.Timer(...).blocked_autorange()`.

    >>> latency(nn.Linear(2, 2), torch.ones(1, 2)).median > 0
    True
    """
    return latencies({"": model}, x, n_repeats=n_repeats, n_warmup=n_warmup)[""]


def latencies(
    models: Mapping[str, Model], x: Tensor, *, n_repeats: int = 30, n_warmup: int = 3
) -> dict[str, Latency]:
    """Measure several models as `latency` does one; they take turns, pass by pass.

    Whatever slows the machine down for a while slows all of them: one after the other, the model
    that had the bad minute would be called slow.

    Args:
        models: name -> model, each as in `latency`.
        x: (N, ...) floats, the same batch for all.
        n_repeats: rounds that are timed.
        n_warmup: rounds before, which are not.

    Returns:
        Name -> `Latency` in milliseconds a pass.

    Raises:
        TypeError, ValueError: as `latency`; no models.

    Reference: Georges, Buytaert, Eeckhout (2007), as for `latency`.
    Elsewhere: torch `utils.benchmark.Compare`, which measures one after the other.

    >>> list(latencies({"small": nn.Linear(2, 2), "large": nn.Linear(2, 9)}, torch.ones(1, 2)))
    ['small', 'large']
    """
    if not models:
        raise ValueError("models is empty: give at least one")
    repeats, warmup = check_positive("n_repeats", n_repeats), check_positive("n_warmup", n_warmup)
    for model in models.values():
        check_input(model, x)
        with frozen(model), torch.no_grad():
            for _ in range(warmup):
                outputs_of(model, x)
    rounds = [[_milliseconds(model, x) for model in models.values()] for _ in range(repeats)]
    low, median, high = np.percentile(rounds, [25, 50, 75], axis=0).tolist()
    return {name: Latency(*row) for name, *row in zip(models, median, low, high, strict=True)}


def _milliseconds(model: Model, x: Tensor) -> float:
    """Time one pass; what guards the model is not timed."""
    rows = x.clone()  # a first layer that works in place must not change x
    with frozen(model), torch.no_grad():
        began = perf_counter()
        model(rows)
        return 1000 * (perf_counter() - began)
