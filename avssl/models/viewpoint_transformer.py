"""Transformers over the viewpoints of one sample: what the other modality of a view is like, given all its views.

Source: Morgado et al., AVSA (arXiv 2011.01819). No positional encoding: knowing where a view looks, the model could
solve its task without looking. Parameter names are those of the published criterion.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from avssl.errors import ConfigError
from avssl.models.config import AlignmentConfig


class ViewpointTransformer(nn.Module):
    """Features of all views [B, K, width] -> predictions [B, K, width]. The order of the views carries no meaning."""

    def __init__(self, width: int, config: AlignmentConfig):
        super().__init__()
        self.transformer = nn.ModuleList(ViewpointLayer(width, config) for _ in range(config.depth or 0))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.transformer:
            x = layer(x)
        return x


class ViewpointLayer(nn.Module):
    """y = LN(x + Drop(Attention(x))), z = LN(y + Drop(W2 ReLU(W1 y))), with `final_relu` ReLU(z).

    With `context: mlp` a second feed-forward network stands in the attention's place: each view is for itself.
    """

    def __init__(self, width: int, config: AlignmentConfig):
        super().__init__()
        hidden = config.expansion * width
        self.attention = (
            ViewAttention(width, config.heads, config.dropout)
            if config.context == "attention"
            else _feed_forward(width, hidden)
        )
        self.attention_norm = nn.LayerNorm(width)
        self.dense = _feed_forward(width, hidden)
        self.dense_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.final_relu = config.final_relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention_norm(x + self.dropout(self.attention(x)))
        z = self.dense_norm(y + self.dropout(self.dense(y)))
        return z.relu() if self.final_relu else z


class ViewAttention(nn.Module):
    """Scaled dot-product attention between views [B, K, width] -> [B, K, width].

    Attention itself is dropped out where there are several heads; the published single head has none of that.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        if width % heads:
            raise ConfigError(f"model.alignment.heads is {heads}, but features of {width} do not divide by it")
        self.heads, self.attention_dropout = heads, dropout if heads > 1 else 0.0
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        parts = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        query, key, value = parts  # [B, heads, K, width / heads]
        weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
        weights = F.dropout(weights, self.attention_dropout, self.training)
        return self.dense((weights @ value).transpose(1, 2).flatten(2))


def _feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
