"""Parts of a network: up to a layer, from a layer on, with inputs fixed."""

from functools import partial
from threading import Thread
from typing import Any

import captum.attr
import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Snapshot
from tests.toys import inputs, linear, toy
from xailab.attribution.occlusion import occlusion
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.saliency import input_x_gradient, saliency
from xailab.core.layers import last_maps
from xailab.core.parts import at_layer, fixed, from_layer, up_to
from xailab.core.state import frozen

TWO = nn.Sequential(linear([[1.0, 2.0], [3.0, -4.0]]), nn.ReLU(), linear([[5.0, 7.0]]))
TARGETS = torch.tensor([2, 0, 3])
X = torch.tensor([[1.0, 1.0], [2.0, 1.0]])  # h = [3, -1], [4, 2]; relu [3, 0], [4, 2]; 15, 34


class Odd(nn.Module):
    """A layer that does not run, one that runs twice, one with two answers, one of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.never, self.twice, self.cell = nn.Linear(2, 2), nn.Tanh(), nn.GRU(2, 2)
        self.most = Most()

    def forward(self, x: Tensor) -> Tensor:
        self.most(x)
        return self.cell(self.twice(self.twice(x)))[0]


class Most(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


# ---- up to a layer -------------------------------------------------------------------------------


def test_up_to_a_layer_by_hand() -> None:
    assert up_to(TWO, "0")(X).tolist() == [[3.0, -1.0], [4.0, 2.0]]
    assert up_to(TWO, "1")(X).tolist() == [[3.0, 0.0], [4.0, 2.0]]
    assert saliency(up_to(TWO, "0"), X, 1).tolist() == [[3.0, -4.0]] * 2
    assert saliency(up_to(TWO, "1"), X, [1, 0]).tolist() == [[0.0, 0.0], [1.0, 2.0]]
    # unit 0 loses x0, then 2 x1
    assert occlusion(up_to(TWO, "1"), X, 0, window=1).tolist() == [[1.0, 2.0], [2.0, 2.0]]


def test_a_place_of_maps_is_a_target() -> None:
    net, x = toy(torch.float64), inputs(dtype=torch.float64)
    got = saliency(up_to(net, "conv2"), x, lambda maps: maps[:, 3, 1, 2])
    with frozen(net):
        leaf = x.clone().requires_grad_()
        maps = net.conv2(net.pool(net.relu1(net.norm(net.conv1(leaf)))))
        (want,) = torch.autograd.grad(maps[:, 3, 1, 2].sum(), leaf)
    torch.testing.assert_close(got, want)
    with pytest.raises(ValueError, match=r"\(N, K\).*function.*`lambda out: out\[:, 0\].mean\(\("):
        saliency(up_to(net, "conv2"), x, 3)


def test_what_comes_behind_is_not_computed_and_need_not_fit() -> None:
    ran: list[int] = []
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 1))
    net[1].register_forward_hook(lambda *call: ran.append(1))
    part, x = up_to(net, "0"), torch.rand(2, 1, 3, 3)
    for _ in range(3):
        part(x)
    assert len(ran) == 1  # the first time it looks whether the layer runs again
    large = torch.rand(2, 1, 6, 6)  # which the linear layer refuses
    assert torch.equal(part(large), net[0](large))


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("never", ValueError, "'never' did not run"),
        ("twice", ValueError, "'twice' ran more than once"),
        ("cell", TypeError, "'cell' returns tuple"),
        ("nevr", ValueError, "no layer 'nevr'; near names: never"),
    ],
)
def test_layers_that_have_no_one_answer(layer: str, error: type[Exception], words: str) -> None:
    net = Odd()
    for _ in range(2):  # not only the first time
        with pytest.raises(error, match=words):
            up_to(net, layer)(X)
    with pytest.raises(error, match=words):
        from_layer(net, layer, X)(X)
    with pytest.raises(error, match=words):
        saliency(net, X, lambda out: out[:, 0], layer=layer)


def test_a_layer_of_numbers_has_no_gradient() -> None:
    assert up_to(Odd(), "most")(X).tolist() == [0, 0]
    with pytest.raises(TypeError, match=r"'most' gives torch\.int64: it has no gradient"):
        at_layer(Odd(), X, "most", lambda out: out[:, 0])


def test_nothing_is_left_behind() -> None:
    net, x = toy(), inputs()
    before = Snapshot(net, x)
    saliency(up_to(net, "relu1"), x, lambda maps: maps[:, 0, 0, 0])
    saliency(net, x, 1, layer="relu1")
    before.check()
    handle = net.fc.register_forward_pre_hook(lambda *call: 1 / 0)
    saliency(up_to(net, "conv1"), x, lambda maps: maps[:, 0, 0, 0])  # what lies behind may fail
    with frozen(net), pytest.raises(ZeroDivisionError):
        from_layer(net, "conv1", x)(torch.zeros(3, 6, 8, 8))
    handle.remove()
    with pytest.raises(ValueError, match="refuses x of shape"):
        saliency(up_to(net, "conv2"), torch.ones(1, 5, 8, 8), lambda maps: maps[:, 0, 0, 0])
    before.check()


def test_layers_of_a_part_can_be_found() -> None:
    part = up_to(toy(), "conv2")
    part(inputs())
    assert last_maps(part, inputs()) == "model.conv2"


def test_another_thread_gets_the_whole_network() -> None:
    net, started = nn.Sequential(nn.Identity(), nn.Identity()), []

    def ask(*call: object) -> None:
        if not started:
            started.append(1)
            thread = Thread(target=lambda: started.append(net(torch.ones(1, 1)).item()))
            thread.start()
            thread.join()

    part = up_to(net, "0")
    part(torch.zeros(1, 1))
    net[0].register_forward_pre_hook(ask)
    assert part(torch.zeros(1, 1)).item() == 0
    assert started == [1, 1.0]


# ---- from a layer on -----------------------------------------------------------------------------


class Around(nn.Module):
    """a = 2 x, of which one half goes past the layer: f = (x + 3) relu_(a)."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.relu = linear([[2.0]]), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3) * self.relu(self.twice(x))


