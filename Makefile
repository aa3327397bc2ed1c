# `make test` and `make demo` set themselves up. They need only make and CPython 3.9.2 to 3.15 with venv.

.DEFAULT_GOAL := help

# Empty: the newest supported Python on the path. `make PYTHON=/path/to/python3` selects another one.
PYTHON ?=

# These variables redirect pip's files or add other modules. The package index that the user configured stays.
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN PIP_NO_DEPS PIP_CONSTRAINT PIP_REQUIREMENT PIP_ONLY_BINARY PIP_NO_BINARY
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE PYTHONDONTWRITEBYTECODE PYTHONSAFEPATH
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# Runs under any Python, so it uses old syntax.
define CHECK_PYTHON
import sys
found = 'Python %d.%d.%d (%s)' % (sys.version_info[:3] + (sys.executable,))
if sys.version_info < (3, 9, 2) or sys.implementation.name != 'cpython':
    sys.exit(found + ' was found, but CPython 3.9.2 or newer is needed: name one with make PYTHON=/path/to/python3')
try:
    import ensurepip, venv
except ImportError:
    sys.exit(found + ' cannot make virtual environments: on Debian and Ubuntu, apt-get install python%d.%d-venv'
             % sys.version_info[:2])
endef
export CHECK_PYTHON

# $(1) is the directory, $(2) its lock file. Each candidate is started, because a version manager's python3.13 can be on the
# path and refuse to run. If this is interrupted, there is no .ready and the next run starts over.
define make-venv
	@python='$(PYTHON)'; \
	for name in python3.15 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do \
		test -z "$$python" && $$name -c "$$CHECK_PYTHON" >/dev/null 2>&1 && python=$$name; done; \
	python="$${python:-python3}"; \
	command -v "$$python" >/dev/null || { \
		echo "$$python was not found: install CPython 3.9.2 or newer, or name one with make PYTHON=/path/to/python3" >&2; exit 1; }; \
	"$$python" -c "$$CHECK_PYTHON" && echo "setting up $(1) with $$("$$python" -V)" && rm -rf $(1) && \
	"$$python" -m venv $(1) && $(1)/bin/python -m pip install -qq --require-hashes -r $(2)
	@touch $@
endef

# If an environment's Python is gone (upgraded, moved), set the environment up again.
$(foreach venv,.venv .venv-mcp1 .venv-site,$(shell $(venv)/bin/python -c pass 2>/dev/null || rm -f $(venv)/.ready))

RUN := .venv/bin/python
ARCHIVE := dist/sikkerkey-mcp.pyz
VAULT_ARCHIVE := dist/sikkerkey-vault.pyz
TYPED := $(wildcard sikkerkey_*.py) sikkerkey_cli build_zipapp.py bench bundle runtime vault tests tools

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1:\2/p' Makefile | while IFS=: read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

.venv/.ready: requirements/dev.txt
	$(call make-venv,.venv,$<)

# Empty on Python 3.9: the client needs 3.10. The tests that use it are skipped there.
.venv-mcp1/.ready: requirements/mcp1.txt
	$(call make-venv,.venv-mcp1,$<)

.PHONY: venv
venv: .venv/.ready .venv-mcp1/.ready ## set up .venv and .venv-mcp1 from the lock files

BUILDER := .venv/.ready build_zipapp.py $(wildcard bundle/*.py) LICENSE requirements/wheels.lock $(wildcard runtime/*.py runtime/*/*.py)

