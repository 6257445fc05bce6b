"""Words and sound: by hand on sums and products, by definition, and against captum."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from captum.attr import LayerIntegratedGradients, Occlusion
from torch import Tensor, nn

import xailab
from tests.classifiers import (
    CONFIGS,
    MORE,
    deciding,
    deciding_texts,
    made,
    transformers,
    wordpiece,
)
from tests.snapshots import Boom, Snapshot
from tests.toys import inputs, toy
from xailab import data
from xailab.attribution.attention import gradient_rollout
from xailab.attribution.relevance import relevance_balance
from xailab.attribution.sequences import (
    METHODS,
    RELEVANCE,
    Bands,
    band_occlusion,
    token_attributions,
)
from xailab.core.state import frozen
from xailab.models import (
    GRUClassifier,
    TextTransformer,
    ToneCNN,
    Vocabulary,
    sms_gru,
    sms_transformer,
    text_classifier,
    tone_cnn,
)
from xailab.models.text_classifiers import TextClassifier
from xailab.models.texts import TextModel

WORDS = Vocabulary(["<pad>", "<unk>", "two", "three", "minus"])
SHIPPED = [sms_gru, sms_transformer]


class Toy(TextModel):
    """Words with values 2, 3 and -1, and a network small enough for paper."""

    def __init__(self) -> None:
        super().__init__(WORDS, 1)
        self.embedding.weight.data[1:] = torch.tensor([[10.0], [2.0], [3.0], [-1.0]])


class Sum(Toy):
    """Score 5 times the sum of the words, and its negative."""

    def forward_embedded(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        score = 5 * (embeddings * self._mask(embeddings, mask)[..., None]).sum((1, 2))
        return torch.stack([score, -score], 1)


class Product(Toy):
    """Score: the first word times the second."""

    def forward_embedded(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        return embeddings[:, 0] * embeddings[:, 1]


@cache
def messages(n: int) -> list[str]:
    sms = data.load("sms")
    return sms.take(~sms.extra["train"]).texts[:n]


def small(make: Any) -> TextModel:
    """Return an untrained network in double precision with something in every parameter."""
    torch.manual_seed(0)
    model = make(WORDS, width=8, n_classes=3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        model.embedding.weight[0] = 0
    return model.double()


SMALL = [
    pytest.param(partial(small, make), id=make.__name__)
    for make in (GRUClassifier, TextTransformer)
]
TEXTS = ["two three minus two", "minus three"]
TARGETS = torch.tensor([2, 0])


# --- words


@pytest.mark.parametrize("method", METHODS)
def test_a_sum_by_hand(method: str) -> None:
    """Where words only add up, all methods agree: five times the value."""
    model, texts = Sum(), ["two minus three", "three"]
    tokens, weights, change = token_attributions(model, texts, 0, method=method, n_steps=3)
    assert tokens == [["two", "minus", "three"], ["three"]]
    torch.testing.assert_close(weights, torch.tensor([[10.0, -5, 15], [15, 0, 0]]))
    assert change.tolist() == [20, 15]
    other = token_attributions(model, texts, torch.tensor([1, 0]), method=method)
    torch.testing.assert_close(other.weights, torch.tensor([[-10.0, 5, -15], [15, 0, 0]]))


@pytest.mark.parametrize(
    ("method", "weights", "gap"),
    [
        ("integrated_gradients", [3, 3], 0),  # half of 6 each, on the straight path
        ("input_x_gradient", [6, 6], 6),  # 2 * 3 and 3 * 2
        ("occlusion", [6, 6], 6),  # without either word nothing is left
    ],
)
def test_a_product_by_hand(method: str, weights: list[float], gap: float) -> None:
    found = token_attributions(Product(), ["two three"], None, method=method)
    torch.testing.assert_close(found.weights, torch.tensor([weights]).float())
    assert found.change.item() == 6
    assert found.gap.item() == pytest.approx(gap, abs=1e-5)


def test_the_baseline_stands_for_no_word() -> None:
    """From <unk>, 10: 5 (2 - 10) and 5 (3 - 10); its vector is put in place of each word."""
    for method in ("integrated_gradients", "occlusion"):
        for baseline in (10.0, Sum().embedding.weight[1]):
            found = token_attributions(
                Sum(), ["two three", "three"], 0, method=method, baseline=baseline
            )
            torch.testing.assert_close(found.weights, torch.tensor([[-40.0, -35], [-35, 0]]))
            assert found.change.tolist() == [-75, -35]


@pytest.mark.parametrize("make", SMALL)
def test_integrated_gradients_equal_captum(make: Any) -> None:
    """The same points and weights; captum's have the rounding of single precision."""
    model = make()
    ids = model.encode(TEXTS)
    found = token_attributions(model, ids, TARGETS, n_steps=20)
    theirs = LayerIntegratedGradients(model.eval(), model.embedding).attribute(
        ids, baselines=torch.zeros_like(ids), target=TARGETS, n_steps=20
    )
    torch.testing.assert_close(found.weights, theirs.sum(2).detach(), rtol=0, atol=1e-6)
    assert found.weights.abs().max() > 0.1


