"""Where in a weakly labelled clip its class is most likely heard: the segment that training separates.

Source: Kong et al., USS (arXiv 2305.07447), anchor segment mining. Only the clip is labelled; a frame-wise tagger says
how likely the class is at each frame.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avssl.errors import UsageError

Ties = Literal["first", "centre"]

_STEPS = 2**32  # probabilities are added as integers: equal areas are then exactly equal, and ties are ties


def mine_anchors(probabilities: Tensor, segment_frames: int = 200, *, ties: Ties = "centre") -> Tensor:
    """Centre frames [B] int64 of the segments with the largest area under the class's probability [B, T].

    The area around a frame is summed over `segment_frames` + 1 frames; beyond its ends the curve goes on as it ended.
    A sound shorter than the segment has many best places. "first" takes the earliest, as the published code does: the
    sound then lies at the segment's end. "centre" takes the middle of that run: the sound lies in the middle.
    A centre is at least half a segment from both ends, so that the segment lies within the clip.
    """
    half = _half(probabilities.shape[-1], segment_frames)
    counts = (probabilities.double() * _STEPS).round().long()
    left, right = counts[:, :1].expand(-1, half + 1), counts[:, -1:].expand(-1, half)
    sums = torch.cat([left, counts, right], dim=1).cumsum(dim=1)  # one more on the left, so that differences are areas
    area = sums[:, 2 * half + 1 :] - sums[:, : -2 * half - 1]
    best = area == area.amax(dim=1, keepdim=True)
    first = best.int().argmax(dim=1)
    if ties == "centre":
        position = torch.arange(best.shape[1], device=best.device)
        broken = ~best & (position > first[:, None])
        end = torch.where(broken.any(dim=1), broken.int().argmax(dim=1), best.shape[1])
        first = (first + end - 1) // 2
    return first.clamp(half, probabilities.shape[-1] - 1 - half)


def random_anchors(
    clips: int, frames: int, segment_frames: int = 200, *, generator: torch.Generator | None = None
) -> Tensor:
    """Centre frames [clips], uniform over all places where the segment lies within the clip's `frames` frames.

    (The published code's random mode reaches only begins in the first half segment of the clip.)
    """
    half = _half(frames, segment_frames)
    return torch.randint(half, frames - half, (clips,), generator=generator)


def cut_segments(waveform: Tensor, centre: Tensor, hop: int, segment_frames: int = 200) -> Tensor:
    """Waveforms [B, S] and centre frames [B] -> the segments [B, segment_frames * hop]."""
    samples = segment_frames * hop
    begin = (centre - segment_frames // 2) * hop
    if len(begin) and (int(begin.min()) < 0 or int(begin.max()) + samples > waveform.shape[-1]):
        raise UsageError(
            f"segments of {samples} samples do not fit into clips of {waveform.shape[-1]} at the given centres; "
            "mine the anchors on the same clips"
        )
    place = begin[:, None] + torch.arange(samples, device=begin.device)
    return waveform.gather(1, place.to(waveform.device))


def _half(frames: int, segment_frames: int) -> int:
    if segment_frames % 2 or segment_frames < 2:
        raise UsageError(f"segment_frames is {segment_frames}; give an even number, a segment has a centre frame")
    if frames <= segment_frames:
        raise UsageError(f"a clip of {frames} frames holds no segment of {segment_frames}; pad the clip")
    return segment_frames // 2
