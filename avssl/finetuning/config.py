"""What `avssl-finetune` is told. No torch here, so that `--help` stays fast."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from avssl.errors import ConfigError
from avssl.finetuning.training_config import ClipTraining
from avssl.models.classifier_config import MomentConfig


@dataclass
class FinetuneConfig:
    """A classifier from labelled files."""

    data: str
    """A folder of class folders (DATA/CLASS/…/FILE), or a CSV with the columns path and label, and perhaps split
    (train, val, test) and group (files of one source)."""
    out: str
    """The model folder to write; the report lies beside the model in it."""
    model: str = "starter"
    """What to start from: a model folder, a bundled model's name or hf-hub:ORG/NAME."""
    root: str | None = None
    """What the paths of a CSV start from; null: the folder of the CSV."""
    features: str | None = None
    """The table of features (.npz) to make, or to take if it is of the same files, model and windows; null: the
    features.npz of OUT."""
    group: str | None = None
    """A regular expression whose first group, found in a path, names its source, such as `/(.*?)_part`; files of one
    source are never split. Null: the column group, or names as v_NAME_g01_c01 of UCF101, else each file by itself."""
    modality: Literal["auto", "video", "audio", "both"] = "auto"
    """What to look at and listen to; `auto`: what the model has and at least half of the files have."""
    train: Literal["heads", "partial", "full"] = "heads"
    """`heads`: the model stays as it is; takes seconds once features are made. `partial`: the last stage of the towers,
    too. `full`: all."""
    head: Literal["linear", "cosine", "moment"] = "linear"
    """`linear`: logistic regression. `cosine`: the nearest class mean. `moment`: moment probing of the last map."""
    moment: MomentConfig = field(default_factory=MomentConfig)
    adapter_rank: int = 0
    """With `train heads`: also train adapters of this rank behind each stage, beside which the model stays as it is;
    0: none."""
    strength: float = 10.0
    """Inverse strength of the regularisation of the linear head; small values are near the nearest class mean."""
    folds: int = 5
    """Parts that files without a given split are cut into, sources whole: each in turn is judged by what the others
    teach; where towers are trained, the first part alone."""
    window_s: float = 2.0
    """Length of the windows of a file whose probabilities are averaged."""
    hop_s: float = 1.0
    """From the start of one window to that of the next."""
    fit: ClipTraining = field(default_factory=ClipTraining)
    """How towers, adapters and moment heads are trained."""
    seed: int = 0
    """Of splits, clips, changes and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; `auto` takes a GPU if there is one."""
    overwrite: bool = False
    """Replace what OUT holds."""

    def __post_init__(self) -> None:
        if self.folds < 2 or self.strength <= 0 or self.adapter_rank < 0:
            raise ConfigError("folds must be 2 or more, strength positive, adapter_rank not negative")
        if self.window_s <= 0 or self.hop_s <= 0:
            raise ConfigError("window_s and hop_s must be positive")
        if self.adapter_rank and self.train != "heads":
            raise ConfigError(f"adapter_rank is {self.adapter_rank}, which goes with train heads, not {self.train}")
        if self.head == "cosine" and (self.train != "heads" or self.adapter_rank):
            raise ConfigError("head cosine is the mean of frozen features; take linear where towers or adapters train")
        if self.group is not None:
            try:
                groups = re.compile(self.group).groups
            except re.error as error:
                raise ConfigError(f"group: not a regular expression ({error})") from None
            if not groups:
                raise ConfigError(f"group is {self.group!r}, which has no group in parentheses")

    @property
    def solved(self) -> bool:
        """Whether heads on frozen features are solved at once, and nothing is trained step by step."""
        return self.train == "heads" and not self.adapter_rank and self.head != "moment"
