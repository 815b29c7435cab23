"""The softmax loss over tiles: slow float64 references, any tile, gradients, memory, hostile inputs."""

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tools import random_units, slow_xid

from avssl.objectives.candidates import Columns
from avssl.objectives.scores import scores
from avssl.objectives.xid import Soft, soft_distribution, softmax_xid, xid

TAU = 0.07
B, J, D = 7, 11, 6


def make_columns(kind):
    positive = torch.tensor([0, 3, 8, 1, 10, 5, 5])
    if kind == "all":
        return Columns(positive)
    rows = torch.tensor([4, 2, 2, 7, 4, 9, 4, 7, 2, 1, 0])
    absent = torch.zeros(J, dtype=torch.bool)
    absent[[3, 6, 9]] = True
    return Columns(positive, rows, rows[positive], absent)


def visible_of(columns):
    hidden = columns.hidden(0, J)
    return [[j for j in range(J) if hidden is None or not hidden[i, j]] for i in range(len(columns.positive))]


def make_soft(kind, dtype=torch.float32):
    if kind == "none":
        return None
    queries, keys = random_units(B, D, seed=11, dtype=dtype), random_units(J, D, seed=12, dtype=dtype)
    bias = 3 * torch.randn(B, J, generator=torch.Generator().manual_seed(13), dtype=dtype)
    bias[0, 4] = bias[2, 8] = -torch.inf  # the second is an own column
    return {
        "plain": Soft(queries, keys, None, 0.1, 0.5),
        "shared bias": Soft(queries, keys, bias[1], 0.02, 0.3),
        "bias": Soft(queries, keys, bias, 0.05, 0.9),
        "without own": Soft(queries, keys, bias, 0.02, 0.5, own=False),
        "all soft": Soft(queries, keys, None, 0.1, 1.0, own=False),
    }[kind]


SOFTS = ["none", "plain", "shared bias", "bias", "without own", "all soft"]


