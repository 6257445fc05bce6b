"""A small model that learns from a large one: networks, soft decision trees, plain trees.

Lesson `distillation` teaches this file. A teacher's probabilities say more than a label: that this
3 looks a little like an 8. A student learns from them. How far it follows is measured twice: by
what it answers (fidelity) and by where it looks (explanation agreement).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.callable_module import make_callable
from xailab.core.checks import Model, as_integer, check_input, check_positive
from xailab.core.outputs import as_array, class_logits, classes_of, labels_of
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.models.loop import (
    DivergedError,
    History,
    Pair,
    adam,
    as_pair,
    check_rows,
    check_table,
    evaluate,
)
from xailab.models.loop import train as train_model
from xailab.simplify.layers import check_number

# ---- the loss ------------------------------------------------------------------------------------


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    y: Tensor,
    *,
    temperature: float,
    alpha: float,
) -> Tensor:
    r"""Ask a student for the teacher's softened probabilities, and for the right labels.

    $$L = \frac{1}{N} \sum_n \alpha\, T^2 \sum_k p_k \log \frac{p_k}{q_k} - (1 - \alpha) \log
      \mathrm{softmax}(s)_y, \qquad p = \mathrm{softmax}(t / T), \; q = \mathrm{softmax}(s / T)$$

    The gradient of the first part is $\alpha\, T (q - p)$. At T = 1 that is cross-entropy with soft
    labels. As T grows, it becomes $\alpha\, (s - t) / K$ for logits of mean zero: the student
    copies logits. Without $T^2$ it would vanish on the way.

    Args:
        student_logits: $s$, (N, K); one logit $z$, (N, 1) or (N,), stands for $(0, z)$.
        teacher_logits: $t$, the same; no gradient flows into them.
        y: (N,) class numbers; without influence at `alpha=1`.
        temperature: T > 0; the larger, the more the teacher's small probabilities count.
        alpha: share of the teacher, 0 (labels alone) to 1 (teacher alone).

    Returns:
        The mean over the rows, in nats: a tensor without axes, in single precision or finer.

    Raises:
        TypeError: logits that are no tensors, class numbers that are no numbers.
        ValueError: logits of two shapes, no rows, not one class number a row, one that does not
            exist, a temperature that is not above 0, `alpha` outside 0..1.

    Reference: Hinton, Vinyals, Dean (2015), Distilling the Knowledge in a Neural Network.
    Elsewhere: torch `KLDivLoss(reduction="batchmean")` times T squared; its default reduction,
        "mean", divides by K as well.

    >>> same = torch.tensor([[2.0, 0.0]])
    >>> distillation_loss(same, same, torch.tensor([0]), temperature=3.0, alpha=1.0)
    tensor(0.)
    """
    _check_mix(temperature, alpha)
    student, teacher, y = _check_logits(student_logits, teacher_logits, y)
    log_p = F.log_softmax(teacher.detach() / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    p = log_p.exp()
    soft = torch.where(p > 0, p * (log_p - log_q), 0).sum(1).mean()  # a class may be impossible
    hard = F.cross_entropy(student, y)
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def _check_mix(temperature: float, alpha: float) -> None:
    if not 0 < check_number("temperature", temperature) < float("inf"):
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    if not 0 <= check_number("alpha", alpha) <= 1:
        raise ValueError(f"alpha must lie in 0..1, got {alpha}")


def _check_logits(student: Any, teacher: Any, y: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return both logits as (N, K), K at least 2, and class numbers, once all three fit."""
    for name, logits in (("student_logits", student), ("teacher_logits", teacher)):
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            kind = getattr(logits, "dtype", type(logits).__name__)
            raise TypeError(f"{name} must be a tensor of floats, got {kind}")
    shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
    if not all(one.ndim in (1, 2) and len(one) for one in (student, teacher)):
        raise ValueError(f"student and teacher must both give (N, K) logits, got {shapes}")
    s, t = (class_logits(_fine(one)) for one in (student, teacher))
    if s.shape != t.shape:
        raise ValueError(f"student and teacher must give the same (N, K) logits, got {shapes}")
    return s, t, labels_of(y, *s.shape).to(s.device)


