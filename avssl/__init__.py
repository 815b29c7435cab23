"""Audio-visual self-supervised learning: pack videos, pretrain two towers, embed, separate.

Importing this package is cheap: torch and the decoders are imported when something needs them.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from avssl.models.folder import load


def __getattr__(name: str) -> Any:
    if name == "load":
        from avssl.models.folder import load

        return load
    raise AttributeError(f"module 'avssl' has no attribute {name!r}")
