# What a developer, a packager and CI type. Each target says what it does; `make help` lists them.

PREFIX     ?= /usr
DESTDIR    ?=
DEBIAN     ?= 13
TEST       ?=
PACKAGE    ?=
TIMES      ?= 20
TEMPLATE   ?= debian-12-x86_64

CARGO   ?= cargo
VZCTL   := target/release/vzctl
# What stays with a container; vzctl looks for it beside itself.
VZRT     = $(dir $(VZCTL))vzrt
# What loads the kernel's beancounters, once for a host.
LOADER   = $(dir $(VZCTL))vzubc-load
SUITE   := target/debug/suite
MACHINE := target/debug/reference
ONLY    := $(addprefix --package=,$(PACKAGE))
export VZ_BIN := $(CURDIR)/$(VZCTL)

# The one list of Debian packages: what building, running and testing on this host need. program:package, or file:package
NEEDS := cc:gcc make:make mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs nft:nftables ip:iproute2 busybox:busybox-static \
         clang:clang /usr/include/libelf.h:libelf-dev pkg-config:pkg-config zstd:zstd xz:xz-utils setpriv:util-linux strip:binutils ps:procps ping:iputils-ping ssh:openssh-client
# `make bench` compares with these where they are installed; it says so where they are not.
PEERS := lxc runc

# The names vzctl answers to, beside its own; one binary, many names.
NAMES := vzlist vzpkg vzubc vzcfgvalidate vzcfgscale vzsplit vzcalc vzmemcheck vzcpucheck vzpid vzps vztop vzquota
ROOT  := $(if $(DESTDIR),$(abspath $(DESTDIR)))
SBIN  := $(ROOT)$(PREFIX)/sbin
SHARE := $(ROOT)$(PREFIX)/share
UNITS := $(ROOT)$(PREFIX)/lib/systemd/system

.PHONY: help deps peers build build-tests test test-fast test-host test-reference test-power-cut reference-shell bench bench-fairness demo \
        install uninstall lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 18

