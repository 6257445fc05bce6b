"""Faults in networks by hand, and in the digit network with margins."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.held_out import answers, digits
from tests.snapshots import Boom, unchanged
from tests.toys import inputs, toy
from xailab.core import frozen
from xailab.models import digit_cnn
from xailab.simplify.compress import low_rank, quantize
from xailab.trust.bit_faults import damage_table, flip_bits, stuck_at

NAN = float("nan")


def test_a_flip_in_a_weight_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0, 2.0]])
    with flip_bits(net, "0", bit=31, at=[1]):
        assert net(torch.tensor([[1.0, 1.0]])).item() == -1
    assert net(torch.tensor([[1.0, 1.0]])).item() == 3


def test_a_stuck_bit_does_nothing_where_it_is_already() -> None:
    net, row = nn.Sequential(nn.Identity()), torch.tensor([[1.0, -1.0]])
    with stuck_at(net, "0", value=1, bit=31, at=[0, 1]):
        assert net(row).tolist() == [[-1, -1]]
    with stuck_at(net, "0", value=0, bit=31, at=[0, 1]):
        assert net(row).tolist() == [[1, 1]]


def test_faults_hit_the_same_unit_in_every_row() -> None:
    model, x = toy().eval(), inputs()
    with torch.no_grad(), stuck_at(model, "norm", value=7.0, n_faults=3, seed=4):
        rows = []
        model.norm.register_forward_hook(lambda *call: rows.append(call[-1]))
        model(x)
    hit = (rows[0] == 7).flatten(1)
    assert hit.sum(1).tolist() == [3, 3, 3]
    assert (hit == hit[0]).all()


FAULTS = [
    pytest.param(flip_bits, {"bit": 30, "where": where}, id=f"flip a {where}")
    for where in ("weight", "bias", "activation")
] + [
    pytest.param(stuck_at, {"value": 9.0, "where": where}, id=f"stuck {where}")
    for where in ("weight", "bias", "activation")
]


@pytest.mark.parametrize("error", [None, Boom, KeyboardInterrupt])
@pytest.mark.parametrize(("fault", "options"), FAULTS)
def test_nothing_is_left_behind(fault: Any, options: Any, error: Any) -> None:
    model, x = toy(), inputs()
    with torch.no_grad():
        model.conv1.weight.view(-1)[0] = NAN  # bits are put back, also those of a NaN
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bits = model.conv1.weight.detach().view(torch.int32).clone()
    flags = [(module.training, len(module._forward_hooks)) for module in model.modules()]
    try:
        with fault(model, "conv1", n_faults=162 if options["where"] == "weight" else 2, **options):
            if options["where"] == "weight":
                assert not torch.equal(model.conv1.weight.detach().view(torch.int32), bits)
            if options["where"] == "bias":
                assert not torch.equal(model.conv1.bias, before["conv1.bias"])
            if error:
                raise error
    except (Boom, KeyboardInterrupt):
        pass
    assert torch.equal(model.conv1.weight.view(torch.int32), bits)
    assert torch.equal(model.conv1.bias, before["conv1.bias"])
    assert [(m.training, len(m._forward_hooks)) for m in model.modules()] == flags
    assert model.fc.weight.grad.unique().tolist() == [7]
    assert x.equal(inputs())


def test_seed_decides_the_places() -> None:
    def hit(seed: int) -> list[int]:
        net = nn.Sequential(nn.Linear(10, 10))
        nn.init.ones_(net[0].weight)
        with flip_bits(net, "0", bit=31, n_faults=3, seed=seed):
            return (net[0].weight.detach().flatten() < 0).nonzero().flatten().tolist()

    assert len(hit(0)) == 3
    assert hit(0) == hit(0) != hit(1)


@pytest.mark.parametrize(
    ("fault", "layer", "options", "error", "words"),
    [
        (flip_bits, "cnv1", {"bit": 1}, ValueError, "no layer 'cnv1'.*conv1"),
        (flip_bits, 3, {"bit": 1}, TypeError, "int"),
        (flip_bits, "conv1", {"bit": 32}, ValueError, r"bit must lie in 0\.\.31.*sign 31.*got 32"),
        (flip_bits, "conv1", {"bit": -1}, ValueError, r"0\.\.31.*-1"),
        (flip_bits, "conv1", {"bit": 1.0}, TypeError, "bit must be an integer, got float"),
        (flip_bits, "conv1", {"bit": 32, "where": "activation"}, ValueError, r"0\.\.31"),
        (flip_bits, "relu1", {"bit": 1}, ValueError, r"'relu1' \(ReLU\) has no weight"),
        (
            flip_bits,
            "conv1",
            {"bit": 1, "where": "memory"},
            ValueError,
            "weight, bias or activation",
        ),
        (flip_bits, "conv1", {"bit": 1, "n_faults": 163}, ValueError, "162 numbers.*163"),
        (flip_bits, "conv1", {"bit": 1, "n_faults": 0}, ValueError, "n_faults"),
        (flip_bits, "conv1", {"bit": 1, "at": [162]}, ValueError, r"0\.\.161"),
        (stuck_at, "cnv1", {"value": 0.0}, ValueError, "conv1"),
        (stuck_at, "conv1", {"value": 0.5, "bit": 3}, ValueError, "0 or 1, got 0.5"),
        (stuck_at, "conv1", {"value": 1, "bit": 40}, ValueError, r"0\.\.31.*40"),
    ],
)
def test_bad_faults(
    fault: Any, layer: Any, options: Any, error: type[Exception], words: str
) -> None:
    model, x = toy(), inputs()
    with unchanged(model, x), pytest.raises(error, match=words), fault(model, layer, **options):
        pass


def test_too_many_faults_in_an_activation_are_refused_when_it_runs() -> None:
    model, x = toy(), inputs()
    with (
        unchanged(model, x),
        pytest.raises(ValueError, match="5 numbers to hit, got n_faults=6"),
        stuck_at(model, "gap", value=0.0, n_faults=6),
        frozen(model),
    ):
        model(x)


@pytest.mark.parametrize("fault", [flip_bits, stuck_at])
def test_a_fault_that_hits_nothing_is_refused_when_the_block_ends(fault: Any) -> None:
    """Else a layer that is never asked would seem to bear every fault."""
    model, x = toy(), inputs()
    model.spare = nn.ReLU()
    options = {"bit": 3} if fault is flip_bits else {"value": 0.0}
    with unchanged(model, x):
        with (
            pytest.raises(ValueError, match=r"'spare' did not run.*nothing was changed"),
            fault(model, "spare", where="activation", **options),
            frozen(model),
        ):
            model(x)
        with fault(model, "spare", where="activation", **options):
            pass  # nobody asked anything of the model


def test_high_exponent_bits_break_the_network_and_low_fractions_do_not() -> None:
    x, y = (part[:100] for part in digits())
    model = digit_cnn()
    with unchanged(model, x):
        damage = damage_table(
            model, x, y, layers=["conv1", "fc"], bits=[0, 22, 30], n_faults=3, n_repeats=3
        )
    assert damage.mean.index.tolist() == ["fraction 0", "fraction 22", "exponent 7"]
    assert damage.mean.columns.tolist() == ["conv1", "fc"]
    assert damage.mean.loc["fraction 0"].abs().max() == 0
    assert damage.mean.loc["exponent 7"].min() > 0.3
    assert (damage.worst >= damage.mean).all(axis=None)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_the_sign_of_a_weight_decides_what_bit_30_does(layer: str) -> None:
    """Before a ReLU: a gigantic negative weight kills a unit, a positive one floods the network."""
    model, (x, y) = digit_cnn(), [part[:100] for part in digits()]
    weight = getattr(model, layer).weight.detach().flatten().numpy()
    right: dict[bool, list[float]] = {True: [], False: []}
    for positive, shares in right.items():
        fits = np.flatnonzero(((weight > 0) == positive) & (np.abs(weight) < 1))
        for place in np.random.default_rng(1).permutation(fits)[:6]:
            with flip_bits(model, layer, bit=30, at=[place]):
                shares.append((answers(model, x) == y).double().mean().item())
    assert np.mean(right[False]) > 0.9
    assert np.mean(right[True]) < 0.2


def test_answers_that_are_no_numbers_are_wrong() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    net[0].weight.data = torch.eye(2)
    x, y = torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([0, 1])
    assert damage_table(net, x, y, layers=["0"], bits=[30], n_faults=4).mean.to_numpy() == 1


# ---- computed weights ----------------------------------------------------------------------------


class Owned(nn.Module):
    """A layer whose weight is a property: the parameter itself, or made from it."""

    def __init__(self, factor: float | None) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.factor = factor

    @property
    def weight(self) -> Tensor:
        return self.inner.weight if self.factor is None else self.factor * self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.inner.bias)


def masked(layer: nn.Linear) -> nn.Linear:
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def around(first: nn.Module) -> nn.Sequential:
    return nn.Sequential(first, nn.ReLU(), nn.Linear(8, 3)).eval()


def rows(n: int = 40) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize(
    ("kind", "inside", "bit"),
    [
        (lambda layer: quantize(nn.Sequential(layer))[0], "parametrizations.weight.original0", 6),
        (nn.utils.weight_norm, "weight_v", 29),
        (nn.utils.spectral_norm, "weight_orig", 29),
        (parametrizations.weight_norm, "parametrizations.weight.original1", 29),
        (parametrizations.spectral_norm, "parametrizations.weight.original", 29),
        (masked, "weight_orig", 29),
        (lambda layer: Owned(None), "inner.weight", 29),
    ],
)
def test_computed_weights_are_broken_where_their_numbers_lie(
    kind: Any, inside: str, bit: int
) -> None:
    """The stored numbers differ in one bit at ten places, the answers differ; then nothing does."""
    net, x = around(kind(nn.Linear(6, 8))), rows()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        sound, weight = net(x), net[0].weight.clone()
        with flip_bits(net, "0", bit=bit, n_faults=10):
            broken = net(x)
            stored = net.state_dict()["0." + inside]
            assert (stored != before["0." + inside]).sum() == 10
            assert not torch.equal(net[0].weight, weight)
        assert not torch.allclose(broken, sound, atol=1e-3)
        assert torch.equal(net(x), sound)
        assert torch.equal(net[0].weight, weight)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_quantized_weight_by_hand() -> None:
    """0.5 is code 64 of step 1 / 128 or near it: bit 6 less, it is 0; code 127 loses its sign."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[127.0, 64.0]])
    net = quantize(net)  # a step of 1
    with flip_bits(net, "0", bit=6, at=[1]):
        assert net(torch.tensor([[0.0, 1.0]])).item() == 0
    with flip_bits(net, "0", bit=7, at=[0]):  # 127 - 128
        assert net(torch.tensor([[1.0, 0.0]])).item() == -1
    with stuck_at(net, "0", value=3, at=[0], where="weight"):
        assert net(torch.tensor([[1.0, 0.0]])).item() == 3
    assert net(torch.tensor([[1.0, 1.0]])).item() == 191


