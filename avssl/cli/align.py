"""`avssl-align`: brings the two towers of a model together on a user's own videos, without training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from avssl.cli.common import Parser, let_idle_threads_sleep, print_json, progress, run
from avssl.errors import UsageError

_DESCRIPTION = """\
Fit linear heads to a model whose towers were never trained together (such as `starter`), by canonical correlation
between pictures and sounds of your own videos. Writes a model folder that avssl-embed, avssl-eval and avssl.load take,
in whose space a picture finds its sound. Nothing is trained; a few hundred windows are enough to begin with."""

_EPILOG = """\
example:
  avssl-align my/videos -o models/mine --model starter
  avssl-embed my/videos -o mine.npz --model models/mine

exit code: 0 done, 1 failed, 2 wrong use"""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _main(argv: list[str]) -> int:
    parser = Parser(prog="avssl-align", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("inputs", metavar="VIDEO", nargs="+", help="video files, folders, shard folders")
    add("-o", "--out", metavar="FOLDER", type=Path, required=True, help="the model folder to write")
    add("--model", default="starter", help="model folder or name (default: %(default)s)")
    add("--window", type=float, default=2.0, metavar="S", help="seconds of a window (default: %(default)g)")
    add("--hop", type=float, default=1.0, metavar="S", help="from one window to the next (default: %(default)g)")
    add("--device", default="cpu", help="as torch names it (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the files that are held out (default: %(default)s)")
    add("--json", action="store_true", help="print what was found as JSON")
    arguments = parser.parse_args(argv)
    if (arguments.out / "config.json").exists():
        raise UsageError(f"{arguments.out}: holds a model already; name a new folder")
    return _align(arguments)


def _align(arguments) -> int:
    let_idle_threads_sleep()
    import numpy as np

    import avssl
    from avssl.embedding.align import LAYERS, align, write_aligned
    from avssl.embedding.run import Listener, embed_to_file, options_for
    from avssl.embedding.sources import find_units

    units = find_units(arguments.inputs)
    model = avssl.load(arguments.model, device=arguments.device, kind="two_tower")
    options = options_for(
        model, modalities=["video", "audio"], layers=LAYERS, window_s=arguments.window, hop_s=arguments.hop
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = arguments.out / "features.npz"
    with progress("reading", total=sum(unit.items for unit in units)) as advance:
        listener = Listener()
        listener.done = advance  # type: ignore[method-assign]
        report = embed_to_file(model, units, table, options, model_name=arguments.model, listener=listener)
    for failed in report.failed:
        print(f"avssl-align: left out: {failed['path']}: {failed['detail']}", file=sys.stderr)
    if not table.exists():
        raise UsageError("none of the inputs could be read")

    with np.load(table, allow_pickle=False) as rows:
        both = rows["has_video"] & rows["has_audio"]
        video, audio, files = (rows[name][both] for name in (*LAYERS, "path"))
    aligned, choice = align(video, audio, files, seed=arguments.seed)
    facts = {"pairs": len(files), "files": len(np.unique(files))}
    write_aligned(arguments.model, arguments.out, aligned, choice, facts)
    if arguments.json:
        print_json({"output": str(arguments.out), **facts, **choice._asdict()})
    else:
        print(
            f"{arguments.out}: {choice.dim} axes from {facts['pairs']} windows of {facts['files']} files;"
            f" held-out sounds at place {choice.mean_rank:.0%} (50 % is luck)"
        )
    return 1 if report.failed else 0
