"""A page that shows some clips of a shard folder: pictures and playable sound, in one HTML file."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import numpy as np

from avssl.errors import AvsslError, UsageError
from avssl.files import write_atomic
from avssl.shards.read import ShardSet

_PICTURES = 6  # of a clip
_SOUND_S = 10.0  # played of a member that is not stored as FLAC already

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #222 }
article { border-top: 1px solid #ddd; padding: .8em 0 }
h1 { font-size: 1.4em } h2 { font-size: 1em; margin: 0; overflow-wrap: anywhere }
p { margin: .2em 0; color: #666; overflow-wrap: anywhere }
.label { background: #e8eefc; border-radius: .4em; padding: 0 .5em; color: #234; font-weight: normal }
.pictures { display: grid; grid-template-columns: repeat(6, 1fr); gap: 4px; margin: .4em 0 }
.pictures img { width: 100%; display: block }
audio { width: 100%; height: 34px }
.problem { color: #a00 }
"""


def write_preview(folder: Path, out: Path, *, clips: int = 12, seed: int = 0) -> int:
    """Write the page to `out`; `clips` rows are chosen by `seed`, in row order. Returns how many are shown."""
    if clips < 1:
        raise UsageError(f"{clips} clips were asked for; ask for at least 1")
    shards = ShardSet.open(folder)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(shards))[:clips])
    name = html.escape(Path(folder).resolve().name)
    articles = "\n".join(_article(shards, int(row)) for row in chosen)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>{name}</h1>\n"
        f"<p>{len(chosen)} of {len(shards)} clips, chosen with seed {seed}</p>\n{articles}\n</body></html>\n"
    )
    write_atomic(out, lambda file: file.write(page.encode()))
    return len(chosen)


def _article(shards: ShardSet, row: int) -> str:
    record = shards.record(row)
    label = f' <span class="label">{html.escape(record["label"])}</span>' if record["label"] is not None else ""
    parts = [f"<h2>{html.escape(record['source'])}{label}</h2>", f"<p>{html.escape(_facts(record))}</p>"]
    try:
        if record["video"] is not None:
            pictures = "".join(_image(picture) for picture in _pictures(shards, row))
            parts.append(f'<div class="pictures">{pictures}</div>')
        if record["audio"] is not None:
            parts.append(
                f'<audio controls preload="metadata" src="{_data_uri("audio/flac", _sound(shards, row))}"></audio>'
            )
    except AvsslError as error:
        parts.append(f'<p class="problem">{html.escape(str(error))}</p>')
    return "<article>" + "\n".join(parts) + "</article>"


def _facts(record: dict[str, Any]) -> str:
    facts = [f"row {record['row']}", record["id"], f"{record['start_s']:.3f} to {record['end_s']:.3f} s"]
    if video := record["video"]:
        facts.append(f"{video['width_px']}x{video['height_px']} at {video['fps']:g} fps")
    if audio := record["audio"]:
        facts.append(f"{audio['rate_hz']} Hz, {audio['channels']} channel{'s' * (audio['channels'] != 1)}")
    facts += [f"{key}: {value}" for key, value in record["meta"].items()]
    return " · ".join(facts)


def _pictures(shards: ShardSet, row: int) -> np.ndarray:
    """Evenly spaced pictures [T, H, W, 3]."""
    from avssl.media import open_media

    name = shards.member_name(row, "video")
    with open_media(shards.read(row, name), name=f"row {row}") as media:
        info = media.info.video
        assert info is not None
        times_s = info.start_s + (np.arange(_PICTURES) + 0.5) / _PICTURES * max(0.0, info.duration_s - 1 / info.fps)
        return media.frames_at(times_s, short_side_px=min(128, info.width_px, info.height_px)).data


def _sound(shards: ShardSet, row: int) -> bytes:
    """FLAC: the member as it is if it is one, else its first seconds."""
    name = shards.member_name(row, "audio")
    data = shards.read(row, name)
    if name == "flac":
        return data
    from avssl.media import open_media
    from avssl.media.flac import encode_flac

    with open_media(data, name=f"row {row}") as media:
        sound = media.audio_between(0.0, min(_SOUND_S, media.info.duration_s), rate_hz=24000, channels="mono")
        return encode_flac(sound.samples, sound.rate_hz)


def _image(picture: np.ndarray) -> str:
    from avssl.media import encode_jpeg

    return f'<img alt="" src="{_data_uri("image/jpeg", encode_jpeg(picture))}">'


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
