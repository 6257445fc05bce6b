"""Feature visualization against hand-computed numbers, NumPy's transform and torch's Adam."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tests.snapshots import unchanged
from tests.toys import Toy, inputs, linear, toy
from xailab.core import capture
from xailab.data import load, photos
from xailab.foundations import feature_visualization as module
from xailab.foundations.feature_visualization import (
    correlate_colors,
    deep_dream,
    fourier_to_pixels,
    jitter,
    likeness,
    maximize,
    pad,
    radial_spectrum,
    rotate,
    scale,
    total_variation,
)
from xailab.models import digit_cnn

PLAIN: dict[str, Any] = {"parametrization": "pixel", "transforms": ()}
SMALL: dict[str, Any] = {"n_steps": 3, "shape": (3, 8, 8)}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def lively(dtype: torch.dtype = torch.float32) -> Toy:
    """The toy network, its last ReLUs open for gray pictures."""
    net = toy(dtype)
    net.norm.bias.data += 1
    net.conv2.bias.data += 1
    return net


def judge() -> nn.Sequential:
    """A linear network: score 0 is the sum of weights times pixels."""
    return nn.Sequential(nn.Flatten(), linear([[3.0, -0.1, 2.0, -5.0], [1.0, 1.0, 1.0, 1.0]]))


# ---- by hand -----------------------------------------------------------------------------------


def test_the_first_step_on_a_linear_network_by_hand() -> None:
    """Adam's first step is the sign of the slope, which is the sign of the weight."""
    start = 0.01 * torch.randn(1, 1, 2, 2, generator=generator(4))
    signs = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    got = maximize(
        judge(), target=0, n_steps=1, seed=4, shape=(1, 2, 2), learning_rate=0.3, **PLAIN
    )
    torch.testing.assert_close(got, (start + 0.3 * signs).sigmoid(), rtol=1e-4, atol=1e-5)


def test_the_best_picture_of_a_linear_network_is_the_sign_of_its_weights() -> None:
    options: dict[str, Any] = {"shape": (1, 2, 2), "n_steps": 300, "learning_rate": 0.1, **PLAIN}
    got = maximize(judge(), target=[0, 1], **options)
    want = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    torch.testing.assert_close(got, want, rtol=0, atol=0.01)


def test_one_wave_by_hand() -> None:
    # One cycle across 4 pixels: f = 1/4, so the amplitude 1 becomes 4. The wave and its mirror
    # add up to 2 * 4 * cos(2 pi j / 4), and the orthonormal transform divides by sqrt(4).
    waves = torch.zeros(1, 1, 1, 3, dtype=torch.complex64)
    waves[..., 1] = 1
    want = torch.tensor([4.0, 0.0, -4.0, 0.0])
    torch.testing.assert_close(fourier_to_pixels(waves, 4).flatten(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 5), (5, 4)])
def test_waves_become_pixels_as_in_numpy(height: int, width: int) -> None:
    raw = torch.randn(2, 3, height, width // 2 + 1, 2, generator=generator(), dtype=torch.float64)
    waves = torch.view_as_complex(raw)
    rows, columns = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    slow = 1 / max(height, width)
    divided = waves.numpy().copy()
    for i, down in enumerate(rows):
        for j, across in enumerate(columns):
            divided[..., i, j] /= max(math.hypot(down, across), slow)
    want = np.fft.irfft2(divided, s=(height, width), norm="ortho")
    got = fourier_to_pixels(waves, width)
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-12)


def test_wrong_width_is_named() -> None:
    with pytest.raises(ValueError, match="width 9 takes 5 columns, got 4"):
        fourier_to_pixels(torch.zeros(1, 1, 4, 4, dtype=torch.complex64), 9)


def test_power_of_a_sine_by_hand() -> None:
    # amplitude 3, five cycles down: mean square 9/2, all of it at frequency 5
    sine = 3 * torch.sin(2 * math.pi * 5 * torch.arange(32) / 32)[:, None].expand(32, 32)
    found = radial_spectrum(7 + sine)
    assert found.frequency.tolist() == list(range(1, 24))  # the corner is 16 * sqrt(2) = 22.6
    want = torch.zeros(23)
    want[4] = 4.5
    torch.testing.assert_close(found.power, want, rtol=0, atol=1e-4)
    # how many waves have about five cycles, counted one by one
    frequencies = np.fft.fftfreq(32) * 32
    many = sum(round(math.hypot(a, b)) == 5 for a in frequencies for b in frequencies)
    assert found.density[4].item() == pytest.approx(4.5 / many, rel=1e-5)


