"""Inputs that are made to mislead a model.

Lesson `adversarial` teaches this file. Everywhere an attack moves an input by at most epsilon, in
the input's own units, and `target` is the class that it starts from: the untargeted attack lowers
that class's chances, the targeted one raises another's. What all attacks check and keep to is in
`limits.py`, the attack on a model and its detector in `adaptive.py`, the detectors in
`detectors.py`, training that withstands attacks in `adversarial_training.py`; all their names can
be had from here.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xailab.core.checks import Model, Target, as_integer, check_positive, check_target
from xailab.core.outputs import class_logits, labels_of
from xailab.core.scores import gradients_of, outputs_of, select
from xailab.trust.detectors import (
    Detector,
    Disagreement,
    FeatureSqueezing,
    Isolation,
    Mahalanobis,
    detection_table,
)
from xailab.trust.limits import (
    Clip,
    Limits,
    as_column,
    attack_by_chunks,
    check_limits,
    check_radius,
    warn_of_flat_rows,
)
from xailab.trust.probabilities import check_outputs, class_answers

if TYPE_CHECKING:
    from xailab.trust.adaptive import adaptive_attack
    from xailab.trust.adversarial_training import RobustHistory, accuracy_curve, adversarial_fit

__all__ = [
    "Detector",
    "Disagreement",
    "FeatureSqueezing",
    "Isolation",
    "Mahalanobis",
    "RobustHistory",
    "accuracy_curve",
    "adaptive_attack",
    "adversarial_fit",
    "check_radius",
    "cross_entropy",
    "detection_table",
    "fgsm",
    "pgd",
    "square_attack",
]

_BUILT_ON_THIS = {  # they import this file, so it can only look for them when they are asked for
    "adaptive_attack": "adaptive",
    "RobustHistory": "adversarial_training",
    "accuracy_curve": "adversarial_training",
    "adversarial_fit": "adversarial_training",
}


def __getattr__(name: str) -> Any:
    if name not in _BUILT_ON_THIS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"xailab.trust.{_BUILT_ON_THIS[name]}"), name)


Loss = Callable[[Tensor, Tensor], Tensor]
Norm = Literal["linf", "l2"]


# ---- the loss ------------------------------------------------------------------------------------


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return $-\log \operatorname{softmax}(z)_y$ of every row, in double precision.

    In single precision a model that is sure has $p_y = 1$, and $p_y - 1$, the pull on its own
    class, is gone; the gradient that is left points somewhere else.

    Args:
        outputs: (N, K) logits, or one logit, (N, 1) or (N,), of a binary network.
        y: (N,) classes, in any container; 0 and 1 of one logit.

    Returns:
        (N,) float64, in nats.

    Raises:
        TypeError: y that holds no numbers.
        ValueError: y that is not one class number a row, or a class that is none of the outputs.

    Elsewhere: `torch.nn.functional.cross_entropy(reduction="none")`.

    >>> cross_entropy(torch.tensor([[0.0, 40.0]]), torch.tensor([1]))  # single precision: 0
    tensor([4.2484e-18], dtype=torch.float64)
    """
    return F.softplus(others_lead(outputs, y))


