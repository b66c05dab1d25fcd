"""The page in a real browser: nothing to complain about, and readable on a desk and on a telephone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_rmdp.approval import write_report
from tests.approval.browser import chromium, visit
from tests.approval.probes import make_model


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    options: dict[str, Any] = dict(n_eval_episodes=3, seeds=2, date=datetime(2026, 1, 2, tzinfo=timezone.utc))
    grid = make_vec_env("rmdp/ResourceGathering-v0", 3, env_kwargs=dict(shape=(3, 4), home=(2, 1)))
    model = make_model(grid, [0, 2] * 6, k=3)
    model.save(folder / "model")
    write_report(model, grid, folder / "grid.html", deterministic=False, saved_as=folder / "model", **options)
    robot = make_vec_env("rmdp/HopperVelocity-v0", 2, env_kwargs=dict(n_agents=40, max_episode_steps=20, render_mode=None))
    write_report(make_model(robot, [0, 1] * 20), robot, folder / "robot.html", frames=0, **options)
    return {"grid": folder / "grid.html", "robot": folder / "robot.html"}


IMAGES = """() => [...document.images].map(image => {
    const box = image.getBoundingClientRect();
    return {alt: image.alt, complete: image.complete, natural: image.naturalWidth, width: box.width, height: box.height};
})"""
#: Text that is not hidden, the size of its letters, and how it stands out against what is behind it
LETTERS = """() => {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const parent = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !parent.checkVisibility()) continue;
        const style = getComputedStyle(parent);
        found.push({text: walker.currentNode.data.trim(), size: parseFloat(style.fontSize), colour: style.color});
    }
    return found;
}"""
#: Boxes that stick out of the window and do not lie in one that scrolls
OUTSIDE = """() => [...document.body.querySelectorAll("*")].filter(element =>
    element.checkVisibility() && element.getBoundingClientRect().right > innerWidth + 1
    && !element.closest(".scroll, .wide")).map(element => element.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["grid", "robot"])
def test_page(browser: Any, reports: dict[str, Path], name: str, width: int) -> None:
    path = reports[name]
    with visit(browser, path, width) as seen:
        page = seen.page
        assert seen.said == []
        assert [url for url in seen.requested if not url.startswith("data:")] == [path.resolve().as_uri()]

        images = page.evaluate(IMAGES)
        assert len(images) > (20 if name == "grid" else 8)
        for image in images:
            assert image["complete"] and image["natural"] > 0 and image["width"] >= 80 and image["height"] >= 50, image

        assert page.locator("h1").count() == 1 and page.locator("h2:visible").count() >= 7
        tables = page.locator("table:visible")
        assert tables.count() >= 9
        assert min(tables.nth(i).locator("tr").count() for i in range(tables.count())) >= 2

        # Nothing is wider than the window, but for tables and figures that scroll by themselves
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth") == width
        assert page.evaluate(OUTSIDE) == []

        letters = page.evaluate(LETTERS)
        assert len(letters) > 200
        assert min(letter["size"] for letter in letters) >= 14.0
        paragraphs = page.evaluate("[...document.querySelectorAll('p')].map(p => parseFloat(getComputedStyle(p).fontSize))")
        assert min(paragraphs) >= 15.0
        for colour in {letter["colour"] for letter in letters}:
            assert contrast(colour) >= 4.5, colour  # WCAG 2, level AA


def contrast(colour: str) -> float:
    """
    :param colour: as browsers tell it, e.g. "rgb(28, 30, 33)"
    :return: contrast to the darkest background of the page (definition of WCAG 2)
    """

    def luminance(channels: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in channels)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    channels = [float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return (luminance([0xF3, 0xF5, 0xF7]) + 0.05) / (luminance(channels) + 0.05)


def test_what_is_folded_opens(browser: Any, reports: dict[str, Path]) -> None:
    with visit(browser, reports["grid"], 400) as seen:
        folded = seen.page.locator("details")
        assert folded.count() >= 4 and not folded.first.locator("table").is_visible()
        for i in range(folded.count()):
            folded.nth(i).locator("summary").click()
        assert folded.first.locator("table").is_visible()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert seen.page.evaluate(OUTSIDE) == [] and seen.said == []


def test_links_lead_to_sections(browser: Any, reports: dict[str, Path]) -> None:
    with visit(browser, reports["grid"], 400) as seen:
        links = seen.page.locator("nav a")
        assert links.count() == 7
        links.nth(3).click()
        assert -1 < seen.page.locator("#worst-off").bounding_box()["y"] < 100


def test_print_shows_what_is_folded(browser: Any, reports: dict[str, Path]) -> None:
    with visit(browser, reports["grid"], 1280) as seen:
        seen.page.emulate_media(media="print")
        assert seen.page.locator("details").first.locator("table").bounding_box()["height"] > 50
        assert not seen.page.locator("nav").is_visible()
        assert seen.page.pdf().startswith(b"%PDF")
