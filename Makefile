# Everything is made in .venv/ and build/, nothing outside this folder. `make` lists the targets.
# PYTHON=/usr/bin/python3 picks the interpreter; later calls keep it. ARGS="-k ring -x" goes to pytest or the bench.

comma := ,
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
# Stamps are the targets that later steps compare with; make must not take them for intermediate files.
.SECONDARY:

ifndef PYTHON
PYTHON := $(or $(shell head -n 1 .venv/made-with 2>/dev/null),python3)
endif
python_now := $(shell "$(PYTHON)" -c 'import sys; print("%s\n%d.%d" % ((sys.executable,) + sys.version_info[:2]))' 2>/dev/null)
ifneq ($(python_now),$(shell cat .venv/made-with 2>/dev/null))
.PHONY: .venv/made-with
endif

# -P: the checkout must not shadow the installed package, which alone has the extension.
python := .venv/bin/python -P
pip := $(python) -m pip --disable-pip-version-check
in_venv := PATH="$(CURDIR)/.venv/bin:$$PATH"
meson := $(in_venv) .venv/bin/meson
pytest := $(python) -m pytest
code := $(wildcard agentd clients/python tests bench examples .ci/requirements)
# Folders too: a deleted file changes only its folder.
sources := $(shell find agentd clients/python/agentd_client native systemd -name __pycache__ -prune -o \
	\( -type d -o -name '*.[ch]' -o -name '*.py' -o -name '*.pyi' -o -name meson.build -o -name 'agentd*.s*' \) -print 2>/dev/null)
