"""One pass over one recording: decode, cut into clips, encode in batches, gather into rows. Memory does not grow.

The picture and the sound are two tracks that are read side by side; each keeps no more than a clip, a few batches and
the vectors of one window.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avssl.ahead import ahead
from avssl.embedding import viewpoints
from avssl.embedding.sources import Item
from avssl.embedding.track import EMBEDDING, Track, Vectors, named
from avssl.embedding.viewpoints import Viewpoints
from avssl.embedding.windows import ClipGrid, Window, clips_in_order, plan_windows
from avssl.errors import MediaError, ModelError
from avssl.media.types import Channels

if TYPE_CHECKING:
    from avssl.media import AudioInfo, Media, VideoInfo
    from avssl.models.av_model import AVModel
    from avssl.models.config import VideoInput
    from avssl.sandbox.decoder import Decoder

_NO_DURATION = ("mp3", "aac")  # containers whose length is guessed from the bit rate at the start
_COUNTS: dict[int, Channels] = {1: "mono", 2: "stereo"}
_CHUNK_BYTES = 32 << 20  # of decoded pictures

Row = dict[str, Any]
Moment = tuple[Window, list[Vectors | None]]  # a window and what each track gives in it


@dataclass(frozen=True)
class StreamOptions:
    """What the rows describe: see `avssl-embed --help`. `layers` are named `video.NAME` and `audio.NAME`."""

    window_s: float = 2.0
    hop_s: float = 1.0
    modalities: tuple[str, ...] = ("video", "audio")
    layers: tuple[str, ...] = ()
    pool: str = "none"
    batch_size: int = 16
    spatial: Viewpoints | None = None  # of 360° video: a row for each viewpoint

    def layers_of(self, kind: str) -> list[str]:
        """The tower's own names of the layers of `kind`."""
        return [name.partition(".")[2] for name in self.layers if name.startswith(f"{kind}.")]


def output_columns(model: AVModel, options: StreamOptions) -> dict[str, int]:
    """The vector columns of a row and their lengths, found out with a clip of zeros.

    Raises `UsageError` for a modality or layer that the model lacks, `ModelError` if its values are not finite.
    """
    columns: dict[str, int] = {}
    for kind in options.modalities:
        layers = [EMBEDDING, *options.layers_of(kind)]
        if kind == "video":
            side_px = model.video_input.size_px
            clip = np.zeros((model.video_input.frames, side_px, side_px, 3), np.uint8)
            found = model.encode_video(clip, layers=layers)
        else:
            sound = np.zeros((model.audio_input.channels, model.audio_input.samples), np.float32)
            found = model.encode_audio(sound, model.audio_input.rate_hz, layers=layers)
        vectors = named(kind, found)
        if not _finite(vectors):
            raise ModelError(f"the model's {kind} tower gives values that are not finite; its weights are damaged")
        columns |= {name: len(vector) for name, vector in vectors.items()}
    return columns


def embed_item(model: AVModel, item: Item, options: StreamOptions, decoder: Decoder | None = None) -> Iterator[Row]:
    """Rows of one recording, in order of time. Files are decoded by `decoder` if there is one, packed clips here.

    A row holds `path`, `start_s`, `end_s`, `row`, `id`, `label` and, for each modality, `has_KIND`, `KIND` [D] of unit
    length and a column for each layer. Of an absent modality the vectors are missing in the row. With `options.spatial`
    there is a row for each viewpoint, which also holds `view`, `azimuth_deg`, `elevation_deg` and `fov_deg`.
    Windows in which no modality is present give no row.
    Raises `MediaError` if the recording cannot be read or has none of the modalities.
    """
    with ExitStack() as opened:
        tracks = _open_tracks(model, item, options, opened, decoder)
        duration_s = max(track.grid.end_s for track in tracks)

        def windows() -> Iterator[Window]:
            return plan_windows(duration_s, options.window_s, options.hop_s)

        # Generators are closed before the files they read, also when the caller stops early.
        gathered = [opened.enter_context(closing(_gather(track, windows, options.batch_size))) for track in tracks]
        moments: Iterable[Moment] = ((window, list(found)) for window, *found in zip(windows(), *gathered, strict=True))
        if options.pool == "mean":
            moments = [_pool(moments, len(tracks), duration_s)]
        rows = 0
        for window, found in moments:
            if not any(found):
                continue
            rows += 1
            row: Row = {
                "path": item.path,
                "start_s": round(item.start_s + window.start_s, 6),
                "end_s": round(item.start_s + window.end_s, 6),
                "row": item.row,
                "id": item.id,
                "label": item.label,
                **{f"has_{kind}": False for kind in options.modalities},
            }
            for track, vectors in zip(tracks, found, strict=True):
                row[f"has_{track.kind}"] = vectors is not None
                row |= vectors or {}
            yield from [row] if options.spatial is None else _by_view(row, options.spatial)
        if not rows:
            raise MediaError(item.path, "empty", "nothing in it can be decoded")


