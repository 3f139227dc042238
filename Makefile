# SPDX-License-Identifier: Apache-2.0
# Creates and reuses a virtual environment; a target is quick when nothing changed.
#
#   PYTHON      interpreter of the environment             (make setup PYTHON=python3.12)
#   VENV        where the environment lies                 (default .venv)
#   TORCH       requirement that is installed first        (make setup TORCH=torch==2.14.0)
#   TORCH_ARGS  pip options for that step only, to choose a CUDA, ROCm or CPU build, such as
#               --index-url with the address that PyTorch's install page names for it
#   PIP_ARGS    pip options for every install
#   BENCH_ARGS  further options for the benchmarks         (make bench BENCH_ARGS="-k encode")
#   ARGS        further options for pytest                 (make test ARGS="-k bitpacking -x")
#   DATA        manifest of the evaluation                 (make results DATA=emotional/manifest.csv)
#   WORKERS     how tests are spread over processes        (make test WORKERS= for one process)
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_ARGS ?=
PIP_ARGS ?=
ARGS ?=
# Every test keeps to one thread, so there is a worker a core.
WORKERS ?= -n auto --maxprocesses 4 --dist worksteal
BENCH_ARGS ?=

BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py CMakeLists.txt $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)
CXX_SOURCES := $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh tests/*/*.h tests/*/*.cpp)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup test test-fast sanitize lint types format demo info bench results clean
.DEFAULT_GOAL := help

help:
	@echo "make setup      environment with everything for development"
	@echo "make test       all tests          make test-fast  without the slow ones"
	@echo "make sanitize   kernels under sanitizers of addresses, undefined behaviour and threads"
	@echo "make lint       ruff, clang-format make types      mypy"
	@echo "make format     rewrite sources    make demo       hear the codec on its samples"
	@echo "make bench      benchmarks, and their figures into docs/performance.md"
	@echo "make results    the figures of docs/results.md (DATA=a manifest of RAVDESS and nEMO)"
	@echo "make info       what is on and why the rest is off"
	@echo "make clean      remove what was built, the environment included"

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(PIP_ARGS) $(TORCH_ARGS) "$(TORCH)"
	@touch $@

# torch comes first and alone: a plain install of the package could fetch another build of it.
# Of resemblyzer only the weights are used; what it asks for does not build everywhere.
$(VENV)/.dev: $(SOURCES) | $(VENV)/.torch
	$(PIP) install $(PIP_ARGS) -e ".[dev]"
	$(PIP) install $(PIP_ARGS) --no-deps resemblyzer
	@touch $(VENV)/.demo $(VENV)/.bench $@
	@$(BIN)/python -m affectcodec.info

$(VENV)/.demo: $(SOURCES) | $(VENV)/.torch
	$(PIP) install $(PIP_ARGS) -e ".[demo]"
	@touch $@

setup: $(VENV)/.dev

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" $(ARGS)

sanitize: $(VENV)/.dev
	$(BIN)/python tests/csrc/sanitize.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

$(VENV)/.bench: $(SOURCES) | $(VENV)/.torch
	$(PIP) install $(PIP_ARGS) -e ".[bench]"
	@touch $@

# Graphs of torch.compile are kept, so that only the first run pays for them. The allocator (glibc's)
# keeps what it has: otherwise each large temporary of the eager forms is mapped anew, page by page,
# which costs them up to half of their time.
bench: export TORCHINDUCTOR_CACHE_DIR = $(CURDIR)/.benchmarks/inductor
bench: export MALLOC_MMAP_THRESHOLD_ = 4000000000
bench: export MALLOC_TRIM_THRESHOLD_ = 8000000000
bench: $(VENV)/.bench
	$(BIN)/python -m pytest benchmarks/ -q \
		--benchmark-only --benchmark-columns=median,iqr,rounds,iterations \
		--results=.benchmarks/results.json $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.report .benchmarks/results.json

# What docs/results.md claims, in one run that goes on where it was cut.
RESULTS := original affectcodec:0.75@compact affectcodec:1.5@compact affectcodec:3@compact \
	affectcodec:1.5 affectcodec:6 opus:6 opus:9 codec2:2400 codec2:3200
RESULTS_ARGS ?= --jobs 2
results: $(VENV)/.dev
	@test -f "$(DATA)" || { echo "DATA: wanted a manifest, got '$(DATA)'; see docs/evaluation.md" >&2; exit 2; }
	$(BIN)/python -m affectcodec evaluate "$(DATA)" --split test --dataset ravdess --dataset nemo \
		$(addprefix --codec ,$(RESULTS)) \
		--compare affectcodec:1.5@compact=opus:6 --compare affectcodec:3@compact=opus:9 \
		--compare affectcodec:0.75@compact=codec2:3200 --compare affectcodec:6=opus:6 \
		--compare affectcodec:1.5@compact=affectcodec:1.5 \
		--measure reconstruction --measure egemaps --measure whisper \
		--out results/test $(RESULTS_ARGS)

demo: $(VENV)/.demo
	$(BIN)/python -m affectcodec.demo $(ARGS)

info: $(VENV)/.demo
	$(BIN)/python -m affectcodec.info

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f affectcodec/*.so affectcodec/*.pyd affectcodec/_build_info.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
