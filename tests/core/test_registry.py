"""Methods by name, as functions, and what of their options they know."""

from functools import partial

import numpy as np
import pytest
import torch

from xailab.attribution import register_all
from xailab.attribution.cam import grad_cam
from xailab.attribution.saliency import saliency
from xailab.core.registry import METHODS, Card, chosen, method, refuse_unknown
from xailab.core.subjects import subject

register_all()
X = torch.ones(2, 3)


def mine(model, x, target, *, strength=1):
    return strength * x


def other(model, x, target, seed=0, *more, noise=0.0, **rest):
    return x


def test_what_is_known_of_a_function():
    known = Card("mine", mine, frozenset())
    assert known.options == {"strength"}
    assert Card("other", other, frozenset()).options == {"seed", "noise"}


def test_the_decorator_enters_and_returns_the_function(monkeypatch):
    monkeypatch.delitem(METHODS, "mine", raising=False)
    assert method("layer", "relu")(mine) is mine
    assert METHODS.pop("mine") == Card("mine", mine, frozenset({"layer", "relu"}))


def test_chosen_by_name_function_and_mapping():
    assert [one.name for one in chosen(["saliency", mine])] == ["saliency", "mine"]
    assert [one.name for one in chosen("saliency")] == ["saliency"]
    assert [one.name for one in chosen(mine)] == ["mine"]
    assert chosen([saliency]) == [METHODS["saliency"]]
    assert [(one.name, one.function) for one in chosen({"a": mine, "b": "saliency"})] == [
        ("a", mine),
        ("saliency", saliency),
    ]


def test_a_method_under_another_name_keeps_its_needs():
    (renamed,) = chosen({"cam of mine": grad_cam})
    assert (renamed.name, renamed.needs) == ("cam of mine", METHODS["grad_cam"].needs)
    assert "layer" in renamed.needs
    assert chosen({"saliency": mine})[0].needs == frozenset()


def test_things_that_can_be_called():
    assert chosen([partial(mine, strength=2)])[0].name == "partial"
    assert chosen({"double": partial(mine, strength=2)})[0].options == {"strength"}


@pytest.mark.parametrize(
    ("methods", "error", "words"),
    [
        (["salience"], ValueError, "no method 'salience'; there is saliency"),
        (["qqq"], ValueError, r"there is ablation_cam, band_occlusion, .*grad_cam"),
        ([], ValueError, "at least one method"),
        ({}, ValueError, "at least one method"),
        (["saliency", "saliency"], ValueError, "each once.*saliency"),
        (["mine", mine], ValueError, "no method 'mine'"),
        ([mine, {"strength": 2}], TypeError, "name or a function, got dict"),
        ([None], TypeError, "NoneType"),
    ],
)
def test_bad_choices(methods, error, words):
    with pytest.raises(error, match=words):
        chosen(methods)


def test_options_are_routed_to_those_who_know_them():
    known = Card("mine", mine, frozenset())
    got = known.maps(None, X, 0, {"strength": 3, "seed": 5})
    assert got.tolist() == (3 * X).tolist()


def test_arrays_become_tensors_and_graphs_are_cut():
    array = Card("array", lambda model, x, target: x.numpy() * 2, frozenset())
    assert torch.equal(array.maps(None, X, 0, {}), X * 2)
    graph = Card("graph", lambda model, x, target: x.clone().requires_grad_() * 2, frozenset())
    assert not graph.maps(None, X, 0, {}).requires_grad


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (None, TypeError, "mine must return a Tensor, it returned NoneType"),
        ([[1.0]], TypeError, "list"),
        (torch.ones(1, 3), ValueError, r"one map per row of x \(2, 3\), it gave \(1, 3\)"),
        (np.ones(2), ValueError, r"gave \(2,\)"),
        (torch.tensor(1.0), ValueError, r"gave \(\)"),
    ],
)
def test_answers_that_are_no_maps(answer, error, words):
    with pytest.raises(error, match=words):
        Card("mine", lambda model, x, target: answer, frozenset()).maps(None, X, 0, {})


def test_options_nobody_takes():
    wanted = chosen([mine, "smoothgrad"])
    refuse_unknown(["strength", "n_samples", "layer"], wanted)
    with pytest.raises(
        TypeError, match="none of the methods takes 'n_sample'; they take n_samples"
    ):
        refuse_unknown(["n_sample"], wanted)
    with pytest.raises(TypeError, match="they take layer, strength"):
        refuse_unknown(["qqqqq"], chosen([mine]))


def test_axes_that_are_said_turn_windows_masks_and_backgrounds():
    total = lambda x: (x * torch.tensor([1.0, 10.0])).sum((1, 2))  # noqa: E731 - (N, T, 2)
    x, mask = torch.ones(1, 3, 2), torch.arange(3)[:, None]
    of = subject(total, x, channel_axis=-1)

    def ask(name, **options):
        known = METHODS[name].options_for(of, options)
        return METHODS[name].ask(of, None, known)[0].tolist()

    assert ask("occlusion") == [[[11.0, 11.0]] * 3]  # a step of time is covered, all of it
    assert ask("feature_ablation", feature_mask=mask) == [[[11.0, 11.0]] * 3]
    baseline = torch.tensor([1.0, 0.0])  # of the two channels
    assert ask("feature_ablation", baseline=baseline) == [[[0.0, 10.0]] * 3]
    found = ask("expected_gradients", background=torch.zeros(2, 3, 2), n_samples=2)
    assert found == [[[1.0, 10.0]] * 3]