def test_power_of_the_smallest_picture_by_hand() -> None:
    # a checkerboard of 0 and 1: mean 1/2, and half a wave of height 1/2 on the diagonal
    found = radial_spectrum(torch.eye(2))
    assert found.frequency.tolist() == [1]
    assert found.power.tolist() == [0.25]


@pytest.mark.parametrize("shape", [(16, 16), (7, 10), (3, 40, 6), (2, 3, 5, 5)])
def test_powers_add_up_to_the_variance(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=generator(), dtype=torch.float64)
    want = image.var(dim=(-2, -1), correction=0).mean()
    torch.testing.assert_close(radial_spectrum(image).power.sum(), want, rtol=0, atol=1e-12)


def test_white_noise_is_flat_and_photos_are_not() -> None:
    noise = torch.randn(100, 64, 64, generator=generator())
    flat = radial_spectrum(noise).density[:32] * 64 * 64  # variance 1, shared by 64 * 64 waves
    torch.testing.assert_close(flat, torch.ones(32), rtol=0, atol=0.15)
    photo = torch.tensor(photos().images[:5]).movedim(3, 1).float()
    found = radial_spectrum(photo)
    low, high = found.density[3], found.density[31]
    slope = torch.log(high / low) / math.log(32 / 4)
    assert -3 < slope < -1.5  # about 1 / f^2


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (torch.zeros(4, 4, dtype=torch.uint8), TypeError, "uint8"),
        (np.zeros((4, 4)), TypeError, "ndarray"),
        (torch.zeros(4), ValueError, r"\(4,\)"),
        (torch.zeros(1, 4), ValueError, r"\(1, 4\)"),
        (torch.full((4, 4), float("nan")), ValueError, "NaN"),
    ],
)
def test_bad_pictures_of_a_spectrum(image: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        radial_spectrum(image)


def test_total_variation_by_hand() -> None:
    x = torch.tensor([[[[0.0, 1.0, 4.0], [2.0, 1.0, 3.0]]]])
    # down: 2, 0, 1 -> 1; across: 1, 3, 1, 2 -> 7/4
    torch.testing.assert_close(total_variation(x), torch.tensor([2.75]))
    both = torch.cat([x, 0 * x])
    torch.testing.assert_close(total_variation(both), torch.tensor([2.75, 0.0]))


def test_likeness_by_hand() -> None:
    # Gram matrices [[1, 0], [0, 0]], [[1, 1], [1, 1]]: cosine 1 / 2; with a third one as the
    # first: pairs 1/2, 1/2 and 1 -> 2/3. Where on the map a channel is active plays no part.
    maps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])[:, :, None]
    assert likeness(maps).item() == pytest.approx(0.5)
    three = torch.cat([maps, maps[:1].flip(3)])
    assert likeness(three).item() == pytest.approx(2 / 3)
    assert likeness(maps[:1]).item() == 0


def test_colors_are_the_axes_of_our_photos() -> None:
    pixels = torch.tensor(photos().images).reshape(-1, 3).double() / 255
    values, axes = torch.linalg.eigh(torch.cov(pixels.T))
    want = (axes * values.sqrt()).flip(1)
    ours = torch.tensor(module._COLORS, dtype=torch.float64)
    torch.testing.assert_close(ours @ ours.T, want @ want.T, rtol=0, atol=2e-4)
    torch.testing.assert_close(ours.abs(), want.abs(), rtol=0, atol=1e-4)


def test_the_first_channel_is_brightness() -> None:
    gray = torch.zeros(1, 3, 1, 1)
    gray[:, 0] = 1
    red, green, blue = correlate_colors(gray).flatten().tolist()
    assert max(red, green, blue) - min(red, green, blue) < 0.1 < min(red, green, blue)


# ---- transforms --------------------------------------------------------------------------------


