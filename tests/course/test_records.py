import json
import os
import subprocess
import sys
import time

import pytest

from xailab.course import records


@pytest.fixture
def path(monkeypatch, tmp_path):
    place = tmp_path / "progress.json"
    monkeypatch.setenv("XAILAB_PROGRESS", str(place))
    return place


def test_a_record_counts_tries_and_stays_passed(path):
    for passed in (False, True, False):
        records.record("a.b", passed=passed)
    assert records.read() == {"a.b": {"passed": True, "tries": 3}}
    assert json.loads(path.read_text())["version"] == records.VERSION


def test_the_file_stands_in_the_home_of_xailab(monkeypatch, tmp_path):
    monkeypatch.delenv("XAILAB_PROGRESS", raising=False)
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    assert records.place() == tmp_path / "progress.json"


def test_strict_mode_leaves_the_own_progress_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("XAILAB_PROGRESS", raising=False)
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    monkeypatch.setenv("XAILAB_STRICT", "1")
    records.record("a.b", passed=True)
    assert records.read() == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"version": 1}', '{"version": 99, "exercises": {}}',
     '{"version": 1, "exercises": {"a.b": 3}}', "\x00\x00"],
)  # fmt: skip
def test_a_corrupt_file_is_put_aside_and_told_once(path, content):
    path.write_text(content)
    with pytest.warns(UserWarning, match=r"progress could not be read .*progress\.json\.broken"):
        assert records.read() == {}
    assert path.with_name("progress.json.broken").read_text() == content
    records.record("a.b", passed=True)
    assert records.read() == {"a.b": {"passed": True, "tries": 1}}


def test_bytes_that_are_no_text_are_put_aside(path):
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.warns(UserWarning, match="could not be read"):
        assert records.read() == {}


def test_a_read_only_place_only_warns(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XAILAB_PROGRESS", str(tmp_path / "file" / "progress.json"))
    with pytest.warns(UserWarning, match="progress was not saved"):
        records.record("a.b", passed=True)


def test_two_notebooks_at_once_lose_nothing(path):
    code = "import sys\nfrom xailab.course.records import record\n" + (
        "for i in range(25): record(f'{sys.argv[1]}.e{i}', passed=True)"
    )
    command = [sys.executable, "-c", code]
    writers = [subprocess.Popen([*command, name], env=os.environ) for name in ("one", "two")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(records.read()) == 50


HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(path):
    """Return a function that lets another process hold the lock for some seconds."""
    started = []

    def hold(seconds):
        command = [sys.executable, "-c", HOLD, f"{path}.lock", str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[0].stdout.readline() == "held\n"
        return started[0]

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_a_record_waits_for_the_lock(path, holder):
    holder(0.5)
    start = time.monotonic()
    records.record("a.b", passed=True)
    assert 0.2 < time.monotonic() - start < records.PATIENCE
    assert "a.b" in records.read()


def test_a_lock_held_too_long_only_warns(path, holder, monkeypatch):
    monkeypatch.setattr(records, "PATIENCE", 0.1)
    holder(60)
    with pytest.warns(UserWarning, match="progress was not saved"):
        records.record("a.b", passed=True)
    assert not path.exists()


def test_a_crash_of_the_holder_lets_the_next_one_in_at_once(path, holder):
    process = holder(60)
    process.kill()
    process.wait()
    assert path.with_name("progress.json.lock").exists()
    start = time.monotonic()
    records.record("a.b", passed=True)
    assert time.monotonic() - start < records.PATIENCE / 2
    assert "a.b" in records.read()


def test_a_folder_that_cannot_be_written_only_warns(path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", denied)
    with pytest.warns(UserWarning, match="progress was not saved.*Permission denied"):
        records.record("a.b", passed=True)


def test_a_file_of_older_form_loads_and_is_extended(path):
    path.write_text('{"version": 1, "exercises": {"a.b": {"passed": true, "tries": 3}}}')
    assert records.read() == {"a.b": {"passed": True, "tries": 3}}
    assert records.answers() == {}
    records.record_answers("before", {"q": "x"})
    records.record_ticks("a.b", ["one"], "you")
    assert records.answers() == {"before": {"q": "x"}}
    assert records.read()["a.b"] == {"passed": True, "tries": 3, "ticked": ["one"], "by": "you"}