def test_damage_of_a_quantized_network_is_that_of_its_codes() -> None:
    net, x = around(nn.Linear(6, 8)), rows()
    small = quantize(net)
    y = small(x).argmax(1)
    found = damage_table(small, x, y, layers=["0", "2"], bits=[0, 6, 7], n_faults=10, n_repeats=2)
    assert found.mean.index.tolist() == ["integer 0", "integer 6", "sign"]
    codes, broken = small[0].parametrizations.weight.original0, small(x)
    drops = []
    for seed in range(2):
        places = torch.randperm(48, generator=torch.Generator().manual_seed(seed))[:10]
        kept = codes.data.clone()
        codes.data.view(-1)[places] ^= 64
        drops.append((small(x).argmax(1) != y).double().mean().item())
        codes.data.copy_(kept)
    assert torch.equal(small(x), broken)
    assert found.mean.loc["integer 6", "0"] == pytest.approx(np.mean(drops))
    assert found.worst.loc["integer 6", "0"] == pytest.approx(np.max(drops))


class Held(nn.Module):
    """A weight that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (lambda: Owned(2.0), "computes its weight.*inner.weight, inner.bias"),
        (Held, "neither as a parameter nor as a buffer"),
        (
            lambda: low_rank(nn.Sequential(nn.Linear(6, 8)), 0.1)[0],
            r"computes its weight.*0\.weight",
        ),
        (lambda: nn.LSTM(6, 8), "has no weight; it holds weight_ih_l0"),
        (lambda: nn.LazyLinear(8), "lazy"),
        (lambda: nn.Linear(6, 8, device="meta"), "meta"),
    ],
)
def test_weights_that_cannot_be_broken_are_refused_by_what_is_held(first: Any, words: str) -> None:
    net = nn.Sequential(first())
    with pytest.raises(ValueError, match=words), flip_bits(net, "0", bit=3):
        pass


def test_expanded_numbers_are_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 8))
    net[0].weight = nn.Parameter(torch.ones(1, 6).expand(8, 6))
    with pytest.raises(ValueError, match="expanded"), flip_bits(net, "0", bit=3):
        pass


def test_a_fault_behind_a_mask_is_refused() -> None:
    net = around(masked(nn.Linear(6, 8)))
    dead = int((net[0].weight_mask.flatten() == 0).nonzero()[0])
    with (
        pytest.raises(ValueError, match=r"computes its weight from weight_orig.*prune\.remove"),
        flip_bits(net, "0", bit=30, at=[dead]),
    ):
        pass
    with torch.no_grad():
        net[0].weight_mask.zero_()
    with (
        pytest.raises(ValueError, match="masked everywhere"),
        flip_bits(net, "0", bit=30),
    ):
        pass


def test_cached_weights_are_refused() -> None:
    net = around(parametrizations.weight_norm(nn.Linear(6, 8)))
    with parametrize.cached():
        net(rows())
        with pytest.raises(ValueError, match="cached"), flip_bits(net, "0", bit=30):
            pass


def test_a_flip_without_an_effect_is_warned_of() -> None:
    """The sign of a zero: -0 is 0."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[0.0, 1.0]])
    with (
        pytest.warns(UserWarning, match="no value of the weight"),
        flip_bits(net, "0", bit=31, at=[0]),
    ):
        pass
    with (
        pytest.warns(UserWarning, match="no value that layer '0'"),
        stuck_at(net, "0", value=0.0, at=[0]),
    ):
        net(torch.zeros(1, 2))
    found = damage_table(
        net, torch.ones(2, 2), [1, 1], layers=["0"], bits=[31], n_faults=2, n_repeats=1
    )
    assert found.mean.iloc[0, 0] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("where", ["weight", "activation"])