@pytest.mark.parametrize("make", SMALL)
def test_gradients_and_occlusion_by_definition(make: Any) -> None:
    model = make().eval()
    ids = model.encode(TEXTS)
    vectors, mask = model.embed(ids).detach().requires_grad_(), ids != 0
    scores = model.forward_embedded(vectors, mask)[range(2), TARGETS]
    (slopes,) = torch.autograd.grad(scores.sum(), vectors)
    found = token_attributions(model, TEXTS, TARGETS, method="input_x_gradient")
    torch.testing.assert_close(found.weights, (slopes * vectors).sum(2).detach())
    found = token_attributions(model, TEXTS, TARGETS, method="occlusion")
    for j in range(ids.shape[1]):
        without = vectors.detach().clone()
        without[:, j] = 0
        drop = scores - model.forward_embedded(without, mask)[range(2), TARGETS]
        torch.testing.assert_close(found.weights[:, j], drop.detach())


@pytest.mark.parametrize(
    ("make", "n_steps", "error"), [(sms_gru, 100, 1e-3), (sms_transformer, 200, 0.02)]
)
def test_complete_on_real_messages(make: Any, n_steps: int, error: float) -> None:
    """The share of the change that is missing, in nine of ten messages."""
    found = token_attributions(make(), messages(20), 1, n_steps=n_steps, batch_size=50)
    share = (found.gap / found.change).abs()
    assert share.quantile(0.9) < error


def test_the_transformer_needs_more_steps_than_the_gru() -> None:
    shares = []
    for make in SHIPPED:
        found = token_attributions(make(), messages(20), 1, n_steps=20, batch_size=20)
        shares.append((found.gap / found.change).abs().median().item())
    assert shares[1] > 10 * shares[0]


@pytest.mark.parametrize("make", SHIPPED)
@pytest.mark.parametrize("method", METHODS)
def test_padding_gets_nothing_and_changes_nothing(make: Any, method: str) -> None:
    model = make().double()
    texts = ["WIN a free prize! Call 09061701461 now", "ok"]
    found = token_attributions(model, texts, 1, method=method, n_steps=10, baseline=0.1)
    assert (found.weights[1, 1:] == 0).all()
    alone = token_attributions(model, texts[1:], 1, method=method, n_steps=10, baseline=0.1)
    torch.testing.assert_close(alone.weights[0], found.weights[1, :1], rtol=0, atol=1e-9)
    torch.testing.assert_close(alone.change, found.change[1:], rtol=0, atol=1e-9)


def test_texts_are_shown_as_written_and_ids_as_the_vocabulary_has_them() -> None:
    model = sms_gru()
    texts = ["WIN a zyxwv 0871!", "", "ok"]
    written = token_attributions(model, texts, 1, method="occlusion")
    read = token_attributions(model, model.encode(texts), 1, method="occlusion")
    assert written.tokens == [["WIN", "a", "zyxwv", "0871", "!"], [], ["ok"]]
    assert read.tokens == [["win", "a", "<unk>", "0000", "!"], [], ["ok"]]
    torch.testing.assert_close(read.weights, written.weights)
    assert (written.weights[1] == 0).all()
    assert written.change[1] == 0


