"""The regression against scikit-learn's and lime's own, the rest against known black boxes."""

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr._core.lime import get_exp_kernel_similarity_function
from lime.lime_base import LimeBase
from lime.lime_image import LimeImageExplainer
from sklearn.linear_model import Ridge

from xailab.attribution.lime import (
    lime_fit,
    lime_image,
    lime_tabular,
    lime_text,
    lime_weights,
)

RNG = np.random.default_rng(0)
SAMPLES = RNG.integers(2, size=(60, 7))
SAMPLES[0] = 1
SCORES = SAMPLES @ np.arange(7.0) + RNG.normal(size=60)
QUARTERS = np.repeat(np.repeat(np.array([[0, 1], [2, 3]]), 4, axis=0), 4, axis=1)
PICTURE = RNG.random((8, 8, 3))


def brightness(pictures: np.ndarray) -> np.ndarray:
    """Score of two classes: the upper left quarter's sum, and minus half of the lower right's."""
    left = pictures[:, :4, :4].sum((1, 2, 3))
    return np.stack([left, -0.5 * pictures[:, 4:, 4:].sum((1, 2, 3))], axis=1)


def test_weights_by_hand() -> None:
    """One of four shown: cosine 1/2, d = 1/2, exp(-0.25 / 1) ** 0.5."""
    got = lime_weights(np.array([[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]), 1.0)
    np.testing.assert_allclose(got, [1, np.exp(-0.125), np.exp(-0.5)])


def test_fit_by_hand() -> None:
    """Two samples, one feature, alpha 1: centered z = -+1/2, y = -+2, so 2 / (1/2 + 1) = 4/3."""
    fit = lime_fit(np.array([[0], [1]]), np.array([1.0, 5]), np.ones(2))
    assert fit.coefficients.tolist() == pytest.approx([4 / 3])
    assert fit.intercept == pytest.approx(3 - 2 / 3)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 50.0])
def test_fit_equals_scikit_learns(alpha: float) -> None:
    weights = lime_weights(SAMPLES, 0.3)
    peer = Ridge(alpha=alpha).fit(SAMPLES, SCORES, sample_weight=weights)
    fit = lime_fit(SAMPLES, SCORES, weights, alpha)
    np.testing.assert_allclose(fit.coefficients, peer.coef_, rtol=0, atol=1e-9)
    assert fit.intercept == pytest.approx(peer.intercept_, abs=1e-9)


def test_fit_equals_limes_own() -> None:
    distance = 1 - SAMPLES.sum(1) / np.sqrt(7 * np.maximum(SAMPLES.sum(1), 1e-12))
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    intercept, found, *_ = base.explain_instance_with_data(
        SAMPLES, np.stack([SCORES, -SCORES], 1), distance, 0, 7, feature_selection="none"
    )
    fit = lime_fit(SAMPLES, SCORES, lime_weights(SAMPLES, 0.25))
    want = [weight for _, weight in sorted(found)]
    np.testing.assert_allclose(fit.coefficients, want, rtol=0, atol=1e-9)
    assert fit.intercept == pytest.approx(intercept, abs=1e-9)


def test_weights_equal_captums() -> None:
    """captum's default kernel is exp(-d^2 / (2 width^2)), which is the same square root."""
    peer = get_exp_kernel_similarity_function("cosine", 0.25)
    one = torch.ones(1, 7)
    for sample, weight in zip(SAMPLES, lime_weights(SAMPLES, 0.25), strict=True):
        row = torch.tensor(sample[None], dtype=torch.float32)
        assert weight == pytest.approx(peer(one, row, row), abs=1e-6)


def test_a_picture_gives_back_what_its_patches_add() -> None:
    """brightness is linear in its patches, so with many samples the ridge hardly shrinks it."""
    got = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=4000, kernel_width=2.0)
    assert got.shape == PICTURE.shape
    assert got[0, 0, 0] == pytest.approx(PICTURE[:4, :4].sum(), rel=0.01)
    assert np.abs(got[4:]).max() < 0.05
    got = lime_image(brightness, PICTURE, 1, segments=QUARTERS, n_samples=4000, kernel_width=2.0)
    assert got[7, 7, 1] == pytest.approx(-0.5 * PICTURE[4:, 4:].sum(), rel=0.01)


def test_both_layouts_and_gray_pictures() -> None:
    first = lambda p: brightness(p)[:, 0]  # noqa: E731
    want = lime_image(first, PICTURE, None, segments=QUARTERS)
    turned = lime_image(
        lambda p: first(p.transpose(0, 2, 3, 1)),
        PICTURE.transpose(2, 0, 1),
        None,
        segments=QUARTERS,
    )
    np.testing.assert_allclose(turned.transpose(1, 2, 0), want)
    gray = lime_image(lambda p: p[:, 0, 0], PICTURE[:, :, 0], None, segments=QUARTERS)
    assert gray.shape == (8, 8)


