"""The protocol `separation_pairs`: mixtures of two labelled sounds, as USS uses AudioSet, FSDKaggle2018 and FSD50k.

Each test class is the target of `pairs` mixtures; the other sound is of another class, scaled to the target's energy.
Beside the separator's scores stand those of the oracle ratio mask, and the SI-SDR that the other sound's query gets
against the target: a query that is not heeded gives the same for both.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from avssl.errors import AvsslError, ConfigError, UsageError
from avssl.evaluation.datasets import LabelledItem, read_folds
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.evaluation.separation_config import PairsConfig
from avssl.evaluation.separation_scores import (
    UNGATED,
    Skipped,
    average_query,
    item_scores,
    load_separator,
    oracle_mask,
    read_sound,
    readable,
    summary,
)
from avssl.models.folder import load
from avssl.separation.anchors import cut_segments, mine_anchors
from avssl.separation.metrics import si_sdr
from avssl.separation.mixing import match_energy
from avssl.separation.queries import Query
from avssl.separation.rates import Converter
from avssl.separation.separator import Separator
from avssl.separation.tagger import Tagger


class Segment(Protocol):
    """The part of a clip that is used, [S] at the separator's rate."""

    def __call__(self, path: Path, name: str) -> Tensor: ...


def run(config: EvalConfig, out: Path, advance: Callable[[int], None]) -> Outcome:
    """Items are mixtures. A class that no query can be made for is an error; clips that cannot be read are skipped."""
    protocol: PairsConfig = config.protocol
    separator = load_separator(config.model, config.device)
    fold = read_folds(protocol.data, config.seed)[0]
    train, test = _by_class(fold.train), _by_class(fold.test)
    if len(test) < 2:
        raise ConfigError(f"protocol.data: {len(test)} class to test; mixtures need two")
    segment = _segment(protocol, separator, config.device)
    skipped: Skipped = []
    known: dict[str, Query] = {}

    def query_for(name: str, sound: Tensor) -> Query:
        if protocol.query == "oracle":
            return separator.query_of_sounds([(sound, separator.rate_hz)], name, keep_silence=True)
        if name not in known:
            if protocol.query == "class":
                known[name] = separator.query_of_class(name)
            else:
                if name not in train:
                    raise UsageError(f"protocol.data: the class {name!r} has no training clip to make its query of")
                known[name] = average_query(separator, name, train[name], protocol.train_sounds, config.seed, skipped)
        return known[name]

    items = []
    for name in sorted(test):
        for path, other_path, other_name in _pairs(name, test, protocol.pairs, config.seed):
            wanted = ((path, name), (other_path, other_name))
            sounds = [sound for one in wanted for sound in readable([one[0]], partial(segment, name=one[1]), skipped)]
            if len(sounds) == 2:
                queries = [query_for(one[1], sound) for one, sound in zip(wanted, sounds, strict=True)]
                items.append((name, _scores(separator, sounds, queries)))
            advance(1)
    metrics, rows = summary(items)
    unique = {entry["item"]: entry for entry in skipped}  # a clip may be in several pairs
    return Outcome(metrics, items=len(items), skipped=list(unique.values()), tables={"classes": rows})


def _scores(separator: Separator, sounds: list[Tensor], queries: list[Query]) -> dict[str, float]:
    target, interference = sounds
    mixture = target + match_energy(target[None], interference[None])[0] * interference
    right, wrong = separator.separate(mixture, separator.rate_hz, queries, options=UNGATED)
    oracle = oracle_mask(mixture, target, separator.config.separator.fft, separator.config.separator.hop)
    return {
        **item_scores(right, target, mixture),
        "si_sdr_swapped_query_db": float(si_sdr(wrong, target)),
        "si_sdri_oracle_mask_db": float(si_sdr(oracle, target) - si_sdr(mixture, target)),
    }


def _by_class(items: list[LabelledItem]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for item in items:
        found[item.labels[0]].append(item.path)
    return dict(found)


def _pairs(name: str, test: dict[str, list[Path]], count: int, seed: int) -> list[tuple[Path, Path, str]]:
    """(target's clip, other clip, other class); all clips of the class are used before one is used again."""
    draw = random.Random(f"{seed} {name}")
    clips: list[Path] = []
    while len(clips) < count:
        clips += draw.sample(test[name], len(test[name]))
    others = [draw.choice([one for one in sorted(test) if one != name]) for _ in range(count)]
    return [(path, draw.choice(test[other]), other) for path, other in zip(clips, others, strict=False)]


def _segment(protocol: PairsConfig, separator: Separator, device: str) -> Segment:
    rate_hz, samples = separator.rate_hz, round(protocol.segment_s * separator.rate_hz)

    def first(path: Path, name: str) -> Tensor:
        sound = read_sound(path, rate_hz, protocol.segment_s)
        return sound.repeat(-(-samples // len(sound)))[:samples]

    if protocol.miner is None:
        return first
    miner: Tagger = load(protocol.miner, device=device, kind="tagger")
    if miner.config.decision != "frame":
        raise UsageError(f"protocol.miner: {protocol.miner} decides by clip; name a tagger that decides by frame")
    hop = miner.config.hop
    frames = round(protocol.segment_s * miner.rate_hz / hop / 2) * 2

    def mined(path: Path, name: str) -> Tensor:
        sound = read_sound(path, miner.rate_hz)
        short = (frames + 1) * hop - len(sound)
        sound = torch.nn.functional.pad(sound, (0, max(0, short)))
        number = miner.ontology.find(name).class_index
        curve = miner.tags(sound[None], miner.rate_hz).frame_probabilities
        if number is None or curve is None:
            raise AvsslError(f"protocol.miner: {protocol.miner} does not tag {name!r}")
        centre = mine_anchors(curve[None, :, number].cpu(), frames)
        cut = cut_segments(sound[None], centre, hop, frames)[0]
        cut = Converter(miner.rate_hz, rate_hz).whole(cut[None])[0]
        return cut.repeat(-(-samples // len(cut)))[:samples]

    return mined
