"""The loss of every combination against the formulas written out in float64, one query and one candidate at a time."""

import math

import pytest
import torch
from task_tools import COMBINATIONS, STEPS, make_batch, make_task, run

from avssl.tasks.targets import draw_rows, gathered
from avssl.training.distributed import ProcessGroup

USABLE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12]
SECOND = make_batch(STEPS[1], seed=1)
SEED = 5


def unit(x):
    return torch.nn.functional.normalize(x.double(), dim=-1)


def slow_loss(task):
    """The loss of the batch SECOND, and the weights of its pairs."""
    config, rows = task.config, SECOND["row"].tolist()
    inputs = {name: SECOND[name].flatten(0, 1) for name in ("video", "audio")}
    with torch.no_grad():
        online = {name: unit(x) for name, x in task.model(**inputs).items()}
    slow = {name: x.double() for name, x in task.momentum_encoder(**inputs).items()} if hasattr(task, "queue") else None
    terms, scores = [], []
    for i, row in enumerate(rows):
        candidates, own = candidates_of(task, i, rows, online, slow)
        sample = {name: online[name][i] for name in online}
        terms.append(loss_of(task, row, sample, candidates, own))
        scores.append(float(own["video"] @ own["audio"]))
    weights = weights_of(task, scores) if config.weights else [1.0] * len(rows)
    return sum(w * term for w, term in zip(weights, terms, strict=True)) / sum(weights), weights


def candidates_of(task, i, rows, online, slow):
    """[(video target, audio target)], the own ones first; and the own slow targets."""
    config = task.config
    if config.targets == "bank":
        video, audio = (bank.memory.double() for bank in (task.video_bank, task.audio_bank))
        if config.negatives == "all":
            chosen = [rows[i], *(row for row in USABLE if row != rows[i])]
        else:
            queries = gathered(torch.tensor(rows), {}, ProcessGroup())
            positives = task.mining.positives if config.agreement else None
            chosen = draw_rows(queries, torch.tensor(USABLE), config.negatives, SEED, positives)[i].tolist()
            assert chosen[0] == rows[i] and rows[i] not in chosen[1:]
        found = [(video[row], audio[row]) for row in chosen]
        return found, {"video": video[rows[i]], "audio": audio[rows[i]]}
    side = slow or online
    chosen = [i, *(j for j, row in enumerate(rows) if row != rows[i])]
    found = [(side["video"][j], side["audio"][j]) for j in chosen]
    if slow:
        queue = task.queue
        kept = [j for j, row in enumerate(queue.rows.tolist()) if row not in (-1, rows[i])]
        found += [(queue.video[j].double(), queue.audio[j].double()) for j in kept]
    return found, {name: side[name][i] for name in side}


def loss_of(task, row, sample, candidates, own):
    config = task.config
    place = {"video": 0, "audio": 1}
    total = 0.0
    for source, other, share in (
        ("video", "audio", config.cross_share),
        ("audio", "video", config.cross_share),
        ("video", "video", 1 - config.cross_share),
        ("audio", "audio", 1 - config.cross_share),
    ):
        if share == 0:
            continue
        cosines = [float(sample[source] @ candidate[place[other]]) for candidate in candidates]
        mass = None
        if config.soft and source != other:
            mass = soft_of(config.soft, source, other, sample, own, candidates, place)
        total += share / 2 * direction(task, source, row, cosines, mass)
    if not config.agreement:
        return total
    chosen = task.mining.positives[row].tolist()
    mined = 0.0
    for name, bank in (("video", task.video_bank), ("audio", task.audio_bank)):
        pulls = [float(sample[name] @ bank.memory[j].double()) / config.temperature for j in chosen]
        negatives = candidates[1 : 1 + config.agreement.negatives]
        pushes = [float(sample[name] @ candidate[place[name]]) / config.temperature for candidate in negatives]
        if config.loss == "nce":
            noise = len(pushes) * float(task.partition)
            mined += sum(-math.log(math.exp(x) / (math.exp(x) + noise)) for x in pulls) / len(pulls) / 2
            mined += sum(-math.log(noise / (math.exp(x) + noise)) for x in pushes) / 2
        else:
            rest = sum(math.exp(x) for x in pushes)
            mined += sum(-math.log(math.exp(x) / (math.exp(x) + rest)) for x in pulls) / len(pulls) / 2
    return (1 - config.agreement.coefficient) * total + config.agreement.coefficient * mined


