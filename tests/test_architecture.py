"""The house rules that a reader relies on: who may import whom, and what `import avssl` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "avssl"

# A part may import the parts named here (and itself); `cli` may import everything. Files directly in avssl/ are shared.
MAY_IMPORT = {
    "media": set(),
    "spatial": set(),
    "objectives": set(),
    "sandbox": {"media"},
    "shards": {"media", "sandbox"},
    "synthetic": {"media", "spatial"},
    "models": {"spatial"},
    "data": {"shards", "media", "spatial"},
    "evaluation": {"models", "data", "shards", "media", "objectives", "spatial", "embedding", "separation"},
    "finetuning": {"models", "data", "shards", "media", "embedding", "evaluation"},
    "embedding": {"models", "data", "shards", "media", "spatial", "sandbox"},
    "interchange": {"models"},
    "published": {"models", "spatial"},
    "search": {"embedding", "models", "media", "sandbox"},
    "separation": {"models", "data", "shards", "media"},
    "tasks": {"models", "objectives", "data", "separation"},
    "training": {"tasks", "models", "objectives", "data", "shards", "separation"},
}
SHARED = {path.stem for path in PACKAGE.glob("*.py")}

# A third-party package on the left is imported only by the files on the right.
ONLY_IN = {
    "av": "avssl/media/",
    "decord": "avssl/media/",
    "torchcodec": "avssl/media/",
    "soundfile": "avssl/media/",
    "soxr": "avssl/media/",
    "lightning_fabric": "avssl/training/",
    "torchvision": "avssl/compat.py",
    "torchaudio": "avssl/compat.py",
}
# The doctor imports each package to say whether it works: that is its subject.
EXEMPT = {"avssl/doctor.py"}


def imports_of(path: Path) -> set[str]:
    """Absolute module names imported anywhere in a file (type-checking blocks included)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    name = str(path.relative_to(ROOT))
    part = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else None
    for module in imports_of(path):
        top = module.split(".")[0]
        if top == "avssl" and part in MAY_IMPORT:
            target = module.split(".")[1] if "." in module else ""
            allowed = target in MAY_IMPORT[part] | {part, "", "__version__"} | SHARED
            assert allowed, f"{name} imports {module}; {part} may import {sorted(MAY_IMPORT[part])}"
        assert top not in {"pipelines", "shards", "configs", "eval", "tests", "benchmarks"}, f"{name} imports {module}"
        if top in ONLY_IN and name not in EXEMPT:
            assert name.startswith(ONLY_IN[top]), f"{name} imports {module}; only {ONLY_IN[top]} may"


def test_every_part_is_known():
    parts = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert parts - {"cli"} <= set(MAY_IMPORT), "a new part: say in MAY_IMPORT what it may import"


COMMANDS = ["convert", "doctor", "embed", "finetune", "search", "separate", "shards", "train"]
HEAVY = ["torch", "av", "librosa", "pyarrow", "lightning_fabric", "rich", "matplotlib"]


@pytest.mark.parametrize(
    "statement",
    ["import avssl"] + [f"import avssl.cli.{command} as c; c.main(['--help'])" for command in COMMANDS],
)
def test_help_and_import_load_nothing_heavy(statement):
    code = (
        f"import sys, contextlib, io\n"
        f"with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    {statement}\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]", f"{statement} imports {out.stdout.strip()}"
