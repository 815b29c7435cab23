"""What SECURITY.md says of models, configurations, pages and archives, each by a file that would break the claim."""

import ast
import contextlib
import io
import json
import pickle
import re
import zipfile
from pathlib import Path

import hostile_files
import numpy as np
import pytest

from avssl import config as configuration
from avssl import pages
from avssl.errors import AvsslError, ConfigError, ModelError, ShardError
from avssl.shards import ShardSet
from avssl.shards.verify import verify
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "avssl").rglob("*.py"))


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def calls(tree):
    """(dotted name of the function, keywords) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}, node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_read_in_a_way_that_can_run_code(path):
    """The rule that holds for what others will write, too."""
    for name, words, node in calls(ast.parse(path.read_text())):
        if name == "torch.load":
            assert words.get("weights_only") == "True", ast.unparse(node)
        if name in ("np.load", "numpy.load"):
            assert words.get("allow_pickle") == "False", ast.unparse(node)
        if name in ("yaml.load", "yaml.load_all"):
            assert "_Loader" in ast.unparse(node) or "SafeLoader" in ast.unparse(node), ast.unparse(node)
        if name.startswith("pickle.load"):
            assert path.name == "child.py", f"{path}: only a confined process reads pickles, of its own parent"
        assert name not in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load", "os.system", "joblib.load"), path
        assert words.get("shell") != "True", f"{path}: {ast.unparse(node)}"
        assert not name.endswith((".extractall", ".extract")), f"{path}: archives are read by member, not unpacked"


@pytest.mark.parametrize("name", ["model.safetensors", "file.pth", "checkpoint.pt", "stats.npz", "table.npz"])
def test_a_pickle_in_the_place_of_anything_stays_one(tmp_path, name):
    from avssl.embedding.table import read_meta
    from avssl.models.front_ends import read_statistics
    from avssl.models.weights import read_weights
    from avssl.training.checkpoint import load

    sprung, path = tmp_path / "sprung", tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, meta=np.array([Trap(sprung)], object), mean=np.array([Trap(sprung)], object), std=np.zeros(1))
    else:
        path.write_bytes(pickle.dumps({"format": Trap(sprung)}))
    reader = {"checkpoint.pt": load, "stats.npz": read_statistics, "table.npz": read_meta}.get(name, read_weights)
    with contextlib.suppress(AvsslError):
        assert not reader(path)
    assert not sprung.exists()


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "config.yaml"
    for text in (
        f"run: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'sprung'}]",
        "run: !!python/name:os.system", "run: !!python/object/new:os.system ['true']",
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match="not valid YAML"):
            configuration.read(path)
    assert not (tmp_path / "sprung").exists()


def test_yaml_that_grows_is_refused(tmp_path):
    """Nine lines of references to each other stand for a billion words."""
    path = tmp_path / "config.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="not valid YAML"):
        configuration.read(path)
    path.write_text("- &a [1, 2]\n- *a\n")
    with pytest.raises(ConfigError, match="mapping"):  # a list is no config; references are read
        configuration.read(path)
    path.write_text("a: &a {b: 1}\nc: *a\n")
    assert configuration.read(path) == {"a": {"b": 1}, "c": {"b": 1}}


NAME = "<script>alert(1)</script>\"'&.mp4"


def test_pages_escape_what_they_show(tmp_path):
    template = tmp_path / "page.html.j2"
    template.write_text('<p title="{{ name }}">{{ name }}</p>')
    page = pages.render(template, name=NAME)
    assert "<script>" not in page and page.count("&lt;script&gt;") == 2 and "&#34;" in page


def test_no_template_switches_escaping_off():
    """Pages that are made of strings escape by themselves: see the tests of avssl-shards preview."""
    templates = sorted((ROOT / "avssl").rglob("*.j2"))
    assert templates
    for path in templates:
        marked = re.findall(r"\{\{[^}]*\|\s*safe[^}]*\}\}", path.read_text())
        assert all("svg" in text or "json" in text or "script" in text or "page" in text for text in marked), (
            path,
            marked,
        )
        assert "autoescape false" not in path.read_text()


@pytest.fixture
def shards(tmp_path):
    """A good shard folder, and a function that changes its index and manifest so that they agree with each other."""
    import hashlib

    parts = TARGETS["shards"].seeds()[0].split(b"\n--8<--\n")
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, data in zip(("index.json", "manifest.jsonl", "shard-000000.tar"), parts, strict=True):
        (folder / name).write_bytes(data)

    def change(index=lambda value: None, row=lambda value: None):
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        for one in rows:
            row(one)
        (folder / "manifest.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        value = json.loads((folder / "index.json").read_text())
        value["manifest_sha256"] = hashlib.sha256((folder / "manifest.jsonl").read_bytes()).hexdigest()
        index(value)
        (folder / "index.json").write_text(json.dumps(value))

    return folder, change


def test_the_unchanged_folder_is_read(shards):
    folder, change = shards
    change()
    assert len(ShardSet.open(folder)) == 2 and list(verify(folder)) == []


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/passwd", "a/b.tar", "..", "", "x\0.tar", 7, None])
def test_an_index_cannot_name_files_outside_its_folder(shards, name):
    folder, change = shards
    (folder.parent / "secret.tar").write_bytes(b"SECRET" * 5000)
    change(index=lambda value: value["shards"][0].update(name=name))
    with pytest.raises(ShardError, match=r"index\.json"):
        ShardSet.open(folder)
    assert all(problem.kind == "index" for problem in verify(folder))


@pytest.mark.parametrize("rows", [-1, 10**18, 1.5, "2", None, True])
def test_an_index_cannot_ask_for_memory(shards, rows):
    folder, change = shards
    change(index=lambda value: value.update(rows=rows))
    with pytest.raises(ShardError):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    "change_row",
    [
        {"members": {"flac": [-512, 64], "json": [0, 1]}}, {"members": {"flac": [1 << 60, 64]}}, {"shard": 5},
        {"members": {"flac": [0, 1 << 50]}}, {"members": {"flac": ["0", 64]}}, {"members": {"flac": [0]}},
        {"shard": -1},
        {"members": []}, {"id": "zz"}, {"id": 7}, {"start_s": "0"}, {"label": ["x"]}, {"members": {"flac": [0, -5]}},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_cannot_point_elsewhere(shards, change_row):
    """Refused when it is opened or when the row is read, or else it names bytes of the folder's own tar."""
    folder, change = shards
    change(row=lambda value: value.update(change_row))
    tar = (folder / "shard-000000.tar").read_bytes()
    with contextlib.suppress(ShardError):
        opened = ShardSet.open(folder)
        for row in range(2):
            for member in opened.members(row):
                assert opened.read(row, member) in tar
                assert change_row["members"]["flac"] in ([0], ["0", 64], [-512, 64]), "this one must be refused"


