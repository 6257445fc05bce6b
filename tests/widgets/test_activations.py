"""The browser draws the right unit of the right photo, its controls redraw, nothing is left."""

import pytest
import torch
from torch import nn

from tests.snapshots import unchanged
from xailab import widgets
from xailab.foundations.activations import neuron_importance, top_inputs
from xailab.models import Pretrained
from xailab.widgets.activations import UnitMaps, explorer, layer_browser

LAYERS = ["1", "3"]
NAMES = ["tom", "rex", "<cow>", "hen"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convolutions = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1))
    model = nn.Sequential(*convolutions, pool, nn.Linear(5, 3)).train()
    return Pretrained(model, lambda image: image, ["cat, tabby", "dog", "bird"], "")


@pytest.fixture
def x():
    return torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def maps(net, x):
    return UnitMaps(net, x, NAMES, LAYERS)


def test_units_are_sorted_by_importance_for_the_photos_own_class(net, x, maps):
    for photo in range(4):
        target = int(net.model(x[photo : photo + 1]).argmax())
        want = neuron_importance(
            net.model, x[photo : photo + 1], target, layer="3", method="activation_x_gradient"
        ).sum((2, 3))[0]
        torch.testing.assert_close(maps.importance(photo, "3"), want)
        order = maps.order(photo, "3", "importance")
        assert (want[order].diff() <= 0).all()
        assert sorted(order) == maps.order(photo, "3", "number") == [0, 1, 2, 3, 4]


def test_the_picture_lists_the_top_inputs_among_the_other_photos(net, x, maps):
    top = top_inputs(net.model, x[1:], layer="1", unit=2, k=3)
    listed = ", ".join(
        f"{NAMES[1:][row]} {value:.1f}"
        for row, value in zip(top.rows, top.activations, strict=True)
    )
    alt = maps.picture(0, "1", 2).alt
    assert f"excited most by {listed}." in alt
    assert f"1, unit 2 on tom: {maps.importance(0, '1')[2].item():+.2f} logits for " in alt


def test_nothing_is_left_behind(net, x):
    with unchanged(net.model, x):
        UnitMaps(net, x, NAMES, LAYERS).picture(1, "3", 0)


def test_the_controls_redraw(maps):
    box = explorer(maps)
    photo, layer, order, place, image, words = box.children
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG")
    assert "Unit 1 of 5 by importance. 3, unit " in words.value
    place.value = 2
    second = bytes(image.value)
    assert second != first
    photo.value = 2  # begins again with the most important unit
    assert place.value == 1
    assert "on &lt;cow&gt;" in words.value
    layer.value = "1"
    assert place.max == 4
    assert "Unit 1 of 4 by importance. 1, unit " in words.value
    order.value = "number"
    assert "Unit 1 of 4 by number. 1, unit 0 on" in words.value
    place.value = 4
    assert "1, unit 3 on" in words.value
    photo.value, layer.value, order.value = 0, "3", "importance"
    assert bytes(image.value) == first


def test_controls_are_labelled(maps):
    controls = explorer(maps).children[:4]
    assert [c.description for c in controls] == ["Photo", "Layer", "Units", "Place"]
    assert all(control.tooltip for control in controls)


def test_outside_a_notebook_the_sentence_is_printed(net, x, capsys):
    layer_browser(net, x, NAMES, layers=LAYERS)
    assert capsys.readouterr().out.startswith("In words: 3, unit ")


def test_bad_input_is_named(net, x):
    with pytest.raises(ValueError, match=r"two photos or more.*got 1 and 1 names"):
        UnitMaps(net, x[:1], NAMES[:1], LAYERS)
    with pytest.raises(ValueError, match="got 4 and 2 names"):
        UnitMaps(net, x, NAMES[:2], LAYERS)
    with pytest.raises(ValueError, match=r"no layer 'block'"):
        UnitMaps(net, x, NAMES, ["block"])
    with pytest.raises(ValueError, match=r"'5' gives \(4, 3\), which has no positions"):
        UnitMaps(net, x, NAMES, ["5"])
    with pytest.raises(ValueError, match="layers is empty"):
        UnitMaps(net, x, NAMES, [])


def test_the_function_is_not_hidden_by_its_module():
    assert widgets.layer_browser is layer_browser
