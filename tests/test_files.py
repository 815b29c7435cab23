"""Whole or absent: what avssl.files promises."""

import json

import pytest

from avssl import files


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def fail(file):
        file.write(b"half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        files.write_atomic(path, fail)
    assert files.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_jsonl_round_trip_keeps_order_and_text(tmp_path):
    rows = [{"b": "é\n", "a": 0.1}, {"x": None}]
    files.write_jsonl(tmp_path / "deep" / "r.jsonl", rows)
    assert files.read_jsonl(tmp_path / "deep" / "r.jsonl") == rows
    assert (tmp_path / "deep" / "r.jsonl").read_bytes().count(b"\n") == 2


def test_not_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    with pytest.raises(ValueError):
        json.loads(files.json_line(float("inf")))
