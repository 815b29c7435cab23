"""Shard folders made by the real writer from made-up members, for what needs no media; and small real media files."""

import numpy as np

from avssl.media import MediaWriter, write_video
from avssl.shards.format import sample_id
from avssl.shards.options import BuildOptions
from avssl.shards.sources import Entry, Listing
from avssl.shards.transcode import Clip, Rejected
from avssl.shards.write import Cursor, ShardWriter


def made_up_clip(number, label=None, *, video=True, audio=True, size=2000):
    members, source = {}, f"source {number:04d}.mp4"
    if video:
        members["mp4"] = bytes([number % 251]) * (size + number)
    if audio:
        members["flac"] = bytes([number % 13]) * (size // 3)
    return Clip(
        members,
        {
            "id": sample_id(source, 0, 10_000),
            "source": source,
            "start_s": 0.0,
            "end_s": 10.0,
            "label": label,
            "meta": {"n": number},
            "video": {"width_px": 228, "height_px": 128, "fps": 16.0, "frames": 160, "duration_s": 10.0}
            if video
            else None,
            "audio": {"rate_hz": 24000, "channels": 1, "samples": 240000} if audio else None,
        },
    )


def write_folder(out, clips, *, rejected=(), **options):
    """Write `clips`, then reject `rejected` sources."""
    listing = Listing([Entry(clip.sample["source"], "") for clip in clips] + [Entry(name, "") for name in rejected])
    with ShardWriter(out, listing, BuildOptions(**options), None) as writer:
        for number, clip in enumerate(clips):
            writer.add(clip, Cursor(number + 1))
        for number, name in enumerate(rejected):
            writer.reject(name, Rejected("corrupt", "made up", None), Cursor(len(clips) + number + 1))
        writer.finish()
    return out


def write_media(path, duration_s, *, video=True, audio=True, size_px=(48, 80), fps=10, audio_s=None, seed=0):
    """A real media file: a box that moves with time over noise, and a chirp; FFmpeg's container by the file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate_hz = 48000 if path.suffix in {".webm", ".mkv", ".ogg"} else 44100
    height, width = size_px
    generator = np.random.default_rng(seed)
    ground = np.kron(generator.integers(0, 255, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    time_s = np.arange(round((audio_s or duration_s) * rate_hz)) / rate_hz
    sound = 0.4 * np.sin(2 * np.pi * (200 + 40 * seed + 150 * time_s) * time_s)[None]
    if not video:
        with MediaWriter(path) as writer:
            writer.add_audio(rate_hz).write(sound)
        return path

    def pictures():
        for number in range(round(duration_s * fps)):
            picture = ground.copy()
            x = int(number * 7 % (width - 16))
            picture[8:24, x : x + 16] = number * 5 % 256
            yield picture

    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(path.suffix, "libx264")
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx-vp9" else {"g": "25"}
    sound_options = {"audio": sound, "audio_rate_hz": rate_hz} if audio else {}
    write_video(path, pictures(), fps, video_codec=codec, video_options=options, **sound_options)
    return path


def same_files(one, other):
    """Whether two folders hold the same files with the same bytes."""
    names = sorted(path.name for path in one.iterdir())
    return names == sorted(path.name for path in other.iterdir()) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )
