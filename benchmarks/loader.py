"""How fast clips come out of the loader, beside other ways to get the same clips and beside bare decoding.

    python -m benchmarks.loader [--videos FOLDER] [--rounds 5] [--workers 2]

Packs the videos (by default some that it renders) with the default options of `avssl-shards build`, lets the loader
draw one-second clips (16 frames, with 2 s of sound) and reads the same clips by every method, in rounds of random
order. One process is timed by its CPU time, which other jobs on the machine disturb least; the loader with workers also
by the clock. The floor is H.264 decoding and conversion to RGB of the packed clips: no reading, no checks, no sound,
no batches.
Writes results/loader.json and prints a table.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avssl.data.config import AudioSpec, DataConfig, VideoSpec
from avssl.data.loader import Loader
from avssl.media.encode import write_video
from avssl.shards import BuildOptions
from avssl.shards.build import build
from avssl.shards.sources import list_sources
from benchmarks.common import markdown_table, tree_cpu_s, write_result

FRAMES, FPS, SOUND_S, BATCH, SIZE_PX = 16, 16, 2.0, 16, 112
FLOOR = "floor: decode and colour conversion alone"


@dataclass(frozen=True)
class Clip:
    """A moment of a packed row and of the original file it was cut from."""

    row: int
    original: str
    start_s: float  # within the packed clip
    original_start_s: float
    audio_s: float
    video: bytes  # the packed members
    sound: bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="folder of videos with sound, of at least two seconds each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=128, help="clips a round (a sixth of it for the slow methods)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the runs timed by the clock")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos = options.videos or render_videos(Path(folder) / "videos")
        packed = Path(folder) / "packed"
        build(list_sources(videos, labels=False), packed, BuildOptions(require="both"))
        specs = {"video": VideoSpec(FRAMES, FPS), "audio": AudioSpec(duration_s=SOUND_S)}
        config = DataConfig([str(packed)], **specs, batch_size=BATCH, workers=0)
        clips = draw_clips(config, videos, options.clips)
        alone = time_alone(methods(config, clips), options.rounds, clips)
        parallel = time_with_workers(config, packed, options.workers, options.clips * 4, options.rounds)
    report(options, alone, parallel)


def draw_clips(config: DataConfig, videos: Path, count: int) -> list[Clip]:
    """The clips that the loader gives from the start."""
    loader, clips = Loader(config), []
    while len(clips) < count:
        batch = next(loader)
        for row, (video_s, audio_s) in zip(batch["row"].tolist(), batch["time_s"][:, 0].tolist(), strict=True):
            record = loader.shards.record(row)
            members = loader.shards.read(row, "mp4"), loader.shards.read(row, "flac")
            original = str(videos / record["source"])
            clips.append(Clip(row, original, video_s, record["start_s"] + video_s, audio_s, *members))
    return clips[:count]


def methods(config: DataConfig, clips: list[Clip]) -> dict[str, tuple[Callable[[], Any], int]]:
    """Name -> (call that reads clips, how many it reads)."""
    few = clips[: max(1, len(clips) // 6)]

    def each(read: Callable[[Clip], np.ndarray | torch.Tensor], wanted: list[Clip]) -> tuple[Callable[[], Any], int]:
        def run() -> None:
            for clip in wanted:
                assert len(read(clip)) == FRAMES

        return run, len(wanted)

    def loader(**changes: Any) -> tuple[Callable[[], Any], int]:
        steps = len(clips) // BATCH

        def run() -> None:
            fresh = Loader(replace(config, **changes))
            for _ in range(steps):
                next(fresh)

        return run, steps * BATCH

    found = {
        "originals: PyAV naive (decode from 0, full-size RGB, torch resize)": each(pyav_naive, few),
        "originals: decord": each(decord, few),
    }
    try:
        import torchcodec  # noqa: F401

        found["originals: torchcodec"] = each(torchcodec_reader, few)
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchcodec is left out: {str(error).splitlines()[0]}")
    return found | {
        "shards: loader, video and sound": loader(),
        "shards: loader, video and sound, planes": loader(pixels="yuv420p"),
        "shards: loader, video": loader(audio=None),
        "shards: loader, webdataset reader, video and sound": loader(reader="webdataset"),
        "floor with sound: + FLAC decoding": each(floor_with_sound, clips),
        FLOOR: each(floor, clips),
    }


def pyav_naive(clip: Clip) -> torch.Tensor:
    import av

    times = [clip.original_start_s + k / FPS - 1e-3 for k in range(FRAMES)]
    pictures = []
    with av.open(clip.original) as container:
        shown = None
        for frame in container.decode(video=0):
            while len(pictures) < FRAMES and shown is not None and frame.time > times[len(pictures)]:
                pictures.append(torch.from_numpy(shown.to_ndarray(format="rgb24")))
            shown = frame
            if len(pictures) == FRAMES:
                break
        while len(pictures) < FRAMES and shown is not None:
            pictures.append(torch.from_numpy(shown.to_ndarray(format="rgb24")))
    video = torch.stack(pictures).permute(0, 3, 1, 2).float()
    return torch.nn.functional.interpolate(video, size=(SIZE_PX, SIZE_PX), mode="bilinear", antialias=True).byte()


def decord(clip: Clip) -> np.ndarray:
    import decord as reader  # after torch and av: the other order crashes with CUDA

    video = reader.VideoReader(clip.original, width=SIZE_PX, height=SIZE_PX, num_threads=1)
    fps, last = video.get_avg_fps(), len(video) - 1
    numbers = (int((clip.original_start_s + k / FPS) * fps + 1e-3) for k in range(FRAMES))
    return video.get_batch([min(number, last) for number in numbers]).asnumpy()


def torchcodec_reader(clip: Clip) -> torch.Tensor:
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(clip.original, num_ffmpeg_threads=1, dimension_order="NHWC")
    last = video.metadata.end_stream_seconds - 1e-3
    frames = video.get_frames_played_at([min(clip.original_start_s + k / FPS + 1e-3, last) for k in range(FRAMES)]).data
    return torch.nn.functional.interpolate(
        frames.permute(0, 3, 1, 2), size=(SIZE_PX, SIZE_PX), mode="bilinear", antialias=True
    )


def floor(clip: Clip) -> np.ndarray:
    """The least that must be done: open fast, seek, decode, convert."""
    import av

    with av.open(io.BytesIO(clip.video), options={"skip_frame": "all"}) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        first = round(clip.start_s / stream.time_base)
        last = first + round((FRAMES - 1) / FPS / stream.time_base)
        container.seek(first, stream=stream, backward=True)
        reformatter, converted = av.video.reformatter.VideoReformatter(), []
        for frame in container.decode(stream):
            if frame.pts >= first:
                converted.append(reformatter.reformat(frame, format="rgb24", threads=1))
            if frame.pts >= last:
                break
    return converted + converted[: FRAMES - len(converted)]


def floor_with_sound(clip: Clip) -> np.ndarray:
    import soundfile

    with soundfile.SoundFile(io.BytesIO(clip.sound)) as sound:
        sound.seek(min(round(clip.audio_s * sound.samplerate), sound.frames))
        sound.read(round(SOUND_S * sound.samplerate), dtype="float32")
    return floor(clip)


def time_alone(todo: dict[str, tuple[Callable[[], Any], int]], rounds: int, clips: list[Clip]) -> dict[str, dict]:
    """CPU and clock milliseconds a clip, of each method in this one process."""
    raw: dict[str, dict] = {name: {"cpu_ms": [], "wall_ms": []} for name in todo}
    for number in range(rounds + 1):
        names = list(todo)
        random.Random(number).shuffle(names)
        for name in names:
            run, count = todo[name]
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if number:  # the first round warms caches and imports
                raw[name]["cpu_ms"].append(1000 * cpu / count)
                raw[name]["wall_ms"].append(1000 * wall / count)
    return raw


def time_with_workers(config: DataConfig, packed: Path, workers: int, clips: int, rounds: int) -> dict[str, dict]:
    """Clips a second by the clock, and a second of CPU of all processes, in the steady state with workers."""
    config = replace(config, workers=workers, batch_size=32)
    runs: dict[str, Callable[[], Iterator[Any]]] = {
        "shards: loader, video and sound": lambda: Loader(config),
        "shards: loader, video and sound, planes": lambda: Loader(replace(config, pixels="yuv420p")),
        "shards: webdataset, decode in workers": lambda: webdataset_batches(packed, workers, config.batch_size),
    }
    raw: dict[str, dict] = {name: {"clips_per_s": [], "clips_per_cpu_s": []} for name in runs}
    for number in range(rounds):
        names = list(runs)
        random.Random(number).shuffle(names)
        for name in names:
            batches = runs[name]()
            for _ in range(2 * workers):  # start up, fill the queues
                next(batches)
            cpu, wall, count = tree_cpu_s(), time.perf_counter(), 0
            while count < clips:
                count += len(next(batches)["row"])
            raw[name]["clips_per_s"].append(count / (time.perf_counter() - wall))
            raw[name]["clips_per_cpu_s"].append(count / (tree_cpu_s() - cpu))
            getattr(batches, "close", lambda: None)()
    return raw


def webdataset_batches(packed: Path, workers: int, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
    """As its documentation shows: shards split by worker, samples decoded in the pipeline, torch's own collate."""
    import webdataset

    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=False, resampled=True, empty_check=False)
        .shuffle(100)
        .map(decode_webdataset_sample)
    )
    options: dict[str, Any] = {"multiprocessing_context": "forkserver"} if workers else {}
    yield from torch.utils.data.DataLoader(dataset, batch_size=batch_size, num_workers=workers, **options)


