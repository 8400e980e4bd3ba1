# The commands that the README and CI use.
# Quiet and the same everywhere: GStreamer may not colour its log, cargo may not ask.
SHELL := /bin/bash
CARGO ?= cargo
DEMO_DIR ?= demo-out
GOLDEN_VENV ?= .venv

.PHONY: help setup build demo test lint fmt unit soak bench deny goldens clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:           ## install the system packages that are missing
	@scripts/setup.sh

build: setup     ## build the release binary, target/release/headhunt
	$(CARGO) build --release --locked

demo: build      ## the main job on synthetic clips and random weights; no download
	target/release/headhunt demo --out $(DEMO_DIR)

test: setup lint unit ## everything that CI checks

lint:            ## format and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

unit:            ## unit, golden, property and gRPC tests
	$(CARGO) test --locked

soak: setup      ## many cameras with faults against a server, ten minutes; SOAK_SECONDS, SOAK_CAMERAS
	$(CARGO) test --release --locked --test soak -- --ignored --nocapture

bench: setup     ## criterion benchmarks, some minutes; see BENCHMARKS.md
	$(CARGO) bench --locked

deny: setup      ## licences, bans and sources of the dependency tree
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

goldens:         ## make the reference tensors again (PyTorch, transformers, scikit-learn from PyPI)
	python3 -m venv $(GOLDEN_VENV)
	$(GOLDEN_VENV)/bin/pip install -q -r tests/golden/requirements.txt
	$(GOLDEN_VENV)/bin/python tests/golden/make.py --check
