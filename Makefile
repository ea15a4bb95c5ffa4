# Thin on purpose: what a target does is in make/, crates/, tests/ and bench/.
.DEFAULT_GOAL := help

# For a Rust that rustup has just installed, before the next login.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO ?= cargo
CLANG_FORMAT ?= clang-format
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
KERNEL_SIDE := $(wildcard bpf/*.c bpf/*.h)

##@ Use
.PHONY: run
run: ## Build weir and show this host's live container traffic. ARGS: flags of `weir observe`
	@make/packages.sh build
	$(CARGO) build --locked --release -p weir
	$(SUDO) target/release/weir observe $(ARGS)

.PHONY: demo
demo: ## The same, on a few throwaway containers with traffic between them. ARGS as above
	@make/packages.sh build demo
	$(CARGO) build --locked --release -p weir
	$(SUDO) make/demo.sh target/release/weir $(ARGS)

##@ Check
.PHONY: test
test: ## Run every test; those that need root run through sudo. ARGS: arguments of `cargo test`
	@make/packages.sh build test
	@make/test.sh $(ARGS)

.PHONY: test-kernels
test-kernels: ## Boot older kernels in QEMU and run a part of the tests there
	@make/packages.sh build kernels
	@tests/kernels/run.sh

.PHONY: fuzz
fuzz: ## Feed parsers with bytes that nobody sends, briefly. ARGS: [-s SECONDS] [TARGET...]
	@make/packages.sh build fuzz
	@make/fuzz.sh $(ARGS)

.PHONY: bench
bench: ## Measure what weir costs, side by side with nothing and with its likes. ARGS: try ARGS=--help
	@make/packages.sh build bench
	$(CARGO) build --locked --release -p weir -p weir-bench
	$(SUDO) target/release/weir-bench $(ARGS)

.PHONY: lint
lint: ## Formats, warnings, and what may be committed
	@make/packages.sh build lint
	$(CARGO) fmt --all --check
	$(CLANG_FORMAT) --dry-run -Werror $(KERNEL_SIDE)
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@make/tree.sh

##@ Work
.PHONY: build
build: ## Build everything, for debugging
	@make/packages.sh build
	$(CARGO) build --locked --workspace --all-targets

.PHONY: bpf
bpf: ## Leave the kernel side's object at target/bpf/veth.bpf.o
	@make/packages.sh build
	@make/bpf.sh

.PHONY: fmt
fmt: ## Format Rust and C
	@make/packages.sh build lint
	$(CARGO) fmt --all
	$(CLANG_FORMAT) -i $(KERNEL_SIDE)

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
