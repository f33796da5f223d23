# Pushy. `make` alone says what there is.

# Which PostgreSQL: make … PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config
ifndef PG_CONFIG
PG_CONFIG := $(shell tools/postgres.sh)
endif
export PG_CONFIG

PYTHON    := target/venv/bin/python
SUDO      := $(shell test -w "$$($(PG_CONFIG) --sharedir 2>/dev/null)" || echo --sudo)
REGRESS   := $(basename $(notdir $(sort $(wildcard pg_test/sql/*.sql))))

.PHONY: help setup build install installcheck demo demo-stop test torture fuzz lint bench bench-full clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## Debian packages, cargo-pgrx and what else is missing (never touches your clusters)
	@tools/setup.sh

build: setup ## the release build, as a tree in target/package-release-MAJOR
	@tools/build.sh release

install: ## into the PostgreSQL of PG_CONFIG; then: shared_preload_libraries = 'pushy', and restart
	@. tools/cargo.sh; $$CARGO_BIN/cargo-pgrx pgrx install --release $(SUDO) --pg-config $(PG_CONFIG)

installcheck: ## pg_test/sql against the running server of PGHOST, PGPORT, PGUSER (pushy preloaded)
	@mkdir -p target/installcheck
	"$$($(PG_CONFIG) --pkglibdir)/pgxs/src/test/regress/pg_regress" --bindir="$$($(PG_CONFIG) --bindir)" \
	    --inputdir=pg_test --outputdir=target/installcheck --dbname=contrib_regression \
	    --load-extension=pushy $(REGRESS_OPTS) $(REGRESS)

demo: setup ## the main job on a server of its own, which stays up to play with
	@tools/build.sh release
	@$(PYTHON) tools/demo.py start

demo-stop: ## ends that server and deletes it
	@$(PYTHON) tools/demo.py stop

test: setup ## every test, on servers of their own; TEST='-k retry' picks some
	@tools/test.sh $(TEST)

torture: setup ## clients with all their habits, every fault, a standby promoted now and then: SEED=7 MINUTES=10
	@tools/build.sh dev
	@cd pg_test && ../$(PYTHON) -m torture "$(SEED)" "$(MINUTES)"

fuzz: ## what reads bytes, SECONDS=600 for each target of core/fuzz
	@tools/fuzz.sh $(or $(SECONDS),60)

lint: setup ## format, clippy, names in SQL, and pgspot over the install script
	@tools/lint.sh

bench: setup ## Pushy, its peers and its limits, the short form: tables and plots into bench/; BENCH=drain picks a section
	@bench/setup.sh
	@tools/build.sh release
	@target/bench/venv/bin/python -m bench $(BENCH)

bench-full: setup ## the same, every section, with millions of jobs (an hour or two)
	@bench/setup.sh
	@tools/build.sh release
	@target/bench/venv/bin/python -m bench --full $(BENCH)

clean: ## what was built, and the demo
	@if [ -e target/demo ] && [ -x $(PYTHON) ]; then $(PYTHON) tools/demo.py stop; fi
	@. tools/cargo.sh; cargo clean
