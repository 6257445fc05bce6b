"""A monitor that keeps quiet while all is well, and speaks soon when it is not."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, ks_2samp
from torch import Tensor, nn

from tests.snapshots import unchanged
from tests.toys import inputs, toy
from xailab.data import load
from xailab.models import digit_cnn
from xailab.trust.faults import Monitor, corrupt, flip_bits, stuck_at


class Clock:
    """Time that passes by `seconds` at every second look."""

    def __init__(self) -> None:
        self.now, self.seconds, self.looks = 0.0, 1.0, 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += self.seconds if self.looks % 2 == 0 else 0
        return self.now


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def rows(n: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)) + shift


def monitor(seed: int, **options: Any) -> Monitor:
    options = {"layers": ["1"], "slack": 1.0, "clock": Clock(), **options}
    return Monitor(network(), **options).fit(rows(1000, seed), batch_size=20)


def test_false_alarms_are_as_rare_as_promised() -> None:
    """20 monitors, 1,000 batches at 5 %: 50 and two deviations; Bonferroni keeps it near 35."""
    alarms = 0
    for seed in range(20):
        guard = monitor(seed, false_alarms=0.05)
        alarms += sum(bool(guard.observe(rows(20, 1000 + 50 * seed + i))) for i in range(50))
    assert 10 < alarms <= 64


@pytest.mark.parametrize(("shift", "window", "within"), [(1.5, 1, 1), (0.7, 5, 8)])
def test_drift_is_seen_within_a_few_batches(shift: float, window: int, within: int) -> None:
    """Ten monitors at 1 % false alarms: a strong drift in 1 batch of 20 rows, a weaker in 8."""
    for seed in range(10):
        guard = monitor(seed, window=window)
        batches = (rows(20, 500 + 50 * seed + i, shift) for i in range(within))
        assert any("input" in guard.observe(batch) for batch in batches)


def test_the_promise_on_real_digits() -> None:
    """Lesson `faults`: few false alarms at a promise of 2 %; costly drifts seen in 2 batches."""
    data, model = load("mnist5k"), digit_cnn()
    digits = torch.tensor(data.images[~data.extra["train"], None] / 255).float()
    calm = []
    for seed in range(3):
        order = torch.tensor(np.random.default_rng(seed).permutation(len(digits)))
        known, stream = digits[order].split(500)
        guard = Monitor(
            model, layers=["relu1", "relu2", "relu3"], false_alarms=0.02, clock=Clock()
        ).fit(known, batch_size=25)
        calm += [bool(guard.observe(batch)) for batch in stream.split(25)]
        for kind in ("gaussian_noise", "impulse_noise", "brightness", "contrast"):
            drifted = corrupt(stream[:50], kind, 3)
            assert any(guard.observe(batch) for batch in drifted.split(25)), (seed, kind)
    assert sum(calm) <= binom.ppf(0.999, len(calm), 0.02)


def test_a_broken_weight_is_seen_in_the_activations() -> None:
    """The input is as ever: only what the network makes of it has changed."""
    guard = monitor(0)
    with stuck_at(guard.model, "0", value=5.0, where="weight", n_faults=8):
        alarms = guard.observe(rows(40, 100))
    assert set(alarms) == {"activation", "confidence"}
    assert guard.observe(rows(40, 100)) == {}


def test_answers_that_are_no_numbers_are_alarming() -> None:
    guard = monitor(0)
    with flip_bits(guard.model, "0", bit=30, n_faults=40):
        assert set(guard.observe(rows(20, 100))) == {"activation", "confidence"}


def test_p_values_are_scipys() -> None:
    guard = monitor(0)
    guard.observe(rows(20, 7))
    batch = rows(20, 7)
    known, rest = rows(1000, 0).split(500)
    near = lambda x: torch.cdist(x.double(), known.double()).amin(1)  # noqa: E731
    want = ks_2samp(near(batch), near(rest)).pvalue
    assert guard.history.p_input.item() == pytest.approx(want, rel=1e-6)
    sure = lambda x: guard.model(x).softmax(1).amax(1).detach()  # noqa: E731
    want = ks_2samp(sure(batch), sure(rest)).pvalue
    assert guard.history.p_confidence.item() == pytest.approx(want, rel=1e-6)


def test_a_slow_batch_is_told() -> None:
    clock = Clock()
    guard = monitor(0, clock=clock, slack=2.0)
    assert "latency" not in guard.observe(rows(20, 1))
    clock.seconds = 2.5
    assert "0.12 s a row, reference at most 0.05 s" in guard.observe(rows(20, 2))["latency"]


def test_the_window_pools_batches_and_fit_empties_it() -> None:
    guard = monitor(0, window=3)
    for i in range(3):
        guard.observe(rows(10, 50 + i))
    pooled, alone = monitor(0), torch.cat([rows(10, 50 + i) for i in range(3)])
    pooled.observe(alone)
    assert guard.history.p_input.iloc[-1] == pytest.approx(pooled.history.p_input.item())
    guard.fit(rows(1000, 0), batch_size=20)
    assert guard.history.empty


def test_nothing_is_left_behind() -> None:
    model, x = toy(), inputs(8)
    with unchanged(model, x):
        guard = Monitor(model, layers=["norm", "relu2"]).fit(x, batch_size=2)
        guard.observe(x)
    assert np.isfinite(guard.history.to_numpy()).all()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"layers": ["rleu2"]}, ValueError, "no layer 'rleu2'.*relu2"),
        ({"layers": []}, ValueError, "list of names"),
        ({"layers": "relu2"}, ValueError, "list of names, got 'relu2'"),
        ({"false_alarms": 0.0}, ValueError, "false_alarms"),
        ({"false_alarms": 1.0}, ValueError, "false_alarms"),
        ({"window": 0}, ValueError, "window"),
        ({"slack": 0.5}, ValueError, "slack"),
    ],
)
def test_bad_monitor(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Monitor(toy(), **{"layers": ["relu2"], **changes})


def test_bad_batches() -> None:
    guard = Monitor(toy(), layers=["relu2"])
    with pytest.raises(RuntimeError, match="call fit first"):
        guard.observe(inputs())
    with pytest.raises(ValueError, match="at least 4 rows, got 3"):
        guard.fit(inputs(3), batch_size=2)
    with pytest.raises(ValueError, match="batch_size"):
        guard.fit(inputs(8), batch_size=0)
    guard.fit(inputs(8), batch_size=2)
    with pytest.raises(ValueError, match="NaN"):
        guard.observe(torch.full((2, 3, 8, 8), float("nan")))
    with pytest.raises(ValueError, match=r"rows of shape \(3, 8, 8\), got \(3, 9, 9\)"):
        guard.observe(torch.zeros(2, 3, 9, 9))
    with pytest.raises(ValueError, match="at least 4 rows"):
        guard.fit(inputs(3), batch_size=2)


def test_half_a_reference_judges_nothing() -> None:
    guard = Monitor(toy(), layers=["relu2"], clock=Clock()).fit(inputs(8), batch_size=2)
    guard.clock = None
    with pytest.raises(TypeError):
        guard.fit(inputs(8), batch_size=2)
    with pytest.raises(RuntimeError, match="call fit first"):
        guard.observe(inputs())


@pytest.mark.parametrize("shape", ["(N,)", "(N, 1)"])
def test_one_logit_is_as_sure_as_its_likelier_class(shape: str) -> None:
    last = nn.Flatten(0) if shape == "(N,)" else nn.Identity()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), last).eval()
    guard = Monitor(net, layers=["1"], slack=1e6, clock=Clock()).fit(rows(200, 0), batch_size=20)
    guard.observe(rows(20, 1))
    p = torch.sigmoid(net(rows(20, 1)).flatten().double())
    want = torch.maximum(p, 1 - p).mean().item()
    assert guard.history.confidence.item() == pytest.approx(want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_dtype_is_watched(dtype: torch.dtype) -> None:
    guard = Monitor(network().to(dtype), layers=["1"], slack=1e6, clock=Clock())
    guard.fit(rows(400, 0).to(dtype), batch_size=20)
    assert guard.observe(rows(40, 1).to(dtype)) == {}
    assert "input" in guard.observe(rows(40, 2, shift=2.0).to(dtype))


class Tokens(nn.Module):
    """Answers with a dict, from tokens (N, T, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.last(self.inner(x).mean(1)), "other": x}


def test_units_of_tokens_are_on_the_last_axis() -> None:
    torch.manual_seed(0)
    net, x = Tokens().eval(), torch.randn(40, 7, 3)
    guard = Monitor(net, layers=["inner"], slack=1e6, clock=Clock()).fit(x, batch_size=10)
    with torch.no_grad():
        want = net.inner(x[:20]).double().mean(1)
    np.testing.assert_allclose(guard._low, want.amin(0), rtol=1e-6)
    assert guard._high.shape == (4,)
