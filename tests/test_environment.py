"""The commit that a result names."""

import subprocess

import pytest

from avssl.environment import commit


@pytest.fixture
def tree(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    for name in ("code.py", "docs/page.md", "eval/results/a.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    return tmp_path


def test_a_clean_tree_is_its_commit(tree):
    (tree / "new.txt").write_text("untracked files are nobody's input")
    assert len(commit(tree)) == 40


def test_changed_code_is_said(tree):
    clean = commit(tree)
    (tree / "code.py").write_text("2")
    assert commit(tree) == f"{clean}-dirty"


def test_written_results_and_pages_do_not_count(tree):
    clean = commit(tree)
    (tree / "docs/page.md").write_text("2")
    (tree / "eval/results/a.json").write_text("2")
    assert commit(tree) == clean


def test_no_tree_no_commit(tmp_path):
    assert commit(tmp_path) is None
