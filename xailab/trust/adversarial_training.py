"""Training that withstands attacks, and how accuracy falls under them.

Lesson `adversarial` teaches this file; the attacks are in `adversarial.py`.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from xailab.core.checks import Model, check_positive
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.models.loop import (
    DivergedError,
    History,
    Pair,
    adam,
    as_pair,
    check_rows,
    check_trainable,
    class_loss,
    evaluate,
)
from xailab.models.loop import train as train_loop
from xailab.trust.adversarial import fgsm, pgd
from xailab.trust.limits import Clip, check_radius
from xailab.trust.probabilities import AnswerError, class_answers

_ROWS = 250  # measured at once


class RobustHistory(NamedTuple):
    """What `adversarial_fit` measured: a `History` and, beside it, the answers under attack."""

    train_loss: list[float]
    valid_loss: list[float]
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
) -> RobustHistory:
    r"""Train a classifier on the rows that mislead it most: Adam, with an attack before each step.

    $$\min_\theta \frac1N \sum_i \max_{\|\delta\|_\infty \le \epsilon}
      L\big(f_\theta(x_i + \delta), y_i\big)$$

    The inner maximum is sought by `pgd` from a random start. One step of 1.25 epsilon is enough
    at small epsilon, and hardly dearer than training; check what it has learnt with more steps,
    since a network may learn to mislead the one step only.

    Args:
        model: (N, ...) -> logits (N, K), or one logit of a binary network; its parameters change,
            and it ends in evaluation mode.
        train: inputs (N, ...) and class numbers (N,), in any container, to learn from.
        valid: the same, held out: measured after every epoch, never learnt from.
        epsilon: the attack's radius (linf), in units of the inputs.
        epochs: how often every row is visited.
        n_steps: of the attack.
        step_size: of the attack; None: 1.25 epsilon / sqrt(n_steps).
        learning_rate: Adam's step size.
        batch_size: rows a step; a last one of a single row joins the step before.
        warm_up: epochs over which epsilon grows from 0: an untrained network that is attacked
            at full strength may learn nothing.
        clip: as in `fgsm`; None: any.
        seed: of the order of rows, the random starts and dropout; torch's own state stays.

    Returns:
        A `RobustHistory`: `train_loss` is the mean over the epoch's attacked rows,
        `robust_accuracy` that on held-out rows after the attack that is trained against, at full
        epsilon.

    Raises:
        TypeError: counts that are not integers; weights in half precision.
        ValueError: as `pgd`; NaN in the rows; not one class number a row, or a class that the
            model does not have; a negative `warm_up`; no weight that is free to change.
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
    check_trainable(model)
    x, y = check_rows(model, *as_pair("train", train), name="train")
    held = check_rows(model, *as_pair("valid", valid), name="valid")
    size, n = check_positive("batch_size", batch_size), check_positive("n_steps", n_steps)
    check_radius("epsilon", epsilon)
    step = 1.25 * epsilon / n**0.5 if step_size is None else check_radius("step_size", step_size)
    growing = max(1.0, check_radius("warm_up", warm_up) * len(x) / size)  # steps
    attack = partial(pgd, model, n_steps=n, random_start=True, clip=clip)
    history, robust, numbers = History([], [], []), [], count(1)

    def loss_of(rows: Tensor) -> Tensor:
        number = next(numbers)
        share = min(1.0, number / growing)
        with _quiet(), _diverging():
            changed = attack(
                x[rows], y[rows], epsilon=share * epsilon, step_size=share * step, seed=number
            )
        return class_loss(outputs_of(model, changed), y[rows])

    def measure(_: int) -> None:
        with _quiet(), _diverging():
            attacked = attack(*held, epsilon=epsilon, step_size=step, seed=seed)
        plain = evaluate(model, held)
        history.valid_loss.append(plain.loss)
        history.valid_accuracy.append(plain.accuracy)
        robust.append(evaluate(model, (attacked, held[1])).accuracy)

    optimizer, options = adam(model, learning_rate), {"batch_size": size, "seed": seed}
    losses = train_loop(
        model, len(x), loss_of, optimizer=optimizer, epochs=epochs, after_epoch=measure, **options
    )
    return RobustHistory(losses, history.valid_loss, history.valid_accuracy, robust)


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
        model: maps (N, ...) to logits (N, K), or to one logit, whose sign decides.
        x: (N, ...) floats.
        y: (N,) true classes, in any container.
        epsilons: radii.
        attack: attack(model, x, y, epsilon=...) -> rows, such as `fgsm`, or
            `partial(pgd, step_size=0.01, n_steps=40)`.

    Returns:
        One row an epsilon: `accuracy`, and `fooled`: the share of the rows that were right at
        epsilon 0 and no longer are.

    Warns:
        UserWarning: what the attack warns of, such as rows whose gradient is 0: their accuracy
            says nothing about robustness.

    Raises:
        TypeError, ValueError: as the attack; y that is not one class number a row, or a class that
            the model does not have; answers that are NaN; an attack that returns other rows.

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
    start, classes = check_rows(model, x, y, name="accuracy_curve")
    right = _right(model, start, classes)
    rows = []
    for epsilon in epsilons:
        moved = attack(model, start, classes, epsilon=epsilon)
        if not isinstance(moved, Tensor) or moved.shape != start.shape:
            got = tuple(moved.shape) if isinstance(moved, Tensor) else type(moved).__name__
            raise ValueError(f"attack must return rows {tuple(start.shape)}, it returned {got}")
        still = _right(model, moved, classes)
        fooled = 1 - still[right].double().mean().item() if right.any() else np.nan
        rows.append((epsilon, still.double().mean().item(), fooled))
    return pd.DataFrame(rows, columns=["epsilon", "accuracy", "fooled"]).set_index("epsilon")


def _right(model: Model, x: Tensor, y: Tensor) -> Tensor:
    with frozen(model), torch.no_grad():
        answers = [class_answers(model, rows).argmax(1) for rows in x.split(_ROWS)]
    return torch.cat(answers) == y


@contextmanager
def _quiet() -> Iterator[None]:
    """While a network learns, rows without a gradient are no finding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the gradient is 0 in")
        yield


@contextmanager
def _diverging() -> Iterator[None]:
    """Answers that became NaN while a network learns come from its steps."""
    try:
        yield
    except AnswerError as error:
        raise DivergedError(f"{error}: try a smaller learning rate") from error
