"""`avssl-finetune`: a classifier from labelled files, and its answers for others."""

from __future__ import annotations

import sys
from typing import NoReturn

from avssl import config as configuration
from avssl.cli import configured
from avssl.cli.common import Parser, let_idle_threads_sleep, print_json, progress, run, torch_device

_DESCRIPTION = """\
Train a classifier of video or sound: avssl-finetune DATA --model M -o OUT [--config FILE] [--KEY VALUE ...]
Use it:                                avssl-finetune predict FILE... --model OUT

DATA is a folder of class folders (DATA/CLASS/FILE) or a CSV with the columns path and label, and perhaps split (train,
val, test) and group (files of one source, which are never split). OUT becomes a model folder that avssl.load,
avssl-embed and avssl-eval take, with results.json, report.html, confusion.csv and predictions.csv beside it. Files that
cannot be used are named, counted and left out.

examples:
  avssl-finetune videos/ -o models/mine
  avssl-finetune list.csv --model runs/mine/model -o models/mine --train full --fit.epochs 10
  avssl-finetune predict new.mp4 --model models/mine
"""
_EPILOG = "exit code: 0 done, 1 failed or files left out, 2 wrong use"


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _main(argv: list[str]) -> int:
    return _predict(argv[1:]) if argv[:1] == ["predict"] else _finetune(argv)


def _finetune(argv: list[str]) -> int:
    from avssl.finetuning.config import FinetuneConfig

    parser = Parser(prog="avssl-finetune", description=_DESCRIPTION)
    add = parser.add_argument
    add("data", metavar="DATA", nargs="?", help="folder of class folders, or CSV; a folder named predict: ./predict")
    add("--config", metavar="FILE", help="YAML file with the values below")
    add("-o", dest="out", metavar="OUT", help="the model folder to write")
    add("--print-config", action="store_true", help="print the resolved config and exit")
    add("--json", action="store_true", help="print results.json instead of a summary")
    parser.epilog = (
        f"{_EPILOG}\n\nValues, as YAML or options (default):\n\n{configured.option_table(FinetuneConfig, {})}"
    )
    arguments, overrides = parser.parse_known_args(argv)
    for name in ("data", "out"):
        if (value := getattr(arguments, name)) is not None:
            overrides += [f"--{name}", value]
    if not arguments.config and not overrides:
        parser.error("name DATA and -o OUT")
    config = configured.read_config(FinetuneConfig, arguments.config, overrides)
    if arguments.print_config:
        print(configuration.dump(config), end="")
        return 0

    let_idle_threads_sleep()
    from avssl.finetuning.run import finetune

    results = finetune(config, str(torch_device(config.device)), progress)
    if arguments.json:
        print_json(results)
        return 1 if results["skipped"] else 0
    for one in results["skipped"]:
        print(f"avssl-finetune: left out: {one['item']}: {one['cause']}", file=sys.stderr)
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in results["metrics"].items())
    print(f"{results['counts']['judged']} files judged ({results['judged']}): {metrics}")
    print(f"{config.out}: classifier of {results['counts']['classes']} classes; see {config.out}/report.html")
    return 1 if results["skipped"] else 0


def _predict(argv: list[str]) -> int:
    parser = Parser(prog="avssl-finetune predict", description="Say what files show: the likeliest classes of each.")
    add = parser.add_argument
    add("inputs", metavar="FILE", nargs="+", help="media files, or folders of them")
    add("--model", metavar="DIR", required=True, help="what avssl-finetune wrote")
    add("--top", type=int, default=3, metavar="N", help="classes to name (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
    add("--json", action="store_true", help="print all probabilities as JSON")
    arguments = parser.parse_args(argv)

    let_idle_threads_sleep()
    import avssl
    from avssl.embedding.sources import FileUnit, find_units
    from avssl.errors import MediaError, UsageError

    units = find_units(arguments.inputs)
    model = avssl.load(arguments.model, device=torch_device(arguments.device), kind="classifier")
    answers, failed = [], []
    for unit in units:
        if not isinstance(unit, FileUnit):
            raise UsageError(f"{unit.name}: is a shard set; name media files")
        try:
            answers.append({"path": unit.name, "probabilities": model.classify_file(unit.file)})
        except MediaError as error:
            failed.append({"path": unit.name, "cause": str(error)})
            print(f"avssl-finetune: {error}", file=sys.stderr)
            continue
        if not arguments.json:
            best = list(answers[-1]["probabilities"].items())[: arguments.top]
            print(f"{unit.name}: " + ", ".join(f"{name} {chance:.2f}" for name, chance in best))
    if arguments.json:
        print_json({"model": arguments.model, "classes": model.classes, "files": answers, "failed": failed})
    return 1 if failed else 0
