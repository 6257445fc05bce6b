"""What a pass of LRP hands on, and what it keeps: together the score, in networks of all kinds."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import MAKERS, network, photo
from tests.toys import linear
from xailab.attribution.relevance import (
    Balance,
    _Found,
    _refuse_gap,
    layer_relevance,
    lrp,
    relevance_balance,
)
from xailab.models import digit_vit, minilm, movie_head, pretrained, sms_transformer


def test_a_loss_of_either_sign_is_told_by_its_size() -> None:
    """Of two rows one got 2 too much and one half too little, or the other way round."""
    score = torch.tensor([1.0, -4.0], dtype=torch.float64)
    for relevance in ([3.0, -4.5], [-1.0, -3.5]):
        found = _Found(torch.tensor(relevance)[:, None], score, {}, {})
        assert not found.whole
        with pytest.raises(ValueError, match="miss the score by 2 of 4 "):
            _refuse_gap(found)
    for relevance, whole in (([1.009, -4.039], True), ([1.0, -4.05], False), ([1.02, -4.0], False)):
        assert _Found(torch.tensor(relevance)[:, None], score, {}, {}).whole is whole


def conserved(model: nn.Module, x: Tensor, target: int, **options: Any) -> Balance:
    """Ask LRP, and add up what it says; a rounding may be 1 % of the score."""
    found = relevance_balance(model, x, target, **options)
    with torch.no_grad():
        score = model(x)[:, target].double()
    absorbed = sum(found.absorbed.values())
    assert score.abs().min() > 1e-2
    assert ((found.relevance.double().flatten(1).sum(1) + absorbed - score) / score).abs().max() < 0.01  # noqa: E501  # fmt: skip
    return found


@pytest.mark.parametrize("rule", ["epsilon", "epsilon_plus"])
@pytest.mark.parametrize("name", MAKERS)
def test_what_arrives_and_what_is_absorbed_is_the_score(name: str, rule: str) -> None:
    target = int(network(name)(photo()).argmax())
    found = conserved(network(name), photo(), target, rule=rule)
    assert found.relevance.abs().sum() > 0
    told = {name.rpartition(": ")[2] for name in found.absorbed}
    known = {"bias", "constant", "stabilizer", "softmax", "nothing to share"}
    assert "bias" in told
    assert told <= known


@pytest.mark.parametrize("rule", ["epsilon", "epsilon_plus"])
def test_of_a_real_network_too(rule: str) -> None:
    conserved(pretrained("efficientnet_lite0").model, 2 * photo() - 1, 285, rule=rule)


def test_in_a_relu_network_it_is_known_what_each_bias_keeps() -> None:
    r"""$f = \sum x \, df/dx + \sum b \, df/db$, exactly: input and biases have what autograd says.

    The bias of a convolution and the norm behind it is beta - mean * gamma / deviation.
    """
    model, x = network("ResNet-18 (torchvision)").double(), photo().double().requires_grad_()
    try:
        found = relevance_balance(model, x.detach(), 3, epsilon=0.0)
        score = model(x)[0, 3]
        names = {name: one for name, one in model.named_modules() if hasattr(one, "running_mean")}
        slopes = torch.autograd.grad(score, [x, *[norm.bias for norm in names.values()]])
    finally:
        model.float()
    torch.testing.assert_close(found.relevance, (x * slopes[0]).detach(), rtol=1e-6, atol=1e-9)
    for (name, norm), slope in zip(names.items(), slopes[1:], strict=True):
        size = norm.weight / (norm.running_var + norm.eps).sqrt()
        want = ((norm.bias - norm.running_mean * size) * slope).sum().item()
        conv = name.replace("bn", "conv").replace("downsample.1", "downsample.0")
        assert found.absorbed[f"{conv}: bias"].item() == pytest.approx(want, abs=1e-6), name


# ---- by hand -----------------------------------------------------------------------------------


class Body(nn.Module):
    """A network that is one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "x", "want"),
    [
        # a skip: 2 and 3 * 2 of 8, so that all of the score arrives
        (lambda x: x + 3 * x, [[2.0]], [[8.0]]),
        # a constant operand keeps its share, 5 of 7
        (lambda x: x + 5, [[2.0]], [[2.0]]),
        # an average shares in proportion, 1 and 3 of 4
        (lambda x: x.mean(1, keepdim=True), [[1.0, 3.0]], [[0.5, 1.5]]),
        # a product of two parts: half each
        (lambda x: x[:, :1] * x[:, 1:], [[2.0, 3.0]], [[3.0, 3.0]]),
        # a square is such a product with itself
        (lambda x: x**2, [[3.0]], [[9.0]]),
        # of a quotient the numerator gets all
        (lambda x: x[:, :1] / x[:, 1:], [[6.0, 3.0]], [[2.0, 0.0]]),
        # a maximum: its winner
        (lambda x: x.amax(1, keepdim=True), [[6.0, 3.0]], [[6.0, 0.0]]),
        # GELU, SiLU, hardswish pass all that they get
        (nn.GELU(), [[-1.0]], [[-1.0 * 0.15865525]]),
        (nn.SiLU(), [[1.0]], [[0.73105858]]),
        (nn.Hardswish(), [[1.0]], [[4 / 6]]),
    ],
)
def test_operations_by_hand(function: Any, x: Any, want: Any) -> None:
    got = lrp(Body(function), torch.tensor(x), 0, epsilon=1e-9)
    torch.testing.assert_close(got, torch.tensor(want))


