"""A learner's code runs within limits: whatever it does ends the check, not the notebook.

What ends it: too much time, printing or memory; recursion or a loop without end; `exit()`,
`sys.exit()`, `os._exit()`, `os.abort()`; Ctrl-C or the stop button. Afterwards, after success too,
the random states, the open figures, matplotlib's settings, the output streams and the recursion
limit are what they were.

What cannot be ended: one call of C code that never returns to Python and asks for no signal, such
as `sum(range(10**15))`: restart the kernel. Code that catches every exception, `except:` in a loop,
is interrupted again and again until it gives up. Where there are no timers (Windows, or another
thread than the main one), time is looked at between two steps of Python, so that `time.sleep` ends
first. Memory is limited on Linux without a GPU; elsewhere by the machine. What C code prints does
not count.
"""

import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import psutil

CHARACTERS = 20_000  # an answer may print
GIGABYTES = 4.0  # an answer may ask for, beyond what is in use
_AGAIN = 0.5  # seconds from one interruption to the next: time for the answer to clean up
_SOON = 0.001  # for answers that catch them all: sooner or later one hits a line outside of `try`
_PATIENCE = 2  # interruptions before that


class Ended(BaseException):
    """A limit was reached; no `except Exception` of the learner's catches it."""


class _Late(Ended):
    """The time is over; only a class, no instance, can be raised in another thread."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Run a learner's code; what would end the notebook raises `Ended`, with the reason.

    Args:
        seconds: by the clock on the wall.

    Raises:
        Ended: with a sentence for the learner.
    """
    try:
        with _state(), _no_way_out(), _little_output(), _memory(), _clock(seconds):
            yield
    except (Ended, SystemExit, KeyboardInterrupt, RecursionError, MemoryError) as error:
        raise Ended(_reason(error, seconds)) from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch's way of saying MemoryError
            raise
        raise Ended(_reason(MemoryError(), seconds)) from None


def _reason(error: BaseException, seconds: float) -> str:
    if isinstance(error, _Late):
        return (
            f"It was still running after {seconds:g} seconds: does its loop end? "
            "Does it work on one row at a time?"
        )
    if isinstance(error, RecursionError):
        return "It calls itself without end: which call is the last one, that needs no other?"
    if isinstance(error, MemoryError):
        return (
            f"It asks for more memory than there is for an answer ({GIGABYTES:g} GB at most): "
            "how large is the largest array?"
        )
    if isinstance(error, KeyboardInterrupt):
        return "You stopped it."
    if isinstance(error, SystemExit):
        return "It ends Python: take out exit(), quit() and the like, and return a value."
    return str(error)


@contextmanager
def _state() -> Iterator[None]:
    """Put back what an answer that was cut off may have left changed."""
    undo = [_random_states(), _streams(), _figures(), _recursion()]
    pyplot = sys.modules.get("matplotlib.pyplot")
    try:
        with pyplot.rc_context() if pyplot else nullcontext():
            yield
    finally:
        for each in undo:
            each()


def _random_states() -> Callable[[], None]:
    python, numpy, torch = random.getstate(), sys.modules.get("numpy"), sys.modules.get("torch")
    of_numpy = numpy.random.get_state() if numpy else None
    of_torch = torch.get_rng_state() if torch else None

    def restore() -> None:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(of_numpy)
        if torch:
            torch.set_rng_state(of_torch)

    return restore


def _streams() -> Callable[[], None]:
    streams = sys.stdout, sys.stderr

    def restore() -> None:
        sys.stdout, sys.stderr = streams

    return restore


def _figures() -> Callable[[], None]:
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    open_before = set(pyplot.get_fignums()) if pyplot else set()

    def restore() -> None:
        for number in set(pyplot.get_fignums()) - open_before if pyplot else ():
            pyplot.close(number)

    return restore


def _recursion() -> Callable[[], None]:
    limit = sys.getrecursionlimit()
    return lambda: sys.setrecursionlimit(limit)


@contextmanager
def _no_way_out() -> Iterator[None]:
    """Let what ends the process at once raise `SystemExit`, which the check can tell of."""
    process, ends = os.getpid(), {name: getattr(os, name) for name in ("_exit", "abort")}

    def instead(end: Callable[..., Any]) -> Callable[..., Any]:
        def leave(*arguments: Any) -> Any:
            if os.getpid() != process:  # a child of this process has to end as it always did
                return end(*arguments)
            raise SystemExit(*arguments)

        return leave

    shell = _shell()
    for name, end in ends.items():
        setattr(os, name, instead(end))
    if shell:
        shell.ask_exit = instead(shell.ask_exit)  # what `quit()` does in a notebook
    try:
        yield
    finally:
        for name, end in ends.items():
            setattr(os, name, end)
        if shell:
            vars(shell).pop("ask_exit", None)


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()


class _Capped:
    """A stream that hands on so many characters and then ends the answer."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.left = stream, CHARACTERS

    def write(self, text: str) -> int:
        self.stream.write(text[: self.left])
        self.left -= len(text)
        if self.left < 0:
            raise Ended(f"It prints more than {CHARACTERS:,} characters: print a shape or a mean.")
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _little_output() -> Iterator[None]:
    """Cap what is printed; `_state` puts the streams back."""
    sys.stdout, sys.stderr = _Capped(sys.stdout), _Capped(sys.stderr)
    yield


@contextmanager
def _memory() -> Iterator[None]:
    """Let a huge array raise `MemoryError` before the machine begins to swap or to kill."""
    if (
        sys.platform != "linux" or Path("/dev/nvidiactl").exists()
    ):  # CUDA reserves more than it uses
        yield
        return
    import resource

    old = resource.getrlimit(resource.RLIMIT_AS)
    room = min(GIGABYTES * 2**30, psutil.virtual_memory().available)
    soft = int(psutil.Process().memory_info().vms + room)
    hard = old[1]
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


@contextmanager
def _clock(seconds: float) -> Iterator[None]:
    """Raise `_Late` in the running code when the time is over, until it ends."""
    main = threading.current_thread() is threading.main_thread()
    start = _start_timer if main and hasattr(signal, "setitimer") else _start_watcher
    over = threading.Event()
    stop = start(seconds, over)
    # Twice: the first may itself be interrupted, the second comes long before the next time.
    try:
        try:
            yield
        finally:
            over.set()
    finally:
        over.set()
        stop()


def _start_timer(seconds: float, over: threading.Event) -> Callable[[], None]:
    rings = iter(range(_PATIENCE))

    def ring(*_: Any) -> None:
        if not over.is_set():
            if next(rings, None) is None:
                signal.setitimer(signal.ITIMER_REAL, _SOON, _SOON)
            raise _Late

    handler, start = signal.signal(signal.SIGALRM, ring), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)

    def stop() -> None:
        # Somebody else's timer goes on, where it would be now.
        rest = max(left - (time.monotonic() - start), 1e-3) if left else 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, rest, interval)

    return stop


def _start_watcher(seconds: float, over: threading.Event) -> Callable[[], None]:
    """Without timers: another thread raises `_Late` in this one, between two steps of Python."""
    running, lock = ctypes.c_ulong(threading.get_ident()), threading.Lock()
    interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        waits = chain([seconds], [_AGAIN] * _PATIENCE, repeat(_SOON))
        while not over.wait(next(waits)):
            with lock:
                if not over.is_set():
                    interrupt(running, ctypes.py_object(_Late))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()

    def stop() -> None:
        with lock:
            interrupt(running, None)  # one that is still on its way
        watcher.join()

    return stop
