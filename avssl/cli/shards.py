"""avssl-shards: pack videos into shards, check them, look at them."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from avssl.cli.common import Parser, add_sandbox, print_json, progress, run
from avssl.errors import UsageError

if TYPE_CHECKING:
    from avssl.models.config import AudioInput
    from avssl.shards.build import Summary

_EPILOG = """\
example:
  avssl-shards build videos/ shards/     one folder a class, or none; also a .csv or .jsonl list
  avssl-shards verify shards/
  avssl-shards preview shards/           writes shards/preview.html
"""

_BUILD_EPILOG = """\
SRC is a folder tree (label = first folder of the path), a media file, or a list with one clip or file a line:
  .csv    with a first line that names the columns: path [, start_s, end_s, label, anything else]
  .jsonl  objects with the same keys
`ambisonics` and `projection` of a line count before the options of these names.
OUT gets NAME-000000.tar …, manifest.jsonl, index.json, rejected.jsonl (see docs/shard-format.md).
A build that was stopped goes on when the same command is run again.

exit code: 0 done; 1 nothing could be packed, or more was rejected than --max-rejected; 2 wrong use
"""

_INFO_EPILOG = """\
--stats takes a front end's name and key=value pairs: rate_hz (24000), duration_s (2), channels (1), windows (as many of
each clip as fit), and the front end's own. The file is what `model.audio_input.front_end.stats_file` of a config and
avssl-convert --stats read.

  avssl-shards info shards/ --stats avid_spectrogram -o stats.npz
  avssl-shards info shards/ --stats log_mel,duration_s=1,channels=4 -o stats.npz     (AVSA)
"""

# What --help says about each option of a build; types and defaults are those of BuildOptions.
_OPTION_HELP = {
    "clip_s": "cut sources into clips of this many seconds",
    "min_clip_s": "drop a shorter rest; leave out sound or picture that fills less of a clip (and not half of it)",
    "require": "what each clip must have, else it is rejected",
    "short_side_px": "short side of the stored picture; smaller ones are not enlarged",
    "fps": "pictures per second",
    "gop": "pictures from one key frame to the next",
    "crf": "quality of the picture: 0 to 51, smaller is better and larger",
    "audio_rate_hz": "sampling rate of the sound",
    "audio_channels": "channels of the sound",
    "ambisonics": "360°: what the sound is (declared: as the file says itself); stored as first-order ambiX",
    "projection": "360°: what the picture is (declared: as the file says itself)",
    "shard_mb": "close a shard when it has this many megabytes",
    "shard_clips": "close a shard when it has this many clips",
    "name": "beginning of the shards' names",
}
_CHOICES = {
    "require": ["any", "both", "video", "audio"],
    "audio_channels": ["mono", "stereo", "all"],
    "ambisonics": ["none", "ambix", "n3d", "fuma", "youtube", "declared"],
    "projection": ["none", "equirectangular", "declared"],
}


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    return args.command(args)


def _parser() -> Parser:
    parser = Parser(
        prog="avssl-shards", description="Pack videos into shards, check them, look at them.", epilog=_EPILOG
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    build = commands.add_parser(
        "build", help="pack a folder, CSV or JSONL of media", description="Pack media.", epilog=_BUILD_EPILOG
    )
    build.set_defaults(command=_build)
    build.add_argument("src", metavar="SRC", help="folder, .csv, .jsonl or media file")
    build.add_argument("out", metavar="OUT", help="folder for the shards: new, or of the same build")
    _add_build_options(build)

    merge = commands.add_parser("merge", help="join the jobs of a split build", description="Join OUT/job-*.")
    merge.set_defaults(command=_merge)
    merge.add_argument("out", metavar="OUT", help="the OUT of the jobs")

    index = commands.add_parser(
        "index", help="write columns.safetensors of shards without it", description="Write the columns of a manifest."
    )
    index.set_defaults(command=_index)
    index.add_argument("folder", metavar="SHARDS")

    verify = commands.add_parser("verify", help="check shards against their index", description="Check shards.")
    verify.set_defaults(command=_verify)
    verify.add_argument("folder", metavar="SHARDS")
    verify.add_argument("--quick", action="store_true", help="compare names and sizes only, read no shard")
    verify.add_argument("--decode", metavar="N", type=int, default=0, help="decode N evenly spaced clips too")

    info = commands.add_parser(
        "info", help="counts, hours, sizes, labels, statistics", description="Describe shards.", epilog=_INFO_EPILOG
    )
    info.set_defaults(command=_info)
    info.add_argument("folder", metavar="SHARDS")
    info.add_argument("--stats", metavar="FRONT_END", help="measure a front end's mean and std, see below")
    info.add_argument("-o", "--out", metavar="FILE", help="where --stats goes: .npz or .json")
    info.add_argument("--max-clips", type=int, metavar="N", default=5000, help="of --stats (default: %(default)s)")
    info.add_argument("--seed", type=int, default=0, help="of the choice of clips (default: %(default)s)")

    preview = commands.add_parser("preview", help="write a page with some clips", description="Show some clips.")
    preview.set_defaults(command=_preview)
    preview.add_argument("folder", metavar="SHARDS")
    preview.add_argument("-o", "--out", metavar="HTML", help="the page (default: SHARDS/preview.html)")
    preview.add_argument("--clips", type=int, default=12, help="how many clips (default: %(default)s)")
    preview.add_argument("--seed", type=int, default=0, help="of the choice of clips (default: %(default)s)")

    for command in (build, merge, index, verify, info):
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    from avssl.shards.options import BuildOptions

    parser.add_argument(
        "--root", metavar="DIR", help="folder that paths in a list are relative to (default: the list's)"
    )
    parser.add_argument("--no-labels", action="store_true", help="ignore folder names and label columns")
    parser.add_argument(
        "--copy",
        action="store_true",
        help="keep each file whole and as it is: no cutting, no decoding, larger, slower to train",
    )
    for field in dataclasses.fields(BuildOptions):
        if field.name != "copy":
            default = "no limit" if field.default is None else field.default
            parser.add_argument(
                "--" + field.name.replace("_", "-"),
                type=int if field.default is None else type(field.default),
                default=field.default,
                choices=_CHOICES.get(field.name),
                metavar=None if field.name in _CHOICES else field.name.rpartition("_")[2].upper(),
                help=f"{_OPTION_HELP[field.name]} (default: {default})",
            )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=_cores(), help="processes (default: one a core, %(default)s)"
    )
    parser.add_argument(
        "--timeout-s",
        metavar="S",
        type=float,
        default=120.0,
        help="give up a clip after this time (default: %(default)s)",
    )
    add_sandbox(parser, "sources")
    parser.add_argument("--job-index", metavar="I", type=int, help="pack only part I (from 0) of N; join with merge")
    parser.add_argument("--num-jobs", metavar="N", type=int, help="number of parts")
    parser.add_argument(
        "--max-rejected", metavar="N", type=_budget, help="exit with 1 if more is rejected; a number, or a share as 5%%"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _budget(text: str) -> tuple[float, bool]:
    """("5%" or "20") -> (value, whether it is a share in percent)."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number such as 20 nor a share such as 5%")
    return value, text.endswith("%")


