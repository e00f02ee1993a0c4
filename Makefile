# `make` alone lists the targets. `demo` and `build` need Rust with a C compiler, and Git.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
IMAGE ?= tagrelay:$(VERSION)

# sshd is in /usr/sbin, which is not in every PATH.
export PATH := $(PATH):/usr/sbin:/sbin

# Most tests wait for other processes most of the time.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target does; do \
	  printf '  make %-8s %s\n' "$$target" "$$does"; done

.PHONY: demo
demo: ## Run a push, a promotion and a rollback on this machine
	cargo run --locked -- demo

.PHONY: run
run: ## Run registry, example platform and Tagrelay on this machine, to push images to
	cargo run --locked -- demo --no-tour --port 8080 --registry-port 5000

.PHONY: build
build: ## Build the optimised program: target/release/tagrelay
	cargo build --release --locked

.PHONY: man
man: ## Write the manual pages: target/man/tagrelay*.1
	cargo run --locked -- manual target/man

.PHONY: setup
setup: ## Install test dependencies if possible (make test does it too)
	@scripts/setup-tests.sh >/dev/null

.PHONY: test
test: ## Run all tests; those with a missing dependency say so
	@without="$$(scripts/setup-tests.sh)"; \
	TAGRELAY_TEST_WITHOUT="$$without" cargo test --workspace --locked

.PHONY: lint
lint: ## Check format, warnings and documentation
	@{ cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 || rustup component add rustfmt clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo check --workspace --no-default-features --locked
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

.PHONY: bench
bench: ## Measure, next to a bare git push
	cargo bench --locked

.PHONY: image
image: ## Build the image IMAGE=name:tag, with or without Docker; PUSH=yes
	scripts/release/make-image.sh "$(IMAGE)"

.PHONY: dist
dist: ## Build what a release has, into target/dist
	scripts/release/build-static.sh $(or $(ARCHS),amd64 arm64)
	scripts/release/package.sh "" $(ARCHS)
