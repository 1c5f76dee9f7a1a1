# Two environments, made from nothing: TensorFlow and PyTorch do not go together (README, Install).
# Each is rebuilt when the requirements in setup.cfg change.

PYTHON ?= python3.11
ENCODE := .venv/encode/bin
TRAIN := .venv/train/bin
BENCH := .venv/bench/bin
ENCODE_EXTRAS := encode,cluster,s3,hub,demo,dev
TRAIN_EXTRAS := train,s3,http,hub,torchdata,dev
BENCH_EXTRAS := train,http,bench
# Benchmarks of the encode environment; the others are checked in the train environment.
ENCODE_BENCHMARKS := $(wildcard benchmarks/encod*.py) benchmarks/full_codec.py \
	benchmarks/make_store.py benchmarks/store_bytes.py
EXCHANGE := build/exchange
# Processes that run tests; one thread each, as small networks only wait for each other on more.
TEST_PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 LATENTSET_EXCHANGE=$(EXCHANGE)

.PHONY: help bench-environment demo test test-encode test-train lint environments clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

environments: .venv/encode/.ready .venv/train/.ready ## both environments

.venv/encode/.ready: setup.cfg
	@echo "== encode environment: making .venv/encode (TensorFlow, about 2.5 GB, a few minutes)"
	@$(PYTHON) -m venv .venv/encode
	$(ENCODE)/pip install --quiet -e '.[$(ENCODE_EXTRAS)]'
	@touch $@

.venv/train/.ready: setup.cfg
	@echo "== train environment: making .venv/train (PyTorch, about 6 GB, a few minutes)"
	@$(PYTHON) -m venv .venv/train
	$(TRAIN)/pip install --quiet -e '.[$(TRAIN_EXTRAS)]'
	@touch $@

.venv/bench/.ready: setup.cfg
	@echo "== bench environment: making .venv/bench (the libraries that benchmarks compare with)"
	@$(PYTHON) -m venv .venv/bench
	$(BENCH)/pip install --quiet -e '.[$(BENCH_EXTRAS)]'
	@touch $@

bench-environment: .venv/bench/.ready ## a third environment, for benchmarks only (docs/performance.md)

demo: environments ## images -> stores -> classifiers -> a table and a picture in build/demo
	@recipes/demo/run $(ENCODE) $(TRAIN) build/demo

test: lint test-encode test-train ## every check and test, in both environments
	@echo "== the encode environment reads what the train environment wrote"
	$(PYTEST) $(ENCODE)/python -m pytest -q tests/datasets/test_exchange.py

lint: environments
	@echo "== ruff"
	$(TRAIN)/ruff check .
	$(TRAIN)/ruff format --check .
	@echo "== mypy --strict, pipeline and datasets"
	$(ENCODE)/mypy src/latentset/cli src/latentset/pipeline src/latentset/datasets \
		src/latentset/sharing tests/makers tests/pipeline tests/datasets tests/sharing \
		tests/project tests/conftest.py recipes/demo/images.py recipes/trashnet/split.py \
		$(ENCODE_BENCHMARKS)
	@echo "== mypy --strict, train and datasets"
	$(TRAIN)/mypy src/latentset/cli src/latentset/train src/latentset/paper src/latentset/datasets \
		src/latentset/__init__.py src/latentset/__main__.py src/latentset/torch.py \
		src/latentset/sharing \
		tests/makers/runs.py tests/makers/stores.py tests/makers/resuming.py tests/train tests/paper tests/api tests/datasets \
		$(filter-out $(ENCODE_BENCHMARKS),$(wildcard benchmarks/*.py))

test-encode: environments
	@echo "== tests in the encode environment: pipeline, datasets"
	@rm -rf $(EXCHANGE)
	$(PYTEST) $(ENCODE)/python -m pytest -n $(TEST_PROCESSES) tests/pipeline tests/datasets tests/sharing tests/project

test-train: environments
	@echo "== tests in the train environment: train, datasets"
	$(PYTEST) $(TRAIN)/python -m pytest -n $(TEST_PROCESSES) tests/train tests/paper tests/api tests/datasets tests/project

clean: ## remove the environments and everything made
	rm -rf .venv build
