"""LIME: fit a small linear model to what a black box answers around one input.

Lesson 10 teaches this file. It is one weighted regression. The rows are copies of the input with
some parts hidden, the answers are the black box's, the weights say how near a copy is, and the
coefficients are the explanation: what a part adds, on average, when it is there.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from skimage.segmentation import slic

from xailab.core.batching import batched
from xailab.core.checks import check_positive

Array = np.ndarray
Predict = Callable[[Any], Array]

_WIDTH = 0.25  # lime's own, for pictures and text


class Fit(NamedTuple):
    """A local linear model, $g(z) = \\text{intercept} + \\text{coefficients} \\cdot z$.

    Attributes:
        intercept: the answer with every part hidden, as the fit sees it.
        coefficients: (F,), what each part adds when it is shown.
    """

    intercept: float
    coefficients: Array


class WordWeights(NamedTuple):
    """What each word of a text adds.

    Attributes:
        words: every different word, in the order of its first appearance.
        weights: (len(words),), in units of the score.
    """

    words: list[str]
    weights: Array


def lime_weights(samples: Array, kernel_width: float) -> Array:
    r"""Say how near each sample is to the input itself, where nothing is hidden.

    $$\pi(z) = \sqrt{\exp(-d^2 / \sigma^2)}, \qquad
      d = 1 - \frac{\sum_i z_i}{\sqrt{F \sum_i z_i^2}}$$

    $d$ is the cosine distance to the row of ones; a row of zeros has d = 1.

    Args:
        samples: (M, F) of 0 (hidden) and 1 (shown).
        kernel_width: $\sigma$, positive. Small: only copies with little hidden count.

    Returns:
        (M,), in 0..1.

    Raises:
        ValueError: no (M, F) numbers, or a width that is not positive.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?": Explaining the
        Predictions of Any Classifier. The square root is that of their code.

    >>> lime_weights(np.array([[1, 1], [0, 1], [0, 0]]), 1.0).round(3)
    array([1.   , 0.958, 0.607])
    """
    rows = _matrix("samples", samples)
    if not kernel_width > 0:
        raise ValueError(f"kernel_width must be positive, got {kernel_width}")
    lengths = np.sqrt(rows.shape[1] * (rows**2).sum(1))
    shown = rows.sum(1)
    distance = 1 - np.divide(shown, lengths, out=np.zeros_like(shown), where=lengths > 0)
    return np.sqrt(np.exp(-(distance**2) / kernel_width**2))


def lime_fit(samples: Array, scores: Array, weights: Array, alpha: float = 1.0) -> Fit:
    r"""Solve LIME's objective with a ridge penalty.

    $$\min_{\beta_0, \beta} \sum_m \pi_m \big(y_m - \beta_0 - \beta \cdot z_m\big)^2
      + \alpha \lVert \beta \rVert^2$$

    The intercept is not penalized: center everything by its weighted mean, then
    $\beta = (Z^\top \Pi Z + \alpha I)^{-1} Z^\top \Pi y$.

    Args:
        samples: (M, F) of 0 (hidden) and 1 (shown).
        scores: (M,), the black box's answers.
        weights: (M,), not negative.
        alpha: strength of the penalty, at least 0.

    Returns:
        `Fit(intercept, coefficients)`.

    Raises:
        ValueError: shapes that do not fit, NaN, negative weights or alpha.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?".
    Elsewhere: scikit-learn `Ridge(alpha).fit(samples, scores, sample_weight=weights)`.

    >>> samples = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    >>> lime_fit(samples, np.array([1.0, 4, 3, 6]), np.ones(4), alpha=0).coefficients.round(6)
    array([3., 2.])
    """
    z, y, pi = _matrix("samples", samples), _vector("scores", scores), _vector("weights", weights)
    if not len(z) == len(y) == len(pi):
        raise ValueError(f"{len(z)} samples, {len(y)} scores and {len(pi)} weights do not fit")
    if (pi < 0).any() or not pi.any() or not alpha >= 0:
        raise ValueError(f"weights and alpha must not be negative, nor all weights 0; {alpha=}")
    z_mean, y_mean = pi @ z / pi.sum(), pi @ y / pi.sum()
    centered = z - z_mean
    curvature = (centered.T * pi) @ centered + alpha * np.eye(z.shape[1])
    coefficients = np.linalg.pinv(curvature, hermitian=True) @ (centered.T * pi) @ (y - y_mean)
    return Fit(float(y_mean - z_mean @ coefficients), coefficients)


def lime_tabular(
    predict: Predict,
    x: Array,
    target: int | None,
    *,
    background: Array,
    n_samples: int = 1000,
    kernel_width: float | None = None,
    n_features: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Array:
    r"""Explain one row of a table: what does it add that a feature has just this value?

    $$\beta = \arg\min \sum_m \pi(z_m) \big(f_t(h(z_m)) - \beta_0 - \beta \cdot z_m\big)^2
      + \lVert \beta \rVert^2$$

    $h(z)$ keeps the features with $z_i = 1$; each hidden one gets the value of a background row
    drawn for it, so hidden features are drawn independently of each other and of the rest.

    Args:
        predict: maps (M, F) to (M,) or (M, K).
        x: (F,), one row.
        target: which of the K outputs; None for a single one.
        background: (B, F) rows to draw values from.
        n_samples: copies; the first one is the row itself.
        kernel_width: see `lime_weights`; None: 0.25.
        n_features: keep so many of the largest coefficients and fit again without the others,
            which get 0; None keeps all.
        seed: of the copies; the global random state is neither used nor changed.
        batch_size: rows evaluated at once; None measures.

    Returns:
        (F,), in units of the score.

    Raises:
        TypeError: `predict` is not callable, counts that are not integers.
        ValueError: shapes that do not fit, NaN, a count out of range, or answers of another shape.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?".
    Elsewhere: lime `LimeTabularExplainer`, which bins numbers and calls a value present when it
        falls in the same bin; captum `Lime`.

    >>> first = lambda rows: rows[:, 0]
    >>> rows = np.zeros((1, 2))
    >>> lime_tabular(first, np.array([2.0, 5.0]), None, background=rows)[0].round(2).item()
    1.98
    """
    row, others = _vector("x", x), _matrix("background", background)
    if others.shape[1] != len(row):
        raise ValueError(f"background must be (B, {len(row)}) as x is, got {others.shape}")
    samples = _samples(n_samples, len(row), seed)
    drawn = np.random.default_rng([seed, 1]).integers(len(others), size=samples.shape)
    copies = np.where(samples == 1, row, others[drawn, np.arange(len(row))])
    scores = _answers(predict, lambda chunk: copies[chunk], len(copies), target, row, batch_size)
    return _fitted(samples, scores, kernel_width, n_features).coefficients


def lime_image(
    predict: Predict,
    image: Array,
    target: int | None,
    *,
    segments: Array | None = None,
    n_samples: int = 1000,
    hide: float = 0.0,
    kernel_width: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Array:
    r"""Explain one picture: which of its patches add to the score?

    $$\beta = \arg\min \sum_m \pi(z_m) \big(f_t(h(z_m)) - \beta_0 - \beta \cdot z_m\big)^2
      + \lVert \beta \rVert^2$$

    $h(z)$ shows the patches with $z_i = 1$ and paints the others with `hide`.

    Args:
        predict: maps pictures (M, ...) like `image` to (M,) or (M, K).
        image: (H, W), (H, W, C) or (C, H, W); C is 1, 3 or 4.
        target: which of the K outputs; None for a single one.
        segments: (H, W) integers, one number for each patch; None: about 50 superpixels (SLIC).
        n_samples: copies; the first one is the picture itself.
        hide: what hidden patches are painted with, in units of `image`.
        kernel_width: see `lime_weights`; None: 0.25.
        seed: of the copies; the global random state is neither used nor changed.
        batch_size: pictures evaluated at once; None measures.

    Returns:
        The shape of `image`, every number of a patch carrying its coefficient, in units of the
        score.

    Raises:
        TypeError: `predict` is not callable, segments that are not integers.
        ValueError: a picture of another shape, segments that do not fit, or answers that do not.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?"; Achanta et al. (2012),
        SLIC Superpixels Compared to State-of-the-Art Superpixel Methods.
    Elsewhere: lime `LimeImageExplainer` (quickshift patches, hidden ones painted with their mean
        color), captum `Lime` with a `feature_mask`.

    >>> left = lambda pictures: pictures[:, :, 0].sum(1)
    >>> halves = np.array([[0, 1], [0, 1]])
    >>> lime_image(left, np.ones((2, 2)), None, segments=halves)[:, 0].round(1)
    array([2., 2.])
    """
    picture = np.asarray(image)
    axis = _channels(picture)
    label = np.unique(_segments(picture, axis, segments), return_inverse=True)[1]
    spread = label if axis is None else np.expand_dims(label, axis)  # over all channels
    samples = _samples(n_samples, label.max() + 1, seed)

    def copies(chunk: slice) -> Array:
        shown = samples[chunk][:, spread]
        return np.where(shown == 1, picture, np.asarray(hide, dtype=picture.dtype))

    scores = _answers(predict, copies, n_samples, target, picture, batch_size)
    fit = _fitted(samples, scores, kernel_width, None)
    return np.broadcast_to(fit.coefficients[spread], picture.shape).copy()


def lime_text(
    predict: Predict,
    text: str,
    target: int | None,
    *,
    n_samples: int = 1000,
    kernel_width: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> WordWeights:
    r"""Explain one text: which of its words add to the score?

    $$\beta = \arg\min \sum_m \pi(z_m) \big(f_t(h(z_m)) - \beta_0 - \beta \cdot z_m\big)^2
      + \lVert \beta \rVert^2$$

    $h(z)$ leaves out the words with $z_i = 0$, wherever they stand; all else stays.

    Args:
        predict: maps a list of M texts to (M,) or (M, K).
        text: what is explained.
        target: which of the K outputs; None for a single one.
        n_samples: copies; the first one is the text itself.
        kernel_width: see `lime_weights`; None: 0.25.
        seed: of the copies; the global random state is neither used nor changed.
        batch_size: texts evaluated at once; None measures.

    Returns:
        `WordWeights(words, weights)`.

    Raises:
        TypeError: `text` is not a string, `predict` is not callable.
        ValueError: a text without words, or answers that do not fit.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?".
    Elsewhere: lime `LimeTextExplainer`.

    >>> good = lambda texts: np.array([float("good" in text) for text in texts])
    >>> found = lime_text(good, "a good film", None)
    >>> max(zip(found.weights, found.words))[1]
    'good'
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {type(text).__name__}")
    pieces = re.split(r"(\w+)", text)  # words at odd places, what stands between them at even ones
    words = list(dict.fromkeys(pieces[1::2]))
    if not words:
        raise ValueError(f"there is no word in {text!r}")
    samples = _samples(n_samples, len(words), seed)
    places = {word: i for i, word in enumerate(words)}

    def copies(chunk: slice) -> list[str]:
        return [_without(pieces, places, row) for row in samples[chunk]]

    scores = _answers(predict, copies, n_samples, target, np.empty(1), batch_size)
    return WordWeights(words, _fitted(samples, scores, kernel_width, None).coefficients)


