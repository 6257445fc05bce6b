"""The playground learns, stops when told, survives a diverging loss, and blocks nobody."""

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xailab import widgets
from xailab.models.loop import class_loss
from xailab.plots.boundaries import LARGE
from xailab.widgets import training
from xailab.widgets.training import (
    EXTENT,
    Player,
    Settings,
    Training,
    activation_picture,
    explorer,
    playground,
    trained_picture,
)


@pytest.fixture(autouse=True)
def nobody_trains() -> Iterator[None]:
    Player.stop_all()
    yield
    Player.stop_all()


class Parts:
    """The controls of an explorer, by name."""

    def __init__(self, box: Any) -> None:
        self.box = box
        panel, row, self.status, self.image = box.children
        found = [control for column in panel.children for control in column.children]
        names = ["data", "noise", "depth", "width", "activation", "residual", "learning_rate"]
        names.append("edges")
        self.controls = dict(zip(names, found, strict=True))
        self.train, self.stop, self.reset = row.children


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.01)


def epoch_of(parts: Parts) -> int:
    return int(parts.status.value.split("Epoch ")[1].split(":")[0])


# ---- Training ----------------------------------------------------------------------------------


def test_it_learns_the_moons_and_is_repeatable() -> None:
    runs = []
    for _ in range(2):
        training = Training(Settings(seed=3))
        start = training.loss
        for _ in range(40):
            training.run_epoch()
        runs.append((training.loss, training.png()))
        train, held_out = training.accuracies()
        assert training.loss < start / 3
        assert train > 0.9
        assert held_out > 0.9
    assert runs[0] == runs[1]


