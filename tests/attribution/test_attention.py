"""Attention: by hand on two tokens, by definition, against captum, and where it says nothing."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn

from tests.classifiers import CONFIGS, made
from tests.snapshots import Boom, Snapshot
from xailab.attribution.attention import (
    attention_maps,
    attention_rollout,
    gradient_attention,
    gradient_rollout,
    head_ablation,
)
from xailab.core.layers import edited
from xailab.core.state import frozen
from xailab.models import (
    DigitViT,
    TextTransformer,
    Vocabulary,
    attention_layers,
    digit_vit,
    sms_transformer,
)
from xailab.models.transformers import MaskedSoftmax

WORDS = Vocabulary(["<pad>", "<unk>", *"abcde"])
CALLS = [
    pytest.param(lambda model, x, t: attention_maps(model, x), id="attention_maps"),
    pytest.param(gradient_attention, id="gradient_attention"),
    pytest.param(gradient_rollout, id="gradient_rollout"),
    pytest.param(head_ablation, id="head_ablation"),
]
WITH_TARGET = CALLS[1:]


class Reader(nn.Module):
    """Two heads that look at all positions alike and hand on 1 and 3 times what they see.

    (N, T, 1) -> (N, 2): position 0's answer is 4 times the mean; the second score is minus that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.softmax = MaskedSoftmax()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        mask = torch.ones(n, t, dtype=torch.bool)
        weights = self.softmax(x.new_zeros(n, 2, t, t), mask)
        heads = weights @ torch.stack([x, 3 * x], 1)  # (N, 2, T, 1)
        score = self.drop(heads.sum(1))[:, 0]
        return torch.cat([score, -score], 1)


def small(seed: int = 0) -> TextTransformer:
    """Return an untrained transformer in double precision with something in every parameter."""
    torch.manual_seed(seed)
    model = TextTransformer(WORDS, width=8, depth=2, heads=2, n_classes=3).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


TEXTS = ["a b c d", "e a"]
IDS = WORDS.encode(TEXTS)
TARGETS = torch.tensor([2, 0])
X = torch.tensor([[[1.0], [2.0], [3.0]]])


# --- maps


def test_maps_are_rows_of_shares_and_padding_gets_none() -> None:
    maps = attention_maps(small(), IDS)
    assert [tuple(weights.shape) for weights in maps] == [(2, 2, 5, 5)] * 2
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 5).double())
        assert weights[1, :, :, 3:].abs().max() == 0
        assert not weights.requires_grad


@torch.no_grad()
def test_maps_are_those_of_the_formula() -> None:
    """The first block's weights, from its queries and keys."""
    model = small()
    rows = model.embed(IDS[:1])
    rows = torch.cat([model.encoder.token, rows], 1) + model.encoder.positions[:, :5]
    block = model.encoder.blocks[0]
    normed = block.norm1(rows)
    q, k = block.attention.query(normed), block.attention.key(normed)
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        want = (q[..., part] @ k[..., part].mT / 4**0.5).softmax(-1)
        torch.testing.assert_close(attention_maps(model, IDS[:1])[0][:, head], want)


def test_maps_of_pictures() -> None:
    maps = attention_maps(digit_vit(), torch.rand(2, 1, 28, 28))
    assert [tuple(weights.shape) for weights in maps] == [(2, 4, 50, 50)] * 3


class Library(nn.Module):
    """Answers as a model of the transformers library does."""

    def __init__(self, kept: bool = True) -> None:
        super().__init__()
        self.kept, self.weight = kept, nn.Parameter(torch.zeros(()))

    def forward(
        self, input_ids: Tensor, attention_mask: Any = None, output_attentions: bool = False
    ) -> Any:
        n, t = input_ids.shape
        mask = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask
        weights = MaskedSoftmax()(self.weight.expand(n, 3, t, t), mask.bool())
        kept = self.kept and output_attentions
        return SimpleNamespace(attentions=(weights, weights) if kept else None)


