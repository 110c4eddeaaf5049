# Everything runs in .venv, which is made from requirements.txt at first use.
PYTHON ?= python3
BIN := .venv/bin
HEAVY := IPython _pytest botocore dask distributed hypothesis ipykernel jupyter_client jupyter_server matplotlib narwhals numpy \
  opentelemetry pandas pydantic rich scipy sklearn strands
# Images often set it. Every kernel, worker and test would then compile all that it imports, for seconds, again and again.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help demo test lab browser check notebooks lock clean

help:            ## what can be made
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

demo: .venv/ready   ## 30 tickets through strong-only, cheap-only and cascade, in a table
	@$(BIN)/workshop demo

test: .venv/ready   ## style, types, every test, every notebook
	@# Four workers on two cores, since tests wait for kernels and latencies; numpy's threads would only wait for each other.
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder

lab: .venv/ready   ## JupyterLab, opened at notebook 00
	$(BIN)/jupyter lab notebooks/00_check_your_setup.ipynb --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

browser:         ## Chromium for the browser tests, where apt-get can install it
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium fonts-dejavu-core; \
	else \
	  echo "Chromium is missing: install chromium or google-chrome and put it on the PATH. Until then the browser tests are skipped."; \
	fi

notebooks: .venv/ready   ## run the solved notebooks and build the learners' copies from them
	$(BIN)/workshop build-notebooks --render

lock:            ## write requirements.txt again from pyproject.toml
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install -q uv
	.venv-lock/bin/uv pip compile --universal --python-version 3.11 --extra dev --upgrade --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links -q -o requirements.txt pyproject.toml
	echo "-e ." >> requirements.txt
	rm -rf .venv-lock

clean:           ## remove the environment and all caches
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache *.egg-info

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@# uv installs the same lock in a fraction of the time. It does not know pip's configuration: where it finds no index, pip does it.
	@# What is never imported need not be compiled: that saves half a minute.
	@{ $(BIN)/pip install -q --no-compile --disable-pip-version-check "uv>=0.9" \
	  && $(BIN)/uv pip install -q --python $(BIN)/python -r requirements.txt; } \
	|| $(BIN)/pip install -q --no-compile --disable-pip-version-check -r requirements.txt
	@# The rest is compiled as it is imported, but these by every worker of the tests and every kernel at the same time.
	@$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(HEAVY:%=.venv/lib/python*/site-packages/%) || true
	@touch $@
