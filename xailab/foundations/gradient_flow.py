"""How gradients travel through a deep network: measured, repaired, and taken apart by path.

Lesson 02 teaches this file. A network's loss sends a gradient down through every layer; each layer
multiplies it. Thirty factors a little below one leave nothing, thirty a little above one explode.
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xailab.core.checks import Target, check_input, check_positive
from xailab.core.layers import capture, find_layer
from xailab.core.scores import graph, outputs_of
from xailab.core.state import frozen

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
    for name, size in (("depth", depth), ("width", width), ("n_inputs", n_inputs)):
        check_positive(name, size)
    check_positive("n_outputs", n_outputs)
    _one_of("activation", activation, ACTIVATIONS)
    _one_of("norm", norm, NORMS)
    with frozen(lambda: None):  # puts the random state back
        torch.manual_seed(seed)
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
    if value not in allowed:
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
        loss_fn: `loss_fn(model(x), y)` -> a single number.

    Returns:
        Layer name -> norm of its weight gradient (matrices and kernels; no biases, no scales of
        norms), in the model's order. 0 if the loss does not depend on it; infinite or NaN if the
        gradient is.

    Raises:
        TypeError: the model is not a module, x is not a tensor of its dtype, the loss no tensor.
        ValueError: NaN in x, an empty batch, a shape the model refuses, a loss that is not one
            number, or no weights.

    Reference: Hochreiter (1991), Untersuchungen zu dynamischen neuronalen Netzen; Glorot, Bengio
        (2010), Understanding the difficulty of training deep feedforward neural networks.
    Elsewhere: `loss.backward()`, then `weight.grad.norm()`, which leaves the gradients behind.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> for layer, weight in zip(net, (3.0, 2.0)):
    ...     _ = layer.weight.data.fill_(weight)
    >>> gradient_norms(net, torch.ones(1, 1), None, lambda output, _: output.sum())
    {'0': 2.0, '1': 3.0}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    check_input(model, x)
    names = _weight_names(model)
    with _as_it_is(model) as (run, parameters), graph():
        loss = _single(loss_fn(outputs_of(run, x.detach()), y))
        weights = [parameters[name] for name in names]
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
    norms = (0.0 if grad is None else grad.norm().item() for grad in grads)
    return dict(zip((name.removesuffix(".weight") for name in names), norms, strict=True))


def _weight_names(model: nn.Module) -> list[str]:
    """Name the matrices and kernels among the parameters."""
    names = [name for name, p in model.named_parameters() if p.ndim > 1 and p.is_floating_point()]
    if not names:
        raise ValueError("the model has no weight matrix or kernel to measure")
    return names


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
    with graph():  # a copy made in inference mode could not be differentiated
        parameters = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
        buffers = {n: b.detach().clone() for n, b in model.named_buffers()}

    def run(x: Tensor) -> Tensor:
        return functional_call(model, {**parameters, **buffers}, (x,))

    with frozen(run):  # a plain function: only the random state is guarded
        yield run, parameters


def activation_scales(
    model: nn.Module, x: Tensor, *, layers: Sequence[str] | None = None
) -> dict[str, float]:
    r"""Measure how large the numbers are that each layer hands on.

    $$s_l = \sqrt{\text{mean of } a_l^2} \quad \text{over rows and units}$$

    Args:
        model: runs in the mode it is in; nothing is left behind.
        x: (N, ...) floats.
        layers: dotted names; None takes the model's direct children.

    Returns:
        Layer name -> root mean square of its output, in the order of `layers`.

    Raises:
        TypeError, ValueError: as `gradient_norms`; a layer that does not exist or did not run.

    Reference: He, Zhang, Ren, Sun (2015), Delving Deep into Rectifiers, section 2.2.
    Elsewhere: a forward hook on each layer, logged as a histogram to TensorBoard.

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> activation_scales(net, torch.tensor([[3.0, -4.0, 0.0, 0.0]]))
    {'0': 2.5, '1': 1.5}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    check_input(model, x)
    names = [name for name, _ in model.named_children()] if layers is None else list(layers)
    with capture(model, names) as kept, _as_it_is(model) as (run, _), torch.no_grad():
        outputs_of(run, x.detach())
    _expect_all_ran(names, kept)
    return {name: kept[name].square().mean().sqrt().item() for name in names}


