"""`python -m xailab` is `xailab`, also where the scripts folder is not on PATH."""

from xailab.cli import app

app(prog_name="xailab")
