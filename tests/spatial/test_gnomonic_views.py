"""Flat views: against the formulas of methods C.3 pixel by pixel, and by what must be seen."""

import math

import numpy as np
import pytest
import torch

from avssl.data.transforms import to_rgb
from avssl.errors import UsageError
from avssl.spatial.directions import picture_position, rotation
from avssl.spatial.views import see, source_positions

SOURCE = torch.tensor([[512, 1024]])


def view(azimuth=0.0, elevation=0.0, roll=0.0, across=90.0, down=None, dtype=torch.float32):
    return torch.tensor([[[azimuth, elevation, roll, across, across if down is None else down]]], dtype=dtype)


def sphere(height=128, width=256, dtype=torch.float64):
    """A float 'picture' [1, 1, H, W, 3] whose colours are the unit vector that each pixel's centre looks in."""
    azimuth = math.pi * (1 - 2 * (torch.arange(width, dtype=dtype) + 0.5) / width)
    elevation = math.pi / 2 * (1 - 2 * (torch.arange(height, dtype=dtype) + 0.5) / height)
    nu, phi = torch.meshgrid(elevation, azimuth, indexing="ij")
    return torch.stack([nu.cos() * phi.cos(), nu.cos() * phi.sin(), nu.sin()], -1)[None, None]


def random_views(count, seed=0, roll=True, dtype=torch.float64):
    random = np.random.default_rng(seed)
    low, high = [-180, -80, -180 * roll, 25, 25], [180, 80, 180 * roll, 100, 100]
    return torch.tensor(random.uniform(low, high, (1, count, 5)), dtype=dtype)


def test_released_reference_positions():
    """methods C.3: h = 0.25, aspect 1, centre (0.5, 0.5), 8 x 8."""
    found = source_positions(view(), (8, 8), SOURCE, projection="released")[0, 0]
    assert found[0, 0].tolist() == pytest.approx([0.394039, 0.323876], abs=1e-6)
    assert found[4, 0].tolist() == pytest.approx([0.394039, 0.5], abs=1e-6)
    assert found[0, 4].tolist() == pytest.approx([0.5, 0.288078], abs=1e-6)


@pytest.mark.parametrize(("nominal", "true"), [(0.0707 * 360, 25.0), (54.0, 50.5), (90.0, 76.3), (108.0, 86.6)])
def test_true_field_of_view(nominal, true):
    """From the left edge to the right edge of the picture, which the released corners give as columns 0 and w."""
    edges = source_positions(view(across=nominal, dtype=torch.float64), (2, 2), SOURCE, projection="released")
    assert 2 * 360 * (0.5 - edges[0, 0, 1, 0, 0].item()) == pytest.approx(true, abs=0.05)
    pixels = 4096
    centres = source_positions(view(across=nominal, dtype=torch.float64), (1, pixels), SOURCE)[0, 0, 0, :, 0]
    inside = 360 * (centres[-1] - centres[0]).item()
    assert inside == pytest.approx(nominal, abs=3 * nominal / pixels)


@pytest.mark.parametrize("source", [(512, 1024), (360, 640)])
def test_released_positions_are_the_formula(source):
    """methods C.3 with its centre on a whole source pixel, written as there, in float64 NumPy."""
    source_height, source_width = source
    for column, y, h, aspect in [(100, 0.33, 0.25, 1.2), (900 % source_width, 0.66, 0.1, 0.8), (0, 0.5, 0.2, 1.0)]:
        x, size = column / source_width, (6, 10)
        views = view((1 - 2 * x) * 180, (1 - 2 * y) * 90, 0.0, h * 360, h * 360 * aspect, torch.float64)
        found = source_positions(views, size, torch.tensor([source]), projection="released")[0, 0].numpy()
        l0 = math.pi * (y - 0.5)
        for r in range(size[0]):
            for c in range(size[1]):
                u = (2 * c / size[1] - 1) * math.pi * h
                t = (2 * r / size[0] - 1) * math.pi * h * aspect * (source_width / source_height) / 2
                rho = math.hypot(u, t) or 1e-12
                angle = math.atan(rho)
                lat = math.asin(math.cos(angle) * math.sin(l0) + t * math.sin(angle) * math.cos(l0) / rho)
                lon = math.atan2(
                    u * math.sin(angle),
                    rho * math.cos(l0) * math.cos(angle) - t * math.sin(l0) * math.sin(angle),
                )
                assert found[r, c, 1] == pytest.approx(0.5 + lat / math.pi, abs=1e-9)
                assert (found[r, c, 0] - x - lon / (2 * math.pi) + 0.5) % 1 == pytest.approx(0.5, abs=1e-9)


