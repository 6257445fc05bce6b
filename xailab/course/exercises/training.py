"""Exercises of lesson `training`: shapes, the loop, and which numbers may be believed."""

from collections.abc import Callable
from typing import Any

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_number,
    expect_shape,
    expect_share,
    question,
)


@exercise(
    "training.output_size",
    kind="code",
    points=1,
    minutes=5,
    difficulty=1,
    hints=(
        "How many pixels are there with the padding, and how far can the window's left edge go?",
        "It goes from 0 to n + 2p - k, in jumps of s. How many stops are that?",
        "return (n + 2 * p - k) // s + ...",
    ),
)
def output_size(answer: Any) -> None:
    """The formula, also where the last window does not fit, and where both ends are padded."""
    slips = {
        "one stop is missing: the window also stands at 0, so add 1 at the end.": lambda n, k, s, p: (
            (n + 2 * p - k) // s
        ),
        "the padding is added at both ends, so it counts twice.": lambda n, k, s, p: (
            (n + p - k) // s + 1
        ),
        "the padding is ignored.": lambda n, k, s, p: (n - k) // s + 1,
        "the stride is ignored.": lambda n, k, s, p: n + 2 * p - k + 1,
        "divide all of n + 2p - k: put it in parentheses.": lambda n, k, s, p: (
            n + 2 * p - k // s + 1
        ),
        "add 1 after the division, not before it.": lambda n, k, s, p: (n + 2 * p - k + 1) // s,
        "a window that does not fit any more is left out: round down, with //.": lambda n, k, s, p: (
            (n + 2 * p - k) / s + 1
        ),
        "this rounds up: a window that does not fit any more is left out.": lambda n, k, s, p: (
            -((k - n - 2 * p) // s) + 1
        ),
    }
    for case in [(28, 5, 1, 0), (28, 5, 1, 2), (224, 11, 4, 2), (5, 2, 2, 0), (9, 4, 3, 1)]:
        n, k, s, p = case
        what = f"output_size(n={n}, k={k}, s={s}, p={p})"
        want = (n + 2 * p - k) // s + 1
        known = {name: slip(*case) for name, slip in slips.items() if slip(*case) != want}
        expect_close(answer(*case), want, what, known=known)
    expect_close(answer(28, 5), 24, "output_size(28, 5), stride 1 and no padding by default")


@exercise(
    "training.forgot",
    kind="predict",
    points=1,
    minutes=2,
    hints=("The direction is that of all batches together, and old ones never fade.",),
)
def forgot(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "training.stop",
    kind="predict",
    points=1,
    minutes=2,
    hints=(
        "With 4,000 digits, most was learned in the first epoch: 63 steps. How many epochs are "
        "that here?",
    ),
)
def stop(guess: Any) -> None:
    """An epoch."""
    if isinstance(guess, float) and not guess.is_integer():
        raise Mistake(f"epochs are whole numbers: 0, 1, 2, ... and not {guess:g}.")
    expect_number(guess, 0, 59)


@exercise(
    "training.dice",
    kind="predict",
    points=1,
    minutes=2,
    hints=("The network has 101,770 parameters. How many labels does it have to remember?",),
)
def dice(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "training.debug",
    kind="code",
    points=5,
    minutes=15,
    difficulty=3,
    hints=(
        "For the two Linear layers: which number arrives, and which one was written? The error "
        "says both.",
        "alexnet: its windows are made for 224 pixels; take smaller ones, or `models.alexnet`. "
        "backward: a gradient belongs to one number, so make one of N. loss: one right class of "
        "ten is a job for cross-entropy.",
        "784; 128 * 7 * 7; models.alexnet(size=32); losses.mean().backward(); F.cross_entropy",
    ),
)
def debug(answer: Any) -> None:
    """All five pieces work and compute what they should; the first that does not is named."""
    if not isinstance(answer, dict):
        raise Mistake(f"expected a dictionary with five pieces, got {type(answer).__name__}.")
    if missing := [name for name in _PIECES if name not in answer]:
        raise Mistake(f"these pieces are missing: {', '.join(missing)}.")
    for name, test in _PIECES.items():
        try:
            test(answer[name])
        except Mistake:
            raise
        except Exception as error:
            raise Mistake(f"{name} still has its bug: {error}") from error


def _mlp(make: Callable[[], Any]) -> None:
    _expect_logits("mlp", _built(make), (1, 28, 28))


def _cnn(make: Callable[[], Any]) -> None:
    net = _built(make)
    _expect_logits("cnn", net, (1, 28, 28))
    if (found := _convolutions(net)) != [(1, 32), (32, 128)]:
        raise Mistake(
            "cnn: the bug was in the linear layer, but the convolutions are others now: expected "
            f"1 -> 32 and 32 -> 128 channels, got {found}."
        )


def _alexnet(make: Callable[[], Any]) -> None:
    net = _built(make)
    _expect_logits("alexnet", net, (3, 32, 32))
    if len(_convolutions(net)) < 2:
        raise Mistake("alexnet: without its convolutions it is no AlexNet any more.")


def _built(make: Any) -> Any:
    """Return the network, also where the `lambda:` before it was dropped."""
    from torch import nn

    return make if isinstance(make, nn.Module) else make()


def _convolutions(net: Any) -> list[tuple[int, int]]:
    from torch import nn

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    return [(layer.in_channels, layer.out_channels) for layer in layers]


def _expect_logits(name: str, net: Any, shape: tuple[int, int, int]) -> None:
    """Ask for ten logits a row, and for logits that depend on the pictures."""
    import torch

    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net.eval()(x)
    expect_shape(logits, (2, 10), f"{name}: the logits of two pictures")
    if torch.equal(logits[0], logits[1]):
        raise Mistake(f"{name}: two different pictures get the same logits.")
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(2)):
        raise Mistake(f"{name}: these are probabilities; leave the softmax to the loss.")