def direction(task, source, row, cosines, mass):
    config = task.config
    if config.temperatures:
        return isogclr(task.temperatures[source], row, cosines)
    if config.loss == "siglip":
        scale, bias = task.siglip_log_scale.exp().item(), task.siglip_bias.item()
        x = [scale * cosine + bias for cosine in cosines]
        return math.log1p(math.exp(-x[0])) + sum(math.log1p(math.exp(other)) for other in x[1:])
    x = [cosine / config.temperature for cosine in cosines]
    if config.loss == "nce":
        noise = (len(x) - 1) * float(task.partition)
        others = sum(-math.log(noise / (math.exp(other) + noise)) for other in x[1:])
        return -math.log(math.exp(x[0]) / (math.exp(x[0]) + noise)) + others
    if config.hard_share:
        kept = math.ceil(config.hard_share * (len(x) - 1))
        threshold = sorted(x[1:], reverse=True)[kept - 1]
        x = [x[0], *(other for other in x[1:] if other >= threshold)]
    log_sum = math.log(sum(math.exp(other) for other in x))
    target = [1.0] + [0.0] * (len(x) - 1)
    if mass is not None:
        target = [(1 - config.soft.share) * t + config.soft.share * m for t, m in zip(target, mass, strict=True)]
    return sum(t * (log_sum - other) for t, other in zip(target, x, strict=True))


def soft_of(soft, source, other, sample, own, candidates, place):
    """The table of methods A.5, term by term."""
    mine = {name: (sample if soft.query == "online" else own)[name] for name in sample}
    logits = []
    for j, candidate in enumerate(candidates):
        same, across = candidate[place[source]], candidate[place[other]]
        if soft.strategy == "bootstrapping":
            x = float(mine[source] @ across) / soft.temperature
        elif soft.strategy == "swapped":
            x = float(mine[other] @ same) / soft.temperature
        elif soft.strategy == "neighbor":
            x = float(mine[source] @ same) / soft.temperature
            x = -math.inf if j == 0 and not soft.neighbor_own else x
        else:
            x = float(own["video"] @ own["audio"]) / soft.agreement_temperature
            x += float(mine[other] @ same) / soft.temperature
            x += float(same @ across) / soft.agreement_temperature
        logits.append(x)
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def isogclr(state, row, cosines):
    """Options 5.2, from the state of the row before the step."""
    temperature, log_mean = float(state.temperature[row]), float(state.log_mean[row])
    h = [cosine - cosines[0] for cosine in cosines[1:]]
    mean = sum(math.exp(x / temperature) for x in h) / len(h)
    if log_mean > -math.inf:
        mean = (1 - state.average) * math.exp(log_mean) + state.average * mean
    return sum(math.exp(x / temperature) / mean * x for x in h) / len(h)


def weights_of(task, scores):
    config = task.config.weights
    if config.statistics == "bank":
        video, audio = (bank.memory.double() for bank in (task.video_bank, task.audio_bank))
        every = [float(video[row] @ audio[row]) for row in USABLE]
        mean = sum(every) / len(every)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in every) / len(every))
    else:
        mean = float(task.pair_weights.moments[1])
        deviation = math.sqrt(float(task.pair_weights.moments[2]) - mean**2)
    z = [(x - mean - config.shift * deviation) / (math.sqrt(config.sharpness) * deviation) for x in scores]
    phi = [(1 + math.erf(x / math.sqrt(2))) / 2 for x in z]
    if config.truncation == "clamp":
        return [max(config.minimum, x) for x in phi]
    return [config.minimum + (1 - config.minimum) * x for x in phi]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_loss_is_that_of_the_formulas(name):
    task = make_task(usable=USABLE, steps_per_pass=2.0, **COMBINATIONS[name])
    run(task, STEPS[:1])
    task.before_step(2, ProcessGroup())  # two steps are a pass: statistics are measured, positives mined
    expected, weights = slow_loss(task)
    output = task(SECOND, ranks=ProcessGroup(), seed=SEED)
    metrics = output["metrics"]
    assert float(output["loss"].detach()) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-4)
    if task.config.weights:
        assert float(metrics["weight_mean"]) == pytest.approx(sum(weights) / len(weights), rel=1e-4)
        for number in range(10):
            share = sum(min(int(10 * w), 9) == number for w in weights) / len(weights)
            assert float(metrics[f"weight_{number}0"]) == pytest.approx(share)
