# Two commands matter: `make lab` to learn, `make test` before a commit. `make` alone lists all.
#
# Everything is installed into the active conda environment or else into .venv. The empty file
# `.xailab-NAME` there says that the set-up called NAME is complete: it is touched last, so that
# whatever was cut off half way is done again by the next run.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ifneq ($(filter-out base,$(if $(CONDA_PREFIX),$(CONDA_DEFAULT_ENV))),)
ENV := $(CONDA_PREFIX)
else
ENV := .venv
endif
PYTHON := $(ENV)/bin/python
LAB := $(ENV)/.xailab-lab
DEV := $(ENV)/.xailab-dev
# The first time pip shows how far it is; later it would only list what is there already.
PIP := $(PYTHON) -m pip --disable-pip-version-check $(if $(wildcard $(LAB)),--quiet)

# No such file counts once the Python behind .venv is gone or the folder was moved or copied.
FOUND := $(shell $(PYTHON) -P -c 'import os, xailab; print(os.path.realpath(xailab.__path__[0]))' 2>/dev/null)
ifneq ($(FOUND),$(CURDIR)/xailab)
$(LAB) $(DEV): FORCE
endif

##@ To learn
.PHONY: lab
lab: $(LAB) ## install, fetch the data, open JupyterLab (TORCH=cpu: PyTorch without CUDA, 5 GB less)
	@$(PYTHON) -m xailab lab

.PHONY: doctor
doctor: $(LAB) ## say what works here and what does not
	@$(PYTHON) -m xailab doctor

##@ To change something
.PHONY: notebooks
notebooks: $(DEV) ## write notebooks/ and solutions/ from lessons/ (only what changed)
	@$(PYTHON) -m xailab build

.PHONY: lint
lint: check-ruff check-format check-types check-imports check-spelling ## the quick checks

# nbval and the tests use both cores; one thread for each process, or they get in each other's way.
.PHONY: test
test: export OMP_NUM_THREADS = 1
test: export XAILAB_PROGRESS = $(CURDIR)/build/progress.json # yours is not for tests to write
test: export XAILAB_ALL = $(ALL)
test: data lint check-drift check-tests check-browser check-notebooks ## everything that CI runs (ALL=1: notebooks that passed and reach nothing new, too)

.PHONY: lock
lock: ## take the newest versions of everything into constraints.txt (then: make test)
	@rm -rf build/lock && $(call find_python) && "$$python" -m venv build/lock
	build/lock/bin/python -m pip install --upgrade -e ".[lab,dev,peers]"
	build/lock/bin/python .ci/lock.py constraints.txt
	@rm -rf build/lock

.PHONY: hooks
hooks: $(DEV) ## run the quick checks before every commit
	@$(PYTHON) -m pre_commit install

.PHONY: clean
clean: ## remove the environment and everything built (not the data, not your progress)
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

# ----------------------------------------------------------------------- one check each
.PHONY: data
data: $(DEV)
	@.ci/timed $(PYTHON) -m xailab data get

.PHONY: check-ruff check-format check-types check-imports check-spelling check-drift
check-ruff: $(DEV)
	@.ci/timed $(PYTHON) -m ruff check
check-format: $(DEV)
	@.ci/timed $(PYTHON) -m ruff format --check
check-types: $(DEV)
	@.ci/timed $(PYTHON) -m mypy
check-imports: $(DEV)
	@.ci/timed $(ENV)/bin/lint-imports --no-logo
check-spelling: $(DEV)
	@.ci/timed $(PYTHON) -m codespell_lib
check-drift: $(DEV)
	@.ci/timed $(PYTHON) -m xailab build --check

.PHONY: check-tests check-browser check-notebooks
check-tests: $(DEV)
	@.ci/timed $(PYTHON) -m pytest -q -n 2 --ignore tests/browser
check-browser: $(DEV) # alone: a browser that waits for a busy core tells nothing about the lessons
	@.ci/timed $(PYTHON) -m pytest -q tests/browser
# A notebook that passed, and reaches nothing that has changed since, is left out.
check-notebooks: $(DEV) # loadfile: the cells of a notebook belong to one process, in order
	@.ci/timed $(PYTHON) -m pytest -q -n 2 --dist loadfile -p tests.lessons.kernels \
	  --nbval-lax --nbval-current-env notebooks solutions

# Not in CI: it takes minutes, and what survives needs a person to look at it.
.PHONY: mutants
mutants: $(DEV)
	@$(PYTHON) -m benchmarks.mutants $(MODULE) --n $(or $(N),30) --seed $(or $(SEED),0)

# ---------------------------------------------------------------------------------- set-up
.PHONY: FORCE
FORCE:

$(LAB): pyproject.toml constraints.txt
	@$(environment)
	@$(call install,.[lab])
	@touch $@

$(DEV): pyproject.toml constraints.txt
	@$(environment)
	@$(call install,.[lab$(,)dev$(,)peers])
	@touch $(LAB) $@

, := ,

# Sets $python to the first Python that is new enough.
define find_python
for python in python3 python3.14 python3.13 python3.12 python3.11 python ""; do \
  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
done; \
if [ -z "$$python" ]; then \
  echo "xailab needs Python 3.11 or newer, and there is none on PATH: install one, then: make lab" >&2; \
  exit 1; \
fi
endef

# A new .venv, or what an interrupted run left of one: pip writes a package's INSTALLER file near
# the end, so a package without one is not whole, and pip must not take it for installed.
define environment
if [ "$(ENV)" != .venv ]; then echo "Using the conda environment $(ENV)"; exit 0; fi; \
if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
  $(find_python); \
  echo "Making .venv with $$("$$python" --version)"; \
  "$$python" -m venv --clear .venv || { \
    echo "Python could not make .venv (above is why). On Debian and Ubuntu: apt install python3-venv" >&2; \
    exit 1; }; \
fi; \
for package in .venv/lib/python*/site-packages/*.dist-info; do \
  if [ -d "$$package" ] && [ ! -e "$$package/INSTALLER" ]; then rm -rf "$$package"; fi; \
done
endef

# The tested versions; where they do not fit this Python or machine, the newest that do.
define install
if [ "$(TORCH)" = cpu ]; then \
  $(PIP) install --quiet uv && \
  $(PYTHON) -m uv pip install --python $(PYTHON) --torch-backend cpu -c constraints.txt torch torchvision || { \
    echo "PyTorch's CPU build could not be had (above is why). The ordinary one: make lab" >&2; exit 1; }; \
fi; \
echo "Installing what the lessons need: several minutes the first time, PyTorch alone is large"; \
if $(PIP) install -c constraints.txt -e "$(1)"; then exit 0; fi; \
echo "The tested versions (constraints.txt) could not be installed, above is why." >&2; \
echo "Trying the newest ones that fit this Python instead." >&2; \
$(PIP) install -e "$(1)" || { \
  echo "Nothing is broken, but the set-up is not complete. Check the network and the free disk" >&2; \
  echo "(10 GB), then run the same command again: it goes on where this one stopped." >&2; \
  exit 1; }
endef
