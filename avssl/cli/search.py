"""`avssl-search`: an index over your own videos and sounds, asked by a clip, a picture or a sound."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from avssl.cli.common import Parser, add_sandbox, let_idle_threads_sleep, print_json, progress, run, torch_device
from avssl.cli.embed import chosen_model, count, seconds
from avssl.errors import AvsslError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from avssl.embedding.run import Listener
    from avssl.errors import MediaError
    from avssl.search.build import Change
    from avssl.search.find import Hit

_EPILOG = """\
examples:
  avssl-search index my/videos -o mine.index --model models/mine
  avssl-search query holiday.mp4 --at 12.5 --index mine.index --html found.html
  avssl-search query beach.jpg --index mine.index
  avssl-search query waves.wav --find video --index mine.index     pictures that go with a sound
  avssl-search index table.npz -o mine.index                       of a table that avssl-embed wrote"""

_INDEX_EPILOG = """\
The same command brings an index up to date: only files that are new or have changed (size, time) are embedded, files
that are gone are dropped and named, and other files of the index stay. Until all is written the index is as it was; an
interrupted command goes on where it was. Files that cannot be read are named and tried again the next time.

exit code: 0 done, 1 some file could not be embedded, 2 wrong use"""

_QUERY_EPILOG = """\
Each file counts once, with its best moment. A query of several windows (see --at) is as similar as its best one; the
query's own file is left out unless --own is given. Picture and sound can only be compared with each other if the model
brings them into one space: `tiny`, a model that you trained, or one that avssl-align wrote.

