import hashlib
import json
import tarfile

import pytest
from shard_builders import made_up_clip, write_folder

from avssl.shards.tar import TarWriter
from avssl.shards.verify import verify


def kinds(folder, **options):
    return sorted({problem.kind for problem in verify(folder, **options)})


def test_whole_folder_has_no_problem(folder):
    shards = []
    assert list(verify(folder, advance=shards.append)) == []
    assert len(shards) == 4
    assert kinds(folder, quick=True) == []


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.35, 0.5, 0.77, 0.999])
def test_any_flipped_bit_is_found_and_its_shard_named(folder, place):
    path = folder / "shard-000001.tar"
    flip(path, int(place * path.stat().st_size), bit=3)
    problems = list(verify(folder))
    assert "sha256" in {problem.kind for problem in problems}
    assert all(problem.where.startswith("shard-000001.tar") for problem in problems)
    assert kinds(folder, quick=True) == []  # says what it does: sizes only


@pytest.mark.parametrize("size", [0, 100, 512, 3000, -1])
def test_truncated_tar(folder, size):
    path = folder / "shard-000002.tar"
    with path.open("r+b") as file:
        file.truncate(size if size >= 0 else path.stat().st_size - 1)
    assert {"truncated", "sha256"} <= set(kinds(folder))
    assert kinds(folder, quick=True) == ["truncated"]


def rewrite(folder, shard, change):
    """Write a shard anew with other members, with an index that believes it: only the content can tell."""
    path = folder / f"shard-{shard:06d}.tar"
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]
    writer = TarWriter(path)
    for name, data in change(members):
        writer.add(name, data)
    size, digest = writer.finish()
    index = json.loads((folder / "index.json").read_bytes())
    index["shards"][shard] |= {"bytes": size, "sha256": digest}
    (folder / "index.json").write_text(json.dumps(index))


def test_missing_extra_doubled_and_changed_members(folder):
    rewrite(folder, 0, lambda members: members[:-1])
    assert kinds(folder) == ["missing-member"]
    rewrite(folder, 1, lambda members: [*members, ("feedfeedfeedfeed.mp4", b"")])
    assert kinds(folder) == ["extra-member", "missing-member"]
    rewrite(folder, 2, lambda members: [*members, members[0]])
    found = list(verify(folder))
    assert {problem.kind for problem in found} >= {"duplicate-key"}
    rewrite(folder, 3, lambda members: [(name, data.replace(b"source 0016", b"source 0017")) for name, data in members])
    assert any(p.kind == "member" and p.where.startswith("shard-000003") and ".json" in p.where for p in verify(folder))


def test_reordered_members_do_not_lie_where_the_manifest_says(folder):
    rewrite(folder, 0, lambda members: members[::-1])
    assert kinds(folder) == ["member"]


def test_missing_and_extra_shards(folder):
    (folder / "shard-000003.tar").rename(folder / "shard-000007.tar")
    for quick in (False, True):
        assert kinds(folder, quick=quick) == ["extra-shard", "missing-shard"]


def edit_manifest(folder, change):
    """Change the rows, with an index that believes it."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_bytes().splitlines()]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in change(rows))
    (folder / "manifest.jsonl").write_bytes(data)
    index = json.loads((folder / "index.json").read_bytes())
    index["manifest_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "index.json").write_text(json.dumps(index))


def with_row(number, **fields):
    return lambda rows: [row | fields if row["row"] == number else row for row in rows]


@pytest.mark.parametrize(
    "change, detail",
    [
        (lambda rows: rows[:-1], "has 19 rows, the index says 20"),
        (lambda rows: rows + rows[-1:], "is there twice"),
        (with_row(7, row=8), "row is 8, not 7"),
        (with_row(7, id="0123456789abcdef"), "does not follow from source and times"),
        (with_row(7, end_s=11.0), "does not follow from source and times"),
        (with_row(7, shard=3), "out of order"),
        (with_row(7, shard=4), "out of order or not in the index"),
        (with_row(7, members=None), "NoneType"),
        (with_row(7, label="other"), "is not what the manifest says"),
        (lambda rows: [{}], "not a manifest row"),
        (lambda rows: [5], "not a manifest row"),
    ],
)
def test_manifest_that_does_not_fit(folder, change, detail):
    edit_manifest(folder, change)
    assert any(detail in str(problem) for problem in verify(folder))


def test_damaged_manifest_and_index(folder):
    flip(folder / "manifest.jsonl", 700)
    assert "manifest" in kinds(folder)
    (folder / "manifest.jsonl").unlink()
    assert kinds(folder) == kinds(folder, quick=True) == ["manifest"]
    (folder / "index.json").write_text("{")
    assert kinds(folder) == ["index"]


def test_members_that_do_not_decode(tmp_path):
    folder = write_folder(tmp_path / "s", [made_up_clip(n) for n in range(10)])
    problems = list(verify(folder, decode=3))
    assert {problem.kind for problem in problems} == {"undecodable"} and len(problems) == 6  # 3 clips, 2 members each
