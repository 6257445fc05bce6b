"""Distillation against paper, its limits, torch's KLDivLoss, scikit-learn's trees and scipy."""

import subprocess
import sys
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from tests.toys import linear
from xailab import data, models
from xailab.attribution.saliency import saliency
from xailab.simplify.distill import (
    SoftDecisionTree,
    distill,
    distill_soft_tree,
    distill_tree,
    distillation_loss,
    explanation_agreement,
    fidelity,
)

DRAWN = torch.Generator().manual_seed(0)
S, T = (torch.randn(6, 4, generator=DRAWN, dtype=torch.float64) for _ in range(2))
Y = torch.tensor([0, 3, 1, 1, 2, 0])


def gradient(student: Tensor, *, temperature: float, alpha: float) -> Tensor:
    """Of the loss with respect to the student's logits; a row's own, without the mean's 1/N."""
    leaf = student.clone().requires_grad_()
    loss = distillation_loss(leaf, T, Y, temperature=temperature, alpha=alpha)
    return torch.autograd.grad(loss, leaf)[0] * len(student)


# ---- the loss ----------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """T = 2: the teacher says 3/4 and 1/4, the student 1/2 and 1/2; the label is the second."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * log(3), 0.0]])
    divergence = 0.75 * log(1.5) + 0.25 * log(0.5)
    for alpha in (0.0, 0.25, 1.0):
        want = alpha * 4 * divergence + (1 - alpha) * log(2)
        loss = distillation_loss(student, teacher, torch.tensor([1]), temperature=2, alpha=alpha)
        assert loss.item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_equals_its_formula_number_by_number(temperature: float) -> None:
    total = 0.0
    for s, t, y in zip(S.tolist(), T.tolist(), Y.tolist(), strict=True):
        p, q = ([exp(z / temperature) for z in row] for row in (t, s))
        p, q = ([one / sum(row) for one in row] for row in (p, q))
        kl = sum(a * log(a / b) for a, b in zip(p, q, strict=True))
        cross_entropy = -log(exp(s[y]) / sum(exp(z) for z in s))
        total += 0.7 * temperature**2 * kl + 0.3 * cross_entropy
    loss = distillation_loss(S, T, Y, temperature=temperature, alpha=0.7)
    assert loss.item() == pytest.approx(total / len(S), abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_equals_torch_and_torchs_default_divides_by_k(temperature: float) -> None:
    pair = F.log_softmax(S / temperature, 1), F.softmax(T / temperature, 1)
    ours = distillation_loss(S, T, Y, temperature=temperature, alpha=1.0).item()
    assert nn.KLDivLoss(reduction="batchmean")(*pair).item() * temperature**2 == pytest.approx(
        ours, abs=1e-12
    )
    with pytest.warns(UserWarning, match="reduction: 'mean' divides"):
        default = nn.KLDivLoss()(*pair).item() * temperature**2
    assert 4 * default == pytest.approx(ours, abs=1e-12)  # what its default forgets: K = 4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
def test_the_gradient_is_t_times_the_difference_of_probabilities(temperature: float) -> None:
    want = temperature * (F.softmax(S / temperature, 1) - F.softmax(T / temperature, 1))
    found = gradient(S, temperature=temperature, alpha=1.0)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)


def test_at_temperature_one_it_is_cross_entropy_with_soft_labels() -> None:
    leaf = S.clone().requires_grad_()
    loss = F.cross_entropy(leaf, F.softmax(T, 1), reduction="sum")
    (want,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(gradient(S, temperature=1.0, alpha=1.0), want, rtol=0, atol=1e-12)


def test_as_the_temperature_grows_the_student_copies_centered_logits() -> None:
    centered = (S - S.mean(1, keepdim=True)) - (T - T.mean(1, keepdim=True))
    gaps = []
    for temperature in (10.0, 100.0, 1000.0):
        found = gradient(S, temperature=temperature, alpha=1.0)
        gaps.append((found - centered / 4).abs().max().item())
    assert gaps[2] < 1e-3
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)  # the gap closes as 1/T
    # Without T^2 nothing would be left of it.
    assert found.abs().max() / 1000.0**2 < 1e-6


def test_without_the_teachers_share_the_teacher_is_not_heard() -> None:
    loss = distillation_loss(S, T, Y, temperature=7.0, alpha=0.0)
    assert loss.item() == pytest.approx(F.cross_entropy(S, Y).item(), abs=1e-12)


def test_no_gradient_flows_into_the_teacher() -> None:
    student, teacher = S.clone().requires_grad_(), T.clone().requires_grad_()
    distillation_loss(student, teacher, Y, temperature=2.0, alpha=0.5).backward()
    assert student.grad is not None
    assert teacher.grad is None