def test_pad_adds_a_frame() -> None:
    x = torch.ones(1, 1, 1, 2)
    want = torch.tensor([[0.5] * 4, [0.5, 1, 1, 0.5], [0.5] * 4])
    assert torch.equal(pad(1)(x, generator())[0, 0], want)


def test_jitter_moves_both_ways_and_around() -> None:
    x = torch.rand(2, 1, 7, 9)
    moves = {
        (down, right): x.roll((down, right), (2, 3)) for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
    source, seen = generator(), set()
    for _ in range(200):
        moved = jitter(1)(x, source)
        seen |= {move for move, want in moves.items() if torch.equal(moved, want)}
    assert seen == set(moves)


def test_scale_and_rotate_leave_a_picture_alone_at_one_and_zero() -> None:
    x = torch.rand(2, 3, 6, 9)
    torch.testing.assert_close(scale(1, 1)(x, generator()), x, rtol=0, atol=1e-5)
    torch.testing.assert_close(rotate(0)(x, generator()), x, rtol=0, atol=1e-5)


def test_scale_enlarges_about_the_center() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[..., 3:5, 3:5] = 1
    large = scale(2, 2)(x, generator())[0, 0]
    # a pixel's own value and half-way values beside it: 2 x 2 ones become about 4 x 4
    assert large[3:5, 3:5].eq(1).all()
    assert large.sum().item() == pytest.approx(16, abs=0.1)
    assert scale(0.5, 0.5)(x, generator()).sum().item() == pytest.approx(1, abs=0.1)


def test_rotate_turns_shapes_and_not_only_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_uniform", lambda low, high, generator: high)
    x = torch.rand(1, 2, 8, 8)
    quarter = rotate(90)(x, generator())
    turned = [torch.rot90(x, k, (2, 3)) for k in (1, -1)]
    assert any(torch.allclose(quarter, want, atol=1e-4) for want in turned)
    wide = torch.zeros(1, 1, 21, 41)
    wide[..., 10, 15:26] = 1  # a bar of 11 pixels across stands upright after a quarter turn
    upright = rotate(90)(wide, generator())[0, 0]
    assert upright[:, 20].sum().item() == pytest.approx(11, abs=0.1)
    assert upright[:, :19].sum().item() == pytest.approx(0, abs=0.1)


def test_scale_refuses_senseless_factors() -> None:
    for low, high in ((0.0, 1.0), (1.2, 1.1), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="0 < low <= high"):
            scale(low, high)


# ---- written a second time ---------------------------------------------------------------------


def test_maximize_equals_a_plain_loop_with_torch_adam() -> None:
    """All by torch's own optimizer, with a penalty, one roll of the picture and a channel."""
    net = lively(torch.float64).eval()
    wanted = 0.01 * torch.randn(2, 3, 8, 8, generator=generator(3))
    numbers = wanted.double().requires_grad_()
    optimizer = torch.optim.Adam([numbers], lr=0.1)
    draw = generator(3)
    torch.randn(2, 3, 8, 8, generator=draw)
    for _ in range(20):
        picture = 1 / (1 + torch.exp(-numbers))
        down, right = torch.randint(-2, 3, (2,), generator=draw).tolist()
        x = torch.roll(picture, (down, right), (2, 3)) * 2 - 1
        maps = net.relu2(net.conv2(net.pool(net.relu1(net.norm(net.conv1(x))))))
        loss = -maps[0, 4].mean() - maps[1, 2, 1, 3]
        differences = (picture[:, :, 1:] - picture[:, :, :-1]).abs().mean() * 2
        differences = differences + (picture[..., 1:] - picture[..., :-1]).abs().mean() * 2
        loss = loss + 0.7 * differences + 0.3 * ((picture - 0.5) ** 2).mean() * 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    got = maximize(
        lively(torch.float64),
        layer="relu2",
        unit=[4, (2, 1, 3)],
        parametrization="pixel",
        transforms=[jitter(2)],
        n_steps=20,
        seed=3,
        shape=(3, 8, 8),
        normalize=lambda p: p * 2 - 1,
        learning_rate=0.1,
        variation=0.7,
        decay=0.3,
    )
    torch.testing.assert_close(got, torch.sigmoid(numbers.detach()), rtol=0, atol=1e-7)


def test_deep_dream_equals_a_plain_loop() -> None:
    net = lively(torch.float64).eval()
    photo = torch.rand(1, 3, 12, 18, generator=generator(), dtype=torch.float64)
    draw, added = generator(5), torch.zeros(1, 3, 12, 18, dtype=torch.float64)
    for size in ((6, 9), (12, 18)):
        small = F.interpolate(photo, size, mode="bilinear")
        x = (small + F.interpolate(added, size, mode="bilinear")).clamp(0, 1)
        for _ in range(2):
            down, right = torch.randint(-4, 5, (2,), generator=draw).tolist()
            moved = torch.roll(x, (down, right), (2, 3)).requires_grad_()
            maps = net.conv1(moved)
            (gradient,) = torch.autograd.grad(maps.square().sum() / maps.numel(), moved)
            gradient = torch.roll(gradient, (-down, -right), (2, 3))
            x = torch.clamp(x + 0.02 * gradient / gradient.abs().mean(), 0, 1)
        added = x - small
    options: dict[str, Any] = {"n_octaves": 2, "octave_scale": 2, "n_steps": 2, "step_size": 0.02}
    got = deep_dream(toy(torch.float64), photo, layer="conv1", move=4, seed=5, **options)
    torch.testing.assert_close(got, x, rtol=0, atol=1e-10)


# ---- properties --------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrization", ["pixel", "fourier"])
@pytest.mark.parametrize(
    "goal",
    [{"target": 2}, {"layer": "relu2", "unit": 1}, {"layer": "relu2", "unit": (1, 2, 0)}],
)
def test_the_score_rises_and_the_picture_is_one(goal: dict[str, Any], parametrization: str) -> None:
    scores: list[float] = []
    options: dict[str, Any] = {"shape": (3, 8, 10), "n_steps": 40, "transforms": ()}
    got = maximize(
        lively(),
        **goal,
        parametrization=parametrization,
        callback=lambda step, pictures, score: scores.append(score.item()),
        **options,
    )
    assert got.shape == (1, 3, 8, 10)
    assert got.min() >= 0
    assert got.max() <= 1
    assert not got.requires_grad
    assert len(scores) == 40
    assert scores[-1] > scores[0]


def test_nothing_behind_the_layer_is_computed() -> None:
    net = lively()
    ran: list[str] = []
    net.fc.register_forward_hook(lambda *_: ran.append("fc"))
    maximize(net, layer="relu2", unit=0, **SMALL)
    assert not ran
    maximize(net, target=0, **SMALL)
    assert len(ran) == 3


def test_a_neuron_changes_only_what_it_sees() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
    got = maximize(net, layer="0", unit=(1, 0, 0), shape=(1, 6, 6), n_steps=30, **PLAIN)
    moved = (got - 0.5).abs()[0, 0] > 0.05  # the start differs from gray by 0.0025 or so
    assert moved[:2, :2].all()
    assert not moved[2:].any()
    assert not moved[:, 2:].any()


@pytest.mark.parametrize(
    ("option", "measure"),
    [
        ({"variation": 5.0}, lambda p: total_variation(p).mean()),
        ({"decay": 50.0}, lambda p: ((p - 0.5) ** 2).mean()),
        ({"diversity": 50.0}, lambda p: likeness(toy().eval().conv1(p))),
    ],
    ids=["variation", "decay", "diversity"],
)
def test_penalties_do_what_they_say(option: dict[str, float], measure: Any) -> None:
    options: dict[str, Any] = {"layer": "conv1", "unit": [2, 2, 2], "shape": (3, 8, 8)}
    options |= {"n_steps": 60, "learning_rate": 0.1}
    plain, held = maximize(lively(), **options), maximize(lively(), **options, **option)
    assert measure(held).item() < 0.8 * measure(plain).item()


def test_seed_decides_and_nothing_else() -> None:
    first = maximize(lively(), target=1, seed=3, **SMALL)
    torch.manual_seed(123)
    assert torch.equal(maximize(lively(), target=1, seed=3, **SMALL), first)
    assert not torch.equal(maximize(lively(), target=1, seed=4, **SMALL), first)


def test_the_callback_may_keep_what_it_gets() -> None:
    kept: list[tuple[int, Tensor]] = []
    last = maximize(
        lively(), target=0, callback=lambda step, p, score: kept.append((step, p)), **SMALL
    )
    assert [step for step, _ in kept] == [0, 1, 2]
    assert not torch.equal(kept[0][1], kept[2][1])
    assert not torch.equal(kept[2][1], last)  # it comes before the step


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode: Callable[[], Any]) -> None:
    want = maximize(lively(), target=1, **SMALL)
    dream = deep_dream(toy(), inputs(1), layer="conv1", n_steps=1)
    net = lively()
    with mode():
        torch.testing.assert_close(maximize(net, target=1, **SMALL), want)
        torch.testing.assert_close(deep_dream(net, inputs(1), layer="conv1", n_steps=1), dream)


