"""The plugin for nbval keeps notebooks off the network and off the learner's own progress."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from xailab import data

ROOT = Path(__file__).parents[2]
NETWORK = "import socket\nsocket.getaddrinfo('example.com', 443)"
CHILD = """import subprocess, sys
code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
assert not said, said"""
INSIDE = """import os
from xailab.course import records
assert str(records.place()) != os.path.join(os.environ["XAILAB_HOME"], "progress.json")
assert os.environ["XAILAB_QUIET"] == "1"
assert not records.strict()
from pathlib import Path
from xailab import data
home = Path(os.environ["XAILAB_HOME"])
assert [path.name for path in (home / "data").iterdir()] == [data.entry("photos").file]"""


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [(NETWORK, 1, "NetworkForbidden"), (CHILD, 1, "NetworkForbidden"), (INSIDE, 0, "")],
)
def test_notebooks_run_apart(tmp_path, source, code, says):
    (tmp_path / "data").mkdir()
    for fetched in (data.entry("photos").file, "what no lesson loads"):
        (tmp_path / "data" / fetched).touch()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "planted.ipynb")
    command = "-m pytest -p tests.lessons.kernels -p no:cacheprovider --nbval-lax -c /dev/null"
    result = subprocess.run(
        [sys.executable, *command.split(), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"XAILAB_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stdout
    assert says in result.stdout
