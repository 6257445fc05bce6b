"""The grid pointing game over the fifteen well-classified photos: does Grad-CAM point right?"""

import pytest
import torch

from xailab import data, models
from xailab.attribution.cam import grad_cam, layer_cam
from xailab.evaluate.localization import pointing_game, relevance_mass_accuracy

CHANCE = 0.25  # one cell of four


@pytest.fixture(scope="module")
def mosaics():
    return data.mosaics(seed=0)


@pytest.fixture(scope="module")
def model():
    return models.pretrained("efficientnet_lite0").model


def maps_of(method, model, mosaics, target):
    """Maps (15, 1, 448, 448), one mosaic at a time to keep memory flat."""
    rows = models.normalize(mosaics.images).split(1)
    pairs = zip(rows, target, strict=True)
    return torch.cat([method(model, row, int(t), layer="bn2") for row, t in pairs])


def test_the_fifteen_photos_are_each_asked_for_once(mosaics):
    assert len(mosaics) == 15
    assert len(set(mosaics.names)) == 15
    assert (mosaics.truth.reshape(15, -1).mean(1) == CHANCE).all()


def test_grad_cam_points_into_the_right_cell(model, mosaics):
    heat = maps_of(grad_cam, model, mosaics, mosaics.target)
    assert pointing_game(heat, mosaics.truth).mean() >= 0.95
    assert relevance_mass_accuracy(heat, mosaics.truth).mean() > 0.7


def test_asked_for_a_neighbor_it_points_elsewhere(model, mosaics):
    """The hits are the target's doing: another class of the same picture has another cell."""
    neighbor = mosaics.classes[range(15), (mosaics.position + 1) % 4]
    heat = maps_of(grad_cam, model, mosaics, neighbor)
    assert pointing_game(heat, mosaics.truth).mean() <= 0.05
    assert relevance_mass_accuracy(heat, mosaics.truth).mean() < CHANCE


def test_dropping_the_weights_against_a_class_costs_most_of_it(model, mosaics):
    """What lesson `cam` says of LayerCAM on a network that ends in averages."""
    mass = relevance_mass_accuracy(
        maps_of(layer_cam, model, mosaics, mosaics.target), mosaics.truth
    ).mean()
    assert CHANCE < mass < 0.55
