# Every target makes what it needs: a virtual environment with the extras it uses, one for each version of Python, in .venvs.
# The one that is made first is in .venv too, for editors and for people.
PYTHON ?= python3
VENV := .venvs/$(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep=".")')
BIN := $(VENV)/bin

.DELETE_ON_ERROR:
.PHONY: help demo examples test test-quick test-floors test-others check format mutants stress bench figures docs docs-serve clean

help:
	@echo "make demo     run the main job on real measurements (examples/quickstart.py)"
	@echo "make examples run what paths are for (examples/gallery), in full; figures in examples/figures"
	@echo "make test     run the tests"
	@echo "make test-quick   a few tests of everything, in a smaller environment; test-floors: on the lowest versions;"
	@echo "                  test-others: both, on the other interpreters of this machine"
	@echo "make check    lint and check types, of the package and of the code that the pages and examples show"
	@echo "make format   format the code"
	@echo "make mutants  plant faults one at a time; each must be caught by its test"
	@echo "make stress   a thousand calls of everything in batches; each must come back (an hour)"
	@echo "make bench    time the library beside its limits and other libraries (a quarter of an hour, nothing else running)"
	@echo "make figures  make the figures and the error table of the documentation anew"
	@echo "make docs     build the documentation into docs/site, to be opened from there (index.html)"
	@echo "make docs-serve   serve it, and build it anew as files change"
	@echo "make clean    remove the environments and everything made"

$(VENV)/made:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	[ -e .venv ] || ln -sfn $(VENV) .venv
	touch $@

# The package is installed in place; an extra is installed again when pyproject.toml changes.
$(VENV)/extra-%: $(VENV)/made pyproject.toml
	@echo "Installing what [$*] needs: a minute or two the first time, in which pip says nothing."
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable ".[$*]"
	touch $@

demo: $(VENV)/extra-examples
	$(BIN)/python examples/quickstart.py

examples: $(VENV)/extra-examples
	for script in examples/gallery/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

test: $(VENV)/extra-test
	$(BIN)/python -m pytest

test-quick: $(VENV)/extra-short
	$(BIN)/python -m pytest -q @tests/quick.txt

# The lowest versions that pyproject.toml states, in an environment of their own.
.cache/floors.txt: pyproject.toml .ci/floors.py
	mkdir -p .cache
	$(PYTHON) .ci/floors.py > $@

test-floors: .cache/floors.txt
	$(MAKE) VENV=.venvs/floors PIP_OPTIONS="--constraint .cache/floors.txt" test-quick

test-others:
	$(PYTHON) .ci/others.py

check: $(VENV)/extra-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python tests/checker.py

format: $(VENV)/extra-test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

mutants: $(VENV)/extra-test
	$(BIN)/python tests/mutants.py

stress: $(VENV)/extra-test
	$(BIN)/python tests/stress.py

bench: $(VENV)/extra-bench
	$(BIN)/python tests/benchmarks

figures: $(VENV)/extra-examples
	$(BIN)/python docs/figures.py

docs: $(VENV)/extra-docs
	$(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

docs-serve: $(VENV)/extra-docs
	$(BIN)/mkdocs serve --config-file docs/mkdocs.yml

clean:
	rm -rf .venv .venvs .cache .pytest_cache .ruff_cache examples/figures docs/site
