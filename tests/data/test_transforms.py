"""Each device transform beside the obvious way to do it: one frame at a time, with torchvision or plain loops."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avssl import compat
from avssl.data import augment, collate, transforms
from avssl.data.config import AugmentConfig

SPEC = SimpleNamespace(size_px=24, resize_px=27, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def functional():
    compat.torchvision()
    from torchvision.transforms import functional

    return functional


def natural(generator, *shape):
    """Smooth random pictures [..., H, W, 3]: noise alone would hide interpolation errors and exaggerate others."""
    *lead, height, width, _ = shape
    coarse = torch.rand((int(np.prod(lead)), 3, 6, 6), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().byte().permute(0, 2, 3, 1).reshape(shape)


def make_batch(sizes, clips=2, frames=3, seed=0, config=None):
    generator, drawer = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    samples, collator = [], collate.Collator(len(sizes))
    for row, (height, width) in enumerate(sizes):
        pictures = natural(generator, clips, frames, height, width, 3).numpy()
        sample = collate.Sample(row, 0, [(0.0, 0.0)] * clips, list(pictures), (height, width))
        if config:
            sample.augmentation = augment.draw_video(drawer, config, clips, height, width)
        samples.append(sample)
        collator.add(sample)
    return {name: torch.from_numpy(array) for name, array in collator.arrays().items()}, samples


SIZES = [(32, 57), (57, 32), (40, 40), (26, 61)]


def test_random_crop_and_flip_equal_torchvision_frame_by_frame(functional):
    config = AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0)
    batch, samples = make_batch(SIZES, config=config)
    assert "jitter" not in batch
    prepared = transforms.prepare(batch, SPEC)["video"]
    assert prepared.shape == (4, 2, 3, 3, 24, 24) and prepared.dtype == torch.float32
    for b, sample in enumerate(samples):
        for k, clip in enumerate(sample.video):
            for t, frame in enumerate(clip):
                picture = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
                top, left, height, width = sample.augmentation["crop_px"][k].tolist()
                picture = functional.resized_crop(picture, top, left, height, width, [24, 24], antialias=True)
                if sample.augmentation["flip"][k]:
                    picture = functional.hflip(picture)
                picture = functional.normalize(picture, SPEC.mean, SPEC.std)
                torch.testing.assert_close(prepared[b, k, :, t], picture, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("resize_px", "size_px"), [(27, 24), (24, 24), (64, 56)])
def test_evaluation_equals_torchvision_resize_and_center_crop(functional, resize_px, size_px):
    spec = SimpleNamespace(**{**vars(SPEC), "resize_px": resize_px, "size_px": size_px})
    batch, samples = make_batch(SIZES)
    prepared = transforms.prepare(batch, spec)["video"]
    for b, sample in enumerate(samples):
        for k, clip in enumerate(sample.video):
            for t, frame in enumerate(clip):
                picture = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
                picture = functional.center_crop(functional.resize(picture, resize_px, antialias=True), size_px)
                picture = functional.normalize(picture, SPEC.mean, SPEC.std)
                torch.testing.assert_close(prepared[b, k, :, t], picture, atol=1e-4, rtol=1e-4)


def test_color_jitter_equals_torchvision_frame_by_frame(functional):
    config = AugmentConfig(contrast=1.0)
    batch, _ = make_batch([(20, 20)] * 12, config=config)
    pictures = transforms.to_rgb(batch["video"].flatten(0, 1)) / 255
    before = pictures.clone()
    jitter, order = batch["jitter"].flatten(0, 1), batch["jitter_order"].flatten(0, 1)
    changed = transforms.color_jitter(pictures, jitter, order)
    assert torch.equal(pictures, before)
    adjust = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ]
    for n, clip in enumerate(pictures):
        for t, frame in enumerate(clip):
            for number in order[n].tolist():
                frame = adjust[number](frame, float(jitter[n, number]))
            torch.testing.assert_close(
                changed[n, t], frame, atol=2e-4, rtol=1e-3
            )  # hue of near-greys is ill-conditioned


def test_hue_of_grey_black_and_pure_colours(functional):
    colors = torch.tensor([[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0.0]])
    pictures = colors.view(7, 1, 3, 1, 1)
    for shift in (-0.5, -0.2, 0.0, 0.1, 0.5):
        turned = transforms.adjust_hue(pictures, torch.full((7, 1, 1, 1, 1), shift))
        expected = torch.stack([functional.adjust_hue(picture, shift) for picture in pictures])
        torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


def test_every_order_of_jitter_comes_equally_often():
    drawn = augment.draw_video(np.random.default_rng(0), AugmentConfig(), 4800, 30, 30)
    _, counts = np.unique(drawn["jitter_order"], axis=0, return_counts=True)
    assert len(counts) == 24 and counts.min() > 130 and counts.max() < 270  # 200 expected
    low, high = drawn["jitter"].min(0), drawn["jitter"].max(0)
    assert np.allclose(low, [0.6, 0.6, 0.6, -0.2], atol=0.01) and np.allclose(high, [1.4, 1.4, 1.4, 0.2], atol=0.01)
    assert abs(drawn["flip"].mean() - 0.5) < 0.03


def test_boxes_lie_inside_and_have_the_wanted_areas():
    config, generator = AugmentConfig(), np.random.default_rng(0)
    boxes = np.stack([augment.random_box(generator, config, 128, 228) for _ in range(3000)])
    top, left, height, width = boxes.T
    assert (boxes >= 0).all() and (top + height <= 128).all() and (left + width <= 228).all()
    area, aspect = height * width / (128 * 228), width / height
    assert area.min() < 0.09 and area.max() > 0.7
    assert aspect.min() > 0.7 and aspect.max() < 1.4
    assert abs(np.log(aspect[area < 0.3]).mean()) < 0.02  # log-uniform: centred at square


@pytest.mark.parametrize(("height", "width", "expected"), [(10, 100, (10, 13)), (100, 10, (13, 10))])
def test_a_frame_that_no_box_fits_is_cropped_in_its_middle(height, width, expected):
    config = AugmentConfig(crop_area=(1.0, 1.0))
    top, left, h, w = augment.random_box(np.random.default_rng(0), config, height, width)
    assert (h, w) == expected
    assert abs((height - h) / 2 - top) <= 0.5 and abs((width - w) / 2 - left) <= 0.5


@pytest.mark.parametrize("config", [AugmentConfig(), None])
def test_padding_of_the_batch_never_shows(config):
    batch, _ = make_batch(SIZES, config=config)
    clean = transforms.prepare(batch, SPEC)["video"]
    poisoned = dict(batch, video=batch["video"].clone())
    for b, (height, width) in enumerate(SIZES):
        poisoned["video"][b, :, :, height:] = 255
        poisoned["video"][b, :, :, :, width:] = 255
    assert torch.equal(transforms.prepare(poisoned, SPEC)["video"], clean)


def test_clips_do_not_depend_on_their_neighbours():
    batch, _ = make_batch([(30, 40)] * 5, config=AugmentConfig())
    whole = transforms.prepare(batch, SPEC)["video"]
    for b in range(5):
        alone = transforms.prepare({name: value[b : b + 1] for name, value in batch.items()}, SPEC)["video"]
        torch.testing.assert_close(alone, whole[b : b + 1], atol=1e-5, rtol=0)


def test_gain_scales_each_window_and_leaves_the_input():
    audio = torch.randn(3, 2, 1, 50)
    gain = torch.rand(3, 2) + 0.5
    batch = {"audio": audio, "gain": gain}
    prepared = transforms.prepare(batch, SPEC)
    for b in range(3):
        for k in range(2):
            assert torch.equal(prepared["audio"][b, k], audio[b, k] * gain[b, k])
    assert batch["audio"] is audio
    assert transforms.prepare({"audio": audio}, SPEC)["audio"] is audio


def slow_rgb(y, u, v):
    """BT.601 limited range, as the standard writes it, for one pixel."""
    light, cb, cr = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    red, blue = light + 1.402 * cr, light + 1.772 * cb
    green = (light - 0.299 * red - 0.114 * blue) / 0.587
    return [min(max(255 * c, 0), 255) for c in (red, green, blue)]


def test_planes_become_the_colours_of_bt601():
    planes = torch.randint(0, 256, (1, 2, 12, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rgb = transforms.to_rgb(planes)
    assert rgb.shape == (1, 2, 3, 8, 6)
    for t in range(2):
        flat = planes[0, t].flatten().tolist()
        for y in range(8):
            for x in range(6):
                chroma = (y // 2) * 3 + x // 2
                expected = slow_rgb(flat[y * 6 + x], flat[48 + chroma], flat[60 + chroma])
                assert rgb[0, t, :, y, x].tolist() == pytest.approx(expected, abs=0.01)


def test_half_precision_training_does_not_touch_the_pictures():
    batch, _ = make_batch(SIZES, config=AugmentConfig())
    expected = transforms.prepare(batch, SPEC)["video"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transforms.prepare(batch, SPEC)["video"], expected)


@pytest.mark.gpu
@pytest.mark.parametrize("config", [AugmentConfig(), None])
def test_a_gpu_makes_the_same_pictures(config):
    batch, _ = make_batch(SIZES, config=config)
    pinned = {name: value.pin_memory() for name, value in batch.items()}
    on_gpu = transforms.prepare(transforms.to_device(pinned, "cuda"), SPEC)["video"].cpu()
    torch.testing.assert_close(on_gpu, transforms.prepare(batch, SPEC)["video"], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("augmented", [True, False])
def test_clips_prepared_together_are_those_prepared_one_by_one(augmented, monkeypatch):
    """A CPU takes one clip at a time, a GPU many, which then have boxes and orders of their own."""
    batch, _ = make_batch(SIZES, config=AugmentConfig() if augmented else None)
    alone = transforms.prepare(batch, SPEC)["video"]
    monkeypatch.setattr(transforms, "_CLIPS_AT_ONCE", {"cpu": 5})
    torch.testing.assert_close(transforms.prepare(batch, SPEC)["video"], alone, rtol=1e-5, atol=1e-5)
