"""LIME: fit a small linear model to what a black box answers around one input.

Lesson `lime` teaches this file. It is one weighted regression. The rows are copies of the input
with some parts hidden, the answers are the black box's, the weights say how near a copy is, and the
coefficients are the explanation: what a part adds, on average, when it is there.
"""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np
from skimage.segmentation import slic
from torch import Tensor

from xailab.core.black_boxes import ask_in_chunks, chosen_of
from xailab.core.checks import as_integer, check_positive
from xailab.core.outputs import as_array
from xailab.core.tables import check_columns, column_names, finite_floats
from xailab.core.words import words_of

Array = np.ndarray
Predict = Callable[[Any], Array]

_WIDTH = 0.25  # lime's own, for pictures and text
_PENALTY = 1.0  # lime's own,
_SHARE = 0.01  # but never above this share of what the samples say: few samples hide no weight
_USUAL = (1, 3, 4)  # numbers of channels by which their axis is known


class Fit(NamedTuple):
    """A local linear model, $g(z) = \\text{intercept} + \\text{coefficients} \\cdot z$.

    Attributes:
        intercept: the answer with every part hidden, as the fit sees it.
        coefficients: (F,), what each part adds when it is shown.
    """

    intercept: float
    coefficients: Array


class WordWeights(NamedTuple):
    """What each part of a text adds.

    Attributes:
        words: every different part (word, sign, emoji), in the order of its first appearance.
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
        TypeError: not numbers.
        ValueError: no (M, F) numbers, or a width that is not positive.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?": Explaining the
        Predictions of Any Classifier. The square root is that of their code.

    >>> lime_weights(np.array([[1, 1], [0, 1], [0, 0]]), 1.0).round(3)
    array([1.   , 0.958, 0.607])
    """
    rows = finite_floats("samples", samples, 2)
    if isinstance(kernel_width, bool) or not isinstance(kernel_width, int | float | np.number):
        raise TypeError(f"kernel_width must be a number, got {type(kernel_width).__name__}")
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
        TypeError: not numbers.
        ValueError: shapes that do not fit, NaN, negative weights or alpha.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?".
    Elsewhere: scikit-learn `Ridge(alpha).fit(samples, scores, sample_weight=weights)`.

    >>> samples = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    >>> lime_fit(samples, np.array([1.0, 4, 3, 6]), np.ones(4), alpha=0).coefficients.round(6)
    array([3., 2.])
    """
    z, y = finite_floats("samples", samples, 2), finite_floats("scores", scores, 1)
    pi = finite_floats("weights", weights, 1)
    if not len(z) == len(y) == len(pi):
        raise ValueError(f"{len(z)} samples, {len(y)} scores and {len(pi)} weights do not fit")
    if (pi < 0).any() or not pi.any() or not 0 <= alpha < inf:
        raise ValueError(f"weights and alpha must not be negative, nor all weights 0; {alpha=}")
    z_mean, y_mean = pi @ z / pi.sum(), pi @ y / pi.sum()
    centered = z - z_mean
    curvature = (centered.T * pi) @ centered + alpha * np.eye(z.shape[1])
    coefficients = np.linalg.pinv(curvature, hermitian=True) @ (centered.T * pi) @ (y - y_mean)
    return Fit(float(y_mean - z_mean @ coefficients), coefficients)


def lime_penalty(samples: Array, weights: Array) -> float:
    r"""Return the $\alpha$ of the methods below: LIME's own, unless it would hide the answer.

    $$\alpha = \min\Big(1, \; \frac{0.01}{F} \sum_i \sum_m \pi_m (z_{mi} - \bar z_i)^2\Big)$$

    With 1,000 samples and the usual kernel that is 1, as in LIME's code. A penalty of 1 against few
    samples, or against samples of small weight, would shrink all coefficients to what the number
    of samples says and not the black box; so it is at most a hundredth of what a part's samples
    weigh. One part alone is not penalized: its coefficient is a difference of means.

    Args:
        samples: (M, F) of 0 (hidden) and 1 (shown).
        weights: (M,), not negative, not all 0.

    Raises:
        TypeError, ValueError: as `lime_fit`.

    >>> half = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    >>> lime_penalty(half, np.ones(4)), lime_penalty(half, np.full(4, 1000.0))
    (0.01, 1.0)
    """
    z, pi = finite_floats("samples", samples, 2), finite_floats("weights", weights, 1)
    if z.shape[1] == 1:
        return 0.0
    spread = pi @ (z - pi @ z / pi.sum()) ** 2  # (F,)
    return float(min(_PENALTY, _SHARE * spread.mean()))


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
      + \alpha \lVert \beta \rVert^2$$

    $h(z)$ keeps the features with $z_i = 1$; each hidden one gets the value of a background row
    drawn for it, so hidden features are drawn independently of each other and of the rest.
    $\alpha$ is that of `lime_penalty`.

    Args:
        predict: maps (M, F) float64 to (M,) or (M, K).
        x: (F,), one row: array, list or Series.
        target: which of the K outputs, an integer of any kind; None for a single one.
        background: (B, F) rows to draw values from: array, list or DataFrame.
        n_samples: copies, more than features; the first one is the row itself.
        kernel_width: see `lime_weights`; None: 0.25.
        n_features: keep so many of the largest coefficients and fit again without the others,
            which get 0; None keeps all.
        seed: of the copies; the global random state is neither used nor changed.
        batch_size: rows evaluated at once; None measures.

    Returns:
        (F,), in units of the score.

    Raises:
        TypeError: `predict` is not callable, a target or counts that are not integers, text in a
            column or among the answers.
        ValueError: shapes or names of columns that do not fit, NaN in a column, a count out of
            range, answers of another shape, samples or a kernel too few or too narrow to tell
            the features apart.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?".
    Elsewhere: lime `LimeTabularExplainer`, which bins numbers and calls a value present when it
        falls in the same bin; captum `Lime`.

    >>> first = lambda rows: rows[:, 0]
    >>> rows = np.zeros((1, 2))
    >>> lime_tabular(first, np.array([2.0, 5.0]), None, background=rows)[0].round(2).item()
    1.98
    """
    row, others = finite_floats("x", x, 1), finite_floats("background", background, 2)
    if others.shape[1] != len(row):
        raise ValueError(f"background must be (B, {len(row)}) as x is, got {others.shape}")
    check_columns("x", column_names(x), "background", column_names(background))
    if n_features is not None and check_positive("n_features", n_features) > len(row):
        raise ValueError(f"n_features is {n_features}, there are {len(row)}")
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
    hide: float | Array = 0.0,
    channel_axis: int | None = None,
    kernel_width: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Array:
    r"""Explain one picture: which of its patches add to the score?

    $$\beta = \arg\min \sum_m \pi(z_m) \big(f_t(h(z_m)) - \beta_0 - \beta \cdot z_m\big)^2
      + \alpha \lVert \beta \rVert^2$$

    $h(z)$ shows the patches with $z_i = 1$ and paints the others with `hide`; $\alpha$ is that
    of `lime_penalty`.

    Args:
        predict: maps pictures (M, ...) like `image`, in its dtype, to (M,) or (M, K).
        image: (H, W), (H, W, C) or (C, H, W), real numbers.
        target: which of the K outputs, an integer of any kind; None for a single one.
        segments: (H, W) integers, one number for each patch; None: about 50 superpixels (SLIC);
            a picture of one color is one patch.
        n_samples: copies, more than patches; the first one is the picture itself.
        hide: what hidden patches are painted with, in units of `image`: a number, or an array that
            broadcasts to it. It must be one that the image's dtype can hold.
        channel_axis: the axis of the channels, however many; None: the end that alone has 1, 3 or
            4 entries.
        kernel_width: see `lime_weights`; None: 0.25.
        seed: of the copies; the global random state is neither used nor changed.
        batch_size: pictures evaluated at once; None measures.

    Returns:
        The shape of `image`, every number of a patch carrying its coefficient, in units of the
        score.

    Raises:
        TypeError: `predict` is not callable, a target, counts or segments that are not integers, a
            picture or answers that are not real numbers.
        ValueError: a picture of another shape or with NaN, channels that cannot be told apart, a
            `hide` that cannot be painted, segments or answers that do not fit, samples or a
            kernel too few or too narrow to tell the patches apart.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?"; Achanta et al. (2012),
        SLIC Superpixels Compared to State-of-the-Art Superpixel Methods.
    Elsewhere: lime `LimeImageExplainer` (quickshift patches, hidden ones painted with their mean
        color), captum `Lime` with a `feature_mask`.

    >>> left = lambda pictures: pictures[:, :, 0].sum(1)
    >>> halves = np.array([[0, 1], [0, 1]])
    >>> lime_image(left, np.ones((2, 2)), None, segments=halves)[:, 0].round(1)
    array([2., 2.])
    """
    picture = _picture(image)
    paint = _paint(hide, picture)
    axis = _channels(picture.shape, channel_axis)
    label = np.unique(_segments(picture, axis, segments), return_inverse=True)[1]
    spread = label if axis is None else np.expand_dims(label, axis)  # over all channels
    samples = _samples(n_samples, int(label.max()) + 1, seed)

    def copies(chunk: slice) -> Array:
        return np.where(samples[chunk][:, spread] == 1, picture, paint)

    scores = _answers(predict, copies, len(samples), target, picture, batch_size)
    fit = _fitted(samples, scores, kernel_width, None)
    return np.broadcast_to(fit.coefficients[spread], picture.shape).copy()


