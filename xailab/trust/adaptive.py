"""An attack on a model and its detector at once: what a defense has to be measured against.

Lesson `adversarial` teaches this file; the attacks that know the model alone are in
`adversarial.py`, the detectors in `detectors.py`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from xailab.core.checks import Model, Target, check_positive
from xailab.core.scores import gradients_of
from xailab.trust.adversarial import target_margin
from xailab.trust.limits import (
    Clip,
    Limits,
    as_column,
    attack_by_chunks,
    check_limits,
    check_radius,
    warn_of_flat_rows,
)


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
        model: maps (N, ...) to logits (N, K), or to one logit of a binary network, with gradients.
        x: (N, ...) floats inside `clip`.
        target: the true class(es).
        suspicion: $d$: maps rows to one number each, higher when more suspicious, inside the
            graph of its input, as `Detector.suspicion` does.
        epsilon: how far each number may move, in units of x.
        step_size: of each step, in the same units.
        n_steps: how many steps.
        margin: $\kappa$, in logits, from 0 up. A small one stays near the border, where a
            detector of odd answers sees little; a large one leaves more room to repair.
        clip: lowest and highest value that x may have, numbers or tensors that broadcast to x,
            such as (C, 1, 1); None: any.
        batch_size: rows at once; None: 250.

    Returns:
        The shape of x: the changed rows.

    Warns:
        UserWarning: as `fgsm`.

    Raises:
        TypeError: as `fgsm`; `n_steps` no integer.
        ValueError: as `pgd`; target None; a negative margin; a suspicion that is not one number a
            row, that is NaN, or from which no gradient reaches x.

    Reference: Carlini, Wagner (2017), Adversarial Examples Are Not Easily Detected: Bypassing Ten
        Detection Methods; Bryniarski, Hingun, Pachuca, Wang, Carlini (2022), Evading Adversarial
        Example Detection Defenses with Orthogonal Projected Gradient Descent (the two cases).
    Elsewhere: written anew for every defense, which is its point.

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    >>> far = lambda x: 10 * (x[:, 0] - 0.5).abs()  # an alarm that watches the first number
    >>> steps = {"epsilon": 1.0, "step_size": 0.125, "n_steps": 40, "margin": 0.0}
    >>> adaptive_attack(net, torch.full((1, 2), 0.5), 0, suspicion=far, clip=None, **steps)
    tensor([[ 0.3750, -0.5000]])
    """
    epsilon = check_radius("epsilon", epsilon)
    room = check_limits(model, x, epsilon=epsilon, clip=clip)
    step, kappa = check_radius("step_size", step_size), check_radius("margin", margin)
    n = check_positive("n_steps", n_steps)
    if target is None:
        raise ValueError("target=None: there is no other class that could take the lead")

    def attack(here: Limits, t: Tensor | None) -> Tensor:
        moved, best = here.x, _Best(here.x)
        for _ in range(n):
            leaf = moved.detach().to(here.dtype, copy=True).requires_grad_()
            lead = -target_margin(model, leaf, t, here.dtype)
            alarm = _alarm(suspicion, leaf, with_graph=True)
            best.note(moved, lead.detach(), alarm.detach())
            uphill = gradients_of(torch.where(lead < kappa, lead, -alarm), leaf)
            change = moved + step * here.note(uphill).sign() - here.x
            moved = here.clip(here.x + change.clamp(-epsilon, epsilon))
        with torch.no_grad():
            rows = moved.to(here.dtype)
            best.note(moved, -target_margin(model, rows, t, here.dtype), _alarm(suspicion, rows))
        return torch.where(as_column(best.least.isfinite(), moved), best.rows, moved)

    moved = attack_by_chunks(attack, model, room, target, batch_size)
    if epsilon > 0 and step > 0:
        warn_of_flat_rows(room)
    return moved


class _Best:
    """Of all steps on the way, for each row the least suspicious that fools the model."""

    def __init__(self, x: Tensor) -> None:
        self.rows = x.clone()
        self.least = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    def note(self, moved: Tensor, lead: Tensor, alarm: Tensor) -> None:
        """Keep those rows that fool the model and are less suspicious than what was kept."""
        better = (lead > 0) & (alarm < self.least)
        self.rows[better], self.least[better] = moved[better], alarm[better]


def _alarm(suspicion: Callable[[Tensor], Tensor], x: Tensor, *, with_graph: bool = False) -> Tensor:
    """Return the suspicion of every row in double precision, checked."""
    alarm = suspicion(x)
    shape = tuple(getattr(alarm, "shape", ()))
    if not isinstance(alarm, Tensor) or shape != (len(x),):
        raise ValueError(f"suspicion must return one number a row, ({len(x)},), got shape {shape}")
    if not torch.isfinite(alarm).all():
        raise ValueError("suspicion returned NaN or infinity")
    if with_graph and not alarm.requires_grad:
        raise ValueError("no gradient reaches the input from the suspicion: it leaves autograd")
    return alarm.double()
