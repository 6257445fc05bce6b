"""Classifiers of Hugging Face: their words by hand, their answers as they are asked without us."""

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.classifiers import CONFIGS, MORE, TEXTS, bytes_, made, transformers, unigram, wordpiece
from tests.snapshots import Boom, Snapshot
from xailab.models import text_classifier
from xailab.models.text_classifiers import TextClassifier
from xailab.models.texts import SpecialToken

NAMES = [*CONFIGS]


def asked(model: nn.Module, tokenizer: Any, text: str) -> Tensor:
    """The logits of one text, (K,), as one asks for them without this package."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits[0]


def words(tokenizer: Any, text: str) -> tuple[list[str], list[int]]:
    """The words that are found in a text, and whose each piece is."""
    found, owner = text_classifier(made("BERT").model, tokenizer).encode([text])[0].words()
    return found, owner.tolist()


# --- words


def test_words_of_word_pieces() -> None:
    """Don't is don ' t, unfilmable is un ##film ##able; an emoticon is one word of three pieces."""
    found, owner = words(wordpiece(), "Don't: unfilmable  :-( !")
    assert found == ["[CLS]", "Don't", ":", "unfilmable", ":-(", "!", "[SEP]"]
    assert owner == [0, 1, 1, 1, 2, 3, 3, 3, 4, 4, 4, 5, 6]
    assert [isinstance(word, SpecialToken) for word in found] == [True, *[False] * 5, True]


def test_words_of_bytes() -> None:
    """A blank goes with the word behind it, and an emoji is one word of four bytes."""
    found, owner = words(bytes_(ends=False), "un film 👎 a ")
    assert found == ["un", "film", "👎", "a"]
    assert owner == [0, 1, *[2] * 5, 3, 3, 3]  # un Ġfilm Ġ ···· Ġ a Ġ: the last with the one before


def test_words_that_one_piece_reaches_across_are_one() -> None:
    assert words(unigram(), "a b") == (["[CLS]", "a b", "[SEP]"], [0, 1, 2])
    assert words(unigram(), "bad film")[0] == ["[CLS]", "bad", "film", "[SEP]"]


def test_a_word_that_the_tokenizer_passes_over_has_no_piece() -> None:
    """BERT's cleaning drops the replacement character."""
    found, owner = words(wordpiece(), "a \ufffd film")
    assert found == ["[CLS]", "a", "\ufffd", "film", "[SEP]"]
    assert owner == [0, 1, 3, 4]


def test_a_special_token_in_the_text_is_a_word_of_it() -> None:
    found, owner = words(wordpiece(), "a [SEP] film")
    assert found == ["[CLS]", "a", "[SEP]", "film", "[SEP]"]
    assert owner == [0, 1, 2, 3, 4]
    assert not isinstance(found[2], SpecialToken)


@pytest.mark.parametrize("make", [wordpiece, bytes_, unigram])
def test_every_piece_has_a_word_and_words_are_in_the_text(make: Any) -> None:
    tokenizer = make()
    for text in [*TEXTS, "", " ", "  a\n\nfilm ", "ＦＩＬＭ ½ naïve e\u0301", "好电影。", "a" * 30]:
        batch = tokenizer(text)
        found, owner = words(tokenizer, text)
        assert len(owner) == len(batch["input_ids"])
        own = [word for word in found if not isinstance(word, SpecialToken)]
        assert "".join("".join(own).split()) == "".join(text.split())
        for place, token in zip(owner, batch.tokens(), strict=True):
            assert isinstance(found[place], SpecialToken) == (
                token in ("[CLS]", "[SEP]", "<s>", "</s>") or not own
            )


# --- answers


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_answers_are_those_of_the_model_whatever_stands_beside(name: str) -> None:
    model, tokenizer = made(name)
    want = torch.stack([asked(model, tokenizer, text) for text in TEXTS])
    net = text_classifier(model.eval(), tokenizer)
    with torch.no_grad():
        got = net(net.encode(TEXTS))
        vectors = net.forward_embedded(net.embed(net.encode(TEXTS)), net.encode(TEXTS))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors, want, rtol=0, atol=1e-12)
    assert (want.std(0) > 0.01).any()