def best_logits(teacher: Tensor, y: int, temperature: float, alpha: float) -> Tensor:
    """The logits of one row that have the least loss, found by descent."""
    free = torch.zeros_like(teacher, requires_grad=True)
    steps = torch.optim.LBFGS([free], lr=1, max_iter=300, tolerance_grad=1e-12)
    label = torch.tensor([y])

    def closure() -> Tensor:
        steps.zero_grad()
        loss = distillation_loss(free, teacher, label, temperature=temperature, alpha=alpha)
        loss.backward()
        return loss

    steps.step(closure)
    return free.detach()


@pytest.mark.parametrize(("temperature", "mixes"), [(1.0, True), (4.0, False)])
def test_what_is_mixed_is_targets_and_only_at_temperature_one(
    temperature: float, mixes: bool
) -> None:
    """The myth: a distilled student is a weighted sum of teachers.

    What is added up is a loss. At T = 1 the best answer is the weighted sum of the teacher's
    probabilities and the label; at T = 4 it is not even that.
    """
    teacher = 5 * T[:1]
    best = F.softmax(best_logits(teacher, 3, temperature, alpha=0.6), 1)
    mixed = 0.6 * F.softmax(teacher, 1) + 0.4 * F.one_hot(torch.tensor([3]), 4)
    gap = (best - mixed).abs().max().item()
    assert (gap < 1e-5) if mixes else (gap > 0.1)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 5.0])
def test_a_student_that_is_able_to_ends_where_the_teacher_is(temperature: float) -> None:
    best = best_logits(T[:1], 0, temperature, alpha=1.0)
    torch.testing.assert_close(F.softmax(best, 1), F.softmax(T[:1], 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"temperature": 0.0}, ValueError, "temperature must be above 0.*got 0"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": float("inf")}, ValueError, "temperature"),
        ({"alpha": 1.5}, ValueError, r"alpha must lie in 0\.\.1, got 1.5"),
        ({"alpha": -0.1}, ValueError, "alpha"),
        ({"teacher_logits": T[:, :3]}, ValueError, r"\(6, 4\) and \(6, 3\)"),
        ({"student_logits": S[None], "teacher_logits": T[None]}, ValueError, r"\(N, K\)"),
        ({"student_logits": S[:0], "teacher_logits": T[:0]}, ValueError, r"\(0, 4\)"),
        ({"student_logits": S.long()}, TypeError, "student_logits.*int64"),
        ({"teacher_logits": T.numpy()}, TypeError, "teacher_logits.*float64"),
        ({"temperature": "2"}, TypeError, "temperature must be one number, got str"),
        ({"y": Y[:5]}, ValueError, r"y must be \(6,\).*got shape \(5,\)"),
        ({"y": F.one_hot(Y)}, ValueError, r"argmax\(1\)"),
        ({"y": Y + 1}, ValueError, r"0\.\.3.*the class 4"),
        ({"y": Y - 1}, ValueError, r"0\.\.3.*the class -1"),
        ({"y": Y + 0.5}, ValueError, "fractions"),
        ({"y": ["a"] * 6}, TypeError, "y must hold class numbers"),
    ],
)
def test_bad_loss(change: dict[str, Any], error: type[Exception], words: str) -> None:
    usual = {"student_logits": S, "teacher_logits": T, "y": Y, "temperature": 2.0, "alpha": 0.5}
    with pytest.raises(error, match=words):
        distillation_loss(**(usual | change))  # type: ignore[arg-type]


# ---- network to network --------------------------------------------------------------------------

X = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
TEACHER = linear([[2.0, -1.0, 0.5], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]], [0.3, 0.0, -0.3])
LABELS = TEACHER(X).argmax(1)
NOISE = torch.randint(3, (200,), generator=torch.Generator().manual_seed(2))


def deep() -> nn.Sequential:
    return nn.Sequential(*[linear(torch.eye(3).tolist()) for _ in range(2)])


def blank() -> nn.Linear:
    return linear([[0.0] * 3] * 3, [0.0] * 3)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_linear_student_finds_a_linear_teacher(temperature: float) -> None:
    """Though every label it is given is drawn by lot; logits are fixed up to a constant."""
    student = blank()
    options: dict[str, Any] = {"temperature": temperature, "epochs": 60, "learning_rate": 0.1}
    distill(student, TEACHER, (X, NOISE), (X, LABELS), alpha=1.0, **options)
    found, want = student.weight, TEACHER.weight
    torch.testing.assert_close(found - found.mean(0), want - want.mean(0), rtol=0, atol=0.03)