def test_double_stays_double() -> None:
    assert maximize(lively(torch.float64), target=0, **SMALL).dtype == torch.float64
    photo = inputs(1, torch.float64)
    assert deep_dream(toy(torch.float64), photo, layer="conv1").dtype == torch.float64


def test_deep_dream_raises_what_the_layer_sees() -> None:
    net, photo = lively().eval(), inputs(1)
    for unit in (None, 2):
        dream = deep_dream(net, photo, layer="conv1", unit=unit, n_octaves=2, octave_scale=1.2)

        def seen(x: Tensor, unit: int | None = unit) -> float:
            maps = net.conv1(x)
            return ((maps**2).mean() if unit is None else maps[0, unit].mean()).item()

        assert seen(dream) > 1.05 * seen(photo)
        assert dream.shape == photo.shape
        assert dream.min() >= 0
        assert dream.max() <= 1


# ---- where it goes wrong -----------------------------------------------------------------------


def fine_share(picture: Tensor) -> float:
    """Share of the variance in waves shorter than four pixels."""
    found = radial_spectrum(picture)
    return (found.power[found.frequency > picture.shape[-1] / 4].sum() / found.power.sum()).item()


def test_plain_gradient_ascent_makes_noise_that_beats_every_real_digit() -> None:
    """The lesson's first claim: a higher score than any digit, with no digit in the picture."""
    net = digit_cnn()
    real = torch.tensor(load("mnist5k").images)[:, None].float() / 255
    with torch.no_grad():
        best = torch.cat([net(part)[:, 3] for part in real.split(500)]).max().item()
    options: dict[str, Any] = {"shape": (1, 28, 28), "n_steps": 60, "learning_rate": 0.1}
    noise = maximize(net, target=3, **PLAIN, **options)
    smooth = maximize(net, target=3, transforms=[jitter(2), rotate(10)], variation=20, **options)
    with torch.no_grad():
        assert net(noise)[0, 3].item() > best
    assert fine_share(noise) > 2 * fine_share(smooth)


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "either target, or layer and unit"),
        ({"target": 0, "layer": "relu2", "unit": 0}, ValueError, "either target"),
        ({"layer": "relu2"}, ValueError, "either target"),
        ({"unit": 3}, ValueError, "either target"),
        ({"target": 0, "unit": 3}, ValueError, "either target"),
        ({"target": 4}, ValueError, r"0\.\.3, got"),
        ({"target": -1}, ValueError, r"0\.\.3, got"),
        ({"target": "cat"}, TypeError, "str"),
        ({"target": 1.0}, TypeError, "float"),
        ({"target": []}, ValueError, "empty"),
        ({"target": 0, "diversity": 1.0}, ValueError, "diversity .* needs layer"),
        ({"layer": "rleu2", "unit": 0}, ValueError, "no layer 'rleu2'.*relu2"),
        ({"layer": "relu2", "unit": 5}, ValueError, r"\(5, 4, 4\), .*there is no unit 5"),
        ({"layer": "relu2", "unit": -1}, ValueError, "no unit -1"),
        ({"layer": "relu2", "unit": (0, 4, 0)}, ValueError, r"no unit \(0, 4, 0\)"),
        ({"layer": "fc", "unit": (0, 0, 0)}, ValueError, r"\(4,\), .*there is no unit"),
        ({"layer": "relu2", "unit": (0, 1)}, ValueError, "channel, row, column"),
        ({"layer": "relu2", "unit": (0,)}, ValueError, "channel, row, column"),
        ({"layer": "relu2", "unit": 1.5}, TypeError, "channel"),
        ({"layer": "relu2", "unit": True}, TypeError, "channel"),
        ({"layer": "relu2", "unit": []}, ValueError, "empty"),
        ({"target": 0, "parametrization": "wavelet"}, ValueError, "'fourier' or 'pixel'"),
        ({"target": 0, "shape": (8, 8)}, ValueError, r"\(C, H, W\)"),
        ({"target": 0, "shape": (3, 0, 8)}, ValueError, "shape"),
        ({"target": 0, "shape": (5, 8, 8)}, ValueError, "refuses x"),
        ({"target": 0, "n_steps": 0}, ValueError, "n_steps"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], words: str) -> None:
    model, x = lively(), inputs()
    with unchanged(model, x), pytest.raises(error, match=words):
        maximize(model, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("image", "options", "error", "words"),
    [
        (inputs(2), {}, ValueError, r"one picture"),
        (inputs(1) * 255, {}, ValueError, r"lie in \[0, 1\]"),
        (inputs(1)[0], {}, ValueError, "one picture"),
        (inputs(1), {"octave_scale": 1.0}, ValueError, "octave_scale"),
        (inputs(1), {"n_octaves": 0}, ValueError, "n_octaves"),
        (inputs(1), {"unit": 99}, ValueError, "no unit 99"),
        (inputs(1).numpy(), {}, TypeError, "ndarray"),
    ],
)
def test_bad_dreams_are_named(
    image: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    model, x = lively(), inputs()
    with unchanged(model, x), pytest.raises(error, match=words):
        deep_dream(model, image, layer="conv1", **options)


def test_a_dead_unit_gives_an_error_and_not_noise() -> None:
    net = lively()
    net.conv2.bias.data[3] = -99
    with unchanged(net, inputs()), pytest.raises(ValueError, match=r"score of number 1:.*ReLU"):
        maximize(net, layer="relu2", unit=[0, 3], **SMALL)


def test_a_function_has_no_units() -> None:
    with pytest.raises(TypeError, match=r"nn\.Module, got function"):
        maximize(lambda x: x, target=0)  # type: ignore[arg-type]


# ---- integers, axes, precision, gradients --------------------------------------------------------


@pytest.mark.parametrize("as_given", [np.int64, np.array, torch.tensor])
def test_units_and_classes_are_integers_of_any_kind(as_given: Any) -> None:
    one, two, none = as_given(1), as_given(2), as_given(0)
    for mine, same in (
        ({"layer": "relu2", "unit": one}, {"layer": "relu2", "unit": 1}),
        ({"layer": "relu2", "unit": (one, 2, none)}, {"layer": "relu2", "unit": (1, 2, 0)}),
        ({"layer": "relu2", "unit": [none, one]}, {"layer": "relu2", "unit": range(2)}),
        ({"target": two, "seed": none}, {"target": 2}),
        ({"target": [two, none]}, {"target": np.array([2, 0])}),
        ({"target": [two, none]}, {"target": torch.tensor([2, 0])}),
    ):
        assert torch.equal(maximize(lively(), **mine, **SMALL), maximize(lively(), **same, **SMALL))
    photo = inputs(1).sigmoid()
    dreams = [deep_dream(lively(), photo, layer="conv1", unit=u) for u in (as_given(1), 1)]
    assert torch.equal(*dreams)


class Last(nn.Module):
    """A convolution whose channels are moved to the last axis, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 5, 3), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_a_channel_on_the_last_axis() -> None:
    net, grown = Last(), []
    options: dict[str, Any] = {"shape": (3, 8, 9), "n_steps": 2, "transforms": ()}

    def by_hand(step: int, pictures: Tensor, scores: Tensor) -> None:
        maps = net.norm(net.conv(pictures).permute(0, 2, 3, 1))  # (1, 6, 7, 5)
        grown.append((scores.item(), maps[0, :, :, 4].mean().item(), maps[0, 5, 6, 4].item()))

    maximize(net, layer="norm", unit=4, callback=by_hand, **options)
    assert [a for a, *_ in grown] == pytest.approx([b for _, b, _ in grown])
    grown.clear()
    maximize(net, layer="norm", unit=(4, 5, 6), callback=by_hand, **options)
    assert [a for a, *_ in grown] == pytest.approx([c for *_, c in grown])
    with pytest.raises(ValueError, match="there is no unit 5"):
        maximize(net, layer="norm", unit=5, **options)


class Mixed(nn.Module):
    """Two layers that do not answer unit by unit, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.number, self.head = nn.Flatten(0), nn.Flatten(0), nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.flat(x).unflatten(0, (len(x), -1))
        return self.head(self.number(rows.mean(1, keepdim=True))[:, None])


@pytest.mark.parametrize("layer", ["flat", "number"])
def test_layers_without_units_are_refused(layer: str) -> None:
    with pytest.raises(ValueError, match=rf"{layer!r} gives \(\d+,\) for 1 rows: no units"):
        maximize(Mixed(), layer=layer, unit=0, shape=(1, 4, 4), n_steps=1)


def test_a_single_output_is_class_0() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    net[1].weight.data = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    options: dict[str, Any] = {"shape": (1, 2, 2), "n_steps": 30, "learning_rate": 0.5, **PLAIN}
    for model in (net, nn.Sequential(*net, nn.Flatten(0))):
        got = maximize(model, target=0, **options)
        assert got.round().flatten().tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parametrization", ["pixel", "fourier"])
def test_pictures_in_every_precision(parametrization: str, dtype: torch.dtype) -> None:
    """Adam's steps follow the signs of slopes, so the pictures differ; their scores do not."""
    options: dict[str, Any] = {"layer": "relu2", "unit": [0, 1], "shape": (3, 16, 16)}
    options |= {"n_steps": 20, "parametrization": parametrization, "transforms": (rotate(9),)}
    judge, pictures = lively().eval(), maximize(lively().to(dtype), **options)
    assert pictures.dtype == dtype

    def scores(pictures: Tensor) -> Tensor:
        with torch.no_grad(), capture(judge, "relu2") as kept:
            judge(pictures.float())
        return kept["relu2"].mean((2, 3)).diagonal()

    gray, want = scores(torch.full_like(pictures, 0.5)), scores(maximize(lively(), **options))
    assert ((scores(pictures) - gray) / (want - gray) > 0.9).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dreams_and_spectra_in_every_precision(dtype: torch.dtype) -> None:
    photo = torch.rand(1, 3, 12, 12, generator=generator())
    options: dict[str, Any] = {"layer": "conv1", "n_octaves": 2, "n_steps": 3, "move": 2}
    want = deep_dream(lively(), photo, **options)
    got = deep_dream(lively().to(dtype), photo.to(dtype), **options)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, rtol=0, atol=0.03)
    torch.testing.assert_close(
        radial_spectrum(photo.to(dtype)).power.float(), radial_spectrum(photo).power,
        rtol=0.05, atol=1e-4,
    )  # fmt: skip


