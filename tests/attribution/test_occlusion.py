"""Covering parts: by hand on sums and products, by definition, and against captum."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import FeatureAblation, Occlusion
from torch import Tensor, nn

from tests.toys import inputs, toy
from xailab.attribution.occlusion import feature_ablation, occlusion, rise
from xailab.core.company import trying

ROW = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]])
CASES = [  # window, stride, of 3 x 8 x 8 inputs: gaps at the edge, overlaps, channels one by one
    ((3, 3, 3), (3, 3, 3)),
    ((3, 3, 3), (3, 2, 2)),
    ((1, 4, 3), (1, 2, 1)),
    ((2, 5, 8), (1, 4, 8)),
]


def total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


class Counting(nn.Module):
    """The sum of a row; remembers how many rows it was shown."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 0 if trying() else len(x)
        return total(x)


def test_windows_by_hand() -> None:
    """Windows 0-1, 2-3, 4 (cut): each number gets what its window held."""
    got = occlusion(total, ROW, None, window=2, stride=2)
    assert got.tolist() == [[3, 3, 12, 12, 16]]


def test_overlaps_are_averaged_by_hand() -> None:
    """Windows 0-2, 1-3, 2-4 hold 7, 14, 28; 0 lies in one of them, 1 in two, 2 in three."""
    got = occlusion(total, ROW, None, window=3)
    torch.testing.assert_close(got, torch.tensor([[7, 21 / 2, 49 / 3, 42 / 2, 28]]))


def test_a_product_shows_what_covering_one_part_cannot() -> None:
    """x0 * x1: without either, all is lost, so both get 6 and the sum is twice the score."""
    both = lambda x: x[:, 0] * x[:, 1]  # noqa: E731
    got = feature_ablation(both, torch.tensor([[2.0, 3.0]]), None)
    assert got.tolist() == [[6, 6]]


def test_the_baseline_is_what_covers() -> None:
    got = occlusion(total, ROW, None, window=1, baseline=torch.tensor([1.0, 1, 1, 1, 10]))
    assert got.tolist() == [[0, 1, 3, 7, 6]]


@pytest.mark.parametrize(("window", "stride"), CASES)
def test_occlusion_equals_captum(window: Any, stride: Any) -> None:
    model, x = toy(torch.float64).eval(), inputs(dtype=torch.float64)
    target = torch.tensor([2, 0, 3])
    with torch.no_grad():
        want = Occlusion(model).attribute(
            x, sliding_window_shapes=window, strides=stride, target=target, baselines=0.25
        )
    got = occlusion(model, x, target, window=window, stride=stride, baseline=0.25)
    torch.testing.assert_close(got, want.double(), rtol=0, atol=1e-6)  # captum rounds to float32


def test_short_sizes_cover_all_channels() -> None:
    model, x = toy().eval(), inputs()
    want = occlusion(model, x, 1, window=(3, 4, 2), stride=(3, 2, 2))
    assert torch.equal(occlusion(model, x, 1, window=(4, 2), stride=2), want)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 8, 8), (8,), (1, 1, 8, 8)])
def test_feature_ablation_equals_captum(shape: tuple[int, ...]) -> None:
    model, x = toy(torch.float64).eval(), inputs(dtype=torch.float64)
    groups = torch.arange(torch.Size(shape).numel()).reshape(shape) // 7 * 3  # gaps in the labels
    wide = groups.expand(1, 3, 8, 8)
    with torch.no_grad():
        want = FeatureAblation(model).attribute(x, target=1, feature_mask=wide, baselines=0.1)
    got = feature_ablation(model, x, 1, feature_mask=groups, baseline=0.1)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_single_numbers_are_windows_of_one() -> None:
    model, x = toy(torch.float64).eval(), inputs(1, dtype=torch.float64)
    want = occlusion(model, x, 1, window=(1, 1, 1))
    torch.testing.assert_close(feature_ablation(model, x, 1), want, rtol=0, atol=1e-12)


def test_what_is_covered_already_is_not_run() -> None:
    model, x = Counting(), torch.zeros(1, 1, 8, 8)
    x[0, 0, 0, 0] = 1
    occlusion(model, x, None, window=2, stride=2)
    assert model.seen == 2  # the picture itself and the one window that changes it


