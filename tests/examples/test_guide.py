"""Every command of docs/guide.md, in its order, in one folder; those that cannot run here say why and are counted."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
FENCE = re.compile(r"^```bash(?P<info>[^\n]*)\n(?P<block>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_HERE = {"needs a Slurm cluster": 1}
COMMANDS = ("shards", "train", "embed", "eval", "finetune", "search", "separate", "convert")


def blocks() -> tuple[list[str], dict[str, int]]:
    """What is run, and how often which reason keeps a block from it."""
    run, skipped = [], {}
    for found in FENCE.finditer((ROOT / "docs" / "guide.md").read_text()):
        reason = re.fullmatch(r' skip="(.+)"', found["info"])
        assert reason or not found["info"], f"what does {found['info']!r} mean?"
        if reason:
            skipped[reason[1]] = skipped.get(reason[1], 0) + 1
        else:
            run.append(found["block"])
    return run, skipped


def test_what_is_not_run_is_known_and_every_command_is_shown():
    run, skipped = blocks()
    assert skipped == NOT_HERE and len(run) == 9
    for command in COMMANDS:
        assert f"avssl-{command} " in "".join(run), command


def test_the_guide_from_its_first_line_to_its_last(tmp_path):
    for name in ("configs", "eval"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # the commands of this installation
    for block in blocks()[0]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=os.environ | {"PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"

    assert json.loads((tmp_path / "runs/probe/results.json").read_text())["counts"] == {"items": 24, "skipped": 0}
    assert "scan_accuracy" in json.loads((tmp_path / "runs/discovery/results.json").read_text())["metrics"]
    assert len(json.loads((tmp_path / "mine.index/index.json").read_text())["files"]) == 24
    with np.load(tmp_path / "scenes.npz") as rows:
        assert rows["view"].tolist() == [0, 1, 2, 3] * (len(rows["view"]) // 4)
    for page in ("preview.html", "found.html", "models/classifier/report.html", "separated/report.html"):
        assert "</html>" in (tmp_path / page).read_text(), page
    assert {"video.pt2", "audio.pt2", "export.json"} == {path.name for path in (tmp_path / "exported").iterdir()}