def _fine(numbers: Tensor) -> Tensor:
    """Return numbers in single precision or finer: softmax and logarithms need it."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


# ---- network to network --------------------------------------------------------------------------


def distill(
    student: nn.Module,
    teacher: Model,
    train: Pair,
    valid: Pair,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    epochs: int,
    learning_rate: float = 5e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> History:
    r"""Train a student on what a teacher says of the same rows: Adam on `distillation_loss`.

    $$\min_\theta \; L\big(s_\theta(x), t(x), y\big)$$

    The teacher is asked once, before the first step. With `alpha=0` this is training on labels
    alone, with the same rows in the same order: the student to compare with.

    Args:
        student: (N, ...) -> logits (N, K), one logit (N, 1) or (N,) for two classes; its
            parameters change, and it ends in evaluation mode.
        teacher: the same, in any form; it stays as it is.
        train: inputs (N, ...) and class numbers (N,) to learn from.
        valid: the same, held out: measured after every epoch, never learnt from.
        temperature: T > 0.
        alpha: share of the teacher, 0 to 1.
        epochs: how often every row is visited.
        learning_rate: Adam's first step size, which falls to 0 along a cosine.
        batch_size: rows a step.
        seed: of the order of rows and of dropout; torch's own state stays.

    Returns:
        `train_loss` is the distillation loss, `valid_loss` and `valid_accuracy` ask for labels.

    Raises:
        TypeError: as `distillation_loss`; counts that are not integers; a student in half
            precision, in which small steps are lost.
        ValueError: as `distillation_loss`; no rows, inputs that are not finite, another number of
            classes than the teacher's, no weight that is free to change.
        FloatingPointError: the loss, or what the teacher says, is no finite number.

    Reference: Hinton, Vinyals, Dean (2015), Distilling the Knowledge in a Neural Network.
    Elsewhere: torchtune `ForwardKLLoss`; torchdistill.

    >>> rows = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> teacher = lambda x: torch.cat([-x, x], 1)
    >>> history = distill(nn.Linear(1, 2), teacher, *[rows] * 2, epochs=50, learning_rate=0.1)
    >>> history.valid_accuracy[-1]
    1.0
    """
    _check_mix(temperature, alpha)
    x, y, soft = _lesson(student, teacher, train, valid)

    def loss_of(rows: Tensor) -> Tensor:
        logits = outputs_of(student, x[rows])
        return distillation_loss(logits, soft[rows], y[rows], temperature=temperature, alpha=alpha)

    plan = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    return _train(student, len(x), valid, loss_of, learning_rate, plan)


def _lesson(
    student: nn.Module, teacher: Model, rows: Any, valid: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, labels and the teacher's logits (N, K), once all fit together."""
    x, y = as_pair("train", rows)
    check_input(teacher, x)
    x, y = check_table(x, y, name="train")
    soft = _answers(teacher, x)
    y = labels_of(y, *soft.shape, name="train: y")
    check_rows(student, x, torch.zeros_like(y), name="train")  # y fits the teacher's classes
    with frozen(student), torch.no_grad():
        own = class_logits(outputs_of(student, x[:2]))
    if own.shape[1] != soft.shape[1]:
        raise ValueError(
            f"the student knows {own.shape[1]} classes, the teacher {soft.shape[1]}: they must "
            "give the same (N, K) logits"
        )
    check_rows(student, *as_pair("valid", valid), name="valid")
    return x, y, soft


def _answers(teacher: Model, x: Tensor) -> Tensor:
    """Return the teacher's logits (N, K) of all rows; nothing about it changes."""
    check_input(teacher, x)
    with frozen(teacher), torch.no_grad():
        told = batched(
            lambda rows: outputs_of(teacher, rows), x, batch_size=500, progress=False, owner=teacher
        )
    if told.isnan().any():
        raise DivergedError(f"the teacher answers NaN in {int(told.isnan().sum())} places")
    return class_logits(_fine(told))


