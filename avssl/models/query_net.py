"""From what is known of the wanted sound to the one condition vector that the separator takes.

Source: the condition types of USS (arXiv 2305.07447). The paper's adaptive net was never trained in its release; here
it is part of what learns. "shortcut" is this project's form of combining frozen and adapted features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from avssl.errors import UsageError
from avssl.models.cnn14 import Tags
from avssl.models.separation_config import QueryConfig


class QueryNet(nn.Module):
    """Features of the wanted sound [..., features] -> condition [..., condition_dim].

    The tagger is not part of it: its output is computed once and shared, cached, or replaced by any other vector of
    the right length (a text embedding, the embedding of a video). Only "adaptive" and "shortcut" have parameters.
    """

    def __init__(self, config: QueryConfig):
        super().__init__()
        self.config = config
        self.adapter: nn.Module = nn.Identity()
        if config.kind == "adaptive":
            self.adapter = nn.Sequential(
                nn.Linear(config.features, config.hidden),
                nn.LeakyReLU(0.01),
                nn.Dropout(0.5),
                nn.Linear(config.hidden, config.condition_dim),
                nn.LeakyReLU(0.01),
                nn.Dropout(0.5),
            )
        elif config.kind == "shortcut":
            self.adapter = nn.Sequential(
                nn.Linear(config.features, config.hidden),
                nn.LeakyReLU(0.01),
                nn.Dropout(0.5),
                nn.Linear(config.hidden, config.features),
            )
            for parameter in self.adapter[-1].parameters():  # starts as the plain embedding
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Raises UsageError for features of another length."""
        if features.shape[-1] != self.config.features:
            raise UsageError(
                f"query: {features.shape[-1]} features were given, this {self.config.kind!r} query takes "
                f"{self.config.features}; use the tagger it was trained with"
            )
        adapted = self.adapter(features)
        return features + adapted if self.config.kind == "shortcut" else adapted

    def features(self, tags: Tags) -> Tensor:
        """What of a tagger's output this query is made from. A query by class has no sound: use `one_hot`."""
        if self.config.kind == "one_hot":
            raise UsageError("query: a 'one_hot' query is made from a class, not a sound; use one_hot(classes, count)")
        return tags.embedding if self.config.reads_embedding else tags.probabilities


def one_hot(classes: Sequence[int] | Tensor, count: int) -> Tensor:
    """Class numbers [B] -> [B, count]. Raises UsageError for a number outside 0..count - 1."""
    numbers = torch.as_tensor(classes)
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if len(outside):
        raise UsageError(f"query: there is no class {int(outside[0])} among {count}; give 0 to {count - 1}")
    return torch.nn.functional.one_hot(numbers.long(), count).float()


def keep_classes(probabilities: Tensor, classes: Iterable[int]) -> Tensor:
    """Probabilities [..., K] with all but `classes` set to 0: the query for a class, or for a subtree of classes."""
    kept = torch.zeros_like(probabilities)
    members = sorted(classes)
    kept[..., members] = probabilities[..., members]
    return kept


def mean_query(examples: Sequence[Tensor]) -> Tensor:
    """Conditions of the chunks of each example sound, [chunks_i, C] each -> [C].

    The mean over a sound's chunks first, then over sounds: a long example weighs no more than a short one.
    Raises UsageError where there is none.
    """
    if not examples or not all(len(chunks) for chunks in examples):
        raise UsageError("query: an example without any sound; give at least one sound that is not silent")
    return torch.stack([chunks.mean(dim=0) for chunks in examples]).mean(dim=0)
