import itertools
import os
from pathlib import Path

import pytest

from avssl.errors import UsageError
from avssl.shards.sources import describe_change, list_sources, slice_for_job


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def sources(listing):
    return [entry.source for entry in listing.entries]


def test_folder_is_sorted_labelled_and_counts_what_it_leaves(tmp_path):
    touch(tmp_path, "dog/b.MP4", "dog/a.mkv", "cat/x/deep.wav", "top.avi", "notes.txt", "dog/.hidden.mp4", ".git/c.mp4")
    listing = list_sources(tmp_path)
    assert sources(listing) == ["cat/x/deep.wav", "dog/a.mkv", "dog/b.MP4", "top.avi"]
    assert [entry.label for entry in listing.entries] == ["cat", "dog", "dog", None]
    assert listing.ignored == 1
    assert all(Path(entry.path).exists() for entry in listing.entries)
    assert {entry.label for entry in list_sources(tmp_path, labels=False).entries} == {None}


def test_order_is_that_of_the_whole_path_not_of_the_walk(tmp_path):
    touch(tmp_path, "a/z.mp4", "a-b/y.mp4", "a.mp4", "B.mp4")
    assert sources(list_sources(tmp_path)) == ["B.mp4", "a-b/y.mp4", "a.mp4", "a/z.mp4"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "elsewhere/far.mp4", "root/dog/a.mp4")
    root = tmp_path / "root"
    (root / "dog" / "link.mp4").symlink_to(tmp_path / "elsewhere" / "far.mp4")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "circle").symlink_to(root)
    assert sources(list_sources(root)) == ["dog/a.mp4", "dog/link.mp4", "linked/far.mp4"]


def test_file_names_that_are_not_text_can_still_be_named(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"")
    (tmp_path / "line\nbreak ü.mp4").write_bytes(b"")
    listing = list_sources(tmp_path)
    assert [entry.source.encode() for entry in listing.entries]  # text that every manifest can hold
    assert all(Path(entry.path).exists() for entry in listing.entries)
    assert len(listing.sha256) == 64


def test_csv(tmp_path):
    (tmp_path / "list.csv").write_text("\ufeffpath,start_s,end_s,label,split\nb.mp4,1.5,4,dog,train\na.mp4,,,,\n")
    first, second = list_sources(tmp_path / "list.csv").entries
    assert (first.source, first.start_s, first.end_s, first.label, first.meta) == (
        "b.mp4",
        1.5,
        4.0,
        "dog",
        {"split": "train"},
    )
    assert first.path == str(tmp_path / "b.mp4")
    assert (second.source, second.start_s, second.end_s, second.label, second.meta) == ("a.mp4", None, None, None, {})
    assert list_sources(tmp_path / "list.csv", root="/data").entries[0].path == "/data/b.mp4"


def test_jsonl_keeps_metadata_of_any_kind(tmp_path):
    (tmp_path / "list.jsonl").write_text(
        '{"path": "a.mp4", "start": 2, "end": 3, "label": 7, "views": [1, 2]}\n\n'
        '{"path": "/abs.mp4", "meta": {"k": null}}\n'
    )
    first, second = list_sources(tmp_path / "list.jsonl").entries
    assert (first.start_s, first.end_s, first.label, first.meta) == (2.0, 3.0, "7", {"views": [1, 2]})
    assert (second.path, second.meta) == ("/abs.mp4", {"k": None})


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("l.csv", "file,label\na.mp4,x\n", "`path` among them"),
        ("l.csv", "path,path\na,b\n", "twice"),
        ("l.csv", "path,label\na.mp4\n", "line 2: has another number of cells"),
        ("l.csv", "path,label\na.mp4,x,y\n", "line 2: has another number of cells"),
        ("l.csv", "path,start_s\na.mp4,soon\n", "line 2: start_s is 'soon'"),
        ("l.csv", "path,start_s\na.mp4,-1\n", "line 2: start_s"),
        ("l.csv", "path,start_s\na.mp4,nan\n", "line 2: start_s"),
        ("l.csv", "path,start_s,end_s\na.mp4,3,3\n", "line 2: end_s 3.0 is not after"),
        ("l.csv", "path,start_s,start\na.mp4,3,3\n", "mean the same"),
        ("l.csv", "path,label\n,x\n", "line 2: the path is empty"),
        ("l.csv", "path,start_s\na.mp4,1\nb.mp4,1\n./a.mp4,1.0001\n", "line 4: the same file and range as line 2"),
        ("l.jsonl", '{"path": "a"}\n{"path": "a"}\n', "line 2: the same file and range as line 1"),
        ("l.jsonl", '{"path": "a"}\n{"path": \n', "line 2: not JSON"),
        ("l.jsonl", '{"path": 5}\n', 'line 1: must be an object with a text "path"'),
        ("l.jsonl", '["a"]\n', "line 1: must be an object"),
        ("l.jsonl", '{"path": "a", "x": NaN}\n', "line 1: not JSON"),
        ("l.jsonl", '{"path": "a", "x": "\\ud800"}\n', "line 1: not JSON"),
        ("l.jsonl", '{"path": "a", "label": ["x"]}\n', "line 1: label"),
        ("l.jsonl", '{"path": "a", "start_s": true}\n', "line 1: start_s"),
        ("l.txt", "a.mp4", "give a folder, a .csv"),
    ],
)
def test_wrong_lists_are_refused_with_their_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        list_sources(tmp_path / name)


def test_csv_that_is_not_text(tmp_path):
    (tmp_path / "l.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(UsageError, match="UTF-8"):
        list_sources(tmp_path / "l.csv")


def test_missing_source_and_root_of_a_folder(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        list_sources(tmp_path / "nothing")
    with pytest.raises(UsageError, match="root"):
        list_sources(tmp_path, root=tmp_path)


def test_digest_follows_content_order_and_labels_but_not_the_place(tmp_path):
    touch(tmp_path / "one", "a/x.mp4", "b/y.mp4")
    touch(tmp_path / "two", "a/x.mp4", "b/y.mp4")
    one, two = list_sources(tmp_path / "one"), list_sources(tmp_path / "two")
    assert one.sha256 == two.sha256
    assert one.sha256 != list_sources(tmp_path / "one", labels=False).sha256


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_jobs_are_a_partition_in_order(tmp_path, count):
    touch(tmp_path, *(f"{n:02d}.mp4" for n in range(10)))
    whole = list_sources(tmp_path)
    parts = [slice_for_job(whole, index, count) for index in range(count)]
    assert list(itertools.chain(*(part.entries for part in parts))) == whole.entries
    assert max(len(part.entries) for part in parts) - min(len(part.entries) for part in parts) <= 1
    assert {part.sha256 for part in parts} == {whole.sha256}
    with pytest.raises(UsageError):
        slice_for_job(whole, count, count)


def test_change_in_words():
    assert describe_change(["a", "b"], ["b", "c", "d"]) == "2 added (e.g. c) and 1 gone (e.g. a)"
    assert "another order" in describe_change(["a"], ["a"])
