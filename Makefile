# The commands that the README and CI use.
# Quiet and the same everywhere: GStreamer may not colour its log, cargo may not ask.
SHELL := /bin/bash
CARGO ?= cargo
DEMO_DIR ?= demo-out
GOLDEN_VENV ?= .venv

# Cargo features of the release build, e.g. FEATURES=cuda.
FEATURES ?=
# Binary that test-ops runs instead of a release build, e.g. OPS_BIN=target/debug/headhunt.
OPS_BIN ?=
# The settings file of run.
CONFIG ?=
# Of gpu-bench: a Python with PyTorch and transformers, and the shapes.
PYTHON ?= python3
PRESETS ?= 1b 2b 8b
# Parts of test-ops; all by default: protos packages metrics clients fleet.
PARTS ?=

# Seconds that each fuzz target runs, which ones (all by default), and the toolchain: coverage needs no nightly.
FUZZ_SECONDS ?= 60
FUZZ ?= detect_messages container checkpoint_files tables rtsp
# none, or address on a nightly toolchain.
FUZZ_SANITIZER ?= none

.PHONY: help setup build run image demo test lint fmt unit test-ops fuzz soak bench gpu-bench deny goldens clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:           ## install the system packages that are missing
	@scripts/setup.sh

build: setup     ## build the release binary, target/release/headhunt
	$(CARGO) build --release --locked $(if $(FEATURES),--features $(FEATURES))

demo: build      ## the main job on synthetic clips and random weights; no download
	target/release/headhunt demo --out $(DEMO_DIR)

test: setup lint unit ## everything that CI checks

lint:            ## format, clippy and the library's documentation, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --lib

unit:            ## unit, golden, property and gRPC tests
	$(CARGO) test --locked

run: build       ## serve with CONFIG, a TOML file: make run CONFIG=site.toml
	target/release/headhunt serve $(if $(CONFIG),--config $(CONFIG))

image:           ## the container image for a CPU, or with FEATURES=cuda for a GPU; needs docker
	docker build -f docker/Dockerfile$(if $(findstring cuda,$(FEATURES)),.cuda) -t headhunt:$(if $(findstring cuda,$(FEATURES)),cuda,cpu) .

fmt:             ## format the source
	$(CARGO) fmt

clean:           ## remove what was built and what the demo made
	$(CARGO) clean
	rm -rf $(DEMO_DIR)

test-ops: setup  ## protos, packaging, Prometheus, clients and a fleet behind Envoy; installs its tools below target/
	@tests/ops/setup.sh
	$(if $(OPS_BIN),,$(CARGO) build --release --locked --bins --example watch)
	@HEADHUNT_BIN=$(or $(OPS_BIN),target/release/headhunt) target/ops/venv/bin/python tests/ops/run.py $(PARTS)

fuzz: setup      ## hostile inputs to every door, FUZZ_SECONDS each; FUZZ names targets; findings in fuzz/artifacts
	command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_SANITIZER) $(FUZZ)

soak: setup      ## many cameras with faults against a server, ten minutes; SOAK_SECONDS, SOAK_CAMERAS
	$(CARGO) test --release --locked --test soak -- --ignored --nocapture

bench: setup     ## criterion benchmarks, some minutes; see BENCHMARKS.md
	$(CARGO) bench --locked

gpu-bench:       ## ours and transformers on this machine's GPU; needs FEATURES=cuda's binary and PyTorch; PRESETS, PYTHON
	$(PYTHON) tools/bench/gpu.py --headhunt target/release/headhunt --presets $(PRESETS)

deny: setup      ## licences, bans and sources of the dependency tree
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

goldens:         ## make the reference tensors again (PyTorch, transformers, scikit-learn from PyPI)
	python3 -m venv $(GOLDEN_VENV)
	$(GOLDEN_VENV)/bin/pip install -q -r tests/golden/requirements.txt
	$(GOLDEN_VENV)/bin/python tests/golden/make.py --check
