"""Pictures and sounds for the report: a few held-out clips and what was retrieved for them, as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from avssl.shards.read import ShardSet
from pipelines.demo.measure import Embedded

QUERIES = 4  # of each direction
SHOWN = 4  # best candidates of each
PICTURES = 4  # of a query
PICTURE_PX = 96
SEED = 0


def retrieval_examples(embedded: Embedded, shards: Path) -> list[dict[str, Any]]:
    """For a few clips, drawn blindly, the `SHOWN` most similar clips of the other modality."""
    media = ClipMedia(ShardSet.open(shards))
    queries = np.random.default_rng(SEED).permutation(len(embedded.rows))[: 2 * QUERIES]
    examples = []
    for number, query in enumerate(queries):
        asked, found = ("video", "audio") if number % 2 == 0 else ("audio", "video")
        similar = embedded.vectors[found] @ embedded.vectors[asked][query]
        order = np.argsort(-similar, kind="stable")
        examples.append(
            {
                "asked": asked,
                "query": _card(embedded, media, int(query), pictures=PICTURES),
                "rank": int(np.flatnonzero(order == query)[0]) + 1,
                "of": len(order),
                "found": [
                    _card(embedded, media, int(index), pictures=1)
                    | {
                        "similarity": float(similar[index]),
                        "same_clip": bool(index == query),
                        "same_video": bool(embedded.sources[index] == embedded.sources[query]),
                        "same_class": bool(
                            embedded.labels[index] != "" and embedded.labels[index] == embedded.labels[query]
                        ),
                    }
                    for index in order[:SHOWN]
                ],
            }
        )
    return examples


def _card(embedded: Embedded, media: ClipMedia, index: int, pictures: int) -> dict[str, Any]:
    row = int(embedded.rows[index])
    return {
        "source": str(embedded.sources[index]),
        "label": str(embedded.labels[index]),
        "pictures": media.pictures(row, pictures),
        "sound": media.sound(row),
    }


class ClipMedia:
    """Data URIs of the clips of a shard folder; each sound is encoded once."""

    def __init__(self, shards: ShardSet):
        self._shards = shards
        self._sounds: dict[int, str] = {}

    def pictures(self, row: int, count: int) -> list[str]:
        """`count` evenly spaced pictures as JPEG."""
        from avssl.media import encode_jpeg, open_media

        with open_media(self._shards.read(row, "mp4"), name=f"row {row}") as clip:
            info = clip.info.video
            assert info is not None  # the demo packs clips with --require both
            times_s = (np.arange(count) + 0.5) / count * max(0.0, info.duration_s - 1 / info.fps)
            pictures = clip.frames_at(times_s, short_side_px=PICTURE_PX).data
            return [_data_uri("image/jpeg", encode_jpeg(picture)) for picture in pictures]

    def sound(self, row: int) -> str:
        """The whole sound as MP3, which every browser plays."""
        if row not in self._sounds:
            from avssl.media import MediaWriter, open_media

            with open_media(self._shards.read(row, "flac"), name=f"row {row}") as clip:
                sound = clip.audio_between(0.0, clip.info.duration_s, rate_hz=24_000, channels="mono")
            buffer = io.BytesIO()
            with MediaWriter(buffer, container="mp3") as writer:
                writer.add_audio(sound.rate_hz, bit_rate=48_000).write(sound.samples)
            self._sounds[row] = _data_uri("audio/mpeg", buffer.getvalue())
        return self._sounds[row]


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
