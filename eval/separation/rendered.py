"""Rendered sounds of the instrument classes: short random melodies and beats that sound fonts play in random rooms.

They are no recordings, and nothing is judged on them. A handful of real clips of a class shows few pitches, players and
rooms; a sound font holds a sample of every few semitones, and each rendering is another tune in another room.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr

from avssl.errors import UsageError
from eval.separation.sounds import Sound
from eval.separation.study import Rendered

VARIABLE = "AVSSL_SOUND_FONTS"
_FOLDER = "/usr/share/sounds/sf2"  # where Debian's packages put them
_RATE_HZ = 44100
_VIBRATO = 1  # number of the controller
_INTERVALS = (3, 4, 5, 7, 9, 12, 16)  # of a chord above its lowest note, in semitones
_MOST_NOTES = 5  # in a chord
_BEND_HZ, _BEND_DB = (100, 300, 1000, 3000, 8000), 3.0
_PEAK = 0.5

Font = tuple[Any, int]  # the synthesiser and its number of the font


class Instrument(NamedTuple):
    """What may be played.

    programs: of General MIDI; of drums, kits. length_s: shortest and longest note. chords: the share of notes that are.
    """

    programs: tuple[int, ...]
    keys: tuple[int, ...]
    length_s: tuple[float, float]
    chords: float = 0.0
    drums: bool = False


_KITS = (0, 8, 16, 24, 25, 32, 40)  # standard, room, power, electronic, analogue, jazz, brush
INSTRUMENTS = {
    "Acoustic_guitar": Instrument((24, 25), tuple(range(40, 77)), (0.3, 2.5), chords=0.35),
    "Bass_drum": Instrument(_KITS, (35, 36), (0.3, 1.0), drums=True),
    "Cello": Instrument((42,), tuple(range(36, 70)), (0.3, 3.0), chords=0.05),
    "Clarinet": Instrument((71,), tuple(range(50, 87)), (0.2, 3.0)),
    "Double_bass": Instrument((32, 43), tuple(range(28, 56)), (0.3, 2.0)),
    "Flute": Instrument((73,), tuple(range(60, 94)), (0.2, 3.0)),
    "Hi_hat": Instrument(_KITS, (42, 44, 46), (0.15, 0.8), drums=True),
    "Saxophone": Instrument((64, 65, 66, 67), tuple(range(44, 85)), (0.2, 2.5)),
    "Snare_drum": Instrument(_KITS, (38, 40), (0.2, 1.0), drums=True),
    "Violin_or_fiddle": Instrument((40, 110), tuple(range(55, 94)), (0.2, 2.5), chords=0.1),
}


class Note(NamedTuple):
    begin_s: float
    end_s: float
    keys: list[int]
    velocity: int


def render(settings: Rendered, classes: list[str], rate_hz: int, seed: int) -> list[Sound]:
    """`settings.sounds` of each class, the fonts in turn.

    Raises UsageError where the synthesiser or a font is missing, or a class is no instrument known here.
    """
    for name in classes:
        if name not in INSTRUMENTS:
            raise UsageError(f"{name}: nothing is known here to render it with; known are {', '.join(INSTRUMENTS)}")
    fonts = [open_font(name) for name in settings.fonts]
    random = np.random.default_rng(np.random.SeedSequence((seed, 3)))
    sounds = []
    for label, name in enumerate(classes):
        for number in range(settings.sounds):
            dry = play(fonts[number % len(fonts)], INSTRUMENTS[name], settings.duration_s, random)
            wet = in_a_room(soxr.resample(dry, _RATE_HZ, rate_hz, quality="HQ"), rate_hz, random)
            sounds.append(Sound(f"rendered-{number:03d}", label, wet))
    return sounds


def play(font: Font, instrument: Instrument, duration_s: float, random: np.random.Generator) -> np.ndarray:
    """[S] float32 at 44.1 kHz: a tune of one of the instrument's programs."""
    synth, number = font
    bank, channel = (128, 9) if instrument.drums else (0, 0)
    there = [program for program in instrument.programs if synth.sfpreset_name(number, bank, program) is not None]
    program = int(random.choice(there or instrument.programs[:1]))
    synth.program_select(channel, number, bank, program, instrument.drums)
    synth.control_change(channel, _VIBRATO, int(random.integers(0, 64)))
    synth.set_tuning(channel, random.normal(0, 0.2))
    changes = []
    for note in tune(instrument, duration_s, random):
        for key in note.keys:
            changes += [(note.begin_s, key, note.velocity), (min(note.end_s, duration_s), key, 0)]
    parts, at = [], 0
    for time_s, key, velocity in [*sorted(changes), (duration_s, 0, 0)]:
        until = round(time_s * _RATE_HZ)
        if until > at:
            parts.append(np.frombuffer(synth.generate(until - at), np.float32).reshape(-1, 2).mean(1))
            at = until
        if velocity:
            synth.noteon(channel, key, velocity)
        else:
            synth.noteoff(channel, key)
    synth.sounds_off(channel)
    return np.concatenate(parts)