def lime_text(
    predict: Predict,
    text: str,
    target: int | None,
    *,
    n_samples: int = 1000,
    split: Callable[[str], Iterable[str]] | None = None,
    kernel_width: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> WordWeights:
    r"""Explain one text: which of its words add to the score?

    $$\beta = \arg\min \sum_m \pi(z_m) \big(f_t(h(z_m)) - \beta_0 - \beta \cdot z_m\big)^2
      + \alpha \lVert \beta \rVert^2$$

    $h(z)$ leaves out the words with $z_i = 0$, wherever they stand; all else stays. Signs and
    emoji count as words: all but blanks can be left out, and only whole. $\alpha$ is
    that of `lime_penalty`.

    Args:
        predict: maps a list of M texts to (M,) or (M, K).
        text: what is explained.
        target: which of the K outputs, an integer of any kind; None for a single one.
        n_samples: copies, more than different words; the first one is the text itself.
        split: cuts a text into its parts, in order, for instance a tokenizer of Chinese or Thai;
            what it leaves out is always shown. None: `xailab.core.words.words_of`, which follows
            Unicode and takes single characters where a script has no spaces.
        kernel_width: see `lime_weights`; None: 0.25.
        seed: of the copies; the global random state is neither used nor changed.
        batch_size: texts evaluated at once; None measures.

    Returns:
        `WordWeights(words, weights)`.

    Raises:
        TypeError: `text` is not a string, `predict` or `split` is not callable, a target or counts
            that are not integers.
        ValueError: a text without words, parts that are not in it, answers that do not fit,
            samples or a kernel too few or too narrow to tell the words apart.

    Reference: Ribeiro, Singh, Guestrin (2016), "Why Should I Trust You?".
    Elsewhere: lime `LimeTextExplainer`, whose words are runs of letters and digits:
        `split=re.compile(r"\w+").findall`.

    >>> good = lambda texts: np.array([float("good" in text) for text in texts])
    >>> found = lime_text(good, "a good film", None)
    >>> max(zip(found.weights, found.words))[1]
    'good'
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {type(text).__name__}")
    pieces = _pieces(text, split)
    words = list(dict.fromkeys(pieces[1::2]))
    if not words:
        raise ValueError(f"there is no word in {text!r:.60}")
    samples = _samples(n_samples, len(words), seed)
    places = {word: i for i, word in enumerate(words)}

    def copies(chunk: slice) -> list[str]:
        return [_without(pieces, places, row) for row in samples[chunk]]

    scores = _answers(predict, copies, len(samples), target, np.empty(1), batch_size)
    return WordWeights(words, _fitted(samples, scores, kernel_width, None).coefficients)


def _pieces(text: str, split: Callable[[str], Iterable[str]] | None) -> list[str]:
    """Return the parts at odd places, and what stands between them at even ones."""
    if not (split is None or callable(split)):
        raise TypeError(f"split must be a function, got {type(split).__name__}")
    pieces, end = [], 0
    for part in words_of(text) if split is None else split(text):
        if not isinstance(part, str):
            raise TypeError(f"split must give strings, got {type(part).__name__}")
        if not part.strip():  # blanks stay, as without split
            continue
        begin = text.find(part, end)
        if begin < 0:
            raise ValueError(f"split gave {part!r:.40}, which is not in the rest of the text")
        pieces += [text[end:begin], part]
        end = begin + len(part)
    return [*pieces, text[end:]]


def _without(pieces: Sequence[str], places: dict[str, int], row: Array) -> str:
    """Return the text without the words that are hidden in this sample."""
    return "".join(
        piece if i % 2 == 0 or row[places[piece]] else "" for i, piece in enumerate(pieces)
    )


def _samples(n_samples: int, n: int, seed: int) -> Array:
    """Return (M, n) of 0 and 1, each with chance one half; the first row shows everything.

    A single part is hidden in all the others: there is nothing else to try.
    """
    count, seed = check_positive("n_samples", n_samples), as_integer("seed", seed)
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if count <= n:
        raise ValueError(f"n_samples is {count}, it must be more than the {n} parts to be weighed")
    samples = (
        np.random.default_rng(seed).integers(2, size=(count, n)) if n > 1 else np.zeros((count, 1))
    )
    samples[0] = 1
    return samples


def _fitted(samples: Array, scores: Array, width: float | None, n_features: int | None) -> Fit:
    weights = lime_weights(samples, _WIDTH if width is None else width)
    _check_told_apart(samples, weights)
    fit = lime_fit(samples, scores, weights, lime_penalty(samples, weights))
    if n_features is None:
        return fit
    kept = np.argsort(-np.abs(fit.coefficients), kind="stable")[:n_features]
    part = samples[:, kept]
    small = lime_fit(part, scores, weights, lime_penalty(part, weights))
    coefficients = np.zeros(samples.shape[1])
    coefficients[kept] = small.coefficients
    return Fit(small.intercept, coefficients)


def _check_told_apart(samples: Array, weights: Array) -> None:
    """Refuse samples whose answers cannot say what each part adds."""
    parts = samples.shape[1]
    if np.linalg.matrix_rank(1 - samples) < parts:
        raise ValueError(
            f"n_samples is too small: {len(samples)} copies do not tell the {parts} parts apart"
        )
    hidden = weights[(samples == 0).any(1)]
    hidden = hidden / (hidden.max() or 1.0)
    counting = hidden.sum() ** 2 / max((hidden**2).sum(), 1.0)  # Kish's number of samples
    if 2 * counting < parts:
        raise ValueError(
            f"kernel_width is too narrow: about {counting:.0f} copies count, for {parts} parts"
        )


def _answers(
    predict: Predict,
    make: Callable[[slice], Any],
    n: int,
    target: int | None,
    like: Array,
    batch_size: int | None,
) -> Array:
    """Return the black box's scores, (n,), of copies that exist only while they are evaluated."""
    index = None if target is None else as_integer("target", target)

    def read(chunk: range) -> Array:
        return chosen_of(predict(make(slice(chunk.start, chunk.stop))), len(chunk), index)

    return ask_in_chunks(predict, read, range(n), batch_size=batch_size, row_bytes=like.nbytes)


def _picture(image: Any) -> Array:
    """Return the picture as an array of finite real numbers."""
    picture = as_array(image) if isinstance(image, Tensor) else np.asarray(image)
    if picture.dtype.kind not in "biuf":
        raise TypeError(f"image must hold real numbers, got {picture.dtype}")
    if picture.ndim not in (2, 3) or not picture.size:
        raise ValueError(f"image must be (H, W), (H, W, C) or (C, H, W), got {picture.shape}")
    if not np.isfinite(picture).all():
        raise ValueError("image holds values that are NaN or infinite")
    return picture


def _channels(shape: tuple[int, ...], channel_axis: int | None) -> int | None:
    """Return which axis holds the channels: as said, or as seen where that is clear."""
    ends = [axis for axis in (0, 2) if len(shape) == 3 and shape[axis] in _USUAL]
    if channel_axis is not None:
        axis = as_integer("channel_axis", channel_axis)
        if len(shape) != 3 or not -3 <= axis < 3:
            raise ValueError(f"channel_axis is {axis}, the image has the shape {shape}")
        return axis % 3
    if len(shape) == 3 and len(ends) != 1:
        raise ValueError(
            f"image must be (H, W), (H, W, C) or (C, H, W); {shape} does not tell which axis holds "
            "the channels: say channel_axis=0 or channel_axis=-1"
        )
    return ends[0] if ends else None


def _paint(hide: Any, picture: Array) -> Array:
    """Return what is painted over hidden patches, or say why it cannot be."""
    try:
        asked = np.broadcast_to(np.asarray(hide), picture.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"hide must broadcast to the image, {picture.shape}") from error
    if asked.dtype.kind not in "biuf":
        raise TypeError(f"hide must be a number or numbers, got {hide!r:.40}")
    with np.errstate(invalid="ignore", over="ignore"):
        painted = asked.astype(picture.dtype)
    fits = np.isfinite(painted) if picture.dtype.kind == "f" else painted == asked
    if not fits.all():
        raise ValueError(
            f"hide={asked[~fits][0]} cannot be painted in an image of {picture.dtype}: take a "
            "value that it can hold, or give the image as floats"
        )
    return painted


def _segments(picture: Array, axis: int | None, segments: Any) -> Array:
    """Return the number of every pixel's patch, (H, W)."""
    shape = tuple(n for i, n in enumerate(picture.shape) if i != axis)
    if segments is None:
        pixels = picture.reshape(*shape, 1) if axis is None else np.moveaxis(picture, axis, -1)
        if (pixels == pixels[0, 0]).all():
            return np.zeros(shape, dtype=int)
        return slic(pixels, n_segments=50, compactness=10, channel_axis=-1, start_label=0)
    numbers = as_array(segments) if isinstance(segments, Tensor) else np.asarray(segments)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"segments must hold integers, got {numbers.dtype}")
    if numbers.shape != shape:
        raise ValueError(f"segments must have shape {shape}, got {numbers.shape}")
    return numbers
