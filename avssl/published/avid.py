"""AVID and AVID-CMA: two towers with heads, and a criterion that is mostly memory banks.

Source: Morgado et al., arXiv 2004.12943; checkpoints published with it under CC BY-NC 4.0.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from avssl.errors import ModelError
from avssl.models.config import HeadConfig, ModelConfig, TowerConfig
from avssl.models.weights import Difference
from avssl.published.checkpoint import Checkpoint, State
from avssl.published.layout import Conversion
from avssl.published.two_tower import TwoTowerLayout

_PARTITION = "criterion.avg_exp_score"
_BANKS = {
    "nce_average.view1_mem": "video",
    "nce_average.view2_mem": "audio",
    "nce_average.positive_set": "positive_set",  # of AVID-CMA
    _PARTITION: "avg_exp_score",
}


class Avid(TwoTowerLayout):
    name = "avid"
    title = "AVID or AVID-CMA"
    licence = "CC BY-NC 4.0 (the published AVID-CMA checkpoints); no commercial use"
    variants: ClassVar[list[ModelConfig]] = [
        ModelConfig(
            video=TowerConfig(f"avid_r2plus1d_{depth}"),
            audio=TowerConfig("avid_audio_cnn9"),
            head=HeadConfig(hidden=[512, 512], dim=128),
        )
        for depth in (18, 10, 34)
    ]
    switches: ClassVar[dict[str, Any]] = {"stem_max_pool": True, "audio_block1_stride": 2}

    def take_criterion(self, checkpoint: Checkpoint, conversion: Conversion) -> None:
        criterion = checkpoint.criterion
        if difference := Difference.between(criterion, _expected_criterion(criterion), types=True):
            raise ModelError(
                f"{checkpoint.path}: train_criterion is none of AVID's: {difference}; "
                "add --ignore-criterion to convert the model without it"
            )
        mined = "nce_average.positive_set" in criterion
        conversion.facts["source"]["method"] = "AVID-CMA" if mined else "AVID"
        conversion.banks = {name: criterion[key].numpy() for key, name in _BANKS.items() if key in criterion}
        conversion.facts["source"]["bank_rows"] = len(criterion["nce_average.view1_mem"])


def _expected_criterion(found: State) -> State:
    """Two banks of equal size, the NCE loss's constant as a scalar or of shape [1], for CMA the sets of positives."""
    video = found.get("nce_average.view1_mem", torch.empty(0))
    rows = len(video) if video.ndim else 0
    expected = {
        "nce_average.view1_mem": torch.empty(rows, 128, device="meta"),
        "nce_average.view2_mem": torch.empty(rows, 128, device="meta"),
        _PARTITION: torch.empty((1,) if found.get(_PARTITION, torch.empty(())).ndim else (), device="meta"),
    }
    if (positive := found.get("nce_average.positive_set")) is not None:
        width = positive.shape[-1] if positive.ndim else 0
        expected["nce_average.positive_set"] = torch.empty(rows, width, dtype=torch.int32, device="meta")
    return expected


LAYOUT = Avid()
