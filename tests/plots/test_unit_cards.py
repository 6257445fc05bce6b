"""Patches are cut where they should be; cards and chains say in words what they draw."""

import numpy as np
import pytest

from xailab import plots
from xailab.plots.arrays import to_image
from xailab.plots.pictures import BYTES, NEGATIVE, POSITIVE

RAMP = np.arange(64, dtype=float).reshape(1, 8, 8) * 4 / 255
PHOTO = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)


def test_a_patch_lies_around_the_middle_of_its_cell():
    # The cell (1, 0) of 2 x 2 cells covers rows 4..7 and columns 0..3: its middle is (6, 2).
    found = plots.patch(RAMP, (1, 0), (2, 2), 4)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 0], 4 * np.arange(64).reshape(8, 8)[4:8, 0:4])
    np.testing.assert_array_equal(
        plots.patch(RAMP, (0, 0), (1, 1), 8)[..., 0], 4 * np.arange(64).reshape(8, 8)
    )
    assert plots.patch(RAMP, (3, 5), (8, 8), 1)[0, 0, 0] == 4 * (3 * 8 + 5)


def test_a_patch_beyond_the_border_is_gray_there():
    found = plots.patch(RAMP, (0, 7), (8, 8), 3)[..., 0]
    np.testing.assert_array_equal(found[0], 128)
    np.testing.assert_array_equal(found[:, 2], 128)
    np.testing.assert_array_equal(found[1:, :2], [[24, 28], [56, 60]])


@pytest.mark.parametrize(
    ("place", "grid", "side"), [((2, 0), (2, 2), 3), ((-1, 0), (2, 2), 3), ((0, 0), (2, 2), 0)]
)
def test_a_patch_nowhere_is_refused(place, grid, side):
    with pytest.raises(ValueError, match="inside"):
        plots.patch(RAMP, place, grid, side)


def test_tiles_lie_row_by_row_with_a_blue_line_between():
    black, gray = np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.5)
    sheet = plots.tiles([black, gray, gray])
    assert sheet.shape == (49, 49, 3)  # 2 x 2 pixels are enlarged to 24 x 24
    blue = [86, 180, 233]
    assert (sheet[24] == blue).all()
    assert (sheet[:, 24] == blue).all()
    assert sheet[0, ::12, 0].tolist() == [0, 0, 86, 128, 128]
    assert sheet[48, ::12, 0].tolist() == [128, 128, 86, 86, 86]  # no fourth picture


def card(**changes):
    options = {"title": "It likes edges", "titles": ["jeep 3.1", "yurt 2.0"], **changes}
    return plots.unit_card(np.eye(4), PHOTO, [PHOTO[:9, :9], PHOTO[9:18, :9]], **options)


def test_a_card_describes_its_map_and_lists_the_examples():
    picture = card()
    listed = "It likes edges. It is excited most by jeep 3.1, yurt 2.0."
    assert picture.alt.startswith(f"{listed} The value of activation runs from 0 to 1")
    assert 1000 < len(picture.png()) <= BYTES
    right = picture.figure.subfigs[1]
    assert [ax.get_title() for ax in right.axes] == ["jeep 3.1", "yurt 2.0"]
    assert [len(ax.images) for ax in right.axes] == [1, 1]
    assert card(alt="A card.").alt == "A card."
    assert "excited" not in card(titles=None).alt


def test_a_card_draws_signed_maps_centered_at_zero():
    picture = plots.unit_card(np.array([[-2.0, 1.0]]), PHOTO, [PHOTO], title="Both signs")
    shown = [image for ax in picture.figure.subfigs[0].axes for image in ax.images]
    assert (shown[1].norm.vmin, shown[1].norm.vmax) == (-2.0, 2.0)


@pytest.mark.parametrize("examples", [[], [PHOTO] * 7])
def test_a_card_without_or_with_too_many_examples_is_refused(examples):
    with pytest.raises(ValueError, match=f"1 to 6.*{len(examples)}"):
        plots.unit_card(np.eye(4), PHOTO, examples, title="None")


def chain(**changes):
    options = {
        "captions": [["edge\n2.0", "dot"], ["logit\n5"]],
        "weights": [np.array([[0.5], [-1.25]])],
        "layer_names": ["conv1", "score"],
        "title": "Two units make the score",
        **changes,
    }
    return plots.evidence([[PHOTO, RAMP], [None]], **options)


def test_a_chain_tells_its_captions_and_weights():
    picture = chain()
    assert "layers of 2, 1 nodes" in picture.alt
    assert "Values of layer 1: edge 2.0, dot" in picture.alt
    assert "one row a start node: 0.5; -1.25" in picture.alt
    (ax,) = picture.figure.axes
    assert len(ax.images) == 2
    assert {text.get_text() for text in ax.texts} >= {"edge\n2.0", "logit\n5", "conv1", "-1.25"}
    assert 1000 < len(picture.png()) <= BYTES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"captions": [["a"], ["b"]]}, "captions"),
        ({"weights": [np.ones((1, 2))]}, "expected shapes"),
        ({"layer_names": ["one"]}, "layer_names: expected 2, got 1"),
    ],
)
def test_a_chain_that_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        chain(**changes)


def test_a_card_draws_the_map_over_the_photo_and_each_example_under_its_name():
    picture = card()
    left, right = picture.figure.subfigs
    photo, map_ = left.axes[0].images
    np.testing.assert_array_equal(map_.get_array(), np.eye(4))
    gray = to_image(PHOTO) @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(np.corrcoef(np.ravel(photo.get_array()), gray.ravel())[0, 1], 1)
    shown = {ax.get_title(): ax.images[0].get_array() for ax in right.axes if ax.images}
    np.testing.assert_allclose(shown["jeep 3.1"], to_image(PHOTO[:9, :9]))
    np.testing.assert_allclose(shown["yurt 2.0"], to_image(PHOTO[9:18, :9]))


def test_a_chain_puts_each_picture_at_its_node_and_each_weight_on_its_edge():
    (ax,) = chain().figure.axes
    middles = [np.reshape(image.get_extent(), (2, 2)).mean(1) for image in ax.images]
    np.testing.assert_allclose(middles, [(0, 0.5), (0, -0.5)])
    for image, want in zip(ax.images, (PHOTO, RAMP), strict=True):
        np.testing.assert_allclose(image.get_array(), to_image(want))
    ends = [list(zip(*line.get_data(), strict=True)) for line in ax.lines]
    assert ends == [[(0.0, 0.5), (2.0, 0.0)], [(0.0, -0.5), (2.0, 0.0)]]
    looks = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
    assert looks == [(POSITIVE, "-"), (NEGATIVE, "--")]
    assert ax.lines[0].get_linewidth() < ax.lines[1].get_linewidth()
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert places["edge\n2.0"][1] > 0 > places["dot"][1]
    assert places["0.5"][1] > 0 > places["-1.25"][1]