def test_a_small_student_is_no_multiple_of_its_teacher() -> None:
    """The teacher knows x0 x1; a linear student cannot, however long it listens."""

    def teacher(x: Tensor) -> Tensor:
        score = x[:, :1] * x[:, 1:2] + x[:, 2:]
        return torch.cat([score, -score], 1)

    rows, student = (X, teacher(X).argmax(1)), linear([[0.0] * 3] * 2, [0.0] * 2)
    distill(student, teacher, rows, rows, alpha=1.0, epochs=40, learning_rate=0.1)
    a, b = (teacher(X)[:, 0], student(X)[:, 0].detach())
    share = ((b - (a @ b) / (a @ a) * a).square().sum() / b.square().sum()).item()
    assert share > 0.2  # of the student is outside the line of the teacher's multiples


def test_labels_alone_do_not_hear_the_teacher() -> None:
    students = [blank(), blank()]
    for student, teacher in zip(students, (TEACHER, lambda x: -9 * x), strict=True):
        distill(student, teacher, (X, LABELS), (X, LABELS), alpha=0.0, epochs=2)
    assert torch.equal(students[0].weight, students[1].weight)


def test_the_seed_decides_and_the_global_state_is_left_alone() -> None:
    students = [nn.Sequential(nn.Dropout(0.5), blank()) for _ in range(3)]
    before, found = torch.get_rng_state(), []
    for student, seed in zip(students, (0, 0, 1), strict=True):
        history = distill(student, TEACHER, (X, LABELS), (X, LABELS), epochs=2, seed=seed)
        found.append((student[1].weight.detach().clone(), history))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert not torch.equal(found[0][0], found[2][0])
    assert [len(one) for one in found[0][1][:3]] == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"epochs": 0}, ValueError, "epochs"),
        ({"batch_size": 2.5}, TypeError, "batch_size"),
        ({"temperature": -1.0}, ValueError, "temperature"),
        ({"train": (X, LABELS[:9])}, ValueError, r"train: y must be \(200,\)"),
        ({"train": (X * float("nan"), LABELS)}, ValueError, "NaN"),
        ({"train": (X[:0], LABELS[:0])}, ValueError, "x is empty"),
        ({"train": X}, TypeError, "train must be a pair"),
        ({"valid": (X * float("nan"), LABELS)}, ValueError, "valid: x holds NaN"),
        ({"valid": (X, LABELS + 5)}, ValueError, r"valid: y must lie in 0\.\.2"),
        ({"student": lambda x: TEACHER(x)}, TypeError, "nn.Module"),
        ({"student": blank().requires_grad_(False)}, ValueError, "no weights to train"),
        (
            {"student": nn.Sequential(nn.BatchNorm1d(3), blank()), "batch_size": 1},
            ValueError,
            "batch norm '0'",
        ),
        (
            {"teacher": lambda x: TEACHER(x) * float("nan")},
            FloatingPointError,
            "teacher answers NaN",
        ),
        ({"train": (X, LABELS + 5)}, ValueError, r"0\.\.2"),
        (
            {"student": linear([[1.0] * 3] * 2)},
            ValueError,
            "student knows 2 classes, the teacher 3",
        ),
        ({"student": deep(), "learning_rate": 1e30}, FloatingPointError, "smaller learning rate"),
    ],
)
def test_bad_distillation(change: dict[str, Any], error: type[Exception], words: str) -> None:
    usual = {"student": blank(), "teacher": TEACHER, "train": (X, LABELS), "valid": (X, LABELS)}
    with pytest.raises(error, match=words):
        distill(**({"epochs": 3} | usual | change))


# ---- soft decision trees -------------------------------------------------------------------------


def planted(depth: int, beta: float = 1.0) -> SoftDecisionTree:
    """A tree whose weights are drawn, so that no number in it is special."""
    tree = SoftDecisionTree(3, 3, depth=depth, beta=beta).double()
    drawn = torch.Generator().manual_seed(5)
    for one in tree.parameters():
        one.data = torch.randn(one.shape, generator=drawn, dtype=torch.float64)
    return tree


def by_walking(tree: SoftDecisionTree, row: Tensor, node: int = 0, p: float = 1.0) -> list[float]:
    """Probability of each leaf below a node: the definition, down every branch."""
    inner = 2**tree.depth - 1
    if node >= inner:
        return [p]
    right = torch.sigmoid(tree.beta * (row @ tree.weight[node] + tree.bias[node])).item()
    return by_walking(tree, row, 2 * node + 1, p * (1 - right)) + by_walking(
        tree, row, 2 * node + 2, p * right
    )


