"""Files that are never half-written, and the folder where xailab keeps its own."""

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def home() -> Path:
    """Return the folder of downloads, progress and scores (`XAILAB_HOME`, or the user's cache).

    >>> os.environ["XAILAB_HOME"] = "/tmp/xailab-doctest"
    >>> home().name
    'xailab-doctest'
    >>> del os.environ["XAILAB_HOME"]
    """
    if chosen := os.environ.get("XAILAB_HOME"):
        return Path(chosen).expanduser()
    import pooch  # imported here: it costs 0.1 s that `import xailab` should not pay

    return Path(pooch.os_cache("xailab"))


def write_atomically(path: str | Path, data: bytes | str) -> Path:
    """Write a whole file or leave what was there: to a temporary name beside it, then rename.

    Args:
        path: where the file shall stand; missing folders are made.
        data: the new content; text is written as UTF-8.

    Returns:
        The path written.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is still whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # so that a power cut after the rename finds the bytes
        os.chmod(temporary, 0o644)  # mkstemp makes private files; these are ordinary ones
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


@contextmanager
def passing_folder(parent: Path) -> Iterator[Path]:
    """Give a folder that is gone at the end; what a killed process left of its own goes too.

    Args:
        parent: where it lies, beside its target: on one disk a move is a rename. Made if missing.
    """
    parent.mkdir(parents=True, exist_ok=True)
    ours = f".passing-{re.sub(r'[^A-Za-z0-9]', '', platform.node())}-"
    for left in parent.glob(f"{ours}*"):
        if not _lives(int(left.name.removeprefix(ours).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"{ours}{os.getpid()}-") as folder:
        yield Path(folder)


def _lives(process: int) -> bool:
    import psutil  # imported here, as few need it

    return psutil.pid_exists(process)
