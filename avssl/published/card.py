"""The model card of a converted two-tower checkpoint."""

from __future__ import annotations

from avssl import __version__
from avssl.published.layout import Conversion

_CARD = """# {title}, converted

Weights in the layout that {title} was published in, brought into the format of avssl {version}. Nothing was trained or
evaluated here.

| | |
| --- | --- |
| source | `{file}`, sha256 `{sha256}` |
| layout | `{layout}`, {entries} entries, {parameters:,} parameters |
| licence | **{licence}** |
| video | `{video}`: {frames} pictures at {fps:g} a second, {size_px} px |
| audio | `{audio}`: {duration_s:g} s of {channels} channel(s) at {rate_hz} Hz, `{front_end}` |
| statistics of the front end | {statistics} |
| embedding | {embedding} |
| from the criterion | {from_criterion} |
| left out | {left_out} |

```python
import avssl
model = avssl.load("PATH/TO/THIS/FOLDER")
model.encode_video(frames_uint8)        # [..., T, H, W, 3] -> [..., {dim}], unit norm
model.encode_audio(waveform, rate_hz)   # [..., C, S]       -> [..., {dim}], unit norm
```
{warnings}"""


def model_card(title: str, conversion: Conversion) -> str:
    """Markdown from what the conversion of a two-tower checkpoint knows."""
    config, facts, dim = conversion.config, conversion.facts, conversion.model.dim
    source, variant = facts["source"], facts["variant"]
    statistics = variant["statistics"]
    criterion = facts.get("criterion")
    return _CARD.format(
        title=source.get("method", title),
        version=__version__,
        file=source["file"],
        sha256=facts["source_sha256"],
        layout=source["layout"],
        entries=source["entries"],
        parameters=source["parameters"],
        licence=facts["licence"],
        video=config.video.name,
        frames=config.video_input.frames,
        fps=config.video_input.fps,
        size_px=config.video_input.size_px,
        audio=config.audio.name,
        duration_s=config.audio_input.duration_s,
        channels=config.audio_input.channels,
        rate_hz=config.audio_input.rate_hz,
        front_end=config.audio_input.front_end.name,
        statistics=(
            f"`{statistics['file']}`, sha256 `{statistics['sha256']}`"
            if statistics["file"]
            else f"mean {statistics['mean_db']:g} dB and std {statistics['std_db']:g} dB for all frequencies"
        ),
        embedding=f"{dim} numbers, " + ("after the heads" if config.head else "the towers' own features (no heads)"),
        from_criterion=(
            f"the aligner: {criterion['entries']} tensors, {criterion['parameters']:,} parameters"
            if criterion
            else "nothing"
        ),
        left_out=", ".join(facts["left_out"]) or "nothing",
        dim=dim,
        warnings="".join(f"\n**Note:** {warning}.\n" for warning in conversion.warnings),
    )