def test_pictures_agree_with_lime() -> None:
    """Same patches, same hidden color, same kernel; other draws, so close and not equal."""
    explained = LimeImageExplainer(kernel_width=0.25, random_state=0).explain_instance(
        PICTURE,
        brightness,
        labels=(0,),
        top_labels=None,
        hide_color=0,
        num_samples=3000,
        segmentation_fn=lambda _: QUARTERS,
    )
    want = np.array([weight for _, weight in sorted(explained.local_exp[0])])
    got = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=3000)
    np.testing.assert_allclose(got[::4, ::4, 0].ravel(), want, atol=0.3)


def test_superpixels_are_found_without_being_given() -> None:
    picture = np.zeros((32, 32, 3))
    picture[:, 16:] = 1.0
    got = lime_image(lambda p: p[:, :, 20:].mean((1, 2, 3)), picture, None, n_samples=400)
    assert got[:, :12].mean() < 0.1 * got[:, 20:].mean()


def test_a_table_gives_back_a_linear_models_parts() -> None:
    background = RNG.normal(size=(200, 3))
    weights, x = np.array([3.0, -2, 0]), np.array([1.0, 2, 5])
    got = lime_tabular(
        lambda rows: rows @ weights,
        x,
        None,
        background=background,
        n_samples=20_000,
        kernel_width=10.0,
    )
    np.testing.assert_allclose(got, weights * (x - background.mean(0)), atol=0.15)


def test_few_features_leave_the_others_out() -> None:
    x, background = np.array([1.0, 1, 1]), np.zeros((1, 3))
    got = lime_tabular(
        lambda rows: rows @ np.array([5.0, 1, 3]), x, None, background=background, n_features=2
    )
    assert got[1] == 0
    assert got[0] > got[2] > 2


def test_text_hides_a_word_wherever_it_stands() -> None:
    seen: list[str] = []

    def predict(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        counts = np.array([text.split().count("not") for text in texts])
        return np.stack([counts, -counts], axis=1)

    found = lime_text(predict, "not bad, not good", 0, n_samples=300)
    assert found.words == ["not", "bad", "good"]
    assert found.weights[0] == pytest.approx(2, abs=0.1)
    assert np.abs(found.weights[1:]).max() < 0.1
    assert seen[0] == "not bad, not good"
    assert " bad,  good" in seen
    assert all(text.count("not") in (0, 2) for text in seen)


def test_seed_decides() -> None:
    first = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=50, seed=1)
    again = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=50, seed=1)
    other = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=50, seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_batch_size_does_not_matter() -> None:
    want = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=50)
    for size in (1, 7, 50):
        got = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=50, batch_size=size)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"image": np.zeros(8)}, ValueError, r"\(H, W\).*\(8,\)"),
        ({"segments": np.zeros((4, 4), dtype=int)}, ValueError, r"\(8, 8\), got \(4, 4\)"),
        ({"segments": np.zeros((8, 8))}, TypeError, "float64"),
        ({"target": 2}, ValueError, r"0\.\.1, got 2"),
        ({"target": None}, ValueError, r"0\.\.1, got None"),
        ({"target": -1}, ValueError, r"0\.\.1"),
        ({"n_samples": 0}, ValueError, "n_samples"),
        ({"kernel_width": 0.0}, ValueError, "kernel_width"),
        ({"predict": lambda p: p}, ValueError, "predict must give"),
        ({"predict": lambda p: np.full(len(p), np.nan), "target": None}, ValueError, "NaN"),
        ({"predict": lambda p: np.ones(len(p))}, ValueError, "single output"),
        ({"predict": "net"}, TypeError, "str"),
    ],
)
def test_bad_pictures(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    usual = {"predict": brightness, "image": PICTURE, "target": 0, "segments": QUARTERS}
    arguments = {**usual, "n_samples": 5, **changes}
    with pytest.raises(error, match=words):
        lime_image(**arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"background": np.zeros((2, 4))}, r"\(B, 3\).*\(2, 4\)"),
        ({"x": np.array([1.0, np.nan, 0])}, "x must be a row"),
        ({"n_features": 4}, "n_features is 4, there are 3"),
    ],
)
def test_bad_tables(changes: dict[str, Any], words: str) -> None:
    usual = {"predict": lambda rows: rows[:, 0], "x": np.ones(3), "target": None}
    arguments = {**usual, "background": np.zeros((2, 3)), "n_samples": 5, **changes}
    with pytest.raises(ValueError, match=words):
        lime_tabular(**arguments)


def test_bad_texts_and_fits() -> None:
    with pytest.raises(ValueError, match="no word"):
        lime_text(len, "?!", None)
    with pytest.raises(TypeError, match="list"):
        lime_text(len, ["a"], None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="60 samples, 59 scores"):
        lime_fit(SAMPLES, SCORES[1:], np.ones(60))
    with pytest.raises(ValueError, match="negative"):
        lime_fit(SAMPLES, SCORES, -np.ones(60))
