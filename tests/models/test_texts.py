"""Words to ids and back, and what a network on words refuses."""

import pytest
import torch

from xailab.models import GRUClassifier, TextTransformer, Vocabulary, sms_gru, sms_transformer
from xailab.models.texts import pieces, word

WORDS = ["<pad>", "<unk>", "call", "now", "!", "000", "don't"]
VOCABULARY = Vocabulary(WORDS)
BOTH = [GRUClassifier, TextTransformer]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call NOW!!", ["Call", "NOW", "!", "!"]),
        ("don't, don’t", ["don't", ",", "don’t"]),
        ("08712abc £1.50", ["08712", "abc", "£", "1", ".", "50"]),
        ("ü wat_ever :-)", ["ü", "wat", "_", "ever", ":", "-", ")"]),
        ("'quoted'", ["'", "quoted", "'"]),
        (" \n\t", []),
        ("", []),
    ],
)
def test_pieces(text, expected):
    assert pieces(text) == expected


def test_no_visible_character_is_lost():
    text = "Txt £2/min 2 win_a 50% (T&C's)… naïve 你好 x²"
    assert "".join(pieces(text)) == "".join(text.split())


def test_writing_of_words():
    assert [word(each) for each in ("NOW", "0871", "Don’t", "Ü")] == ["now", "0000", "don't", "ü"]


def test_encoding_by_hand():
    ids = VOCABULARY.encode(["Call 123 now!", "Don’t go", ""])
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[2, 5, 3, 4], [6, 1, 0, 0], [0, 0, 0, 0]]
    assert VOCABULARY.decode(ids) == [["call", "000", "now", "!"], ["don't", "<unk>"], []]


def test_cutting():
    assert VOCABULARY.encode(["call now now", "!"], max_length=2).tolist() == [[2, 3], [4, 0]]


def test_only_texts_without_words():
    assert VOCABULARY.encode(["", " "]).tolist() == [[0], [0]]


def test_vocabulary_of_texts_is_ordered_by_frequency_then_alphabet():
    made = Vocabulary.of(["b a c a", "B a d"])
    assert made.words == ["<pad>", "<unk>", "a", "b", "c", "d"]
    assert Vocabulary.of(["b a c a", "B a d"], at_least=2).words == ["<pad>", "<unk>", "a", "b"]
    assert len(made) == 6


def test_reading_a_file(tmp_path):
    (tmp_path / "words.txt").write_text("\n".join([*WORDS, "ü"]), encoding="utf-8")
    assert Vocabulary.read(tmp_path / "words.txt").words == [*WORDS, "ü"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["call", "now"], r"begins with \['<pad>', '<unk>'\], got \['call', 'now'\]"),
        ([], r"got \[\]"),
        ([*WORDS, "now"], "'now' comes more often"),
    ],
)
def test_what_is_no_vocabulary(words, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(words)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("call now", TypeError, "list of strings, got str: call now"),
        ([b"call"], TypeError, "list of strings"),
        (["call", None], TypeError, "list of strings"),
        ([], ValueError, "empty"),
    ],
)
def test_what_cannot_be_encoded(texts, error, message):
    with pytest.raises(error, match=message):
        VOCABULARY.encode(texts)


# --- what both networks on words promise


@pytest.fixture(params=BOTH)
def model(request):
    torch.manual_seed(0)
    return request.param(VOCABULARY).eval()


@torch.no_grad()
def test_padding_never_changes_an_answer(model):
    texts = ["call now !", "call", "don't call 123 now"]
    ids = model.encode(texts)
    logits = model(ids)
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    longer = torch.nn.functional.pad(ids, (0, 20))
    torch.testing.assert_close(model(longer), logits, rtol=0, atol=1e-6)
    alone = torch.cat([model(model.encode([text])) for text in texts])
    torch.testing.assert_close(alone, logits, rtol=0, atol=1e-6)


