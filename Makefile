# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`. Both create .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

demo: .venv/ready
	$(BIN)/hwsim compare docs/examples/mixtral-8x7b/config.json 4x-h100-ideal 4x-duplex 4x-duplex-pe-et --batch 64 --prompt 1024 --output 256 --seed 1 \
		--report out/mixtral.html --perfetto out/mixtral.perfetto.json

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n auto tests --ignore tests/bench

bench: .venv/ready
	$(BIN)/pytest tests/bench --benchmark-columns=min,median,ops

clean:
	rm -rf .venv out dist build
