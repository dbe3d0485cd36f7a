# DIM: build, test, show. `make` alone prints this list.
export CGO_ENABLED = 0
GOFLAGS_STATIC = -trimpath -ldflags "-s -w"
ARCHES = amd64 arm64 ppc64le

.PHONY: help build packages deps deps-test check test e2e long crash hostile demo bench fuzz docs clean
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: ## bin/dim, and bin/dim-init-ARCH for every node architecture
	go build $(GOFLAGS_STATIC) -o bin/dim ./cmd/dim
	for a in $(ARCHES); do GOARCH=$$a go build $(GOFLAGS_STATIC) -o bin/dim-init-$$a ./cmd/dim-init || exit 1; done

packages: ## bin/packages: deb and rpm for servers of each architecture
	dist/packages

deps: ## install (Debian, root) what the demo and the end-to-end tests run
	dist/deps lab

deps-test: ## install (Debian, root) what the unit tests run
	dist/deps test

check: ## vet, format, static analysis and the architecture rules
	@test -z "$$(gofmt -l cmd internal e2e bench)" || { gofmt -l cmd internal e2e bench; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go test ./internal/rules/...

test: deps-test ## everything but whole machines (as root on Debian 12: installs its own needs)
	go test -vet=off -p 4 -timeout 15m ./... # check vets; four packages at a time, since many wait for disks and timers

e2e: deps build ## real kernels boot and mount (root): User Mode Linux and QEMU
	DIM_LAB_MASTER=$$(go run ./cmd/lab master .lab/master) && export DIM_LAB_MASTER && \
	go test -p 1 -count=1 -v -run 'ARealMaster|ARealDistribution' ./internal/capture ./internal/initramfs && \
	DIM_E2E=1 go test -p 1 -timeout 60m -count=1 -v ./e2e/...

long: deps build ## what takes long: a thousand switches, real work, files of any origin, the suites of others (root)
	DIM_LAB_MASTER=$$(go run ./cmd/lab master .lab/network-manager network-manager) && export DIM_LAB_MASTER && \
	DIM_E2E=1 DIM_LONG=1 go test -timeout 60m -count=1 -v -run 'CardsAre|ImportedClusterBoots' ./e2e
	DIM_E2E=1 DIM_LONG=1 go test -p 1 -timeout 120m -count=1 -v \
		-run 'UnderLoad|RealWork|SuitesOfOthers|AnyOrigin' ./e2e/

crash: deps-test ## hundreds of kill -9, power cuts and full disks, and whether code broken on purpose is found (root)
	DIM_CRASH_ROUNDS=300 DIM_CRASH_MUTANTS=1 go test -timeout 90m -count=1 -v ./e2e/crash

hostile: ## hostile nodes and strangers attack a server for ten minutes, while 64 nodes work (root)
	DIM_HOSTILE_TIME=10m go test -timeout 30m -count=1 -v -run UnderAttack ./e2e/hostile

demo: deps build ## two diskless machines run an unmodified Debian from one server (root)
	go run ./cmd/lab demo

bench: build ## the figures of docs/figures.md, each against a peer in the same run (root)
	dist/deps bench
	bench/run

docs: ## write the generated pages of docs/reference again
	go test ./cmd/dim -run Reference -update
	go test ./internal/cluster -run 'Reference|XSD' -update
	go test ./internal/boot -run TheTableOfFirmware -update

fuzz: ## five seconds of every fuzz test
	dist/fuzz 5s

clean: ## remove what was built
	rm -rf bin .lab
