"""Official lists and folders: each layout is written down here as its owners have it, and read."""

import pytest

from avssl.errors import ConfigError
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.evaluation.datasets import read_folds


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(items):
    return [(item.path.name, item.labels) for item in items]


def test_ucf101_keeps_groups_apart(tmp_path):
    lists = tmp_path / "lists"
    for n in (1, 2, 3):
        write(lists / f"trainlist0{n}.txt", "Archery/v_Archery_g08_c01.avi 1\nBiking/v_Biking_g08_c02.avi 2\n")
        write(lists / f"testlist0{n}.txt", "Archery/v_Archery_g01_c01.avi\n\n")
    folds = read_folds(DatasetConfig(str(tmp_path), "ucf101", str(lists)))
    assert [fold.name for fold in folds] == ["1", "2", "3"]
    assert names(folds[0].train) == [
        ("v_Archery_g08_c01.avi", ("Archery",)),
        ("v_Biking_g08_c02.avi", ("Biking",)),
    ]
    assert folds[0].train[0].path == tmp_path / "Archery/v_Archery_g08_c01.avi"
    assert [item.group for item in folds[0].train] == ["Archery/v_Archery_g08", "Biking/v_Biking_g08"]
    write(lists / "testlist02.txt", "Archery/v_Archery_g08_c07.avi\n")
    assert len(read_folds(DatasetConfig(str(tmp_path), "ucf101", str(lists), fold=1))) == 1
    with pytest.raises(ConfigError, match="the source 'Archery/v_Archery_g08' among what is trained on and"):
        read_folds(DatasetConfig(str(tmp_path), "ucf101", str(lists)))


def test_hmdb51(tmp_path):
    write(tmp_path / "brush_hair_test_split1.txt", "a b.avi 1 \nc.avi 2 \nd.avi 0 \n")
    write(tmp_path / "wave_test_split1.txt", "e.avi 1 \nf.avi 2 \n")
    (fold,) = read_folds(DatasetConfig(str(tmp_path), "hmdb51", str(tmp_path)))
    assert names(fold.train) == [("a b.avi", ("brush_hair",)), ("e.avi", ("wave",))]
    assert names(fold.test) == [("c.avi", ("brush_hair",)), ("f.avi", ("wave",))]


def test_esc50_leaves_one_fold_out(tmp_path):
    rows = "".join(f"{n}-{n}00-A-0.wav,{n},0,dog,True,{n}00,A\n" for n in range(1, 6))
    write(tmp_path / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take\n" + rows)
    folds = read_folds(DatasetConfig(str(tmp_path), "esc50"))
    assert [fold.name for fold in folds] == list("12345")
    assert names(folds[1].test) == [("2-200-A-0.wav", ("dog",))] and len(folds[1].train) == 4
    assert folds[0].test[0].path == tmp_path / "audio/1-100-A-0.wav"


def test_fsdkaggle2018(tmp_path):
    write(
        tmp_path / "FSDKaggle2018.meta/train_post_competition.csv",
        "fname,label,manually_verified,freesound_id,license\nx.wav,Flute,1,1,cc\n",
    )
    write(
        tmp_path / "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv",
        "fname,label,usage,freesound_id,license\ny.wav,Cello,Public,2,cc\n",
    )
    (fold,) = read_folds(DatasetConfig(str(tmp_path), "fsdkaggle2018"))
    assert fold.train[0].path == tmp_path / "FSDKaggle2018.audio_train/x.wav" and fold.test[0].labels == ("Cello",)


def test_dcase(tmp_path):
    for n in (1, 2):
        write(tmp_path / f"evaluation_setup/fold{n}_train.txt", "audio/a.wav\tbeach\n")
        write(tmp_path / f"evaluation_setup/fold{n}_evaluate.txt", "audio/b.wav\tbus\textra\n")
    folds = read_folds(DatasetConfig(str(tmp_path), "dcase"))
    assert [fold.name for fold in folds] == ["1", "2"] and names(folds[0].test) == [("b.wav", ("bus",))]


def test_a_folder_is_cut_by_sources(tmp_path):
    for label in ("dog", "cat"):
        for source in range(6):
            for piece in range(2):
                write(tmp_path / label / f"s{source}_{piece}.mp4")
    write(tmp_path / "dog/notes.txt")
    data = DatasetConfig(str(tmp_path), folds=3, group=r"(\w+/s\d+)_")
    folds = read_folds(data, seed=1)
    tested = [item.path for fold in folds for item in fold.test]
    assert len(tested) == len(set(tested)) == 24
    for fold in folds:
        assert {i.labels[0] for i in fold.test} == {"dog", "cat"} and len(fold.train) + len(fold.test) == 24
        assert not {i.group for i in fold.train} & {i.group for i in fold.test}
        assert len({i.group for i in fold.test}) * 2 == len(fold.test), "both pieces of a source lie on one side"
    assert read_folds(data, seed=1) == folds
    assert [f.test for f in read_folds(data, seed=2)] != [f.test for f in folds]


def test_a_list_may_split_itself(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label,split\na.wav,dog;bark,train\nb.wav,cat,test\n")
    (fold,) = read_folds(DatasetConfig(str(tmp_path), "csv", str(path)))
    assert names(fold.train) == [("a.wav", ("dog", "bark"))] and names(fold.test) == [("b.wav", ("cat",))]
    path.write_text("path,label,fold\na.wav,dog,1\nb.wav,cat,10\nc.wav,cat,2\n")
    assert [f.name for f in read_folds(DatasetConfig(str(tmp_path), "csv", str(path)))] == ["1", "2", "10"]
    path.write_text("path,label,split\na.wav,dog,training\n")
    with pytest.raises(ConfigError, match="'training' is neither train nor test"):
        read_folds(DatasetConfig(str(tmp_path), "csv", str(path)))
    path.write_text("file,label\na.wav,dog\n")
    with pytest.raises(ConfigError, match="no column 'path'"):
        read_folds(DatasetConfig(str(tmp_path), "csv", str(path)))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "ucf101"}, "protocol.data.lists: missing"),
        ({"group": "x"}, "no group in parentheses"),
        ({"group": "("}, "not a regular expression"),
        ({"kind": "esc50"}, "esc50.csv: cannot be read"),
        ({"kind": "dcase"}, "foldN_train.txt"),
        ({"kind": "hmdb51", "lists": "."}, "CLASS_test_splitN.txt"),
        ({"folds": 1}, "protocol.data.folds is 1"),
        ({}, "there are 0 sources"),
    ],
)
def test_what_is_missing_is_named(tmp_path, settings, says):
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        read_folds(DatasetConfig(str(tmp_path), **settings))
