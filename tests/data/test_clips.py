"""The moments of a sample: inside the streams, offsets as the reference's, sound in step with the picture."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avssl.data import clips

lengths = st.floats(0.05, 20)
windows = st.floats(0.1, 4)


def reference_starts(places, video, audio, offset_s):
    """The rule as written down for the AVID code, one clip at a time."""
    swapped = audio.window_s < video.window_s
    long, short = (video, audio) if swapped else (audio, video)
    latest = min(long.end_s - long.window_s, short.end_s - short.window_s)
    t_long = max(latest, 0) * places[0]
    last = max(short.end_s - short.window_s, 0)
    low = min(max(t_long - offset_s, 0), last)
    high = max(low, min(t_long + long.window_s + offset_s - short.window_s, last))
    t_short = low + places[1] * (high - low)
    return (t_long, t_short) if swapped else (t_short, t_long)


@given(lengths, lengths, windows, windows, st.floats(0, 1), st.integers(0, 100))
def test_random_starts_follow_the_rule(video_end, audio_end, video_window, audio_window, offset_s, seed):
    video, audio = clips.Span(video_end, video_window), clips.Span(audio_end, audio_window)
    starts = clips.random_starts(np.random.default_rng(seed), 3, video, audio, offset_s)
    places = np.random.default_rng(seed).random((3, 2))
    expected = [reference_starts(place, video, audio, offset_s) for place in places]
    assert np.allclose(starts, expected)


@given(lengths, lengths, st.floats(0, 1), st.integers(0, 100))
def test_windows_stay_in_their_streams_and_near_each_other(video_end, audio_end, offset_s, seed):
    video, audio = clips.Span(video_end, 0.5), clips.Span(audio_end, 2.0)
    starts = clips.random_starts(np.random.default_rng(seed), 4, video, audio, offset_s)
    starts = np.array(starts)
    for column, span in zip(starts.T, (video, audio), strict=True):
        assert (column >= 0).all() and (column <= max(0, span.end_s - span.window_s) + 1e-9).all()
    if min(video_end, audio_end) > 2:
        assert (starts[:, 0] >= starts[:, 1] - offset_s - 1e-9).all()
        assert (starts[:, 0] + 0.5 <= starts[:, 1] + 2 + offset_s + 1e-9).all()


def test_random_starts_reach_the_whole_stream():
    spans = clips.Span(10, 0.5), clips.Span(10, 2.0)
    starts = np.array(clips.random_starts(np.random.default_rng(0), 4000, *spans, offset_s=0.5))
    assert starts[:, 1].min() < 0.05 and starts[:, 1].max() > 7.95
    lead = starts[:, 0] - starts[:, 1]
    assert lead.min() < -0.45 and lead.max() > 1.95
    assert abs(np.mean(lead[(starts[:, 1] > 1) & (starts[:, 1] < 7)]) - 0.75) < 0.05  # centred


def test_one_modality_uses_its_whole_stream():
    starts = np.array(clips.random_starts(np.random.default_rng(0), 2000, clips.Span(3, 0.5), None, 0.5))
    assert np.isnan(starts[:, 1]).all() and starts[:, 0].min() < 0.02 and 2.48 < starts[:, 0].max() <= 2.5
    starts = np.array(clips.random_starts(np.random.default_rng(0), 2000, None, clips.Span(3, 2), 0.5))
    assert np.isnan(starts[:, 0]).all() and 0.98 < starts[:, 1].max() <= 1


def test_even_starts_cover_the_sample_and_are_centred():
    starts = np.array(clips.even_starts(5, clips.Span(10, 0.5), clips.Span(10, 2.0)))
    assert np.allclose(starts[:, 1], [0, 2, 4, 6, 8]) and np.allclose(starts[:, 0], starts[:, 1] + 0.75)
    ten = clips.even_starts(10, clips.Span(5, 0.5), None)
    assert np.allclose([video_s for video_s, _ in ten], np.linspace(0, 4.5, 10))
    assert clips.even_starts(1, clips.Span(5, 1), None)[0][0] == 2


@given(st.floats(0, 100), st.floats(-1, 3), st.sampled_from([12.5, 15.0, 16.0, 24.0, 29.97, 30.0, 60.0]))
def test_snap_moves_both_by_less_than_a_frame(video_s, lead_s, fps):
    asked_s = max(0, video_s - lead_s)
    frame_s, audio_s = clips.snap((video_s, asked_s), fps)
    assert math.isclose(frame_s * fps, round(frame_s * fps), abs_tol=1e-6)
    assert -1e-6 / fps <= video_s - frame_s < 1 / fps
    assert audio_s == pytest.approx(max(0, asked_s - (video_s - frame_s)), abs=1e-9)


def test_a_start_on_a_frame_stays_there():
    for time_s in np.arange(500) / 30:
        assert clips.snap((time_s, time_s), 30) == pytest.approx((time_s, time_s), abs=1e-9)


@given(start=st.floats(0, 10), frames=st.integers(1, 32), end=st.floats(0.1, 12))
def test_frame_times_end_with_the_stream(start, frames, end):
    times = clips.frame_times(start, frames, 16.0, end)
    expected = [start + k / 16 for k in range(frames) if start + k / 16 < end - 1e-6] or [start]
    assert times[: len(expected)] == expected
    assert len(times) - len(expected) in (0, 1)  # one more only within rounding of the end


def test_a_second_of_video_has_a_second_of_frames():
    assert clips.frame_times(0.0, 32, 16.0, 1.0) == [k / 16 for k in range(16)]
    assert clips.frame_times(0.5, 32, 16.0, 1.0) == [0.5 + k / 16 for k in range(8)]
