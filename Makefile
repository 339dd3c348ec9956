# `make run` and `make test` set up .venv on first use. On a machine with a GPU, first install the torch build
# for your CUDA version into .venv (see docs/getting-started.md); pip then leaves it alone.
PYTHON ?= python3
BIN := .venv/bin
# Processes that tests run in.
WORKERS ?= 2

.PHONY: run test test-fast test-lmms coverage lint format docs clean

run: .venv/.ready
	$(BIN)/python run.py $(ARGS)

test: .venv/.ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: .venv/.ready  # without whole runs, browsers and training
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-lmms: .venv-lmms/.ready  # what runs inside lmms-eval, whose dependencies and ours exclude each other
	.venv-lmms/bin/python -m pytest --noconftest tests/integrations/test_lmms_eval.py $(ARGS)

coverage: .venv/.ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered $(ARGS)

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.ready
	$(BIN)/mkdocs build --strict

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e ".[dev]"
	touch $@

# Of constraints.txt only these: lmms-eval pins another wandb. A torchvision that does not fit torch breaks
# transformers, which does not need it.
.venv-lmms/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-lmms
	.venv-lmms/bin/pip install $$(grep -E '^(torch|transformers)==' constraints.txt) -e ".[lmms]" pytest
	.venv-lmms/bin/python -c "import torchvision" || .venv-lmms/bin/pip uninstall -y torchvision
	touch $@

clean:
	rm -rf .venv .venv-lmms
