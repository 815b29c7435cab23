"""Can sounds be separated after learning from weak labels alone? Trains a tagger and separators, and keeps the numbers.

    python -m eval.separation eval/separation/full.yaml

reads the sounds of the media folder (AVSSL_MEDIA), and writes `eval/results/NAME.json`. A run that is interrupted goes
on where it stopped. `python -m eval.separation.page` makes the tables of docs/separation-evidence.md from it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from avssl import config
from avssl.cli.common import Parser, let_idle_threads_sleep, run
from avssl.environment import environment
from avssl.files import write_atomic

RESULTS = Path("eval/results")


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m eval.separation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", metavar="STUDY.yaml")
    parser.add_argument("--work", metavar="DIR", help="keeps trainings (default: build/separation/NAME-DIGEST)")
    parser.add_argument("--result", metavar="FILE", help=f"default: {RESULTS}/NAME.json")
    parser.add_argument("--threads", type=int, default=1, help="of the trainings; default: %(default)s")
    args = parser.parse_args(argv)
    let_idle_threads_sleep()
    from eval.separation.sounds import VARIABLE, folder
    from eval.separation.study import Study

    study = Study.read(args.study)
    if (media := folder()) is None:
        print(f"skipped: {VARIABLE} is not set, the real sounds are not there", file=sys.stderr)
        return 0
    import torch

    torch.set_num_threads(args.threads)
    started_s = time.monotonic()
    work = Path(args.work or f"build/separation/{study.name}-{study.digest}")
    tree: dict[str, Any] = {"environment": environment(), "study": config.plain(study)} | measured(study, media, work)
    tree["wall_s"] = round(time.monotonic() - started_s, 1)  # of this call; what was trained before is in training_s
    path = Path(args.result or RESULTS / f"{study.name}.json")
    write_result(path, tree)
    print(f"written to {path}")
    missed = missing(tree)
    for sentence in missed:
        print(f"missed: {sentence}", file=sys.stderr)
    return 1 if missed else 0


def measured(study: Any, media: Path, work: Path) -> dict[str, Any]:
    """All trainings, and what they come to."""
    from eval.separation import measure
    from eval.separation.runner import anchors_hit, train_all
    from eval.separation.sounds import make_pairs, read_sounds

    sounds = read_sounds(media, study)
    trained = train_all(study, sounds, work, say=lambda line: print(line, file=sys.stderr, flush=True))
    pairs = make_pairs(sounds.held_out, study)
    runs = []
    for kind, folder in {"first": work / "first" / "model", **trained.separators}.items():
        run_ = {"world": "pairs", "method": kind, "seed": study.seed}
        run_["end"] = measure.judge_separator(folder, pairs, sounds, study)
        if study.song_s and run_["method"] not in ("first", "one_hot"):
            run_["song"] = measure.judge_song(folder, media, study)
        runs.append(run_)
    return {
        "classes": sounds.classes,
        "sounds": {
            "train": len(sounds.train),
            "held_out": len(sounds.held_out),
            "rendered": study.rendered.sounds * len(sounds.classes) if study.rendered else 0,
        },
        "pairs": {"label": pairs.label.tolist(), "other_label": pairs.other_label.tolist()},
        "bounds": measure.judge_bounds(pairs, study),
        "tagger": measure.judge_tagger(trained.tagger, sounds, study),
        "anchors": anchors_hit(study, trained),
        "training_s": {name: round(value, 1) for name, value in trained.training_s.items()},
        "runs": runs,
    }


def write_result(path: Path, tree: dict[str, Any]) -> None:
    """One line an entry and one a run, so that the file stays short and a difference readable."""
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in tree.items() if key != "runs"
    ]
    runs = ",\n".join("    " + json.dumps(run_, allow_nan=False) for run_ in tree["runs"])
    text = "{\n" + ",\n".join([*lines, f'  "runs": [\n{runs}\n  ]']) + "\n}\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def missing(tree: dict[str, Any]) -> list[str]:
    """What the study expects and did not reach, in sentences."""
    found = {run_["method"]: run_["end"] for run_ in tree["runs"]}
    sentences = []
    for wanted in tree["study"]["expect"]:
        values = found[wanted["condition"]][wanted["query"]]["si_sdri"]
        mean = sum(values) / len(values)
        if mean < wanted["at_least"]:
            sentences.append(
                f"mean SI-SDRi of {wanted['condition']}, {wanted['query']}: {mean:.2f} dB, at least"
                f" {wanted['at_least']} was expected"
            )
    return sentences


if __name__ == "__main__":
    sys.argv[0] = "eval.separation"  # the name before error messages
    run(main)
