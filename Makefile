# make demo    record the model that ships with the package, offline, and leave the tape cat.tape
# make test    every test, but for those that start programs of others: make test-real test-tools
# make web     the page's bundle, from web/ (needs node; nothing else does)
# make check   format, lint, types, floors and the quick tests: the loop to work in
#
# Each makes .venv first, from constraints.txt, and makes it again only when what it is made from changes.

.DEFAULT_GOAL := check
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.tokentape
USABLE := $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null

# The interpreter that makes .venv: `make env PYTHON=/path/to/python3.12`.
ifndef PYTHON
PYTHON = $(firstword $(foreach python,python3.11 python3.12 python3.13 python3,$(shell $(python) -c 'print("$(python)")' 2>/dev/null)) python3)
endif

# Nothing here asks the hub for anything. `HF_HUB_OFFLINE=0 make bench` lets it.
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export PIP_NO_INPUT ?= 1
export PIP_ROOT_USER_ACTION ?= ignore

.PHONY: help env demo test check lint format web web-check serve-env llama-env test-real guidellm-env aiperf-env vllm-bench-env test-tools card docs-reference docs screenshots bench clean

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-16s%s\n", $$1, $$2 }'

env: $(STAMP)  ## .venv with every version pinned

# torch is asked for first and by its exact version: left to a resolver, it may become a build of several gigabytes.
$(STAMP): pyproject.toml constraints.txt src/tokentape/_version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: tokentape needs Python 3.11 or newer" >&2; \
	  echo "why:   $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)" >&2; \
	  echo "fix:   make PYTHON=/path/to/python3.11 $(or $(MAKECMDGOALS),check)" >&2; \
	  exit 1; }
	@rm -f $@
	@$(USABLE) || { $(PYTHON) -m venv $(VENV) && $(USABLE); } || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)" hatchling editables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[local,dev]'
	@touch $@

demo: $(STAMP)  ## record the model that ships, and leave cat.tape
	$(BIN)/tokentape record demo "The cat sat on the" --output cat.tape --overwrite

# A process for each core, and tests are taken over by those that have done theirs.
SHARED := -n auto --maxprocesses 8 --dist worksteal

test: $(STAMP)  ## every test, but for those of test-real and test-tools
	$(BIN)/python -m pytest $(SHARED) -m "not real and not tools"

check: lint  ## format, lint, types, floors, quick tests
	$(BIN)/python -m pytest -q $(SHARED) -m "not slow and not real and not tools"

lint: $(STAMP)  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## write the format and the repairs that ruff is sure of
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

WEB := web/node_modules/.package-lock.json

$(WEB): web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error

web: $(WEB)  ## the bundle of the page, from its TypeScript (needs node)
	cd web && node build.mjs

web-check: $(WEB)  ## types and tests of the page, and that the committed bundle is what its source gives
	cd web && npx tsc --noEmit && node test.mjs
	@built=$$(mktemp -d) && trap 'rm -rf "$$built"' EXIT && (cd web && node build.mjs --out "$$built") && \
	diff -rq "$$built" src/tokentape/views/static || { \
	  echo "error: src/tokentape/views/static is not what web/ gives" >&2; \
	  echo "fix:   make web, and commit what it writes" >&2; \
	  exit 1; }

# The servers that tests/real starts, each in an environment of its own. Without them those tests are skipped.
SERVE := build/serve-venv
LLAMA := build/llama-venv
LLAMA_CPP_PYTHON := 0.3.36

serve-env: $(SERVE)/.tokentape  ## transformers serve, for tests/real
llama-env: $(LLAMA)/bin/llama-server  ## llama.cpp's server, for tests/real: some five minutes of compiling (needs g++)

$(SERVE)/.tokentape: constraints.txt tests/real/requirements-serve.txt
	$(PYTHON) -m venv --clear $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(SERVE)/bin/python -m pip install --quiet --constraint constraints.txt --requirement tests/real/requirements-serve.txt
	@touch $@

# No curl, no OpenSSL, no page, no OpenMP: what a server on this machine's loopback does without is not compiled.
LLAMA_OPTIONS := -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
  -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF \
  -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DGGML_CCACHE=OFF -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1

