"""Entropies and variances split by hand, rankings, out-of-distribution, selective prediction."""

from itertools import permutations
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from xailab.trust.probabilities import (
    class_answers,
    entropy_split,
    ood_auroc,
    rank_classes,
    risk_coverage,
    sum_tolerance,
    variance_split,
)

NAN = float("nan")


def some_probs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


# ---- splits --------------------------------------------------------------------------------------


def test_an_entropy_split_by_hand() -> None:
    """Rows: all unsure; sure and at odds; sure and agreed; one says 1/2, the other is sure."""
    samples = torch.tensor(
        [
            [[0.5, 0.5], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5]],
            [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]],
        ]
    )
    told = entropy_split(samples)
    mixed = -(0.75 * log(0.75) + 0.25 * log(0.25))
    assert told.mean.tolist() == [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.75, 0.25]]
    assert told.total.tolist() == pytest.approx([log(2), log(2), 0, mixed])
    assert told.aleatoric.tolist() == pytest.approx([log(2), 0, 0, log(2) / 2])
    assert told.epistemic.tolist() == pytest.approx([0, log(2), 0, mixed - log(2) / 2])


def test_disagreement_is_the_mean_kl_from_the_average() -> None:
    """The mutual information in its other form, from torch's distributions."""
    samples = torch.tensor(some_probs(7, 5, 4))
    told = entropy_split(samples)
    kl = torch.distributions.kl_divergence(Categorical(samples), Categorical(told.mean))
    torch.testing.assert_close(told.epistemic, kl.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(told.total, Categorical(told.mean).entropy(), rtol=0, atol=1e-12)


def test_networks_that_agree_leave_no_rounding_below_zero() -> None:
    one = torch.tensor(some_probs(200, 10), dtype=torch.float32)
    told = entropy_split(one.repeat(9, 1, 1))
    assert told.epistemic.min() >= 0
    assert told.epistemic.max() < 1e-9


def test_a_variance_split_equals_torchs_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    variances = torch.rand(6, 9, generator=generator, dtype=torch.float64)
    mixture = MixtureSameFamily(
        Categorical(torch.ones(9, 6, dtype=torch.float64)), Normal(means.T, variances.T.sqrt())
    )
    told = variance_split(means, variances)
    torch.testing.assert_close(told.mean, mixture.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(told.total, mixture.variance, rtol=0, atol=1e-12)
    torch.testing.assert_close(told.total, told.aleatoric + told.epistemic)


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (np.ones((2, 1, 2)) / 2, TypeError, "ndarray"),
        (torch.ones(2, 1, 2, dtype=torch.int64), TypeError, "int64"),
        (torch.ones(2, 1, 2), ValueError, "row 0 sums to 2"),
        (torch.tensor([[[1.5, -0.5]]]), ValueError, "-0.5.*softmax"),
        (torch.full((2, 1, 2), NAN), ValueError, "NaN"),
        (torch.ones(0, 1, 2), ValueError, r"\(0, 1, 2\)"),
        (torch.ones(3), ValueError, r"\(3,\)"),
    ],
)
def test_bad_samples(samples: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        entropy_split(samples)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("k", [2, 10, 1000])
def test_a_split_in_half_precision_is_that_of_the_rounded_numbers(
    dtype: torch.dtype, k: int
) -> None:
    """Normalized again, as the float64 split is; handed back in the dtype that came."""
    samples = torch.tensor(some_probs(3, 20, k)).to(dtype)
    told = entropy_split(samples)
    fine = samples.double() / samples.double().sum(-1, keepdim=True)
    want = entropy_split(fine)
    for one, other in zip(told, want, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other.to(dtype), rtol=0, atol=0)


def test_half_precision_forgives_rounding_alone() -> None:
    """One eps: 0.001 in float16. A hundredth is no rounding."""
    assert sum_tolerance("float16", 2) == pytest.approx(2**-10, rel=0.1)
    with pytest.raises(ValueError, match=r"row 0 sums to 0.979"):
        entropy_split(torch.tensor([[[0.5, 0.48]]], dtype=torch.float16))
    with pytest.raises(ValueError, match=r"row 0 sums to 0.999"):
        entropy_split(torch.tensor([[[0.5, 0.4991]]]))


def test_variances_of_half_precision_are_summed_finely() -> None:
    """Means 300 and 301 in float16: their squares would not fit, their spread does."""
    means = torch.tensor([[300.0], [301.0]], dtype=torch.float16)
    told = variance_split(means, torch.full((2, 1), 0.5, dtype=torch.float16))
    assert [part.item() for part in told] == [300.5, 0.75, 0.5, 0.25]
    assert told.total.dtype == torch.float16
    wide = torch.tensor([[-6e4], [6e4]], dtype=torch.float16)
    with pytest.raises(ValueError, match=r"too large for torch.float16"):
        variance_split(wide, torch.ones_like(wide))


def test_bad_variances() -> None:
    with pytest.raises(ValueError, match="negative, got -1"):
        variance_split(torch.zeros(2, 3), -torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        variance_split(torch.zeros(2, 3), torch.ones(2, 4))


# ---- one prediction ------------------------------------------------------------------------------


def test_a_ranking_by_hand() -> None:
    told = rank_classes([[0.2, 0.5, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]], k=3)
    assert told.classes.tolist() == [[1, 0, 2], [0, 1, 2]]  # equals: the lower number first
    assert told.probs.tolist() == [[0.5, 0.2, 0.2], [0.25, 0.25, 0.25]]
    assert told.margin.tolist() == pytest.approx([0.3, 0])
    by_hand = -(0.5 * log(0.5) + 0.4 * log(0.2) + 0.1 * log(0.1))
    assert told.entropy.tolist() == pytest.approx([by_hand, log(4)])


def test_three_classes_are_named_or_both_of_two() -> None:
    assert rank_classes([[0.3, 0.7]]).classes.tolist() == [[1, 0]]
    assert rank_classes([[0.1, 0.2, 0.3, 0.4]]).classes.tolist() == [[3, 2, 1]]
    assert rank_classes([[0.3, 0.7]], k=np.int64(1)).probs.tolist() == [[0.7]]


def test_a_ranking_equals_topk() -> None:
    probs = torch.tensor(some_probs(50, 10))
    told, want = rank_classes(probs, k=4), probs.topk(4)
    assert told.classes.tolist() == want.indices.tolist()
    np.testing.assert_allclose(told.probs, want.values)


@pytest.mark.parametrize(
    ("probs", "k", "error", "words"),
    [
        ([[0.5, 0.4]], 1, ValueError, "row 0 sums to 0.9"),
        ([[0.5, 0.5], [2.0, -1.0]], 1, ValueError, "logits"),
        ([[0.5, 0.5]], 3, ValueError, r"1\.\.2.*got 3"),
        ([[0.5, 0.5]], 0, ValueError, "at least 1"),
        ([0.5, 0.5], 1, ValueError, r"\(N, K\).*\(2,\)"),
        ([[1.0]], 1, ValueError, "K >= 2.*1 - p and p"),
        ([[0.5 + 0.5j, 0.5]], 1, TypeError, "probs must hold real numbers"),
        ([[NAN, 0.5]], 1, ValueError, "NaN"),
        ("cat", 1, TypeError, "str"),
    ],
)
def test_bad_probabilities(probs: Any, k: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rank_classes(probs, k=k)


# ---- asking a model ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_logit_is_two_classes(shape: tuple[int, ...]) -> None:
    z = torch.tensor([-2.0, 0.5, 0.0, 3.0])
    got = class_answers(lambda x: z.reshape(shape), torch.zeros(4, 1))
    assert got.tolist() == [[0, -2.0], [0, 0.5], [0, 0], [0, 3.0]]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (torch.tensor([[0.0, NAN], [0, 1]]), ValueError, "NaN or infinity in 1 of 2 rows"),
        (torch.tensor([[0.0, torch.inf], [0, NAN]]), ValueError, "in 2 of 2 rows"),
        (torch.tensor([0, 2]), TypeError, "floating-point scores, it returned torch.int64"),
    ],
)
def test_answers_that_name_no_class(answer: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        class_answers(lambda x: answer, torch.zeros(2, 1))


def test_a_class_may_be_ruled_out() -> None:
    ruled = nn.Linear(1, 2)
    nn.init.zeros_(ruled.weight)
    ruled.bias.data = torch.tensor([-torch.inf, 0])
    assert class_answers(ruled, torch.ones(1, 1)).tolist() == [[-torch.inf, 0]]


# ---- what uncertainty is used for ----------------------------------------------------------------


def test_ood_auroc_counts_pairs() -> None:
    """And equals the statistic of Mann and Whitney, which counts them too."""
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 6, 40) / 6.0, rng.integers(2, 8, 30) / 6.0
    pairs = [(o > i) + 0.5 * (o == i) for i in inside for o in outside]
    got = ood_auroc(inside, outside)
    assert got == pytest.approx(np.mean(pairs), abs=1e-12)
    assert got == pytest.approx(mannwhitneyu(outside, inside).statistic / 1200, abs=1e-12)
    assert ood_auroc(outside, inside) == pytest.approx(1 - got)


def test_risk_by_hand() -> None:
    """Surest first: right, right, wrong, wrong."""
    told = risk_coverage([0.9, 0.1, 0.5, 0.2], [1, 0, 1, 0])
    assert told.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert told.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert told.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_ties_count_as_all_their_orders_together() -> None:
    losses = np.array([0.0, 1, 0, 1, 1])
    uncertainty = np.array([0.1, 0.3, 0.3, 0.3, 0.7])
    curves = []
    for order in permutations([1, 2, 3]):
        rows = losses[[0, *order, 4]]
        curves.append(np.cumsum(rows) / np.arange(1, 6))
    told = risk_coverage(uncertainty, losses)
    np.testing.assert_allclose(told.risk, np.mean(curves, axis=0))
    shuffled = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(
        risk_coverage(uncertainty[shuffled], losses[shuffled]).risk, told.risk
    )


def test_an_uncertainty_that_knows_nothing_gains_nothing() -> None:
    told = risk_coverage(np.ones(8), [1, 0, 0, 0, 1, 0, 0, 0])
    assert told.risk.tolist() == pytest.approx([0.25] * 8)


@pytest.mark.parametrize("function", [ood_auroc, risk_coverage])
@pytest.mark.parametrize(
    ("one", "two", "error", "words"),
    [
        ([], [1.0], ValueError, r"\(0,\)"),
        ([0.5], [NAN], ValueError, "NaN"),
        ([[0.5]], [1.0], ValueError, r"\(1, 1\)"),
        ([0.5], ["cat"], TypeError, "list"),
    ],
)
def test_bad_columns(function: Any, one: Any, two: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        function(one, two)


def test_a_loss_for_every_row() -> None:
    with pytest.raises(ValueError, match="2 uncertainties but 1 losses"):
        risk_coverage([0.1, 0.2], [1.0])
