"""The page of 360° clips in headless Chromium: it shows, it plays, it fits, it loads nothing, and names stay names."""

import time

import numpy as np
import pytest
import torch
from browsers import assert_sound_and_alone, needs_browser, opened
from scene_shards import SCENES, tiny_model, write_scene_shards

from avssl import files
from avssl.evaluation.scene_page import (
    MAP_PX,
    PITCHES_DEG,
    YAWS_DEG,
    curve_plot,
    heat_cells,
    outline,
    page_turns,
    page_views,
    write_page,
)
from avssl.evaluation.scenes import scene_data
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.spatial.config import ViewConfig
from avssl.spatial.directions import angles_deg
from avssl.synthetic.scene360 import MANIFEST

NASTY = "<script>document.title='hacked'</script><img src=x onerror=document.title='hacked'>\"'&amp;{{ 7*7 }}"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a rendered scene with a nasty label, by a model of random weights."""
    folder = tmp_path_factory.mktemp("page")
    write_scene_shards(folder)
    rows = [row | {"label": NASTY} for row in files.read_jsonl(folder / "scenes" / MANIFEST)][:1]
    files.write_jsonl(folder / "scenes" / "nasty.jsonl", rows)
    options = BuildOptions(clip_s=SCENES.duration_s, short_side_px=32)
    build(list_sources(folder / "scenes" / "nasty.jsonl"), folder / "nasty", options, workers=1)
    model = tiny_model()
    data = scene_data(model.config, [str(folder / "nasty")], ViewConfig(flip=0.0))
    write_page(folder / "report.html", f"avsa {NASTY}", model, data, 1, {"accuracy": 0.5})
    return folder / "report.html"


def test_views_lie_around_the_horizon_and_turns_over_the_sphere():
    azimuth_deg = page_views()[:, 0]
    assert sorted(azimuth_deg.tolist()) == [-135, -90, -45, 0, 45, 90, 135, 180]
    front = page_turns().view(len(PITCHES_DEG), len(YAWS_DEG), 3, 3)[..., 0]
    yaw, pitch = angles_deg(front)
    np.testing.assert_allclose(pitch, np.array(PITCHES_DEG, float)[:, None].repeat(24, 1), atol=1e-3)
    assert (abs((yaw - torch.tensor(YAWS_DEG) + 180) % 360 - 180) < 1e-3).all()


def test_the_heat_map_covers_the_picture_and_its_middle_is_the_scene_as_it_is():
    scores = np.zeros((len(PITCHES_DEG), len(YAWS_DEG)))
    scores[PITCHES_DEG.index(0), YAWS_DEG.index(0)] = 1
    scores[PITCHES_DEG.index(60), YAWS_DEG.index(90)] = 0.5
    cells = heat_cells(scores)
    best = max(cells, key=lambda cell: cell["share"])
    assert best["x"] + best["width"] / 2 == pytest.approx(MAP_PX[0] / 2, abs=0.5)
    assert best["y"] + best["height"] / 2 == pytest.approx(MAP_PX[1] / 2, abs=0.5)
    left_up = next(cell for cell in cells if cell["share"] == 0.5)
    assert left_up["x"] < MAP_PX[0] / 2 - 200 and left_up["y"] < MAP_PX[1] / 4
    covered = np.zeros(MAP_PX[0], bool)
    for cell in cells:
        covered[max(0, int(cell["x"])) : int(cell["x"] + cell["width"])] = True
    assert covered.mean() > 0.99


def test_the_curve_says_which_turn_is_best():
    scores = np.cos(np.deg2rad(np.array(YAWS_DEG) - 38.0))
    plot = curve_plot(scores)
    assert (plot["best"]["yaw_deg"], plot["rank"], plot["of"]) == (45, 6, 24)
    points = [tuple(map(float, point.split(","))) for point in plot["line"].split()]
    assert len(points) == 25 and points[0][1] == points[-1][1]
    assert plot["best"]["x"] < plot["zero"], "left is left"


def test_outlines_of_views_are_cut_at_the_seam():
    ahead, behind = outline(torch.tensor([0.0, 0, 0, 90, 90])), outline(torch.tensor([180.0, 0, 0, 90, 90]))
    assert len(ahead["lines"]) == 1 and len(behind["lines"]) >= 2
    for line in behind["lines"]:
        across = [float(point.split(",")[0]) for point in line.split()]
        assert max(across) - min(across) < MAP_PX[0] / 2
    assert (ahead["x"], ahead["y"]) == (MAP_PX[0] / 2, MAP_PX[1] / 2)


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with opened(page, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


class TestInABrowser:
    pytestmark = needs_browser

    def test_nothing_is_wrong_or_fetched_and_names_are_text(self, browser):
        assert_sound_and_alone(browser)
        assert browser.title == f"avssl-eval: avsa {NASTY}"
        assert browser.execute_script("return document.scripts.length") == 0
        assert browser.execute_script("return document.querySelectorAll('img').length") == 0
        assert "{{ 7*7 }}" in browser.execute_script("return document.body.textContent")

    def test_pictures_views_curve_and_heat_are_drawn(self, browser):
        count = "return document.querySelectorAll(arguments[0]).length"
        assert browser.execute_script(count, "section.clip") == 1
        assert browser.execute_script(count, "svg.frame text.at") == 8
        assert browser.execute_script(count, "svg.frame polyline.view") >= 2 * 8
        assert browser.execute_script(count, "svg.heat rect") == 5 * 25
        points = "return document.querySelector('svg.curve polyline').points.numberOfItems"
        assert browser.execute_script(points) == 25
        shown = browser.execute_script(
            "return Promise.all([...document.querySelectorAll('svg image')].map(i => {"
            "const p = new Image(); p.src = i.href.baseVal;"
            "return p.decode().then(() => [p.naturalWidth, p.naturalHeight]) }))"
        )
        assert len(shown) == 2 and all(size == [64, 32] for size in shown)

    def test_sound_plays(self, browser):
        browser.execute_script("window.player = document.querySelector('audio'); player.play()")
        until = time.monotonic() + 30
        while time.monotonic() < until and not browser.execute_script(
            "return player.currentTime > 0.2 || player.error"
        ):
            time.sleep(0.05)
        assert browser.execute_script("return player.error") is None
        assert browser.execute_script("return player.currentTime") > 0.2
        assert browser.execute_script("return player.duration") == pytest.approx(SCENES.duration_s, abs=0.1)

    @pytest.mark.parametrize("width", [1200, 400])
    def test_the_page_fits_the_window(self, browser, width):
        browser.set_window_size(width, 900)
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(overflow) <= 0
