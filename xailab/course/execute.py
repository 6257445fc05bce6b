"""Running a lesson in a fresh kernel, without network; measuring it, noting what it reads."""

import ast
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

import xailab
from xailab.core.callable_module import make_callable
from xailab.course import offline
from xailab.course.lesson import Lesson
from xailab.course.normalize import clean_outputs
from xailab.course.runs import Run

_PEAK = "__import__('xailab.course.memory', fromlist=['peak_mb']).peak_mb()"
_RUNS = "__import__('xailab.course.runs', fromlist=['watch'])"
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


class BuildError(Exception):
    """A lesson that cannot be built: which, where, why."""


def execute(
    lesson: Lesson, root: Path, on_cell: Callable[[], None] = lambda: None
) -> tuple[NotebookNode, Run]:
    """Return the solution with outputs, and the seconds, memory and files that it took.

    Args:
        lesson: the lesson to run; strict, so a wrong model answer fails.
        root: the folder of the course; cells run in its `notebooks/`.
        on_cell: called after every cell.

    Raises:
        BuildError: a cell failed, took more than ten minutes, or killed the kernel.
    """
    notebook = lesson.solution()
    folder = root / "notebooks"
    folder.mkdir(exist_ok=True)
    client = NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
    )
    with tempfile.TemporaryDirectory() as own, client.setup_kernel(env=environment(Path(own))):
        run_sync(_ask)(client, f"{_RUNS}.watch()")
        start = time.perf_counter()
        for index in range(len(notebook.cells)):
            _run_cell(client, index, lesson)
            on_cell()
        seconds = time.perf_counter() - start
        peak = int(run_sync(_ask)(client, _PEAK))
        read = ast.literal_eval(run_sync(_ask)(client, f"{_RUNS}.reached({str(root)!r})"))
    run = Run.of(read, root, seconds=round(seconds, 1), peak_mb=peak)
    return _finished(notebook, lesson, root), run


def environment(own: Path) -> dict[str, str]:
    """Return the environment of a kernel under test; `own` is a folder that lives as long as it."""
    offline.write_hook(own)
    paths = [str(own), str(Path(xailab.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONHASHSEED": "0",  # sets print in the same order every time
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "XAILAB_STRICT": "1",
        "XAILAB_QUIET": "1",
        "XAILAB_PICTURES": "small",  # they are committed
        "XAILAB_HOME": str(offline.home_as_fetched(own)),
        "TQDM_DISABLE": "1",
        "XAILAB_PROGRESS": str(own / "progress.json"),
        "XAILAB_SCOREBOARD": str(own / "scoreboard.csv"),
    }


def _run_cell(client: NotebookClient, index: int, lesson: Lesson) -> None:
    cell = client.nb.cells[index]
    try:
        client.execute_cell(cell, index)
    except CellExecutionError as error:
        reason = error.traceback
    except CellTimeoutError:
        reason = "it took more than ten minutes"
    except DeadKernelError:
        reason = "the kernel died (out of memory?)"
    else:
        return
    place = f"{lesson.where(lesson.cells[index].source)} (cell {index + 1})"
    raise BuildError(f"{place} failed:\n{_COLOR.sub('', reason).rstrip()}")


async def _ask(client: NotebookClient, expression: str) -> str:
    """Evaluate an expression in the kernel; no cell shows it."""
    kernel: Any = client.kc
    reply = await kernel.execute("", silent=True, user_expressions={"it": expression}, reply=True)
    return str(reply["content"]["user_expressions"]["it"]["data"]["text/plain"])


def _finished(notebook: NotebookNode, lesson: Lesson, root: Path) -> NotebookNode:
    notebook.metadata = lesson.solution().metadata  # without what the kernel said of itself
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = clean_outputs(cell.outputs, root)
    return notebook


make_callable(__name__)
