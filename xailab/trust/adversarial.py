"""Inputs that are made to mislead a model, and training that withstands them.

Lesson 23 teaches this file; the detectors are in `detectors.py`. Everywhere an attack moves an
input by at most epsilon, in the input's own units, and `target` is the class that it starts from:
the untargeted attack lowers that class's chances, the targeted one raises another's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xailab.core.checks import Model, Target, check_input, check_positive, split_target
from xailab.core.scores import graph, outputs_of, select
from xailab.core.state import frozen
from xailab.trust.detectors import (
    Detector,
    Disagreement,
    FeatureSqueezing,
    Isolation,
    Mahalanobis,
    detection_table,
)

__all__ = [
    "Detector",
    "Disagreement",
    "FeatureSqueezing",
    "History",
    "Isolation",
    "Mahalanobis",
    "accuracy_curve",
    "adaptive_attack",
    "adversarial_fit",
    "cross_entropy",
    "detection_table",
    "fgsm",
    "pgd",
    "square_attack",
]

Loss = Callable[[Tensor, Tensor], Tensor]
Clip = tuple[float, float] | None
Norm = Literal["linf", "l2"]
Pair = tuple[Tensor, Tensor]

_ROWS = 250  # at once; not measured, since a gradient near 0 may change its sign with the chunk
_NOISE = 16  # rounding errors, in units of the dtype's, that a sum of a few hundred terms has


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return $-\log \operatorname{softmax}(z)_y$ of every row, in double precision.

    In single precision a model that is sure has $p_y = 1$, and $p_y - 1$, the pull on its own
    class, is gone; the gradient that is left points somewhere else.

    Args:
        outputs: (N, K) logits.
        y: (N,) classes.

    Returns:
        (N,) float64, in nats.

    Elsewhere: `torch.nn.functional.cross_entropy(reduction="none")`.

    >>> cross_entropy(torch.tensor([[0.0, 40.0]]), torch.tensor([1]))  # single precision: 0
    tensor([4.2484e-18], dtype=torch.float64)
    """
    # -log p_y = log(1 + sum of exp(z_k - z_y) over the others): nothing is lost near p_y = 1.
    z = outputs.double()
    apart = z - z.gather(1, y[:, None])
    others = apart.masked_fill(F.one_hot(y, z.shape[1]).bool(), -torch.inf)
    return F.softplus(others.logsumexp(1))


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
        model: maps (N, ...) to scores (N, K) or (N,), with gradients.
        x: (N, ...) floats inside `clip`.
        target: the true class(es); with `targeted`, the class to reach. None for a single-output
            model, whose score is lowered (with `targeted`: raised).
        epsilon: how far each number may move, in units of x.
        targeted: go towards `target` in place of away from it.
        loss_fn: loss_fn(outputs, classes), a number or one a row. Not asked where target is None.
        clip: lowest and highest value that x may have; None: any.
        mask: True (or 1) where numbers may move; broadcasts to x. None: everywhere.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Raises:
        TypeError: as `saliency`; epsilon that is no number; a mask that is no tensor.
        ValueError: as `saliency`; a negative epsilon, x outside `clip`, or a mask that does not
            broadcast or holds something else than 0 and 1.

    Reference: Goodfellow, Shlens, Szegedy (2015), Explaining and Harnessing Adversarial Examples.
    Elsewhere: foolbox `LinfFastGradientAttack`, which gives rounding errors a full step.

    >>> model = nn.Linear(3, 2, bias=False)
    >>> model.weight.data = torch.tensor([[1.0, -1.0, 5.0], [0.0, 0.0, 5.0]])
    >>> fgsm(model, torch.full((1, 3), 0.5), 0, epsilon=0.25)
    tensor([[0.2500, 0.7500, 0.5000]])
    """
    start, free = _checked(model, x, epsilon, clip, mask)
    step = -epsilon if targeted else epsilon

    def attack(at: slice, t: Tensor | None) -> Tensor:
        uphill = _loss_gradient(model, start[at], t, loss_fn)
        return _clipped(start[at] + step * free[at] * uphill.sign(), clip)

    return _by_chunks(attack, model, start, target, batch_size)


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
        model: maps (N, ...) to scores (N, K) or (N,), with gradients.
        x: (N, ...) floats inside `clip`.
        target: the true class(es); with `targeted`, the class to reach; None as in `fgsm`.
        epsilon: radius of the ball: of each number (linf) or of the whole row (l2), in units of x.
        step_size: $\eta$, in the same units.
        n_steps: how many steps, and gradients.
        norm: "linf" or "l2".
        random_start: begin at a random point of the ball, not at x.
        targeted: go towards `target` in place of away from it.
        loss_fn: as in `fgsm`.
        clip: lowest and highest value that x may have; None: any.
        mask: True (or 1) where numbers may move; broadcasts to x. None: everywhere.
        seed: of the random start.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Raises:
        TypeError: as `fgsm`; `n_steps` no integer.
        ValueError: as `fgsm`; a negative step, `n_steps` below 1, or another norm.

    Reference: Madry, Makelov, Schmidt, Tsipras, Vladu (2018), Towards Deep Learning Models
        Resistant to Adversarial Attacks. Without random start: Kurakin, Goodfellow, Bengio (2017),
        Adversarial examples in the physical world.
    Elsewhere: foolbox `LinfProjectedGradientDescentAttack`, `L2ProjectedGradientDescentAttack`.

    >>> total = lambda x: x.sum(1)
    >>> pgd(total, torch.ones(1, 4), None, epsilon=0.5, step_size=1, n_steps=3, norm="l2")
    tensor([[0.7500, 0.7500, 0.7500, 0.7500]])
    """
    start, free = _checked(model, x, epsilon, clip, mask)
    check_radius("step_size", step_size)
    ball, n = _ball(norm), check_positive("n_steps", n_steps)
    step = -step_size if targeted else step_size
    begin = _clipped(start + ball.draw(free, epsilon, seed), clip) if random_start else start

    def attack(at: slice, t: Tensor | None) -> Tensor:
        moved = begin[at]
        for _ in range(n):
            uphill = free[at] * _loss_gradient(model, moved, t, loss_fn)
            change = moved + step * ball.steepest(uphill) - start[at]
            moved = _clipped(start[at] + ball.project(change, epsilon), clip)
        return moved

    return _by_chunks(attack, model, start, target, batch_size)


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
        model: maps (N, C, H, W) to scores (N, K) or (N,); any function of tensors.
        x: (N, C, H, W) floats inside `clip`.
        target: the true class(es); with `targeted`, the class to reach; None as in `fgsm`.
        epsilon: how far each number may move, in units of x.
        n_queries: how often the model is asked about each row.
        p_start: share of the picture that the first squares cover, in (0, 1].
        targeted: go towards `target`: the margin is $\max_{k \ne t} f_k - f_t$.
        clip: lowest and highest value that x may have; None: any.
        seed: of the squares and their signs; every row sees the same.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Raises:
        TypeError: as `fgsm`; `n_queries` no integer.
        ValueError: as `fgsm`; x without (C, H, W), `n_queries` below 1, `p_start` outside (0, 1].

    Reference: Andriushchenko, Croce, Flammarion, Hein (2020), Square Attack: a query-efficient
        black-box adversarial attack via random search.
    Elsewhere: ART `SquareAttack`; foolbox has none.

    >>> total = lambda x: x.sum((1, 2, 3))
    >>> square_attack(total, torch.ones(1, 1, 2, 2), None, epsilon=0.5, n_queries=30).flatten()
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    start, _ = _checked(model, x, epsilon, clip, None)
    if x.ndim != 4:
        raise ValueError(f"x must be pictures (N, C, H, W), got {tuple(x.shape)}")
    if not 0 < p_start <= 1:
        raise ValueError(f"p_start must lie in (0, 1], got {p_start}")
    squares = _squares(check_positive("n_queries", n_queries), x.shape[1:], p_start, seed)
    changes = [(place, epsilon * signs.to(x)) for place, signs in squares]

    def attack(at: slice, t: Tensor | None) -> Tensor:
        with torch.no_grad():  # a function's weights would keep the graph of every query
            return _search(model, start[at], t, changes, -1 if targeted else 1, clip)

    return _by_chunks(attack, model, start, target, batch_size)