exit code: 0 done, 1 failed, 2 wrong use"""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    return arguments.command(arguments)


def _parser() -> Parser:
    parser = Parser(prog="avssl-search", description="Find moments that look or sound alike.", epilog=_EPILOG)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    index = commands.add_parser(
        "index", help="make an index, or bring it up to date", description="Index files.", epilog=_INDEX_EPILOG
    )
    index.set_defaults(command=_index)
    index.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="media files and folders, or one table of avssl-embed"
    )
    index.add_argument("-o", "--output", required=True, metavar="INDEX", type=Path, help="the folder of the index")
    index.add_argument("--model", metavar="M", help="default: the index's, or for a new one as avssl-embed's")
    index.add_argument("--window", type=seconds, metavar="S", help="length of a window (default: the index's, or 2)")
    index.add_argument("--hop", type=seconds, metavar="S", help="from window to window (default: the index's, or 1)")
    index.add_argument("--batch-size", type=count, default=16, metavar="N", help="clips at once (default 16)")
    index.add_argument("--overwrite", action="store_true", help="make the index anew")

    query = commands.add_parser(
        "query", help="ask an index", description="What is most like this?", epilog=_QUERY_EPILOG
    )
    query.set_defaults(command=_query)
    query.add_argument("query", metavar="FILE", type=Path, help="video, picture (JPEG, PNG, WebP, BMP) or sound")
    query.add_argument("--index", required=True, metavar="INDEX", type=Path, help="the folder of the index")
    query.add_argument("-k", type=count, default=10, metavar="N", help="how many files (default 10)")
    kinds = ("video", "audio", "auto")
    query.add_argument(
        "--by", choices=kinds, default="auto", help="what of FILE counts (default: its picture, else its sound)"
    )
    query.add_argument(
        "--find", choices=kinds, default="auto", help="what it is compared with in the index (default: the same kind)"
    )
    query.add_argument("--at", type=_moment, metavar="S", help="the window of FILE that begins there (default: all)")
    query.add_argument("--own", action="store_true", help="FILE itself may be among what is found")
    query.add_argument("--model", metavar="M", help="where the index's model lies now (default: as it was named)")
    query.add_argument("--html", metavar="PAGE", type=Path, help="write a page with pictures and players")

    for command in (index, query):
        command.add_argument(
            "--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one"
        )
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        add_sandbox(command, "files")
    return parser


def _index(arguments: argparse.Namespace) -> int:
    folder = arguments.output
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder for the index")
    try:
        change = _from_table(arguments) or _from_files(arguments)
    except OSError as error:  # inputs that cannot be read are reported one by one; this is the index
        raise AvsslError(f"{folder}: cannot be written: {error.strerror or error}") from error
    if arguments.json:
        print_json(asdict(change))
    else:
        for path in change.dropped:
            print(f"dropped, no longer there: {path}")
        print(
            f"{change.index}: {change.rows} moments of {change.files} files; {change.embedded} embedded,"
            f" {change.kept} kept, {len(change.dropped)} dropped, {len(change.failed)} failed"
        )
    return 1 if change.failed else 0


def _from_table(arguments: argparse.Namespace) -> Change | None:
    tables = [name for name in arguments.inputs if Path(name).suffix in (".npz", ".parquet")]
    if not tables:
        return None
    from avssl.search.build import from_table

    if len(arguments.inputs) > 1:
        raise UsageError(f"{tables[0]}: a table is indexed alone; name nothing else beside it")
    if not Path(tables[0]).is_file():
        raise UsageError(f"{tables[0]}: no such file")
    return from_table(arguments.output, Path(tables[0]), overwrite=arguments.overwrite)


def _from_files(arguments: argparse.Namespace) -> Change:
    let_idle_threads_sleep()
    from avssl.search import store
    from avssl.search.build import Wish, update

    store.usearch()  # what is missing is said before a model is loaded
    name = arguments.model
    if name is None and store.exists(arguments.output) and not arguments.overwrite:
        name = store.read_facts(arguments.output)["model"]
    name, model = chosen_model(name, torch_device(arguments.device), "avssl-search")
    wish = Wish(arguments.window, arguments.hop, arguments.batch_size)
    with _decoder(arguments.sandbox) as decoder, progress("indexing") as advance:
        return update(
            arguments.output, arguments.inputs, model, name, wish,
            overwrite=arguments.overwrite, listener=_listener(advance), decoder=decoder,
        )  # fmt: skip


def _query(arguments: argparse.Namespace) -> int:
    from avssl.search import store

    facts = store.read_facts(arguments.index)
    if not arguments.query.is_file():
        raise UsageError(f"{arguments.query}: no such file")
    let_idle_threads_sleep()
    from avssl.embedding.run import model_sha256
    from avssl.embedding.stream import StreamOptions
    from avssl.search.find import choose_find, nearest
    from avssl.search.query import read_query

    index = store.read_index(arguments.index)
    name, model = chosen_model(arguments.model or facts["model"], torch_device(arguments.device), "avssl-search")
    if model_sha256(model) != facts["model_sha256"]:
        raise UsageError(
            f"{arguments.index}: was made with the model {facts['model']}, and {name} is another one (or has changed"
            " since); name that one with --model, or make the index anew"
        )
    options = StreamOptions(facts["window_s"], facts["hop_s"])
    with _decoder(arguments.sandbox) as decoder:
        query = read_query(model, arguments.query, arguments.by, options, arguments.at, decoder)
        find = choose_find(index, model, query, arguments.find)
        hits = nearest(index, query, find, arguments.k, own=arguments.own)
        if arguments.html:
            from avssl.search.page import write_page

            try:
                write_page(arguments.html, query, find, hits, facts, decoder)
            except OSError as error:  # files that cannot be read are shown as such; this is the page
                raise AvsslError(f"{arguments.html}: cannot be written: {error.strerror or error}") from error
    if arguments.json:
        found = [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)]
        asked = {"query": str(arguments.query), "by": query.by, "find": find, "windows": len(query.vectors)}
        print_json({**asked, "index": str(arguments.index), "model": facts["model"], "results": found})
    else:
        _print_table(hits, several=len(query.vectors) > 1)
    return 0


def _print_table(hits: list[Hit], *, several: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("", "score", "from s", "to s", *(["query s"] if several else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("file", overflow="fold")
    for rank, hit in enumerate(hits, 1):
        numbers = [str(rank), f"{hit.score:.3f}", f"{hit.start_s:.1f}", f"{hit.end_s:.1f}"]
        numbers += [f"{hit.at_s:.1f}"] if several else []
        table.add_row(*numbers, Text(hit.path))  # as it is: a name with brackets is no markup
    console = Console(soft_wrap=not sys.stdout.isatty())
    console.print(table)


def _decoder(sandbox: bool):
    from avssl.sandbox.decoder import Decoder

    return Decoder() if sandbox else contextlib.nullcontext()


def _listener(advance: Callable[..., None]) -> Listener:
    from avssl.embedding.run import Listener

    class Progress(Listener):
        def failed(self, error: MediaError) -> None:
            print(f"avssl-search: {error}", file=sys.stderr)

        def done(self, items: int) -> None:
            advance(items)

    return Progress()


def _moment(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")
