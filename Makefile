# What a clone can do; `make help` lists it. Every target makes the virtual environment that it needs, installs
# the package into it (never an editable install) and runs from another folder.

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
PACKAGE ?= .
PYTEST ?=
TESTS ?= tests
FUZZ_SECONDS ?= 30
SEED ?= 1

venv := $(abspath $(VENV))
root := $(CURDIR)
version := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' xsave/__init__.py)
sdist := $(root)/dist/xsave-$(version).tar.gz
# A folder is built in place, with the tools of the venv; a wheel or an sdist is a file that may be renewed.
package := $(abspath $(PACKAGE))
sources := $(shell find xsave cext -type f ! -name '*.so' ! -name '*.py[cod]' 2>/dev/null) \
           setup.py pyproject.toml MANIFEST.in README.md
needs := $(if $(wildcard $(package)/setup.py),$(sources),$(package))

BUILD_TOOLS := setuptools wheel Cython build
LINT_TOOLS := ruff mypy cython-lint typing_extensions
FUZZ_TOOLS := atheris
BENCH_TOOLS := construct
EXTRAS := [test,zstd,lz4]
# Flags of the checked builds; docs/building.md says why each is there.
# Tests of the slow model alone execute no compiled code: one build that runs them is enough.
UNCOMPILED = $(addprefix --ignore=$(root)/tests/,test_reference.py vectors/test_vectors_reference.py)
SANITIZE := CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
            LDFLAGS="-fsanitize=address,undefined"
PRELOAD = LD_PRELOAD="$(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libubsan.so)" \
          PYTHONMALLOC=malloc XSAVE_THIN=10 ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
INSTRUMENT := CC=clang LDSHARED="clang -shared" CFLAGS="-O1 -g -fsanitize=address,fuzzer-no-link"

pip = "$(venv)/bin/python" -m pip --disable-pip-version-check install --quiet --quiet -c constraints.txt
# The folder of the environment is "another folder": ./xsave, which has no compiled modules, is never imported.
run = cd "$(venv)" && $(UNDER) PYTHONSAFEPATH=1 XSAVE_INSTALLED=1
suite = $(run) bin/python -m pytest -c "$(root)/pyproject.toml" --rootdir "$(root)" $(addprefix "$(root)"/,$(TESTS)) $(PYTEST)

.PHONY: help tour test slow mutate bench lint tables portable sanitize fuzz fuzz-proof sdist wheel update clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1	/p' Makefile | expand -t 12

tour: $(venv)/.installed ## the whole toolkit on real state of this machine, in under a minute
	@$(run) bin/xsave tour

test: $(venv)/.installed ## the test suite, under five minutes
	@$(suite) -m "not slow"

slow: $(venv)/.installed mutate ## the long tests too, and mutation
	@$(suite)

mutate: $(venv)/.installed ## 50 operators of the compiled code, drawn by SEED, each flipped: the tests must notice
	@$(run) bin/python "$(root)/tests/mutate.py" --seed $(SEED) $(MUTATE)

bench: $(venv)/.installed $(venv)/.bench ## the goals of docs/benchmarks.md, measured here
	@$(run) bin/python "$(root)/benchmarks/run.py"

lint: $(venv)/.installed $(venv)/.lint ## ruff, cython-lint, mypy --strict, stubtest
	@PATH="$(venv)/bin:$$PATH"; status=0; \
	ruff check --quiet . || status=1; \
	cython-lint cext xsave || status=1; \
	mypy || status=1; \
	(cd "$(venv)" && PYTHONSAFEPATH=1 bin/python -m mypy.stubtest xsave --mypy-config-file "$(root)/pyproject.toml" \
	    --allowlist "$(root)/tests/house/stubtest.txt") || status=1; \
	exit $$status

tables: $(venv)/.installed ## writes the table of docs/audit.md
	@$(run) bin/python -m xsave.audit.tables "$(root)/docs/audit.md"

portable: $(sdist) ## the suite on a build without x86 code
	@XSAVE_PORTABLE=1 XSAVE_THIN=4 $(MAKE) test VENV=.venv-portable PACKAGE="$(sdist)" PYTEST="$(UNCOMPILED) $(PYTEST)"

