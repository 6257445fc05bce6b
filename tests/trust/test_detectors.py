"""Detectors by hand, against scikit-learn and scipy, and on attacks that they have not seen."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from tests.toys import inputs, toy
from xailab.core import capture
from xailab.core.state import frozen
from xailab.data import load
from xailab.models import digit_cnn, digit_vit
from xailab.trust.adversarial import adaptive_attack, cross_entropy, fgsm, pgd
from xailab.trust.detectors import (
    Disagreement,
    FeatureSqueezing,
    Isolation,
    Mahalanobis,
    detection_table,
    median_smooth,
    reduce_bits,
)

FLAT = nn.Sequential(nn.Identity())


# ---- squeezing -----------------------------------------------------------------------------------


def test_bits_by_hand() -> None:
    """2 bits are the levels 0, 1/3, 2/3, 1; 8 bits are bytes."""
    x = torch.tensor([0.1, 0.2, 0.6, 0.9])
    torch.testing.assert_close(reduce_bits(x, bits=2), torch.tensor([0, 1 / 3, 2 / 3, 1]))
    bytes_ = torch.arange(256) / 255
    torch.testing.assert_close(reduce_bits(bytes_, bits=8), bytes_)


def test_rounding_passes_the_gradient_on() -> None:
    x = torch.rand(5, requires_grad=True)
    (slope,) = torch.autograd.grad(reduce_bits(x, bits=1).sum(), x)
    assert slope.tolist() == [1] * 5


@pytest.mark.parametrize("size", [1, 3, 5])
def test_median_equals_scipys(size: int) -> None:
    x = inputs(2)
    want = median_filter(x.numpy(), size=(1, 1, size, size), mode="mirror")
    np.testing.assert_array_equal(median_smooth(x, size=size).numpy(), want)


def test_squeezing_by_definition() -> None:
    model, x = toy().eval(), inputs()
    squeezers = [partial(reduce_bits, bits=1), median_smooth]
    p, *others = (model(each).softmax(1) for each in (x, *(squeeze(x) for squeeze in squeezers)))
    want = [max((p[i] - other[i]).abs().sum().item() for other in others) for i in range(3)]
    got = FeatureSqueezing(model).score(x)
    np.testing.assert_allclose(got, want, atol=1e-6)


# ---- activations ---------------------------------------------------------------------------------


def activations(model: nn.Module, layer: str, x: Tensor) -> np.ndarray:
    with capture(model, layer) as kept, torch.no_grad():
        model.eval()(x)
    return kept[layer].mean((2, 3)).double().numpy()


def test_mahalanobis_equals_sklearns() -> None:
    known, y, x = inputs(40), torch.arange(40) % 3, inputs(50)[40:]
    seen, new = activations(toy(), "norm", known), activations(toy(), "norm", x)
    means = np.stack([seen[y == c].mean(0) for c in range(3)])
    peer = EmpiricalCovariance(assume_centered=True).fit(seen - means[y])
    want = np.min([peer.mahalanobis(new - mean) for mean in means], axis=0)
    got = Mahalanobis(toy(), "norm", known, y).score(x)
    np.testing.assert_allclose(got, want, rtol=1e-4)  # activations in single precision


def test_directions_without_spread_do_not_count() -> None:
    rows = torch.tensor([[-1.0, 5.0], [1.0, 5.0]])
    detector = Mahalanobis(FLAT, "0", rows, torch.zeros(2).long())
    assert detector.score(torch.tensor([[2.0, 7.0]])).item() == pytest.approx(4)


def test_class_numbers_may_have_gaps() -> None:
    rows, y = torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([2, 2, 7, 7])
    detector = Mahalanobis(FLAT, "0", rows, y)
    assert detector.score(torch.tensor([[10.5], [5.5]])).tolist() == pytest.approx([0, 100])


def test_isolation_equals_sklearns() -> None:
    known, x = inputs(40), inputs(50)[40:]
    seen, new = activations(toy(), "norm", known), activations(toy(), "norm", x)
    forest = IsolationForest(n_estimators=30, random_state=3).fit(seen)
    got = Isolation(toy(), "norm", known, n_trees=30, seed=3).score(x)
    np.testing.assert_allclose(got, -forest.score_samples(new), atol=1e-6)


def test_a_forest_has_no_gradient() -> None:
    detector = Isolation(toy(), "norm", inputs(9), n_trees=3)
    with pytest.raises(TypeError, match="no gradient"):
        detector.suspicion(inputs().requires_grad_())


# ---- ensembles -----------------------------------------------------------------------------------


def test_disagreement_by_hand() -> None:
    """One says 1:0, one 0:1: log 2. Both 0.5: nothing, though neither knows."""
    says = lambda p: lambda x: torch.tensor([[p, 1 - p]]).log().expand(len(x), 2)  # noqa: E731
    x = torch.zeros(1, 1)
    assert Disagreement([says(1.0), says(0.0)]).score(x).item() == pytest.approx(np.log(2))
    assert Disagreement([says(0.5), says(0.5)]).score(x).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Disagreement([toy()]), ValueError, "two to disagree, got 1"),
        (lambda: FeatureSqueezing(toy(), []), ValueError, "at least one squeezer"),
        (
            lambda: FeatureSqueezing(lambda x: x[:, 0, 0, 0]).score(inputs()),
            ValueError,
            "two class",
        ),
        (lambda: Mahalanobis(toy(), "norm", inputs(), torch.zeros(2)), ValueError, r"\(2,\).*3"),
        (lambda: Isolation(toy(), "norm", inputs(), n_trees=0), ValueError, "n_trees"),
        (lambda: reduce_bits(inputs(), bits=0), ValueError, "bits"),
        (lambda: median_smooth(inputs(), size=2), ValueError, "odd, got 2"),
        (lambda: median_smooth(torch.zeros(3, 3)), ValueError, r"\(N, C, H, W\)"),
        (lambda: detection_table({}, inputs(), {}, false_alarms=0), ValueError, "false_alarms"),
    ],
)
def test_bad_input(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


# ---- on digits -----------------------------------------------------------------------------------


def test_table_by_hand() -> None:
    """Clean 1..10, threshold at 9 (one above is 10 %); of 0.5, 9.5, 20 two are above."""
    detector = Mahalanobis(FLAT, "0", torch.tensor([[-1.0], [1.0]]), torch.zeros(2).long())
    root = lambda values: torch.tensor(values)[:, None].sqrt()  # noqa: E731
    table = detection_table(
        {"d": detector},
        root(np.arange(1.0, 11)).float(),
        {"a": root([0.5, 9.5, 20.0])},
        false_alarms=0.1,
    )
    assert table.threshold.item() == pytest.approx(9, rel=1e-5)
    assert table.caught.item() == pytest.approx(2 / 3)
    want = roc_auc_score([0] * 10 + [1] * 3, [*range(1, 11), 0.5, 9.5, 20])
    assert table.auc.item() == pytest.approx(want)


def all_digits() -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels, and which of them the network has not seen."""
    data = load("mnist5k")
    images, y = torch.as_tensor(data.images)[:, None] / 255, torch.as_tensor(data.y).long()
    return images, y, ~torch.as_tensor(data.extra["train"])


