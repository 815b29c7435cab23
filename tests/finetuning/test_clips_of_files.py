"""Clips of files: moments, batches of any worker, bad files; maps kept once equal those computed anew."""

import numpy as np
import pytest
import torch
from coloured_clips import write_coloured

from avssl.finetuning.clips import FileClips, batches, clip_inputs, epoch_requests
from avssl.finetuning.decoded import DecodedClips
from avssl.finetuning.kept_maps import KeptMaps, LaterStages
from avssl.finetuning.training_config import ClipTraining
from avssl.models.classifier import ClassifierNet
from avssl.models.classifier_config import ClassifierConfig
from avssl.models.folder import load_network

FIT = ClipTraining(clips=2, test_clips=3, batch_size=4, workers=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    paths = [
        write_coloured(root / "long.mp4", "red", duration_s=3),
        write_coloured(root / "silent.mp4", "green", sound=False),
        write_coloured(root / "short.mp4", "blue", duration_s=0.3),
        root / "torn.mp4",
        root / "gone.mp4",
    ]
    paths[3].write_bytes(b"no video")
    return paths


@pytest.fixture(scope="module")
def net(tiny_model):
    base, _ = load_network(tiny_model)
    torch.manual_seed(1)
    made = ClassifierNet(ClassifierConfig(base.config, ["a", "b"], ["video", "audio"], unit=True))
    made.backbone.load_state_dict(base.state_dict())
    return made.eval()


def test_even_clips_cover_a_file_and_bad_ones_are_named(files, net):
    inputs = clip_inputs(net.config.backbone, ["video", "audio"], FIT)
    clips = FileClips(files, inputs, count=3)
    batch, failed = clips.__getitems__([(n, 0, 0) for n in range(5)])
    assert {failure.file for failure in failed} == {3, 4}
    assert batch["row"].tolist() == [0, 1, 2] and batch["video"].shape[:3] == (3, 3, 8)
    assert batch["audio_mask"].tolist() == [True, False, True]
    starts = batch["time_s"][0, :, 0].tolist()
    assert starts[0] == pytest.approx(0, abs=0.8) and starts[2] > starts[1] > starts[0]
    assert batch["audio"].shape == (3, 3, 1, 48000) and not batch["audio"][1].any()


def test_random_clips_depend_on_the_request_alone(files, net):
    inputs = clip_inputs(net.config.backbone, ["video", "audio"], FIT)
    clips = FileClips(files[:3], inputs, change=FIT.augment, seed=3)
    requests = epoch_requests(range(3), epoch=1, draws=2, batch_size=4, seed=3)
    assert sorted(request for part in requests for request in part) == [(f, 1, d) for f in range(3) for d in range(2)]
    here = [found.batch for found in batches(clips, requests, workers=0)]
    there = [found.batch for found in batches(clips, requests, workers=1)]
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        for name in one:  # a start without sound is nan
            torch.testing.assert_close(one[name], other[name], atol=0, rtol=0, equal_nan=True)
    alone = clips.__getitems__([requests[0][0]]).batch
    assert torch.equal(alone["crop_px"][0], here[0]["crop_px"][0])


@pytest.mark.parametrize("stage", ["conv3x", "conv5x"])
def test_kept_maps_give_what_the_whole_network_gives(files, net, stage, tmp_path):
    inputs = clip_inputs(net.config.backbone, ["video", "audio"], FIT)
    source = DecodedClips(files, inputs, FIT)
    whole = {}
    with torch.no_grad():
        for part in source.test(range(5)):
            for file in part.file.unique().tolist():
                whole[file] = net(**part.inputs)
        after = {"video": stage, "audio": "block3"}
        with KeptMaps(net, after, DecodedClips(files, inputs, FIT), range(5), FIT, tmp_path / "maps") as kept:
            assert sorted(kept.failed) == [3, 4]
            later = LaterStages(net, after)
            for part in kept.test(range(5)):
                torch.testing.assert_close(later(**part.inputs), whole[int(part.file[0])], atol=2e-2, rtol=2e-2)
            trained = [file for part in kept.train(range(5), 0) for file in part.file.tolist()]
        assert sorted(trained) == [0] * 3 + [1] * 3 + [2] * 3
    assert not (tmp_path / "maps").exists()


def test_the_same_frames_as_avssl_embed(files, net):
    """One clip of a file just as long as a clip: classify by clips or by the embedding's stream, the logits agree."""
    from avssl.finetuning.classifier import Classifier

    fit = ClipTraining(test_clips=1, workers=0)
    inputs = clip_inputs(net.config.backbone, ["video"], fit)
    only = ClassifierNet(ClassifierConfig(net.config.backbone, ["a", "b"], ["video"], unit=True)).eval()
    only.backbone.load_state_dict(net.backbone.state_dict())
    (part,) = DecodedClips([files[2]], inputs, fit).test([0])
    with torch.no_grad():
        expected = only(**part.inputs).softmax(-1)[0]
    found = Classifier(only).classify_file(files[2])
    np.testing.assert_allclose([found["a"], found["b"]], expected.numpy(), atol=0.02)
