"""What a packing process answers, as plain data and bytes, and what its parent makes of that.

The process has read a stranger's file, so its answer is judged: the source, label and other texts of a sample are this
process's own and not taken from there.
"""

from __future__ import annotations

import math
import re
from typing import Any

from avssl.errors import MediaError
from avssl.sandbox.child import Reply
from avssl.shards.format import milliseconds
from avssl.shards.options import BuildOptions
from avssl.shards.sources import Entry
from avssl.shards.transcode import Clip, Outcome, Rejected, sample_of

_MOST_CLIPS = 1 << 20  # of one source: 24 hours, the most that is read, in the shortest clips are fewer
_MOST_FIELDS = 16
_EXTENSION = re.compile(r"[a-z0-9]{1,16}")


def to_answer(outcome: Outcome) -> Reply:
    """The outcome as it goes to the parent."""
    result = outcome.result
    if isinstance(result, Rejected):
        return {"clips": outcome.clips, "rejected": [result.reason, result.detail, result.start_s]}, []
    sample = result.sample
    facts = {key: sample[key] for key in ("start_s", "end_s", "video", "audio")}
    return {"clips": outcome.clips, "sample": facts, "members": list(result.members)}, list(result.members.values())


def from_answer(head: Any, parts: list[bytearray], entry: Entry, options: BuildOptions) -> Outcome:
    """The outcome that was answered for a clip of `entry`; one that cannot be is a rejection, `unexpected`."""
    try:
        return _outcome(head, parts, entry, options)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, MediaError) as error:
        return Outcome(1, Rejected("unexpected", f"an answer that cannot be: {error}", entry.start_s))


def _outcome(head: Any, parts: list[bytearray], entry: Entry, options: BuildOptions) -> Outcome:
    clips = head["clips"]
    if type(clips) is not int or not 1 <= clips <= _MOST_CLIPS:
        raise ValueError(f"{clips!r} clips")
    if "rejected" in head:
        reason, detail, start_s = head["rejected"]
        if not re.fullmatch(r"[a-z-]{1,32}", reason) or not _is_plain(start_s):
            raise ValueError("a reason that is none")
        return Outcome(clips, Rejected(reason, str(detail)[:1000], start_s))
    sample, names = head["sample"], head["members"]
    members = {name: bytes(part) for name, part in zip(names, parts, strict=True)}
    allowed = _EXTENSION.fullmatch if options.copy else ("mp4", "flac").__contains__
    if not all(allowed(name) for name in names):
        raise ValueError(f"members {names}")
    times = milliseconds(sample["start_s"]), milliseconds(sample["end_s"])
    if not 0 <= times[0] < times[1]:
        raise ValueError(f"times {times}")
    for kind in ("video", "audio"):
        fields = sample[kind]
        if fields is not None and not (len(fields) <= _MOST_FIELDS and all(map(_is_plain, fields.values()))):
            raise ValueError(f"fields of {kind}")
    return Outcome(clips, Clip(members, sample_of(entry, *times, sample["video"], sample["audio"])))


def _is_plain(value: Any) -> bool:
    """Whether it is what a field of a sample may be."""
    if isinstance(value, str):
        return len(value) <= 100
    return value is None or (isinstance(value, int | float) and math.isfinite(value))
