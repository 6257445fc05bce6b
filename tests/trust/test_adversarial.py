"""Attacks by hand and against foolbox; what training against them keeps."""

from functools import partial
from typing import Any

import foolbox
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.snapshots import unchanged
from tests.toys import inputs, linear, toy
from xailab.data import load
from xailab.models import digit_cnn
from xailab.trust.adversarial import (
    FeatureSqueezing,
    accuracy_curve,
    adaptive_attack,
    adversarial_fit,
    cross_entropy,
    fgsm,
    pgd,
    square_attack,
)

NAN = float("nan")
Peer = foolbox.attacks
STEPS = {"step_size": 0.1, "n_steps": 3}
ATTACKS = [
    pytest.param(fgsm, id="fgsm"),
    pytest.param(partial(pgd, **STEPS), id="pgd"),
    pytest.param(partial(pgd, norm="l2", **STEPS), id="pgd in l2"),
    pytest.param(partial(square_attack, n_queries=5), id="square_attack"),
    pytest.param(
        partial(adaptive_attack, suspicion=lambda x: x[:, 0, 0, 0], **STEPS), id="adaptive"
    ),
]


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """The trained network in double precision, and 150 digits that it has not seen."""
    data = load("mnist5k")
    held_out = ~torch.as_tensor(data.extra["train"])
    x = torch.as_tensor(data.images)[held_out][:, None].double() / 255
    y = torch.as_tensor(data.y).long()[held_out]
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:150]
    return digit_cnn().double(), x[some], y[some]


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(1) == y).double().mean().item()


def theirs(attack: Any, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """A foolbox attack's rows; its models refuse training mode and take (low, high)."""
    return attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=epsilon)[1]


# ---- the loss ------------------------------------------------------------------------------------


def test_the_loss_is_torchs() -> None:
    z = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(20) % 5
    want = F.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(cross_entropy(z, y), want, rtol=1e-12, atol=0)


def test_a_sure_model_still_has_its_gradient() -> None:
    """exp(-40) in each; torch's own in single precision has lost the pull on the true class."""
    z = torch.tensor([[0.0, 40.0, 0.0]], requires_grad=True)
    (ours,) = torch.autograd.grad(cross_entropy(z, torch.tensor([1])).sum(), z)
    (lost,) = torch.autograd.grad(F.cross_entropy(z, torch.tensor([1])), z)
    torch.testing.assert_close(ours[0], np.exp(-40) * torch.tensor([1.0, -2, 1]))
    assert lost[0, 1] == 0 < lost[0, 0]


# ---- FGSM ----------------------------------------------------------------------------------------


def test_fgsm_by_hand() -> None:
    """Class 0 lives on x0 - x1: down with x0, up with x1. Targeted at 0: the other way."""
    model = linear([[1.0, -1.0], [0.0, 0.0]])
    x = torch.tensor([[0.5, 0.5], [0.1, 0.95]])
    away = fgsm(model, x, 0, epsilon=0.2)
    torch.testing.assert_close(away, torch.tensor([[0.3, 0.7], [0.0, 1.0]]))
    towards = fgsm(model, x, 0, epsilon=0.2, targeted=True)
    torch.testing.assert_close(towards, torch.tensor([[0.7, 0.3], [0.3, 0.75]]))
    free = fgsm(model, x, 0, epsilon=0.2, clip=None)
    torch.testing.assert_close(free[1], torch.tensor([-0.1, 1.15]))
    held = fgsm(model, x, 0, epsilon=0.2, mask=torch.tensor([True, False]))
    torch.testing.assert_close(held, torch.tensor([[0.3, 0.5], [0.0, 0.95]]))


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_fgsm_equals_foolboxs(digits: Any, epsilon: float) -> None:
    model, x, y = digits
    ours = fgsm(model, x, y, epsilon=epsilon)
    peer = theirs(Peer.LinfFastGradientAttack(), model, x, y, epsilon)
    torch.testing.assert_close(ours, peer, rtol=0, atol=1e-12)


def test_fgsm_lowers_accuracy(digits: Any) -> None:
    curve = accuracy_curve(*digits, epsilons=[0, 0.1, 0.3])
    assert curve.accuracy[0] > 0.95
    assert curve.accuracy[0.1] < 0.75
    assert curve.accuracy[0.3] < 0.1
    assert curve.fooled[0] == 0


