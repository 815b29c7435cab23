"""Every example runs from its first line to its last, in an empty folder, and says what it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SAYS = {
    "datasets.py": ["made with tiny", "unseen rendered clips", "'video': ((4, 8, 64, 64, 3), 'torch.uint8')"],
    "search.py": ["18 moments of 18 files", "of the pictures found by sound"],
}


def test_all_examples_are_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name, tmp_path):
    text = (EXAMPLES / name).read_text()
    assert text.startswith("# %% [markdown]\n# # "), "a notebook begins with its title"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # the commands of this installation
    command, environment = [sys.executable, EXAMPLES / name], os.environ | {"PATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in SAYS[name]:
        assert words in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {f"example_{name.removesuffix('.py')}"}