$(LLAMA)/bin/llama-server: tests/real/requirements-llama.txt
	$(PYTHON) -m venv --clear $(LLAMA)
	$(LLAMA)/bin/python -m pip install --quiet --requirement tests/real/requirements-llama.txt
	rm -rf build/llama-source build/llama-build
	$(LLAMA)/bin/python -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation --dest build/llama-source \
	  llama-cpp-python==$(LLAMA_CPP_PYTHON)
	tar -xzf build/llama-source/llama_cpp_python-$(LLAMA_CPP_PYTHON).tar.gz -C build/llama-source --strip-components=1
	PATH="$(CURDIR)/$(LLAMA)/bin:$$PATH" cmake -S build/llama-source/vendor/llama.cpp -B build/llama-build -G Ninja \
	  $(LLAMA_OPTIONS) >build/llama-configure.log
	PATH="$(CURDIR)/$(LLAMA)/bin:$$PATH" nice -n 5 cmake --build build/llama-build --target llama-server >build/llama-build.log
	cp build/llama-build/bin/llama-server $@
	rm -rf build/llama-source build/llama-build

test-real: $(STAMP) serve-env llama-env  ## the tests that start real servers
	TOKENTAPE_REAL_SERVERS=required $(BIN)/python -m pytest tests/real

# The benchmark tools whose numbers ours are held against, each in an environment of its own. Without them those tests are skipped.
# Every version is pinned, so nothing is left to a resolver: --no-deps. What is imported is compiled then: --no-compile.
GUIDELLM := build/guidellm-venv
AIPERF := build/aiperf-venv
VLLM_BENCH := build/vllm-bench-venv
PINNED := -m pip install --quiet --no-compile --no-deps --requirement

guidellm-env: $(GUIDELLM)/.tokentape  ## GuideLLM, for test-tools and benchmarks/guidellm.py
aiperf-env: $(AIPERF)/.tokentape  ## AIPerf's metrics, for test-tools
vllm-bench-env: $(VLLM_BENCH)/.tokentape  ## the code of vllm bench serve, for test-tools

$(GUIDELLM)/.tokentape: constraints.txt tests/imports/requirements-guidellm.txt
	$(PYTHON) -m venv --clear $(GUIDELLM)
	$(GUIDELLM)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(GUIDELLM)/bin/python $(PINNED) tests/imports/requirements-guidellm.txt
	@touch $@

$(AIPERF)/.tokentape: tests/study/tools/requirements-aiperf.txt
	$(PYTHON) -m venv --clear $(AIPERF)
	$(AIPERF)/bin/python $(PINNED) tests/study/tools/requirements-aiperf.txt
	@touch $@

# Of the wheel (321 MB, of which nothing compiled is used) only the files of the serving benchmark stay.
$(VLLM_BENCH)/.tokentape: $(addprefix tests/study/tools/,requirements-vllm-bench.txt requirements-vllm-wheel.txt unpack_vllm_bench.py)
	$(PYTHON) -m venv --clear $(VLLM_BENCH)
	$(VLLM_BENCH)/bin/python $(PINNED) tests/study/tools/requirements-vllm-bench.txt
	$(VLLM_BENCH)/bin/python -m pip download --quiet --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
	  --implementation cp --abi abi3 --dest $(VLLM_BENCH)/wheel --requirement tests/study/tools/requirements-vllm-wheel.txt
	$(VLLM_BENCH)/bin/python tests/study/tools/unpack_vllm_bench.py $(VLLM_BENCH)/wheel
	rm -rf $(VLLM_BENCH)/wheel
	@touch $@

test-tools: $(STAMP) guidellm-env aiperf-env vllm-bench-env  ## the tests that ask the benchmark tools themselves
	TOKENTAPE_BENCH_TOOLS=required $(BIN)/python -m pytest -m tools tests/imports tests/study

card: $(STAMP)  ## measure the demo model against its world, as its card says
	$(BIN)/python tools/evaluate_demo.py

docs-reference: $(STAMP)  ## the generated reference pages
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/metrics_reference.py
	$(BIN)/python tools/commands_reference.py

docs: $(STAMP)  ## the site of the docs, into build/docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

screenshots: $(STAMP)  ## the pictures of the page in docs/images, from the tests that look at it
	TOKENTAPE_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/browser/test_pictures.py

bench: $(STAMP)  ## every benchmark, one after another
	@set -e; for bench in benchmarks/[!_]*.py; do \
	  test -e "$$bench" || { echo "no benchmark in benchmarks/" >&2; exit 1; }; \
	  echo "== $$bench"; $(BIN)/python "$$bench" </dev/null; \
	done

clean:  ## remove what was made, .venv too
	rm -rf $(VENV) build dist web/node_modules .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -f cat.tape cat.tape-journal cat.tape-shm cat.tape-wal
	find src tests tools benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
