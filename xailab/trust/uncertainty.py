"""How sure is the network, and of what: asking many networks in place of one.

Lesson `uncertainty` teaches this file. Where networks that explain the training rows equally well
disagree, the data have not settled the answer. Dropout, an ensemble and Bayesian layers are three
ways to such networks; the same question can be put to a saliency map. What the answers'
probabilities are worth is in `calibration`, how they are split in `probabilities`, the Bayesian
layers in `bayes`; all their names can be had from here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from xailab.core.batching import batched
from xailab.core.checks import Model, Target, as_integer, check_input, check_positive
from xailab.core.company import check_company, trial
from xailab.core.outputs import probabilities_of
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.models.bayesian import BayesConv2d, BayesLinear
from xailab.trust.bayes import (
    LastLayerLaplace,
    bayesian_layers,
    drawn,
    fit_bayes,
    kl_from_prior,
    laplace_last_layer,
)
from xailab.trust.calibration import (
    ConformalSets,
    conformal_sets,
    coverage_table,
    expected_calibration_error,
    fit_temperature,
    reliability_table,
)
from xailab.trust.probabilities import (
    Prediction,
    Ranking,
    RiskCoverage,
    check_outputs,
    entropy_split,
    ood_auroc,
    rank_classes,
    risk_coverage,
    sum_tolerance,
    variance_split,
)

__all__ = [
    "BayesConv2d",
    "BayesLinear",
    "ConformalSets",
    "ExplanationSpread",
    "LastLayerLaplace",
    "Prediction",
    "Ranking",
    "RiskCoverage",
    "conformal_sets",
    "coverage_table",
    "ensemble",
    "entropy_split",
    "expected_calibration_error",
    "explanation_uncertainty",
    "fit_bayes",
    "fit_temperature",
    "kl_from_prior",
    "laplace_last_layer",
    "mc_dropout",
    "mc_weights",
    "ood_auroc",
    "rank_classes",
    "reliability_table",
    "risk_coverage",
    "variance_split",
]

Task = Literal["classification", "regression"]
Member = Callable[[nn.Module, torch.Generator], AbstractContextManager[None]]


def mc_dropout(
    model: nn.Module,
    x: Tensor,
    *,
    n_samples: int = 30,
    seed: int = 0,
    task: Task = "classification",
    batch_size: int | None = None,
) -> Prediction:
    r"""Ask a network with dropout many times, with other units dropped each time.

    $$\bar p(y \mid x) = \frac1S \sum_{s=1}^S p(y \mid x, w \odot m_s), \qquad
      m_s \sim \text{dropout}$$

    Only the dropout layers are switched on; batch norm keeps its stored statistics. A sample
    drops the same units for all rows: it is one thinned network, so a row's answer does not
    depend on its neighbors, and a surface drawn over inputs has no grain. (`model.train()` drops
    other units in every row; the distribution of a row's answers is the same.)

    Args:
        model: maps (N, ...) to logits (N, K), without softmax, or to one logit, (N, 1) or (N,),
            of a binary network, whose `mean` has two columns; for a regression to (N, 2), mean and
            logarithm of the noise variance. Dropout must be a module that runs: what functions
            such as `F.dropout` or attention layers drop inside stays off.
        x: (N, ...) floats.
        n_samples: S.
        seed: of what is dropped; the global random state stays as it is.
        task: what the outputs mean.
        batch_size: rows evaluated at once; None measures.

    Returns:
        A `Prediction`, in the dtype of `x`: uncertainties in nats, or in squared units of y.

    Raises:
        TypeError: as `saliency` for x; `n_samples` not an integer; no `nn.Module`.
        ValueError: as `saliency` for x; a model without dropout, whose samples would all agree, or
            whose dropout layers do not run; outputs that do not fit the task; rows that influence
            each other, as where a dropout layer gets (T, N, D), another axis first.

    Reference: Gal, Ghahramani (2016), Dropout as a Bayesian Approximation: Representing Model
        Uncertainty in Deep Learning.
    Elsewhere: `model.train()` and a loop, which lets batch norm learn from the test rows.

    >>> net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
    >>> told = mc_dropout(net, torch.ones(1, 4), n_samples=10)
    >>> told.mean.shape, bool(told.epistemic > 0)
    (torch.Size([1, 2]), True)
    """
    dropout_layers(model)
    return _sampled(thinned, model, x, n_samples, seed, task, batch_size)


def mc_weights(
    model: nn.Module,
    x: Tensor,
    *,
    n_samples: int = 30,
    seed: int = 0,
    task: Task = "classification",
    batch_size: int | None = None,
) -> Prediction:
    r"""Ask a network with Bayesian layers many times, with weights drawn anew each time.

    $$\bar p(y \mid x) = \frac1S \sum_{s=1}^S p(y \mid x, w_s), \qquad
      w_s \sim \mathcal N(\mu, \sigma^2)$$

    Args:
        model: as for `mc_dropout`, with `BayesLinear` or `BayesConv2d` layers. Dropout stays off.
        x: (N, ...) floats.
        n_samples: S; all rows share each draw.
        seed: of the draws; the global random state stays as it is.
        task: what the outputs mean.
        batch_size: rows evaluated at once; None measures.

    Returns:
        A `Prediction`, in the dtype of `x`: uncertainties in nats, or in squared units of y.

    Raises:
        TypeError: as `mc_dropout`.
        ValueError: as `saliency` for x; no Bayesian layer; outputs that do not fit the task.

    Reference: Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), Weight Uncertainty in Neural
        Networks.
    Elsewhere: Pyro `Predictive(model, guide=guide, num_samples=...)`.

    >>> told = mc_weights(BayesLinear(4, 2, initial_std=1.0), torch.ones(1, 4), n_samples=10)
    >>> told.mean.shape, bool(told.epistemic > 0)
    (torch.Size([1, 2]), True)
    """
    bayesian_layers(model)
    return _sampled(drawn, model, x, n_samples, seed, task, batch_size)


def ensemble(
    models: Sequence[Model],
    x: Tensor,
    *,
    task: Task = "classification",
    batch_size: int | None = None,
) -> Prediction:
    r"""Average networks that were trained alike from different beginnings (deep ensemble).

    $$\bar p(y \mid x) = \frac1S \sum_{s=1}^S p(y \mid x, w_s)$$

    Probabilities are averaged, not logits.

    Args:
        models: at least two, each as for `mc_dropout` (dropout is not needed, and is off).
        x: (N, ...) floats.
        task: what the outputs mean.
        batch_size: rows evaluated at once; None measures.

    Returns:
        A `Prediction`, in the dtype of `x`: uncertainties in nats, or in squared units of y.

    Raises:
        TypeError: as `saliency` for x; `models` is no list.
        ValueError: as `saliency` for x; fewer than two models, or models that do not agree on the
            number of outputs; outputs that do not fit the task.

    Reference: Lakshminarayanan, Pritzel, Blundell (2017), Simple and Scalable Predictive
        Uncertainty Estimation using Deep Ensembles.
    Elsewhere: torch-uncertainty `deep_ensembles`.

    >>> nets = [nn.Linear(1, 2, bias=False) for _ in range(2)]
    >>> for net, w in zip(nets, (9.0, -9.0)):
    ...     _ = net.weight.data.copy_(torch.tensor([[w], [-w]]))
    >>> told = ensemble(nets, torch.tensor([[1.0]]))
    >>> told.mean.tolist(), round(told.epistemic.item(), 3)
    ([[0.5, 0.5]], 0.693)
    """
    outputs = []
    for model in _several(models):
        rows = check_input(model, x).detach()
        with frozen(model):
            outputs.append(_outputs(model, rows, batch_size))
            check_company(model, rows)  # last: the model's own errors come first
    return _prediction(outputs, task)


class ExplanationSpread(NamedTuple):
    """What several networks give as the explanation of one answer.

    Attributes:
        mean: the shape of the maps, in their units.
        std: the same, how far a network's map is from the mean (root mean square).
    """

    mean: Tensor
    std: Tensor


def explanation_uncertainty(
    model: nn.Module | Sequence[nn.Module],
    x: Tensor,
    target: Target,
    *,
    explain: Callable[[Any, Tensor, Target], Tensor],
    n_samples: int = 20,
    seed: int = 0,
) -> ExplanationSpread:
    r"""Explain one answer by many networks: where their maps differ, trust no single one.

    $$\bar E = \frac1S \sum_s E(w_s, x, t), \qquad
      \operatorname{std} = \sqrt{\tfrac1S \textstyle\sum_s (E(w_s, x, t) - \bar E)^2}$$

    A pixel whose mean is small beside its std has no sign that the data have settled. This is
    the uncertainty that comes from the weights; noise of the method itself (few samples, few
    steps) adds to it unless `explain` keeps its seed.

    Args:
        model: a network with dropout or Bayesian layers, or a list of at least two networks. A
            member is held still while it is explained: methods that evaluate it many times always
            meet the same weights.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        explain: explain(model, x, target) -> maps (N, ...), such as `saliency`, or
            `functools.partial(grad_cam, layer="relu3")`.
        n_samples: S; a list is used as it is, each network once.
        seed: of the members; a list needs none.

    Returns:
        An `ExplanationSpread`, in the dtype of the maps.

    Raises:
        TypeError: as `saliency` for x; `explain` does not return a tensor of floats.
        ValueError: as `saliency` for x; a network that has neither kind of layer, fewer than two
            members, maps that are not one a row, or NaN in them.

    Reference: Bykov et al. (2020), How Much Can I Trust You? - Quantifying Uncertainties in
        Explaining Neural Networks.
    Elsewhere: captum `NoiseTunnel(nt_type="vargrad")` has the spread over noise in x instead.

    >>> slope = lambda model, x, target: torch.full_like(x, model.weight.item())
    >>> nets = [nn.Linear(1, 1) for _ in range(2)]
    >>> for net, w in zip(nets, (1.0, 3.0)):
    ...     _ = net.weight.data.fill_(w)
    >>> told = explanation_uncertainty(nets, torch.tensor([[5.0]]), None, explain=slope)
    >>> told.mean.item(), told.std.item()
    (2.0, 1.0)
    """
    if not isinstance(model, nn.Module):
        maps = [_map(explain, one, x, target) for one in _several(model)]
    else:
        if check_positive("n_samples", n_samples) < 2:
            raise ValueError("one sample has no spread: n_samples must be at least 2")
        question = partial(_map, explain, model, x, target)
        maps = _ask(varied, model, check_input(model, x).detach(), question, n_samples, seed)
    stacked = torch.stack(maps).double()
    mean, std = stacked.mean(0), stacked.std(0, correction=0)
    return ExplanationSpread(mean.to(maps[0].dtype), std.to(maps[0].dtype))


# ---- members -------------------------------------------------------------------------------------


def dropout_layers(model: Any) -> list[_DropoutNd]:
    """Return the layers that drop something.

    Raises:
        TypeError: no `nn.Module`.
        ValueError: there is no such layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    layers = [one for one in model.modules() if isinstance(one, _DropoutNd) and one.p > 0]
    if not layers:
        raise ValueError(
            "the model has no dropout layer (nn.Dropout with p > 0), so all samples would be equal"
        )
    return layers


