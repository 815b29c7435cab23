"""What works on this machine, what does not, and what to do about it: the checks behind `avssl-doctor`."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from avssl import compat

Status = Literal["ok", "warn", "missing", "failed"]

# Packages whose absence or failure takes nothing away but an option.
_OPTIONAL = {
    "torchcodec": "an optional decoder",
    "decord": "an optional decoder",
    "s3fs": "reads shards from s3://",
    "wandb": "logs training to Weights & Biases",
}
_CHECKED_APART = {"torch", "torchvision", "torchaudio", "av", "decord", "torchcodec"}

_DECODERS = ("h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mjpeg", "aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le")
_ENCODERS = ("libx264", "aac", "flac")


@dataclass(frozen=True)
class Check:
    """One finding. `missing` and `failed` are for what avssl cannot do without; `warn` for what it can."""

    group: str
    name: str
    status: Status
    detail: str
    cure: str = ""


def examine() -> Iterator[Check]:
    """All checks, in the order of a report; none of them raises."""
    for group, check in [
        ("python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("torch", _torch_companions),
        ("decoders", _pyav),
        ("decoders", _decord),
        ("decoders", _torchcodec),
        ("devices", _processors),
        ("devices", _gpus),
        ("self-test", _round_trip),
        ("self-test", _sandbox),
        ("self-test", _bundled_model),
    ]:
        yield from _guarded(group, check)


def is_healthy(checks: list[Check]) -> bool:
    """Whether everything that is needed works."""
    return all(check.status in ("ok", "warn") for check in checks)


Finding = tuple[str, Status, str, str]  # name, status, detail, cure


def _guarded(group: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Check]:
    """The findings of one check; if it breaks, that is a finding too."""
    try:
        for name, status, detail, cure in check():
            yield Check(group, name, status, detail, cure)
    except Exception as error:  # whatever is broken on a strange machine must not end the report
        name = check.__name__.strip("_").replace("_", " ")
        yield Check(group, name, "failed", _one_line(error), "install avssl anew into a fresh virtual environment")


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    yield "python", "ok", f"{version} on {platform.platform(terse=True)} {platform.machine()}", ""
    yield "avssl", "ok", importlib.metadata.version("avssl"), ""


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("avssl") or []:
        requirement = Requirement(line)
        name = requirement.name
        if name in _CHECKED_APART:
            continue
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not needed and name not in _OPTIONAL:
            continue
        version = _version(name)
        cure = f"pip install '{name}{requirement.specifier}'"
        if version is None and needed:
            yield name, "missing", "not installed", cure
        elif version is None:
            yield name, "ok", f"not installed (optional: {_OPTIONAL[name]})", ""
        elif not requirement.specifier.contains(version, prereleases=True):
            yield name, "warn", f"{version}, but avssl is made for {requirement.specifier}", cure
        else:
            yield name, "ok", version, ""


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield "torch", "missing", _one_line(error), "pip install torch"
        return
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    yield "torch", "ok", f"{torch.__version__} ({build}, {torch.get_num_threads()} threads)", ""


def _torch_companions() -> Iterator[Finding]:
    for name, load in (("torchvision", compat.torchvision), ("torchaudio", compat.torchaudio)):
        try:
            load()
        except Exception as error:
            yield name, "failed", _one_line(error), f"install the {name} made for this torch"
            continue
        whole = compat.has_compiled_part(name)
        detail = "" if whole else " (without its compiled part, which wants a CUDA torch; avssl needs only the rest)"
        yield name, "ok", f"{_version(name)}{detail}", ""


def _pyav() -> Iterator[Finding]:
    try:
        import av
    except ImportError as error:
        yield "av", "missing", _one_line(error), "pip install av"
        return
    versions = [f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavformat", "libavcodec")]
    yield "av", "ok", f"{av.__version__} with FFmpeg's {' and '.join(versions)}", ""
    for kind, names in (("decoders", _DECODERS), ("encoders", _ENCODERS)):
        missing = [name for name in names if name not in av.codec.codecs_available]
        if missing:
            yield kind, "warn", f"this build of FFmpeg lacks {', '.join(missing)}", "pip install --force-reinstall av"
        else:
            yield kind, "ok", ", ".join(names), ""


def _decord() -> Iterator[Finding]:
    version = _version("decord")
    if version is None:
        yield "decord", "ok", "not installed (optional: a second decoder)", ""
        return
    # In a process of its own: imported before torch touches a GPU, decord is known to crash the process.
    done = subprocess.run([sys.executable, "-c", "import decord"], capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        yield "decord", "ok", version, ""
    else:
        reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        yield "decord", "warn", f"{version}: {reason}", "nothing to do: PyAV is the default decoder"


def _torchcodec() -> Iterator[Finding]:
    version = _version("torchcodec")
    if version is None:
        yield "torchcodec", "ok", "not installed (optional: a third decoder)", ""
        return
    try:
        importlib.import_module("torchcodec.decoders")
    except Exception as error:
        missing_ffmpeg = "libav" in str(error)
        reason = "finds no FFmpeg shared libraries" if missing_ffmpeg else _one_line(error)
        cure = "install FFmpeg (e.g. apt install ffmpeg) to use it; PyAV, the default, has its own"
        yield "torchcodec", "warn", f"{version}: {reason}", cure
        return
    yield "torchcodec", "ok", version, ""


def _processors() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "processors", "ok", f"{cores} of {os.cpu_count()} cores usable", ""
    try:
        memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows
        return
    yield "memory", "ok", f"{memory_gib:.1f} GiB", ""


def _gpus() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            yield f"cuda:{number}", "ok", f"{facts.name}, {facts.total_memory / 2**30:.1f} GiB", ""
    elif shutil.which("nvidia-smi") and torch.version.cuda is None:
        yield "gpu", "warn", "an NVIDIA driver is here, but torch is a CPU build", "install a CUDA build of torch"
    elif shutil.which("nvidia-smi"):
        cure = "update the NVIDIA driver, or install the torch made for it"
        yield "gpu", "warn", "an NVIDIA driver is here, but torch cannot use it", cure
    else:
        yield "gpu", "ok", "none (everything runs on processors, only slower)", ""


def _round_trip() -> Iterator[Finding]:
    """A flash and a click, half a second in, must come back half a second in."""
    import numpy as np

    from avssl.media import open_media
    from avssl.media.encode import write_video

    name, cure = "encode and decode", "pip install --force-reinstall av"
    fps, rate_hz = 16, 24000
    pictures = np.zeros((fps, 64, 96, 3), np.uint8)
    pictures[fps // 2] = 255
    sound = np.zeros((1, rate_hz), np.float32)
    sound[0, rate_hz // 2 : rate_hz // 2 + 240] = 0.8 * np.sin(np.arange(240) * 0.3)
    file = io.BytesIO()
    write_video(file, pictures, fps, audio=sound, audio_rate_hz=rate_hz, container="mp4")
    with open_media(file.getvalue(), name="a clip made by avssl-doctor") as media:
        frames = media.frames_at(np.arange(fps) / fps)
        audio = media.audio_between(0.0, 1.0, rate_hz=rate_hz, channels="mono")
    flash_s = frames.times_s[np.argmax(frames.data.mean(axis=(1, 2, 3)))]
    click_s = np.argmax(np.abs(audio.samples[0])) / rate_hz
    detail = f"H.264 and AAC in MP4: a flash and a click at 0.500 s come back at {flash_s:.3f} and {click_s:.3f} s"
    right = abs(flash_s - 0.5) < 0.5 / fps and abs(click_s - 0.5) < 0.5 / fps
    yield name, "ok" if right else "failed", detail, cure


def _sandbox() -> Iterator[Finding]:
    """What a process that decodes files of strangers was able to do when it tried."""
    from avssl.sandbox.bounds import Bounds
    from avssl.sandbox.examine import holds

    found = holds(Bounds())
    kept = [name for name, held in found.items() if held]
    lost = [name for name, held in found.items() if not held]
    detail = f"decoding is confined: {', '.join(kept)}" if kept else "decoding is not confined here"
    if lost:
        cure = "run files of strangers on Linux 5.13 or later, x86-64 or aarch64, or in a container of their own"
        yield "sandbox", "warn", f"{detail}; not kept here: {', '.join(lost)}", cure
    else:
        yield "sandbox", "ok", detail, ""


def _bundled_model() -> Iterator[Finding]:
    import numpy as np

    from avssl.models.folder import bundled_models, load

    if "tiny" not in bundled_models():
        yield "bundled model", "warn", "not part of this installation", "give --model to avssl-embed"
        return
    model = load("tiny")
    shape = (model.video_input.frames, 64, 96, 3)
    vector = np.asarray(model.encode_video(np.full(shape, 90, np.uint8)))
    length = float(np.linalg.norm(vector))
    right = abs(length - 1) < 1e-3
    detail = f"embeds a clip to {vector.shape[-1]} values of length {length:.3f}"
    yield "bundled model", "ok" if right else "failed", detail, "install avssl anew"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
