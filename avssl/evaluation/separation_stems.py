"""The protocol `separation_stems`: real mixtures whose parts are known (MUSDB18, Slakh2100, or a list of your own).

Mono, at the separator's rate, as USS evaluates. SDR-v4 is museval's: the median over frames of a second.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from avssl.errors import ConfigError, MediaError
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.evaluation.separation_config import StemsConfig
from avssl.evaluation.separation_mapss import MapssMeter
from avssl.evaluation.separation_scores import (
    UNGATED,
    Skipped,
    average_query,
    item_scores,
    load_separator,
    read_sound,
    summary,
)
from avssl.separation.metrics import sdr_v4
from avssl.separation.queries import Query
from avssl.separation.separator import Separator


class Stem(NamedTuple):
    """A part of a mixture, by file."""

    mixture: Path
    source: Path
    name: str


class _Separated(NamedTuple):
    name: str
    scores: dict[str, float]
    reference: Tensor
    estimate: Tensor


def run(config: EvalConfig, out: Path, advance: Callable[[int], None]) -> Outcome:
    """Items are stems, or their chunks. Silent stems have no ratio and count in none."""
    protocol: StemsConfig = config.protocol
    separator = load_separator(config.model, config.device)
    stems = read_stems(protocol.layout, protocol.root, protocol.list)
    skipped: Skipped = []
    queries = _queries(separator, protocol, {stem.name for stem in stems}, config.seed, skipped)
    meter = MapssMeter(protocol.mapss, config.device) if protocol.mapss else None
    items: list[tuple[str, dict[str, float]]] = []
    taken = Counter[str]()
    for _, group in groupby(stems, key=lambda stem: stem.mixture):
        separated: list[_Separated] = []
        for stem in group:
            try:
                mixture, source = _aligned(stem, separator.rate_hz)
            except (MediaError, OSError) as error:
                skipped.append({"item": str(stem.source), "cause": str(error)})
                continue
            for part, reference in _parts(mixture, source, protocol, separator.rate_hz):
                if taken[stem.name] == protocol.most_chunks and protocol.chunk_s is not None:
                    break
                taken[stem.name] += 1
                query = queries.get(stem.name) or separator.query_of_sounds([(reference, separator.rate_hz)], stem.name)
                estimate = separator.separate(part, separator.rate_hz, query, options=UNGATED)
                scores = _scores(estimate, reference, part, protocol, separator.rate_hz)
                separated.append(_Separated(stem.name, scores, reference, estimate))
            advance(1)
        if meter:
            _add_mapss(separated, meter, separator.rate_hz)
        items += [(one.name, one.scores) for one in separated]
    if protocol.chunk_s is not None:
        items = [item for item in items if taken[item[0]] >= protocol.fewest_chunks]
    metrics, rows = summary(items)
    unique = {entry["item"]: entry for entry in skipped}
    return Outcome(metrics, items=len(items), skipped=list(unique.values()), tables={"classes": rows})


def _add_mapss(separated: list[_Separated], meter: MapssMeter, rate_hz: int) -> None:
    """PS and PM into the scores of the stems of one mixture; NaN if there is only one."""
    ps = pm = [float("nan")] * len(separated)
    if len(separated) > 1:
        samples = min(len(one.reference) for one in separated)
        references, outputs = (
            torch.stack([sound[:samples] for sound in sounds])
            for sounds in ([one.reference for one in separated], [one.estimate for one in separated])
        )
        ps, pm = meter(references, outputs, rate_hz)
    for one, separation, match in zip(separated, ps, pm, strict=True):
        one.scores.update(mapss_ps=separation, mapss_pm=match)


def read_stems(layout: str, root: str, listing: str | None) -> list[Stem]:
    """All stems under `root`, sorted. Raises ConfigError where there are none, or the list cannot be read."""
    folder = Path(root)
    stems: list[Stem] = []
    if layout == "musdb":
        for mixture in sorted(folder.glob("*/mixture.wav")):
            names = [path for path in sorted(mixture.parent.glob("*.wav")) if path != mixture]
            stems += [Stem(mixture, path, path.stem) for path in names]
    elif layout == "slakh":
        for mixture in sorted(folder.glob("*/mix.flac")):
            stems += _slakh_track(mixture)
    else:
        try:
            with Path(listing or "").open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            stems = [Stem(folder / row["mixture"], folder / row["source"], row["class"]) for row in rows]
        except (OSError, KeyError, TypeError) as error:
            raise ConfigError(
                f"protocol.list: {listing} cannot be read ({error}); its columns are mixture, source, class"
            ) from error
    if not stems:
        raise ConfigError(f"protocol.root: {root} holds no stems in the layout {layout!r}; check the path")
    return stems


def _slakh_track(mixture: Path) -> list[Stem]:
    facts = yaml.safe_load((mixture.parent / "metadata.yaml").read_text())
    found = []
    for key, stem in sorted(facts["stems"].items()):
        path = mixture.parent / "stems" / f"{key}.flac"
        if path.exists():  # not every stem was rendered
            found.append(Stem(mixture, path, str(stem["plugin_name"])))
    return found


def _queries(
    separator: Separator, protocol: StemsConfig, names: set[str], seed: int, skipped: Skipped
) -> dict[str, Query]:
    """By class; empty for `oracle`, whose queries are made of the items."""
    if protocol.query == "oracle":
        return {}
    if protocol.query == "class":
        return {name: separator.query_of_class(name) for name in sorted(names)}
    sounds: dict[str, list[Path]] = defaultdict(list)
    for stem in read_stems(protocol.layout, protocol.train_root or protocol.root, protocol.train_list):
        sounds[stem.name].append(stem.source)
    if missing := sorted(names - sounds.keys()):
        raise ConfigError(f"protocol.train_root: has no stem of the class {missing[0]!r} to make its query of")
    return {
        name: average_query(separator, name, sounds[name], protocol.train_sounds, seed, skipped)
        for name in sorted(names)
    }


def _aligned(stem: Stem, rate_hz: int) -> tuple[Tensor, Tensor]:
    """Mixture and source [S]. Raises MediaError if they are not equally long (to a tenth of a second)."""
    mixture, source = read_sound(stem.mixture, rate_hz), read_sound(stem.source, rate_hz)
    if abs(len(mixture) - len(source)) > rate_hz // 10:
        raise MediaError(str(stem.source), "out-of-range", f"is not as long as {stem.mixture}")
    length = min(len(mixture), len(source))
    return mixture[:length], source[:length]


def _parts(mixture: Tensor, source: Tensor, protocol: StemsConfig, rate_hz: int) -> Iterator[tuple[Tensor, Tensor]]:
    if protocol.chunk_s is None:
        yield mixture, source
        return
    samples = round(protocol.chunk_s * rate_hz)
    for part, reference in zip(mixture.split(samples), source.split(samples), strict=True):
        if len(part) == samples and float(reference.abs().max()) > protocol.active_peak:
            yield part, reference


def _scores(
    estimate: Tensor, reference: Tensor, mixture: Tensor, protocol: StemsConfig, rate_hz: int
) -> dict[str, float]:
    frame = min(round(protocol.frame_s * rate_hz), len(reference))

    def v4(found: Tensor) -> float:
        pair = (reference, found) if protocol.released_swap else (found, reference)
        return float(sdr_v4(pair[0][None], pair[1][None], frame))

    name = "sdr_v4_swapped" if protocol.released_swap else "sdr_v4"
    ratios = {f"{name}_db": v4(estimate), f"{name}_improvement_db": v4(estimate) - v4(mixture)}
    return {**ratios, **item_scores(estimate, reference, mixture)}
