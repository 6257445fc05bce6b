"""Imports go one way, and the first of them is quick."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(code, *flags, cwd=ROOT):
    """Run code in a new Python; return what it printed and what it said."""
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)


def seconds_of_import(name):
    said = python(f"import {name}", "-X", "importtime").stderr
    (microseconds,) = re.findall(rf"\| +(\d+) \| {name}$", said, re.MULTILINE)
    return int(microseconds) / 1e6


def test_import_takes_less_than_a_fifth_of_a_second():
    assert min(seconds_of_import("xailab") for _ in range(5)) < 0.2


@pytest.mark.parametrize("name", ["xailab", "xailab.cli", "xailab.doctor", "xailab.course"])
def test_the_light_modules_leave_the_heavy_ones_alone(name):
    code = f"import sys, {name}; print({{'torch', 'matplotlib', 'pandas'}} & set(sys.modules))"
    assert python(code).stdout.strip() == "set()"


def test_no_module_loads_tensorflow():
    code = """
import importlib, pkgutil, sys, xailab
names = [each.name for each in pkgutil.walk_packages(xailab.__path__, "xailab.")]
names = [name for name in names if not name.endswith((".__main__", ".cam_keras"))]
for name in names:
    importlib.import_module(name)
print(len(names), "torch" in sys.modules, "tensorflow" in sys.modules)
"""
    count, torch, tensorflow = python(code).stdout.split()[-3:]
    assert int(count) > 30
    assert (torch, tensorflow) == ("True", "False")


def test_a_name_that_is_not_there_is_an_attribute_error():
    import xailab

    with pytest.raises(AttributeError, match="no attribute 'explains'"):
        xailab.explains  # noqa: B018


@pytest.fixture
def copy_of_the_package(tmp_path):
    """Return a folder with the package and its contracts, to be spoiled."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    only_code = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.json")
    shutil.copytree(ROOT / "xailab", tmp_path / "xailab", ignore=only_code)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/files.py", "import xailab.plots"),
        ("foundations/backprop.py", "import xailab.attribution"),
        ("attribution/cam.py", "import tensorflow"),
        ("cli.py", "import torch"),
    ],
)
def test_the_contracts_notice_a_wrong_import(copy_of_the_package, module, line):
    with (copy_of_the_package / "xailab" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"],
        cwd=copy_of_the_package,
        env=os.environ | {"PYTHONPATH": str(copy_of_the_package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    assert "is not allowed to import" in done.stdout