def others_lead(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return $\log \sum_{k \ne y} e^{z_k} - z_y$ of every row, in double precision.

    The cross-entropy is its softplus, so the two rise in the same direction. But the slope of the
    softplus is $1 - p_y$, which no number holds where a model is sure; this one's never vanishes.

    >>> others_lead(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([2]))  # log 2 - 1
    tensor([-0.3069], dtype=torch.float64)
    """
    z = class_logits(outputs).double()
    classes = labels_of(y, *z.shape).to(z.device)
    apart = z - z.gather(1, classes[:, None])
    return apart.masked_fill(F.one_hot(classes, z.shape[1]).bool(), -torch.inf).logsumexp(1)


# ---- attacks -------------------------------------------------------------------------------------


def fgsm(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    targeted: bool = False,
    loss_fn: Loss = cross_entropy,
    clip: Clip = (0, 1),
    mask: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Move every number by epsilon in the direction that raises the loss: one step, one gradient.

    $$x' = \operatorname{clip}\big(x + \epsilon \operatorname{sign} \nabla_x L(f(x), t)\big)$$

    The targeted attack subtracts. sign(0) is 0: where the loss does not depend on a number, it
    stays. The same holds where the gradient is no larger than the rounding error of its terms, as
    for a pixel that has the same weight for every class: its sign would be a coin's.

    Args:
        model: maps (N, ...) to logits (N, K), or to one logit, (N, 1) or (N,), of a binary network,
            with gradients.
        x: (N, ...) floats inside `clip`.
        target: the true class(es); with `targeted`, the class to reach. Of one logit z the classes
            are 0 (below 0) and 1. None for a single-output model, whose score is lowered (with
            `targeted`: raised).
        epsilon: how far each number may move, in units of x.
        targeted: go towards `target` in place of away from it.
        loss_fn: loss_fn(logits, classes), a number or one a row, of logits (N, K) in float32 or
            finer; one logit z comes as the columns (0, z). Not asked where target is None.
        clip: lowest and highest value that x may have, numbers or tensors that broadcast to x,
            such as (C, 1, 1); None: any.
        mask: True (or 1) where numbers may move; broadcasts to x. None: everywhere.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Warns:
        UserWarning: rows whose gradient is 0, or numbers for which epsilon is lost in the rounding
            of half precision: that they do not move is no robustness.

    Raises:
        TypeError: as `saliency`; epsilon that is no number; a mask that is no tensor.
        ValueError: as `saliency`; a negative epsilon, a clip that is no pair (low, high), x
            outside `clip`, or a mask that does not broadcast or holds something else than 0 and 1;
            no gradient reaches x; NaN in the model's answers or in a gradient.

    Reference: Goodfellow, Shlens, Szegedy (2015), Explaining and Harnessing Adversarial Examples.
    Elsewhere: foolbox `LinfFastGradientAttack`, which gives rounding errors a full step.

    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> model.weight.data = torch.tensor([[1.0, -1.0, 5.0], [0.0, 0.0, 5.0]])
    >>> fgsm(model, torch.full((1, 3), 0.5), 0, epsilon=0.25)
    tensor([[0.2500, 0.7500, 0.5000]])
    """
    epsilon = check_radius("epsilon", epsilon)
    room = check_limits(model, x, epsilon=epsilon, clip=clip, mask=mask)
    way = -1 if targeted else 1

    def attack(here: Limits, t: Tensor | None) -> Tensor:
        uphill = way * here.free * loss_gradient(model, here.x, t, loss_fn, here.dtype)
        return here.clip(here.x + epsilon * here.note(uphill).sign())

    moved = attack_by_chunks(attack, model, room, target, batch_size)
    if epsilon > 0:
        warn_of_flat_rows(room)
    return moved


def pgd(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    step_size: float,
    n_steps: int,
    norm: Norm = "linf",
    random_start: bool = False,
    targeted: bool = False,
    loss_fn: Loss = cross_entropy,
    clip: Clip = (0, 1),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Climb the loss in small steps, and after each go back into the ball around x.

    $$x_{k+1} = \operatorname{clip}\Big(x + \Pi_{\|\delta\| \le \epsilon}
      \big(x_k + \eta\, s(\nabla_x L(f(x_k), t)) - x\big)\Big)$$

    In "linf" the steepest direction $s(g)$ is sign g, and the projection $\Pi$ clamps each number
    to $\pm\epsilon$. In "l2" $s(g) = g / \|g\|_2$ and $\Pi$ shortens a row's change to length
    epsilon. A gradient of 0, or of rounding errors alone, moves nothing, as in `fgsm`.

    Args:
        model: maps (N, ...) to logits (N, K), or to one logit, (N, 1) or (N,), of a binary network,
            with gradients.
        x: (N, ...) floats inside `clip`.
        target: the true class(es); with `targeted`, the class to reach; None as in `fgsm`.
        epsilon: radius of the ball: of each number (linf) or of the whole row (l2), in units of x.
        step_size: $\eta$, in the same units.
        n_steps: how many steps, and gradients.
        norm: "linf" or "l2".
        random_start: begin at a random point of the ball, not at x. It depends on the seed and on
            the row's own numbers: a row alone begins where it does in a batch, and rows that are
            equal begin together.
        targeted: go towards `target` in place of away from it.
        loss_fn: as in `fgsm`.
        clip: lowest and highest value that x may have, numbers or tensors that broadcast to x,
            such as (C, 1, 1); None: any.
        mask: True (or 1) where numbers may move; broadcasts to x. None: everywhere.
        seed: of the random start.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Warns:
        UserWarning: as `fgsm`.

    Raises:
        TypeError: as `fgsm`; `n_steps` or `seed` no integer.
        ValueError: as `fgsm`; a negative step, `n_steps` below 1, or another norm.

    Reference: Madry, Makelov, Schmidt, Tsipras, Vladu (2018), Towards Deep Learning Models
        Resistant to Adversarial Attacks. Without random start: Kurakin, Goodfellow, Bengio (2017),
        Adversarial examples in the physical world.
    Elsewhere: foolbox `LinfProjectedGradientDescentAttack`, `L2ProjectedGradientDescentAttack`.

    >>> total = lambda x: x.sum(1)
    >>> pgd(total, torch.ones(1, 4), None, epsilon=0.5, step_size=1, n_steps=3, norm="l2")
    tensor([[0.7500, 0.7500, 0.7500, 0.7500]])
    """
    epsilon = check_radius("epsilon", epsilon)
    room = check_limits(model, x, epsilon=epsilon, clip=clip, mask=mask)
    ball, n = _ball(norm), check_positive("n_steps", n_steps)
    step = check_radius("step_size", step_size) * (-1 if targeted else 1)

    def attack(here: Limits, t: Tensor | None) -> Tensor:
        moved = here.clip(here.x + ball.draw(here, epsilon, seed)) if random_start else here.x
        for _ in range(n):
            uphill = here.free * loss_gradient(model, moved, t, loss_fn, here.dtype)
            change = moved + step * ball.steepest(here.note(uphill)) - here.x
            moved = here.clip(here.x + ball.project(change, epsilon))
        return moved

    moved = attack_by_chunks(attack, model, room, target, batch_size)
    if epsilon > 0 and step != 0:
        warn_of_flat_rows(room)
    return moved


def square_attack(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    n_queries: int = 500,
    p_start: float = 0.8,
    targeted: bool = False,
    clip: Clip = (0, 1),
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Fool a model by trial and error: repaint a random square, keep it if the margin shrinks.

    $$m(x) = f_t(x) - \max_{k \ne t} f_k(x), \qquad
      x' \leftarrow \operatorname{clip}(x \pm \epsilon) \text{ on a square}
      \;\text{ if } m \text{ falls}$$

    No gradient is asked for, so nothing is gained by hiding it. The first guess is vertical
    stripes; the squares begin with a share $p$ of the picture and shrink. A row is fooled when
    its margin is below 0, and left alone from then on.

    Args:
        model: maps (N, C, H, W) to logits (N, K), or to one logit, (N, 1) or (N,), of a binary
            network; any function of tensors.
        x: (N, C, H, W) floats inside `clip`.
        target: the true class(es); with `targeted`, the class to reach; None as in `fgsm`.
        epsilon: how far each number may move, in units of x.
        n_queries: how often the model is asked about each changed row, until it is fooled.
        p_start: share of the picture that the first squares cover, in (0, 1].
        targeted: go towards `target`: the margin is $\max_{k \ne t} f_k - f_t$.
        clip: lowest and highest value that x may have, numbers or tensors that broadcast to x,
            such as (C, 1, 1); None: any.
        seed: of the squares and their signs; every row sees the same.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Raises:
        TypeError: as `fgsm`; `n_queries` or `seed` no integer.
        ValueError: as `fgsm`, but for gradients; x without (C, H, W), `n_queries` below 1,
            `p_start` outside (0, 1].

    Reference: Andriushchenko, Croce, Flammarion, Hein (2020), Square Attack: a query-efficient
        black-box adversarial attack via random search.
    Elsewhere: ART `SquareAttack`; foolbox has none.

    >>> total = lambda x: x.sum((1, 2, 3))
    >>> square_attack(total, torch.ones(1, 1, 2, 2), None, epsilon=0.5, n_queries=30).flatten()
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    epsilon = check_radius("epsilon", epsilon)
    room = check_limits(model, x, epsilon=epsilon, clip=clip)
    if x.ndim != 4:
        raise ValueError(f"x must be pictures (N, C, H, W), got {tuple(x.shape)}")
    if not 0 < p_start <= 1:
        raise ValueError(f"p_start must lie in (0, 1], got {p_start}")
    squares = _squares(check_positive("n_queries", n_queries), x.shape[1:], p_start, seed)
    changes = [(place, epsilon * signs.to(room.x)) for place, signs in squares]

    def attack(here: Limits, t: Tensor | None) -> Tensor:
        with torch.no_grad():  # a function's weights would keep the graph of every query
            return _search(model, here, t, changes, -1 if targeted else 1)

    return attack_by_chunks(attack, model, room, target, batch_size)


# ---- the gradient --------------------------------------------------------------------------------


def loss_gradient(
    model: Model, x: Tensor, t: Tensor | None, loss_fn: Loss, dtype: torch.dtype
) -> Tensor:
    """Return the gradient of the loss, with 0 for numbers that are nothing but rounding errors.

    The gradient is a sum over outputs, of the loss's pull on each times the output's slope. Terms
    that cancel leave an error in proportion to their own size, which a second pass backwards
    with all pulls positive shows. A row's length is the loss's only for another loss than
    `cross_entropy`, of which the direction is taken where its length would be lost.

    Args:
        model: held still already, with gradients on.
        x: (N, ...) rows.
        t: (N,) classes, or None: the score of a single output is lowered.
        loss_fn: as in `fgsm`.
        dtype: in which the model is asked.

    Raises:
        ValueError: no gradient reaches x; NaN or infinity in it.
    """
    leaf = x.detach().to(dtype, copy=True).requires_grad_()
    logits = _logits(model, leaf, t)
    pull = _pull(logits, t, loss_fn)
    terms = torch.zeros_like(leaf)
    if logits.requires_grad:
        found = torch.autograd.grad(logits, leaf, pull.abs(), retain_graph=True, allow_unused=True)
        terms = terms if found[0] is None else found[0].abs()
    uphill = gradients_of(pull * logits, leaf)
    bad = int((~torch.isfinite(uphill)).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"the gradient is NaN or infinite in {bad} of {len(x)} rows")
    largest = as_column(uphill.abs().flatten(1).amax(1), x)
    return torch.where(uphill.abs() > _noise(dtype) * terms.maximum(largest), uphill, 0).to(x.dtype)


def _logits(model: Model, x: Tensor, t: Tensor | None) -> Tensor:
    """Return logits (N, K) in float32 or finer, of which t are classes; without t the scores."""
    if t is None:
        outputs = check_outputs(select(outputs_of(model, x), None))
    else:
        outputs = class_answers(model, x)
        check_target(t, outputs)
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def _pull(logits: Tensor, t: Tensor | None, loss_fn: Loss) -> Tensor:
    """Return the derivative of the loss by the logits."""
    if t is None:
        return -torch.ones_like(logits)
    leaf = logits.detach().requires_grad_()
    loss = (others_lead if loss_fn is cross_entropy else loss_fn)(leaf, t)
    return gradients_of(loss, leaf, name="the logits from the loss")


def _noise(dtype: torch.dtype) -> float:
    """Return the relative error that a sum of a few hundred terms may have.

    In half precision torch adds up in single precision: the rounding of each layer is left.
    """
    eps = torch.finfo(dtype).eps
    return eps if dtype in (torch.float16, torch.bfloat16) else 16 * eps


# ---- the ball ------------------------------------------------------------------------------------


class _Ball(NamedTuple):
    """A ball's geometry: a uniform draw, the steepest direction, and the way back inside."""

    draw: Callable[[Limits, float, int], Tensor]
    steepest: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, float], Tensor]


