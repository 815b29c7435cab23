"""Take from the present process what decoding does not need. There is no way back.

| protection | how | where |
| --- | --- | --- |
| `memory` | RLIMIT_AS | Linux |
| `no-writing` | RLIMIT_FSIZE 0, no core files | Linux, macOS |
| `few-descriptors` | all but the named ones closed, RLIMIT_NOFILE | Linux, macOS |
| `no-other-files` | Landlock: only Python's own files, to be read | Linux 5.13 |
| `no-network`, `no-programs`, `no-new-files` | a filter of system calls (seccomp) | Linux on x86-64 and aarch64 |

Nothing here needs privileges. Windows has none of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from avssl.sandbox.bounds import Bounds

PROTECTIONS = (
    "memory", "no-writing", "few-descriptors", "no-other-files", "no-network", "no-programs", "no-new-files",
)  # fmt: skip


def confine(bounds: Bounds, keep: Iterable[int]) -> list[str]:
    """Limit this process; returns which of `PROTECTIONS` hold. Descriptors other than `keep` and 0 to 2 are closed.

    Call it before there are threads: Landlock holds for the calling one and those it starts.
    """
    return [*_limit_resources(bounds, sorted(keep)), *_filter()]


def limit_cpu(seconds: float) -> None:
    """Let the system end this process when it has computed for so many seconds more."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 1, hard))


def _limit_resources(bounds: Bounds, keep: list[int]) -> Iterator[str]:
    try:
        import resource
    except ImportError:  # Windows
        return
    first = 3
    for descriptor in keep:
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, max(first, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (bounds.descriptors, bounds.descriptors))
    yield "few-descriptors"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    yield "no-writing"
    if sys.platform == "linux":  # elsewhere the kernel does not keep it
        cap = _address_space() + (bounds.memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
        yield "memory"


def _address_space() -> int:
    """Of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _filter() -> Iterator[str]:
    if sys.platform != "linux":
        return
    from avssl.sandbox import landlock, syscalls

    with contextlib.suppress(OSError):
        alone = len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - threads from before would not be held
        syscalls.no_new_privileges()
        landlock.read_only(_own_files())
        if alone:
            yield "no-other-files"
    with contextlib.suppress(OSError):
        syscalls.filter_calls()
        yield from ("no-network", "no-programs", "no-new-files")


def _own_files() -> list[str]:
    """Where Python, its packages and shared libraries lie: modules are imported when they are first needed."""
    python = [sys.prefix, sys.base_prefix, *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))]
    packages = [path for path in sys.path if path.rstrip("/").endswith(("site-packages", "dist-packages"))]
    libraries = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"]
    libraries += [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    system = ["/usr/share/zoneinfo", "/dev/null", "/dev/urandom", "/proc/cpuinfo", "/sys/devices/system/cpu"]
    return list(dict.fromkeys([*python, *packages, str(Path(__file__).parents[1]), *libraries, *system]))
