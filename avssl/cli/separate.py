"""`avssl-separate`: the sounds of recordings, by class, by example, by picture, or all that are heard."""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from avssl.cli.common import Parser, let_idle_threads_sleep, print_json, progress, run, torch_device
from avssl.errors import UsageError
from avssl.separation.options import THRESHOLD, SeparationOptions

if TYPE_CHECKING:
    from avssl.errors import MediaError
    from avssl.separation.jobs import Job, Listener, Report
    from avssl.separation.queries import Query
    from avssl.separation.recording import Wanted
    from avssl.separation.separator import Separator

_DESCRIPTION = """\
Separate sounds: one sound file a source, at the rate and with the channels of the recording.

Recordings are streamed: memory does not depend on their length. A file that cannot be read is named and left out, the
others go on, and the exit code is 1 at the end."""

_EPILOG = """\
examples:
  avssl-separate song.flac -o out --model uss/ --classes Guitar,Drums
  avssl-separate street.mp4 -o out --model uss/ --classes '"Male speech, man speaking",/m/0bt9lr'
  avssl-separate song.flac -o out --model uss/ --query example1.wav --query example2.wav
  avssl-separate concert.mp4 -o out --model av-uss/ --query-video violinist.mp4
  avssl-separate recordings/ -o out --model uss/ --hierarchy --levels 1,2

queries (several are allowed; --hierarchy goes alone):
  --classes       names or AudioSet ids of classes and of kinds above them; one of several names in a name will do
  --query         sounds like this file; of several files the mean, over the chunks of each and then over files
  --query-video   the sound that belongs to the pictures, for separators trained with an audio-visual model
  --query-vector  features that another model gave, for separators trained with those (AudioSep's text vectors)
  --hierarchy     whatever the tagger hears, as a tree: tree.json

output of one file in DIR, of several files or a folder in DIR/FILE each:
  NAME.flac         a source; 24 bits (--format wav: 32-bit float)
  residual.flac     the mixture minus all sources; together they sum to the mixture exactly, nothing is rescaled
  tree.json         --hierarchy: kinds of sounds found, nested, with probabilities, chunks and files
  report.html       spectrograms and players
  separation.json   model, settings, levels, and why a source is weak

continuing:
  Finished files are kept, and the same command goes on after an interruption. A folder of other settings or with other
  files in it is refused unless --overwrite is given.

exit code: 0 done, 1 something could not be separated, 2 wrong use."""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="avssl-separate", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="MIX", help="media files, or folders of them")
    add("-o", "--output", required=True, metavar="DIR", help="folder to write to")
    add("--model", required=True, metavar="M", help="a separator's model folder or hf-hub:ORG/NAME")
    add("--classes", action="append", default=[], metavar="LIST", help='e.g. Speech,"Dog bark"')
    add("--query", action="append", default=[], type=Path, metavar="FILE", help="an example of the wanted sound")
    add("--query-video", action="append", default=[], type=Path, metavar="CLIP", help="a video of what is wanted")
    add("--query-vector", action="append", default=[], type=Path, metavar="NPY", help="features as a .npy file")
    add("--hierarchy", action="store_true", help="separate whatever is heard")
    add("--levels", type=_levels, metavar="LIST", help="of the hierarchy; 1 is the top (default 1,2,3)")
    add("--format", choices=("flac", "wav"), default="flac", help="of the sources (default flac)")
    add("--overlap", type=float, default=0.5, metavar="X", help="of chunks, 0 to 0.5; 0 as published (default 0.5)")
    add("--threshold", type=float, default=THRESHOLD, metavar="P", help=f"heard from here on (default {THRESHOLD})")
    add("--no-residual", action="store_true", help="do not write what is left")
    add("--no-report", action="store_true", help="do not write report.html")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
    add("--batch-size", type=int, default=4, metavar="N", help="sounds the network is given at once (default 4)")
    add("--overwrite", action="store_true", help="write over what is in the way")
    add("--json", action="store_true", help="print a summary as JSON")
    return parser


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    names = class_names(arguments.classes)
    options = SeparationOptions(arguments.overlap, arguments.threshold, arguments.batch_size)
    asked = bool(names or arguments.query or arguments.query_video or arguments.query_vector)
    if asked == arguments.hierarchy:
        raise UsageError("ask for something: --classes, --query, --query-video, --query-vector, or --hierarchy alone")
    if arguments.levels and not arguments.hierarchy:
        raise UsageError("--levels: is of the hierarchy; add --hierarchy")

    let_idle_threads_sleep()
    from avssl.evaluation.results import model_facts
    from avssl.models.folder import load
    from avssl.separation.jobs import find_jobs, separate_all
    from avssl.separation.recording import Wanted

    started_s = time.monotonic()
    jobs = find_jobs(arguments.inputs, Path(arguments.output))
    separator = load(arguments.model, device=torch_device(arguments.device), kind="separator")
    wanted = Wanted(
        queries=_queries(separator, names, arguments),
        levels=(arguments.levels or (1, 2, 3)) if arguments.hierarchy else (),
        options=options,
        format=arguments.format,
        residual=not arguments.no_residual,
        page=not arguments.no_report,
    )
    facts = model_facts(arguments.model)
    with progress("separating", len(jobs)) as advance:
        report = separate_all(
            separator, jobs, wanted, facts, overwrite=arguments.overwrite, listener=_listener(advance, wanted)
        )
    seconds = round(time.monotonic() - started_s, 3)
    if arguments.json:
        print_json(
            {"model": facts, "files": report.separated, "kept": report.kept, "failed": report.failed, "s": seconds}
        )
    else:
        print(_sentence(report, arguments.output, seconds))
    return 1 if report.failed else 0


