"""Localization by hand, in its corner cases, and beside Quantus."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xailab.evaluate.localization import (
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)

ALL = [
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    lambda a, m, **options: top_k_intersection(a, m, 2, **options),
]
MAP = torch.tensor([[[4.0, 1.0, 0.0], [2.0, -9.0, 3.0]]])
MASK = torch.tensor([[True, True, False], [False, True, False]])  # 4, 1 and -9


def test_pointing_by_hand():
    assert pointing_game(MAP, MASK).tolist() == [1.0]
    assert pointing_game(MAP, ~MASK).tolist() == [0.0]


def test_mass_by_hand():
    assert relevance_mass_accuracy(MAP, MASK).tolist() == [0.5]  # (4 + 1) / (4 + 1 + 2 + 3)


def test_rank_by_hand():
    # the three largest are 4, 3 and 2
    assert relevance_rank_accuracy(MAP, MASK).tolist() == pytest.approx([1 / 3])
    assert relevance_rank_accuracy(MAP, ~MASK).tolist() == pytest.approx([2 / 3])


@pytest.mark.parametrize(("k", "share"), [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 2 / 4), (6, 3 / 6)])
def test_top_k_by_hand(k, share):
    assert top_k_intersection(MAP, MASK, k).tolist() == pytest.approx([share])
    assert top_k_intersection(MAP, MASK, np.int64(k)).tolist() == pytest.approx([share])


def test_magnitudes_by_hand():
    assert pointing_game(-MAP, MASK).tolist() == [1.0]  # 9 is in it
    assert pointing_game(MAP, MASK, absolute=True).tolist() == [1.0]
    assert pointing_game(MAP, MASK & (MAP[0] > 0), absolute=True).tolist() == [0.0]
    assert relevance_mass_accuracy(MAP, MASK, absolute=True).tolist() == pytest.approx([14 / 19])
    assert relevance_rank_accuracy(MAP, MASK, absolute=True).tolist() == pytest.approx([2 / 3])
    assert top_k_intersection(MAP, MASK, 2, absolute=True).tolist() == [1.0]


def test_channels_are_summed_with_their_signs():
    one = torch.tensor([[5.0, 1.0], [0.0, 0.0]])
    other = torch.tensor([[-5.0, 1.0], [0.0, 0.0]])
    both = torch.stack([one, other])[None]  # sum: 0 and 2
    right = torch.tensor([[False, True], [False, False]])
    for measure in (pointing_game, relevance_mass_accuracy, relevance_rank_accuracy):
        assert measure(both, right).tolist() == [1.0]
        assert measure(both, right, absolute=True).tolist() == [1.0]


def test_ties_count_by_their_share():
    tied = torch.tensor([[[2.0, 2.0, 1.0, 2.0]]])
    mask = torch.tensor([[True, False, True, False]])
    assert pointing_game(tied, mask).tolist() == pytest.approx([1 / 3])
    # two places for three equal values: each gets 2/3 of a place, one of them lies inside
    assert relevance_rank_accuracy(tied, mask).tolist() == pytest.approx([1 / 3])
    assert top_k_intersection(tied, mask, 4).tolist() == pytest.approx([1 / 2])


@pytest.mark.parametrize("measure", ALL)
def test_a_constant_map_scores_chance(measure):
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 1, 1:4] = True
    assert measure(torch.full((1, 4, 5), 0.7), mask).tolist() == pytest.approx([3 / 20])


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_without_evidence(value):
    nothing = torch.full((1, 2, 3), value) - torch.rand(2, 3) * (value != 0)
    assert relevance_mass_accuracy(nothing, MASK).tolist() == [0.0]
    assert pointing_game(nothing, MASK).tolist() == [0.5]  # all places are equally good
    assert relevance_rank_accuracy(nothing, MASK).tolist() == [0.5]


def test_tiny_evidence_is_evidence():
    tiny = torch.tensor([[[3e-310, 1e-310]]], dtype=torch.float64)
    assert relevance_mass_accuracy(tiny, [[1, 0]]).tolist() == pytest.approx([0.75])


@pytest.mark.parametrize("measure", ALL)
def test_the_truth_itself_scores_one(measure):
    assert measure(MASK[None].float(), MASK).tolist() == [1.0]


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_one_number_per_row_in_float64(measure, dtype):
    maps = torch.tensor([[[0, 1], [0, 0]], [[0, 0], [1, 0]]], dtype=dtype)
    scores = measure(maps, [[0, 1], [0, 0]])
    assert scores.shape == (2,)
    assert scores.dtype == torch.float64
    assert scores[0] > scores[1]


def test_shapes_of_masks():
    maps = torch.rand(2, 3, 4, 5)
    mask = torch.rand(2, 4, 5) > 0.5
    expected = relevance_mass_accuracy(maps, mask)
    for same in (mask[:, None], mask.numpy(), mask.int(), mask.float(), mask.tolist()):
        assert torch.equal(relevance_mass_accuracy(maps, same), expected)
    assert torch.equal(relevance_mass_accuracy(maps.numpy()[:, ::-1], mask), expected)
    assert torch.equal(relevance_mass_accuracy(maps.numpy().astype(">f4"), mask), expected)
    for one in (mask[0], mask[:1], mask[:1, None], mask[0].numpy().astype(np.uint8) * 255):
        assert torch.equal(
            relevance_mass_accuracy(maps, one), relevance_mass_accuracy(maps, mask[[0, 0]])
        )


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize(
    ("maps", "mask", "words"),
    [
        (torch.ones(2), torch.ones(2), r"\(N, C, H, W\) or \(N, H, W\), .*got \(2,\)"),
        (torch.ones(1, 3, 2, 2, 2), torch.ones(2, 2), r"got \(1, 3, 2, 2, 2\)"),
        (torch.ones(0, 2, 2), torch.ones(2, 2), r"empty: shape \(0, 2, 2\)"),
        (torch.tensor([[[0.0, float("nan")]]]), torch.ones(1, 2), "NaN"),
        (torch.tensor([[[0.0, float("inf")]]]), torch.ones(1, 2), "infinity"),
        (torch.ones(1, 2, 2), torch.zeros(2, 2), "empty: there is no right place"),
        (torch.ones(2, 2, 2), torch.tensor([[[1, 0], [0, 0]], [[0, 0], [0, 0]]]), "empty"),
        (torch.ones(1, 2, 3), torch.ones(3, 2), r"mask \(3, 2\) does not fit .*\(1, 2, 3\)"),
        (torch.ones(1, 2, 2), torch.ones(1, 3, 2, 2), r"mask \(1, 3, 2, 2\)"),
        (torch.ones(1, 2, 2), torch.ones(2), r"mask \(2,\)"),
        (torch.ones(2, 3), torch.ones(2), r"mask \(2,\) does not fit .*\(2, 3\)"),
        (torch.ones(2, 3), torch.ones(3, 3), "3 masks for 2 attributions"),
        (torch.ones(2, 4, 3), torch.ones(2, 3), r"mask \(2, 3\) does not fit .*\(2, 4, 3\)"),
        (torch.ones(2, 4, 4, 1), torch.ones(2, 4, 4), r"mask \(2, 4, 4\) does not fit"),
        (torch.ones(3, 2, 2), torch.ones(2, 2, 2), "2 masks for 3 attributions"),
    ],
)
def test_bad_input(measure, maps, mask, words):
    with pytest.raises(ValueError, match=words):
        measure(maps, mask)


SOFT = MASK.float()


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (0.9 * SOFT + 0.1, r"two values, 0 and 1 .*2 different numbers from 0.1 to 1"),
        (SOFT * 0.5, "from 0 to 0.5"),
        (250 * MASK + torch.tensor([[0, 1, 2], [3, 0, 1]]), "5 different numbers from 1 to 251"),
        (2 * SOFT - 1, "from -1 to 1"),
        (MASK * 2, "from 0 to 2"),
        (MASK * 255 + (~MASK) * 1, "from 1 to 255"),
        (torch.where(MASK, 1, torch.inf), "from 1 to inf"),
        (torch.where(MASK, 1, torch.nan), "mask holds NaN"),
        (np.where(MASK.numpy(), 1.0, np.nan), "mask holds NaN"),
    ],
)
def test_a_mask_holds_two_values(measure, mask, words):
    with pytest.raises(ValueError, match=words):
        measure(MAP, mask)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bfloat16, torch.float16])
def test_zero_and_one_or_255_in_any_dtype(measure, dtype):
    for top in (1, 255):
        assert torch.equal(measure(MAP, MASK.to(dtype) * top), measure(MAP, MASK))


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize(
    ("maps", "mask"),
    [
        (MAP, MASK.numpy().astype(str)),
        (MAP, MASK * 1j),
        (MAP, [[1, 0], [1]]),
        (MAP.numpy() * 1j, MASK),
        (MAP * 1j, MASK),
        ([["a"]], MASK),
    ],
)
def test_numbers_are_asked_for(measure, maps, mask):
    with pytest.raises(TypeError, match=r"(mask|attribution) must hold"):
        measure(maps, mask)


@pytest.mark.parametrize(
    ("measure", "scores"),
    [
        (pointing_game, [1, 0]),
        (relevance_mass_accuracy, [3 / 4, 2 / 5]),
        (relevance_rank_accuracy, [1 / 2, 1 / 2]),  # 3 and 1; 3 and 2
        (ALL[3], [1 / 2, 1 / 2]),
    ],
)
def test_tables_and_sequences_by_hand(measure, scores):
    """Two rows of four places, the answer at the last two; the same in every layout."""
    rows = torch.tensor([[1.0, 0, 3, 0], [3, 0, 2, 0]])
    inside = torch.tensor([[False, False, True, True]]).expand(2, 4)
    for mask in (inside, inside[0], inside[:1], inside[:, None]):
        assert measure(rows, mask).tolist() == pytest.approx(scores)
    channels = torch.stack([rows + 5, torch.full_like(rows, -5)], 1)  # (N, 2, L), sums to rows
    for mask in (inside[:, None], inside[:1, None]):
        assert measure(channels, mask).tolist() == pytest.approx(scores)
    picture = rows[:, None]  # (N, 1, W)
    assert measure(picture, inside[:1]).tolist() == pytest.approx(scores)


@pytest.mark.parametrize("measure", ALL)
def test_a_mask_that_covers_everything_scores_one(measure):
    assert measure(MAP, torch.ones(2, 3)).tolist() == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("k", "error", "words"),
    [
        (0, ValueError, "k must be"),
        (7, ValueError, "more than the 6 places"),
        (1.5, TypeError, "k must be an integer"),
        (True, TypeError, "k must be an integer"),
    ],
)
def test_bad_k(k, error, words):
    with pytest.raises(error, match=words):
        top_k_intersection(MAP, MASK, k)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), absolute=st.booleans())
def test_scores_are_shares_and_inside_plus_outside_is_all(seed, ties, absolute):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(1, 4, 4, generator=generator)
    maps = maps.round() if ties else maps
    mask = torch.rand(4, 4, generator=generator) > 0.5
    mask[0, 0], mask[3, 3] = True, False
    for measure in (pointing_game, ALL[3]):  # these ask for equally many places on both sides
        inside = measure(maps, mask, absolute=absolute).item()
        assert 0 <= inside <= 1
        assert inside + measure(maps, ~mask, absolute=absolute).item() == pytest.approx(1)


# --- Quantus


@pytest.fixture(scope="module")
def quantus():
    import quantus  # ten seconds, which only these two tests should pay

    return quantus


def theirs(metric, maps, mask):
    """Return Quantus' scores; the model and the labels play no part in these metrics."""
    found = metric(
        model=None,
        x_batch=np.zeros((len(maps), 1, *maps.shape[1:])),
        y_batch=np.zeros(len(maps), dtype=int),
        a_batch=maps[:, None].copy(),
        s_batch=mask[:, None],
    )
    return np.asarray(found, dtype=float)


