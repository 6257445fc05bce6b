"""Many networks in place of one: by hand, against plain loops, and on a plane with an edge."""

from copy import deepcopy
from functools import partial
from itertools import product
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, binom
from torch import Tensor, nn

from tests.snapshots import unchanged
from tests.toys import inputs, linear, toy
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.saliency import saliency
from xailab.data import load
from xailab.models import digit_bayes, digit_cnn, digit_committee
from xailab.trust import uncertainty
from xailab.trust.uncertainty import (
    BayesLinear,
    Prediction,
    conformal_sets,
    ensemble,
    entropy_split,
    expected_calibration_error,
    explanation_uncertainty,
    fit_temperature,
    laplace_last_layer,
    mc_dropout,
    mc_weights,
    ood_auroc,
)


def small(p: float = 0.5, dropout: Any = nn.Dropout) -> nn.Sequential:
    """Dropout on two numbers, then logits 2 (a - b) and 0."""
    return nn.Sequential(dropout(p), linear([[2.0, -2.0], [0.0, 0.0]], [0.0, 0.0]))


ONES = torch.ones(1, 2)


# ---- dropout -------------------------------------------------------------------------------------


def test_two_units_by_hand() -> None:
    """Kept or dropped, a quarter each: a - b is 0, 2, -2, 0, so the logit is 0, 4, -4, 0."""
    logits = torch.tensor([[[0.0, 0]], [[4.0, 0]], [[-4.0, 0]], [[0.0, 0]]])
    want = entropy_split(logits.softmax(-1))
    got = mc_dropout(small(), ONES, n_samples=800)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.04)
    p = 1 / (1 + np.exp(-4))
    half = (log(2) - p * log(p) - (1 - p) * log(1 - p)) / 2
    assert want.total.item() == pytest.approx(log(2))
    assert want.aleatoric.item() == pytest.approx(half, abs=1e-6)


def test_the_mean_is_that_of_all_thinned_networks() -> None:
    """Six units, two layers of dropout: all 2^6 masks, each weighed by its probability."""
    torch.manual_seed(0)
    first, last, x = nn.Linear(2, 3), nn.Linear(3, 2), torch.tensor([[1.0, -0.5]])
    net = nn.Sequential(nn.Dropout(0.3), first, nn.Tanh(), nn.Dropout(0.6), last)
    mean = torch.zeros(2)
    for mask in product([0.0, 1.0], repeat=5):
        m = torch.tensor(mask)
        weight = 0.7 ** m[:2].sum() * 0.3 ** (1 - m[:2]).sum()
        weight *= 0.4 ** m[2:].sum() * 0.6 ** (1 - m[2:]).sum()
        hidden = torch.tanh(first(x * m[:2] / 0.7)) * m[2:] / 0.4
        mean += weight * last(hidden).softmax(1)[0].detach()
    got = mc_dropout(net, x, n_samples=800).mean[0]
    torch.testing.assert_close(got, mean, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    "dropout",
    [nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout, partial(nn.Dropout, inplace=True)],
)
def test_the_same_as_a_loop_in_training_mode(dropout: Any) -> None:
    """Where every row drops other units, the distribution of a row's answers is the same."""
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), dropout(0.4), nn.Linear(8, 3))
    torch.manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    x = torch.tensor([[0.3, -1.0]])
    with torch.no_grad():
        samples = net.train()(x.repeat(6000, 1)).softmax(1)
    want = entropy_split(samples[:, None])
    got = mc_dropout(net, x, n_samples=600)
    torch.testing.assert_close(got.mean, want.mean, rtol=0, atol=0.04)
    torch.testing.assert_close(got.epistemic, want.epistemic, rtol=0.15, atol=0)


def test_whole_channels_are_dropped_where_the_layer_says_so() -> None:
    """Both channels carry 1 at four places: without 2d, hardly ever all four are dropped."""
    net = nn.Sequential(nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(8, 2, bias=False))
    net[2].weight.data = torch.tensor([[1.0] * 4 + [0.0] * 4, [0.0] * 8])
    got = mc_dropout(net, torch.ones(1, 2, 2, 2), n_samples=1000)
    by_hand = (1 / (1 + np.exp(-8.0)) + 0.5) / 2
    assert got.mean[0, 0].item() == pytest.approx(by_hand, abs=0.03)