def adaptive_attack(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    suspicion: Callable[[Tensor], Tensor],
    epsilon: float,
    step_size: float,
    n_steps: int,
    margin: float = 0.5,
    clip: Clip = (0, 1),
    batch_size: int | None = None,
) -> Tensor:
    r"""Fool a model and its detector at once, by an attacker who knows both.

    $$m(x') = \max_{k \ne t} f_k(x') - f_t(x'), \qquad
      x' \leftarrow x' + \eta \operatorname{sign}
      \begin{cases} \nabla m(x') & m(x') < \kappa \\ -\nabla d(x') & \text{else} \end{cases}$$

    Steps stay in the ball and the clip, as in `pgd`. While another class does not lead by
    $\kappa$, a step goes into misleading the model; once it does, into looking harmless. Of all
    steps on the way, a row's answer is the least suspicious that fools the model; the last where
    none does.

    Args:
        model: maps (N, ...) to logits (N, K), with gradients.
        x: (N, ...) floats inside `clip`.
        target: the true class(es).
        suspicion: $d$: maps rows to one number each, higher when more suspicious, inside the
            graph of its input, as `Detector.suspicion` does.
        epsilon: how far each number may move, in units of x.
        step_size: of each step, in the same units.
        n_steps: how many steps.
        margin: $\kappa$, in logits, from 0 up. A small one stays near the border, where a
            detector of odd answers sees little; a large one leaves more room to repair.
        clip: lowest and highest value that x may have; None: any.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Raises:
        TypeError: as `fgsm`; `n_steps` no integer.
        ValueError: as `pgd`; a single-output model; a negative margin.

    Reference: Carlini, Wagner (2017), Adversarial Examples Are Not Easily Detected: Bypassing Ten
        Detection Methods; Bryniarski, Hingun, Pachuca, Wang, Carlini (2022), Evading Adversarial
        Example Detection Defenses with Orthogonal Projected Gradient Descent (the two cases).
    Elsewhere: written anew for every defense, which is its point.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    >>> far = lambda x: 10 * (x[:, 0] - 0.5).abs()  # an alarm that watches the first number
    >>> steps = {"epsilon": 1.0, "step_size": 0.125, "n_steps": 40, "margin": 0.0}
    >>> adaptive_attack(net, torch.full((1, 2), 0.5), 0, suspicion=far, clip=None, **steps)
    tensor([[ 0.3750, -0.5000]])
    """
    start, _ = _checked(model, x, epsilon, clip, None)
    check_radius("step_size", step_size)
    check_radius("margin", margin)
    n, ball = check_positive("n_steps", n_steps), _ball("linf")

    def attack(at: slice, t: Tensor | None) -> Tensor:
        moved, found = start[at], start[at].clone()
        least = torch.full((len(moved),), torch.inf, dtype=torch.float64, device=x.device)
        for _ in range(n):
            leaf = moved.detach().requires_grad_()
            lead, alarm = -_margin(outputs_of(model, leaf), t), suspicion(leaf).double()
            (uphill,) = torch.autograd.grad(torch.where(lead < margin, lead, -alarm).sum(), leaf)
            _keep_best(found, least, moved, lead.detach(), alarm.detach())
            change = moved + step_size * uphill.sign() - start[at]
            moved = _clipped(start[at] + ball.project(change, epsilon), clip)
        with torch.no_grad():
            lead, alarm = -_margin(outputs_of(model, moved), t), suspicion(moved).double()
        _keep_best(found, least, moved, lead, alarm)
        return torch.where(_column(least.isfinite(), moved), found, moved)

    if target is None:
        raise ValueError("target=None: there is no other class that could take the lead")
    return _by_chunks(attack, model, start, target, batch_size)


