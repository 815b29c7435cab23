"""Which of several sound streams is read: the best one, or the one that the caller numbers."""

import functools
import io

import av
import numpy as np
import pytest

from avssl.errors import MediaError
from avssl.media import open_media

RATE_HZ = 16000
TONES_HZ = (250, 1000, 3000)


@functools.cache
def three_tones():
    """A Matroska file whose n-th sound stream is a tone of TONES_HZ[n]; the last one has two channels."""
    buffer = io.BytesIO()
    time_s = np.arange(RATE_HZ) / RATE_HZ
    with av.open(buffer, "w", format="matroska") as container:
        layouts = ["mono", "mono", "stereo"]
        streams = [container.add_stream("pcm_s16le", rate=RATE_HZ, layout=layout) for layout in layouts]
        for stream, tone_hz, layout in zip(streams, TONES_HZ, layouts, strict=True):
            tone = (8000 * np.sin(2 * np.pi * tone_hz * time_s)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.repeat(tone, 1 + (layout == "stereo"))[None], "s16", layout)
            frame.sample_rate = RATE_HZ
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    return buffer.getvalue()


def loudest_hz(media):
    sound = media.audio_between(0.0, 1.0, rate_hz=RATE_HZ, channels="mono").samples[0]
    return int(np.abs(np.fft.rfft(sound)).argmax())


@pytest.mark.parametrize("number", range(3))
def test_the_stream_asked_for_is_read(number):
    with open_media(three_tones(), audio_stream=number) as media:
        assert loudest_hz(media) == TONES_HZ[number]
        assert media.info.audio.index == number and media.info.audio_streams == 3


def test_without_a_number_it_is_the_best():
    with open_media(three_tones()) as media:
        assert loudest_hz(media) == TONES_HZ[2]  # the most channels


@pytest.mark.parametrize("number", [3, -1])
def test_a_number_that_is_not_there_is_named(number):
    with pytest.raises(MediaError, match=f"tones.mkv: has no sound stream number {number}, but 3") as caught:
        open_media(three_tones(), name="tones.mkv", audio_stream=number)
    assert caught.value.reason == "no-audio"