def _without(pieces: Sequence[str], places: dict[str, int], row: Array) -> str:
    """Return the text without the words that are hidden in this sample."""
    return "".join(
        piece if i % 2 == 0 or row[places[piece]] else "" for i, piece in enumerate(pieces)
    )


def _samples(n_samples: int, n: int, seed: int) -> Array:
    """Return (M, n) of 0 and 1, each with chance one half; the first row shows everything."""
    size = (check_positive("n_samples", n_samples), n)
    samples = np.random.default_rng(seed).integers(2, size=size)
    samples[0] = 1
    return samples


def _fitted(samples: Array, scores: Array, width: float | None, n_features: int | None) -> Fit:
    weights = lime_weights(samples, _WIDTH if width is None else width)
    fit = lime_fit(samples, scores, weights)
    if n_features is None:
        return fit
    if check_positive("n_features", n_features) > samples.shape[1]:
        raise ValueError(f"n_features is {n_features}, there are {samples.shape[1]}")
    kept = np.argsort(-np.abs(fit.coefficients), kind="stable")[:n_features]
    small = lime_fit(samples[:, kept], scores, weights)
    coefficients = np.zeros(samples.shape[1])
    coefficients[kept] = small.coefficients
    return Fit(small.intercept, coefficients)


def _answers(
    predict: Predict,
    make: Callable[[slice], Any],
    n: int,
    target: int | None,
    like: Array,
    batch_size: int | None,
) -> Array:
    """Return the black box's scores, (n,), of copies that exist only while they are evaluated."""
    if not callable(predict):
        raise TypeError(f"predict must be a function, got {type(predict).__name__}")
    return batched(
        lambda chunk: _scores(predict(make(slice(chunk.start, chunk.stop))), len(chunk), target),
        range(n),
        batch_size=batch_size,
        owner=predict,
        row_bytes=like.nbytes,
    )