# ---- training ------------------------------------------------------------------------------------


class History(NamedTuple):
    """What `adversarial_fit` measured, three numbers an epoch.

    Attributes:
        train_loss: mean over the epoch's attacked rows, in nats.
        valid_accuracy: share of right answers on held-out rows as they are.
        robust_accuracy: the same after the attack that is trained against, at full epsilon.
    """

    train_loss: list[float]
    valid_accuracy: list[float]
    robust_accuracy: list[float]


def adversarial_fit(
    model: nn.Module,
    train: Pair,
    valid: Pair,
    *,
    epsilon: float,
    epochs: int,
    n_steps: int = 1,
    step_size: float | None = None,
    learning_rate: float = 5e-3,
    batch_size: int = 64,
    warm_up: float = 1.0,
    clip: Clip = (0, 1),
    seed: int = 0,
) -> History:
    r"""Train a classifier on the rows that mislead it most: Adam, with an attack before each step.

    $$\min_\theta \frac1N \sum_i \max_{\|\delta\|_\infty \le \epsilon}
      L\big(f_\theta(x_i + \delta), y_i\big)$$

    The inner maximum is sought by `pgd` from a random start. One step of 1.25 epsilon is enough
    at small epsilon, and hardly dearer than training; check what it has learnt with more steps,
    since a network may learn to mislead the one step only.

    Args:
        model: (N, ...) -> logits (N, K); its parameters change, and it ends in evaluation mode.
        train: inputs (N, ...) and class numbers (N,) to learn from.
        valid: the same, held out: measured after every epoch, never learnt from.
        epsilon: the attack's radius (linf), in units of the inputs.
        epochs: how often every row is visited.
        n_steps: of the attack.
        step_size: of the attack; None: 1.25 epsilon / sqrt(n_steps).
        learning_rate: Adam's step size.
        batch_size: rows a step.
        warm_up: epochs over which epsilon grows from 0: an untrained network that is attacked
            at full strength may learn nothing.
        clip: lowest and highest value that inputs may have; None: any.
        seed: of the order of rows, the random starts and dropout; torch's own state stays.

    Returns:
        A `History`.

    Raises:
        TypeError: counts that are not integers.
        ValueError: as `pgd`; not one class number a row; a negative `warm_up`.
        FloatingPointError: the loss is no finite number any more.

    Reference: Madry, Makelov, Schmidt, Tsipras, Vladu (2018), Towards Deep Learning Models
        Resistant to Adversarial Attacks; with one step: Wong, Rice, Kolter (2020), Fast is better
        than free: Revisiting adversarial training.
    Elsewhere: ART `AdversarialTrainer`.

    >>> rows = torch.tensor([[0.1], [0.2], [0.8], [0.9]]), torch.tensor([0, 0, 1, 1])
    >>> net = nn.Linear(1, 2)
    >>> history = adversarial_fit(net, rows, rows, epsilon=0.1, epochs=60, learning_rate=0.1)
    >>> history.robust_accuracy[-1], net.training
    (1.0, False)
    """
    x, y = _labelled(model, "train", train)
    _labelled(model, "valid", valid)
    size, n = check_positive("batch_size", batch_size), check_positive("n_steps", n_steps)
    step = 1.25 * epsilon / n**0.5 if step_size is None else check_radius("step_size", step_size)
    grown = check_radius("warm_up", warm_up) * len(x) / size
    attack = partial(pgd, model, n_steps=n, random_start=True, clip=clip)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    history, done = History([], [], []), 0
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        for _ in range(check_positive("epochs", epochs)):
            total = 0.0
            for rows in torch.randperm(len(x)).split(size):
                done += 1
                share = min(1.0, done / max(grown, 1.0))
                changed = attack(
                    x[rows], y[rows], epsilon=share * epsilon, step_size=share * step, seed=done
                )
                total += _step(model, optimizer, changed, y[rows])
            attacked = attack(*valid, epsilon=epsilon, step_size=step, seed=seed)
            history.train_loss.append(total / len(x))
            history.valid_accuracy.append(_accuracy(model, *valid))
            history.robust_accuracy.append(_accuracy(model, attacked, valid[1]))
    return history


