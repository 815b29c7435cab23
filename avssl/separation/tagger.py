"""A trained tagger as users meet it: sound of any rate and channel count in, probabilities of named classes out."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor

from avssl.errors import UsageError
from avssl.models.cnn14 import Cnn14, Tags
from avssl.models.sound_config import TaggerModelConfig
from avssl.separation.ontology import Node, Ontology, ontology_of
from avssl.separation.rates import Converter


class SoundTagger(abc.ABC):
    """Whoever gives probabilities of the classes of an `ontology` to sounds."""

    ontology: Ontology

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the probabilities."""
        return [node.name for node in self.ontology.classes]

    @abc.abstractmethod
    def probabilities(self, waveform: Any, rate_hz: int) -> Tensor:
        """Waveforms [S] or [..., C, S] -> [..., classes] within 0 to 1."""

    def top(self, waveform: Any, rate_hz: int, count: int = 5) -> list[tuple[Node, float]]:
        """The likeliest classes of one waveform [S] or [C, S] with their probabilities, likeliest first."""
        values, numbers = self.probabilities(waveform, rate_hz).topk(min(count, len(self.ontology.classes)))
        return [(self.ontology.classes[n], v) for n, v in zip(numbers.tolist(), values.tolist(), strict=True)]


class Tagger(SoundTagger):
    """Says what is heard, with a Cnn14 in evaluation mode.

    model: the network (put into evaluation mode). description: the config.json it came with. ontology: its classes, by
    default those of the description. dtype: float32; there is no other.
    """

    def __init__(
        self,
        model: Cnn14,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str = torch.float32,
        description: dict[str, Any] | None = None,
        ontology: Ontology | None = None,
    ):
        require_float32(dtype)
        self.model = model.eval().to(device)
        self.config = model.config
        self.description = description or {}
        self.device = torch.device(device)
        if ontology is None:
            ontology = ontology_of(TaggerModelConfig.from_dict(self.description["model"]).classes)
        self.ontology = ontology

    @property
    def rate_hz(self) -> int:
        return self.config.rate_hz

    @torch.inference_mode()
    def tags(self, waveform: Any, rate_hz: int) -> Tags:
        """Waveforms [S] or [..., C, S] in [-1, 1] (channels are averaged) -> `Tags`, each as a whole: [...] first."""
        mono = to_mono(waveform).to(self.device)
        leading = mono.shape[:-1]
        x = Converter(rate_hz, self.rate_hz).whole(mono.reshape(-1, mono.shape[-1]))
        shortest = (self.config.step_frames - 1) * self.config.hop
        x = torch.nn.functional.pad(x, (0, max(0, max(shortest, self.config.fft // 2 + 1) - x.shape[-1])))
        logits, embedding, frames = self.model(x)
        return Tags(
            logits.view(*leading, -1),
            embedding.view(*leading, -1),
            None if frames is None else frames.view(*leading, *frames.shape[1:]),
        )

    def probabilities(self, waveform: Any, rate_hz: int) -> Tensor:
        """Waveforms [S] or [..., C, S] -> [..., classes] within 0 to 1."""
        return self.tags(waveform, rate_hz).probabilities


def to_mono(waveform: Any) -> Tensor:
    """[S] or [..., C, S] -> [...] + [S] float32, the mean of the channels. Raises UsageError for anything else."""
    x = torch.as_tensor(waveform)
    if x.ndim < 1 or not x.is_floating_point() or 0 in x.shape:
        raise UsageError(
            f"expected a floating-point waveform [S] or [..., C, S] in [-1, 1], got {x.dtype} {list(x.shape)}"
        )
    return (x if x.ndim == 1 else x.mean(dim=-2)).float()


def require_float32(dtype: torch.dtype | str) -> None:
    """Raise UsageError for another type."""
    if str(dtype).removeprefix("torch.") != "float32":
        raise UsageError(f"dtype {dtype}: taggers and separators compute in float32; leave it away")
