"""Rendered sounds: the tunes, the rooms, and what is said where something is missing."""

import numpy as np
import pytest

from avssl.errors import UsageError
from eval.separation import rendered
from eval.separation.rendered import INSTRUMENTS, in_a_room, tune
from eval.separation.study import Rendered

RATE_HZ = 16000


@pytest.mark.parametrize("name", sorted(INSTRUMENTS))
def test_tunes_fill_their_time_with_notes_that_the_instrument_has(name):
    instrument = INSTRUMENTS[name]
    random = np.random.default_rng(0)
    for _ in range(20):
        notes = tune(instrument, 3.0, random)
        begins_s = [note.begin_s for note in notes]
        assert begins_s[0] == 0 and begins_s == sorted(begins_s) and begins_s[-1] < 3.0
        assert 3.0 - begins_s[-1] <= instrument.length_s[1]
        for note in notes:
            assert note.begin_s < note.end_s <= note.begin_s + instrument.length_s[1] + 1e-9
            assert note.keys[0] in instrument.keys and 40 <= note.velocity < 127
            assert (len(note.keys) == 1 or instrument.chords) and len(set(note.keys)) == len(note.keys)


def test_rooms_add_what_comes_later_only():
    click = np.zeros(RATE_HZ, np.float32)
    click[4000] = 1
    random = np.random.default_rng(0)
    tails = []
    for _ in range(20):
        heard = in_a_room(click, RATE_HZ, random)
        assert heard.dtype == np.float32 and heard.shape == click.shape
        assert np.abs(heard).max() == pytest.approx(0.5)
        # The bent spectrum rings a little to both sides of the click; what is far before it is silent.
        assert np.square(heard[:3000]).sum() < 1e-3 * np.square(heard[3000:]).sum()
        tails.append(np.square(heard[4200:]).sum() / np.square(heard).sum())
    assert min(tails) < 0.02 and max(tails) > 0.1


def test_silence_stays_silent():
    assert not in_a_room(np.zeros(1000, np.float32), RATE_HZ, np.random.default_rng(0)).any()


def test_missing_fonts_packages_and_instruments_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv(rendered.VARIABLE, str(tmp_path))
    settings = Rendered(["none.sf2"], 1)
    with pytest.raises(UsageError, match=r"none\.sf2: there is no such sound font|needs the package tinysoundfont"):
        rendered.render(settings, ["Flute"], RATE_HZ, 0)
    with pytest.raises(UsageError, match="Kazoo: nothing is known here"):
        rendered.render(settings, ["Kazoo"], RATE_HZ, 0)


def test_a_font_plays_the_key_that_is_asked_for():
    pytest.importorskip("tinysoundfont", reason="the synthesiser is not installed")
    try:
        font = rendered.open_font("FluidR3_GM.sf2")
    except UsageError:
        pytest.skip("Debian's sound font fluid-soundfont-gm is not installed")
    only_a = rendered.Instrument((73,), (69,), (1.0, 1.0))  # a flute that knows 440 Hz
    sound = rendered.play(font, only_a, 2.0, np.random.default_rng(0))
    assert sound.shape == (2 * 44100,) and sound.dtype == np.float32
    peak_hz = np.abs(np.fft.rfft(sound)).argmax() / 2
    harmonic = round(peak_hz / 440)
    assert harmonic >= 1 and peak_hz / harmonic == pytest.approx(440, rel=0.04)
    after = np.frombuffer(font[0].generate(44100), np.float32)
    assert np.abs(after[8820:]).max() < 1e-3 * np.abs(sound).max()  # nothing of one tune is heard in the next
