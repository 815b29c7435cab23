"""Import torchvision and torchaudio beside a CPU build of torch.

PyPI's wheels of both are built for CUDA, so next to a CPU torch their compiled part cannot load and importing
the Python part raises. We need only the Python part. Upstream closed a guard for this unmerged.
Everything in this project imports the two packages through these functions, in worker processes too.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from pathlib import Path
from types import ModuleType
from typing import Any

_COMPILED = {"torchvision": "_C*.so", "torchaudio": "lib/_torchaudio*.so"}

_keep_alive: list[Any] = []  # a torch.library.Library unregisters its schemas when collected


@functools.cache
def torchvision() -> ModuleType:
    """The torchvision package; with a CPU torch, compiled operators such as `nms` may be missing."""
    if "torchvision" not in sys.modules and not has_compiled_part("torchvision"):
        import torch

        library = torch.library.Library("torchvision", "DEF")
        # The schemas that torchvision's Python part registers shape functions for at import.
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _keep_alive.append(library)
    import torchvision

    return torchvision


@functools.cache
def torchaudio() -> ModuleType:
    """The torchaudio package; with a CPU torch, forced alignment and the RNN-T loss may be missing."""
    if "torchaudio" not in sys.modules and not has_compiled_part("torchaudio"):
        stand_in: Any = types.ModuleType("torchaudio._extension")
        stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False
        stand_in._IS_ALIGN_AVAILABLE = False
        stand_in._check_cuda_version = lambda: None

        def fail_if_no_align(function):
            @functools.wraps(function)
            def refuse(*args, **kwargs):
                raise RuntimeError(f"torchaudio's {function.__name__} needs its compiled part, which this torch lacks")

            return refuse

        stand_in.fail_if_no_align = fail_if_no_align
        sys.modules["torchaudio._extension"] = stand_in
    import torchaudio

    return torchaudio


def has_compiled_part(package: str) -> bool:
    """Whether the compiled part of `torchvision` or `torchaudio` loads beside this torch."""
    import torch

    if torch.version.cuda is not None:
        return True  # a CUDA torch: the wheel's own import checks apply
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return True  # not installed: let the import say so
    for library in Path(spec.origin).parent.glob(_COMPILED[package]):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
    return True
