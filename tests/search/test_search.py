"""The index and its answers: those of comparing all vectors by hand; kept up to date; whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image
from tiny_media import save_tiny_model, write_clip

import avssl
from avssl.cli import embed, search
from avssl.embedding.stream import StreamOptions
from avssl.errors import UsageError
from avssl.media import open_media
from avssl.search import find, store
from avssl.search.find import choose_find, nearest, shares_space
from avssl.search.query import Query, read_query


def run(main, *arguments):
    """A command in this process: exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.fixture(scope="module")
def model():
    return "tiny"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_clip(folder / f"{number}.mp4", 4.0, seed=number)
    write_clip(folder / "mute.mp4", 2.0, sound=None, seed=9)
    return folder


@pytest.fixture(scope="module")
def index(model, videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "i"
    assert run(search.main, "index", videos, "-o", folder, "--model", model, "--no-sandbox") == 0
    return folder


def ask(capsys, *arguments):
    code = run(search.main, "query", *arguments, "--json", "--no-sandbox")
    assert code == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_every_query_finds_what_comparing_all_rows_finds(index, videos, model):
    """Against a double loop over files and windows in float64."""
    found = store.read_index(index)
    rows = found.rows
    assert len(found) == 4 * 3 + 1 and rows["path"].to_pylist() == sorted(rows["path"].to_pylist())
    query = read_query(avssl.load(model), videos / "1.mp4", "auto", StreamOptions())
    assert (query.by, query.vectors.shape) == ("video", (3, 128))
    for kind in ("video", "audio"):
        vectors = store.vectors_of(rows, kind).astype(np.float64)
        best: dict[str, float] = {}
        for path, vector, has in zip(rows["path"].to_pylist(), vectors, rows[f"has_{kind}"].to_pylist(), strict=True):
            if has:
                best[path] = max(best.get(path, -2), max(float(window @ vector) for window in query.vectors))
        expected = sorted(best, key=lambda path: -best[path])
        hits = nearest(found, query, kind, 10, own=True)
        assert [hit.path for hit in hits] == expected
        np.testing.assert_allclose([hit.score for hit in hits], [best[path] for path in expected], atol=1e-5)
        without = nearest(found, query, kind, 2)
        assert [hit.path for hit in without] == [path for path in expected if path != str(videos / "1.mp4")][:2]


def test_many_windows_of_one_file_do_not_crowd_out_the_others(index):
    found = store.read_index(index)
    vectors = store.vectors_of(found.rows, "video")
    query = Query(Path("q.mp4"), "video", False, np.zeros(1), np.ones(1), vectors[:1])
    assert len({hit.path for hit in nearest(found, query, "video", 3)}) == 3


def test_beyond_what_is_compared_whole_the_graph_finds_nearly_all(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    vectors = random.standard_normal((2000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    zero = np.zeros(2000)
    columns = {"path": [f"/{n:04d}.mp4" for n in range(2000)], "start_s": zero, "end_s": zero + 1}
    table = pa.table(columns | {"video": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 32)})
    store.write_index(tmp_path, table.append_column("has_video", pa.array(zero == 0)), {}, {"source": "files"})
    index = store.read_index(tmp_path)
    found = {}
    for limit in (find.EXACT_ROWS, 0):
        monkeypatch.setattr(find, "EXACT_ROWS", limit)
        for number in range(20):
            query = Query(Path("q.mp4"), "video", False, zero[:1], zero[:1], vectors[number : number + 1])
            found[limit, number] = {hit.path for hit in nearest(index, query, "video", 10)}
    exact, graph = ([found[limit, n] for n in range(20)] for limit in (100_000, 0))
    truth = np.argsort(-(vectors[:20] @ vectors.T), axis=1)[:, :10]
    assert exact == [{f"/{n:04d}.mp4" for n in row} for row in truth]
    assert np.mean([len(one & other) / 10 for one, other in zip(exact, graph, strict=True)]) > 0.9


@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.parametrize("at_s", [0.0, 1.0, 3.0])
def test_a_moment_is_described_as_avssl_embed_describes_it(index, videos, model, kind, at_s):
    loaded = avssl.load(model)
    moment = read_query(loaded, videos / "2.mp4", kind, StreamOptions(), at_s)
    whole = read_query(loaded, videos / "2.mp4", kind, StreamOptions(window_s=2.0, hop_s=1.0))
    if at_s in whole.start_s:
        np.testing.assert_allclose(moment.vectors[0], whole.vectors[whole.start_s.tolist().index(at_s)], atol=2e-5)
    assert moment.end_s[0] == min(at_s + 2, 4) and np.linalg.norm(moment.vectors[0]) == pytest.approx(1, abs=1e-5)


def test_a_still_picture_and_a_sound_file_are_queries_too(index, videos, tmp_path, capsys):
    with open_media(videos / "3.mp4") as media:
        Image.fromarray(media.frames_at([0.5]).data[0]).save(tmp_path / "still.png")
        sound = media.audio_between(1.0, 2.0, rate_hz=24000)
    soundfile.write(tmp_path / "sound.wav", sound.samples.T, 24000, subtype="FLOAT")
    still = ask(capsys, tmp_path / "still.png", "--index", index, "-k", 1)
    assert (still["by"], still["find"], still["windows"]) == ("video", "video", 1)
    heard = ask(capsys, tmp_path / "sound.wav", "--index", index)
    assert (heard["by"], heard["find"]) == ("audio", "audio")
    assert heard["results"][0] | {"score": 1} == {
        "rank": 1, "path": str(videos / "3.mp4"), "start_s": 1.0, "end_s": 3.0, "score": 1, "at_s": 0.0,
    }  # fmt: skip
    assert heard["results"][0]["score"] > 0.999 and len(heard["results"]) == 4  # one has no sound
    crossed = ask(capsys, tmp_path / "sound.wav", "--index", index, "--find", "video")
    assert crossed["find"] == "video" and len(crossed["results"]) == 5


def test_only_what_is_new_is_embedded_again(model, tmp_path, capsys):
    for number in range(3):
        write_clip(tmp_path / "in" / f"{number}.mp4", 1.0, seed=number)
    words = ["index", tmp_path / "in", "-o", tmp_path / "i", "--model", model, "--json", "--no-sandbox"]
    assert run(search.main, *words) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["rows"], first["embedded"], first["kept"]) == (3, 3, 0)
    before = (tmp_path / "i" / "index.json").read_bytes()
    assert run(search.main, *words) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 3
    assert (tmp_path / "i" / "index.json").read_bytes() == before

    (tmp_path / "in" / "0.mp4").unlink()
    write_clip(tmp_path / "in" / "1.mp4", 1.5, seed=7)
    write_clip(tmp_path / "in" / "9.mp4", 1.0, seed=9)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"nothing")
    assert run(search.main, *[word for word in words if word not in ("--model", model)]) == 1
    out, err = capsys.readouterr()
    second = json.loads(out)
    assert (second["files"], second["embedded"], second["kept"]) == (3, 2, 1)
    assert second["dropped"] == [str(tmp_path / "in" / "0.mp4")]
    assert [failed["reason"] for failed in second["failed"]] == ["not-media"] and "broken.mp4" in err

    # The same files indexed at once give the same bytes.
    (tmp_path / "in" / "broken.mp4").unlink()
    assert run(search.main, *words) == 0
    assert run(search.main, *[tmp_path / "j" if word == tmp_path / "i" else word for word in words]) == 0
    names = sorted(path.name for path in (tmp_path / "i").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "j").iterdir()) and len(names) == 4
    for name in names:
        assert (tmp_path / "i" / name).read_bytes() == (tmp_path / "j" / name).read_bytes(), name


