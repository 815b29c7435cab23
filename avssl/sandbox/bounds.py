"""How much a process that decodes files of strangers may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Caps on one confined process, beside the time limits that its parent keeps."""

    memory_mb: int = 4096
    """Address space in MiB beyond what the process has when it is confined; the libraries that decode take some 200."""
    descriptors: int = 64
    """Open files at a time, libraries under import included."""
