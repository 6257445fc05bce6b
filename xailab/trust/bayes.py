"""Weights that are distributions: learnt with the network, or put around it afterwards.

Lesson `uncertainty` teaches this file, and the layers of `xailab.models.bayesian`. Bayes by
backprop learns a mean and a standard deviation for every weight. Laplace takes a trained network as
it is, and asks of its last layer how sharply the training rows determine it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from xailab.core.batching import batched
from xailab.core.checks import as_integer, check_input, check_positive
from xailab.core.company import check_company
from xailab.core.layers import find_layer
from xailab.core.outputs import class_logits, labels_of, logits_of, probabilities_of
from xailab.core.scores import gradients_of, gradients_on, outputs_of
from xailab.core.state import frozen
from xailab.models.bayesian import BayesianLayer
from xailab.models.loop import DivergedError, adam, check_rows, train
from xailab.trust.probabilities import Prediction, check_outputs, entropy_split

Loss = Callable[[Tensor, Tensor], Tensor]

_TRIED = 64  # rows on which it is tried whether a loss depends on the outputs
_MOST = 5000  # weights of a last layer whose full covariance is inverted: 200 MB


# ---- Bayes by backprop ---------------------------------------------------------------------------


def kl_from_prior(model: nn.Module) -> Tensor:
    r"""How far the weights' distributions have moved from the prior: what has been learnt.

    $$\operatorname{KL} = \sum_w \log\frac{s}{\sigma_w} + \frac{\sigma_w^2 + \mu_w^2}{2 s^2}
      - \frac12$$

    Args:
        model: a network with Bayesian layers.

    Returns:
        One number in nats, with its graph.

    Raises:
        ValueError: no Bayesian layer.

    Reference: Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), Weight Uncertainty in Neural
        Networks (there estimated from draws; for normal priors it has this closed form).
    Elsewhere: `torch.distributions.kl_divergence`.

    >>> from xailab.models.bayesian import BayesLinear
    >>> layer = BayesLinear(1, 1, bias=False, prior_std=1.0, initial_std=1.0)
    >>> _ = layer.weight.data.fill_(2.0)
    >>> round(kl_from_prior(layer).item(), 4)  # 0 + (1 + 4) / 2 - 1 / 2
    2.0
    """
    parts = [
        kl_divergence(one, Normal(torch.zeros_like(one.mean), layer.prior_std)).sum()
        for layer in bayesian_layers(model)
        for one in layer.posterior().values()
    ]
    return torch.stack(parts).sum()


def fit_bayes(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss_fn: Loss = F.cross_entropy,
    epochs: int,
    learning_rate: float = 5e-3,
    batch_size: int = 64,
    kl_weight: float = 1.0,
    seed: int = 0,
) -> list[float]:
    r"""Train a network with Bayesian layers: fit the rows, and stay near the prior (ELBO).

    $$\min_{\mu, \rho}\; \frac1N \sum_i \mathbb E_w\big[-\log p(y_i \mid x_i, w)\big] +
      \frac{\lambda}{N} \operatorname{KL}\big(q_{\mu,\rho} \,\|\, p\big)$$

    One draw of the weights a step estimates the expectation.

    Args:
        model: (N, ...) -> outputs; its parameters change, and it ends in evaluation mode.
        x: (N, ...) inputs.
        y: (N, ...) what the loss compares with: for a cross-entropy (N,) class numbers in any
            container, 0 and 1 for a model with one logit; for another loss a tensor.
        loss_fn: loss_fn(outputs, y), a mean over rows of $-\log p$ in nats; for a regression
            with noise variance v, half the squared error divided by v. torch's own cross-entropy
            is given one logit z as the columns (0, z).
        epochs: how often every row is visited.
        learning_rate: Adam's step size.
        batch_size: rows a step; a last one of a single row joins the step before.
        kl_weight: $\lambda$. 1 is Bayes' rule; a smaller one is a "cold" posterior, narrower than
            the data warrant. Say so where you use it.
        seed: of the draws and the order of rows; torch's own random state stays.

    Returns:
        The mean objective of every epoch, in nats a row.

    Raises:
        TypeError: `epochs`, `batch_size` or `seed` not integers; weights in half precision; x or y
            of a kind that cannot be used.
        ValueError: no Bayesian layer, no rows, lengths that differ, NaN in x or y, a class that
            the model does not have, a negative `kl_weight`, no weight that is free to change, a
            loss that does not depend on the model's one output.
        FloatingPointError: the objective or the weights are no finite numbers any more.

    Reference: Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), Weight Uncertainty in Neural
        Networks; Graves (2011), Practical Variational Inference for Neural Networks.
    Elsewhere: Pyro `SVI(model, AutoNormal(model), Adam(...), Trace_ELBO())`.

    >>> from xailab.models.bayesian import BayesLinear
    >>> net = BayesLinear(1, 2)
    >>> steps = fit_bayes(net, torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), epochs=3)
    >>> len(steps), net.training
    (3, False)
    """
    bayesian_layers(model)
    if isinstance(kl_weight, bool) or not 0 <= kl_weight < inf:
        raise ValueError(f"kl_weight must not be negative, got {kl_weight}")
    x, y = _checked(model, x, y, loss_fn)
    of_classes = _is_cross_entropy(loss_fn)

    def objective(rows: Tensor) -> Tensor:
        _refuse_lost_weights(model)
        outputs = logits_of(model(x[rows]))
        fit = loss_fn(class_logits(outputs) if of_classes else outputs, y[rows])
        return fit + kl_weight / len(x) * kl_from_prior(model)

    optimizer = adam(model, learning_rate)
    return train(
        model,
        len(x),
        objective,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )


def _refuse_lost_weights(model: nn.Module) -> None:
    """Refuse weights that no normal distribution has: before torch does, in other words."""
    fine = all(torch.isfinite(weight).all() for weight in model.parameters())
    rhos = [p for name, p in model.named_parameters() if name.endswith("_rho")]
    if not fine or not all((F.softplus(rho) > 0).all() for rho in rhos):
        raise DivergedError("weights became NaN or lost their spread: lower learning_rate")


def _is_cross_entropy(loss_fn: Loss) -> bool:
    return loss_fn is F.cross_entropy or isinstance(loss_fn, nn.CrossEntropyLoss)


def _checked(model: nn.Module, x: Tensor, y: Any, loss_fn: Loss) -> tuple[Tensor, Tensor]:
    """Return rows and what they are compared with, once the loss can be taken of them."""
    if len(x) != len(y):
        raise ValueError(f"expected one y for every row of x, got {len(x)} rows and {len(y)}")
    shares = isinstance(y, Tensor) and y.ndim == 2 and y.is_floating_point()  # of every class
    if _is_cross_entropy(loss_fn) and not shares:
        return check_rows(model, x, y, name="fit_bayes")
    if not isinstance(y, Tensor):
        raise TypeError(f"y must be a torch.Tensor for this loss_fn, got {type(y).__name__}")
    if y.is_floating_point() and not torch.isfinite(y).all():
        raise ValueError(
            f"y holds {int((~torch.isfinite(y)).sum())} values that are NaN or infinite"
        )
    with gradients_on():
        x, y = check_input(model, x).detach().clone(), y.detach().clone()
        with frozen(model), torch.no_grad():
            outputs = logits_of(model(x[:_TRIED]))
        one = outputs.detach().requires_grad_()
        if (
            one.shape[1:] in ((), (1,))
            and not gradients_of(loss_fn(one, y[:_TRIED]), one, name="the model's output").any()
        ):
            raise ValueError(
                "loss_fn does not depend on the model's one output: a cross-entropy of one column "
                "is always 0; use two columns, F.cross_entropy itself, or "
                "F.binary_cross_entropy_with_logits"
            )
    return x, y


def bayesian_layers(model: Any) -> list[BayesianLayer]:
    """Return the layers whose weights are distributions.

    Raises:
        TypeError: no `nn.Module`.
        ValueError: there is no such layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    layers = [module for module in model.modules() if isinstance(module, BayesianLayer)]
    if not layers:
        raise ValueError("the model has no Bayesian layer: use BayesLinear or BayesConv2d")
    return layers


