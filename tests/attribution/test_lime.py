"""The regression against scikit-learn's and lime's own, the rest against known black boxes."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr._core.lime import get_exp_kernel_similarity_function
from lime.lime_base import LimeBase
from lime.lime_image import LimeImageExplainer
from sklearn.linear_model import Ridge

from xailab.attribution.lime import (
    _check_told_apart,
    lime_fit,
    lime_image,
    lime_penalty,
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
ACB = pd.DataFrame(np.zeros((2, 3)), columns=["a", "c", "b"])


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
    assert found.words == ["not", "bad", ",", "good"]
    assert found.weights[0] == pytest.approx(2, abs=0.1)
    assert np.abs(found.weights[1:]).max() < 0.1
    assert seen[0] == "not bad, not good"
    assert " bad,  good" in seen
    assert "not bad not good" in seen
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
        ({"image": np.zeros((0, 8))}, ValueError, r"\(0, 8\)"),
        ({"image": np.full((8, 8), np.nan)}, ValueError, "image holds .*NaN"),
        ({"image": np.ones((8, 8), complex)}, TypeError, "image .*complex128"),
        ({"image": np.ones((3, 8, 3))}, ValueError, r"\(3, 8, 3\).*say channel_axis=0"),
        ({"image": np.ones((8, 8, 5))}, ValueError, r"\(8, 8, 5\).*say channel_axis=0"),
        ({"channel_axis": 3}, ValueError, "channel_axis is 3"),
        ({"channel_axis": 2.0}, TypeError, "channel_axis must be an integer"),
        ({"image": PICTURE[..., 0], "channel_axis": 0}, ValueError, "channel_axis is 0"),
        ({"hide": np.nan}, ValueError, "hide=nan cannot be painted"),
        ({"hide": "gray"}, TypeError, "hide must be a number"),
        ({"hide": np.zeros(5)}, ValueError, "hide must broadcast"),
        ({"target": True}, TypeError, "target must be an integer, got bool"),
        ({"target": 1.0}, TypeError, "target must be an integer, got float"),
        ({"target": "1"}, TypeError, "target must be an integer, got str"),
        ({"target": [0, 1]}, TypeError, "target must be an integer, got list"),
        ({"target": np.array([1])}, TypeError, "target must be an integer"),
        ({"n_samples": 4}, ValueError, "n_samples is 4, it must be more than the 4 parts"),
        ({"n_samples": 5.0}, TypeError, "n_samples"),
        ({"n_samples": 5, "seed": 0}, ValueError, "n_samples is too small: 5 copies do not"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"kernel_width": "wide"}, TypeError, "kernel_width must be a number, got str"),
        ({"kernel_width": 1e-3, "n_samples": 40}, ValueError, "too narrow: about 0 copies"),
        ({"predict": lambda p: ["cat"] * len(p), "target": None}, TypeError, "numbers.*'cat'"),
        ({"predict": lambda p: [[1], [1, 2]], "target": None}, ValueError, "rows that differ"),
        ({"predict": lambda p: brightness(p) * 1j}, TypeError, "complex128"),
        ({"predict": lambda p: brightness(p)[:, :1], "target": 1}, ValueError, r"0\.\.0, got 1"),
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
        ({"x": np.array([1.0, np.nan, 0])}, "x must be a row .*place 1 holds NaN"),
        ({"background": np.array([[0, 0, np.nan]])}, "background .*column 2 holds NaN"),
        (
            {"x": pd.Series({"a": 1, "b": 1, "c": 1}), "background": ACB},
            "column 'b' where background has 'c'",
        ),
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
        lime_text(len, " \n", None)
    with pytest.raises(TypeError, match="list"):
        lime_text(len, ["a"], None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="60 samples, 59 scores"):
        lime_fit(SAMPLES, SCORES[1:], np.ones(60))
    with pytest.raises(ValueError, match="negative"):
        lime_fit(SAMPLES, SCORES, -np.ones(60))


# --- the penalty, and single parts


def test_the_penalty_by_hand() -> None:
    """Half of M samples shown: spread M / 4 a part; a hundredth of it, but not above 1."""
    both = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    assert lime_penalty(both, np.ones(4)) == pytest.approx(0.01)
    assert lime_penalty(np.tile(both, (50, 1)), np.ones(200)) == pytest.approx(0.5)
    assert lime_penalty(np.tile(both, (500, 1)), np.ones(2000)) == 1
    assert lime_penalty(both, np.full(4, 0.5)) == pytest.approx(0.005)
    assert lime_penalty(both[:, :1], np.ones(4)) == 0


def test_with_a_thousand_samples_the_penalty_is_limes_own() -> None:
    for parts in (3, 10, 50):
        z = np.random.default_rng(0).integers(2, size=(1000, parts))
        z[0] = 1
        assert lime_penalty(z, lime_weights(z, 0.25)) == 1


@pytest.mark.parametrize("n_samples", [2, 3, 10, 1000])
@pytest.mark.parametrize("width", [None, 0.1, 5.0])
def test_one_part_gets_its_true_weight(n_samples: int, width: float | None) -> None:
    options: dict[str, Any] = {"n_samples": n_samples, "kernel_width": width}
    says = lambda texts: np.array([3.0 * ("good" in text) - 1 for text in texts])  # noqa: E731
    assert lime_text(says, "good", None, **options).weights == pytest.approx([3])
    mean = lambda p: p.reshape(len(p), -1).mean(1)  # noqa: E731
    one = np.zeros((8, 8), int)
    got = lime_image(mean, PICTURE, None, segments=one, hide=0.25, **options)
    assert got == pytest.approx(np.full((8, 8, 3), PICTURE.mean() - 0.25))
    square = lambda rows: rows[:, 0] ** 2  # noqa: E731
    got = lime_tabular(square, [3.0], None, background=[[2.0]], **options)
    assert got == pytest.approx([5])


def test_one_column_is_compared_with_the_mean_of_what_was_drawn() -> None:
    seen: list[float] = []

    def predict(rows: np.ndarray) -> np.ndarray:
        seen.extend(rows[:, 0].tolist())
        return rows[:, 0]

    got = lime_tabular(predict, [5.0], None, background=np.arange(4.0)[:, None], n_samples=50)
    assert got == pytest.approx([5 - np.mean(seen[1:])])


@pytest.mark.parametrize("n_samples", [12, 40, 200, 2000])
@pytest.mark.parametrize("width", [0.12, 0.25, 3.0])
def test_the_answer_does_not_shrink_with_the_number_of_samples(
    n_samples: int, width: float
) -> None:
    """The score is a sum over the words, so that each weight is known."""
    worth = {"a": 1.0, "b": -2.0, "c": 3.0, "d": 0.0}
    sums = lambda texts: np.array([sum(map(worth.get, t.split())) for t in texts])  # noqa: E731
    got = lime_text(sums, "a b c d", None, n_samples=n_samples, kernel_width=width, seed=3)
    np.testing.assert_allclose(got.weights, [1, -2, 3, 0], atol=0.2)


def test_a_picture_of_one_color_is_one_patch() -> None:
    total = lambda p: p.sum((1, 2))  # noqa: E731
    assert lime_image(total, np.ones((8, 8)), None, n_samples=9) == pytest.approx(64)


# --- the first sample is the input itself


@pytest.mark.parametrize("seed", range(4))
def test_the_first_sample_is_the_input_itself(seed: int) -> None:
    seen: list[Any] = []

    def watch(rows: Any) -> np.ndarray:
        seen.extend(rows)
        return np.random.default_rng(0).random(len(rows))

    options: dict[str, Any] = {"n_samples": 30, "seed": seed}
    lime_image(watch, PICTURE, None, segments=QUARTERS, **options)
    lime_tabular(watch, np.arange(1.0, 6), None, background=np.zeros((1, 5)), **options)
    lime_text(watch, "one, two; three", None, **options)
    np.testing.assert_array_equal(seen[0], PICTURE)
    assert seen[30].tolist() == [1, 2, 3, 4, 5]
    assert seen[60] == "one, two; three"
    assert len(seen) == 90


# --- texts in every script


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("这部电影非常好看", "好"),
        ("この映画はとても良かったです", "良"),
        ("หนังเรื่องนี้ดีมาก", "ดี"),
        ("រឿងនេះល្អណាស់", "ល្អ"),
        ("영화 정말 좋아요", "좋아요"),
        ("फ़िल्म अच्छी है", "अच्छी"),
        ("le cafe\u0301 est bon", "cafe\u0301"),
        ("I loved it 👍🏽👨‍👩‍👧", "👍🏽"),
        ("well that was it :-(", ":-("),
        ("it is a trap!", "!"),
        ("I don't like it", "don't"),
        ("a well-known actor", "well-known"),
        ("rated 9.5 of 10", "9.5"),
    ],
)
def test_what_decides_gets_the_weight_and_is_hidden_whole(text: str, word: str) -> None:
    seen: list[str] = []

    def has(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.array([float(word in text) for text in texts])

    found = lime_text(has, text, None)
    best = int(found.weights.argmax())
    assert found.words[best] == word
    assert found.weights[best] == pytest.approx(1, abs=0.05)
    assert np.abs(np.delete(found.weights, best)).max() < 0.05


def test_split_is_the_users_own() -> None:
    has = lambda texts: np.array([float("好看" in text) for text in texts])  # noqa: E731
    cut = lambda text: [text[:2], text[2:4], " ", text[4:6], text[6:]]  # noqa: E731
    found = lime_text(has, "这部电影非常好看", None, split=cut)
    assert found.words == ["这部", "电影", "非常", "好看"]
    assert found.weights == pytest.approx([0, 0, 0, 1], abs=0.03)
    words = re.compile(r"\w+").findall
    seen: list[str] = []

    def watch(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.ones(len(texts))

    assert lime_text(watch, "a, b!", None, split=words).words == ["a", "b"]
    assert set(seen) == {"a, b!", "a, !", ", b!", ", !"}  # what split leaves out stays


@pytest.mark.parametrize(
    ("split", "error", "words"),
    [
        (",", TypeError, "split must be a function, got str"),
        (lambda text: [1], TypeError, "split must give strings, got int"),
        (lambda text: ["a", "##b"], ValueError, "split gave '##b', which is not in the rest"),
        (lambda text: ["b", "a"], ValueError, "split gave 'a'"),
        (lambda text: [" "], ValueError, "no word"),
    ],
)
def test_bad_splits(split: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lime_text(len, "a b", None, split=split)


# --- hide, layouts and tables


@pytest.mark.parametrize(
    ("dtype", "hide"),
    [
        (np.uint8, 127),
        (np.uint8, 0.0),
        (np.uint8, 255.0),
        (np.int16, -1),
        (np.float32, 0.1),
        (np.float16, -2),
        (bool, 1),
    ],
)
def test_hide_is_painted_as_asked(dtype: Any, hide: float) -> None:
    seen: list[np.ndarray] = []

    def watch(pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures)
        return np.ones(len(pictures))

    gray = np.arange(64).reshape(8, 8).astype(dtype)
    lime_image(watch, gray, None, segments=QUARTERS, hide=hide, n_samples=30)
    asked = np.concatenate(seen)
    assert asked.dtype == dtype
    same = asked == gray
    assert np.isclose(asked[~same].astype(float), hide, rtol=1e-3).all()
    assert (~same).any()


@pytest.mark.parametrize(
    ("dtype", "hide"),
    [
        (np.uint8, 0.5),
        (np.uint8, -1),
        (np.uint8, 256),
        (np.uint8, np.nan),
        (np.uint16, 70_000),
        (np.int8, 200),
        (bool, 0.5),
        (bool, 2),
        (np.float16, 1e6),
        (np.float64, np.inf),
        (np.float64, np.nan),
    ],
)
def test_what_cannot_be_painted_is_refused(dtype: Any, hide: float) -> None:
    gray = np.ones((8, 8), dtype)
    with pytest.raises(
        ValueError, match=rf"hide=.* cannot be painted in an image of {np.dtype(dtype)}"
    ):
        lime_image(lambda p: np.ones(len(p)), gray, None, segments=QUARTERS, hide=hide)


def test_hide_may_have_a_value_for_each_channel() -> None:
    mean = PICTURE.mean((0, 1))
    score = lambda p: p[:, :4, :4, 0].sum((1, 2))  # noqa: E731
    got = lime_image(score, PICTURE, None, segments=QUARTERS, hide=mean, n_samples=400)
    want = (PICTURE[:4, :4, 0] - mean[0]).sum()
    np.testing.assert_allclose(got[0, 0], want, rtol=0.02)


@pytest.mark.parametrize("bands", [2, 5, 8, 12])
@pytest.mark.parametrize("axis", [0, -1])
def test_any_number_of_bands(bands: int, axis: int) -> None:
    picture = np.moveaxis(RNG.random((bands, 8, 8)), 0, axis)
    first = lambda p: np.moveaxis(p, axis % 3 + 1, 1)[:, -1, :4, :4].sum((1, 2))  # noqa: E731
    options: dict[str, Any] = {"channel_axis": axis, "n_samples": 100}
    got = np.moveaxis(lime_image(first, picture, None, segments=QUARTERS, **options), axis, 0)
    np.testing.assert_allclose(got[:, 0, 0], first(picture[None])[0], rtol=0.03)
    assert np.abs(got[:, 4:]).max() < 0.1
    assert lime_image(first, picture, None, **options).shape == picture.shape


def test_channel_axis_settles_what_the_shape_does_not_tell() -> None:
    picture = RNG.random((3, 8, 3))
    corner = lambda p: p[:, 0, 0].sum(1)  # noqa: E731
    cut = np.arange(24).reshape(3, 8)
    last = lime_image(corner, picture, None, segments=cut, channel_axis=-1)
    np.testing.assert_allclose(last[0, 0], picture[0, 0].sum(), rtol=0.03)
    first = lime_image(corner, picture, None, segments=cut.T, channel_axis=0)
    np.testing.assert_allclose(first[:, 0, 0], picture[0, 0, 0], rtol=0.05)


@pytest.mark.parametrize("target", [np.int64(1), np.uint8(1), np.array(1), torch.tensor(1)])
def test_a_target_is_an_integer_of_any_kind(target: Any) -> None:
    want = lime_image(brightness, PICTURE, 1, segments=QUARTERS, n_samples=20)
    got = lime_image(brightness, PICTURE, target, segments=QUARTERS, n_samples=20)
    np.testing.assert_array_equal(got, want)


def test_tensors_in_and_out() -> None:
    score = lambda p: torch.tensor(brightness(p), dtype=torch.bfloat16, requires_grad=True)  # noqa: E731
    picture = torch.tensor(PICTURE, requires_grad=True)
    got = lime_image(score, picture, 0, segments=torch.tensor(QUARTERS), n_samples=20)
    want = lime_image(brightness, PICTURE, 0, segments=QUARTERS, n_samples=20)
    np.testing.assert_allclose(got, want, rtol=0.1, atol=0.2)


def test_one_column_of_answers_needs_no_target() -> None:
    column = lambda rows: rows[:, :1]  # noqa: E731
    options: dict[str, Any] = {"background": np.zeros((1, 3)), "n_samples": 20}
    flat = lime_tabular(lambda rows: rows[:, 0], np.ones(3), None, **options)
    for target in (None, 0):
        np.testing.assert_array_equal(lime_tabular(column, np.ones(3), target, **options), flat)


def test_tables_of_pandas() -> None:
    table = pd.DataFrame({"age": [1, 2, 3], "member": [True, False, True]})
    score = lambda rows: rows[:, 0] * 2  # noqa: E731
    want = lime_tabular(score, [2.0, 0], None, background=table.to_numpy(float), n_samples=50)
    got = lime_tabular(score, table.iloc[1], None, background=table, n_samples=50)
    np.testing.assert_array_equal(got, want)
    unnamed = lime_tabular(score, pd.Series([2, 0]), None, background=table, n_samples=50)
    np.testing.assert_array_equal(unnamed, want)
    words = table.assign(job=["nurse", "cook", "cook"])
    with pytest.raises(TypeError, match="x must hold numbers; column 'job' holds 'cook'"):
        lime_tabular(score, words.iloc[1], None, background=words)
    with pytest.raises(TypeError, match="background must hold numbers; column 'job' holds 'nurse'"):
        lime_tabular(score, [1.0, 1, 1], None, background=words)


@pytest.mark.parametrize("alpha", [-1.0, np.nan, np.inf])
def test_bad_penalties(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        lime_fit(SAMPLES, SCORES, np.ones(60), alpha)


@pytest.mark.parametrize(
    ("counting", "weights"), [(1, [0.7]), (2, [3, 3]), (3, [1, 1, 1]), (1, [1, 0.25]), (4, [1] * 4)]
)
def test_copies_that_count_are_told_by_kish(counting: int, weights: list[float]) -> None:
    """n equal weights are n samples, 1 and 1/4 are 25/17; fewer than half the parts do not do."""
    samples = 1 - np.eye(8)
    weighed = np.array(weights + [0.0] * (8 - len(weights)))
    if counting == 4:
        _check_told_apart(samples, weighed)
        return
    with pytest.raises(ValueError, match=f"about {counting} copies count, for 8 parts"):
        _check_told_apart(samples, weighed)