def decode_webdataset_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """A random second of picture by PyAV with a seek, and two of sound by soundfile."""
    import av
    import soundfile

    torch.set_num_threads(1)
    with soundfile.SoundFile(io.BytesIO(sample["flac"])) as file:
        wanted = round(SOUND_S * file.samplerate)
        file.seek(random.randint(0, max(0, file.frames - wanted)))
        sound = np.zeros((1, wanted), np.float32)
        read = file.read(wanted, dtype="float32")
        sound[0, : len(read)] = read
    with av.open(io.BytesIO(sample["mp4"])) as container:
        stream = container.streams.video[0]
        first = random.randint(0, max(0, stream.frames - FRAMES))
        container.seek(round(first / FPS / stream.time_base), stream=stream)
        pictures = []
        for frame in container.decode(stream):
            if round(frame.time * FPS) >= first:
                # torch's collate wants equal sizes
                pictures.append(frame.reformat(SIZE_PX, SIZE_PX, "rgb24", threads=1).to_ndarray())
            if len(pictures) == FRAMES:
                break
    video = np.stack(pictures + pictures[: FRAMES - len(pictures)])
    return {"row": 0, "video": video, "audio": sound}


def report(options: argparse.Namespace, alone: dict[str, dict], parallel: dict[str, dict]) -> None:
    floor_ms = alone[FLOOR]["cpu_ms"]
    rows = []
    for name, raw in alone.items():
        cpu_ms = statistics.median(raw["cpu_ms"])
        share = statistics.median(f / c for f, c in zip(floor_ms, raw["cpu_ms"], strict=True))
        rows.append([name, cpu_ms, statistics.median(raw["wall_ms"]), 1000 / cpu_ms, share])
    header = ["one process", "CPU ms / clip", "wall ms / clip", "clips / s / core", "of the floor"]
    print(markdown_table(header, rows), end="\n\n")
    rows = [
        [name, statistics.median(raw["clips_per_s"]), statistics.median(raw["clips_per_cpu_s"])]
        for name, raw in parallel.items()
    ]
    print(markdown_table([f"{options.workers} workers", "clips / s", "clips / CPU s"], rows))
    config = {
        "videos": options.videos.name if options.videos else "rendered: 6 of 10 s, 640x360, 30 fps, x264 medium crf 23",
        "clip": {"frames": FRAMES, "fps": FPS, "sound_s": SOUND_S},
        "packed": BuildOptions(require="both").to_dict(),
        "workers": options.workers,
        "rounds": options.rounds,
        "clips": options.clips,
    }
    path = write_result("loader", {"config": config, "one_process": alone, "with_workers": parallel})
    print(f"\nwrote {path}")


