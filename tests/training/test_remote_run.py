"""Training from http, with a network that fails, is training from the disk: the same rows and the same losses."""

import dataclasses

from fault_server import FaultServer
from training_tools import changed, make_config

from avssl.shards.options import CacheConfig
from avssl.training.loop import Trainer


def test_from_http_as_from_the_disk(tree, debug_shards, tmp_path):
    tree = changed(tree, **{"run.steps": 4})
    Trainer(make_config(tree, **{"run.dir": str(tmp_path / "disk")}), say=lambda line: None).run()
    cache = dataclasses.asdict(CacheConfig(dir=str(tmp_path / "cache"), pause_s=0.01))
    with FaultServer(debug_shards) as dying, FaultServer(debug_shards) as mirror:
        sizes = [path.stat().st_size for path in sorted(debug_shards.glob("*.tar"))]
        dying.die_after = sum(sizes) // 2
        mirror.faults = {"shard-000001.tar": [503], "shard-000002.tar": [("drop", 5000)]}
        remote = {"data.shards": [f"{dying.url} {mirror.url}"], "data.cache": cache, "data.workers": 1}
        Trainer(make_config(tree, **remote, **{"run.dir": str(tmp_path / "http")}), say=lambda line: None).run()
        assert dying.dead
    assert (tmp_path / "http/rows.jsonl").read_bytes() == (tmp_path / "disk/rows.jsonl").read_bytes()
    # and a run may move from one to the other
    longer = {"run.steps": 6, "run.dir": str(tmp_path / "http")}
    Trainer(make_config(tree, **longer), say=lambda line: None).run()
    whole = changed(tree, **{"run.steps": 6, "run.dir": str(tmp_path / "disk")})
    Trainer(make_config(whole), say=lambda line: None).run()
    assert (tmp_path / "http/rows.jsonl").read_bytes() == (tmp_path / "disk/rows.jsonl").read_bytes()