def test_one_gate_by_hand() -> None:
    """The gate says right with 3/4; the left leaf says (1/2, 1/2), the right one (1/10, 9/10)."""
    tree = SoftDecisionTree(1, 2, depth=1, beta=2.0)
    tree.weight.data[:], tree.bias.data[:] = log(3) / 2, 0.0
    tree.leaf_logits.data = torch.tensor([[0.0, 0.0], [0.0, log(9)]])
    x = torch.ones(1, 1)
    want = torch.tensor([[0.25 * 0.5 + 0.75 * 0.1, 0.25 * 0.5 + 0.75 * 0.9]])
    torch.testing.assert_close(tree(x).exp(), want)
    torch.testing.assert_close(tree.decide(x).exp(), torch.tensor([[0.1, 0.9]]))
    targets = torch.tensor([[0.0, 1.0]])
    leaves = 0.25 * log(2) + 0.75 * log(10 / 9)
    assert tree.loss(x, targets, penalty=0).item() == pytest.approx(leaves, rel=1e-5)
    price = -0.5 * (log(0.75) + log(0.25))
    assert tree.loss(x, targets, penalty=2).item() == pytest.approx(leaves + 2 * price, rel=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_tree_equals_walking_down_every_branch(depth: int) -> None:
    tree, rows = planted(depth, beta=1.3), X[:5].double()
    leaves = torch.tensor([by_walking(tree, row) for row in rows], dtype=torch.float64)
    arrivals = tree.arrivals(rows)
    torch.testing.assert_close(arrivals[:, -(2**depth) :], leaves, rtol=0, atol=1e-12)
    answers = leaves @ F.softmax(tree.leaf_logits, 1)
    torch.testing.assert_close(tree(rows).exp(), answers, rtol=0, atol=1e-12)
    likeliest = F.log_softmax(tree.leaf_logits, 1)[leaves.argmax(1)]
    torch.testing.assert_close(tree.decide(rows), likeliest, rtol=0, atol=1e-12)


def test_the_path_leads_to_the_likeliest_leaf() -> None:
    """Left, then right, and so on: nodes 0, 1, 4 are those above leaf 2 of 8."""
    tree, rows = planted(3), X[:50].double()
    leaves = tree.arrivals(rows)[:, -8:].argmax(1).tolist()
    above = {0: [0, 1, 3], 1: [0, 1, 3], 2: [0, 1, 4], 3: [0, 1, 4]}
    above |= {4: [0, 2, 5], 5: [0, 2, 5], 6: [0, 2, 6], 7: [0, 2, 6]}
    assert tree.paths(rows).tolist() == [above[leaf] for leaf in leaves]
    assert len(set(leaves)) > 3


def test_the_loss_of_a_tree_equals_its_formula() -> None:
    tree, rows = planted(2), X[:7].double()
    targets = F.softmax(TEACHER(X[:7]).double(), 1)
    leaf_logs = F.log_softmax(tree.leaf_logits, 1)
    total = 0.0
    for row, target in zip(rows, targets, strict=True):
        for p, logs in zip(by_walking(tree, row), leaf_logs, strict=True):
            total += p * -(target @ logs).item()
    root = torch.sigmoid(rows @ tree.weight[0] + tree.bias[0])
    price = 0.0
    for node, comes, weight in ((0, torch.ones(7), 1.0), (1, 1 - root, 0.5), (2, root, 0.5)):
        right = torch.sigmoid(rows @ tree.weight[node] + tree.bias[node])
        a = ((comes * right).sum() / comes.sum()).item()
        price -= weight * 0.5 * (log(a) + log(1 - a))
    assert tree.loss(rows, targets, penalty=0).item() == pytest.approx(total / 7, abs=1e-12)
    assert tree.loss(rows, targets, penalty=0.3).item() == pytest.approx(
        total / 7 + 0.3 * price, abs=1e-12
    )


def test_the_leaves_pay_at_least_what_their_mixture_pays() -> None:
    """Jensen: the loss that is trained bounds the cross-entropy of the tree's answer."""
    tree, rows = planted(3), X.double()
    targets = F.softmax(TEACHER(X).double(), 1)
    mixture = -(targets * tree(rows)).sum(1).mean()
    assert tree.loss(rows, targets, penalty=0) > mixture


def test_with_steep_gates_it_is_scikit_learns_tree() -> None:
    x = X.double().numpy()
    cart = DecisionTreeClassifier(max_depth=2, random_state=0).fit(x, LABELS)
    tree, numbers = SoftDecisionTree(3, 3, depth=2, beta=1e6).double(), cart.tree_
    left, right = numbers.children_left, numbers.children_right
    inner = [0, left[0], right[0]]
    leaves = [side[node] for node in inner[1:] for side in (left, right)]
    assert min(leaves) > 0  # the tree is complete
    tree.weight.data[:] = 0
    for place, node in enumerate(inner):
        tree.weight.data[place, numbers.feature[node]] = 1
        tree.bias.data[place] = -numbers.threshold[node]
    tree.leaf_logits.data = torch.tensor(numbers.value[leaves, 0]).clamp_min(1e-12).log()
    np.testing.assert_allclose(tree(X.double()).exp().detach(), cart.predict_proba(x), atol=1e-9)
    np.testing.assert_array_equal(tree.decide(X.double()).argmax(1), cart.predict(x))


def test_a_soft_tree_learns_four_quarters_and_uses_every_leaf() -> None:
    y = 2 * (X[:, 0] > 0).long() + (X[:, 1] > 0).long()

    def teacher(x: Tensor) -> Tensor:
        a, b = 8 * x[:, 0], 8 * x[:, 1]
        return torch.stack([-a - b, b - a, a - b, a + b], 1)

    tree = SoftDecisionTree(3, 4, depth=2)
    history = distill_soft_tree(
        tree, teacher, (X, NOISE), (X, y), epochs=60, learning_rate=0.1, penalty=0.1
    )
    assert history.valid_accuracy[-1] > 0.95
    assert fidelity(y, tree.decide(X)) > 0.95
    assert sorted(tree.leaf_logits.argmax(1).tolist()) == [0, 1, 2, 3]


def test_the_share_of_the_teacher_decides_whom_a_tree_follows() -> None:
    found = {}
    for alpha in (0.0, 1.0):
        tree = SoftDecisionTree(3, 3, depth=2)
        options: dict[str, Any] = {"alpha": alpha, "epochs": 30, "learning_rate": 0.1}
        upside_down = (LABELS + 1) % 3
        distill_soft_tree(tree, TEACHER, (X, upside_down), (X, LABELS), **options)
        found[alpha] = fidelity(LABELS, tree(X))
    assert found[1.0] > 0.85
    assert found[0.0] < 0.15


def test_pictures_are_flattened_and_the_seed_decides() -> None:
    assert SoftDecisionTree(12, 2, depth=1)(torch.ones(2, 3, 2, 2)).shape == (2, 2)
    before = torch.get_rng_state()
    a, b, c = (SoftDecisionTree(4, 2, depth=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.weight, c.weight)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"depth": 0}, ValueError, "depth"),
        ({"depth": 1.5}, TypeError, "depth"),
        ({"depth": 1, "beta": 0}, ValueError, "beta"),
        ({"depth": 1, "n_classes": 0}, ValueError, "n_classes"),
    ],
)
def test_bad_tree(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SoftDecisionTree(**({"n_features": 3, "n_classes": 2} | options))


def test_bad_rows_and_bad_penalty_for_a_tree() -> None:
    tree = SoftDecisionTree(4, 3, depth=1)
    with pytest.raises(ValueError, match=r"takes 4 numbers a row, got x \(200, 3\)"):
        tree(X)
    with pytest.raises(ValueError, match="penalty"):
        distill_soft_tree(tree, TEACHER, (X, LABELS), (X, LABELS), epochs=1, penalty=-1)


# ---- CART ----------------------------------------------------------------------------------------


def test_of_a_sure_teacher_it_is_the_usual_classification_tree() -> None:
    x = load_breast_cancer().data
    y = load_breast_cancer().target
    known = {row.tobytes(): label for row, label in zip(x, y, strict=True)}

    def teacher(rows: Tensor) -> Tensor:
        said = torch.tensor([known[row.tobytes()] for row in rows.numpy()])
        return 100.0 * F.one_hot(said, 2).double()

    ours = distill_tree(teacher, torch.as_tensor(x), max_depth=3)
    theirs = DecisionTreeClassifier(max_depth=3, random_state=0).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict_proba(x), atol=1e-9)
    np.testing.assert_array_equal(ours.tree_.threshold, theirs.tree_.threshold)


