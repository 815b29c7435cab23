"""The shard format: the only place that knows how samples lie in tar files. See docs/shard-format.md.

Reading is exported here; `build`, `merge` and `verify` live in the modules of those names.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["BuildOptions", "ShardSet"]

if TYPE_CHECKING:
    from avssl.shards.options import BuildOptions
    from avssl.shards.read import ShardSet

_HOMES = {"BuildOptions": "options", "ShardSet": "read"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"avssl.shards.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'avssl.shards' has no attribute {name!r}")
