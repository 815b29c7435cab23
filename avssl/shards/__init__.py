"""The shard format: the only place that knows how samples lie in tar files. See docs/shard-format.md."""

from typing import TYPE_CHECKING, Any

__all__ = ["BuildOptions", "ShardSet", "build", "merge", "verify"]

if TYPE_CHECKING:
    from avssl.shards.build import build
    from avssl.shards.merge import merge
    from avssl.shards.options import BuildOptions
    from avssl.shards.read import ShardSet
    from avssl.shards.verify import verify

_HOMES = {"BuildOptions": "options", "ShardSet": "read", "build": "build", "merge": "merge", "verify": "verify"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"avssl.shards.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'avssl.shards' has no attribute {name!r}")
