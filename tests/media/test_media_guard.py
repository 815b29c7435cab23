"""What is refused, for what reason, and that refusing costs neither memory, nor time, nor a look at another file."""

import errno
import io
import os
import pickle
import socket
import subprocess
import sys
import threading

import av
import numpy as np
import pytest

from avssl.errors import MediaError
from avssl.media import Limits, guard, open_media, probe
from avssl.media.guard import sniff
from avssl.synthetic import fixtures

CLIP = fixtures.clip("mp4-h264-aac", duration_s=1.0)


def refusal(source, **keywords) -> MediaError:
    with pytest.raises(MediaError) as caught, open_media(source, **keywords) as media:
        media.frames_at([0.0, 0.5])
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.mark.parametrize("kind", sorted(fixtures.playlists(os.devnull)))
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_lists_of_other_files_are_refused(tmp_path, kind, name):
    """Whatever they are called. The file they name must not be read: it is one that would play."""
    target = tmp_path / "secret.mp4"
    target.write_bytes(CLIP)
    path = tmp_path / name
    path.write_bytes(fixtures.playlists(target)[kind])
    assert refusal(path).reason in ("forbidden-format", "not-media")


def test_image_patterns_are_not_expanded(tmp_path):
    with av.open(str(tmp_path / "frame-001.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    assert refusal(tmp_path / "frame-%03d.png").reason == "unreadable"
    assert refusal(tmp_path / "frame-001.png").reason == "not-media"


def test_external_data_references_are_not_followed(tmp_path):
    """QuickTime may say that its samples lie in another file. FFmpeg can be told to follow: shown here, so that the
    refusal means something."""
    other = tmp_path / "other.mov"
    other.write_bytes(fixtures.clip("mov-h264-pcm", duration_s=0.4))
    path = tmp_path / "clip.mov"
    path.write_bytes(fixtures.with_external_reference(other))
    hollow = path.read_bytes()
    start = hollow.index(b"mdat") + 4
    path.write_bytes(hollow[:start] + bytes(2000) + hollow[start + 2000 :])  # nothing to decode in the file itself
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert len(list(container.decode(video=0))) == 10
    assert refusal(path).reason in ("corrupt", "forbidden-format")
    assert refusal(path.read_bytes()).reason in ("corrupt", "forbidden-format")


MEASURE = """
import resource, sys
from avssl.errors import MediaError
from avssl.media import open_media
open_media({harmless!r}).close()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with open_media({path!r}) as media:
        media.frames_at([0.0, 0.2])
except MediaError as error:
    print(error.reason, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "avi", "mpegts", "flv"])
def test_a_header_of_16000_by_16000_takes_no_memory(tmp_path, container):
    """One such picture is 384 MB, and decoders hold several."""
    path, harmless = tmp_path / "huge", tmp_path / "harmless"
    path.write_bytes(fixtures.huge_header(container))
    harmless.write_bytes(CLIP)
    code = MEASURE.format(path=str(path), harmless=str(harmless))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] in ("too-large", "corrupt") and int(out[1]) < 120, out


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_bytes=1000), "too-large"),
        (Limits(max_pixels=96 * 128 - 1), "too-large"),
        (Limits(max_duration_s=0.5), "too-large"),
        (Limits(max_streams=1), "too-large"),
        (Limits(max_channels=0), "too-large"),
        (Limits(max_rate_hz=8000), "too-large"),
        (Limits(timeout_s=0.0), "timeout"),
    ],
)
def test_limits(limits, reason):
    assert refusal(CLIP, limits=limits).reason == reason


def test_pictures_that_grow_on_the_way_are_refused():
    """The header is small; later packets are not."""
    small = fixtures.Recipe("mpegts", audio=None, video_options={"preset": "veryfast", "g": "10"})
    large = fixtures.Recipe(
        "mpegts", audio=None, video_options={"preset": "ultrafast"}, muxer_options={"output_ts_offset": "1"}
    )
    data = fixtures.clip(small, duration_s=1.0) + fixtures.clip(large, duration_s=0.2, size_px=(480, 640))
    with open_media(data, limits=Limits(max_pixels=200 * 200)) as media:
        assert fixtures.number_of(media.frames_at([0.5]).data[0]) == 12
        with pytest.raises(MediaError) as caught:
            media.frames_at([0.5, 1.1])
        assert caught.value.reason == "too-large"


def test_only_regular_files_are_opened(tmp_path):
    """And nothing waits: a FIFO without a writer would, for ever."""
    fifo, link = tmp_path / "fifo.mp4", tmp_path / "socket.mp4"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(link))
        sources = [fifo, link, tmp_path, "/dev/zero", tmp_path / "absent.mp4", tmp_path / "x\0y.mp4"]
        reasons = []
        thread = threading.Thread(target=lambda: reasons.extend(refusal(source).reason for source in sources))
        thread.start()
        thread.join(timeout=20)
    assert reasons == ["unreadable"] * len(sources)


def test_missing_permission_is_said(tmp_path):
    path = tmp_path / "locked.mp4"
    path.write_bytes(CLIP)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "permission" in str(refusal(path))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 5000, "not-media"),
        (b"hello world\n" * 100, "not-media"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not-media"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not-media"),
        (b"PK\x03\x04" + bytes(100), "not-media"),
        (b"RIFF\x10\0\0\0WEBP" + bytes(100), "not-media"),
        (CLIP[:200], "truncated"),
        (b"\x1a\x45\xdf\xa3" + bytes(200), "corrupt"),
        (b"OggS" + bytes(200), "corrupt"),
    ],
)
def test_what_is_not_media(data, reason):
    error = refusal(data, name="folder/clip.mp4")
    assert error.reason == reason and str(error).startswith("folder/clip.mp4: ")


@pytest.mark.parametrize("name", fixtures.RECIPES)
def test_containers_are_known_by_their_first_bytes(name, tmp_path):
    path = tmp_path / "no-name"
    path.write_bytes(fixtures.clip(name, duration_s=0.2))
    with path.open("rb") as file:
        container = sniff(file, "x")
    assert container == {"mp4": "mov", "mkv": "matroska", "webm": "matroska", "ts": "mpegts"}.get(
        name.split("-")[0], name.split("-")[0]
    )


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame"), ("adts", "aac"),
     ("aiff", "pcm_s16be")],
)  # fmt: skip
def test_sound_files_are_accepted(container, codec):
    info = probe(fixtures.surround("stereo", codec, container))
    assert info.video is None and (info.audio.rate_hz, info.audio.channels) == (48000, 2)


def test_cover_art_is_no_video(tmp_path):
    """A picture attached to a sound file is not a stream to read."""
    sound = fixtures.surround("stereo", "libmp3lame", "mp3")
    picture = b"image/png\0" + bytes([3]) + b"\0" + b"\x89PNG\r\n\x1a\n" + bytes(50)
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + b"\0" + picture[:-1]
    size = len(frame)
    tag = b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frame
    info = probe(tag + sound)
    assert info.video is None and info.video_streams == 0 and info.audio.channels == 2


def test_codecs_off_the_list_are_refused():
    recipe = fixtures.Recipe("matroska", "ffv1", "flac")
    assert probe(fixtures.clip(recipe, duration_s=0.2)).video.codec == "ffv1"
    recipe = fixtures.Recipe("mov", "qtrle", None, pixel_format="rgb24")
    assert refusal(fixtures.clip(recipe, duration_s=0.2)).reason == "forbidden-codec"


def test_errors_cross_process_borders():
    error = pickle.loads(pickle.dumps(refusal(b"", name="a.mp4")))
    assert (error.path, error.reason) == ("a.mp4", "empty")


def test_nothing_stays_open_or_in_memory(tmp_path):
    """Hundreds of openings, good and bad, leave no descriptor and no memory behind."""
    path, bad = tmp_path / "clip.mp4", tmp_path / "bad.mp4"
    path.write_bytes(CLIP)
    bad.write_bytes(CLIP[:4000])

    def rounds(count: int) -> None:
        for _ in range(count):
            with open_media(path) as media:
                media.frames_at([0.1, 0.5], short_side_px=32)
                media.audio_between(0.0, 0.2, rate_hz=16000)
            refusal(bad)

    def pages() -> int:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1])

    if not os.path.exists("/proc/self/statm"):  # noqa: PTH110
        pytest.skip("needs /proc")
    rounds(100)
    files, before = len(os.listdir("/proc/self/fd")), pages()  # noqa: PTH208
    rounds(400)
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
    assert (pages() - before) * 4096 < 8 << 20, "20 KB an opening would be a leak"


def test_importing_the_package_is_light():
    code = "import sys, avssl.media; print('torch' in sys.modules, 'av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False False"
    code = "import sys, avssl.media.media, avssl.media.encode; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_failing_disk_is_no_bad_file(tmp_path, monkeypatch):
    """An input/output error stops the run; it must not count as a damaged clip."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(fixtures.clip("mp4-h264-faststart", duration_s=12.0))
    genuine = guard.open_file

    class Failing(io.FileIO):
        broken = False

        def read(self, size=-1):
            if self.broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    def open_failing(source, name, limits):
        file, name, size = genuine(source, name, limits)
        file.close()
        return Failing(path), name, size

    monkeypatch.setattr(guard, "open_file", open_failing)
    with open_media(path) as media:
        media.frames_at([0.0])
        Failing.broken = True
        with pytest.raises(OSError, match="output error") as caught:
            media.frames_at([11.0])
    assert not isinstance(caught.value, MediaError) and caught.value.errno == errno.EIO
