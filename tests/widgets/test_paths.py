"""The path slider walks the right paths, adds up the right map, redraws, leaves nothing behind."""

import pytest
import torch
from torch import nn

from tests.snapshots import unchanged
from xailab import widgets
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.saliency import saliency
from xailab.widgets.paths import Paths, explorer, path_slider

NAMES = ["a <one>", "a two"]
TARGETS = [1, 2]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).train()


@pytest.fixture
def x():
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def paths(model, x):
    return Paths(model, x, TARGETS, names=NAMES, n_steps=8)


def test_a_path_by_hand():
    """The score 2 a + b^2 at a = b = 1, from black: its slopes are 2 and 2 alpha on the way.

    Half way the trapezoids under 2 alpha have given 1/4, those under 2 have given 1.
    """
    x = torch.ones(1, 1, 1, 2)

    def square(rows):
        return (2 * rows[..., 0] + rows[..., 1] ** 2).reshape(-1, 1)

    walk = Paths(square, x, [0], n_steps=4).walks["black"]
    assert walk.scores.tolist() == [[0.0, 0.5625, 1.25, 2.0625, 3.0]]
    assert walk.gradients[0, :, 0, 0].tolist() == [[2, 0], [2, 0.5], [2, 1], [2, 1.5], [2, 2]]
    assert walk.maps[0, 2, 0, 0].tolist() == [1.0, 0.25]
    assert walk.maps[0, -1, 0, 0].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(("name", "baseline"), [("black", 0.0), ("white", 1.0)])
def test_the_whole_map_is_integrated_gradients(model, x, paths, name, baseline):
    want = integrated_gradients(
        model, x, TARGETS, baseline=baseline, rule="trapezoid", n_steps=9
    )  # 9 points make 8 steps
    torch.testing.assert_close(paths.walks[name].maps[:, -1], want)
    assert not paths.walks[name].maps[:, 0].any()


def test_gradients_and_scores_belong_to_the_pictures_on_the_way(model, x, paths):
    walk = paths.walks["white"]
    torch.testing.assert_close(walk.inputs[1, 6], 1 + 0.75 * (x[1] - 1))
    torch.testing.assert_close(walk.gradients[1, 6:7], saliency(model, walk.inputs[1, 6:7], 2))
    torch.testing.assert_close(walk.scores[1, 6], model(walk.inputs[1, 6:7])[0, 2].detach())


def test_a_baseline_may_be_a_picture(model, x):
    own = x.flip(0) / 2
    walk = Paths(model, x, TARGETS, baselines={"other": own}, n_steps=4).walks["other"]
    torch.testing.assert_close(walk.inputs[:, 0], own)
    torch.testing.assert_close(walk.inputs[:, -1], x)


def test_words_and_title_give_rise_and_sum(paths):
    rise, total = paths.progress(0, "black", 4)
    whole, _ = paths.progress(0, "black", 8)
    alt = paths.picture(0, "black", 4).alt
    assert alt.startswith(
        f"a <one>, path from black, alpha 0.50: the score rose by {rise:.2f} of {whole:.2f}, "
        f"the map so far adds up to {total:.2f}. "
    )
    assert paths.picture(0, "black", 0).alt.endswith("No step is taken yet, the map is empty.")


def test_equal_colors_mean_equal_numbers_along_a_path(paths):
    """Both maps are drawn on -1..1, in which 1 is the largest of all places, not of this one."""
    early, late = (paths.picture(0, "black", place).figure.axes for place in (1, 8))
    drawn = [axes[2].images[0].get_array() for axes in (early, late)]
    assert abs(drawn[0]).max() < abs(drawn[1]).max() <= 1
    for axes in (early, late):
        assert axes[2].images[0].get_clim() == (-1, 1)


def test_nothing_is_left_behind(model, x):
    with unchanged(model, x):
        Paths(model, x, TARGETS, n_steps=2).picture(0, "white", 1)


def test_the_controls_redraw(paths):
    box = explorer(paths)
    picture, baseline, alpha, image, words = box.children
    assert "a &lt;one&gt;, path from black, alpha 0.50" in words.value
    seen = [bytes(image.value)]
    assert seen[0].startswith(b"\x89PNG")
    for control, value, want in [
        (alpha, 8, "a &lt;one&gt;, path from black, alpha 1.00"),
        (picture, 1, "a two, path from black, alpha 1.00"),
        (baseline, "white", "a two, path from white, alpha 1.00"),
    ]:
        control.value = value
        assert want in words.value
        assert bytes(image.value) not in seen
        seen.append(bytes(image.value))
    picture.value, baseline.value, alpha.value = 0, "black", 4
    assert bytes(image.value) == seen[0]


def test_controls_are_labelled(paths):
    controls = explorer(paths).children[:3]
    assert [c.description for c in controls] == ["Picture", "Baseline", "Alpha"]
    assert all(control.tooltip for control in controls)


def test_outside_a_notebook_the_sentence_is_printed(model, x, capsys):
    path_slider(model, x, TARGETS, n_steps=4)
    assert capsys.readouterr().out.startswith("In words: 1, path from black, alpha 0.50: ")


def test_bad_input_is_named(model, x):
    with pytest.raises(ValueError, match=r"expected 2 names.*got 1 names"):
        Paths(model, x, TARGETS, names=["one"])
    with pytest.raises(ValueError, match="2 names and 0 baselines"):
        Paths(model, x, TARGETS, baselines={})
    with pytest.raises(ValueError, match=r"0\.\.1; 'x' has others"):
        Paths(model, 2 * x, TARGETS)
    with pytest.raises(ValueError, match=r"0\.\.1; 'cold' has others"):
        Paths(model, x, TARGETS, baselines={"cold": -1.0})
    with pytest.raises(ValueError, match=r"0\.\.2"):
        Paths(model, x, [1, 7])
    with pytest.raises(ValueError, match="n_steps"):
        Paths(model, x, TARGETS, n_steps=0)


def test_the_function_is_not_hidden_by_its_module():
    assert widgets.path_slider is path_slider
