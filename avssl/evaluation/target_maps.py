"""Maps of classes that come as files, and the views of them."""

from __future__ import annotations

import functools
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from avssl.errors import MediaError, UsageError
from avssl.evaluation.segmentation import NO_CLASS
from avssl.spatial.config import Variant
from avssl.spatial.views import source_positions

_ROUNDING = 1e-6  # of a map's time, far above that of a time in float64


class TargetMaps:
    """`FOLDER/SOURCE_WITHOUT_ENDING/NNNNNN.png`: the map shown from N / fps seconds of the source on."""

    def __init__(self, folder: str | Path, fps: float, classes: int):
        self.folder, self.fps, self.classes = Path(folder), fps, classes
        if not self.folder.is_dir():
            raise UsageError(f"protocol.maps: {folder} is no folder; name the one that holds the target maps")
        self._read = functools.lru_cache(maxsize=64)(self._read_file)

    def path(self, source: str, time_s: float) -> Path:
        """Where the map of a source at this time lies."""
        name = PurePosixPath(source).with_suffix("")
        parts = [part for part in name.parts if part not in ("/", "..")]
        return self.folder.joinpath(*parts, f"{int(time_s * self.fps + _ROUNDING):06d}.png")

    def at(self, source: str, time_s: float) -> Tensor:
        """Class numbers [H, W] uint8. MediaError `no-map`, `corrupt` or `classes` if it cannot be used."""
        return self._read(self.path(source, time_s))

    def _read_file(self, path: Path) -> Tensor:
        from PIL import Image

        try:
            with Image.open(path) as image:
                if image.mode not in ("L", "P"):
                    raise MediaError(str(path), "classes", f"has colours ({image.mode}); a map has one number a pixel")
                found = np.array(image, np.uint8)
        except FileNotFoundError:
            raise MediaError(str(path), "no-map", "there is no such target map") from None
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise MediaError(str(path), "corrupt", f"cannot be read as a picture ({error})") from None
        highest = int(found[found != NO_CLASS].max(initial=0))
        if highest >= self.classes:
            raise MediaError(str(path), "classes", f"has the number {highest}, but there are {self.classes} classes")
        return torch.from_numpy(found)


def see_map(map_: Tensor, view_deg: Tensor, size_px: int, projection: Variant) -> Tensor:
    """Views [K, size_px, size_px] uint8 of a map [H, W] from viewpoints [K, 5]: the number of the nearest pixel."""
    height, width = map_.shape
    source_px = torch.tensor([[height, width]])
    positions = source_positions(view_deg[None], (size_px, size_px), source_px, projection=projection)[0]
    corner = 0.5 if projection == "released" else 0.0  # its pixels have their centres at whole numbers
    column = (positions[..., 0] * width + corner).floor().long() % width
    row = (positions[..., 1] * height + corner).floor().long().clamp(0, height - 1)
    return map_[row, column]