@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(model):
    ids = model.encode(["call now !", "call"])
    vectors, mask = model.embed(ids), ids != 0
    logits = model.forward_embedded(vectors, mask)
    vectors[1, 1:] = 100
    torch.testing.assert_close(model.forward_embedded(vectors, mask), logits, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_order_of_words_matters(model):
    one, other = model(model.encode(["call now !", "! now call"]))
    assert (one - other).abs().max() > 1e-4


@torch.no_grad()
def test_a_text_without_words_has_an_answer(model):
    logits = model(model.encode(["", "call now"]))
    assert logits.isfinite().all()
    torch.testing.assert_close(model(model.encode([""])), logits[:1])


def test_the_two_halves_are_the_whole(model):
    ids = model.encode(["call now !", "call"])
    vectors = model.embed(ids)
    assert vectors.shape == (2, 3, 32)
    assert vectors[1, 1:].abs().sum() == 0  # padding is the zero vector
    assert torch.equal(model(ids), model.forward_embedded(vectors, ids != 0))
    assert torch.equal(model(ids[:1]), model.forward_embedded(vectors[:1]))
    one_mask = model.forward_embedded(vectors[:1].expand(4, -1, -1), ids[:1] != 0)
    torch.testing.assert_close(one_mask, model(ids[:1]).expand(4, -1))


def test_gradients_reach_the_word_vectors_and_not_the_padding(model):
    ids = model.encode(["call now !", "call"])
    vectors = model.embed(ids).detach().requires_grad_()
    logits = model.forward_embedded(vectors, ids != 0)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), vectors)
    assert (gradient.abs().sum(2) > 0).tolist() == [[True] * 3, [True, False, False]]


@pytest.mark.parametrize("make", [sms_gru, sms_transformer])
def test_integrated_gradients_through_the_word_vectors_are_complete(make):
    from captum.attr import IntegratedGradients

    model = make().double()
    ids, _ = model.encode(["WIN a free prize! Call 09061701461 now", "a longer one" * 5]).split(1)
    vectors, mask = model.embed(ids).detach(), ids != 0
    method = IntegratedGradients(lambda rows: model.forward_embedded(rows, mask))
    parts = method.attribute(vectors, target=1, n_steps=200)
    with torch.no_grad():
        change = model(ids)[0, 1] - model.forward_embedded(0 * vectors, mask)[0, 1]
    assert change > 4
    # 1 %: at the zero vector the transformer's first LayerNorm is steep
    assert parts.sum().item() == pytest.approx(change.item(), rel=0.01)
    assert parts[0, ~mask[0]].abs().max() == 0


@torch.no_grad()
def test_double_precision(model):
    ids = model.encode(["call now !", "call"])
    single = model(ids)
    double = model.double()(ids)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.ones(1, 2), TypeError, "int64.*got torch.float32; vectors go to forward_embedded"),
        (torch.ones(1, 2, dtype=torch.bool), TypeError, "got torch.bool"),
        ([[1, 2]], TypeError, "got list"),
        (torch.tensor([1, 2]), ValueError, r"\(N, T\), got shape \(2,\)"),
        (torch.zeros(0, 3, dtype=torch.int64), ValueError, r"got shape \(0, 3\)"),
        (torch.tensor([[1, 7]]), ValueError, r"0\.\.6, got 7"),
        (torch.tensor([[1, -1]]), ValueError, r"0\.\.6, got -1"),
    ],
)
def test_what_are_no_ids(model, ids, error, message):
    with pytest.raises(error, match=message):
        model(ids)


@pytest.mark.parametrize(
    ("vectors", "mask", "error", "message"),
    [
        (
            torch.zeros(2, 3, 32).double(),
            None,
            TypeError,
            "float32 as the weights, got torch.float64",
        ),
        (torch.zeros(2, 3, 31), None, ValueError, r"\(N, T, 32\), got shape \(2, 3, 31\)"),
        (torch.zeros(3, 32), None, ValueError, r"got shape \(3, 32\)"),
        (torch.zeros(2, 3, 32), torch.ones(2, 3), TypeError, "bool.*got torch.float32"),
        (
            torch.zeros(2, 3, 32),
            torch.ones(3, 2) > 0,
            ValueError,
            r"\(2, 3\) or \(1, 3\), got shape \(3, 2\)",
        ),
    ],
)
def test_what_are_no_word_vectors(model, vectors, mask, error, message):
    with pytest.raises(error, match=message):
        model.forward_embedded(vectors, mask)