def test_batch_norm_by_hand() -> None:
    """z = 3 * 2 = 6, of variance 4 and mean 2: (6 - 2) / 2 = 2 = 3 + (-1): 3 of it is the input's.

    Under epsilon = 1 the whole, 2 of 3, is what the layer and its norm hand on.
    """
    norm = nn.BatchNorm1d(1, eps=0.0)
    norm.running_mean.fill_(2.0), norm.running_var.fill_(4.0)
    net, x = nn.Sequential(linear([[3.0]]), norm), torch.tensor([[2.0]])
    found = relevance_balance(net, x, 0, epsilon=0.0)
    assert found.relevance.item() == pytest.approx(3.0)
    assert {name: kept.item() for name, kept in found.absorbed.items()} == {"0: bias": -1.0}
    assert lrp(net, x, 0, epsilon=1.0).item() == pytest.approx(2.0)
    assert lrp(net, x, 0, rule="z_plus").item() == pytest.approx(2.0)  # the bias is below 0


def test_layer_norm_by_hand() -> None:
    """(4, 0) has mean 2 and deviation 2: (1, -1). Score 1 = (4 / 2 - 4 / 4) - 0.

    Centering mixes: of the first output's 1 the input 4 is given 4 * (1 / 2 - 1 / 4), 0 nothing.
    """
    net, x = nn.LayerNorm(2, eps=0.0, elementwise_affine=False), torch.tensor([[4.0, 0.0]])
    torch.testing.assert_close(lrp(net, x, 0, epsilon=0.0), torch.tensor([[1.0, 0.0]]))
    # (4, 2): mean 3, deviation 1, outputs (1, -1): 4 is given 4 / 2, and 2 is given -2 / 2
    got = lrp(net, torch.tensor([[4.0, 2.0]]), 0, epsilon=0.0)
    torch.testing.assert_close(got, torch.tensor([[2.0, -1.0]]))


def test_softmax_by_hand() -> None:
    r"""Scores (log 3, 0), weights (3/4, 1/4); of R = (1, 0), z (R - s sum R) is log 3 / 4 and 0.

    The gate hands each of its two parts half of the score 3/4.
    """
    z = math.log(3)

    def gate(x: Tensor) -> Tensor:
        return x[:, :2].softmax(1)[:, :1] * x[:, 2:]

    found = relevance_balance(Body(gate), torch.tensor([[z, 0.0, 1.0]]), 0)
    torch.testing.assert_close(found.relevance, torch.tensor([[3 / 8 * z / 4, 0.0, 3 / 8]]))
    kept = found.absorbed["the model: softmax"].item()
    assert kept == pytest.approx(3 / 8 * (1 - z / 4))


