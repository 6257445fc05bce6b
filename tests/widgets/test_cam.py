"""The browser's maps are Grad-CAM's, its controls redraw, and nothing is left in the network."""

import pytest
import torch
from torch import nn

from xailab import widgets
from xailab.attribution.cam import grad_cam
from xailab.models import Pretrained
from xailab.models.imagenet import unnormalize
from xailab.widgets.cam import CamMaps, cam_browser, explorer

LAYERS = ["0", "3"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convolutions = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1))
    model = nn.Sequential(*convolutions, pool, nn.Linear(5, 3)).train()
    return Pretrained(model, lambda image: image, ["cat, tom", "dog", "<cow>"], "")


@pytest.fixture
def x():
    return torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def test_every_map_is_grad_cam(net, x):
    maps = CamMaps(net, x, [0, 2], LAYERS)
    for (layer, target), heat in maps.heats.items():
        want = grad_cam(net.model, x, target, layer=layer, relu=False, upsample=False)
        torch.testing.assert_close(heat, want[0, 0])
    assert len(maps.heats) == 4
    assert maps.heats["0", 0].shape == (8, 12)
    assert maps.heats["3", 0].shape == (4, 6)


def test_nothing_is_left_behind(net, x):
    before = x.clone()
    CamMaps(net, x, [0], LAYERS)
    assert net.model.training
    assert not x.requires_grad
    assert torch.equal(x, before)
    assert all(p.grad is None and p.requires_grad for p in net.model.parameters())
    assert not any(module._forward_hooks for module in net.model.modules())


def test_the_controls_redraw(net, x):
    box = explorer(CamMaps(net, x, [0, 1], LAYERS))
    layer, target, signed, image, words = box.children
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG")
    assert "cat (logit" in words.value
    assert "3: 4 x 6 cells" in words.value
    layer.value = "0"
    assert "0: 8 x 12 cells" in words.value
    target.value = 1
    assert "dog (logit" in words.value
    second = bytes(image.value)
    signed.value = True
    assert bytes(image.value) not in (first, second)
    layer.value, target.value, signed.value = "3", 0, False
    assert bytes(image.value) == first


def test_controls_are_labelled(net, x):
    box = explorer(CamMaps(net, x, [0], LAYERS))
    assert [control.description for control in box.children[:3]] == [
        "Layer",
        "Class",
        "show what speaks against it, too",
    ]


def test_the_sign_is_kept_only_when_asked_for(net, x):
    maps = CamMaps(net, x, [0], LAYERS)
    maps.heats["3", 0] = torch.tensor([[-2.0, 1.0]])
    assert "runs from -2 to 1" in maps.picture("3", 0, signed=True).alt
    assert "runs from 0 to 1" in maps.picture("3", 0).alt


def test_outside_a_notebook_the_sentence_is_printed(net, x, capsys):
    cam_browser(net, x, [2], layers=LAYERS)
    assert capsys.readouterr().out.startswith("In words: <cow> (logit")
    box = explorer(CamMaps(net, x, [2], LAYERS))
    assert "&lt;cow&gt;" in box.children[-1].value  # a class name is text, not markup


def test_bad_input_is_named(net, x):
    with pytest.raises(ValueError, match="one picture at a time, got 2"):
        CamMaps(net, x.repeat(2, 1, 1, 1), [0], LAYERS)
    with pytest.raises(ValueError, match=r"no layer 'block\.0'"):
        CamMaps(net, x, [0], ["block.0"])
    with pytest.raises(ValueError, match=r"0\.\.2, got 3"):
        CamMaps(net, x, [3], LAYERS)
    with pytest.raises(ValueError, match="no positions"):
        CamMaps(net, x, [0], ["5"])
    with pytest.raises(ValueError, match="at least one class"):
        CamMaps(net, x, [], LAYERS)


def test_the_function_is_not_hidden_by_its_module():
    assert callable(widgets.cam_browser)
    assert widgets.cam_browser is cam_browser


def test_a_picture_is_drawn_over_what_the_network_saw(net, x):
    assert (CamMaps(net, x, [0], LAYERS).photo == unnormalize(x)[0]).all()
