import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.embedding.windows import ClipGrid, Window, clips_in_order, plan_windows


def spans(duration_s, window_s=2.0, hop_s=1.0):
    return [(window.start_s, window.end_s) for window in plan_windows(duration_s, window_s, hop_s)]


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (0.04, [(0, 0.04)]),
        (1.5, [(0, 1.5)]),
        (2.0, [(0, 2)]),
        (2.02, [(0, 2)]),  # one frame more than a window is not worth a row
        (2.5, [(0, 2), (1, 2.5)]),
        (4.0, [(0, 2), (1, 3), (2, 4)]),
    ],
)
def test_windows_of_two_seconds_every_second(duration_s, expected):
    assert spans(duration_s) == expected


def test_windows_with_gaps_start_only_inside_the_file():
    assert spans(9.5, window_s=1, hop_s=3) == [(0, 1), (3, 4), (6, 7), (9, 9.5)]
    assert spans(9.0, window_s=1, hop_s=3) == [(0, 1), (3, 4), (6, 7)]


def test_times_are_not_accumulated():
    starts = [start for start, _ in spans(3600.0, window_s=1.0, hop_s=0.1)]
    assert starts[-1] == 3599.0
    assert all(start == round(k * 0.1, 6) for k, start in enumerate(starts))


positive = st.floats(0.02, 50)


@settings(max_examples=300, deadline=None)
@given(duration_s=st.floats(0.01, 100), window_s=positive, hop_s=positive)
def test_windows_cover_the_file_up_to_a_tenth_of_a_hop(duration_s, window_s, hop_s):
    windows = spans(duration_s, window_s, hop_s)
    for number, (start_s, end_s) in enumerate(windows):
        assert start_s == pytest.approx(number * hop_s, abs=1e-6)
        assert start_s < duration_s
        assert end_s == pytest.approx(min(start_s + window_s, duration_s), abs=2e-6)
    assert all(end_s < duration_s for _, end_s in windows[:-1])
    covered_s = max(windows[-1][1], len(windows) * hop_s)
    assert duration_s - covered_s < max(0.1 * min(window_s, hop_s), 1e-6) + 1e-5


def test_clips_that_fit_tile_the_window():
    grid = ClipGrid(rate=16, length=8, start_s=0, end_s=10)
    assert grid.starts(Window(0, 2)) == [0, 8, 16, 24]
    assert grid.starts(Window(1, 3)) == [16, 24, 32, 40]  # two of them shared with the window before


def test_a_clip_longer_than_the_window_is_centred_and_kept_inside_the_stream():
    grid = ClipGrid(rate=10, length=20, start_s=0, end_s=10)
    assert grid.starts(Window(4, 5)) == [35]
    assert grid.starts(Window(0, 1)) == [0]
    assert grid.starts(Window(9, 10)) == [80]


def test_a_stream_shorter_than_a_clip_gives_its_first_step():
    grid = ClipGrid(rate=10, length=20, start_s=0, end_s=0.5)
    assert grid.total == 5
    assert grid.starts(Window(0, 0.5)) == [0]


def test_a_stream_is_absent_where_it_covers_less_than_a_tenth():
    grid = ClipGrid(rate=16, length=8, start_s=3.0, end_s=6.1)
    assert grid.starts(Window(0, 2)) == []
    assert grid.starts(Window(1.05, 3.05)) == []
    assert grid.starts(Window(2, 4)) != []
    assert grid.starts(Window(6, 8)) == []


@settings(max_examples=300, deadline=None)
@given(
    rate=st.sampled_from([3.0, 16.0, 25.0]),
    length=st.integers(1, 40),
    start_s=st.floats(0, 5),
    lasts_s=st.floats(0.05, 30),
    after_s=st.floats(0, 5),
    window_s=st.floats(0.1, 8),
    hop_s=st.floats(0.1, 8),
)
def test_clips_come_in_order_and_are_those_of_the_windows(rate, length, start_s, lasts_s, after_s, window_s, hop_s):
    grid = ClipGrid(rate, length, start_s, start_s + lasts_s)
    windows = list(plan_windows(start_s + lasts_s + after_s, window_s, hop_s))
    clips = list(clips_in_order(grid, windows))
    assert clips == sorted({start for window in windows for start in grid.starts(window)})
    earliest = 0
    for window in windows:
        starts = grid.starts(window)
        assert grid.earliest(window) >= earliest  # what a window gives up, no later window asks for
        earliest = grid.earliest(window)
        assert all(start >= earliest for start in starts)
        for start in starts:
            assert 0 <= start <= max(0, grid.total - length)
        part_s = min(window.end_s, grid.end_s) - max(window.start_s, grid.start_s)
        if starts and part_s * rate >= length:  # clips that fit lie within the window, up to rounding to the grid
            fit = part_s * rate / length
            assert math.floor(fit - 1e-4) <= len(starts) <= math.floor(fit + 1e-4)
            assert starts[0] / rate + start_s >= max(window.start_s, start_s) - 0.5 / rate - 1e-6
            assert (starts[-1] + length) / rate + start_s <= window.end_s + 1.0 / rate + 1e-6
