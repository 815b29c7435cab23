"""One media file into a folder: a sound file a source, what is left, what was found, and a page to look at and hear."""

from __future__ import annotations

import contextlib
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from avssl import files
from avssl.errors import MediaError
from avssl.media import SoundWriter, open_media
from avssl.media.sound_file import STEP
from avssl.separation.hierarchy import Found, as_tree
from avssl.separation.options import THRESHOLD, SeparationOptions
from avssl.separation.picture import SoundPicture
from avssl.separation.queries import Query
from avssl.separation.report import write_report
from avssl.separation.separator import Separator

STATE, TREE, PAGE = "separation.json", "tree.json", "report.html"
RESIDUAL = "residual"
FAINT_DB = -30.0  # below the mixture: what is separated so quietly is hardly there
_BLOCK_S = 2.0

Advance = Callable[[float], None]
"""Called with the time in the recording, in seconds, up to which it is done."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of each recording: `queries`, or, where `levels` are given, what is heard there in the ontology."""

    queries: Sequence[Query] = ()
    levels: Sequence[int] = ()
    options: SeparationOptions = field(default_factory=SeparationOptions)
    format: Literal["flac", "wav"] = "flac"
    residual: bool = True
    page: bool = True


@dataclass
class Source:
    """A written source. score: the tagger's highest probability for it in any chunk; None: nobody can tell. level_db:
    its energy against the mixture's; None: it is silent. clipped: samples that FLAC cannot hold. weak: why it is
    hardly in the mixture, or empty."""

    name: str
    file: str
    score: float | None
    level_db: float | None
    clipped: int
    weak: str
    id: str | None = None
    level: int | None = None


def separate_file(
    separator: Separator, path: Path, folder: Path, wanted: Wanted, advance: Advance = lambda time_s: None
) -> dict[str, Any]:
    """Separate the sound of the media file `path` into `folder`; returns the facts that `STATE` gets.

    Sound files keep rate and channels. In steps of 24 bits, the sources and the residual sum to the mixture exactly (of
    a hierarchy: the sources without a parent). Memory does not depend on the duration, but for the tagger's
    probabilities in a hierarchy: some kilobytes a minute.
    Raises MediaError if the file cannot be used, and then leaves no sound file.
    """
    with open_media(path) as media:
        info = media.info.audio
        if info is None:
            raise MediaError(str(path), "no-audio", "has no sound")
    rate_hz, channels, found = info.rate_hz, info.channels, None
    queries, probabilities = list(wanted.queries), None
    if wanted.levels:
        probabilities = separator.listen(_blocks(path, rate_hz), rate_hz, wanted.options)
        pairs = separator.find(probabilities, wanted.levels, wanted.options)
        found, queries = [one for one, _ in pairs], [query for _, query in pairs]
    names = file_names(queries, found)
    parts = [*names, RESIDUAL] if wanted.residual or not names else names
    pictures = [SoundPicture(rate_hz) for _ in [*names, RESIDUAL, "mixture"]]
    top = _uncovered(found, separator) if found is not None else list(range(len(queries)))
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(SoundWriter(folder / f"{part}.{wanted.format}", rate_hz, channels)) for part in parts
        ]
        scores: list[float | None] = []
        done = 0
        for mixture, sources in _separated(separator, path, rate_hz, queries, wanted.options, probabilities, scores):
            rest = mixture - sources[top].sum(axis=0)
            written = [*sources, rest]
            for writer, samples in zip(writers, written, strict=False):
                writer.write(samples)
            for picture, samples in zip(pictures, [*written, mixture], strict=True):
                picture.add(samples)
            done += mixture.shape[1]
            advance(done / rate_hz)
    described = [
        _describe(query, score, picture, pictures[-1], writer, found[number] if found is not None else None, wanted)
        for number, (query, score, picture, writer) in enumerate(zip(queries, scores, pictures, writers, strict=False))
    ]
    facts = {
        "input": {"file": path.name, "rate_hz": rate_hz, "channels": channels, "seconds": done / rate_hz},
        "sources": [asdict(source) for source in described],
        "residual": None if RESIDUAL not in parts else {"file": writers[-1].path.name, "clipped": writers[-1].clipped},
    }
    if found is not None:
        facts["tree"] = _tree(found, described, separator)
        window_s = separator.config.window_s
        files.write_json(
            folder / TREE,
            {
                "file": path.name,
                "chunk_s": window_s,
                "hop_s": window_s * (1 - wanted.options.overlap),
                "threshold": wanted.options.threshold,
                "tree": facts["tree"],
            },
        )
    if wanted.page:
        write_report(folder / PAGE, facts, pictures)
    return facts


