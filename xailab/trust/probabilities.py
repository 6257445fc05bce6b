"""What a row of probabilities says about itself, and which part of it is ignorance.

Lesson `uncertainty` teaches this file. A prediction's uncertainty is a number a row; here it is
read off the probabilities, split into the part that more data would remove and the part that they
would not, and put to its two uses: to spot inputs of another kind, and to leave rows to somebody
else.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score
from torch import Tensor

from xailab.core.checks import Model, check_positive
from xailab.core.outputs import as_array, class_logits
from xailab.core.scores import outputs_of

Array = np.ndarray
Numbers = Array | Tensor | Sequence[float]
Labels = Array | Tensor | Sequence[int]

_TOLERANCE = 1e-4  # how far from 1 a row's sum may be: float32 softmax stays within 1e-6
_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class AnswerError(ValueError):
    """A model answers numbers that no class can be read from: NaN, infinity."""


class Prediction(NamedTuple):
    """What several networks say together, and how unsure that is.

    Attributes:
        mean: (N, K) probabilities; for a regression (N,) means.
        total: (N,) how unsure the prediction is: an entropy in nats, or a variance.
        aleatoric: (N,) the part that each network alone admits: noise in the data.
        epistemic: (N,) the part that lies between the networks: what more data could settle.
    """

    mean: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    def to(self, dtype: torch.dtype) -> "Prediction":
        """Return the same numbers in another dtype.

        Raises:
            ValueError: a number that is too large for it.
        """
        parts = [part.to(dtype) for part in self]
        if not all(torch.isfinite(part).all() for part in parts):
            raise ValueError(f"a variance or mean is too large for {dtype}: ask in torch.float32")
        return Prediction(*parts)


def entropy_split(samples: Tensor) -> Prediction:
    r"""Split the entropy of an averaged prediction into noise and disagreement.

    $$\underbrace{H\big(\tfrac1S \textstyle\sum_s p_s\big)}_{\text{total}} =
      \underbrace{\tfrac1S \textstyle\sum_s H(p_s)}_{\text{aleatoric}} +
      \underbrace{I(y; s)}_{\text{epistemic}}$$

    The mutual information $I$ is how much one would learn about y by being told which network is
    right. It is 0 where all networks agree, however unsure each of them is.

    Args:
        samples: (S, N, K) probabilities, one table a network.

    Returns:
        A `Prediction` with mean (N, K), in the dtype of `samples`; uncertainties in nats, at most
        log K.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: another shape, nothing in it, NaN, or rows that are not probabilities.

    Reference: Houlsby, Huszár, Ghahramani, Lengyel (2011), Bayesian Active Learning for
        Classification and Preference Learning; Depeweg, Hernández-Lobato, Doshi-Velez, Udluft
        (2018), Decomposition of Uncertainty in Bayesian Deep Learning for Efficient and
        Risk-sensitive Learning. Wimmer et al. (2023), Quantifying Aleatoric and Epistemic
        Uncertainty in Machine Learning: Are Conditional Entropy and Mutual Information
        Appropriate Measures?, show where the split misleads.
    Elsewhere: BALD score, in libraries for active learning.

    >>> sure_but_at_odds = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> [round(part.item(), 3) for part in entropy_split(sure_but_at_odds)[1:]]
    [0.693, 0.0, 0.693]
    """
    told = _stacked(samples, "(S, N, K) probabilities")
    check_probs(told.reshape(-1, told.shape[-1]), "samples")
    p = told.double() / told.double().sum(
        -1, keepdim=True
    )  # in half precision a row sums to 1.0002
    mean = p.mean(0)
    total = torch.special.entr(mean).sum(-1)
    aleatoric = torch.special.entr(p).sum(-1).mean(0)
    epistemic = (total - aleatoric).clamp(min=0)  # never negative but for rounding
    return Prediction(mean, total, aleatoric, epistemic).to(samples.dtype)


def variance_split(means: Tensor, variances: Tensor) -> Prediction:
    r"""Split the variance of a mixture of normal predictions: the law of total variance.

    $$\underbrace{\operatorname{Var} y}_{\text{total}} =
      \underbrace{\tfrac1S \textstyle\sum_s \sigma_s^2}_{\text{aleatoric}} +
      \underbrace{\tfrac1S \textstyle\sum_s (\mu_s - \bar\mu)^2}_{\text{epistemic}}$$

    Args:
        means: (S, N) what each network expects.
        variances: (S, N) how much noise each network expects, in squared units of y.

    Returns:
        A `Prediction` with mean (N,), in units of y, in the dtype of `means`; uncertainties in
        squared units of y.

    Raises:
        TypeError: not tensors of floats.
        ValueError: shapes that differ, nothing in them, NaN, a negative variance, or a result too
            large for the dtype.

    Reference: Lakshminarayanan, Pritzel, Blundell (2017), Simple and Scalable Predictive
        Uncertainty Estimation using Deep Ensembles; Kendall, Gal (2017), What Uncertainties Do We
        Need in Bayesian Deep Learning for Computer Vision?
    Elsewhere: `torch.distributions.MixtureSameFamily(...).variance` (the total).

    >>> two = variance_split(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [0.7]]))
    >>> [round(part.item(), 3) for part in two]
    [2.0, 1.6, 0.6, 1.0]
    """
    mu, noise = _stacked(means, "(S, N) means"), _stacked(variances, "(S, N) variances")
    if mu.ndim != 2 or mu.shape != noise.shape:
        raise ValueError(
            f"means and variances must both have shape (S, N), got {tuple(mu.shape)} and "
            f"{tuple(noise.shape)}"
        )
    if (noise < 0).any():
        raise ValueError(f"a variance cannot be negative, got {noise.min().item():.3g}")
    mu, noise = mu.double(), noise.double()
    aleatoric, epistemic = noise.mean(0), mu.var(0, correction=0)
    return Prediction(mu.mean(0), aleatoric + epistemic, aleatoric, epistemic).to(means.dtype)


class Ranking(NamedTuple):
    """A prediction as its probabilities explain it: one row a prediction, the best class first.

    Attributes:
        classes: (N, k) the k most probable classes; after the first come the runners-up.
        probs: (N, k) their probabilities.
        margin: (N,) how far the first is ahead of the second, 0..1.
        entropy: (N,) nats, 0 (sure) to log K (no idea).
    """

    classes: Array
    probs: Array
    margin: Array
    entropy: Array


def rank_classes(probs: Numbers, *, k: int | None = None) -> Ranking:
    r"""Explain predictions by their probabilities: who won, by how much, who came next.

    $$\text{margin} = p_{(1)} - p_{(2)}, \qquad \text{entropy} = -\sum_c p_c \log p_c$$

    The margin sees the first two alone, the entropy sees all classes. Neither knows whether the
    probabilities can be believed: that is calibration.

    Args:
        probs: (N, K) probabilities, at least two classes.
        k: how many classes to name, at most K; None: three, or both of two. Of equals the lower
            number comes first.

    Returns:
        A `Ranking`.

    Raises:
        TypeError: `k` is not an integer; data that are not numbers.
        ValueError: rows that are not probabilities, or k outside 1..K.

    Reference: Settles (2009), Active Learning Literature Survey (margin and entropy).
    Elsewhere: `torch.topk` and `scipy.stats.entropy`.

    >>> told = rank_classes([[0.1, 0.7, 0.2]], k=2)
    >>> told.classes.tolist(), told.margin.round(3).tolist(), told.entropy.round(3).tolist()
    ([[1, 2]], [0.5], [0.802])
    """
    p = check_probs(probs)
    count = min(3, p.shape[1]) if k is None else check_positive("k", k)
    if count > p.shape[1]:
        raise ValueError(f"k must lie in 1..{p.shape[1]}, the number of classes, got {k}")
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    return Ranking(
        order[:, :count], ranked[:, :count], ranked[:, 0] - ranked[:, 1], entropy(p, axis=1)
    )


def ood_auroc(inside: Numbers, outside: Numbers) -> float:
    r"""How well an uncertainty tells inputs of another kind from those the model knows.

    $$P(u_\text{out} > u_\text{in}) + \tfrac12 P(u_\text{out} = u_\text{in})$$

    over pairs of one row from each side: the area under the ROC curve of the alarm
    "u is large". 0.5 is guessing; below 0.5 the model is surer of what it does not know.

    Args:
        inside: (N,) uncertainties of inputs like those of the training.
        outside: (M,) uncertainties of others.

    Returns:
        A share of pairs, 0..1.

    Raises:
        TypeError: data that are not numbers.
        ValueError: NaN, nothing to compare, or more than one number a row.

    Reference: Hendrycks, Gimpel (2017), A Baseline for Detecting Misclassified and
        Out-of-Distribution Examples in Neural Networks.
    Elsewhere: scikit-learn `roc_auc_score`.

    >>> ood_auroc([0.1, 0.2], [0.2, 0.9])  # of four pairs three won and one even
    0.875
    """
    near, far = check_column(inside, "inside"), check_column(outside, "outside")
    kind = np.repeat([0, 1], [len(near), len(far)])
    return float(roc_auc_score(kind, np.concatenate([near, far])))


class RiskCoverage(NamedTuple):
    """Selective prediction: answer the rows that are surest, leave the others to somebody else.

    Attributes:
        coverage: (N,) share of rows answered: 1/N, 2/N, ..., 1.
        risk: (N,) mean loss of the rows answered.
        area: mean risk over all coverages (AURC); smaller is better.
    """

    coverage: Array
    risk: Array
    area: float


def risk_coverage(uncertainty: Numbers, losses: Numbers) -> RiskCoverage:
    r"""Measure what is gained by not answering where the uncertainty is largest.

    $$\text{risk}(i/N) = \frac1i \sum_{j \le i} \ell_{(j)}, \qquad
      u_{(1)} \le u_{(2)} \le \dots \le u_{(N)}$$

    Rows of equal uncertainty cannot be told apart, so each counts with their mean loss: the order
    in which rows came does not matter.

    Args:
        uncertainty: (N,) any measure; only its order matters.
        losses: (N,) what an answer costs: 1 where it is wrong and 0 where it is right, or any
            other loss.

    Returns:
        A `RiskCoverage`. Its last risk is the loss of answering everything.

    Raises:
        TypeError: data that are not numbers.
        ValueError: NaN, no rows, or lengths that differ.

    Reference: El-Yaniv, Wiener (2010), On the Foundations of Noise-free Selective
        Classification; Geifman, Uziel, El-Yaniv (2019), Bias-Reduced Uncertainty Estimation for
        Deep Neural Classifiers (the area).
    Elsewhere: torch-uncertainty `AURC`.

    >>> risk_coverage([0.9, 0.1, 0.5, 0.2], [1, 0, 1, 0]).risk.round(2).tolist()
    [0.0, 0.0, 0.33, 0.5]
    """
    u, loss = check_column(uncertainty, "uncertainty"), check_column(losses, "losses")
    if len(u) != len(loss):
        raise ValueError(f"there are {len(u)} uncertainties but {len(loss)} losses")
    _, level, rows = np.unique(u, return_inverse=True, return_counts=True)
    expected = np.bincount(level, loss) / rows
    counts = np.arange(1, len(u) + 1)
    risk = np.cumsum(expected[np.sort(level)]) / counts
    return RiskCoverage(counts / len(u), risk, float(risk.mean()))


# ---- checks --------------------------------------------------------------------------------------


def class_answers(model: Model, x: Tensor) -> Tensor:
    """Ask a model, and return its logits with a column for every class, (N, K), K at least 2.

    One logit z, (N,) or (N, 1), is a binary network's: its columns are 0 and z.

    Raises:
        TypeError: outputs that are not floats, such as class numbers.
        ValueError: NaN or plus infinity among them, which no class can be read from.

    >>> class_answers(lambda x: x.sum(1), torch.ones(1, 3))
    tensor([[0., 3.]])
    """
    return class_logits(check_outputs(outputs_of(model, x)))


def check_outputs(outputs: Tensor) -> Tensor:
    """Return a model's outputs if they can be logits.

    Raises:
        TypeError: not floats.
        ValueError: NaN or plus infinity; minus infinity rules a class out and passes.
    """
    if not outputs.is_floating_point():
        raise TypeError(f"the model must return floating-point scores, it returned {outputs.dtype}")
    bad = outputs.isnan() | (outputs == torch.inf)
    if bad.any():
        rows = int(bad.reshape(len(bad), -1).any(1).sum())
        raise AnswerError(f"the model returned NaN or infinity in {rows} of {len(bad)} rows")
    return outputs


def sum_tolerance(dtype: Any, k: int) -> float:
    """Return how far from 1 the sum of k probabilities may be that were rounded to a dtype.

    Each is off by half a last digit of itself, together half an eps, and tiny ones by half the
    smallest step.

    >>> sum_tolerance(torch.float32, 10), round(sum_tolerance(torch.bfloat16, 10), 4)
    (0.0001, 0.0078)
    """
    half = _HALVES.get(str(dtype).removeprefix("torch."))
    if half is None:
        return _TOLERANCE
    return max(_TOLERANCE, torch.finfo(half).eps) + k * torch.finfo(half).smallest_normal / 2


def check_probs(probs: Any, name: str = "probs") -> Array:
    """Return probabilities as (N, K) float64.

    Raises:
        TypeError: not numbers.
        ValueError: another shape, fewer than two classes, NaN, negative, or a row that does not
            sum to 1 within 1e-4 (in half precision within the dtype's eps).
    """
    p = check_numbers(probs, name)
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2:
        raise ValueError(
            f"{name} must have shape (N, K), N >= 1 rows and K >= 2 classes, got {p.shape}"
            + (": of one column p give both, 1 - p and p" if p.shape[1:] in ((), (1,)) else "")
        )
    if p.min() < 0:
        raise ValueError(
            f"{name} holds {p.min():.3g}: no probability (are these logits? softmax them)"
        )
    worst = int(np.abs(p.sum(1) - 1).argmax())
    if abs(p[worst].sum() - 1) > sum_tolerance(getattr(probs, "dtype", None), p.shape[1]):
        raise ValueError(
            f"every row of {name} must sum to 1; row {worst} sums to {p[worst].sum():.6g}"
        )
    return p


def check_column(values: Any, name: str) -> Array:
    """Return (N,) finite float64, at least one of them.

    Raises:
        TypeError: not numbers.
        ValueError: another shape, empty, or NaN.
    """
    column = check_numbers(values, name)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"{name} must hold one number a row, (N,), got shape {column.shape}")
    return column


def check_numbers(values: Any, name: str) -> Array:
    """Return numbers as finite float64.

    Raises:
        TypeError: not numbers; complex ones.
        ValueError: NaN or infinite.
    """
    plain = as_array(values) if isinstance(values, Tensor) else values
    try:
        if np.iscomplexobj(plain):
            raise TypeError("complex")
        numbers = np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold real numbers, got {type(values).__name__}") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds {(~np.isfinite(numbers)).sum()} values NaN or infinite")
    return numbers


def _stacked(values: Any, what: str) -> Tensor:
    """Return a float tensor whose first dimension is the networks."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"expected a float tensor of {what}, got {got}")
    if values.ndim < 2 or not values.numel():
        raise ValueError(f"expected {what}, got shape {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"the {what} hold values that are NaN or infinite")
    return values.detach()