def test_another_network_disagrees_until_the_attacker_has_a_slope_to_climb() -> None:
    """Probabilities of sure networks are flat: the plain adaptive attack fails for that reason."""
    images, labels, held_out = all_digits()
    model, other = digit_cnn(), digit_vit()
    x, y, clean = images[held_out][::25], labels[held_out][::25], images[held_out][1::8]
    detector = Disagreement([model, other])
    steps = {"epsilon": 0.2, "step_size": 0.02, "n_steps": 25}
    blind = pgd(model, x, y, **steps)
    table = detection_table({"d": detector}, clean, {"pgd": blind})
    assert table.auc.item() > 0.85

    def agreement(rows: Tensor) -> Tensor:
        return cross_entropy(other(rows), model(rows).argmax(1))

    passed = {}
    with frozen(other):
        for name, suspicion in (("flat", detector.suspicion), ("slope", agreement)):
            rows = adaptive_attack(model, x, y, suspicion=suspicion, margin=2.0, **steps)
            fooled = model(rows).argmax(1) != y
            quiet = detector.score(rows) <= table.threshold.item()
            passed[name] = (fooled & quiet).double().mean().item()
    assert passed["slope"] > 0.6
    assert passed["flat"] < passed["slope"] - 0.2


def test_detectors_see_attacks_until_the_attacker_knows_them() -> None:
    """Blind attacks stand out; one that climbs down the alarm fools model and alarm at once."""
    images, y, held_out = all_digits()
    model, known = digit_cnn(), slice(0, None, 8)
    x, labels = images[held_out][::4], y[held_out][::4]
    clean, x, labels = x[:150], x[150:210], labels[150:210]
    detectors = {
        "smoothing": FeatureSqueezing(model, [median_smooth]),
        "distance": Mahalanobis(model, "relu3", images[~held_out][known], y[~held_out][known]),
    }
    blind = {
        "fgsm": fgsm(model, x, labels, epsilon=0.2),
        "pgd": pgd(model, x, labels, epsilon=0.2, step_size=0.04, n_steps=8),
    }
    blind = {name: rows[model(rows).argmax(1) != labels] for name, rows in blind.items()}
    table = detection_table(detectors, clean, blind)
    assert table.loc["distance"].auc.min() > 0.95
    assert table.loc["distance"].caught.min() > 0.8
    assert table.loc["smoothing"].auc.min() > 0.65
    steps = {"epsilon": 0.2, "step_size": 0.02, "n_steps": 25}
    for name, detector in detectors.items():
        sly = adaptive_attack(model, x, labels, suspicion=detector.suspicion, **steps)
        fooled = model(sly).argmax(1) != labels
        unseen = detector.score(sly) <= table.loc[(name, "pgd"), "threshold"]
        assert (fooled & unseen).double().mean() > 0.8, name