def test_what_does_not_matter_stays_where_foolbox_moves_it() -> None:
    """The last pixel has one weight for all of ten classes: its gradient is a rounding error."""
    weights = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    weights[:, -1] = 3.3
    model, x = linear(weights.tolist()), torch.full((50, 40), 0.5)
    x[:, 0] = torch.linspace(0, 1, 50)
    y = torch.arange(50) % 10
    ours = fgsm(model, x, y, epsilon=0.1)
    assert (ours[:, -1] == 0.5).all()
    assert ((ours - x)[:, 1:-1].abs() > 0.09).all()
    peer = theirs(Peer.LinfFastGradientAttack(), model, x, y, 0.1)
    assert (peer[:, -1] != 0.5).float().mean() > 0.3


@pytest.mark.parametrize("attack", [fgsm, partial(pgd, **STEPS), partial(pgd, norm="l2", **STEPS)])
def test_a_model_that_ignores_x_moves_nothing(attack: Any) -> None:
    x = inputs()
    even = nn.Sequential(nn.Flatten(), linear([[0.1] * 192] * 7))  # seven equal classes
    assert torch.equal(attack(even, x, 1, epsilon=0.1), x)
    assert torch.equal(attack(lambda x: torch.zeros(len(x), 4), x, 1, epsilon=0.1), x)


def test_small_slopes_beside_large_ones_still_count() -> None:
    """Units differ: a slope 10,000 times smaller is no rounding error."""
    model = linear([[1e4, 1.0], [0.0, 0.0]])
    moved = fgsm(model, torch.tensor([[1e-4, 0.5]]), 0, epsilon=0.25, clip=None)
    torch.testing.assert_close(moved, torch.tensor([[1e-4 - 0.25, 0.25]]))


def test_any_loss_will_do(digits: Any) -> None:
    model, x, y = digits
    want = fgsm(model, x[:50], y[:50], epsilon=0.1)
    for reduction in ("sum", "none", "mean"):
        loss = partial(F.cross_entropy, reduction=reduction)
        assert torch.equal(fgsm(model, x[:50], y[:50], epsilon=0.1, loss_fn=loss), want)


# ---- PGD -----------------------------------------------------------------------------------------


def test_one_full_step_is_fgsm(digits: Any) -> None:
    model, x, y = digits
    one = pgd(model, x[:50], y[:50], epsilon=0.1, step_size=0.1, n_steps=1)
    torch.testing.assert_close(one, fgsm(model, x[:50], y[:50], epsilon=0.1), rtol=0, atol=1e-15)


def test_l2_by_hand() -> None:
    """Slope (3, 4): the step of 1 goes (-0.6, -0.8), and the ball of 0.5 takes half of it."""
    model = linear([[3.0, 4.0], [0.0, 0.0]])
    one = pgd(
        model, torch.ones(1, 2), 0, epsilon=0.5, step_size=1.0, n_steps=1, norm="l2", clip=None
    )
    torch.testing.assert_close(one, torch.tensor([[0.7, 0.6]]))


@pytest.mark.parametrize("epsilon", [0.1])
def test_linf_equals_foolboxs(digits: Any, epsilon: float) -> None:
    model, x, y = (part if isinstance(part, nn.Module) else part[:100] for part in digits)
    steps = {"abs_stepsize": epsilon / 4, "steps": 10, "random_start": False}
    peer = theirs(Peer.LinfProjectedGradientDescentAttack(**steps), model, x, y, epsilon)
    ours = pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 4, n_steps=10)
    same = (ours - peer).abs().flatten(1).amax(1) < 1e-9
    assert same.double().mean() >= 0.98
    assert accuracy(model, ours, y) == pytest.approx(accuracy(model, peer, y), abs=0.02)