def _train(
    student: nn.Module,
    n: int,
    valid: Pair,
    loss_of: Callable[[Tensor], Tensor],
    learning_rate: float,
    plan: dict[str, int],
) -> History:
    """Take Adam's steps on `loss_of(row numbers)`; measure after every epoch."""
    epochs = check_positive("epochs", plan["epochs"])
    optimizer = adam(student, learning_rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    scores = []

    def after_epoch(_: int) -> None:
        scores.append(evaluate(student, valid))
        falling.step()

    losses = train_model(student, n, loss_of, optimizer=optimizer, after_epoch=after_epoch, **plan)
    return History(losses, [one.loss for one in scores], [one.accuracy for one in scores])


# ---- network to tree -----------------------------------------------------------------------------


class SoftDecisionTree(nn.Module):
    r"""A tree of gates: each inner node sends a row right with a probability that it learns.

    $$p_i(x) = \sigma\big(\beta\,(x w_i + b_i)\big), \qquad P^\ell(x) = \prod_{i \to \ell}
      p_i(x) \text{ or } 1 - p_i(x), \qquad q(x) = \sum_\ell P^\ell(x)\,
      \mathrm{softmax}(\phi^\ell)$$

    Inner nodes are numbered level by level from the root, 0; leaves from left to right. Every gate
    sees the whole input, so that its weights are a picture of it, and a leaf is one fixed answer.

    Args:
        n_features: D, numbers in a row, whatever its axes.
        n_classes: K, 2 or more: a network with one logit has two.
        depth: gates between root and leaf; there are 2^depth leaves.
        beta: steepness of the gates; hard gates have no gradient, so it should not be large.
        seed: of the first weights; the global random state is neither used nor changed.

    Raises:
        TypeError: counts that are not integers.
        ValueError: counts below 1, one class, a `beta` that is not above 0 and finite.

    Reference: Frosst, Hinton (2017), Distilling a Neural Network Into a Soft Decision Tree.
    Elsewhere: a hierarchical mixture of experts (Jordan, Jacobs 1994) whose experts are constant.

    >>> tree = SoftDecisionTree(2, 3, depth=2)
    >>> tree(torch.ones(5, 2)).exp().sum(1).detach().round(decimals=4)
    tensor([1., 1., 1., 1., 1.])
    """

    def __init__(
        self, n_features: int, n_classes: int, *, depth: int, beta: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        if not 0 < check_number("beta", beta) < float("inf"):
            raise ValueError(f"beta must be above 0 and finite, got {beta}")
        wide, classes = check_positive("n_features", n_features), as_integer("n_classes", n_classes)
        if classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {classes}")
        self.depth, self.beta = check_positive("depth", depth), float(beta)
        generator, inner = (
            torch.Generator().manual_seed(as_integer("seed", seed)),
            2**self.depth - 1,
        )
        weight = torch.empty(inner, wide).uniform_(-1, 1, generator=generator)
        leaves = torch.randn(inner + 1, classes, generator=generator)
        self.weight = nn.Parameter(weight / wide**0.5)
        self.bias = nn.Parameter(torch.zeros(inner))
        self.leaf_logits = nn.Parameter(0.1 * leaves)

    def gates(self, x: Tensor) -> Tensor:
        """Return the probability of going right at every inner node, (N, 2^depth - 1)."""
        rows = x.flatten(1)
        if rows.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"the tree takes {self.weight.shape[1]} numbers a row, got x {tuple(x.shape)}"
            )
        return torch.sigmoid(self.beta * F.linear(rows, self.weight, self.bias))

    def arrivals(self, x: Tensor) -> Tensor:
        r"""Return with what probability a row comes to each node: (N, 2^(depth+1) - 1), root first.

        The last 2^depth columns are the leaves', $P^\ell(x)$, and sum to 1.
        """
        right = self.gates(x)
        levels = [torch.ones_like(right[:, :1])]
        for level in range(self.depth):
            p = right[:, 2**level - 1 : 2 ** (level + 1) - 1]
            both = torch.stack([levels[-1] * (1 - p), levels[-1] * p], dim=2)
            levels.append(both.flatten(1))
        return torch.cat(levels, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (N, K), every leaf's answer weighted by its probability.

        Softmax leaves them as they are, so they may serve wherever logits are asked for.
        """
        leaves = F.softmax(self.leaf_logits, dim=1)
        mixed = _fine(self.arrivals(x)[:, -len(leaves) :] @ leaves)  # 1e-30 is 0 in half
        return mixed.clamp_min(1e-30).log().to(leaves.dtype)

    def paths(self, x: Tensor) -> Tensor:
        """Return the inner nodes from the root to the likeliest leaf, (N, depth), as numbers.

        These few gates, and that leaf, are the explanation of the row.
        """
        number = self._leaf(x) + 2**self.depth  # counted from 1, a node's parent is half its number
        return torch.stack([(number >> up) - 1 for up in range(self.depth, 0, -1)], dim=1)

    def decide(self, x: Tensor) -> Tensor:
        """Return the log-probabilities (N, K) of the likeliest leaf alone: a hard tree."""
        return F.log_softmax(self.leaf_logits, dim=1)[self._leaf(x)]

    def _leaf(self, x: Tensor) -> Tensor:
        """Return the likeliest leaf (N,); NaN would lead to some leaf without a word."""
        return self.arrivals(check_input(self, x))[:, -(2**self.depth) :].argmax(1)

    def loss(self, x: Tensor, targets: Tensor, *, penalty: float = 0.1) -> Tensor:
        r"""Return the mean cross-entropy of the leaves, and a price for gates that go one way.

        $$\sum_\ell P^\ell(x) \Big(-\sum_k T_k \log Q_k^\ell\Big) - \lambda \sum_i 2^{-d_i}
          \tfrac12 \big(\log a_i + \log(1 - a_i)\big)$$

        $a_i$ is the share of the rows that node i sends right, of those that come to it, and
        $d_i$ its depth, 0 at the root. The paper prints a logarithm around the first sum, whose
        argument would be negative; its words say what stands here.

        Args:
            x: (N, ...) floats.
            targets: $T$, (N, K) probabilities: a teacher's, or ones and zeros.
            penalty: $\lambda$; 0: gates may send all rows one way and waste their subtree.
        """
        arrivals, n_inner = _fine(self.arrivals(x)), 2**self.depth - 1
        surprise = -targets.to(arrivals) @ F.log_softmax(_fine(self.leaf_logits), dim=1).T
        # node i's right child is node 2i + 2
        a = arrivals[:, 2::2].sum(0) / arrivals[:, :n_inner].sum(0).clamp_min(1e-12)
        a = a.clamp(1e-6, 1 - 1e-6)
        levels = torch.arange(self.depth, device=a.device)
        price = (0.5**levels).repeat_interleave(2**levels) * 0.5 * (a.log() + (1 - a).log())
        # surprise: (N, leaves), how wrong each leaf's answer is for each row
        return (arrivals[:, n_inner:] * surprise).sum(1).mean() - penalty * price.sum()


def distill_soft_tree(
    tree: SoftDecisionTree,
    teacher: Model,
    train: Pair,
    valid: Pair,
    *,
    temperature: float = 1.0,
    alpha: float = 1.0,
    penalty: float = 0.1,
    epochs: int,
    learning_rate: float = 1e-2,
    batch_size: int = 64,
    seed: int = 0,
) -> History:
    r"""Train a soft decision tree on a teacher's probabilities: Adam on `SoftDecisionTree.loss`.

    $$T = \alpha\,\mathrm{softmax}(t / T_{\text{temp}}) + (1 - \alpha)\,\mathrm{onehot}(y)$$

    Args:
        tree: its parameters change, and it ends in evaluation mode.
        teacher: (N, ...) -> logits (N, K); it stays as it is.
        train: inputs (N, ...) and class numbers (N,) to learn from.
        valid: the same, held out.
        temperature: softens the teacher's probabilities; > 0.
        alpha: share of the teacher, 0 (labels alone) to 1 (teacher alone).
        penalty: what gates pay that send all rows one way.
        epochs: how often every row is visited.
        learning_rate: Adam's first step size, which falls to 0 along a cosine.
        batch_size: rows a step; the balance of a gate is measured within them.
        seed: of the order of rows.

    Returns:
        `train_loss` is the tree's loss, `valid_loss` and `valid_accuracy` ask for labels.

    Raises:
        TypeError, ValueError, FloatingPointError: as `distill`; a negative `penalty`.

    Reference: Frosst, Hinton (2017), Distilling a Neural Network Into a Soft Decision Tree.
    Elsewhere: no library that is kept up to date.

    >>> rows = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> teacher, tree = lambda x: torch.cat([-9 * x, 9 * x], 1), SoftDecisionTree(1, 2, depth=1)
    >>> history = distill_soft_tree(tree, teacher, rows, rows, epochs=50, learning_rate=0.1)
    >>> history.valid_accuracy[-1]
    1.0
    """
    _check_mix(temperature, alpha)
    if not 0 <= check_number("penalty", penalty) < float("inf"):
        raise ValueError(f"penalty must be 0 or more, got {penalty}")
    if not isinstance(tree, SoftDecisionTree):
        raise TypeError(f"tree must be a SoftDecisionTree, got {type(tree).__name__}")
    x, y, logits = _lesson(tree, teacher, train, valid)
    labels = F.one_hot(y, logits.shape[1])
    targets = alpha * _softened(logits, temperature) + (1 - alpha) * labels

    def loss_of(rows: Tensor) -> Tensor:
        return tree.loss(x[rows], targets[rows], penalty=penalty)

    plan = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    return _train(tree, len(x), valid, loss_of, learning_rate, plan)


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """Return probabilities (N, K) at a temperature, however near to 0 it is."""
    return F.softmax((logits - logits.amax(1, keepdim=True)) / temperature, dim=1)


def distill_tree(
    teacher: Model,
    x: Tensor,
    *,
    temperature: float = 1.0,
    max_depth: int | None = None,
    max_leaves: int | None = None,
    seed: int = 0,
) -> DecisionTreeRegressor:
    r"""Grow a CART tree that predicts a teacher's probabilities.

    $$\min_{\text{tree}} \; \sum_n \big\| \mathrm{softmax}(t(x_n) / T) - q(x_n) \big\|^2$$

    For a teacher that is sure of everything, this is the usual classification tree: the squared
    error of ones and zeros is the Gini impurity.

    Args:
        teacher: (N, ...) -> logits (N, K), one logit (N, 1) or (N,) for two classes; it stays as
            it is.
        x: (N, ...) floats of any precision, which the tree takes in single; labels are not needed.
        temperature: softens the probabilities; near 0 they become ones and zeros.
        max_depth: questions a row is asked at most; None: as many as it takes.
        max_leaves: rules at most, 2 or more; None: any number.
        seed: decides between splits that are equally good.

    Returns:
        A fitted scikit-learn tree: `.predict(x.flatten(1).numpy())` gives (N, K) probabilities.

    Raises:
        TypeError: as `check_input`; counts that are not integers.
        ValueError: as `check_input`; a depth below 1, leaves below 2; a temperature not above 0;
            numbers too large for single precision.
        FloatingPointError: the teacher answers NaN.

    Reference: Craven, Shavlik (1996), Extracting Tree-Structured Representations of Trained
        Networks (a tree that asks the network); Breiman, Friedman, Olshen, Stone (1984),
        Classification and Regression Trees.
    Elsewhere: scikit-learn `DecisionTreeRegressor`; interpret, alibi: surrogate trees.

    >>> teacher = lambda rows: torch.cat([-50 * rows, 50 * rows], 1)
    >>> tree = distill_tree(teacher, torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), max_depth=1)
    >>> float(tree.tree_.threshold[0]), tree.predict([[3.0]]).round(3).tolist()
    (0.0, [[0.0, 1.0]])
    """
    _check_mix(temperature, 1.0)
    depth = None if max_depth is None else check_positive("max_depth", max_depth)
    leaves = None if max_leaves is None else as_integer("max_leaves", max_leaves)
    if leaves is not None and leaves < 2:
        raise ValueError(f"max_leaves must be at least 2, got {leaves}")
    probs = _softened(_answers(teacher, x).double(), temperature)
    table = as_array(x.flatten(1))
    if np.abs(table).max() > np.finfo(np.float32).max:
        raise ValueError("x holds numbers too large for the single precision in which trees work")
    seed = as_integer("seed", seed)
    tree = DecisionTreeRegressor(max_depth=depth, max_leaf_nodes=leaves, random_state=seed)
    return tree.fit(table, as_array(probs))


# ---- how far the student follows -----------------------------------------------------------------

Answers = Tensor | np.ndarray | list[int]


def fidelity(teacher: Answers, student: Answers) -> float:
    r"""Measure in how many rows the student decides as the teacher does, right or wrong.

    $$\frac{1}{N} \sum_n \big[\arg\max_k t_k(x_n) = \arg\max_k s_k(x_n)\big]$$

    Args:
        teacher: what it says of N rows: (N, K) scores of any kind, (N,) class numbers, or one
            logit, (N, 1) or (N,), which says class 1 above 0.
        student: the same of the student.

    Returns:
        A share, 0 to 1.

    Raises:
        TypeError: no numbers.
        ValueError: no rows, two numbers of rows, or other shapes; NaN; a class that the other's
            (N, K) scores do not have; one column within 0..1, which may be probabilities.

    Reference: Craven, Shavlik (1996), Extracting Tree-Structured Representations of Trained
        Networks.
    Elsewhere: scikit-learn `accuracy_score(teacher, student)`.

    >>> fidelity(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
    0.5
    """
    said = [
        as_array(one) if isinstance(one, Tensor) else np.asarray(one) for one in (teacher, student)
    ]
    shapes = [one.shape for one in said]
    if not all(one.ndim in (1, 2) and one.size for one in said) or len(said[0]) != len(said[1]):
        raise ValueError(f"both must be (N, K) scores or (N,) classes of N rows, got {shapes}")
    first, second = map(_decisions, said)
    known = min([one.shape[1] for one in said if one.ndim == 2 and one.shape[1] > 1], default=None)
    if known is not None and all(one.ndim == 1 or one.shape[1] == known for one in said):
        largest = int(max(first.max(), second.max()))
        if largest >= known:
            raise ValueError(f"there are {known} columns of scores, and a class number {largest}")
    return float((first == second).mean())


def _decisions(said: np.ndarray) -> np.ndarray:
    """Return the class (N,) that each row of scores, logits or class numbers speaks for."""
    if said.dtype.kind not in "iufb":
        raise TypeError(f"scores and classes must be numbers, got {said.dtype}")
    if said.dtype.kind == "f" and np.isnan(said).any():
        raise ValueError(f"the answers hold {int(np.isnan(said).sum())} NaN")
    if said.ndim == 2 and said.shape[1] > 1:
        return said.argmax(1)
    flat = said.ravel()
    if said.ndim == 1 and (flat % 1 == 0).all() and (flat >= 0).all():
        return flat.astype(np.int64)
    if ((flat >= 0) & (flat <= 1)).all():
        raise ValueError(
            "one column within 0..1 may hold logits or probabilities: give class numbers, "
            "(logits > 0) or (probabilities > 0.5)"
        )
    return np.asarray(classes_of(torch.as_tensor(flat, dtype=torch.float64)))


def explanation_agreement(teacher_maps: Tensor, student_maps: Tensor) -> Tensor:
    r"""Compare where two models look: the rank correlation of their maps, row by row.

    $$\rho_n = \mathrm{corr}\big(\mathrm{rank}(A_n), \mathrm{rank}(B_n)\big)$$

    Both maps must explain the same class, also where the student would choose another. The
    correlation of maps of other rows says what is chance.

    Args:
        teacher_maps: $A$, (N, ...) explanations of N rows, by any method.
        student_maps: $B$, the same shape, by the same method.

    Returns:
        (N,) float64 in -1..1; NaN where a map is constant and so ranks nothing.

    Raises:
        TypeError: maps that are no tensors.
        ValueError: two shapes, no rows, one number a row, or NaN.

    Reference: Spearman (1904), The Proof and Measurement of Association between Two Things;
        Adebayo et al. (2018), Sanity Checks for Saliency Maps (of maps).
    Elsewhere: scipy `spearmanr`, for one pair.

    >>> a, b = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 8.0, 9.0]])
    >>> explanation_agreement(a, b), explanation_agreement(a, -b)
    (tensor([1.], dtype=torch.float64), tensor([-1.], dtype=torch.float64))
    """
    for name, one in (("teacher_maps", teacher_maps), ("student_maps", student_maps)):
        if not isinstance(one, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(one).__name__}")
        if one.isnan().any():
            raise ValueError(f"{name} holds {int(one.isnan().sum())} NaN, which has no rank")
    if teacher_maps.shape != student_maps.shape or teacher_maps[:1].numel() < 2:
        raise ValueError(
            "maps must have one shape (N, ...) with two numbers a row or more, got "
            f"{tuple(teacher_maps.shape)} and {tuple(student_maps.shape)}"
        )
    maps = [as_array(one.flatten(1)) for one in (teacher_maps, student_maps)]
    a, b = (torch.as_tensor(rankdata(one, axis=1)) for one in maps)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


make_callable(__name__)