c_files := $(filter %.c %.h,$(sources)) $(wildcard bench/*.[ch] clients/c/*.[ch] tests/c/*.[ch])

##@ Use
.PHONY: help build demo example-c
help: ## list the targets
	@awk -F ' *## *' '/^##@/ { print "\n" substr($$0, 5) } /^[a-z-]+:.*## / { split($$1, t, ":"); printf "  make %-14s %s\n", t[1], $$2 }' Makefile

build: .venv/installed-package ## build agentd and install it into .venv

demo: build ## three agents talk through a daemon in a temporary directory
	@.venv/bin/python examples/demo.py

example-c: build/agentd-example ## build the example of an agent in C: build/agentd-example
build/agentd-example: $(wildcard clients/c/*.[ch] native/*.[ch])
	@mkdir -p build
	$(or $(CC),cc) -std=gnu11 -O2 -g -Wall -Wextra -pthread -o $@ clients/c/*.c native/mailbox.c native/pair.c native/ring.c

##@ Work on it
.PHONY: test test-c check lint types check-c check-binding prove-ring fuzz-ring prove-journal fuzz-journal fuzz fuzz-smoke stress new-user format
test: build test-c .venv/installed-test ## run the C tests and the Python tests
	$(pytest) $(ARGS)

test-c: build/test/build.ninja
	$(meson) test -C build/test --print-errorlogs

check: lint types check-c check-binding fuzz-smoke ## lint, types, C under the sanitizers, a minute of fuzzing

lint: .venv/installed-check
	$(python) -m ruff check $(code)
	$(python) -m ruff format --check $(code)
	.venv/bin/clang-format --dry-run -Werror $(c_files)

types: build .venv/installed-check .venv/installed-test
	$(python) -m mypy $(filter-out .ci/%,$(code))

# Where TSan does not know the kernel's memory layout, it needs one that is not randomised.
fixed_layout := $(shell setarch -R true 2>/dev/null && echo --wrapper='"setarch -R"')
check-c: build/strict/build.ninja build/asan/build.ninja build/tsan/build.ninja
	$(meson) compile -C build/strict
	$(meson) test -C build/strict --print-errorlogs
	$(meson) test -C build/asan --print-errorlogs
	$(meson) test -C build/tsan --print-errorlogs $(fixed_layout)

# Their short versions are among the C tests; here a skip is a failure too. Those of stray reads run under AddressSanitizer.
proofs := $(patsubst native/proofs/prove_%.c,%,$(wildcard native/proofs/prove_*.c))
proofs_of_reads := fuzz hostile pool
prove-ring: build/test/build.ninja build/asan/build.ninja ## prove the ring and the pair at length (PROOFS="order kill" picks)
	$(in_venv) ninja -C build/test $(patsubst %,native/prove_%,$(filter-out $(proofs_of_reads),$(proofs)))
	$(in_venv) ninja -C build/asan $(proofs_of_reads:%=native/prove_%)
	@for proof in $(or $(PROOFS),$(proofs)); do echo "--- $$proof"; \
	case " $(proofs_of_reads) " in *" $$proof "*) build=asan;; *) build=test;; esac; \
	build/$$build/native/prove_$$proof long || exit 1; done
	@case " $(or $(PROOFS),$(proofs)) " in *" fuzz "*) $(MAKE) fuzz-ring;; esac

# Debian's package `clang` has libFuzzer; without it the mutator of the program itself was all.
# $(call libfuzzer,name,largest input,sources and flags)
define libfuzzer
	@mkdir -p build/$(1)/corpus
	@for clang in clang clang-19 clang-16 clang-14; do \
	echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | \
	$$clang -x c - -fsanitize=fuzzer,address -o build/$(1)/probe 2>/dev/null || continue; \
	echo "libFuzzer of $$clang"; \
	$$clang -std=gnu11 -g -O1 -DWITH_LIBFUZZER -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	-o build/$(1)/target $(3) || exit 1; \
	cd build/$(1); ./target -max_total_time=$(or $(SECONDS),60) -max_len=$(2) -print_final_stats=1 corpus \
	>run.log 2>&1 || { tail -n 40 run.log; exit 1; }; grep -e number_of_executed -e DONE run.log; exit; done; \
	echo "no clang with libFuzzer here: it was not run"
endef

fuzz-ring:
	$(call libfuzzer,fuzz-ring,1024,-Wl$(comma)--wrap=mmap$(comma)--wrap=mmap64$(comma)--wrap=munmap \
	native/proofs/prove_fuzz.c native/proofs/guard.c native/mailbox.c native/pair.c native/ring.c)

# The core of the journal, as its tests link it. Its proofs run among the C tests too, shorter.
journal_core := native/crc32c.c native/scan.c native/segment.c $(wildcard native/journal*.c native/recovery*.c)
journal_tests := $(filter-out format,$(patsubst native/tests/test_journal_%.c,%,$(wildcard native/tests/test_journal_*.c)))
journal_runs_fuzz := 20000
journal_runs_images := 20
prove-journal: build/asan/build.ninja build .venv/installed-test ## prove the journal: faults, 1,000 kills, each step, crash images, fuzz, mutants
	$(in_venv) ninja -C build/asan $(journal_tests:%=native/test_journal_%)
	@for test in $(journal_tests); do echo "--- $$test"; case $$test in \
	fuzz) build/asan/native/test_journal_fuzz $(journal_runs_fuzz);; \
	images) build/asan/native/test_journal_images $(journal_runs_images);; \
	*) build/asan/native/test_journal_$$test;; esac || exit 1; done
	$(pytest) -m stress tests/test_journal_mutants.py tests/test_journal_crash.py tests/test_crash_steps.py tests/test_crash_stored.py
	@$(MAKE) fuzz-journal

fuzz-journal:
	$(call libfuzzer,fuzz-journal,256,native/tests/test_journal_fuzz.c $(journal_core))

fuzz: build .venv/installed-test .venv/tried-fuzz ## fuzz every face for SECONDS (600) each
	@for face in binary json text; do $(python) tests/fuzz/fuzz.py $$face --seconds $(or $(SECONDS),600) || exit 1; done

fuzz-smoke: build .venv/installed-test .venv/tried-fuzz
	@for face in binary json text; do echo "fuzzing the $$face face for 20 s"; \
	$(python) tests/fuzz/fuzz.py $$face --seconds 20 >build/fuzz-$$face.log 2>&1 || { tail -n 40 build/fuzz-$$face.log; exit 1; }; \
	grep -e number_of_executed -e inputs -e atheris build/fuzz-$$face.log; done

# The extension itself, under Python and the real daemon: what the C tests of the core can't reach.
bound := $(CURDIR)/build/bound
check-binding: build/asan/build.ninja build .venv/installed-test
	$(meson) compile -C build/asan
	@rm -rf $(bound) && mkdir -p $(bound) && cp -r agentd clients/python/agentd_client $(bound) && cp build/asan/native/_native*.so $(bound)/agentd
	LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		PYTHONMALLOC=malloc PYTHONPATH=$(bound) $(pytest) -q -p no:cacheprovider -W ignore \
		tests/test_native.py tests/test_engine.py tests/test_doorbells.py tests/test_later.py tests/test_pool.py tests/test_pool_ends.py tests/test_pool_machine.py tests/test_direct_channels.py tests/test_direct_relay.py tests/test_direct_truth.py tests/test_journal_native.py tests/test_journal_machine.py

stress: build .venv/installed-test ## run the long races and crash campaigns
	$(pytest) -m stress $(ARGS)

new-user: build .venv/installed-test ## from git clone to a message between two terminals (installs tmux with apt-get)
	@command -v tmux >/dev/null || { sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; set -x; $$sudo apt-get install -y tmux; }
	$(pytest) -m new_user $(ARGS)

format: .venv/installed-check ## bring Python and C into the project's format
	$(python) -m ruff check --fix $(code)
	$(python) -m ruff format $(code)
	.venv/bin/clang-format -i $(c_files)

##@ Measure
.PHONY: bench-normal bench-critical bench-high bench-low bench-smoke
bench-normal: build .venv/installed-bench ## measure NORMAL beside NATS and Redis (installs both with apt-get)
	@missing=; for rival in nats-server redis-server; do command -v $$rival >/dev/null || missing="$$missing $$rival"; done; \
	[ -z "$$missing" ] || { sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; set -x; $$sudo apt-get install -y $$missing; }
	.venv/bin/python bench/normal.py $(ARGS)

bench-critical: build .venv/tried-rivals ## measure CRITICAL beside the cache line and its rivals (installs clang-19 with apt-get)
	.venv/bin/python bench/critical.py $(ARGS)

bench-high: build .venv/tried-rivals-high ## measure HIGH beside CRITICAL, a Unix socket, pyzmq, zenoh and iceoryx2
	.venv/bin/python bench/high.py $(ARGS)

bench-low: build .venv/installed-bench .venv/tried-rivals-low ## measure LOW beside the bare disk, SQLite, LMDB, Redis, JetStream (apt-get: both servers; 25 GB in /tmp)
	@missing=; for rival in nats-server redis-server; do command -v $$rival >/dev/null || missing="$$missing $$rival"; done; \
	[ -z "$$missing" ] || { sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; set -x; $$sudo apt-get install -y $$missing || true; }
	.venv/bin/python bench/low.py $(ARGS)

bench-smoke: build ## run each measurement for a moment, without rivals: does it still work?
	.venv/bin/python bench/normal.py --smoke $(ARGS)
	.venv/bin/python bench/critical.py --smoke $(ARGS)
	.venv/bin/python bench/high.py --smoke $(ARGS)
	.venv/bin/python bench/low.py --smoke $(ARGS)
	.venv/bin/python bench/engine.py --smoke $(ARGS)

##@ Housekeeping
.PHONY: preflight clean
preflight: ## name the Debian packages that are missing
	@.ci/preflight "$(PYTHON)"

clean: ## remove .venv/, build/ and the tools' caches
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find agentd bench clients examples tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# --- how the above comes about -----------------------------------------------------------------------------------

# Another interpreter means another .venv; builds record the interpreter too.
.venv/made-with:
	@.ci/preflight "$(PYTHON)"
	@echo "creating .venv with $(PYTHON)"
	@rm -rf .venv build
	@"$(PYTHON)" -m venv .venv
	@"$(PYTHON)" -c 'import sys; print("%s\n%d.%d" % ((sys.executable,) + sys.version_info[:2]))' >$@

# The stamp of a group is the list that was installed, so that an edit elsewhere in pyproject.toml installs nothing.
.venv/installed-%: .ci/requirements pyproject.toml .venv/made-with
	@.venv/bin/python .ci/requirements $* >.venv/$*.txt
	@cmp -s .venv/$*.txt $@ || { echo "installing what $* needs"; $(pip) install --quiet -r .venv/$*.txt; }
	@mv .venv/$*.txt $@

# Where there is no atheris for this Python the fuzzers have a mutator of their own, and say so.
.venv/tried-fuzz: .venv/made-with
	@$(pip) install --quiet --only-binary :all: 'atheris>=3.0,<4'  || echo "atheris can't be installed for this Python: the fuzzers use a mutator of their own"
	@touch $@

# What can't be installed here is left out of the comparison, and the report says so. tachyon-ipc is built from source,
# which needs a newer C++ than Debian's usual one.
tachyon_packages := clang-19 libc++-19-dev lld-19
.venv/tried-rivals: .ci/requirements pyproject.toml .venv/made-with
	@command -v clang-19 >/dev/null && command -v ld.lld-19 >/dev/null && [ -d /usr/lib/llvm-19/include/c++/v1 ] || { \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; set -x; $$sudo apt-get install -y $(tachyon_packages) || true; }
	@for rival in $$(.venv/bin/python .ci/requirements rivals); do echo "installing $$rival"; \
	CC=clang-19 CXX=clang++-19 CXXFLAGS=-stdlib=libc++ LDFLAGS="-stdlib=libc++ -fuse-ld=lld-19" \
	$(pip) install --quiet "$$rival" || echo "$$rival can't be installed: it is left out"; done
	@touch $@

.venv/tried-rivals-%: .ci/requirements pyproject.toml .venv/made-with
	@for rival in $$(.venv/bin/python .ci/requirements rivals-$*); do echo "installing $$rival"; \
	$(pip) install --quiet "$$rival" || echo "$$rival can't be installed: it is left out"; done
	@touch $@

.venv/installed-package: $(sources) meson.build pyproject.toml LICENSE .venv/installed-build .venv/installed-run
	@.ci/preflight "$(PYTHON)"
	@echo "building and installing agentd"
	@$(in_venv) $(pip) install --quiet --no-build-isolation --no-deps --force-reinstall \
		--config-settings=build-dir=build/package .
	@touch $@

setup-strict := -Dwerror=true
setup-asan := -Dwerror=true -Db_sanitize=address,undefined
setup-tsan := -Dwerror=true -Db_sanitize=thread
build/%/build.ninja: .venv/installed-build
	@rm -rf build/$*
	$(meson) setup build/$* $(setup-$*)
