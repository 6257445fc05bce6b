"""Exercises of lesson `distillation`: what a student is told, whether that helps, and what it explains."""

from typing import Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_number,
    expect_share,
    question,
)


@exercise(
    "distillation.soft_loss",
    kind="code",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "Divide both logits by the temperature, then take softmax over the classes (dim 1).",
        "KL(p || q) is the sum over classes of p (log p - log q); F.log_softmax gives both "
        "logarithms without overflow.",
        "return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()",
    ),
)
def soft_loss(answer: Any) -> None:
    """T squared times the divergence, summed over classes, averaged over rows."""
    import torch

    student = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[2.0, 1.0, 0.0], [3.0, 0.0, 1.5]], dtype=torch.float64)
    hot = 2.0
    log_p, log_q = ((z / hot).log_softmax(1) for z in (teacher, student))
    want = hot**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    expect_close(
        answer(student, teacher, hot),
        want,
        "the loss at T = 2",
        known=_slips(student, teacher, hot),
    )
    expect_close(
        answer(1000 * student, 1000 * student, 1.0),
        0.0,
        "the loss of equal logits, as large as 2000",
    )


def _slips(student: Any, teacher: Any, hot: float) -> dict[str, Any]:
    """Return what each of the usual mistakes computes."""
    log_p, log_q = ((z / hot).log_softmax(1) for z in (teacher, student))
    cold_p, cold_q = teacher.log_softmax(1), student.log_softmax(1)
    over_p, over_q = ((z / hot).log_softmax(0) for z in (teacher, student))
    each = log_p.exp() * (log_p - log_q)
    back = (log_q.exp() * (log_q - log_p)).sum(1).mean()
    cross = -(log_p.exp() * log_q).sum(1).mean()
    cold = (cold_p.exp() * (cold_p - cold_q)).sum(1).mean()
    return {
        "T squared is missing: without it the slopes vanish as T grows.": each.sum(1).mean(),
        "this multiplies by T, not by its square.": hot * each.sum(1).mean(),
        "the two distributions have changed places: the teacher's p weighs the logarithms.": hot**2
        * back,
        "the mean goes over the classes as well: sum over them (KLDivLoss's default does this "
        "too; ask for reduction='batchmean').": hot**2 * each.mean(),
        "this is the sum over the rows; take their mean.": hot**2 * each.sum(),
        "this is cross-entropy: the teacher's own entropy is to be taken off, so that equal "
        "logits cost nothing.": hot**2 * cross,
        "the logits are not divided by the temperature.": hot**2 * cold,
        "only the student is softened: the teacher's logits are divided by T too.": hot**2
        * (cold_p.exp() * (cold_p - log_q)).sum(1).mean(),
        "only the teacher is softened: the student's logits are divided by T too.": hot**2
        * (log_p.exp() * (log_p - cold_q)).sum(1).mean(),
        "the softmax goes over the rows (dim 0), not over the classes (dim 1).": hot**2
        * (over_p.exp() * (over_p - over_q)).sum(1).mean(),
    }


@exercise(
    "distillation.points",
    kind="predict",
    points=1,
    minutes=2,
    hints=("What does the teacher know of these 4,000 digits that their labels do not say?",),
)
def points(guess: Any) -> None:
    """Percentage points, of either sign."""
    expect_number(guess, -10, 10)


@exercise(
    "distillation.interval",
    kind="code",
    points=2,
    minutes=5,
    difficulty=2,
    hints=(
        "First the differences, pair by pair. Their standard deviation divides by n - 1.",
        "The quantile is student_t.ppf(0.975, n - 1): 4.30 for three pairs.",
        "half = student_t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))",
    ),
)
def interval(answer: Any) -> None:
    """Student's t on paired differences, for any number of pairs."""
    import numpy as np

    a, b = np.array([97.0, 95.0, 96.0]), np.array([95.0, 94.0, 93.0])
    expect_close(
        _pair(answer(a, b)), [2 - 2.48414, 2 + 2.48414], "interval", rtol=5e-3, known=_widths(a, b)
    )
    more = np.array([6.0, 4.0, 5.0, 7.0, 3.0, 5.0, 4.0, 6.0])  # d = 1.3093, t = 2.3646
    want = [5 - 1.09461, 5 + 1.09461]
    slip = "4.30 holds for three pairs; for n of them take student_t.ppf(0.975, n - 1)."
    half = 4.30265 * 1.30931 / 8**0.5
    expect_close(
        _pair(answer(more, 0 * more)),
        want,
        "the interval of eight pairs",
        rtol=5e-3,
        known={slip: [5 - half, 5 + half]},
    )


def _pair(got: Any) -> Any:
    """Return the two ends as numbers, or say what came."""
    import numpy as np

    ends = np.asarray(got, dtype=float)
    if ends.shape != (2,):
        raise Mistake(f"two numbers are asked for, (low, high); {got!r} came.")
    return ends


