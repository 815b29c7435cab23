"""Embedding when the decoder dies, hangs or is confined, the disk is full, or two write one table."""

import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from avssl.embedding.parts import PartFolder
from avssl.embedding.run import Listener, embed_to_file, options_for
from avssl.embedding.sources import find_units
from avssl.errors import UsageError
from avssl.media.limits import Limits
from avssl.models.folder import load
from avssl.sandbox.decoder import Decoder
from avssl.synthetic import fixtures


@pytest.fixture(scope="module")
def model():
    return load("tiny")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, duration_s in (("a", 4.0), ("b", 30.0), ("c", 4.0)):  # b is longer than what is decoded ahead
        (folder / f"{name}.mp4").write_bytes(fixtures.clip("mp4-h264-aac", duration_s=duration_s))
    (folder / "bad.mp4").write_bytes(b"no video at all" * 100)
    return folder


def columns(path):
    with np.load(path) as table:
        return {name: table[name] for name in table.files if name != "meta"}


def same_rows(a, b):
    ours, theirs = columns(a), columns(b)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_the_sandbox_changes_no_number(model, clips, tmp_path):
    units, options = find_units([clips]), options_for(model)
    plain = embed_to_file(model, units, tmp_path / "plain.npz", options)
    with Decoder() as decoder:
        confined = embed_to_file(model, units, tmp_path / "confined.npz", options, decoder=decoder)
        assert decoder.restarts == 0
    assert same_rows(tmp_path / "plain.npz", tmp_path / "confined.npz")
    assert plain.rows == confined.rows and plain.failed == confined.failed
    assert [failure["reason"] for failure in confined.failed] == ["not-media"]


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGKILL, "worker-died"), (signal.SIGSTOP, "timeout")])
def test_a_decoder_that_dies_or_hangs_costs_its_file_only(model, clips, tmp_path, number, reason):
    with Decoder(limits=Limits(timeout_s=4.0)) as decoder:

        class Sabotage(Listener):
            def at(self, row):
                if row["path"].endswith("b.mp4") and row["start_s"] == 0.0:
                    os.kill(decoder.pid, number)

        units, options = find_units([clips / f"{name}.mp4" for name in "abc"]), options_for(model, batch_size=1)
        report = embed_to_file(model, units, tmp_path / "t.npz", options, decoder=decoder, listener=Sabotage())
        assert [(failure["path"][-5:], failure["reason"]) for failure in report.failed] == [("b.mp4", reason)]
        assert set(columns(tmp_path / "t.npz")["path"]) == {str(clips / "a.mp4"), str(clips / "c.mp4")}
        again = embed_to_file(model, units, tmp_path / "t.npz", options, decoder=decoder)  # tries it once more
    assert again.failed == [] and again.kept == 2
    embed_to_file(model, units, tmp_path / "whole.npz", options)
    assert same_rows(tmp_path / "t.npz", tmp_path / "whole.npz")


def avssl_embed(*arguments, **options):
    main = "from avssl.cli.embed import main; main()"
    command = [sys.executable, "-c", main, *map(str, arguments), "--model", "tiny"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, **options)


def test_a_full_disk_is_one_sentence_and_finished_files_are_kept(clips, tmp_path):
    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    out = tmp_path / "t.npz"
    done = avssl_embed(clips / "a.mp4", clips / "b.mp4", "-o", out, preexec_fn=small_files_only)
    assert done.returncode == 1 and f"{out}: cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr and not out.exists()
    assert avssl_embed(clips / "a.mp4", clips / "b.mp4", "-o", out).returncode == 0
    assert not any(path.name.endswith(".tmp") for path in tmp_path.rglob("*"))


def test_a_folder_that_cannot_be_written(clips):
    done = avssl_embed(clips / "a.mp4", "-o", "/proc/t.npz")
    assert done.returncode == 1 and "/proc/t.npz: cannot be written" in done.stderr and "Traceback" not in done.stderr


HOLD = """
import sys, time
from pathlib import Path
from avssl.embedding.parts import PartFolder
parts = PartFolder(Path(sys.argv[1]))
parts.open({"a": 1})
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_run_on_the_same_table_is_refused(tmp_path):
    out = tmp_path / "t.npz"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        for attempt in (lambda parts: parts.open({"a": 1}), lambda parts: parts.remove()):
            with pytest.raises(UsageError, match=f"another process is writing here .process {holder.pid} on "):
                attempt(PartFolder(out))
        assert (tmp_path / "t.npz.parts" / "settings.json").exists()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    parts = PartFolder(out)
    parts.open({"a": 1})
    parts.remove()