def test_batch_norm_stays_in_evaluation() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2), *small()).train()
    net[0].running_mean += torch.tensor([3.0, -1.0])
    with unchanged(net, ONES):
        got = mc_dropout(net, ONES, n_samples=50)
    net[0].running_mean.zero_()
    assert not torch.equal(got.mean, mc_dropout(net, ONES, n_samples=50).mean)


def test_the_seed_decides_and_more_samples_go_on() -> None:
    x = inputs()
    one = mc_dropout(toy(), x, n_samples=5, seed=3)
    torch.manual_seed(99)
    assert all(map(torch.equal, one, mc_dropout(toy(), x, n_samples=5, seed=3)))
    assert not torch.equal(one.mean, mc_dropout(toy(), x, n_samples=5, seed=4).mean)
    first = mc_dropout(small(), ONES, n_samples=1, seed=7).mean
    second = mc_dropout(small(), ONES, n_samples=2, seed=7).mean
    assert (2 * second - first).sum().item() == pytest.approx(1)


def test_a_layer_used_twice_drops_twice() -> None:
    """One module, two places: were the masks shared, the two would always agree."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.drop(x[:, :1]), self.drop(x[:, :1])
            return torch.cat([a - b, torch.zeros_like(a)], dim=1)

    assert mc_dropout(Twice(), ONES, n_samples=50).epistemic.item() > 0.01


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(nn.functional.dropout(x, 0.5, self.training))


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (nn.Linear(2, 2), ValueError, "no dropout layer"),
        (small(0.0), ValueError, "p > 0"),
        (lambda x: x, TypeError, "function"),
        (Unused(), ValueError, "none of the model's dropout layers ran"),
        (nn.Sequential(small(), nn.Softmax(1)), ValueError, "without softmax"),
    ],
)
def test_models_that_cannot_be_sampled(model: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        mc_dropout(model, ONES)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_samples": 0}, ValueError, "n_samples"),
        ({"n_samples": 2.0}, TypeError, "n_samples"),
        ({"task": "ranking"}, ValueError, "task.*'ranking'"),
        ({"seed": 0.5}, TypeError, "seed must be an integer, got float"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        mc_dropout(small(), ONES, **options)


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_has_two_columns(flat: bool) -> None:
    """Kept or dropped, a quarter each: the logit is 0, 4, -4 or 0, against 0."""
    end = [nn.Flatten(0)] if flat else []
    net = nn.Sequential(nn.Dropout(0.5), linear([[2.0, -2.0]], [0.0]), *end)
    got, two = mc_dropout(net, ONES, n_samples=40), mc_dropout(small(), ONES, n_samples=40)
    torch.testing.assert_close(got.mean, two.mean.flip(1))
    for one, other in zip(got[1:], two[1:], strict=True):
        torch.testing.assert_close(one, other)
    sure = nn.Sequential(nn.Dropout(0.5), linear([[0.0, 0.0]], [1.0]))  # z = 1 sums to 1 with 0
    assert mc_dropout(sure, ONES).mean[0, 1].item() == pytest.approx(1 / (1 + np.exp(-1)))


def test_many_rounded_probabilities_are_known_by_their_number() -> None:
    """Each is rounded to a multiple of 2^-24: 60,000 of them sum to 1.0014, more than an eps."""
    shares = torch.full((2, 60_000), 1 / 60_000).half()
    assert shares.double().sum(1).sub(1).min() > torch.finfo(torch.float16).eps
    with pytest.raises(ValueError, match="without softmax"):
        ensemble([nn.Identity(), nn.Identity()], shares)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("k", [2, 9, 500])
def test_half_precision_is_asked_in_its_dtype_and_counted_finely(
    dtype: torch.dtype, k: int
) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, k)), torch.rand(20, 4)
    for ask in (
        lambda net, x: mc_dropout(net, x, n_samples=20),
        lambda net, x: ensemble([net, deepcopy(net)], x),
    ):
        want, got = ask(net.float(), x), ask(net.to(dtype), x.to(dtype))
        assert {one.dtype for one in got} == {dtype}
        torch.testing.assert_close(got.mean.float(), want.mean, rtol=0.1, atol=0.01)
        torch.testing.assert_close(got.total.float(), want.total, rtol=0.02, atol=0.01)
        torch.testing.assert_close(got.epistemic.float(), want.epistemic, rtol=0.2, atol=0.01)
    with pytest.raises(ValueError, match="without softmax"):
        mc_dropout(nn.Sequential(net, nn.Softmax(1)), x.to(dtype))


def test_a_noise_variance_that_half_precision_does_not_hold() -> None:
    """exp(12) is 162,755: in float32 an answer, in float16 none."""
    nets = [linear([[0.0, 0.0], [0.0, 12.0]]) for _ in range(2)]
    told = ensemble(nets, ONES, task="regression")
    assert told.aleatoric.item() == pytest.approx(np.exp(12), rel=1e-6)
    with pytest.raises(ValueError, match=r"too large for torch.float16"):
        ensemble([net.half() for net in nets], ONES.half(), task="regression")


class TimeFirst(nn.Module):
    """Its dropout gets (T, N, D): what is drawn for axis 0 is shared by moments, not by rows."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(x.transpose(0, 1)).mean(0))


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_dropout_whose_first_axis_holds_no_rows_is_refused(rows: int) -> None:
    net, x = TimeFirst(), torch.rand(rows, 6, 4)
    with pytest.raises(ValueError, match=r"rows influence each other.*batch_first"):
        mc_dropout(net, x)
    with pytest.raises(ValueError, match="rows influence each other"):
        explanation_uncertainty(net, x, 1, explain=lambda model, x, target: x)
    assert mc_dropout(net, x[:1]).mean.shape == (1, 2)  # alone a row is in no company