def test_long_texts_are_cut_like_the_ids() -> None:
    model = TextTransformer(WORDS, max_length=3)
    found = token_attributions(model, ["two three two minus"], 0, n_steps=2)
    assert found.tokens == [["two", "three", "two"]]
    assert found.weights.shape == (1, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", SMALL)
def test_nothing_is_left_behind(make: Any, method: str) -> None:
    model = make().train()
    ids = model.encode(TEXTS)
    before = Snapshot(model, ids)
    with torch.no_grad():
        found = token_attributions(model, ids, TARGETS, method=method, n_steps=3)
    before.check()
    assert not found.weights.requires_grad
    model.fc.register_forward_hook(_boom)
    before = Snapshot(model, ids)
    with pytest.raises(Boom):
        token_attributions(model, ids, TARGETS, method=method, n_steps=3)
    before.check()


def _boom(*_: Any) -> None:
    raise Boom


@pytest.mark.parametrize("method", METHODS)
def test_batch_size_does_not_change_the_answer(method: str) -> None:
    model = small(TextTransformer)
    want = token_attributions(model, TEXTS, TARGETS, method=method, n_steps=7).weights
    for batch_size in (1, 3):
        got = token_attributions(
            model, TEXTS, TARGETS, method=method, n_steps=7, batch_size=batch_size
        )
        torch.testing.assert_close(got.weights, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((nn.Linear(2, 2), TEXTS, 0), {}, TypeError, "TextModel.*got Linear"),
        ((Sum(), "two", 0), {}, TypeError, "list of strings, got str"),
        ((Sum(), [], 0), {}, ValueError, "empty"),
        ((Sum(), torch.rand(1, 2), 0), {}, TypeError, "float32"),
        ((Sum(), torch.tensor([[9]]), 0), {}, ValueError, r"0\.\.4, got 9"),
        ((Sum(), TEXTS, 2), {}, ValueError, r"0\.\.1.*2"),
        ((Sum(), TEXTS, None), {}, ValueError, "2 outputs"),
        ((Sum(), TEXTS, torch.tensor([0, 1, 0])), {}, ValueError, r"\(2,\)"),
        ((Sum(), TEXTS, 0), {"method": "ig"}, ValueError, "integrated_gradients.*got 'ig'"),
        ((Sum(), TEXTS, 0), {"n_steps": 0}, ValueError, "n_steps"),
        ((Sum(), TEXTS, 0), {"baseline": torch.zeros(3)}, ValueError, "broadcast"),
    ],
)
def test_what_is_refused(arguments: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        token_attributions(*arguments, **options)


def test_a_target_may_be_a_function() -> None:
    """The contrast of two scores is the difference of what each gives."""
    model = small(GRUClassifier)
    for method in METHODS:
        options: dict[str, Any] = {"method": method, "n_steps": 5}
        got = token_attributions(model, TEXTS, lambda y: y[:, 1] - y[:, 0], **options)
        one, zero = (token_attributions(model, TEXTS, t, **options) for t in (1, 0))
        torch.testing.assert_close(got.weights, one.weights - zero.weights)
        torch.testing.assert_close(got.change, one.change - zero.change)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method: str, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"method": method, "n_steps": 20}
    want = token_attributions(small(GRUClassifier), TEXTS, 1, **options)
    got = token_attributions(small(GRUClassifier).to(dtype), TEXTS, 1, **options)
    assert got.weights.dtype == dtype
    coarse = 8 * torch.finfo(dtype).eps * float(want.weights.abs().max())
    torch.testing.assert_close(got.weights.double(), want.weights, rtol=0, atol=coarse)


# --- classifiers of Hugging Face


