#!/bin/bash
# Pretrain on several machines without a scheduler: start it on each of them with the same HEAD and NODES.
#   HEAD=node0.example.org NODES=4 pipelines/torchrun/many_nodes.sh --config configs/avid_kinetics.yaml --run.dir /shared/runs/avid
# HEAD is one of them, PORT one that they reach there. NODES=2:4 begins as soon as two have come, and takes up to four.
# RESTARTS=3 starts all again after a machine or a process was lost; a run goes on after its last checkpoint.
# run.dir and data.shards must mean the same on all of them (a shared folder, or remote shards).
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
exec "${PYTHON:-python}" "$here/launch.py" --nnodes "${NODES:?how many machines}" --nproc-per-node "${PER_NODE:-gpu}" \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:?host name of the first machine}:${PORT:-29400}" --rdzv-id "${RUN_ID:-avssl}" \
  --max-restarts "${RESTARTS:-0}" -m avssl.cli.train "$@"
