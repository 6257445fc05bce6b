"""The command line: what it says, how it ends, and that no failure shows a traceback."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

import xailab
from xailab import cli, data, doctor

ROOT = Path(__file__).resolve().parents[1]
XAILAB = [sys.executable, "-m", "xailab"]


def run(*words):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, words)


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def one_line(result, *words):
    """Assert that a command failed with one line on stderr that holds these words."""
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


def test_help_names_every_command_and_does_not_load_torch():
    code = "import sys; from xailab.cli import app; sys.argv[1:] = ['--help']\n"
    code += "try: app()\nfinally: print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    commands = set(re.findall(r"^│ ([a-z]+) ", said.stdout, re.MULTILINE))
    assert {"lab", "doctor", "build", "progress", "data"} <= commands
    assert said.stdout.rstrip().endswith("False")


def test_help_names_every_variable_that_the_code_reads():
    read = set()
    for path in (ROOT / "xailab").rglob("*.py"):
        read |= set(re.findall(r'environ[^\n]{0,9}"(XAILAB_[A-Z]+)"', path.read_text("utf-8")))
    assert len(read) >= 6
    assert read <= set(re.findall("XAILAB_[A-Z]+", run("--help").stdout))


def test_the_version_is_said():
    assert run("--version").stdout == f"xailab {xailab.__version__}\n"


def test_data_list_names_every_set():
    result = run("data", "list")
    assert result.exit_code == 0
    for each in data.entries():
        assert each.name in result.stdout


def test_data_card_shows_the_card():
    result = run("data", "card", "photos")
    assert result.exit_code == 0
    assert "ImageNet" in result.stdout


@pytest.mark.parametrize("command", ["card", "get", "verify"])
def test_an_unknown_data_set_names_its_near_ones(command):
    one_line(run("data", command, "photo"), "no data set named 'photo'", "photos")


def test_verify_tells_missing_broken_and_whole_apart(empty_home):
    assert "missing" in run("data", "verify", "photos").stdout
    (empty_home / "data").mkdir(parents=True)
    (empty_home / "data" / data.entry("photos").file).write_bytes(b"half")
    result = run("data", "verify", "photos")
    assert result.exit_code == 1
    assert result.stdout.split() == ["photos", "broken"]


def test_verify_ends_well_when_all_is_there(monkeypatch):
    monkeypatch.setattr("xailab.data.archives.verify", lambda name: "ok")
    result = run("data", "verify")
    assert result.exit_code == 0
    needed = [each.name for each in data.entries() if each.needed]
    assert [line.split()[0] for line in result.stdout.splitlines()] == needed


def test_without_a_network_one_line_says_so(tmp_path):
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "XAILAB_HOME": str(tmp_path)}
    done = subprocess.run(
        [*XAILAB, "data", "get", "photos"],
        env=os.environ | offline | {"COLUMNS": "500"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "xailab: could not fetch 'photos'" in done.stderr
    assert "run `xailab data get photos`" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not list((tmp_path / "data").glob("*"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ["No space left", "make room"]),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/x"), ["/x: Permission", "XAILAB_HOME"]),
        (
            OSError(errno.ENOSPC, "the disk is full: needs 2 MB"),
            ["xailab: the disk is full: needs"],
        ),
        (ConnectionError("no network: try again"), ["xailab: no network: try again"]),
        (ValueError("sha256 differs"), ["xailab: sha256 differs"]),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), ["rich is not", "make lab"]),
        (KeyError("a fault of ours"), ["KeyError", "a fault of ours"]),
    ],
)
def test_every_error_is_one_line_with_its_mend(monkeypatch, error, words):
    monkeypatch.setattr("xailab.data.get", raising(error))
    one_line(run("data", "get"), *words)


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("XAILAB_TRACEBACK", "1")
    monkeypatch.setattr("xailab.data.get", raising(ValueError("bad")))
    assert isinstance(run("data", "get").exception, ValueError)


def test_wrong_use_is_exit_code_2():
    assert run("data", "get", "--no-such-option").exit_code == 2
    assert run("fly").exit_code == 2


def test_ctrl_c_in_the_middle_of_a_download_leaves_nothing_half_done(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call, never answers
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        pip = {"PIP_INDEX_URL": index, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
        process = subprocess.Popen(
            [*XAILAB, "data", "get", "photos"],
            env=os.environ | pip | {"XAILAB_HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        silent.settimeout(240)
        with silent.accept()[0]:  # pip is in the middle of it
            os.killpg(process.pid, signal.SIGINT)
            said = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "run the same command again" in said[1]
    assert "Traceback" not in "".join(said)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_doctor_exit_code_tells(monkeypatch):
    good, bad = doctor.Check("a", True, "1"), doctor.Check("b", False, "2", "3")
    monkeypatch.setattr(doctor, "report", lambda: [good])
    assert run("doctor").exit_code == 0
    monkeypatch.setattr(doctor, "report", lambda: [good, bad])
    result = run("doctor")
    assert result.exit_code == 1
    assert "[FAIL] b" in result.stdout


def test_build_passes_its_arguments_and_its_exit_code(monkeypatch):
    from xailab.course import build

    calls = []

    def main(lessons, check, *, force):
        calls.append((lessons, check, force))
        return 1

    monkeypatch.setattr(build, "main", main)
    assert run("build", "08_cam", "--check").exit_code == 1
    assert run("build", "--force").exit_code == 1
    assert calls == [(["08_cam"], True, False), ([], False, True)]


def test_progress_shows_every_lesson_with_exercises(empty_home):
    result = run("progress")
    assert result.exit_code == 0
    assert "Fairness" in result.stdout


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Return the commands that xailab would have become, in a course of two lessons."""
    commands = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: commands.append(command))
    monkeypatch.setattr(subprocess, "call", lambda command, env: 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(doctor, "report", lambda: [doctor.Check("a", True, "1")])
    monkeypatch.setattr("xailab.data.get", lambda: {})
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "course/xailab/cli.py"))
    (tmp_path / "course/notebooks").mkdir(parents=True)
    for name in ("00_start_here", "01_backprop"):
        (tmp_path / f"course/notebooks/{name}.ipynb").write_text(name)
    return commands