class Adds(nn.Module):
    """Five times the sum of its pieces' numbers, and its negative: called as Hugging Face's are.

    The numbers are those of the ids: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, good 5, film 6,
    un 10, ##film 14, ##able 15.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(80, 1)
        self.table.weight.data = torch.arange(80.0, dtype=torch.float64)[:, None]

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        score = 5 * (self.table(input_ids) * attention_mask[..., None]).sum((1, 2))
        return SimpleNamespace(logits=torch.stack([score, -score], 1))


BROUGHT = [*CONFIGS]
PHRASES = ["A good film, with a bad end!", "unfilmable"]


@cache
def planted(name: str) -> tuple[TextClassifier, list[str], Tensor, Tensor]:
    """Train a small one in seconds on words that decide; return texts of the two classes, too."""
    net = text_classifier(*deciding(name))
    texts, classes, _ = deciding_texts(1024, seed=10)
    batch = net.tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for rows in torch.cat([torch.randperm(1024) for _ in range(6)]).split(64):
            logits = net.model(**{key: value[rows] for key, value in batch.items()}).logits
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, classes[rows]).backward()
            optimizer.step()
    texts, classes, places = deciding_texts(36, seed=99)
    some = (classes < 2).nonzero()[:, 0].tolist()
    return net.eval(), [texts[i] for i in some], classes[some], places[some]


def brought(name: str) -> TextClassifier:
    return text_classifier(*made(name))


@pytest.mark.parametrize("method", METHODS)
def test_words_of_pieces_by_hand(method: str) -> None:
    """Unfilmable is un ##film ##able: 5 (10 + 14 + 15); [CLS] and [SEP] bring 10 and 15."""
    net = text_classifier(Adds(), wordpiece())
    found = token_attributions(net, ["good unfilmable", "film"], 0, method=method)
    assert found.tokens == [["[CLS]", "good", "unfilmable", "[SEP]"], ["[CLS]", "film", "[SEP]"]]
    want = torch.tensor([[10.0, 25, 195, 15], [10, 30, 15, 0]]).double()
    torch.testing.assert_close(found.weights, want)
    assert found.change.tolist() == [245, 55]
    assert found.special.tolist() == [[True, False, False, True], [True, False, True, False]]
    assert found.gap.abs().max() < 1e-9


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_baselines_by_hand(method: str) -> None:
    """A token stands in place of every piece of a word, special tokens stay; a number is for all.

    Against [MASK], 4: 5 (5 - 4), and 5 (10 + 14 + 15 - 3 * 4).
    """
    net = text_classifier(Adds(), wordpiece())
    ask = partial(token_attributions, net, ["good unfilmable", "film"], 0, method=method)
    found = ask(baseline="mask")
    want = torch.tensor([[0.0, 5, 135, 0], [0, 10, 0, 0]]).double()
    torch.testing.assert_close(found.weights, want)
    assert found.change.tolist() == [140, 10]
    torch.testing.assert_close(
        ask(baseline="pad").weights[0, 1:3], torch.tensor([25.0, 195]).double()
    )
    for four in (4.0, net.vector_of("mask")):
        found = ask(baseline=four)
        want = torch.tensor([[-10.0, 5, 135, -5], [-10, 10, -5, 0]]).double()
        torch.testing.assert_close(found.weights, want)
        assert found.change.tolist() == [125, -5]
    whole = net.embed(net.encode(["good unfilmable", "film"]))
    assert ask(baseline=whole).weights.abs().max() == 0
    with pytest.raises(ValueError, match=r"no 'null' token.*'pad', 'mask', 'unk'"):
        ask(baseline="null")
    own = token_attributions(Sum(), ["two"], 0, method=method, baseline="unk")
    assert own.weights.tolist() == [[5 * (2 - 10)]]
    with pytest.raises(ValueError, match="no 'mask' token"):
        token_attributions(Sum(), ["two"], 0, baseline="mask")


@pytest.mark.parametrize("name", [name for name in BROUGHT if name not in ("XLNet", "Longformer")])
def test_brought_ones_equal_captum(name: str) -> None:
    """The same points, from a text of padding; its pieces put together to words by hand."""
    net = brought(name)
    found = token_attributions(net, PHRASES, 1, n_steps=20, baseline=net.vector_of("pad"))
    model, tokenizer = made(name)
    model.eval()
    for i, text in enumerate(PHRASES):
        batch = tokenizer(text, return_tensors="pt")
        ids = batch["input_ids"]
        ask = lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits  # noqa: E731
        theirs = LayerIntegratedGradients(ask, model.get_input_embeddings()).attribute(
            ids,
            baselines=torch.full_like(ids, tokenizer.pad_token_id),
            target=1,
            additional_forward_args=(batch["attention_mask"],),
            n_steps=20,
        )
        _, owner = net.encode([text])[0].words()
        want = torch.zeros_like(found.weights[i])
        for place, piece in zip(owner.tolist(), theirs[0].sum(1).tolist(), strict=True):
            want[place] += piece
        torch.testing.assert_close(found.weights[i], want, rtol=0, atol=1e-6)
    assert found.weights.abs().max() > 0.02


@pytest.mark.parametrize("name", BROUGHT)
def test_brought_ones_are_complete(name: str) -> None:
    """From the vector of padding to the text, through a network that is smooth in between."""
    net = brought(name)
    found = token_attributions(net, PHRASES, 1, baseline="mask" if name == "BERT" else "pad")
    assert (found.gap.abs() < 0.02 * found.weights.abs().sum(1)).all()
    assert found.change.abs().min() > 1e-3
    words = [token for token in found.tokens[0] if token not in ("[CLS]", "[SEP]", "<s>", "</s>")]
    assert words == ["A", "good", "film", ",", "with", "a", "bad", "end", "!"]
    assert found.weights[0][found.special[0]].abs().sum() == 0


