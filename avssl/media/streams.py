"""What a file holds, which streams are read, and what its header promises about their ends.

Video: of the streams with an accepted codec that are no cover pictures, the default ones first, among them the largest
picture, then the first. Audio: the default ones first, then most channels, then the highest rate, then the first;
unless the caller names one.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from av.stream import Disposition

from avssl.errors import MediaError
from avssl.media.guard import AUDIO_CODECS, VIDEO_CODECS
from avssl.media.limits import Limits

STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_EXACT = ("mov", "wav", "flac", "aiff")  # containers whose header counts every sample of every stream
_AVI_SLACK_S = 1  # the count in AVI's header may be off by some pictures


def choose(container: Any, name: str, limits: Limits, audio_stream: int | None = None) -> tuple[Any | None, Any | None]:
    """(video stream, audio stream) to read, None where there is none.

    audio_stream: which of the file's sound streams, counted from 0; None: the best one.
    Raises MediaError: `too-large` past the caps, `forbidden-codec` where all streams (or the one asked for) are of
    codecs off the list, `empty` where there is neither picture nor sound, `no-audio` where there is no sound stream of
    that number.
    """
    streams = [stream for stream in container.streams if not _is_empty(container, stream)]
    if len(container.streams) > limits.max_streams:
        raise MediaError(name, "too-large", f"{len(container.streams)} streams are more than {limits.max_streams}")
    video = [s for s in streams if s.type == "video" and not s.disposition & STILL]
    audio = [s for s in streams if s.type == "audio"]
    if not video and not audio:
        raise MediaError(name, "empty", "holds neither pictures nor sound")
    readable_video = [s for s in video if _codec(s) in VIDEO_CODECS]
    readable_audio = [s for s in audio if _codec(s) in AUDIO_CODECS]
    if not readable_video and not readable_audio:
        codecs = ", ".join(sorted({_codec(s) or "unknown" for s in video + audio}))
        raise MediaError(name, "forbidden-codec", f"none of its codecs is accepted ({codecs})")
    best_video = max(readable_video, key=lambda s: (_default(s), _pixels(s), -s.index), default=None)
    if audio_stream is None:
        best_audio = max(
            readable_audio,
            key=lambda s: (_default(s), s.codec_context.channels, s.codec_context.rate, -s.index),
            default=None,
        )
    else:
        best_audio = _numbered(container, name, audio_stream, readable_audio)
    if best_video is not None and _pixels(best_video) > limits.max_pixels:
        context = best_video.codec_context
        raise MediaError(name, "too-large", f"pictures of {context.width}x{context.height} pixels are too large")
    if best_audio is not None and best_audio.codec_context.channels > limits.max_channels:
        raise MediaError(name, "too-large", f"{best_audio.codec_context.channels} sound channels are too many")
    if best_audio is not None and best_audio.codec_context.rate > limits.max_rate_hz:
        raise MediaError(name, "too-large", f"a sound rate of {best_audio.codec_context.rate} Hz is too high")
    for stream in (best_video, best_audio):
        end_s = header_end_s(container, stream) if stream is not None else None
        if end_s is not None and end_s > limits.max_duration_s:
            raise MediaError(
                name, "too-large", f"a duration of {float(end_s):.0f} s is more than {limits.max_duration_s:g} s"
            )
    return best_video, best_audio


def _numbered(container: Any, name: str, number: int, readable: list[Any]) -> Any:
    every = list(container.streams.audio)  # empty and unreadable ones count, as players count them
    if not 0 <= number < len(every):
        raise MediaError(name, "no-audio", f"has no sound stream number {number}, but {len(every)}, counted from 0")
    if every[number] not in readable:
        codec = _codec(every[number]) or "unknown"
        raise MediaError(name, "forbidden-codec", f"its sound stream number {number} ({codec}) cannot be read")
    return every[number]


def _is_empty(container: Any, stream: Any) -> bool:
    """A track of QuickTime's table without any sample."""
    return "mov" in container.format.name and not stream.duration and len(stream.index_entries) == 0


def _codec(stream: Any) -> str | None:
    return stream.codec_context.codec.name if stream.codec_context is not None else None


def _default(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.default)


def _pixels(stream: Any) -> int:
    context = stream.codec_context
    return max(context.width * context.height, context.coded_width * context.coded_height)


def start_s(stream: Any) -> Fraction:
    """First presentation time on the file's own clock. Encoder delay comes before it."""
    return (stream.start_time or 0) * stream.time_base


def header_end_s(container: Any, stream: Any) -> Fraction | None:
    """End of the stream on the file's own clock, as far as the header says."""
    tagged = _tagged_duration_s(stream)
    if tagged is not None:
        return tagged
    if stream.duration is not None:
        return start_s(stream) + stream.duration * stream.time_base
    if container.duration is not None:
        return Fraction((container.start_time or 0) + container.duration, 1_000_000)
    return None


def promised_end_s(container: Any, container_format: str, stream: Any) -> Fraction | None:
    """The same, where the header can be relied on: a stream that ends before is truncated."""
    if container_format == "matroska":
        tagged = _tagged_duration_s(stream)
        whole = Fraction(container.duration, 1_000_000) if container.duration is not None else None
        return None if tagged is None or whole is None else min(tagged, whole)
    if container_format == "avi" and stream.type == "video" and stream.duration is not None:
        return start_s(stream) + stream.duration * stream.time_base - _AVI_SLACK_S
    fragmented = container_format == "mov" and stream.frames == 0  # the header counts nothing then
    if container_format in _EXACT and stream.duration is not None and not fragmented:
        return start_s(stream) + stream.duration * stream.time_base
    return None


def _tagged_duration_s(stream: Any) -> Fraction | None:
    """Matroska's statistics tag, hours:minutes:seconds."""
    tag = stream.metadata.get("DURATION", "")
    parts = tag.split(":")
    try:
        hours, minutes, seconds = int(parts[0]), int(parts[1]), Fraction(parts[2].strip())
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    return hours * 3600 + minutes * 60 + seconds
