"""360° sources: their sound as ambiX, their pictures looked at for being one sphere. NumPy, so workers need no torch.

The same formats as `avssl.spatial.formats` has for tensors, of which the first order is kept: W, Y, Z, X in SN3D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from avssl.errors import MediaError

if TYPE_CHECKING:
    from avssl.media import AudioInfo, SpatialInfo

AMBISONICS = ("ambix", "n3d", "fuma", "youtube")
PROJECTIONS = ("equirectangular",)
DECLARED = "declared"  # in the place of either: what the file's own boxes say, and nothing where they say nothing

_PLACES = {"ambix": (0, 1, 2, 3), "n3d": (0, 1, 2, 3), "fuma": (0, 2, 3, 1), "youtube": (2, 1, 4, 0)}  # of W, Y, Z, X
_GAINS = {"n3d": (1.0, *(3**-0.5,) * 3), "fuma": (2**0.5, 1.0, 1.0, 1.0)}
_UNUSED = {"youtube": (3, 5)}
_SILENT = 0.01  # of the loudest sample: what an encoder may leave in an unused channel
_WHOLE_ORDERS = (4, 9, 16)  # channels of the first, second and third order
_ASPECTS = (1.5, 2.5)  # a sphere is 2:1, or squeezed into 16:9; two of them are 1:1 or 4:1


def to_ambix(samples: np.ndarray, layout: str, name: str) -> tuple[np.ndarray, float]:
    """The decoder's channels [C, S] of a recording as first-order ambiX [4, S] within ±1, and the gain for that.

    The gain is the same for all channels, whose levels carry direction. Raises MediaError `not-ambisonic` where the
    channels are not what `layout` has.
    """
    channels, count = samples.shape
    unused = _UNUSED.get(layout, ())
    wanted = (6,) if unused else _WHOLE_ORDERS
    if channels not in wanted:
        said = " or ".join(map(str, wanted))
        raise MediaError(name, "not-ambisonic", f"has {channels} sound channels, {layout} ambisonics have {said}")
    peak = float(np.abs(samples).max()) if count else 0.0
    if count and unused and float(np.abs(samples[list(unused)]).max()) > _SILENT * peak:
        raise MediaError(
            name, "not-ambisonic", f"has sound in channels that are silent in {layout} ambisonics; it may be plain 5.1"
        )
    found = samples[list(_PLACES[layout])] * np.array(_GAINS.get(layout, (1.0,) * 4), np.float32)[:, None]
    gain = 1 / max(1.0, float(np.abs(found).max()) if count else 0.0)
    return (found * np.float32(gain)).astype(np.float32, copy=False), gain


def check_projection(video: Any, name: str) -> None:
    """MediaError `not-equirectangular` unless the picture (`width_px`, `height_px`) has the shape of one sphere."""
    low, high = _ASPECTS
    if not low <= video.width_px / video.height_px <= high:
        raise MediaError(
            name, "not-equirectangular",
            f"is {video.width_px}x{video.height_px}; one sphere is about twice as wide as high (stereoscopic pictures "
            "hold two)",
        )  # fmt: skip


def projection_of(said: str, spatial: SpatialInfo, name: str) -> str:
    """What the picture is (`none`, `equirectangular`): as was said, unless the file's own boxes contradict.

    Raises MediaError: `undeclared` if the file was to tell and does not, `not-equirectangular`, `stereoscopic`.
    """
    if said == "none":
        return said
    found = spatial.projection
    if said == DECLARED and found is None:
        raise MediaError(name, "undeclared", "does not say that its picture is a sphere; say so, if it is one")
    if found not in (None, "equirectangular"):
        raise MediaError(name, "not-equirectangular", f"says that its picture is {found}")
    if spatial.stereo not in (None, "mono"):
        raise MediaError(name, "stereoscopic", f"says that it has two pictures ({spatial.stereo}); give one eye's")
    return "equirectangular"


def ambisonics_of(said: str, spatial: SpatialInfo, sound: AudioInfo, name: str) -> str:
    """What the sound is (`none`, a format): as was said, unless the file's own `SA3D` box contradicts.

    Raises MediaError: `undeclared` if the file was to tell and does not, `not-ambisonic` for what is no ambiX.
    """
    box = spatial.ambisonics
    if said == "none" or (box is None and said != DECLARED):
        return said
    if box is None:
        hint = ""
        if (sound.codec, sound.channels) == ("aac", 6):
            hint = "; six channels of AAC are what YouTube's 360° clips have: if it is one, say youtube"
        raise MediaError(name, "undeclared", f"has no SA3D box that says what its {sound.channels} channels are{hint}")
    known = (box.ordering, box.normalisation) == ("acn", "sn3d") and box.periphonic
    if not known or box.order < 1 or len(box.channel_map) != sound.channels:
        raise MediaError(
            name, "not-ambisonic",
            f"says that its sound is of order {box.order}, {box.ordering}, {box.normalisation}, in "
            f"{len(box.channel_map)} channels, and has {sound.channels}; ambiX of at least the first order is wanted",
        )  # fmt: skip
    if said == DECLARED and sound.codec == "aac":
        raise MediaError(
            name, "undeclared",
            "has a SA3D box, but the order in which AAC channels are decoded depends on the encoder; listen, and say "
            "ambix or youtube",
        )  # fmt: skip
    if said not in (DECLARED, "ambix"):
        raise MediaError(name, "not-ambisonic", f"says that its sound is ambiX, not {said}")
    return "ambix"
