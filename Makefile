# Everything here needs Go and nothing else; targets that need more say so.

BINARY      := bin/connect-personalize
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME    ?= 20000x
CASES       ?= 10000
DAYS        ?= 90
PENDING     ?= 1000000
RATE        ?= 1000
FOR         ?= 30m
LOG         ?= ../shared/data/CDNOW_sample.txt

COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
DATE   := $(shell git log -1 --format=%cI 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help build demo test lint race bench bench-quality bench-api bench-curve docs fuzz oracle sdk services import cdnow dirty-day faults-short faults simulate bench-triggers clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## write bin/connect-personalize
	go build -trimpath -ldflags '-X main.commit=$(COMMIT) -X main.date=$(DATE)' -o $(BINARY) ./cmd/connect-personalize

demo: build ## run the quickstart: a synthetic shop's events become profiles
	@go build -o bin/demo ./tests/demo
	@set -m 2>/dev/null; bin/demo # job control keeps Ctrl-C from make

test: build ## vet, unit tests, then lint and test every shipped config
	go vet ./...
	go test -timeout 15m ./...
	$(BINARY) lint --deprecated configs/...
	$(BINARY) test configs/...

lint: ## formatting and static analysis
	@unformatted=$$(gofmt -l cmd docs plugins tests); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...

race: ## unit tests of the plugins under the race detector
	go test -race -timeout 25m ./cmd/... ./plugins/...

bench: ## measure against the budgets and print the table (installs what it needs)
	go run ./tests/bench

bench-quality: ## validating and cleaning next to the stock processors, in one run
	go run ./tests/bench quality

bench-api: ## the profile API at 1, 64 and 1,024 connections
	go run ./tests/bench -api

bench-curve: ## customers, processes and batch sizes
	go run ./tests/bench -curve

docs: ## write docs/plugins from the config specs
	go run ./docs/generate

# A number of inputs (20000x), not a time: where the time ends while an input is tried, Go
# takes the end itself for a failure (golang.org/issue/75804).
fuzz: ## every fuzz target for FUZZTIME (20000x: that many inputs)
	@set -e; for package in $$(grep -rl --include='*_test.go' '^func Fuzz' plugins | xargs -r -n1 dirname | sort -u); do \
	  for target in $$(go test -list '^Fuzz' ./$$package | grep '^Fuzz'); do \
	    echo "$$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$package; \
	  done; \
	done

sdk: build tests/sdk/node_modules ## send events with Segment's and RudderStack's SDKs (needs node and npm)
	tests/sdk/run.sh
	tests/sdk/profile.sh

# Not `npm ci`: it refuses a lock file that lacks the optional packages of other
# platforms, and not every registry has those.
tests/sdk/node_modules: tests/sdk/package-lock.json
	cd tests/sdk && npm install --no-save --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: explorer
explorer: build tests/explorer/node_modules ## use the profile explorer in headless Chromium (needs node, npm and chromium)
	tests/explorer/run.sh

tests/explorer/node_modules: tests/explorer/package-lock.json
	cd tests/explorer && npm install --no-save --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: schemathesis client
schemathesis: build ## fuzz the profile API by its own OpenAPI description (needs python3 and python3-venv)
	tests/contract/run.sh fuzz

client: build ## generate a client from that description, and use it (the same)
	tests/contract/run.sh client

services: ## store tests on a real Redis and Redis Cluster (installs redis-server)
	@set -e; trap 'tests/services/redis.sh stop make; tests/services/redis_cluster.sh stop make' EXIT; \
	TEST_REDIS_URL=$$(tests/services/redis.sh start make); \
	TEST_REDIS_CLUSTER=$$(tests/services/redis_cluster.sh start make); \
	export TEST_REDIS_URL TEST_REDIS_CLUSTER; \
	go test -count=1 ./plugins/store/redis

import: build ## import a log of purchases (DATA=file) twice and compare every customer
	tests/cdnow/import.sh $(DATA)

dirty-day: ## account for every fault of 22 kinds in a day of events
	go run ./tests/dirtyday

cdnow: ## fit the purchase models to the CDNOW sample (DATA=file), and plot the forecast
	go run ./tests/cdnow fit -plot docs/cdnow_forecast.svg $(DATA)

oracle: ## compare features with the naive computation over CASES (10000) random histories
	CASES=$(CASES) go test -count=1 -timeout 30m ./plugins/engine/record -run 'Oracle|Order|Merge|Definitions|Heavy' -rapid.checks=$(CASES)
	go test -count=1 -timeout 30m ./plugins/engine/customers -run 'Writers|Faults' -rapid.checks=$$(($(CASES) / 20))

faults-short: ## kill, pause and restart everything while events flow, then compare every profile
	go run ./tests/system faults -events 50000

faults: ## the same with a million events, a minute without Redis, and a cluster that fails over
	go run ./tests/system faults -events 1000000 -outage 60s
	go run ./tests/system faults -events 200000 -cluster

simulate: ## let DAYS (90) days of the synthetic shop go by, and check every trigger (needs java and mvn)
	go run ./tests/system simulate -days $(DAYS)

.PHONY: soak
soak: ## load the API with reads, writes and erasures at 80% of the most it can do, for FOR (30m), and check every answer (needs java and mvn)
	go run ./tests/system soak -for $(FOR)

bench-triggers: ## how late triggers fire at 1,000 a second while a million wait (PENDING=, RATE=)
	go run ./tests/bench firing -pending $(PENDING) -rate $(RATE)

clean: ## remove what the targets above wrote
	rm -rf bin data/demo