$(ARCHIVE): $(BUILDER) $(wildcard sikkerkey_*.py sikkerkey_cli/*.py sikkerkey_cli/edit/*.py)
	@$(RUN) build_zipapp.py

$(VAULT_ARCHIVE): $(BUILDER) $(shell find vault -type f ! -name "*.pyc")
	@$(RUN) build_zipapp.py --program vault

# Empty: one archive for all platforms.
PLATFORM ?=

.PHONY: zipapp
zipapp: $(if $(PLATFORM),$(BUILDER),$(ARCHIVE)) ## build dist/sikkerkey-mcp.pyz; PLATFORM=linux-x86_64 builds a small one
	@$(if $(PLATFORM),$(RUN) build_zipapp.py --platform $(PLATFORM),echo "$(ARCHIVE) is ready")

.PHONY: vault-zipapp
vault-zipapp: $(VAULT_ARCHIVE) ## build dist/sikkerkey-vault.pyz, the local vault in one file
	@echo "$(VAULT_ARCHIVE) is ready"

.PHONY: mcpb
mcpb: $(ARCHIVE) ## build and validate dist/sikkerkey-mcp.mcpb and server.json (needs npm)
	@$(RUN) tools/release.py mcpb $(if $(RELEASE),--release $(RELEASE)) $(if $(REGISTRY_NAME),--name $(REGISTRY_NAME))

# An Ed25519 key of OpenSSH, outside the checkout; ssh-keygen asks for its passphrase. BUILDER_ID=https://... names the builder.
SIGNING_KEY ?=

.PHONY: release
release: .venv/.ready ## build everything anew from a clean commit, with provenance, and sign it: SIGNING_KEY=path (needs npm, ssh-keygen)
	@$(RUN) tools/release.py release --key '$(SIGNING_KEY)' $(if $(RELEASE),--release $(RELEASE)) $(if $(REGISTRY_NAME),--name $(REGISTRY_NAME))

.PHONY: verify
verify: .venv/.ready ## check that builds are reproducible: build everything twice and compare
	@$(RUN) tools/release.py verify

# ONLY="windows suite" tries only what begins with these names.
ONLY ?=

.PHONY: test-platforms
test-platforms: $(ARCHIVE) $(VAULT_ARCHIVE) ## run the archives in Debian chroots, under qemu and wine, then the suite with four Pythons (needs root; hours)
	@$(RUN) -m tools.platforms $(ONLY)

.PHONY: test-network
test-network: .venv/.ready ## try dead addresses, a changed network and proxies in network namespaces (needs Linux and root)
	@$(RUN) -m tools.network

# CLIENT="codex gemini" tries only these. SET_UPS=now tries broken set-ups instead; SET_UPS=before those with an earlier commit.
# PEOPLE=1 tries only what people are asked.
CLIENT ?=
SET_UPS ?=
PEOPLE ?=

.PHONY: test-clients
test-clients: venv $(ARCHIVE) ## let real MCP clients manage a local vault (needs PyPI and npm; tmux for questions)
	@$(RUN) -m tools.clients $(if $(SET_UPS),--set-ups $(SET_UPS)) $(if $(PEOPLE),--people) $(CLIENT)

.PHONY: conformance
conformance: .venv/.ready ## run the official protocol suite (needs PyPI and npm)
	@$(RUN) tools/conformance.py

.PHONY: demo
demo: $(ARCHIVE) ## watch an official MCP client manage a local vault
	@$(RUN) tools/demo.py

.PHONY: recording
recording: $(ARCHIVE) ## redraw docs/recording.svg from a real session with a local vault (Linux, macOS)
	@$(RUN) tools/recording.py

.PHONY: page-pictures
page-pictures: .venv/.ready ## photograph the one-time page in build/page/ and docs/images/ (needs Chromium)
	@$(RUN) tools/page_screenshots.py --docs

.PHONY: dashboard-pictures
dashboard-pictures: .venv/.ready ## photograph the dashboard's pages in build/dashboard/ and docs/images/ (needs Chromium)
	@$(RUN) tools/dashboard_pictures.py --docs

.PHONY: dashboard-check
dashboard-check: .venv/.ready ## look for barriers on the dashboard's pages with axe-core (needs npm and Chromium)
	@$(RUN) tools/dashboard_check.py

.PHONY: test
test: lint types unit docs-check ## run lint, types, tests, then check the generated documentation

.PHONY: lint
lint: .venv/.ready ## ruff check, ruff format --check
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --quiet --check .

.PHONY: format
format: .venv/.ready ## format the code with ruff; tables are under `# fmt: off`
	@$(RUN) -m ruff format --quiet .

.PHONY: types
types: .venv/.ready ## mypy --strict
	@$(RUN) -m mypy --strict --no-error-summary $(TYPED)

.PHONY: unit
unit: venv $(ARCHIVE) $(VAULT_ARCHIVE) ## the tests, in three processes, warnings as errors
	@$(RUN) -m pytest --quiet --numprocesses 3 --dist worksteal

.PHONY: bench
bench: $(ARCHIVE) ## measure speed and memory against their bounds; writes bench/RESULTS.md (3 minutes)
	@$(RUN) -m bench

.PHONY: bench-vault
bench-vault: venv ## measure the local vault with up to 100,000 secrets; writes the end of bench/RESULTS.md (6 minutes)
	@$(RUN) -m bench.vault_size

SECONDS ?= 60
FUZZ = $(if $(TARGET),--target $(TARGET)) $(if $(CASE),--case $(CASE))

.PHONY: fuzz
fuzz: .venv/.ready ## fuzz for SECONDS=60 each; TARGET=, CASE= repeat one: stdin, process, arguments, answers, identity, client_files, command_line
	@$(RUN) -m tests.fuzz --seconds $(SECONDS) $(FUZZ)

SAMPLE ?= 40
SEED ?= 1
MUTANTS = $(if $(FILE),--file $(FILE)) $(if $(LINE),--line $(LINE))

.PHONY: mutants
mutants: venv $(ARCHIVE) $(VAULT_ARCHIVE) ## change the code in SAMPLE=40 places and expect tests to fail; SEED=1; FILE=, LINE= repeat one
	@$(RUN) tools/mutants.py --sample $(SAMPLE) --seed $(SEED) $(MUTANTS)

.PHONY: golden
golden: $(ARCHIVE) ## rewrite the golden files; review the diff
	@$(RUN) tools/golden.py

.PHONY: record
record: venv $(ARCHIVE) ## record an example call of every action in docs/examples.json, then `make docs`
	@RECORD_EXAMPLES=1 $(RUN) -m pytest --quiet tests/test_every_action.py
	@$(RUN) tools/docs.py

# REQUESTS_BEFORE=1 also builds and plays the earlier commit that is compared.
REQUESTS_BEFORE ?=

.PHONY: record-requests
record-requests: venv $(ARCHIVE) ## play the 25 requests of docs/requests.md and record their calls, then `make docs`
	@$(RUN) -m tools.user_requests $(if $(REQUESTS_BEFORE),--before)
	@$(RUN) tools/docs.py

.PHONY: docs
docs: .venv/.ready ## rewrite the generated documentation
	@$(RUN) tools/docs.py

.PHONY: docs-check
docs-check: .venv/.ready ## fail if generated documentation is out of date
	@$(RUN) tools/docs.py --check

# dev comes first and holds the others to the same versions. Extras stay: pip before 23.1 takes `urllib3[socks]` for a
# package without a hash if only `urllib3` has one.
COMPILE = build/lock/bin/uv pip compile --quiet --universal --python-version 3.9.2 --generate-hashes --no-header --no-emit-index-url \
	--no-strip-extras

.PHONY: lock
lock: .venv/.ready ## compile requirements/*.in to hashed lock files; add LOCKFLAGS=--upgrade for newer versions
	@cmp -s requirements/lock.txt build/lock/installed.txt || { $(RUN) -m venv --clear build/lock && \
		build/lock/bin/python -m pip install -qq --require-hashes -r requirements/lock.txt && cp requirements/lock.txt build/lock/installed.txt; }
	@cd requirements && for name in dev runtime vault mcp1 conformance site lock; do \
		case $$name in runtime|vault) constraint='--constraint dev.txt --no-annotate';; *) constraint=;; esac; \
		../$(COMPILE) $(LOCKFLAGS) $$constraint --output-file $$name.txt $$name.in || exit; done
	@cat requirements/runtime.in requirements/vault.in > build/lock/archives.in
	@$(filter-out --universal,$(COMPILE)) $(LOCKFLAGS) --python-platform linux --output-file build/lock/archives.txt build/lock/archives.in
	@$(RUN) build_zipapp.py --relock build/lock/archives.txt

PACKAGE ?= $(error name the package: make lock-npm PACKAGE=name@version)

.PHONY: lock-npm
lock-npm: .venv/.ready ## lock PACKAGE=name@version and what it needs, for test-clients, mcpb, bench and others (needs npm)
	@$(RUN) tools/npm.py $(PACKAGE)

.PHONY: advisories
advisories: .venv/.ready $(ARCHIVE) $(VAULT_ARCHIVE) ## ask the OSV database about every pinned version, and check them
	@$(RUN) tools/advisories.py --refresh
	@$(RUN) tools/docs.py

.venv-site/.ready: requirements/site.txt
	$(call make-venv,.venv-site,$<)

.PHONY: site
site: .venv-site/.ready ## build the documentation as a site in build/site/
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --quiet --clean
	@echo "build/site/ is ready: python3 -m http.server --bind 127.0.0.1 --directory build/site"

.PHONY: clean
clean: ## remove everything that was built or set up
	rm -rf .venv .venv-mcp1 .venv-site build dist .mypy_cache .ruff_cache .hypothesis
