"""Attacks by hand, against foolbox, and where an attack that moves nothing has to say so."""

from functools import partial
from typing import Any

import foolbox
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.toys import inputs, linear, toy
from xailab.core.company import trying
from xailab.data import load
from xailab.models import digit_cnn
from xailab.trust import adversarial
from xailab.trust.adversarial import (
    _squares,
    accuracy_curve,
    adaptive_attack,
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
    pytest.param(partial(square_attack, n_queries=30), id="square_attack"),
    pytest.param(
        partial(adaptive_attack, suspicion=lambda x: x[:, 0, 0, 0], **STEPS), id="adaptive"
    ),
]


@pytest.fixture(params=ATTACKS[:3])
def gradient_attack(request: Any) -> Any:
    return request.param


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


def test_rounding_errors_move_nothing(gradient_attack: Any) -> None:
    x = inputs()
    even = nn.Sequential(nn.Flatten(), linear([[0.1] * 192] * 7))  # seven equal classes
    with pytest.warns(UserWarning, match="the gradient is 0 in 3 of 3 rows.*nothing about robust"):
        assert torch.equal(gradient_attack(even, x, 1, epsilon=0.1), x)


class Blind(nn.Module):
    """A network that autograd does not see through."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.fc = way, nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if self.way == "no_grad":
            with torch.no_grad():
                return self.fc(flat)
        if self.way == "numpy":
            flat = torch.as_tensor(flat.detach().numpy())
        if self.way == "constant":
            return self.fc.bias.expand(len(x), 4)
        return self.fc(flat.detach()) + 0 * self.fc.weight.sum()


@pytest.mark.parametrize("way", ["no_grad", "numpy", "constant", "detach"])
def test_no_gradient_is_an_error_and_no_robust_network(gradient_attack: Any, way: str) -> None:
    model, x = Blind(way), inputs()
    for target, options in ((1, {}), (1, {"targeted": True}), (1, {"loss_fn": F.cross_entropy})):
        with pytest.raises(ValueError, match="no gradient reaches the input"):
            gradient_attack(model, x, target, epsilon=0.1, **options)


def test_a_function_whose_weights_have_a_graph_is_refused_too(gradient_attack: Any) -> None:
    weight = torch.ones(4, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient reaches the input"):
        gradient_attack(lambda x: weight.expand(len(x), 4), inputs(), 1, epsilon=0.1)


def test_a_loss_that_ignores_the_logits_is_refused(gradient_attack: Any) -> None:
    constant = lambda logits, y: torch.zeros(len(y))  # noqa: E731
    with pytest.raises(ValueError, match="no gradient reaches the logits from the loss"):
        gradient_attack(toy(), inputs(), 1, epsilon=0.1, loss_fn=constant)


def test_rows_without_a_slope_are_counted(gradient_attack: Any) -> None:
    """Below 0 the ReLU is flat: two of three rows cannot climb, nor move."""
    model = lambda x: torch.cat([x.relu(), torch.zeros_like(x)], dim=1)  # noqa: E731
    x = torch.tensor([[-1.0], [0.5], [-2.0]])
    with pytest.warns(UserWarning, match=r"the gradient is 0 in 2 of 3 rows") as said:
        moved = gradient_attack(model, x, 0, epsilon=0.25, clip=None, batch_size=2)
    assert len(said) == 1
    assert (moved != x).flatten().tolist() == [False, True, False]


@pytest.mark.filterwarnings("error")
def test_rows_that_may_not_move_are_no_finding(gradient_attack: Any) -> None:
    """Their mask holds them, or epsilon is 0."""
    model = lambda x: torch.cat([x.relu(), torch.zeros_like(x)], dim=1)  # noqa: E731
    x = torch.tensor([[-1.0], [0.5]])
    gradient_attack(model, x, 0, epsilon=0.0, clip=None)
    held = torch.tensor([[False], [True]])
    gradient_attack(model, x, 0, epsilon=0.1, clip=None, mask=held)


def test_a_network_however_sure_is_attacked() -> None:
    """Logits 10,000 apart: p and 1 - p are 1 and 0 in any precision, the direction is known."""
    model = linear([[2e4, -2e4], [0.0, 0.0]])
    x = torch.tensor([[0.75, 0.25]])
    moved = fgsm(model, x, 0, epsilon=0.125)
    assert moved.tolist() == [[0.625, 0.375]]


def test_a_softmax_that_is_sure_says_so(gradient_attack: Any) -> None:
    model = nn.Sequential(linear([[2e4, -2e4], [0.0, 0.0]]), nn.Softmax(1))
    with pytest.warns(UserWarning, match="the gradient is 0 in 1 of 1 rows"):
        gradient_attack(model, torch.tensor([[0.75, 0.25]]), 0, epsilon=0.125)


def test_a_gradient_that_is_nan_is_an_error(gradient_attack: Any) -> None:
    """The root's slope at 0 is infinite, and 0 times that is NaN."""
    model = lambda x: torch.cat([0 * x.sqrt(), x], dim=1)  # noqa: E731
    x = torch.tensor([[0.0], [0.5]])
    with pytest.raises(ValueError, match="gradient is NaN or infinite in 1 of 2 rows"):
        gradient_attack(model, x, 0, epsilon=0.1)


