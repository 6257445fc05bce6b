"""The sampler shows LIME's own numbers, its controls redraw quickly, nothing is asked twice."""

from time import perf_counter

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from xailab import widgets
from xailab.attribution.lime import lime_image, lime_weights
from xailab.widgets.lime import Pool, Pools, explorer, lime_sampler

QUARTERS = np.kron([[0, 1], [2, 3]], np.ones((4, 4), int))
ROWS = np.repeat(np.arange(8)[:, None], 8, axis=1) * 10  # numbers with gaps
PATCHES = {"quarters": QUARTERS, "<rows>": ROWS}
IMAGE = np.random.default_rng(0).random((8, 8))


def predict(pictures):
    """Two classes: the upper left quarter times the lower right one, and the mean."""
    left, right = pictures[:, :4, :4].mean((1, 2)), pictures[:, 4:, 4:].mean((1, 2))
    return np.stack([left * right, pictures.reshape(len(pictures), -1).mean(1)], axis=1)


@pytest.fixture
def pools():
    return Pools(predict, IMAGE, 0, patches=PATCHES, n_samples=200)


def test_the_weights_are_those_of_lime_image(pools):
    for name, cut in PATCHES.items():
        for seed in (0, 1):
            fit, _ = pools.explain(name, 200, 0.25, seed)
            want = lime_image(predict, IMAGE, 0, segments=cut, n_samples=200, seed=seed)
            np.testing.assert_allclose(fit.coefficients[pools.labels[name]], want, atol=1e-9)


def test_fewer_samples_are_the_first_ones_and_r2_is_scikit_learns(pools):
    fit, quality = pools.explain("quarters", 50, 0.5, 1)
    z = np.random.default_rng(1).integers(2, size=(200, 4))
    z[0] = 1
    z = z[:50]
    shown = z[:, QUARTERS] * IMAGE
    scores, weights = predict(shown)[:, 0], lime_weights(z, 0.5)
    spread = weights @ (z - np.average(z, axis=0, weights=weights)) ** 2
    ridge = Ridge(alpha=0.01 * spread.mean()).fit(z, scores, sample_weight=weights)
    np.testing.assert_allclose(fit.coefficients, ridge.coef_, atol=1e-9)
    assert quality == pytest.approx(ridge.score(z, scores, sample_weight=weights))


def test_r2_by_hand():
    """Answers 0, 2 and 1, of equal weight: one feature cannot tell the last two apart."""
    pool = Pool(np.array([[0.0], [1.0], [1.0]]), np.array([0.0, 2.0, 1.0]))
    fit, quality = pool.fit(3, width=1e6)
    # centered: z = -2/3, 1/3, 1/3, so sum of squares 2/3; y = -1, 1, 0; no ridge: b = 1 / (2/3)
    assert fit.coefficients.item() == pytest.approx(1.5)
    errors = np.array([-1, 1, 0]) - 1.5 * np.array([-2 / 3, 1 / 3, 1 / 3])
    assert quality == pytest.approx(1 - (errors**2).sum() / 2)


def test_a_box_that_always_says_the_same_is_not_explained():
    same = Pools(lambda p: np.ones((len(p), 1)), IMAGE, 0, patches=PATCHES, n_samples=20)
    fit, quality = same.explain("quarters", 20, 0.25, 0)
    assert quality == 0
    assert not fit.coefficients.any()
    assert "rank correlation 0.00" in same.picture("quarters", 20, 0.25).alt


def test_the_picture_says_what_moved(pools):
    _, first = pools.explain("quarters", 200, 0.25, 0)
    a, b = (pools.explain("quarters", 200, 0.25, seed)[0].coefficients for seed in (0, 1))
    ranks = [np.argsort(np.argsort(row)) for row in (a, b)]
    alt = pools.picture("quarters", 200, 0.25).alt
    assert f"seed 0: R2 {first:.2f}" in alt
    assert f"rank correlation {np.corrcoef(ranks)[0, 1]:.2f}" in alt
    assert alt.startswith("200 samples, width 0.25, quarters: ")