@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "GPT-2", "DeBERTa-v2"])
def test_answers_are_those_of_a_padded_batch(name: str) -> None:
    model, tokenizer = made(name)
    net = text_classifier(model.eval(), tokenizer)
    with torch.no_grad():
        want = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        torch.testing.assert_close(net(net.encode(TEXTS)), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_other_vectors_go_where_the_pieces_stood(name: str) -> None:
    """As by inputs_embeds, which is right where no ids are asked for: here is no padding."""
    model, tokenizer = made(name)
    (row,) = text_classifier(model, tokenizer).readings(TEXTS[:1])
    vectors = torch.cat([row.vectors, 0.5 * row.vectors.flip(1)])
    model.eval()
    kwargs = {}
    if name == "Longformer":  # looks from the first piece everywhere, if it is given ids
        kwargs["global_attention_mask"] = (
            (torch.arange(row.vectors.shape[1]) == 0).long()[None].repeat(2, 1)
        )
    with torch.no_grad():
        want = model(inputs_embeds=vectors, **kwargs).logits
        torch.testing.assert_close(row.on_vectors(vectors), want, rtol=0, atol=1e-9)
    assert (want[0] - want[1]).abs().max() > 1e-3


def test_positions_are_those_of_the_ids() -> None:
    """RoBERTa counts no padding token, not even one in the text: inputs_embeds would."""
    model, tokenizer = made("RoBERTa")
    (row,) = text_classifier(model, tokenizer).readings(["a<pad> film"])
    assert row.words == ["<s>", "a", "<pad>", "film", "</s>"]
    want = asked(model, tokenizer, "a<pad> film")
    with torch.no_grad():
        torch.testing.assert_close(row.on_vectors.eval()(row.vectors)[0], want)
        assert (model(inputs_embeds=row.vectors).logits[0] - want).abs().max() > 1e-3


def test_token_types_out_of_the_same_table() -> None:
    """GPT-2 adds the vector of the type's id: types stay what they are, words are replaced."""
    names = ["input_ids", "attention_mask", "token_type_ids"]
    model, _ = made("GPT-2")
    tokenizer = bytes_.__wrapped__(ends=False, model_input_names=names)
    (row,) = text_classifier(model, tokenizer).readings(["a film"])
    with torch.no_grad():
        want = asked(model, tokenizer, "a film")
        torch.testing.assert_close(row.on_vectors.eval()(row.vectors)[0], want)
        vectors = 0.5 * row.vectors
        types = model.get_input_embeddings()(torch.zeros(1, 2, dtype=torch.int64))
        want = model(inputs_embeds=vectors + types).logits
        torch.testing.assert_close(row.on_vectors(vectors), want)


def test_a_model_that_knows_no_padding_reads_one_text_after_the_other() -> None:
    model, tokenizer = made("GPT-2", pad_token_id=None)
    net = text_classifier(model.eval(), tokenizer)
    with torch.no_grad():
        with pytest.raises(ValueError, match="batch sizes > 1"):
            model(**tokenizer(TEXTS, padding=True, return_tensors="pt"))
        want = torch.stack([asked(model, tokenizer, text) for text in TEXTS])
        torch.testing.assert_close(net(net.encode(TEXTS)), want)
        (row,) = net.readings(TEXTS[1:2])
        torch.testing.assert_close(row.on_vectors(row.vectors.repeat(3, 1, 1)), want[[1, 1, 1]])


def test_a_text_without_pieces_is_one_padding_token() -> None:
    model, tokenizer = made("GPT-2")
    net = text_classifier(model.eval(), tokenizer)
    with torch.no_grad():
        got = net(net.encode(["", "a film"]))
        want = model(torch.tensor([[1]]), attention_mask=torch.tensor([[1]])).logits[0]
    torch.testing.assert_close(got[0], want)
    torch.testing.assert_close(got[1], asked(model, tokenizer, "a film"))
    (row,) = net.readings([""])
    assert row.words == ["<pad>"]
    assert isinstance(row.words[0], SpecialToken)
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = bare.eos_token = None
    with pytest.raises(ValueError, match=r"no piece of ''.*set tokenizer.pad_token"):
        text_classifier(model, bare).encode([""])


# --- length


def test_what_is_cut_off_is_said_and_left_out() -> None:
    model, tokenizer = made("BERT")
    net = text_classifier(model, tokenizer, max_length=5)  # two of them are [CLS] and [SEP]
    with pytest.warns(UserWarning, match=r"more pieces than the 5.*cut off"):
        (row,) = net.readings(["a good bad film"])
    assert row.words == ["[CLS]", "a", "good", "bad", "[SEP]"]
    with pytest.warns(UserWarning, match="more pieces"):
        (row,) = net.readings(["a unfilmable film"])
    assert row.words == ["[CLS]", "a", "unfilmable", "[SEP]"]  # its last piece is not read
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net.readings(["a good film"])[0].vectors.shape[1] == 5
    left = copy.deepcopy(tokenizer)
    left.truncation_side = "left"
    with pytest.warns(UserWarning, match="more pieces"):
        (row,) = text_classifier(model, left, max_length=5).readings(["a good bad film"])
    assert row.words == ["[CLS]", "good", "bad", "film", "[SEP]"]


@pytest.mark.parametrize(
    ("name", "options", "length"),
    [
        ("BERT", {}, 64),
        ("BERT", {"model_max_length": 16}, 16),
        ("RoBERTa", {}, 64),  # of 66 places, two stand before the first word
        ("GPT-2", {}, 64),
        ("DeBERTa-v2", {}, None),  # only how far words are apart counts
        ("Llama", {}, None),
    ],
)
def test_the_length_is_known(name: str, options: Any, length: int | None) -> None:
    model, tokenizer = made(name)
    tokenizer = copy.deepcopy(tokenizer)
    for key, value in options.items():
        setattr(tokenizer, key, value)
    net = text_classifier(model, tokenizer)
    assert net.max_length == length
    if length is not None:
        with pytest.warns(UserWarning, match=f"the {length} that"):
            assert len(net.encode(["a " * 80])[0].tokens) == length
        net.readings(["a " * (length // 2 - 3)])  # as long as it is, it can be read


def test_a_length_that_the_model_cannot_read() -> None:
    net = text_classifier(*made("BERT"), max_length=70)
    with pytest.raises(ValueError, match=r"cannot read 66 pieces.*max_length= of at most 64"):
        net.eval()(net.encode(["a " * 64]))


# --- what is left


@pytest.mark.parametrize("name", ["BERT", "GPT-2"])
def test_nothing_is_left_behind(name: str) -> None:
    model, tokenizer = made(name)
    tokenizer = copy.deepcopy(tokenizer)
    inner = tokenizer.backend_tokenizer
    inner.enable_truncation(7)
    inner.enable_padding(pad_id=1, pad_token="<pad>", length=9)
    settings = inner.truncation, inner.padding
    net = text_classifier(model, tokenizer, max_length=30)
    lengths = [len(row) for row in tokenizer(TEXTS[1:])["input_ids"]]
    before = Snapshot(model, torch.zeros(1))
    rows = net.readings(TEXTS[1:])
    before.check()
    assert [len(row.owner) for row in rows] == lengths
    inner.enable_truncation(7)
    inner.enable_padding(pad_id=1, pad_token="<pad>", length=9)
    net.encode(TEXTS[1:])
    assert (inner.truncation, inner.padding) == settings
    model.register_forward_hook(_boom)
    before = Snapshot(model, torch.zeros(1))
    with pytest.raises(Boom):
        net.readings(TEXTS[1:])
    before.check()


def _boom(*_: Any) -> None:
    raise Boom


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precisions(dtype: torch.dtype) -> None:
    model, tokenizer = made("BERT")
    want = asked(model, tokenizer, TEXTS[0])
    (row,) = text_classifier(model.to(dtype), tokenizer).readings(TEXTS[:1])
    with torch.no_grad():
        got = row.on_vectors.eval()(row.vectors)[0]
    assert row.vectors.dtype == got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_vectors_of_no_word() -> None:
    model, tokenizer = made("BERT")
    net, table = text_classifier(model, tokenizer), model.get_input_embeddings().weight
    for name, place in (("pad", 0), ("unk", 1), ("mask", 4)):
        assert torch.equal(net.vector_of(name), table[place])
    with pytest.raises(ValueError, match=r"no 'mask' token.*it has 'pad', and"):
        text_classifier(*made("GPT-2")).vector_of("mask")


# --- what is refused


class Aside(nn.Module):
    """Uses its table without calling it, so that nothing can be put in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(280, 3)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.table.weight[input_ids].sum(1))


class Twice(Aside):
    """Reads the text once more, from behind."""

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return self.table(input_ids).sum(1) * self.table(input_ids.flip(1))[:, 0]


def _language_model() -> nn.Module:
    return transformers.GPT2LMHeadModel(CONFIGS["GPT-2"][0]())


def _t5() -> nn.Module:
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    ids = {"vocab_size": 280, "eos_token_id": 2, "decoder_start_token_id": 1}
    return transformers.T5ForSequenceClassification(transformers.T5Config(**sizes, **ids))


def _canine() -> nn.Module:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CanineConfig(**sizes, num_hash_buckets=8, intermediate_size=8)
    return transformers.CanineForSequenceClassification(config)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(2, 2), TypeError, "get_input_embeddings.*got Linear"),
        (lambda: print, TypeError, "get_input_embeddings.*got builtin"),
        (_canine, ValueError, "Canine.*no layer that gives each piece.*lime_text"),
        (_language_model, ValueError, r"GPT2LMHeadModel must give logits \(N, K\).*\(1, 7, 280\)"),
        (_t5, ValueError, "T5For.*an encoder with a decoder.*second time.*lime_text"),
        (Aside, ValueError, "Aside answers otherwise.*lime_text"),
        (Twice, ValueError, "Twice answers otherwise.*lime_text"),
    ],
)
def test_models_that_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        text_classifier(make(), bytes_()).readings(["filmable"])


def test_lime_may_ask_an_encoder_with_a_decoder() -> None:
    model = _t5().eval()
    net = text_classifier(model, bytes_())
    with torch.no_grad():
        got = net(net.encode(TEXTS[1:]))
    torch.testing.assert_close(got[0], asked(model, bytes_(), TEXTS[1]))


class Slow:
    is_fast = False


@pytest.mark.parametrize(
    ("tokenizer", "texts", "error", "message"),
    [
        (Slow(), TEXTS, TypeError, "fast one.*got Slow"),
        (None, TEXTS, TypeError, "fast one.*got NoneType"),
        (wordpiece(), "a film", TypeError, "list of strings, got str"),
        (wordpiece(), [], ValueError, "empty"),
        (wordpiece(), torch.tensor([[2, 5, 3]]), TypeError, "the texts, not their ids"),
    ],
)
def test_texts_and_tokenizers_that_are_refused(
    tokenizer: Any, texts: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        text_classifier(made("BERT").model, tokenizer).readings(texts)


def test_the_tokenizer_of_another_model() -> None:
    small = made("BERT", vocab_size=12)
    with pytest.raises(ValueError, match=r"the id 16.*vectors for 12 ids.*of this model"):
        text_classifier(*small).encode(["a film"])


@pytest.mark.parametrize(("length", "error"), [(0, ValueError), (2.0, TypeError)])
def test_a_length_that_is_none(length: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_length"):
        TextClassifier(*made("BERT"), max_length=length)
