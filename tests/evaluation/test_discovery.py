"""Label-free classes: SCAN's objective at its known values, clusters of blobs, and scores by counting."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from avssl.errors import ConfigError
from avssl.evaluation.clusters import chance_scores, cluster_scores, matching
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.evaluation.discovery import run
from avssl.evaluation.discovery_config import DiscoveryConfig
from avssl.evaluation.protocol import EvalConfig
from avssl.evaluation.results import write_results
from avssl.objectives.scan import scan_loss


def test_the_objective_at_its_known_values():
    certain, weight = 50.0, 5.0
    logits = certain * torch.eye(4).repeat(3, 1)
    assert float(scan_loss(logits, logits, weight)) == pytest.approx(-weight * math.log(4), abs=1e-5)
    same = torch.zeros(12, 4)
    assert float(scan_loss(same, same, weight)) == pytest.approx((1 - weight) * math.log(4), abs=1e-5)
    collapsed = certain * torch.eye(4)[[0] * 12]
    assert float(scan_loss(collapsed, collapsed, weight)) == pytest.approx(0, abs=1e-5)


def test_the_objective_is_the_slow_formula_and_heads_are_apart():
    generator = torch.Generator().manual_seed(0)
    logits, near = torch.randn(2, 3, 6, 4, generator=generator, dtype=torch.float64)
    expected = []
    for head in range(3):
        p, q = logits[head].softmax(-1), near[head].softmax(-1)
        agreement = sum(math.log(float(p[i] @ q[i])) for i in range(6)) / 6
        used = p.mean(0)
        expected.append(-agreement + 2.0 * float((used * used.log()).sum()))
    np.testing.assert_allclose(scan_loss(logits, near, 2.0).numpy(), expected, rtol=1e-5)


def test_the_matching_is_the_best_of_all():
    random = np.random.default_rng(0)
    for _ in range(20):
        clusters, labels = random.integers(0, 4, 30), random.integers(0, 4, 30)
        clusters[:4] = labels[4:8] = range(4)
        best = max(
            float(np.mean([order[cluster] == label for cluster, label in zip(clusters, labels, strict=True)]))
            for order in itertools.permutations(range(4))
        )
        scores = cluster_scores(clusters, labels)
        assert scores["accuracy"] == pytest.approx(best)
        renamed = random.permutation(4)[clusters]
        assert cluster_scores(renamed, labels) == pytest.approx(scores)
    assert cluster_scores(labels, labels) == {"accuracy": 1.0, "nmi": 1.0, "ari": 1.0}


def test_more_clusters_than_classes_stand_for_none():
    clusters, labels = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1])
    assert matching(clusters, labels) == {0: 0, 1: 1}
    assert cluster_scores(clusters, labels)["accuracy"] == pytest.approx(4 / 5)


def test_chance_is_what_meaningless_clusters_get():
    labels = np.repeat([0, 1], 5)
    chance = chance_scores(labels, labels, seed=0)
    assert 0.5 < chance["accuracy"] < 0.75 and abs(chance["ari"]) < 0.1


def table_of(folder, sides, labels):
    """One window a file, CLASS/NUMBER.mp4, with these rows of picture and sound."""
    paths = [f"c{label}/{number:03d}.mp4" for number, label in enumerate(labels)]
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    present = np.ones(len(labels), bool)
    video, audio = (side.astype(np.float32) for side in sides)
    columns = {"video": video, "audio": audio, "has_video": present, "has_audio": present}
    np.savez(folder / "table.npz", path=np.array(paths), **columns)
    return folder / "table.npz"


def blobs(labels, *, seed=0, dim=16, noise=0.3):
    random = np.random.default_rng(seed)
    return random.standard_normal((labels.max() + 1, dim))[labels] + noise * random.standard_normal((len(labels), dim))


def evaluate(folder, table, **settings):
    data = DatasetConfig(str(folder), folds=2)
    protocol = DiscoveryConfig(data, embeddings=str(table), **settings)
    config = EvalConfig(protocol, "t", str(folder / "out"))
    return config, run(config, folder / "out", lambda n: None)


def test_blobs_are_found_without_labels(tmp_path):
    labels = np.repeat(np.arange(5), 24)
    table = table_of(tmp_path, (blobs(labels), blobs(labels, seed=1)), labels)
    config, outcome = evaluate(tmp_path, table, neighbours=5)
    assert outcome.metrics["scan_accuracy"] > 0.95 and outcome.metrics["scan_nmi"] > 0.9
    assert outcome.metrics["neighbour_purity"] > 0.95 and 0.2 < outcome.chance["scan_accuracy"] < 0.35
    apart = evaluate(tmp_path, table, neighbours=5, together=False)[1]
    assert apart.metrics["scan_accuracy"] > 0.95 and [row["fold"] for row in apart.tables["folds"]] == ["1", "2"]
    assert evaluate(tmp_path, table, neighbours=5)[1].metrics == outcome.metrics
    rows = outcome.tables["clusters"]
    assert len(rows) == 120 and np.mean([row["class"] == row["stands_for"] for row in rows]) > 0.95
    written = json.loads(write_results(tmp_path / "out", config, outcome, wall_s=1.0).read_text())
    assert written["metrics"]["kmeans_accuracy"] > 0.9 and written["counts"] == {"items": 120, "skipped": 0}


def test_neighbours_by_consensus_are_purer_where_each_modality_confuses_other_classes(tmp_path):
    """The picture tells classes {0, 1} from {2, 3}, the sound {0, 2} from {1, 3}: only together they tell all."""
    labels = np.repeat(np.arange(4), 30)
    sides = blobs(labels // 2, noise=0.25), blobs(labels % 2, seed=1, noise=0.25)
    table = table_of(tmp_path, sides, labels)
    alone = evaluate(tmp_path, table, neighbours=5)[1].metrics
    both = evaluate(tmp_path, table, neighbours=5, feature="both", agreement="consensus")[1].metrics
    assert alone["neighbour_purity"] < 0.65 and both["neighbour_purity"] > 0.95
    assert alone["scan_accuracy"] < 0.75 and both["scan_accuracy"] > 0.9


def test_what_cannot_be_clustered_is_said(tmp_path):
    labels = np.repeat(np.arange(2), 4)
    table = table_of(tmp_path, (blobs(labels), blobs(labels)), labels)
    with pytest.raises(ConfigError, match="neighbours is 10, but fold all has 8 items"):
        evaluate(tmp_path, table)
    with pytest.raises(ConfigError, match=r"agreement 'union' needs protocol\.feature both"):
        evaluate(tmp_path, table, agreement="union")
    (tmp_path / "c1" / "late.mp4").touch()
    outcome = evaluate(tmp_path, table, neighbours=2, passes=2)[1]
    assert outcome.skipped == [{"item": str(tmp_path / "c1/late.mp4"), "cause": "has no video in the table"}]
