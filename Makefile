# make demo: set up, and run the whole way on the packaged data.
# make test: set up, and run format check, lint, types and tests.
# Both make a virtual environment in .venv and need only Python >= 3.10 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format clean

demo: $(VENV)/user.stamp
	$(BIN)/sfda-edge demo --out demo

# Two processes of one thread each: most tests are too small to share a computation.
test: $(VENV)/dev.stamp check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/user.stamp: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[adapt,export,runtime-cpu,opencv-headless]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/user.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[adapt,export,runtime-cpu,opencv-headless,imagenet,synth,dev]'
	# It asks for TensorRT itself, which type checkers need not.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --no-deps tensorrt-stubs
	touch $@

clean:
	rm -rf $(VENV)
