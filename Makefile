# Every target makes what it needs: a virtual environment in .venv with the extras it uses. PYTHON is 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo examples test check format mutants bench figures docs clean

help:
	@echo "make demo     run the main job on real measurements (examples/quickstart.py)"
	@echo "make examples run what paths are for (examples/gallery), in full; figures in examples/figures"
	@echo "make test     run the tests"
	@echo "make check    lint and check types"
	@echo "make format   format the code"
	@echo "make mutants  plant faults one at a time; each must be caught by its test"
	@echo "make bench    time the library beside its limits and other libraries (six minutes, nothing else running)"
	@echo "make figures  make the figures and the error table of the documentation anew"
	@echo "make docs     build the documentation into docs/site"
	@echo "make clean    remove the environment and everything made"

.venv/made:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

# The package is installed in place; an extra is installed again when pyproject.toml changes.
.venv/extra-%: .venv/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

demo: .venv/extra-examples
	$(BIN)/python examples/quickstart.py

examples: .venv/extra-examples
	for script in examples/gallery/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

test: .venv/extra-test
	$(BIN)/python -m pytest

check: .venv/extra-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: .venv/extra-test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

mutants: .venv/extra-test
	$(BIN)/python tests/mutants.py

bench: .venv/extra-bench
	$(BIN)/python tests/benchmarks

figures: .venv/extra-examples
	$(BIN)/python docs/figures.py

docs: .venv/extra-docs
	$(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache examples/figures docs/site