def _build(args: argparse.Namespace) -> int:
    if (args.job_index is None) != (args.num_jobs is None):
        raise UsageError("--job-index and --num-jobs belong together; give both or none")
    from avssl.sandbox.bounds import Bounds
    from avssl.shards.build import build
    from avssl.shards.options import BuildOptions
    from avssl.shards.sources import list_sources, slice_for_job
    from avssl.shards.write import Job

    options = BuildOptions(**{field.name: getattr(args, field.name) for field in dataclasses.fields(BuildOptions)})
    listing = list_sources(args.src, labels=not args.no_labels, root=args.root)
    job = None if args.job_index is None else Job(args.job_index, args.num_jobs)
    part = listing if job is None else slice_for_job(listing, job.index, job.count)
    with progress("packing", len(part.entries)) as advance:
        summary = build(
            listing, args.out, options, workers=args.workers, timeout_s=args.timeout_s,
            sandbox=Bounds() if args.sandbox else None, job=job, advance=advance,
        )  # fmt: skip
    _print_summary(summary, args.json)
    if listing.ignored and not args.json:
        print(f"  {listing.ignored} files without a media extension were left alone")
    if summary.sources and not summary.rows:
        print("avssl-shards: nothing could be packed", file=sys.stderr)
        return 1
    return _check_budget(summary, args.max_rejected)


def _check_budget(summary: Summary, budget: tuple[float, bool] | None) -> int:
    if budget is None:
        return 0
    value, is_share = budget
    allowed = value * (summary.rows + summary.rejected) / 100 if is_share else value
    if summary.rejected <= allowed:
        return 0
    said = f"{value:g}{'%' if is_share else ''}"
    print(f"avssl-shards: {summary.rejected} rejected, --max-rejected allows {said}", file=sys.stderr)
    return 1


