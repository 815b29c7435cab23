"""Training a separator: every segment of a batch is mixed with its neighbours and asked for by its own query.

Source: Kong et al., USS (arXiv 2305.07447). What learns is the separator and, where it has parameters, the query net;
the tagger (or two-tower model) that describes the wanted sound does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.errors import ConfigError
from avssl.models.av_model import centre_window, resample
from avssl.models.folder import load_network
from avssl.models.query_net import one_hot
from avssl.models.resunet30 import ResUNet30
from avssl.models.separator_model import SeparatorModel
from avssl.models.stft import power
from avssl.models.weights import Difference
from avssl.separation.mixing import bend, mix_neighbours
from avssl.tasks.base import Batch, Ranks, TaskOutput
from avssl.tasks.separation_config import SeparationConfig

MAGNITUDE_FLOOR = 1e-8  # of the power under the square root of the spectrogram loss
ERROR_FLOOR = 1e-3  # of the error's share of the target's energy in the dB loss: 30 dB are enough


class SeparationTask(nn.Module):
    """Reads `audio` [B, 1, 1, S] and `drawn_class` [B] of a batch: segments that hold that class.

    Metrics beside the loss: `sdr_db`, of the estimate, mean over the batch (that of a mixture of two is 0).
    Arguments as in `avssl.tasks.base.Task`. Raises ConfigError where `config.encoder` is not the model's encoder.
    """

    seen: Tensor

    def __init__(
        self,
        config: SeparationConfig,
        model: SeparatorModel,
        *,
        rows: int = 0,
        usable: Tensor | None = None,
        seed: int = 0,
        steps_per_pass: float = 1.0,
        ranks: Ranks | None = None,
    ):
        super().__init__()
        self.config, self.model, self.steps_per_pass = config, model, steps_per_pass
        if config.start_in_phase:
            start_in_phase(model.separator)
        if config.encoder is not None:
            take_encoder(model, config.encoder)
        for encoder in (model.tagger, model.two_tower):
            if encoder is not None:
                encoder.requires_grad_(False)
        # How many segments of each class the model's mean features are of.
        self.register_buffer("seen", torch.zeros(model.config.count if model.config.class_features else 0))

    def enter(self, config: SeparationConfig) -> None:
        self.config = config

    def train(self, mode: bool = True) -> SeparationTask:
        """The encoders stay in evaluation mode: no noise, and no statistics of the batch."""
        super().train(mode)
        for encoder in (self.model.tagger, self.model.two_tower):
            if encoder is not None:
                encoder.eval()
        return self

    def before_step(self, step_in_phase: int, ranks: Ranks) -> None:
        """Nothing to prepare."""

    def after_step(self, memories: list[dict[str, Tensor]], ranks: Ranks) -> None:
        """The mean features of each class take in those of the step's segments."""
        table = self.model.class_features
        if table is None:
            return
        sums, counts = torch.zeros_like(table), torch.zeros_like(self.seen)
        for memory in memories:
            sums.index_add_(0, memory["drawn_class"], memory["features"].to(sums))
            counts.index_add_(0, memory["drawn_class"], torch.ones_like(memory["drawn_class"], dtype=counts.dtype))
        sums, counts = ranks.sum(sums), ranks.sum(counts)
        self.seen += counts
        table += (sums - counts[:, None] * table) / self.seen.clamp(min=1)[:, None]

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        segments, config = batch["audio"][:, 0, 0], self.config
        if config.bend_db:
            segments = bend(segments, self.model.config.separator.rate_hz, config.bend_db)
        features = self.features(segments, batch["drawn_class"])
        mixed = mix_neighbours(segments, config.sources, loudness_db=config.loudness_db, peak=config.peak)
        estimate = self.model(mixed.mixture, features)
        loss = self._losses(estimate, mixed.target).sum()
        quality = -_error_db(estimate.detach(), mixed.target).sum()
        total = max(1, sum(ranks.counts(len(segments))))
        sums = ranks.sum(torch.stack([loss.detach(), quality])) / total
        return {
            "loss": loss / total * ranks.size,
            "metrics": {"loss": sums[0], "sdr_db": sums[1]},
            "memory": {"features": features, "drawn_class": batch["drawn_class"]},
        }

    @torch.no_grad()
    def features(self, segments: Tensor, drawn_class: Tensor) -> Tensor:
        """What the query of each segment [B, S] is made from: [B, features]."""
        model = self.model
        if model.config.query.kind == "one_hot":
            return one_hot(drawn_class, model.config.query.features)
        if model.config.source == "tagger":
            assert model.tagger is not None
            return model.query.features(model.tagger(segments)).detach()
        assert model.two_tower is not None
        hears = model.two_tower.config.audio_input
        assert hears is not None
        sound = resample(segments, model.config.separator.rate_hz, hears.rate_hz)[:, None]
        return F.normalize(model.two_tower(audio=centre_window(sound, hears.samples))["audio"].float(), dim=-1)

    def _losses(self, estimate: Tensor, target: Tensor) -> Tensor:
        """The loss of each item [B]."""
        if self.config.loss == "sdr":
            return _error_db(estimate, target)
        losses = (estimate - target).abs().mean(-1)
        if self.config.loss == "l1_wav_l1_sp":
            stft = self.model.separator.stft
            ours, theirs = (power(stft(x)).clamp(min=MAGNITUDE_FLOOR).sqrt() for x in (estimate, target))
            losses = losses + (ours - theirs).abs().mean((1, 2))
        return losses


@torch.no_grad()
def start_in_phase(separator: ResUNet30) -> None:
    """Let the network put out half the mixture, whatever it is asked: mask 0.5, phase unchanged."""
    weight, bias = separator.after_conv.weight, separator.after_conv.bias
    assert bias is not None
    weight.zero_()
    bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # z0, z1, z2 of `apply_maps`


def take_encoder(model: SeparatorModel, folder: str) -> None:
    """Put the weights of a model folder into the model's tagger or two-tower model, whichever its queries need."""
    source = model.config.source
    network, _ = load_network(folder, source)
    own = getattr(model, source)
    difference = Difference.between(network.state_dict(), own.state_dict())
    if difference or network.config != own.config:
        reason = str(difference) or "its settings differ from the model's"
        raise ConfigError(f"task.encoder {folder}: is not what model.{source} describes ({reason}); set them equal")
    own.load_state_dict(network.state_dict())


def _error_db(estimate: Tensor, target: Tensor) -> Tensor:
    """10 log10 of the error's energy over the target's, [B, S] -> [B]; at least -30."""
    error, signal = ((x.float().square().mean(-1)) for x in (estimate - target, target))
    return 10 * (error / signal.clamp(min=1e-10) + ERROR_FLOOR).log10()
