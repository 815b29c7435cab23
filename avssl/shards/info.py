"""What a shard folder holds, in numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from avssl import files
from avssl.shards import format as layout
from avssl.shards.read import ShardSet


def describe(folder: Path) -> dict[str, Any]:
    """Counts, hours, sizes and formats of a shard folder, as plain JSON values."""
    folder = Path(folder)
    shards = ShardSet.open(folder)
    index = layout.read_index(folder)
    sources, pictures, rates, sounds = set(), Counter[str](), Counter[str](), Counter[str]()
    labels: Counter[str] = Counter()
    member_bytes: Counter[str] = Counter()
    for row in range(len(shards)):
        record = shards.record(row)
        sources.add(record["source"])
        labels[record["label"] if record["label"] is not None else ""] += 1
        for name, (_, size) in record["members"].items():
            member_bytes[name] += size
        if video := record["video"]:
            projection = f" {video['projection']}" if "projection" in video else ""
            pictures[f"{video['width_px']}x{video['height_px']}{projection}"] += 1
            rates[f"{video['fps']:g}"] += 1
        if audio := record["audio"]:
            sounds[f"{audio['rate_hz']} Hz, {audio.get('ambisonics') or str(audio['channels']) + ' ch'}"] += 1
    unlabelled = labels.pop("", 0)
    total_s = float(shards.duration_s.sum())
    media_bytes = sum(size for name, size in member_bytes.items() if name != "json")
    rejected = files.read_jsonl(folder / layout.REJECTED)
    return {
        "folder": str(folder),
        "version": index["version"],
        "created_with": index["created_with"],
        "clips": len(shards),
        "sources": len(sources),
        "hours": total_s / 3600,
        "clips_with_video": int(shards.has_video.sum()),
        "clips_with_audio": int(shards.has_audio.sum()),
        "shards": len(index["shards"]),
        "bytes": sum(shard["bytes"] for shard in index["shards"]),
        "media_bytes_per_s": media_bytes / total_s if total_s else None,
        "member_bytes": dict(sorted(member_bytes.items())),
        "sizes_px": _commonest(pictures),
        "fps": _commonest(rates),
        "audio": _commonest(sounds),
        "labels": dict(sorted(labels.items())),
        "unlabelled": unlabelled,
        "rejected": _commonest(Counter(row["reason"] for row in rejected)),
        "options": index["options"],
        "manifest_sha256": shards.manifest_sha256,
    }


def _commonest(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def as_text(facts: dict[str, Any]) -> str:
    """The facts of `describe` for people."""
    rate = facts["media_bytes_per_s"]
    lines = [
        f"{facts['folder']}: {facts['clips']} clips of {facts['sources']} sources, {facts['hours']:.3f} h, "
        f"{facts['shards']} shard{'s' * (facts['shards'] != 1)}, {facts['bytes'] / 1e6:.1f} MB",
        f"  with picture {facts['clips_with_video']}, with sound {facts['clips_with_audio']}"
        + (f", {rate / 1e3:.1f} kB per second" if rate else ""),
    ]
    for title, key in (("sizes", "sizes_px"), ("fps", "fps"), ("sound", "audio"), ("rejected", "rejected")):
        if facts[key]:
            lines.append(f"  {title}: {_listed(facts[key])}")
    if facts["labels"]:
        lines.append(f"  {len(facts['labels'])} labels, {facts['unlabelled']} clips without")
        widest = max(len(label) for label in facts["labels"])
        most = max(facts["labels"].values())
        for label, count in list(facts["labels"].items())[:50]:
            lines.append(f"    {label:<{widest}}  {count:>7}  {'#' * max(1, 30 * count // most)}")
        if len(facts["labels"]) > 50:
            lines.append(f"    … and {len(facts['labels']) - 50} more (all with --json)")
    return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:8])
    return shown + (f", … {len(counts) - 8} more" if len(counts) > 8 else "")
