"""What libraries written in C++ print, kept away from the reader."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def muted() -> Iterator[None]:
    """Throw away what is written to file descriptor 2, the process's error stream.

    TensorFlow's C++ part tells on import what graphics card it lacks. It writes
    there, past `sys.stderr`, so that no logging level and no `%%capture` stops it. Where
    `sys.stderr` is something else, as in a notebook, Python's own messages go on appearing. On
    leaving, the descriptor is as before; an exception passes through.

    >>> with muted():
    ...     _ = os.write(2, b"no card found")
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
