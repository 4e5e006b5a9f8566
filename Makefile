# What to type. Each word is a few lines; what takes more is a script in scripts/.
SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LISTEN ?= 127.0.0.1:7117
GOTEST := CGO_ENABLED=1 go test -race -count=1 -exec "'$(CURDIR)/scripts/as-root' '$(CURDIR)/scripts/mounted'"

.PHONY: help run stop build package image test soak bench lint generate
.NOTPARALLEL:

help: ## print these words
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

run: build ## keep watch over this machine in the background, with a page, and say what was seen first
	@scripts/as-root scripts/agent start $(LISTEN)

stop: ## end what make run began
	@scripts/as-root scripts/agent stop

build: ## make bin/lifeline, a static program
	@CGO_ENABLED=0 go build -C agent -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o ../bin/lifeline ./cmd/lifeline

test: ## install what the tests need, check everything, run every test
	@scripts/test

soak: build ## ten minutes of lost packets: no living peer may be called silent; half an hour of busy servers: no leak; agents and their writers killed 300 times; half an hour of an agent that does not grow
	@scripts/setup
	@cd agent && go test -count=1 -timeout 30m ./verdict -rounds 20
	@cd agent && $(GOTEST) -timeout 30m -v -run TestLossIsNoSilence ./node -soak 10m
	@cd agent && $(GOTEST) -timeout 30m -v -run TestKilledAtAnyMoment ./history -rounds 200
	@cd agent && $(GOTEST) -timeout 30m -v -run TestAgentKilledAtAnyMoment ./cmd/lifeline -kills 100
	@cd agent && $(GOTEST) -timeout 45m -v -run TestHealthyServers ./lab/leaker -soak 30m
	@CGO_ENABLED=0 go build -C agent -trimpath -buildvcs=false -o ../bin/bench ./bench
	@scripts/as-root bin/bench agent -soak 30m

bench: build ## measure everything beside what there is without Lifeline, in some minutes
	@scripts/setup bench
	@CGO_ENABLED=0 go build -C agent -trimpath -buildvcs=false -o ../bin/bench ./bench
	@scripts/as-root bin/bench

package: ## make the packages, deb and rpm for amd64 and arm64, in dist/
	@scripts/package

image: ## make the container image lifeline with docker, or what DOCKER names
	@scripts/image

lint: ## gofmt, go vet on every platform, staticcheck, govulncheck
	@scripts/lint
	@scripts/vulnerable

generate: ## build again what is generated: BPF objects, programs to embed, docs/findings.md
	@go generate ./...
	@cd agent && go generate ./...