def accuracy_curve(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilons: Sequence[float],
    attack: Callable[..., Tensor] = fgsm,
) -> pd.DataFrame:
    r"""Measure how accuracy falls with epsilon, on rows attacked anew for each.

    $$\text{accuracy}(\epsilon) = \frac1N \big|\{i : \arg\max f(x_i') = y_i\}\big|$$

    Args:
        model: maps (N, ...) to logits (N, K).
        x: (N, ...) floats.
        y: (N,) true classes.
        epsilons: radii.
        attack: attack(model, x, y, epsilon=...) -> rows, such as `fgsm`, or
            `partial(pgd, step_size=0.01, n_steps=40)`.

    Returns:
        One row an epsilon: `accuracy`, and `fooled`: the share of the rows that were right at
        epsilon 0 and no longer are.

    Raises:
        TypeError, ValueError: as the attack.

    Reference: Carlini et al. (2019), On Evaluating Adversarial Robustness (curves that end at 0
        show that the attack works).
    Elsewhere: foolbox: an attack called with `epsilons=[...]`.

    >>> sign = lambda x: torch.cat([-x, x], dim=1)  # class 1 above 0
    >>> rows, y = torch.tensor([[-0.5], [0.25]]), torch.tensor([0, 1])
    >>> attack = lambda *given, epsilon: fgsm(*given, epsilon=epsilon, clip=None)
    >>> accuracy_curve(sign, rows, y, epsilons=[0, 0.375], attack=attack).reset_index()
       epsilon  accuracy  fooled
    0    0.000       1.0     0.0
    1    0.375       0.5     0.5
    """
    right = _right(model, x, y)
    rows = []
    for epsilon in epsilons:
        still = _right(model, attack(model, x, y, epsilon=epsilon), y)
        fooled = 1 - still[right].double().mean().item() if right.any() else np.nan
        rows.append((epsilon, still.double().mean().item(), fooled))
    return pd.DataFrame(rows, columns=["epsilon", "accuracy", "fooled"]).set_index("epsilon")


