"""Every file of the corpus has an end: it is decoded or named, in bounded time and memory; it reaches no other file."""

import os
import socket
import threading

import hostile_files
import pytest

from avssl.errors import MediaError
from avssl.media import open_media
from avssl.media.limits import Limits
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.decoder import Decoder
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from fuzz import mutated

REFUSED = {
    "unreadable", "empty", "not-media", "forbidden-format", "forbidden-codec", "channel-map", "too-large", "truncated",
    "corrupt", "out-of-range", "no-video", "no-audio",
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    secret = folder / "secret.mov"
    secret.write_bytes(b"SECRET" * 1000)
    files = {}
    for number, (name, data) in enumerate(hostile_files.media(secret).items()):
        path = folder / "files" / f"{number:02d}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        files[name] = path
    return files


@pytest.fixture(scope="module")
def decoder():
    with Decoder(Bounds(memory_mb=1024), Limits(timeout_s=20.0)) as decoder:
        yield decoder


def test_each_is_decoded_or_refused_by_name(corpus, decoder):
    reasons = {name: mutated.decode(decoder, path) for name, path in corpus.items()}
    odd = {name: reason for name, reason in reasons.items() if reason not in REFUSED | {"ok"}}
    assert not odd, "a crash, a hang or an unexpected error"
    never = ("a ", "an ", "huge", "noise", "nested", "cut in the header")
    assert [name for name, reason in reasons.items() if reason == "ok" and name.startswith(never)] == []
    assert decoder.restarts == 0


def test_packing_them_names_each(corpus, tmp_path):
    """As `avssl-shards build` does by default: in confined processes."""
    folder = next(iter(corpus.values())).parent
    options = BuildOptions(clip_s=2.0, min_clip_s=0.1, short_side_px=32, audio_rate_hz=8000)
    summary = build(list_sources(folder), tmp_path / "out", options, timeout_s=60.0, sandbox=Bounds(memory_mb=1024))
    assert summary.sources == len(corpus) and summary.rejected >= len(corpus) / 2
    assert not {"worker-died", "timeout", "unexpected"} & set(summary.rejected_by_reason), summary.rejected_by_reason
    assert b"SECRET" not in b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_no_list_makes_a_connection(decoder, tmp_path):
    """Neither in the sandbox nor without it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        port = server.getsockname()[1]
        path = tmp_path / "list.mp4"
        path.write_bytes(f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n".encode())
        assert mutated.decode(decoder, path) == "forbidden-format"
        with pytest.raises(MediaError), open_media(path):
            pass
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_pipe_and_a_device_are_not_waited_for(decoder, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    done = []
    for path in (tmp_path / "pipe.mp4", tmp_path / "zero.mp4"):
        thread = threading.Thread(target=lambda path=path: done.append(mutated.decode(decoder, path)), daemon=True)
        thread.start()
        thread.join(30)
    assert done == ["unreadable", "unreadable"]


def test_mutated_files_do_no_harm():
    """The small form of `python -m fuzz.mutated --files 10000`."""
    found = mutated.attack(mutated.rendered(), 200, seed=1, bounds=Bounds(memory_mb=1024))
    assert sum(found["outcomes"].values()) == 200
    assert not found["to_look_at"] and found["restarts_of_the_child"] == 0
    assert found["longest_s"] < mutated.LONGEST_S
    assert found["parent_grew_by_mb"] < 64