class Cut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self.conv(x)
        return self.fc(maps.mean((2, 3)))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_no_gradient_is_an_error_and_not_noise(n_steps: int) -> None:
    options: dict[str, Any] = {"shape": (3, 8, 8), "n_steps": n_steps}
    for goal in ({"target": 0}, {"layer": "conv", "unit": 0}):
        for penalty in ({}, {"variation": 1.0, "decay": 1.0}):
            with pytest.raises(ValueError, match="no gradient reaches the pictures"):
                maximize(Cut(), **goal, **penalty, **options)
    with pytest.raises(ValueError, match="no gradient reaches the picture"):
        deep_dream(Cut(), torch.rand(1, 3, 8, 8), layer="conv", n_steps=n_steps)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jitter(-1), ValueError, "pixels must be at least 0"),
        (lambda: jitter(0.5), TypeError, "pixels must be an integer"),
        (lambda: maximize(lively(), target=0, seed=0.5), TypeError, "seed must be an integer"),
        (lambda: maximize(lively(), target=0, shape=8), ValueError, r"\(C, H, W\)"),
        (
            lambda: deep_dream(lively(), inputs(1).sigmoid(), layer="conv1", octave_scale=math.nan),
            ValueError,
            "octave_scale",
        ),
        (
            lambda: deep_dream(lively(), inputs(1).sigmoid(), layer="conv1", move=-1),
            ValueError,
            "move must be at least 0",
        ),
    ],
)
def test_numbers_are_looked_at(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
