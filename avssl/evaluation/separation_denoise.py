"""The protocol `separation_denoise`: speech out of noise (VoiceBank-DEMAND), with the measures of that field.

PESQ needs the package pesq; where it is absent, `extra` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from avssl.errors import ConfigError, MediaError
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.evaluation.separation_config import DenoiseConfig
from avssl.evaluation.separation_scores import (
    UNGATED,
    Skipped,
    average_query,
    item_scores,
    load_separator,
    read_sound,
)
from avssl.separation.metrics import ssnr
from avssl.separation.queries import Query
from avssl.separation.rates import Converter
from avssl.separation.separator import Separator
from avssl.shards.sources import MEDIA_EXTENSIONS


def run(config: EvalConfig, out: Path, advance: Callable[[int], None]) -> Outcome:
    """Items are utterances; metrics are means over them, as the field reports them."""
    protocol: DenoiseConfig = config.protocol
    separator = load_separator(config.model, config.device)
    skipped: Skipped = []
    fixed = _fixed_query(separator, protocol, config.seed, skipped)
    pesq = _pesq()
    rows: list[dict[str, Any]] = []
    for path in _sounds(protocol.noisy, "noisy"):
        try:
            noisy = read_sound(path, separator.rate_hz)
            clean = read_sound(Path(protocol.clean) / path.name, separator.rate_hz)
            if abs(len(noisy) - len(clean)) > separator.rate_hz // 100:
                raise MediaError(str(path), "out-of-range", "is not as long as its clean reference")
        except (MediaError, OSError) as error:
            skipped.append({"item": str(path), "cause": str(error)})
            continue
        length = min(len(noisy), len(clean))
        noisy, clean = noisy[:length], clean[:length]
        query = fixed or separator.query_of_sounds([(clean, separator.rate_hz)], "speech")
        estimate = separator.separate(noisy, separator.rate_hz, query, options=UNGATED)
        rows.append({"item": path.name, **_scores(estimate, clean, noisy, separator.rate_hz, protocol.rate_hz, pesq)})
        advance(1)
    keys = [key for key in rows[0] if key != "item"] if rows else []
    metrics = {key: sum(row[key] for row in rows) / len(rows) for key in keys}
    extra = {} if pesq else {"pesq": "not computed: the package pesq is not installed"}
    return Outcome(metrics, items=len(rows), skipped=skipped, tables={"items": rows}, extra=extra)


def _scores(
    estimate: Tensor, clean: Tensor, noisy: Tensor, from_hz: int, rate_hz: int, pesq: Callable[..., float] | None
) -> dict[str, float]:
    convert = Converter(from_hz, rate_hz).whole
    e, c, n = convert(estimate), convert(clean), convert(noisy)
    scores = {"ssnr_db": float(ssnr(e, c, rate_hz)), "ssnr_noisy_db": float(ssnr(n, c, rate_hz))}
    if pesq:
        mode = "wb" if rate_hz == 16000 else "nb"
        scores |= {
            "pesq": pesq(rate_hz, c.numpy(), e.numpy(), mode),
            "pesq_noisy": pesq(rate_hz, c.numpy(), n.numpy(), mode),
        }
    return {**scores, **item_scores(estimate, clean, noisy)}


def _fixed_query(separator: Separator, protocol: DenoiseConfig, seed: int, skipped: Skipped) -> Query | None:
    if protocol.query == "class":
        return separator.query_of_class(protocol.class_name)
    if protocol.query == "oracle" or protocol.train_clean is None:
        return None
    paths = _sounds(protocol.train_clean, "train_clean")
    return average_query(separator, "speech", paths, protocol.train_sounds, seed, skipped)


def _sounds(folder: str, key: str) -> list[Path]:
    found = sorted(path for path in Path(folder).glob("*") if path.suffix[1:].lower() in MEDIA_EXTENSIONS)
    if not found:
        raise ConfigError(f"protocol.{key}: {folder} holds no sound files; check the path")
    return found


def _pesq() -> Callable[..., float] | None:
    try:
        from pesq import pesq
    except ImportError:
        return None
    function: Callable[..., float] = pesq
    return function