def test_equal_quantus_on_maps_that_are_nowhere_negative(quantus):
    generator = np.random.default_rng(0)
    maps, mask = generator.random((20, 8, 9)), generator.random((20, 8, 9)) > 0.7
    quiet = {"disable_warnings": True, "normalise": False}
    pairs = [
        (pointing_game(maps, mask), quantus.PointingGame(**quiet)),
        (relevance_mass_accuracy(maps, mask), quantus.RelevanceMassAccuracy(**quiet)),
        (relevance_rank_accuracy(maps, mask), quantus.RelevanceRankAccuracy(**quiet)),
        (top_k_intersection(maps, mask, 7), quantus.TopKIntersection(k=7, **quiet)),
    ]
    for ours, metric in pairs:
        assert len(set(ours.tolist())) > 1
        np.testing.assert_allclose(ours.numpy(), theirs(metric, maps, mask), rtol=0, atol=1e-12)


def test_where_quantus_deviates(quantus):
    quiet = {"disable_warnings": True, "normalise": False}
    mask = np.zeros((1, 2, 2), dtype=bool)
    mask[0, 0, 0] = True
    # Where three places share the largest value, one inside is a hit for Quantus; the game has one
    # finger (Zhang et al.), and it hits in one case out of three.
    tied = np.array([[[1.0, 1.0], [1.0, 0.0]]])
    assert theirs(quantus.PointingGame(**quiet), tied, mask).tolist() == [1.0]
    assert pointing_game(tied, mask).tolist() == pytest.approx([1 / 3])
    # ... and of the tied values the one that comes first in memory is its largest.
    assert theirs(quantus.RelevanceRankAccuracy(**quiet), tied, mask).tolist() == [1.0]
    assert relevance_rank_accuracy(tied, mask).tolist() == pytest.approx([1 / 3])
    # Signed maps: Arras et al. divide sums of positive relevance, so that the result is a share;
    # dividing signed sums gives 3 / (3 + 1 - 2) = 1.5.
    signed = np.array([[[3.0, 1.0], [-2.0, 0.0]]])
    assert theirs(quantus.RelevanceMassAccuracy(**quiet), signed, mask).tolist() == [1.5]
    assert relevance_mass_accuracy(signed, mask).tolist() == [0.75]