def test_a_tree_of_one_leaf_says_the_mean_probability() -> None:
    for temperature in (1.0, 5.0):
        tree = distill_tree(TEACHER, X, temperature=temperature, max_leaves=2)
        probs = F.softmax(TEACHER(X).double() / temperature, 1)
        left = tree.apply(X) == tree.tree_.children_left[0]
        want = probs[torch.as_tensor(left)].mean(0).detach()
        np.testing.assert_allclose(tree.predict(X[left])[0], want, atol=1e-9)


def test_a_deeper_tree_follows_better() -> None:
    """A tree asks one number at a time: of a slanted border it makes stairs."""
    told = TEACHER(X).detach()
    found = [
        fidelity(told, distill_tree(TEACHER, X, max_depth=d).predict(X)) for d in (1, 3, 6, None)
    ]
    assert found == sorted(found)
    assert found[0] < 0.8 < found[2]
    assert found[3] == 1.0


# ---- how far the student follows ---------------------------------------------------------------


def test_fidelity_is_accuracy_with_the_teacher_as_truth() -> None:
    assert fidelity(LABELS, NOISE) == pytest.approx(accuracy_score(LABELS, NOISE))
    assert fidelity(TEACHER(X), F.one_hot(NOISE, 3).numpy()) == fidelity(LABELS, NOISE)


