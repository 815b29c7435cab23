"""Overlap-add: what does not change a window changes nothing, at any block size; latency; memory; the old way."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.errors import ConfigError, UsageError
from avssl.separation.overlap_add import Chunking, overlap_add, stream

SMALL = Chunking(window=40, overlap=20)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def same(windows):
    return windows


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 20), st.integers(1, 5), st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_nothing_done_changes_nothing_whatever_the_blocks(samples, overlap, batch, sizes):
    signal, chunking = noise(2, samples), Chunking(40, overlap)
    blocks, place = [], 0
    while place < samples:
        blocks.append(signal[:, place : place + sizes[len(blocks) % len(sizes)]])
        place += blocks[-1].shape[1]
    out = torch.cat(list(stream(blocks, same, chunking, batch=batch)), dim=-1)
    assert out.shape == signal.shape
    torch.testing.assert_close(out, signal, rtol=0, atol=1e-6)


@given(st.integers(1, 500))
def test_fades_sum_to_one_and_half_overlap_is_the_hann_window(overlap):
    rise = Chunking(2 * overlap, overlap).fade_in()
    torch.testing.assert_close(rise + rise.flip(0), torch.ones(overlap))
    place = (torch.arange(2 * overlap, dtype=torch.float64) + 0.5) / (2 * overlap)
    hann = 0.5 - 0.5 * torch.cos(2 * torch.pi * place)
    torch.testing.assert_close(torch.cat([rise, rise.flip(0)]).double(), hann, rtol=0, atol=1e-6)


def test_a_steady_tone_has_no_seams():
    tone = 0.5 * torch.sin(2 * torch.pi * 440 / 32000 * torch.arange(10 * 32000, dtype=torch.float64)).float()
    out = overlap_add(tone, same)
    assert (out - tone).abs().max() < 1e-6


def test_overlap_hides_a_step_between_windows_and_zero_overlap_is_the_plain_cut():
    def by_window():  # every window comes back as its number: the worst seam
        count = iter(range(100))
        return lambda windows: torch.stack([torch.full_like(window, float(next(count))) for window in windows])

    plain = overlap_add(torch.zeros(200), by_window(), Chunking(40, 0))
    assert torch.equal(plain, torch.arange(5.0).repeat_interleave(40))
    smooth = overlap_add(torch.zeros(200), by_window(), SMALL)
    assert smooth.diff().abs().max() < 0.1 and smooth[0] == 0 and smooth[-1] == 8


def test_the_last_window_is_filled_with_zeros_and_no_window_holds_only_what_is_known():
    seen = []
    overlap_add(torch.ones(81), lambda w: (seen.extend(w), w)[1], SMALL)
    assert [int(window.sum()) for window in seen] == [40, 40, 40, 21]
    seen.clear()
    overlap_add(torch.ones(80), lambda w: (seen.extend(w), w)[1], SMALL)
    assert [int(window.sum()) for window in seen] == [40, 40, 40]


def test_results_may_have_other_axes_and_windows_come_in_batches():
    sizes = []

    def two_sources(windows):
        sizes.append(len(windows))
        return torch.stack([windows.mean(1), 2 * windows.mean(1), 3 * windows.mean(1)], dim=1)

    signal = noise(2, 500)
    out = overlap_add(signal, two_sources, SMALL, batch=4)
    expected = torch.stack([k * signal.mean(0) for k in (1, 2, 3)])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert sizes == [4, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("batch", [1, 3])
def test_latency_is_as_stated(batch):
    came = 0

    def arriving():
        nonlocal came
        for _ in range(400):
            came += 1
            yield torch.zeros(1)

    gone = 0
    for part in stream(arriving(), same, SMALL, batch=batch):
        # What has come in but not gone out: the stated latency, and the one sample that shows there is more.
        assert came - gone <= SMALL.latency(batch) + 1
        gone += len(part)
    assert gone == 400


def test_holds_no_more_than_the_window_however_long_the_signal():
    alive = []

    def blocks():
        for _ in range(200):
            block = torch.zeros(1000)
            alive.append(weakref.ref(block))
            yield block
            del block

    most = 0
    for _ in stream(blocks(), lambda w: w.clone(), SMALL):
        most = max(most, sum(ref() is not None for ref in alive[-5:]))
    gc.collect()
    assert most <= 2 and not any(ref() is not None for ref in alive)


def test_refuses_what_cannot_be_joined():
    with pytest.raises(ConfigError, match="give 0 to 20"):
        Chunking(40, 21)
    with pytest.raises(UsageError, match="empty"):
        overlap_add(torch.zeros(0), same)
    with pytest.raises(UsageError, match="must stay"):
        overlap_add(torch.zeros(100), lambda windows: windows[..., :-1], SMALL)
    assert list(stream([], same)) == []
