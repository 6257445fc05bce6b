"""Bayes by backprop and Laplace where the posterior is known, and against Pyro."""

from typing import Any

import numpy as np
import pyro
import pytest
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoNormal, init_to_value
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from xailab.models.bayesian import BayesConv2d, BayesLinear
from xailab.trust.bayes import (
    bayesian_layers,
    drawn,
    fit_bayes,
    kl_from_prior,
    laplace_last_layer,
)

NAN = float("nan")
NOISE = 0.5  # standard deviation of y in the regression


def regression() -> tuple[Tensor, Tensor]:
    """Two correlated inputs, 40 rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator)
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
    noise = NOISE * torch.randn(40, 1, generator=generator)
    return x, x @ torch.tensor([[1.0], [-0.5]]) + noise


def classes(n: int = 60) -> tuple[Tensor, Tensor]:
    """Three overlapping heaps in the plane."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    centers = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]], dtype=torch.float64)
    return centers[y] + torch.randn(n, 2, generator=generator, dtype=torch.float64), y


def gaussian(outputs: Tensor, y: Tensor) -> Tensor:
    """-log p of a normal with known noise, up to a constant."""
    return ((outputs - y) ** 2).mean() / (2 * NOISE**2)


def best_weights(x: Tensor, y: Tensor, precision: float = 1.0) -> nn.Linear:
    """The maximum of the posterior of a softmax regression with a normal prior."""
    net = nn.Linear(2, 3).double()
    for parameter in net.parameters():
        parameter.data.zero_()
    steps = torch.optim.LBFGS(
        net.parameters(), max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        steps.zero_grad()
        prior = sum((p**2).sum() for p in net.parameters()) * precision / 2
        total = F.cross_entropy(net(x), y, reduction="sum") + prior
        total.backward()
        return total

    steps.step(loss)
    return net


# ---- Bayes by backprop ---------------------------------------------------------------------------


def test_kl_by_hand() -> None:
    """Prior N(0, 2^2); mean 1, sigma 0.5: log(2 / 0.5) + (0.25 + 1) / 8 - 1 / 2."""
    layer = BayesLinear(1, 1, bias=False, prior_std=2.0, initial_std=0.5)
    layer.weight.data.fill_(1.0)
    assert kl_from_prior(layer).item() == pytest.approx(np.log(4) + 1.25 / 8 - 0.5, abs=1e-6)


def test_kl_is_the_mean_log_ratio_of_draws() -> None:
    """The estimate of Blundell et al., from draws, for all weights and biases of two layers."""
    torch.manual_seed(0)
    net = nn.Sequential(BayesConv2d(1, 2, 2, initial_std=0.3), BayesLinear(3, 2, prior_std=0.5))
    parts = [one for layer in net for one in layer.posterior().values()]
    scales = [1.0, 1.0, 0.5, 0.5]
    total = torch.zeros(20_000)
    for posterior, scale in zip(parts, scales, strict=True):
        w = posterior.sample((20_000,))
        total += (posterior.log_prob(w) - Normal(0, scale).log_prob(w)).flatten(1).sum(1)
    assert kl_from_prior(net).item() == pytest.approx(total.mean().item(), rel=0.01)


def test_the_posterior_of_a_regression_and_pyros() -> None:
    r"""Normal likelihood, normal prior: the best independent normals have the exact means and
    variances 1 / precision_ii, narrower than the true marginals where inputs are correlated."""
    x, y = regression()
    precision = x.T @ x / NOISE**2 + torch.eye(2)
    mean = torch.linalg.solve(precision, x.T @ y / NOISE**2)[:, 0]
    narrow, true = precision.diagonal() ** -0.5, torch.linalg.inv(precision).diagonal() ** 0.5
    torch.manual_seed(0)
    layer = BayesLinear(2, 1, bias=False, initial_std=0.1)
    for step in (0.03, 0.002):
        fit_bayes(layer, x, y, loss_fn=gaussian, epochs=250, batch_size=40, learning_rate=step)
    found = layer.posterior()["weight"]
    torch.testing.assert_close(found.mean[0].detach(), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(found.stddev[0].detach(), narrow, rtol=0.15, atol=0)
    assert (narrow < 0.9 * true).all()
    peer_mean, peer_std = pyro_regression(x, y)
    torch.testing.assert_close(found.mean[0].detach(), peer_mean, rtol=0, atol=0.03)
    torch.testing.assert_close(found.stddev[0].detach(), peer_std, rtol=0.2, atol=0)


def pyro_regression(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same model and the same family of posteriors, fitted by Pyro."""

    def model() -> None:
        w = pyro.sample("w", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
        noisy = pyro.distributions.Normal(x @ w, NOISE).to_event(1)
        pyro.sample("y", noisy, obs=y[:, 0])

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.985}), Trace_ELBO())
    for _ in range(300):
        svi.step()
    return guide.locs.w.detach(), guide.scales.w.detach()


def test_fitting_uses_its_seed_only() -> None:
    x, y = classes()
    states, found = [], []
    for begin in (1, 2):
        torch.manual_seed(0)
        layer = BayesLinear(2, 3).double()
        torch.manual_seed(begin)
        before = torch.get_rng_state()
        found.append(fit_bayes(layer, x, y, epochs=3, seed=5))
        states.append(torch.equal(before, torch.get_rng_state()))
    assert found[0] == found[1]
    assert all(states)
    assert found[0][2] < found[0][0]


def test_a_strong_prior_wins_and_a_cold_posterior_is_narrow() -> None:
    x, y = classes()
    widths, sizes = [], []
    for prior_std, kl_weight in ((1.0, 1.0), (0.01, 1.0), (1.0, 0.01)):
        torch.manual_seed(0)
        layer = BayesLinear(2, 3, prior_std=prior_std).double()
        fit_bayes(layer, x, y, epochs=100, batch_size=60, learning_rate=0.03, kl_weight=kl_weight)
        widths.append(layer.posterior()["weight"].stddev.mean().item())
        sizes.append(layer.weight.abs().max().item())
    assert sizes[1] < 0.1 * sizes[0]
    assert widths[2] < 0.7 * widths[0]


def test_a_draw_is_put_back_also_after_an_error() -> None:
    net = nn.Sequential(BayesLinear(2, 2), nn.ReLU(), BayesLinear(2, 2, bias=False)).eval()
    before = [id(p) for p in net.parameters()]
    weight = net[0].weight.detach().clone()
    names = [name for name, _ in net.named_parameters()]

    def interrupted() -> None:
        with drawn(net, torch.Generator().manual_seed(0)):
            assert not torch.equal(net[0].weight, weight)
            assert [name for name, _ in net.named_parameters()] == names
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert [id(p) for p in net.parameters()] == before
    assert torch.equal(net[0].weight, weight)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": nn.Linear(2, 3)}, ValueError, "no Bayesian layer"),
        ({"model": print}, TypeError, "builtin_function"),
        ({"y": torch.zeros(3)}, ValueError, "60 rows and 3"),
        ({"kl_weight": -1.0}, ValueError, "kl_weight.*-1"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"batch_size": 2.5}, TypeError, "batch_size"),
        ({"kl_weight": float("inf")}, ValueError, "kl_weight.*inf"),
        ({"learning_rate": 1e30, "epochs": 30}, FloatingPointError, "lower learning_rate"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate"),
        ({"seed": 0.5}, TypeError, "seed must be an integer, got float"),
        ({"y": torch.arange(60)}, ValueError, r"y must lie in 0\.\.2"),
        ({"y": ["a"] * 60}, TypeError, "y must hold class numbers"),
        ({"y": torch.eye(60, 3).long()}, ValueError, "one-hot"),
        ({"y": [0.0] * 60, "loss_fn": gaussian}, TypeError, "y must be a torch.Tensor"),
        ({"y": torch.full((60, 3), NAN), "loss_fn": gaussian}, ValueError, "y holds 180 values"),
        ({"x": classes()[0].float()}, TypeError, "float32"),
        ({"x": torch.full((60, 2), NAN).double()}, ValueError, "x holds NaN.*row 0"),
        (
            {"x": torch.full((60, 2), NAN).double(), "y": torch.zeros(60, 3), "loss_fn": gaussian},
            ValueError,
            "x holds 120 values that are NaN",
        ),
        ({"model": BayesLinear(2, 3).double().requires_grad_(False)}, ValueError, "frozen"),
        ({"model": BayesLinear(2, 3).half(), "x": classes()[0].half()}, TypeError, "float32"),
    ],
)
def test_bad_fits(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    x, y = classes()
    arguments = {"model": BayesLinear(2, 3).double(), "x": x, "y": y, "epochs": 3, **changes}
    with pytest.raises(error, match=words):
        fit_bayes(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)


def binary_loss(outputs: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs.flatten(), y)


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_learns_by_the_binary_cross_entropy(flat: bool) -> None:
    """torch's cross-entropy of one column would be 0 whatever the network says."""
    x = torch.linspace(-2, 2, 60)[:, None]
    y = (x[:, 0] > 0).long()
    losses, weights = [], []
    for loss_fn, labels in (
        (F.cross_entropy, y),
        (nn.CrossEntropyLoss(), y.tolist()),
        (binary_loss, y.float()),
    ):
        torch.manual_seed(0)
        net = nn.Sequential(BayesLinear(1, 1), *([nn.Flatten(0)] if flat else []))
        losses.append(fit_bayes(net, x, labels, loss_fn=loss_fn, epochs=20, learning_rate=0.1))
        weights.append(net[0].weight.item())
        assert ((net(x).flatten() > 0) == y).double().mean() > 0.9
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert losses[0] == losses[1]
    assert weights[0] == pytest.approx(weights[2], rel=1e-4)


@pytest.mark.parametrize("shape", [(1,), (3,)])
def test_a_loss_that_one_column_cannot_change_is_refused(shape: tuple[int, ...]) -> None:
    x, y = classes()
    wrapped = lambda outputs, y: F.cross_entropy(outputs, y)  # noqa: E731
    model = BayesLinear(2, shape[0]).double()
    if shape == (3,):
        fit_bayes(model, x, y, loss_fn=wrapped, epochs=1)
        return
    with pytest.raises(ValueError, match="does not depend on the model's one output"):
        fit_bayes(model, x, torch.zeros(60).long(), loss_fn=wrapped, epochs=1)


def test_shares_of_every_class_may_stand_for_one() -> None:
    x, y = classes()
    found = []
    for labels in (y, F.one_hot(y, 3).double()):
        torch.manual_seed(0)
        found.append(fit_bayes(BayesLinear(2, 3).double(), x, labels, epochs=2))
    assert found[0] == pytest.approx(found[1])


def test_a_last_row_joins_the_batch_before_and_any_mode_will_do() -> None:
    x, y = classes(65)
    for mode in (torch.no_grad, torch.enable_grad):
        net = nn.Sequential(BayesLinear(2, 3), nn.BatchNorm1d(3)).double()
        with mode():
            assert len(fit_bayes(net, x, y.int().numpy(), epochs=2, batch_size=64)) == 2
        assert not net.training


def test_frozen_weights_stay_and_the_others_learn() -> None:
    x, y = classes()
    net = nn.Sequential(nn.Linear(2, 2), BayesLinear(2, 3)).double()
    net[0].requires_grad_(False)
    before = [net[0].weight.clone(), net[1].weight.detach().clone()]
    fit_bayes(net, x, y, epochs=1)
    assert torch.equal(net[0].weight, before[0])
    assert not torch.equal(net[1].weight, before[1])


def test_answers_in_a_dict_are_read() -> None:
    x, y = classes()
    net = nn.Sequential(BayesLinear(2, 3)).double()
    net.register_forward_hook(lambda _module, _inputs, output: {"logits": output, "loss": None})
    assert len(fit_bayes(net, x, y, epochs=1)) == 1


def test_bayesian_layers_are_found() -> None:
    assert len(bayesian_layers(nn.Sequential(BayesLinear(1, 1), nn.ReLU()))) == 1


# ---- Laplace -------------------------------------------------------------------------------------


def test_covariance_is_the_inverse_of_autograds_hessian() -> None:
    x, y = classes()
    net = nn.Linear(2, 3).double()

    def objective(flat: Tensor) -> Tensor:
        table = flat.reshape(3, 3)  # class by class: two weights, then the bias
        logits = x @ table[:, :2].T + table[:, 2]
        return F.cross_entropy(logits, y, reduction="sum") + 0.7 * (flat**2).sum() / 2

    flat = torch.cat([net.weight, net.bias[:, None]], dim=1).detach().flatten()
    hessian = torch.autograd.functional.hessian(objective, flat)
    got = laplace_last_layer(net, x, y, prior_precision=0.7).covariance
    torch.testing.assert_close(got, torch.linalg.inv(hessian), rtol=0, atol=1e-10)


def softmax_model(x: Tensor, y: Tensor) -> Any:
    def model() -> None:
        zeros = torch.zeros(9, dtype=torch.float64)
        w = pyro.sample("w", pyro.distributions.Normal(zeros, 1.0).to_event(1)).reshape(3, 3)
        logits = x @ w[:, :2].T + w[:, 2]
        pyro.sample("y", pyro.distributions.Categorical(logits=logits).to_event(1), obs=y)

    return model


def test_the_posterior_equals_pyros_laplace() -> None:
    x, y = classes()
    net = best_weights(x, y)
    flat = torch.cat([net.weight, net.bias[:, None]], dim=1).detach().flatten()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    # Pyro's search starts beside our maximum and has to come back to it.
    start = init_to_value(values={"w": flat + 0.05})
    guide = AutoLaplaceApproximation(softmax_model(x, y), init_loc_fn=start)
    svi = SVI(guide.model, guide, pyro.optim.ClippedAdam({"lr": 0.01, "lrd": 0.985}), Trace_ELBO())
    for _ in range(300):
        svi.step()
    peer = guide.laplace_approximation().get_posterior()
    got = laplace_last_layer(net, x, y).covariance
    torch.testing.assert_close(peer.mean, flat, rtol=0, atol=1e-3)
    torch.testing.assert_close(peer.covariance_matrix, got, rtol=0, atol=1e-3)


def test_the_posterior_is_near_the_true_one() -> None:
    """The true posterior is no normal: draws from a wider one, weighed by what they should be."""
    x, y = classes()
    net = best_weights(x, y)
    fitted = laplace_last_layer(net, x, y)
    flat = torch.cat([net.weight, net.bias[:, None]], dim=1).detach().flatten()
    torch.manual_seed(0)
    wide = MultivariateNormal(flat, 1.5 * fitted.covariance)
    draws = wide.sample((20_000,))
    tables = draws.reshape(-1, 3, 3)
    log_p = torch.einsum("nf,skf->snk", x, tables[:, :, :2]) + tables[:, None, :, 2]
    fit = log_p.log_softmax(-1)[:, torch.arange(60), y].sum(1)
    weights = (fit - (draws**2).sum(1) / 2 - wide.log_prob(draws)).softmax(0)
    mean = weights @ draws
    true = weights @ (draws - mean) ** 2
    assert 1 / (weights**2).sum() > 2000  # as good as so many draws from the posterior itself
    torch.testing.assert_close(fitted.covariance.diagonal(), true, rtol=0.2, atol=0)
    new = torch.tensor([[0.5, 0.5], [4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    logits = torch.einsum("nf,skf->snk", new, tables[:, :, :2]) + tables[:, None, :, 2]
    want = torch.einsum("s,snk->nk", weights, logits.softmax(-1))
    got = fitted.predict(new, n_samples=5000).mean
    torch.testing.assert_close(got, want, rtol=0, atol=0.03)  # a little too unsure at (4, 0)


def test_logits_have_the_covariance_of_their_weights() -> None:
    """The same prediction with whole last layers drawn from the posterior."""
    x, y = classes()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    fitted = laplace_last_layer(net, x, y)
    told = fitted.predict(x[:4], n_samples=20_000)
    phi = F.pad(torch.tanh(net[0](x[:4])), (0, 1), value=1.0)
    flat = torch.cat([net[2].weight, net[2].bias[:, None]], dim=1).detach().flatten()
    torch.manual_seed(1)
    tables = MultivariateNormal(flat, fitted.covariance).sample((20_000,)).reshape(-1, 3, 6)
    probs = torch.einsum("nf,skf->snk", phi.detach(), tables).softmax(-1)
    torch.testing.assert_close(told.mean, probs.mean(0), rtol=0, atol=0.01)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_has_the_hessian_of_the_binary_cross_entropy(bias: bool, flat: bool) -> None:
    x, y = classes()
    y = (y == 0).long()
    torch.manual_seed(0)
    layer = nn.Linear(2, 1, bias=bias).double()
    net = nn.Sequential(layer, *([nn.Flatten(0)] if flat else []))

    def objective(weights: Tensor) -> Tensor:
        z = x @ weights[:2] + (weights[2] if bias else 0)
        loss = F.binary_cross_entropy_with_logits(z, y.double(), reduction="sum")
        return loss + 0.7 * (weights**2).sum() / 2

    weights = torch.cat([each.detach().flatten() for each in layer.parameters()])
    hessian = torch.autograd.functional.hessian(objective, weights)
    fitted = laplace_last_layer(net, x, y, prior_precision=0.7)
    covariance = torch.linalg.inv(hessian)
    torch.testing.assert_close(fitted.covariance, covariance, rtol=0, atol=1e-10)
    told = fitted.predict(x[:5], n_samples=20_000)
    phi = F.pad(x[:5], (0, 1), value=1.0)[:, : len(weights)]
    std = (phi @ covariance * phi).sum(1).sqrt()
    draws = (phi @ weights) + std * torch.randn(20_000, 5, dtype=torch.float64)
    torch.testing.assert_close(told.mean[:, 1], draws.sigmoid().mean(0), rtol=0, atol=0.01)
    torch.testing.assert_close(told.mean.sum(1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_has_nearly_the_same_posterior(dtype: torch.dtype) -> None:
    x, y = classes()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    want = laplace_last_layer(net, x.float(), y.tolist())
    got = laplace_last_layer(net.to(dtype), x.to(dtype), y.numpy())
    torch.testing.assert_close(got.covariance, want.covariance, rtol=0.1, atol=0.05)
    told = got.predict(x[:3].to(dtype))
    assert told.mean.dtype == told.epistemic.dtype == dtype
    torch.testing.assert_close(told.mean.float().sum(1), torch.ones(3), rtol=0, atol=0.02)


def test_all_rows_share_their_draws_and_any_integer_is_a_seed() -> None:
    x, y = classes()
    fitted = laplace_last_layer(nn.Linear(2, 3).double(), x, y)
    together = fitted.predict(x[:4], seed=2)
    alone = fitted.predict(x[3:4], seed=np.int64(2))
    torch.testing.assert_close(together.mean[3:], alone.mean, rtol=0, atol=1e-12)
    with pytest.raises(TypeError, match="seed must be an integer"):
        fitted.predict(x, seed=0.5)


def test_far_away_it_is_unsure_and_the_network_is_not() -> None:
    x, y = classes()
    net = best_weights(x, y)
    far = torch.tensor([[1.0, 0.0], [30.0, 25.0]], dtype=torch.float64)
    told = laplace_last_layer(net, x, y).predict(far, n_samples=500)
    assert net(far).softmax(1)[1].max() > 0.999
    assert told.mean[1].max() < 0.85
    tight = laplace_last_layer(net, x, y, prior_precision=1e9).predict(far)
    torch.testing.assert_close(tight.mean, net(far).softmax(1).detach(), rtol=0, atol=1e-3)


def test_a_layer_without_bias_and_zero_features_has_no_spread() -> None:
    net = nn.Linear(2, 3, bias=False)
    fitted = laplace_last_layer(net, torch.rand(5, 2), torch.tensor([0, 1, 2, 0, 1]))
    told = fitted.predict(torch.zeros(1, 2))
    assert told.mean[0].tolist() == pytest.approx([1 / 3] * 3)
    assert told.epistemic.item() < 1e-12


class Softmaxed(nn.Module):
    """Its linear layer is not the last thing that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).softmax(1)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": nn.Flatten()}, ValueError, "no nn.Linear"),
        ({"model": Softmaxed()}, ValueError, "not that of 'fc'"),
        ({"model": nn.Linear(2, 1).double()}, ValueError, r"0\.\.1.*holds the class 2"),
        ({"y": torch.eye(60, 3)}, ValueError, "one-hot"),
        ({"model": lambda x: x}, TypeError, "function"),
        ({"layer": "fc"}, ValueError, "no layer 'fc'"),
        ({"layer": "1"}, ValueError, "Tanh"),
        ({"layer": "0"}, ValueError, "not that of '0'"),
        ({"y": torch.full((60,), 3)}, ValueError, r"0\.\.2"),
        ({"y": torch.zeros(4, dtype=torch.int64)}, ValueError, r"\(60,\)"),
        ({"prior_precision": 0.0}, ValueError, "prior_precision"),
    ],
)
def test_bad_laplace(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    x, y = classes()
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    arguments = {"model": net, "x": x, "y": y, **changes}
    with pytest.raises(error, match=words):
        laplace_last_layer(
            arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments
        )


def test_a_layer_too_large_for_a_full_covariance() -> None:
    with pytest.raises(ValueError, match="6006 weights, at most 5000"):
        laplace_last_layer(nn.Linear(2001, 3), torch.rand(2, 2001), torch.tensor([0, 1]))
