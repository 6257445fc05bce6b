"""A folded network answers as before, is faster only where that is safe, and is put back."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Snapshot
from xailab.core import capture, folded, frozen, predictor
from xailab.core.folding import folding
from xailab.core.scores import batched_gradients, batched_scores
from xailab.data import photos
from xailab.models import pretrained


class Block(nn.Module):
    """Lists convolution and norm one after the other; `apart` uses them with a ReLU between."""

    def __init__(self, *, apart: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.apart = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), apart
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 1.5)
        self.ran: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.ran.append(type(self.norm).__name__)
        x = self.conv(x)
        return self.norm(x.relu() if self.apart else x).sum((2, 3))


ROWS = torch.rand(20, 1, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def net():
    return pretrained("efficientnet_lite0")


def test_weights_on_paper() -> None:
    """A norm (mean 3, deviation 2, weight 10, bias 1) of 2 x + 5: 10 (2 x + 2) / 2 + 1."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval()
    for tensor, number in [
        (net[0].weight, 2),
        (net[0].bias, 5),
        (net[1].running_mean, 3),
        (net[1].running_var, 4 - net[1].eps),
        (net[1].weight, 10),
        (net[1].bias, 1),
    ]:
        tensor.data.fill_(number)
    quick = folded(net)
    assert quick[0].weight.item() == pytest.approx(10)
    assert quick[0].bias.item() == pytest.approx(11)
    assert isinstance(quick[1], nn.Identity)


def test_a_folded_copy_answers_alike_and_leaves_the_original_alone(net) -> None:
    before = Snapshot(net.model, net.preprocess(photos().images[0]))
    quick = folded(net.model)
    before.check()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    x = torch.cat([net.preprocess(image) for image in photos().images[:2]])
    layer = "blocks.4"
    with torch.no_grad(), capture(net.model, layer) as ours, capture(quick, layer) as theirs:
        torch.testing.assert_close(quick(x), net.model(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(theirs[layer], ours[layer], rtol=0, atol=1e-3)  # up to 50


def test_scores_and_gradients_are_those_of_the_plain_network() -> None:
    model = Block()
    scores = batched_scores(model, lambda chunk: ROWS[list(chunk)], 20, 1, like=ROWS[0])
    gradients = batched_gradients(model, ROWS, 1)
    assert model.ran.count("Identity") >= 2
    model.ran.clear()
    leaf = ROWS.clone().requires_grad_()
    with frozen(model):
        plain = model(leaf)[:, 1]
    torch.testing.assert_close(scores, plain.detach(), rtol=1e-5, atol=1e-5)
    (want,) = torch.autograd.grad(plain.sum(), leaf)
    torch.testing.assert_close(gradients, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_same_layers_are_put_back(error) -> None:
    model = Block()
    before = Snapshot(model, ROWS)
    conv, norm = model.conv, model.norm
    try:
        with frozen(model), folding(model, ROWS[:1], 20):
            assert isinstance(model.norm, nn.Identity)
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert model.conv is conv
    assert model.norm is norm
    assert list(model._modules) == ["conv", "norm"]
    before.check()


def few_rows() -> tuple[nn.Module, int]:
    return Block(), 15


def used_apart() -> tuple[nn.Module, int]:
    return Block(apart=True), 20


def watched_norm() -> tuple[nn.Module, int]:
    model = Block()
    model.norm.register_forward_hook(lambda *_: None)
    return model, 20


def no_statistics() -> tuple[nn.Module, int]:
    model = Block()
    model.norm = nn.BatchNorm2d(2, track_running_stats=False)
    return model, 20


@pytest.mark.parametrize("case", [few_rows, used_apart, watched_norm, no_statistics])
def test_nothing_is_exchanged_where_it_does_not_pay_or_is_not_safe(case) -> None:
    model, n = case()
    norm = model.norm
    with frozen(model), folding(model, ROWS[:1], n):
        assert model.norm is norm


def test_a_plain_function_passes() -> None:
    with folding(torch.relu, ROWS[:1], 20):
        pass


@pytest.mark.parametrize("apart", [False, True])
def test_predictor_answers_as_the_network_does(apart) -> None:
    model = Block(apart=apart)
    before = Snapshot(model, ROWS)
    predict = predictor(model)
    got = predict(ROWS.double().numpy())
    before.check()
    with frozen(model), torch.no_grad():
        want = model(ROWS).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    model.conv.weight.data.zero_()
    np.testing.assert_array_equal(predict(ROWS.numpy()), got)  # a copy as it was