def test_released_longitude_is_a_whole_source_pixel():
    found = source_positions(view(azimuth=0.1, dtype=torch.float64), (2, 2), SOURCE, projection="released")
    centre_x = found[0, 0, 1, 1, 0].item() * 1024
    assert centre_x == pytest.approx(round(centre_x), abs=1e-9)
    exact = source_positions(view(azimuth=0.1, dtype=torch.float64), (1, 1), SOURCE)[0, 0, 0, 0, 0].item()
    assert exact == pytest.approx(0.5 - 0.1 / 360)


def test_views_of_a_sphere_of_directions_show_the_analytic_directions():
    """The crop of a coordinate picture gives back its directions, with roll, over the seam and near the poles."""
    views = random_views(8)
    found = see(sphere(512, 1024), views, (9, 14), dtype=torch.float64)[0, :, 0]
    for (azimuth, elevation, roll, across, down), picture in zip(views[0], found, strict=True):
        pose = rotation(azimuth, elevation, roll)
        for r, c in np.ndindex(9, 14):
            u = (2 * (c + 0.5) / 14 - 1) * math.tan(math.radians(across) / 2)
            t = (2 * (r + 0.5) / 9 - 1) * math.tan(math.radians(down) / 2)
            ray = pose @ torch.tensor([1.0, -u, -t], dtype=torch.float64)
            assert (picture[r, c] - ray / ray.norm()).abs().max() < 3e-5


def test_centre_pixel_is_the_view_s_centre():
    views = random_views(20, seed=1)
    positions = source_positions(views, (3, 3), SOURCE)[0, :, 1, 1]
    expected = picture_position(rotation(*views[0, :, :3].unbind(-1))[..., 0])
    torch.testing.assert_close(positions, expected)


def reference(video, views, size, projection):
    """One pixel of one frame after another, float64 NumPy: wrap in longitude, clamp in latitude."""
    video, (height, width) = video.numpy(), video.shape[2:4]
    source = torch.tensor([[height, width]] * len(video))
    positions = source_positions(views.double(), size, source, projection=projection).numpy()
    out = np.zeros((*views.shape[:2], video.shape[1], *size, video.shape[-1]))
    corner = 0.0 if projection == "released" else 0.5
    for b, k, t, r, c in np.ndindex(out.shape[:-1]):
        x = positions[b, k, r, c, 0] * width - corner
        y = min(max(positions[b, k, r, c, 1] * height - corner, 0.0), height - 1.0)
        left, top = math.floor(x), math.floor(y)
        for down in (0, 1):
            for across in (0, 1):
                weight = (1 - abs(x - left - across)) * (1 - abs(y - top - down))
                out[b, k, t, r, c] += weight * video[b, t, min(top + down, height - 1), (left + across) % width]
    return out


@pytest.mark.parametrize("projection", ["corrected", "released"])
def test_pictures_equal_the_slow_loop(projection):
    video = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 2, 16, 32, 3), np.uint8))
    views = torch.cat([random_views(3, 2, roll=False), random_views(3, 3, roll=False)])
    views[0, 0, 0], views[0, 1, 1] = 180.0, -85.0  # on the seam; at a pole
    expected = reference(video, views, (5, 7), projection)
    exact = see(video, views, (5, 7), projection=projection, dtype=torch.float64)
    assert exact.shape == (2, 3, 2, 5, 7, 3)
    np.testing.assert_allclose(exact.numpy(), expected, atol=1e-9)
    rounded = see(video, views.float(), (5, 7), projection=projection)
    assert rounded.dtype == torch.uint8
    assert np.abs(rounded.numpy() - expected).max() < 0.51


def test_the_seam_is_not_seen():
    """A picture turned by half the circle, seen from the opposite side, is the same view."""
    video = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 1, 32, 64, 3), np.uint8))
    behind = see(video, view(180.0), (16, 16), dtype=torch.float32)
    front = see(video.roll(32, dims=3), view(0.0), (16, 16), dtype=torch.float32)
    torch.testing.assert_close(behind, front, atol=2e-2, rtol=0)


def test_mirrored_scene_is_the_mirrored_view_of_the_mirrored_centre():
    video = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (1, 2, 32, 64, 3), np.uint8))
    views = random_views(4, 4)
    opposite = views * torch.tensor([-1.0, 1, -1, 1, 1])  # 1 - x; the other way round
    flips = torch.ones(1, 4, dtype=torch.bool)
    mirrored = see(video.flip(3), opposite, (8, 10), dtype=torch.float64)
    torch.testing.assert_close(see(video, views, (8, 10), flips=flips, dtype=torch.float64), mirrored)
    plain = see(video, views, (8, 10), dtype=torch.float64)
    torch.testing.assert_close(mirrored, plain.flip(-2))
    some = see(video, views, (8, 10), flips=torch.tensor([[True, False, True, False]]), dtype=torch.float64)
    torch.testing.assert_close(some[0, 1], plain[0, 1])
    torch.testing.assert_close(some[0, 2], mirrored[0, 2])


