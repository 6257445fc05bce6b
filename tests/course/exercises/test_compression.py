"""Checks of `compression`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of

LESSON = "compression"


# ---- compression.prune ---------------------------------------------------------------------------


def by_quantile(weights, amount):
    """A mask from argsort: ties are broken, the count is exact."""
    flat = np.concatenate([weight.numpy().ravel() for weight in weights])
    keep = np.ones(len(flat), dtype=bool)
    keep[np.argsort(np.abs(flat), kind="stable")[: round(amount * len(flat))]] = False
    parts = np.split(flat * keep, np.cumsum([weight.numel() for weight in weights])[:-1])
    return [torch.tensor(p).reshape(w.shape) for p, w in zip(parts, weights, strict=True)]


def test_prune_takes_the_model_answer_and_another_way():
    assert_accepted("compression.prune", solution_of(LESSON, "my_prune"))
    assert_accepted("compression.prune", by_quantile)


def threshold(weights, amount, *, shift=-1, size=torch.abs):
    sizes = torch.cat([size(weight).flatten() for weight in weights]).sort().values
    return sizes[round(amount * len(sizes)) + shift]


def pruned(weights, tau, size=torch.abs):
    return [weight * (size(weight) > tau) for weight in weights]


def in_place(weights, amount):
    tau = threshold(weights, amount)
    return [weight.masked_fill_(weight.abs() <= tau, 0) for weight in weights]


def layer_by_layer(weights, amount):
    return [pruned([weight], threshold([weight], amount))[0] for weight in weights]


def values(weight):
    return weight


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda ws, a: [w * (w.abs() <= threshold(ws, 1 - a)) for w in ws], "largest weights went"),
        (lambda ws, a: pruned(ws, threshold(ws, a, size=values), values), "sorts by value"),
        (layer_by_layer, "threshold of its own"),
        (lambda ws, a: pruned(ws, threshold(ws, a, shift=-2)), "too few"),
        (lambda ws, a: pruned(ws, threshold(ws, a, shift=0)), "too many"),
        (lambda ws, a: pruned(ws, threshold(ws, 1 - a)), "not the share that stays"),
        (lambda ws, a: [w.abs() for w in by_quantile(ws, a)], "lost their signs"),
        (in_place, "changed the tensors"),
        (lambda ws, a: pruned(ws, threshold(ws, a)), "a share of 0"),  # sizes[-1]: all go
        (lambda ws, a: torch.cat([w.flatten() for w in by_quantile(ws, a)]), "one tensor for each"),
        (lambda ws, a: [w * (w.abs() > a) for w in ws], "not the size below which"),
        (lambda ws, a: [w.abs() > threshold(ws, a) for w in ws], "the mask"),
        (lambda ws, a: None, "None"),
    ],
)
def test_prune_names_the_mistake(wrong, match):
    assert_rejected("compression.prune", wrong, match)


# ---- compression.threshold -----------------------------------------------------------------------


def by_topk(weights, amount):
    flat = torch.cat([weight.flatten() for weight in weights]).abs()
    count = round(amount * len(flat))
    return float(flat.topk(count, largest=False).values.max()) if count else 0


def test_threshold_takes_the_model_answer_and_another_way():
    assert_accepted("compression.threshold", solution_of(LESSON, "threshold"))
    assert_accepted("compression.threshold", by_topk)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda ws, a: threshold(ws, a, size=values), "sorts by value"),
        (lambda ws, a: threshold(ws, a, shift=0), "the first size that stays"),
        (lambda ws, a: threshold(ws, a, shift=-2), "too few"),
        (lambda ws, a: a * max(w.abs().max() for w in ws), "share times the largest"),
        (lambda ws, a: threshold(ws, 1 - a), "not the share that stays"),
        (threshold, "an index of -1 is the last"),
    ],
)
def test_threshold_names_the_mistake(wrong, match):
    assert_rejected("compression.threshold", wrong, match)


# ---- compression.steps ---------------------------------------------------------------------------


def test_steps_take_the_model_answer_and_another_way():
    assert_accepted("compression.steps", solution_of(LESSON, "steps_of"))
    assert_accepted(
        "compression.steps",
        lambda w: torch.stack([(c.abs().max() or torch.tensor(1.0)) / 127 for c in w]),
    )


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda w: w.abs().max() / 127, "one step for the whole tensor"),
        (lambda w: w.abs().amax(0) / 127, "a step for each column"),
        (lambda w: w.flatten(1).abs().amax(1) / 128, "not by 128"),
        (lambda w: w.flatten(1).amax(1) / 127, "without its sign"),
        (lambda w: w.flatten(1).abs().amax(1) / 255, "127 of them from 0"),
        (lambda w: w.flatten(1).abs().amax(1) / 127, "a channel of zeros"),
    ],
)
def test_steps_name_the_mistake(wrong, match):
    assert_rejected("compression.steps", wrong, match)


# ---- compression.ranks ---------------------------------------------------------------------------


def by_scipy(a, b):
    return spearmanr(a.flatten(), b.flatten()).statistic


def correlated(a, b):
    return torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1]


def test_ranks_take_the_model_answer_and_another_way():
    assert_accepted("compression.ranks", solution_of(LESSON, "rank_correlation"))
    assert_accepted("compression.ranks", by_scipy)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (correlated, "rank both maps first"),
        (lambda a, b: correlated(a.flatten().argsort(), b.flatten().argsort()), "argsort of that"),
        (lambda a, b: by_scipy(a, a), "diagonal"),
        (lambda a, b: by_scipy(a.abs(), b.abs()), "keeps its signs"),
        (lambda a, b: abs(by_scipy(a, b)), "with its opposite"),
    ],
)
def test_ranks_name_the_mistake(wrong, match):
    assert_rejected("compression.ranks", wrong, match)


# ---- compression.int8 ----------------------------------------------------------------------------


def row_by_row(weight):
    levels, steps = [], []
    for channel in weight:
        steps.append(max(channel.abs().max().item(), 1e-12) / 127)
        levels.append(torch.round(channel / steps[-1]).to(torch.int8))
    return torch.stack(levels), torch.tensor(steps)


def test_int8_takes_the_model_answer_and_another_way():
    assert_accepted("compression.int8", solution_of(LESSON, "to_int8"))
    assert_accepted("compression.int8", row_by_row)


def divided_in_place(weight):
    levels, steps = row_by_row(weight)
    weight.div_(steps[:, None] if weight.ndim == 2 else 1)
    return levels, steps


def rounding(largest, *, most=127, finish=torch.round, dtype=torch.int8):
    """The answer with one step replaced; `largest` gives the top of each channel, (C, 1)."""

    def answer(weight):
        steps = largest(weight) / most
        return finish(weight / steps).to(dtype), steps.flatten()

    return answer


def tops(weight):
    return weight.abs().amax(1, keepdim=True)


def safe(weight):
    return tops(weight).clamp(min=1e-12)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (rounding(lambda w: w.abs().max()), r"shape|whole tensor"),
        (rounding(lambda w: w.abs().amax(0, keepdim=True)), "each column"),
        (rounding(tops, most=128), "not by 128"),
        (rounding(lambda w: w.amax(1, keepdim=True)), "without its sign"),
        (rounding(tops, most=255), "127 of them"),
        (rounding(tops, finish=torch.trunc), "cut off, not rounded"),
        (lambda w: ((w / (tops(w) / 127)).round() * tops(w) / 127, tops(w) / 127), "whole numbers"),
        (rounding(tops, dtype=torch.float32), "stored as torch.float32"),
        (rounding(tops), "divided by a step of 0"),
        (rounding(lambda w: safe(w) if w.ndim == 2 else safe(w).mean(1, True)), "convolution"),
        (divided_in_place, "changed the weight"),
        (lambda w: row_by_row(w)[0], "return two tensors"),
        (lambda w: (row_by_row(w)[0], 0.01), "both be tensors"),
    ],
)
def test_int8_names_the_mistake(wrong, match):
    assert_rejected("compression.int8", wrong, match)


# ---- guesses and words ---------------------------------------------------------------------------


def test_guesses_have_a_form():
    assert_accepted("compression.bytes", 0.2)
    assert_rejected("compression.bytes", 20, "write 20% as 0.2")
    assert_accepted("compression.maps", -0.1)
    assert_rejected("compression.maps", 60, "from -1 to 1")
