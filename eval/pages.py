"""Pages of docs/ that are written by hand around tables made from result files: kept up to date, or checked.

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from avssl.cli.common import Parser
from avssl.errors import UsageError
from avssl.files import write_atomic
from eval.robustness.summary import Results

Tables = dict[str, tuple[tuple[str, ...], Callable[..., str]]]  # name -> the results it needs, what makes it from them
_TABLE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def keep(
    page: Path,
    results: Path,
    figures: Path,
    tables: Tables,
    commands: dict[str, str],
    draw: Callable[[Path, Path], None],
    argv: list[str],
    about: str,
) -> int:
    """The command of a page: make its tables anew and draw its figures, or with --check fail where it is out of date.

    results: the folder of result files, NAME.json; commands: what makes each; draw(results, figures).
    """
    parser = Parser(prog=f"python -m {sys.argv[0]}", description=about.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the page is out of date")
    args = parser.parse_args(argv)
    old = page.read_text()
    new = fill(old, results, tables, commands)
    if args.check:
        if old != new:
            raise UsageError(f"{page}: a table is not what {results} gives; run {parser.prog}")
        return 0
    write_atomic(page, lambda file: file.write(new.encode()))
    draw(results, figures)
    print(f"written: the tables of {page}, figures in {figures}")
    return 0


def fill(page: str, results: Path, tables: Tables, commands: dict[str, str]) -> str:
    """The page's text with every table made anew. Raises UsageError for a table that nobody knows how to make."""

    def replace(match: re.Match[str]) -> str:
        if match[2] not in tables:
            raise UsageError(f"there is no table {match[2]!r}; known: {', '.join(tables)}")
        needed, make = tables[match[2]]
        missing = [name for name in needed if not (results / f"{name}.json").exists()]
        if missing:
            made = f"(No numbers yet: {missing[0]}.json is made by `{commands[missing[0]]}`.)"
        else:
            made = make(*(Results.read(results / f"{name}.json") for name in needed))
        return f"{match[1]}{made}\n{match[3]}"

    return _TABLE.sub(replace, page)