@pytest.mark.parametrize(
    "tar",
    [
        hostile_files.archive({"../../escaped": b"x"}),
        hostile_files.archive({"/tmp/avssl-escaped": b"x"}),
        hostile_files.archive({"0000.flac": b""}, kind=b"2", link="/etc/passwd"),
        hostile_files.archive({"0000.flac": b""}, kind=b"1", link="../../secret"),
        hostile_files.lying_member(1 << 60), hostile_files.lying_member(0o77777777777),
    ],
    ids=["up", "absolute", "symbolic link", "hard link", "2^60 bytes", "8 GiB"],
)  # fmt: skip
def test_members_of_a_tar_are_named_and_never_unpacked(shards, tmp_path, tar):
    folder, change = shards
    before = sorted(tmp_path.rglob("*"))
    (folder / "shard-000000.tar").write_bytes(tar)
    change()
    kinds = {problem.kind for problem in verify(folder)}
    assert kinds & {"extra-member", "missing-member", "truncated", "member"}
    assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/avssl-escaped").exists()


def test_a_table_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    """Its entry says a gigabyte of numbers; what is asked for is a short text."""
    import resource

    from avssl.embedding.table import read_meta

    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 30,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb, bomb.open("meta.npy", "w") as member:
        member.write(header.getvalue())
        for _ in range(64):
            member.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_meta(path) == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_model_folder_is_data(tmp_path):
    """Names in it are looked up in lists of this project, never imported."""
    from avssl.models.folder import BUNDLED, load

    description = json.loads((BUNDLED / "tiny" / "config.json").read_text())
    for change in ({"kind": "os:system"}, {"model": description["model"] | {"video": {"name": "os:system"}}}):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((BUNDLED / "tiny" / "model.safetensors").read_bytes())
        (folder / "config.json").write_text(json.dumps(description | change))
        with pytest.raises(ModelError):
            load(folder)


def test_a_list_of_strangers_names_files_and_gives_nothing_of_them_away(tmp_path):
    from avssl.shards.build import build
    from avssl.shards.options import BuildOptions
    from avssl.shards.sources import list_sources

    (tmp_path / "secret.txt").write_text("SECRET")
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "list.csv").write_text("path\n../secret.txt\n/etc/passwd\n")
    summary = build(list_sources(folder / "list.csv"), tmp_path / "out", BuildOptions(copy=True))
    assert (summary.rows, summary.rejected_by_reason) == (0, {"not-media": 2})
    assert all(b"SECRET" not in path.read_bytes() for path in (tmp_path / "out").iterdir())