@contextmanager
def drawn(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let a model be one draw from its weights' distributions, in evaluation mode.

    The means are exchanged for the draw and put back on leaving, so that methods which read a
    layer's weights see the draw too.
    """
    layers = bayesian_layers(model)
    means = [(layer, name, getattr(layer, name)) for layer in layers for name in layer.posterior()]
    draws = []
    with torch.no_grad():
        for layer, name, mean in means:
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
            draws.append(mean + layer.posterior()[name].stddev * noise.to(mean.device))
    try:
        for (layer, name, _), draw in zip(means, draws, strict=True):
            layer._parameters[name] = nn.Parameter(draw, requires_grad=False)
        yield
    finally:
        for layer, name, mean in means:
            layer._parameters[name] = mean


# ---- Laplace -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LastLayerLaplace:
    """A trained classifier with a normal distribution around its last layer's weights.

    Attributes:
        model: the network as it was given; its weights are the mean.
        layer: name of its last layer.
        covariance: (P, P) float64, P = K (F + 1): class by class the F weights, then the bias
            (without a bias P = K F). A binary network's one logit counts as K = 1 here.
    """

    model: nn.Module
    layer: str
    covariance: Tensor

    def predict(
        self, x: Tensor, *, n_samples: int = 100, seed: int = 0, batch_size: int | None = None
    ) -> Prediction:
        r"""Average the softmax over draws of the logits, which are normal for every row.

        $$z \mid x \sim \mathcal N\big(f(x),\; J \Sigma J^\top\big), \qquad
          J = I_K \otimes (\varphi(x), 1)$$

        Args:
            x: (N, ...) inputs.
            n_samples: draws; all rows share their noise, so a row's answer does not depend on
                its neighbors.
            seed: of the draws.
            batch_size: rows evaluated at once; None measures.

        Returns:
            A `Prediction` with mean (N, K), in the dtype of `x`; uncertainties in nats. Of one
            logit (0 against the normal z) mean has two columns.

        Raises:
            TypeError, ValueError: as `saliency` for x; `n_samples` no integer of at least 1.
        """
        logits, phi = _last(self.model, check_input(self.model, x), self.layer, batch_size)
        roots = _roots(_logit_covariance(self.covariance, phi, logits.shape[1]))
        generator = torch.Generator().manual_seed(as_integer("seed", seed))
        shape = (check_positive("n_samples", n_samples), 1, logits.shape[1])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(logits.device)
        draws = logits + torch.einsum("nij,smj->sni", roots, noise)
        return entropy_split(torch.stack([probabilities_of(one) for one in draws])).to(x.dtype)


def laplace_last_layer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    prior_precision: float = 1.0,
    layer: str | None = None,
    batch_size: int | None = None,
) -> LastLayerLaplace:
    r"""Put a normal distribution around the last layer of a trained classifier.

    $$\Sigma = \Big(\sum_i \big(\operatorname{diag} p_i - p_i p_i^\top\big) \otimes
      \varphi_i \varphi_i^\top + \lambda I\Big)^{-1}$$

    The bracket is the curvature of the loss at the trained weights: where training rows bend it
    sharply, the weights are known well. $\varphi$ are the inputs of the last layer with a 1 for the
    bias; everything below it stays as it is, and counts as certain. It is exact curvature, not an
    approximation of it, but a normal distribution is only as good as the trained weights are a
    maximum of the posterior. For a binary network's one logit p (1 - p) stands in the bracket.

    Args:
        model: maps (N, ...) to logits (N, K), or to one logit, its last layer an `nn.Linear`.
        x: (N, ...) the training rows.
        y: (N,) their classes. Only their range is looked at: the curvature of the cross-entropy
            does not depend on which class came.
        prior_precision: $\lambda$, 1 / variance of the prior of each weight, above 0. For a
            network trained with weight decay w (on a mean loss) it is N w.
        layer: name of the last layer; None: the last `nn.Linear` in the list of modules.
        batch_size: rows evaluated at once; None measures.

    Returns:
        A `LastLayerLaplace`, whose `predict` gives a `Prediction`.

    Raises:
        TypeError: as `saliency` for x; labels that are no class numbers; no `nn.Module`.
        ValueError: as `saliency` for x; labels that do not fit; a layer that does not exist, is
            not linear or not the last; a precision not above 0; too many weights.

    Reference: MacKay (1992), A Practical Bayesian Framework for Backpropagation Networks;
        Kristiadi, Hein, Hennig (2020), Being Bayesian, Even Just a Bit, Fixes Overconfidence in
        ReLU Networks; Daxberger et al. (2021), Laplace Redux - Effortless Bayesian Deep Learning.
    Elsewhere: laplace-torch `Laplace(model, "classification", subset_of_weights="last_layer",
        hessian_structure="full")`; Pyro `AutoLaplaceApproximation`.

    >>> net = nn.Linear(1, 2, bias=False)
    >>> _ = net.weight.data.fill_(0.0)  # p = 1/2, 1/2
    >>> laplace_last_layer(net, torch.tensor([[2.0]]), torch.tensor([0])).covariance
    tensor([[0.6667, 0.3333],
            [0.3333, 0.6667]], dtype=torch.float64)
    """
    x = check_input(model, x)
    if not prior_precision > 0:
        raise ValueError(f"prior_precision must be above 0, got {prior_precision}")
    name = _linear_name(model, layer)
    logits, phi = _last(model, x, name, batch_size)
    p = probabilities_of(logits)
    labels_of(y, *p.shape)
    size = logits.shape[1] * phi.shape[1]
    if size > _MOST:
        raise ValueError(f"layer {name!r} has {size} weights, at most {_MOST} can be treated")
    p = p[:, -logits.shape[1] :]  # of one logit only class 1 has weights
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # (N, K, K)
    blocks = [
        torch.cat([(phi * weight[:, None]).T @ phi for weight in row.T], dim=1)
        for row in curvature.unbind(1)
    ]
    precision = torch.cat(blocks) + prior_precision * torch.eye(size).to(phi)
    return LastLayerLaplace(model, name, torch.cholesky_inverse(torch.linalg.cholesky(precision)))


def _linear_name(model: Any, layer: str | None) -> str:
    """Return the name of a linear layer: the one asked for, or the last."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if layer is None:
        names = [name for name, one in model.named_modules() if isinstance(one, nn.Linear)]
        if not names:
            raise ValueError("the model has no nn.Linear, and its last layer must be one")
        return names[-1]
    module = model if layer == "" else find_layer(model, layer)
    if not isinstance(module, nn.Linear):
        raise ValueError(f"layer {layer!r} is {type(module).__name__}, it must be nn.Linear")
    return layer


def _last(model: nn.Module, x: Tensor, name: str, batch_size: int | None) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and the last layer's inputs (N, F + 1) with the bias's 1, in float64."""
    linear: Any = model.get_submodule(name)
    kept: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].clone()))

    def both(rows: Tensor) -> Tensor:
        kept.clear()
        logits = check_outputs(outputs_of(model, rows))
        if not kept or kept[-1].ndim != 2:
            raise ValueError(f"layer {name!r} did not get one row (N, F) for each row of x")
        return torch.cat([logits.reshape(len(rows), -1), kept[-1]], dim=1)

    try:
        with frozen(model), torch.no_grad():
            joined = batched(both, x.detach(), batch_size=batch_size, owner=model)
            phi = joined[:, -linear.in_features :]
            logits = joined[:, : -linear.in_features]
            again = linear(phi)
            check_company(model, x)
    finally:
        handle.remove()
    rough = max(1e-3, 4 * torch.finfo(x.dtype).eps)
    if again.shape != logits.shape or not torch.allclose(
        again, logits, rtol=rough, atol=rough / 10
    ):
        raise ValueError(f"the model's output is not that of {name!r}: name its last layer")
    ones = [torch.ones_like(phi[:, :1])] if linear.bias is not None else []
    return logits.double(), torch.cat([phi, *ones], dim=1).double()


def _logit_covariance(covariance: Tensor, phi: Tensor, k: int) -> Tensor:
    r"""Return $J \Sigma J^\top$ for every row, (N, K, K)."""
    blocks = covariance.reshape(k, phi.shape[1], k, phi.shape[1])
    rows = [
        torch.stack([((phi @ blocks[i, :, j]) * phi).sum(1) for j in range(k)], dim=1)
        for i in range(k)
    ]
    return torch.stack(rows, dim=1)


def _roots(matrices: Tensor) -> Tensor:
    """Return symmetric square roots: there is one only, so a row's does not depend on others."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