# ---- parts ---------------------------------------------------------------------------------------


def check_radius(name: str, value: float) -> float:
    """Return a length if it is a finite number of at least 0.

    Raises:
        TypeError: no number.
        ValueError: negative, NaN or infinite.

    >>> check_radius("epsilon", 0.1)
    0.1
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return float(value)


def _checked(
    model: Model, x: Tensor, epsilon: float, clip: Clip, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return a copy of x outside of any graph, and where it may move: 0 or 1, as large as x."""
    check_radius("epsilon", epsilon)
    with graph():
        start = check_input(model, x).detach().clone()
    if clip is not None and not clip[0] < clip[1]:
        raise ValueError(f"clip must be (low, high) with low < high, got {clip}")
    if clip is not None and (start.min() < clip[0] or start.max() > clip[1]):
        raise ValueError(
            f"x lies in {start.min().item():.4g}..{start.max().item():.4g}, which clip={clip} "
            "would change: pass the range of your inputs, or clip=None"
        )
    return start, _free(mask, start)


def _free(mask: Tensor | None, x: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(x)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch.Tensor, got {type(mask).__name__}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold 0 and 1 (or False and True) only")
    try:
        return mask.detach().to(x).expand_as(x)
    except RuntimeError as error:
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not broadcast to x {tuple(x.shape)}"
        ) from error


def _by_chunks(
    attack: Callable[[slice, Tensor | None], Tensor],
    model: Model,
    x: Tensor,
    target: Target,
    batch_size: int | None,
) -> Tensor:
    """Attack all rows, some at a time, with the model frozen; `attack(which rows, targets)`."""
    wanted = split_target(target, len(x))
    size = _ROWS if batch_size is None else check_positive("batch_size", batch_size)
    moved = []
    with frozen(model), graph():
        for first in range(0, len(x), size):
            some = wanted[first : first + size]
            t = None if target is None else torch.tensor(some, device=x.device)
            moved.append(attack(slice(first, first + size), t))
    return torch.cat(moved).detach()


def _loss_gradient(model: Model, x: Tensor, t: Tensor | None, loss_fn: Loss) -> Tensor:
    """Return the gradient of the loss, with 0 for numbers that are nothing but rounding errors.

    The gradient is a sum over outputs, of the loss's pull on each times the output's slope. Terms
    that cancel leave an error in proportion to their own size, which a second pass backwards
    with all pulls positive shows.
    """
    leaf = x.detach().requires_grad_()
    outputs = outputs_of(model, leaf)
    scores = select(outputs, t)  # checks the target
    loss = -scores if t is None else loss_fn(outputs, t)
    if not loss.requires_grad:
        return torch.zeros_like(x)
    (pull,) = torch.autograd.grad(loss.sum(), outputs)
    uphill = _backwards(outputs, leaf, pull)
    terms = _backwards(outputs, leaf, pull.abs())
    largest = uphill.abs().flatten(1).amax(1)
    error = _NOISE * torch.finfo(x.dtype).eps * terms.abs().maximum(_column(largest, x))
    return torch.where(uphill.abs() > error, uphill, 0.0)


