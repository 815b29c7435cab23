import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from avssl.embedding.table import RowWriter, check_output, join, read_meta, table_schema
from avssl.errors import UsageError


def make_rows(count, seed=0):
    generator = np.random.default_rng(seed)
    return [
        {
            "path": f"clips/ü{number}.mp4" * (1 + number % 3),
            "start_s": float(number),
            "end_s": number + 2.0,
            "row": number,
            "id": f"{number:016x}",
            "label": "",
            "video": generator.standard_normal(4).astype(np.float32),
            "has_video": True,
            "video.pool": generator.standard_normal(3).astype(np.float32),
            **({"audio": generator.standard_normal(4).astype(np.float32)} if number % 4 else {}),
            "has_audio": bool(number % 4),
        }
        for number in range(count)
    ]


COLUMNS = {"video": 4, "video.pool": 3, "audio": 4}


def write_parts(folder, rows, cuts, schema):
    paths = []
    for number, part in enumerate(np.split(np.arange(len(rows)), cuts)):
        paths.append(folder / f"{number}.arrow")
        with paths[-1].open("wb") as file:
            writer = RowWriter(file, schema)
            for index in part:
                writer.add(rows[index])
            writer.close()
    return paths


def check_columns(columns, rows):
    assert [str(path) for path in columns["path"]] == [row["path"] for row in rows]
    assert np.array_equal(columns["end_s"], [row["end_s"] for row in rows])
    assert columns["video"].dtype == np.float32
    assert np.array_equal(columns["video"], np.stack([row["video"] for row in rows]))
    assert np.array_equal(columns["video.pool"], np.stack([row["video.pool"] for row in rows]))
    absent = np.zeros(4, np.float32)
    assert np.array_equal(columns["audio"], np.stack([row.get("audio", absent) for row in rows]))
    assert np.array_equal(columns["has_audio"], [row["has_audio"] for row in rows])


@pytest.mark.parametrize("cuts", [[], [1, 300], [0, 600, 600]])
def test_npz_loads_without_pickle_and_holds_the_rows(tmp_path, cuts):
    rows, schema = make_rows(700), table_schema(COLUMNS, shards=False)
    join(tmp_path / "out.npz", write_parts(tmp_path, rows, cuts, schema), schema, {"model": "tiny", "rows": 700})
    with np.load(tmp_path / "out.npz", allow_pickle=False) as columns:
        check_columns(columns, rows)
        assert "row" not in columns
        assert json.loads(str(columns["meta"])) == {"model": "tiny", "rows": 700}


def test_parquet_has_fixed_size_lists_and_metadata(tmp_path):
    rows, schema = make_rows(700), table_schema(COLUMNS, shards=True)
    join(tmp_path / "out.parquet", write_parts(tmp_path, rows, [10], schema), schema, {"model": "tiny"})
    table = pq.read_table(tmp_path / "out.parquet")
    assert str(table.schema.field("video").type).startswith("fixed_size_list<")
    columns = {
        name: np.stack(table[name].to_pylist()).astype(np.float32) if name in COLUMNS else np.array(table[name])
        for name in table.column_names
    }
    check_columns(columns, rows)
    assert table["id"].to_pylist()[3] == "0000000000000003"
    assert read_meta(tmp_path / "out.parquet") == {"model": "tiny"}


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_equal_rows_give_equal_bytes(tmp_path, suffix):
    schema = table_schema(COLUMNS, shards=False)
    parts = write_parts(tmp_path, make_rows(300), [100], schema)
    for name in ("a", "b"):
        join(tmp_path / (name + suffix), parts, schema, {"z": 1, "a": 2})
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_no_rows_make_empty_columns(tmp_path):
    schema = table_schema(COLUMNS, shards=False)
    join(tmp_path / "out.npz", [], schema, {})
    with np.load(tmp_path / "out.npz", allow_pickle=False) as columns:
        assert columns["video"].shape == (0, 4)
        assert columns["path"].shape == (0,)


def test_meta_of_foreign_files_is_empty(tmp_path):
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 broken")
    for name in ("foreign.npz", "broken.npz", "broken.parquet", "absent.npz"):
        assert read_meta(tmp_path / name) == {}


def test_the_output_must_have_a_known_format(tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.npz or \.parquet"):
        check_output(tmp_path / "out.csv")
