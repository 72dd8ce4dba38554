# Three commands, each of which sets up what it needs: make demo, make serve, make test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo serve test chaos check format clean

demo: .venv/.installed  ## Requests that come and go while the lift runs, and a contact sheet
	$(BIN)/python examples/demo.py

serve: .venv/.installed  ## The bundled model on http://127.0.0.1:8000
	$(BIN)/chairlift serve

test: check  ## Formatting, lint, types and tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

chaos: .venv/.installed  ## A real server, killed and stopped while it is used: nothing may be lost
	$(BIN)/python -m benchmarks.chaos

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache demo-output