# What is refused: LRP where numbers of x leave the graph, rolled attention where places are pooled.
_NO = {"Funnel": ("lrp", "gradient_attention"), "BLOOM": ("lrp",)}


@pytest.mark.parametrize("name", MORE)
def test_more_are_right_or_refused(name: str) -> None:
    """Occlusion by definition; LRP and what was absorbed is the score; attention by definition."""
    net = brought(name)
    (row,) = net.readings(PHRASES[:1])
    ask = partial(token_attributions, net, PHRASES[:1], 1)
    found = ask(method="occlusion").weights[0]
    with frozen(net), torch.no_grad():
        score = row.on_vectors(row.vectors)[0, 1].item()
        for j in range(len(row.words)):
            gone = row.vectors.masked_fill((row.owner == j)[None, :, None], 0)
            assert found[j].item() == pytest.approx(
                score - row.on_vectors(gone)[0, 1].item(), abs=1e-9
            )
    assert found.abs().max() > 0.02
    refused = _NO.get(name, ())
    for method in refused:
        with pytest.raises(ValueError, match=r"no rule is known|same positions"):
            ask(method=method)
    if "lrp" not in refused:
        with frozen(net):
            told = relevance_balance(row.on_vectors, row.vectors, 1)
        absorbed = sum(kept.item() for kept in told.absorbed.values())
        total = ask(method="lrp").weights.sum().item() + absorbed
        assert total == pytest.approx(score, rel=1e-5)
    if "gradient_attention" not in refused:
        rolled = ask(method="gradient_attention").weights[0]
        want = torch.zeros_like(rolled).index_add(0, row.owner, _rolled(net.model, row.inputs))
        torch.testing.assert_close(rolled, want, rtol=0, atol=1e-9)


def _rolled(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """What attention brings to the one position that a score is read from, by the formula, (T,)."""
    model.eval().set_attn_implementation("eager")  # type: ignore[operator]
    answer = model(**inputs, output_attentions=True)
    slopes = torch.autograd.grad(answer.logits[0, 1], answer.attentions)
    first = held = torch.eye(answer.attentions[0].shape[-1]).double()
    for weights, slope in zip(answer.attentions, slopes, strict=True):
        held = held + (weights * slope)[0].clamp(min=0).mean(0).detach() @ held
    (read,) = slopes[-1][0].abs().sum((0, 2)).nonzero()[:, 0].tolist()
    return held[read] - first[read]


@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "GPT-2", "ALBERT"])
def test_brought_ones_by_definition(name: str) -> None:
    """A word's slope times its vectors; and the score without it, all its pieces gone at once."""
    net = brought(name)
    model, tokenizer = made(name)
    model.eval()
    for text in PHRASES:
        batch = tokenizer(text, return_tensors="pt")
        vectors = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
        score = model(inputs_embeds=vectors, attention_mask=batch["attention_mask"]).logits[0, 2]
        (slopes,) = torch.autograd.grad(score, vectors)
        words, owner = net.encode([text])[0].words()
        found = token_attributions(net, [text], 2, method="input_x_gradient").weights[0]
        without = token_attributions(net, [text], 2, method="occlusion").weights[0]
        for j in range(len(words)):
            mine = owner == j
            assert found[j].item() == pytest.approx((slopes * vectors)[0, mine].sum().item())
            gone = vectors.detach().clone()
            gone[0, mine] = 0
            drop = score - model(inputs_embeds=gone).logits[0, 2]
            assert without[j].item() == pytest.approx(drop.item(), abs=1e-9)


