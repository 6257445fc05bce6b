"""Write the versions installed beside this Python as a constraints file (`make lock`)."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HEADER = """\
# Versions that `make test` passed with: {day}, Python {python}, {system}.
# `make lab` installs these; where they do not fit, the newest ones that do. Remake: make lock
# Not here: pip (it cannot well replace itself while it runs).
"""


def main(path: str) -> None:
    """Freeze the environment of this interpreter into `path`."""
    freeze = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    lines = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.split("\n")
    # "torch==2.14.1+cpu" is one machine's build of 2.14.1, and "name @ file:..." one machine's file
    pins = sorted((line.split("+")[0] for line in lines if "==" in line), key=str.lower)
    header = HEADER.format(
        day=datetime.now(UTC).date(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )
    Path(path).write_text(header + "\n".join(pins) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
