"""avssl-shards as a user runs it."""

import json
import resource
import subprocess
import sys

import pytest
from shard_builders import made_up_clip, write_folder, write_media

COMMAND = [sys.executable, "-m", "avssl.cli.shards"]
SMALL = ["--clip-s", "1", "--short-side-px", "32", "--fps", "8", "--audio-rate-hz", "8000", "--workers", "1"]


def avssl_shards(*arguments, **options):
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, **options)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    write_media(root / "<b>dog & cat" / "a.mp4", 3.0, seed=1)
    write_media(root / "bird" / "b.mp4", 1.0, audio=False, seed=2)
    (root / "bird" / "bad.mp4").write_bytes(b"no video")
    (root / "bird" / "readme.txt").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def packed(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "shards"
    done = avssl_shards("build", videos, out, *SMALL)
    assert done.returncode == 0
    assert "4 clips" in done.stdout and "of 3 sources" in done.stdout
    assert "1 rejected (not-media 1)" in done.stdout and "1 files without a media extension" in done.stdout
    assert "packing: 3/3" in done.stderr
    return out


def test_again_is_complete_and_json(videos, packed):
    done = avssl_shards("build", videos, packed, *SMALL, "--json")
    summary = json.loads(done.stdout)
    assert done.returncode == 0 and summary["complete"] and summary["rows"] == 4
    assert summary["rejected_by_reason"] == {"not-media": 1}


@pytest.mark.parametrize("budget, code", [("0", 1), ("1", 0), ("19%", 1), ("20%", 0)])
def test_budget_of_rejections_is_the_exit_code(videos, packed, budget, code):
    done = avssl_shards("build", videos, packed, *SMALL, "--max-rejected", budget)
    assert done.returncode == code
    assert ("--max-rejected allows" in done.stderr) == (code == 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--fps", "4"], "other options: fps was 8.0 and is 4.0"),
        (["--no-labels"], "other sources: the same files with another order, ranges, labels"),
        (["--job-index", "0"], "belong together"),
        (["--job-index", "0", "--num-jobs", "2"], "finished or merged"),
        (["--max-rejected", "many"], "neither a number"),
        (["--clip-s", "0"], "clip_s is 0.0"),
        (["--workers", "0"], "workers is 0"),
        (["--require", "smell"], "invalid choice"),
        (["--root", "/"], "root"),
    ],
)
def test_wrong_use_is_one_sentence_and_code_2(videos, packed, arguments, message):
    done = avssl_shards("build", videos, packed, *SMALL, *arguments)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_nothing_packed_fails(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"x")
    done = avssl_shards("build", tmp_path / "in", tmp_path / "out", "--workers", "1")
    assert done.returncode == 1 and "nothing could be packed" in done.stderr


def test_folder_that_cannot_be_written(videos):
    done = avssl_shards("build", videos, "/proc/shards", *SMALL)
    assert done.returncode == 1 and "/proc/shards: cannot be written" in done.stderr and done.stderr.count("\n") == 1


def test_full_disk_is_one_sentence_and_the_build_goes_on_later(videos, packed, tmp_path):
    options = [*SMALL, "--shard-clips", "2"]

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    done = avssl_shards("build", videos, tmp_path / "out", *options, preexec_fn=small_files_only)
    assert done.returncode == 1 and "cannot be written" in done.stderr and "run the same command again" in done.stderr
    assert avssl_shards("build", videos, tmp_path / "out", *options).returncode == 0
    assert avssl_shards("verify", tmp_path / "out").returncode == 0


def test_verify(packed, tmp_path):
    done = avssl_shards("verify", packed, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["ok"]
    folder = write_folder(tmp_path / "s", [made_up_clip(n) for n in range(3)])
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    data[5000] ^= 1
    (folder / "shard-000000.tar").write_bytes(data)
    done = avssl_shards("verify", folder)
    assert (
        done.returncode == 1
        and "shard-000000.tar: its bytes are not the ones that were written (sha256)" in done.stdout
    )
    assert avssl_shards("verify", folder, "--quick").returncode == 0
    assert json.loads(avssl_shards("verify", folder, "--json").stdout)["problems"][0]["kind"] == "sha256"
    assert avssl_shards("verify", tmp_path).returncode == 1


def test_info(packed):
    facts = json.loads(avssl_shards("info", packed, "--json").stdout)
    assert (facts["clips"], facts["sources"], facts["shards"]) == (4, 2, 1)
    assert (facts["clips_with_video"], facts["clips_with_audio"]) == (4, 3)
    assert facts["hours"] == pytest.approx(4 / 3600, abs=1e-4)
    assert facts["labels"] == {"<b>dog & cat": 3, "bird": 1} and facts["rejected"] == {"not-media": 1}
    assert facts["sizes_px"] == {"54x32": 4} and facts["audio"] == {"8000 Hz, 1 ch": 3}
    text = avssl_shards("info", packed).stdout
    assert "4 clips of 2 sources" in text and "<b>dog & cat" in text
    missing = avssl_shards("info", "nowhere")
    assert missing.returncode == 1 and "no such folder" in missing.stderr


def test_preview_is_one_file_with_pictures_and_sound(packed, tmp_path):
    out = tmp_path / "page.html"
    assert avssl_shards("preview", packed, "-o", out).returncode == 0
    page = out.read_text()
    assert page.count("<article>") == 4 and page.count("data:image/jpeg;base64,") == 4 * 6
    assert page.count("data:audio/flac;base64,") == 3
    assert "&lt;b&gt;dog &amp; cat/a.mp4" in page and "<b>dog" not in page
    assert "http" not in page and "src=" in page
    again = tmp_path / "again.html"
    avssl_shards("preview", packed, "-o", again)
    assert again.read_bytes() == out.read_bytes()
    fewer = tmp_path / "fewer.html"
    avssl_shards("preview", packed, "-o", fewer, "--clips", "2", "--seed", "1")
    assert fewer.read_text().count("<article>") == 2


def test_preview_names_what_does_not_decode(tmp_path):
    folder = write_folder(tmp_path / "s", [made_up_clip(n) for n in range(2)])
    assert avssl_shards("preview", folder).returncode == 0
    assert (folder / "preview.html").read_text().count('class="problem"') == 2
    assert avssl_shards("verify", folder).returncode == 0  # the page is no stranger


def test_jobs_and_merge(videos, tmp_path):
    for index in range(2):
        done = avssl_shards("build", videos, tmp_path, *SMALL, "--job-index", index, "--num-jobs", 2)
        assert done.returncode == 0
    done = avssl_shards("merge", tmp_path)
    assert done.returncode == 0 and "4 clips" in done.stdout
    assert avssl_shards("verify", tmp_path).returncode == 0
