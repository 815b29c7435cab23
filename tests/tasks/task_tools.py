"""A task on a model that costs nothing, batches for it, and steps as the training loop takes them."""

import tempfile
from pathlib import Path

import torch
from torch import multiprocessing, nn

from avssl import config as configuration
from avssl.tasks.xid import XIDTask
from avssl.tasks.xid_config import XIDConfig
from avssl.training.batch_norm import synchronise_batch_norm
from avssl.training.distributed import ProcessGroup

ROWS = 14
DIM = 8

WEIGHTS, SOFT = {"minimum": 0.1, "every_passes": 0.5}, {"temperature": 0.3, "agreement_temperature": 0.5}
BATCH_WEIGHTS = {**WEIGHTS, "statistics": "batch", "momentum": 0.5}
AGREEMENT = {"positives": 3, "negatives": 4, "every_passes": 1.0}
TEMPERATURES = {"rho": 1.0, "start": 0.2, "low": 0.1, "high": 0.4}
ROBUST = {"weights": WEIGHTS, "soft": SOFT}
QUEUE = {"targets": "queue", "queue": {"size": 7, "momentum": 0.9}}

COMBINATIONS = {
    "xid": {},
    "nce": {"loss": "nce"},
    "siglip": {"loss": "siglip"},
    "w": {"weights": WEIGHTS},
    "w-batch": {"weights": BATCH_WEIGHTS},
    "w-clamp-nce": {"weights": {**WEIGHTS, "truncation": "clamp"}, "loss": "nce"},
    "s-bootstrapping": {"soft": {**SOFT, "strategy": "bootstrapping"}},
    "s-swapped-memory": {"soft": {**SOFT, "strategy": "swapped", "query": "memory"}},
    "s-neighbor": {"soft": {**SOFT, "strategy": "neighbor", "query": "memory"}},
    "robust": ROBUST,
    "robust-all": {**ROBUST, "negatives": "all"},
    "robust-all-bfloat16": {**ROBUST, "negatives": "all", "bank_dtype": "bfloat16"},
    "robust-sharded": {**ROBUST, "bank_sharded": True},
    "nce-all": {"loss": "nce", "negatives": "all"},
    "batch": {"targets": "batch"},
    "batch-nce": {"targets": "batch", "loss": "nce"},
    "batch-siglip": {"targets": "batch", "loss": "siglip"},
    "batch-robust": {"targets": "batch", "soft": SOFT, "weights": BATCH_WEIGHTS},
    "queue": QUEUE,
    "queue-robust": {**QUEUE, "soft": SOFT, "weights": BATCH_WEIGHTS},
    "queue-joint-nce": {**QUEUE, "loss": "nce", "within": 1.0},
    "joint": {"within": 0.5, "loss": "nce"},
    "self": {"within": 1.0, "cross": 0.0},
    "joint-robust": {**ROBUST, "within": 0.5},
    "cma": {"agreement": AGREEMENT, "loss": "nce"},
    "cma-alone": {"agreement": {**AGREEMENT, "coefficient": 1.0}, "loss": "nce"},
    "cma-softmax-robust": {**ROBUST, "agreement": AGREEMENT, "within": 0.5},
    "isogclr": {"temperatures": TEMPERATURES},
    "isogclr-batch-weighted": {"targets": "batch", "temperatures": TEMPERATURES, "weights": BATCH_WEIGHTS},
    "hard": {"hard_share": 0.5},
    "hard-batch-weighted": {"hard_share": 0.5, "targets": "batch", "weights": BATCH_WEIGHTS},
    "monitor": {"monitor": True, "negatives": "all"},
}


class TinyModel(nn.Module):
    """Two linear towers with batch norm: embeddings [B, DIM] of inputs [B, 6]."""

    dim = DIM

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.video = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, DIM))
        self.audio = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, DIM))

    def forward(self, video, audio):
        return {"video": self.video(video), "audio": self.audio(audio)}


def make_config(**options):
    return configuration.build(XIDConfig, {"negatives": 6, "temperature": 0.2, **options}, "task")


def make_task(seed=0, usable=None, ranks=None, steps_per_pass=4.0, rows=ROWS, **options):
    model = synchronise_batch_norm(TinyModel(seed), ranks or ProcessGroup())
    config = make_config(**options)
    usable = None if usable is None else torch.tensor(usable)
    settings = {"rows": rows, "usable": usable, "seed": seed, "steps_per_pass": steps_per_pass}
    return XIDTask(config, model, ranks=ranks or ProcessGroup(), **settings).train()


def make_batch(rows, seed=0, clips=1):
    """A batch that shows each row with its own constant part, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    of_rows = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(7))[rows][:, None]
    noise = torch.randn(2, len(rows), clips, 6, generator=generator)
    return {"row": torch.tensor(rows), "video": of_rows + noise[0], "audio": 0.5 * of_rows + noise[1]}


# Rows repeat within a batch and across the border of two ranks.
STEPS = [[3, 1, 4, 1, 5], [9, 2, 3, 5, 3], [8, 9, 7, 9, 3], [2, 3, 8, 4, 6], [2, 6, 4, 3, 3], [8, 3, 2, 7, 9]]
PARTS = [2, 3]


def run(task, steps, *, ranks=None, first=0, wrapped=None, optimizer=None):
    """Steps of the training loop; each gives its metrics, on all ranks those of the global batch."""
    ranks = ranks or ProcessGroup()
    optimizer = optimizer or torch.optim.SGD(task.parameters(), lr=0.05)
    found = []
    for number, rows in enumerate(steps, first):
        batch = make_batch(rows, seed=number)
        if ranks.size > 1:
            start = sum(PARTS[: ranks.rank])
            batch = {key: value[start : start + PARTS[ranks.rank]] for key, value in batch.items()}
        task.before_step(number, ranks)
        output = (wrapped or task)(batch, ranks=ranks, seed=number)
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        task.after_step([output["memory"]], ranks)
        found.append({name: float(value) for name, value in output["metrics"].items()})
    return found


def in_two_processes(work, *arguments):
    """`work(ranks, *arguments)` in two processes; what each of them returned (tensors and plain values)."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_start, (folder, work, arguments), nprocs=2)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]


def _start(rank, folder, work, arguments):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(work(ProcessGroup(), *arguments), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
