"""The model card that goes into a run's model folder."""

from __future__ import annotations

from typing import Any

from avssl import __version__
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


def model_card(config: TrainConfig, trained: dict[str, Any]) -> str:
    """Markdown from what the run knows."""
    return _CARD.format(
        name=config.run.dir.rstrip("/").rsplit("/", 1)[-1],
        version=__version__,
        task=trained["task"],
        video=config.model.video.name if config.model.video else "none",
        audio=config.model.audio.name if config.model.audio else "none",
        steps=trained["steps"],
        samples=trained["samples"],
        passes=trained["samples"] / trained["rows"],
        rows=trained["rows"],
        shards=", ".join(f"`{path}`" for path in config.data.shards),
        manifest=trained["manifest_sha256"][:16],
    )
