"""Methods smoothed over noisy copies: by hand, by loops, beside captum, and wherever methods go."""

import captum.attr
import pytest
import torch
from torch import Tensor, nn

import xailab
from tests.snapshots import Snapshot
from tests.toys import inputs, linear, toy
from xailab.attribution.cam import grad_cam
from xailab.attribution.occlusion import feature_ablation, occlusion
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.relevance import lrp
from xailab.attribution.saliency import saliency, smoothgrad
from xailab.attribution.smooth import Smoothed, smooth
from xailab.evaluate.scoreboard import KnownAnswer
from xailab.evaluate.scoreboard import _maps as scored_maps

TARGETS = torch.tensor([2, 0, 3])


def noises(x: Tensor, n: int, seed: int) -> Tensor:
    """The draws that the docstring names, (n, ...)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, *x.shape[1:]), generator=generator, dtype=x.dtype)


def by_loops(method, model: nn.Module, x: Tensor, targets, noise: float, n: int, **options):
    """Every row, every copy alone."""
    means, spreads = [], []
    for row, target in zip(x, targets.tolist(), strict=True):
        sigma = noise * (row.max() - row.min())
        maps = [
            method(model, (row + sigma * one)[None], target, **options)[0]
            for one in noises(x, n, 5)
        ]
        means.append(sum(maps) / n)
        spreads.append((sum((one - means[-1]) ** 2 for one in maps) / n).sqrt())
    return torch.stack(means), torch.stack(spreads)


def test_by_hand() -> None:
    """The slope of x^2 at x + e is 2 x + 2 e: the spread is 2 sigma times that of the draws."""
    x = torch.tensor([[0.0, 4.0]], dtype=torch.float64)
    found = smooth(saliency, noise=0.5, n_samples=6, seed=1).spread(
        lambda rows: (rows**2).sum(1), x, None
    )
    draws = noises(x, 6, 1)
    assert isinstance(found, Smoothed)
    torch.testing.assert_close(found.mean[0], 2 * x[0] + 2 * 2.0 * draws.mean(0))
    torch.testing.assert_close(found.spread[0], 2 * 2.0 * draws.std(0, correction=0))


def test_smooth_saliency_is_smoothgrad() -> None:
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    for seed in (0, 7):
        want = smoothgrad(model, x, TARGETS, noise=0.2, n_samples=4, seed=seed)
        got = smooth("saliency", noise=0.2, n_samples=4, seed=seed)(model, x, TARGETS)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (grad_cam, {"layer": "relu2"}),
        (integrated_gradients, {"n_steps": 4, "batch_size": 3}),
        (occlusion, {"window": 4, "stride": 4}),
        (saliency, {"layer": "conv2"}),
        (lrp, {}),
    ],
    ids=["grad_cam", "integrated_gradients", "occlusion", "saliency at a layer", "lrp"],
)
def test_any_method_by_loops(method, options) -> None:
    x = inputs(dtype=torch.float64)
    model = chain() if method is lrp else toy(torch.float64)
    smoothed = smooth(method, noise=0.3, n_samples=3, seed=5)
    got = smoothed.spread(model, x, TARGETS, **options)
    want = by_loops(method, model, x, TARGETS, 0.3, 3, **options)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    alone = smoothed(model, x[1:2], 0, **options)
    torch.testing.assert_close(alone, got.mean[1:2], rtol=1e-9, atol=1e-12)


def chain() -> nn.Module:
    """A network of a kind for which all rules are known."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).double()


def test_options_with_one_entry_a_row() -> None:
    """Each row is covered by its own baseline: of x0 + 2 x1 row i loses its own x - b."""
    net = linear([[1.0, 2.0]])
    x, base = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0], [0.0, 4.0]])
    got = smooth(feature_ablation, noise=0.0, n_samples=2)(net, x, 0, baseline=base)
    assert got.tolist() == [[0.0, 2.0], [3.0, 0.0]]
    mask = torch.tensor([[0, 0], [0, 1]])
    got = smooth(feature_ablation, noise=0.0, n_samples=2)(net, x, 0, feature_mask=mask)
    assert got.tolist() == [[5.0, 5.0], [3.0, 8.0]]


