# Only Go is needed, unless a suite says that it needs more.

BINARY      := bin/connect-personalize
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.7.0
DEADCODE    := go run golang.org/x/tools/cmd/deadcode@v0.40.0
ERRCHECK    := go run github.com/kisielk/errcheck@v1.9.0
PENDING     ?= 1000000
RATE        ?= 1000

COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
DATE   := $(shell git log -1 --format=%cI 2>/dev/null)

# The same flags for builds and tests: packages are compiled once.
export GOFLAGS := -trimpath

.DEFAULT_GOAL := help
.PHONY: help build demo docs clean test lint race fuzz language check ci bench bench-api bench-curve bench-quality bench-triggers

help: ## list the targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Build
build: ## write bin/connect-personalize
	go build -ldflags '-s -w -X main.commit=$(COMMIT) -X main.date=$(DATE)' -o $(BINARY) ./cmd/connect-personalize

demo: build ## run the quickstart: the events of a synthetic shop become profiles
	@go build -o bin/demo ./tests/demo
	@set -m 2>/dev/null; bin/demo # job control keeps Ctrl-C from make

docs: ## write docs/plugins from the config specs
	go run ./docs/generate

clean: ## remove the files that other targets wrote
	rm -rf bin data/demo

##@ Before each commit
# The suites race and oracle run more cases of each property.
test: build ## unit tests, then lint and test every shipped config
	RAPID_CHECKS=25 BIN=$(abspath $(BINARY)) go test -vet=off -timeout 15m ./...
	$(BINARY) lint --deprecated configs/...
	$(BINARY) test configs/...

lint: ## formatting, vet, static analysis, dead code and dropped errors
	@unformatted=$$(gofmt -l cmd docs plugins tests); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...
	@dead=$$($(DEADCODE) -test ./...); if [ -n "$$dead" ]; then echo "unreachable functions:"; echo "$$dead"; exit 1; fi
	$(ERRCHECK) -exclude tests/check/errcheck.txt ./...

language: ## count the words and sentences that the language rules limit
	go run ./tests/language

##@ Suites (tests/README.md explains when to run which)
check: build ## run SUITE=name[,name...] and print a table of results; without SUITE, list the suites
	@go run ./tests/check $(if $(SHORT),-short) $(SUITE)

race: ## make check SUITE=race: unit tests under the race detector
fuzz: ## make check SUITE=fuzz: every fuzz target for FUZZTIME
race fuzz:
	@$(MAKE) -s check SUITE=$@

ci: ## the short form of all suites, installing what they need: at most an hour
	.ci/run

##@ Measure (see docs/benchmarks.md)
bench: ## measure against the budgets and print the table (installs what it needs)
	go run ./tests/bench

bench-api: ## the profile API at 1, 64 and 1,024 connections
	go run ./tests/bench -api

bench-curve: ## customers, processes and batch sizes
	go run ./tests/bench -curve

bench-quality: ## validation and cleaning against the stock processors
	go run ./tests/bench quality

bench-triggers: ## delay of triggers at RATE a second while PENDING others wait
	go run ./tests/bench firing -pending $(PENDING) -rate $(RATE)