def file_names(queries: Sequence[Query], found: Sequence[Found] | None = None) -> list[str]:
    """A name of a file for each query, without ending: small letters, digits and dashes, all different."""
    names: list[str] = []
    for number, query in enumerate(queries):
        plain = re.sub(r"[^\w]+", "-", query.name.casefold()).strip("-_") or "source"
        name = f"level{found[number].level}-{plain}" if found else plain
        name, again = name[:80], 2
        unused = name
        while unused in (*names, RESIDUAL):
            unused, again = f"{name}-{again}", again + 1
        names.append(unused)
    return names


def _blocks(path: Path, rate_hz: int) -> Iterator[Tensor]:
    with open_media(path) as media:
        for part in media.iter_audio(0.0, rate_hz=rate_hz, channels="all", chunk_s=_BLOCK_S):
            if part.samples.shape[1]:
                yield torch.from_numpy(part.samples)


def _separated(
    separator: Separator,
    path: Path,
    rate_hz: int,
    queries: Sequence[Query],
    options: SeparationOptions,
    probabilities: Tensor | None,
    scores: list[float | None],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(mixture [C, n], sources [Q, C, n]) as float64 multiples of a 24-bit step. Fills `scores` at the end."""
    waiting: deque[Tensor] = deque()  # of the mixture, until its sources are final

    def remembered() -> Iterator[Tensor]:
        for block in _blocks(path, rate_hz):
            waiting.append(block)
            yield block

    if not queries:
        for block in _blocks(path, rate_hz):
            mixture = _on_steps(block)
            yield mixture, np.zeros((0, *mixture.shape))
        return
    running = separator.begin(rate_hz, queries, options, probabilities=probabilities)
    for sources in running.run(remembered()):
        missing, parts = sources.shape[-1], []
        while missing:
            block = waiting.popleft()
            if block.shape[-1] > missing:
                waiting.appendleft(block[:, missing:])
                block = block[:, :missing]
            parts.append(block)
            missing -= block.shape[-1]
        if parts:
            yield _on_steps(torch.cat(parts, dim=-1)), _on_steps(sources)
    scores.extend(running.scores)


def _on_steps(x: Tensor) -> np.ndarray:
    samples: np.ndarray = np.rint(x.cpu().numpy().astype(np.float64) / STEP) * STEP
    return samples


def _uncovered(found: Sequence[Found], separator: Separator) -> list[int]:
    """Those of the found nodes that hang under no other: they are the parts of the whole."""
    ids = {one.node.id for one in found}
    nodes = separator.ontology.nodes
    covered = []
    for one in found:
        above = one.node.parents[:1]
        while above and above[0] not in ids:
            above = nodes[above[0]].parents[:1]
        covered.append(bool(above))
    return [number for number, yes in enumerate(covered) if not yes]


def _describe(
    query: Query,
    score: float | None,
    picture: SoundPicture,
    mixture: SoundPicture,
    writer: SoundWriter,
    found: Found | None,
    wanted: Wanted,
) -> Source:
    level_db = 10 * math.log10(picture.energy / mixture.energy) if picture.energy and mixture.energy else None
    threshold = wanted.options.threshold or THRESHOLD
    weak = ""
    if score is not None and score < threshold:
        weak = f"the tagger gives it at most {score:.3f} in any part, and {threshold:g} counts as heard"
        if query.condition is None and wanted.options.threshold:
            weak += ", so its file is silent; threshold 0 separates it all the same"
    elif level_db is None:
        weak = "nothing was separated"
    elif level_db < FAINT_DB:
        weak = f"what was separated is {-level_db:.0f} dB below the mixture"
    node = {"id": found.node.id, "level": found.level} if found else {}
    return Source(query.name, writer.path.name, score, level_db, writer.clipped, weak, **node)  # type: ignore[arg-type]


def _tree(found: Sequence[Found], described: Sequence[Source], separator: Separator) -> list[dict[str, Any]]:
    """`as_tree` with the file of each node."""
    sources = {source.id: source for source in described}

    def fill(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for entry in entries:
            source = sources[entry["id"]]
            entry |= {"file": source.file, "level_db": source.level_db}
            entry["children"] = fill(entry.pop("children"))
        return entries

    return fill(as_tree(found, separator.ontology))