def _scores(answers: Any, n: int, target: int | None) -> Array:
    """Return the target's scores, (n,), out of what the black box gave."""
    found = np.asarray(answers, dtype=np.float64)
    if found.ndim not in (1, 2) or len(found) != n:
        raise ValueError(f"predict must give ({n},) or ({n}, K), got {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError("predict gave values that are NaN or infinite")
    if found.ndim == 1 or (target is None and found.shape[1] == 1):
        if target is not None:
            raise ValueError("predict gives a single output: pass target=None")
        return found.reshape(n)
    if target is None or not 0 <= target < found.shape[1]:
        raise ValueError(f"target must lie in 0..{found.shape[1] - 1}, got {target}")
    return found[:, target]


def _channels(picture: Array) -> int | None:
    """Return which axis holds the channels."""
    if picture.ndim == 2 and picture.size:
        return None
    if picture.ndim == 3 and picture.size:
        for axis in (2, 0):
            if picture.shape[axis] in (1, 3, 4):
                return axis
    raise ValueError(f"image must be (H, W), (H, W, C) or (C, H, W), got {picture.shape}")


def _segments(picture: Array, axis: int | None, segments: Array | None) -> Array:
    """Return the number of every pixel's patch, (H, W)."""
    if segments is None:
        return slic(picture, n_segments=50, compactness=10, channel_axis=axis, start_label=0)
    numbers = np.asarray(segments)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"segments must hold integers, got {numbers.dtype}")
    shape = tuple(n for i, n in enumerate(picture.shape) if i != axis)
    if numbers.shape != shape:
        raise ValueError(f"segments must have shape {shape}, got {numbers.shape}")
    return numbers


def _matrix(name: str, values: Any) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a table (M, F) of finite numbers, got {array.shape}")
    return array


def _vector(name: str, values: Any) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a row (M,) of finite numbers, got {array.shape}")
    return array
