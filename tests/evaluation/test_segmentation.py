"""Segmentation: counts against slow loops, maps by file, the pyramid's shapes and start."""

import numpy as np
import pytest
import torch
from PIL import Image

from avssl.errors import MediaError, UsageError
from avssl.evaluation.segmentation import NO_CLASS, SegmentationScore
from avssl.evaluation.segmentation_head import SegmentationHead
from avssl.evaluation.target_maps import TargetMaps, see_map
from avssl.spatial.views import see


def test_scores_are_those_of_loops():
    random = np.random.default_rng(0)
    classes, images = 5, 7
    target = random.integers(0, classes - 1, (images, 6, 8))  # the last class is never right
    target[random.random(target.shape) < 0.2] = NO_CLASS
    guess = (
        np.where(random.random(target.shape) < 0.6, target % 255, random.integers(0, classes, target.shape)) % classes
    )
    score = SegmentationScore([f"c{n}" for n in range(classes)])
    score.add(torch.from_numpy(guess[:3]), torch.from_numpy(target[:3]))
    score.add(torch.from_numpy(guess[3:]), torch.from_numpy(target[3:]))

    def iou(chosen, n):
        counted = target[chosen] != NO_CLASS
        both = ((target[chosen] == n) & (guess[chosen] == n) & counted).sum()
        either = (((target[chosen] == n) | (guess[chosen] == n)) & counted).sum()
        return both / either if either else None

    whole = [iou(slice(None), n) for n in range(classes)]
    pairs = [value for image in range(images) for n in range(classes) if (value := iou(image, n)) is not None]
    found = score.metrics()
    assert found["dataset_miou"] == pytest.approx(np.mean([value for value in whole if value is not None]))
    assert found["image_miou"] == pytest.approx(np.mean(pairs))
    counted = target != NO_CLASS
    assert found["pixel_accuracy"] == pytest.approx((guess == target)[counted].mean())
    assert [row["iou"] for row in score.by_class()] == [pytest.approx(value) for value in whole]


def test_guessing_the_commonest_class_reaches_what_is_said():
    target = torch.tensor([[[0, 0, 0, 1], [0, 2, NO_CLASS, 0]]])
    score = SegmentationScore(["a", "b", "c", "never"])
    score.add(torch.zeros_like(target), target)
    found = score.metrics()
    assert found == pytest.approx({"pixel_accuracy": 5 / 7, "dataset_miou": 5 / 21, "image_miou": 5 / 21})
    said = score.one_class_metrics()
    assert said == pytest.approx({key: found[key] for key in said})
    assert score.by_class()[3]["iou"] is None


@pytest.fixture
def maps(tmp_path):
    folder = tmp_path / "maps" / "clips" / "one"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((8, 16), number, np.uint8)).save(folder / f"{number:06d}.png")
    return tmp_path / "maps"


def test_maps_are_found_by_source_and_time(maps):
    targets = TargetMaps(maps, 4.0, 32)
    assert [int(targets.at("clips/one.mp4", time_s)[0, 0]) for time_s in (0.0, 0.2499, 0.25, 0.5)] == [0, 0, 1, 2]
    with pytest.raises(MediaError, match="no such target map"):
        targets.at("clips/one.mp4", 0.75)
    assert targets.path("/../../etc/x.mp4", 0).is_relative_to(maps)


def test_maps_that_are_none_are_refused(maps):
    Image.fromarray(np.full((4, 8), 40, np.uint8)).save(maps / "clips/one/000003.png")
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(maps / "clips/one/000004.png")
    (maps / "clips/one/000005.png").write_bytes(b"no picture")
    Image.fromarray(np.full((4, 8), NO_CLASS, np.uint8)).save(maps / "clips/one/000006.png")
    targets = TargetMaps(maps, 4.0, 32)
    for number, message in ((3, "number 40, but there are 32"), (4, "RGB"), (5, "cannot be read")):
        with pytest.raises(MediaError, match=message):
            targets.at("clips/one.mp4", number / 4)
    assert (targets.at("clips/one.mp4", 6 / 4) == NO_CLASS).all()
    with pytest.raises(UsageError, match="is no folder"):
        TargetMaps(maps / "nowhere", 4.0, 32)


@pytest.mark.parametrize("projection", ["corrected", "released"])
def test_views_of_maps_lie_where_those_of_pictures_do(projection):
    """A picture of two flat colours, and the same as a map: away from the border they agree pixel by pixel."""
    random = np.random.default_rng(1)
    blocks = torch.from_numpy(random.integers(0, 2, (4, 8), np.uint8)).repeat_interleave(16, 0).repeat_interleave(16, 1)
    views = torch.tensor([[[170.0, 20.0, 0.0, 90.0, 60.0], [-40.0, -50.0, 0.0, 40.0, 50.0]]])
    found = see_map(blocks, views[0], 32, projection)
    picture = (blocks * 200)[None, None, :, :, None].expand(1, 1, -1, -1, 3).contiguous()
    seen = see(picture, views, (32, 32), projection=projection, dtype=torch.float32)[0, :, 0, :, :, 0]
    sure = (seen < 1) | (seen > 199)
    assert sure.float().mean() > 0.8
    assert torch.equal(found[sure] == 1, seen[sure] > 100)


STAGES = [(16, 4), (24, 4), (32, 2), (48, 1)]


def pyramid(batch=2, sizes=(8, 4, 2, 1)):
    return [
        torch.randn(batch, channels, frames, size, size) for (channels, frames), size in zip(STAGES, sizes, strict=True)
    ]


@pytest.mark.parametrize("sizes", [(8, 4, 2, 1), (9, 5, 3, 2)])
def test_the_pyramid_gives_a_picture_and_all_of_it_learns(sizes):
    head = SegmentationHead(STAGES, 10, 5, 16, lateral=32, width=32)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    out = head(pyramid(sizes=sizes), torch.randn(2, 10))
    assert out.shape == (2, 5, 16, 16)
    out.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_time_starts_as_a_mean_and_convolutions_small():
    head = SegmentationHead(STAGES, 0, 5, 16)
    assert [weights.tolist() for weights in head.over_time] == [[1 / n] * n for _, n in STAGES]
    convolutions = [m for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 4 + 4 + (1 + 1 + 2 + 3) + 1
    assert max(m.weight.std().item() for m in convolutions) < 0.0015
    assert head.lateral[0].out_channels == 256 and head.classify.in_channels == 128


def test_what_is_heard_reaches_every_pixel():
    torch.manual_seed(0)
    head = SegmentationHead(STAGES, 3, 4, 8, lateral=32, width=32)
    maps = pyramid(2)
    apart = (head(maps, torch.zeros(2, 3)) - head(maps, 100 * torch.ones(2, 3))).abs().amax(1)
    assert (apart > 0).all()


def test_a_head_learns_what_is_there_to_see():
    """A class for each half of the picture, told by the sign of one channel of the finest maps."""
    torch.manual_seed(0)
    head = SegmentationHead(STAGES, 0, 2, 16, lateral=32, width=32)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for _ in range(60):
        maps, left = pyramid(4), torch.rand(4) < 0.5
        target = torch.zeros(4, 16, 16, dtype=torch.long)
        for number in range(4):
            target[number, :, :8] = int(left[number])
            target[number, :, 8:] = 1 - int(left[number])
        maps[0][:, 0] = 3 * (2.0 * target[:, None, ::2, ::2] - 1)
        logits = head(maps)
        loss = torch.nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits.argmax(1) == target).float().mean() > 0.9
