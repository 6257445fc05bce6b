"""A row's answer must not depend on the rows beside it."""

import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Snapshot
from tests.toys import inputs, toy
from xailab.attribution.occlusion import occlusion
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.saliency import saliency, smoothgrad
from xailab.core.company import check_company, trying

X = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
LINEAR = nn.Linear(5, 3)

MIXING = {
    "minus the mean": lambda x: LINEAR(x - x.mean(0)),
    "by the largest": lambda x: LINEAR(x / x.max()),
    "by the smallest": lambda x: LINEAR(x - x.min()),
    "by the norm": lambda x: LINEAR(x / x.norm()),
    "softmax over rows": lambda x: LINEAR(x).softmax(0),
    "attention over rows": lambda x: (LINEAR(x) @ LINEAR(x).T).softmax(1) @ LINEAR(x),
    "batch statistics": lambda x: LINEAR(nn.functional.batch_norm(x, None, None, training=True)),
    "the next row": lambda x: LINEAR(x.roll(1, 0)),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_rows_is_refused(name: str) -> None:
    model = MIXING[name]
    for call in (
        lambda: saliency(model, X, 1),
        lambda: smoothgrad(model, X[:1], 1),
        lambda: integrated_gradients(model, X[:1], 1),
        lambda: occlusion(model, X[:1], 1, window=1),
    ):
        with pytest.raises(ValueError, match="rows influence each other"):
            call()


def test_batch_norms_without_statistics_are_named() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(ValueError, match=r"'1' \(BatchNorm1d\) keeps no running statistics"):
        saliency(net, X, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_is_no_influence(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 256), nn.Tanh(), nn.Linear(256, 3)).to(dtype)
    net[2].bias.data -= net(X[:1].to(dtype))[0].detach()  # so that only rounding is left
    check_company(net, X.to(dtype))


def test_a_random_model_is_not_accused() -> None:
    check_company(lambda x: LINEAR(x) + torch.randn(len(x), 3), X)


def test_a_single_row_is_in_no_company() -> None:
    check_company(MIXING["by the norm"], X[:1])


def test_rows_that_the_model_does_not_take_tell_nothing() -> None:
    def picky(x: Tensor) -> Tensor:
        if x.max() > 1:
            raise RuntimeError("only 0..1")
        return LINEAR(x)

    check_company(picky, X)


def test_trials_leave_nothing_behind_and_are_marked() -> None:
    seen = []

    def model(x: Tensor) -> Tensor:
        seen.append(trying())
        return LINEAR(x)

    check_company(model, X)
    assert seen == [True, True]
    assert not trying()
    net, x = toy(), inputs()
    before = Snapshot(net, x)
    saliency(net, x, 1)
    before.check()


def test_a_network_quantized_while_it_runs_can_be_asked() -> None:
    """Its rounding depends on the largest number of the batch; gradients it has none."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    quantized = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    got, want = (occlusion(model, X[:1], 1, window=1) for model in (quantized, net))
    torch.testing.assert_close(got, want, rtol=0, atol=0.1 * want.abs().max().item())
    with pytest.raises(ValueError, match="no gradient reaches"):
        saliency(quantized, X, 1)