deps: ## install what is missing from Debian's packages; touches no network if nothing is
	@missing=; for need in $(NEEDS); do \
	    case $$need in /*) test -e $${need%%:*};; *) PATH="$$PATH:/usr/sbin:/sbin" command -v $${need%%:*} >/dev/null;; esac \
	        || missing="$$missing $${need##*:}"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing </dev/null; fi

peers: ## install the runtimes that `make bench` compares with
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(PEERS) </dev/null

# Linked statically: every command is a new process, and the dynamic loader was a tenth of `exec`.
build: ## release binaries
	$(CARGO) rustc --release --locked -p vzrt --bin vzrt -- -C target-feature=+crt-static
	$(CARGO) rustc --release --locked -p vzctl --bin vzctl -- -C target-feature=+crt-static
	$(CARGO) build --release --locked -p beancounters --bin vzubc-load

# All of them at once, as the programs below would: one set of features, nothing built twice.
build-tests:
	$(CARGO) test --no-run --locked --workspace --lib --bins --tests

# Runs every part even if one fails, and fails if one did. The skips of all parts come last, with their reasons.
test: deps build build-tests ## pure tests, then as root on this host, then the same in the reference machine
	@rm -rf target/skips; failed=; \
	for part in test-fast test-host test-reference; do \
	    echo "== make $$part"; $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; done; \
	echo "== skipped"; cat target/skips/* 2>/dev/null || true; \
	if [ -n "$$failed" ]; then echo "== FAILED:$$failed"; exit 1; fi; echo "== all parts passed"

test-fast: build-tests ## unit tests, policy tests: no root, no kernel objects
	$(SUITE) fast $(ONLY) $(TEST)
	$(CARGO) test --quiet --locked --workspace --doc

test-host: build build-tests ## tests that need root and a kernel, on this machine
	$(SUITE) host $(ONLY) $(TEST)

test-reference: build build-tests ## the same tests in a stock Debian machine (DEBIAN=12 PACKAGE=crate TEST=name)
	$(MACHINE) test --debian $(DEBIAN) $(ONLY) $(TEST)

# Not a part of `test`: it takes as long as TIMES boots.
test-power-cut: build ## cuts that machine's power while containers write, and checks disk quota after each boot (DEBIAN=12 TIMES=20)
	$(CARGO) build --locked -p tests --bin reference
	$(MACHINE) power-cut --debian $(DEBIAN) --times $(TIMES)

reference-shell: build build-tests ## a shell in that machine; ends with it
	$(MACHINE) shell --debian $(DEBIAN)

bench-fairness: build ## how CPU time and disks are divided, beside plain cgroups; about 45 minutes (plots, where gnuplot is installed)
	$(CARGO) build --release --locked -p tests --bin fairness
	target/release/fairness

bench: build ## our times beside lxc's, runc's and unshare's, in turn, on the same root
	$(CARGO) build --release --locked -p tests --bin bench
	target/release/bench

demo: deps build ## a container's whole life, in one go (TEMPLATE=busybox needs no network)
	TEMPLATE=$(TEMPLATE) VZ_BIN=$(abspath $(VZCTL)) examples/demo.sh

lint: ## formatting and clippy, no warnings
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# A configuration that is there already is its owner's: never overwritten, never removed. Where ours differs it goes beside it as .new.
install: ## vzctl, its other names, configuration, man pages, completions, boot unit; DESTDIR and PREFIX honoured
	@test -x $(VZCTL) -a -x $(VZRT) -a -x $(LOADER) || { echo "there is no $(VZCTL): make build"; exit 1; }
	install -d $(ROOT)/etc/vz/names $(SBIN) $(SHARE)/man/man8 $(SHARE)/doc/vz/docs $(UNITS)
	@set -e; for program in $(VZCTL) $(VZRT) $(LOADER); do name=$${program##*/}; \
	    strip --strip-debug -o $(SBIN)/.$$name.new $$program; chmod 755 $(SBIN)/.$$name.new; mv $(SBIN)/.$$name.new $(SBIN)/$$name; done
	for name in $(NAMES); do ln -sf vzctl $(SBIN)/$$name; done
	@set -e; keep() { \
	    if [ ! -e "$$3" ]; then install -D -m $$1 "$$2" "$$3"; \
	    elif ! cmp -s "$$2" "$$3"; then install -m $$1 "$$2" "$$3.new"; echo "kept $$3, the new one is $$3.new"; fi; }; \
	cd vzctl/etc; for file in vz.conf conf/* dists/*; do keep 644 "$$file" "$(ROOT)/etc/vz/$$file"; done; \
	keep 755 vz.init $(ROOT)/etc/init.d/vz
	install -m 644 vzctl/etc/vz.service $(UNITS)/vz.service
	install -m 644 README.md CHANGELOG.md LICENSE $(SHARE)/doc/vz
	install -m 644 docs/*.md $(SHARE)/doc/vz/docs
	$(VZCTL) __man $(SHARE)/man/man8
	$(VZCTL) __completions $(SHARE)
	@echo "installed; on a host with systemd, to start containers when it boots: systemctl enable vz"

uninstall: ## what install put there; configuration and containers stay
	rm -f $(addprefix $(SBIN)/,vzctl vzrt vzubc-load $(NAMES)) $(UNITS)/vz.service
	cd $(SHARE)/man/man8 && rm -f $(foreach name,vzctl $(NAMES),$(name).8 $(name)-*.8)
	cd $(SHARE) && for name in vzctl $(NAMES); do rm -f bash-completion/completions/$$name zsh/vendor-completions/_$$name \
	    fish/vendor_completions.d/$$name.fish; done
	rm -rf $(SHARE)/doc/vz
	@if cmp -s vzctl/etc/vz.init $(ROOT)/etc/init.d/vz; then rm $(ROOT)/etc/init.d/vz; fi
	@echo "$(ROOT)/etc/vz stays"

clean: ## all that was built, the reference machine's images included
	$(CARGO) clean
