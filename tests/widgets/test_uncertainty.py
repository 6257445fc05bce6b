"""The surface shows the methods' own numbers, redraws quickly, and asks nothing twice."""

from math import log
from time import process_time

import numpy as np
import pytest
import torch

from xailab import models, widgets
from xailab.data import plane
from xailab.trust.probabilities import Prediction
from xailab.trust.uncertainty import ensemble, laplace_last_layer, mc_dropout, mc_weights
from xailab.widgets.uncertainty import METHODS, Surfaces, explorer, uncertainty_surface


def radial(world, points):
    """Ignorance grows with the distance, noise falls."""
    far = points.norm(dim=1) / 10
    return Prediction(far[:, None], far + 0.1, torch.full_like(far, 0.1) * (1 - far), far)


@pytest.fixture
def toy():
    return Surfaces(methods={"radial": radial}, size=9)


def test_means_at_the_points_and_on_the_ring_by_hand(toy):
    told = toy.means("radial", 0.2, 4)
    moons = plane("moons", 300, noise=0.2)
    assert told["epistemic"][0] == pytest.approx(np.linalg.norm(moons.X, axis=1).mean() / 10)
    assert told["epistemic"][1] == pytest.approx(0.4)
    assert told["aleatoric"][1] == pytest.approx(0.06)
    assert toy.words("radial", 0.2, 4).endswith(", 0.400 on the ring")


def test_the_grid_runs_from_the_upper_left(toy):
    assert toy.grid[0].tolist() == [-6, 6]
    assert toy.grid[8].tolist() == [6, 6]
    assert toy.grid[-1].tolist() == [6, -6]
    values, _, _ = toy._drawn("radial", 0.1)
    assert values["epistemic"][4, 4] == 0  # the middle
    assert values["epistemic"][0, 4].item() == pytest.approx(0.6)


@pytest.mark.parametrize("noise", models.MOON_NOISES)
def test_the_methods_are_the_packages(noise):
    shown = Surfaces(size=5)
    nets, moons = shown.worlds[noise].nets, plane("moons", 300, noise=noise)
    x, y = torch.as_tensor(moons.X), torch.as_tensor(moons.y)
    fitted = laplace_last_layer(nets.members[0], x, y)
    wanted = {
        "ensemble of 5": ensemble(list(nets.members), shown.grid),
        "MC dropout": mc_dropout(nets.members[0], shown.grid),
        "Bayes by backprop": mc_weights(nets.bayes, shown.grid),
        "Laplace": fitted.predict(shown.grid),
    }
    assert list(wanted) == list(METHODS)
    for method, want in wanted.items():
        got = shown.ask(method, noise)["grid"]
        torch.testing.assert_close(got.epistemic, want.epistemic, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", models.MOON_NOISES)
def test_ignorance_grows_away_from_the_points_and_noise_does_not(method, noise):
    """The figure that lesson `uncertainty` promises, for all that can be chosen.

    With a noise of .1 there is hardly any to begin with: the ensemble has .0066 at the points.
    """
    shown = Surfaces(size=5)
    far = [shown.means(method, noise, distance) for distance in (4, 5, 6)]
    near = far[0]
    assert all(one["epistemic"][1] > 1.2 * near["epistemic"][0] for one in far)
    assert all(one["aleatoric"][1] < max(near["aleatoric"][0], 0.02) for one in far)


def test_controls_change_picture_and_words_and_nothing_is_asked_twice():
    asked = []

    def counted(world, points):
        asked.append(len(points))
        return radial(world, points)

    box = explorer(Surfaces(methods={"one": radial, "two": counted}, size=9))
    method, noise, distance, image, words = box.children
    assert [one.description for one in box.children[:3]] == ["Method", "Noise", "Distance"]
    seen = {image.value}
    for control, value in ((method, "two"), (noise, 0.4), (distance, 6), (noise, 0.2)):
        control.value = value
        assert f"{method.value}, noise {noise.value:g}, distance {distance.value:g}" in words.value
        seen.add(image.value)
    assert len(seen) == 4  # the ring, and no method of these two differs in the picture
    assert len(asked) == 2
    assert "role='status'" in words.value


def test_an_answer_takes_less_than_a_third_of_a_second():
    shown = Surfaces()
    assert len(shown.worlds) == 4
    for method in METHODS:
        shown.png(method, 0.1, 4)  # the first forward of a process is slow
        began = process_time()
        shown.png(method, 0.4, 4)
        assert process_time() - began < 0.3
    began = process_time()
    shown.png("MC dropout", 0.4, 6)
    assert process_time() - began < 0.1


def test_outside_a_notebook_the_sentence_is_printed(capsys):
    uncertainty_surface(methods={"radial": radial}, size=9)
    said = capsys.readouterr().out
    assert said.startswith("In words: radial, noise 0.2, distance 4: aleatoric ")
    assert "Over the plane, total is" in said


def test_certainty_is_a_coin_at_most():
    assert Surfaces(methods={"radial": radial})._scale["top"] == log(2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"methods": {}}, ValueError, "methods is empty"),
        ({"extent": 0.0}, ValueError, "extent must be a positive number, got 0.0"),
        ({"extent": float("nan")}, ValueError, "extent"),
        ({"size": 0}, ValueError, "size"),
        ({"size": 2.5}, TypeError, "size"),
    ],
)
def test_bad_input_is_named(options, error, words):
    with pytest.raises(error, match=words):
        uncertainty_surface(**options)


def test_a_small_plane_has_a_ring_too():
    assert Surfaces(methods={"radial": radial}, extent=0.5, size=4).distances == [0.5]
    box = explorer(Surfaces(methods={"radial": radial}, extent=2.5, size=4))
    assert box.children[2].value == 2


def test_the_function_is_not_hidden_by_its_module():
    assert widgets.uncertainty_surface is uncertainty_surface
