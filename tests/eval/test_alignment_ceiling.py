"""What the sound of a view tells of what it shows: the truth it is held against, and the classifier."""

import numpy as np
import pytest
import torch

from avssl.spatial.directions import direction, rotation
from avssl.spatial.views import source_positions
from avssl.synthetic.scene360 import truth_row
from eval.alignment.ceiling import told, whereabouts, within
from eval.alignment.study import World
from eval.alignment.worlds import config_of


def test_what_is_within_a_view_is_what_its_pixels_show():
    view = torch.tensor([70.0, -15.0, 0.0, 90.0, 70.0])
    positions = source_positions(view[None, None], (9, 9), torch.tensor([[100, 200]]))[0, 0].flatten(0, 1)
    azimuth_deg, elevation_deg = (1 - 2 * positions[:, 0]) * 180, (1 - 2 * positions[:, 1]) * 90
    assert within(view, direction(azimuth_deg, elevation_deg)).all()
    outside = direction(torch.tensor([46.0, -46, 0, 0, 180]), torch.tensor([0.0, 0, 36, -36, 0]))  # from the view
    assert not within(view, outside @ rotation(70.0, -15.0).mT).any()
    assert not within(view, torch.full((2, 3), torch.nan)).any()


def test_objects_are_where_the_scenes_manifest_says():
    world = World("w", scenes=3, held_out=1)
    places = whereabouts(world, 0, 3)
    config = config_of(world, 0)
    row = truth_row(config, 2)
    names = config.class_names()
    assert np.isnan(places[2]).any((1, 2)).sum() == world.classes - len(row["objects"])
    for each in row["objects"]:
        expected = direction(torch.tensor(each["azimuth_deg"][:16]), torch.tensor(each["elevation_deg"][:16]))
        np.testing.assert_allclose(places[2, names.index(each["class"])], expected, atol=1e-3)


@pytest.mark.parametrize("tells", [True, False])
def test_the_classifier_finds_what_is_there_and_nothing_else(tells):
    generator = torch.Generator().manual_seed(0)

    def part(size):
        shown = (torch.rand(size, 3, generator=generator) < 0.4).float()
        sound = torch.randn(size, 2, 4, 40, generator=generator)
        if tells:
            sound[:, 1, :, :3] += 3 * shown[:, None]
        return {"x": sound}, shown

    auc = told([part(600), part(300)], "x", seed=0)
    assert auc > 0.97 if tells else abs(auc - 0.5) < 0.1
