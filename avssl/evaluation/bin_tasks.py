"""AVSA-Bin, AVC-Bin and the yaw question on features of views: pairs, head, training, score (methods C.10).

Every draw gives both answers once, so tables are balanced and chance is a half:

| task | right | wrong |
| --- | --- | --- |
| `avsa_bin` | the sound as it is | the same sound, its scene turned |
| `avc_bin` | the sound as it is | the sound, seen from the same number of views, of another source file |

`yaw`, our own, takes the turned sound alone and asks for the angle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avssl.errors import UsageError
from avssl.evaluation.scene_config import HeadTraining
from avssl.evaluation.scenes import Scenes

Task = Literal["avsa_bin", "avc_bin", "yaw"]
_NEAR_DEG = 30.0
CHANCE = {
    "avsa_bin": {"accuracy": 0.5},
    "avc_bin": {"accuracy": 0.5},
    "yaw": {"mean_error_deg": 90.0, "median_error_deg": 90.0, "within_30_deg": _NEAR_DEG / 180},
}


class Pairs(NamedTuple):
    """Pictures and sounds of views [M, K, D], what is right about each pair [M] (1: they belong together; `yaw`:
    degrees) and which draw it is of [M]."""

    video: Tensor
    audio: Tensor
    answer: Tensor
    draw: Tensor


class Solved(NamedTuple):
    """A head's answers to the test pairs, what was right, and what that amounts to."""

    metrics: dict[str, float]
    guesses: Tensor  # [M]
    answers: Tensor  # [M]
    draws: Tensor  # [M] which test draw


class PairHead(nn.Module):
    """Features of a view's picture and sound [..., D] each -> [..., 2]: dropout, linear, ReLU, linear.

    The two outputs are the logits of wrong and right; for `yaw` a vector that points where the angle is.
    """

    def __init__(self, width: int, hidden: int = 512, dropout: float = 0.5):
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 2))

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        return self.layers(torch.cat([video, audio], -1))


def partners(groups: Tensor, generator: torch.Generator) -> Tensor:
    """For each of [N] another one, uniformly among those of other groups. Raises UsageError if there is one group."""
    if (groups == groups[0]).all():
        raise UsageError("avc_bin: a batch has clips of one source file only, so no other sound; raise the batch size")
    cpu = groups.cpu()
    found = torch.randint(len(cpu), (len(cpu),), generator=generator)
    while (same := cpu[found] == cpu).any():
        found[same] = torch.randint(len(cpu), (int(same.sum()),), generator=generator)
    return found.to(groups.device)


def pairs_of(task: Task, scenes: Scenes, generator: torch.Generator) -> Pairs:
    """What a head is asked about these draws. generator (CPU): draws the other sounds of `avc_bin`."""
    number = torch.arange(scenes.draws, device=scenes.row.device)
    if task == "yaw":
        return Pairs(scenes.video, scenes.turned, scenes.turn_deg, number)
    wrong = scenes.turned if task == "avsa_bin" else scenes.audio[partners(scenes.group, generator)]
    answer = torch.ones_like(number).repeat(2)
    answer[len(number) :] = 0
    return Pairs(scenes.video.repeat(2, 1, 1), torch.cat([scenes.audio, wrong]), answer, number.repeat(2))


def loss_of(task: Task, outputs: Tensor, answer: Tensor) -> Tensor:
    """Of outputs [M, K, 2]: cross-entropy of every view; for `yaw` one minus the cosine of the angle between the sum of
    the views' vectors and the right direction."""
    if task == "yaw":
        right = torch.stack([answer.deg2rad().cos(), answer.deg2rad().sin()], -1)
        return 1 - F.cosine_similarity(outputs.sum(1), right, dim=-1).mean()
    return F.cross_entropy(outputs.flatten(0, 1), answer.repeat_interleave(outputs.shape[1]))


def guess_of(task: Task, outputs: Tensor) -> Tensor:
    """Answers [M] from outputs [M, K, 2], averaged over the views: 0 or 1, for `yaw` degrees."""
    middle = outputs.mean(1)
    return torch.atan2(middle[:, 1], middle[:, 0]).rad2deg() if task == "yaw" else middle.argmax(1)


def measure(task: Task, guesses: Tensor, answers: Tensor) -> dict[str, float]:
    """Share of right answers; for `yaw` the error (0 to 180°): mean, median, share within 30°."""
    if task != "yaw":
        return {"accuracy": (guesses == answers).double().mean().item()}
    error_deg = angle_between_deg(guesses.double(), answers.double())
    return {
        "mean_error_deg": error_deg.mean().item(),
        "median_error_deg": error_deg.quantile(0.5).item(),
        "within_30_deg": (error_deg <= _NEAR_DEG).double().mean().item(),
    }


def angle_between_deg(first: Tensor, second: Tensor) -> Tensor:
    """The angle, 0 to 180°, between two angles in degrees."""
    return ((first - second + 180) % 360 - 180).abs()


def table_batches(scenes: Scenes, fit: HeadTraining, generator: torch.Generator) -> Iterator[Scenes]:
    """Batches of a table for all of `fit`: each pass in a new order; a rest that fills no batch waits for the next."""
    size = min(fit.batch_size, scenes.draws)
    for _ in range(fit.passes):
        order = torch.randperm(scenes.draws, generator=generator)
        for step in range(scenes.draws // size):
            yield scenes.take(order[step * size : (step + 1) * size])


def train_head(
    task: Task,
    head: PairHead,
    batches: Iterable[Scenes],
    fit: HeadTraining,
    *,
    steps_per_pass: int,
    generator: torch.Generator,
    others: Iterable[nn.Parameter] = (),
) -> list[float]:
    """Train the head in place on these batches of draws, and `others` that their features came from.

    Returns the loss of each step.
    """
    optimizer = torch.optim.Adam([*head.parameters(), *others], lr=fit.lr, weight_decay=fit.weight_decay)
    device = next(head.parameters()).device
    losses = []
    head.train()
    for step, scenes in enumerate(batches):
        rate = fit.lr * fit.drop ** sum(step >= after * steps_per_pass for after in fit.drop_at)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pairs = pairs_of(task, scenes.to(device), generator)
        loss = loss_of(task, head(pairs.video, pairs.audio), pairs.answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    head.eval()
    return losses


@torch.no_grad()
def judge(task: Task, head: PairHead, test: Scenes, seed: int) -> Solved:
    """The head's answers to the test draws, whose pairs depend on `seed` alone."""
    pairs = pairs_of(task, test, torch.Generator().manual_seed(seed))
    device = next(head.parameters()).device
    outputs = torch.cat(
        [
            head(video.to(device), audio.to(device)).cpu()
            for video, audio in zip(pairs.video.split(1024), pairs.audio.split(1024), strict=True)
        ]
    )
    guesses = guess_of(task, outputs)
    return Solved(measure(task, guesses, pairs.answer), guesses, pairs.answer, pairs.draw)


def solve(
    task: Task,
    train: Scenes,
    test: Scenes,
    fit: HeadTraining,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Solved:
    """Train a head on frozen features and ask it about others. Equal arguments give equal results."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = PairHead(train.video.shape[-1], fit.hidden, fit.dropout).to(device)
        steps = max(1, train.draws // fit.batch_size)
        train_head(task, head, table_batches(train, fit, generator), fit, steps_per_pass=steps, generator=generator)
    return judge(task, head, test, seed)