@pytest.mark.parametrize("bad", [LABELS[:5], torch.zeros(200, 2, 2), torch.tensor(3)])
def test_bad_fidelity(bad: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(N, K\) scores or \(N,\) classes"):
        fidelity(LABELS, bad)


def test_agreement_by_hand_and_by_scipy() -> None:
    """Ranks (1, 2, 3, 4) and (2, 1, 4, 3): 1 - 6 * 4 / (4 * 15) = 0.6."""
    a, b = torch.tensor([[1.0, 5.0, 6.0, 9.0]]), torch.tensor([[0.2, 0.1, 0.9, 0.3]])
    assert explanation_agreement(a, b).item() == pytest.approx(0.6)
    drawn = torch.Generator().manual_seed(3)
    a, b = (torch.randint(5, (6, 2, 3, 3), generator=drawn).float() for _ in range(2))  # with ties
    want = [spearmanr(i.flatten(), j.flatten()).statistic for i, j in zip(a, b, strict=True)]
    np.testing.assert_allclose(explanation_agreement(a, b), want, atol=1e-12)


def test_agreement_sees_order_alone_and_says_when_there_is_none() -> None:
    maps = X.reshape(20, 5, 6)
    torch.testing.assert_close(
        explanation_agreement(maps, maps.exp()), torch.ones(20, dtype=torch.float64)
    )
    assert explanation_agreement(maps, torch.zeros_like(maps)).isnan().all()


def test_two_numbers_a_row_have_an_order() -> None:
    a, b = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[3.0, 9.0], [9.0, 3.0]])
    assert explanation_agreement(a, b).tolist() == [1, -1]


@pytest.mark.parametrize("shape", [(20, 30), (3, 5, 6), (0, 5, 6)])
def test_bad_agreement(shape: tuple[int, ...]) -> None:
    first = torch.zeros(20, 5, 6) if shape[0] else torch.zeros(shape)
    with pytest.raises(ValueError, match="maps must have one shape"):
        explanation_agreement(first, torch.zeros(shape))


# ---- on digits: what lesson `distillation` shows, with a margin ----------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return 4,000 digits with labels, and 1,000 more."""
    found = data.load("mnist5k")
    x = torch.as_tensor(found.images / np.float32(255))[:, None]
    y, learn = torch.as_tensor(found.y), torch.as_tensor(found.extra["train"])
    return x[learn], y[learn], x[~learn], y[~learn]


@torch.no_grad()
def test_students_of_other_forms_follow_less(digits: tuple[Tensor, ...]) -> None:
    """The lesson has .92 for the soft tree, .80 for CART, .97 for a small network."""
    x, y, new, new_y = digits
    teacher, soft = models.digit_cnn(), SoftDecisionTree(784, 10, depth=5)
    options: dict[str, Any] = {"epochs": 8, "learning_rate": 3e-2, "batch_size": 128}
    distill_soft_tree(soft, teacher, (x, y), (new[::10], new_y[::10]), **options)
    cart, told = distill_tree(teacher, x, max_depth=8), teacher(new)
    answers = cart.predict(new.flatten(1).numpy())
    assert 0.72 < fidelity(told, answers) < 0.87 < fidelity(told, soft(new))
    assert fidelity(told, soft.decide(new)) > 0.86
    assert fidelity(told, models.digit_students().taught[0](new)) > 0.96


