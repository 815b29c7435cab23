"""What the frozen stages of towers give, computed once for evenly spread clips of each file and kept on disk.

Later stages and heads are then trained without decoding anything again: on a CPU an epoch takes seconds. Maps are
kept in half precision.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avssl.finetuning.clips import epoch_requests
from avssl.finetuning.training import Part, Source
from avssl.finetuning.training_config import ClipTraining
from avssl.models.classifier import ClassifierNet

_FILES = {"video": "video.npy", "audio": "audio.npy", "audio_mask": "mask.npy"}


class KeptMaps:
    """A `Source` whose inputs are maps; use it in a `with`, at whose end they are deleted.

    after: of each modality, the last frozen stage. folder: where they are kept; a new one, or one that was left.
    """

    def __init__(
        self,
        net: ClassifierNet,
        after: Mapping[str, str],
        clips: Source,
        files: Sequence[int],
        fit: ClipTraining,
        folder: Path,
        *,
        seed: int = 0,
        advance: Callable[[int], None] = lambda n: None,
    ):
        self.fit, self.folder, self.seed = fit, folder, seed
        self.device = next(net.parameters()).device
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._maps: dict[str, np.ndarray] = {}
        self._rows: dict[int, np.ndarray] = {}
        done = 0
        for inputs, of in clips.test(files):
            found = frozen_maps(net, after, inputs)
            for name, value in found.items():
                if name not in self._maps:
                    shape = (len(files) * fit.test_clips, *value.shape[1:])
                    self._maps[name] = np.lib.format.open_memmap(folder / _FILES[name], "w+", value.dtype, shape)
                self._maps[name][done : done + len(of)] = value
            for file in of.unique().tolist():
                self._rows[file] = done + np.flatnonzero((of == file).numpy())
            done += len(of)
            advance(1)
        self.failed = clips.failed

    def __enter__(self) -> KeptMaps:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def train(self, files: Sequence[int], epoch: int) -> Iterator[Part]:
        usable = [file for file in files if file in self._rows]
        for requests in epoch_requests(usable, epoch, self.fit.test_clips, self.fit.batch_size, self.seed):
            rows = np.array([self._rows[file][draw % len(self._rows[file])] for file, _, draw in requests])
            yield self._part(rows, [file for file, _, _ in requests])

    def test(self, files: Sequence[int]) -> Iterator[Part]:
        for file in files:
            if file in self._rows:
                yield self._part(self._rows[file], [file] * len(self._rows[file]))

    def _part(self, rows: np.ndarray, files: list[int]) -> Part:
        inputs = {name: torch.from_numpy(values[rows]).to(self.device) for name, values in self._maps.items()}
        return Part({n: v.float() if v.is_floating_point() else v for n, v in inputs.items()}, torch.tensor(files))


class LaterStages(nn.Module):
    """The part of a `ClassifierNet` behind the stages `after`: the same arguments and answers, the same weights."""

    def __init__(self, net: ClassifierNet, after: Mapping[str, str]):
        super().__init__()
        self.net, self.after = net, dict(after)

    def forward(
        self, video: Tensor | None = None, audio: Tensor | None = None, audio_mask: Tensor | None = None
    ) -> Tensor:
        parts = []
        for modality, maps in (("video", video), ("audio", audio)):
            if maps is None:
                continue
            last = self.after[modality]
            stages = {last: maps, **self.net.tower(modality).later_stages(last, maps)}
            logits = self.net.logits(modality, stages)
            mask = audio_mask if modality == "audio" else None
            parts.append(logits if mask is None else logits * mask[:, None])
        return torch.stack(parts).sum(0)


@torch.no_grad()
def frozen_maps(net: ClassifierNet, after: Mapping[str, str], inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """What the stages `after` give for clips [N, …], as half precision; `audio_mask` as it is."""
    net.eval()
    found = {}
    for modality, last in after.items():
        x = inputs[modality] if modality == "video" else net.backbone.spectrogram(inputs[modality])
        found[modality] = net.tower(modality).feature_stages(x)[last].half().cpu().numpy()
    if "audio_mask" in inputs:
        found["audio_mask"] = inputs["audio_mask"].cpu().numpy()
    return found
