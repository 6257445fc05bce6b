"""Every method on every kind of model: right, checked against an oracle, or refused with a way out.

`docs/models_and_methods.md` shows the table.
"""

from typing import Any

import matplotlib.pyplot as plt
import pytest

import xailab
from docs.models_and_methods import PAGE, read
from tests.cells import METHODS, REASONS, RIGHT, cell, reason
from tests.kinds import NAMED, Kind, installed, kind
from tests.oracles import ORACLES

KINDS = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason="no TensorFlow here"))
    for name in NAMED
]
HERE = [name for name in NAMED if installed(name)]


@pytest.mark.parametrize("name", KINDS)
def test_right_or_refused(name: str) -> None:
    wrong = {}
    for method in METHODS:
        try:
            assert cell(name, method).said in {RIGHT, *REASONS}
        except Exception as error:
            wrong[method] = error
    for method, error in wrong.items():
        error.add_note(f"{method} on {name}")
    if wrong:
        raise ExceptionGroup(f"{name}: {', '.join(wrong)}", list(wrong.values()))


def test_every_method_has_an_oracle_and_is_right_somewhere() -> None:
    assert set(ORACLES) == set(METHODS)
    for method in METHODS:
        assert any(cell(name, method).said == RIGHT for name in HERE), method


def test_every_reason_is_given() -> None:
    assert {cell(name, method).said for name in HERE for method in METHODS} >= {
        RIGHT,
        *(one for one in REASONS if one != "not for Keras"),
    }


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_holds_these_cells() -> None:
    written = read(PAGE.read_text(encoding="utf-8"))
    assert set(written) == {(name, method) for name in NAMED for method in METHODS}
    stale = {
        (name, method)
        for name in HERE
        for method in METHODS
        if written[name, method].strip("*") != cell(name, method).said
    }
    assert not stale, f"run python -m docs.models_and_methods: {sorted(stale)}"


# ---- a method called by itself -------------------------------------------------------------------

# What is not said by a card, but by the method.
OWN = {
    "ids",
    "several inputs",
    "several outputs at places",
    "no ReLU modules",
    "no rule",
    "too many features",
}


@pytest.mark.parametrize("name", KINDS)
def test_called_by_itself_a_method_refuses_alike(name: str) -> None:
    of = kind(name)
    for method, card in METHODS.items():
        said = cell(name, method).said
        if said in OWN and card.takes == "model" and card.run is None:
            with pytest.raises((TypeError, ValueError, RuntimeError)) as raised:
                card.function(of.model, of.x, of.target, **_needed(of, method))
            assert reason(raised.value) in REASONS, method


def _needed(of: Kind, method: str) -> dict[str, Any]:
    """Return what a method cannot be called without."""
    needs = METHODS[method].needs
    last = [key for key, _ in of.model.named_modules() if key][-1]
    told = {
        "layer": {"layer": of.layer or last},
        "background": {"background": of.options.get("background", of.x)},
        "window": {"window": 1},
        "masks": {"n_masks": 2, "grid": 2},
    }
    return {key: one for need in needs for key, one in told.get(need, {}).items()}


# ---- explain, with no methods named --------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_explain_alone_is_right_or_refused(name: str) -> None:
    of = kind(name)
    options = {
        key: of.options[key] for key in ("layer", "reshape", "channel_axis") if key in of.options
    }
    black_box = not hasattr(of.model, "parameters") and "Keras" not in name
    if black_box and "background" in of.options and "wrapped" not in name:
        options["background"] = of.options["background"]
    if cell(name, "saliency").said in OWN:
        with pytest.raises((TypeError, ValueError)) as raised:
            xailab.explain(of.model, of.x, of.target, **options)
        assert cell(name, "saliency").said == reason(raised.value)
        return
    if name == "function of arrays (pictures)":
        options["n_samples"] = 120  # of LIME
    found = xailab.explain(of.model, of.x, of.target, **options)
    assert len(found) >= 1
    for one in found:
        assert cell(name, one.name).said == RIGHT, one.name
        if one.layer is not None:
            _named_everywhere(of, found, one)


def _named_everywhere(of: Kind, found: Any, one: Any) -> None:
    """Look whether the layer is told by the table, the picture and the words."""
    assert one.layer == (of.layer if "Keras" not in of.name else "maps")
    tokens = ", 4 x 4 tokens" if of.name.startswith("ViT (") else ""
    assert found.table().loc[one.name, "layer"] == one.layer + tokens
    assert f"{one.title} at {one.layer}" in found.describe()
    assert f"{one.title} at {one.layer}".replace(" ", "") in _titles(found.plot())


def _titles(picture: Any) -> str:
    figure = getattr(picture, "figure", None) or plt.gcf()
    return "".join("".join(ax.get_title() for ax in figure.axes).split())  # lines are broken
