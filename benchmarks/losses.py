"""Time and memory of the softmax loss over tiles, forward and backward, beside the plain one that holds all scores.

    python -m benchmarks.losses [--batch 4096] [--bank-rows 65536] [--dim 256] [--rounds 9] [--threads 1]

Both sides run in turn in one process. Time is CPU time of the process, the median over rounds; memory is what autograd
keeps for backward beyond the inputs. `in batch` is both directions of a batch with gradient to both modalities, `bank`
one direction of an eighth of the batch against all rows of a memory bank; `soft` adds cycle-consistent soft targets.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avssl.objectives.candidates import Columns
from avssl.objectives.soft_targets import Side, soft_targets
from avssl.objectives.weights import pair_scores
from avssl.objectives.xid import Soft, xid
from benchmarks.common import markdown_table, write_result

TAU, TAU_SOFT, TAU_AGREEMENT, SHARE = 0.07, 0.02, 0.07, 0.5
MIB = 2**20

Loss = Callable[[Tensor, Tensor, Tensor, Soft | None], Tensor]


def tiled(queries: Tensor, targets: Tensor, positive: Tensor, soft: Soft | None) -> Tensor:
    return xid(queries, targets, Columns(positive), temperature=TAU, soft=soft).loss.mean()


def plain(queries: Tensor, targets: Tensor, positive: Tensor, soft: Soft | None) -> Tensor:
    """What a script would write."""
    scores = queries @ targets.T / TAU
    if soft is None:
        return F.cross_entropy(scores, positive)
    with torch.no_grad():
        logits = soft.queries @ soft.keys.T / soft.temperature
        spread = (logits if soft.bias is None else logits + soft.bias).softmax(1)
        spread *= soft.share
        spread[torch.arange(len(queries)), positive] += 1 - soft.share
    return F.cross_entropy(scores, spread)


def make_cases(batch: int, bank_rows: int, dim: int) -> dict[str, tuple[Callable[[Loss], Tensor], list[Tensor]]]:
    """Name -> (the whole loss as a function of one direction's loss, the tensors that are its inputs)."""
    generator = torch.Generator().manual_seed(0)

    def units(rows: int) -> Tensor:
        return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)

    video, audio = units(batch).requires_grad_(), units(batch).requires_grad_()
    banks = units(bank_rows), units(bank_rows)
    agreements = pair_scores(video, audio), pair_scores(*banks)
    everyone = torch.arange(batch)
    few = everyone[: batch // 8]
    queries = units(len(few)).requires_grad_()

    def make_soft(source: Side, other: Side, agreement: Tensor) -> Soft:
        settings: dict[str, Any] = {"share": SHARE, "temperature": TAU_SOFT, "agreement_temperature": TAU_AGREEMENT}
        return soft_targets("cycle", source, other, query="memory", agreement=agreement, **settings)

    def in_batch(loss: Loss, soft: bool) -> Tensor:
        first, second = (Side(x.detach(), x.detach(), x.detach()) for x in (video, audio))
        softs = [make_soft(*pair, agreements[0]) if soft else None for pair in ((first, second), (second, first))]
        return (loss(video, audio, everyone, softs[0]) + loss(audio, video, everyone, softs[1])) / 2

    def against_bank(loss: Loss, soft: bool) -> Tensor:
        source, other = (Side(queries.detach(), bank[few], bank) for bank in banks)
        return loss(queries, banks[1], few, make_soft(source, other, agreements[1]) if soft else None)

    inputs = [video, audio, queries, *banks]
    return {
        "in batch": (lambda loss: in_batch(loss, False), inputs),
        "in batch, soft": (lambda loss: in_batch(loss, True), inputs),
        "bank": (lambda loss: against_bank(loss, False), inputs),
        "bank, soft": (lambda loss: against_bank(loss, True), inputs),
    }


def kept_bytes(compute: Callable[[], Tensor], inputs: list[Tensor]) -> int:
    """Bytes of the storages that autograd keeps for backward, those of the inputs left out."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = compute()
    for tensor in inputs:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    loss.backward()
    return sum(storages.values())


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    sides: dict[str, Loss] = {"plain": plain, "tiled": tiled}
    results: dict[str, dict[str, Any]] = {}
    for name, (whole, inputs) in make_cases(arguments.batch, arguments.bank_rows, arguments.dim).items():
        runs = {side: functools.partial(whole, loss) for side, loss in sides.items()}
        result: dict[str, Any] = {f"{side}_kept_mib": kept_bytes(run, inputs) / MIB for side, run in runs.items()}
        result |= {f"{side}_loss": run().item() for side, run in runs.items()}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(arguments.rounds):
            for side, run in runs.items():
                started = time.process_time()
                run().backward()
                times[side].append(1000 * (time.process_time() - started))
        result |= {f"{side}_ms": median(values) for side, values in times.items()}
        result["time_over_plain"] = result["tiled_ms"] / result["plain_ms"]
        results[name] = {**result, "rounds_ms": times}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--bank-rows", type=int, default=65536)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = measure(arguments)
    header = ["case", "plain ms", "tiled ms", "× plain", "plain kept MiB", "tiled kept MiB"]
    keys = ["plain_ms", "tiled_ms", "time_over_plain", "plain_kept_mib", "tiled_kept_mib"]
    print(markdown_table(header, [[name, *(result[key] for key in keys)] for name, result in results.items()]))
    print(f"written to {write_result('losses', {'options': vars(arguments), 'cases': results})}")


if __name__ == "__main__":
    main()
