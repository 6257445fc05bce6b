"""The head browser shows the row it says it shows; its sliders redraw; bad input is named."""

import re

import pytest
import torch

from xailab import widgets
from xailab.attribution.attention import attention_maps
from xailab.models import sms_transformer
from xailab.widgets.attention import HeadRows, explorer, head_browser

TOKENS = ["a", "<b>", "c"]


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(1, n, 3, 3, generator=generator).softmax(-1) for n in (4, 2))
    return [first, second]


@pytest.fixture
def rows(maps):
    return HeadRows(maps, TOKENS)


def test_a_row_by_hand():
    look_left = torch.tensor([[[1.0, 0.0, 0.0], [0.75, 0.25, 0.0], [0.1, 0.7, 0.2]]])
    rows = HeadRows([look_left], TOKENS)
    assert rows.words(0, 0, 2) == (
        "Layer 0, head 0: 'c' (token 2) looks at '<b>' (token 1) 0.7, 'c' (token 2) 0.2, "
        "'a' (token 0) 0.1."
    )
    html = rows.text(0, 0, 1)._repr_html_()
    assert re.findall(r">([^<>]+)<rt[^>]*>([^<]+)", html) == [
        ("a", "+0.75"),
        ("&lt;b&gt;", "+0.25"),
        ("c", "+0"),
    ]


def test_the_sliders_show_the_row_of_the_maps(rows, maps):
    box = explorer(rows)
    layer, head, token, text, words = box.children
    assert words.value.count("role='status'") == 1
    for i, j, k in [(0, 0, 0), (0, 3, 1), (1, 1, 2)]:
        layer.value, head.value, token.value = i, j, k
        above = [float(n) for n in re.findall("<rt[^>]*>([^<]+)", text.value)]
        assert above == pytest.approx(maps[i][0, j, k].tolist(), abs=0.005)
        assert f"Layer {i}, head {j}: " in words.value
        assert "<b>" not in words.value


def test_a_layer_with_fewer_heads_moves_the_head(rows):
    layer, head, _, _, words = explorer(rows, (0, 3, 0)).children
    assert head.value == 3
    layer.value = 1
    assert (head.max, head.value) == (1, 1)
    assert "Layer 1, head 1: " in words.value
    layer.value = 0
    assert head.max == 3


def test_sliders_are_labelled(rows):
    controls = explorer(rows).children[:3]
    assert [control.description for control in controls] == ["Layer", "Head", "Token"]
    assert all(control.tooltip for control in controls)


def test_the_picture_stands_in_for_the_first_position(maps, capsys):
    head_browser(maps, TOKENS, layer=1, head=1, token=2)
    assert capsys.readouterr().out.startswith("In words: Layer 1, head 1: 'c' (token 2) looks at ")


def test_maps_of_a_real_network_fit():
    model = sms_transformer()
    ids = model.encode(["WIN a prize"])
    rows = HeadRows(attention_maps(model, ids), ["[class]", "WIN", "a", "prize"])
    assert [tuple(weights.shape) for weights in rows.maps] == [(4, 4, 4)] * 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda maps: [maps[0].expand(2, -1, -1, -1)], r"of one text with 3 tokens, got \[\(2, 4"),
        (lambda maps: [maps[0][..., :2]], r"expected maps \(1, heads, 3, 3\)"),
        (lambda maps: [maps[0][0, 0]], "expected maps"),
        (lambda maps: [maps[0] * 0.5], r"sum to 1, these are off by up to 0\.5"),
        (lambda maps: [maps[0] * float("nan")], "sum to 1"),
    ],
)
def test_bad_maps_are_named(maps, change, match):
    with pytest.raises(ValueError, match=match):
        HeadRows(change(maps), TOKENS)


def test_what_is_no_map_and_what_is_not_there_are_named(maps):
    with pytest.raises(TypeError, match="maps must be tensors"):
        head_browser([[1.0]], TOKENS)
    with pytest.raises(TypeError, match="maps must be tensors"):
        head_browser([], TOKENS)
    with pytest.raises(ValueError, match="layer must be 0 to 1, got 2"):
        head_browser(maps, TOKENS, layer=2)
    with pytest.raises(ValueError, match="head must be 0 to 1, got 3"):
        head_browser(maps, TOKENS, layer=1, head=3)
    with pytest.raises(ValueError, match="token must be 0 to 2, got -1"):
        head_browser(maps, TOKENS, token=-1)


def test_the_function_is_not_hidden_by_its_module():
    assert widgets.head_browser is head_browser