def test_lab_opens_the_first_lesson_on_this_machine_only(opened, tmp_path):
    assert run("lab", "--port", "9000", "--no-browser").exit_code == 0
    (command,) = opened
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert {"--ServerApp.ip=127.0.0.1", "--port=9000", "--no-browser"} <= set(command)
    assert f"--ServerApp.root_dir={tmp_path / 'course/work'}" in command
    assert "--LabApp.default_url=/lab/tree/00_start_here.ipynb" in command
    assert not [word for word in command if "token" in word or "password" in word]


def test_lab_says_in_one_line_that_all_is_well(opened):
    said = run("lab").stdout
    assert said == "all 1 checks of this machine passed (`xailab doctor` lists them)\n"


def test_lab_opens_also_when_something_is_missing_and_says_what(opened, monkeypatch):
    checks = [doctor.Check("data", False, "missing", "get"), doctor.Check("disk", True, "9 GB")]
    monkeypatch.setattr("xailab.data.get", raising(ConnectionError("no network")))
    monkeypatch.setattr(doctor, "report", lambda: checks)
    result = run("lab")
    assert len(opened) == 1
    assert "xailab: no network" in result.stderr
    first, second = result.stdout.splitlines()
    assert first.startswith("[FAIL] data")
    assert second.startswith("1 of 2 checks failed: mend them")


@pytest.mark.parametrize("port", ["0", "65536", "99999", "eighty"])
def test_a_port_that_cannot_be_is_refused(opened, port):
    result = run("lab", "--port", port)
    assert result.exit_code == 2
    assert "--port" in result.stderr
    assert opened == []


def test_a_taken_port_is_told(opened):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert f"port {taken} is taken" in run("lab", "--port", str(taken)).stderr
    assert "taken" not in run("lab", "--port", str(taken)).stderr
    assert len(opened) == 2  # JupyterLab itself takes the next free one


def test_on_windows_the_exit_code_of_jupyterlab_is_passed_on(opened, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "call", lambda command, env: 7)
    assert run("lab").exit_code == 7
    assert opened == []


def test_lab_outside_a_clone_says_where_to_run_it(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages/xailab/cli.py"))
    monkeypatch.chdir(tmp_path)
    one_line(run("lab"), "run this in a clone of the course")
    assert opened == []


def test_lab_works_in_copies_of_ones_own(opened, tmp_path):
    mine = tmp_path / "class" / "mine"
    mine.mkdir(parents=True)
    (mine / "01_backprop.ipynb").write_text("half done")
    assert run("lab", "--folder", str(mine)).exit_code == 0
    assert f"--ServerApp.root_dir={mine}" in opened[0]  # not the folder of the whole class
    assert (mine / "00_start_here.ipynb").read_text() == "00_start_here"
    assert (mine / "01_backprop.ipynb").read_text() == "half done"  # nobody's work is overwritten
    assert not (tmp_path / "course/work").exists()


def test_lab_sets_a_lesson_back_and_opens_it(opened, tmp_path):
    run("lab")
    own = tmp_path / "course/work/01_backprop.ipynb"
    own.write_text("half done")
    result = run("lab", "--fresh", "backprop")
    assert "01_backprop.ipynb is fresh; yours is old/01_backprop.ipynb" in result.stderr
    assert "--LabApp.default_url=/lab/tree/01_backprop.ipynb" in opened[-1]
    one_line(run("lab", "--fresh", "backdrop"), "did you mean backprop")


def test_lab_can_open_the_originals(opened, tmp_path):
    originals = tmp_path / "course/notebooks"
    before = sorted(originals.iterdir())
    run("lab", "--folder", str(originals))
    assert f"--ServerApp.root_dir={originals}" in opened[0]
    assert sorted(originals.iterdir()) == before


def test_lab_in_a_folder_that_cannot_be_written_names_the_mend(opened, tmp_path):
    (tmp_path / "course/work").write_text("a file where the folder should be")
    one_line(run("lab"), "course/work: ", "xailab lab --folder PLACE")
    assert opened == []


def answer_of(address):
    """Return the HTTP status; the server says that it runs a moment before it listens."""
    for _ in range(100):
        try:
            return urllib.request.urlopen(address, timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            time.sleep(0.1)
    raise TimeoutError(f"no answer from {address}")


def test_lab_needs_its_token(tmp_path):
    """Start it for real: on localhost, closed without the token, open with it."""
    work = tmp_path / "work"
    own = {name: str(tmp_path) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    process = subprocess.Popen(
        [*XAILAB, "lab", "--no-browser", "--port", "18888", "--folder", str(work)],
        env=os.environ | own,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = next(filter(None, (re.search(r"http://127\S+", line) for line in process.stdout)))
        server, token = re.fullmatch(r"(\S+)/lab/tree/\S+\?token=(\w+)", address[0]).groups()
        (first,) = work.glob("*_start_here.ipynb")
        start = f"{server}/api/contents/{first.name}?content=0"
        assert answer_of(start) == 403
        assert answer_of(f"{start}&token={token}") == 200
    finally:
        process.terminate()  # JupyterLab itself: nothing is left running
        process.communicate(timeout=60)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(server)