def test_a_library_model_takes_a_tensor_or_a_mapping() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    first, _ = attention_maps(Library(), {"input_ids": IDS, "attention_mask": mask})
    assert not first.requires_grad
    assert first[1, 0, 0].tolist() == [0.5, 0.5, 0, 0]
    assert attention_maps(Library(), IDS)[1][1, 2, 3].tolist() == [0.25] * 4


def test_a_library_model_that_keeps_no_weights() -> None:
    with pytest.raises(ValueError, match=r'Library returned no attentions.*"eager"'):
        attention_maps(Library(kept=False), IDS)


def test_bert_itself() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=8,
    )
    config._attn_implementation = "eager"
    bert = transformers.BertModel(config).eval()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    maps = attention_maps(bert, {"input_ids": IDS, "attention_mask": mask})
    assert [tuple(weights.shape) for weights in maps] == [(2, 2, 4, 4)] * 3
    assert maps[0][1, :, :, 2:].abs().max() == 0
    assert attention_rollout(maps).shape == (2, 4, 4)


def test_a_model_without_attention() -> None:
    with pytest.raises(ValueError, match="Linear gives no attention weights"):
        attention_maps(nn.Linear(2, 2), torch.ones(1, 2))


# --- rollout


def test_rollout_of_two_layers_by_hand() -> None:
    """Heads of layer 1: stay and swap, mean 1/2; those of layer 2 both look at the first token.

    With the residual: A1 = [[3/4, 1/4], [1/4, 3/4]], A2 = [[1, 0], [1/2, 1/2]];
    A2 A1 = [[3/4, 1/4], [1/2, 1/2]] (the other order would begin with 7/8).
    """
    stay, swap = torch.eye(2), torch.eye(2).flip(0)
    first = torch.stack([stay, swap])[None]
    second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).expand(1, 2, 2, 2)
    rolled = attention_rollout([first, second])
    assert rolled.tolist() == [[[0.75, 0.25], [0.5, 0.5]]]
    plain = attention_rollout([first, second], residual=False)
    assert plain.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


def test_rollout_is_the_formula_written_with_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 2, 4, 5, 5, generator=generator, dtype=torch.float64).softmax(-1)
    rolled = attention_rollout(maps)
    for n in range(2):
        shares = [[float(i == j) for j in range(5)] for i in range(5)]
        for layer in range(3):
            mean = [[sum(maps[layer, n, :, i, j].tolist()) / 4 for j in range(5)] for i in range(5)]
            raw = [[0.5 * mean[i][j] + 0.5 * (i == j) for j in range(5)] for i in range(5)]
            shares = [
                [sum(raw[i][k] * shares[k][j] for k in range(5)) for j in range(5)]
                for i in range(5)
            ]
        torch.testing.assert_close(rolled[n], torch.tensor(shares, dtype=torch.float64))


def test_rollout_hands_out_shares_and_none_to_padding() -> None:
    rolled = attention_rollout(attention_maps(small(), IDS))
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 5).double())
    assert rolled[1, :3, 3:].abs().max() == 0


def test_rollout_does_not_know_what_the_network_makes_of_it() -> None:
    """With another last layer the scores turn round; the rollout stays what it was."""
    model = small()
    before = attention_rollout(attention_maps(model, IDS))
    model.fc.weight.data.neg_()
    assert torch.equal(attention_rollout(attention_maps(model, IDS)), before)


