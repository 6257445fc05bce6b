"""Alarms for inputs that were made to mislead: each gives a row a number, its suspicion.

Lesson `adversarial` teaches this file. A detector is asked in two ways: `score` gives numbers for a
table; `suspicion` stays inside the graph of its input, which is what an attacker who knows the
detector uses (`adversarial.adaptive_attack`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import log
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.checks import Model, check_input, check_positive
from xailab.core.company import check_company
from xailab.core.layers import capture, output_of
from xailab.core.outputs import labels_of, probabilities_of
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.trust.probabilities import class_answers

Squeezer = Callable[[Tensor], Tensor]

_LOG_ZERO = -700.0  # a class that is ruled out has log p = -inf, whose gradient is NaN


class Detector(ABC):
    """One number a row, higher when more suspicious.

    Attributes:
        models: the networks that are asked.
    """

    models: Sequence[Model]

    @abstractmethod
    def suspicion(self, x: Tensor) -> Tensor:
        """Return (N,), inside the graph of x, with the models frozen."""

    def score(self, x: Tensor, *, batch_size: int | None = None) -> Tensor:
        """Return the suspicion of every row, (N,), detached, in float32 or the dtype of x if finer.

        Args:
            x: (N, ...) floats.
            batch_size: rows evaluated at once; None measures.

        Raises:
            TypeError, ValueError: as `saliency` for x.
        """
        rows = check_input(self.models[0], x).detach()
        with _all_frozen(self.models), torch.no_grad():
            scores = batched(self.suspicion, rows, batch_size=batch_size, owner=self)
            for model in self.models:
                check_company(model, rows)
        return scores


# ---- feature squeezing ---------------------------------------------------------------------------


def reduce_bits(x: Tensor, *, bits: int) -> Tensor:
    r"""Round numbers in 0..1 to $2^b$ levels.

    $$x \mapsto \frac{\operatorname{round}\big((2^b - 1)\, x\big)}{2^b - 1}$$

    The gradient is passed on as if nothing had been rounded (a straight-through estimator), so
    rounding does not hide a model from an attacker; it would be 0 otherwise.

    Args:
        x: floats in 0..1.
        bits: b, 1 to 52.

    Returns:
        The shape of x.

    Raises:
        TypeError: `bits` no integer.
        ValueError: `bits` outside 1..52 (all that float64 holds); x outside 0..1.

    Reference: Xu, Evans, Qi (2018), Feature Squeezing: Detecting Adversarial Examples in Deep
        Neural Networks; Athalye, Carlini, Wagner (2018), Obfuscated Gradients Give a False Sense
        of Security (the gradient).
    Elsewhere: ART `FeatureSqueezing`.

    >>> reduce_bits(torch.tensor([0.1, 0.4, 0.6, 0.9]), bits=1)
    tensor([0., 0., 1., 1.])
    """
    if check_positive("bits", bits) > 52:
        raise ValueError(f"bits must lie in 1..52, got {bits}")
    plain = x.detach().double()
    if plain.min() < 0 or plain.max() > 1:
        raise ValueError(f"x must lie in 0..1, it lies in {plain.min():.4g}..{plain.max():.4g}")
    levels = 2 ** int(bits) - 1
    return ((levels * plain).round() / levels).to(x.dtype) + (x - x.detach())


def median_smooth(x: Tensor, *, size: int = 3) -> Tensor:
    r"""Replace each pixel by the median of the window around it: single odd pixels vanish.

    $$x_{ij} \mapsto \operatorname{median}\{x_{i+a,\,j+b} : |a|, |b| \le (s - 1) / 2\}$$

    Args:
        x: (N, C, H, W) floats.
        size: s, side of the window, odd; edges are mirrored.

    Returns:
        The shape of x.

    Raises:
        TypeError: `size` no integer.
        ValueError: x without (C, H, W); `size` even, below 1, or too large to mirror the edges.

    Reference: Xu, Evans, Qi (2018), Feature Squeezing: Detecting Adversarial Examples in Deep
        Neural Networks.
    Elsewhere: `scipy.ndimage.median_filter(mode="mirror")`, ART `SpatialSmoothing`.

    >>> median_smooth(torch.tensor([[[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]])).sum()
    tensor(0.)
    """
    if x.ndim != 4:
        raise ValueError(f"x must be pictures (N, C, H, W), got {tuple(x.shape)}")
    if check_positive("size", size) % 2 == 0:
        raise ValueError(f"size must be odd, got {size}")
    edge = int(size) // 2
    if edge >= min(x.shape[2:]):
        raise ValueError(f"size={size} is too large for pictures of {tuple(x.shape[2:])}")
    padded = F.pad(x, (edge, edge, edge, edge), mode="reflect")
    return padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4).median(4).values


class FeatureSqueezing(Detector):
    r"""Squeeze the input, and see whether the answer is still the same.

    $$d(x) = \max_q \big\| p(x) - p(q(x)) \big\|_1$$

    $p$ are the model's probabilities and $q$ the squeezers. What a change of epsilon did to
    an input hardly survives rounding or smoothing; what the input shows does.

    Args:
        model: maps (N, ...) to logits (N, K), or to one logit of a binary network.
        squeezers: functions of x; None: `reduce_bits` to 1 bit and `median_smooth` with 3 x 3,
            which suits pictures in 0..1 that are nearly black and white.

    Raises:
        ValueError: no squeezer.

    Reference: Xu, Evans, Qi (2018), Feature Squeezing: Detecting Adversarial Examples in Deep
        Neural Networks.
    Elsewhere: ART has the squeezers, not the detector.

    >>> model = lambda x: torch.stack([0 * x[:, 0], 100 * (x[:, 0] - 0.5)], dim=1)
    >>> detector = FeatureSqueezing(model, [lambda x: x - 0.25])
    >>> detector.score(torch.tensor([[0.25], [0.625]])).round(decimals=3)  # of 0..2
    tensor([0., 2.])
    """

    def __init__(self, model: Model, squeezers: Sequence[Squeezer] | None = None) -> None:
        self.models = [model]
        self.squeezers = _usual_squeezers() if squeezers is None else list(squeezers)
        if not self.squeezers:
            raise ValueError("name at least one squeezer")

    def suspicion(self, x: Tensor) -> Tensor:
        """Return (N,), 0 to 2, inside the graph of x."""
        with _all_frozen(self.models):
            told = _probs(self.models[0], x)
            others = [_probs(self.models[0], squeeze(x)) for squeeze in self.squeezers]
        return torch.stack([(told - other).abs().sum(1) for other in others]).amax(0)


def _usual_squeezers() -> list[Squeezer]:
    return [lambda x: reduce_bits(x, bits=1), median_smooth]


# ---- activations ---------------------------------------------------------------------------------


class Mahalanobis(Detector):
    r"""Measure how far activations are from those of any class, in the data's own spread.

    $$d(x) = \min_c\; (a(x) - \mu_c)^\top \Sigma^{-1} (a(x) - \mu_c), \qquad
      \Sigma = \frac1N \sum_i (a_i - \mu_{y_i})(a_i - \mu_{y_i})^\top$$

    $a$ is a layer's output, averaged over positions. Directions without any spread, as those of
    units that are always off, do not count.

    Args:
        model: the network.
        layer: dotted name of the layer.
        x: (N, ...) rows that are known to be good.
        y: (N,) their classes.

    Raises:
        TypeError, ValueError: as `saliency` for x; a layer that does not exist (the message lists
            near names); y that is not one class number a row.

    Reference: Lee, Lee, Lee, Shin (2018), A Simple Unified Framework for Detecting
        Out-of-Distribution Samples and Adversarial Attacks (there with several layers and a
        classifier on top that has seen attacks).
    Elsewhere: scikit-learn `EmpiricalCovariance(...).mahalanobis`.

    >>> rows = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    >>> detector = Mahalanobis(nn.Sequential(nn.Identity()), "0", rows, torch.zeros(4).long())
    >>> detector.score(torch.tensor([[2.0, 0.0]])).round(decimals=4)  # 2 / (1 / sqrt(2)), squared
    tensor([8.])
    """

    def __init__(self, model: nn.Module, layer: str, x: Tensor, y: Tensor) -> None:
        self.models, self.layer = [model], layer
        known = _known_activations(model, layer, x)
        classes, codes = labels_of(y, len(x)).to(known.device).unique(return_inverse=True)
        self.means = torch.stack([known[codes == c].mean(0) for c in range(len(classes))])
        apart = known - self.means[codes]
        self.precision = torch.linalg.pinv(apart.T @ apart / len(x), hermitian=True)

    def suspicion(self, x: Tensor) -> Tensor:
        """Return (N,), from 0 up, inside the graph of x."""
        with _all_frozen(self.models):
            seen = _activations(self.models[0], self.layer, x)
        apart = seen[:, None] - self.means
        return torch.einsum("nci,ij,ncj->nc", apart, self.precision, apart).amin(1).to(_wide(x))


class Isolation(Detector):
    r"""Count how few random cuts set a row's activations apart from all others.

    $$d(x) = 2^{-\overline{\text{path length}}(a(x)) \,/\, c}$$

    c is the mean path length in a random tree. A forest has no gradient: an attacker has to go
    through something that has one, and hope.

    Args:
        model: the network.
        layer: dotted name of the layer; its output is averaged over positions.
        x: (N, ...) rows that are known to be good.
        n_trees: size of the forest.
        seed: of the cuts.

    Raises:
        TypeError, ValueError: as `saliency` for x; a layer that does not exist (the message lists
            near names).

    Reference: Liu, Ting, Zhou (2008), Isolation Forest.
    Elsewhere: scikit-learn `IsolationForest(...).score_samples`, with the other sign.

    >>> rows = torch.linspace(-1, 1, 64)[:, None]
    >>> detector = Isolation(nn.Sequential(nn.Identity()), "0", rows)
    >>> near, far = detector.score(torch.tensor([[0.0], [5.0]]))
    >>> bool(far > near)
    True
    """

    def __init__(
        self, model: nn.Module, layer: str, x: Tensor, *, n_trees: int = 100, seed: int = 0
    ) -> None:
        self.models, self.layer = [model], layer
        n = check_positive("n_trees", n_trees)
        forest = IsolationForest(n_estimators=n, random_state=seed)
        self.forest = forest.fit(_known_activations(model, layer, x).cpu().numpy())

    def suspicion(self, x: Tensor) -> Tensor:
        """Return (N,), 0 to 1; no graph.

        Raises:
            TypeError: x wants a gradient, which a forest does not have.
        """
        if x.requires_grad:
            raise TypeError("an isolation forest has no gradient: attack through another detector")
        with _all_frozen(self.models):
            seen = _activations(self.models[0], self.layer, x)
        return -torch.as_tensor(self.forest.score_samples(seen.cpu().numpy())).to(
            x.device, _wide(x)
        )


# ---- several networks ----------------------------------------------------------------------------


class Disagreement(Detector):
    r"""Ask several networks, and measure how much their answers differ.

    $$d(x) = H\Big(\frac1S \sum_s p_s(x)\Big) - \frac1S \sum_s H\big(p_s(x)\big)$$

    An input made to mislead one network often misleads the others less, or elsewhere.

    Args:
        models: at least two networks (N, ...) -> logits (N, K), or one logit each, trained apart.

    Raises:
        ValueError: fewer than two models; models that know another number of classes.

    Reference: Strauss, Hanselmann, Junginger, Ulmer (2017), Ensemble Methods as a Defense to
        Adversarial Perturbations Against Deep Neural Networks; the measure is that of
        `probabilities.entropy_split`.
    Elsewhere: BALD score, in libraries for active learning.

    >>> yes = lambda x: torch.tensor([[0.0, 100.0]]).expand(len(x), 2)
    >>> no = lambda x: -yes(x)
    >>> Disagreement([yes, no]).score(torch.zeros(1, 1)).round(decimals=3)  # log 2
    tensor([0.6930])
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = list(models)
        if len(self.models) < 2:
            raise ValueError(f"it takes two to disagree, got {len(self.models)} model")

    def suspicion(self, x: Tensor) -> Tensor:
        """Return (N,) in nats, inside the graph of x."""
        with _all_frozen(self.models):
            told = [class_answers(model, x) for model in self.models]
        if len({one.shape for one in told}) > 1:
            raise ValueError(f"the models know {[one.shape[1] for one in told]} classes")
        # As the mean KL divergence from the average, in logarithms: it has a gradient where p is 0.
        log_p = torch.stack(told).double().log_softmax(2).clamp(min=_LOG_ZERO)
        log_mean = log_p.logsumexp(0) - log(len(told))
        return (log_p.exp() * (log_p - log_mean)).sum(2).mean(0).to(_wide(x))


# ---- how good is the alarm -----------------------------------------------------------------------


def detection_table(
    detectors: Mapping[str, Detector],
    clean: Tensor,
    attacked: Mapping[str, Tensor],
    *,
    false_alarms: float = 0.05,
) -> pd.DataFrame:
    r"""Measure each detector against each attack: ranking, and what it catches at a given price.

    $$\text{auc} = P\big(d(x') > d(x)\big), \qquad
      \text{caught} = P\big(d(x') > \tau\big) \text{ where } P\big(d(x) > \tau\big) \le \alpha$$

    Args:
        detectors: by name.
        clean: (N, ...) rows as they are, others than those the detectors were fitted on.
        attacked: by the attack's name, (M, ...) rows; leave out those that fool nobody.
        false_alarms: $\alpha$, the share of clean rows that may raise the alarm, in (0, 1).

    Returns:
        One row a detector and attack: `auc` (area under the ROC; 0.5 is guessing), `threshold`
        and `caught`.

    Raises:
        TypeError, ValueError: as `Detector.score`; `false_alarms` outside (0, 1).

    Reference: Xu, Evans, Qi (2018), Feature Squeezing: Detecting Adversarial Examples in Deep
        Neural Networks (detection rate at 5 % false alarms).
    Elsewhere: scikit-learn `roc_auc_score`, `roc_curve`.

    >>> rows = torch.linspace(-1, 1, 21)[:, None]
    >>> far = Mahalanobis(nn.Sequential(nn.Identity()), "0", rows, torch.zeros(21).long())
    >>> table = detection_table({"far": far}, rows, {"moved": rows + 1.5}, false_alarms=0.1)
    >>> table[["auc", "caught"]].round(2).reset_index()
      detector attack   auc  caught
    0      far  moved  0.92    0.76
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms must lie between 0 and 1, got {false_alarms}")
    rows = []
    for name, detector in detectors.items():
        usual = detector.score(clean).double().cpu().numpy()
        threshold = np.quantile(usual, 1 - false_alarms, method="inverted_cdf")
        for attack, changed in attacked.items():
            odd = detector.score(changed).double().cpu().numpy()
            truth = np.repeat([0, 1], [len(usual), len(odd)])
            auc = roc_auc_score(truth, np.concatenate([usual, odd]))
            rows.append((name, attack, auc, threshold, (odd > threshold).mean()))
    columns = ["detector", "attack", "auc", "threshold", "caught"]
    return pd.DataFrame(rows, columns=columns).set_index(["detector", "attack"])


# ---- parts ---------------------------------------------------------------------------------------


@contextmanager
def _all_frozen(models: Sequence[Model]) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(frozen(model))
        yield


def _probs(model: Model, x: Tensor) -> Tensor:
    return probabilities_of(class_answers(model, x))


def _wide(x: Tensor) -> torch.dtype:
    """Return the dtype of suspicions: squared distances do not fit half precision."""
    return torch.promote_types(x.dtype, torch.float32)


def _activations(model: Any, layer: str, x: Tensor) -> Tensor:
    """Return a layer's output averaged over positions, (N, C) float64, inside the graph of x."""
    with capture(model, layer) as kept:
        outputs_of(model, x)
    output = output_of(kept, layer, len(x)).double()
    return output if output.ndim == 2 else output.flatten(2).mean(2)


def _known_activations(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    rows = check_input(model, x).detach()
    with frozen(model), torch.no_grad():
        return batched(lambda some: _activations(model, layer, some), rows, owner=model)
