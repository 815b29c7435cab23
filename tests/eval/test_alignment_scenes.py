"""Scenes in memory: what a view hears is what the product's front end makes of the turned waveform."""

import numpy as np
import pytest
import torch

from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.front_ends import BEAMS, create_front_end
from avssl.spatial.ambisonics import encode, rotate
from avssl.spatial.config import ViewConfig
from avssl.spatial.directions import direction, rotation
from avssl.spatial.hear import hear
from eval.alignment.scenes import (
    BANDS,
    COLUMNS_A_FRAME,
    FFT,
    FPS,
    HEARD_FRAMES,
    HOP,
    RANGE_DB,
    RATE_HZ,
    Level,
    Scenes,
    power,
)
from eval.alignment.views import Draw, heard, moments_of, seen, views_of

FRONT_END = {"fft": FFT, "hop": HOP, "bands": BANDS, "exponent": 2.0, "range_db": RANGE_DB, "mean_db": 0, "std_db": 1}
NO_LEVEL = Level(0.0, 1.0)
random = np.random.default_rng(0)


def scenes_of(sound, frames=8, width=64):
    """Scenes [N] of these sounds [N, 4, S] and a random picture each."""
    video = random.integers(0, 256, (len(sound), frames, width // 2, width, 3), dtype=np.uint8)
    return Scenes(video, np.stack([power(one) for one in sound]), NO_LEVEL)


@pytest.fixture(scope="module")
def sound():
    """Two sources that move in level, with a little noise, of 2 s: [2, 4, S]."""
    samples = round(2 * RATE_HZ)
    found = []
    for _ in range(2):
        monos = torch.from_numpy(random.normal(0, 0.1, (2, samples)).astype(np.float32)).cumsum(-1) * 0.01
        places = direction(torch.tensor(random.uniform(-180, 180, 2)), torch.tensor(random.uniform(-50, 50, 2)))
        found.append(encode(monos, places.float()).sum(0) + 0.001 * torch.randn(4, samples))
    return torch.stack(found).numpy()


@pytest.mark.parametrize("hearing", ["ambisonics", "stereo", "mono", "tetrahedral"])
def test_a_view_hears_what_the_front_end_makes_of_the_turned_waveform(sound, hearing):
    views = torch.tensor([[[30.0, 20, 0, 90, 90], [-100, -40, 0, 60, 60]]] * 2)
    turns = rotation(torch.tensor([0.0, 75.0]))
    draws = [Draw(each.numpy(), np.array([False, True]), np.array([2, 2])) for each in views]
    got = heard(scenes_of(sound), [0, 1], draws, hearing, turns)
    turned = rotate(torch.from_numpy(sound), turns)
    flips = torch.tensor([[False, True]] * 2)
    four_beams = hearing == "tetrahedral"
    channels = hear(turned, views, flips=flips, hearing="ambisonics" if four_beams else hearing)
    front_end_config = FrontEndConfig("beam_mel" if four_beams else "log_mel", FRONT_END)
    front_end = create_front_end(AudioInput(RATE_HZ, 2.0, channels.shape[2], front_end_config))
    whole = front_end(channels.flatten(0, 1)).unflatten(0, (2, 2))
    start = 2 * COLUMNS_A_FRAME
    expected = whole[..., start : start + HEARD_FRAMES * COLUMNS_A_FRAME, :]
    assert got.shape == (2, 2, channels.shape[2], HEARD_FRAMES * COLUMNS_A_FRAME, BANDS)
    # The range below the loudest is taken over the window here, over the whole sound there.
    assert (got - expected).abs().max() < 0.05


def test_four_beams_hold_the_whole_scene_and_the_first_looks_ahead():
    matrix = torch.cat([torch.ones(4, 1), BEAMS[:, [1, 2, 0]]], 1)
    assert torch.linalg.cond(matrix) < 2
    assert BEAMS[0].tolist() == [1, 0, 0]
    torch.testing.assert_close(BEAMS @ BEAMS.T, torch.full((4, 4), -1 / 3).fill_diagonal_(1.0))
    mirrored = BEAMS * torch.tensor([1.0, -1, 1])  # mirroring the scene only swaps two of them
    torch.testing.assert_close(mirrored[[0, 1, 3, 2]], BEAMS)


def test_turning_picture_sound_and_views_together_changes_nothing(sound):
    scenes = scenes_of(sound)
    around = Scenes(np.roll(scenes.video, scenes.video.shape[3] // 2, 3), scenes.power, NO_LEVEL)
    config = ViewConfig(views=3, fov_deg=(60, 90), flip=0.0)
    draws = [views_of(scenes, random, config) for _ in range(2)]
    away = [Draw(one.view_deg + np.float32([180, 0, 0, 0, 0]), one.flip, one.frame) for one in draws]
    assert (seen(scenes, [0, 1], draws) - seen(around, [0, 1], away)).abs().max() <= 1 / 64 + 1e-6
    half = rotation(torch.tensor([180.0, 180.0]))
    before, after = heard(scenes, [0, 1], draws, "mono"), heard(scenes, [0, 1], away, "mono", half)
    torch.testing.assert_close(before, after, atol=1e-2, rtol=0)
    alone = heard(scenes, [0, 1], draws, "mono", half)
    assert (alone - before).abs().mean() > 1


def test_magnitudes_of_ambisonics_cannot_tell_a_direction_from_its_antipode():
    mono = torch.randn(round(2 * RATE_HZ)) * 0.1
    here = direction(torch.tensor(40.0), torch.tensor(25.0))
    scenes = scenes_of(torch.stack([encode(mono, here), encode(mono, -here)]).numpy())
    draw = views_of(scenes, random, ViewConfig(views=4, flip=0.0))
    for hearing, same in (("ambisonics", True), ("tetrahedral", False), ("mono", False)):
        first, second = heard(scenes, [0, 1], [draw, draw], hearing)
        assert ((first - second).abs().max() < 0.01) == same, hearing


def test_moments_of_one_view_do_not_overlap(sound):
    scenes = scenes_of(sound)
    draw = moments_of(scenes, random, ViewConfig(views=1), 4)
    assert (draw.view_deg == draw.view_deg[0]).all() and (draw.flip == draw.flip[0]).all()
    starts = np.sort(draw.frame)
    assert (np.diff(starts) >= HEARD_FRAMES).all() and starts[-1] + HEARD_FRAMES <= scenes.video.shape[1]
    assert scenes.power.shape[1] == scenes.video.shape[1] * COLUMNS_A_FRAME and FPS * HOP * COLUMNS_A_FRAME == RATE_HZ