@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        ([], ValueError, r"got \[\]"),
        ([torch.eye(2)], ValueError, r"\(N, heads, T, T\).*\(2, 2\)"),
        ([torch.eye(2)[None], torch.eye(3)[None]], ValueError, r"\(1, 2, 2\), \(1, 3, 3\)"),
        ([torch.ones(1, 2, 3)], ValueError, r"\(1, 2, 3\)"),
        ([-torch.eye(2)[None]], ValueError, r"sum to 1.*off by 2"),
        ([torch.full((1, 2, 2), torch.nan)], ValueError, "nan"),
        ([torch.eye(2)[None], torch.full((1, 2, 2), torch.nan)], ValueError, "nan"),
        ([torch.tensor([[[1.5, -0.5], [0.0, 1.0]]])], ValueError, r"not negative.*off by 0\.5"),
        ([torch.eye(2, dtype=torch.int64)[None]], TypeError, "floats"),
        ([torch.zeros(0, 2, 2)], ValueError, "empty"),
        (torch.eye(2)[None], ValueError, r"a list, one tensor for each layer.*\(1, 2, 2\)"),
        (torch.full((1, 2, 4, 4), 0.25), ValueError, r"\[maps\].*\(1, 2, 4, 4\)"),
        ([[[1.0]]], TypeError, "tensors"),
    ],
)
def test_what_is_no_attention(maps: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        attention_rollout(maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rollout_in_any_precision(dtype: torch.dtype) -> None:
    """Twelve layers of maps in half precision: the product is that of the same numbers."""
    maps = torch.rand(12, 2, 4, 9, 9, generator=torch.Generator().manual_seed(0)).softmax(-1)
    rolled = attention_rollout(list(maps.to(dtype)))
    assert rolled.dtype == dtype
    want = torch.eye(9).double().expand(2, 9, 9)
    for layer in maps.to(dtype).double():
        want = (layer.mean(1) + torch.eye(9)) / 2 @ want
    exact = torch.finfo(dtype).eps
    torch.testing.assert_close(rolled.double(), want, rtol=max(exact, 1e-6), atol=1e-6)


# --- where a model keeps them

EAGER = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "attn_implementation": "eager",
}


@pytest.mark.parametrize(
    "options",
    [
        {"return_dict": False},
        {"return_dict": False, "output_hidden_states": True},
        {"output_hidden_states": True},
    ],
)
def test_bert_however_it_answers(options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    plain = transformers.BertModel(transformers.BertConfig(**EAGER)).eval()
    want = plain(IDS, output_attentions=True).attentions
    same = transformers.BertModel(transformers.BertConfig(**EAGER, **options)).eval()
    same.load_state_dict(plain.state_dict())
    got = attention_maps(same, IDS)
    assert len(got) == 2
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


class Answers(nn.Module):
    """Gives whatever it is told to, if it is asked for attention."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, input_ids: Tensor, output_attentions: bool = False) -> Any:
        return self.answer if output_attentions else None


MAPS = (torch.full((2, 3, 4, 4), 0.25), torch.eye(4).expand(2, 3, 4, 4))
STATES = (torch.zeros(2, 4, 8), torch.ones(2, 4, 8))
CACHE = ((torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)),)
KEYS = (torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5))


@pytest.mark.parametrize(
    "answer",
    [
        SimpleNamespace(attentions=MAPS, hidden_states=STATES),
        {"logits": STATES[0], "attentions": MAPS},
        {"logits": STATES[0], "weights": list(MAPS)},
        (STATES[0], MAPS),
        [STATES[0], CACHE, KEYS, STATES, list(MAPS)],
    ],
)
def test_maps_are_taken_from_where_they_are(answer: Any) -> None:
    got = attention_maps(Answers(answer), IDS)
    assert len(got) == 2
    assert all(torch.equal(one, other) for one, other in zip(got, MAPS, strict=True))


BOTH = SimpleNamespace(encoder_attentions=MAPS[:1], cross_attentions=MAPS[1:])


def test_one_kind_of_several_has_to_be_named() -> None:
    for kind in ("encoder_attentions", "cross_attentions"):
        (got,) = attention_maps(Answers(BOTH), IDS, kind=kind)
        assert torch.equal(got, getattr(BOTH, kind)[0])
    for model, kind, words in (
        (Answers(BOTH), None, "several kinds.*kind='encoder_attentions' or 'cross_attentions'"),
        (Answers((MAPS[:1], MAPS[1:])), None, r"several kinds.*'\[0\]' or '\[1\]'"),
        (
            Answers(BOTH),
            "decoder_attentions",
            r"\(encoder_attentions, cross_attentions\), got 'dec",
        ),
        (small(), "attentions", "of one kind"),
    ):
        with pytest.raises(ValueError, match=words):
            attention_maps(model, IDS, kind=kind)


def test_an_encoder_with_a_decoder() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {
        f"{side}_{name}": n
        for side in ("encoder", "decoder")
        for name, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 8))
    }
    config = transformers.BartConfig(vocab_size=50, d_model=8, attn_implementation="eager", **sizes)
    bart = transformers.BartModel(config).eval()
    with pytest.raises(ValueError, match=r"kind='decoder_att.*'cross_att.*'encoder_att"):
        attention_maps(bart, IDS)
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}
    shapes = {"encoder": (2, 2, 4, 4), "decoder": (2, 2, 3, 3), "cross": (2, 2, 3, 4)}
    for kind, shape in shapes.items():
        (maps,) = attention_maps(bart, inputs, kind=f"{kind}_attentions")
        assert maps.shape == shape
        torch.testing.assert_close(maps.sum(-1), torch.ones(shape[:-1]))


@pytest.mark.parametrize(
    ("implementation", "advice"),
    [("eager", False), ("sdpa", True), ("flash_attention_2", True), (None, True)],
)
def test_advice_fits_the_model(implementation: str | None, advice: bool) -> None:
    for answer in (
        SimpleNamespace(attentions=()),
        (STATES[0], STATES),
        {"logits": STATES[0]},
        None,
    ):
        model = Answers(answer)
        model.config = SimpleNamespace(_attn_implementation=implementation)
        with pytest.raises(ValueError, match="attentions") as caught:
            attention_maps(model, IDS)
        assert ('load it with attn_implementation="eager"' in str(caught.value)) == advice
        if implementation:
            assert ("is eager" if not advice else repr(implementation)) in str(caught.value)


def test_windows_are_no_maps_of_the_input() -> None:
    windows = (torch.full((8, 3, 4, 4), 0.25),)
    with pytest.raises(ValueError, match=r"N = 2 rows; Answers gave \(8, 3, 4, 4\).*windows"):
        attention_maps(Answers(SimpleNamespace(attentions=windows)), IDS)


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (Answers(None), {"input_ids": [[1, 2]]}, r"inputs\['input_ids'\].*list"),
        (Answers(None), {"input_ids": torch.tensor(1)}, r"inputs\['input_ids'\]"),
        (Answers(None), "a text", "str"),
        (3, IDS, "nn.Module, got int"),
    ],
)
def test_what_is_no_input(model: Any, inputs: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        attention_maps(model, inputs)


# --- attention times gradient


def test_gradient_attention_by_hand() -> None:
    """Weights 1/3; the score's slopes are x_j in head 0 and 3 x_j in head 1, in row 0 alone."""
    (first,) = gradient_attention(Reader(), X, 0)
    want = torch.zeros(1, 2, 3, 3)
    want[0, 0, 0] = torch.tensor([1.0, 2.0, 3.0]) / 3
    want[0, 1, 0] = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(first, want)
    assert first.sum().item() == pytest.approx(4 * 2)  # linear in the weights: the score itself
    (other,) = gradient_attention(Reader(), X, 1)
    torch.testing.assert_close(other, -want)


def test_gradient_attention_by_finite_differences() -> None:
    model, step = small(), 1e-5
    maps = gradient_attention(model, IDS, TARGETS)
    weights = attention_maps(model, IDS)
    place = (0, 1, 2, 3)  # row, head, from, to
    for i, layer in enumerate(attention_layers(model)):
        moved = []
        for delta in (-step, step):
            shift = torch.zeros_like(weights[i])
            shift[place] = delta
            with torch.no_grad(), edited(model, layer, lambda w, shift=shift: w + shift):
                moved.append(model(IDS)[0, TARGETS[0]].item())
        slope = (moved[1] - moved[0]) / (2 * step)
        assert maps[i][place].item() == pytest.approx(
            slope * weights[i][place].item(), rel=1e-5, abs=1e-9
        )
        assert (maps[i][place] != 0) == (i == 0)


def test_gradient_attention_equals_captum() -> None:
    model = small()
    for i, layer in enumerate(attention_layers(model)):
        method = LayerGradientXActivation(model, model.get_submodule(layer))
        want = method.attribute(IDS, target=TARGETS)
        got = gradient_attention(model, IDS, TARGETS)[i]
        torch.testing.assert_close(got, want.detach(), rtol=0, atol=1e-12)


def test_much_attention_that_nothing_reads_counts_for_nothing() -> None:
    """Every row of the last layer sums to 1, but only the class token's reaches the score."""
    model = sms_transformer()
    ids = model.encode(["WIN a free prize now"])
    last = gradient_attention(model, ids, 1)[-1]
    assert attention_maps(model, ids)[-1][:, :, 1:].sum() == pytest.approx(4 * 5, rel=1e-5)
    assert last[:, :, 1:].abs().max() == 0
    assert last[:, :, 0].abs().max() > 0


# --- heads


# --- rolled out with gradients


class Twofold(nn.Module):
    """Two layers of one head that look at both positions alike: (N, 2, 1) -> (N, 2).

    The first adds what it sees to each position, the second hands on what position 0 sees.
    """

    def __init__(self, pool: Any = lambda seen: seen[:, 0]) -> None:
        super().__init__()
        self.first, self.second, self.pool = MaskedSoftmax(), MaskedSoftmax(), pool

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        even, mask = x.new_zeros(n, 1, t, t), torch.ones(n, t, dtype=torch.bool)
        h = x + (self.first(even, mask) @ x[:, None])[:, 0]
        score = self.pool((self.second(even, mask) @ h[:, None])[:, 0])
        return torch.cat([score, -score], 1)


PAIR = torch.tensor([[[1.0], [3.0]]])


def test_gradient_rollout_by_hand() -> None:
    """Weights 1/2, and h = (1 + 2, 3 + 2) = (3, 5).

    The score's slopes by the second layer's weights are h in row 0; by the first one's they are
    x / 2 in both rows. Times 1/2: (3/2, 5/2), 0 and (1/4, 3/4) twice. So I + the first is
    ((5/4, 3/4), (1/4, 7/4)), to whose row 0 comes 3/2 (5/4, 3/4) + 5/2 (1/4, 7/4) = (5/2, 11/2).
    """
    found = gradient_rollout(Twofold(), PAIR, 0)
    assert found.relevance.tolist() == [[[3.75, 6.25], [0.25, 1.75]]]
    assert found.read.tolist() == [[1, 0]]
    assert found.inputs.tolist() == [[3.75, 6.25]]
    assert found.brought.tolist() == [[2.75, 6.25]]
    against = gradient_rollout(Twofold(), PAIR, 1)
    assert against.brought.abs().sum() == 0  # every slope is negative


def test_gradient_rollout_of_a_mean_reads_all_positions() -> None:
    """Half of each slope in each row of both: (3/4, 5/4) twice and (1/4, 3/4) twice."""
    found = gradient_rollout(Twofold(lambda seen: seen.mean(1)), PAIR, 0)
    first = torch.eye(2) + torch.tensor([0.25, 0.75])
    want = first + torch.tensor([[0.75, 1.25], [0.75, 1.25]]) @ first
    torch.testing.assert_close(found.relevance[0], want)
    assert found.read.tolist() == [[0.5, 0.5]]
    torch.testing.assert_close(found.inputs[0], want.mean(0))


def test_gradient_rollout_is_the_formula_written_with_loops() -> None:
    model = small()
    found = gradient_rollout(model, IDS, TARGETS)
    products = gradient_attention(model, IDS, TARGETS)
    n, heads, t, _ = products[0].shape
    for row in range(n):
        held = [[float(i == j) for j in range(t)] for i in range(t)]
        for layer in products:
            before = [line[:] for line in held]
            for i in range(t):
                for k in range(t):
                    part = sum(max(layer[row, h, i, k].item(), 0) for h in range(heads)) / heads
                    for j in range(t):
                        held[i][j] += part * before[k][j]
        torch.testing.assert_close(found.relevance[row], torch.tensor(held).double())
        torch.testing.assert_close(found.inputs[row], torch.tensor(held[0]).double())
    assert found.brought.min() >= 0
    assert found.brought.max() > 0.01


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ("XLNet", "Longformer")])
def test_gradient_rollout_of_library_models_by_definition(name: str) -> None:
    """From the fast way, which has no weights, as from a model that was made eager by hand."""
    model, tokenizer = made(name)
    inputs = dict(tokenizer("A good film, with a bad end!", return_tensors="pt"))
    way = model.config._attn_implementation
    hooks = [len(module._forward_hooks) for module in model.modules()]
    before = Snapshot(model, torch.zeros(1))
    found = gradient_rollout(model, inputs, 1)
    before.check()
    assert model.config._attn_implementation == way
    assert hooks == [len(module._forward_hooks) for module in model.modules()]
    other = copy.deepcopy(model).eval()
    other.set_attn_implementation("eager")
    answer = other(**inputs, output_attentions=True)
    slopes = torch.autograd.grad(answer.logits[0, 1], answer.attentions)
    want = torch.eye(answer.attentions[0].shape[-1]).double()
    for weights, slope in zip(answer.attentions, slopes, strict=True):
        want = want + (weights * slope)[0].clamp(min=0).mean(0).detach() @ want
    torch.testing.assert_close(found.relevance[0], want, rtol=0, atol=1e-12)
    last = len(want) - 1
    assert found.read[0].nonzero().tolist() == [[last if name in ("GPT-2", "Llama") else 0]]


