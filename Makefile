# make run    environment, demo study, report         make test        environment, all tests
# Everything lives in .venv; PYTHON names another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config.yaml
PROFILE ?= profiles/local
SNAKEMAKE := $(BIN)/snakemake --profile $(PROFILE) --configfile $(CONFIG)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run report test test-quick lint docs bench bench-large performance bench-scaling horovod train-conformers clean \
  install test-slurm

run: $(VENV)/run
	$(SNAKEMAKE)
	@$(MAKE) --no-print-directory report

# The workflow's own report beside ours: rules, parameters, run times and results in one zip file.
report: $(VENV)/run
	$(SNAKEMAKE) --report "$$($(BIN)/mdlatent check --print study-dir $(CONFIG))/report.zip"
	@echo "Open $$($(BIN)/mdlatent check --print study-dir $(CONFIG))/report.html"

install: $(VENV)/ok

$(VENV)/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: mdlatent needs Python 3.11 or newer, got $$($(PYTHON) --version); set PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

# What tests and checks need on top.
$(VENV)/ok: $(VENV)/run
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

test-quick: $(VENV)/ok
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/unit

test: $(VENV)/ok lint
	tests/install-tools.sh clusters
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/unit
	$(BIN)/python -m pytest --ignore tests/unit tests

# Several processes (DDP, Horovod) and a real Slurm cluster on this machine: root on Debian.
test-slurm: $(VENV)/ok
	tests/install-tools.sh clusters
	$(BIN)/python -m pytest tests/distributed tests/slurm

lint: $(VENV)/ok
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/mypy

# The table of settings in docs/configuration.md comes from the schema.
docs: $(VENV)/ok
	$(BIN)/python docs/make_configuration.py

# The programs that speed is compared with.
$(VENV)/bench: $(VENV)/ok
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

# Speed and memory side by side, one thread: results/bench/{bench.json,bars.json,bench.svg}. An error if a bar is missed.
bench: $(VENV)/bench
	$(BIN)/python benchmarks/run.py

# The same for a million points: minutes more. Adds to what `make bench` has written.
bench-large: $(VENV)/bench
	$(BIN)/python benchmarks/run.py --large

# The tables of docs/performance.md come from what the two have written.
performance: $(VENV)/bench
	$(BIN)/python docs/make_performance.py

# One process and two, DDP and Horovod if it is there: results/bench/scaling.json and the table of docs/parallel.md.
bench-scaling: $(VENV)/ok
	$(BIN)/python benchmarks/scaling.py

# Horovod for this environment, built once (minutes) and cached: `train.backend: horovod`.
horovod: $(VENV)/run
	envs/build-horovod.sh $(BIN)/python

# Torsion statistics, force field, ranker and conformation VAE, from your own multi-conformer SDF:
# make train-conformers SDF="a.sdf b.sdf.gz" [MORE="ligands.sdf"]
# What is killed goes on from its last epoch or molecule. OUT names the folder.
OUT ?= results/conformers
train-conformers: $(VENV)/run
	@test -n "$(SDF)" || { echo 'error: no data; give SDF="conformers.sdf", records of a molecule under one title' >&2; exit 1; }
	$(BIN)/python -m mdlatent.conformers.train $(SDF) --output $(OUT)/torsions.npz
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[label]'
	$(BIN)/python -m mdlatent.conformers.train_field $(SDF) $(if $(MORE),--more $(MORE)) --folds 2 --processes 2 \
	  --output $(OUT)/field.npz
	$(BIN)/python -m mdlatent.conformers.train_ranker $(SDF) --field $(OUT)/field-fold1.npz $(OUT)/field-fold2.npz \
	  --output $(OUT)/ranker.npz
	$(BIN)/python -m mdlatent.conformers.fit_autoencoder $(SDF) --variational --output-dir $(OUT)/vae

clean:
	rm -rf results .snakemake .pytest_cache .mypy_cache .ruff_cache
