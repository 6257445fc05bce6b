"""Maps: the right scale, the right colors, the right place, and clear refusals."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from xailab import plots
from xailab.plots.arrays import to_image
from xailab.plots.parts import MANY_CELLS

PHOTO = np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)


def drawn(picture, panel=0):
    """The topmost image of a panel: the map."""
    return picture.figure.axes[panel].images[-1]


def panels(picture):
    return [ax for ax in picture.figure.axes if ax.images]


def color_of(image, value):
    return to_hex(image.cmap(image.norm(value)))


def test_a_signed_map_is_centered_at_zero():
    image = drawn(plots.heatmap([[-1, 4]], title="t"))
    assert (image.norm.vmin, image.norm.vmax) == (-4, 4)
    red, white, blue = (image.cmap(image.norm(value)) for value in (4, 0, -4))
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert min(white[:3]) > 0.95


def test_a_positive_map_rises_evenly_in_lightness():
    image = drawn(plots.heatmap([[0.5, 4]], title="t"))
    assert (image.norm.vmin, image.norm.vmax) == (0, 4)
    rgb = image.cmap(np.linspace(0, 1, 50))[:, :3]
    lightness = rgb @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0).all()  # jet rises and falls


def test_a_zero_map_can_be_drawn():
    image = drawn(plots.heatmap(np.zeros((2, 2)), title="Nothing"))
    assert (image.norm.vmin, image.norm.vmax) == (0, 1)


def test_outliers_of_a_large_map_share_the_last_color_and_a_small_map_keeps_them():
    large = np.ones((50, 50))
    large[0, 0] = 1000
    assert large.size > MANY_CELLS
    assert drawn(plots.heatmap(large, title="t")).norm.vmax == 1
    assert drawn(plots.heatmap(large[:20, :20], title="t")).norm.vmax == 1000
    sparse = np.zeros((50, 50))
    sparse[0, 0] = 7
    assert drawn(plots.heatmap(sparse, title="t")).norm.vmax == 7


def test_the_map_covers_the_photo_cell_by_cell():
    picture = plots.heatmap([[0, 1], [2, 3]], PHOTO, title="t")
    photo, image = picture.figure.axes[0].images
    assert photo.get_extent() == image.get_extent() == [0, 30, 20, 0]
    assert image.get_interpolation() == "nearest"
    assert photo.get_array().ndim == 2  # grey
    low, high = (image.cmap(image.norm(value))[3] for value in (0, 3))
    assert low == 0  # where nothing is attributed the photo is seen
    assert 0.7 < high < 1


def test_pale_colors_of_a_signed_map_do_not_stand_on_black():
    black = np.zeros((4, 4), np.uint8)
    signed = plots.heatmap([[1, -1]], black, title="t").figure.axes[0].images[0]
    rising = plots.heatmap([[1, 0]], black, title="t").figure.axes[0].images[0]
    assert signed.get_array().min() > rising.get_array().min() + 0.2


def test_shared_scale_compares_numbers():
    small, large = [[0, 1.0]], [[0, 4.0]]
    picture = plots.compare([small, large], titles=["a", "b"])
    assert color_of(drawn(picture, 0), 1) == color_of(drawn(picture, 1), 1)
    assert [drawn(picture, i).norm.vmax for i in (0, 1)] == [4, 4]


def test_own_scales_show_each_map_in_full():
    picture = plots.compare([[[0, 1.0]], [[0, 4.0]]], titles=["a", "b"], shared=False)
    assert [drawn(picture, i).get_array().max() for i in (0, 1)] == [1, 1]
    bars = [ax for ax in picture.figure.axes[1].child_axes if "top" in ax.get_ylabel()]
    assert len(bars) == 1
    assert "a: 0 to 1, peak" in picture.alt
    assert "b: 0 to 4, peak" in picture.alt  # the words keep the true numbers


def test_one_signed_map_makes_the_shared_scale_signed():
    picture = plots.compare([[[0, 1]], [[-3, 0]]], titles=["a", "b"])
    assert [(drawn(picture, i).norm.vmin, drawn(picture, i).norm.vmax) for i in (0, 1)] == [
        (-3, 3),
        (-3, 3),
    ]


@pytest.mark.parametrize("count", [1, 4, 5, 6, 7, 10, 12])
def test_any_number_of_panels_one_color_bar(count):
    maps = [np.arange(4.0).reshape(2, 2)] * count
    picture = plots.compare(maps, titles=[str(i) for i in range(count)])
    titles = [ax.get_title() for ax in panels(picture)]
    bars = [
        ax
        for one in picture.figure.axes
        for ax in (one, *one.child_axes)
        if ax.get_ylabel() == "attribution"
    ]
    assert titles == [str(i) for i in range(count)]
    assert len(bars) == 1


def test_photos_may_differ_from_panel_to_panel():
    picture = plots.compare([[[1, 2]]] * 2, over=[PHOTO, PHOTO[:10]], titles=["a", "b"])
    assert [drawn(picture, i).get_extent()[2] for i in (0, 1)] == [20, 10]


def test_the_name_of_a_layer_is_broken_behind_its_dots():
    name = "Grad-CAM at encoder.layers.encoder_layer_1.ln_1"
    panels = plots.compare([np.ones((4, 4))] * 4, titles=[name, "LayerCAM at 0.5", "", "x" * 60])
    lines = [ax.get_title().split("\n") for ax in panels.figure.axes[:4]]
    assert lines[0] == ["Grad-CAM at encoder.", "layers.encoder_layer_", "1.ln_1"]
    assert lines[1] == ["LayerCAM at 0.5"]
    assert "".join(lines[3]) == "x" * 60


def test_a_mask_is_outlined_and_counted():
    picture = plots.heatmap([[3, 1], [0, 0]], PHOTO, title="t", mask=[[1, 0], [0, 0]])
    assert "75 % of the positive mass lies inside the marked region" in picture.alt
    edges = np.concatenate(
        [
            path.vertices
            for lines in picture.figure.axes[0].collections
            for path in lines.get_paths()
        ]
    )
    # The marked cell is the upper left quarter of 20 x 30 pixels.
    assert edges.min(axis=0) == pytest.approx([0, 0], abs=0.1)
    assert edges.max(axis=0) == pytest.approx([15, 10], abs=0.1)


def test_the_callers_own_sentence_wins():
    assert plots.heatmap([[1, 2]], title="t", alt="Look right.").alt == "Look right."
    assert plots.compare([[[1, 2]]], titles=["a"], alt="Same.").alt == "Same."
    assert plots.images([PHOTO], titles=["a"], alt="A ramp.").alt == "A ramp."
    assert plots.images([PHOTO] * 2, titles=["a", "b"]).alt == "2 pictures: a, b."


def test_nothing_is_changed_in_the_callers_map():
    values = torch.tensor([[1.0, -2.0]], requires_grad=True)
    plots.compare([values], titles=["a"], shared=False)
    assert values.tolist() == [[1, -2]]
    assert values.requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.compare([], titles=[]), "maps: nothing to draw, the list is empty"),
        (lambda: plots.images([], titles=[]), "images: nothing to draw"),
        (lambda: plots.compare([[[1]]], titles=["a", "b"]), "titles: expected a list of 1.*got 2"),
        (lambda: plots.compare([[[1]]], titles="a"), "titles: .*got one string"),
        (lambda: plots.images([PHOTO], titles=[]), "titles: expected a list of 1.*got 0"),
        (
            lambda: plots.compare([[[1]]] * 2, over=[PHOTO], titles=["a", "b"]),
            "photos in over: expected a list of 2",
        ),
        (
            lambda: plots.compare([[[1]], [[np.nan]]], titles=["a", "b"]),
            r"maps\[1\]: 1 of 1 values",
        ),
        (lambda: plots.heatmap(np.zeros((2, 1, 3, 3)), title="t"), "a batch of 2"),
        (lambda: plots.heatmap([[1, 2]], torch.randn(3, 9, 9), title="t"), "must lie in 0..1"),
        (lambda: plots.heatmap([[1, 2]], np.zeros((2, 5, 9)), title="t"), "1 or 3 channels"),
        (lambda: plots.heatmap([[1, 2]], np.zeros(5), title="t"), "one picture"),
        (lambda: plots.heatmap([[1, 2]], np.zeros((2, 3, 5, 5)), title="t"), "one picture"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "image",
    [
        PHOTO,
        Image.fromarray(PHOTO),
        torch.from_numpy(PHOTO / 255).permute(2, 0, 1),
        torch.from_numpy(PHOTO / 255).permute(2, 0, 1)[None],
        np.dstack([PHOTO, np.full((20, 30), 255, np.uint8)]),
        PHOTO / 255,
        PHOTO.astype(np.uint16) * 257,
    ],
    ids=["uint8", "PIL", "CHW", "1CHW", "RGBA", "float HWC", "uint16"],
)
def test_every_kind_of_photo_comes_out_the_same(image):
    assert to_image(image) == pytest.approx(PHOTO / 255)


def test_grey_pictures_and_small_ambiguous_ones():
    digit = torch.rand(1, 28, 28)
    for image in (digit, digit[0], (digit[0] * 255).round().byte()):
        assert to_image(image)[..., 1] == pytest.approx(digit[0].numpy(), abs=1 / 255)
    assert to_image(Image.new("L", (4, 2), 255)).shape == (2, 4, 3)


def test_a_map_of_the_middle_is_not_stretched_over_the_whole_photo():
    wide = np.zeros((300, 900, 3), np.uint8)
    for size in (7, 224):
        seen = np.eye(size)
        for draw in (
            lambda: plots.heatmap(seen, wide, title="t"),  # noqa: B023
            lambda: plots.heatmap(seen, wide, title="t", alt="Mine."),  # noqa: B023
            lambda: plots.compare([seen], over=wide, titles=["a"]),  # noqa: B023
            lambda: plots.describe(seen, wide),  # noqa: B023
        ):
            with pytest.raises(ValueError, match=rf"{size} x {size} and 300 x 900.*picture\(x\)"):
                draw()


def test_a_mask_of_other_proportions_is_refused():
    square = np.eye(28)
    for over, other in ((None, "28 x 28"), (np.zeros((280, 280), np.uint8), "280 x 280")):
        with pytest.raises(ValueError, match=rf"mask and .*10 x 30 and {other}"):
            plots.heatmap(square, over, title="t", alt="Mine.", mask=np.ones((10, 30)))
    with pytest.raises(ValueError, match=r"mask and map .*10 x 30"):
        plots.describe(square, mask=np.ones((10, 30)))


def test_keras_maps_are_drawn_as_they_are():
    spot = np.zeros((28, 20))
    spot[4:10, 13] = 1
    for same in (spot, spot[None], spot[..., None], spot[None, ..., None], spot[None, None]):
        assert (drawn(plots.heatmap(same, title="t")).get_array() == spot).all()
        assert (drawn(plots.compare([same], titles=["a"])).get_array() == spot).all()


def test_the_caller_says_where_the_channels_are():
    both = np.arange(3.0 * 5 * 3).reshape(3, 5, 3)
    first, last = both.sum(0), both.sum(2)
    assert (drawn(plots.heatmap(both, title="t", channel_axis=0)).get_array() == first).all()
    compared = plots.compare([both, both[None]], titles=["a", "b"], channel_axis=-1)
    assert all((drawn(compared, i).get_array() == last).all() for i in (0, 1))
    assert plots.describe(both, channel_axis=0) == plots.describe(first)
    photo = plots.images([both / 44], titles=["a"], channel_axis=0).figure.axes[0].images[0]
    assert np.asarray(photo.get_array()) == pytest.approx(np.moveaxis(both / 44, 0, -1))
    with pytest.raises(ValueError, match=r"images.0.*channel_axis=0"):
        plots.images([both / 44], titles=["a"])
