"""`avssl-embed`: embeddings of files, folders and shard sets."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from avssl.cli.common import Parser, add_sandbox, let_idle_threads_sleep, print_json, progress, run, torch_device
from avssl.errors import AvsslError, UsageError

if TYPE_CHECKING:
    from avssl.embedding.run import EmbedReport, Listener
    from avssl.embedding.sources import Unit
    from avssl.embedding.stream import Row
    from avssl.errors import MediaError
    from avssl.models.av_model import AVModel
    from avssl.sandbox.decoder import Decoder

BUNDLED = "tiny"
_SPATIAL = ("declared", "ambix", "n3d", "fuma", "youtube")

_DESCRIPTION = """\
Embed video and sound: one row for every window of every file.

Files are streamed: memory does not depend on their length. A file that cannot be read is named and left out, the
others go on, and the exit code is 1 at the end."""

_EPILOG = """\
examples:
  avssl-embed holiday.mp4 -o holiday.npz
  avssl-embed clips/ more/*.mkv -o clips.parquet --model runs/mine/model --window 4 --hop 2
  avssl-embed sphere.mp4 -o sphere.npz --model runs/avsa/model --spatial youtube --viewpoints 8
  avssl-embed shards/ -o shards.npz --model runs/mine/model --pool mean --layers video.pool
  python -c 'import numpy; rows = numpy.load("holiday.npz"); print(rows["start_s"], rows["video"].shape)'

rows (.npz: an array each; .parquet: a column each; times are in seconds from the start of the file):
  path                  the file as named, or the source of a packed clip
  start_s, end_s        the window; in a shard set, in the time of the source
  video, audio          [N, D] float32 of unit length; zeros where the next column is false
  has_video, has_audio  whether the stream covers at least a tenth of the window (digital silence is sound)
  video.LAYER, ...      [N, C] of --layers: the tower's stage averaged over positions and clips, not of unit length
  row, id, label        of packed clips, if any input is a shard set (else row -1 and empty texts)
  view, azimuth_deg, elevation_deg, fov_deg
                        with --spatial: number and direction of the viewpoint (0 ahead, 90 to the left)
  meta                  JSON text (.parquet: schema metadata): model, hashes, preprocessing, these settings

windows:
  They start at 0, HOP, 2 HOP, ... until one reaches the end of the file; the last one is cut there, and a rest shorter
  than a tenth of a hop gets none. A file shorter than a window gives one row. Each window is described by as many
  clips of the model's own length as fit in it, spread evenly, at least one; their embeddings are averaged and
  scaled to unit length. A clip longer than the window is centred on it and kept inside the stream; beyond the end of a
  stream shorter than a clip the last picture is held and sound is silence.

continuing:
  Finished files are kept in OUT.parts until all are done; the same command goes on after an interruption. If
  some files failed, OUT.parts stays, and the same command tries only those again. An OUT or OUT.parts of other
  settings or inputs is refused unless --overwrite is given.

exit code: 0 done, 1 something could not be embedded, 2 wrong use."""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="avssl-embed", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="media files, folders of them, or shard sets of avssl-shards")
    add("-o", "--output", required=True, metavar="OUT", help="the table to write: .npz or .parquet")
    add("--model", metavar="M", help="model folder or hf-hub:ORG/NAME; default: the small bundled model")
    add("--window", type=seconds, default=2.0, metavar="S", help="length of a window in seconds (default 2)")
    add("--hop", type=seconds, default=1.0, metavar="S", help="from one window's start to the next (default 1)")
    add("--modality", type=_modalities, metavar="LIST", help="video, audio or video,audio (default: the model's)")
    add("--layers", type=_names, default=(), metavar="LIST", help="stages to add, e.g. video.pool,audio.pool")
    add(
        "--spatial", choices=_SPATIAL, metavar="FORMAT",
        help="360° video: a row for each viewpoint; FORMAT is what the sound of files is: declared (the file says it), "
        "ambix, n3d, fuma, youtube; packed clips say it themselves",
    )  # fmt: skip
    add("--viewpoints", type=count, default=4, metavar="K", help="of --spatial: evenly around the horizon (default 4)")
    add("--fov", type=_angle, default=90.0, metavar="DEG", help="of --spatial: field of view, both ways (default 90)")
    add("--pool", choices=("none", "mean"), default="none", help="mean: one row a file, the mean of its windows")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
    add("--batch-size", type=count, default=16, metavar="N", help="clips the model is given at once (default 16)")
    add_sandbox(parser, "files (not packed clips)")
    add("--overwrite", action="store_true", help="start anew where an output of other settings is in the way")
    add("--json", action="store_true", help="print a summary as JSON, with what became of each file")
    return parser


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)

    from avssl.embedding.sources import find_units
    from avssl.embedding.table import check_output

    # What is cheap to find wrong comes before torch and the model.
    output = check_output(arguments.output)
    units = find_units(arguments.inputs)

    decoder = _decoder(units) if arguments.sandbox else None
    let_idle_threads_sleep()
    from avssl.embedding.run import embed_to_file, options_for
    from avssl.embedding.viewpoints import Viewpoints

    started_s = time.monotonic()
    model_name, model = chosen_model(arguments.model, torch_device(arguments.device), "avssl-embed")
    options = options_for(
        model,
        modalities=arguments.modality,
        layers=arguments.layers,
        window_s=arguments.window,
        hop_s=arguments.hop,
        pool=arguments.pool,
        batch_size=arguments.batch_size,
        spatial=Viewpoints(arguments.spatial, arguments.viewpoints, arguments.fov) if arguments.spatial else None,
    )
    try:
        with (
            decoder if decoder is not None else contextlib.nullcontext(),
            progress("embedding", sum(unit.items for unit in units)) as advance,
        ):
            report = embed_to_file(
                model,
                units,
                output,
                options,
                model_name=model_name,
                overwrite=arguments.overwrite,
                listener=_listener(advance),
                decoder=decoder,
            )
    except OSError as error:  # inputs that cannot be read are reported one by one; this is the output
        raise AvsslError(f"{output}: cannot be written: {error.strerror or error}") from error
    summary = asdict(report) | {"model": model_name, "seconds": round(time.monotonic() - started_s, 3)}
    if arguments.json:
        print_json(summary)
    else:
        print(_sentence(report, summary["seconds"]))
    return 1 if report.failed or not report.rows else 0


def _decoder(units: list[Unit]) -> Decoder | None:
    """The confined process that decodes, if there is a file to decode: it starts while torch and the model load."""
    from avssl.embedding.sources import FileUnit
    from avssl.sandbox.decoder import Decoder

    if not any(isinstance(unit, FileUnit) for unit in units):
        return None
    decoder = Decoder()
    decoder.start()
    return decoder


def _sentence(report: EmbedReport, seconds: float) -> str:
    if not report.rows:
        return "nothing could be embedded, so no output was written"
    if report.already_complete:
        return f"{report.output} is complete already: {report.rows} rows (--overwrite makes it anew)"
    kept = f", {report.kept} of them done before" if report.kept else ""
    text = f"{report.output}: {report.rows} rows of {report.items - len(report.failed)} inputs{kept}, {seconds:.1f} s"
    if report.failed:
        text += f"; {len(report.failed)} failed (the same command tries only these again)"
    return text


def chosen_model(name: str | None, device: Any, command: str) -> tuple[str, AVModel]:
    """The model and its name; where none is named, the default, which `command` says on standard error."""
    from avssl.models.folder import load

    if name is None:
        name, what = _default()
        print(f"{command}: no --model given, using {what}", file=sys.stderr)
    return name, load(name, device=device, kind="two_tower")


def _default() -> tuple[str, str]:
    """The model that is used where none is named, and what to say of it."""
    from avssl.models import starter
    from avssl.models.folder import bundled_models

    if starter.installed():
        return starter.NAME, (
            "starter: pretrained features of pictures and of sounds, not comparable with each other before avssl-align"
        )
    if BUNDLED not in bundled_models():
        raise UsageError("this installation has no bundled model; name one with --model")
    return BUNDLED, (
        "the bundled one: tiny, trained on rendered clips to try things out; train your own for real use, or run"
        f" {starter.CURE}"
    )


def _listener(advance: Callable[..., None]) -> Listener:
    from avssl.embedding.run import Listener

    class Progress(Listener):
        def failed(self, error: MediaError) -> None:
            print(f"avssl-embed: {error}", file=sys.stderr)

        def at(self, row: Row) -> None:
            advance(0, note=f"{row['path']} {row['end_s']:.0f} s")

        def done(self, items: int) -> None:
            advance(items)

    return Progress()


def seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.01 <= float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.01 to 86400")


def _angle(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 1 <= float(text) <= 150:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a field of view from 1 to 150 degrees")


def count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _modalities(text: str) -> tuple[str, ...]:
    names = _names(text)
    if not names or set(names) - {"video", "audio"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not video, audio or video,audio")
    return names