def test_a_stuck_bit_that_has_its_value_already_is_nothing_to_warn_of(where: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data.fill_(1.0)
    with stuck_at(net, "0", value=0, bit=31, where=where):
        assert net(torch.ones(1, 2)).item() == 2


def test_a_shared_weight_is_broken_in_both_layers() -> None:
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    second.weight = first.weight
    first.weight.data.fill_(3.0)
    net = nn.Sequential(first, second)
    with flip_bits(net, "0", bit=31):
        assert net(torch.ones(1, 1)).item() == 9
        assert second.weight.item() == -3
    with stuck_at(net, "1", value=2.0, where="weight"):
        assert net(torch.ones(1, 1)).item() == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_bits_are_those_of_the_dtype(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(2, 1, bias=False)).to(dtype)
    net[0].weight.data.fill_(3.0)
    last = torch.finfo(dtype).bits - 1
    for where, options in (("weight", {}), ("activation", {})):
        with torch.no_grad(), flip_bits(net, "0", bit=last, n_faults=1, where=where, **options):
            assert net(torch.ones(1, 2, dtype=dtype)).item() == (0 if where == "weight" else -6)
        with (
            pytest.raises(ValueError, match=rf"0\.\.{last}"),
            flip_bits(net, "0", bit=last + 1, where=where),
        ):
            pass


def test_what_is_undone_survives_a_change_of_dtype_inside() -> None:
    """`.double()` gives the parameter new memory; the old numbers go back into that."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data.fill_(3.0)
    with flip_bits(net, "0", bit=31, at=[0]):
        net.double()
    assert net[0].weight.tolist() == [[3.0, 3.0]]


def test_networks_made_in_inference_mode() -> None:
    with torch.inference_mode():
        net = nn.Sequential(nn.Linear(2, 1, bias=False))
        net[0].weight.fill_(3.0)
    with flip_bits(net, "0", bit=31, at=[0]):
        assert net[0].weight.tolist() == [[-3.0, 3.0]]
    assert net[0].weight.tolist() == [[3.0, 3.0]]


def test_a_compiled_network_is_broken_too() -> None:
    net, x = around(nn.Linear(6, 8)), rows(8)
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        sound = compiled(x)
        for where in ("weight", "activation"):
            with stuck_at(compiled, "_orig_mod.2", value=9.0, where=where, n_faults=2):
                assert not torch.allclose(compiled(x), sound)
        assert torch.equal(compiled(x), sound)


def test_an_owner_that_reads_a_layer_hears_its_memory_and_not_its_output() -> None:
    attention = nn.MultiheadAttention(6, 2, batch_first=True).eval()
    x = rows()[None]
    with torch.no_grad():
        sound = attention(x, x, x)[0]
        with flip_bits(attention, "out_proj", bit=29, n_faults=10):
            assert not torch.equal(attention(x, x, x)[0], sound)
        with (
            pytest.raises(ValueError, match="'out_proj' did not run"),
            flip_bits(attention, "out_proj", bit=29, where="activation"),
        ):
            attention(x, x, x)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"at": 5}, ValueError, "at must be a list"),
        ({"at": []}, ValueError, "one place or more"),
        ({"at": [0.0]}, TypeError, "a place in at must be an integer"),
        ({"at": [-1]}, ValueError, r"0\.\.47"),
        ({"seed": 0.5}, TypeError, "seed"),
        ({"value": "high"}, TypeError, "value must be a number, got str"),
        ({"value": 1e39}, ValueError, "torch.float32"),
        ({"value": 0.5, "layer": "small"}, ValueError, r"whole number in -128\.\.127"),
        ({"value": 300, "layer": "small"}, ValueError, r"-128\.\.127.*got 300"),
        ({"value": 1, "bit": 8, "layer": "small"}, ValueError, "'small' stores its weight"),
    ],
)
def test_places_and_values_are_refused_by_name(options: Any, error: Any, words: str) -> None:
    small = quantize(nn.Sequential(nn.Linear(6, 8)))[0]
    net = nn.ModuleDict({"large": nn.Linear(6, 8), "small": small})
    usual = {"layer": "large", "value": 1.0, "where": "weight"}
    with pytest.raises(error, match=words), stuck_at(net, **(usual | options)):
        pass


def test_integers_and_numbers_of_any_kind() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    net[0].weight.data.fill_(1.0)
    with stuck_at(
        net, "0", value=np.float32(2), where="weight", at=torch.tensor([1]), seed=np.int64(3)
    ):
        assert net[0].weight.tolist() == [[1, 2], [1, 1]]
    with flip_bits(net, "0", bit=np.uint8(31), at=np.array([0]), n_faults=np.int64(1)):
        assert net[0].weight.tolist() == [[-1, 1], [1, 1]]
    with stuck_at(net, "0", value=True, bit=torch.tensor(31), at=[0], where="weight"):
        assert net[0].weight.tolist() == [[-1, 1], [1, 1]]
    with stuck_at(net, "0", value=NAN, at=[0], where="weight"):
        assert net[0].weight[0, 0].isnan()


def test_outputs_that_are_not_one_tensor_are_refused() -> None:
    net = nn.Sequential(nn.LSTM(6, 8))
    with (
        pytest.raises(TypeError, match="'0' returns tuple"),
        stuck_at(net, "0", value=0.0),
    ):
        net(rows())


def test_one_number_a_row() -> None:
    net = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    with torch.no_grad(), stuck_at(net, "1", value=7.0):
        assert net(rows(3)).tolist() == [7, 7, 7]


# ---- tables --------------------------------------------------------------------------------------


class Answers(nn.Module):
    """A binary network with one logit, answering in several forms; `spare` is never asked."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.fc, self.spare = form, nn.Linear(2, 1, bias=False), nn.Linear(2, 2)
        self.fc.weight.data = torch.tensor([[1.0, 0.0]])

    def forward(self, x: Tensor) -> Any:
        z = self.fc(x)
        forms = {"one": z, "flat": z[:, 0], "tuple": (z,), "dict": {"logits": z, "other": x}}
        return forms[self.form]


@pytest.mark.parametrize("form", ["one", "flat", "tuple", "dict"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_one_logit_decides_at_zero(form: str, kind: Any) -> None:
    """A weight of 1 with its sign flipped turns every answer round; bit 30 makes it infinite."""
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [2.0, 0.0], [-3.0, 0.0]])
    options = {"layers": ("fc",), "bits": (31, 30), "n_faults": 2, "n_repeats": 1}
    found = damage_table(Answers(form), x, kind([1, 0, 1, 0]), **options)
    assert found.mean["fc"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": ["spare"]}, "no answer depends on the weight of layer 'spare'"),
        ({"layers": ["spare"], "where": "activation"}, "'spare' did not run"),
        ({"layers": "fc"}, "list of names, got 'fc'"),
        ({"layers": []}, "list of names"),
        ({"bits": []}, "bits must name a bit"),
        ({"bits": [32]}, r"0\.\.31"),
        ({"y": [1, 2]}, r"y must lie in 0\.\.1, it holds the class 2"),
        ({"y": [[0, 1], [1, 0]]}, "one-hot"),
        ({"where": "memory"}, "weight, bias or activation"),
    ],
)
def test_bad_tables(changes: Any, words: str) -> None:
    usual = {"x": torch.eye(2), "y": [1, 0], "layers": ["fc"], "bits": [30]}
    with pytest.raises(ValueError, match=words):
        damage_table(Answers("one"), **(usual | changes))


def test_layers_of_several_dtypes_need_tables_of_their_own() -> None:
    net = around(quantize(nn.Sequential(nn.Linear(6, 8)))[0])
    with pytest.raises(ValueError, match=r"0: torch.int8, 2: torch.float32"):
        damage_table(net, rows(), [0] * 40, layers=["0", "2"], bits=[1])


def test_the_order_of_bits_and_layers_is_kept() -> None:
    net, x = around(nn.Linear(6, 8)), rows()
    found = damage_table(net, x, net(x).argmax(1), layers=["2", "0"], bits=[31, 0], n_repeats=1)
    assert found.mean.columns.tolist() == ["2", "0"]
    assert found.mean.index.tolist() == ["sign", "fraction 0"]