def test_color_pictures_of_bytes():
    photo = np.uint8(255 * np.random.default_rng(1).random((8, 8, 3)))
    seen = []

    def ask(pictures):
        seen.append(pictures)
        return pictures.reshape(len(pictures), -1).mean(1, keepdims=True)

    pools = Pools(ask, photo, 0, patches={"quarters": QUARTERS}, hide=127, n_samples=20)
    asked = np.concatenate(seen)
    assert asked.dtype == np.uint8
    assert asked.shape[1:] == photo.shape
    hidden = (asked == 127).all(axis=(2, 3))
    assert hidden.any()
    assert not hidden.all()
    want = lime_image(ask, photo, 0, segments=QUARTERS, n_samples=20, hide=127)[:, :, 0]
    got = pools.explain("quarters", 20, 0.25, 0)[0].coefficients[QUARTERS]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_the_controls_redraw_without_asking_again():
    asked = []

    def counted(pictures):
        asked.append(len(pictures))
        return predict(pictures)

    box = explorer(Pools(counted, IMAGE, 0, patches=PATCHES, n_samples=200))
    calls = len(asked)
    cut, samples, width, image, words = box.children
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG")
    assert "100 samples, width 0.25, quarters: rank correlation" in words.value
    samples.value = 20
    second = bytes(image.value)
    assert second != first
    assert "20 samples" in words.value
    width.value = 0.02
    assert "width 0.02" in words.value
    cut.value = "<rows>"
    assert "&lt;rows&gt;" in words.value
    samples.value, width.value, cut.value = 100, 0.25, "quarters"
    assert bytes(image.value) == first
    assert len(asked) == calls


def test_a_slider_answers_at_once():
    """The computation behind a slider, without the drawing: far below the .3 s that feel slow."""
    fine = {"256 patches": np.arange(256).reshape(16, 16)}
    image = np.random.default_rng(2).random((16, 16))
    pools = Pools(predict, image, 0, patches=fine, n_samples=800)
    began = perf_counter()
    for seed in (0, 1):
        pools.explain("256 patches", 800, 0.25, seed)
    assert perf_counter() - began < 1  # .05 s on a quiet machine


def test_controls_are_labeled_and_offer_what_there_is(pools):
    controls = explorer(pools).children[:3]
    assert [c.description for c in controls] == ["Patches", "Samples", "Kernel width"]
    assert all("arrow keys" in control.tooltip for control in controls)
    assert controls[1].options == (10, 20, 50, 100, 200)
    small = Pools(predict, IMAGE, 0, patches=PATCHES, n_samples=60)
    assert explorer(small).children[1].value == 50


def test_outside_a_notebook_the_sentence_is_printed(capsys):
    lime_sampler(predict, IMAGE, 0, patches=PATCHES, n_samples=100)
    assert capsys.readouterr().out.startswith("In words: 100 samples, width 0.25, quarters: ")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"image": np.zeros((1, 28, 28))}, ValueError, r"\(H, W, 3\), got \(1, 28, 28\)"),
        ({"patches": {}}, ValueError, "patches is empty"),
        ({"patches": {"a": QUARTERS / 1}}, TypeError, "'a' must hold integers, got float64"),
        ({"patches": {"a": QUARTERS[:4]}}, ValueError, r"\(8, 8\), got \(4, 8\)"),
        ({"n_samples": 9}, ValueError, "at least 10, got 9"),
        ({"target": 2}, ValueError, r"target = 2, got \(200, 2\)"),
        ({"target": -1}, ValueError, "target = -1"),
        ({"predict": lambda p: np.ones(len(p))}, ValueError, r"got \(200,\)"),
    ],
)
def test_bad_input_is_named(changes, error, words):
    usual = {"predict": predict, "image": IMAGE, "target": 0, "patches": PATCHES}
    arguments = {**usual, "n_samples": 200, **changes}
    with pytest.raises(error, match=words):
        Pools(**arguments)


def test_the_function_is_not_hidden_by_its_module():
    assert widgets.lime_sampler is lime_sampler
