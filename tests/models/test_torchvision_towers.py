"""torchvision's networks as towers: the user's checkpoints fit, features and facts are torchvision's."""

import re

import pytest
import torch

from avssl import compat
from avssl.models.registry import create_tower, tower_facts


@pytest.mark.parametrize("name", ["tv_r2plus1d_18", "tv_r3d_18", "tv_swin3d_t"])
@torch.inference_mode()
def test_a_torchvision_checkpoint_gives_torchvisions_features(name, tmp_path):
    """The file a user has: torchvision's whole network with its classifier, saved by torch."""
    network = getattr(compat.torchvision().models.video, name.removeprefix("tv_"))(weights=None, num_classes=7)
    torch.save({"model": network.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    tower = create_tower("video", name, weights=str(tmp_path / "checkpoint.pth")).eval()
    network.eval()
    x = torch.randn(2, 3, 4, 48, 48)
    classifier = network.fc if hasattr(network, "fc") else network.head
    torch.testing.assert_close(classifier(tower(x)), network(x), rtol=1e-5, atol=1e-5)


def test_our_mvit_is_torchvisions():
    with torch.device("meta"):
        theirs = compat.torchvision().models.video.mvit_v2_s(weights=None)
        ours = create_tower("video", "tv_mvit_v2_s").net
    theirs.head = torch.nn.Identity()
    assert str(ours) == str(theirs)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("tv_r2plus1d_18", "R2Plus1D_18_Weights"),
        ("tv_r3d_18", "R3D_18_Weights"),
        ("tv_mvit_v2_s", "MViT_V2_S_Weights"),
        ("tv_swin3d_t", "Swin3D_T_Weights"),
    ],
)
def test_torchvision_facts_are_torchvisions(name, preset):
    weights = getattr(compat.torchvision().models.video, preset).KINETICS400_V1
    transform, facts = weights.transforms(), tower_facts("video", name).input
    assert list(facts.mean) == transform.mean and list(facts.std) == transform.std
    assert [facts.size_px] * 2 == transform.crop_size and facts.resize_px == transform.resize_size[0]
    rate, length = re.search(r"frame_rate=([\d.]+).*clip_len=(\d+)", weights.meta["_docs"], re.S).groups()
    assert (facts.fps, facts.frames) == (float(rate), int(length))
