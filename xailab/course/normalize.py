"""Outputs without what differs between machines and runs: addresses, process ids, own folders."""

import os
import re
import site
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from xailab.core.files import home
from xailab.course.saved import without_views

_VOLATILE = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),  # terminal colors
    (re.compile(r"\S*[/\\]ipykernel_\d+[/\\]\d+\.py"), "<cell>"),
    (re.compile(r" at 0x[0-9a-fA-F]{6,}"), ""),
)
_TEXT = ("text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml")


def clean_outputs(outputs: Iterable[NotebookNode], root: Path) -> list[NotebookNode]:
    """Return the outputs of one cell as they are stored.

    Args:
        outputs: what the kernel sent; changed in place.
        root: the folder of the course, shown as "."; the user's folders become "~" and the like.
    """
    return without_views([_clean(output, root) for output in outputs])


def _clean(output: NotebookNode, root: Path) -> NotebookNode:
    if output.output_type == "stream":
        output.text = clean_text(output.text, root)
    elif "data" in output:
        for kind in set(_TEXT) & set(output.data):
            output.data[kind] = clean_text(output.data[kind], root)
    return output


def clean_text(text: str, root: Path) -> str:
    """Return a text without terminal colors, memory addresses, kernel ids and own folders."""
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    for folder, replacement in _folders(root):
        if len(folder.parts) > 1:  # never "/" itself
            text = re.sub(rf"(?<![\w/]){re.escape(str(folder))}(?![\w-])", replacement, text)
    # A folder that `tempfile` made has another name each time.
    passing = re.escape(tempfile.gettempdir() + os.sep) + r"[\w.-]+"
    return re.sub(rf"(?<![\w/]){passing}", "<temporary>", text)


def _folders(root: Path) -> list[tuple[Path, str]]:
    """Folders of this machine -> what stands for them; the longest first, as they nest."""
    library = [sysconfig.get_paths()[key] for key in ("purelib", "platlib")]
    folders = [(Path(folder), "site-packages") for folder in {*library, *site.getsitepackages()}]
    folders.append((Path(sysconfig.get_paths()["stdlib"]), "lib"))
    folders += [(home(), "<cache>"), (root.resolve(), "."), (Path.home(), "~")]
    return sorted(folders, key=lambda pair: -len(str(pair[0])))