@pytest.mark.parametrize("epsilon", [1.0])
def test_l2_equals_foolboxs(digits: Any, epsilon: float) -> None:
    model, x, y = (part if isinstance(part, nn.Module) else part[:100] for part in digits)
    steps = {"abs_stepsize": epsilon / 4, "steps": 10, "random_start": False}
    peer = theirs(Peer.L2ProjectedGradientDescentAttack(**steps), model, x, y, epsilon)
    ours = pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 4, n_steps=10, norm="l2")
    torch.testing.assert_close(ours, peer, rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_reaches_its_class(digits: Any, norm: Any) -> None:
    model, x = digits[0], digits[1][:30]
    epsilon, goal = {"linf": (0.3, 3), "l2": (4.0, 3)}[norm]
    options = {"step_size": epsilon / 5, "n_steps": 10, "norm": norm}
    moved = pgd(model, x, goal, epsilon=epsilon, targeted=True, **options)
    assert (model(moved).argmax(1) == goal).double().mean() > 0.9


@pytest.mark.parametrize(("norm", "p"), [("linf", torch.inf), ("l2", 2)])
def test_nothing_leaves_the_ball_or_the_clip(norm: Any, p: float) -> None:
    x, mask = inputs(5), torch.zeros(8, 8)
    mask[2:5] = 1
    options = {"norm": norm, "random_start": True, "mask": mask, "step_size": 0.2, "n_steps": 4}
    moved = pgd(toy(), x, 1, epsilon=0.25, **options)
    change = moved - x
    assert (change.flatten(1).norm(p, dim=1) <= 0.25 + 1e-6).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (change[..., mask == 0] == 0).all()
    assert (change[..., mask == 1] != 0).any()


def start(norm: Any, seed: int = 0) -> Tensor:
    """2,000 random starts in three dimensions, and no step."""
    options = {"norm": norm, "random_start": True, "clip": None, "step_size": 0.0, "n_steps": 1}
    return pgd(lambda x: x, torch.zeros(2000, 3), 0, epsilon=2.0, seed=seed, **options) / 2


def test_random_starts_are_uniform_in_the_cube() -> None:
    moved = start("linf")
    np.testing.assert_allclose(moved.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(moved.var(0), 1 / 3, atol=0.02)
    assert torch.equal(moved, start("linf"))
    assert not torch.equal(moved, start("linf", seed=1))


def test_random_starts_are_uniform_in_the_ball_as_foolboxs_are() -> None:
    """Of a uniform ball's points (1/2)^3 lie within half its radius."""
    assert (start("l2").norm(dim=1) < 0.5).double().mean().item() == pytest.approx(1 / 8, abs=0.02)
    torch.manual_seed(0)
    peer = Peer.L2ProjectedGradientDescentAttack().get_random_start
    drawn = peer(foolbox.attacks.base.ep.astensor(torch.zeros(2000, 3)), 1.0).raw
    assert (drawn.norm(dim=1) < 0.5).double().mean().item() == pytest.approx(1 / 8, abs=0.02)


# ---- black box -----------------------------------------------------------------------------------


def test_squares_find_a_linear_models_worst_case() -> None:
    """A weight of one sign in each column: the stripes with the right signs are the optimum."""
    weights = torch.randn(1, 1, 1, 12, generator=torch.Generator().manual_seed(0))
    score = lambda x: (weights * x).sum((1, 2, 3))  # noqa: E731
    x = torch.full((2, 1, 12, 12), 0.5)
    worst = score(x - 0.1 * weights.sign())
    near = score(square_attack(score, x, None, epsilon=0.1, n_queries=300))
    far = score(square_attack(score, x, None, epsilon=0.1, n_queries=1))
    best = score(x) - worst
    assert ((score(x) - near) / best).min() > 0.85
    assert (far > near).all()


def test_squares_beat_noise_without_a_gradient(digits: Any) -> None:
    """Foolbox has no square attack; its random search repeats noise of the same size."""
    model, x, y = (part if isinstance(part, nn.Module) else part[:60] for part in digits)
    steps = lambda x: model((x * 255).round() / 255)  # noqa: E731 - a gradient of 0 everywhere
    assert torch.equal(fgsm(steps, x, y, epsilon=0.15), x)
    moved = square_attack(steps, x, y, epsilon=0.15, n_queries=60)
    torch.manual_seed(0)
    noise = Peer.LinfRepeatedAdditiveUniformNoiseAttack(repeats=60)
    assert accuracy(model, moved, y) < accuracy(model, theirs(noise, model, x, y, 0.15), y) - 0.2
    assert ((moved - x).abs() <= 0.15 + 1e-12).all()


def test_a_row_that_is_fooled_is_left_alone() -> None:
    calls = []

    def watched(x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.stack([x.sum((1, 2, 3)) - 2, torch.zeros(len(x))], dim=1)

    x = torch.stack(
        [torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]
    )  # the first is fooled from the start
    moved = square_attack(watched, x, 0, epsilon=0.1, n_queries=4)
    assert calls == [2, 1, 1, 1, 1]
    assert torch.equal(moved[0], x[0])


def test_squares_keep_no_graph_of_a_functions_weights() -> None:
    weight, kept = torch.ones(1, requires_grad=True), []

    def score(x: Tensor) -> Tensor:
        kept.append((weight * x.sum((1, 2, 3))).requires_grad)
        return weight * x.sum((1, 2, 3))

    square_attack(score, torch.full((1, 1, 2, 2), 0.5), None, epsilon=0.1, n_queries=3)
    assert len(kept) == 4
    assert not any(kept)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": torch.zeros(2, 3)}, r"\(N, C, H, W\).*\(2, 3\)"),
        ({"p_start": 0.0}, r"p_start.*\(0, 1\].*0"),
        ({"n_queries": 0}, "n_queries"),
    ],
)
def test_bad_squares(changes: dict[str, Any], words: str) -> None:
    arguments = {"x": inputs(), "epsilon": 0.1, **changes}
    with pytest.raises(ValueError, match=words):
        square_attack(toy(), arguments.pop("x"), 0, **arguments)


# ---- adaptive ------------------------------------------------------------------------------------


def test_an_attacker_who_knows_the_detector_walks_around_it() -> None:
    """Both numbers fool the model; the alarm watches one."""
    model = linear([[1.0, 1.0], [0.0, 0.0]])
    x = torch.full((1, 2), 0.5)
    alarm = lambda x: 10 * (x[:, 0] - 0.5).abs()  # noqa: E731
    steps = {"epsilon": 1.0, "step_size": 0.125, "n_steps": 40, "clip": None}
    blunt = pgd(model, x, 0, **steps)
    sly = adaptive_attack(model, x, 0, suspicion=alarm, margin=0.0, **steps)
    assert model(blunt).argmax() == model(sly).argmax() == 1
    assert alarm(blunt).item() == pytest.approx(10)
    assert alarm(sly).item() == pytest.approx(1.25)  # one step before the border


def test_adaptive_restores_the_model() -> None:
    model, x = toy(), inputs()
    detector = FeatureSqueezing(model, [lambda x: 0.9 * x])
    with unchanged(model, x):
        adaptive_attack(model, x, 2, suspicion=detector.suspicion, epsilon=0.1, **STEPS)


@pytest.mark.parametrize("name", ["margin", "step_size"])
def test_adaptive_refuses_negative_numbers(name: str) -> None:
    options = {"epsilon": 0.1, **STEPS, name: -1.0}
    with pytest.raises(ValueError, match=f"{name} must be at least 0"):
        adaptive_attack(toy(), inputs(), 0, suspicion=lambda x: x.sum(), **options)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"epsilon": -0.1}, ValueError, "epsilon must be at least 0 and finite, got -0.1"),
        ({"epsilon": NAN}, ValueError, "epsilon.*nan"),
        ({"epsilon": float("inf")}, ValueError, "epsilon.*inf"),
        ({"epsilon": "0.1"}, TypeError, "epsilon must be a number, got str"),
        ({"clip": (1, 0)}, ValueError, r"low < high.*\(1, 0\)"),
        ({"clip": (0.5, 1)}, ValueError, r"x lies in .*clip=\(0.5, 1\)"),
    ],
)
def test_bad_radius(
    attack: Any, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        attack(toy(), inputs(), 2, **{"epsilon": 0.1, **changes})


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (torch.ones(5), ValueError, r"\(5,\) does not broadcast.*\(3, 3, 8, 8\)"),
        (torch.full((8, 8), 0.5), ValueError, "0 and 1"),
        (np.ones((8, 8)), TypeError, "ndarray"),
    ],
)
def test_bad_mask(mask: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fgsm(toy(), inputs(), 2, epsilon=0.1, mask=mask)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"step_size": -1.0}, ValueError, "step_size must be at least 0"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1"),
        ({"n_steps": 2.0}, TypeError, "n_steps"),
        ({"norm": "l1"}, ValueError, "norm must be one of linf, l2, got 'l1'"),
    ],
)
def test_bad_steps(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pgd(toy(), inputs(), 2, epsilon=0.1, **{**STEPS, **changes})


# ---- training ------------------------------------------------------------------------------------


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