def render_videos(folder: Path, count: int = 6, seconds: int = 10) -> Path:
    """Videos that cost a decoder about what filmed ones do: a textured scene under a moving camera, objects, grain."""
    folder.mkdir()
    for number in range(count):
        generator = np.random.default_rng(number)
        sound = np.cumsum(generator.normal(0, 0.02, (2, seconds * 48000)), 1).astype(np.float32)
        sound -= np.apply_along_axis(lambda x: np.convolve(x, np.ones(2000) / 2000, "same"), 1, sound)
        options = {"preset": "medium", "crf": "23", "g": "250"}
        write_video(
            folder / f"video{number}.mp4", scene(generator, seconds * 30), 30, audio=np.clip(sound, -1, 1),
            audio_rate_hz=48000, video_options=options,
        )  # fmt: skip
    return folder


def scene(generator: np.random.Generator, frames: int, height: int = 360, width: int = 640) -> Iterable[np.ndarray]:
    texture = torch.zeros(1, 3, 720, 1280)
    for octave in range(7):
        coarse = torch.from_numpy(generator.normal(0, 1, (1, 3, 6 << octave, 10 << octave))).float()
        texture += torch.nn.functional.interpolate(coarse, size=(720, 1280), mode="bicubic") / 1.7**octave
    texture = 128 + 45 * texture[0].permute(1, 2, 0).numpy()
    path, ball = generator.uniform(0, 2 * np.pi, 2), generator.uniform(0, 2 * np.pi, (4, 2))
    y, x = np.mgrid[:height, :width]
    for k in range(frames):
        top = round(180 + 150 * np.sin(path[0] + k / 60))
        left = round(320 + 300 * np.sin(path[1] + k / 80))
        picture = texture[top : top + height, left : left + width].copy()
        for number, (a, b) in enumerate(ball):
            center = (180 + 140 * np.sin(a + k / 20), 320 + 260 * np.sin(b + k / 25))
            inside = (y - center[0]) ** 2 + (x - center[1]) ** 2 < (25 + 8 * number) ** 2
            picture[inside] = 255 - picture[inside]
        yield np.clip(picture + generator.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
