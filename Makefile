# Two commands matter: `make demo` and `make test`. Both make .venv when it is missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test check bench soak lock man clean help

help:
	@echo "make demo    the whole loop on this machine: sign, notice, alert, catch a forked log"
	@echo "make test    lint, types, import contract, unit and end-to-end tests"
	@echo "make check   the same without the tests: quick"
	@echo "make bench   speed, as ratios within one run; writes bench.json"
	@echo "make soak    the long tests: system-call faults, a million entries, long fuzzing"
	@echo "make man     manual pages from the programs' help, into docs/man"
	@echo "make lock    choose dependency versions again (needs uv)"

# A lock file that changed means a stale environment: the stamp is older than the file.
$(VENV)/.run: requirements/run.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip --disable-pip-version-check check
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip --disable-pip-version-check check
	touch $@

demo: $(VENV)/.run
	$(BIN)/signwatch demo

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.docs.plain_english

test: check
	$(BIN)/python -m pytest

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak -n 0 -vv -s -rs

man: $(VENV)/.dev
	$(BIN)/python -m tests.docs.man_pages docs/man

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		pyproject.toml --extra sign -o requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		pyproject.toml --all-extras -c requirements/run.txt -o requirements/extras.txt
	printf 'hatchling>=1.27\neditables\n' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate - -c requirements/run.txt -o requirements/build.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		pyproject.toml --all-extras --group dev -c requirements/extras.txt -c requirements/build.txt -o requirements/dev.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache bench.json
