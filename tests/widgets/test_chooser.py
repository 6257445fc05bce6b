"""The chooser recommends what the case allows, and shows what it recommends."""

from itertools import combinations, product
from pathlib import Path

import pytest

from xailab.attribution import register_all
from xailab.core import registry
from xailab.widgets import method_chooser, recommend
from xailab.widgets.chooser import (
    ACCESS,
    DATA,
    METHODS,
    PLANNED,
    TIME,
    WHO,
    _html,
    chooser_picture,
    chooser_widget,
)

CASES = [
    {"access": access, "data": data, "time": time, "who": who}
    for access, data, time, who in product(ACCESS, DATA, TIME, WHO)
]
PHOTO = {"access": "gradients", "data": "photo", "time": "seconds", "who": "developer"}


def names(**changes):
    return [method.name for method in recommend(**{**PHOTO, **changes})]


def test_the_networks_own_gradients_come_first():
    assert names() == ["Grad-CAM", "Occlusion", "Nearest unlike neighbor"]


def test_without_the_network_no_gradients():
    assert names(access="predictions") == ["Occlusion", "Nearest unlike neighbor"]


def test_more_time_brings_the_method_that_uses_it():
    assert names(time="minutes")[1] == "LIME"
    assert names(data="table", time="minutes")[1] == "Shapley values (SHAP)"


def test_a_person_concerned_gets_rules_and_counterfactuals():
    found = names(access="predictions", data="table", time="minutes", who="affected")
    assert found == ["Shapley values (SHAP)", "Anchors", "Counterfactual"]


def test_an_auditor_gets_global_methods():
    found = names(access="predictions", data="table", who="auditor")
    assert found == ["Permutation importance", "Surrogate tree", "Prototypes and criticisms"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.values()))
def test_every_case_gets_methods_that_it_allows(case):
    found = recommend(**case)
    assert 1 <= len(found) <= 3
    assert all(a.kind != b.kind for a, b in combinations(found, 2))
    for method in found:
        assert case["data"] in method.data
        assert case["who"] in method.who
        assert method.access == "predictions" or case["access"] == "gradients"
        assert method.time == "seconds" or case["time"] == "minutes"


def test_every_method_is_recommended_somewhere():
    found = {method.name for case in CASES for method in recommend(**case)}
    assert found == {method.name for method in METHODS}


@pytest.mark.parametrize("name", PHOTO)
def test_an_unknown_answer_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"{name} is one of .*'nothing'"):
        recommend(**{**PHOTO, name: "nothing"})


@pytest.fixture
def box():
    return chooser_widget()


def menus(box):
    return {menu.description: menu for menu in box.children[:-1]}


def shown(box):
    """Return the HTML of the recommendations."""
    (output,) = box.children[-1].outputs
    return output["data"]["text/html"]


def test_a_menu_changes_the_result(box):
    assert "Grad-CAM" in shown(box)
    menus(box)["You have"].value = "predictions"
    assert "Grad-CAM" not in shown(box)
    assert "Occlusion" in shown(box)
    menus(box)["To explain"].value = "table"
    menus(box)["Who asks"].value = "auditor"
    assert "Surrogate tree" in shown(box)


def test_one_method_alone_comes_with_a_warning(box):
    menus(box)["You have"].value = "predictions"
    menus(box)["Who asks"].value = "auditor"
    assert "cannot be cross-checked" in shown(box)


def test_every_menu_has_a_label_and_a_class(box):
    assert "xailab-chooser" in box._dom_classes
    assert "xailab-chooser-result" in box.children[-1]._dom_classes
    for name, menu in zip(("access", "data", "time", "who"), box.children, strict=False):
        assert menu.description
        assert f"xailab-chooser-{name}" in menu._dom_classes


def test_only_lessons_that_lie_beside_the_notebook_are_linked(tmp_path, monkeypatch):
    (tmp_path / "08_cam.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    html = shown(chooser_widget())
    assert '<a href="08_cam.ipynb" style="text-decoration: underline">Lesson `cam`, cam</a>' in html
    assert "Lesson `lime`, lime." in html
    assert html.count("<a ") == 1


def test_the_picture_says_the_case_and_every_recommendation():
    alt = chooser_picture(access="predictions", data="table", who="affected").alt
    assert "only its answers, a row of a table" in alt
    for method in recommend(access="predictions", data="table", time="seconds", who="affected"):
        planned = " (planned)" if method.lesson in PLANNED else ""
        assert f"{method.name} ({method.kind}, lesson {method.lesson[:2]}{planned})" in alt


def test_shown_outside_a_notebook_it_says_its_first_position(capsys):
    method_chooser()
    assert chooser_picture().alt in capsys.readouterr().out


def test_a_lesson_is_called_planned_until_it_is_written():
    there = {path.stem for path in (Path(__file__).parents[2] / "lessons").glob("*.py")}
    assert set(PLANNED) == {method.lesson for method in METHODS} - there


@pytest.mark.parametrize("case", CASES)
def test_no_lesson_that_is_not_there_is_recommended_as_if_it_were(case):
    found, alt = recommend(**case), chooser_picture(**case).alt
    shown = _html(found)
    for method in found:
        number, topic = method.lesson.split("_", 1)
        words = f"Lesson {number}, {topic.replace('_', ' ')}"
        assert (f"{words} (planned)" in shown) == (method.lesson in PLANNED)
        assert (f"lesson {number} (planned)" in alt) == (method.lesson in PLANNED)


# What the chooser says of a method must be what the method's card says.
CARDS = {
    "Grad-CAM": ["grad_cam"],
    "Integrated gradients": ["integrated_gradients", "token_attributions"],
    "Shapley values (SHAP)": ["kernel_shap", "permutation_shap"],
    "LIME": ["lime_image", "lime_text"],
    "Occlusion": ["occlusion"],
}
KINDS = {"photo": "picture", "table": "table", "text": "text"}


@pytest.mark.parametrize("name", CARDS)
def test_the_chooser_agrees_with_the_cards(name):
    register_all()
    (chosen,) = (method for method in METHODS if method.name == name)
    cards = [registry.METHODS[card] for card in CARDS[name]]
    inside = any(card.needs & {"gradient", "layer", "known"} for card in cards)
    assert (chosen.access == "gradients") == inside
    for data in chosen.data:
        if name != "Occlusion" or data != "text":  # of a text one word after the other is left out
            assert any(not card.kinds or KINDS[data] in card.kinds for card in cards)