def _widths(a: Any, b: Any) -> dict[str, Any]:
    """Return what each of the usual mistakes computes."""
    import numpy as np

    d, n = a - b, len(a)
    spread, root, t = d.std(ddof=1), np.sqrt(n), 4.30265
    unpaired = np.sqrt(a.var(ddof=1) + b.var(ddof=1))
    halves = {
        "1.96 is the quantile for very many pairs; with three it is 4.30: student_t.ppf(0.975, "
        "n - 1).": 1.96 * spread / root,
        "1.96 is the quantile for very many pairs, and the standard deviation divides by n here: "
        "take student_t.ppf(0.975, n - 1) and ddof=1.": 1.96 * d.std() / root,
        "the standard deviation divides by n here; with a mean taken from the same pairs it has "
        "to be n - 1 (ddof=1).": t * d.std() / root,
        "this is where single differences lie; the mean of n varies less: divide by the root of "
        "n.": t * spread,
        "this divides by n; the mean varies with its root.": t * spread / n,
        "the degrees of freedom are n - 1, not n.": 3.18245 * spread / root,
        "this is the .95 quantile, which leaves 5 % on each side: for 95 % between the ends take "
        ".975.": 2.91999 * spread / root,
        "a and b are taken as unrelated; they come in pairs, so take the differences first.": t
        * unpaired
        / root,
    }
    known = {text: [d.mean() - half, d.mean() + half] for text, half in halves.items()}
    half = t * spread / root
    known["the differences are b - a; asked is a - b."] = [-d.mean() - half, -d.mean() + half]
    known["the ends have changed places: (low, high)."] = [d.mean() + half, d.mean() - half]
    return known


@exercise(
    "distillation.moved",
    kind="predict",
    points=1,
    minutes=2,
    hints=("How thick is a stroke? What does a tree see that asks for ink in single pixels?",),
)
def moved(guess: Any) -> None:
    """A share."""
    expect_share(guess)


criticize(
    "distillation.credit",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Three steps lead from the 96 % to the letter in the mail. Which of them holds?",
        "On which rows was it measured? Does the same answer mean the same reason? What of the 4 "
        "in 100?",
        "Fidelity on new rows and for the rejected alone; answers against reasons; those on whom "
        "the two models differ get a false reason.",
    ),
    model="""
    The 96 % were measured on the rows the tree was grown on; a tree can learn those by heart,
    so I would ask for its fidelity on new applications, and for each group and for the rejected
    ones alone, since most applications may be easy approvals. Fidelity compares answers, not
    reasons: another model can give the same answer by other means, as our tree did, which asked
    fixed pixels. For the 4 in 100 on whom the two differ, the rule handed out is plainly false.
    I would compare attributions of both models, beside what chance gives, and check each single
    letter: does the network itself change its answer when the rule's condition is changed? If
    the rules are good enough to explain, decide by the tree itself.
    """,
    rubric={
        "new rows": "96% was measured on the rows the tree was grown on; ask for its fidelity on "
        "new applications.",
        "groups": "Ask for it among the rejected alone, and by group: most applications may be "
        "easy approvals.",
        "answers, not reasons": "The same answers do not mean the same reasons: another model can "
        "get there by other means.",
        "the other four": "For the 4 in 100 on whom the two differ, the reason that is handed out "
        "is false.",
        "test each letter": "Check with the network itself: does its answer change when the "
        "condition in the letter changes?",
        "use the tree": "If the rules are good enough to explain the decision, let the tree "
        "decide.",
    },
)


question(
    "distillation.q_hot",
    "Somebody sets T = 20 and forgets the factor T squared. What happens to the training?",
    choices={
        "Nothing: a factor never changes what is best.": "Not the place of the smallest loss. But "
        "the slopes of the teacher's part shrink by 400, so any share of labels outweighs it.",
        "The teacher's part nearly vanishes beside the labels'.": "Its slope falls like 1 / T "
        "squared; the factor is there to keep both parts comparable.",
        "The student learns the labels less.": "The label's part is not softened and keeps its "
        "size.",
    },
    right="The teacher's part nearly vanishes beside the labels'.",
)

question(
    "distillation.q_labels",
    "You have 300 labeled and 50,000 unlabeled pictures, and a large network of another firm that "
    "answers questions. When will distillation help you most?",
    choices={
        "When its answers are right about my pictures.": "A student follows its teacher, mistakes "
        "included. So measure the teacher on the 300 first.",
        "Always: soft targets are better than labels.": "In this lesson they were not, where the "
        "labels were there too.",
        "Only when the student has as many parameters.": "It had a tenth of them here.",
    },
    right="When its answers are right about my pictures.",
)
