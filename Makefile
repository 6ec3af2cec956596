# Every command of the project. `make help` lists them; what is longer than three lines is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help build demo test test-storages test-model test-fsx test-training bench bench-writes bench-operate bench-namespace bench-training bench-eviction package bench-peers lint fmt

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

build: ## Build the release binary, target/release/forebay
	@scripts/setup build
	cargo build --release --locked --package forebay

package: build ## Make a Debian package, target/forebay.deb
	deploy/package target/release/forebay target/forebay.deb

demo: build ## Mount a generated data set from a slow S3 server and read it twice, beside the baselines
	@scripts/setup demo
	target/release/forebay demo

test: ## The whole gate: format, lints, unit, end-to-end and training tests
	@scripts/test

test-storages: ## Every storage driver against a real server; ends with a line for each
	@scripts/test-storages

test-model: ## Random steps on a mount beside a model of a file system, for about an hour
	@scripts/test-model

test-fsx: ## Ten million random operations on files, beside what they must have become, for hours
	@scripts/test-fsx

test-training: ## Training jobs (PyTorch, TensorFlow, LMDB, DLIO) from a mount, small benchmarks, the guides
	@scripts/test-training pytorch tensorflow lmdb checkpoints dlio

bench: ## Measure against the local disk and a bare client; table, and JSON in bench/results/
	@scripts/bench

bench-writes: ## The same of files that are written; JSON in bench/results/writes.json
	@scripts/bench --writes

bench-operate: ## Measure loads, and what it costs to look; JSON in bench/results/operate.json
	@scripts/bench --operate

bench-namespace: ## What a tree of ten million files costs (20 minutes, 10 GB); JSON in bench/results/namespace.json
	@scripts/bench --namespace

bench-training: ## A training job, local, remote and cached: JOB=tensorflow|pytorch|lmdb|checkpoints|dlio
	@bench/training/run $(JOB) $(OPTIONS)

bench-eviction: ## Eviction beside other policies and the optimum; JSON in bench/results/eviction.json
	@scripts/bench --eviction

bench-peers: ## The reads of `make bench` on other file systems over S3; JSON and SVG in bench/results/
	@scripts/bench --peers

lint: ## Format check and lints only
	@scripts/test lint

fmt: ## Format Rust and Python sources
	@scripts/setup lint
	cargo fmt --all
	@scripts/tool ruff format tests bench