def test_attention_of_two_tokens_by_hand() -> None:
    """One head of width 1; the first token looks at both with weights 3/4 and 1/4, values 4 and 8.

    Its answer is 3 + 2 = 5. Weights and values get half each of what they make, 3/2 and 1.
    Scores log 3 and 0 (query 1, keys log 3 and 0) are handed z (R - s sum R), where R = (3/2, 1).
    """
    z = math.log(3)

    def look(x: Tensor) -> Tensor:
        query, keys, values = x[:, :1, None], x[:, 1:3, None], x[:, 3:, None]
        found = nn.functional.scaled_dot_product_attention(query, keys, values)
        return found[:, :, 0]

    x = torch.tensor([[1.0, z, 0.0, 4.0, 8.0]])
    handed = z * (1.5 - 0.75 * 2.5)  # to the score of the first key, half to it, half to the query
    want = torch.tensor([[handed / 2, handed / 2, 0.0, 1.5, 1.0]])
    torch.testing.assert_close(lrp(Body(look), x, 0), want, rtol=1e-5, atol=1e-5)


# ---- transformers, layer by layer ----------------------------------------------------------------


def descends(model: nn.Module, x: Tensor, target: int, steps: dict[str, list[str]]) -> None:
    """What a layer is given is what the one before is given and what is kept in between.

    Args:
        steps: layer -> what runs after the layer before it, up to it; the last is the logits.
    """
    found = layer_relevance(model, x, target, layers=list(steps))
    absorbed = conserved(model, x, target).absorbed
    totals = [one.double().flatten(1).sum(1) for one in found.values()]
    kept = [
        sum(one for key, one in absorbed.items() if key.startswith(tuple(names)))
        for names in steps.values()
    ]
    for name, (below, above), lost in zip(list(steps)[1:], pairwise(totals), kept[1:], strict=True):
        torch.testing.assert_close(below + lost, above, rtol=1e-3, atol=1e-4, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(totals[-1].float(), model(x)[:, target])
    arrived = lrp(model, x, target).double().flatten(1).sum(1)
    torch.testing.assert_close(arrived + kept[0], totals[0], rtol=1e-3, atol=1e-4)


def test_the_digit_transformer_layer_by_layer() -> None:
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    blocks = {f"encoder.blocks.{i}": [f"encoder.blocks.{i}."] for i in range(3)}
    blocks["encoder.blocks.0"] += ["encoder: "]  # the class token, the positions
    around = {"patches": ["patches: "], **blocks, "encoder.norm": ["encoder.norm: "]}
    descends(digit_vit(), x, 3, {**around, "fc": ["fc: "]})


class OnVectors(nn.Module):
    """A network of texts, on the vectors of its words."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, vectors: Tensor) -> Tensor:
        return self.model.forward_embedded(vectors)


def test_the_text_transformer_layer_by_layer() -> None:
    model = sms_transformer()
    with torch.no_grad():
        vectors = model.embed(model.encode(["win a free prize now", "see you at lunch today"]))
    top, blocks = "model.encoder", ["model.encoder.blocks.0", "model.encoder.blocks.1"]
    steps = {blocks[0]: [f"{blocks[0]}.", f"{top}: "], blocks[1]: [f"{blocks[1]}."]}
    rest = {f"{top}.norm": [f"{top}.norm: "], "model.fc": ["model.fc: "]}
    descends(OnVectors(model), vectors, 1, {**steps, **rest})


class Sentences(nn.Module):
    """MiniLM's mean of its fifth layer, and the head that reads it; on vectors, (N, T, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.head = minilm().model, movie_head()
        del self.model.encoder.layer[5:]

    def forward(self, vectors: Tensor) -> Tensor:
        return self.head(self.model(inputs_embeds=vectors).last_hidden_state.mean(1))


def test_minilm_layer_by_layer() -> None:
    model, inputs = Sentences(), minilm().encode(["A delight from start to end."])
    with torch.no_grad():
        vectors = model.model.embeddings.word_embeddings(inputs["input_ids"])
    under = "model.embeddings"
    layers = {f"model.encoder.layer.{i}": [f"model.encoder.layer.{i}."] for i in range(5)}
    last = {"head.fc": ["head.fc: ", "the model: "]}
    descends(model, vectors, 1, {under: [under], **layers, **last})
