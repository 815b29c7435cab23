"""Files and folders of recordings into a folder of separations, one after the other; an interrupted run goes on."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avssl import files
from avssl.errors import AvsslError, MediaError, UsageError
from avssl.separation.queries import Query
from avssl.separation.recording import STATE, Wanted, separate_file
from avssl.separation.separator import Separator
from avssl.shards.sources import MEDIA_EXTENSIONS


@dataclass(frozen=True)
class Job:
    """The recording `path`, to be separated into `folder`."""

    path: Path
    folder: Path


@dataclass
class Report:
    """What became of the jobs: facts of each file by path (see `separate_file`), errors by path, and those kept."""

    separated: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Listener:
    """Told what happens; override what is of interest."""

    def at(self, job: Job, time_s: float) -> None:
        """The recording is separated up to here."""

    def failed(self, job: Job, error: MediaError) -> None:
        """The file cannot be used; the others go on."""

    def done(self, job: Job, facts: dict[str, Any], kept: bool) -> None:
        """The folder is complete; kept: it was already."""


def find_jobs(sources: Sequence[str | os.PathLike[str]], out: Path) -> list[Job]:
    """One file is separated into `out` itself; of several, and of folders, each into a folder of the file's name.

    Folders are searched for media files, sorted, hidden ones left out. Raises UsageError for what does not exist or
    holds nothing, and for two files that would be written to one place.
    """
    jobs = []
    for source in map(Path, sources):
        if source.is_dir():
            found = [path for path in _media_files(source) if out.resolve() not in path.resolve().parents]
            if not found:
                raise UsageError(f"{source}: no media files in this folder")
            jobs += [Job(path, out / path.relative_to(source)) for path in found]
        elif source.exists():
            jobs.append(Job(source, out / source.name))
        else:
            raise UsageError(f"{source}: no such file or folder")
    places: dict[Path, Path] = {}
    for job in jobs:
        if (other := places.setdefault(job.folder, job.path)) != job.path:
            raise UsageError(f"{other} and {job.path} would both be written to {job.folder}; separate them apart")
    jobs = [Job(path, folder) for folder, path in places.items()]
    if len(jobs) == 1 and not Path(sources[0]).is_dir():
        return [Job(jobs[0].path, out)]
    return jobs


def separate_all(
    separator: Separator,
    jobs: Sequence[Job],
    wanted: Wanted,
    model: dict[str, Any],
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Report:
    """Carry out the jobs. model: facts that tell the model from others, kept with each result.

    A folder that is complete for the same model, settings and file is kept; one that was begun is made anew. Raises
    UsageError, before any work, for a folder of other settings or of foreign content, unless `overwrite`; AvsslError
    where the output cannot be written.
    """
    listener = listener or Listener()
    settings = {"model": model, **_settings(wanted)}
    states = [_state(job.folder, settings, overwrite) for job in jobs]
    report = Report()
    for job, state in zip(jobs, states, strict=True):
        name = printable(job.path)
        fingerprint = _fingerprint(job.path)
        if state.get("complete") and state.get("fingerprint") == fingerprint:
            report.kept.append(name)
            report.separated[name] = state["facts"]
            listener.done(job, state["facts"], True)
            continue
        for left in job.folder.glob(".*.tmp"):  # of a run that was killed
            left.unlink()
        begun = {"complete": False, "settings": settings, "fingerprint": fingerprint}
        try:
            files.write_json(job.folder / STATE, begun)
            facts = separate_file(separator, job.path, job.folder, wanted, functools.partial(listener.at, job))
            files.write_json(job.folder / STATE, {**begun, "complete": True, "facts": facts})
        except MediaError as error:
            report.failed[name] = str(error)
            listener.failed(job, error)
            _leave_nothing(job.folder)
        except OSError as error:
            raise AvsslError(f"{job.folder}: cannot be written: {error.strerror or error}") from error
        else:
            report.separated[name] = facts
            listener.done(job, facts, False)
    return report


def printable(path: Path) -> str:
    """A path as text; bytes that are not UTF-8 appear as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _settings(wanted: Wanted) -> dict[str, Any]:
    return {
        "queries": [_query_facts(query) for query in wanted.queries],
        "levels": list(wanted.levels),
        "options": asdict(wanted.options),
        "format": wanted.format,
        "residual": wanted.residual,
        "page": wanted.page,
    }


def _query_facts(query: Query) -> dict[str, Any]:
    condition = None if query.condition is None else query.condition.cpu().numpy().tobytes()
    return {
        "name": query.name,
        "classes": sorted(query.classes),
        "condition_sha256": condition and hashlib.sha256(condition).hexdigest(),
    }


def _state(folder: Path, settings: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """What is known of an earlier run with these settings; empty if there was none."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, and sources are written into a folder; name another")
    if overwrite or not folder.exists():
        return {}
    try:
        state = files.read_json(folder / STATE)
    except FileNotFoundError:
        if any(path.is_file() and not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder}: holds files of others; name another folder, or give --overwrite") from None
        return {}
    except ValueError:
        return {}
    if not isinstance(state, dict) or state.get("settings") != settings:
        raise UsageError(
            f"{folder}: holds sources of another model or other settings; name another folder, or give --overwrite"
        )
    return state


def _fingerprint(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "unreadable"
    return f"{status.st_size} bytes, modified {status.st_mtime_ns}"


def _leave_nothing(folder: Path) -> None:
    """Remove the folder of a file that cannot be used, if nothing else is in it."""
    (folder / STATE).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _media_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix[1:].lower() in MEDIA_EXTENSIONS
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)
