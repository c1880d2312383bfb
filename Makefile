# Everything starts from a bare Python 3.11 or newer: `make book`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-lock
RUNTIMES := $(VENV)/.runtimes-from-lock
SITE := book/_build/html
PORT ?= 8000
# Keeps the lines of parallel targets together; macOS has a make too old to know it.
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync)
# Threads that wait let other programs compute: on a busy machine that saves most of the time, and it changes no number.
export OMP_WAIT_POLICY ?= PASSIVE
# What `make quick` runs: behaviour of every room, none of the long trainings, subprocesses and largest models.
QUICK := project/test_layers.py project/test_errors.py cli/test_first_words.py data/test_reader.py data/test_registry.py \
  evaluate/test_scores.py lab/figures latency/test_costs.py latency/test_timing.py model/test_attend.py \
  model/test_checkpoints.py model/test_convolve.py model/test_layers.py model/test_preprocess.py model/test_tokenizer.py \
  reinforce/test_augment.py reinforce/test_format.py reinforce/test_seeds.py train/test_ema.py train/test_step.py \
  test_losses.py test_precision.py test_results.py

.DEFAULT_GOAL := help
.PHONY: help env book lab test chapters pages quick units coverage portable lint size lock serve clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## Make the environment in .venv, exactly as requirements.lock says

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) must exist and be Python 3.11 or newer; name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: this Python cannot make environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable ./mcliplab
	@touch $@

$(RUNTIMES): requirements-runtimes.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-runtimes.lock
	@touch $@

book: env ## Execute every chapter and build the book in book/_build/html; a failing one is listed, and costs no other
	rm -rf book/_build
	$(BIN)/jupyter-book build . --path-output book --all -n -W --keep-going
	$(BIN)/python book/_ext/fingerprint.py $(SITE)
	@echo "Open $(SITE)/index.html, or run: make serve"

lab: env ## Open the chapters as live notebooks in JupyterLab
	$(BIN)/jupyter lab book

test: lint $(RUNTIMES) ## Run everything that must hold: lint, types, then all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/book --ignore tests/notebooks --durations 20
	@$(MAKE) --no-print-directory --keep-going chapters pages

chapters: env # each one alone, by papermill
	$(BIN)/python -m pytest --numprocesses 2 tests/notebooks

pages: env # the built book, in a browser too; chapters that have run are not run again
	$(BIN)/python -m pytest --numprocesses 2 tests/book

quick: env ## Check in about two minutes what an edit can break: lint, types, the unit tests that are fast
	@$(MAKE) --no-print-directory --jobs 2 $(SYNC) lint units

units: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(addprefix tests/, $(QUICK))

coverage: env ## Run the unit tests and show which lines of the packages none of them reaches
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/book --ignore tests/notebooks \
	  --cov mcliplib --cov mcliplab --cov-report term-missing:skip-covered

portable: env ## Run the changed chapters with other seeds, threads and instruction sets, and record what holds (an hour or two)
	$(BIN)/python tests/notebooks/portable.py --record

lint: env ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --quiet --isolated --select F821 book/*.ipynb
	$(BIN)/mypy
	$(BIN)/mypy book/_ext/*.py book/_tools/*.py
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

size: env ## Print how large the package and its rooms are
	$(BIN)/python -m tests.project.size

lock: env ## Pin what is installed in .venv (after installing a changed pyproject.toml into it)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[heic,search,export,ray,teachers,build,book,test,dev]' --editable ./mcliplab
	@grep '^#' requirements.lock > requirements.lock.new
	@$(BIN)/python -m pip freeze --all --exclude-editable | grep -viE '^(pip|pycocoevalcap|pycocotools)==' | grep -vxFf requirements-runtimes.lock | sed -E 's/\+[a-z0-9.]+$$//' \
	  | LC_ALL=C sort -f >> requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@touch $(STAMP)

serve: ## Show the built book on http://localhost:8000
	$(BIN)/python -m http.server --directory $(SITE) --bind localhost $(PORT)

clean: ## Remove what was built (the environment stays)
	rm -rf book/_build tests/_failed .pytest_cache .mypy_cache .ruff_cache .hypothesis