def test_from_a_layer_on_by_hand() -> None:
    x = torch.tensor([[1.0], [2.0]])
    one = from_layer(Around(), "twice", x[:1])
    assert one(torch.tensor([[10.0], [-1.0], [1.0]])).tolist() == [[40.0], [0.0], [4.0]]
    both = from_layer(Around(), "twice", x)
    assert both(torch.tensor([[10.0], [1.0]])).tolist() == [[40.0], [5.0]]
    # the slope by the layer, (x + 3), though x reaches the score past the layer too
    assert saliency(one, torch.tensor([[10.0], [1.0]]), 0).tolist() == [[4.0], [4.0]]
    assert saliency(Around(), x, 0, layer="twice").tolist() == [[4.0], [5.0]]
    assert input_x_gradient(Around(), x, 0, layer="twice").tolist() == [[8.0], [20.0]]


def test_a_layer_is_replaced_by_what_it_could_give() -> None:
    part = from_layer(Around(), "twice", torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"gives \(2, 1\) torch.float32.*by \(2, 3\)"):
        part(torch.ones(2, 3))
    with pytest.raises(ValueError, match="2 rows of x for 3"):
        part(torch.ones(3, 1))


# ---- inputs that are fixed -----------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = linear([[1.0, 10.0]])

    def forward(self, x: Tensor, *, z: Tensor, scale: float = 1.0) -> Tensor:
        return self.fc(torch.cat([x, z], 1)) * scale


def test_the_other_input_is_fixed() -> None:
    part = fixed(Two(), z=torch.tensor([[2.0]]), scale=3.0)
    assert part(torch.tensor([[1.0], [5.0]])).tolist() == [[63.0], [75.0]]
    assert saliency(part, torch.ones(2, 1), 0).tolist() == [[3.0], [3.0]]
    assert saliency(part, torch.ones(2, 1), 0, layer="model.fc").tolist() == [[3.0], [3.0]]
    other = fixed(Two(), "z", x=torch.tensor([[2.0]]))
    assert saliency(other, torch.ones(2, 1), 0).tolist() == [[10.0], [10.0]]


def test_rows_that_differ_in_the_other_input_are_refused() -> None:
    for z in (torch.ones(2, 1), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"z must be one row, \(1, ...\).*one by one"):
            fixed(Two(), z=z)


# ---- captum's methods for layers and units -------------------------------------------------------


def pairs() -> list[Any]:
    return [
        ("LayerGradientXActivation", input_x_gradient, {}),
        ("LayerIntegratedGradients", partial(integrated_gradients, n_steps=40), {"n_steps": 40}),
    ]


@pytest.mark.parametrize(("name", "method", "more"), pairs())
def test_a_layer_as_captum_explains_it(name: str, method: Any, more: Any) -> None:
    model, x = toy(torch.float64).eval(), inputs(dtype=torch.float64)
    for layer in ("relu1", "conv2"):
        theirs = getattr(captum.attr, name)(model, model.get_submodule(layer))
        want = theirs.attribute(x, target=TARGETS, **more)
        torch.testing.assert_close(
            method(model, x, TARGETS, layer=layer), want, rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize(
    ("name", "method", "more"),
    [
        ("NeuronGradient", saliency, {}),
        ("NeuronIntegratedGradients", partial(integrated_gradients, n_steps=40), {"n_steps": 40}),
    ],
)
def test_a_unit_as_captum_explains_it(name: str, method: Any, more: Any) -> None:
    model, x = toy(torch.float64).eval(), inputs(dtype=torch.float64)
    theirs = getattr(captum.attr, name)(model, model.conv2)
    want = theirs.attribute(x, neuron_selector=(2, 1, 1), **more)
    unit = lambda maps: maps[:, 2, 1, 1]  # noqa: E731
    got = method(up_to(model, "conv2"), x, unit)
    assert want.abs().max() > 0
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
