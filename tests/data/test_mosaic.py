from collections import Counter

import numpy as np
import pytest
from PIL import Image

from xailab.data import mosaics, photos

GRIDS = mosaics(seed=0)
CORNERS = [(0, 0), (0, 224), (224, 0), (224, 224)]


def cell(picture, position):
    top, left = CORNERS[position]
    return picture[top : top + 224, left : left + 224]


def test_shapes_and_types():
    assert GRIDS.images.shape == (15, 448, 448, 3)
    assert GRIDS.images.dtype == np.uint8
    assert GRIDS.truth.shape == (15, 448, 448)


def test_every_photo_is_asked_for_once():
    assert sorted(GRIDS.target) == sorted(photos(well_classified=True).y)
    assert Counter(GRIDS.position.tolist()) == {0: 4, 1: 4, 2: 4, 3: 3}


def test_sixty_grids_ask_for_every_photo_in_every_cell():
    many = mosaics(n=60)
    assert len(set(zip(many.target.tolist(), many.position.tolist(), strict=True))) == 60


def test_truth_is_the_cell_where_the_target_is():
    data = photos(well_classified=True)
    for i, name in enumerate(GRIDS.names):
        assert cell(GRIDS.truth[i], GRIDS.position[i]).all()
        assert GRIDS.truth[i].sum() == 224 * 224
        small = Image.fromarray(data.image(name)).resize((224, 224), Image.Resampling.BICUBIC)
        assert (cell(GRIDS.images[i], GRIDS.position[i]) == np.asarray(small)).all()


def test_all_four_cells_hold_the_photo_of_their_class():
    data = photos(well_classified=True)
    for i, four in enumerate(GRIDS.classes):
        assert len(set(four.tolist())) == 4
        assert four[GRIDS.position[i]] == GRIDS.target[i]
        for position, label in enumerate(four):
            photo = data.images[data.y.tolist().index(label)]
            small = Image.fromarray(photo).resize((224, 224), Image.Resampling.BICUBIC)
            assert (cell(GRIDS.images[i], position) == np.asarray(small)).all()


def test_same_seed_same_pixels():
    assert (mosaics(seed=0).images == GRIDS.images).all()
    assert (mosaics(seed=1).classes != GRIDS.classes).any()


def test_at_least_one():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        mosaics(n=0)
