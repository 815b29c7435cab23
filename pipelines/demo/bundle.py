"""Make the model that comes with the package: the demo's recipe on rendered clips, measured, into avssl/assets/tiny.

Run from the root of the repository: `python -m pipelines.demo.bundle`.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

from avssl.cli.common import Parser, run
from avssl.errors import UsageError
from pipelines.demo.log import Log

CARD = """# tiny

A small audio-visual encoder to try `avssl` with: it comes with the package, and `avssl-embed` uses it where no other
model is named. **It was trained on rendered clips only** ({clips} clips of moving, sounding shapes from
`avssl.synthetic.world`, {classes} classes, no labels used): its embeddings of real video are repeatable and quick, but
say little. Train your own on your videos (`make demo VIDEOS=folder` shows how) for real use.

| | |
| --- | --- |
| towers | `{video}`, `{audio}`; embeddings of {dim} numbers |
| input | {frames} pictures of {size_px} px at {fps:g} a second; {duration_s:g} s of mono sound at {rate_hz} Hz |
| recipe | `{recipe}`, {steps} steps, batch {batch_size}, on {device} |
| made by | `python -m pipelines.demo.bundle`, avssl {version} |
| licence | Apache-2.0, like the code that rendered the clips |

Measured on {held_out} rendered clips that were held out ({rule}):

| | | chance |
| --- | --- | --- |
{measures}

Weights of convolutions and linear layers are stored in half precision and computed in single.
"""


def main(argv: list[str]) -> None:
    parser = Parser(prog="python -m pipelines.demo.bundle", description="Make the bundled model anew.")
    parser.add_argument("--out", metavar="DIR", default="avssl/assets/tiny", help="default: %(default)s")
    parser.add_argument("--steps", type=int, metavar="N", default=600, help="of training (default: %(default)s)")
    parser.add_argument("--clips", type=int, metavar="N", default=480, help="to render (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    args = parser.parse_args(argv)
    from pipelines.demo import clips, measure, recipe

    if not recipe.CONFIG.is_file():
        raise UsageError(f"{recipe.CONFIG}: no such file here; run this from the root of the repository")
    log, world = Log(), dataclasses.replace(recipe.WORLD, clips=args.clips)
    with tempfile.TemporaryDirectory() as scratch:
        here = recipe.Run(Path(scratch), args.device, args.steps, world.duration_s)
        with log.step("Render and pack"):
            root = here.out / "rendered"
            split = clips.split(recipe.render(world, root), here.clip_s)
            recipe.pack(log, here, root, split)
        with log.step("Pretrain"):
            recipe.pretrain(log, here)
        with log.step("Measure"):
            measures = measure.measure_parts(recipe.embed(log, here, "held_out"), recipe.embed(log, here, "train"))
            for sentence in measure.sentences(measures):
                log.say(sentence)
        with log.step(f"Write {args.out}"):
            facts = {
                "clips": measures["train"]["clips"],
                "classes": world.classes,
                "held_out": measures["held_out"]["clips"],
                "rule": split.rule,
                "recipe": recipe.CONFIG,
                "batch_size": recipe.batch_size(here),
                "measures": "\n".join(_rows(measures["held_out"])),
            }
            save(here.model, Path(args.out), facts, measures, recipe.environment(here))


def save(model_folder: Path, out: Path, facts: dict[str, Any], measures: dict[str, Any], made: dict[str, Any]) -> None:
    """Write the trained model with half-precision weights and its own card to `out`."""
    import avssl
    from avssl.models.folder import save_model

    trained = avssl.load(model_folder)
    for weight in trained.model.parameters():
        if weight.ndim > 1:  # biases and normalisation are small and stay as they are
            weight.data = weight.data.half()
    config = trained.config
    card = CARD.format(
        video=config.video.name if config.video else "none",
        audio=config.audio.name if config.audio else "none",
        dim=trained.dim,
        frames=trained.video_input.frames,
        size_px=trained.video_input.size_px,
        fps=trained.video_input.fps,
        duration_s=trained.audio_input.duration_s,
        rate_hz=trained.audio_input.rate_hz,
        steps=trained.description["trained"]["steps"],
        device=made["device"],
        version=made["avssl"],
        **facts,
    )
    extra = {
        "licence": "Apache-2.0",
        "trained": trained.description["trained"] | {"data": "rendered clips of avssl.synthetic.world"},
        "measured": measures["held_out"],
    }
    save_model(out, trained.model, config, card=card, extra=extra)


def _rows(part: dict[str, Any]) -> list[str]:
    return [
        f"| {line['direction']}, own clip among the first 5 of {line['candidates']} | {line['recall_at_5']:.0%} "
        f"| {line['chance_at_5']:.0%} |"
        for line in part["retrieval"]
    ] + [
        f"| class by nearest {line['modality']}s | {line['accuracy']:.0%} | {line['chance']:.0%} |"
        for line in part["classes"]
    ]


if __name__ == "__main__":
    sys.argv[0] = "bundle"  # the name before error messages
    run(main)
