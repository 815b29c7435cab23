"""360° clips as features of viewpoints: what the tasks of AVSA are trained and tested on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from avssl.data.collate import Batch
from avssl.data.config import AudioSpec, DataConfig, VideoSpec
from avssl.data.loader import Loader
from avssl.data.transforms import prepare, to_device
from avssl.data.viewing import hear_views
from avssl.errors import ConfigError, ModelError
from avssl.models.config import ModelConfig
from avssl.models.two_tower import TwoTower
from avssl.spatial.config import Switches, TurnConfig, ViewConfig
from avssl.spatial.hear import BY_CHANNELS


class Scenes(NamedTuple):
    """Features of the K views of N draws (a moment of a clip and viewpoints), float32, before any head."""

    row: Tensor  # [N] int64, of the manifest
    group: Tensor  # [N] int64: the number of the source file
    video: Tensor  # [N, K, D]
    audio: Tensor  # [N, K, D]
    turned: Tensor  # [N, K, D], the same sound with its scene turned
    turn_deg: Tensor  # [N], by so much about the vertical, -180 to 180; positive is to the left
    view_deg: Tensor  # [N, K, 5], see avssl.spatial.views

    @property
    def draws(self) -> int:
        """N."""
        return len(self.row)

    def take(self, chosen: Tensor | slice) -> Scenes:
        """These draws of them."""
        return Scenes(*(part[chosen] for part in self))

    def to(self, device: torch.device | str) -> Scenes:
        return Scenes(*(part.to(device) for part in self))


def switches_of(config: ModelConfig) -> Switches:
    """How views for this model are made: as in its training, or as the paper says where the model does not know."""
    return config.alignment.switches if config.alignment else Switches()


def scene_data(
    config: ModelConfig,
    shards: list[str],
    views: ViewConfig,
    *,
    draws: int = 1,
    seed: int = 0,
    sample_by: str = "row",
    batch_size: int = 16,
    workers: int = 0,
) -> DataConfig:
    """Settings that draw random moments and viewpoints as this model takes them, every sound scene turned once.

    Frames, sound and switches are the model's. Raises ModelError for a model that lacks a tower or takes other numbers
    of channels than a view is heard in, ConfigError for `views.switches` that contradict the model's.
    """
    video, audio = config.video_input, config.audio_input
    if config.video is None or config.audio is None or video is None or audio is None:
        raise ModelError("this protocol compares picture and sound; use a model with a video and an audio tower")
    if audio.channels not in BY_CHANNELS:
        raise ModelError(
            f"this model takes {audio.channels} sound channels; a view is heard in 4 (ambisonics), 2 (stereo), 1 (mono)"
        )
    switches = switches_of(config)
    if views.switches not in (Switches(), switches):
        raise ConfigError(f"scenes.views.switches differ from the model's ({switches}); leave them out")
    return DataConfig(
        shards=shards,
        video=VideoSpec(frames=video.frames, fps=video.fps),
        audio=AudioSpec(rate_hz=audio.rate_hz, duration_s=audio.duration_s, channels=audio.channels),
        views=dataclasses.replace(views, switches=switches, flip=0.0),
        hearing=BY_CHANNELS[audio.channels],
        turn=TurnConfig(share=1.0, about="yaw"),
        offset_s=0.0,
        augment=None,
        batch_size=batch_size,
        draws_per_row=draws,
        sample_by=sample_by,
        seed=seed,
        workers=workers,
        max_skipped=1.0,  # how many may be missing is the evaluation's question, not the loader's
    )


def encode(model: TwoTower, batch: Batch, data: DataConfig, groups: Tensor, device: torch.device | str) -> Scenes:
    """Features of a batch of `scene_data`, with gradients where they are enabled. groups: of each manifest row."""
    assert data.views is not None
    spec = model.config.video_input
    assert spec is not None  # `scene_data` refuses models without
    batch = to_device(batch, device)
    aligned = prepare({name: value for name, value in batch.items() if name != "turn"}, spec, data.views, data.hearing)
    turned = hear_views(batch, data.views, data.hearing)
    size = aligned["video"].shape[:2]
    video = model.video_features(aligned["video"].flatten(0, 1)).unflatten(0, size)
    heard = torch.cat([aligned["audio"], turned]).flatten(0, 1)
    audio, other = model.audio_features(heard).unflatten(0, (2, *size)).unbind()
    turn = batch["turn"]
    return Scenes(
        row=batch["row"],
        group=groups.to(batch["row"].device)[batch["row"]],
        video=video.float(),
        audio=audio.float(),
        turned=other.float(),
        turn_deg=torch.atan2(turn[:, 1, 0], turn[:, 0, 0]).rad2deg(),
        view_deg=batch["view_deg"],
    )


class SceneReader:
    """Draws of `scene_data`, encoded by a model as they come.

    After use, `skipped` names what could not be read (`item`, `cause`).
    """

    def __init__(self, data: DataConfig, *, endless: bool = False):
        self.data, self.loader = data, Loader(data, endless=endless)
        shards = self.loader.shards
        numbers: dict[str, int] = {}
        names = [shards.record(row)["source"] for row in range(len(shards))]
        self.groups = torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])

    @property
    def draws(self) -> int:
        """How many draws one pass has."""
        return len(self.loader.groups) * self.data.draws_per_row

    @property
    def skipped(self) -> list[dict[str, str]]:
        found = {f"{sample.key} in {sample.shard}": sample.detail for sample in self.loader.skipped_samples}
        return [{"item": item, "cause": cause} for item, cause in found.items()]

    def read(self, model: TwoTower, device: torch.device | str) -> Iterator[Scenes]:
        """Batches of features. The model's mode and gradients are the caller's."""
        try:
            for batch in self.loader:
                yield encode(model, batch, self.data, self.groups, device)
        finally:
            self.loader.close()


def read_scenes(
    model: TwoTower,
    data: DataConfig,
    device: torch.device | str = "cpu",
    advance: Callable[[int], object] = lambda draws: None,
) -> tuple[Scenes, list[dict[str, str]]]:
    """One pass of draws as a table on the CPU, of the model as it is (in evaluation mode, without gradients), and what
    could not be read."""
    reader = SceneReader(data)
    mode = model.training
    parts = []
    model.eval()
    with torch.no_grad():
        for part in reader.read(model, device):
            parts.append(part.to("cpu"))
            advance(part.draws)
    model.train(mode)
    if not parts:
        raise ConfigError(f"{', '.join(data.shards)}: none of its clips could be read")
    return Scenes(*(torch.cat(columns) for columns in zip(*parts, strict=True))), reader.skipped


def with_transformer(model: TwoTower, scenes: Scenes) -> Scenes:
    """The picture's features replaced by the sound predicted from all views, which is then paired with the sound's own
    features (methods C.10). Raises ModelError for a model that predicts nothing."""
    if model.aligner is None:
        raise ModelError("this model has no aligner (model.alignment is null); use one trained with AVSA")
    device = next(model.aligner.parameters()).device
    return scenes._replace(video=model.aligner.predict("audio", scenes.video.to(device)).to(scenes.video.device))


def first_views(scenes: Scenes, views: int) -> Scenes:
    """The same draws with `views` of their views only: viewpoints are drawn independently, so any of them will do."""
    if not 1 <= views <= scenes.video.shape[1]:
        raise ConfigError(f"{views} views were asked of scenes that have {scenes.video.shape[1]}; read them with more")
    names = ("video", "audio", "turned", "view_deg")
    return scenes._replace(**{name: getattr(scenes, name)[:, :views] for name in names})
