"""What a query found as one HTML page: pictures, and a player for each moment; it needs neither network nor script."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avssl.errors import MediaError
from avssl.files import write_atomic
from avssl.media import MediaWriter, encode_jpeg, write_video
from avssl.media.still import read_still
from avssl.pages import render
from avssl.search.find import Hit
from avssl.search.query import WORDS, By, Query, opened

if TYPE_CHECKING:
    from avssl.sandbox.decoder import Decoder

_PICTURES = 3
_FPS = 12.0
_SHORT_SIDE_PX = 180
_RATE_HZ = 24_000
_LONGEST_S = 10.0  # that a player plays of a moment
_SMALL = {"preset": "veryfast", "crf": "28"}


def write_page(
    path: Path, query: Query, find: By, hits: Sequence[Hit], facts: dict[str, Any], decoder: Decoder | None = None
) -> None:
    """Write the page. facts: `index.json` of the index that was asked.

    A moment whose file is gone or cannot be read is shown by its name and the reason.
    """
    first_s = float(query.start_s[0])
    asked = _still(query.path) if query.still else _moment(query.path, first_s, float(query.end_s[0]), decoder)
    cards = [
        {
            "name": Path(hit.path).name,
            "path": hit.path,
            "link": Path(hit.path).as_uri(),
            "start_s": hit.start_s,
            "end_s": hit.end_s,
            "score": hit.score,
            "at_s": hit.at_s,
            **_moment(Path(hit.path), hit.start_s, hit.end_s, decoder),
        }
        for hit in hits
    ]
    text = render(
        Path(__file__).parent / "page.html.j2",
        query={"path": str(query.path), "still": query.still, "windows": len(query.vectors), "start_s": first_s}
        | {"word": WORDS[query.by], **asked},
        found=WORDS[find],
        crossed=find != query.by,
        cards=cards,
        model=facts["model"],
        rows=facts["rows"],
    )
    write_atomic(path, lambda file: file.write(text.encode()))


def _still(path: Path) -> dict[str, Any]:
    picture = read_still(path)
    step = max(1, min(picture.shape[:2]) // _SHORT_SIDE_PX)
    small = picture[::step, ::step]
    even = small[: small.shape[0] // 2 * 2 or 1, : small.shape[1] // 2 * 2 or 1]
    return {"pictures": [_uri("image/jpeg", encode_jpeg(even))], "video": None, "sound": None, "problem": None}


def _moment(path: Path, start_s: float, end_s: float, decoder: Decoder | None) -> dict[str, Any]:
    """Pictures and a player: of both if there are both, else of the sound."""
    shown: dict[str, Any] = {"pictures": [], "video": None, "sound": None, "problem": None}
    end_s = min(end_s, start_s + _LONGEST_S)
    try:
        with opened(path, decoder) as media:
            frames = _frames(media, start_s, end_s) if media.info.video else []
            sound = _sound(media, start_s, end_s) if media.info.audio else None
    except (MediaError, OSError) as error:
        return shown | {"problem": str(error)}
    if frames:
        chosen = np.linspace(0, len(frames) - 1, min(_PICTURES, len(frames))).round().astype(int)
        shown["pictures"] = [_uri("image/jpeg", encode_jpeg(frames[number])) for number in chosen]
        shown["video"] = _uri("video/mp4", _mp4(frames, sound))
    elif sound is not None:
        shown["sound"] = _uri("audio/mpeg", _mp3(sound))
    return shown


def _frames(media: Any, start_s: float, end_s: float) -> list[np.ndarray]:
    """RGB pictures [H, W, 3] of even size."""
    short_px = min(_SHORT_SIDE_PX, media.info.video.width_px, media.info.video.height_px) // 2 * 2
    count = max(1, round((end_s - start_s) * _FPS))
    found = media.iter_frames(start_s, _FPS, end_s=end_s, short_side_px=max(short_px, 2), chunk=count)
    with closing(found):
        return [picture for frames in islice(found, 1) for picture in frames.data]


def _sound(media: Any, start_s: float, end_s: float) -> np.ndarray:
    """Mono [1, S]."""
    found = media.iter_audio(start_s, end_s=end_s, rate_hz=_RATE_HZ, channels="mono", chunk_s=_LONGEST_S)
    with closing(found):
        parts = [audio.samples for audio in found]
    return np.concatenate(parts, axis=1) if parts else np.zeros((1, 1), np.float32)


def _mp4(frames: list[np.ndarray], sound: np.ndarray | None) -> bytes:
    file = io.BytesIO()
    write_video(file, frames, _FPS, audio=sound, audio_rate_hz=_RATE_HZ, container="mp4", video_options=_SMALL)
    return file.getvalue()


def _mp3(sound: np.ndarray) -> bytes:
    file = io.BytesIO()
    with MediaWriter(file, container="mp3") as writer:
        writer.add_audio(_RATE_HZ, bit_rate=48_000).write(sound.clip(-1, 1))
    return file.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
