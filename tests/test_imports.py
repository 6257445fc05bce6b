"""Imports go one way, and the first of them is quick."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import api

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


@pytest.mark.parametrize("name", ["xailab", "xailab.attribution", "xailab.plots"])
def test_a_name_that_is_not_there_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"No {name} attribute explains"):
        importlib.import_module(name).explains  # noqa: B018


def test_packages_and_modules_are_attributes_after_one_import():
    code = """
import xailab
print(*(module.__name__ for module in (
    xailab.attribution.cam, xailab.evaluate.scoreboard, xailab.foundations.backprop, xailab.trust,
    xailab.simplify, xailab.behavior, xailab.data.registry, xailab.plots.words)))
"""
    assert python(code).stdout.split() == [
        "xailab.attribution.cam", "xailab.evaluate.scoreboard", "xailab.foundations.backprop",
        "xailab.trust", "xailab.simplify", "xailab.behavior", "xailab.data.registry",
        "xailab.plots.words",
    ]  # fmt: skip


def offered(package):
    """Return the public functions and classes that the files of a method package define."""
    files = api.modules(ROOT / "xailab" / package)
    return [one for file in files if file.stem not in api.APART for one in api.defined(file)]


@pytest.mark.parametrize("package", api.WHOLE)
def test_every_public_name_can_be_imported_from_its_package(package):
    home = importlib.import_module(f"xailab.{package}")
    names = offered(package)
    assert len(names) > 3
    for name, module, *_ in names:
        defined = getattr(importlib.import_module(f"xailab.{package}.{module}"), name)
        got = getattr(home, name)
        assert (got.__wrapped__ if name == module else got) is defined, name
        assert name in home.__all__


@pytest.mark.parametrize("package", ["", *(f".{package}" for package in api.PACKAGES)])
def test_dir_shows_the_public_names_and_each_is_there(package):
    home = importlib.import_module(f"xailab{package}")
    assert dir(home) == sorted(home.__all__)
    assert not [name for name in dir(home) if name.startswith("_")]
    assert not {"Any", "import_module", "lazy"} & set(dir(home))
    for name in set(dir(home)) - set(api.APART):  # TensorFlow takes its time
        assert getattr(home, name) is not None


def test_the_list_of_names_and_the_stubs_are_up_to_date(capsys):
    assert api.main(check=True) == 0, capsys.readouterr().out


def test_one_name_in_two_modules_of_a_package_is_refused(tmp_path):
    for module in ("one", "two"):
        (tmp_path / f"{module}.py").write_text("def same(): ...\ndef _own(): ...\n")
    with pytest.raises(ValueError, match="one and two both define same"):
        api.stub(tmp_path)


def named_as_their_function():
    files = [*(ROOT / "xailab").glob("[a-z]*/[a-z]*.py")]
    pairs = [(file, one) for file in files for one in api.defined(file)]
    return sorted(f"{file.parent.name}.{file.stem}" for file, one in pairs if file.stem == one.name)


@pytest.mark.parametrize("first", ["import xailab", "import xailab.{0}.{1}"])
def test_a_module_named_as_its_function_is_both(first):
    names = [name.split(".") for name in named_as_their_function()]
    assert ["attribution", "saliency"] in names
    tests = [
        f"""
{first.format(package, word)}
from xailab.{package} import {word} as got
module = sys.modules["xailab.{package}.{word}"]
function = module.{word}
assert got is module is xailab.{package}.{word}, module
assert callable(got), module
assert inspect.signature(got) == inspect.signature(function), module
assert function.__doc__ in got.__doc__, module
"""
        for package, word in names
    ]
    python("import inspect, sys, xailab\n" + "".join(tests))


@pytest.mark.parametrize("package", api.PACKAGES)
def test_every_module_is_an_attribute_of_its_package(package):
    modules = {file.stem for file in api.modules(ROOT / "xailab" / package)}
    assert modules <= set(dir(importlib.import_module(f"xailab.{package}")))


def test_a_callable_module_calls_what_the_function_is_now(monkeypatch):
    from xailab.core import quadrature

    monkeypatch.setattr(quadrature, "quadrature", lambda *words, **more: (words, more))
    assert quadrature(1, 2, rule="left") == ((1, 2), {"rule": "left"})


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
