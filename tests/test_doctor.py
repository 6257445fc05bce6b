"""The doctor finds what is planted, and says how to mend it."""

import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from packaging.requirements import Requirement

from xailab import doctor

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_check_is_one_line():
    good, bad = doctor.Check("cache", True, "/x", "y"), doctor.Check("cache", False, "/x", "do y")
    assert str(good) == "[OK]   cache                    /x"
    assert str(bad) == "[FAIL] cache                    /x. Mend: do y"


def test_show_prints_each_check_once(capsys):
    doctor.show([doctor.Check("a", True, "1"), doctor.Check("b", False, "2", "3")])
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["[OK]", "a"],
        ["[FAIL]", "b"],
    ]


def test_the_report_covers_every_requirement_of_the_lessons():
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["lab"]
    checks = {check.name: check for check in doctor.report()}
    for line in lines:
        assert checks[Requirement(line).name].ok
    assert checks["torch works"].ok
    assert checks["shipped weights"].ok
    assert {"python", "cache", "free disk", "free memory", "data photos"} <= set(checks)
    assert "pytest" not in checks  # only who changes the package needs it


@pytest.mark.parametrize(
    ("line", "ok", "detail"),
    [
        ("numpy>=1.26", True, metadata.version("numpy")),
        ("numpy>=99", False, f"{metadata.version('numpy')}, not >=99"),
        ("no-such-library>=1", False, "not installed"),
        ("no-such-library>=1; python_version < '3.0'", True, "not made for this Python"),
    ],
)
def test_a_library_is_judged_by_its_version(line, ok, detail):
    check = doctor._library(Requirement(line))
    assert check.ok is ok
    assert check.detail.startswith(detail)
    assert "make lab" in check.mend or ok


def test_xailab_itself_not_installed(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    (check,) = doctor._libraries()
    assert (check.name, check.ok) == ("xailab", False)


def test_a_torchvision_that_does_not_fit_torch_is_found(tmp_path, monkeypatch):
    error = "operator torchvision::nms does not exist"
    (tmp_path / "torchvision.py").write_text(f"raise RuntimeError({error!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    check = doctor._torch()
    assert (check.ok, check.detail) == (False, error)
    assert "make clean" in check.mend


def test_an_old_python_is_found(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    check = doctor._python()
    assert (check.ok, check.detail) == (False, "3.10.13")


def test_missing_and_broken_data_are_found(empty_home):
    from xailab.data.registry import entry

    photos = entry("photos")
    assert doctor._data_set(photos).detail == "missing"
    (empty_home / "data").mkdir(parents=True)
    (empty_home / "data" / photos.file).write_bytes(b"half a file")
    check = doctor._data_set(photos)
    assert (check.ok, check.detail) == (False, "broken")
    assert check.mend == "xailab data get photos"


def test_missing_weights_are_found(monkeypatch):
    monkeypatch.setattr(doctor, "WEIGHTS", ("digit_cnn.safetensors", "lost.safetensors"))
    check = doctor._weights()
    assert (check.ok, check.detail) == (False, "missing: lost.safetensors")


def test_a_cache_that_cannot_be_written_is_found(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path / "file"))
    check = doctor._cache()
    assert not check.ok
    assert "XAILAB_HOME" in check.mend


def test_a_good_cache_is_left_clean(empty_home):
    assert doctor._cache().ok
    assert list(empty_home.iterdir()) == []


@pytest.mark.parametrize(("free", "ok"), [(doctor.DISK - 1, False), (doctor.DISK, True)])
def test_a_full_disk_is_found_also_before_the_cache_exists(empty_home, monkeypatch, free, ok):
    asked = []
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(psutil, "disk_usage", lambda path: asked.append(path) or usage)
    assert doctor._disk().ok is ok
    assert asked == [str(empty_home.parent)]


@pytest.mark.parametrize(("free", "ok"), [(doctor.MEMORY - 1, False), (doctor.MEMORY, True)])
def test_too_little_memory_is_found(monkeypatch, free, ok):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    assert doctor._memory().ok is ok