@pytest.mark.parametrize("planes", [False, True])
def test_a_batch_equals_its_clips_one_by_one(planes, monkeypatch):
    shape = (5, 2, 36, 48) if planes else (5, 2, 24, 48, 3)
    video = torch.from_numpy(np.random.default_rng(3).integers(0, 256, shape, np.uint8))
    views = torch.cat([random_views(3, seed) for seed in range(5)]).float()
    whole = see(video, views, (12, 16))
    alone = [see(video[b : b + 1], views[b : b + 1, k : k + 1], (12, 16)) for b in range(5) for k in range(3)]
    assert torch.equal(whole, torch.cat(alone).view_as(whole))
    monkeypatch.setattr("avssl.spatial.views._VALUES_AT_ONCE", 1)
    assert torch.equal(see(video, views, (12, 16)), whole)


def test_threads_change_nothing():
    video = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (3, 2, 24, 48, 3), np.uint8))
    views = torch.cat([random_views(4, seed) for seed in range(3)]).float()
    before, alone = torch.get_num_threads(), see(video, views, (9, 9))
    try:
        torch.set_num_threads(3)
        assert torch.equal(see(video, views, (9, 9)), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
@pytest.mark.parametrize("planes", [False, True])
def test_a_gpu_shows_the_same(planes):
    shape = (3, 2, 36, 48) if planes else (3, 2, 24, 48, 3)
    video = torch.from_numpy(np.random.default_rng(6).integers(0, 256, shape, np.uint8))
    views = torch.cat([random_views(4, seed) for seed in range(3)]).float()
    flips = torch.tensor([[True, False, True, False]] * 3)
    for projection in ("corrected", "released"):
        here = see(video, views, (8, 12), flips=flips, projection=projection)
        there = see(video.cuda(), views.cuda(), (8, 12), flips=flips.cuda(), projection=projection)
        off = (here.int() - there.cpu().int()).abs()
        assert there.dtype == torch.uint8 and off.max() <= 2 and (off > 1).float().mean() < 0.01


def test_padding_is_never_seen():
    video = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (2, 1, 24, 48, 3), np.uint8))
    padded = torch.full((2, 1, 40, 60, 3), 255, dtype=torch.uint8)
    padded[:, :, :24, :48] = video
    views = torch.cat([random_views(6, 5), random_views(6, 6)]).float()
    views[:, 0, 0] = 180.0
    sizes = torch.tensor([[24, 48]] * 2, dtype=torch.int32)
    assert torch.equal(see(padded, views, (8, 8), source_px=sizes), see(video, views, (8, 8)))


def test_planes_give_planes_that_convert_alike():
    """A view of yuv420p planes, converted, is near the view of the converted picture (chroma is bilinear here)."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(128), indexing="ij")
    light = (100 + 60 * torch.sin(columns * (2 * math.pi / 128)) * torch.cos(rows / 30)).round()
    colours = [(128 + 40 * torch.cos((columns + s) * (2 * math.pi / 128)))[::2, ::2].round() for s in (0, 30)]
    planes = torch.cat([part.flatten() for part in (light, *colours)]).to(torch.uint8).view(1, 1, 96, 128)
    views = random_views(6, 7).float()
    found = see(planes, views, (32, 40))
    assert found.shape == (1, 6, 1, 48, 40) and found.dtype == torch.uint8
    rgb = to_rgb(planes).permute(0, 1, 3, 4, 2)
    expected = see(rgb, views, (32, 40), dtype=torch.float32)[0].permute(0, 1, 4, 2, 3)
    assert (to_rgb(found[0]) - expected).abs().mean() < 1.5


def test_gradients_reach_pictures_and_views():
    video = sphere(8, 16).requires_grad_()
    views = random_views(2, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: see(v, views.detach(), (3, 4), dtype=torch.float64), (video,))
    assert torch.autograd.gradcheck(lambda w: see(video.detach(), w, (3, 4), dtype=torch.float64), (views,))


@pytest.mark.parametrize(
    ("video", "views", "size", "message"),
    [
        ((1, 2, 8, 16, 3), (1, 2, 4), (4, 4), r"views \[B, K, 5\]"),
        ((2, 2, 8, 16, 3), (1, 2, 5), (4, 4), "got"),
        ((1, 2, 12, 16), (1, 2, 5), (4, 5), "even sizes"),
    ],
)
def test_wrong_shapes_are_named(video, views, size, message):
    with pytest.raises(UsageError, match=message):
        see(torch.zeros(video, dtype=torch.uint8), torch.ones(views), size)
