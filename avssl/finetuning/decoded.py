"""Clips decoded anew each time: what training of whole towers needs, and what files are judged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from avssl.data.transforms import prepare, to_device
from avssl.finetuning.clips import ClipInputs, Clips, FileClips, batches, epoch_requests
from avssl.finetuning.training import Part
from avssl.finetuning.training_config import ClipTraining


class DecodedClips:
    """A `Source` of `files`, for networks that take `video`, `audio` and `audio_mask` as `ClassifierNet` does."""

    def __init__(
        self,
        files: Sequence[Path],
        inputs: ClipInputs,
        fit: ClipTraining,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.inputs, self.fit, self.seed, self.device = inputs, fit, seed, torch.device(device)
        self.failed: dict[int, str] = {}
        self._random = FileClips(files, inputs, change=fit.augment, seed=seed)
        self._even = FileClips(files, inputs, count=fit.test_clips)

    def train(self, files: Sequence[int], epoch: int) -> Iterator[Part]:
        usable = [file for file in files if file not in self.failed]
        requests = epoch_requests(usable, epoch, self.fit.clips, self.fit.batch_size, self.seed)
        yield from self._parts(batches(self._random, requests, self.fit.workers))

    def test(self, files: Sequence[int]) -> Iterator[Part]:
        """Clips of one file a part."""
        requests = [[(file, 0, 0)] for file in files if file not in self.failed]
        yield from self._parts(batches(self._even, requests, self.fit.workers))

    def _parts(self, found: Iterator[Clips]) -> Iterator[Part]:
        for batch, failed in found:
            self.failed |= {failure.file: failure.cause for failure in failed}
            if batch is None:
                continue
            batch = to_device(batch, self.device)
            prepared = prepare(batch, self.inputs.picture) if self.inputs.picture else prepare_sound(batch)
            clips = next(prepared[name].shape[1] for name in ("video", "audio") if name in prepared)
            inputs = {name: prepared[name].flatten(0, 1) for name in ("video", "audio") if name in prepared}
            if "audio_mask" in prepared and "video" in prepared:
                inputs["audio_mask"] = prepared["audio_mask"].repeat_interleave(clips)
            yield Part(inputs, prepared["row"].cpu().repeat_interleave(clips))


def prepare_sound(batch: dict) -> dict:
    """`prepare` of a batch without pictures."""
    return {**batch, "audio": batch["audio"] * batch["gain"][:, :, None, None]} if "gain" in batch else batch