def test_rise_by_definition() -> None:
    """A linear model's masked score is the sum under the mask; recompute the map from masks."""
    x = torch.rand(1, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shown: list[Tensor] = []

    def model(rows: Tensor) -> Tensor:
        shown.extend([] if trying() else rows)
        return total(rows)

    got = rise(model, x, None, n_masks=7, grid=3, p_keep=0.4)
    masks = [(row / x[0])[0] for row in shown]  # the masked copies show their masks
    want = sum(total(row[None]) * mask for row, mask in zip(shown, masks, strict=True))
    torch.testing.assert_close(got[0, 1], want / (7 * 0.4), rtol=0, atol=1e-12)


def test_rise_finds_the_pixel_that_counts() -> None:
    x = torch.ones(1, 1, 12, 12)
    got = rise(lambda rows: rows[:, 0, 2, 9], x, None, n_masks=2000, grid=4)
    top = got[0, 0].flatten().argmax().item()
    assert abs(top // 12 - 2) <= 1
    assert abs(top % 12 - 9) <= 1


def test_rise_masks_are_kept_with_probability_p() -> None:
    """Where the score is always 1 the map is the mean mask over p: 1 within the noise."""
    always = lambda rows: torch.ones(len(rows))  # noqa: E731
    for p_keep in (0.2, 0.8):
        got = rise(always, torch.ones(1, 1, 20, 20), None, n_masks=4000, grid=5, p_keep=p_keep)
        assert (got - 1).abs().max() < 0.15


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"window": 0}, ValueError, "window"),
        ({"window": 2.5}, TypeError, "window"),
        ({"window": 9}, ValueError, r"larger than a row of x, \(3, 8, 8\)"),
        ({"window": (2, 2, 2, 2)}, ValueError, r"window.*\(2, 2, 2, 2\)"),
        ({"window": 2, "stride": 3}, ValueError, "gaps"),
        ({"window": 2, "stride": 0}, ValueError, "stride"),
        ({"window": 2, "baseline": torch.zeros(5)}, ValueError, "broadcast"),
    ],
)
def test_bad_windows(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        occlusion(toy().eval(), inputs(), 1, **options)


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (torch.zeros(5, dtype=torch.int64), ValueError, r"\(5,\).*\(3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), ValueError, "broadcast"),
        (torch.zeros(3, 8, 8), TypeError, "float32"),
        ([0, 1], TypeError, "list"),
    ],
)
def test_bad_feature_masks(mask: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        feature_ablation(toy().eval(), inputs(), 1, feature_mask=mask)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"p_keep": 1.0}, "p_keep.*1.0"), ({"grid": (3, 3, 3)}, "grid"), ({"n_masks": 0}, "n_masks")],
)
def test_bad_masks(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rise(toy().eval(), inputs(), 1, **{"n_masks": 2, "grid": 2, **options})


def test_rise_wants_pictures() -> None:
    with pytest.raises(ValueError, match=r"\(N, C, H, W\).*\(1, 5\)"):
        rise(total, ROW, None, n_masks=2, grid=2)


def test_rise_moves_the_grid_down_and_right_by_itself() -> None:
    """By definition: every mask is one of the 16 grids of 2 x 2 cells under one of 4 x 4 moves."""
    shown: list[Tensor] = []

    def model(rows: Tensor) -> Tensor:
        shown.extend([] if trying() else rows[:, 0])
        return total(rows)

    rise(model, torch.ones(1, 1, 8, 8), None, n_masks=200, grid=2)
    grids = torch.tensor([[int(bit) for bit in f"{k:04b}"] for k in range(1, 15)]).float()
    large = F.interpolate(grids.reshape(-1, 1, 2, 2), (12, 12), mode="bilinear")[:, 0]
    moves = {
        (top, left)
        for top in range(4)
        for left in range(4)
        for mask in shown
        if (large[:, top : top + 8, left : left + 8] - mask).abs().amax((1, 2)).min() < 1e-6
    }
    assert len(moves) == 16


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: occlusion(careless, x, None, window=2),
        lambda x: feature_ablation(careless, x, None),
        lambda x: rise(careless, x, None, n_masks=3, grid=2),
    ],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_missing_in_x_are_refused_before_a_model_hides_them(ask: Any, bad: float) -> None:
    """This model answers finitely to anything, so that only x itself can show it."""
    x = torch.ones(2, 1, 4, 4)
    assert torch.isfinite(ask(x)).all()
    x[1, 0, 2, 2] = bad
    with pytest.raises(ValueError, match="x holds 1 values that are NaN or infinite"):
        ask(x)


def careless(x: Tensor) -> Tensor:
    return total(torch.nan_to_num(x, posinf=0.0))
