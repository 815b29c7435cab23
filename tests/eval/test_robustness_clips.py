"""Clips of the study: pictures and sounds are cut at the same time, wrong sounds are where the truth says."""

import numpy as np
import pytest
import torch

from eval.robustness.clips import (
    BANDS,
    FPS,
    FRAMES,
    HOPS_A_FRAME,
    RATE_HZ,
    SIDE_PX,
    STORED_PX,
    augmented,
    centred,
    make_clips,
)
from eval.robustness.real import wrong_sounds
from eval.robustness.study import World
from eval.robustness.worlds import load_world

FRAMES_STORED = 8


def counting_clips(number=3):
    """Frame t of clip i has the grey value 10 i + t; its sound is a tone that is loud during frame i only."""
    video = np.empty((number, FRAMES_STORED, STORED_PX, STORED_PX, 3), np.uint8)
    samples = round(RATE_HZ / FPS)
    sound = np.zeros((number, FRAMES_STORED * samples), np.float32)
    tone = np.sin(2 * np.pi * 440 * np.arange(samples) / RATE_HZ).astype(np.float32)
    for clip in range(number):
        video[clip] = (10 * clip + np.arange(FRAMES_STORED))[:, None, None, None]
        sound[clip, clip * samples : (clip + 1) * samples] = tone
    return make_clips(video, sound, np.arange(number), np.arange(number))


@pytest.mark.parametrize("frame", [0, 2, FRAMES_STORED - FRAMES])
def test_picture_and_sound_are_of_the_same_second(frame):
    clips, rows = counting_clips(), torch.tensor([2, 0, 1])
    video, sound = centred(clips, rows, frame)
    assert video.shape == (3, 3, FRAMES, SIDE_PX, SIDE_PX)
    assert sound.shape == (3, 1, FRAMES * HOPS_A_FRAME, BANDS)
    for place, row in enumerate(rows.tolist()):
        grey = 10 * row + frame + torch.arange(FRAMES)
        torch.testing.assert_close((video[place, 0, :, 0, 0] + 2) * 64, grey.float())
        loudness = sound[place, 0].mean(1).unflatten(0, (FRAMES, HOPS_A_FRAME))[:, 2]  # away from the borders
        if frame <= row < frame + FRAMES:
            assert loudness.argmax() == row - frame
        else:
            assert loudness.max() < 0.5


def test_augmented_batches_depend_on_the_generator_alone():
    clips, rows = counting_clips(), torch.tensor([1, 1])
    batch, again = (augmented(clips, rows, np.random.default_rng(5)) for _ in range(2))
    assert batch["video"].shape == (2, 1, 3, FRAMES, SIDE_PX, SIDE_PX)
    assert batch["audio"].shape == (2, 1, 1, FRAMES * HOPS_A_FRAME, BANDS)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert not torch.equal(batch["video"][0], batch["video"][1])


def test_worlds_of_a_seed_differ_only_in_who_is_heard():
    settings = {"clips": 24, "held_out": 8, "classes": 4, "variation": 0.2, "noise": 0.5}
    clean, noisy = (load_world(World("w", mismatch=share, **settings), seed=3) for share in (0.0, 0.5))
    train, wrong = noisy.train, noisy.train.mismatched
    assert wrong.sum() == 12 and not noisy.held_out.mismatched.any() and not clean.train.mismatched.any()
    assert np.array_equal(clean.train.video, train.video) and torch.equal(clean.train.label, train.label)
    assert torch.equal(train.heard != train.label, wrong), "a wrong sound is of another class"
    assert np.array_equal(clean.train.sound[~wrong], train.sound[~wrong])
    assert not any(np.array_equal(clean.train.sound[row], train.sound[row]) for row in wrong.nonzero()[:, 0].tolist())
    assert np.array_equal(clean.held_out.video, noisy.held_out.video)


def test_wrong_sounds_are_exactly_as_many_and_of_other_classes():
    labels = np.repeat(np.arange(3), [5, 3, 2])
    sound_of = wrong_sounds(labels, 0.4, seed=1)
    wrong = sound_of != np.arange(10)
    assert wrong.sum() == 4 and (labels[sound_of] != labels)[wrong].all()
    assert np.array_equal(sound_of, wrong_sounds(labels, 0.4, seed=1))
    assert not np.array_equal(sound_of, wrong_sounds(labels, 0.4, seed=2))