def test_a_batch_is_its_rows_for_every_way_of_asking() -> None:
    x = inputs(4)
    torch.manual_seed(0)
    bayes = nn.Sequential(nn.Flatten(), BayesLinear(192, 3, initial_std=0.3))
    for ask in (
        lambda x: mc_dropout(toy(), x, n_samples=4),
        lambda x: mc_weights(bayes, x, n_samples=4),
        lambda x: ensemble([toy(), toy()], x),
        lambda x: explanation_uncertainty(toy(), x, 2, explain=saliency, n_samples=4),
    ):
        for together, alone in zip(ask(x), ask(x[2:3]), strict=True):
            torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-6)
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    net = nn.Sequential(norm, nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4))
    for ask in (mc_dropout, lambda net, x: ensemble([net, net], x)):
        with pytest.raises(ValueError, match="rows influence each other"):
            ask(net, x)


def test_answers_in_a_dict_are_read_and_nan_is_named() -> None:
    net = nn.Sequential(*small())
    want = mc_dropout(net, ONES)
    net.register_forward_hook(lambda _module, _inputs, output: {"logits": output})
    assert all(map(torch.equal, mc_dropout(net, ONES), want))
    with pytest.raises(ValueError, match="returned NaN or infinity in 1 of 1 rows"):
        ensemble([lambda x: x * np.nan, lambda x: x], ONES)


# ---- ensembles and Bayesian layers ---------------------------------------------------------------


def test_an_ensemble_by_hand() -> None:
    """Probabilities are averaged: 0.9 and 0.5 give 0.7. Averaged logits would give 0.75."""
    nets = [linear([[w], [0.0]]) for w in (log(9), 0.0)]
    told = ensemble(nets, torch.ones(1, 1))
    assert told.mean[0].tolist() == pytest.approx([0.7, 0.3])
    single = -(0.9 * log(0.9) + 0.1 * log(0.1))
    total = -(0.7 * log(0.7) + 0.3 * log(0.3))
    assert told.aleatoric.item() == pytest.approx((single + log(2)) / 2)
    assert told.total.item() == pytest.approx(total)
    assert told.epistemic.item() == pytest.approx(total - (single + log(2)) / 2, abs=1e-6)


def test_a_regression_by_hand() -> None:
    """Means 2 and 4 with noise variances 1 and 3."""
    nets = [linear([[m, 0.0], [0.0, log(v)]]) for m, v in ((2.0, 1.0), (4.0, 3.0))]
    told = ensemble(nets, ONES, task="regression")
    assert [one.item() for one in told] == pytest.approx([3, 3, 2, 1])
    with pytest.raises(ValueError, match=r"\(N, 2\).*\(1, 3\)"):
        ensemble([nn.Linear(2, 3)] * 2, ONES, task="regression")