def test_the_way_to_attend_is_put_back_after_an_error() -> None:
    model, tokenizer = made("BERT")
    inputs = dict(tokenizer("a film", return_tensors="pt"))
    way = model.config._attn_implementation
    assert way != "eager"
    with frozen(model), pytest.raises(ValueError, match=r"0\.\.2"):
        gradient_rollout(model, inputs, 3)
    model.register_forward_hook(_boom)
    with pytest.raises(Boom):
        gradient_rollout(model, inputs, 1)
    assert model.config._attn_implementation == model.bert.config._attn_implementation == way


class Narrower(Twofold):
    """Its second layer attends among fewer positions than the first."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(len(x), 3, dtype=torch.bool)
        h = self.first(x.new_zeros(len(x), 1, 3, 3), mask) @ x[:, None]
        seen = self.second(x.new_zeros(len(x), 1, 2, 2), mask[:, :2]) @ h[:, :, :2]
        return seen[:, 0, 0]


class Unread(Twofold):
    """Its last layer counts for nothing."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(len(x), 3, dtype=torch.bool)
        h = self.first(x.new_zeros(len(x), 1, 3, 3), mask) @ x[:, None]
        return h[:, 0, 0] + 0 * (self.second(x.new_zeros(len(x), 1, 3, 3), mask) @ h)[:, 0, 0]


