"""What training against attacks keeps, step by step; how accuracy falls."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.toys import linear
from xailab.trust import adversarial_training
from xailab.trust.adversarial import pgd
from xailab.trust.adversarial_training import accuracy_curve, adversarial_fit

NAN = float("nan")


def blobs(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One strong number that an attack of 0.25 cannot turn, and forty weak ones that it can."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    sign = (2 * y - 1)[:, None].float()
    noise = torch.randn(n, 41, generator=generator)
    strong = sign * 1.0 + 0.35 * noise[:, :1]
    return torch.cat([strong, 0.2 * sign + 0.3 * noise[:, 1:]], dim=1), y


def test_training_against_the_attack_keeps_what_plain_training_loses() -> None:
    """Forty weak numbers are better evidence than one strong one, until they can be moved."""
    scores = {}
    for name, radius in (("plain", 0.0), ("robust", 0.25)):
        model = nn.Linear(41, 2)
        nn.init.zeros_(model.weight)
        history = adversarial_fit(
            model, blobs(), blobs(seed=1), epsilon=radius, epochs=20, clip=None
        )
        attack = partial(pgd, step_size=0.05, n_steps=10, clip=None)
        curve = accuracy_curve(model, *blobs(seed=2), epsilons=[0, 0.25], attack=attack)
        scores[name] = curve.accuracy.tolist()
        assert len(history.robust_accuracy) == 20
    assert scores["plain"][0] > 0.99
    assert scores["plain"][1] < 0.4
    assert scores["robust"][1] > scores["plain"][1] + 0.4


def test_training_does_not_report_rows_without_a_gradient(recwarn: Any) -> None:
    model = nn.Linear(41, 2)
    nn.init.zeros_(model.weight)
    adversarial_fit(model, blobs(64), blobs(64), epsilon=0.1, epochs=1, clip=None)
    assert not [one for one in recwarn if "the gradient is 0" in str(one.message)]


def test_training_repeats_and_leaves_the_random_state() -> None:
    states, weights = torch.get_rng_state(), []
    for _ in range(2):
        model = nn.Linear(41, 2)
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)
        before = torch.get_rng_state()
        adversarial_fit(model, blobs(64), blobs(64), epsilon=0.1, epochs=1, clip=None)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)
    torch.set_rng_state(states)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"epsilon": -1.0}, ValueError, "epsilon must be at least 0"),
        ({"train": (torch.zeros(3, 41), torch.zeros(2).long())}, ValueError, r"train.*\(2,\)"),
        ({"valid": (torch.zeros(3, 41), torch.zeros(2).long())}, ValueError, r"valid.*\(2,\)"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"warm_up": -1.0}, ValueError, "warm_up"),
        ({"learning_rate": 1e30}, FloatingPointError, "smaller learning rate"),
    ],
)
def test_bad_training(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"train": blobs(64), "valid": blobs(64), "epsilon": 0.1, "epochs": 3, **changes}
    model = nn.Sequential(nn.Linear(41, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(error, match=words):
        adversarial_fit(
            model, arguments.pop("train"), arguments.pop("valid"), clip=None, **arguments
        )


def test_the_radius_grows_in_equal_steps_over_the_warm_up(monkeypatch: Any) -> None:
    """64 rows by 16 are 4 steps an epoch; two epochs of warm-up: an eighth more at each step."""
    seen = []

    def spy(model: Any, x: Tensor, y: Tensor, *, epsilon: float, step_size: float, **_: Any) -> Any:
        seen.append((len(x), epsilon, step_size))
        return x

    monkeypatch.setattr(adversarial_training, "pgd", spy)
    options = {"epsilon": 0.8, "epochs": 3, "batch_size": 16, "clip": None}
    adversarial_fit(nn.Linear(41, 2), blobs(64), blobs(8), warm_up=2, **options)
    steps = [(epsilon, size) for rows, epsilon, size in seen if rows == 16]
    shares = [i / 8 for i in range(1, 9)] + [1.0] * 4
    np.testing.assert_allclose([epsilon for epsilon, _ in steps], [0.8 * one for one in shares])
    np.testing.assert_allclose([size for _, size in steps], [1.0 * one for one in shares])
    assert [epsilon for rows, epsilon, _ in seen if rows == 8] == [0.8] * 3  # measured in full
    seen.clear()
    adversarial_fit(nn.Linear(41, 2), blobs(64), blobs(8), warm_up=0, **options)
    assert {epsilon for _, epsilon, _ in seen} == {0.8}


@pytest.mark.parametrize(("n_steps", "want"), [(1, 0.5), (4, 0.25)])
def test_the_step_is_a_quarter_more_than_epsilon_by_the_root_of_the_steps(
    monkeypatch: Any, n_steps: int, want: float
) -> None:
    seen = []

    def spy(model: Any, x: Tensor, y: Tensor, **options: Any) -> Any:
        seen.append(options)
        return x

    monkeypatch.setattr(adversarial_training, "pgd", spy)
    options = {"epsilon": 0.4, "epochs": 1, "clip": None, "warm_up": 0}
    adversarial_fit(nn.Linear(41, 2), blobs(64), blobs(64), n_steps=n_steps, **options)
    adversarial_fit(nn.Linear(41, 2), blobs(64), blobs(64), step_size=0.1, **options)
    assert [one["step_size"] for one in seen] == [want] * 2 + [0.1] * 2
    assert all(one["random_start"] and one["clip"] is None for one in seen)
    assert seen[0]["n_steps"] == n_steps


def test_what_is_measured_is_measured_on_held_out_rows() -> None:
    """The loss on attacked rows lies above log 2, the plain one below; one number an epoch."""
    net = linear([[-2.0], [2.0]])
    rows = torch.tensor([[-0.5], [0.5], [-0.1], [0.1]]), torch.tensor([0, 1, 0, 1])
    options = {"epsilon": 0.25, "clip": None, "learning_rate": 1e-9, "epochs": 2, "warm_up": 0}
    history = adversarial_fit(net, rows, rows, step_size=1.0, **options)
    assert history.valid_accuracy == [1.0] * 2
    assert history.robust_accuracy == [0.5] * 2
    # each row is moved by 0.25 against its class: logits differ by 4 (0.5 - 0.25), 4 (0.1 - 0.25)
    want = np.log1p(np.exp([-1.0, 0.6])).mean()
    assert history.train_loss == pytest.approx([want] * 2, abs=1e-6)
    assert history.valid_loss == pytest.approx([np.log1p(np.exp([-2.0, -0.4])).mean()] * 2)


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_learns_both_classes(flat: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(41, 1), *([nn.Flatten(0)] if flat else []))
    options = {"epsilon": 0.1, "epochs": 8, "clip": None}
    history = adversarial_fit(net, blobs(), blobs(seed=1), **options)
    assert history.robust_accuracy[-1] > 0.95
    assert 0 < history.train_loss[-1] < history.train_loss[0]
    only = torch.zeros(400).long()
    losses = adversarial_fit(net, (blobs()[0], only), (blobs()[0], only), **options).train_loss
    assert min(losses) > 0


def test_training_takes_labels_in_any_container_and_odd_rows_with_a_batch_norm() -> None:
    x, y = blobs(65)
    for labels in (y.tolist(), y.numpy().astype("int32"), y.double(), y == 1):
        net = nn.Sequential(nn.BatchNorm1d(41), nn.Linear(41, 2))
        history = adversarial_fit(net, (x, labels), (x, y), epsilon=0.1, epochs=1, clip=None)
        assert 0 < history.train_loss[0] < 9
    with torch.no_grad():
        adversarial_fit(nn.Linear(41, 2), (x, y), (x, y), epsilon=0.1, epochs=1, clip=None)


def holed() -> tuple[Tensor, Tensor]:
    x, y = blobs(8)
    x[3, 4] = NAN
    return x, y


@pytest.mark.parametrize(
    ("model", "train", "error", "words"),
    [
        (nn.Linear(41, 2), holed(), ValueError, "train: x holds NaN.*row 3"),
        (nn.Linear(41, 2), (blobs(8)[0], torch.arange(8)), ValueError, r"train: y.*0\.\.1"),
        (nn.Linear(41, 2), blobs(8)[0], TypeError, "train must be a pair"),
        (nn.Linear(41, 2).requires_grad_(False), blobs(8), ValueError, "frozen"),
        (nn.Linear(41, 2).half(), blobs(8), TypeError, "float32 or float64"),
        (nn.Linear(41, 2).double(), blobs(8), TypeError, "float32"),
        (nn.Linear(5, 2), blobs(8), ValueError, "cannot be run|refuses"),
    ],
)
def test_rows_and_networks_that_cannot_be_trained(
    model: Any, train: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        adversarial_fit(model, train, blobs(8), epsilon=0.1, epochs=1, clip=None)


# ---- accuracy ------------------------------------------------------------------------------------


def still(model: Any, x: Tensor, y: Tensor, *, epsilon: float) -> Tensor:
    return x


def test_a_curve_by_hand() -> None:
    """Class 1 above 0. One row is wrong at once and so never fooled; one falls at 0.3, one not."""
    model = linear([[0.0], [1.0]])
    x, y = torch.tensor([[0.2], [-0.5], [0.1]]), [1, 0, 0]
    down = lambda model, x, y, *, epsilon: x + epsilon * (1 - 2 * y[:, None])  # noqa: E731
    curve = accuracy_curve(model, x, y, epsilons=[0, 0.3], attack=down)
    assert curve.accuracy.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert curve.fooled.tolist() == pytest.approx([0, 1 / 2])
    wrong = accuracy_curve(model, x[:1], [0], epsilons=[0.0], attack=still)
    assert np.isnan(wrong.fooled.item())


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_logit_decides_at_zero(shape: tuple[int, ...]) -> None:
    model = lambda x: (x - 0.5).reshape(shape)  # noqa: E731
    x, y = torch.tensor([[0.2], [0.9], [0.6]]), torch.tensor([0, 1, 0])
    curve = accuracy_curve(model, x, y, epsilons=[0.0, 0.35])
    assert curve.accuracy.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_answers_come_in_any_form() -> None:
    x, y = torch.eye(3), torch.arange(3)
    for wrap in (lambda o: {"logits": o, "loss": None}, lambda o: (o,)):
        told = accuracy_curve(lambda x, w=wrap: w(1.0 * x), x, y, epsilons=[0.0], attack=still)
        assert told.accuracy.item() == 1
    with pytest.raises(TypeError, match="must return one tensor"):
        accuracy_curve(lambda x: (x, x), x, y, epsilons=[0.0], attack=still)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_curve_of_any_precision(dtype: torch.dtype) -> None:
    curve = accuracy_curve(lambda x: 1 * x, torch.eye(3).to(dtype), [0, 1, 1], epsilons=[0.0, 0.75])
    assert curve.accuracy.tolist() == pytest.approx([2 / 3, 0])


def test_a_curve_that_says_nothing_says_so() -> None:
    model = lambda x: torch.cat([x.round(), 1 - x.round()], dim=1)  # noqa: E731
    with pytest.warns(UserWarning, match="the gradient is 0 in 2 of 2 rows"):
        curve = accuracy_curve(model, torch.tensor([[0.9], [0.1]]), [0, 1], epsilons=[0.2])
    assert curve.accuracy.item() == 1


@pytest.mark.parametrize(
    ("model", "y", "attack", "error", "words"),
    [
        (nn.Identity(), torch.eye(3), still, ValueError, "y must be.*one-hot"),
        (nn.Identity(), [0, 1, 3], still, ValueError, r"y must lie in 0\.\.2"),
        (nn.Identity(), ["a", "b", "c"], still, TypeError, "y must hold class numbers"),
        (lambda x: x * NAN, [0, 1, 2], still, ValueError, "NaN"),
        (lambda x: x.long(), [0, 1, 2], still, TypeError, "floating-point"),
        (nn.Identity(), [0, 1, 2], lambda *_, epsilon: torch.ones(2, 3), ValueError, "attack must"),
        (nn.Identity(), [0, 1, 2], lambda *_, epsilon: None, ValueError, "attack must.*NoneType"),
    ],
)
def test_bad_curves(model: Any, y: Any, attack: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        accuracy_curve(model, torch.eye(3), y, epsilons=[0.0], attack=attack)