def _print_summary(summary: Summary, as_json: bool) -> None:
    if as_json:
        print_json(summary.to_dict())
        return
    print(
        f"{summary.out}: {'complete already, ' if summary.complete else ''}{summary.rows} clips "
        f"({summary.hours:.3f} h) of {summary.sources} sources in {summary.shards} shards, {summary.bytes / 1e6:.1f} MB"
    )
    if summary.rejected:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.rejected_by_reason.items())
        print(f"  {summary.rejected} rejected ({reasons}): see {Path(summary.out) / 'rejected.jsonl'}")


def _merge(args: argparse.Namespace) -> int:
    from avssl.shards.merge import merge

    _print_summary(merge(args.out), args.json)
    return 0


def _index(args: argparse.Namespace) -> int:
    from avssl.shards.folder import add_columns

    entry = add_columns(Path(args.folder))
    if args.json:
        print_json(entry)
    else:
        print(f"{args.folder}: columns of {entry['rows']} rows, {entry['bytes'] / 1e6:.1f} MB")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from avssl.shards.verify import verify

    folder = Path(args.folder)
    shards = sum(1 for _ in folder.glob("*.tar"))
    with progress("verifying", shards) as advance:
        problems = list(verify(folder, quick=args.quick, decode=args.decode, advance=advance))
    if args.json:
        print_json({"folder": str(folder), "ok": not problems, "problems": [dataclasses.asdict(p) for p in problems]})
    else:
        for problem in problems:
            print(problem)
        print(f"{folder}: {len(problems)} problems" if problems else f"{folder}: {shards} shards are whole")
    return 1 if problems else 0


def _info(args: argparse.Namespace) -> int:
    from avssl.shards.info import as_text, describe

    if bool(args.stats) != bool(args.out):
        raise UsageError("--stats FRONT_END and -o FILE belong together; give both or neither")
    if args.max_clips < 1:
        raise UsageError(f"--max-clips is {args.max_clips}, but must be at least 1")
    facts = describe(args.folder)
    if args.stats:
        facts["stats"] = _measure(args, facts["clips_with_audio"])
    if args.json:
        print_json(facts)
        return 0
    print(as_text(facts))
    if args.stats:
        stats = facts["stats"]
        print(
            f"  {args.out}: mean {stats['mean_db']:.2f} dB, std {stats['std_db']:.2f} dB, averaged over the features, "
            f"from {stats['frames']} frames of {stats['clips']} clips"
            + f", {stats['skipped']} skipped"
            * bool(stats["skipped"])
        )
    return 0


def _measure(args: argparse.Namespace, clips: int) -> dict[str, Any]:
    """Write the statistics that --stats asks for; what they are of."""
    audio, windows = _front_end(args.stats)
    from avssl.evaluation.front_end_stats import measure_front_end

    with progress("measuring", min(clips, args.max_clips)) as advance:
        stats = measure_front_end(
            args.folder, audio, windows=windows, max_clips=args.max_clips, seed=args.seed, advance=advance
        )
    stats.save(args.out)
    return stats.facts | {"mean_db": float(stats.mean_db.mean()), "std_db": float(stats.std_db.mean())}


def _front_end(text: str) -> tuple[AudioInput, int | None]:
    """`NAME,key=value,...` as the input it describes and the number of windows a clip."""
    import yaml

    from avssl.config import build
    from avssl.models.config import AudioInput

    name, *pairs = text.split(",")
    values: dict[str, Any] = {"rate_hz": 24000, "duration_s": 2.0, "channels": 1, "windows": None}
    own = set(values)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--stats {text}: {pair!r} is no key=value")
        values[key] = yaml.safe_load(value)
    windows = values.pop("windows")
    if windows is not None and (type(windows) is not int or windows < 1):
        raise UsageError(f"--stats {text}: windows is {windows!r}, but must be a number from 1 on")
    front_end = {"name": name, "kwargs": {key: values.pop(key) for key in list(values) if key not in own}}
    return build(AudioInput, values | {"front_end": front_end}, "--stats"), windows


def _preview(args: argparse.Namespace) -> int:
    from avssl.shards.format import PREVIEW
    from avssl.shards.preview import write_preview

    out = Path(args.out) if args.out else Path(args.folder) / PREVIEW
    shown = write_preview(Path(args.folder), out, clips=args.clips, seed=args.seed)
    print(f"{out}: {shown} clips")
    return 0


if __name__ == "__main__":
    main()
