"""One run on 1, then 2, then 4 processes, then 1 again: the rows and losses of a run that nobody touched."""

import json
import multiprocessing
import os
import socket

import pytest
from training_tools import changed, make_config, metrics_of

from avssl.errors import ConfigError
from avssl.training.loop import Trainer

BORDERS = [(1, 3), (2, 5), (4, 7), (1, 8)]  # processes, and the step that they stop after


def rank_of(config, rank, size, port):
    """A rank as torchrun starts one."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "elastic",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    import torch

    torch.set_num_threads(1)
    trainer = Trainer(config, say=lambda line: None)
    trainer.run()
    trainer.close()


def run(config, size):
    """Train with so many processes, forked from a server that has the imports done."""
    if size == 1:
        Trainer(config, say=lambda line: None).run()
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avssl.training.loop"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=rank_of, args=(config, rank, size, port)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(600)
        assert process.exitcode == 0


def rows_of(folder):
    return [json.loads(line)["rows"] for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_the_number_of_processes_may_change_at_every_restart(tree, tmp_path):
    tree = changed(tree, **{"task.bank_sharded": True, "optim.lr": 1e-5, "run.checkpoint_every": 100})
    run(make_config(tree, **{"run.dir": str(tmp_path / "one")}), 1)
    folder = tmp_path / "elastic"
    for size, steps in BORDERS:
        run(make_config(tree, **{"run.dir": str(folder), "run.steps": steps}), size)
    assert rows_of(folder) == rows_of(tmp_path / "one")
    ours, theirs = metrics_of(folder), metrics_of(tmp_path / "one")
    assert [line["step"] for line in ours] == list(range(1, 9))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=2e-4)
    starts = json.loads((folder / "environment.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [size for size, _ in BORDERS]


def test_a_number_that_does_not_divide_the_batch_is_refused_with_numbers(tree, tmp_path):
    from avssl.data.loader import Loader

    config = make_config(tree, **{"run.dir": str(tmp_path / "run")})
    with pytest.raises(ConfigError, match=r"batch_size 8 .* into 3 equal parts; .* 1, 2, 4 or 8 processes"):
        Loader(config.data, world_size=3)
