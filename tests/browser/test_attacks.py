"""The epsilon slider in a real notebook, by keyboard: arrows move epsilon, Enter the buttons."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = """\
import torch
from torch import nn
from xailab import widgets

torch.manual_seed(0)
nets = {name: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval() for name in ("plain", "robust")}
x = torch.rand(2, 1, 8, 8)
widgets.epsilon_slider(nets, x, torch.tensor([0, 1]), epsilons=[0.0, 0.1, 0.2])"""


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The slider on two small networks."""
    with explorer("epsilon", CELL) as shown:
        yield shown


def push(it: Explorer, control: str, name: str, words: str) -> None:
    """Press Enter on one of the buttons; the words must follow."""
    it.page.locator(f".xailab-epsilon-{control} button", has_text=name).focus()
    it.page.keyboard.press("Enter")
    expect(it.status).to_contain_text(words, timeout=20_000)


def test_keys_move_epsilon_network_attack_and_picture(it: Explorer) -> None:
    expect(it.status).to_contain_text("plain, FGSM, epsilon 0.10: ")
    it.press_and_look("radius", "ArrowRight", "plain, FGSM, epsilon 0.20: ")
    it.press_and_look("radius", "Home", "plain, FGSM, epsilon 0.00: stays ")
    it.press("radius", "End", "plain, FGSM, epsilon 0.20: ")
    push(it, "network", "robust", "robust, FGSM, epsilon 0.20: ")
    push(it, "attack", "PGD", "robust, PGD, epsilon 0.20: ")
    it.press_and_look("picture", "ArrowRight", "(a picture of 1)")


def test_every_control_is_reached_by_tab(it: Explorer) -> None:
    assert it.tab_order("picture") == ["picture", "network", "attack", "radius"]
