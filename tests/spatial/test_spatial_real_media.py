"""The real chart clip (AVSSL_MEDIA): piano at azimuth +90, voice at -90, gulls at elevation +90."""

import torch

from avssl.media import open_media
from avssl.spatial.ambisonics import harmonics, project
from avssl.spatial.directions import direction
from avssl.spatial.formats import to_ambix

NAMES = ("piano", "voice", "gulls")


def test_each_source_is_loudest_in_its_direction(media_dir):
    with open_media(media_dir / "spatial" / "chart_piano-left_voice-right_gulls-up.mp4") as media:
        heard = media.audio_between(0.0, 10.0, rate_hz=48000, channels="all").samples
    sound = to_ambix(torch.from_numpy(heard), "youtube")
    sources = direction(torch.tensor([90.0, -90.0, 0.0]), torch.tensor([0.0, 0.0, 90.0]))
    # Three plane waves explain the four channels: what is left over is next to nothing.
    waves = harmonics(sources).T
    alone = torch.linalg.lstsq(waves, sound).solution
    assert (sound - waves @ alone).square().mean() < 0.01 * sound.square().mean()
    around = direction(torch.arange(-180.0, 180.0, 30.0)[:, None], torch.arange(-90.0, 91.0, 30.0)).flatten(0, 1)
    for name, source, own in zip(NAMES, sources, alone, strict=True):
        beams = project(sound, around)
        match = (beams * own).sum(-1) / own.square().sum()
        assert (around[match.argmax()] - source).norm() < 0.6, name