@pytest.mark.parametrize("attack", ATTACKS)
def test_answers_that_are_nan_are_an_error(attack: Any) -> None:
    model = lambda x: torch.full((len(x), 4), NAN) * x.sum((1, 2, 3))[:, None]  # noqa: E731
    with pytest.raises(ValueError, match="NaN or infinity in"):
        attack(model, inputs(), 1, epsilon=0.1)


@pytest.mark.parametrize("attack", ATTACKS)
def test_rows_that_influence_each_other_are_refused(attack: Any) -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(ValueError, match="rows influence each other"):
        attack(model, inputs(), 1, epsilon=0.1)


# ---- one logit -----------------------------------------------------------------------------------


def binary(flat: bool, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """A network with one logit, (N,) or (N, 1), and the same with two."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 1)).to(dtype)
    two = lambda x: torch.cat([torch.zeros_like(body(x)), body(x)], dim=1)  # noqa: E731
    return (nn.Sequential(body, nn.Flatten(0)) if flat else body), two


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("target", [0, 1, [1, 0, 1]])
@pytest.mark.parametrize("attack", ATTACKS)
def test_one_logit_is_attacked_as_two_classes(attack: Any, target: Any, flat: bool) -> None:
    one, two = binary(flat)
    x = inputs()
    moved = attack(one, x, target, epsilon=0.1)
    assert torch.equal(moved, attack(two, x, target, epsilon=0.1))
    t = torch.tensor(target).expand(3)
    before, after = one(x).flatten(), one(moved).flatten()
    right = (before > 0).long() == t  # a row that is fooled from the start may be left alone
    gain = (after - before) * (1 - 2 * t)  # away from class 0 is up
    assert (gain[right] > 0).any() == right.any()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_third_class_of_one_logit_is_refused(attack: Any) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        attack(binary(True)[0], inputs(), 2, epsilon=0.1)


def test_the_loss_of_one_logit_is_the_binary_one() -> None:
    z, y = torch.tensor([-3.0, 0.5, 2.0], dtype=torch.float64), torch.tensor([1, 0, 1])
    want = F.binary_cross_entropy_with_logits(z, y.double(), reduction="none")
    torch.testing.assert_close(cross_entropy(z, y), want)
    torch.testing.assert_close(cross_entropy(z[:, None], y.tolist()), want)


def test_ones_own_loss_is_given_two_columns() -> None:
    one, x = binary(True)[0], inputs()
    want = fgsm(one, x, 0, epsilon=0.1)
    assert torch.equal(fgsm(one, x, 0, epsilon=0.1, loss_fn=F.cross_entropy), want)


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        ([0, 3], ValueError, r"0\.\.2"),
        ([0], ValueError, r"y must be \(2,\)"),
        (torch.eye(3)[:2], ValueError, "one-hot"),
        (["a", "b"], TypeError, "y must hold class numbers"),
    ],
)
def test_bad_classes_of_the_loss(y: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cross_entropy(torch.zeros(2, 3), y)


# ---- half precision ------------------------------------------------------------------------------


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_half_precision_stays_in_its_ball_and_dtype(attack: Any, dtype: torch.dtype) -> None:
    x = inputs(5).to(dtype)
    moved = attack(toy(dtype), x, 1, epsilon=0.1)
    assert moved.dtype == dtype
    assert (moved.float() - x.float()).abs().max() <= 0.1 + torch.finfo(dtype).eps
    assert moved.min() >= 0
    assert moved.max() <= 1


@pytest.mark.filterwarnings("ignore:the gradient is 0")
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_attacked_as_single_is(gradient_attack: Any, dtype: torch.dtype) -> None:
    x = inputs(5).to(dtype)
    moved = gradient_attack(toy(dtype), x, 1, epsilon=0.1)
    want = gradient_attack(toy(), x.float(), 1, epsilon=0.1)
    moves, wanted = (moved.float() - x.float()).flatten(), (want - x.float()).flatten()
    assert (moves @ wanted) / (moves.norm() * wanted.norm()) > 0.8


@pytest.mark.parametrize("dtype", HALVES)
def test_small_steps_add_up_in_half_precision(dtype: torch.dtype) -> None:
    """Sixty-four steps of 1/1024 from 1: in bfloat16 each alone would be rounded away."""
    model = lambda x: torch.cat([x, 0 * x], dim=1)  # noqa: E731
    x = torch.ones(1, 1, dtype=dtype)
    moved = pgd(model, x, 1, epsilon=0.5, step_size=2**-10, n_steps=64, clip=None)
    assert moved.item() == 1 + 64 / 1024


def test_a_radius_that_rounding_swallows_is_said() -> None:
    model = lambda x: torch.cat([x, 0 * x], dim=1)  # noqa: E731
    x = torch.tensor([[1.0], [2**-4]], dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match=r"epsilon=0.001 is lost in .*bfloat16 for 50.0%"):
        fgsm(model, x, 1, epsilon=0.001, clip=None)


def test_long_and_short_gradients_keep_their_direction_in_half_precision() -> None:
    """(3, 4) times 1e-5 and times 1e3: squares that float16 does not hold."""
    for scale in (1e-5, 1e3):
        model = linear([[3 * scale, 4 * scale], [0.0, 0.0]]).half()
        x = torch.ones(1, 2, dtype=torch.float16)
        options = {"epsilon": 0.5, "step_size": 0.5, "n_steps": 1, "norm": "l2", "clip": None}
        moved = pgd(model, x, 0, **options)
        torch.testing.assert_close(moved.float(), torch.tensor([[0.7, 0.6]]), rtol=0, atol=3e-3)


# ---- slopes that are small -----------------------------------------------------------------------


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
    x = torch.arange(6000, dtype=torch.float64).reshape(2000, 3) / 6000
    return (pgd(lambda x: x, x, 0, epsilon=2.0, seed=seed, **options) - x) / 2


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


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_row_alone_begins_where_it_does_in_a_batch(norm: Any) -> None:
    x, options = inputs(4), {"norm": norm, "random_start": True, "step_size": 0.0, "n_steps": 1}
    together = pgd(toy(), x, 1, epsilon=0.1, **options)
    for i in range(4):
        alone = pgd(toy(), x[i : i + 1], 1, epsilon=0.1, **options)
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-7)
    again = pgd(toy(), x.flip(0), 1, epsilon=0.1, batch_size=3, **options).flip(0)
    torch.testing.assert_close(again, together, rtol=0, atol=1e-7)
    twins = pgd(toy(), x[:1].repeat(2, 1, 1, 1), 1, epsilon=0.1, **options)
    assert torch.equal(*twins)
    assert not torch.allclose(together[0] - x[0], together[1] - x[1], atol=0.01)


def test_any_integer_is_a_seed_and_nothing_else_is() -> None:
    options = {"random_start": True, "epsilon": 0.1, **STEPS}
    want = pgd(toy(), inputs(), 1, seed=3, **options)
    for seed in (np.int64(3), np.array(3), torch.tensor(3)):
        assert torch.equal(pgd(toy(), inputs(), 1, seed=seed, **options), want)
    for attack in (partial(pgd, **options), partial(square_attack, epsilon=0.1)):
        with pytest.raises(TypeError, match="seed must be an integer, got float"):
            attack(toy(), inputs(), 1, seed=3.0)


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
    with pytest.warns(UserWarning, match="the gradient is 0 in 60 of 60 rows"):
        assert torch.equal(fgsm(steps, x, y, epsilon=0.15), x)
    moved = square_attack(steps, x, y, epsilon=0.15, n_queries=60)
    torch.manual_seed(0)
    noise = Peer.LinfRepeatedAdditiveUniformNoiseAttack(repeats=60)
    assert accuracy(model, moved, y) < accuracy(model, theirs(noise, model, x, y, 0.15), y) - 0.2
    assert ((moved - x).abs() <= 0.15 + 1e-12).all()


def test_a_row_that_is_fooled_is_left_alone() -> None:
    calls = []

    def watched(x: Tensor) -> Tensor:
        if not trying():
            calls.append(len(x))
        return torch.stack([x.sum((1, 2, 3)) - 2, torch.zeros(len(x))], dim=1)

    x = torch.stack(
        [torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]
    )  # the first is fooled from the start
    moved = square_attack(watched, x, 0, epsilon=0.1, n_queries=4)
    assert calls == [2, 1, 1, 1, 1]
    assert torch.equal(moved[0], x[0])


def test_squares_shrink_at_the_papers_moments_and_lie_inside() -> None:
    """Andriushchenko et al. (2020): .8 of the area, halved at queries 10, 50, 200 ... of 10,000."""
    squares = _squares(10_000, torch.Size([3, 32, 20]), 0.8, seed=0)
    sides = [place[2].stop - place[2].start for place, _ in squares[1:]]
    for query, halved in ((10, 0), (11, 1), (51, 2), (201, 3), (501, 4), (1001, 5), (8001, 9)):
        side = min(max(1, round((0.8 * 32 * 20 / 2**halved) ** 0.5)), 20)
        assert sides[query - 1] == side
        assert {place[3].stop - place[3].start for place, _ in squares[query : query + 1]} == {side}
    ends = [(place[2].stop, place[3].stop) for place, _ in squares[1:]]
    assert tuple(map(max, zip(*ends, strict=True))) == (32, 20)
    assert min(place[2].start for place, _ in squares[1:]) == 0


def test_squares_keep_no_graph_of_a_functions_weights() -> None:
    weight, kept = torch.ones(1, requires_grad=True), []

    def score(x: Tensor) -> Tensor:
        if not trying():
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


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_channel_may_have_a_clip_of_its_own(attack: Any) -> None:
    """No channel leaves its own bounds; numbers as tensors are numbers."""
    x, model = inputs(2) * 0.5 + 0.25, binary(False)[0]
    low, high = torch.tensor([0.24, 0.2, 0.0]), torch.tensor([0.76, 0.8, 1.0])
    clip = low[:, None, None], high[:, None, None]
    moved = attack(model, x, 1, epsilon=0.1, clip=clip)
    for c in range(3):
        assert moved[:, c].min() >= low[c]
        assert moved[:, c].max() <= high[c]
    wide = attack(model, x, 1, epsilon=0.1, clip=(torch.tensor(0.0), np.float32(1)))
    assert torch.equal(wide, attack(model, x, 1, epsilon=0.1))


def test_a_clip_per_channel_by_hand() -> None:
    model = lambda x: torch.stack([x.sum((1, 2)), 0 * x.sum((1, 2))], dim=1)  # noqa: E731
    clip = torch.tensor([[0.0], [0.75]]), torch.tensor([[1.0], [2.0]])
    x = torch.tensor([[[0.5, 0.125], [1.0, 0.8125]]])
    moved = fgsm(model, x, 0, epsilon=0.25, clip=clip)
    assert moved.tolist() == [[[0.25, 0.0], [0.75, 0.75]]]


@pytest.mark.parametrize(
    ("clip", "error", "words"),
    [
        (1.0, ValueError, r"clip must be None or \(low, high\), got float 1.0"),
        ((0, 0.5, 1), ValueError, r"clip must be None or \(low, high\)"),
        ((None, 1), TypeError, "clip must hold numbers or tensors, got NoneType"),
        (("0", 1), TypeError, "clip must hold numbers or tensors, got str"),
        ((0, NAN), ValueError, "low < high"),
        ((torch.zeros(3), torch.ones(3)), ValueError, r"any axis of x.*\(C, 1, 1\)"),
        ((torch.zeros(5, 1, 1), 1), ValueError, r"clip of shape \(5, 1, 1\) does not broadcast"),
        ((torch.full((3, 1, 1), 0.5), 1), ValueError, "x lies in .*clip=these bounds"),
    ],
)
def test_bad_clip(clip: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fgsm(toy(), inputs(), 2, epsilon=0.1, clip=clip)


@pytest.mark.parametrize("epsilon", [np.float64(0.1), np.array(0.1), torch.tensor(0.1)])
def test_any_number_is_a_radius(epsilon: Any) -> None:
    want = fgsm(toy(), inputs(), 2, epsilon=0.1)
    torch.testing.assert_close(fgsm(toy(), inputs(), 2, epsilon=epsilon), want)


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


def test_names_built_on_the_attacks_can_be_had_from_here() -> None:
    for name in adversarial.__all__:
        assert getattr(adversarial, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'fgms'"):
        adversarial.fgms  # noqa: B018
