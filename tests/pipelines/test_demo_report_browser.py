"""The demo's report in headless Chromium: it shows, it plays, it fits, it loads nothing, and names stay names."""

import time

import numpy as np
import pytest
from browsers import assert_sound_and_alone, needs_browser, opened
from tiny_media import write_clip

from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.read import ShardSet
from avssl.shards.sources import list_sources
from pipelines.demo.measure import Embedded, measure_parts
from pipelines.demo.report import write_report

pytestmark = needs_browser
NASTY = "<script>document.title='hacked'<∕script><img src=x onerror=document.title='hacked'>\"'&amp;{{ 7*7 }}"
CLIPS = 8


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a made-up result: real clips of nasty names, random embeddings."""
    folder = tmp_path_factory.mktemp("report")
    for number in range(CLIPS):
        write_clip(folder / "videos" / (NASTY if number % 2 else "plain") / f"{number}.mp4", 2.0, seed=number)
    build(list_sources(folder / "videos"), folder / "shards", BuildOptions(short_side_px=32), workers=1)
    shards = ShardSet.open(folder / "shards")
    records = [shards.record(row) for row in range(CLIPS)]
    random = np.random.default_rng(0)
    vectors = {kind: random.normal(size=(CLIPS, 8)).astype(np.float32) for kind in ("video", "audio")}
    held_out = Embedded(
        np.arange(CLIPS),
        vectors,
        np.array([record["source"] for record in records]),
        np.array([record["label"] for record in records]),
    )
    results = {
        "videos": NASTY,
        "rendered": False,
        "rule": "every clip was held out",
        "clip_s": 2.0,
        "batch_size": 8,
        "measures": measure_parts(held_out, held_out),
        "curve": [{"step": 10 * n, "loss": 2.0 / n} for n in range(1, 6)],
        "real": [],
        "environment": {
            "avssl": "0.1.0", "commit": None, "python": "3", "packages": {"torch": "2"}, "gpu": None,
            "cpu": NASTY, "cores": 2, "platform": "here", "date": "now",
        },
        "commands": [{"command": f"avssl-shards build '{NASTY}' shards", "seconds": 1.0}],
        "steps": [{"number": 1, "title": "Pack", "seconds": 1.0}],
    }  # fmt: skip
    write_report(folder / "report.html", results, held_out, folder / "shards")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(report, tmp_path_factory):
    with opened(report, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def test_nothing_is_wrong_or_fetched(browser):
    assert_sound_and_alone(browser)


def test_names_are_text(browser):
    assert browser.title == f"avssl demo: {' '.join(NASTY.split())}"
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.execute_script("return document.querySelectorAll('img[onerror], img[src=x]').length") == 0
    body = browser.execute_script("return document.body.textContent")
    assert "<script>document.title='hacked'" in body and "{{ 7*7 }}" in body


def test_pictures_are_decoded(browser):
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight])"
    )
    assert len(sizes) >= 20
    assert all(done and width > height == 96 for done, width, height in sizes)


def test_sound_plays(browser):
    """The first player decodes its sound, of the right length, and its clock runs."""
    browser.execute_script("window.player = document.querySelector('audio'); player.play()")
    until = time.monotonic() + 20
    while time.monotonic() < until and not browser.execute_script("return player.currentTime > 0.2 || player.error"):
        time.sleep(0.05)
    assert browser.execute_script("return player.error") is None
    assert browser.execute_script("return player.currentTime") > 0.2
    assert browser.execute_script("return player.duration") == pytest.approx(2.0, abs=0.15)


def test_plots_are_drawn(browser):
    points = browser.execute_script("return document.querySelectorAll('#map circle, #map rect').length")
    assert points == 2 * CLIPS
    inside = browser.execute_script(
        "const m = document.querySelector('#map').getBoundingClientRect();"
        "return [...document.querySelectorAll('#map circle, #map rect')].every(p => {"
        "const b = p.getBoundingClientRect();"
        "return b.left >= m.left - 1 && b.right <= m.right + 1 && b.top >= m.top - 1 && b.bottom <= m.bottom + 1 })"
    )
    assert inside
    assert browser.execute_script("return document.querySelector('#loss polyline').points.numberOfItems") == 5
    assert browser.execute_script("return document.querySelector('#loss polyline').getBoundingClientRect().width") > 300


@pytest.mark.parametrize("width", [1200, 800, 400])
def test_the_page_fits_the_window(browser, width):
    browser.set_window_size(width, 900)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) <= 0
