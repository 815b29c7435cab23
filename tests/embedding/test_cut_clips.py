import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.embedding.stream import cut_clips


def chunked(stream, sizes):
    start = 0
    for size in sizes:
        yield stream[start : start + size]
        start += size
    yield stream[start:]


@settings(max_examples=300, deadline=None)
@given(
    total=st.integers(1, 60),
    length=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 9), max_size=10),
    starts=st.sets(st.integers(0, 60)),
    picture=st.booleans(),
)
def test_clips_are_those_of_the_whole_stream(total, length, sizes, starts, picture):
    if picture:
        stream = np.arange(1, total + 1, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)
        padded = np.concatenate([stream, stream[-1:].repeat(length + 60, axis=0)])
    else:
        stream = np.arange(1, total + 1, dtype=np.float32).reshape(-1, 1)
        padded = np.concatenate([stream, np.zeros((length + 60, 1), np.float32)])
    starts = sorted(starts)
    chunks = (chunk for chunk in chunked(stream, sizes) if len(chunk))
    cut = dict(cut_clips(chunks, starts, length))
    assert list(cut) == [start for start in starts if start < total]
    for start in cut:
        assert np.array_equal(cut[start], padded[start : start + length])


def test_the_buffer_does_not_grow_with_the_stream():
    longest = 0

    def chunks():
        for _ in range(1000):
            yield np.zeros((10, 1), np.float32)

    for _, clip in cut_clips(chunks(), range(0, 9990, 5), 8):
        longest = max(longest, len(clip.base if clip.base is not None else clip))
    assert longest <= 30


def test_a_stream_that_gives_nothing_gives_no_clips():
    assert list(cut_clips(iter([]), [0, 5], 8)) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_is_missing_at_the_end_is_held_or_silent(dtype):
    stream = np.full((3, 2), 7, dtype)
    ((_, clip),) = cut_clips(iter([stream]), [1], 4)
    assert clip[:, 0].tolist() == [7, 7] + ([7, 7] if dtype == np.uint8 else [0, 0])
