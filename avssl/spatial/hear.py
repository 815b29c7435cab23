"""What a viewpoint hears: the sound scene turned so that the view's centre is the front, as ambisonics or less."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avssl.errors import UsageError
from avssl.spatial.ambisonics import mirror_signs, order_of, project, rotation_matrix
from avssl.spatial.config import Variant
from avssl.spatial.directions import rotation as pose

Hearing = Literal["ambisonics", "stereo", "mono"]
BY_CHANNELS: dict[int, Hearing] = {4: "ambisonics", 2: "stereo", 1: "mono"}
"""What a model that takes so many channels hears."""


def hear(
    sound: Tensor,
    views: Tensor,
    *,
    flips: Tensor | None = None,
    rotation: Variant = "corrected",
    hearing: Hearing = "ambisonics",
) -> Tensor:
    """Scenes [B, C, S] (ambiX) as heard from views [B, K, 5] (degrees, see `avssl.spatial.views`): [B, K, C', S].

    flips [B, K] bool mirrors left and right; leave it out to do as `Switches.flip: released`. `hearing`: `ambisonics`
    keeps all channels; `stereo` is left and right of the view, `mono` its front, each by `project` (the paper's
    ablations, methods C.4).
    """
    if sound.ndim != 3 or views.ndim != 3 or views.shape[-1] != 5 or len(views) != len(sound):
        raise UsageError(
            f"hear: expected sound [B, C, S] with views [B, K, 5], got {list(sound.shape)} with {list(views.shape)}"
        )
    order = order_of(sound.shape[-2])
    matrix = rotation_matrix(to_view(views, rotation).to(sound), order)
    if flips is not None:
        signs = torch.where(flips[..., None], mirror_signs(order).to(flips.device), 1.0)
        matrix = signs.to(sound)[..., None] * matrix
    turned = matrix @ sound[:, None]
    if hearing == "ambisonics":
        return turned
    ears = [[1.0, 0.0, 0.0]] if hearing == "mono" else [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]]
    return project(turned, torch.tensor(ears, device=sound.device))


def to_view(views: Tensor, rotation: Variant = "corrected") -> Tensor:
    """Rotations [..., 3, 3] from scene to view coordinates of viewpoints [..., 5] (methods C.4).

    corrected: Rx(-roll) Ry(elevation) Rz(-azimuth), which puts the view's centre in front. released: Rz and Ry in
    the other order, right only for level views and those to the front.
    """
    azimuth_deg, elevation_deg, roll_deg = views[..., :3].unbind(-1)
    if rotation == "corrected":
        return pose(azimuth_deg, elevation_deg, roll_deg).mT
    return pose(0.0, 0.0, -roll_deg) @ pose(-azimuth_deg) @ pose(0.0, -elevation_deg)