def _backwards(outputs: Tensor, leaf: Tensor, pull: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(outputs, leaf, pull, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def _clipped(x: Tensor, clip: Clip) -> Tensor:
    return x if clip is None else x.clamp(*clip)


def _column(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a row in a shape that broadcasts to x."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


class _Ball(NamedTuple):
    """A ball's geometry: a uniform draw, the steepest direction, and the way back inside."""

    draw: Callable[[Tensor, float, int], Tensor]
    steepest: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, float], Tensor]


def _length(change: Tensor) -> Tensor:
    return _column(change.flatten(1).norm(dim=1), change)


def _draw_linf(free: Tensor, epsilon: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(free.shape, generator=generator, dtype=free.dtype)
    return epsilon * free * (2 * drawn - 1).to(free.device)


def _draw_l2(free: Tensor, epsilon: float, seed: int) -> Tensor:
    """A direction that is uniform, and a length whose n-th power is, n the free numbers."""
    generator = torch.Generator().manual_seed(seed)
    normal = free * torch.randn(free.shape, generator=generator, dtype=free.dtype).to(free.device)
    share = torch.rand(len(free), generator=generator, dtype=free.dtype).to(free.device)
    length = share ** (1 / free.flatten(1).sum(1).clamp(min=1))
    return epsilon * _column(length, free) * _steepest_l2(normal)


def _steepest_l2(uphill: Tensor) -> Tensor:
    length = _length(uphill)
    return torch.where(length > 0, uphill / length, 0.0)


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


def _margin(outputs: Tensor, t: Tensor | None) -> Tensor:
    """Return by how much the target's score leads; a single output's score itself."""
    scores = select(outputs, t).double()
    if t is None:
        return scores
    own = F.one_hot(t, outputs.shape[1]).bool()
    return scores - outputs.double().masked_fill(own, -torch.inf).amax(1)


def _keep_best(found: Tensor, least: Tensor, moved: Tensor, lead: Tensor, alarm: Tensor) -> None:
    """Note those rows that fool the model and are less suspicious than what was found before."""
    better = (lead > 0) & (alarm < least)
    found[better], least[better] = moved[better], alarm[better]


def _squares(
    n: int, shape: torch.Size, p_start: float, seed: int
) -> list[tuple[tuple[slice, ...], Tensor]]:
    """Return where each query paints, and the signs: stripes first, then ever smaller squares."""
    generator = torch.Generator().manual_seed(seed)
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
    x: Tensor,
    t: Tensor | None,
    changes: Sequence[tuple[tuple[slice, ...], Tensor]],
    way: int,
    clip: Clip,
) -> Tensor:
    """Paint square after square on rows that are not fooled yet; keep what lowers the margin."""
    best, least = x.clone(), way * _margin(outputs_of(model, x), t)
    left = torch.arange(len(x), device=x.device)
    for place, change in changes:
        if t is not None:
            left = left[least[left] >= 0]
        if len(left) == 0:
            break
        tried = best[left]
        tried[place] = x[left][place] + change
        tried = _clipped(tried, clip)
        margin = way * _margin(outputs_of(model, tried), None if t is None else t[left])
        better = margin < least[left]
        best[left[better]], least[left[better]] = tried[better], margin[better]
    return best


def _labelled(model: nn.Module, name: str, pair: Pair) -> Pair:
    x, y = pair
    check_input(model, x)
    if y.shape != (len(x),):
        raise ValueError(
            f"{name}: expected one class number a row, got {tuple(y.shape)} for {len(x)} rows"
        )
    return x, y


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Take one step on these rows; return their summed loss."""
    model.train()
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.eval()
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss.item()}: try a smaller learning rate")
    return loss.item() * len(x)


def _right(model: Model, x: Tensor, y: Tensor) -> Tensor:
    with frozen(model), torch.no_grad():
        return torch.cat([model(rows).argmax(1) for rows in x.split(_ROWS)]) == y


def _accuracy(model: Model, x: Tensor, y: Tensor) -> float:
    return _right(model, x, y).double().mean().item()
