"""How much memory a lesson needs, asked of its kernel after the last cell."""

import sys
from pathlib import Path

import psutil


def peak_mb() -> int:
    """Return the largest resident memory of this process so far, in MB (2**20 bytes)."""
    return round(_peak_bytes() / 2**20)


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent that this process was forked from
        text = status.read_text()
        if "VmHWM:" in text:
            return int(text.partition("VmHWM:")[2].split()[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Unix only

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(largest) if sys.platform == "darwin" else int(largest) * 1024
