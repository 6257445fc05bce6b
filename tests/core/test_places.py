"""Which numbers of a network stand for which place of the picture, operation by operation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.snapshots import Snapshot
from xailab.core.places import followed, grid, is_grid, same_places


class Does(nn.Module):
    """A network that does one thing to its picture, and shows it by an identity."""

    def __init__(self, what: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.what, self.shown = what, nn.Identity()
        self.weight = nn.Parameter(torch.ones(2, 1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.shown(self.what(x)).flatten(1).sum(1)


X = torch.rand(1, 1, 4, 6)
W = torch.ones(2, 1, 2, 2)


def places(what: Callable[[Tensor], Tensor], x: Tensor = X) -> Tensor | None:
    found = [one for one in followed(Does(what), x) if one.name == "shown"]
    return found[-1].places.at if found[-1].places else None


def test_a_grid_names_centers_by_column_and_row() -> None:
    """The real part is the column, the imaginary one the row, both in shares of the picture."""
    at = grid(2, 4)
    assert at.real[0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert at.imag[:, 0].tolist() == [0.25, 0.75]
    assert is_grid(at.expand(1, 3, 2, 4))
    assert not is_grid(at.flip(0).expand(1, 3, 2, 4))


@pytest.mark.parametrize(
    ("what", "want"),
    [
        (lambda x: x * 2 + 1, grid(4, 6)),
        (lambda x: F.conv2d(x, W, stride=2), grid(2, 3)),
        (lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), padding=1), grid(4, 6)),
        (lambda x: F.max_pool2d(x, 2), grid(2, 3)),
        (lambda x: F.avg_pool2d(x, 2), grid(2, 3)),
        (lambda x: x.roll((1, 2), (2, 3)), grid(4, 6).roll((1, 2), (0, 1))),
        (lambda x: x.transpose(2, 3), grid(4, 6).T),
        (lambda x: x.permute(0, 2, 3, 1), grid(4, 6)[..., None]),
        (lambda x: x.flatten(2), grid(4, 6).flatten()),
        (lambda x: x[..., 1:3, ::2], grid(4, 6)[1:3, ::2]),
        (lambda x: x.flip(3), grid(4, 6).flip(1)),
        (lambda x: torch.cat([x[:, :, 2:], x[:, :, :2]], 2), grid(4, 6)[[2, 3, 0, 1]]),
        (lambda x: x.index_select(2, torch.tensor([3, 0])), grid(4, 6)[[3, 0]]),
        (lambda x: x.repeat(1, 3, 1, 1), grid(4, 6)),
        (lambda x: x.clone().contiguous(memory_format=torch.channels_last), grid(4, 6)),
    ],
)
def test_operations_take_places_along(what: Callable[[Tensor], Tensor], want: Tensor) -> None:
    got = places(what)
    assert got is not None
    assert same_places(got, want.to(got).expand(got.shape)).all()


@pytest.mark.parametrize(
    "what",
    [
        lambda x: x.cumsum(3),
        lambda x: x.sort(3).values,
        lambda x: torch.fft.fft2(x).real,
        lambda x: x @ torch.rand(6, 6),
        lambda x: x.mean((2, 3), keepdim=True).expand(x.shape) * 1,
        lambda x: torch.zeros_like(x),
    ],
)
def test_what_mixes_places_has_none(what: Callable[[Tensor], Tensor]) -> None:
    """Nothing is said of numbers that come from everywhere, or from nowhere."""
    got = places(what)
    assert got is None or not is_grid(got)


def test_writing_takes_places_along_and_forgets_the_old() -> None:
    def rows_swapped(x: Tensor) -> Tensor:
        made = torch.zeros_like(x)
        made[:, :, 0], made[:, :, 1:] = x[:, :, 3], x[:, :, :3]
        return made

    got = places(rows_swapped)
    assert got is None or not is_grid(got)  # it may be unknown; it is never the old order

    def overwritten(x: Tensor) -> Tensor:
        made = x.clone()
        made.copy_(torch.rand(x.shape))
        return made

    got = places(overwritten)
    assert got is None or got.isnan().all()

    def scaled(x: Tensor) -> Tensor:
        return x.clone().mul_(2).add_(1)

    got = places(scaled)
    assert got is not None
    assert is_grid(got)


def test_memory_seen_through_a_view_is_forgotten_too() -> None:
    """The view is written, and the whole is shown."""

    def through(x: Tensor) -> Tensor:
        made = x.clone()
        made[:, :, ::2].copy_(x[:, :, [2, 0]])
        return made

    got = places(through)
    assert got is None or not is_grid(got)


def test_a_picture_in_inference_mode_and_a_network_in_training() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2, 2), nn.BatchNorm2d(3), nn.Flatten(2)).train()
    with torch.inference_mode():
        x = torch.rand(2, 1, 4, 6)
    before = Snapshot(model, X)
    found = followed(model, x)
    before.check()
    assert [one.name for one in found] == ["0", "1", "2"]
    assert all(one.of_picture for one in found)
    assert same_places(found[2].places.at[0, 0], grid(2, 3).flatten()).all()


def test_it_goes_no_further_than_asked() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2, 2), nn.ReLU(), nn.Flatten(2))
    assert [one.name for one in followed(model, X, until="1")] == ["0", "1"]
