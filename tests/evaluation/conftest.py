"""Packed 360° scenes, a model for them and maps of what is seen, each made once."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scene_shards(tmp_path_factory) -> Path:
    from scene_shards import write_scene_shards

    return write_scene_shards(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def avsa_model(tmp_path_factory) -> Path:
    from scene_shards import write_model

    return write_model(tmp_path_factory.mktemp("avsa") / "model")


@pytest.fixture(scope="session")
def scene_maps(tmp_path_factory) -> Path:
    from scene_shards import write_maps

    return write_maps(tmp_path_factory.mktemp("maps"))