@pytest.mark.parametrize("method", [*METHODS, *RELEVANCE])
@pytest.mark.parametrize("name", ["BERT", "GPT-2"])
def test_brought_in_company_as_alone(name: str, method: str) -> None:
    net = brought(name)
    ask = partial(token_attributions, net, method=method, n_steps=5, batch_size=2)
    both = ask(PHRASES, [2, 0])
    assert both.weights.abs().sum(1).min() > 1e-3
    for i, target in enumerate((2, 0)):
        one = ask(PHRASES[i : i + 1], target)
        assert one.tokens[0] == both.tokens[i]
        n = len(one.tokens[0])
        torch.testing.assert_close(one.weights[0], both.weights[i, :n], rtol=0, atol=1e-12)
        assert both.weights[i, n:].abs().sum() == 0
        torch.testing.assert_close(one.change[0], both.change[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [*METHODS, *RELEVANCE])
def test_a_brought_one_is_left_as_it_was(method: str) -> None:
    net = brought("BERT")
    ways = [net.model.config._attn_implementation, net.model.bert.config._attn_implementation]
    before = Snapshot(net, torch.zeros(1))
    with torch.no_grad():
        found = token_attributions(net, PHRASES, 1, method=method, n_steps=3)
    before.check()
    assert not found.weights.requires_grad
    assert ways == [
        net.model.config._attn_implementation, net.model.bert.config._attn_implementation
    ]  # fmt: skip


def test_a_network_that_normalizes_first_has_no_slope_along_its_vectors() -> None:
    """DeBERTa divides each vector by its length: x times the gradient is 0, whatever a word did."""
    net = brought("DeBERTa-v2")
    with pytest.warns(UserWarning, match=r"DebertaV2For.* right angles.*baseline=\"mask\" or"):
        found = token_attributions(net, PHRASES, 1, method="input_x_gradient")
    assert found.weights.abs().sum(1).max() < 1e-4 * found.change.abs().min()
    for method in ("occlusion", "lrp"):
        assert token_attributions(net, PHRASES, 1, method=method).weights.abs().max() > 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        token_attributions(brought("BERT"), PHRASES, 1, method="input_x_gradient")
        token_attributions(sms_transformer(), PHRASES, 1, method="input_x_gradient")


def test_a_network_that_jumps_at_zero_says_so() -> None:
    """Llama divides its vectors by their length: all the way from 0 it answers alike."""
    net = brought("Llama")
    with pytest.warns(UserWarning, match=r"text \d miss .* jumps.*baseline=\"mask\" or \"pad\""):
        found = token_attributions(net, PHRASES, 1)
    assert (found.gap.abs() > 0.5 * found.change.abs()).any()


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "DeBERTa-v2", "Llama"])
def test_lrp_of_words_and_what_was_absorbed_is_the_score(name: str) -> None:
    net = brought(name)
    found = token_attributions(net, PHRASES, 1, method="lrp")
    with frozen(net):
        for weights, row in zip(found.weights, net.readings(PHRASES), strict=True):
            told = relevance_balance(row.on_vectors, row.vectors, 1)
            with torch.no_grad():
                score = row.on_vectors(row.vectors)[0, 1]
            absorbed = sum(kept.item() for kept in told.absorbed.values())
            assert weights.sum().item() + absorbed == pytest.approx(score.item(), rel=1e-6)
    assert found.weights.abs().sum(1).min() > 1e-2


@pytest.mark.parametrize(
    "make", [lambda: brought("BERT"), lambda: brought("GPT-2"), sms_transformer]
)
def test_rolled_attention_of_words_is_the_sum_over_their_pieces(make: Any) -> None:
    net = make()
    found = token_attributions(net, PHRASES, 1, method="gradient_attention")
    for i, row in enumerate(net.readings(PHRASES)):
        rolled = gradient_rollout(row.network, row.inputs, 1).brought[0, row.leading :]
        for j, word in enumerate(found.tokens[i]):
            want = sum(rolled[k].item() for k in range(len(rolled)) if row.owner[k] == j)
            assert found.weights[i, j].item() == pytest.approx(want), word
    assert isinstance(net, TextClassifier) or found.tokens[1] == ["unfilmable"]


def test_two_threads_answer_as_one() -> None:
    """The way to attend and the parameters are changed for a while, by one thread at a time."""
    net = brought("BERT")
    calls = [
        partial(token_attributions, net, PHRASES, target, method=method, n_steps=3)
        for method in ("gradient_attention", "lrp")
        for target in (0, 1)
    ]
    want = [call().weights for call in calls]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda call: call().weights, calls * 2))
    for one, other in zip(got, want * 2, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [*METHODS, *RELEVANCE])
