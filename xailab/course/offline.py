"""No network for lessons: while one is built or tested, reaching another machine is an error.

`forbid_network` runs at the start of every kernel, and of every process that a kernel starts, by a
`sitecustomize.py` on PYTHONPATH (`write_hook`). Data that an author once fetched would hide that a
lesson loads more than a learner has: kernels under test see only what the set-up fetches
(`home_as_fetched`).
"""

import shutil
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_HOOK = """from xailab.course.offline import forbid_network

forbid_network()
"""
_WATCHED = {
    "socket.connect": 1,  # audit event -> which of its arguments is the address
    "socket.sendto": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


class NetworkForbidden(RuntimeError):
    """A lesson reached for the network; no OSError, so that nobody takes it for a bad line."""


def forbid_network() -> None:
    """Make this process raise `NetworkForbidden` when it reaches for another machine; for good."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _WATCHED:
        return
    address = arguments[_WATCHED[event]]
    host = address[0] if isinstance(address, tuple) and address else address
    if not _is_here(host):
        raise NetworkForbidden(
            f"{event} to {host!r}: lessons run without network. Fetch data before "
            "(`xailab data get`) and read it from the cache."
        )


def _is_here(host: Any) -> bool:
    """Loopback, this machine's name, any-address, and addresses that are no host (Unix sockets)."""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if not isinstance(host, str) or host.startswith(("/", "\0")):
        return True
    if host in ("", "localhost", "0.0.0.0", "::", socket.gethostname()):
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def write_hook(folder: Path) -> Path:
    """Write the `sitecustomize.py` that calls `forbid_network` into a folder for PYTHONPATH."""
    path = folder / "sitecustomize.py"
    path.write_text(_HOOK)
    return path


def home_as_fetched(folder: Path) -> Path:
    """Make a folder for XAILAB_HOME that holds the data sets of the set-up, and nothing else."""
    from xailab.data import archives, entries

    data = folder / "home" / "data"
    data.mkdir(parents=True)
    for name in {each.file for each in entries() if each.needed}:
        if (archives.cache() / name).is_file():
            _link(archives.cache() / name, data / name)
    return data.parent


def _link(there: Path, here: Path) -> None:
    try:
        here.symlink_to(there.absolute())
    except OSError:  # Windows lets few people make links
        shutil.copy(there, here)
