"""Does this machine have what the lessons need? One line each, with the mend.

>>> check = Check("free disk", False, "0.2 GB in /home", "free at least 2 GB")
>>> print(check)
[FAIL] free disk                0.2 GB in /home. Mend: free at least 2 GB
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from xailab.core.files import home, write_atomically

if TYPE_CHECKING:
    from xailab.data.registry import Entry

DISK = 2e9  # bytes; all data sets and cached results together stay below this
MEMORY = 2e9  # bytes; a lesson may use that much
WEIGHTS = ("digit_cnn.safetensors", "digit_cnn_marked.safetensors")
REINSTALL = "make lab (or: pip install -c constraints.txt -e '.[lab]')"


@dataclass(frozen=True)
class Check:
    """One requirement: whether it is met, what was found, and what to do if it is not."""

    name: str
    ok: bool
    detail: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{'[OK]' if self.ok else '[FAIL]':6} {self.name:24} {self.detail}"
        return line if self.ok or not self.mend else f"{line}. Mend: {self.mend}"


def report() -> list[Check]:
    """Check everything, in seconds and without the network.

    Returns:
        One `Check` per requirement: Python, each library, data sets, weights, cache, disk, memory.
    """
    return [_python(), *_libraries(), _torch(), *_data(), _weights(), _cache(), _disk(), _memory()]


def show(checks: Iterable[Check] | None = None) -> None:
    """Print the checks (a new `report()` unless given), one line each."""
    for check in report() if checks is None else checks:
        print(check)


def show_short(checks: Iterable[Check]) -> None:
    """Print what fails, or in one line that nothing does.

    >>> show_short([Check("cache", True, "/x"), Check("free disk", True, "9 GB")])
    all 2 checks of this machine passed (`xailab doctor` lists them)
    """
    checks = list(checks)
    failed = [check for check in checks if not check.ok]
    show(failed)
    if failed:
        few = f"{len(failed)} of {len(checks)} checks failed"
        print(f"{few}: mend them and start again; some lessons will not run till then")
    else:
        print(f"all {len(checks)} checks of this machine passed (`xailab doctor` lists them)")


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _libraries() -> list[Check]:
    """Compare what is installed with xailab's own list of dependencies."""
    try:
        needed = [Requirement(line) for line in metadata.requires("xailab") or []]
    except metadata.PackageNotFoundError:
        return [Check("xailab", False, "not installed in this Python", REINSTALL)]
    needed = [each for each in needed if _is_for_lessons(each)]
    return [_library(each) for each in sorted(needed, key=lambda each: each.name)]


def _is_for_lessons(requirement: Requirement) -> bool:
    """Tell whether the package itself or its extra `lab` asks for this, on some Python."""
    marker = str(requirement.marker or "")
    return "extra" not in marker or 'extra == "lab"' in marker


def _library(requirement: Requirement) -> Check:
    """Check one library by its installed version; to import them all would take half a minute."""
    name, marker = requirement.name, requirement.marker
    if marker and not marker.evaluate({"extra": "lab"}):
        return Check(name, True, "not made for this Python; the lesson that uses it will say so")
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", REINSTALL)
    ok = requirement.specifier.contains(version, prereleases=True)
    return Check(name, ok, version if ok else f"{version}, not {requirement.specifier}", REINSTALL)


def _torch() -> Check:
    """Import torch and torchvision together: builds that do not fit each other fail only then."""
    try:
        import torch
        import torchvision  # noqa: F401
    except Exception as error:  # a mismatch raises RuntimeError, a lost library OSError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Check("torch works", False, reason, f"make clean, then {REINSTALL}")
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return Check("torch works", True, f"on {device}, {torch.get_num_threads()} threads")


def _data() -> list[Check]:
    from xailab import data

    return [_data_set(each) for each in data.entries() if each.needed]


def _data_set(entry: "Entry") -> Check:
    from xailab.data import verify

    status = verify(entry.name)
    mend = f"xailab data get {entry.name}" if entry.source == "archive" else REINSTALL
    return Check(f"data {entry.name}", status == "ok", status, mend)


def _weights() -> Check:
    folder = Path(__file__).parent / "models" / "weights"
    missing = [name for name in WEIGHTS if not (folder / name).is_file()]
    detail = f"missing: {', '.join(missing)}" if missing else f"{len(WEIGHTS)} files"
    return Check("shipped weights", not missing, detail, "git checkout -- xailab/models/weights")


def _cache() -> Check:
    probe = home() / ".doctor"
    try:
        write_atomically(probe, "")
        probe.unlink()
    except OSError as error:
        mend = "set XAILAB_HOME to a folder that you may write"
        return Check("cache", False, f"{home()}: {error.strerror}", mend)
    return Check("cache", True, str(home()))


def _disk() -> Check:
    import psutil

    there = next(folder for folder in (home(), *home().absolute().parents) if folder.is_dir())
    free = psutil.disk_usage(str(there)).free
    mend = f"free at least {DISK / 1e9:.0f} GB, or set XAILAB_HOME to another disk"
    return Check("free disk", free >= DISK, f"{free / 1e9:.1f} GB at {there}", mend)


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available
    mend = f"close other programs: a lesson may need {MEMORY / 1e9:.0f} GB"
    return Check("free memory", free >= MEMORY, f"{free / 1e9:.1f} GB", mend)