def test_layers_that_cannot_be_rolled_out() -> None:
    with pytest.raises(ValueError, match=r"same positions.*\(3, 3\)"):
        gradient_rollout(Narrower(), X, 0)
    with pytest.raises(ValueError, match="does not depend on what the last layer"):
        gradient_rollout(Unread(), X, 0)


# --- one head switched off


def test_head_ablation_by_hand() -> None:
    """Of the score 1 * 2 + 3 * 2 the first head brings 2, the second 6."""
    x = torch.cat([X, 2 * X])
    assert head_ablation(Reader(), x, 0).tolist() == [[[2, 6]], [[4, 12]]]
    assert head_ablation(Reader(), x, torch.tensor([0, 1])).tolist() == [[[2, 6]], [[-4, -12]]]


@torch.no_grad()
def test_head_ablation_equals_cutting_the_heads_wires() -> None:
    """A head whose columns of the output layer are zero says nothing."""
    model = small()
    got = head_ablation(model, IDS, TARGETS)
    rows = torch.arange(2)
    for layer in range(2):
        for head in range(2):
            cut = copy.deepcopy(model)
            wires = cut.encoder.blocks[layer].attention.output.weight
            wires[:, 4 * head : 4 * head + 4] = 0
            want = model(IDS)[rows, TARGETS] - cut(IDS)[rows, TARGETS]
            torch.testing.assert_close(got[:, layer, head], want)


