"""Shared by all tests: one thread a process (two processes run at once on two cores), and the folder of real media."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import pytest


@pytest.fixture(scope="session")
def media_dir() -> Path:
    """Real clips that are not part of the repository; tests that need them skip where AVSSL_MEDIA is unset."""
    folder = os.environ.get("AVSSL_MEDIA")
    if not folder:
        pytest.skip("AVSSL_MEDIA names no folder of real media")
    return Path(folder)


def pytest_collection_modifyitems(items):
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_items:
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