def _generators(x: Tensor, seed: int) -> Iterator[torch.Generator]:
    """Yield a source of random numbers for each row that depends on the seed and that row alone."""
    key = str(as_integer("seed", seed)).encode()
    for row in x.double().cpu():
        told = hashlib.blake2b((row + 0.0).numpy().tobytes(), key=key, digest_size=4).digest()
        yield torch.Generator().manual_seed(int.from_bytes(told))


def _draw_linf(here: Limits, epsilon: float, seed: int) -> Tensor:
    shape = here.x.shape[1:]
    drawn = [torch.rand(shape, generator=g, dtype=torch.float64) for g in _generators(here.x, seed)]
    return epsilon * here.free * (2 * torch.stack(drawn) - 1).to(here.x)


def _draw_l2(here: Limits, epsilon: float, seed: int) -> Tensor:
    """A direction that is uniform, and a length whose n-th power is, n the free numbers."""
    shape, normal, share = here.x.shape[1:], [], []
    for generator in _generators(here.x, seed):
        normal.append(torch.randn(shape, generator=generator, dtype=torch.float64))
        share.append(torch.rand((), generator=generator, dtype=torch.float64))
    length = torch.stack(share).to(here.x) ** (1 / here.free.flatten(1).sum(1).clamp(min=1))
    direction = _steepest_l2(here.free * torch.stack(normal).to(here.x))
    return epsilon * as_column(length, here.x) * direction