def test_a_second_folder_joins_the_first(model, tmp_path, capsys):
    for name in ("a", "b"):
        write_clip(tmp_path / name / "clip.mp4", 1.0)
        words = ["-o", tmp_path / "i", "--model", model, "--json", "--no-sandbox"]
        assert run(search.main, "index", tmp_path / name, *words) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("}\n{") + 2 :])["files"] == 2


def test_a_table_of_avssl_embed_becomes_an_index_without_decoding(model, videos, tmp_path, capsys):
    for suffix in ("npz", "parquet"):
        table = tmp_path / f"t.{suffix}"
        assert run(embed.main, videos, "-o", table, "--model", model, "--layers", "video.pool", "--no-sandbox") == 0
        assert run(search.main, "index", table, "-o", tmp_path / suffix) == 0
        capsys.readouterr()
        found = ask(capsys, videos / "1.mp4", "--index", tmp_path / suffix, "--at", "1", "--own", "-k", 1)
        assert found["results"][0]["path"] == str(videos / "1.mp4") and found["results"][0]["score"] > 0.999
    assert run(search.main, "index", videos, "-o", tmp_path / "npz", "--model", model) == 2
    assert "was made of the table" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert run(search.main, "index", tmp_path / "other.npz", "-o", tmp_path / "k") == 2
    assert "is not a table of avssl-embed" in capsys.readouterr().err