def _by_view(row: Row, points: Viewpoints) -> Iterator[Row]:
    """A row for each viewpoint of one whose vectors are [K, D]."""
    for view, azimuth_deg in enumerate(points.azimuths_deg):
        yield {name: value[view] if isinstance(value, np.ndarray) else value for name, value in row.items()} | {
            "view": view,
            "azimuth_deg": azimuth_deg,
            "elevation_deg": 0.0,
            "fov_deg": points.fov_deg,
        }


def _open_tracks(
    model: AVModel, item: Item, options: StreamOptions, opened: ExitStack, decoder: Decoder | None
) -> list[Track]:
    from avssl.media import open_media

    tracks = []
    for kind in options.modalities:
        source = item.video if kind == "video" else item.audio
        if source is None:
            continue
        if decoder is not None and isinstance(source, Path):
            media: Any = opened.enter_context(decoder.open(source, name=item.path))
        else:
            media = opened.enter_context(open_media(source, name=item.path))
        layers, points = options.layers_of(kind), options.spatial
        if kind == "video" and media.info.video:
            track = _video_track(model, media, media.info.video, item.path, layers)
            if points is not None:
                track = viewpoints.video_track(model, media, media.info.video, item, track, layers, points)
            tracks.append(track)
        if kind == "audio" and media.info.audio:
            if points is None:
                _check_channels(model, media.info.audio, item.path)
            track = _audio_track(model, media, media.info.audio, item.path, layers)
            if points is not None:
                track = viewpoints.audio_track(model, media, media.info.audio, item, track, layers, points)
            tracks.append(track)
    if not tracks:
        wanted = " and no ".join({"video": "picture", "audio": "sound"}[kind] for kind in options.modalities)
        raise MediaError(item.path, f"no-{options.modalities[0]}", f"has no {wanted} to embed")
    return tracks