def test_a_teacher_tells_of_a_digit_that_is_never_shown(digits: tuple[Tensor, ...]) -> None:
    """Of the 3s, labels of other digits say nothing, a teacher's answers to them say enough."""
    x, y, new, new_y = digits
    options: dict[str, Any] = {"temperature": 4, "epochs": 2, "learning_rate": 1e-2}
    found = {}
    for alpha in (0.0, 1.0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            student = models.SmallDigitCNN()
        rows = x[y != 3], y[y != 3]
        distill(student, models.digit_cnn(), rows, (new[::10], new_y[::10]), alpha=alpha, **options)
        scores = student(new[new_y == 3]).detach()
        scores[:, 3] += 2  # nothing was a 3, so its bias is too low
        found[alpha] = (scores.argmax(1) == 3).float().mean().item()
    assert found[0.0] < 0.05
    assert found[1.0] > 0.5


def test_a_taught_student_looks_nearer_to_where_its_teacher_looks(
    digits: tuple[Tensor, ...],
) -> None:
    """The lesson has .19 for the taught, .13 for labels, .02 for chance (60 digits)."""
    new = digits[2][torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:60]]
    teacher, students = models.digit_cnn(), models.digit_students()
    target = teacher(new).argmax(1)
    own = saliency(teacher, new, target)

    def mean(networks: nn.ModuleList, roll: int = 0) -> float:
        maps = [saliency(net, new, target).roll(roll, 0) for net in networks]
        return float(np.mean([explanation_agreement(own, one).mean() for one in maps]))

    taught, labels, chance = (
        mean(students.taught),
        mean(students.all_labels),
        mean(students.taught, 1),
    )
    assert taught > labels + 0.02
    assert labels > chance + 0.05
    assert taught < 0.5  # the same answers, and mostly other pixels


# ---- one logit, other kinds of answers, other dtypes ---------------------------------------------

ONE = linear([[2.0, -1.0, 0.5]], [0.3])  # one logit, whose sign decides
SIGN = (ONE(X)[:, 0] > 0).long()


def test_one_logit_is_two_classes_whose_first_says_zero() -> None:
    """By hand, T = 1: the teacher says sigmoid(log 3) = 3/4, the student 1/2; the label is 1."""
    teacher, student = torch.tensor([[log(3)]]), torch.zeros(1, 1)
    divergence = 0.75 * log(1.5) + 0.25 * log(0.5)
    for shape in ((1, 1), (1,)):
        loss = distillation_loss(
            student.reshape(shape), teacher.reshape(shape), [1], temperature=1, alpha=0.25
        )
        assert loss.item() == pytest.approx(0.25 * divergence + 0.75 * log(2), rel=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_a_student_with_one_logit_follows_its_teacher(flat: bool) -> None:
    teacher = nn.Sequential(ONE, nn.Flatten(0)) if flat else ONE
    student = linear([[0.0] * 3], [0.0])
    rows = (X, SIGN.tolist())
    options: dict[str, Any] = {"alpha": 1.0, "epochs": 60, "learning_rate": 0.1}
    history = distill(student, teacher, rows, rows, **options)
    assert history.valid_accuracy[-1] > 0.97
    torch.testing.assert_close(student.weight, ONE.weight, rtol=0, atol=0.1)
    tree = SoftDecisionTree(3, 2, depth=2)
    history = distill_soft_tree(tree, teacher, rows, rows, epochs=30, learning_rate=0.1)
    assert history.valid_accuracy[-1] > 0.9


def test_a_tree_of_one_logit_predicts_its_sigmoid() -> None:
    tree = distill_tree(ONE, X)
    want = torch.sigmoid(ONE(X)).detach()
    np.testing.assert_allclose(tree.predict(X), torch.cat([1 - want, want], 1), atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda z: (z,), lambda z: {"logits": z, "more": z}])
def test_teacher_and_student_may_answer_in_other_forms(wrap: Any) -> None:
    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Any:
            return wrap(self.inner(x))

    student, rows = Wrapped(blank()), (X, LABELS)
    history = distill(student, Wrapped(TEACHER), rows, rows, epochs=2)
    assert history == distill(blank(), TEACHER, rows, rows, epochs=2)
    assert distill_tree(Wrapped(TEACHER), X).predict(X).shape == (200, 3)


def test_a_last_batch_of_one_row_does_not_stop_a_batch_norm() -> None:
    student, rows = nn.Sequential(nn.BatchNorm1d(3), blank()), (X[:65], LABELS[:65])
    distill(student, TEACHER, rows, rows, epochs=1, batch_size=64)
    with torch.no_grad():  # where nobody records, it learns as well
        history = distill(student, TEACHER, rows, rows, epochs=1, batch_size=64)
    assert history.train_loss[0] > 0


def test_a_class_that_the_teacher_holds_impossible_costs_nothing() -> None:
    """0 log 0 is 0: the other class alone counts, -log softmax."""
    teacher, student = torch.tensor([[0.0, -float("inf")]]), torch.tensor([[0.0, 1.0]])
    loss = distillation_loss(student, teacher, [0], temperature=1.0, alpha=1.0)
    assert loss.item() == pytest.approx(log(1 + exp(1)))