def test_batch_size_and_batch_do_not_change_the_answer() -> None:
    model = small()
    want = head_ablation(model, IDS, TARGETS)
    for batch_size in (1, 7):
        got = head_ablation(model, IDS, TARGETS, batch_size=batch_size)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    alone = head_ablation(model, IDS[1:, :2], 0)
    torch.testing.assert_close(alone, want[1:], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="batch_size"):
        head_ablation(model, IDS, TARGETS, batch_size=0)


def test_a_target_may_be_a_function() -> None:
    """The contrast of two classes is the difference of what each gives."""
    model = small()

    def contrast(outputs: Tensor) -> Tensor:
        return outputs[:, 2] - outputs[:, 0]

    got = head_ablation(model, IDS, contrast, batch_size=1)
    want = head_ablation(model, IDS, 2) - head_ablation(model, IDS, 0)
    torch.testing.assert_close(got, want)
    for one, plus, minus in zip(
        *(gradient_attention(model, IDS, t) for t in (contrast, 2, 0)), strict=True
    ):
        torch.testing.assert_close(one, plus - minus)


def test_layers_with_different_heads() -> None:
    model = small()
    model.encoder.blocks[1].attention.heads = 4
    with pytest.raises(ValueError, match=r"same number of heads, got \[2, 4\]"):
        head_ablation(model, IDS, 0)