@pytest.mark.parametrize("soft", SOFTS)
@pytest.mark.parametrize("kind", ["all", "some"])
@pytest.mark.parametrize("layout", ["shared", "own"])
def test_losses_and_gradients_equal_the_definition(layout, kind, soft):
    columns, soft = make_columns(kind), make_soft(soft)
    if layout == "own" and soft is not None:
        soft = soft._replace(keys=random_units(B, J, D, seed=14))
    queries = random_units(B, D, seed=1).requires_grad_()
    targets = random_units(*((J, D) if layout == "shared" else (B, J, D)), seed=2).requires_grad_()
    weights = torch.linspace(0.5, 2, B)

    found = xid(queries, targets, columns, temperature=TAU, soft=soft, tile=3)
    (found.loss * weights).sum().backward()
    losses, to_queries, to_targets = slow_xid(
        queries, targets, columns.positive.tolist(), visible_of(columns), TAU, soft
    )
    to_targets = to_targets * weights[:, None, None]
    if layout == "shared":
        to_targets = to_targets.sum(0)
    torch.testing.assert_close(found.loss.double(), losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(queries.grad.double(), to_queries * weights[:, None], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(targets.grad.double(), to_targets, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", ["shared", "own"])
def test_what_it_says_beside_the_loss(layout):
    columns, soft = make_columns("some"), make_soft("plain")
    queries = random_units(B, D, seed=1).requires_grad_()
    targets = random_units(J, D, seed=2)
    if layout == "own":
        targets, soft = targets.expand(B, J, D), soft._replace(keys=soft.keys.expand(B, J, D))
    found = xid(queries, targets, columns, temperature=TAU, soft=soft, tile=4)
    matrix = scores(queries, targets, TAU).detach().masked_fill(columns.hidden(0, J), -torch.inf)
    spread = soft_distribution(soft, columns)
    everyone = torch.arange(B)
    torch.testing.assert_close(found.own, matrix[everyone, columns.positive])
    torch.testing.assert_close(found.soft_own, spread[everyone, columns.positive])
    matrix[everyone, columns.positive] = -torch.inf
    torch.testing.assert_close(found.best_other, matrix.amax(1))
    assert not any(part.requires_grad for part in found[1:])
    assert xid(queries, targets, columns, temperature=TAU).soft_own is None


@given(st.integers(1, 40), st.sampled_from(SOFTS), st.sampled_from(["all", "some"]))
@settings(max_examples=40, deadline=None)
def test_tiles_of_any_size_give_the_same(tile, soft, kind):
    results = []
    for size in (tile, 1000):
        queries = random_units(B, D, seed=1, dtype=torch.float64).requires_grad_()
        targets = random_units(J, D, seed=2, dtype=torch.float64).requires_grad_()
        soft_here = make_soft(soft, torch.float64)
        found = xid(queries, targets, make_columns(kind), temperature=TAU, soft=soft_here, tile=size)
        found.loss.square().sum().backward()
        results.append([*(part for part in found if part is not None), queries.grad, targets.grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("soft", SOFTS)
def test_gradcheck(soft):
    soft = make_soft(soft, torch.float64)
    queries = random_units(B, D, seed=1, dtype=torch.float64).requires_grad_()
    targets = random_units(J, D, seed=2, dtype=torch.float64).requires_grad_()

    def loss(queries, targets):
        return xid(queries, targets, make_columns("some"), temperature=0.3, soft=soft, tile=4).loss

    assert torch.autograd.gradcheck(loss, (queries, targets))


def test_in_batch_gradient_flows_to_both_modalities():
    """Both directions over the same vectors: autograd adds what comes to a vector as query and as candidate."""
    gradients = []
    for tiled in (True, False):
        video, audio = (random_units(9, D, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2))
        columns = Columns(torch.arange(9))
        if tiled:
            losses = [xid(q, t, columns, temperature=TAU, tile=4).loss for q, t in ((video, audio), (audio, video))]
        else:
            matrix = video @ audio.T / TAU
            losses = [
                torch.nn.functional.cross_entropy(x, columns.positive, reduction="none") for x in (matrix, matrix.T)
            ]
        (losses[0].mean() + losses[1].mean()).backward()
        gradients.append((video.grad, audio.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-11)


def test_share_zero_is_plain_xid_bit_for_bit():
    for targets in (random_units(J, D, seed=2), random_units(B, J, D, seed=2)):
        results = []
        for soft in (None, make_soft("bias")._replace(share=0)):
            queries = random_units(B, D, seed=1).requires_grad_()
            loss = xid(queries, targets, make_columns("some"), temperature=TAU, soft=soft, tile=4).loss
            loss.sum().backward()
            results.append((loss, queries.grad))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_scores_and_gathered_candidates_give_the_same_loss():
    """`softmax_xid` on a matrix, [B, J, D] and the tiled [J, D] are one loss."""
    columns, soft = make_columns("some"), make_soft("without own")
    queries, targets = random_units(B, D, seed=1), random_units(J, D, seed=2)
    tiled = xid(queries, targets, columns, temperature=TAU, soft=soft, tile=4).loss
    own = xid(
        queries, targets.expand(B, J, D), columns, temperature=TAU, soft=soft._replace(keys=soft.keys.expand(B, J, D))
    ).loss
    matrix = scores(queries, targets, TAU).masked_fill(columns.hidden(0, J), -torch.inf)
    dense = softmax_xid(matrix, columns.positive, soft_distribution(soft, columns), soft.share)
    torch.testing.assert_close(own, tiled, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dense, tiled, rtol=1e-5, atol=1e-5)


def test_start_value_against_a_whole_bank():
    """Random unit vectors, D 128, tau 0.07, 1025 candidates: 7.72 (methods A.13)."""
    queries, bank = random_units(256, 128, seed=4), random_units(1025, 128, seed=5)
    loss = xid(queries, bank, Columns(torch.arange(256)), temperature=TAU).loss.mean()
    assert abs(loss - 7.72) < 3 / (math.sqrt(128) * TAU * math.sqrt(256))


def test_alone_and_without_soft_columns_stays_finite():
    """Nothing else to see: the loss is 0. All soft columns hidden: the one-hot target stays."""
    absent = torch.tensor([False, True, True])
    queries = random_units(2, D, seed=1).requires_grad_()
    targets = random_units(3, D, seed=2).requires_grad_()
    columns = Columns(torch.tensor([0, 0]), absent=absent)
    removed = Soft(queries, targets, torch.full((3,), -torch.inf), 0.02, 0.5)
    for soft in (None, removed, removed._replace(bias=None, own=False)):
        queries.grad = targets.grad = None
        found = xid(queries, targets, columns, temperature=TAU, soft=soft, tile=1)
        found.loss.sum().backward()
        assert torch.equal(found.loss, torch.zeros(2)) and (found.best_other == -torch.inf).all()
        assert queries.grad.abs().max() < 1e-5 and targets.grad.abs().max() < 1e-5
        assert soft is None or torch.equal(found.soft_own, torch.zeros(2))
    gathered = xid(queries, targets.expand(2, 3, D), columns, temperature=TAU, soft=removed._replace(keys=targets))
    assert torch.equal(gathered.loss, torch.zeros(2))


@pytest.mark.parametrize("soft", SOFTS)
def test_extreme_scores_stay_finite(soft):
    """A temperature of 0.001 puts scores at +-1000, far beyond the exponents of float32."""
    soft = make_soft(soft)
    queries, targets = random_units(B, D, seed=1).requires_grad_(), random_units(J, D, seed=2).requires_grad_()
    found = xid(
        queries, targets, make_columns("some"), temperature=0.001, soft=soft and soft._replace(temperature=0.001)
    )
    found.loss.sum().backward()
    assert all(torch.isfinite(x).all() for x in (found.loss, queries.grad, targets.grad))


@pytest.mark.parametrize("layout", ["shared", "own"])
@pytest.mark.parametrize("where", ["query", "target", "soft query", "soft key"])
def test_what_is_not_a_number_shows_in_the_loss(where, layout):
    """The loop skips steps by their loss: a broken embedding must not pass for a hidden candidate."""
    queries, targets, soft = random_units(B, D, seed=1), random_units(J, D, seed=2), make_soft("bias")
    broken = {"query": queries, "target": targets, "soft query": soft.queries, "soft key": soft.keys}[where]
    broken[3] = math.nan
    if layout == "own":
        targets, soft = targets.expand(B, J, D), soft._replace(keys=soft.keys.expand(B, J, D))
    loss = xid(queries, targets, make_columns("all"), temperature=TAU, soft=soft, tile=4).loss
    assert loss[3].isnan() and ("key" not in where or loss.isnan().all())
    if layout == "shared":
        queries.requires_grad_()
        xid(queries, targets, make_columns("all"), temperature=TAU, soft=soft, tile=4).loss.sum().backward()
        assert queries.grad[3].isnan().any()


def test_no_queries_and_one_candidate():
    targets = random_units(1, D).requires_grad_()
    queries = torch.zeros(0, D, requires_grad=True)
    found = xid(queries, targets, Columns(torch.zeros(0, dtype=torch.int64)), temperature=TAU)
    found.loss.sum().backward()
    assert found.loss.shape == (0,) and torch.equal(targets.grad, torch.zeros(1, D))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_tile_by_tile(dtype):
    queries, bank = random_units(B, D, seed=1).to(dtype).requires_grad_(), random_units(J, D, seed=2).to(dtype)
    soft = make_soft("bias")
    found = xid(queries, bank, make_columns("some"), temperature=TAU, soft=soft._replace(keys=bank), tile=4)
    wide = xid(
        queries.float(),
        bank.float(),
        make_columns("some"),
        temperature=TAU,
        soft=soft._replace(keys=bank.float()),
        tile=4,
    )
    assert found.loss.dtype == torch.float32 and torch.equal(found.loss, wide.loss)
    found.loss.sum().backward()
    assert queries.grad.dtype == dtype and torch.isfinite(queries.grad).all()


def test_autocast_changes_nothing():
    results = []
    for enabled in (False, True):
        queries, targets = random_units(B, D, seed=1).requires_grad_(), random_units(J, D, seed=2).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = xid(queries, targets, make_columns("all"), temperature=TAU, soft=make_soft("bias"), tile=4).loss
            loss.sum().backward()
        results.append((loss, queries.grad, targets.grad))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def bytes_saved(compute, *inputs):
    """Bytes of all storages that autograd keeps for backward, those of the inputs left out."""
    storages = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = compute()
    for tensor in inputs:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    loss.backward()
    return sum(storages.values())


@pytest.mark.parametrize("soft", [False, True])
def test_memory_kept_for_backward_in_the_batch(soft):
    """B = J = 4096, D = 256, both directions: at most 16 MiB beyond the inputs, where the plain loss keeps 128 MiB
    (256 with soft targets). It grows with B: a quarter of the size is a quarter of the memory."""
    kept = {}
    for batch in (1024, 4096):
        video, audio = (random_units(batch, 256, seed=s).requires_grad_() for s in (1, 2))
        agreement = (video * audio).detach().sum(1) / TAU
        columns = Columns(torch.arange(batch))

        def both(video=video, audio=audio, agreement=agreement, columns=columns):
            ways = ((video, audio), (audio, video))
            softs = [Soft(t, q, agreement, 0.02, 0.5) if soft else None for q, t in ways]
            losses = [xid(*way, columns, temperature=TAU, soft=s).loss for way, s in zip(ways, softs, strict=True)]
            return sum(loss.mean() for loss in losses)

        kept[batch] = bytes_saved(both, video, audio)
    assert kept[4096] <= 16 * 2**20
    assert kept[4096] == pytest.approx(4 * kept[1024], rel=0.01)


def test_a_bank_is_neither_copied_nor_kept():
    """All N rows as candidates: what is kept for backward does not grow with N, and the bank may change before it."""
    kept = {}
    for rows in (500, 5000):
        queries, bank = random_units(8, 16, seed=1).requires_grad_(), random_units(rows, 16, seed=2)
        columns = Columns(torch.arange(8), absent=torch.zeros(rows, dtype=torch.bool))
        soft = Soft(queries, bank, torch.zeros(rows), 0.02, 0.5)
        loss_of_bank = functools.partial(xid, queries, bank, columns, temperature=TAU, soft=soft)
        kept[rows] = bytes_saved(lambda loss=loss_of_bank: loss().loss.sum(), queries)
    assert kept[500] == kept[5000] == 8 * 16 * 4
    loss = xid(queries, bank, columns, temperature=TAU).loss.sum()
    expected = torch.autograd.grad(loss, queries, retain_graph=True)[0]
    bank.zero_()
    assert torch.equal(torch.autograd.grad(loss, queries)[0], expected)
