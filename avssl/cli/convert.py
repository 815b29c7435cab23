"""`avssl-convert`: published checkpoints to model folders, and back."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from avssl.cli.common import Parser, print_json, run
from avssl.errors import UsageError
from avssl.published.registry import LAYOUTS

if TYPE_CHECKING:
    from avssl.published.convert import Report

EXPORTS = ("onnx", "export")

_DESCRIPTION = """\
Bring a published checkpoint into a model folder, which avssl.load and avssl-embed take, or a model folder back into the
published layout or to ONNX and torch.export. Nothing is downloaded and nothing in the file is executed."""

_EPILOG = """\
examples:
  avssl-convert AVID_Kinetics_Cross-N1024_checkpoint.pth.tar models/avid
  avssl-convert avsa.pth.tar models/avsa --stats avsa_stats.npz
  avssl-embed holiday.mp4 -o holiday.npz --model models/avid
  avssl-convert runs/mine/model mine.pth.tar --to avid
  avssl-convert Cnn14_mAP=0.431.pth models/cnn14 --kind panns_clips
  avssl-convert runs/mine/model exported --to onnx      a folder: video.onnx, audio.onnx, export.json

layouts:
  avid    AVID and AVID-CMA: R(2+1)D and 9-layer audio network with heads (licence of the files: CC BY-NC 4.0)
  avsa    AVSA: the same without heads, 4-channel sound; its transformers and heads become the aligner
  panns_clips, panns_frames
          PANNs' Cnn14 and Cnn14_DecisionLevelMax, taggers; nothing in a file tells which it is, so --kind must say
  uss     USS: the separator and the Cnn14 that its queries are made with (Lightning checkpoint)
  audiosep
          AudioSep: the separator; its text encoder is left out, give embeddings of text by file

statistics:
  The published files do not hold the mean and standard deviation that the spectrogram is normalised with, one value a
  frequency, in dB. Give the published vectors as .npz or .json with `mean` and `std`. Without them one number stands
  for all frequencies, and the features of sound are not quite those that were trained.

exit code: 0 done, 1 the file is damaged or does not fit, 2 wrong use (docs/convert.md says more)."""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="avssl-convert", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add(
        "source",
        metavar="SRC",
        type=Path,
        help="checkpoint: .pth, .pth.tar, .safetensors; with --to a model folder",
    )
    add("output", metavar="OUT", type=Path, help="the model folder to write; with --to the file to write")
    add("--kind", choices=LAYOUTS, help="the layout of SRC (default: found out from names and shapes)")
    add("--stats", metavar="FILE", type=Path, help=".npz or .json with mean and std of the front end, in dB")
    add("--banks", metavar="FILE.npz", type=Path, help="keep the memory banks of an AVID checkpoint in this file")
    add("--ignore-criterion", action="store_true", help="convert the model whatever the training criterion holds")
    add(
        "--to", choices=(*LAYOUTS, *EXPORTS), metavar="FORM",
        help=f"the way back: write SRC, a model folder, in this layout ({', '.join(LAYOUTS)}); or the encoders of SRC, "
        "a two-tower model, as onnx or export (torch.export) into the folder OUT (docs/interchange.md)",
    )  # fmt: skip
    add("--json", action="store_true", help="print what was made as JSON")
    return parser


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    source, output = arguments.source, arguments.output
    if arguments.to:
        others = ("kind", "stats", "banks", "ignore_criterion")
        if given := [name for name in others if getattr(arguments, name)]:
            raise UsageError(f"--{given[0].replace('_', '-')} does not go with --to; leave one away")
        if arguments.to in EXPORTS:
            return _export(str(source), output, arguments.to, as_json=arguments.json)
        if not source.is_dir():
            raise UsageError(f"{source}: with --to, SRC is a model folder, and there is none of this name")
    elif source.is_dir():
        raise UsageError(f"{source}: is a folder; name a checkpoint's file, or say with --to which layout to write")

    from avssl.published.convert import convert, revert
    from avssl.published.layout import Choices

    if arguments.to:
        report = revert(source, output, arguments.to)
    else:
        choices = Choices(arguments.stats, arguments.ignore_criterion)
        report = convert(source, output, choices, kind=arguments.kind, banks_file=arguments.banks)
    for warning in report.warnings:
        print(f"avssl-convert: note: {warning}", file=sys.stderr)
    if arguments.json:
        print_json(asdict(report))
    else:
        print(_sentence(report, banks=arguments.banks))
    return 0


def _export(source: str, output: Path, form: Literal["onnx", "export"], *, as_json: bool) -> int:
    from avssl.interchange.export import export

    facts = export(source, output, form)
    if as_json:
        print_json({"output": str(output), **facts})
    else:
        files = ", ".join(facts[kind]["file"] for kind in ("video", "audio") if kind in facts)
        print(f"{output}: {files}; export.json says what they take")
    return 0


def _sentence(report: Report, banks: Path | None) -> str:
    facts = report.facts
    if "source" not in facts:
        return f"{report.output}: {facts['entries']} entries in the layout {report.layout}"
    source = facts["source"]
    method = source.get("method", report.layout.upper())
    text = f"{report.output}: {method}, {source['entries']} entries, {source['parameters']:,} parameters"
    if criterion := facts.get("criterion"):
        text += f"; {criterion['entries']} entries of the criterion as its aligner"
    if banks:
        text += f"; banks of {source['bank_rows']} rows in {banks}"
    if report.left_out:
        text += f"; left out: {', '.join(report.left_out)}"
    return f"{text}\nlicence: {facts['licence']}"


if __name__ == "__main__":
    main()
