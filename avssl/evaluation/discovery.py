"""The protocol `discovery`: classes found without labels, by SCAN's clustering step on frozen features.

A linear classifier is trained so that neighbours get the same class and all classes are used (avssl.objectives.scan).
SCAN's last step, self-labelling on augmented views, trains the encoder and is no part of this. k-means on the same
vectors stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from avssl.errors import ConfigError
from avssl.evaluation import features
from avssl.evaluation.clusters import chance_scores, cluster_scores, matching
from avssl.evaluation.datasets import Fold, LabelledItem, read_folds
from avssl.evaluation.discovery_config import DiscoveryConfig
from avssl.evaluation.features import Features
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.objectives.agreement import mine_positives
from avssl.objectives.scan import scan_loss


def run(config: EvalConfig, out: Path, advance: Callable[[int], None]) -> Outcome:
    """Cluster items by their features alone, and judge the clusters by the labels."""
    protocol: DiscoveryConfig = config.protocol
    folds = read_folds(protocol.data, config.seed)
    items = list({item.path: item for fold in folds for item in (*fold.train, *fold.test)}.values())
    several = next((item for item in items if len(item.labels) > 1), None)
    if several:
        raise ConfigError(f"protocol.data: {several.path} has several labels, and clusters are judged by one an item")
    if protocol.together:
        folds = [Fold("all", items, items)]
    table = Path(protocol.embeddings) if protocol.embeddings else features.embed(config, items, out, advance)
    parts = ("video", "audio") if protocol.feature == "both" else (protocol.feature,)
    found = features.read(table, protocol.feature, Path(protocol.data.root))
    width = features.read(table, parts[0], Path(protocol.data.root)).rows.shape[1]
    missing = [item for item in items if item.path.resolve() not in found.of]
    classes = sorted({item.labels[0] for item in items})
    if len(classes) < 2:
        raise ConfigError(f"protocol.data: {protocol.data.root} has {len(classes)} class; at least 2 are needed")

    rows, table_of_items = [], []
    for number, fold in enumerate(folds):
        train, test = (_present(side, found) for side in (fold.train, fold.test))
        if not train or not test:
            raise ConfigError(f"protocol.data: fold {fold.name} has no usable item to train on or to test")
        labels = np.array([classes.index(item.labels[0]) for item in test])
        x, z = (_sides(side, found, width) for side in (train, test))
        neighbours = _neighbours(x, protocol, fold.name)
        count = protocol.clusters or len(classes)
        head = fit_head(_joined(x), neighbours, count, protocol, seed=config.seed + number)
        probabilities = head(_joined(z))
        clusters = {"scan": probabilities.argmax(1), "kmeans": _k_means(_joined(x), _joined(z), count, config.seed)}
        known = np.array([classes.index(item.labels[0]) for item in train])
        row: dict[str, Any] = {
            "fold": fold.name,
            "neighbour_purity": float((known[neighbours] == known[:, None]).mean()),
        }
        for method, assigned in clusters.items():
            row |= {f"{method}_{key}": value for key, value in cluster_scores(assigned, labels).items()}
        row |= {f"chance_{key}": value for key, value in chance_scores(clusters["scan"], labels, config.seed).items()}
        rows.append(row)
        stands_for = matching(clusters["scan"], labels)
        for item, cluster, p in zip(test, clusters["scan"].tolist(), probabilities.max(1).tolist(), strict=True):
            name = classes[stands_for[cluster]] if cluster in stands_for else ""
            table_of_items.append(
                {"item": str(item.path), "fold": fold.name, "class": item.labels[0], "cluster": cluster}
                | {"stands_for": name, "probability": round(p, 4)}
            )
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "fold"}
    return Outcome(
        {key: value for key, value in means.items() if not key.startswith("chance_")},
        items=len(items) - len(missing),
        chance={
            f"{method}_{key}": means[f"chance_{key}"]
            for method in ("scan", "kmeans")
            for key in ("accuracy", "nmi", "ari")
        },
        skipped=[{"item": str(i.path), "cause": _why(i, protocol.feature)} for i in missing],
        tables={"folds": rows, "clusters": table_of_items},
        extra={"classes": len(classes), "table": str(table), "features": found.rows.shape[1]},
    )


class Head(NamedTuple):
    """A linear classifier on standardised features."""

    mean: np.ndarray  # [D]
    std: np.ndarray  # [D]
    weight: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]
    loss: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """[N, D] -> probabilities [N, C]."""
        logits = ((x - self.mean) / self.std) @ self.weight + self.bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)


def fit_head(x: np.ndarray, neighbours: np.ndarray, clusters: int, settings: DiscoveryConfig, seed: int) -> Head:
    """The best of `settings.heads` heads. x: [N, D]; neighbours: [N, k] rows of x."""
    random = torch.Generator().manual_seed(seed)
    mean, std = x.mean(0), np.maximum(x.std(0), 1e-6)
    standard = torch.from_numpy(((x - mean) / std).astype(np.float32))
    near = torch.from_numpy(neighbours)
    count, dim = standard.shape
    weight = (torch.randn(settings.heads, dim, clusters, generator=random) / dim**0.5).requires_grad_()
    bias = torch.zeros(settings.heads, 1, clusters, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=settings.lr)
    for _ in range(settings.passes):
        for rows in torch.randperm(count, generator=random).split(settings.batch_size):
            drawn = near[rows, torch.randint(near.shape[1], (len(rows),), generator=random)]
            loss = scan_loss(standard[rows] @ weight + bias, standard[drawn] @ weight + bias, settings.entropy_weight)
            optimiser.zero_grad()
            loss.sum().backward()  # heads know nothing of each other
            optimiser.step()
    with torch.no_grad():
        logits = standard @ weight + bias
        losses = torch.stack([scan_loss(logits, logits[:, column], settings.entropy_weight) for column in near.T]).mean(
            0
        )
        best = int(losses.argmin())
    w, b = weight[best].detach().double().numpy(), bias[best, 0].detach().double().numpy()
    return Head(mean, std, w, b, float(losses[best]))


def _present(items: list[LabelledItem], found: Features) -> list[LabelledItem]:
    return [item for item in items if item.path.resolve() in found.of]


def _sides(items: list[LabelledItem], found: Features, width: int) -> list[np.ndarray]:
    """For each part of the feature, [items, D]: the mean of an item's windows, of unit length."""
    means = np.stack([found.rows[found.of[item.path.resolve()]].mean(0, dtype=np.float64) for item in items])
    halves = [means[:, :width], means[:, width:]] if means.shape[1] > width else [means]
    return [half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-12) for half in halves]


def _joined(sides: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(sides, 1)


def _neighbours(sides: list[np.ndarray], protocol: DiscoveryConfig, fold: str) -> np.ndarray:
    """[N, k]: rows of the most similar items."""
    count = len(sides[0])
    if count <= protocol.neighbours:
        raise ConfigError(
            f"protocol.neighbours is {protocol.neighbours}, but fold {fold} has {count} items to train on; lower it"
        )
    if protocol.agreement == "mean":
        first = second = torch.from_numpy(_joined(sides))
    else:
        first, second = (torch.from_numpy(side) for side in sides)
    mode: Literal["union", "consensus"] = "union" if protocol.agreement == "union" else "consensus"
    return mine_positives(torch.arange(count), first, second, count=protocol.neighbours, mode=mode).numpy()


def _k_means(x: np.ndarray, z: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    if len(x) < clusters:
        raise ConfigError(f"protocol.clusters: {clusters} clusters of {len(x)} items cannot be; lower it")
    return KMeans(clusters, n_init=10, random_state=seed).fit(x).predict(z)


def _why(item: LabelledItem, feature: str) -> str:
    return f"has no {feature} in the table" if item.path.exists() else "does not exist"
