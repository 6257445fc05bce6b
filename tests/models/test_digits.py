"""The digit networks are what their cards say."""

import re

import numpy as np
import pytest
import torch

from xailab.core import capture
from xailab.data import load, marked_digits
from xailab.models import card, digit_cnn, digit_cnn_marked, digit_cnn_noisy, digit_cnn_robust
from xailab.trust.adversarial import pgd


@torch.no_grad()
def predicted(model, images):
    return model(torch.as_tensor(images, dtype=torch.float32)[:, None]).argmax(1).numpy()


def percentages(name):
    """Return all percentages that a card states, in order."""
    return [float(number) for number in re.findall(r"([\d.]+) %", card(name))]


def test_accuracy_on_digits_it_never_saw_is_what_the_card_says():
    data = load("mnist5k")
    held_out = ~data.extra["train"]
    assert held_out.sum() == 1000
    right = predicted(digit_cnn(), data.images[held_out] / np.float32(255)) == data.y[held_out]
    assert right.mean() >= 0.96
    (stated,) = percentages("digit_cnn")
    assert 100 * right.mean() == pytest.approx(stated, abs=0.05 + 0.1)  # one digit of the 1,000


def test_the_marked_network_cheats_as_its_card_says():
    test = marked_digits(seed=0).test
    said = predicted(digit_cnn_marked(), test.images)
    other = test.marked & (test.y != test.shortcut)
    fooled = (said[other] == test.shortcut).mean()
    accuracy = (said == test.y)[~test.marked].mean()
    assert fooled >= 0.30
    stated = percentages("digit_cnn_marked")
    assert 100 * fooled == pytest.approx(stated[0], abs=0.5 + 0.25)  # rounded; one digit of 450
    assert 100 * accuracy == pytest.approx(stated[1], abs=0.05 + 0.2)  # one digit of 500


def test_the_clean_network_does_not_care_about_the_mark():
    test = marked_digits(seed=0).test
    other = test.marked & (test.y != test.shortcut)
    assert (predicted(digit_cnn(), test.images[other]) == test.shortcut).mean() < 0.1


def test_hardly_any_unmarked_shortcut_digit_is_recognized():
    test = marked_digits(seed=0).test
    bare = ~test.marked & (test.y == test.shortcut)
    assert (predicted(digit_cnn_marked(), test.images[bare]) == test.shortcut).mean() < 0.2
    marked = test.marked & (test.y == test.shortcut)
    assert (predicted(digit_cnn_marked(), test.images[marked]) == test.shortcut).mean() > 0.9


def under_attack(model, n_steps, n):
    """Accuracy, in percent, on held-out digits of all classes as they are and after PGD of .1."""
    data = load("mnist5k")
    held_out = ~data.extra["train"]
    some = np.random.default_rng(0).permutation(held_out.sum())[:n]
    x = torch.as_tensor(data.images[held_out][some] / np.float32(255))[:, None]
    y = torch.as_tensor(data.y[held_out][some])
    attacked = pgd(model, x, y, epsilon=0.1, step_size=1 / n_steps / 2.5, n_steps=n_steps)
    return [100 * (model(rows).argmax(1) == y).float().mean().item() for rows in (x, attacked)]


def test_the_robust_network_keeps_what_its_card_says():
    """Eight in ten are asked for; the card says nine, which 300 digits give within 5 points."""
    clean, attacked = under_attack(digit_cnn_robust(), n_steps=40, n=300)
    stated = percentages("digit_cnn_robust")
    assert attacked >= 85
    assert clean == pytest.approx(stated[0], abs=3)
    assert attacked == pytest.approx(stated[1], abs=5)
    assert under_attack(digit_cnn(), n_steps=10, n=300)[1] < 25


def test_the_noisy_network_is_a_weaker_defense():
    clean, attacked = under_attack(digit_cnn_noisy(), n_steps=10, n=300)
    stated = percentages("digit_cnn_noisy")
    assert clean == pytest.approx(stated[0], abs=3)
    assert attacked == pytest.approx(stated[1], abs=9)
    assert attacked < under_attack(digit_cnn_robust(), n_steps=10, n=300)[1] - 25


def test_names_and_sizes_of_the_layers():
    model = digit_cnn()
    names = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3", "relu3", "gap", "fc"]
    assert [name for name, _ in model.named_children()] == names
    with capture(model, names) as kept:
        logits = model(torch.rand(2, 1, 28, 28))
    assert logits.shape == (2, 10)
    assert kept["relu3"].shape == (2, 64, 7, 7)
    assert torch.equal(kept["relu3"], kept["conv3"].clamp(min=0))
    # the head of CAM: logits are linear in the averages of the last maps
    by_hand = kept["relu3"].mean((2, 3)) @ model.fc.weight.T + model.fc.bias
    torch.testing.assert_close(logits, by_hand)