def test_heads_of_one_logit_and_of_many_labels(method: str) -> None:
    """One logit is the score, whether of a class or a regression; of labels each has its own."""
    one = text_classifier(*made("BERT", num_labels=1, problem_type="regression"))
    found = token_attributions(one, PHRASES, None, method=method, baseline="pad", n_steps=20)
    assert found.weights.abs().sum(1).min() > 1e-3
    one.eval()
    with torch.no_grad():
        score = one(one.encode(PHRASES))[:, 0]
        nothing = [row.vectors.clone() for row in one.readings(PHRASES)]
        for vectors in nothing:
            vectors[0, 1:-1] = one.vector_of("pad")
        rows = zip(nothing, one.readings(PHRASES), strict=True)
        start = torch.stack([row.on_vectors(vectors)[0, 0] for vectors, row in rows])
    torch.testing.assert_close(found.change, score - start)
    with pytest.raises(ValueError, match=r"0\.\.0, got 1.*target=None"):
        token_attributions(one, PHRASES, 1, method=method)
    many = text_classifier(*made("BERT", problem_type="multi_label_classification"))
    few = text_classifier(*made("BERT"))
    for target in (0, 2):
        label = token_attributions(many, PHRASES, target, method=method, n_steps=3)
        same = token_attributions(few, PHRASES, target, method=method, n_steps=3)
        assert torch.equal(label.weights, same.weights)
    with pytest.raises(ValueError, match="3 outputs"):
        token_attributions(many, PHRASES, None, method=method)


@pytest.mark.parametrize("name", ["BERT", "GPT-2"])
def test_planted_words_are_found(name: str) -> None:
    """One word decides the class, cut into two pieces; without it the third class is right.

    Input times gradient, one slope at the end of a bent way, misses it in GPT-2; so does rolled
    attention, which knows weights and no values.
    """
    net, texts, targets, places = planted(name)
    with torch.no_grad():
        assert (net(net.encode(texts)).argmax(1) == targets).all()
    ask = partial(token_attributions, net, texts, targets, n_steps=20, baseline="mask")
    hits = {
        method: (ask(method=method).weights.argmax(1) == places).double().mean().item()
        for method in (*METHODS, *RELEVANCE)
    }
    assert min(hits[method] for method in ("integrated_gradients", "occlusion", "lrp")) >= 0.95
    if name == "BERT":
        assert hits["gradient_attention"] >= 0.95
        assert hits["input_x_gradient"] > 0.5
    else:
        assert hits["gradient_attention"] < 0.75
        assert hits["input_x_gradient"] < 0.5


def test_what_relevance_has_no_rule_for() -> None:
    with pytest.raises(ValueError, match="no layer that gives attention weights"):
        token_attributions(small(GRUClassifier), TEXTS, 0, method="gradient_attention")
    with pytest.raises(ValueError, match=r"XLNet.*not made of the attention weights"):
        token_attributions(brought("XLNet"), PHRASES, 0, method="gradient_attention")
    net = text_classifier(Adds(), wordpiece())
    with pytest.raises(ValueError, match="no layer that gives attention weights"):
        token_attributions(net, PHRASES, 0, method="gradient_attention")


# --- through explain


def test_explain_a_brought_one() -> None:
    net = brought("BERT")
    found = xailab.explain(
        net, PHRASES, [1, 0], methods=["token_attributions", "lime_text"], n_samples=40
    )
    words = token_attributions(net, PHRASES, [1, 0])
    torch.testing.assert_close(found["token_attributions"], words.weights, rtol=1e-9, atol=1e-12)
    gap = found.table().loc["token_attributions", "completeness gap"]
    assert gap == pytest.approx(words.gap.abs().mean().item())
    frame = found.to_frame().loc[1, "token_attributions"]
    assert list(frame.index) == ["[CLS]", "unfilmable", "[SEP]"]
    alone = xailab.explain(net, PHRASES[0], 1, methods=["token_attributions"], method="occlusion")
    assert alone.table()["completeness gap"].isna().all()
    (one,) = alone
    assert one.title == "occlusion of words"
    picture = alone.plot()
    assert picture.words[:3] == ("[CLS]", "A", "good")
    for method in RELEVANCE:
        (one,) = xailab.explain(net, PHRASES, 1, methods=["token_attributions"], method=method)
        assert one.title != found.items[0].title
        assert one.gap is None


def test_explain_says_how_to_bring_one() -> None:
    model, tokenizer = made("BERT")
    line = r"xailab.models.text_classifier\(model, tokenizer\)"
    for brought in (model, (model, tokenizer)):
        with pytest.raises(TypeError, match=line):
            xailab.explain(brought, PHRASES, 1)
    with pytest.raises(TypeError, match=line):
        token_attributions(model, PHRASES, 1)  # type: ignore[arg-type]
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    with pytest.raises(TypeError, match=r"text_classifier\(pipe.model, pipe.tokenizer\)"):
        xailab.explain(pipe, PHRASES, 1)