# --- what all of them promise


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_left_behind(call: Any) -> None:
    for model, x in ((small().train(), IDS), (Reader(), X.clone().requires_grad_())):
        before = Snapshot(model, x)
        call(model, x, 0)
        before.check()
        model.register_forward_hook(_boom)
        before = Snapshot(model, x)
        with pytest.raises(Boom):
            call(model, x, 0)
        before.check()


def _boom(*_: Any) -> None:
    raise Boom


@pytest.mark.parametrize("call", CALLS)
def test_training_mode_and_grad_mode_make_no_difference(call: Any) -> None:
    want = call(Reader().eval(), X, 0)
    with torch.inference_mode():
        got = call(Reader().train(), X, 0)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one.clone(), other)


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [(3, ValueError, r"0\.\.2.*3"), (None, ValueError, "3 outputs"), (1.0, TypeError, "float")],
)
@pytest.mark.parametrize("call", WITH_TARGET)
def test_bad_targets(call: Any, target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(small(), IDS, target)


@pytest.mark.parametrize(
    ("model", "x", "error", "words"),
    [
        (small(), ["a b"], TypeError, "list"),
        (small(), IDS[0], ValueError, r"\(N, T\), got shape \(4,\)"),
        (small(), IDS[:0], ValueError, r"\(0, 4\)"),
        (small(), torch.full((1, 3), 99), ValueError, r"0\.\.6, got 99"),
        (DigitViT(), torch.full((1, 1, 28, 28), torch.nan), ValueError, "784 values"),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_bad_inputs(call: Any, model: Any, x: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(model, x, 0)


@pytest.mark.parametrize("call", WITH_TARGET)
def test_bad_models(call: Any) -> None:
    with pytest.raises(ValueError, match="no layer that gives attention weights"):
        call(nn.Linear(2, 2), torch.ones(1, 2), 0)
    with pytest.raises(TypeError, match="function"):
        call(lambda x: x, torch.ones(1, 2), 0)