def test_half_precision_says_what_single_says() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        loss = distillation_loss(S.to(dtype), T.to(dtype), Y, temperature=2.0, alpha=0.5)
        want = distillation_loss(S, T, Y, temperature=2.0, alpha=0.5)
        assert (loss.dtype, loss.item()) == (torch.float32, pytest.approx(want.item(), rel=0.02))
        teacher = linear(TEACHER.weight.tolist(), TEACHER.bias.tolist()).to(dtype)
        rows = X.to(dtype), LABELS
        probs = distill_tree(teacher, rows[0], max_depth=3).predict(rows[0].float())
        assert fidelity(LABELS, probs) > 0.8
        assert fidelity(teacher(rows[0]), teacher(rows[0])) == 1
        maps = X[:20].to(dtype)
        assert explanation_agreement(maps, maps).tolist() == pytest.approx([1] * 20)
        tree = SoftDecisionTree(3, 3, depth=2).to(dtype)
        assert torch.isfinite(tree(100 * rows[0])).all()
        assert torch.isfinite(tree.loss(rows[0], F.one_hot(LABELS).to(dtype)))
        with pytest.raises(TypeError, match="train in float32"):
            distill(blank().to(dtype), teacher, rows, rows, epochs=1)


def test_near_zero_the_temperature_leaves_ones_and_zeros() -> None:
    tree = distill_tree(TEACHER, X, temperature=1e-300)
    np.testing.assert_allclose(tree.predict(X), F.one_hot(LABELS, 3), atol=1e-9)


def test_rows_with_nan_have_no_path() -> None:
    tree, x = SoftDecisionTree(3, 3, depth=2), X[:4].clone()
    x[2, 1] = float("nan")
    for ask in (tree.paths, tree.decide):
        with pytest.raises(ValueError, match="1 values that are NaN"):
            ask(x)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_depth": 0}, ValueError, "max_depth"),
        ({"max_depth": 2.5}, TypeError, "max_depth"),
        ({"max_leaves": 1}, ValueError, "max_leaves must be at least 2, got 1"),
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"x": 1e39 * X.double()}, ValueError, "too large for the single precision"),
        ({"x": X * float("nan")}, ValueError, "NaN"),
        ({"teacher": lambda x: TEACHER(x) * float("nan")}, RuntimeError, "teacher answers NaN"),
    ],
)
def test_bad_cart(options: dict[str, Any], error: type[Exception], words: str) -> None:
    usual = {"teacher": lambda x: TEACHER(x.clamp(-9, 9).float()), "x": X}
    with pytest.raises(error, match=words):
        distill_tree(**(usual | options))


def test_fidelity_of_one_logit_asks_on_which_side_of_zero_it_lies() -> None:
    logits = torch.tensor([-2.0, 3.0, 0.5, -0.1])
    for one in (logits, logits[:, None], logits.bfloat16(), logits.numpy()):
        assert fidelity([0, 1, 0, 0], one) == 0.75
    assert fidelity(torch.tensor([0.0, 1.0, 2.0]), [0, 1, 1]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("student", "error", "words"),
    [
        (torch.full((2, 3), torch.nan), ValueError, "6 NaN"),
        (np.array(["a", "b"]), TypeError, "must be numbers"),
        (torch.tensor([0.2, 0.8]), ValueError, "may hold logits or probabilities"),
        (torch.tensor([3, 1]), ValueError, "3 columns of scores, and a class number 3"),
    ],
)
def test_answers_that_no_fidelity_can_be_read_from(
    student: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fidelity(torch.eye(3)[:2], student)


def test_maps_that_cannot_be_ranked() -> None:
    maps = X[:4].clone()
    maps[1, 1] = float("nan")
    with pytest.raises(ValueError, match="student_maps holds 1 NaN"):
        explanation_agreement(X[:4], maps)
    with pytest.raises(TypeError, match=r"teacher_maps must be.*got ndarray"):
        explanation_agreement(maps.numpy(), maps)  # type: ignore[arg-type]


def test_a_tree_of_one_class_or_for_another_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="n_classes must be at least 2, got 1"):
        SoftDecisionTree(3, 1, depth=1)
    rows = (X, LABELS)
    with pytest.raises(ValueError, match="knows 2 classes, the teacher 3"):
        distill_soft_tree(SoftDecisionTree(3, 2, depth=1), TEACHER, rows, rows, epochs=1)
    with pytest.raises(TypeError, match="must be a SoftDecisionTree, got Linear"):
        distill_soft_tree(blank(), TEACHER, rows, rows, epochs=1)  # type: ignore[arg-type]


def test_it_imports_without_lightning() -> None:
    code = "import sys; sys.modules['lightning'] = None; import xailab.simplify.distill"
    subprocess.run([sys.executable, "-c", code], check=True)
