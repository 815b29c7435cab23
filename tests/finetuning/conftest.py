"""A small random model and folders of coloured clips, each made once."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    from tiny_media import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("finetuning") / "model")


@pytest.fixture(scope="session")
def coloured(tmp_path_factory) -> Path:
    from coloured_clips import write_folders

    return write_folders(tmp_path_factory.mktemp("coloured"))
