"""Whatever an answer does, the check ends with a message, and the state is what it was."""

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch

from xailab.course import Mistake, check, limits, records
from xailab.course.limits import Ended
from xailab.course.registry import exercise, find_exercise

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on Windows")


def forever():
    while True:
        pass


def forever_catching_errors():
    while True:
        try:
            sum(range(100))
        except Exception:
            continue


def forever_catching_all():
    while True:
        try:
            sum(range(100))
        except:  # noqa: E722
            continue


def recursion():
    return recursion()


def recursion_without_limit():
    sys.setrecursionlimit(10**6)
    return recursion() + time.sleep(0)


ENDLESS = [
    forever,
    forever_catching_errors,
    forever_catching_all,
    lambda: time.sleep(60),
    lambda: threading.Event().wait(60),
    lambda: 3 ** (10**9),  # C code, but it asks for signals
    lambda: [torch.ones(2, 2) @ torch.ones(2, 2) for _ in itertools.count()],
]


def run(code, seconds=0.3):
    """Run code as a check does; return why it was ended."""
    with pytest.raises(Ended) as caught, limits.limited(seconds):
        code()
    return str(caught.value)


@timers
@pytest.mark.parametrize("code", ENDLESS)
def test_what_does_not_end_is_ended(code):
    start = time.monotonic()
    assert "still running after 0.3 seconds" in run(code)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("code", [forever, forever_catching_errors])
def test_what_does_not_end_is_ended_outside_of_the_main_thread_too(code):
    reasons = []
    thread = threading.Thread(target=lambda: reasons.append(run(code)))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "still running after 0.3 seconds" in reasons[0]


def test_nothing_is_raised_after_the_end():
    for _ in range(50):  # so short that the time is over anywhere, also while leaving
        try:
            with limits.limited(0.0005):
                sum(range(3000))
        except Ended:
            pass
    time.sleep(1.2)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (recursion, "calls itself without end"),
        (sys.exit, "ends Python"),
        (lambda: exit(), "ends Python"),
        (lambda: os._exit(3), "ends Python"),
        (lambda: os.abort(), "ends Python"),
        (lambda: signal.raise_signal(signal.SIGINT), "You stopped it."),
        (lambda: print("x" * 10**6), "prints more than 20,000 characters"),
        (lambda: [print(i) for i in range(10**6)], "prints more than 20,000 characters"),
        (lambda: sys.stderr.writelines(["x" * 9999] * 9), "prints more than 20,000 characters"),
    ],
)
def test_every_way_to_end_is_told(capsys, code, reason):
    assert reason in run(code, 30)
    out, err = capsys.readouterr()
    assert len(out) + len(err) <= limits.CHARACTERS


@linux
@pytest.mark.parametrize(
    "code",
    [
        lambda: np.ones(2**38),
        lambda: torch.ones(2**38),
        lambda: list(itertools.repeat(0, 2**38)),
        lambda: bytearray(2**40),
    ],
)
def test_huge_memory_is_refused(code):
    assert "asks for more memory" in run(code, 30)


@linux
def test_memory_that_grows_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "GIGABYTES", 0.25)

    def grow():
        kept = []
        while True:
            kept.append(bytearray(2**22))

    assert "0.25 GB" in run(grow, 60)


@linux
def test_the_limit_of_memory_is_taken_back():
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with limits.limited(10):
        assert resource.getrlimit(resource.RLIMIT_AS) != before
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), limits.limited(10):
        1 / 0  # noqa: B018
    with pytest.raises(RuntimeError, match="shapes"), limits.limited(10):
        raise RuntimeError("shapes")


def state():
    return (
        random.getstate(),
        str(np.random.get_state()),  # noqa: NPY002
        torch.get_rng_state().tolist(),
        sys.getrecursionlimit(),
        os._exit,
        os.abort,
    )


def change_everything(end):
    import matplotlib.pyplot as plt

    random.random()
    np.random.rand()  # noqa: NPY002
    torch.rand(1)
    plt.figure()
    plt.rcParams["lines.linewidth"] = 77
    sys.setrecursionlimit(5000)
    sys.stdout = None
    end()


@pytest.mark.parametrize("end", [lambda: None, sys.exit, forever, recursion])
def test_the_state_is_what_it_was(end):
    import matplotlib.pyplot as plt

    figure = plt.figure()
    before, width, streams = state(), plt.rcParams["lines.linewidth"], (sys.stdout, sys.stderr)
    numbers = plt.get_fignums()
    try:
        with limits.limited(0.5):
            change_everything(end)
    except Ended:
        assert end is not None
    assert state() == before
    assert (sys.stdout, sys.stderr) == streams
    assert plt.get_fignums() == numbers
    assert plt.rcParams["lines.linewidth"] == width
    plt.close(figure)


@timers
def test_a_timer_of_somebody_else_goes_on():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    try:
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with limits.limited(10):
            time.sleep(0.1)
        time.sleep(0.6)
        assert 0.3 < rung[0] - start < 0.6
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_child_of_an_answer_may_still_end():
    code = """
        import os
        from xailab.course.limits import limited
        with limited(10):
            child = os.fork()
            if child == 0:
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "7\n"


def test_a_check_tells_how_it_ended_and_counts_as_a_try(demo, capsys):
    check("demo.softmax", lambda x: sys.exit())
    assert capsys.readouterr().out.startswith("■ Stopped: demo.softmax\nIt ends Python")
    assert records.read()["demo.softmax"] == {"passed": False, "tries": 1}


def test_an_exercise_says_how_long_its_check_may_run(demo, capsys):
    entry = find_exercise("demo.softmax")
    exercise("demo.softmax", kind="code", points=2, minutes=5, seconds=0.2)(entry.check)
    check("demo.softmax", lambda x: forever())
    assert "still running after 0.2 seconds" in capsys.readouterr().out


def test_strict_mode_raises(demo, monkeypatch):
    monkeypatch.setenv("XAILAB_STRICT", "1")
    with pytest.raises(Mistake, match="Stopped"):
        check("demo.softmax", lambda x: sys.exit())


KERNEL = """
import sys
from xailab.course.limits import Ended, limited
try:
    with limited(20):
        {}
except Ended as end:
    print("ended:", end)
"""


def test_in_a_kernel_quit_ends_the_check_and_not_the_kernel():
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [KERNEL.format("quit()"), KERNEL.format("exit(keep_kernel=False)"), "print('alive')"]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    texts = [cell.outputs[0].text for cell in notebook.cells]
    assert [text[:22] for text in texts] == ["ended: It ends Python:"] * 2 + ["alive\n"]
