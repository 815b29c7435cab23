#!/bin/bash
# Pretrain on all GPUs of this machine (PER_NODE=2 for two processes, also without GPUs):
#   pipelines/torchrun/one_node.sh --config configs/avid_kinetics.yaml --run.dir runs/avid
# The same command continues a run that was stopped, with any number of processes that divides data.batch_size.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
exec "${PYTHON:-python}" "$here/launch.py" --standalone --nproc-per-node "${PER_NODE:-gpu}" -m avssl.cli.train "$@"
