"""The drafting page on a narrow screen, in light and in dark."""

import re

import pytest

pytest.importorskip("fastapi", reason='the page is served by FastAPI: pip install -e ".[serve]"')
pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")

from browsing import add, click, draft, find, press, status, until
from selenium.webdriver.common.keys import Keys


@pytest.fixture
def phone(chrome):
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    yield chrome
    screen |= {"width": 1440, "height": 1000}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def test_a_narrow_screen_needs_no_sideways_scrolling(phone, page, picture, dicom):
    def fits():
        width = "return [document.documentElement.scrollWidth, innerWidth]"
        needed, given = page.execute_script(width)
        return needed <= given == 390

    page.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert fits()
    add(page, picture)
    add(page, dicom)
    click(page, ".picture:nth-child(2) .thumbnail-button")
    click(page, "#draft")
    until(lambda: status(page).startswith("Drafted"))
    assert fits()
    press(page, "g")
    assert fits()
    press(page, "f")
    until(lambda: status(page).startswith("Filled"))
    assert fits()
    press(page, "v")
    until(lambda: find(page, "#audit-result").is_displayed())
    press(page, "?")
    assert fits()


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const light = (...colours) => {
  for (const colour of colours) {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
  }
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const papers = (node) => {
  const found = [];
  for (let at = node; at; at = at.parentElement) {
    found.unshift(getComputedStyle(at).backgroundColor);
  }
  return found;
};
const texts = "p, .word, button:enabled, label, kbd, .share, dd, .tag, h2";
const seen = [...document.querySelectorAll(texts)];
return seen.filter((node) => node.offsetParent && node.textContent.trim()).map((node) => {
  const [ink, paper] = [light(getComputedStyle(node).color), light(...papers(node))];
  const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  return [node.className || node.id || node.tagName, ratio];
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page, picture, scheme):
    """WCAG 2.1, criterion 1.4.3: at least 4.5 to 1, of shaded words too."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    draft(page, picture)
    press(page, "g", "f")
    until(lambda: status(page).startswith("Filled"))
    press(page, "v")
    until(lambda: find(page, "#audit-result").is_displayed())
    ratios = page.execute_script(CONTRAST)
    assert len(ratios) > 40
    assert [pair for pair in ratios if pair[1] < 4.5] == []
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 64) == (scheme == "dark")


def test_the_banner_stays_in_view(page, picture):
    draft(page, picture)
    page.execute_script("scrollTo(0, document.body.scrollHeight)")
    banner = find(page, ".banner")
    assert "Research only" in banner.text
    assert page.execute_script("return arguments[0].getBoundingClientRect().top", banner) == 0


def test_all_that_takes_the_focus_has_a_name_and_shows_the_focus(page, picture):
    draft(page, picture)
    press(page, "g")
    page.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.execute_cdp_cmd("Accessibility.enable", {})
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    page.execute_cdp_cmd("Accessibility.disable", {})
    focusable = [
        node
        for node in tree
        if any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ()))
        and node["role"]["value"] != "RootWebArea"
    ]
    assert len(focusable) > 30
    assert [n["role"] for n in focusable if not n.get("name", {}).get("value")] == []
    page.execute_script("document.querySelector('#new-case').focus()")
    unseen = """const node = document.activeElement;
    const ring = getComputedStyle(node.id === "files" ? node.parentElement : node).outlineStyle;
    return [node.id || node.dataset.action || node.tagName, ring];"""
    walked = []
    for _ in range(25):
        press(page, Keys.TAB)
        walked.append(page.execute_script(unseen))
    assert [name for name, ring in walked if ring == "none"] == []
    assert {"files", "frame", "draft", "fill"} <= {name for name, _ in walked}
