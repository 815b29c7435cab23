"""Splits: sources whole, no class without something to learn from, lists as they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.errors import ConfigError
from avssl.finetuning.split import cut, read_labelled


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), min_size=2, max_size=60),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_cut_keeps_sources_whole_and_each_class_learnable(pairs, folds, seed):
    labels = np.array([label for label, _ in pairs])
    groups = [f"{label}-{source}" for label, source in pairs]
    found = cut(labels, groups, folds, seed)
    assert (found == cut(labels, groups, folds, seed)).all() and found.min() >= 0 and found.max() <= folds
    for group in set(groups):
        assert len(set(found[np.array(groups) == group])) == 1
    for label in set(labels.tolist()):
        sources = {g for g, of in zip(groups, labels, strict=True) if of == label}
        own = found[labels == label]
        if len(sources) == 1:
            assert (own == 0).all()
        else:
            for fold in set(own.tolist()):
                assert fold > 0 and (own != fold).any()


def test_a_source_of_several_classes_stays_whole():
    found = cut(np.array([0, 0, 1, 1, 1]), ["x", "a", "x", "b", "c"], 3, 0)
    assert found[0] == found[2]


def test_folder_and_names_of_ucf101(tmp_path):
    for name in ("a/v_a_g01_c01.avi", "a/v_a_g01_c02.avi", "a/v_a_g02_c01.avi", "b/x.mp4", "b/sub/y.mp4", "b/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = read_labelled(str(tmp_path))
    assert found.classes == ["a", "b"] and found.labels.tolist() == [0, 0, 0, 1, 1] and found.side is None
    assert found.groups == ["a/v_a_g01", "a/v_a_g01", "a/v_a_g02", "b/sub/y.mp4", "b/x.mp4"]
    assert read_labelled(str(tmp_path), group="^(.)").groups == ["a", "a", "a", "b", "b"]


def write_csv(path, rows, header="path,label,split"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_a_list_with_split_and_group(tmp_path):
    data = write_csv(
        tmp_path / "l.csv", ["1.mp4,x,train,s", "2.mp4,y,valid,t", "3.mp4,x,test,u"], "path,label,split,group"
    )
    found = read_labelled(data)
    assert found.side == ["train", "val", "test"] and found.paths[0] == tmp_path / "1.mp4"
    assert found.groups == ["s", "t", "u"] and found.of_side("val").tolist() == [1]
    assert read_labelled(data, root="elsewhere").paths[0].parts[0] == "elsewhere"


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["1.mp4,x,train,s", "2.mp4,y,test,s"], "path,label,split,group", "the source 's' is both train and test"),
        (["1.mp4,x,dev", "2.mp4,y,test"], "path,label,split", "split 'dev' is none of"),
        (["1.mp4,x,test", "2.mp4,y,test"], "path,label,split", "no row's split is train"),
        (["1.mp4,x", "2.mp4,x"], "path,label", "at least 2 are needed"),
        (["1.mp4,x;y", "2.mp4,y"], "path,label", "has 2 labels"),
        (["1.mp4,x", "1.mp4,y"], "path,label", "1.mp4 more than once"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, rows, header, message):
    with pytest.raises(ConfigError, match=message):
        read_labelled(write_csv(tmp_path / "l.csv", rows, header))


def test_neither_folder_nor_list(tmp_path):
    with pytest.raises(ConfigError, match=r"neither a folder of class folders nor a \.csv"):
        read_labelled(str(tmp_path / "x.txt"))
