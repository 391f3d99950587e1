# What one may ask of this tree. `make help` lists it.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED = 0
LINT := .build/golangci-lint
TESTFLAGS ?=
PREFIX ?= /usr/local
PACKAGES ?= .build/packages

.PHONY: help deps build install demo test race e2e lint packages man bench bench-mount bench-inspect bench-takeover cluster campaign-posix page simulate crash fuzz golden-check clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | column -t -s '	'

deps: ## install the Debian packages that build, tests and demo use; starts no service
	@tools/deps.sh install

build: ## .build/slipway
	@mkdir -p .build
	$(GO) build -o .build/slipway ./cmd/slipway

install: build ## slipway and the helpers of mount(8); PREFIX (/usr/local), DESTDIR
	install -D -m 755 .build/slipway $(DESTDIR)$(PREFIX)/bin/slipway
	install -d $(DESTDIR)/sbin
	ln -sfn $(PREFIX)/bin/slipway $(DESTDIR)/sbin/mount.fuse.slipway
	ln -sfn $(PREFIX)/bin/slipway $(DESTDIR)/sbin/mount.slipway

man: build ## the man pages, in .build/man
	.build/slipway commands | $(GO) run ./tools/man docs .build/man

packages: .build/nfpm ## deb and rpm, the same bytes from the same sources, in PACKAGES (.build/packages); VERSION, ARCH
	@tools/packages.sh $(PACKAGES)

.build/nfpm: tools/nfpm/go.mod
	@mkdir -p .build
	$(GO) build -modfile=tools/nfpm/go.mod -o $@ github.com/goreleaser/nfpm/v2/cmd/nfpm

demo: build ## the whole job on this machine, in a temporary place
	@tools/deps.sh check demo || tools/deps.sh install demo
	.build/slipway demo

test: ## all tests; needs root (mounts, loop devices)
	@tools/as-root.sh
	@tools/deps.sh check test || tools/deps.sh install test
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 20m $(TESTFLAGS) ./...

race: ## all tests under the race detector (needs gcc)
	@tools/as-root.sh
	CGO_ENABLED=1 $(GO) test -race -timeout 30m $(TESTFLAGS) ./...

e2e: ## whole-system tests, long forms
	@tools/as-root.sh
	$(GO) test -timeout 45m -v ./e2e -full $(TESTFLAGS)

crash: ## the kill runs at full count
	@tools/as-root.sh
	$(GO) test -timeout 30m -v -run 'Kill' ./e2e -full $(TESTFLAGS)

fuzz: ## every decoder's fuzz target for FUZZTIME (20s) each
	@tools/fuzz.sh $${FUZZTIME:-20s}

lint: $(LINT) ## formatting, vet, linters, import directions, module files
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted" >&2; exit 1; fi
	$(GO) mod tidy -diff
	$(LINT) run ./...

$(LINT): tools/golangci/go.mod
	@mkdir -p .build
	$(GO) build -modfile=tools/golangci/go.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bench: build ## the tables of README, beside restic and lsyncd from Debian
	@tools/as-root.sh
	@tools/deps.sh check bench || tools/deps.sh install bench
	$(GO) test -tags bench -count=1 -timeout 60m -run 'TestBench[^MI]|TestBenchMany' -v ./e2e -full $(TESTFLAGS)

bench-mount: ## the mount beside the bare directory, bindfs and gocryptfs from Debian
	@tools/as-root.sh
	@tools/deps.sh check mount || tools/deps.sh install mount
	$(GO) test -tags bench -count=1 -timeout 60m -run 'TestBenchMount' -v ./e2e $(TESTFLAGS)

bench-inspect: ## what commands, page and metrics take with 10^6 files in the catalog and 10^4 batches in a store; wants 8 GiB of memory
	@tools/as-root.sh
	@tools/deps.sh check test || tools/deps.sh install test
	$(GO) test -tags bench -count=1 -timeout 60m -run 'TestBenchInspect' -v ./e2e -full $(TESTFLAGS)

bench-takeover: ## how long takeovers take, and what travels twice, on nodes in network namespaces
	@tools/as-root.sh
	@tools/deps.sh check test || tools/deps.sh install test
	$(GO) test -tags cluster -count=1 -timeout 60m -parallel 1 -run 'TestTakeover|TestLostDisk|TestSpoolerKilledAlone|TestSlowLinkNeverFlaps|TestWarmPromotion' -v ./e2e -full $(TESTFLAGS)

cluster: ## the tests of several nodes whose bounds are times: takeover, promotion, nearest copy, docs/replicas.md
	@tools/as-root.sh
	@tools/deps.sh check test || tools/deps.sh install test
	$(GO) test -tags cluster -count=1 -timeout 60m -parallel 1 -run 'TestTakeover|TestLostDisk|TestSpoolerKilledAlone|TestSlowLinkNeverFlaps|TestReplicasWalkThrough|TestPromote|TestFailBack|TestPeerBesideMount|TestWentBack|TestWarmPromotion|TestSchedules|TestNearestCopy' -v ./e2e $(TESTFLAGS)

campaign-posix: ## the mount beside the bare file system: OPERATIONS (10^7) operations, each compared, and stress-ng for ten minutes
	@tools/as-root.sh
	@tools/deps.sh check test || tools/deps.sh install test
	$(GO) test -count=1 -timeout 6h -run 'TestDifferential$$|TestStressors' -v ./fusefs -operations $${OPERATIONS:-10000000} -stress 10m $(TESTFLAGS)

page: build ## clicks through the status page in Chromium, with BATCHES (0) sealed before, and takes the pictures of docs/
	@tools/as-root.sh
	@tools/deps.sh check page || tools/deps.sh install page
	cd tools/page && $(GO) test -count=1 -timeout 60m -v . -slipway $(CURDIR)/.build/slipway -pictures $(CURDIR)/docs -batches $${BATCHES:-0}

simulate: ## 2,000 random schedules of the sender over a simulated network
	$(GO) test -count=1 -timeout 60m -run TestSimulation -v ./spooler/sender -schedules 2000 $(TESTFLAGS)

clean: ## remove what was built
	rm -rf .build
