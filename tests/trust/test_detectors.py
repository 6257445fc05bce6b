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


def test_disagreement_has_the_gradient_of_its_formula() -> None:
    """The attacker's way down it: autograd against differences of the entropies written out."""
    torch.manual_seed(0)
    nets = [nn.Linear(3, 4).double() for _ in range(3)]
    detector, x = Disagreement(nets), torch.rand(2, 3, dtype=torch.float64)

    def by_definition(rows: Tensor) -> Tensor:
        p = torch.stack([net(rows).softmax(1) for net in nets]).detach()
        return torch.special.entr(p.mean(0)).sum(1) - torch.special.entr(p).sum(2).mean(0)

    leaf = x.clone().requires_grad_()
    told = detector.suspicion(leaf)
    torch.testing.assert_close(told.detach(), by_definition(x))
    (slope,) = torch.autograd.grad(told.sum(), leaf)
    for j, step in enumerate(1e-6 * torch.eye(3, dtype=torch.float64)):
        want = (by_definition(x + step) - by_definition(x - step)) / 2e-6
        torch.testing.assert_close(slope[:, j], want, rtol=1e-4, atol=1e-7)


def test_a_class_that_is_ruled_out_has_a_slope_of_zero() -> None:
    nets = [lambda x: torch.cat([x, -x, x - torch.inf], dim=1), lambda x: torch.cat([x, x, x], 1)]
    leaf = torch.ones(2, 1, requires_grad=True)
    told = Disagreement(nets).suspicion(leaf)
    (slope,) = torch.autograd.grad(told.sum(), leaf)
    assert torch.isfinite(told).all()
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_logit_is_two_classes(shape: tuple[int, ...]) -> None:
    one = lambda x: (4 * x - 2).reshape(shape)  # noqa: E731
    two = lambda x: torch.cat([torch.zeros_like(x), 4 * x - 2], dim=1)  # noqa: E731
    x, squeezers = torch.tensor([[0.1], [0.6], [0.9]]), [partial(reduce_bits, bits=1)]
    squeezed = FeatureSqueezing(one, squeezers).score(x)
    p, q = (4 * x - 2).sigmoid(), (4 * x.round() - 2).sigmoid()
    torch.testing.assert_close(squeezed, 2 * (p - q).abs()[:, 0])
    torch.testing.assert_close(squeezed, FeatureSqueezing(two, squeezers).score(x))
    want = Disagreement([two, lambda x: -two(x)]).score(x)
    torch.testing.assert_close(Disagreement([one, lambda x: -two(x)]).score(x), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype: torch.dtype) -> None:
    known, y, x = inputs(40), [i % 3 for i in range(40)], inputs(45)[40:]
    for make in (
        lambda net, rows: FeatureSqueezing(net),
        lambda net, rows: Mahalanobis(net, "relu2", rows, y),
        lambda net, rows: Isolation(net, "relu2", rows, n_trees=20),
        lambda net, rows: Disagreement([net, lambda x: 2 * net(x)]),
    ):
        want = make(toy(), known).score(x)
        got = make(toy(dtype), known.to(dtype)).score(x.to(dtype))
        assert got.dtype == torch.float32
        assert (got - want).abs().max() < 0.25 * want.abs().max()


def test_far_rows_of_half_precision_have_a_finite_distance() -> None:
    """300 squared by a spread of 1 is 90,000, more than float16 holds."""
    rows = torch.tensor([[-1.0], [1.0]], dtype=torch.float16)
    detector = Mahalanobis(FLAT, "0", rows, [0, 0])
    assert detector.score(torch.tensor([[300.0]], dtype=torch.float16)).tolist() == [90_000]


def test_many_levels_are_rounded_in_double_precision() -> None:
    x = torch.tensor([[1.0, 0.5]], dtype=torch.float16)
    assert reduce_bits(x, bits=20).tolist() == [[1.0, 0.5]]


def test_rows_that_influence_each_other_are_refused() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    net = nn.Sequential(norm, nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(ValueError, match="rows influence each other"):
        FeatureSqueezing(net).score(inputs())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Disagreement([toy()]), ValueError, "two to disagree, got 1"),
        (lambda: FeatureSqueezing(toy(), []), ValueError, "at least one squeezer"),
        (
            lambda: Disagreement([toy(), lambda x: x[:, 0, 0, 0]]).score(inputs()),
            ValueError,
            r"know \[4, 2\] classes",
        ),
        (
            lambda: FeatureSqueezing(lambda x: x.sum((2, 3)) * np.nan).score(inputs()),
            ValueError,
            "NaN or infinity in",
        ),
        (lambda: Mahalanobis(toy(), "norm", inputs(), torch.zeros(2)), ValueError, r"3.*\(2,\)"),
        (lambda: Mahalanobis(toy(), "norm", inputs(), ["a"] * 3), TypeError, "y must hold class"),
        (lambda: Isolation(toy(), "norm", inputs(), n_trees=0), ValueError, "n_trees"),
        (lambda: reduce_bits(inputs(), bits=0), ValueError, "bits"),
        (lambda: reduce_bits(inputs(), bits=53), ValueError, r"bits must lie in 1\.\.52, got 53"),
        (lambda: reduce_bits(2 * inputs(), bits=2), ValueError, r"x must lie in 0\.\.1"),
        (lambda: median_smooth(inputs(), size=17), ValueError, r"size=17 is too large.*\(8, 8\)"),
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


def test_another_network_disagrees_until_the_attacker_knows_it() -> None:
    """Down the disagreement itself, or down a loss that wants the other to agree."""
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

    def passed(rows: Tensor) -> float:
        quiet = detector.score(rows) <= table.threshold.item()
        return ((model(rows).argmax(1) != y) & quiet).double().mean().item()

    with frozen(other):
        for suspicion in (detector.suspicion, agreement):
            rows = adaptive_attack(model, x, y, suspicion=suspicion, margin=2.0, **steps)
            assert passed(rows) > max(0.6, passed(blind) + 0.2)


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
