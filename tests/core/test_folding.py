"""A folded network answers as before, is faster only where that is safe, and is put back."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Snapshot
from xailab.core import capture, folded, frozen, predictor
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
    norms = [
        sum(isinstance(one, nn.BatchNorm2d) for one in of.modules()) for of in (quick, net.model)
    ]
    own = sum(
        type(one).forward is not nn.Conv2d.forward
        for one in net.model.modules()
        if isinstance(one, nn.Conv2d)
    )
    assert norms == [own, 49]  # all but those behind convolutions with a forward of their own
    x = torch.cat([net.preprocess(image) for image in photos().images[:2]])
    layer = "blocks.4"
    with torch.no_grad(), capture(net.model, layer) as ours, capture(quick, layer) as theirs:
        torch.testing.assert_close(quick(x), net.model(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(theirs[layer], ours[layer], rtol=0, atol=1e-3)  # up to 50


def test_training_after_a_first_look_changes_nothing_but_the_weights() -> None:
    """Untrained, a norm only scales, so that a ReLU before it commutes with it: no trial tells."""
    model = Block(apart=True)
    nn.init.zeros_(model.norm.running_mean)
    first = folded(model)
    model.norm.bias.data.fill_(0.5)
    model.norm.running_mean.fill_(-1.0)
    for copy in (folded(model), first):
        assert isinstance(copy.norm, nn.BatchNorm2d), "a ReLU stands between the two"
    with frozen(model), torch.no_grad():
        torch.testing.assert_close(folded(model)(ROWS), model(ROWS))


class Shared(Block):
    """The convolution runs twice, before the norm and beside it."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.norm(self.conv(x)) + self.conv(2 * x)).sum((2, 3))


class Read(Block):
    """Someone else reads what the convolution gave."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (self.norm(x) + x).sum((2, 3))


class Forked(Block):
    """Which way the data take depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x if x.sum() > 0 else x.relu()).sum((2, 3))


def watched() -> nn.Module:
    model = Block()
    model.norm.register_forward_hook(lambda *_: None)
    return model


def without_statistics() -> nn.Module:
    model = Block()
    model.norm = nn.BatchNorm2d(2, track_running_stats=False)
    return model


@pytest.mark.parametrize("make", [Shared, Read, watched, without_statistics])
def test_a_norm_is_left_alone_unless_it_alone_reads_one_convolution(make) -> None:
    model = make()
    assert isinstance(folded(model).norm, nn.BatchNorm2d)
    with frozen(model), torch.no_grad():
        torch.testing.assert_close(folded(model)(ROWS), model(ROWS))


def test_a_network_whose_structure_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"structure cannot be told .* folded"):
        folded(Forked())
    with pytest.raises(TypeError, match="function"):
        folded(lambda x: x)
    predict = predictor(Forked())
    with frozen(model := Forked()), torch.no_grad():
        np.testing.assert_allclose(predict(ROWS.numpy()), model(ROWS).numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_predictor_in_every_precision(dtype) -> None:
    net = nn.Linear(4, 3).to(dtype)
    rows = np.random.default_rng(0).random((5, 4))
    with torch.no_grad():
        want = net(torch.as_tensor(rows, dtype=dtype)).double().numpy()
    np.testing.assert_allclose(predictor(net)(rows), want)
    assert predictor(net)(np.zeros((0, 4))).shape == (0, 3)


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
