"""Where numbers lie, and that they are put back."""

import warnings

import pytest
import torch
from torch import nn

from tests.snapshots import Boom
from xailab.trust.memory import broken_memory, changed, layer_names, stored, warn_unless


class Buffered(nn.Module):
    """A weight that is a buffer, as in frozen layers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([[1.0, 2.0]]))


def test_buffers_are_memory_too() -> None:
    net = nn.Sequential(Buffered())
    name, tensor = stored(net, "0", "weight")
    assert name == "weight"
    assert tensor is net[0].weight
    with broken_memory(net, "0", "weight", torch.neg, lambda n: torch.tensor([n - 1])):
        assert net[0].weight.tolist() == [[1, -2]]
    assert net[0].weight.tolist() == [[1, 2]]


def test_a_weight_without_axes() -> None:
    net = nn.Sequential(nn.Module())
    net[0].weight = nn.Parameter(torch.tensor(2.0))
    with broken_memory(net, "0", "weight", torch.neg, torch.arange):
        assert net[0].weight.item() == -2
    assert net[0].weight.item() == 2


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
def test_numbers_are_put_back_also_by_an_error(error: type[BaseException]) -> None:
    net = nn.Sequential(nn.Linear(3, 2).to(memory_format=torch.contiguous_format))
    net[0].weight.data = net[0].weight.data.T.contiguous().T  # another layout
    before = net[0].weight.detach().clone()
    try:
        with broken_memory(net, "0", "weight", torch.neg, torch.arange):
            assert torch.equal(net[0].weight, -before)
            raise error
    except (Boom, KeyboardInterrupt):
        pass
    assert torch.equal(net[0].weight, before)


def test_a_hook_s_weight_is_the_same_tensor_afterwards() -> None:
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 3))).train()
    net(torch.ones(1, 3))
    own, vectors = net[0].weight, net[0].weight_u.clone()
    with broken_memory(net, "0", "weight", torch.neg, lambda n: torch.tensor([0])):
        assert net[0].weight is not own
    assert net[0].weight is own
    assert torch.equal(net[0].weight_u, vectors)  # reading does not iterate


def test_values_and_not_bits_are_compared() -> None:
    nan = torch.nan
    assert not changed(torch.tensor([0.0, nan]), torch.tensor([-0.0, -nan]))
    assert changed(torch.tensor([0.0, nan]), torch.tensor([0.0, 1.0]))
    assert changed(torch.tensor([1.0]), torch.tensor([nan]))


@pytest.mark.parametrize("layers", ["0", None, 3, []])
def test_layers_are_a_list_of_names(layers: object) -> None:
    with pytest.raises(ValueError, match="layers must be a list of names"):
        layer_names(nn.Sequential(nn.ReLU()), layers)


def test_every_layer_has_to_be_there() -> None:
    with pytest.raises(ValueError, match="fc9"):
        layer_names(nn.Sequential(nn.ReLU()), ["0", "fc9"])


def test_numbers_in_one_cell_are_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    net[0].weight = nn.Parameter(torch.ones(1, 3).expand(2, 3))
    with pytest.raises(ValueError, match="cannot be written number by number"):
        stored(net, "0", "weight")


def test_a_fault_that_changes_nothing_says_so_unless_it_may() -> None:
    net = nn.Sequential(nn.Linear(1, 1))

    def same(**options: bool) -> None:
        with broken_memory(net, "0", "bias", torch.clone, torch.arange, **options):
            pass

    with pytest.warns(UserWarning, match="changes no value of the bias of layer '0'"):
        same()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(may_rest=True)
        same(tell=False)
        warn_unless(True, "0")
    with pytest.warns(UserWarning, match="changed no value that layer '0' handed on"):
        warn_unless(False, "0")


def test_a_fault_that_does_not_arrive_is_refused() -> None:
    """The upper weight is masked: what stands below the mask is never read."""
    net = nn.Sequential(nn.Linear(2, 1))
    nn.utils.prune.custom_from_mask(net[0], "weight", torch.tensor([[0.0, 1.0]]))
    with pytest.raises(ValueError, match="no number hit there arrives in it"):  # noqa: SIM117
        with broken_memory(net, "0", "weight", torch.neg, lambda n: torch.tensor([0])):
            pass
    assert stored(net, "0", "weight").name == "weight_orig"
