"""Files are whole or not there at all."""

import os
import threading

import pytest

from xailab.core.files import home, passing_folder, write_atomically


def test_writes_text_as_utf8_and_makes_folders(tmp_path):
    path = write_atomically(tmp_path / "a" / "b.txt", "α → β")
    assert path.read_bytes() == "α → β".encode()


def test_writes_bytes_over_an_old_file(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"a much longer old content")
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"


def test_leaves_an_ordinary_readable_file(tmp_path):
    path = write_atomically(tmp_path / "x", "1")
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("cut", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_cut_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, cut, error):
    path = write_atomically(tmp_path / "x", "old")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, cut, fail)
    with pytest.raises(type(error)):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, seen, done = tmp_path / "x", set(), threading.Event()
    write_atomically(path, "a" * 100_000)

    def read():
        while not done.is_set():
            content = path.read_text()
            seen.add((content[0], len(content), len(set(content))))

    reader = threading.Thread(target=read)
    reader.start()
    for letter in "abab" * 10:
        write_atomically(path, letter * 100_000)
    done.set()
    reader.join()
    assert seen <= {("a", 100_000, 1), ("b", 100_000, 1)}


def test_the_folder_in_the_way_is_an_error(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="x"):
        write_atomically(tmp_path / "x", "1")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_home_is_what_the_user_chose(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_HOME", "~/lab")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / "lab"


def test_home_is_the_users_cache_otherwise(monkeypatch):
    monkeypatch.delenv("XAILAB_HOME", raising=False)
    assert home().name == "xailab"
    assert home().is_absolute()


def test_a_passing_folder_is_gone_at_the_end_and_leaves_those_in_use(tmp_path):
    with passing_folder(tmp_path / "cache") as one, passing_folder(tmp_path / "cache") as two:
        (one / "a").write_text("a")
        assert one != two
        assert one.parent == tmp_path / "cache"  # the same disk, so that a move is a rename
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_passing_folder_may_be_moved_to_its_place(tmp_path):
    with passing_folder(tmp_path) as folder:
        (folder / "a").write_text("a")
        folder.rename(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_passing_folders_of_processes_that_are_gone_are_removed(tmp_path, monkeypatch):
    with passing_folder(tmp_path) as folder:
        name = folder.name
    gone, other = name.replace(f"-{os.getpid()}-", "-999999999-"), ".passing-elsewhere-1-abc"
    for left in (gone, other):
        (tmp_path / left).mkdir()
    with passing_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [other]  # another machine's may be in use
