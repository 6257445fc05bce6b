"""The command `xailab`: open the lab, check the machine, handle data, build lessons.

Whatever goes wrong that a person can mend (no network, a full disk, a broken file, Ctrl-C) ends in
one line that says the mend, not in a traceback. Exit codes: 0 fine, 1 not, 2 wrong use, 130 Ctrl-C.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

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


_VARIABLES = {
    "XAILAB_HOME": "folder of data, progress and scores",
    "XAILAB_PROGRESS": "file of your progress",
    "XAILAB_SCOREBOARD": "file of the scores that your methods got",
    "XAILAB_STRICT=1": "a wrong or missing answer is an error",
    "XAILAB_PICTURES=small": "pictures under 60 kB in a running notebook too",
    "XAILAB_QUIET=1": "no progress bars",
    "XAILAB_TRACEBACK=1": "errors in full",
}
app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="xailab: explain neural networks, and check the explanations. Start with `xailab lab`.",
    epilog="\n\n".join(
        ["Environment variables:", *(f"{name:21} {what}" for name, what in _VARIABLES.items())]
    ),
)
data_app = typer.Typer(no_args_is_help=True, help="List, fetch, describe and verify data sets.")
app.add_typer(data_app, name="data")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", show_default=False, help="Data sets; none: all needed."),
]


def _tell_version(wanted: bool) -> None:
    if wanted:
        from xailab import __version__

        typer.echo(f"xailab {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Stand before every command."""


@app.command()
def lab(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port on this machine; if taken, the next one.")
    ] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your copies of the lessons, made if missing.",
            show_default="work, beside notebooks/",
        ),
    ] = None,
    fresh: Annotated[
        str | None,
        typer.Option(metavar="LESSON", help="Set your copy of a lesson aside, begin a fresh one."),
    ] = None,
) -> None:
    """Fetch the data, check this machine, open JupyterLab on your own copies of the lessons."""
    from xailab import data, doctor
    from xailab.course import copies

    course = _course()
    own = (folder or course / "work").absolute()
    for line in _renewed(course, own, fresh):
        _say(line)
    try:
        data.get()
    except (OSError, ValueError) as error:  # lessons that need other data still run
        _say(explain(error))
    doctor.show_short(doctor.report())
    _open_jupyterlab(own, copies.lesson(course, fresh or "start_here").name, port, browser)


def _course() -> Path:
    """Return the clone that xailab runs from, or this folder, if it holds the lessons."""
    for root in (Path(__file__).resolve().parents[1], Path.cwd()):
        if any(root.glob("notebooks/*_start_here.ipynb")):
            return root
    raise ValueError("no notebooks/ with the lessons here: run this in a clone of the course")


def _renewed(course: Path, own: Path, fresh: str | None) -> list[str]:
    """Bring the learner's copies up to date, unless they are to work in the originals."""
    from xailab.course import copies

    if own == course / "notebooks":
        return []
    try:
        return copies.renew(course, own, fresh)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{own}: {reason}: give another folder, `xailab lab --folder PLACE`"
        ) from None


def _open_jupyterlab(folder: Path, notebook: str, port: int, browser: bool) -> NoReturn:
    """Become JupyterLab; only this machine reaches it, and only with the token."""
    if _is_taken(port):
        _say(f"port {port} is taken, so the lab opens on the next free one; its address is below")
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", f"--port={port}"]
    command += [f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{notebook}"]
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    settings = [str(Path(__file__).parent / "course" / "jupyter")]
    settings += filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])
    _become(command, os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(settings)})


def _is_taken(port: int) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
    lessons: Annotated[
        list[str] | None,
        typer.Argument(metavar="LESSON", show_default=False, help="None: all of them."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is out of date.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also what did not change.")] = False,
) -> None:
    """Write notebooks/ and solutions/ from lessons/, where they changed."""
    from xailab.course.build import main

    raise typer.Exit(main(lessons or [], check, force=force))


@app.command()
def progress() -> None:
    """Show the whole course: by part and lesson, what is done, ticked and earned."""
    from xailab.course.results import show_course

    show_course()


@app.command()
def quiz(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="For teachers: progress.json of each learner; shows what the questions are worth.",
        ),
    ] = None,
    before: Annotated[bool, typer.Option("--before", help="Take it before the course.")] = False,
    after: Annotated[bool, typer.Option("--after", help="Take it after the course.")] = False,
) -> None:
    """Take the concept inventory: 20 questions on what is often misunderstood."""
    from xailab.course import inventory

    if before and after:
        raise typer.BadParameter("choose one of --before and --after")
    when: Any = "before" if before else "after" if after or files else None
    if files:
        typer.echo(inventory.report(files, when))
    elif when:
        inventory.ask(when, typer.prompt)
    else:
        inventory.show_standing()


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
