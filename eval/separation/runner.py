"""The trainings of the study, one after the other. What is finished stays: the same call again goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save

from avssl import config as configuration
from avssl.config import merged
from avssl.data.anchors import AnchorTable
from avssl.errors import AvsslError
from avssl.files import read_jsonl, write_atomic
from avssl.models.folder import create_network, load_network
from avssl.separation.anchor_mining import mine
from avssl.separation.ontology import class_numbers
from avssl.shards import ShardSet
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.training.config import TrainConfig
from avssl.training.loop import Trainer
from eval.separation.measure import class_features
from eval.separation.rendered import render
from eval.separation.sounds import Sounds, write_weak_clips
from eval.separation.study import Study

_RIDGE = 1e-3  # of the queries' mean square

Say = Callable[[str], None]


class Trained(NamedTuple):
    """Folders of the models, and the seconds that each training took, waiting for other work included."""

    shards: list[Path]
    anchors: Path
    tagger: Path
    separators: dict[str, Path]
    training_s: dict[str, float]


def train_all(study: Study, sounds: Sounds, work: Path, say: Say) -> Trained:
    """Pack the weak clips, train the tagger, the first separator, and every condition from there."""
    shards = pack(study, sounds, work)
    training_s: dict[str, float] = {}
    classes = [{"id": name, "name": name, "index": number} for number, name in enumerate(sounds.classes)]
    common = {"data": {"shards": [str(folder) for folder in shards], "labels": "label"}, "model": {"classes": classes}}

    tree = merged(study.tagger, common)
    tree["model"]["tagger"]["classes"] = len(classes)
    tagger = work / "tagger"
    training_s["tagger"] = _train(tree, tagger, say)

    def settings(kind: str) -> dict[str, Any]:
        features, net = _width(kind, tagger), load_network(tagger / "model")[0].config
        width = {"condition_dim": features}
        query = merged(study.separator["model"].get("query", {}), {"kind": kind, "features": features})
        model = {"separator": width, "query": query, "tagger": configuration.plain(net), "source": "tagger"}
        model["class_features"] = kind in ("embedding", "adaptive", "shortcut")
        own = {
            "data": {"anchors": {"tagger": str(tagger / "model"), "clip_s": study.weak.clip_s}},
            "model": model,
            "task": {"encoder": str(tagger / "model")},
        }
        return merged(merged(study.separator, common), own)

    first = study.conditions[0]
    base = work / "first"
    training_s["first"] = _train(settings(first), base, say)
    separators = {}
    for kind in study.conditions:
        out, start = work / kind, work / f"{kind}.safetensors"
        tree = merged(settings(kind), study.further)
        if not start.exists():
            model = configuration.build(TrainConfig, merged(tree, _place(out))).model
            inherit(base / "model", model, sounds, study, start)
        training_s[kind] = _train(merged(tree, {"run": {"init": str(start)}}), out, say)
        separators[kind] = out / "model"
    config = configuration.build(TrainConfig, merged(settings(first), _place(base)))
    anchors = mine(config.data, class_numbers(config.model.classes))  # they are there since the first training
    return Trained(shards, anchors, tagger / "model", separators, training_s)


def pack(study: Study, sounds: Sounds, work: Path) -> list[Path]:
    """Shards of the weakly labelled training clips: a folder of the real ones and, if any, one of the rendered ones."""
    options = BuildOptions(clip_s=study.weak.clip_s, audio_rate_hz=study.rate_hz)
    folders = []
    for name in ("real", "rendered") if study.rendered else ("real",):
        clips = work / "clips" / name / "clips.jsonl"
        if not clips.exists():
            if name == "rendered":
                assert study.rendered
                found = render(study.rendered, sounds.classes, study.rate_hz, study.seed)
            else:
                found = sounds.train
            write_weak_clips(found, sounds.classes, study.weak, study.rate_hz, study.seed, clips.parent)
        folders.append(work / "shards" / name)
        build(list_sources(clips), folders[-1], options)
    return folders


@torch.no_grad()
def inherit(source: Path, config: Any, sounds: Sounds, study: Study, out: Path) -> None:
    """Weights to start a condition from: the first separator, with a conditioning that hears the new queries alike.

    The layers of the condition are linear: theirs are solved for (least squares, smallest weights), so that the mean
    query of each class's training sounds shifts the network as the class itself did. A new query net stays new.
    """
    torch.manual_seed(0)
    first, net = load_network(source)[0].eval(), create_network(config).eval()
    new = net.state_dict()
    kept = {key: tensor for key, tensor in first.state_dict().items() if key in new and new[key].shape == tensor.shape}
    net.load_state_dict({**new, **kept})
    queries = net.query(class_features(net, sounds, study)).double()
    wanted = first.separator.film.linear.weight.T.double()  # [classes, shifts]: what each class adds
    gram = queries @ queries.T
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    net.separator.film.linear.weight.copy_((queries.T @ torch.linalg.solve(gram, wanted)).T)
    content = save({key: tensor.contiguous() for key, tensor in net.state_dict().items()})
    write_atomic(out, lambda file: file.write(content))


def anchors_hit(study: Study, trained: Trained) -> dict[str, float]:
    """How much of a segment lies where its clip's sound is, on average: mined, and at random places."""
    table, opened = AnchorTable.read(trained.anchors), ShardSet.open(trained.shards)
    segment_s, clip_s = study.separator["data"]["audio"]["duration_s"], study.weak.clip_s
    hits: dict[str, list[float]] = {"mined": [], "random": []}
    label_of = {name: number for number, name in enumerate(opened.labels)}
    for row in range(len(opened)):
        record = opened.record(row)
        low, high = record["meta"]["sound_from_s"], record["meta"]["sound_to_s"]
        most = min(segment_s, high - low)

        def share(start_s: float, low: float = low, high: float = high, most: float = most) -> float:
            return max(0.0, min(high, start_s + segment_s) - max(low, start_s)) / most

        start_s = table.start_s(row, label_of[record["label"]])
        assert start_s is not None
        hits["mined"].append(share(start_s))
        steps = 200
        hits["random"].append(sum(share((clip_s - segment_s) * k / steps) for k in range(steps + 1)) / (steps + 1))
    return {name: sum(values) / len(values) for name, values in hits.items()}


def _width(kind: str, tagger: Path) -> int:
    net = load_network(tagger / "model")[0].config
    return net.classes if kind in ("one_hot", "soft") else net.embedding_dim


def _place(out: Path) -> dict[str, Any]:
    return {"run": {"dir": str(out)}}


def _train(tree: dict[str, Any], out: Path, say: Say) -> float:
    """A run of avssl-train; the seconds of its steps, also of those before it was resumed, by its own log."""
    config = configuration.build(TrainConfig, merged(tree, _place(out)))
    if Trainer(config, say=say).run() == "stopped":
        raise AvsslError(f"{out}: stopped by a signal; the same command goes on from there")
    records = read_jsonl(out / "metrics.jsonl")
    ends = [0, *(record["step"] for record in records)]
    return sum((end - begin) * r["step_ms"] / 1000 for begin, end, r in zip(ends, ends[1:], records, strict=False))