# --- sound


def early_and_low(x: Tensor) -> Tensor:
    """Only row 0 of frames 0 and 1 counts."""
    return x[:, 0, 0, :2].sum(1)


def test_bands_by_hand() -> None:
    """Stretches of two frames: 0-1 takes 2, 1-2 takes 1, 2-3 nothing; each frame gets the mean.

    Bands of two rows: 0-1 takes 2, 1-2 nothing.
    """
    found = band_occlusion(early_and_low, torch.ones(1, 1, 3, 4), None, width=2, height=2)
    assert found.time.tolist() == [[2, 1.5, 0.5, 0]]
    assert found.frequency.tolist() == [[2, 1, 0]]
    wide = band_occlusion(
        early_and_low, torch.ones(1, 1, 3, 4), None, width=2, height=1, stride=(1, 2), baseline=3.0
    )
    assert wide.time.tolist() == [[-4, -4, 0, 0]]
    assert wide.frequency.tolist() == [[-4, 0, 0]]


def test_the_map_by_hand() -> None:
    bands = Bands(torch.tensor([[4.0, -2.0]]), torch.tensor([[1.0, 0.25, 0.0]]))
    assert bands.map().tolist() == [[[[2, 0], [1, 0], [0, 0]]]]


@pytest.mark.parametrize(("width", "height", "stride"), [(3, 2, 1), (4, 5, (5, 3)), (8, 8, 2)])
def test_bands_equal_captum(width: int, height: int, stride: Any) -> None:
    model, x = toy(torch.float64).eval(), inputs(dtype=torch.float64)
    target = torch.tensor([2, 0, 3])
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    found = band_occlusion(
        model, x, target, width=width, height=height, stride=stride, baseline=0.25
    )
    windows = [((3, 8, width), (3, 8, right)), ((3, height, 8), (3, down, 8))]
    with torch.no_grad():
        time, frequency = (
            Occlusion(model).attribute(
                x, sliding_window_shapes=shape, strides=steps, target=target, baselines=0.25
            )
            for shape, steps in windows
        )
    torch.testing.assert_close(found.time, time[:, 0, 0].double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.frequency, frequency[:, 0, :, 0].double(), rtol=0, atol=1e-6)


def test_it_finds_the_note_that_decides() -> None:
    """Of 40 tones never heard, the largest point of nearly every map lies in the truth."""
    clips = data.tones().test.take(range(40))
    x, y = torch.as_tensor(clips.spectrograms)[:, None], torch.as_tensor(clips.y)
    found = band_occlusion(tone_cnn(), x, y, stride=2)
    best = found.map().flatten(1).argmax(1)
    assert clips.truth.reshape(40, -1)[range(40), best].mean() > 0.85  # chance: .02
    in_time, in_band = clips.truth.any(1), clips.truth.any(2)
    assert in_time[range(40), found.time.argmax(1)].mean() > 0.85
    assert in_band[range(40), found.frequency.argmax(1)].mean() > 0.85


def test_two_things_at_once_are_crossed() -> None:
    """Where two places count, the map also shows the crossing of one's time, the other's band."""
    two = lambda x: x[:, 0, 0, 0] + x[:, 0, 2, 2]  # noqa: E731
    found = band_occlusion(two, torch.ones(1, 1, 3, 3), None, width=1, height=1)
    assert found.map()[0, 0].tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]


def test_bands_leave_nothing_behind() -> None:
    model, x = toy(), inputs().requires_grad_()
    before = Snapshot(model, x)
    band_occlusion(model, x, 1)
    before.check()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"width": 9}, ValueError, "larger than"),
        ({"height": 0}, ValueError, "height must be at least 1"),
        ({"width": 2, "stride": 3}, ValueError, "gaps"),
        ({"width": 2.0}, TypeError, "width must be an integer, got float"),
        ({"height": True}, TypeError, "height must be an integer, got bool"),
        ({"stride": (1, 1, 1)}, ValueError, r"\(rows, frames\), got \(1, 1, 1\)"),
        ({"stride": 1.5}, TypeError, "stride"),
    ],
)
def test_bad_bands(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        band_occlusion(toy(), inputs(), 1, **options)


def test_what_is_no_spectrogram() -> None:
    with pytest.raises(ValueError, match=r"\(N, C, F, T\), got shape \(1, 64, 64\)"):
        band_occlusion(ToneCNN(), torch.zeros(1, 64, 64), 0)
