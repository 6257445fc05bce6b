import json
import os
import subprocess
import sys
import time

import pytest

from xailab.course import progress, records


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


def test_the_lock_of_a_killed_process_is_taken_over(path, monkeypatch):
    monkeypatch.setattr(records, "PATIENCE", 0.05)
    lock = path.with_name("progress.json.lock")
    lock.touch()
    start = time.monotonic()
    records.record("a.b", passed=True)
    assert time.monotonic() - start > 0.05
    assert "a.b" in records.read()
    assert not lock.exists()


def test_progress_adds_up_points_by_lesson(demo, capsys):
    records.record("demo.softmax", passed=True)
    records.record("demo.why", passed=False)
    progress()
    assert capsys.readouterr().out.splitlines() == [
        "01_demo      1 of 3 exercises, 2 of 4 points",
        "all lessons  1 of 3 exercises, 2 of 4 points",
    ]


def test_the_table_of_progress_has_a_caption_and_headings(demo, monkeypatch):
    shown = []
    monkeypatch.setattr("xailab.course.messages.show", lambda plain, html: shown.append(html))
    progress()
    assert "<caption>Your progress</caption>" in shown[0]
    assert "<th scope='row'>01_demo</th><td>0 of 3</td><td>0 of 4</td>" in shown[0]