def tune(instrument: Instrument, duration_s: float, random: np.random.Generator) -> list[Note]:
    """Notes that follow each other around a random key, or beats of one drum; the last one may end later."""
    shortest_s, longest_s = instrument.length_s
    usual_s = shortest_s * (longest_s / shortest_s) ** random.random()
    low, high = instrument.keys[0], instrument.keys[-1]
    centre = random.uniform(low, high)
    held = 1.0 if random.random() < 0.7 else random.uniform(0.4, 0.9)  # legato or not
    notes, at_s = [], 0.0
    while at_s < duration_s:
        length_s = usual_s * 2 ** random.normal(0, 0.1 if instrument.drums else 0.5)
        length_s = min(max(length_s, shortest_s), longest_s)
        distance = np.abs(np.array(instrument.keys) - random.normal(centre, 4))
        keys = [instrument.keys[int(distance.argmin())]]
        if random.random() < instrument.chords:
            above = random.choice(_INTERVALS, random.integers(1, _MOST_NOTES), replace=False)
            keys += [keys[0] + int(interval) for interval in above]
        notes.append(Note(at_s, at_s + held * length_s, keys, int(random.integers(40, 127))))
        at_s += length_s
    return notes


def in_a_room(sound: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    """The sound with the decaying noise of a random room behind it, and its spectrum bent by a few dB, peak at 0.5."""
    decay_s = 10 ** random.uniform(-1.0, 0.0)  # to -60 dB
    time_s = np.arange(round(decay_s * rate_hz)) / rate_hz
    echo = random.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    echo *= 10 ** (random.uniform(-25, -3) / 20) / np.linalg.norm(echo)
    echo[0] += 1
    length = len(sound) + len(echo)
    spectrum = np.fft.rfft(sound, length) * np.fft.rfft(echo, length)
    frequency_hz = np.fft.rfftfreq(length, 1 / rate_hz).clip(min=1)
    gain_db = np.interp(np.log(frequency_hz), np.log(_BEND_HZ), random.normal(0, _BEND_DB, len(_BEND_HZ)))
    wet = np.fft.irfft(spectrum * 10 ** (gain_db / 20), length)[: len(sound)]
    return (wet * (_PEAK / max(np.abs(wet).max(), 1e-6))).astype(np.float32)


def open_font(name: str) -> Font:
    """A synthesiser with a font of the fonts' folder. Raises UsageError where either is missing."""
    path = Path(os.environ.get(VARIABLE, _FOLDER)) / name
    try:
        tinysoundfont = importlib.import_module("tinysoundfont")
    except ImportError as error:
        raise UsageError(
            f"rendering needs the package tinysoundfont ({error}); pip install --no-deps tinysoundfont"
        ) from error
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such sound font; install Debian's packages fluid-soundfont-gm and timgm6mb-soundfont,"
            f" or set {VARIABLE} to the folder that holds it"
        )
    synth = tinysoundfont.Synth(gain=-6.0, samplerate=_RATE_HZ)
    return synth, synth.sfload(str(path))