def _expect_all_ran(names: Iterable[str], ran: Container[str]) -> None:
    for name in names:
        if name not in ran:
            raise ValueError(f"layer {name!r} did not run in this forward pass")


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
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    length = torch.stack([grad.detach().norm() for grad in grads]).norm()
    if not length.isfinite():
        raise ValueError(f"the gradient's norm is {length.item()}: clipping cannot repair that")
    factor = (max_norm / (length + 1e-6)).clamp(max=1.0)
    return [grad.detach() * factor for grad in grads]


@contextmanager
def bypass(model: nn.Module, layers: str | Sequence[str]) -> Iterator[set[str]]:
    """Let the input of some layers pass as their output, inside the `with` block.

    Of a residual block $x + F(x)$ only the skip is left. Of a plain layer nothing is left.

    Args:
        model: the network; its hooks are as before when the block ends, also by an error.
        layers: dotted names of layers whose output has the shape of their input.

    Yields:
        The names of the layers that were bypassed so far; empty before the first forward pass.

    Raises:
        ValueError: no such layer, or one that changes the shape (in the forward pass).

    Reference: Veit, Wilber, Belongie (2016), Residual Networks Behave Like Ensembles of
        Relatively Shallow Networks.

    >>> net = nn.Sequential(nn.ReLU(), nn.Flatten())
    >>> with bypass(net, "0"):
    ...     net(torch.tensor([[-1.0]]))
    tensor([[-1.]])
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    modules = {name: find_layer(model, name) for name in names}
    passed: set[str] = set()

    def passer(name: str) -> Any:
        def hand_on(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            if inputs[0].shape != output.shape:
                came, went = tuple(inputs[0].shape), tuple(output.shape)
                raise ValueError(f"layer {name!r} turns {came} into {went}: it cannot be bypassed")
            passed.add(name)
            return inputs[0]

        return hand_on

    handles = []
    try:
        for name, module in modules.items():
            handles.append(module.register_forward_hook(passer(name)))
        yield passed
    finally:
        for handle in handles:
            handle.remove()


def block_ablation(
    model: nn.Module, x: Tensor, y: Target, *, layers: Sequence[str] | None = None
) -> dict[str, float]:
    r"""Measure the accuracy that is left when one layer is bypassed, for each layer in turn.

    $$\text{accuracy}_l = P\big( \arg\max f(x \mid a_l = a_{l-1}) = y \big)$$

    Args:
        model: a classifier; it runs in evaluation mode.
        x: (N, ...) floats, best rows that it was not trained on.
        y: (N,) true classes.
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
    names = _square_blocks(model) if layers is None else list(layers)
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
    truth = torch.as_tensor(y, device=x.device)
    if truth.shape != x.shape[:1]:
        raise ValueError(f"y must have shape ({len(x)},), got {tuple(truth.shape)}")
    names = [layers] if isinstance(layers, str) else list(layers)
    with frozen(model), torch.no_grad(), bypass(model, names) as passed:
        right = outputs_of(model, x).argmax(1) == truth
    _expect_all_ran(names, passed)
    return right.float().mean().item()


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
    with frozen(model), graph():
        with capture(model, ["layer1", *blocks]) as kept:
            loss = _single(loss_fn(outputs_of(model, x.detach().clone().requires_grad_()), y))
        (signal,) = torch.autograd.grad(loss, kept[list(blocks)[-1]])
        states = [kept[name].detach() for name in ("layer1", *blocks)][:-1]  # what blocks take in
        parts = signal[None]  # (1, N, width): no branch yet
        for block, state in zip(reversed(blocks.values()), reversed(states), strict=True):
            nothing = torch.zeros_like(signal)[None]
            through = _through_branch(block, state, parts)
            parts = torch.cat([parts, nothing]) + torch.cat([nothing, through])
    return parts.detach()


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