def test_rows_of_an_index_are_a_table_of_avssl_embed(index):
    table = next(index.glob("rows-*.parquet"))
    meta = json.loads(pq.read_schema(table).metadata[b"meta"])
    assert (meta["format"], meta["window_s"], meta["rows"]) == ("avssl-embeddings", 2.0, 13)


def test_a_failure_leaves_the_old_index_as_it_was(model, tmp_path, monkeypatch, capsys):
    write_clip(tmp_path / "in" / "a.mp4", 1.0)
    words = ["index", tmp_path / "in", "-o", tmp_path / "i", "--model", model, "--no-sandbox"]
    assert run(search.main, *words) == 0
    write_clip(tmp_path / "in" / "b.mp4", 1.0, seed=1)

    def fails(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_json", fails)
    assert run(search.main, *words) == 1
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    found = store.read_index(tmp_path / "i")
    assert [Path(path).name for path in found.rows["path"].to_pylist()] == ["a.mp4"]
    monkeypatch.undo()
    assert run(search.main, *words) == 0
    assert len(store.read_index(tmp_path / "i")) == 2


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_damage_is_named(index, model, videos, tmp_path, capsys):
    import shutil

    for damage, words in (
        (lambda folder: (folder / "index.json").write_text("{"), "index.json: cannot be read"),
        (lambda folder: (folder / "index.json").write_text("{}"), 'key "format"'),
        (lambda folder: flip(next(folder.glob("video-*"))), "usearch: is damaged"),
        (lambda folder: next(folder.glob("audio-*")).unlink(), "usearch: cannot be read: No such file"),
        (lambda folder: flip(next(folder.glob("rows-*"))), "parquet: is damaged"),
    ):
        shutil.copytree(index, tmp_path / "i")
        damage(tmp_path / "i")
        assert run(search.main, "query", videos / "1.mp4", "--index", tmp_path / "i", "--no-sandbox") == 1
        assert words in capsys.readouterr().err
        shutil.rmtree(tmp_path / "i")


def test_wrong_use_is_one_sentence(index, model, videos, tmp_path, capsys):
    (tmp_path / "shot.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    other = save_tiny_model(tmp_path / "other", seed=1)
    for arguments, code, words in (
        (["query", "absent.mp4", "--index", index], 2, "absent.mp4: no such file"),
        (["query", videos / "1.mp4", "--index", tmp_path], 2, "holds no index; make one"),
        (["query", videos / "mute.mp4", "--index", index, "--by", "audio"], 2, "has no sound to search by"),
        (["query", videos / "1.mp4", "--index", index, "--at", "99"], 2, "--at 99 is not within its picture, 0 to 4"),
        (["query", tmp_path / "small.png", "--index", index, "--by", "audio"], 2, "is a picture and has no sound"),
        (["query", tmp_path / "shot.png", "--index", index], 1, "is no picture that is read here"),
        (["query", videos / "1.mp4", "--index", index, "--model", other], 2, "is another one"),
        (["index", videos, "-o", index, "--model", other], 2, "is another one"),
        (["index", videos, "-o", index, "--window", "3"], 2, "was made with --window 2, not 3"),
        (["index", tmp_path / "absent", "-o", tmp_path / "i", "--model", model], 2, "no such file or folder"),
        (["index", videos, "-o", videos / "1.mp4"], 2, "is a file; name a folder"),
    ):
        assert run(search.main, *arguments, "--no-sandbox") == code
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1, err


def test_towers_without_a_common_space_say_so(videos, index, tmp_path):
    from avssl.models.av_model import AVModel
    from avssl.models.config import ModelConfig, TowerConfig
    from avssl.models.two_tower import TwoTower

    towers = TowerConfig("efficientnet_lite0"), TowerConfig("tiny_audio")
    wide = AVModel(TwoTower(ModelConfig(*towers, head=None)))
    assert not shares_space(wide)
    query = read_query(wide, videos / "0.mp4", "video", StreamOptions(), 0.0)
    with pytest.raises(UsageError, match=r"no common space, so a picture finds no sound.*avssl-align"):
        choose_find(store.read_index(index), wide, query, "audio")
    assert choose_find(store.read_index(index), wide, query, "auto") == "video"


def test_the_table_for_people_shows_names_as_they_are(model, tmp_path, capsys):
    name = "[red]odd & <b>[/red] name.mp4"
    write_clip(tmp_path / "in" / name, 1.0)
    write_clip(tmp_path / "query.mp4", 1.0, seed=2)
    assert run(search.main, "index", tmp_path / "in", "-o", tmp_path / "i", "--model", model) == 0
    assert run(search.main, "query", tmp_path / "query.mp4", "--index", tmp_path / "i") == 0
    out = capsys.readouterr().out
    assert name in out and "score" in out
