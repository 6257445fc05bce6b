"""The command `xailab`: open the lab, check the machine, handle data, build lessons.

Whatever goes wrong that a person can mend (no network, a full disk, a broken file, Ctrl-C) ends in
one line that says the mend, not in a traceback. Exit codes: 0 fine, 1 not, 2 wrong use, 130 Ctrl-C.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from xailab.core.files import write_atomically

_OTHER_DISK = "make room, or set XAILAB_HOME to a folder on another disk, then run this again"
_OTHER_FOLDER = "set XAILAB_HOME to a folder that you may write, then run this again"
_MENDS = {
    errno.ENOSPC: _OTHER_DISK,
    errno.EDQUOT: _OTHER_DISK,
    errno.EACCES: _OTHER_FOLDER,
    errno.EPERM: _OTHER_FOLDER,
    errno.EROFS: _OTHER_FOLDER,
}


class OneLineErrors(TyperGroup):
    """A group of commands whose errors are one line each; XAILAB_TRACEBACK=1 shows the whole."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("stopped; nothing half-done is kept, run the same command again to go on")
            raise typer.Exit(130) from None
        except Exception as error:
            ours = hasattr(error, "exit_code") or isinstance(error, (typer.Abort, BrokenPipeError))
            if ours or os.environ.get("XAILAB_TRACEBACK"):  # typer's own ways out pass
                raise
            _say(explain(error))
            raise typer.Exit(1) from None


def _say(message: str) -> None:
    typer.echo(f"xailab: {message}", err=True)


def explain(error: Exception) -> str:
    """Put an error into one sentence, with the mend where it is known.

    >>> explain(OSError(errno.EROFS, os.strerror(errno.EROFS), "/cdrom"))[:36]
    '/cdrom: Read-only file system: set X'
    """
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed: run `make lab`, or `pip install -e '.[lab]'`"
    if isinstance(error, OSError) and error.errno and error.strerror:
        told = error.strerror != os.strerror(error.errno)  # our own messages hold their mend
        mend = "" if told else _MENDS.get(error.errno, "")
        return ": ".join(filter(None, [error.filename, error.strerror, mend]))
    name = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
    return f"{name}{error}"


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="xailab: explain neural networks, and check the explanations. Start with `xailab lab`.",
)
data_app = typer.Typer(no_args_is_help=True, help="List, fetch, describe and verify data sets.")
app.add_typer(data_app, name="data")

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)]


@app.command()
def lab(
    port: Annotated[
        int, typer.Option(help="Port on this machine; the next free one is taken.")
    ] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    folder: Annotated[
        Path | None, typer.Option(help="Work in copies of the notebooks here, made if missing.")
    ] = None,
) -> None:
    """Fetch the data, check this machine, open JupyterLab."""
    from xailab import data, doctor

    first = _first_lesson()
    try:
        data.get()
    except (OSError, ValueError) as error:  # lessons that need other data still run
        _say(explain(error))
    checks = doctor.report()
    doctor.show(checks)
    if not all(check.ok for check in checks):
        _say("mend the lines marked [FAIL], then start again; some lessons will not run till then")
    _open_jupyterlab(_copied(first, folder.absolute()) if folder else first, port, browser)


def _first_lesson() -> Path:
    """Return notebooks/00_start_here.ipynb of the clone xailab runs from, or of this folder."""
    for root in (Path(__file__).resolve().parents[1], Path.cwd()):
        first = root / "notebooks" / "00_start_here.ipynb"
        if first.is_file():
            return first
    raise ValueError("no notebooks/00_start_here.ipynb here: run this in a clone of the course")


def _copied(first: Path, folder: Path) -> Path:
    """Copy the lessons that a folder does not have yet; return the first lesson there."""
    for original in sorted(first.parent.glob("*.ipynb")):
        if not (folder / original.name).exists():  # what a learner wrote is never overwritten
            write_atomically(folder / original.name, original.read_bytes())
    return folder / first.name


def _open_jupyterlab(notebook: Path, port: int, browser: bool) -> NoReturn:
    """Become JupyterLab; only this machine reaches it, and only with the token."""
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", f"--port={port}"]
    command += [f"--ServerApp.root_dir={notebook.parents[1]}"]
    command += [f"--LabApp.default_url=/lab/tree/{notebook.parent.name}/{notebook.name}"]
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    settings = [str(Path(__file__).parent / "course" / "jupyter")]  # no news over the first lesson
    settings += filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])
    _become(command, os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(settings)})


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Go on as another program, so that Ctrl-C and every other signal reach it, not us."""
    sys.stdout.flush()
    if sys.platform != "win32":
        os.execve(command[0], command, environment)
    signal.signal(signal.SIGINT, lambda *_: None)  # Windows starts a second process: outlive Ctrl-C
    raise typer.Exit(subprocess.call(command, env=environment))


@app.command()
def doctor() -> None:
    """Say what works here, and how to mend what does not."""
    from xailab import doctor

    checks = doctor.report()
    doctor.show(checks)
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


@app.command()
def build(
    lessons: Names = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is out of date.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also what did not change.")] = False,
) -> None:
    """Write notebooks/ and solutions/ from lessons/, where they changed."""
    from xailab.course.build import main

    raise typer.Exit(main(lessons or [], check, force=force))


@app.command()
def progress() -> None:
    """Show which exercises are done."""
    from xailab.course import progress

    progress()


@data_app.command("list")
def list_data() -> None:
    """List the data sets: what each is, its license, its size, whether it is here."""
    from rich.console import Console
    from rich.table import Table

    from xailab import data

    table = Table("name", "what", "license", "MB", "here", box=None, pad_edge=False)
    for each in data.entries():
        megabytes = f"{each.size / 1e6:.1f}" if each.size else "-"
        table.add_row(each.name, each.title, each.licence, megabytes, data.verify(each.name))
    Console().print(table)


@data_app.command()
def get(names: Names = None) -> None:
    """Fetch data sets: those named, or all that the lessons need."""
    from xailab import data

    _finish(data.get(names or None))


@data_app.command()
def card(name: str) -> None:
    """Describe one data set: where it comes from, its license, its known problems."""
    from rich.console import Console
    from rich.markdown import Markdown

    from xailab import data

    Console().print(Markdown(data.card(name)))


@data_app.command()
def verify(names: Names = None) -> None:
    """Say whether data sets are here and whole: those named, or all that the lessons need."""
    from xailab import data

    wanted = names or [each.name for each in data.entries() if each.needed]
    _finish({name: data.verify(name) for name in wanted})


def _finish(statuses: dict[str, Any]) -> None:
    """Print one line per data set; leave with 1 unless all are fine."""
    for name, status in statuses.items():
        typer.echo(f"{name:20} {status}")
    raise typer.Exit(0 if all(status == "ok" for status in statuses.values()) else 1)
