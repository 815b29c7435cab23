"""The page of what was found, in headless Chromium: it shows and plays, fits, loads nothing, and names stay names."""

import time

import pytest
from browsers import assert_sound_and_alone, needs_browser, opened
from PIL import Image
from tiny_media import moving_pictures, write_clip

from avssl.cli import search

NASTY = "<script>document.title='hacked'<_script><img src=x onerror=document.title='hacked'>'&amp;{{ 7*7 }}.mp4"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Found by a still picture: a clip with a nasty name, one without sound, a sound, and one that is gone since."""
    folder = tmp_path_factory.mktemp("page")
    write_clip(folder / "in" / NASTY, 2.0, seed=1)
    write_clip(folder / "in" / "mute.mp4", 2.0, sound=None, seed=2)
    write_clip(folder / "in" / "gone.mp4", 2.0, seed=3)
    Image.fromarray(moving_pictures(1, seed=1)[0]).save(folder / "query.png")
    for words in (
        ["index", folder / "in", "-o", folder / "i", "--model", "tiny"],
        ["query", folder / "query.png", "--index", folder / "i", "--html", folder / "found.html"],
    ):
        if words[0] == "query":
            (folder / "in" / "gone.mp4").unlink()
        with pytest.raises(SystemExit) as stopped:
            search.main([*map(str, words), "--no-sandbox"])
        assert stopped.value.code == 0
    return folder / "found.html"


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with opened(page, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


class TestInABrowser:
    pytestmark = needs_browser

    def test_nothing_is_wrong_or_fetched_and_names_are_text(self, browser):
        assert_sound_and_alone(browser)
        assert browser.title.startswith("Like ") and "hacked" not in browser.title
        assert browser.execute_script("return document.scripts.length") == 0
        assert NASTY in browser.execute_script("return document.body.textContent")

    def test_pictures_are_shown_and_what_is_gone_is_said(self, browser):
        count = "return document.querySelectorAll(arguments[0]).length"
        assert browser.execute_script(count, "#hits article") == 3
        assert browser.execute_script(count, "#hits video") == 2
        assert browser.execute_script(count, "#query img") == 1
        (problem,) = browser.execute_script("return [...document.querySelectorAll('.problem')].map(p => p.textContent)")
        assert "gone.mp4" in problem and "(unreadable)" in problem
        sizes = browser.execute_script(
            "return Promise.all([...document.images].map("
            "i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))"
        )
        assert len(sizes) == 7 and all(size == [64, 48] for size in sizes)

    def test_moments_play(self, browser):
        browser.execute_script(
            "window.player = document.querySelector('#hits video'); player.muted = true; player.play()"
        )
        until = time.monotonic() + 30
        while time.monotonic() < until and not browser.execute_script(
            "return player.currentTime > 0.2 || player.error"
        ):
            time.sleep(0.05)
        assert browser.execute_script("return player.error && player.error.message") is None
        assert browser.execute_script("return player.currentTime") > 0.2
        assert browser.execute_script("return player.duration") == pytest.approx(2.0, abs=0.15)

    @pytest.mark.parametrize("width", [1200, 400])
    def test_the_page_fits_the_window(self, browser, width):
        browser.set_window_size(width, 900)
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(overflow) <= 0
