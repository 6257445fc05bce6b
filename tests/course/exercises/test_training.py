"""Checks of `training`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support
from torch import nn
from torch.nn import functional as F

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab import models
from xailab.course.registry import exercises_of

LESSON = "training"


def test_output_size_takes_the_model_answer_and_other_ways():
    assert_accepted("training.output_size", solution_of(LESSON, "output_size"))
    assert_accepted(
        "training.output_size",
        lambda n, k, s=1, p=0: models.conv_output_size(n, k, stride=s, padding=p),
    )
    assert_accepted(
        "training.output_size", lambda n, k, s=1, p=0: len(range(0, n + 2 * p - k + 1, s))
    )


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda n, k, s=1, p=0: (n + 2 * p - k) // s, "one stop is missing"),
        (lambda n, k, s=1, p=0: (n + p - k) // s + 1, "counts twice"),
        (lambda n, k, s=1, p=0: (n - k) // s + 1, "padding is ignored"),
        (lambda n, k, s=1, p=0: n + 2 * p - k + 1, "stride is ignored"),
        (lambda n, k, s=1, p=0: (n + 2 * p - k) / s + 1, "round down"),
        (lambda n, k, s=1, p=0: -(-(n + 2 * p - k) // s) + 1, "rounds up"),
        (lambda n, k, s=1, p=0: n + 2 * p - k // s + 1, "parentheses"),
        (lambda *_: None, "None"),
    ],
)
def test_output_size_names_the_mistake(wrong, match):
    assert_rejected("training.output_size", wrong, match)


@pytest.mark.parametrize("id", ["training.forgot", "training.dice"])
def test_guesses_are_shares(id):
    assert_accepted(id, 0.5)
    assert_rejected(id, 50, "write 50% as 0.5")
    assert_rejected(id, -0.1, "from 0 to 1")


def test_stop_is_an_epoch():
    assert_accepted("training.stop", 12)
    assert_rejected("training.stop", 60, "59")
    assert_rejected("training.stop", 0.5, "whole numbers")


# ---- debug this


def mended(**changes):
    return solution_of(LESSON, "mended") | changes


def test_debug_takes_the_model_answer_and_another_way():
    assert_accepted("training.debug", mended())
    blocks = [
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
    ]

    def backward(net, pictures, truth):
        F.cross_entropy(net(pictures), truth).backward()

    another = {
        "mlp": nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)),  # without the lambda
        "cnn": lambda: nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128, 10)),
        "alexnet": lambda: models.resnet(depth=8),
        "backward": backward,
        "loss": nn.CrossEntropyLoss(),
    }
    assert_accepted("training.debug", another)


def test_every_broken_piece_is_named_with_torchs_own_words():
    pieces = lesson_pieces()
    for name, words in {
        "mlp": "mlp still has its bug: mat1 and mat2 .*784 and 2x64",
        "cnn": "cnn still has its bug: .*6272 and 100352x10",
        "alexnet": "alexnet still has its bug: .*Output size is too small",
        "backward": "backward still has its bug: .*scalar outputs",
        "loss": "loss still has its bug: Target size",
    }.items():
        assert_rejected("training.debug", mended(**{name: pieces[name]}), words)
    assert_rejected("training.debug", pieces, "^mlp still")


def lesson_pieces():
    """The broken dictionary of the lesson, all five pieces, built by its own cells."""
    import ast

    from tests.course.exercises.answers import LESSONS
    from xailab.course.lesson import Lesson

    cells = [c.source for c in Lesson.read(LESSONS / f"{LESSON}.py").cells if "broken" in c.source]
    namespace = {"nn": nn, "F": F}
    for source in cells[:3]:
        if source.startswith(("broken =", "def backward_pass")):
            exec(compile(ast.parse(source), "lesson", "exec"), namespace)
    assert set(namespace["broken"]) == {"mlp", "cnn", "alexnet", "backward", "loss"}
    return namespace["broken"]


def summed(net, x, y):
    F.cross_entropy(net(x), y, reduction="sum").backward()


def only_first(net, x, y):
    F.cross_entropy(net(x), y, reduction="none")[0].backward()


def nothing(net, x, y):
    F.cross_entropy(net(x), y)


def one_hot_bce(logits, truth):
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(truth, 10).float())


def constant():
    last = nn.Linear(784, 10)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Flatten(), last)


def sure():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Softmax(dim=1))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 5))}, r"mlp.*\(2, 10\)"),
        ({"mlp": constant}, "same logits"),
        ({"mlp": sure}, "probabilities"),
        ({"mlp": lambda: None}, "mlp still has its bug"),
        ({"cnn": lambda: models.digit_cnn()}, "convolutions are others"),
        ({"alexnet": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))}, "no AlexNet"),
        ({"backward": summed}, "gradient of the sum"),
        ({"backward": only_first}, "only the first row"),
        ({"backward": nothing}, "leaves no gradient"),
        ({"loss": one_hot_bce}, "yes-or-no"),
        ({"loss": lambda z, y: F.cross_entropy(z.softmax(1), y)}, "softmax is taken twice"),
        ({"loss": lambda z, y: F.cross_entropy(z, y, reduction="none")}, "mean is missing"),
        ({"loss": lambda z, y: F.cross_entropy(z, y, reduction="sum")}, "not the mean"),
        ({"loss": lambda z, y: F.mse_loss(z, F.one_hot(y, 10).float())}, "squared error"),
    ],
)
def test_debug_names_what_runs_and_is_still_wrong(changes, match):
    assert_rejected("training.debug", mended(**changes), match)


def test_debug_wants_all_five():
    assert_rejected("training.debug", {"mlp": nn.Identity}, "missing: cnn, alexnet, backward, loss")
    assert_rejected("training.debug", [1, 2], "dictionary")


# ---- recall


def test_recall_takes_the_model_answer_and_scikit_learns():
    assert_accepted("training.recall", solution_of(LESSON, "recall_and_precision"))

    def from_the_library(counts):
        truth, said = np.indices(counts.shape).reshape(2, -1)
        weights = np.asarray(counts).ravel()
        precision, recall, *_ = precision_recall_fscore_support(truth, said, sample_weight=weights)
        return [recall, precision]

    assert_accepted("training.recall", from_the_library)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda c: (np.diag(c) / c.sum(0), np.diag(c) / c.sum(1)), "this is precision"),
        (lambda c: (np.diag(c) / c.sum(1), np.diag(c) / c.sum(1)), "this is recall"),
        (lambda c: (np.diag(c) / c.sum(), np.diag(c) / c.sum()), "by all counts"),
        (lambda c: (c / c.sum(1, keepdims=True), c / c.sum(0)), "whole matrix"),
        (lambda c: np.diag(c) / c.sum(1), "return two arrays"),
        (lambda c: None, "return two arrays"),
    ],
)
def test_recall_names_the_mistake(wrong, match):
    assert_rejected("training.recall", wrong, match)


# ---- free text


def test_every_exercise_with_a_number_of_steps_has_hints():
    steps = {e.id: len(e.hints) for e in exercises_of("training") if e.kind != "predict"}
    names = ["output_size", "debug", "recall", "report"]
    assert steps == {f"training.{name}": 3 for name in names}
