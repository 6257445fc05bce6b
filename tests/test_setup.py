"""The set-up: make with a pretended Python, the lock, conda's file, licences, the wheel."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]

# A Python that notes what it is asked for. It makes a .venv with itself inside, answers the
# Makefile's question where xailab is, and fails at what the file FAIL names.
PRETENDED = f"""#!{sys.executable}
import os, pathlib, shutil, sys
asked = " ".join(sys.argv[1:])
root = pathlib.Path(os.environ["ROOT"])
if asked.startswith("-c"):
    sys.version_info = (3, 10) if (root / "OLD").exists() else (3, 11)
    exec(sys.argv[2])
elif asked.startswith("-P"):
    print(root / "xailab") if (root / "INSTALLED").exists() else sys.exit(1)
elif asked.startswith("--version"):
    print("Python 3.99")
else:
    with open(root / "LOG", "a") as log:
        log.write(asked + "\\n")
    if (root / "FAIL").exists() and (root / "FAIL").read_text() in asked:
        sys.exit("as if it failed")
    if asked.startswith("-m venv"):
        (root / ".venv/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy(__file__, root / ".venv/bin/python")
    if " install " in asked:
        (root / "INSTALLED").touch()
"""
PIP = "-m pip --disable-pip-version-check"
LOCKED = f"{PIP} install -c constraints.txt -e .[lab]"
NEWEST = f"{PIP} install -e .[lab]"
AGAIN = LOCKED.replace(" install", " --quiet install")


class Clone:
    """A clone of the course in which `make` meets the pretended Python."""

    def __init__(self, root):
        self.root = root
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, root)
        shutil.copytree(ROOT / ".ci", root / ".ci")
        (root / "xailab").mkdir()
        (root / "bin").mkdir()
        for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"):
            (root / "bin" / name).write_text(PRETENDED)
            (root / "bin" / name).chmod(0o755)

    def make(self, *words, **environment):
        """Run make; return its exit code, what Python was asked for, and what make said."""
        (self.root / "LOG").write_text("")
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("CONDA", "MAKE", "MFLAGS"))
        }
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["make", *words],
            cwd=self.root,
            env=kept | {"PATH": path, "ROOT": str(self.root)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        asked = (self.root / "LOG").read_text().splitlines()
        asked = [line for line in asked if line != "-m pip --version"]
        return done.returncode, asked, done.stdout + done.stderr

    def fail_at(self, words):
        """Let every request that contains these words fail; None ends it."""
        (self.root / "FAIL").write_text(words)


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path.resolve())


def test_make_lab_installs_once_and_then_only_opens(clone):
    code, asked, _ = clone.make("lab")
    assert (code, asked) == (0, ["-m venv --clear .venv", LOCKED, "-m xailab lab"])
    code, asked, _ = clone.make("lab")
    assert (code, asked) == (0, ["-m xailab lab"])


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_installs_again(clone, changed):
    clone.make("lab")
    later = (clone.root / ".venv/.xailab-lab").stat().st_mtime + 10
    os.utime(clone.root / changed, (later, later))
    assert clone.make("lab")[1] == [AGAIN, "-m xailab lab"]


def test_where_the_tested_versions_do_not_fit_the_newest_are_taken(clone):
    clone.fail_at("-c constraints.txt")
    code, asked, said = clone.make("lab")
    assert (code, asked[1:]) == (0, [LOCKED, NEWEST, "-m xailab lab"])
    assert "Trying the newest ones that fit this Python instead." in said


def test_a_failed_install_says_the_mend_and_the_next_run_goes_on(clone):
    clone.fail_at(" install ")
    code, asked, said = clone.make("lab")
    assert (code, asked[1:]) == (2, [LOCKED, NEWEST])
    assert "run the same command again" in said
    clone.fail_at("nothing of this")
    code, asked, _ = clone.make("lab")
    assert (code, asked) == (0, [LOCKED, "-m xailab lab"])


def test_a_package_cut_off_half_way_is_installed_again(clone):
    packages = clone.root / ".venv/lib/python3.11/site-packages"
    for name in ("whole", "half"):
        (packages / f"{name}-1.0.dist-info").mkdir(parents=True)
    (packages / "whole-1.0.dist-info/INSTALLER").write_text("pip\n")
    clone.make("lab")
    assert [each.name for each in packages.iterdir()] == ["whole-1.0.dist-info"]


def test_a_moved_folder_is_set_up_anew(clone):
    clone.make("lab")
    (clone.root / "INSTALLED").unlink()  # now Python does not find xailab where the Makefile is
    assert clone.make("lab")[1] == [AGAIN, "-m xailab lab"]


def test_the_active_conda_environment_is_used(clone):
    conda = clone.root / "conda"
    (conda / "bin").mkdir(parents=True)
    shutil.copy(clone.root / "bin/python3", conda / "bin/python")
    active = {"CONDA_PREFIX": str(conda), "CONDA_DEFAULT_ENV": "xailab"}
    code, asked, said = clone.make("lab", **active)
    assert (code, asked) == (0, [LOCKED, "-m xailab lab"])
    assert f"Using the conda environment {conda}" in said
    assert not (clone.root / ".venv").exists()
    assert clone.make("lab", **active)[1] == ["-m xailab lab"]


def test_condas_base_environment_is_left_alone(clone):
    active = {"CONDA_PREFIX": str(clone.root / "conda"), "CONDA_DEFAULT_ENV": "base"}
    assert clone.make("lab", **active)[1][0] == "-m venv --clear .venv"


def test_an_old_python_is_refused_in_one_sentence(clone):
    (clone.root / "OLD").touch()
    code, asked, said = clone.make("lab")
    assert (code, asked) == (2, [])
    assert "xailab needs Python 3.11 or newer" in said


def test_cpu_wheels_are_asked_of_uv_before_the_rest(clone):
    code, asked, _ = clone.make("lab", "TORCH=cpu")
    assert code == 0
    assert asked[1].endswith("install --quiet uv")
    assert asked[2] == (
        "-m uv pip install --python .venv/bin/python --torch-backend cpu "
        "-c constraints.txt torch torchvision"
    )
    assert asked[3:] == [LOCKED, "-m xailab lab"]


def test_make_test_runs_every_check_and_fails_if_one_does(clone):
    lint_imports = clone.root / ".venv/bin/lint-imports"
    clone.make("lab")
    shutil.copy(clone.root / "bin/python3", lint_imports)
    code, asked, said = clone.make("test")
    assert code == 0, said
    assert asked[0].endswith("install -c constraints.txt -e .[lab,dev,peers]")
    ran = " | ".join(asked[1:])
    for words in (
        "-m xailab data get",
        "-m ruff check",
        "-m ruff format --check",
        "-m mypy",
        "--no-logo",
        "-m codespell_lib",
        "-m xailab build --check",
        "-m pytest -q -n 2 --ignore tests/browser |",
        "-m pytest -q tests/browser |",
        "--nbval-lax --nbval-current-env notebooks solutions",
    ):
        assert words in ran
    clone.fail_at("-m mypy")
    code, asked, said = clone.make("--keep-going", "test")
    assert code == 2
    assert "s, FAILED: .venv/bin/python -m mypy" in said
    assert "-m codespell_lib" in asked  # the others ran all the same


def test_make_alone_lists_what_it_can_do(clone):
    code, asked, said = clone.make()
    assert (code, asked) == (0, [])
    assert {"make lab", "make test", "make notebooks"} <= set(re.findall(r"make [a-z]+", said))


def lock():
    """Return name -> version of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_every_requirement_has_a_lower_bound_and_is_met_by_the_lock(line):
    requirement = Requirement(line)
    assert [each.operator for each in requirement.specifier] == [">="]
    if requirement.name != "pip":  # cannot well replace itself while it runs
        assert requirement.specifier.contains(lock()[canonicalize_name(requirement.name)])


def test_the_lock_holds_versions_only_each_once():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    assert len(lock()) == len(pins)
    assert any("make lock" in line for line in lines[:5])


def test_the_lock_is_written_from_what_is_installed(tmp_path):
    subprocess.run([sys.executable, ROOT / ".ci/lock.py", tmp_path / "lock"], check=True)
    text = (tmp_path / "lock").read_text()
    assert f"pytest=={pytest.__version__}\n" in text
    assert "@" not in text
    assert "xailab==" not in text


def test_conda_installs_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert python.startswith("python" + PROJECT["requires-python"])
    assert pip == "pip"
    assert through_pip["pip"] == [*sorted(PROJECT["dependencies"] + EXTRAS["lab"]), "-e ."]


def test_the_citation_is_complete_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "date-released"} <= set(citation)
    assert citation["version"] == PROJECT["version"]


def test_the_package_knows_its_version():
    import xailab

    assert xailab.__version__ == PROJECT["version"]


def test_commit_hooks_are_targets_of_make():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    makefile = (ROOT / "Makefile").read_text()
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert f"\n{hook['entry'].removeprefix('make ')}: " in makefile


def test_nothing_names_a_host_to_install_from():
    for name in ("Makefile", ".ci/run", ".ci/lock.py", "pyproject.toml", "environment.yml"):
        assert "://" not in (ROOT / name).read_text()


@pytest.mark.parametrize("code", [0, 3])
def test_timed_passes_the_exit_code_on(code):
    done = subprocess.run(
        [ROOT / ".ci/timed", "sh", "-c", f"exit {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert ("FAILED" in done.stdout) == (code != 0)


def test_a_wheel_carries_the_registry_the_cards_and_the_weights(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "xailab/data/_datasets/registry.toml" in names
    assert "xailab/data/_datasets/cards/photos.md" in names
    assert "xailab/models/weights/digit_cnn.safetensors" in names
    assert {"LICENSE", "LICENSE-LESSONS"} <= {Path(name).name for name in names}
    assert not [name for name in names if name.startswith(("tests", "notebooks", "lessons"))]
