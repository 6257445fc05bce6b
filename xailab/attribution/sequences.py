"""Explaining what comes in order: words one after the other, and sound over time.

Lesson `sequences_and_sound` teaches this file. Words have no gradient, but the vectors they stand
for do, so methods for floats work on those and each word gets the sum over its vector. Sound is
explained on its spectrogram, by silencing bands of frequency and stretches of time.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from xailab.attribution.attention import gradient_rollout
from xailab.attribution.occlusion import feature_ablation, occlusion
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.relevance import lrp
from xailab.attribution.saliency import saliency
from xailab.core.checks import (
    Model,
    Target,
    check_baseline,
    check_input,
    check_positive,
)
from xailab.core.scores import scores_of, target_of_rows
from xailab.core.state import frozen
from xailab.models.text_classifiers import TextClassifier
from xailab.models.texts import Reading, SpecialToken, TextModel

METHODS = ("integrated_gradients", "input_x_gradient", "occlusion")  # of any network on words
RELEVANCE = ("lrp", "gradient_attention")  # of transformers, and what else their rules know


# A sum that so many steps miss by half will not be found by more of them, unless it is a small
# part of numbers that cancel.
_MANY, _HALF, _PART = 100, 0.5, 0.05
_RIGHT = 0.05  # of the cosine that vectors of chance have: below, it is none of chance


class TokenAttributions(NamedTuple):
    """What each word did to the score.

    Attributes:
        tokens: the words of each row, as they are written where texts were given; special tokens
            ([CLS], <s>) where the tokenizer put them, which `special` tells apart.
        weights: (N, T), signed, in units of the score; `weights[i, j]` belongs to
            `tokens[i][j]`, and padding has 0.
        change: (N,), the score minus that of the baseline in place of all words: what complete
            weights sum to.
    """

    tokens: list[list[str]]
    weights: Tensor
    change: Tensor

    @property
    def special(self) -> Tensor:
        """Which of the tokens stand for no word of the text ([CLS], <s>), (N, T) bool."""
        rows = [[isinstance(token, SpecialToken) for token in row] for row in self.tokens]
        padded = [row + [False] * (self.weights.shape[1] - len(row)) for row in rows]
        return torch.tensor(padded, device=self.weights.device)

    @property
    def gap(self) -> Tensor:
        """How far the weights are from adding up to the change of the score, (N,)."""
        return self.weights.sum(1) - self.change


class Bands(NamedTuple):
    """What each frame and each row of a spectrogram did to the score.

    Attributes:
        time: (N, T), mean drop over the stretches of time that hold a frame.
        frequency: (N, F), mean drop over the bands that hold a row.
    """

    time: Tensor
    frequency: Tensor

    def map(self) -> Tensor:
        r"""Return (N, 1, F, T), how much each point helped: $\sqrt{\max(D_t, 0) \max(D_f, 0)}$.

        A point stands out only if both its moment and its height do. What spoke against the score
        is 0 here and negative in the two drops.
        """
        time, frequency = self.time.clamp(min=0), self.frequency.clamp(min=0)
        return (time[:, None, None, :] * frequency[:, None, :, None]).sqrt()


def token_attributions(
    model: TextModel | TextClassifier,
    inputs: Sequence[str] | Tensor,
    target: Target,
    *,
    method: str = "integrated_gradients",
    baseline: float | str | Tensor = 0.0,
    n_steps: int = 200,
    batch_size: int | None = None,
) -> TokenAttributions:
    r"""Explain a text through the vectors of its words; each word gets the sum over its vector.

    $$w_j = \sum_{p \in j} \sum_d A_{pd}, \qquad A = \text{method}(f_t,\ e), \qquad
      e = \text{embed}(ids)$$

    A word j may be cut into several pieces p (one in the networks of the course).

    Integrated gradients are complete, $\sum_j w_j = f_t(e) - f_t(b)$, up to the error of the sum
    over `n_steps` points, which `gap` tells for every text. Measured on the shipped networks and
    held-out messages: with the GRU 100 steps leave less than 0.1 % of the change in the first 100
    messages, but among all 167 that are spam more than 1 % in four, and 17 % in the worst; with
    the transformer, whose norms bend the score sharply near the baseline 0, 50 steps leave up to
    3 % in nine of ten of the first 100, and it takes 200 for about 1 %. Input times gradient
    and occlusion make no such promise; for them `gap` says how far from additive the network is.
    A network that divides its vectors by their length (Llama's) answers alike to every point on
    the way from 0, and jumps there: its sum is missing, a warning says so, and "mask" or "pad"
    is a baseline that serves.

    Args:
        model: a network on words: `TextModel`, or a classifier of Hugging Face by
            `xailab.models.text_classifier`.
        inputs: N texts; or, of a `TextModel`, their ids (N, T), 0 being padding.
        target: class index, (N,) class indices, or None for a single-output model.
        method: "integrated_gradients", "input_x_gradient", or "occlusion" (one word at a time,
            with all its pieces, is replaced by the baseline, and keeps its place). Of what their
            rules know also "lrp" (see `lrp`; it shares out the score itself, not its change) and,
            of transformers, "gradient_attention" (what attention brought, see `gradient_rollout`;
            without unit or sum, never negative).
        baseline: the vector of "no word", in place of all: a number, or a tensor that broadcasts
            to (N, T, width), T pieces. The default 0 is the vector of padding in a `TextModel`. Or
            "mask", "pad" or "unk": the vector of that token in place of words, while special
            tokens stay. Input times gradient, LRP and rollout have none.
        n_steps: points on the path of integrated gradients.
        batch_size: rows evaluated at once; None measures.

    Returns:
        Words, weights (N, T), and the change of the score that complete weights sum to.

    Warns:
        UserWarning: integrated gradients of which half are missing, although the steps are many;
            input times gradient of a network that normalizes its vectors before all else
            (DeBERTa's, ModernBERT's): 0 for every word; a text that is longer than what the
            network reads.

    Raises:
        TypeError: a model that is neither; as for `integrated_gradients`; inputs that are neither a
            list of texts nor integers.
        ValueError: an unknown method; ids the model does not know; a target out of range; a
            baseline that the tokenizer does not have; a network whose answer is no function of one
            vector a piece; what "lrp" and "gradient_attention" have no rule for.

    Reference: Sundararajan, Taly, Yan (2017), Axiomatic Attribution for Deep Networks (section 6
        explains texts so).
    Elsewhere: captum `LayerIntegratedGradients(model, model.embedding)`, summed over the last
        axis; its pieces are not put together to words.

    >>> from xailab.models import sms_gru
    >>> tokens, weights, change = token_attributions(sms_gru(), ["See you", "WIN a prize"], 1)
    >>> tokens, weights.shape
    ([['See', 'you'], ['WIN', 'a', 'prize']], torch.Size([2, 3]))
    >>> bool((weights.sum(1) - change).abs().max() < 0.01)
    True
    """
    reader = check_text_model(model)
    if method not in _RUNNERS:
        raise ValueError(f"method must be one of {', '.join(_RUNNERS)}; got {method!r}")
    counts = {"n_steps": check_positive("n_steps", n_steps), "batch_size": batch_size}
    run, weights, changes = _RUNNERS[method], [], []
    with frozen(model):
        rows = reader.readings(inputs)
        of_rows = target_of_rows(target, len(rows))
        for i, (row, start) in enumerate(zip(rows, _starts(reader, rows, baseline), strict=True)):
            t = of_rows(torch.tensor([i]))
            weights.append(run(row, t, start, **counts))
            changes.append(_change(row, t, start))
    whole = pad_sequence(weights, batch_first=True)
    found = TokenAttributions([row.words for row in rows], whole, torch.cat(changes))
    if method == "integrated_gradients" and n_steps >= _MANY:
        _warn_of_gap(found, n_steps)
    return found


def band_occlusion(
    model: Model,
    spectrogram: Tensor,
    target: Target,
    *,
    width: int = 4,
    height: int = 4,
    stride: int | tuple[int, int] | None = None,
    baseline: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Bands:
    r"""Silence stretches of time, then bands of frequency, and note how far the score falls.

    $$D_t = \operatorname{mean}_{W \ni t} \big(f(x) - f(x_{\cdot, W \leftarrow b})\big), \qquad
      D_f = \operatorname{mean}_{W \ni f} \big(f(x) - f(x_{W, \cdot \leftarrow b})\big)$$

    W slides over `width` frames at all frequencies, then over `height` rows at all times: two
    short walks in place of a window at every point.

    Args:
        model: maps (N, C, F, T) to scores (N, K) or (N,); any function of tensors.
        spectrogram: (N, C, F, T) floats, frequency before time; channels are silenced together.
        target: class index, (N,) class indices, or None for a single-output model.
        width: frames of a stretch of time.
        height: rows of a band of frequencies.
        stride: steps between neighbors, one number or (rows, frames); None: 1.
        baseline: what silences: a number, or a tensor that broadcasts to the spectrogram. 0 is
            silence where loudness is in decibels above a floor, as in `data.tones`.
        batch_size: rows evaluated at once; None measures.

    Returns:
        Drops per frame (N, T) and per row (N, F), in units of the score, positive where the part
        helped; their `.map()` puts the two together.

    Raises:
        TypeError: as for `occlusion`.
        ValueError: as for `occlusion`; another number of axes.

    Reference: Zeiler, Fergus (2014), Visualizing and Understanding Convolutional Networks. The
        same masks train better networks: Park et al. (2019), SpecAugment: A Simple Data
        Augmentation Method for Automatic Speech Recognition.
    Elsewhere: captum `Occlusion` with windows (C, F, width) and (C, height, T).

    >>> early_and_low = lambda x: x[:, 0, 0, :2].sum(1)
    >>> time, frequency = band_occlusion(
    ...     early_and_low, torch.ones(1, 1, 3, 4), None, width=1, height=1
    ... )
    >>> time, frequency
    (tensor([[1., 1., 0., 0.]]), tensor([[2., 0., 0.]]))
    """
    x = check_input(model, spectrogram)
    if x.ndim != 4:
        raise ValueError(f"a spectrogram must be (N, C, F, T), got shape {tuple(x.shape)}")
    width, height = check_positive("width", width), check_positive("height", height)
    down, right = _strides(stride)
    rows, frames = x.shape[2:]
    common: dict[str, Any] = {"baseline": baseline, "batch_size": batch_size}
    time = occlusion(model, x, target, window=(rows, width), stride=(1, right), **common)
    frequency = occlusion(model, x, target, window=(height, frames), stride=(down, 1), **common)
    return Bands(time[:, 0, 0], frequency[:, 0, :, 0])


def check_text_model(model: Any) -> TextModel | TextClassifier:
    """Return the model if it reads words through vectors.

    Raises:
        TypeError: it is neither a `TextModel` nor a `TextClassifier`.
    """
    if not isinstance(model, (TextModel, TextClassifier)):
        raise TypeError(
            "the model must be a TextModel (encode, embed, forward_embedded), or a classifier of "
            "Hugging Face as xailab.models.text_classifier(model, tokenizer); got "
            f"{type(model).__name__}"
        )
    return model


# ---- one method each: (reading, target, baseline) -> what each word did, (W,) -------------------


def _on_the_path(
    row: Reading, target: Target, start: Tensor, *, n_steps: int, batch_size: int | None
) -> Tensor:
    """Integrated gradients, whose gap `TokenAttributions.gap` tells for every text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the attribution misses")
        found = integrated_gradients(
            row.on_vectors,
            row.vectors,
            target,
            baseline=start,
            n_steps=n_steps,
            batch_size=batch_size,
        )
    return _summed(row, found.sum(2)[0])


def _times_gradient(row: Reading, target: Target, start: Tensor, **_: Any) -> Tensor:
    slopes = saliency(row.on_vectors, row.vectors, target)
    _warn_of_right_angles(row, slopes)
    return _summed(row, (row.vectors * slopes).sum(2)[0])


def _warn_of_right_angles(row: Reading, slopes: Tensor) -> None:
    r"""Say so where $x \cdot \nabla f$ is far below the $|x| |\nabla f| / \sqrt{d}$ of chance."""
    products = (row.vectors * slopes).sum(2)[0][row.read].abs().sum()
    sizes = (row.vectors.norm(dim=2) * slopes.norm(dim=2))[0][row.read].sum()
    if products < _RIGHT * sizes / row.vectors.shape[2] ** 0.5:
        warnings.warn(
            f"the slopes of {type(row.network).__name__} stand at right angles to its vectors: it "
            "answers alike however long they are (it normalizes them first), and input times "
            "gradient is near 0 for every word, whatever it did; take integrated gradients with "
            'baseline="mask" or "pad", occlusion or lrp',
            stacklevel=4,
        )


def _word_by_word(
    row: Reading, target: Target, start: Tensor, *, batch_size: int | None, **_: Any
) -> Tensor:
    """The drop of each word, all its pieces together, told once."""
    drops = feature_ablation(
        row.on_vectors,
        row.vectors,
        target,
        feature_mask=row.owner[:, None],
        baseline=start,
        batch_size=batch_size,
    )[0, :, 0].masked_fill(~row.read, 0)
    return _summed(row, torch.zeros_like(drops)).scatter(0, row.owner, drops)


def _relevance(row: Reading, target: Target, start: Tensor, **_: Any) -> Tensor:
    return _summed(row, lrp(row.on_vectors, row.vectors, target).sum(2)[0])


def _rolled_attention(row: Reading, target: Target, start: Tensor, **_: Any) -> Tensor:
    """What attention brings of each piece; the network's own positions are left out."""
    found = gradient_rollout(row.network, row.inputs, target).brought[0]
    if len(found) != row.leading + len(row.owner):
        raise ValueError(
            f"{type(row.network).__name__} gives attention among {len(found)} positions for "
            f"{len(row.owner)} pieces of text: which belongs to which is not known"
        )
    return _summed(row, found[row.leading :])


_RUNNERS: dict[str, Callable[..., Tensor]] = {
    "integrated_gradients": _on_the_path,
    "input_x_gradient": _times_gradient,
    "occlusion": _word_by_word,
    "lrp": _relevance,
    "gradient_attention": _rolled_attention,
}


def _warn_of_gap(found: TokenAttributions, n_steps: int) -> None:
    """Say so where the path is walked in many steps, and the sum is missing all the same."""
    gap, change, size = found.gap.abs(), found.change.abs(), found.weights.abs().sum(1)
    worst = int(gap.argmax())
    if gap[worst] > max(_HALF * change[worst], _PART * size[worst]):
        warnings.warn(
            f"integrated gradients of text {worst} miss {gap[worst].item():.3g} of the change of "
            f"its score, {found.change[worst].item():.3g}, in {n_steps} steps: the score jumps on "
            'the way from the baseline; take baseline="mask" or "pad" (a network that normalizes '
            "its vectors has no slope toward 0), or more steps",
            stacklevel=3,
        )


def _summed(row: Reading, of_pieces: Tensor) -> Tensor:
    """Return the sum over the pieces of each word, (W,); padding has 0."""
    size = max(len(row.words), int(row.owner.max()) + 1)
    return of_pieces.new_zeros(size).index_add(0, row.owner, of_pieces.masked_fill(~row.read, 0))


def _starts(
    model: TextModel | TextClassifier, rows: Sequence[Reading], baseline: float | str | Tensor
) -> list[Tensor]:
    """Return what stands for no word in each text, (1, T, width)."""
    if isinstance(baseline, str):
        vector = model.vector_of(baseline)
        return [torch.where(_special(row), row.vectors, vector) for row in rows]
    whole = pad_sequence([row.vectors[0] for row in rows], batch_first=True)
    start = check_baseline(baseline, whole)
    return [start[i : i + 1, : len(row.owner)] for i, row in enumerate(rows)]


def _special(row: Reading) -> Tensor:
    """Tell which pieces are special tokens, (T, 1)."""
    special = [isinstance(word, SpecialToken) for word in row.words]
    special += [False] * (len(row.owner) - len(special))  # padding has no word
    return torch.tensor(special, device=row.owner.device)[row.owner][:, None]


def _change(row: Reading, target: Target, start: Tensor) -> Tensor:
    """Return the score minus that of the baseline, (1,)."""
    with torch.no_grad():
        whole = scores_of(row.on_vectors, row.vectors, target)
        return whole - scores_of(row.on_vectors, start, target)


def _strides(stride: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return the steps (rows, frames)."""
    if stride is None:
        return 1, 1
    if isinstance(stride, (tuple, list)):
        if len(stride) != 2:
            raise ValueError(f"stride must be one number or (rows, frames), got {stride}")
        return stride[0], stride[1]
    return stride, stride
