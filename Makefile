# make demo: set up, then adapt, score, export and stream the packaged data.
# make test: set up, then format check, lint, types and tests. CI runs it.
# Both make a virtual environment in .venv and need only Python >= 3.10 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Two processes of one thread each: most tests are too small to share a computation. In the order of
# the folders: by default files with few tests come last, and the slowest test is alone in its file.
# A test that crashes its process ends the run: started again, processes waited for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
  --max-worker-restart=0

.PHONY: demo test test-fast coverage lint typecheck docs format hooks clean
.PHONY: test-python310 test-arm test-camera test-viewers soak

demo: $(VENV)/user.stamp
	$(BIN)/sfda-edge demo --out demo

test: lint typecheck
	$(PYTEST)

# Tracing costs up to half as much time again, so make test does without. CI shows the figure of one
# package: make coverage TESTS=tests/runtime PACKAGE=runtime
TESTS := tests
PACKAGE :=
coverage: $(VENV)/dev.stamp
	$(PYTEST) $(TESTS) -m "not slow" --cov=$(PACKAGE) --cov-report=term:skip-covered

test-fast: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow"

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

typecheck: $(VENV)/dev.stamp
	$(BIN)/mypy

# What needs another machine, or hours. The scripts name the Debian packages that they need.
PYTHON310 ?= python3.10
test-python310:
	$(PYTHON310) -m venv .venv-310
	.venv-310/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt \
	  --editable '.[adapt,export,runtime-cpu,opencv-headless,video,serve,record]' \
	  pytest pytest-timeout pytest-xdist hypothesis
	.venv-310/bin/sfda-edge demo --out demo-310
	OMP_NUM_THREADS=1 .venv-310/bin/python -m pytest -n 2 --dist loadfile tests/runtime

test-arm: $(VENV)/dev.stamp
	PYTHON=$(BIN)/python tests/machines/arm.sh

test-camera: $(VENV)/dev.stamp
	tests/machines/camera.sh

# Rerun is too large for every run, so that it has an environment of its own.
test-viewers:
	$(PYTHON) -m venv .venv-viewers
	.venv-viewers/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[runtime-cpu,opencv-headless,video,record]' \
	  rerun-sdk foxglove-sdk pytest pytest-timeout hypothesis
	.venv-viewers/bin/python -m pytest tests/machines/test_viewers.py

soak: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.soak file --out soak-file.json
	$(BIN)/python -m benchmarks.soak rtsp --out soak-rtsp.json
	$(BIN)/python -m benchmarks.soak kill --out soak-kill.json

docs: $(VENV)/dev.stamp
	$(PYTEST) tests/test_docs.py

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: $(VENV)/dev.stamp
	$(PIP) pre-commit
	$(BIN)/pre-commit install

$(VENV)/user.stamp: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[adapt,export,runtime-cpu,opencv-headless,video,serve]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/user.stamp
	$(PIP) --editable '.[adapt,export,runtime-cpu,opencv-headless,imagenet,synth,serve,video,record,dev]'
	# It asks for TensorRT itself, which type checkers need not.
	$(PIP) --no-deps tensorrt-stubs
	touch $@

clean:
	rm -rf $(VENV) .venv-310 .venv-viewers demo-310
