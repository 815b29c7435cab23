"""Each list maker of shards/ on a made-up miniature of the official layout, read back as a build reads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from avssl.shards.sources import list_sources

MAKERS = Path(__file__).parents[2] / "shards"


def make(tmp_path, maker, *arguments, files=(), texts=None):
    """Lay out `files` and `texts` below tmp_path/root and run a maker on it; returns the entries and its messages."""
    root = tmp_path / "root"
    root.mkdir()
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    for name, text in (texts or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    out = tmp_path / "list.jsonl"
    command = [sys.executable, MAKERS / f"{maker}.py", root, "-o", out, *(a.format(root=root) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return (list_sources(out, root=root).entries if done.returncode == 0 else None), done.stderr


UCF = ["ApplyLipstick/v_ApplyLipstick_g08_c01.avi", "Archery/v_Archery_g01_c02.avi", "Archery/v_Archery_g09_c02.avi"]
UCF_LISTS = {
    "lists/trainlist01.txt": f"{UCF[0]} 2\n{UCF[2]} 3\nArchery/v_Archery_g25_c01.avi 3\n",
    "lists/testlist01.txt": f"{UCF[1]}\n",
    "lists/trainlist02.txt": f"{UCF[1]} 3\r\n",
}


def test_ucf101(tmp_path):
    entries, said = make(tmp_path, "ucf101", "--splits", "{root}/lists", files=UCF, texts=UCF_LISTS)
    assert [(entry.source, entry.label, entry.meta) for entry in entries] == [
        (UCF[0], "ApplyLipstick", {"group": 8, "split": 1, "subset": "train"}),
        (UCF[2], "Archery", {"group": 9, "split": 1, "subset": "train"}),
    ]
    assert "1 in the official list are not below" in said and "next: avssl-shards build" in said


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], UCF),
        (["--splits", "{root}/lists", "--subset", "test"], [UCF[1]]),
        (["--splits", "{root}/lists", "--split", "2"], [UCF[1]]),
    ],
)
def test_ucf101_subsets(tmp_path, arguments, expected):
    entries, _ = make(tmp_path, "ucf101", *arguments, files=UCF, texts=UCF_LISTS)
    assert [entry.source for entry in entries] == expected


def test_hmdb51(tmp_path):
    name = "April_09_#20&(x)_brush_hair_u_nm_np1_ba_goo_0.avi"
    texts = {
        "lists/brush_hair_test_split1.txt": f"{name} 1 \nb.avi 2 \nc.avi 0 \n",
        "lists/wave_test_split1.txt": "d.avi 1 \n",
        "lists/wave_test_split2.txt": "d.avi 2 \n",
    }
    files = [f"brush_hair/{name}", "brush_hair/b.avi", "brush_hair/c.avi", "wave/d.avi"]
    entries, _ = make(tmp_path, "hmdb51", "--splits", "{root}/lists", files=files, texts=texts)
    assert [(entry.source, entry.label) for entry in entries] == [
        (f"brush_hair/{name}", "brush_hair"),
        ("wave/d.avi", "wave"),
    ]


@pytest.mark.parametrize("folder", ["", "riding a bike/"])
def test_kinetics(tmp_path, folder):
    texts = {
        "train.csv": "label,youtube_id,time_start,time_end,split\n"
        "riding a bike,-abc_DEF-12,10,20,train\n"
        "riding a bike,gone0000000,0,10,train\n"
    }
    entries, said = make(
        tmp_path,
        "kinetics",
        "--annotations",
        "{root}/train.csv",
        files=[f"{folder}-abc_DEF-12_000010_000020.mkv"],
        texts=texts,
    )
    (entry,) = entries
    assert (entry.source, entry.label) == (f"{folder}-abc_DEF-12_000010_000020.mkv", "riding a bike")
    assert entry.meta == {"youtube_id": "-abc_DEF-12", "from_s": 10, "subset": "train"} and entry.start_s is None
    assert "1 in the official list are not below" in said


def test_vggsound(tmp_path):
    texts = {"vggsound.csv": 'aaaaaaaaaaa,30,"dog barking, loud",train\nbbbbbbbbbbb,9,people clapping,test\n'}
    files = ["aaaaaaaaaaa_000030.mp4", "bbbbbbbbbbb_000009.mp4"]
    entries, _ = make(tmp_path, "vggsound", "--annotations", "{root}/vggsound.csv", files=files, texts=texts)
    assert [(entry.source, entry.label) for entry in entries] == [(files[0], "dog barking, loud")]


@pytest.mark.parametrize("cut", [False, True])
def test_audioset(tmp_path, cut):
    texts = {
        "segments.csv": "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '--aaaaaaaaa, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n',
        "classes.csv": 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gurgling, bubbling"\n',
    }
    arguments = ["--annotations", "{root}/segments.csv", "--classes", "{root}/classes.csv"] + ["--cut"] * cut
    ((entry,), _) = make(tmp_path, "audioset", *arguments, files=["--aaaaaaaaa.mp4"], texts=texts)
    assert (entry.source, entry.label) == ("--aaaaaaaaa.mp4", None)
    assert entry.meta["labels"] == ["Speech", "Gurgling, bubbling"]
    assert (entry.start_s, entry.end_s) == ((None, None) if cut else (30.0, 40.0))


def test_fsd50k(tmp_path):
    texts = {
        "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n"
        '64760,"Guitar,Music","/m/a,/m/b",train\n16399,Bell,/m/c,val\n',
        "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n37199,Bell,/m/c\n",
    }
    files = ["FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav", "FSD50K.eval_audio/37199.wav"]
    ((entry,), _) = make(tmp_path, "fsd50k", files=files, texts=texts)
    assert (entry.source, entry.meta["labels"]) == (files[0], ["Guitar", "Music"])
    (tmp_path / "again").mkdir()
    ((entry,), _) = make(tmp_path / "again", "fsd50k", "--subset", "eval", files=files, texts=texts)
    assert entry.source == files[2]


YT360 = {
    "segments.txt": "aaaaaaaaaaa 0,10,42\n-bbbbbbbbbb 7\nccccccccccc 5\n",
    "train.txt": "-bbbbbbbbbb\naaaaaaaaaaa\nwithoutsegm\n",
}


def test_yt360(tmp_path):
    files = ["aaaaaaaaaaa.mp4", "cut/-bbbbbbbbbb-7.mkv", "ccccccccccc.mp4"]
    arguments = ["--segments", "{root}/segments.txt", "--split", "{root}/train.txt"]
    entries, said = make(tmp_path, "yt360", *arguments, files=files, texts=YT360)
    assert [(entry.source, entry.start_s, entry.end_s, entry.meta) for entry in entries] == [
        ("cut/-bbbbbbbbbb-7.mkv", None, None, {"video": "-bbbbbbbbbb", "from_s": 7}),
        *(("aaaaaaaaaaa.mp4", t, t + 10.0, {"video": "aaaaaaaaaaa", "from_s": t}) for t in (0, 10, 42)),
    ]
    assert {(entry.ambisonics, entry.projection) for entry in entries} == {("youtube", "equirectangular")}
    assert "next: avssl-shards build" in said


def test_yt360_without_a_split_takes_all_that_is_there(tmp_path):
    arguments = ["--segments", "{root}/segments.txt", "--ambisonics", "ambix"]
    entries, said = make(tmp_path, "yt360", *arguments, files=["ccccccccccc.mp4"], texts=YT360)
    assert [(entry.source, entry.start_s, entry.ambisonics) for entry in entries] == [("ccccccccccc.mp4", 5.0, "ambix")]
    assert "4 in the official list are not below" in said


def test_nothing_found_is_an_error(tmp_path):
    entries, said = make(tmp_path, "ucf101", files=["flat.avi"])
    assert entries is None and "does it have the layout" in said