def _length(change: Tensor) -> Tensor:
    return as_column(change.flatten(1).norm(dim=1), change)


def _steepest_l2(uphill: Tensor) -> Tensor:
    largest = as_column(uphill.abs().flatten(1).amax(1), uphill)  # its square may not be a number
    scaled = torch.where(largest > 0, uphill / largest, 0.0)
    return torch.where(largest > 0, scaled / _length(scaled), 0.0)


def _project_l2(change: Tensor, epsilon: float) -> Tensor:
    length = _length(change)
    return torch.where(length > epsilon, change * (epsilon / length), change)


_BALLS = {
    "linf": _Ball(_draw_linf, torch.sign, lambda change, epsilon: change.clamp(-epsilon, epsilon)),
    "l2": _Ball(_draw_l2, _steepest_l2, _project_l2),
}


def _ball(norm: str) -> _Ball:
    if norm not in _BALLS:
        raise ValueError(f"norm must be one of {', '.join(_BALLS)}, got {norm!r}")
    return _BALLS[norm]


# ---- squares -------------------------------------------------------------------------------------


def _squares(
    n: int, shape: torch.Size, p_start: float, seed: int
) -> list[tuple[tuple[slice, ...], Tensor]]:
    """Return where each query paints, and the signs: stripes first, then ever smaller squares."""
    generator = torch.Generator().manual_seed(as_integer("seed", seed))
    channels, height, width = shape
    everywhere = (slice(None), slice(None), slice(None), slice(None))
    squares: list[tuple[tuple[slice, ...], Tensor]]
    squares = [(everywhere, _signs((channels, 1, width), generator))]
    for query in range(1, n):
        area = p_start * _share(query / n) * height * width
        side = max(1, min(round(area**0.5), height, width))
        top, left = (
            int(torch.randint(size - side + 1, (), generator=generator)) for size in shape[1:]
        )
        place = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
        squares.append((place, _signs((channels, 1, 1), generator)))
    return squares


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator) * 2 - 1


