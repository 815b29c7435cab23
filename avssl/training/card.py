"""The model card that goes into a run's model folder."""

from __future__ import annotations

from typing import Any

from avssl import __version__
from avssl.models.sound_config import SeparatorModelConfig, TaggerModelConfig
from avssl.training.config import TrainConfig

_CARD = """# {name}

Audio-visual encoder, pretrained from unlabelled video with avssl {version} (task `{task}`).

| | |
| --- | --- |
| video tower | {video} |
| audio tower | {audio} |
| trained | {steps} steps, {samples} samples ({passes:.2f} passes over {rows} rows) |
| data | {shards} (manifest sha256 `{manifest}`) |

```python
import avssl
model = avssl.load("PATH/TO/THIS/FOLDER")
model.encode_video(frames_uint8)      # [..., T, H, W, 3] -> [..., D], unit norm
model.encode_audio(waveform, rate_hz) # [..., S] -> [..., D], unit norm
```

Preprocessing travels in `config.json`. Features reflect the data above, with its biases;
nothing was evaluated for this card.
"""


_SOUND_CARD = """# {name}

{what}, trained from weakly labelled clips with avssl {version} (task `{task}`).

| | |
| --- | --- |
{rows_of_model}
| trained | {steps} steps, {samples} samples ({passes:.2f} passes over {rows} rows) |
| data | {shards} (manifest sha256 `{manifest}`) |

```python
import avssl
model = avssl.load("PATH/TO/THIS/FOLDER")
{use}
```

Classes and sizes are in `config.json`. The model reflects the data above, with its biases; nothing was evaluated for
this card.
"""


def model_card(config: TrainConfig, trained: dict[str, Any]) -> str:
    """Markdown from what the run knows."""
    if config.model.kind == "two_tower":
        card = _CARD
        facts = {
            "video": config.model.video.name if config.model.video else "none",
            "audio": config.model.audio.name if config.model.audio else "none",
        }
    else:
        card, facts = _SOUND_CARD, (_tagger if config.model.kind == "tagger" else _separator)(config.model)
    return card.format(
        **facts,
        name=config.run.dir.rstrip("/").rsplit("/", 1)[-1],
        version=__version__,
        task=trained["task"],
        steps=trained["steps"],
        samples=trained["samples"],
        passes=trained["samples"] / trained["rows"],
        rows=trained["rows"],
        shards=", ".join(f"`{path}`" for path in config.data.shards),
        manifest=trained["manifest_sha256"][:16],
    )


def _tagger(model: TaggerModelConfig) -> dict[str, str]:
    net = model.tagger
    return {
        "what": "Tagger: which classes a sound holds" + (", and when" if net.decision == "frame" else ""),
        "rows_of_model": f"| classes | {net.classes} |\n| blocks | {net.channels}, {net.rate_hz} Hz |",
        "use": "model.probabilities(waveform, rate_hz)  # [..., S] -> [..., classes]",
    }


def _separator(model: SeparatorModelConfig) -> dict[str, str]:
    net = model.separator
    return {
        "what": "Separator: takes the sound out of a mixture that a query asks for",
        "rows_of_model": f"| query | {model.query.kind}, from the {model.source} |\n"
        f"| blocks | {net.channels}, {net.rate_hz} Hz, segments of {model.window_s:g} s |",
        "use": 'model.separate(waveform, rate_hz, "CLASS")  # [C, S] -> [C, S]',
    }