def test_training_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    training = Training(Settings())
    training.run_epoch()
    training.png()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_first_step_is_a_step_of_sgd() -> None:
    ours, theirs = Training(Settings(learning_rate=0.03)), Training(Settings(learning_rate=0.03))
    ours.run_epoch()
    optimizer = torch.optim.SGD(theirs.net.parameters(), 0.03, momentum=0.9)
    for batch in torch.randperm(200, generator=torch.Generator().manual_seed(0)).split(25):
        optimizer.zero_grad()
        logits = theirs.net(theirs.X[batch])
        torch.nn.functional.cross_entropy(logits, theirs.y[batch]).backward()
        optimizer.step()
    for a, b in zip(ours.net.parameters(), theirs.net.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_maps_are_the_networks_answers() -> None:
    training = Training(Settings(depth=2, width=3))
    decision, layers = training.maps()
    assert decision.shape == (72, 72)
    assert [tuple(maps.shape) for maps in layers] == [(3, 36, 36)] * 2
    corner = torch.tensor([[-EXTENT, EXTENT]])  # the upper left one comes first
    with torch.no_grad():
        p = training.net(corner).softmax(1)[0]
        torch.testing.assert_close(decision[0, 0], p[1] - p[0])
        torch.testing.assert_close(layers[0][:, 0, 0], training.net[0](corner)[0])


def test_a_diverging_loss_is_said_in_words_and_drawn() -> None:
    training = Training(Settings(activation="relu", depth=10, learning_rate=10.0, residual=True))
    for _ in range(30):
        training.run_epoch()
    assert training.diverged
    assert training.epoch < 30  # no step after that
    assert "the loss is no longer a number" in training.words()
    assert "learning rate 10" in training.words()
    assert training.png().startswith(b"\x89PNG")
    assert "no longer a number" in training.picture().alt
    assert training.gradient_words() == ""


def test_the_gradients_of_the_first_and_the_last_layer_are_said() -> None:
    training = Training(Settings(depth=4))
    logits = training.net(training.X[:200])
    loss = torch.nn.functional.cross_entropy(logits, training.y[:200])
    weights = [training.net[i].linear.weight for i in (0, 3)]
    first, last = (grad.norm().item() for grad in torch.autograd.grad(loss, weights))
    said = training.gradient_words()
    assert said == f"Norm of the gradient: {first:.2g} in layer 1, {last:.2g} in layer 4."
    assert Training(Settings(depth=1)).gradient_words().endswith("in layer 1.")
    assert said in Parts(explorer(Settings(depth=4))).status.value


def test_edges_are_weights_or_their_gradients() -> None:
    training = Training(Settings(depth=3, width=4, edges="weights"))
    weights = [training.net[i].linear.weight for i in (1, 2)]
    for line, weight in zip(training.lines() or [], weights, strict=True):
        assert torch.equal(line, weight)
    training.edges = "gradients"
    loss = class_loss(training.net(training.X[:200]), training.y[:200])
    for line, grad in zip(training.lines() or [], torch.autograd.grad(loss, weights), strict=True):
        torch.testing.assert_close(line, grad)
    assert all(parameter.grad is None for parameter in training.net.parameters())
    training.edges = "none"
    assert training.lines() is None
    assert Training(Settings(depth=1, edges="gradients")).lines() == []


def test_other_edges_go_on_with_the_same_network() -> None:
    parts = Parts(explorer(Settings(depth=2, width=3)))
    before = parts.image.value
    parts.controls["edges"].value = "gradients"
    assert parts.image.value != before
    parts.controls["edges"].value = "weights"
    assert parts.image.value == before


def test_activations_stand_above_their_derivatives() -> None:
    drawn = activation_picture(["sigmoid", "relu"], title="Two of them")
    upper, lower = drawn.figure.axes[:2], drawn.figure.axes[2:]
    assert [ax.get_title() for ax in upper] == ["sigmoid", "relu"]
    assert upper[0].lines[0].get_ydata()[-1] == pytest.approx(1 / (1 + np.exp(-4)))
    assert max(lower[0].lines[0].get_ydata()) == pytest.approx(0.25, abs=1e-4)
    jump = lower[1].lines[0].get_ydata()
    assert np.isnan(jump).sum() == 1  # a gap, not a slope
    assert "sigmoid, relu from -4 to 4" in drawn.alt
    with pytest.raises(ValueError, match="names must be some of"):
        activation_picture(["swoosh"], title="t")


def test_the_picture_says_what_it_shows() -> None:
    picture = trained_picture(Settings(data="xor", noise=0.0, depth=2), 30)
    assert picture.alt.startswith("The playground: xor with noise 0; 2 hidden layers of 6 tanh")
    assert "Epoch 30: loss 0." in picture.alt
    assert len(picture.png()) < 60_000


# ---- the widget --------------------------------------------------------------------------------


def test_controls_are_labeled_and_set() -> None:
    parts = Parts(explorer(Settings("spirals", 0.2, 4, 8, "relu", True, 0.03)))
    assert [control.description for control in parts.controls.values()] == [
        "Data set",
        "Noise",
        "Hidden layers",
        "Units in each",
        "Activation",
        "residual: a skip around each layer",
        "Learning rate",
        "Edges show",
    ]
    values = [control.value for control in parts.controls.values()]
    assert values == ["spirals", 0.2, 4, 8, "relu", True, 0.03, "weights"]
    assert "role='status' aria-live='polite'" in parts.status.value
    assert epoch_of(parts) == 0


def test_train_works_beside_others_and_stop_stops() -> None:
    async def drive() -> None:
        parts = Parts(explorer())
        first = bytes(parts.image.value)
        began = time.monotonic()
        parts.train.click()
        assert time.monotonic() - began < 0.5  # the click comes back at once
        turns = 0
        while epoch_of(parts) == 0 or turns < 5:  # this loop is the other cell
            turns += 1
            await asyncio.sleep(0.02)
        await until(lambda: bytes(parts.image.value) != first)
        assert "Training." in parts.status.value
        parts.stop.click()
        assert "Stopped." in parts.status.value
        stopped, picture = epoch_of(parts), bytes(parts.image.value)
        await asyncio.sleep(0.5)
        assert (epoch_of(parts), bytes(parts.image.value)) == (stopped, picture)
        parts.train.click()  # goes on, does not begin anew
        await until(lambda: epoch_of(parts) > stopped)

    asyncio.run(drive())


def test_two_clicks_train_once() -> None:
    async def drive() -> None:
        player = Player(Settings(), lambda _: None)
        player.start()
        player.start()
        await asyncio.sleep(0.3)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(others) == 1
        player.stop()
        player.start()  # at once, while the first task still sleeps
        await asyncio.sleep(0.6)
        assert len(asyncio.all_tasks() - {asyncio.current_task()}) == 1

    asyncio.run(drive())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", "circles"),
        ("noise", 0.4),
        ("depth", 5),
        ("width", 2),
        ("activation", "relu"),
        ("residual", True),
        ("learning_rate", 0.3),
    ],
)
def test_a_control_begins_anew(name: str, value: Any) -> None:
    async def drive() -> None:
        parts = Parts(explorer())
        parts.train.click()
        await until(lambda: epoch_of(parts) > 0)
        parts.stop.click()
        before = bytes(parts.image.value)
        parts.controls[name].value = value
        assert epoch_of(parts) == 0
        assert bytes(parts.image.value) != before
        parts.train.click()
        await until(lambda: epoch_of(parts) > 0)
        parts.controls["noise"].value = 0.25  # while it trains: it goes on
        await until(lambda: epoch_of(parts) > 0)
        assert "Training." in parts.status.value

    asyncio.run(drive())


