"""The page of a separation in headless Chromium: it shows, it plays, it nests, it fits, it loads nothing."""

import time

import numpy as np
import pytest
import soundfile
from browsers import assert_sound_and_alone, needs_browser, opened
from tiny_separators import CLASSES, tiny_separator

from avssl.models.sound_config import ClassRow
from avssl.separation.recording import Wanted, separate_file
from avssl.separation.separator import Separator

pytestmark = needs_browser
NASTY = "<script>document.title='hacked'</script><img src=x onerror=document.title='hacked'>\"'&amp;{{ 7*7 }}"
SECONDS, RATE_HZ = 2.0, 16000


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Music over dog, one class of a nasty name; half of the recording is a rising tone."""
    folder = tmp_path_factory.mktemp("report")
    time_s = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    sound = 0.4 * np.sin(2 * np.pi * (200 + 600 * time_s) * time_s) * (time_s < SECONDS / 2)
    path = folder / f"{NASTY.replace('/', '∕')}.wav"
    soundfile.write(path, sound, RATE_HZ)
    classes = [*CLASSES[:-1], ClassRow("/t/dog", NASTY, 2, ["/t/sound"])]
    separator = Separator(tiny_separator(classes=classes))
    separate_file(separator, path, folder / "out", Wanted(levels=(1, 2, 3)))
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def browser(report, tmp_path_factory):
    with opened(report, tmp_path_factory.mktemp("profile"), width_px=1100) as driver:
        yield driver


def test_nothing_is_wrong_or_fetched(browser):
    assert_sound_and_alone(browser)


def test_names_are_text(browser):
    assert "hacked" in browser.title and browser.title.startswith("Sounds in <script>")
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.execute_script("return document.querySelectorAll('img[onerror], img[src=x]').length") == 0
    assert "{{ 7*7 }}" in browser.execute_script("return document.body.textContent")


def test_sources_hang_in_the_tree(browser):
    """All sounds over Music (over Guitar and Flute) and the dog; whole names, each with a link to its file."""
    nested = browser.execute_script(
        "const read = ul => [...ul.children].map(li => [li.querySelector('h2').textContent,"
        "li.querySelector(':scope > ul') ? read(li.querySelector(':scope > ul')) : []]);"
        "return read(document.querySelector('#sources > ul'))"
    )
    music = ["Music", [["Guitar", []], ["Flute, whistle", []]]]
    assert len(nested) == 1 and nested[0][0] == "All sounds"
    assert sorted(nested[0][1]) == sorted([music, [NASTY, []]])
    links = browser.execute_script("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert "level3-guitar.flac" in links and "residual.flac" in links and len(links) == 6


def test_spectrograms_show_the_sound(browser):
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight])"
    )
    assert len(sizes) == 7 and all(done and width > 20 and height == 96 for done, width, height in sizes)
    brightness = browser.execute_script(
        "const i = document.querySelector('#mixture img'), c = document.createElement('canvas');"
        "c.width = i.naturalWidth; c.height = i.naturalHeight; const g = c.getContext('2d'); g.drawImage(i, 0, 0);"
        "const d = g.getImageData(0, 0, c.width, c.height).data, sums = new Array(c.width).fill(0);"
        "for (let n = 0; n < d.length; n += 4) sums[n / 4 % c.width] += d[n]; return sums"
    )
    half = len(brightness) // 2
    assert sum(brightness[: half - 2]) > 10 * sum(brightness[half + 2 :])  # the second half is silent


def test_sound_plays(browser):
    browser.execute_script("window.player = document.querySelector('#mixture audio'); player.play()")
    until = time.monotonic() + 20
    while time.monotonic() < until and not browser.execute_script("return player.currentTime > 0.2 || player.error"):
        time.sleep(0.05)
    assert browser.execute_script("return player.error") is None
    assert browser.execute_script("return player.duration") == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("width", [1100, 400])
def test_the_page_fits_the_window(browser, width):
    browser.set_window_size(width, 900)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) <= 0
