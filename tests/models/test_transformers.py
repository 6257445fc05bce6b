"""The transformer equals torch's own, its weights can be read, and it is as good as it says."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xailab.core import capture, frozen
from xailab.data import load
from xailab.models import (
    DigitViT,
    TextTransformer,
    Vocabulary,
    attention_layers,
    card,
    digit_vit,
    sms_transformer,
)
from xailab.models.transformers import Attention, Block, Encoder, MaskedSoftmax

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])


def identity(linear):
    """Make a square linear layer hand on its input."""
    linear.weight.copy_(torch.eye(len(linear.weight)))
    linear.bias.zero_()


# --- attention


@torch.no_grad()
def test_one_head_on_two_tokens_by_hand():
    # q = k = v = x, d = 1: scores x_i x_j; tokens 0 and log 3
    attention = Attention(width=1, heads=1)
    for linear in (attention.query, attention.key, attention.value, attention.output):
        identity(linear)
    attention.query.bias[:] = 1  # q = 1 and 1 + log 3
    log3 = math.log(3)
    x = torch.tensor([[[0.0], [log3]]])
    with capture(attention, "softmax") as kept:
        out = attention(x, torch.ones(1, 2, dtype=torch.bool))
    # first token: scores 0 and log 3, weights 1 : 3
    assert kept["softmax"][0, 0, 0].tolist() == pytest.approx([1 / 4, 3 / 4])
    # second: scores 0 and (1 + log 3) log 3, weights 1 : 3 ** (1 + log 3)
    odds = 3 ** (1 + log3)
    assert kept["softmax"][0, 0, 1].tolist() == pytest.approx([1 / (1 + odds), odds / (1 + odds)])
    assert out.flatten().tolist() == pytest.approx([3 / 4 * log3, odds / (1 + odds) * log3])


@torch.no_grad()
def test_scores_are_divided_by_the_root_of_the_heads_length():
    # width 4, one head: q.k = 4 log(4) / 2 = 2 log 4 -> weights 1 : 16; without the root 1 : 256
    attention = Attention(width=4, heads=1)
    for linear in (attention.query, attention.key, attention.value, attention.output):
        identity(linear)
    attention.query.weight.zero_()
    attention.query.bias[:] = 1
    x = torch.stack([torch.zeros(4), torch.full((4,), math.log(4))])[None]
    with capture(attention, "softmax") as kept:
        attention(x, torch.ones(1, 2, dtype=torch.bool))
    assert kept["softmax"][0, 0, 0].tolist() == pytest.approx([1 / 17, 16 / 17])


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_equals_scaled_dot_product_attention(heads):
    torch.manual_seed(0)
    attention, x = Attention(12, heads), torch.randn(2, 4, 12)
    q, k, v = (
        part(x).reshape(2, 4, heads, -1).transpose(1, 2)
        for part in (attention.query, attention.key, attention.value)
    )
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=MASK[:, None, None, :])
    theirs = attention.output(theirs.transpose(1, 2).reshape(2, 4, 12))
    torch.testing.assert_close(attention(x, MASK), theirs, rtol=0, atol=1e-6)


def test_weights_are_zero_on_padding_and_sum_to_one():
    weights = MaskedSoftmax()(torch.randn(2, 3, 4, 4), MASK)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))
    assert weights[1, :, :, 2:].abs().max() == 0
    assert weights[0].min() > 0


def test_a_width_that_cannot_be_shared():
    with pytest.raises(ValueError, match="width of 10 cannot be shared by 4 heads"):
        Attention(10, 4)


# --- block and encoder


def twin(block, width, heads):
    """Return torch's own pre-norm layer with the weights of a block."""
    theirs = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
    )
    ours = block.attention
    parts = (ours.query, ours.key, ours.value)
    theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    theirs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    for mine, its in (
        (ours.output, theirs.self_attn.out_proj),
        (block.norm1, theirs.norm1),
        (block.norm2, theirs.norm2),
        (block.mlp[0], theirs.linear1),
        (block.mlp[2], theirs.linear2),
    ):
        its.load_state_dict(mine.state_dict())
    return theirs


