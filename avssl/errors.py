"""The errors that users meet. Each message is one sentence: what file, which key, why, and what to do.

Only `AvsslError` and its children are turned into a clean message by the commands; anything else is a
defect of this software and keeps its traceback.
"""

from __future__ import annotations


class AvsslError(Exception):
    """Something failed in a way the user can understand. Commands print the message and exit with `exit_code`."""

    exit_code = 1


class UsageError(AvsslError):
    """The command or call was used wrongly (missing file, option that contradicts another)."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or value is wrong: unknown key, wrong type, impossible combination."""


class MediaError(AvsslError):
    """A media file cannot be used.

    `reason` is a short stable word that programs count by (`not-media`, `forbidden-format`, `forbidden-codec`,
    `too-large`, `truncated`, `corrupt`, `no-video`, `no-audio`, `empty`, `timeout`, `out-of-range`).
    """

    def __init__(self, path: str, reason: str, detail: str):
        super().__init__(f"{path}: {detail} ({reason})")
        self.path, self.reason, self.detail = path, reason, detail

    def __reduce__(self):  # keeps the three arguments when crossing a process border
        return type(self), (self.path, self.reason, self.detail)


class ShardError(AvsslError):
    """A shard, manifest or index is damaged, missing, or does not belong to the others."""


class BudgetError(AvsslError):
    """More samples were skipped or more losses were not finite than the budget allows."""


class ModelError(AvsslError):
    """A model folder or checkpoint does not fit: missing file, wrong key or shape, other architecture."""
