"""The GRU computes what its equations say, and is as good as its card says."""

import re

import pytest
import torch
from sklearn.metrics import f1_score

from xailab.data import load
from xailab.models import GRUClassifier, Vocabulary, card, sms_gru, sms_transformer

WORDS = Vocabulary(["<pad>", "<unk>", *"abcdef"])


def by_hand(model, ids):
    """Read one text word by word with the published equations."""
    w_r, w_z, w_n = model.gru.weight_ih_l0.chunk(3)
    u_r, u_z, u_n = model.gru.weight_hh_l0.chunk(3)
    b_r, b_z, b_n = model.gru.bias_ih_l0.chunk(3)
    c_r, c_z, c_n = model.gru.bias_hh_l0.chunk(3)
    h = torch.zeros(model.gru.hidden_size)
    for i in ids:
        x = model.embedding.weight[i]
        r = torch.sigmoid(w_r @ x + b_r + u_r @ h + c_r)
        z = torch.sigmoid(w_z @ x + b_z + u_z @ h + c_z)
        n = torch.tanh(w_n @ x + b_n + r * (u_n @ h + c_n))
        h = (1 - z) * n + z * h
    return model.fc.weight @ h + model.fc.bias


@torch.no_grad()
def test_equals_the_equations():
    torch.manual_seed(0)
    model = GRUClassifier(WORDS, width=5, hidden=7, n_classes=3)
    texts = ["a b c d e f", "c", "", "f f"]
    rows = [[2, 3, 4, 5, 6, 7], [4], [], [7, 7]]
    expected = torch.stack([by_hand(model, row) for row in rows])
    torch.testing.assert_close(model(model.encode(texts)), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_unit_small_enough_for_paper():
    # all weights 0 but the candidate's, n = tanh(x): r = z = 1/2, so h' = (tanh(x) + h) / 2
    model = GRUClassifier(Vocabulary(["<pad>", "<unk>", "up"]), width=1, hidden=1, n_classes=1)
    for parameter in model.parameters():
        parameter.zero_()
    model.gru.weight_ih_l0[2] = 1
    model.fc.weight[:] = 8
    model.embedding.weight[2] = 50  # tanh(50) = 1
    states = model.states(model.embed(model.encode(["up up up"])))
    assert states.flatten().tolist() == pytest.approx([0, 1 / 2, 3 / 4, 7 / 8])
    assert model(model.encode(["up", "up up", "up up up", ""])).flatten().tolist() == [4, 6, 7, 0]


@torch.no_grad()
def test_a_state_is_what_it_would_say_if_the_text_ended_there():
    model = sms_gru()
    ids = model.encode(["Free prize ! see you"])
    along = model.fc(model.states(model.embed(ids)))[0]
    prefixes = model(model.encode(["", "Free", "Free prize", "Free prize !"]))
    torch.testing.assert_close(along[:4], prefixes, rtol=0, atol=1e-5)
    assert along.shape == (6, 2)


def test_padding_before_a_word_is_refused():
    model = GRUClassifier(WORDS)
    with pytest.raises(ValueError, match="padding must come after all words"):
        model(torch.tensor([[2, 3, 0], [2, 0, 3]]))


# --- the trained networks on text messages


@pytest.fixture(scope="module")
def sms():
    return load("sms")


@pytest.mark.parametrize("make", [sms_gru, sms_transformer])
@torch.no_grad()
def test_held_out_messages_as_the_card_says(sms, make):
    test = sms.take(~sms.extra["train"])
    model = make()
    said = model(model.encode(test.texts)).argmax(1).numpy()
    f1, right = f1_score(test.y, said), (said == test.y).mean()
    assert f1 >= 0.92
    text = card(make.__name__)
    assert f"on the other {len(test):,} messages, {test.y.sum()} of them spam" in text
    stated = re.search(r"F1 of spam (\.\d+), ([\d.]+) % right", text)
    assert f1 == pytest.approx(float(stated[1]), abs=0.0005 + 0.003)  # one message
    assert 100 * right == pytest.approx(float(stated[2]), abs=0.05 + 0.085)


def test_the_rival_is_as_good_as_the_cards_say(sms):
    from xailab.models.recipes import _tf_idf

    learn, test = sms.take(sms.extra["train"]), sms.take(~sms.extra["train"])
    f1 = f1_score(test.y, _tf_idf(learn.texts, learn.y, test.texts))
    for name in ("sms_gru", "sms_transformer"):
        stated = float(re.search(r"has an F1 of (\.\d+)", card(name))[1])
        assert f1 == pytest.approx(stated, abs=0.005)


def test_the_words_are_those_of_the_training_part(sms):
    expected = Vocabulary.of(sms.take(sms.extra["train"]).texts, at_least=3).words
    for make in (sms_gru, sms_transformer):
        assert make().vocabulary.words == expected
        assert f"{len(expected):,} words" in card(make.__name__)
