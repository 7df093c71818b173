# The only entry point. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all

GO ?= go
BIN := bin/huatuo
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Packages tested at once: two cores are the smallest machine this must be pleasant on.
J ?= 2
# How long each fuzz target runs.
T ?= 30s

# clang-format and the linters look at these.
GO_DIRS := cmd internal test tools
BPF_SRC := $(wildcard bpf/include/*.h internal/probes/*/*.h internal/probes/*/*.bpf.c internal/profile/engine/bpf/*.h internal/profile/engine/bpf/*.bpf.c internal/profile/frames/*.bpf.c)

# What the race detector runs: nearly every package is called from several goroutines.
RACE := ./internal/... ./cmd/...

# Kernel tests provoke the kernel and need root; the others need neither.
KTEST := ^TestKernel
BROWSER := ^TestBrowser$$

# A test that fails is tried once more, on its own, and the log says so: tests that
# wait for a kernel on a machine with other work are late now and then. What
# fails twice has failed; a panic, a data race or more than a dozen failures
# are not tried again.
TRY := $(GO) tool gotestsum --rerun-fails=1 --rerun-fails-max-failures=12 --rerun-fails-run-root-test

##@ Every day
.PHONY: all build run
all: gen build ## generate and build

build: ## build the agent: needs Go, nothing else
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/huatuo

run: build ## build and run the agent; ARGS='--listen :19704' passes flags
	exec $(BIN) $(ARGS)

.PHONY: new
new: ## scaffold a probe: make new P=name
	@test -n '$(P)' || { echo 'usage: make new P=name'; exit 2; }
	$(GO) run ./tools/new $(P)

##@ Generated files
.PHONY: gen gen-bpf docs ledger cost ui examples
gen: gen-bpf docs ledger ## BPF objects and bindings, reference, ledgers: needs clang-19

gen-bpf:
	$(GO) generate ./internal/...

docs: ## docs/reference from the code, and the rules for names of HUATUO 2.x
	$(GO) run ./cmd/huatuo gen-docs docs/reference
	$(GO) run ./tools/bamai

ledger:
	$(GO) run ./tools/ledger

examples: build ## captured events for docs/reference/events.md, ten minutes; P='runqueue tcp' chooses (root)
	$(GO) run ./tools/examples -agent $(BIN) $(P)

cost: ## docs/ledger/cost.txt: the verifier's count per program (root)
	$(GO) run ./tools/cost

ui: ui/node_modules ui/apitypes/node_modules ## build the console into internal/console/dist: needs node
	cd ui/apitypes && npm run --silent gen
	cd ui && npm run --silent build

ui/node_modules: ui/package-lock.json
	cd ui && npm ci --silent --no-fund --no-audit
	touch $@

ui/apitypes/node_modules: ui/apitypes/package-lock.json
	cd ui/apitypes && npm ci --silent --no-fund --no-audit
	touch $@

##@ Tests
.PHONY: test deps check fmt unit race ktest e2e profiles languages stress load soak containers k8stest browser fuzz bench
test: SHORT := -short
test: deps check unit race ktest e2e profiles stress containers browser vmtest ## everything that CI runs (root)

deps: ## install what tests and generation need from the distribution (root)
	.ci/deps

check: ui/node_modules ## formatting, vet, lint, layers, freshness of generated files
	@bad=$$(gofmt -l $(GO_DIRS)); test -z "$$bad" || { echo "gofmt: $$bad"; exit 1; }
	clang-format-19 --dry-run -Werror $(BPF_SRC)
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test ./internal ./internal/probes
	$(GO) run ./tools/fresh make gen
	$(GO) run ./tools/fresh make ui

fmt: ## format Go and BPF C
	gofmt -w $(GO_DIRS)
	clang-format-19 -i $(BPF_SRC)

unit: ui/node_modules ## tests that need no privileges
	$(TRY) --format standard-quiet --packages './cmd/... ./internal/... ./tools/... ./test/faults/... ./test/doubles/... ./test/bench/... ./test/vm ./test/stress/soak' -- -p $(J) -skip '$(KTEST)'
	cd ui && npm test --silent

race: ## the same with the race detector
	CGO_ENABLED=1 $(GO) test -p $(J) -race -skip '$(KTEST)' $(RACE)

ktest: ## kernel tests on this kernel, one package at a time (root)
	@test $$(id -u) = 0 || { echo 'make ktest loads BPF and needs root'; exit 1; }
	$(TRY) --format standard-verbose --packages './internal/... ./tools/... ./test/faults/...' -- -p 1 -count=1 -timeout 20m -run '$(KTEST)'

e2e: ## black box: the built agent, real faults, what it says about them (root)
	$(TRY) --format standard-verbose --packages './test/e2e/... ./test/oracle/...' -- -p 1 -count=1 -timeout 20m -skip '$(BROWSER)'

profiles: ## black box: waits, leaks and floods of processes in several languages, and their profiles (root)
	$(TRY) --format standard-verbose --packages './test/profiles/...' -- -p 1 -count=1 -timeout 20m $(SHORT)

languages: ## shares of known programs in each language into docs/reference/languages.md; gets a .NET and a Ruby once (root)
	env $$(internal/profile/engine/runtimes.sh) HUATUO_LANGUAGES_PAGE=$(CURDIR)/docs/reference/languages.md \
	  $(GO) test ./internal/profile/engine -run '^TestKernelLanguages$$' -count=1 -v -timeout 10m

stress: ## kill, full disk, broken files, floods, hung clients, fork storms, lost privileges; SHORT=-short for three minutes of it (root)
	$(TRY) --format standard-verbose --packages './test/stress/...' -- -p 1 -count=1 -timeout 40m $(SHORT)

load: ## storms of drops and retransmits, and what the host gets done meanwhile, into docs/reference/load.md (root)
	HUATUO_LOAD_PAGE=$(CURDIR)/docs/reference/load.md $(GO) test ./test/stress -run '^TestStorm$$' -count=1 -v -timeout 20m

soak: build ## the agent under mild load for D=30m; does it grow? into docs/reference/soak.md (root)
	$(GO) run ./test/stress/soak -agent $(BIN) -d $(or $(D),30m) -o docs/reference/soak.md

containers: ## Docker, containerd and podman run containers: what the agent calls them (root)
	$(TRY) --format standard-verbose --packages './test/containers/...' -- -p 1 -count=1 -timeout 10m

k8stest: ## the same with a kubelet and static pods; builds it once, in 7 minutes of CPU, into HUATUO_CACHE (root)
	HUATUO_KUBELET=$$(test/containers/kubelet.sh) $(GO) test -p 1 -count=1 -v -timeout 10m -run '^TestKubelet' ./test/containers/...

browser: ## every page of the console in a real browser, with real data (root)
	HUATUO_SCREENSHOTS=$(CURDIR)/bin/screenshots $(TRY) --format standard-verbose --packages './test/e2e/...' -- -count=1 -timeout 20m -run '$(BROWSER)'

.PHONY: vmtest vmtest-lab vmtest-docs
vmtest: ## kernel tests and the agent on other kernels in qemu; K=6.1 and P=runqueue choose
	$(GO) run ./test/vm -k '$(K)' -p '$(P)'
	$(if $(P),,$(GO) run ./tools/kernels)

vmtest-lab: ## the same on a kernel without BTF and kprobes, built once (10 CPU minutes)
	nice -n 19 test/vm/lab.sh
	$(GO) run ./test/vm -lab -k '$(K)' -p '$(P)'
	$(if $(P),,$(GO) run ./tools/kernels)

vmtest-docs: ## docs/reference/kernels.md from the last runs of both
	$(GO) run ./tools/kernels -write

fuzz: ## every fuzz target for T=30s
	@for f in $$(grep -rl --include='*_test.go' '^func Fuzz' internal); do \
	  for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f); do \
	    $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(T) ./$$(dirname $$f); \
	  done; \
	done

bench: build ## what the agent costs, paired on and off, into docs/reference/cost.md (root)
	$(GO) run ./test/bench -agent $(BIN) -o docs/reference/cost.md

##@ About
.PHONY: help clean
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

clean: ## remove what was built outside of git
	rm -rf bin ui/node_modules ui/.test test/browser/node_modules