@contextmanager
def thinned(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let a model in evaluation mode be one draw of its dropout, the same for all rows.

    What a layer drops is decided when it first runs, and then kept, also in later passes. A layer
    that runs twice in one pass drops twice.
    """
    layers = dropout_layers(model)
    kept: dict[Any, tuple[Tensor, Tensor]] = {}
    calls = 0

    def begin(*_: Any) -> None:
        nonlocal calls
        calls = 0

    def thin(layer: Any, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        nonlocal calls
        key, calls = (calls, inputs[0].shape[1:], inputs[0].dtype), calls + 1
        if key not in kept:
            kept[key] = _drop(layer, inputs[0][:1], generator)
        scale, shift = kept[key]
        return inputs[0] * scale + shift

    handles = [model.register_forward_pre_hook(begin)]
    try:
        handles += [layer.register_forward_hook(thin) for layer in layers]
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not kept:
        raise ValueError("none of the model's dropout layers ran: it does not use them")


def _drop(layer: Any, row: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw what a layer drops, as scale and shift: once drawn, any kind of dropout is x a + b."""
    seed = int(torch.randint(2**62, (), generator=generator))
    ends = []
    layer.training = True
    try:
        with torch.inference_mode(False), torch.no_grad():
            for value in (0.0, 1.0):
                # Inside `frozen`, which puts the global state back; torch.manual_seed takes 5 ms.
                torch.default_generator.manual_seed(seed)
                ends.append(layer.forward(torch.full_like(row, value, device="cpu")))
            return (ends[1] - ends[0]).to(row.device), ends[0].to(row.device)
    finally:
        layer.training = False


@contextmanager
def varied(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let a model be one draw of all that is random in it: dropout, Bayesian weights, or both."""
    with ExitStack() as stack:
        kinds: list[Member] = []
        known: list[tuple[Member, Callable[[Any], Any]]] = [
            (thinned, dropout_layers),
            (drawn, bayesian_layers),
        ]
        for kind, layers_of in known:
            try:
                layers_of(model)
            except ValueError:
                continue
            kinds.append(kind)
        if not kinds:
            raise ValueError(
                "the model has neither dropout nor Bayesian layers: give a list of networks"
            )
        for kind in kinds:
            stack.enter_context(kind(model, generator))
        yield


def _ask(
    member: Member,
    model: nn.Module,
    x: Tensor,
    question: Callable[[], Tensor],
    n_samples: int,
    seed: int,
) -> list[Tensor]:
    """Put one question about rows to members of a model that are drawn one after the other."""
    generator = torch.Generator().manual_seed(as_integer("seed", seed))
    answers: list[Tensor] = []
    with frozen(model):
        for _ in range(check_positive("n_samples", n_samples)):
            with member(model, generator):
                answers.append(question())
                if len(answers) == 1:
                    _refuse_company(model, x)
    return answers


def _sampled(
    member: Member,
    model: nn.Module,
    x: Tensor,
    n_samples: int,
    seed: int,
    task: Task,
    batch_size: int | None,
) -> Prediction:
    rows = check_input(model, x).detach()
    question = partial(_outputs, model, rows, batch_size)
    return _prediction(_ask(member, model, rows, question, n_samples, seed), task)


def _refuse_company(model: nn.Module, rows: Tensor) -> None:
    """Refuse where a row's answer by one member depends on the rows beside it.

    So it is where a dropout layer gets its rows in another axis than the first: they share no mask.
    """
    if len(rows) < 2:
        return
    with trial():
        beside, alone = outputs_of(model, rows[-2:])[1].double(), outputs_of(model, rows[-1:])[0]
    rough = max(1e-3, 8 * torch.finfo(alone.dtype).eps)  # chunks of another size round differently
    gap = (beside - alone.double()).abs().max()
    if gap > rough * alone.double().abs().max().clamp(min=1):
        raise ValueError(
            "rows influence each other: alone the last row gets another answer than in a batch. "
            "Does a dropout layer get (T, N, D), another axis before the batch? Build it with "
            "batch_first=True. Does a batch norm keep no statistics?"
        )


def _several(models: Any) -> Sequence[Any]:
    if not isinstance(models, (list, tuple)):
        raise TypeError(f"models must be a list of models, got {type(models).__name__}")
    if len(models) < 2:
        raise ValueError(f"an ensemble needs at least two models, got {len(models)}")
    return models


def _outputs(model: Model, x: Tensor, batch_size: int | None) -> Tensor:
    with torch.no_grad():
        return batched(
            lambda rows: check_outputs(outputs_of(model, rows)),
            x,
            batch_size=batch_size,
            owner=model,
            progress=False,
        )


def _map(explain: Any, model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Return one network's maps, checked."""
    rows = check_input(model, x)
    with frozen(model):
        found = explain(model, rows, target)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        got = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"explain must return a Tensor of floats, it returned {got}")
    if found.ndim < 2 or len(found) != len(rows):
        raise ValueError(
            f"explain must return one map for each row of x {tuple(rows.shape)}, it returned "
            f"{tuple(found.shape)}"
        )
    if not torch.isfinite(found).all():
        raise ValueError("explain returned NaN or infinity")
    return found.detach()


def _prediction(outputs: Sequence[Tensor], task: Task) -> Prediction:
    """Read the members' outputs as the task says, and split their uncertainty."""
    shapes = sorted({tuple(one.shape) for one in outputs})
    if len(shapes) > 1:
        raise ValueError(f"the models' outputs have different shapes: {shapes}")
    stacked, shape = torch.stack(list(outputs)), shapes[0]
    dtype = stacked.dtype
    if task == "regression":
        if shape[1:] != (2,):
            raise ValueError(f"a regression needs outputs (N, 2): mean, log variance; got {shape}")
        fine = stacked.double()
        return variance_split(fine[..., 0], fine[..., 1].exp()).to(dtype)
    if task != "classification":
        raise ValueError(f"task must be 'classification' or 'regression', got {task!r}")
    if shape[1:] not in ((), (1,)) and _like_probabilities(stacked):
        raise ValueError("the outputs sum to 1 like probabilities: give the model without softmax")
    return entropy_split(torch.stack([probabilities_of(one) for one in stacked])).to(dtype)


def _like_probabilities(outputs: Tensor) -> bool:
    fine = outputs.double()
    off = (fine.sum(-1) - 1).abs().max().item()
    return bool((fine >= 0).all()) and off <= sum_tolerance(outputs.dtype, outputs.shape[-1])