def _backward(step: Callable[..., Any]) -> None:
    import torch
    from torch import nn
    from torch.nn import functional as F

    net, x, y = nn.Linear(2, 3), torch.tensor([[1.0, 2], [3, -1], [0.5, 1]]), torch.arange(3)
    losses = F.cross_entropy(net(x), y, reduction="none")
    (want,) = torch.autograd.grad(losses.mean(), net.weight, retain_graph=True)
    (first,) = torch.autograd.grad(losses[0], net.weight)
    step(net, x, y)
    if net.weight.grad is None:
        raise Mistake("backward: it leaves no gradient in the weights.")
    known = {
        "this is the gradient of the sum; with N rows, each step is N times as large.": 3 * want,
        "only the first row is learned from.": first,
    }
    expect_close(net.weight.grad, want, "backward: the gradient of the mean loss", known=known)


def _loss(loss: Callable[..., Any]) -> None:
    import torch
    from torch.nn import functional as F

    logits = torch.tensor([[2.0, 0, -1, *[0.0] * 7], [0.0, 1, 3, *[0.0] * 7]])
    truth = torch.tensor([0, 1])
    got, ones = loss(logits, truth), F.one_hot(truth, 10).float()
    expect_close(
        got,
        F.cross_entropy(logits, truth),
        "loss: the mean cross-entropy of two rows",
        known={
            "loss: it runs, but asks ten yes-or-no questions that know nothing of each other; "
            "exactly one class is right, so the chances have to compete: "
            "cross-entropy.": F.binary_cross_entropy_with_logits(logits, ones),
            "loss: softmax is taken twice: cross_entropy wants logits and takes it "
            "itself.": F.cross_entropy(logits.softmax(1), truth),
            "loss: one loss a row came; the mean is missing.": F.cross_entropy(
                logits, truth, reduction="none"
            ),
            "loss: this is the sum over rows, not the mean.": F.cross_entropy(
                logits, truth, reduction="sum"
            ),
            "loss: this is the squared error; it was made for numbers, not for "
            "classes.": F.mse_loss(logits, ones),
        },
    )


_PIECES: dict[str, Callable[[Any], None]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "alexnet": _alexnet,
    "backward": _backward,
    "loss": _loss,
}