def test_captum_adds_the_same_kind_of_noise() -> None:
    """Its draws are others, so the means of many agree; its variance is that of n, not n - 1, too.

    Of 3 (1 + 0.2 z)^2 the mean of n draws strays by 1.21 / sqrt(n), that of two takes sqrt(2)
    times as much, and four times that is asked for; of the variance, 1.21^2 sqrt(2 / n).
    """
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)

    def cube(rows: Tensor) -> Tensor:
        return (rows**3).sum(1)

    mine = smooth(saliency, noise=0.2, n_samples=4000, seed=2).spread(cube, x, None)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(cube))
    torch.manual_seed(0)
    draws = {"nt_samples": 4000, "stdevs": 0.2, "abs": False}
    for kind, value, within in (("smoothgrad", mine.mean, 0.11), ("vargrad", mine.spread**2, 0.2)):
        theirs = tunnel.attribute(x, nt_type=kind, **draws)
        torch.testing.assert_close(value, theirs, rtol=0, atol=within)


def test_nothing_is_left_behind() -> None:
    model, x = toy(), inputs()
    before = Snapshot(model, x)
    smooth(saliency, n_samples=2).spread(model, x, TARGETS)
    before.check()


def test_explain_takes_it_like_any_method() -> None:
    model, x = toy(), inputs()
    methods = [saliency, smooth("saliency", n_samples=3), smooth("grad_cam", n_samples=3)]
    found = xailab.explain(model, x, TARGETS, methods=methods)
    assert found.names == ["saliency", "smooth saliency", "smooth grad_cam"]
    assert found.table()["layer"].dropna().to_dict() == {"smooth grad_cam": "relu2"}
    assert found.table()["rows"].tolist()[:2] == [3, 9]
    assert found.table()["units"]["smooth saliency"] == "score per unit of x"
    assert "smooth Grad-CAM at relu2" in found.describe()
    want = smooth(grad_cam, n_samples=3)(model, x, TARGETS, layer="relu2")
    torch.testing.assert_close(found["smooth grad_cam"], want)
    paths = xailab.explain(model, x, 1, methods=[smooth("integrated_gradients", n_samples=2)])
    assert next(iter(paths)).gap is None  # it promises no sum


def test_the_scoreboard_takes_it_too() -> None:
    truth = torch.zeros(3, 8, 8, dtype=torch.bool)
    question = KnownAnswer("toys", toy(), inputs(), TARGETS, truth, "relu2")
    (card,) = xailab.core.registry.chosen({"mine": smooth("grad_cam", n_samples=2)})
    got = torch.cat(list(scored_maps(card, question, None, {})))
    want = smooth(grad_cam, n_samples=2)(toy(), inputs(), TARGETS, layer="relu2")[:, 0]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("method", "options", "error", "words"),
    [
        ("lime_image", {}, ValueError, r"takes methods \(model, x, target\), and lime_image"),
        ("salience", {}, ValueError, "no method 'salience'; there is saliency"),
        (3, {}, TypeError, "a method is"),
        ("saliency", {"noise": -1.0}, ValueError, "noise must be at least 0"),
        ("saliency", {"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ("saliency", {"n_samples": 2.5}, TypeError, "n_samples must be an integer"),
        ("saliency", {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
)
def test_refusals(method, options, error, words) -> None:
    xailab.methods()
    with pytest.raises(error, match=words):
        smooth(method, **options)


def test_a_baseline_of_a_layer_is_a_number() -> None:
    with pytest.raises(ValueError, match="a number for layer_baseline"):
        smooth("integrated_gradients")(
            toy(), inputs(), 0, layer="conv2", layer_baseline=torch.zeros(5, 4, 4)
        )
