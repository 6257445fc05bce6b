"""What is shipped is whole and small, has a card, and can be made again."""

import re

import pytest
import torch
from safetensors.torch import load_file

from xailab import models
from xailab.models import card, recipes
from xailab.models.weight_files import FOLDER, vocabulary_file, weights_file

NAMES = list(recipes.RECIPES)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_small_and_hold_tensors_alone(name):
    assert weights_file(name).stat().st_size < 1_000_000
    weights = load_file(weights_file(name))
    wanted = getattr(models, name)().state_dict()
    assert {key: value.shape for key, value in weights.items()} == {
        key: value.shape for key, value in wanted.items()
    }
    assert all(value.isfinite().all() for value in weights.values())
    assert all(value.dtype == torch.float32 for value in weights.values())


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in (FOLDER / "weights").iterdir()) < 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_card_tells_the_size(name):
    parameters = sum(value.numel() for value in load_file(weights_file(name)).values())
    kilobytes = weights_file(name).stat().st_size / 1000
    if name != "digit_cnn_marked":  # the same network as digit_cnn
        assert f"{parameters:,} parameters, {kilobytes:.0f} kB" in card(name)
    assert f"`python -m xailab.models.recipes {name}`" in card(name)
    for part in ("**What.**", "**Trained on.**", "**Measured", "**Use.**", "**License.**"):
        assert part in card(name)


def test_no_card_is_missing_and_none_is_left_over():
    assert {path.stem for path in (FOLDER / "weights").iterdir()} == set(NAMES)
    cards = {path.stem for path in (FOLDER / "cards").iterdir()}
    assert cards == {*NAMES, "efficientnet_lite0", "minilm"}


@pytest.mark.parametrize("name", NAMES)
def test_each_call_gives_a_new_model_ready_to_be_asked(name):
    one, other = getattr(models, name)(), getattr(models, name)()
    assert not any(module.training for module in one.modules())
    with torch.no_grad():
        list(one.parameters())[-1].add_(100)
    assert list(other.parameters())[-1].max() < 50


# --- the recipes' parts; a whole training takes a minute or more


def test_training_learns_what_can_be_learnt_and_is_the_same_each_time():
    x = torch.arange(40.0)[:, None]
    y = (x[:, 0] >= 20).long()
    one, other = (
        recipes._fit(lambda: torch.nn.Linear(1, 2), x / 20 - 1, y, lambda x: x, epochs=40, rate=0.1)
        for _ in range(2)
    )
    assert recipes._accuracy(one, x / 20 - 1, y) > 0.9
    assert torch.equal(one.weight, other.weight)
    assert not one.training


def test_digits_are_shifted_by_two_pixels_at_most():
    x = torch.zeros(1, 1, 28, 28)
    x[0, 0, 14, 14] = 1
    torch.manual_seed(0)
    places = {tuple(torch.nonzero(recipes._shifted(x)[0, 0])[0].tolist()) for _ in range(300)}
    assert places == {(i, j) for i in range(12, 17) for j in range(12, 17)}


def test_noise_moves_every_pixel_as_far_as_an_attack_may():
    torch.manual_seed(0)
    change = recipes._noisy(torch.full((1, 1, 28, 28), 0.5)) - 0.5
    torch.testing.assert_close(change.abs(), torch.full((1, 1, 28, 28), 0.1))
    assert 0.4 < (change > 0).float().mean() < 0.6
    assert recipes._noisy(torch.zeros(1, 1, 28, 28)).min() == 0


def test_forgetting_hides_one_word_in_ten_and_cuts_common_padding():
    torch.manual_seed(0)
    ids = torch.full((500, 30), 7)
    ids[:, 20:] = 0
    ids[0, 10:] = 0
    changed = recipes._forgetful(ids)
    assert changed.shape == (500, 20)
    assert set(changed.unique().tolist()) == {0, 1, 7}
    assert torch.equal(changed == 0, ids[:, :20] == 0)
    assert (changed == 1).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert ids.unique().tolist() == [0, 7]  # the data themselves are not changed


def test_the_command_writes_weights_and_words(tmp_path, monkeypatch, capsys):
    vocabulary = models.Vocabulary.of(["win a prize", "see you"])
    made = models.GRUClassifier(vocabulary, width=2, hidden=2)
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr("xailab.models.weight_files.FOLDER", tmp_path)
    monkeypatch.setitem(recipes.RECIPES, "sms_gru", lambda: (made, {"accuracy": 0.51239}))
    recipes.main(["sms_gru"])
    assert re.match(r"sms_gru \{'accuracy': 0.5124\} \d+", capsys.readouterr().out)
    torch.testing.assert_close(load_file(weights_file("sms_gru")), dict(made.state_dict()))
    assert models.Vocabulary.read(vocabulary_file("sms_gru")).words == vocabulary.words


def test_a_recipe_that_is_not_there():
    with pytest.raises(SystemExit, match=r"no recipe 'digit_rnn'; there are .*digit_cnn, "):
        recipes.main(["digit_rnn"])