def class_names(lists: list[str]) -> list[str]:
    """Names separated by commas; one that has commas in it stands in double quotes."""
    rows = csv.reader(lists, skipinitialspace=True)
    return [name.strip() for row in rows for name in row if name.strip()]


def _queries(separator: Separator, names: list[str], arguments: argparse.Namespace) -> list[Query]:
    from avssl.separation.examples import query_of_clip, query_of_files, query_of_vector_file

    queries = [separator.query_of_class(name) for name in names]
    if arguments.query:
        queries.append(query_of_files(separator, arguments.query))
    queries += [query_of_clip(separator, path) for path in arguments.query_video]
    queries += [query_of_vector_file(separator, path) for path in arguments.query_vector]
    return queries


def _listener(advance: Callable[..., None], wanted: Wanted) -> Listener:
    from avssl.separation.jobs import Listener, printable

    class Progress(Listener):
        def at(self, job: Job, time_s: float) -> None:
            advance(0, note=f"{printable(job.path)} {time_s:.0f} s")

        def failed(self, job: Job, error: MediaError) -> None:
            print(f"avssl-separate: {error}", file=sys.stderr)
            advance(1)

        def done(self, job: Job, facts: dict[str, Any], kept: bool) -> None:
            if wanted.queries and not kept:
                for source in facts["sources"]:
                    if source["weak"]:
                        print(
                            f"avssl-separate: {printable(job.path)}: {source['name']!r} is weak: {source['weak']}",
                            file=sys.stderr,
                        )
            advance(1)

    return Progress()


def _sentence(report: Report, output: str, seconds: float) -> str:
    sources = sum(len(facts["sources"]) for facts in report.separated.values())
    kept = f", {len(report.kept)} of them done before" if report.kept else ""
    text = f"{output}: {sources} sources of {len(report.separated)} files{kept}, {seconds:.1f} s"
    if report.failed:
        text += f"; {len(report.failed)} failed (the same command tries only these again)"
    return text


def _levels(text: str) -> tuple[int, ...]:
    with contextlib.suppress(ValueError):
        levels = tuple(sorted({int(level) for level in text.split(",")}))
        if levels and levels[0] >= 1:
            return levels
    raise argparse.ArgumentTypeError(f"{text!r} is no list of levels like 1,2,3")
