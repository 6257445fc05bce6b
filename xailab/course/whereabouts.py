"""Which lesson a cell belongs to, and where in its notebook an exercise stands."""

import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xailab.course import registry

_cells: dict[str, str] = {}  # exercise -> cell of this notebook that checks it, in this session


def note(id: str) -> None:
    """Remember that the cell now running asks about this exercise."""
    _cells.pop(id, None)  # so that the last one stands last
    _cells[id] = _running_cell()


def lesson() -> str | None:
    """Return the name of the lesson whose notebook this is; None outside of one.

    Its file tells, where the server says which that is; else the exercise that was asked last.
    """
    stem = _notebook().partition(".")[0]
    name = re.sub(r"^\d+_", "", stem)
    if name in registry.topics():
        return name
    return registry.topic_of(next(reversed(_cells))) if _cells else None


def link(id: str) -> str | None:
    """Return the address of an exercise's cell; JupyterLab goes there. None: not known."""
    cell, file = _cells.get(id), _notebook()
    return f"{quote(file)}#cell-id={cell}" if cell and file else None


def _notebook() -> str:
    """Return the file name that the Jupyter server gave this kernel, or nothing."""
    name = Path(os.environ.get("JPY_SESSION_NAME", "")).name
    return name if name.endswith(".ipynb") else ""


def _running_cell() -> str:
    """Return the id of the cell that a notebook's front end sent, or nothing."""
    if "IPython" not in sys.modules:
        return ""
    from IPython.core.getipython import get_ipython

    kernel: Any = getattr(get_ipython(), "kernel", None)
    parent = kernel.get_parent() if kernel else {}
    return str(parent.get("metadata", {}).get("cellId", ""))
