"""docs/reliability.md names a test for each fault, and each of them exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    line.split("|")[1:4]
    for line in (ROOT / "docs" / "reliability.md").read_text().splitlines()
    if line.startswith("| ") and "::" in line
]


def named_in(path):
    """The test functions of a file, with their class where they have one."""
    tree = ast.parse((ROOT / path).read_text())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for group in tree.body:
        if isinstance(group, ast.ClassDef):
            found |= {f"{group.name}::{node.name}" for node in group.body if isinstance(node, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:40])
def test_the_named_tests_exist(row):
    fault, outcome, tests = (cell.strip() for cell in row)
    named = re.findall(r"`(tests/[^`:]+)::([^`]+)`", tests)
    assert fault and outcome and named
    for path, name in named:
        assert name in named_in(path), f"{path} has no {name}"


def test_no_fault_is_forgotten():
    faults = " ".join(row[0] for row in ROWS).lower()
    for word in (
        "sigkill", "worker is killed", "rank is killed", "disk is full", "cannot be written", "truncated", "flipped",
        "missing shard", "manifest", "clock", "sigterm", "sigusr1", "second run", "hangs", "nan", "out of memory",
    ):  # fmt: skip
        assert word in faults, word