def test_reset_stops_and_begins_anew() -> None:
    async def drive() -> None:
        parts = Parts(explorer())
        first = bytes(parts.image.value)
        parts.train.click()
        await until(lambda: epoch_of(parts) > 0)
        parts.reset.click()
        await asyncio.sleep(0.4)
        assert epoch_of(parts) == 0
        assert bytes(parts.image.value) == first

    asyncio.run(drive())


def test_a_diverging_loss_stops_the_widget() -> None:
    async def drive() -> None:
        parts = Parts(
            explorer(Settings(activation="relu", depth=10, residual=True, learning_rate=0.001))
        )
        parts.controls["learning_rate"].value = 10.0
        parts.train.click()
        await until(lambda: "no longer a number" in parts.status.value)
        await asyncio.sleep(0.3)
        assert len(asyncio.all_tasks()) == 1
        parts.controls["learning_rate"].value = 0.001
        parts.train.click()
        await until(lambda: "Training. Epoch" in parts.status.value)

    asyncio.run(drive())


def test_closed_or_shown_again_it_trains_no_more() -> None:
    async def drive() -> None:
        players: list[Player] = []
        for end in ("closed", "shown again", "another one trains"):
            parts = Parts(explorer())
            other = Parts(explorer())
            parts.train.click()
            await until(lambda parts=parts: epoch_of(parts) > 0)
            players.append(Player._active)
            if end == "closed":
                parts.box.close()
            elif end == "shown again":
                explorer()
            else:
                other.train.click()
            assert not players[-1].running, end
        await asyncio.sleep(0.3)
        assert len(asyncio.all_tasks()) == 2  # this one, and the last that was started

    asyncio.run(drive())


def test_it_comes_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LAST_EPOCH", 5)

    async def drive() -> None:
        parts = Parts(explorer())
        parts.train.click()
        await until(lambda: "Stopped after 5 epochs" in parts.status.value)
        assert epoch_of(parts) == 5

    asyncio.run(drive())


def test_an_error_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Training) -> None:
        raise RuntimeError("no <memory>")

    monkeypatch.setattr(Training, "run_epoch", fail)

    async def drive() -> None:
        parts = Parts(explorer())
        parts.train.click()
        await until(lambda: "no &lt;memory&gt;" in parts.status.value)
        assert Player._active is None or not Player._active.running

    asyncio.run(drive())


def test_without_an_event_loop_it_says_so() -> None:
    parts = Parts(explorer())
    parts.train.click()
    assert "Training needs the kernel of a notebook." in parts.status.value


def test_a_frame_is_cheap() -> None:
    training = Training(Settings(depth=10, width=8))
    training.png()
    began = time.process_time()
    for _ in range(5):
        training.png()
    assert (time.process_time() - began) / 5 < 0.15
    assert Image.open(io.BytesIO(training.png())).height > LARGE


def test_outside_a_notebook_the_sentence_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    playground("circles", epochs=3)
    assert capsys.readouterr().out.startswith("In words: The playground: circles")
    assert widgets.playground is playground


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "gauss"}, "circles, moons, xor, spirals; got 'gauss'"),
        ({"activation": "step"}, "activation must be one of relu"),
        ({"learning_rate": 0.5}, r"learning_rate must be one of 0\.001, .*; got 0\.5"),
        ({"noise": 0.6}, r"noise must lie in 0\.\.0\.5, got 0\.6"),
        ({"depth": 11}, r"depth must lie in 1\.\.10, got 11"),
        ({"width": 0}, r"width must lie in 1\.\.8, got 0"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        playground(**change)


def test_held_out_points_are_not_trained_on() -> None:
    training = Training(Settings(noise=0.0))
    clean = training.X.clone()
    training.y[200:] = 1 - training.y[200:]  # wrong labels there must not matter
    for _ in range(30):
        training.run_epoch()
    train, held_out = training.accuracies()
    assert train > 0.9
    assert held_out < 0.15
    assert np.array_equal(clean, training.X)
