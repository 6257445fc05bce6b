"""Words and sound: by hand on sums and products, by definition, and against captum."""

from functools import cache, partial
from typing import Any

import pytest
import torch
from captum.attr import LayerIntegratedGradients, Occlusion
from torch import Tensor, nn

from tests.snapshots import Boom, Snapshot
from tests.toys import inputs, toy
from xailab import data
from xailab.attribution.sequences import METHODS, Bands, band_occlusion, token_attributions
from xailab.models import (
    GRUClassifier,
    TextTransformer,
    ToneCNN,
    Vocabulary,
    sms_gru,
    sms_transformer,
    tone_cnn,
)
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
