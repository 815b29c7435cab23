"""How well the sound of a 360° clip fits its picture, for the scene as it is and for the sound turned against it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avssl.data.config import DataConfig
from avssl.data.transforms import prepare_video
from avssl.errors import ModelError
from avssl.models.two_tower import TwoTower
from avssl.spatial.ambisonics import rotate
from avssl.spatial.hear import hear

_AT_ONCE = 128  # views heard together


def alignment_scores(model: TwoTower, video: Tensor, sounds: Tensor) -> Tensor:
    """Scores [R] from -1 to 1 of features of the picture [K, D] with R versions of the sound [R, K, D].

    The mean over views of the cosine between what is predicted and what is there, for predicted sound and predicted
    pictures alike: what AVSA trains. Of a model that predicts nothing (AVC) the cosine between a view's own picture and
    sound. Raises ModelError for a model without aligner.
    """
    aligner = model.aligner
    if aligner is None:
        raise ModelError("this model has no aligner (model.alignment is null); use one trained with AVSA or AVC")
    pictures = video.expand(len(sounds), *video.shape)
    seen, heard = aligner.project("video", pictures), aligner.project("audio", sounds)
    if aligner.config.depth is None:
        return F.cosine_similarity(seen, heard, dim=-1).mean(1)
    expected = {"audio": aligner.predict("audio", pictures), "video": aligner.predict("video", sounds)}
    scores = [
        F.cosine_similarity(aligner.project_prediction("audio", expected["audio"]), heard, dim=-1),
        F.cosine_similarity(aligner.project_prediction("video", expected["video"]), seen, dim=-1),
    ]
    return torch.stack(scores).mean((0, 2))


@torch.no_grad()
def scores_over_turns(
    model: TwoTower, data: DataConfig, frames: Tensor, sound: Tensor, view_deg: Tensor, turns: Tensor
) -> Tensor:
    """`alignment_scores` [R] of one clip for rotations [R, 3, 3] of its sound scene.

    data: of `scene_data`. frames: uint8 [T, H, W, 3], equirectangular. sound: ambiX [4, S] of the model's length.
    view_deg: [K, 5], the same views for all turns. All on the model's device; the model is in evaluation mode.
    """
    spec, config = model.config.video_input, data.views
    assert spec is not None and config is not None
    no_flip = torch.zeros(1, len(view_deg), dtype=torch.bool, device=frames.device)
    batch = {
        "video": frames[None, None],
        "video_size_px": torch.tensor([frames.shape[1:3]], device=frames.device),
        "view_deg": view_deg[None],
        "view_flip": no_flip,
    }
    video = model.video_features(prepare_video(batch, spec, config)[0])
    found = []
    for part in turns.split(max(1, _AT_ONCE // len(view_deg))):
        views = view_deg.expand(len(part), *view_deg.shape)
        heard = hear(
            rotate(sound.expand(len(part), *sound.shape), part),
            views,
            rotation=config.switches.rotation,
            hearing=data.hearing,
        )
        features = model.audio_features(heard.flatten(0, 1)).unflatten(0, heard.shape[:2])
        found.append(alignment_scores(model, video, features))
    return torch.cat(found)
