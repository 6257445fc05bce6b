"""The network learns the tones, and for the right reason."""

import numpy as np
import pytest
import torch

from xailab import data
from xailab.models import ToneCNN, tone_cnn

CLIPS = data.tones()


def pictures(spectrograms):
    return torch.as_tensor(spectrograms)[:, None]


@pytest.fixture(scope="module")
def model():
    return tone_cnn(CLIPS)


@torch.no_grad()
def test_clips_it_never_heard(model):
    test = CLIPS.test
    assert (model(pictures(test.spectrograms)).argmax(1).numpy() == test.y).mean() >= 0.97


@torch.no_grad()
def test_the_truth_is_what_it_hears(model):
    """Silence the note that decides and it guesses; silence another place and it stays right."""
    test = CLIPS.test
    without = np.where(test.truth, 0, test.spectrograms)
    moved = np.where(np.roll(test.truth, 16, axis=2), 0, test.spectrograms)
    assert (model(pictures(without)).argmax(1).numpy() == test.y).mean() < 0.4
    assert (model(pictures(moved)).argmax(1).numpy() == test.y).mean() > 0.95


@torch.no_grad()
def test_the_same_note_a_quarter_later_is_no_evidence(model):
    """Every note moves on by a quarter; none of these bells then plays in the fourth."""
    test = CLIPS.test
    bell = test.take((test.y == 2) & ~test.notes[:, 2, 2])
    later = pictures(np.roll(bell.spectrograms, 16, axis=2))
    before = model(pictures(bell.spectrograms))[:, 2]
    assert (model(later)[:, 2] < before).float().mean() > 0.95


def test_same_seed_same_network_and_nothing_left_behind():
    few = data.tones(n=24)
    before = torch.get_rng_state()
    with torch.no_grad():  # a caller who has gradients off can train all the same
        one, same, other = (tone_cnn(few, epochs=1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.fc.weight, same.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)
    assert not one.training


def test_layers_that_methods_ask_for():
    shapes = {}
    model = ToneCNN()
    model.relu3.register_forward_hook(lambda *call: shapes.update(relu3=tuple(call[-1].shape)))
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 4)
    assert shapes == {"relu3": (2, 16, 16, 16)}


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"\(N, 1, 64, 64\), got shape \(1, 64, 64\)"):
        ToneCNN()(torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match="epochs"):
        tone_cnn(data.tones(n=12), epochs=0)
