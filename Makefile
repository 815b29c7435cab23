# The two commands of the README are `make demo` and `make test`; each first makes .venv by itself.
#   make demo VIDEOS=my/folder      your own videos instead of the rendered ones
#   make demo DEVICE=cuda           takes the CUDA build of torch (default: the CPU build, no CUDA package)
#   make test ARGS="-k resume"      arguments for pytest

PYTHON ?= python3
DEVICE ?= cpu
VIDEOS ?=
OUT    ?= demo
ARGS   ?=

BIN := .venv/bin
STAMP := .venv/.installed-$(DEVICE)
export DEVICE PYTHON

.PHONY: install demo test check format bench evidence-robust evidence-robust-why evidence-robust-small evidence-avsa evidence-avsa-small evidence-separation evidence-separation-small evidence-starter fuzz test-slurm clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints/cpu.txt pipelines/install.sh
	bash pipelines/install.sh

demo: $(STAMP)
	$(BIN)/python -m pipelines.demo --out "$(OUT)" --device "$(DEVICE)" $(if $(VIDEOS),--videos "$(VIDEOS)")

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_environment_file.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.loader $(if $(VIDEOS),--videos "$(VIDEOS)")
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.train_step --towers avid
	$(BIN)/python -m benchmarks.embed
	$(BIN)/python -m benchmarks.losses
	$(BIN)/python -m benchmarks.spatial
	$(BIN)/python -m benchmarks.separation

# The numbers of docs/robust-xid.md: 40 minutes on two quiet cores. What is finished stays in build/robustness.
# The part on real clips is skipped where AVSSL_MEDIA does not name the folder of media.
evidence-robust: $(STAMP)
	$(BIN)/python -m eval.robustness eval/robustness/rendered.yaml
	$(BIN)/python -m eval.robustness eval/robustness/real.yaml
	$(BIN)/python -m eval.robustness.page

evidence-robust-why: $(STAMP)
	$(BIN)/python -m eval.robustness eval/robustness/why.yaml
	$(BIN)/python -m eval.robustness.page

evidence-robust-small: $(STAMP)
	$(BIN)/python -m eval.robustness eval/robustness/small.yaml --result build/robustness/small.json

# The numbers of docs/avsa-evidence.md: under an hour on two quiet cores. What is finished stays in build/alignment.
evidence-avsa: $(STAMP)
	$(BIN)/python -m eval.alignment eval/alignment/full.yaml
	$(BIN)/python -m eval.alignment.ceiling eval/alignment/full.yaml
	$(if $(AVSSL_MEDIA),$(BIN)/python -m eval.alignment.chart)
	$(BIN)/python -m eval.alignment.page

evidence-avsa-small: $(STAMP)
	$(BIN)/python -m eval.alignment eval/alignment/small.yaml --work build/alignment_small --result build/alignment_small/small.json

# The numbers of docs/separation-evidence.md: 40 minutes on one quiet core. Needs AVSSL_MEDIA and two sound fonts (Debian's
# fluid-soundfont-gm and timgm6mb-soundfont, or a folder of them in AVSSL_SOUND_FONTS).
evidence-separation: $(STAMP)
	$(BIN)/python -m pip install -q --no-deps tinysoundfont==0.3.7
	$(BIN)/python -m eval.separation eval/separation/full.yaml
	$(BIN)/python -m eval.separation.page

evidence-separation-small: $(STAMP)
	$(BIN)/python -m eval.separation eval/separation/small.yaml --result build/separation/small.json

# The numbers of docs/finetune.md (needs AVSSL_MEDIA and the model `starter`): a minute.
evidence-starter: $(STAMP)
	$(BIN)/python -m eval.starter

# Coverage-guided fuzzing of the parsers that are ours: a minute each.
fuzz: $(STAMP)
	$(BIN)/python -m pip install -q 'atheris>=3.0'
	$(BIN)/python -m fuzz --seconds 60

# Two nodes of a real Slurm on this machine: pack as an array, pretrain, pre-emption, evaluation. Needs Debian and root.
test-slurm: $(STAMP)
	bash tests/slurm/install.sh
	$(BIN)/python tests/slurm/run.py --out build/slurm

clean:
	rm -rf .venv build dist *.egg-info