def _video_track(model: AVModel, media: Media, info: VideoInfo, path: str, layers: list[str]) -> Track:
    expects = model.video_input
    # Pictures come at the model's size; only of very long ones must fewer be held at a time.
    longest_px = expects.resize_px * max(info.width_px, info.height_px) // min(info.width_px, info.height_px)
    chunk = min(max(_CHUNK_BYTES // (3 * expects.resize_px * longest_px), 1), 64)

    def chunks() -> Iterator[np.ndarray]:
        for frames in media.iter_frames(info.start_s, expects.fps, short_side_px=expects.resize_px, chunk=chunk):
            yield crop_long_side(frames.data, expects)

    def encode(clips: np.ndarray) -> Vectors:
        return named("video", model.encode_video(clips, layers=[EMBEDDING, *layers]))

    end_s = info.start_s + (info.duration_s or _count(chunks()) / expects.fps)
    return Track("video", path, ClipGrid(expects.fps, expects.frames, info.start_s, end_s), chunks, encode)


def _audio_track(model: AVModel, media: Media, info: AudioInfo, path: str, layers: list[str]) -> Track:
    expects = model.audio_input
    channels: Channels = _COUNTS.get(expects.channels, "all")

    def chunks() -> Iterator[np.ndarray]:
        for audio in media.iter_audio(info.start_s, rate_hz=expects.rate_hz, channels=channels):
            yield audio.samples.T

    def encode(clips: np.ndarray) -> Vectors:
        waveforms = np.ascontiguousarray(clips.swapaxes(1, 2))
        return named("audio", model.encode_audio(waveforms, expects.rate_hz, layers=[EMBEDDING, *layers]))

    known = info.duration_s and media.info.container not in _NO_DURATION
    end_s = info.start_s + (info.duration_s if known else _count(chunks()) / expects.rate_hz)
    return Track("audio", path, ClipGrid(expects.rate_hz, expects.samples, info.start_s, end_s), chunks, encode)


def _check_channels(model: AVModel, info: AudioInfo, path: str) -> None:
    """MediaError `channels` unless the model's channels can be had: levels carry direction, none can be made up."""
    expected = model.audio_input.channels
    if expected not in _COUNTS and info.channels != expected:
        detail = (
            f"its sound is {_COUNTS.get(info.channels, f'of {info.channels} channels')}, the model hears "
            f"{expected}, each for itself (4: ambisonics); give it such files, add --spatial for 360° video, or embed "
            "the picture alone with --modality video"
        )
        raise MediaError(path, "channels", detail)


def _count(chunks: Iterator[np.ndarray]) -> int:
    """Steps in a stream whose header does not say how long it is: a pass of its own."""
    return sum(len(chunk) for chunk in chunks)


def crop_long_side(frames: np.ndarray, expects: VideoInput) -> np.ndarray:
    """A view of [T, H, W, 3] without what the model's crop from the centre drops anyway, at the same pixels."""
    margin = (expects.resize_px - expects.size_px) // 2
    top, left = ((length - expects.size_px) // 2 - margin for length in frames.shape[1:3])
    return frames[:, top : top + expects.resize_px, left : left + expects.resize_px]


def _finite(vectors: Vectors) -> bool:
    return all(np.isfinite(values).all() for values in vectors.values())


def _pool(moments: Iterable[Moment], tracks: int, duration_s: float) -> Moment:
    """One moment for the whole recording: for each track the mean over the windows in which it is present."""
    sums: list[Vectors] = [{} for _ in range(tracks)]
    counts = [0] * tracks
    for _, found in moments:
        for number, vectors in enumerate(found):
            if vectors is not None:
                counts[number] += 1
                for name, value in vectors.items():
                    sums[number][name] = sums[number].get(name, 0) + value.astype(np.float64)
    means = [
        _finish({name: value / count for name, value in total.items()}) if count else None
        for total, count in zip(sums, counts, strict=True)
    ]
    return Window(0.0, round(duration_s, 6)), means


def _mean(vectors: Sequence[Vectors]) -> Vectors:
    return _finish({name: np.mean([one[name] for one in vectors], axis=0, dtype=np.float64) for name in vectors[0]})


def _finish(vectors: Mapping[str, Any]) -> Vectors:
    """float32; embeddings (`video`, `audio`) get unit length again, layers (`video.NAME`) are left as they are."""
    return {name: (value if "." in name else _unit(value)).astype(np.float32) for name, value in vectors.items()}


def _unit(value: np.ndarray) -> np.ndarray:
    """[D], or each of [K, D], of unit length."""
    if value.ndim > 1:
        return np.stack([_unit(one) for one in value])
    return value / max(np.linalg.norm(value), 1e-12)


def _gather(
    track: Track, windows: Callable[[], Iterator[Window]], batch_size: int
) -> Generator[Vectors | None, None, None]:
    """For each window the mean of its clips' vectors, or None where the stream is absent."""
    known: dict[int, Vectors] = {}
    with closing(_encoded(track, clips_in_order(track.grid, windows()), batch_size)) as clips:
        for window in windows():
            earliest = track.grid.earliest(window)
            known = {start: vectors for start, vectors in known.items() if start >= earliest}
            starts = track.grid.starts(window)
            while starts and starts[-1] not in known and (clip := next(clips, None)):
                known[clip[0]] = clip[1]
            vectors = [known[start] for start in starts if start in known]
            yield _mean(vectors) if vectors else None


def _encoded(track: Track, starts: Iterator[int], batch_size: int) -> Generator[tuple[int, Vectors], None, None]:
    """Each clip's vectors, in order. The next batches are decoded while one is encoded."""

    def batches() -> Iterator[tuple[list[int], np.ndarray]]:
        clips = cut_clips(track.chunks(), starts, track.grid.length)
        while batch := list(islice(clips, batch_size)):
            yield [start for start, _ in batch], np.stack([clip for _, clip in batch])

    # Closed explicitly: the thread must be out of the file before the file is closed.
    with closing(ahead(batches())) as ready:
        for batch_starts, clips in ready:
            columns = track.encode(clips)
            if not _finite(columns):  # e.g. a sound file of floats that holds NaN
                raise MediaError(track.path, "not-finite", f"the model's values for its {track.kind} are not finite")
            for number, start in enumerate(batch_starts):
                yield start, {name: values[number] for name, values in columns.items()}


def cut_clips(chunks: Iterator[np.ndarray], starts: Iterable[int], length: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut clips of `length` steps at ascending `starts` out of a stream that comes in chunks [steps, ...].

    Where the stream ends within a clip, a picture is held ([steps, H, W, 3]) and sound ([steps, C]) becomes silence;
    clips that would start after its end are left out.
    """
    buffer: np.ndarray | None = None
    first = 0  # the step that buffer[0] is
    for start in starts:
        while buffer is None or first + len(buffer) < start + length:
            chunk = next(chunks, None)
            if chunk is None:
                break
            if buffer is None:
                buffer = chunk
                continue
            done = min(max(start - first, 0), len(buffer))
            buffer = np.concatenate([buffer[done:], chunk])
            first += done
        if buffer is None or start >= first + len(buffer):
            return  # the header promised a little more than there is
        clip = buffer[start - first :][:length]
        if len(clip) < length:
            missing = [(0, length - len(clip))] + [(0, 0)] * (clip.ndim - 1)
            clip = np.pad(clip, missing, mode="edge" if clip.dtype == np.uint8 else "constant")
        yield start, clip
