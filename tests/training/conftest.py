"""Real shards of a small rendered world, and the config that the tests of the loop start from."""

import sys
from pathlib import Path

import pytest
import torch

from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.synthetic.scene360 import MANIFEST, write_scenes360
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.world import WorldConfig, write_world

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))  # kill_and_resume, which is a program too

CLIPS = 24


@pytest.fixture(scope="session")
def debug_shards(tmp_path_factory) -> Path:
    """24 rendered clips of 2 s, in three shards: what the debug configs look for in data/debug."""
    folder = tmp_path_factory.mktemp("debug")
    write_world(WorldConfig(clips=CLIPS, classes=4, duration_s=2.0, size_px=64, seed=1), folder / "world")
    listing = list_sources(folder / "world")
    build(listing, folder / "shards", BuildOptions(clip_s=2.0, short_side_px=64, shard_clips=8))
    return folder / "shards"


@pytest.fixture(scope="session")
def debug360_shards(tmp_path_factory) -> Path:
    """24 clips of 1 s from 12 rendered 360° scenes: what the debug configs of AVSA look for in data/debug360."""
    folder = tmp_path_factory.mktemp("debug360")
    write_scenes360(Scene360Config(clips=12, duration_s=2.5, width_px=128, seed=1), folder / "scenes")
    listing = list_sources(folder / "scenes" / MANIFEST)
    build(listing, folder / "shards", BuildOptions(clip_s=1.25, short_side_px=64))
    return folder / "shards"


@pytest.fixture(scope="session")
def debug_tagger(tmp_path_factory) -> Path:
    """A tagger that has learned nothing, of the debug configs' size: what those of separation look for in runs/."""
    from avssl import config as configuration
    from avssl.models.folder import create_network, save_model
    from avssl.models.sound_config import TaggerModelConfig

    recipe = configuration.read(Path(__file__).parents[2] / "configs" / "tagger_frames_debug.yaml")
    config = configuration.build(TaggerModelConfig, recipe["model"])
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("debug_tagger")
    save_model(folder, create_network(config), config, card="")
    return folder


@pytest.fixture
def tree(debug_shards, tmp_path):
    """A run of eight steps on tiny towers that says everything at every step."""
    tree = {
        "run": {
            "dir": str(tmp_path / "run"),
            "steps": 8,
            "device": "cpu",
            "log_every": 1,
            "log_rows": True,
            "tensorboard": False,
            "checkpoint_every": 3,
        },
        "data": {
            "shards": [str(debug_shards)],
            "batch_size": 8,
            "workers": 0,
            "video": {"frames": 4, "fps": 8.0},
            "audio": {"duration_s": 1.0},
        },
        "model": {
            "video": {"name": "tiny_video"},
            "audio": {"name": "tiny_audio"},
            "video_input": {
                "frames": 4, "fps": 8.0, "size_px": 32, "resize_px": 36,
                "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
            },
            "audio_input": {
                "rate_hz": 24000, "duration_s": 1.0, "channels": 1,
                "front_end": {"name": "log_mel", "kwargs": {"fft": 1024, "hop": 480, "bands": 32}},
            },
            "head": {"hidden": [64], "dim": 32},
        },
        "task": {"name": "xid", "loss": "nce", "negatives": 32},
    }  # fmt: skip
    return tree