def scrambled(module):
    """Fill every parameter with noise, so that no bias or scale is left at its beginning."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@torch.no_grad()
def test_the_block_equals_torchs_own_layer():
    torch.manual_seed(0)
    block, x = scrambled(Block(12, 3)).double(), torch.randn(2, 4, 12).double()
    theirs = twin(block, 12, 3).double()(x, src_key_padding_mask=~MASK)
    assert (theirs - x).abs().mean() > 0.1
    torch.testing.assert_close(block(x, MASK)[MASK], theirs[MASK], rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_encoder_by_its_parts():
    torch.manual_seed(0)
    encoder, x = scrambled(Encoder(8, depth=2, heads=2, length=6)), torch.randn(2, 4, 8)
    rows = torch.cat([encoder.token.expand(2, 1, 8), x], 1) + encoder.positions[:, :5]
    padding = torch.cat([torch.zeros(2, 1, dtype=torch.bool), ~MASK], 1)
    for block in encoder.blocks:
        rows = twin(block, 8, 2)(rows, src_key_padding_mask=padding)
    torch.testing.assert_close(encoder(x, MASK), encoder.norm(rows[:, 0]), rtol=0, atol=1e-5)


# --- on words


def test_attention_weights_can_be_captured_with_their_gradients():
    model = sms_transformer()
    ids = model.encode(["WIN a prize now", "ok"])
    layers = attention_layers(model)
    assert len(layers) == len(model.encoder.blocks) == 2
    assert all(f"`{layer}`" in card("sms_transformer") for layer in layers)
    with frozen(model), capture(model, layers, leaf=True) as kept:
        gradients = torch.autograd.grad(model(ids)[:, 1].sum(), kept[layers[-1]])
    for layer in layers:
        assert kept[layer].shape == (2, 4, 5, 5)  # class token and four words
        assert kept[layer][1, :, :, 2:].abs().max() == 0
    # the class token alone is read: the other rows of the last block's weights do nothing
    assert gradients[0][:, :, 0].abs().max() > 0
    assert gradients[0][:, :, 1:].abs().max() == 0


@torch.no_grad()
def test_a_hidden_word_is_not_read():
    model = TextTransformer(Vocabulary(["<pad>", "<unk>", "a", "b", "c"]))
    mask = torch.tensor([[True, False, True]])
    one, other = (
        model.forward_embedded(model.embed(model.encode([text])), mask)
        for text in ("a b c", "a c c")
    )
    torch.testing.assert_close(one, other)


def test_long_texts_are_cut_and_long_ids_refused():
    model = TextTransformer(Vocabulary(["<pad>", "<unk>", "a"]), max_length=3)
    assert model.encode(["a a a a a"]).shape == (1, 3)
    with pytest.raises(ValueError, match="at most 3 words, got 4"):
        model(torch.full((1, 4), 2))


# --- on digits


@torch.no_grad()
def test_digits_it_never_saw():
    data = load("mnist5k")
    test = data.take(~data.extra["train"])
    x = torch.as_tensor(test.images / np.float32(255))[:, None]
    right = (digit_vit()(x).argmax(1).numpy() == test.y).mean()
    assert right >= 0.93
    stated = float(re.search(r"([\d.]+) % of the other 1,000 digits right", card("digit_vit"))[1])
    assert 100 * right == pytest.approx(stated, abs=0.05 + 0.1)  # one digit of the 1,000


@torch.no_grad()
def test_position_of_a_patch():
    # a change in row 2, column 5 of the patches reaches the blocks at position 1 + 7 * 2 + 5
    model, x = digit_vit(), torch.zeros(2, 1, 28, 28)
    x[1, 0, 4 * 2 + 1, 4 * 5 + 3] = 1
    with capture(model, ["encoder.blocks.0.norm1", *attention_layers(model)]) as kept:
        assert model(x).shape == (2, 10)
    changed = (kept["encoder.blocks.0.norm1"][0] != kept["encoder.blocks.0.norm1"][1]).any(1)
    assert torch.nonzero(changed).flatten().tolist() == [1 + 7 * 2 + 5]
    assert kept["encoder.blocks.0.attention.softmax"].shape == (2, 4, 50, 50)


def test_double_precision_and_gradients():
    model = digit_vit()
    x = torch.rand(2, 1, 28, 28)
    single = model(x).detach()
    model.double()
    pixels = x.double().requires_grad_()
    logits = model(pixels)
    torch.testing.assert_close(logits.detach().float(), single, rtol=0, atol=1e-4)
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), pixels)
    assert gradient.dtype == torch.float64
    assert (gradient.abs().sum((2, 3)) > 0).all()


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 3, 28, 28), (1, 1, 32, 32), (2, 784)])
def test_what_is_no_digit(shape):
    with pytest.raises(ValueError, match=r"\(N, 1, 28, 28\), got shape"):
        DigitViT(depth=1)(torch.zeros(shape))