@exercise(
    "training.recall",
    kind="code",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "The right answers stand on the diagonal: np.diag(counts).",
        "Recall divides them by how many there are of each digit: the sum along its row.",
        "right = np.diag(counts); return right / counts.sum(axis=1), right / counts.sum(axis=...)",
    ),
)
def recall(answer: Any) -> None:
    """Two arrays, each divided along its own axis."""
    import numpy as np

    counts = np.array([[6, 2, 0], [1, 4, 0], [3, 0, 9]])
    right, rows, columns = np.diag(counts), counts.sum(1), counts.sum(0)
    got = answer(counts.copy())
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake("return two arrays: recall, then precision.")
    whole = {
        "each count is divided by all counts; divide by those of its own class.": right
        / counts.sum(),
        "the whole matrix is divided: take its diagonal.": counts / rows[:, None],
    }
    swapped = "this is precision: recall divides by the true digits, along the row (axis 1)."
    expect_close(got[0], right / rows, "recall", known={swapped: right / columns, **whole})
    swapped = "this is recall: precision divides by the answers, down the column (axis 0)."
    expect_close(got[1], right / columns, "precision", known={swapped: right / rows})


criticize(
    "training.report",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Go through the four parts of section 8: which of them happen here?",
        "What was copied before the split, and who is in both parts? What did the test set "
        "choose? What does the network get for always saying healthy?",
        "Split by patient, then augment; a validation set for the epoch; recall of the disease; "
        "several seeds.",
    ),
    model="""
    The split comes after the copying, and images of one patient are in both parts: the test set
    is full of twins, so 99.6% may be memory. Split by patient first, then augment the training
    part alone. The epoch was chosen on the test set, so its accuracy is the best of 100 tries;
    choose it on a validation set and touch the test set once. Only 6% of the images show the
    disease, so always saying "healthy" gives 94%: I would ask for the recall and the precision
    of the disease, with the confusion matrix. A smooth loss curve is a mean over rows and can
    hide a lost class. The lead of 0.3% is one run; several seeds and a standard error over
    patients would tell whether it is chance.
    """,
    rubric={
        "copies": "The copies were made before the split, so the test set holds twins of training "
        "images.",
        "patients": "Images of one patient are in both parts: split by patient, then augment the "
        "training part alone.",
        "chosen epoch": "The epoch was chosen on the test set: choose it on a validation set, and "
        "use the test set once.",
        "rare class": "Only 6% show the disease, so always saying healthy gives 94%: ask for "
        "recall and precision of the disease.",
        "loss curve": "A smooth loss is a mean over rows and can hide a class that was lost.",
        "spread": "A lead of 0.3% in one run may be chance: ask for several seeds and a standard "
        "error.",
    },
)


question(
    "training.q_first_loss",
    "You train on ImageNet with its 1,000 classes, and the first loss is 6.9. What do you do?",
    choices={
        "Lower the learning rate: the loss is far too high.": "No step was taken yet. What is the "
        "loss of a network that knows nothing?",
        "Go on: that is what a network has that knows nothing.": "ln 1000 = 6.9: it gives each of "
        "1,000 classes the same chance.",
        "Look for wrong labels: 2.3 would be right.": "2.3 = ln 10 belongs to ten classes.",
    },
    right="Go on: that is what a network has that knows nothing.",
)

question(
    "training.q_leak",
    "You scale all pixels by the mean and spread of the whole data set, and then split. Is this a "
    "leak?",
    choices={
        "No: no label was used.": "A leak needs no label. The mean has seen the held-out pictures.",
        "Yes, a small one: the held-out pictures have a say in the mean.": "With 5,000 pictures you "
        "will hardly measure it; with 50 patients you may. Measured on the training part alone, "
        "it costs nothing.",
        "Yes, and it is as bad as twins.": "Twins let the network look up an answer. One mean over "
        "5,000 pictures tells next to nothing about one of them.",
    },
    right="Yes, a small one: the held-out pictures have a say in the mean.",
)
