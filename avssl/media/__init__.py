"""Open media files safely; read pictures and sound by time; write them. The only place that decodes or encodes.

    with open_media("clip.mp4") as media:
        frames = media.frames_at([0.0, 0.5, 1.0], short_side_px=128)
        sound = media.audio_between(0.0, 2.0, rate_hz=24000)

See docs/media.md for what is accepted, and the rules of time, streams, downmix and limits. Importing this package is
cheap; FFmpeg (through PyAV) is loaded with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avssl.media.encode import MediaWriter as MediaWriter
    from avssl.media.encode import encode_jpeg as encode_jpeg
    from avssl.media.encode import fastdecode_options as fastdecode_options
    from avssl.media.encode import write_video as write_video
    from avssl.media.flac import decode_flac as decode_flac
    from avssl.media.flac import encode_flac as encode_flac
    from avssl.media.limits import Limits as Limits
    from avssl.media.media import Media as Media
    from avssl.media.media import open_media as open_media
    from avssl.media.media import probe as probe
    from avssl.media.packed import packed_frames as packed_frames
    from avssl.media.sound_file import SoundWriter as SoundWriter
    from avssl.media.types import Audio as Audio
    from avssl.media.types import AudioInfo as AudioInfo
    from avssl.media.types import Frames as Frames
    from avssl.media.types import MediaInfo as MediaInfo
    from avssl.media.types import Source as Source
    from avssl.media.types import SpatialInfo as SpatialInfo
    from avssl.media.types import VideoInfo as VideoInfo

_HOME = {
    "encode": ("MediaWriter", "encode_jpeg", "fastdecode_options", "write_video"),
    "flac": ("decode_flac", "encode_flac"),
    "limits": ("Limits",),
    "media": ("Media", "open_media", "probe"),
    "packed": ("packed_frames",),
    "sound_file": ("SoundWriter",),
    "types": ("Audio", "AudioInfo", "Frames", "MediaInfo", "Source", "SpatialInfo", "VideoInfo"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