# Reports are written to descriptor 2, behind Python's back: --capture=sys lets them through.
sanitize: $(sdist) ## the suite under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(SANITIZE) $(MAKE) $(root)/.venv-sanitize/.installed VENV=.venv-sanitize PACKAGE="$(sdist)"
	@$(MAKE) test VENV=.venv-sanitize PACKAGE="$(sdist)" UNDER='$(PRELOAD)' PYTEST="--capture=sys $(UNCOMPILED) $(PYTEST)"

fuzz: $(root)/.venv-fuzz/.ready ## every fuzz target, FUZZ_SECONDS each, on an instrumented build
	@cd .venv-fuzz && PYTHONSAFEPATH=1 bin/python "$(root)/tests/fuzz/run.py" --seconds $(FUZZ_SECONDS) $(FUZZ)

fuzz-proof: $(root)/.venv-fuzz/.ready ## the fuzzer finds an out-of-bounds write that is planted in a copy of the package
	@cd .venv-fuzz && $(INSTRUMENT) PYTHONSAFEPATH=1 bin/python "$(root)/tests/fuzz/plant.py" "$(sdist)" planted
	@cd .venv-fuzz && PYTHONSAFEPATH=1 bin/python "$(root)/tests/fuzz/run.py" --seconds 60 --find area \
	    --package planted/package

$(root)/.venv-fuzz/.ready: $(sdist)
	@$(INSTRUMENT) $(MAKE) $(root)/.venv-fuzz/.installed VENV=.venv-fuzz PACKAGE="$(sdist)" NEEDS=clang
	@.venv-fuzz/bin/python -m pip install --quiet --quiet -c constraints.txt $(FUZZ_TOOLS) && touch $@

sdist: $(sdist) ## the source distribution, in dist/

wheel: $(sdist) ## a wheel of this machine's kind from the source distribution, in dist/
	@rm -f dist/*.whl && $(pip:install=wheel) --no-build-isolation --no-deps --wheel-dir dist "$(sdist)"

$(sdist): $(sources) $(shell find tests docs benchmarks -type f ! -name '*.py[cod]' 2>/dev/null) | $(venv)/.made
	@"$(venv)/bin/python" -m build --no-isolation --sdist --outdir dist . >/dev/null 2>&1 && touch "$(sdist)"

$(venv)/.installed: $(needs) $(venv)/.made
	@echo "installing xsave from $(package)"
	@if [ -d build ]; then find build -name '*.py*' -path 'build/lib*' -delete; fi
	@$(pip) --no-build-isolation "$(package)$(EXTRAS)"
	@touch $@

$(venv)/.lint: constraints.txt | $(venv)/.made
	@$(pip) $(LINT_TOOLS) && touch $@

# What a goal compares with; where it cannot be had, that line says so.
$(venv)/.bench: constraints.txt | $(venv)/.made
	@$(pip) $(BENCH_TOOLS) || echo "no $(BENCH_TOOLS): its line cannot be judged"
	@touch $@

$(venv)/.made: constraints.txt
	@PYTHON="$(PYTHON)" NEEDS="$(NEEDS)" sh tests/house/venv.sh "$(venv)"
	@$(if $(filter %.whl,$(package)),true,$(pip) --upgrade $(BUILD_TOOLS))
	@touch $@

update: ## renew constraints.txt from the registry
	@rm -rf .venv-update && PYTHON="$(PYTHON)" sh tests/house/venv.sh "$(root)/.venv-update"
	@.venv-update/bin/pip install --quiet --upgrade pip $(BUILD_TOOLS)
	@.venv-update/bin/pip install --quiet --upgrade --no-build-isolation ".$(EXTRAS)" $(LINT_TOOLS) $(FUZZ_TOOLS) $(BENCH_TOOLS)
	@{ sed '/^[^#]/,$$d' constraints.txt; .venv-update/bin/pip freeze --all --exclude xsave --exclude pip; } > .constraints.new
	@mv .constraints.new constraints.txt && rm -rf .venv-update

clean: ## everything that the targets above made
	@rm -rf .venv .venv-* build dist *.egg-info xsave/*.so