def _share(progress: float) -> float:
    """Halve the area at the paper's moments: queries 10, 50, 200, ... of 10,000."""
    moments = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    return 0.5 ** sum(progress > moment for moment in moments)


def _search(
    model: Model,
    here: Limits,
    t: Tensor | None,
    changes: Sequence[tuple[tuple[slice, ...], Tensor]],
    way: int,
) -> Tensor:
    """Paint square after square on rows that are not fooled yet; keep what lowers the margin."""
    x = here.x
    best, least = x.clone(), way * target_margin(model, x, t, here.dtype)
    left = torch.arange(len(x), device=x.device)
    for place, change in changes:
        if t is not None:
            left = left[least[left] >= 0]
        if len(left) == 0:
            break
        tried = best[left]
        tried[place] = x[left][place] + change
        tried = tried.clamp(here.low[left], here.high[left])
        found = way * target_margin(model, tried, None if t is None else t[left], here.dtype)
        better = found < least[left]
        best[left[better]], least[left[better]] = tried[better], found[better]
    return best


def target_margin(model: Model, x: Tensor, t: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return by how much the target's logit leads, (N,) float64; a single output's score itself."""
    logits = _logits(model, x.to(dtype), t).double()
    if t is None:
        return logits
    own = F.one_hot(t, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).amax(1)
