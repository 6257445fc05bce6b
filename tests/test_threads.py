"""Two threads explain at once: nobody sees what the other one does to the model for a while."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Event
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Boom, Snapshot
from tests.test_contract import ALL, TARGETS, run
from tests.toys import inputs, toy
from xailab.attribution.saliency import guided_backprop, saliency
from xailab.core.layers import capture, edited
from xailab.core.registry import Card
from xailab.core.state import alone, frozen
from xailab.foundations.gradient_flow import bypass
from xailab.trust.bit_faults import flip_bits, stuck_at

REPEATS = 6
PATIENCE = 20  # seconds after which a thread that waits is a deadlock
A_WHILE = 0.05  # seconds that a thread would need many times over if it did not wait


def together(*jobs: Callable[[], Tensor]) -> list[list[Tensor]]:
    """Do every job several times, in one thread each, all begun at the same moment."""
    start = Barrier(len(jobs), timeout=PATIENCE)

    def repeat(job: Callable[[], Tensor]) -> list[Tensor]:
        found = []
        for _ in range(REPEATS):
            start.wait()
            found.append(job())
        return found

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [one.result(PATIENCE) for one in [pool.submit(repeat, job) for job in jobs]]


def check(found: list[Tensor], want: Tensor) -> None:
    for one in found:
        torch.testing.assert_close(one, want, rtol=1e-9, atol=1e-12)


def steady(method: Card, model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return the call of a method, in chunks of a size that no clock decides."""
    fixed = {"batch_size": 16} if "batch_size" in method.options else {}
    few = {"n_samples": 4} if "n_samples" in method.options else {}
    return lambda: run(method, model, x, **fixed, **few)


@pytest.mark.parametrize("method", ALL)
def test_one_model_in_two_threads(method: Card) -> None:
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    ours, other = steady(method, model, x), lambda: guided_backprop(model, x, TARGETS)
    want = ours(), other()
    before = Snapshot(model, x)
    for found, one in zip(together(ours, other), want, strict=True):
        check(found, one)
    before.check()


@pytest.mark.parametrize("method", ALL)
def test_two_models_that_share_layers(method: Card) -> None:
    model, twin, x = toy(torch.float64), toy(torch.float64), inputs(dtype=torch.float64)
    for shared in ("conv1", "norm", "relu1", "relu2", "fc"):
        setattr(twin, shared, getattr(model, shared))
    nn.init.normal_(twin.conv2.weight, generator=torch.Generator().manual_seed(3))
    ours, other = steady(method, model, x), lambda: guided_backprop(twin, x, TARGETS)
    want = ours(), other()
    before = Snapshot(model, x), Snapshot(twin, x)
    for found, one in zip(together(ours, other), want, strict=True):
        check(found, one)
    for each in before:
        each.check()


# ---- what is held in one thread while another one explains ---------------------------------------


@contextmanager
def held_elsewhere(holder: Any) -> Iterator[Event]:
    """Enter a context manager in another thread, and leave it when the event is set."""
    inside, leave = Event(), Event()

    def hold() -> None:
        with holder:
            inside.set()
            leave.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        try:
            assert inside.wait(PATIENCE), holding.exception(0)
            yield leave
        finally:
            leave.set()
            holding.result(PATIENCE)


HOLDERS: dict[str, Callable[[nn.Module], Any]] = {
    "alone": lambda model: alone(),
    "frozen": frozen,
    "edited": lambda model: edited(model, "relu1", lambda output: output * 0 + 3),
    "capture": lambda model: capture(model, "relu1", leaf=True),
    "bypass": lambda model: bypass(model, "norm"),
    "flip_bits of a weight": lambda model: flip_bits(model, "fc", bit=62, n_faults=9),
    "flip_bits of an output": lambda model: flip_bits(
        model, "relu2", bit=62, n_faults=9, where="activation"
    ),
    "stuck_at": lambda model: stuck_at(model, "relu2", value=3.0, n_faults=9),
}


@pytest.mark.filterwarnings("ignore:.*changed no value")  # the holder itself runs no model
@pytest.mark.parametrize("name", HOLDERS)
def test_another_thread_waits_and_sees_no_edit(name: str) -> None:
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    want = saliency(model, x, TARGETS)
    before = Snapshot(model, x)
    with ThreadPoolExecutor(1) as pool, held_elsewhere(HOLDERS[name](model)) as leave:
        explaining = pool.submit(saliency, model, x, TARGETS)
        with pytest.raises(TimeoutError):
            explaining.result(A_WHILE)
        leave.set()
        assert torch.equal(explaining.result(PATIENCE), want)
    before.check()


@pytest.mark.parametrize("name", HOLDERS)
def test_what_is_held_holds_in_its_own_thread_only(name: str) -> None:
    """One thread looks at the model inside the block, again and again, while another explains."""
    model, x = toy(torch.float64), inputs(dtype=torch.float64)

    def look() -> Tensor:
        with frozen(model), HOLDERS[name](model), torch.no_grad():
            return model(x)

    explain = lambda: guided_backprop(model, x, TARGETS)  # noqa: E731
    want = look(), explain()
    before = Snapshot(model, x)
    for found, one in zip(together(look, explain), want, strict=True):
        check(found, one)
    before.check()


@pytest.mark.parametrize("name", HOLDERS)
def test_an_error_lets_others_go_on(name: str) -> None:
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    before = Snapshot(model, x)

    def fail() -> None:
        with HOLDERS[name](model):
            raise Boom

    with ThreadPoolExecutor(2) as pool:
        failed = [pool.submit(fail) for _ in range(4)]
        assert all(isinstance(one.exception(PATIENCE), Boom) for one in failed)
        pool.submit(saliency, model, x, TARGETS).result(PATIENCE)
    before.check()


def test_an_error_inside_the_model_lets_others_go_on() -> None:
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    want = saliency(model, x, TARGETS)
    broken = toy(torch.float64)

    def trip() -> None:
        raise Boom

    broken.trip = trip
    with ThreadPoolExecutor(2) as pool:
        for _ in range(REPEATS):
            failed = pool.submit(guided_backprop, broken, x, TARGETS)
            fine = pool.submit(saliency, model, x, TARGETS)
            assert isinstance(failed.exception(PATIENCE), Boom)
            assert torch.equal(fine.result(PATIENCE), want)


def test_one_thread_enters_again() -> None:
    """Held are an edit, a capture and a freeze, and a method works inside all three."""
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    before = Snapshot(model, x)

    def nested() -> tuple[Tensor, Tensor]:
        with (
            edited(model, "relu2", lambda output: output * 2),
            capture(model, "relu2") as kept,
            frozen(model),
        ):
            model(x)
            return kept["relu2"].detach(), saliency(model, x, TARGETS)

    with ThreadPoolExecutor(1) as pool:
        output, slopes = pool.submit(nested).result(PATIENCE)
    with capture(model, "relu2") as kept, frozen(model):
        model(x)
    torch.testing.assert_close(output, 2 * kept["relu2"].detach())
    torch.testing.assert_close(slopes, 2 * saliency(model, x, TARGETS))  # only fc comes after
    before.check()


def test_global_randomness_is_as_before() -> None:
    """Random states are put back by the one who changed them, not by whoever comes last."""
    model, x = toy(), inputs()
    torch.manual_seed(11)
    want = torch.rand(3)
    torch.manual_seed(11)
    job = lambda: saliency(model, x, TARGETS)  # noqa: E731
    together(job, job, job)
    assert torch.equal(torch.rand(3), want)
