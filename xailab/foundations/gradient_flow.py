"""How gradients travel through a deep network: measured, repaired, and taken apart by path.

Lesson `gradient_flow` teaches this file. A network's loss sends a gradient down through every
layer; each layer multiplies it. Thirty factors a little below one leave nothing, thirty a little
above one explode.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from xailab.core.checks import Target, as_integer, check_input, check_positive
from xailab.core.layers import capture, find_layer, hooked, replaced
from xailab.core.outputs import class_logits, labels_of
from xailab.core.scores import gradients_on, outputs_of
from xailab.core.state import alone, frozen, same_randomness
from xailab.models.loop import evaluate

Loss = Callable[[Tensor, Any], Tensor]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "identity": nn.Identity,
}
NORMS: dict[str | None, Callable[[int], nn.Module]] = {
    None: lambda width: nn.Identity(),
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}
_GAINS: dict[str, Any] = {
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "tanh": "tanh",
    "gelu": "relu",
}


class Block(nn.Module):
    r"""One hidden layer, $F(x) = \phi(\mathrm{norm}(Wx + b))$, or with a skip $x + F(x)$.

    Args:
        n_inputs: numbers that come in.
        n_outputs: units.
        activation: a key of `ACTIVATIONS`.
        norm: a key of `NORMS`.
        skip: add the input; needs as many outputs as inputs.

    Raises:
        ValueError: a skip between different sizes.

    Reference: He, Zhang, Ren, Sun (2016), Deep Residual Learning for Image Recognition.

    >>> block = Block(2, 2, "relu", None, skip=True)
    >>> _ = block.linear.weight.data.copy_(torch.eye(2)), block.linear.bias.data.zero_()
    >>> block(torch.tensor([[3.0, -1.0]])).tolist()
    [[6.0, -1.0]]
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, activation: str, norm: str | None, *, skip: bool
    ) -> None:
        super().__init__()
        if skip and n_inputs != n_outputs:
            raise ValueError(f"a skip needs equal sizes, got {n_inputs} in and {n_outputs} out")
        self.linear = nn.Linear(n_inputs, n_outputs)
        self.norm = NORMS[norm](n_outputs)
        self.activation = ACTIVATIONS[activation]()
        self.skip = skip

    def branch(self, x: Tensor) -> Tensor:
        """Return F(x), (N, n_outputs), without the skip."""
        return self.activation(self.norm(self.linear(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, n_outputs)."""
        return x + self.branch(x) if self.skip else self.branch(x)


def deep_mlp(
    depth: int,
    width: int,
    activation: str,
    residual: bool = False,
    norm: str | None = None,
    init: str | float = "kaiming",
    *,
    n_inputs: int = 2,
    n_outputs: int = 2,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a network of equal hidden layers: `layer1` ... `layerN`, then the linear `head`.

    Args:
        depth: number of hidden layers; the head comes on top.
        width: units in each of them.
        activation: "relu", "leaky_relu", "tanh", "sigmoid", "gelu" or "identity".
        residual: every hidden layer but the first adds its input to its output. The first has no
            skip: it changes the size from `n_inputs` to `width`.
        norm: None, "batch" or "layer"; between the linear map and the activation.
        init: "kaiming" (normal, variance gain^2 / inputs, the gain of the activation: 2 / inputs
            for ReLU), "xavier" (normal, variance 2 / (inputs + outputs)), "default" (what
            `nn.Linear` does by itself: uniform, variance 1 / (3 inputs)), or a positive number,
            the gain itself. All but "default" start with biases of 0. The head, which has no
            activation, has gain 1 under "kaiming".
        n_inputs: numbers per row of x.
        n_outputs: classes; the head gives logits (N, n_outputs).
        seed: of the weights; the global random state is left alone.

    Returns:
        A network in training mode, (N, n_inputs) -> (N, n_outputs).

    Raises:
        TypeError: a size that is not an integer, an init that is neither name nor number.
        ValueError: a size below 1, an unknown activation, norm or init.

    Reference: Glorot, Bengio (2010), Understanding the difficulty of training deep feedforward
        neural networks ("xavier"); He, Zhang, Ren, Sun (2015), Delving Deep into Rectifiers
        ("kaiming"); Ioffe, Szegedy (2015), Batch Normalization; He et al. (2016), Deep Residual
        Learning for Image Recognition.

    >>> net = deep_mlp(3, 8, "relu", residual=True)
    >>> [name for name, _ in net.named_children()], [net[i].skip for i in range(3)]
    (['layer1', 'layer2', 'layer3', 'head'], [False, True, True])
    """
    depth, width = check_positive("depth", depth), check_positive("width", width)
    n_inputs, n_outputs = (
        check_positive("n_inputs", n_inputs),
        check_positive("n_outputs", n_outputs),
    )
    _one_of("activation", activation, ACTIVATIONS)
    _one_of("norm", norm, NORMS)
    with frozen(lambda: None):  # puts the random state back
        torch.manual_seed(as_integer("seed", seed))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, depth + 1):
            before = n_inputs if i == 1 else width
            layers[f"layer{i}"] = Block(before, width, activation, norm, skip=residual and i > 1)
        layers["head"] = nn.Linear(width, n_outputs)
        net = nn.Sequential(layers)
        _initialize(net, init, activation)
    return net


def _initialize(net: nn.Module, init: str | float, activation: str) -> None:
    """Draw the weights anew, unless torch's own are wanted."""
    draw = _drawer(init, activation)
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    for linear in linears if draw else ():
        nn.init.zeros_(linear.bias)
        draw(linear.weight, linear is linears[-1])


def _drawer(init: str | float, activation: str) -> Any:
    """Return what draws (weight, whether it is the head's) in place; None for torch's own."""
    if isinstance(init, bool) or not isinstance(init, str | int | float):
        raise TypeError(f"init must be a name or a number, got {type(init).__name__}")
    if isinstance(init, str):
        own = {"kaiming", "xavier", "default"}
        _one_of("init", init, own)
        named = _GAINS.get(activation, "linear")
        draws: dict[str, Any] = {
            "kaiming": lambda weight, head: nn.init.kaiming_normal_(
                weight, nonlinearity="linear" if head else named
            ),
            "xavier": lambda weight, head: nn.init.xavier_normal_(weight),
        }
        return draws.get(init)
    if not 0 < init < float("inf"):
        raise ValueError(f"init, as a gain, must be a positive number, got {init}")
    return lambda weight, head: nn.init.normal_(weight, std=init / weight.shape[1] ** 0.5)


def _one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    if value not in list(allowed):
        choices = ", ".join(sorted(map(repr, allowed)))
        raise ValueError(f"{name} must be one of {choices}; got {value!r}")


def gradient_norms(model: nn.Module, x: Tensor, y: Any, loss_fn: Loss) -> dict[str, float]:
    r"""Measure how much gradient reaches the weights of each layer.

    $$g_l = \lVert \partial L / \partial W_l \rVert_2$$

    The model runs in the mode it is in, as a training step would run it: batch norm in training
    mode divides by the batch's own statistics. Nothing is left behind, running averages included.

    Args:
        model: any `nn.Module`.
        x: (N, ...) floats.
        y: what `loss_fn` takes as its second argument, for example (N,) class numbers.
        loss_fn: `loss_fn(model(x), y)` -> a single number. torch's cross-entropy takes one logit,
            (N, 1) or (N,), for the classes 0 and 1, and class numbers of any kind.

    Returns:
        Layer name -> norm of its weight gradient (matrices and kernels; no biases, no scales of
        norms), in the model's order. 0 if the loss does not depend on it; infinite or NaN if the
        gradient is. Of a weight that is computed before each pass (quantized, weight norm, masks)
        it is the gradient of the result, and not of what it is computed from.

    Raises:
        TypeError: the model is not a module, x is not a tensor of its dtype, the loss no tensor.
        ValueError: NaN in x, an empty batch, a shape the model refuses, a loss that is not one
            number, no weights, or one that is computed so that no gradient reaches it.

    Reference: Hochreiter (1991), Untersuchungen zu dynamischen neuronalen Netzen; Glorot, Bengio
        (2010), Understanding the difficulty of training deep feedforward neural networks.
    Elsewhere: `loss.backward()`, then `weight.grad.norm()`, which leaves the gradients behind.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> for layer, weight in zip(net, (3.0, 2.0)):
    ...     _ = layer.weight.data.fill_(weight)
    >>> gradient_norms(net, torch.ones(1, 1), None, lambda output, _: output.sum())
    {'0': 2.0, '1': 3.0}
    """
    check_input(model, x)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    computed = _computed_weights(model)
    names = _weight_names(model, computed)
    with _as_it_is(model) as (run, parameters), gradients_on(), _seen(model, computed) as seen:
        loss = _loss(loss_fn, outputs_of(run, x.detach()), y)
        weights = {name: seen[name] if name in seen else [parameters[name]] for name in names}
        grads = _gradients(loss, weights)
    for name in computed:
        if len(grads[name]) < len(seen[name]):
            raise ValueError(
                f"no gradient reaches {name!r}: it is computed anew at each access, or of integers "
                "alone, so that what was looked at is not what was used; measure before quantizing"
            )
    lengths = (torch.stack(each).sum(0).norm().item() if each else 0.0 for each in grads.values())
    return dict(zip((name.removesuffix(".weight") for name in names), lengths, strict=True))


def _gradients(loss: Tensor, weights: Mapping[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    """Return the gradients that exist, by name, in which squares of small slopes do not vanish."""
    wanted = [(name, one) for name, each in weights.items() for one in each if one.requires_grad]
    tensors = [one for _, one in wanted]
    found = torch.autograd.grad(loss, tensors, allow_unused=True) if tensors else ()
    grads: dict[str, list[Tensor]] = {name: [] for name in weights}
    for (name, _), grad in zip(wanted, found, strict=True):
        if grad is not None:
            grads[name].append(grad.to(torch.promote_types(grad.dtype, torch.float32)))
    return grads


def _computed_weights(model: nn.Module) -> dict[str, nn.Module]:
    """Name the matrices and kernels that are no parameters but made of some, with their owners.

    torch's parametrizations and `quantize` make them at each access, its older weight norm and
    masks before each pass.
    """
    found = {}
    for name, module in model.named_modules():
        for part in ("weight", *getattr(module, "parametrizations", ())):
            weight = None if part in module._parameters else getattr(module, part, None)
            if isinstance(weight, Tensor) and weight.ndim > 1 and weight.is_floating_point():
                found[f"{name}.{part}" if name else part] = module
    return found


def _weight_names(model: nn.Module, computed: Mapping[str, nn.Module]) -> list[str]:
    """Name the matrices and kernels, in the order of the parameters."""
    names: list[str] = []
    for name, p in model.named_parameters():
        plain = name.replace(".parametrizations.", ".").removeprefix("parametrizations.")
        made = [one for one in computed if plain.startswith(f"{one}.") or plain in _stored(one)]
        if made or (p.ndim > 1 and p.is_floating_point()):
            names += made or [name]
    names = list(dict.fromkeys([*names, *computed]))
    if not names:
        raise ValueError("the model has no weight matrix or kernel to measure")
    return names


def _stored(weight: str) -> set[str]:
    """Name what torch's older weight norm, spectral norm and masks compute a weight from."""
    return {f"{weight}_{part}" for part in ("g", "v", "u", "orig")}


@contextmanager
def _seen(model: nn.Module, computed: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Keep the computed weights that a pass uses; parametrized ones are made once in it."""
    seen: dict[str, list[Tensor]] = {name: [] for name in computed}

    def noter(name: str) -> Any:
        def note(module: nn.Module, _: Any) -> None:
            weight = getattr(module, name.rpartition(".")[2])
            if not any(weight is one for one in seen[name]):
                seen[name].append(weight)

        return note

    with ExitStack() as stack:
        stack.enter_context(parametrize.cached())
        for name, module in computed.items():
            stack.callback(module.register_forward_pre_hook(noter(name)).remove)
        yield seen


def _loss(loss_fn: Loss, outputs: Tensor, y: Any) -> Tensor:
    """Return the loss; torch's cross-entropy is given a column for every class and int64."""
    if loss_fn is nn.functional.cross_entropy or isinstance(loss_fn, nn.CrossEntropyLoss):
        outputs = class_logits(outputs)
        shares = isinstance(y, Tensor) and y.ndim == 2 and y.is_floating_point()
        y = y if shares else labels_of(y, *outputs.shape).to(outputs.device)
    return _single(loss_fn(outputs, y))


def _single(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss_fn must return a tensor, it returned {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"loss_fn must return one number, it returned shape {tuple(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError("the loss does not depend on the model's weights")
    return loss


@contextmanager
def _as_it_is(
    model: nn.Module,
) -> Iterator[tuple[Callable[[Tensor], Tensor], dict[str, Tensor]]]:
    """Run a model in its own mode on copies of its parameters and buffers, which are yielded.

    `frozen` would turn batch norm to its stored averages, which no training step uses.
    """
    with gradients_on():  # a copy made in inference mode could not be differentiated
        parameters = {
            name: p.detach().clone().requires_grad_(p.is_floating_point() or p.is_complex())
            for name, p in model.named_parameters()
        }
        buffers = {n: b.detach().clone() for n, b in model.named_buffers()}

    def run(x: Tensor) -> Tensor:
        return functional_call(model, {**parameters, **buffers}, (x,))

    with alone(), same_randomness():
        yield run, parameters


def activation_scales(
    model: nn.Module, x: Tensor, *, layers: Sequence[str] | None = None
) -> dict[str, float]:
    r"""Measure how large the numbers are that each layer hands on.

    $$s_l = \sqrt{\text{mean of } a_l^2} \quad \text{over rows and units}$$

    Of a layer that runs several times in one pass, all runs count alike.

    Args:
        model: runs in the mode it is in; nothing is left behind.
        x: (N, ...) floats.
        layers: dotted names; None takes the model's direct children.

    Returns:
        Layer name -> root mean square of its output, in the order of `layers`.

    Raises:
        TypeError, ValueError: as `gradient_norms`; a layer that does not exist, did not run or
            returns something else than one tensor.

    Reference: He, Zhang, Ren, Sun (2015), Delving Deep into Rectifiers, section 2.2.
    Elsewhere: a forward hook on each layer, logged as a histogram to TensorBoard.

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> activation_scales(net, torch.tensor([[3.0, -4.0, 0.0, 0.0]]))
    {'0': 2.5, '1': 1.5}
    """
    check_input(model, x)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    names = [name for name, _ in model.named_children()] if layers is None else _listed(layers)
    squares: dict[str, list[Tensor]] = {name: [] for name in names}

    def noter(name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(f"layer {name!r} returns {type(output).__name__}, not one tensor")
            squares[name].append(output.detach().double().square().mean())

        return note

    hooks = {name: noter(name) for name in names}
    with _as_it_is(model) as (run, _), torch.no_grad(), hooked(model, hooks):
        outputs_of(run, x.detach())
    return {name: torch.stack(found).mean().sqrt().item() for name, found in squares.items()}


def _listed(layers: str | Sequence[str]) -> list[str]:
    """Return names as a list; one name is one layer, not its letters."""
    if isinstance(layers, str):
        return [layers]
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers must be a name or several, got {type(layers).__name__}")
    return list(layers)


def clip_by_norm(grads: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    r"""Shorten all gradients by one factor, so that their common length is at most `max_norm`.

    $$g_i \leftarrow g_i \cdot \min\Big(1, \frac{c}{\lVert g \rVert + 10^{-6}}\Big), \qquad
      \lVert g \rVert = \sqrt{\textstyle\sum_i \lVert g_i \rVert^2}$$

    The direction of the step stays, and so do the proportions between the layers.

    Args:
        grads: tensors of any shapes, together one gradient.
        max_norm: $c$, positive; infinity clips nothing.

    Returns:
        New tensors in the shapes of `grads`.

    Raises:
        TypeError: not a list of tensors.
        ValueError: no gradient, NaN or infinite ones (no factor can repair them), or
            max_norm <= 0.

    Reference: Pascanu, Mikolov, Bengio (2013), On the difficulty of training recurrent neural
        networks.
    Elsewhere: `torch.nn.utils.clip_grad_norm_`, which changes `.grad` in place.

    >>> clip_by_norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])], 1.0)
    [tensor([0.6000]), tensor([[0.0000, 0.8000]])]
    """
    if not isinstance(grads, list | tuple) or not all(isinstance(g, Tensor) for g in grads):
        raise TypeError("grads must be a list of tensors, one per parameter")
    if not grads:
        raise ValueError("there is no gradient to clip: the list is empty")
    if not isinstance(max_norm, int | float) or not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    wide = [grad.detach().to(torch.promote_types(grad.dtype, torch.float32)) for grad in grads]
    length = torch.stack([grad.norm() for grad in wide]).norm()  # in half, squares overflow
    if not length.isfinite():
        raise ValueError(f"the gradient's norm is {length.item()}: clipping cannot repair that")
    factor = (max_norm / (length + 1e-6)).clamp(max=1.0)
    return [grad.detach() * factor for grad in grads]


@contextmanager
def bypass(model: nn.Module, layers: str | Sequence[str]) -> Iterator[set[str]]:
    """Let the input of some layers pass as their output, inside the `with` block.

    Of a residual block $x + F(x)$ only the skip is left. Of a plain layer nothing is left. What
    passes is the input as it was, also where the layer works in place.

    Args:
        model: the network; it is as before when the block ends, also by an error. Compiled by
            torch, it runs uncompiled inside the block.
        layers: dotted names of layers whose output has the shape of their input.

    Yields:
        The names of the layers that were bypassed so far; empty before the first forward pass.

    Raises:
        TypeError: names that are none.
        ValueError: no such layer; in the forward pass one that changes the shape, or takes or
            gives something else than one tensor; on leaving, one that did not run although the
            model did.

    Reference: Veit, Wilber, Belongie (2016), Residual Networks Behave Like Ensembles of
        Relatively Shallow Networks.

    >>> net = nn.Sequential(nn.ReLU(), nn.Flatten())
    >>> with bypass(net, "0"):
    ...     net(torch.tensor([[-1.0]]))
    tensor([[-1.]])
    """
    names: dict[nn.Module, list[str]] = {}  # a shared layer may have been named twice
    for name in _listed(layers):
        names.setdefault(find_layer(model, name), []).append(name)
    passed: set[str] = set()
    forwards = {module: _passer(module, own, passed) for module, own in names.items()}

    def proves(name: str) -> Any:
        def prove(*_: Any) -> None:
            if name not in passed:
                raise RuntimeError(f"layer {name!r} does not use its forward: it was not bypassed")

        return prove

    with replaced(forwards), hooked(model, {n: proves(n) for own in names.values() for n in own}):
        yield passed


def _passer(module: nn.Module, names: Sequence[str], passed: set[str]) -> Any:
    """Return a forward that hands on its input, once the layer has shown that it may.

    The layer works on a copy, since it may change what it is given; so may the next one.
    """
    forward = module.forward

    def hand_on(*inputs: Any, **named: Any) -> Tensor:
        given = [*inputs, *named.values()]
        tensors = [one for one in given if isinstance(one, Tensor)]
        if len(tensors) != 1 or any(isinstance(one, list | tuple | dict) and one for one in given):
            raise ValueError(f"layer {names[0]!r} takes several inputs: which one should pass?")
        kept = tensors[0].clone()
        output = forward(*inputs, **named)
        came, went = tuple(kept.shape), _shape(output)
        if came != went:
            raise ValueError(f"layer {names[0]!r} turns {came} into {went}: it cannot be bypassed")
        passed.update(names)
        return kept

    return hand_on


def _shape(output: Any) -> Any:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def block_ablation(
    model: nn.Module, x: Tensor, y: Target, *, layers: Sequence[str] | None = None
) -> dict[str, float]:
    r"""Measure the accuracy that is left when one layer is bypassed, for each layer in turn.

    $$\text{accuracy}_l = P\big( \arg\max f(x \mid a_l = a_{l-1}) = y \big)$$

    Args:
        model: a classifier, (N, K) or one logit for the classes 0 and 1; it runs in evaluation
            mode.
        x: (N, ...) floats, best rows that it was not trained on.
        y: (N,) true classes, in a tensor, an array or a list.
        layers: dotted names; None takes every `Block` whose output has the size of its input.

    Returns:
        Layer name -> share of rows still classified right, 0..1.

    Raises:
        TypeError, ValueError: bad x or y, no layer to bypass, one that does not exist, does not
            run or changes the shape.

    Reference: Veit, Wilber, Belongie (2016), section 4.1: deleting individual layers.
    Elsewhere: a forward hook that returns its input; no package that we know of.

    >>> net = deep_mlp(3, 4, "relu")
    >>> list(block_ablation(net, torch.zeros(5, 2), [0, 1, 0, 1, 0]))
    ['layer2', 'layer3']
    """
    names = _square_blocks(model) if layers is None else _listed(layers)
    if not names:
        raise ValueError("the model has no Block that keeps the size; name the layers")
    return {name: accuracy_without(model, x, y, [name]) for name in names}


def _square_blocks(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, Block) and module.linear.in_features == module.linear.out_features
    ]


def accuracy_without(
    model: nn.Module, x: Tensor, y: Any, layers: str | Sequence[str] = ()
) -> float:
    """Return the share of rows classified right while `layers` are bypassed.

    Args and errors: as `block_ablation`; no layers, or an empty list: the whole model.
    """
    check_input(model, x)
    with bypass(model, layers):
        return evaluate(model, (x, y)).accuracy


def gradient_by_path_length(model: nn.Sequential, x: Tensor, y: Any, loss_fn: Loss) -> Tensor:
    r"""Take the gradient that reaches the first skip apart by how many branches it went through.

    Backward, a residual block sends the gradient down two ways, $1 + J_i$: the skip and the
    branch. The product over K blocks, multiplied out, is a sum over $2^K$ paths:

    $$\prod_i (1 + J_i) = \sum_{k=0}^{K} \Big(\text{all products of } k \text{ of the } J_i\Big)$$

    The sums for each k are computed exactly, block by block, since a path of k branches above a
    block continues as one of k (skip) or of k + 1 (branch).

    Args:
        model: a `deep_mlp` with `residual=True`; it runs in evaluation mode.
        x: (N, n_inputs) floats.
        y: what `loss_fn` takes as its second argument.
        loss_fn: `loss_fn(model(x), y)` -> a single number.

    Returns:
        (K + 1, N, width): the part of dL/d(output of layer1) that went through exactly k
        branches. Summed over k it is the whole gradient.

    Raises:
        TypeError, ValueError: as `gradient_norms`; a model without residual blocks.

    Reference: Veit, Wilber, Belongie (2016), sections 3 and 4.3; they sample paths, this counts
        them all.

    >>> net = deep_mlp(3, 4, "tanh", residual=True)
    >>> loss = nn.functional.cross_entropy
    >>> gradient_by_path_length(net, torch.ones(5, 2), torch.zeros(5).long(), loss).shape
    torch.Size([3, 5, 4])
    """
    blocks = _residual_blocks(model)
    check_input(model, x)
    with frozen(model), gradients_on():
        with capture(model, ["layer1", *blocks]) as kept:
            loss = _loss(loss_fn, outputs_of(model, x.detach().clone().requires_grad_()), y)
        ends = [kept[list(blocks)[-1]], kept["layer1"]]
        signal, whole = torch.autograd.grad(loss, ends)
        states = [kept[name].detach() for name in ("layer1", *blocks)][:-1]  # what blocks take in
        parts = signal[None]  # (1, N, width): no branch yet
        for block, state in zip(reversed(blocks.values()), reversed(states), strict=True):
            nothing = torch.zeros_like(signal)[None]
            through = _through_branch(block, state, parts)
            parts = torch.cat([parts, nothing]) + torch.cat([nothing, through])
    _check_whole(parts.detach(), whole)
    return parts.detach()


def _check_whole(parts: Tensor, whole: Tensor) -> None:
    """Refuse parts that are not all of the gradient: something else lies between the blocks."""
    gap = (parts.double().sum(0) - whole).abs().max().item()
    largest = max(parts.abs().max().item(), whole.abs().max().item())
    if gap > 100 * torch.finfo(whole.dtype).eps * largest:
        raise ValueError(
            f"the parts miss the gradient by {gap:.2g} of {largest:.2g}: the model must be a "
            "deep_mlp(..., residual=True), with nothing else between its blocks"
        )


def _residual_blocks(model: Any) -> dict[str, Block]:
    children = model.named_children() if isinstance(model, nn.Sequential) else ()
    blocks = {name: one for name, one in children if isinstance(one, Block) and one.skip}
    if not blocks:
        raise ValueError("the model must be a deep_mlp(..., residual=True) of two layers or more")
    return blocks


def _through_branch(block: Block, state: Tensor, signals: Tensor) -> Tensor:
    """Send k gradients (k, N, width) down the branch of a block, without its skip.

    In evaluation mode rows do not touch each other, so k copies of the rows carry k gradients.
    """
    rows = state.repeat(len(signals), 1).requires_grad_()
    (down,) = torch.autograd.grad(block.branch(rows), rows, signals.flatten(0, 1))
    return down.reshape(signals.shape)
