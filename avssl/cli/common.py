"""What every command shares: clean errors, `--debug`, `--json`, progress, exit codes (0 done, 1 failed, 2 misuse)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from avssl import __version__
from avssl.errors import AvsslError, UsageError


class Parser(argparse.ArgumentParser):
    """argparse with this project's habits: one-line errors that name the cure, `--version`, `--debug`."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        if " " not in self.prog:  # subcommands inherit both from their command
            self.add_argument("--version", action="version", version=f"avssl {__version__}")
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def run(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> NoReturn:
    """Run a command's `main(argv)`, print an `AvsslError` as one sentence, and exit."""
    argv = sys.argv[1:] if argv is None else argv
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 - a name, not a path to open
    try:
        code = main(argv) or 0
    except AvsslError as error:
        if "--debug" in argv:
            raise
        print(f"{name}: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def add_sandbox(parser: argparse.ArgumentParser, what: str) -> None:
    """The option that says whether decoding is confined."""
    parser.add_argument(
        "--sandbox", action=argparse.BooleanOptionalAction, default=True,
        help=f"decode {what} in processes that can do nothing else (SECURITY.md; avssl-doctor says what holds here)",
    )  # fmt: skip


def let_idle_threads_sleep() -> None:
    """Call before torch is imported, where decoding shares the cores with the model.

    OpenMP's idle threads otherwise spin for a while after each operation and take the decoders' time: on two cores
    this alone halved the time of embedding.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def torch_device(device: str) -> Any:
    """The `torch.device` of an option --device; `auto` is a GPU if there is one. Raises UsageError for others."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: no such device; use cpu, cuda or cuda:N") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here; avssl-doctor says more")
    return wanted


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show progress on standard error; yields `advance(n=1, note="")`.

    A bar on a terminal; elsewhere a log line whenever another tenth is done (or every 30 s if `total` is unknown).
    """
    if sys.stderr.isatty():
        with _bar(description, total) as advance:
            yield advance
    else:
        yield _log_lines(description, total)


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda n=1, note="": bar.update(task, advance=n, note=note)


def _log_lines(description: str, total: int | None) -> Callable[..., None]:
    import time

    done, last_tenth, last_s = 0, 0, time.monotonic()

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last_tenth, last_s
        done += n
        tenth = 10 * done // total if total else 0
        if tenth > last_tenth or (not total and time.monotonic() - last_s > 30):
            last_tenth, last_s = tenth, time.monotonic()
            print(
                f"{description}: {done}{f'/{total}' if total else ''} {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    return advance


def track(items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
    """Iterate with `progress`."""
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance()
