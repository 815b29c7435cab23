"""Commands fail in one sentence, with the right exit code."""

import pytest

from avssl.cli.common import Parser, progress, run
from avssl.errors import BudgetError, MediaError, UsageError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            MediaError("a.mp4", "truncated", "frames end at 3.2 s of 10 s"),
            1,
            "a.mp4: frames end at 3.2 s of 10 s (truncated)",
        ),
        (UsageError("no such folder: x"), 2, "no such folder: x"),
        (BudgetError("too many"), 1, "too many"),
    ],
)
def test_errors_become_one_line(error, code, words, capsys):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as stop:
        run(main, [])
    assert stop.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].endswith(words)


def test_debug_keeps_the_traceback():
    def main(argv):
        raise UsageError("x")

    with pytest.raises(UsageError):
        run(main, ["--debug"])


def test_wrong_use_exits_2_and_points_to_help(capsys):
    parser = Parser(prog="avssl-x")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--nonsense"])
    assert stop.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


def test_progress_speaks_in_tenths_when_not_on_a_terminal(capsys):
    with progress("packing", 20) as advance:
        for _ in range(20):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[-1] == "packing: 20/20"