@pytest.mark.parametrize(
    ("models", "error", "words"),
    [
        ([toy()], ValueError, "at least two models, got 1"),
        ([], ValueError, "at least two models, got 0"),
        (toy(), TypeError, "list of models, got Toy"),
        ([nn.Linear(2, 2), nn.Linear(2, 3)], ValueError, r"\(1, 2\), \(1, 3\)"),
    ],
)
def test_bad_ensembles(models: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ensemble(models, ONES)


def test_drawn_weights_by_hand() -> None:
    """One weight N(1, 2^2) at x = 3, the other logit 0: the sigmoid of N(3, 6^2), integrated."""
    net = BayesLinear(1, 2, bias=False)
    net.weight.data = torch.tensor([[1.0], [0.0]])
    net.weight_rho.data = torch.tensor([[float(np.log(np.expm1(2.0)))], [-30.0]])
    z = np.linspace(-60, 60, 20_001)
    density = np.exp(-((z - 3) ** 2) / 72) / np.sqrt(72 * np.pi)
    want = np.trapezoid(density / (1 + np.exp(-z)), z)
    got = mc_weights(net, torch.tensor([[3.0]]), n_samples=800).mean[0, 0]
    assert got.item() == pytest.approx(want, abs=0.04)
    with pytest.raises(ValueError, match="no Bayesian layer"):
        mc_weights(small(), ONES)


# ---- a plane with an edge ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heaps() -> tuple[Tensor, Tensor]:
    """Two heaps that overlap between them; (0, 4) and beyond nobody has seen."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = 0.8 * torch.randn(200, 2, generator=generator)
    x[:, 0] += 2.0 * y - 1
    return x, y


@pytest.fixture(scope="module")
def networks(heaps: tuple[Tensor, Tensor]) -> list[nn.Module]:
    """Five small networks, trained on all rows at once from five beginnings."""
    x, y = heaps
    nets: list[nn.Module] = []
    with torch.random.fork_rng():
        for seed in range(5):
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
            net.append(nn.Linear(32, 2))
            steps = torch.optim.Adam(net.parameters(), 0.01)
            for _ in range(150):
                loss = nn.functional.cross_entropy(net(x), y)
                steps.zero_grad()
                loss.backward()
                steps.step()
            nets.append(net.eval())
    return nets


def test_ignorance_grows_away_from_the_data_and_noise_does_not(
    networks: list[nn.Module], heaps: tuple[Tensor, Tensor]
) -> None:
    angles = torch.linspace(0, 2 * torch.pi, 181)[:-1]
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    near, far = ensemble(networks, heaps[0]), ensemble(networks, 6 * circle)
    assert far.epistemic.mean() > 2 * near.epistemic.mean()
    assert far.aleatoric.mean() < near.aleatoric.mean()


# ---- shipped networks: the figures of lesson `uncertainty`, with a margin ------------------------


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """The digits of the lesson: learnt from, for choosing, for the test, and the test turned."""
    data = load("mnist5k")
    rows, test = np.flatnonzero(data.extra["train"]), np.flatnonzero(~data.extra["train"])
    x = torch.as_tensor(np.asarray(data.images) / np.float32(255))[:, None]
    y = torch.as_tensor(data.y)
    parts = {"learned": rows[::4], "valid": rows[1::4], "test": test}
    pairs: dict[str, Any] = {name: (x[part], y[part]) for name, part in parts.items()}
    return {**pairs, "turned": x[test].rot90(1, (2, 3)), "all": (x, y), "unseen": parts}


@pytest.fixture(scope="module")
def told(digits: dict[str, Any]) -> dict[str, tuple[Prediction, Prediction]]:
    """What each method says about test digits, upright and turned."""
    five, bayes = list(digit_committee()), digit_bayes()
    fitted = laplace_last_layer(five[0], *digits["learned"], prior_precision=10.0)
    methods: dict[str, Any] = {
        "one": lambda x: entropy_split(five[0](x).detach().softmax(1)[None]),
        "dropout": partial(mc_dropout, five[0]),
        "ensemble": partial(ensemble, five),
        "bayes": partial(mc_weights, bayes),
        "laplace": fitted.predict,
    }
    x = digits["test"][0], digits["turned"]
    return {name: (ask(x[0]), ask(x[1])) for name, ask in methods.items()}


def nll_and_ece(p: Tensor, y: Tensor) -> tuple[float, float]:
    p = p.double() / p.double().sum(1, keepdim=True)
    nll = nn.functional.nll_loss(p.log(), y).item()
    return nll, expected_calibration_error(p, y)


def test_a_temperature_halves_the_calibration_error(digits: dict[str, Any]) -> None:
    """Measured: .061 to .029 with T = 2.2."""
    net = digit_committee()[0]
    with torch.no_grad():
        valid, logits = net(digits["valid"][0]), net(digits["test"][0])
    t, y = fit_temperature(valid, digits["valid"][1]), digits["test"][1]
    before, after = nll_and_ece(logits.softmax(1), y), nll_and_ece((logits / t).softmax(1), y)
    assert 1.8 < t < 2.6
    assert before[1] > 0.05
    assert after[1] < 0.6 * before[1]
    assert after[0] < 0.8 * before[0]


def test_every_method_is_likelier_and_better_calibrated_than_one_network(
    told: dict[str, tuple[Prediction, Prediction]], digits: dict[str, Any]
) -> None:
    """Measured: NLL .461 against .392 (ensemble) and less, ECE .061 against .041 and less."""
    y = digits["test"][1]
    alone = nll_and_ece(told["one"][0].mean, y)
    for name in ("dropout", "ensemble", "bayes", "laplace"):
        nll, ece = nll_and_ece(told[name][0].mean, y)
        assert nll < alone[0] - 0.04
        assert ece < alone[1] - 0.01


def test_turned_digits_are_told_by_doubt(
    told: dict[str, tuple[Prediction, Prediction]],
) -> None:
    """Measured: .840 alone, .868 by five, .865 by dropout; Bayes by backprop gains nothing."""
    found = {name: ood_auroc(near.total, far.total) for name, (near, far) in told.items()}
    assert all(value > 0.8 for value in found.values())
    assert found["ensemble"] > found["one"] + 0.015
    assert found["dropout"] > found["one"] + 0.01
    near, far = told["ensemble"]
    assert ood_auroc(near.epistemic, far.epistemic) > 0.85


def test_noise_gets_a_softmax_above_99_percent(digits: dict[str, Any]) -> None:
    """Measured: 92 % of the pictures, by the calibrated CNN all of them."""
    noise = torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for net, share in ((digit_committee()[0], 0.8), (digit_cnn(), 0.98)):
        with torch.no_grad():
            assert (net(noise).softmax(1).max(1).values > 0.99).float().mean() > share


def test_conformal_coverage_over_twenty_splits(digits: dict[str, Any]) -> None:
    """All 4,000 sets lie in the binomial interval, each 200 in their beta-binomial one."""
    (x, y), parts = digits["all"], digits["unseen"]
    unseen = np.setdiff1d(np.arange(len(y)), parts["learned"])
    pool = np.random.default_rng(0).permutation(unseen)
    with torch.no_grad():
        p, labels = digit_committee()[0](x[pool]).double().softmax(1).numpy(), y[pool].numpy()
    hits = []
    for new in np.arange(4000).reshape(20, 200):
        held = (new[-1] + 1 + np.arange(1000)) % 4000
        sets = conformal_sets(p[held], labels[held], p[new], alpha=0.1).sets
        hits.append(int(sets[np.arange(200), labels[new]].sum()))
    low, high = binom(4000, 0.9).interval(0.95)
    assert low <= sum(hits) <= high
    low, high = betabinom(200, 901, 100).interval(0.95)
    assert sum(low <= hit <= high for hit in hits) >= 17  # of 20: fewer has a chance of 1.6 %


# ---- the uncertainty of an explanation -----------------------------------------------------------


def test_maps_of_an_ensemble_by_hand() -> None:
    """Gradients 1, 2 and 6 for the first number, -1 for the second."""
    nets = [linear([[w, -1.0]]) for w in (1.0, 2.0, 6.0)]
    told = explanation_uncertainty(nets, ONES, 0, explain=saliency)
    assert told.mean.tolist() == [[3.0, -1.0]]
    assert told.std[0].tolist() == pytest.approx([((4 + 1 + 9) / 3) ** 0.5, 0])


def test_maps_of_dropout_by_hand() -> None:
    """The gradient of 2 a - 2 b is 4, -4 where kept and 0 where dropped: mean 2, std 2."""
    told = explanation_uncertainty(small(), ONES, 0, explain=saliency, n_samples=400)
    assert told.mean[0].tolist() == pytest.approx([2, -2], abs=0.3)
    assert told.std[0].tolist() == pytest.approx([2, 2], abs=0.05)


def test_a_member_is_one_network_for_all_steps_of_a_method() -> None:
    """Integrated gradients run a member many times; of a linear one they are x times gradient.

    Were each step thinned anew, its average would hide most of the spread.
    """
    told = explanation_uncertainty(
        small(), ONES, 0, explain=partial(integrated_gradients, n_steps=20), n_samples=60
    )
    assert told.std[0].tolist() == pytest.approx([2, 2], abs=0.2)


def test_maps_of_drawn_weights() -> None:
    """Methods that read a layer's weights meet the draw, too."""
    net = BayesLinear(2, 1, bias=False, initial_std=0.5)
    net.weight.data = torch.tensor([[1.0, -1.0]])
    read = lambda model, x, target: model.weight.expand_as(x)  # noqa: E731
    for explain in (saliency, read):
        told = explanation_uncertainty(net, ONES, 0, explain=explain, n_samples=300)
        assert told.mean[0].tolist() == pytest.approx([1, -1], abs=0.1)
        assert told.std[0].tolist() == pytest.approx([0.5, 0.5], abs=0.07)


def test_both_kinds_vary_together() -> None:
    net = nn.Sequential(nn.Dropout(0.5), BayesLinear(1, 1, bias=False, initial_std=1.0))
    net[1].weight.data.fill_(1.0)
    told = explanation_uncertainty(net, torch.ones(1, 1), 0, explain=saliency, n_samples=500)
    # a gradient is 2 m w: E = 1, E squared = 4 * 0.5 * (1 + 1) = 4
    assert told.std.item() == pytest.approx(3**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("model", "options", "error", "words"),
    [
        (nn.Linear(2, 2), {}, ValueError, "neither.*nor|neither dropout nor"),
        (small(), {"n_samples": 1}, ValueError, "at least 2"),
        ([small()], {}, ValueError, "at least two models"),
        (small(), {"explain": lambda *_: 3}, TypeError, "int"),
        (small(), {"explain": lambda *_: ONES.long()}, TypeError, r"floats.*torch.int64"),
        (small(), {"explain": lambda *_: ONES * np.nan}, ValueError, "explain returned NaN"),
        (small(), {"explain": lambda *_: torch.zeros(5)}, ValueError, r"\(1, 2\).*\(5,\)"),
    ],
)
def test_bad_explanations(
    model: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    arguments = {"explain": saliency, **options}
    with pytest.raises(error, match=words):
        explanation_uncertainty(model, ONES, 0, **arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_half_precision_are_averaged_finely(dtype: torch.dtype) -> None:
    """Maps 300 and 302: their squares would overflow float16, their spread does not."""
    values = iter((300.0, 302.0))
    explain = lambda model, x, target: torch.full_like(x, next(values))  # noqa: E731
    nets = [nn.Linear(1, 1).to(dtype) for _ in range(2)]
    told = explanation_uncertainty(nets, torch.ones(1, 1, dtype=dtype), None, explain=explain)
    assert told.mean.dtype == told.std.dtype == dtype
    assert told.std.item() == 1


def test_an_ensemble_is_left_as_it_was() -> None:
    nets, x = [toy(), deepcopy(toy())], inputs()
    for net in nets:
        with unchanged(net, x):
            ensemble(nets, x)
            explanation_uncertainty(nets, x, 1, explain=saliency)


def test_the_contract_names_are_here() -> None:
    for name in uncertainty.__all__:
        assert hasattr(uncertainty, name)
