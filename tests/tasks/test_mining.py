"""Positives by agreement: the published definition, what is mined when, and that mined rows are never drawn."""

import pytest
import torch
from task_tools import AGREEMENT, STEPS, make_task, run

from avssl.tasks import mining
from avssl.tasks.mining import Mining
from avssl.tasks.targets import draw_rows, gathered
from avssl.tasks.xid_config import AgreementConfig
from avssl.training.distributed import ProcessGroup

ROWS = 20


def banks(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.functional.normalize(torch.randn(ROWS, 4, generator=generator), dim=1) for _ in range(2)]


def by_definition(video, audio, usable, count):
    found = torch.zeros(ROWS, count, dtype=torch.int32)
    for i in usable:
        agreement = {j: min(float(video[i] @ video[j]), float(audio[i] @ audio[j])) for j in usable if j != i}
        found[i] = torch.tensor(sorted(sorted(agreement, key=agreement.get)[-count:]))
    return found


@pytest.mark.parametrize("usable", [list(range(ROWS)), [0, 2, 3, 5, 7, 8, 11, 13, 17, 19]])
def test_a_phase_begins_with_a_whole_mining(usable, monkeypatch):
    monkeypatch.setattr(mining, "BLOCK_ROWS", 6)
    (video, audio), part = banks(0), torch.tensor(usable)
    absent = torch.ones(ROWS, dtype=torch.bool)
    absent[part] = False
    found = Mining(AgreementConfig(positives=4, every_passes=1.0), ROWS, steps_per_pass=100)
    found.before_step(0, video, audio, usable=part, absent=absent, ranks=ProcessGroup())
    assert torch.equal(found.positives, by_definition(video, audio, usable, 4))


def test_a_later_mining_takes_a_block_a_step_and_then_replaces_the_old_one(monkeypatch):
    """20 rows in blocks of 6: from step 10 on it takes four steps; the memories are those of each step."""
    monkeypatch.setattr(mining, "BLOCK_ROWS", 6)
    usable = torch.arange(ROWS)
    found = Mining(AgreementConfig(positives=4, every_passes=2.0), ROWS, steps_per_pass=5)
    tables, mined = [], [by_definition(*banks(step), range(ROWS), 4) for step in range(20)]
    for step in range(20):
        found.before_step(step, *banks(step), usable=usable, absent=None, ranks=ProcessGroup())
        tables.append(found.positives.clone())
    assert all(torch.equal(tables[step], mined[0]) for step in range(13))
    expected = torch.cat([mined[10][:6], mined[11][6:12], mined[12][12:18], mined[13][18:]])
    assert all(torch.equal(tables[step], expected) for step in range(13, 20))


def test_a_mining_fits_into_a_short_period(monkeypatch):
    monkeypatch.setattr(mining, "BLOCK_ROWS", 1)
    found = Mining(AgreementConfig(positives=4, every_passes=1.0), ROWS, steps_per_pass=3)
    for step in range(6):
        found.before_step(step, *banks(step // 3), usable=torch.arange(ROWS), absent=None, ranks=ProcessGroup())
    assert torch.equal(found.positives, by_definition(*banks(1), range(ROWS), 4))


def test_mined_rows_and_the_row_itself_are_never_drawn():
    usable = torch.tensor([1, 2, 4, 5, 7, 8, 10, 11, 13])
    positives = torch.zeros(14, 3, dtype=torch.int32)
    positives[4], positives[13] = torch.tensor([1, 5, 13]), torch.tensor([2, 4, 11])
    queries = gathered(torch.tensor([4, 13]), {}, ProcessGroup())
    drawn = draw_rows(queries, usable, 4000, 3, positives)
    assert set(drawn[0, 1:].tolist()) == {2, 7, 8, 10, 11}
    assert set(drawn[1, 1:].tolist()) == {1, 5, 7, 8, 10}
    counts = drawn[0, 1:].bincount()
    assert counts[counts > 0].float().std() < 100  # 800 each; by chance 25


def test_positives_pull():
    """A step of agreement alone brings a query nearer to its mined rows."""
    task = make_task(agreement={**AGREEMENT, "coefficient": 1.0}, bank_momentum=0.9)
    losses = [metrics["loss"] for metrics in run(task, [STEPS[2]] * 12, optimizer=None)]
    assert losses[-1] < losses[0]
    assert "loss_v2a" not in run(task, STEPS[:1], first=1)[0]
