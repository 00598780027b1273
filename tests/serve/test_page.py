"""The drafting page in a real headless browser, against a server that always writes the same."""

import base64
import io
import json
import re
import time

import pytest

pytest.importorskip("fastapi", reason='the page is served by FastAPI: pip install -e ".[serve]"')
pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")

from PIL import Image
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from stub_api import FILLS, HOSTILE, REPORT, TEMPLATE, running, stub

from bench.report_page import chromium
from llava.writing.templates import Blank, Template

SENTENCES = [
    "The heart is mildly enlarged.",
    "There is a small left pleural effusion.",
    "No pneumothorax.",
    "The bones are intact.",
]


@pytest.fixture(scope="module")
def chrome():
    try:
        with chromium() as browser:
            browser.set_script_timeout(10)
            yield browser
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def app():
    return stub()


@pytest.fixture(scope="module")
def address(app):
    with running(app) as url:
        yield url


@pytest.fixture
def page(chrome, address, app):
    """The page freshly opened; its console must stay silent."""
    app.state.asked.clear()
    fresh = (
        "return document.documentElement.dataset.ready && !document.querySelector('dialog[open]')"
    )
    if chrome.current_url == address and chrome.execute_script(fresh):
        new_case(chrome)
    else:
        open_page(chrome, address)
    yield chrome
    assert chrome.get_log("browser") == []


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "frontal.png"
    Image.linear_gradient("L").resize((64, 48)).save(path)
    return path


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "lateral.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    return path


# --- asking the page -----------------------------------------------------------------------------


def open_page(chrome, address):
    chrome.get(address)
    chrome.execute_script("localStorage.clear()")
    until(lambda: chrome.execute_script("return document.documentElement.dataset.ready"))
    chrome.get_log("browser")


def new_case(chrome):
    """What the button does, which is much faster than to load the page again."""
    chrome.execute_script("confirm = () => true; document.getElementById('new-case').click()")
    assert (rows(chrome), pictures(chrome)) == ([], [])


def until(holds, seconds=8.0):
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.02)
    return value


def find(chrome, selector):
    return chrome.find_element("css selector", selector)


def click(chrome, selector):
    chrome.execute_script("document.querySelector(arguments[0]).click()", selector)


def press(chrome, *keys):
    """Key by key, at whatever has the focus."""
    actions = ActionChains(chrome, duration=0)
    for key in keys:
        actions.send_keys(key)
    actions.perform()


def shift(chrome, key):
    ActionChains(chrome, duration=0).key_down(Keys.SHIFT).send_keys(key).key_up(
        Keys.SHIFT
    ).perform()


def add(chrome, path):
    """A file is taken by the picker's own input, as a keyboard user fills it."""
    before = len(chrome.find_elements("css selector", ".picture .note"))
    find(chrome, "#files").send_keys(str(path))
    until(lambda: len(pictures(chrome)) > before)


def pictures(chrome):
    found = chrome.find_elements("css selector", ".picture .note")
    return [note.text for note in found if note.text]


def rows(chrome):
    script = """return [...document.querySelectorAll(".row")].map((row) => [
      row.className.split(" ")[1], row.querySelector(".line").textContent])"""
    return [(kind, " ".join(text.split())) for kind, text in chrome.execute_script(script)]


def status(chrome):
    return find(chrome, "#status").text


def draft(chrome, picture):
    add(chrome, picture)
    press(chrome, "d")
    until(lambda: status(chrome).startswith("Drafted"))


def value(chrome, script, *arguments):
    return chrome.execute_async_script(
        f"const [texts] = arguments; const done = arguments[arguments.length - 1];"
        f"(async () => {{ {script} }})().then(done)",
        *arguments,
    )


# --- the whole way -------------------------------------------------------------------------------


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
for (const name of ["dragover", "drop"]) {
  const options = { bubbles: true, cancelable: true, dataTransfer: transfer };
  document.getElementById("drop").dispatchEvent(new DragEvent(name, options));
}
"""


def test_with_the_mouse_drop_draft_lock_open_fill_audit_and_copy(page, app, picture):
    page.execute_script(DROP, base64.b64encode(picture.read_bytes()).decode())
    until(lambda: pictures(page) == ["PNG, 64 × 48"])
    assert find(page, "#shown").get_property("naturalWidth") == 64
    find(page, "[data-field=indication]").send_keys("Dyspnea")
    find(page, "#draft").click()
    until(lambda: status(page).startswith("Drafted"))
    assert rows(page) == [("open", text) for text in SENTENCES]

    find(page, "[data-action=lock]").click()
    page.find_elements("css selector", ".row")[1].click()
    find(page, "[data-action=open]").click()
    assert [kind for kind, _ in rows(page)] == ["locked", "gap", "open", "open"]
    find(page, "#fill").click()
    until(lambda: status(page).startswith("Filled"))
    assert rows(page)[1] == ("filled", FILLS[0])
    assert rows(page)[::2] == [("locked", SENTENCES[0]), ("open", SENTENCES[2])]
    options = [node.text for node in page.find_elements("css selector", ".options button")]
    assert [text.split("\n")[1:] for text in options] == [
        [FILLS[0], "−0.50"],
        [FILLS[1], "−1.50"],
        [FILLS[2], "−2.50"],
    ]
    page.find_elements("css selector", ".options button")[2].click()
    find(page, "[data-action=accept]").click()
    assert rows(page)[1] == ("locked", FILLS[2])

    find(page, "#audit").click()
    until(lambda: find(page, "#audit-result").is_displayed())
    assert find(page, "#audit-lists").text.split("\n")[1].startswith("Cardiomegaly")
    marks = page.find_elements("css selector", "#audit-sentences .tag")
    assert [mark.text for mark in marks] == ["agrees"]

    assert copied(page) == REPORT.replace(SENTENCES[1], FILLS[2])
    first, second = app.state.asked
    assert first["template"] is None
    assert first["context"] == {"indication": "Dyspnea"}
    assert [image["role"] for image in first["images"]] == ["frontal"]
    assert first["images"][0]["data"].startswith("data:image/png;base64,")
    assert re.fullmatch(
        re.escape(REPORT).replace(re.escape(SENTENCES[1]), r"\[\d+\]"), second["template"]
    )


def copied(chrome):
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    chrome.execute_cdp_cmd("Browser.grantPermissions", grant)
    find(chrome, "#copy").click()
    until(lambda: status(chrome).startswith("Copied"))
    return value(chrome, "return navigator.clipboard.readText()")


def test_with_the_keyboard_alone(page, app, picture):
    press(page, "i")
    assert page.switch_to.active_element.get_attribute("id") == "files"
    draft(page, picture)
    until(lambda: "line" in page.switch_to.active_element.get_attribute("class"))
    press(page, "a", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    shift(page, Keys.ARROW_RIGHT)
    press(page, "g")
    assert rows(page)[:2] == [
        ("locked", SENTENCES[0]),
        ("gap", "There is 2 left pleural effusion."),
    ]
    press(page, "+")
    assert "There is [3] left" in template_of(page)
    press(page, "0", "f")
    until(lambda: status(page).startswith("Filled"))
    assert "There is [1-16] left" in app.state.asked[-1]["template"]
    assert rows(page)[1] == ("filled", f"There is {FILLS[0]} left pleural effusion.")
    press(page, "2")
    assert rows(page)[1][1].startswith(f"There is {FILLS[1]} left")
    press(page, "r")
    assert rows(page)[1][0] == "gap"
    press(page, "z")
    assert rows(page)[1] == ("filled", f"There is {FILLS[1]} left pleural effusion.")
    press(page, "a", "x")
    ends = ["left pleural effusion.", SENTENCES[3]]  # the fill ended a sentence
    assert [text for _, text in rows(page)][2:] == ends
    press(page, "u", "u", "u", "u")
    assert rows(page)[1][1].startswith(f"There is {FILLS[1]}")
    press(page, "U", "U", "U", "U")
    assert [text for _, text in rows(page)][2:] == ends
    press(page, "e", Keys.END, " No fracture.", Keys.ENTER)
    assert rows(page)[-1] == ("locked", "No fracture.")
    press(page, "v")
    until(lambda: find(page, "#audit-result").is_displayed())
    assert "invented" in find(page, "#audit-sentences").text
    press(page, "?")
    assert find(page, "#help").is_displayed()
    assert "open what is chosen as a gap" in find(page, "#help").text
    press(page, Keys.ESCAPE)
    assert not find(page, "#help").is_displayed()


def template_of(chrome):
    return value(
        chrome,
        """const [{ state }, { toTemplate }] = await Promise.all(
          ["store", "report"].map((name) => import(`/assets/${name}.js`)));
        return toTemplate(state.report);""",
    )


def test_locked_text_is_kept_when_the_rest_is_drafted_again(page, app, picture):
    draft(page, picture)
    press(page, "j", "l", "d")
    until(lambda: status(page).startswith("Filled"))
    assert rows(page) == [("filled", FILLS[0]), ("locked", SENTENCES[1]), ("filled", FILLS[1])]
    template = Template.parse(app.state.asked[-1]["template"])
    assert [part for part in template.parts if isinstance(part, str)] == [f" {SENTENCES[1]}\n\n"]
    spans = [part.longest - part.shortest + 1 for part in template.parts if isinstance(part, Blank)]
    assert spans == [4, 4]


def test_a_marked_passage_becomes_a_gap_in_each_sentence(page, picture):
    draft(page, picture)
    page.execute_script(
        """const words = document.querySelectorAll(".word");
        getSelection().setBaseAndExtent(words[3].firstChild, 0, words[6].firstChild, 2);"""
    )
    press(page, "g")
    assert re.match(r"The heart is \[\d+\] \[\d+\] a small left", template_of(page))


def test_a_stopped_draft_leaves_the_report_as_it_was(chrome, picture):
    with running(stub(pause=0.2)) as url:
        open_page(chrome, url)
        add(chrome, picture)
        press(chrome, "d")
        until(lambda: chrome.find_elements("css selector", "#stream .token.masked"))
        shown = find(chrome, "#stream").get_property("textContent")
        assert shown.startswith("The heart")
        assert "bones" not in shown
        assert find(chrome, "#stream").get_attribute("aria-busy") == "true"
        assert re.match(r"Pass \d+: \d+ of \d+ tokens decided", find(chrome, "#pass-count").text)
        find(chrome, "#stop").click()
        until(lambda: status(chrome).startswith("Stopped"))
        assert rows(chrome) == []
        assert find(chrome, "#empty").is_displayed()


def test_a_typed_draft_is_audited_against_a_report_of_the_models_own(page, app, picture):
    typed = "There is a fracture. No pleural effusion. No pneumothorax. Lungs are clear."
    add(page, picture)
    press(page, "t")
    find(page, "#whole").send_keys(typed, Keys.CONTROL, Keys.ENTER)
    press(page, "v")
    until(lambda: find(page, "#audit-result").is_displayed())
    assert [(body["template"], body["stream"]) for body in app.state.asked] == [(None, False)]
    sentences = page.find_elements("css selector", "#audit-sentences li")
    assert [sentence.text for sentence in sentences] == [
        "There is a fracture. invented: Fracture",
        "No pleural effusion. denied: Pleural Effusion",
        "No pneumothorax. agrees",
        "Lungs are clear.",
    ]
    listed = find(page, "#audit-lists").text
    for words in ("Missing\nCardiomegaly", "Denied\nPleural Effusion", "Invented\nFracture"):
        assert words in listed
    assert " ".join(text for _, text in rows(page)) == typed
    assert not find(page, "#audit-stale").is_displayed()
    press(page, "x")
    assert find(page, "#audit-stale").is_displayed()


# --- text ----------------------------------------------------------------------------------------


def test_script_in_a_report_is_shown_and_not_run(page, picture):
    find(page, "[data-field=indication]").send_keys("hostile")
    add(page, picture)
    click(page, "#draft")
    until(lambda: status(page).startswith("Drafted"))
    title = page.title
    assert " ".join(text for _, text in rows(page)) == HOSTILE
    click(page, "#type")
    assert find(page, "#whole").get_property("value") == HOSTILE
    press(page, Keys.ESCAPE)
    click(page, "[data-action=accept]")
    assert page.title == title
    assert not page.find_elements("css selector", "#writing img, #writing script")


def test_what_is_typed_goes_to_the_server_as_a_template_reads_it(page, app, picture):
    typed = "The heart is [3-5].\n\n1. No [5-6] mass, 3.5 cm. [8] Lungs \\[2] [sic]."
    add(page, picture)
    press(page, "t")
    find(page, "#whole").send_keys(typed)
    click(page, "#whole-done")
    assert [kind for kind, _ in rows(page)] == ["gap", "gap", "gap", "locked"]
    press(page, "f")
    until(lambda: status(page).startswith("Filled 3 gaps"))
    assert Template.parse(app.state.asked[-1]["template"]) == Template.parse(typed)
    assert copied(page).endswith("3.5 cm. Mild edema. Lungs [2] [sic].")


def test_text_that_is_being_typed_is_not_lost_when_something_else_is_asked_for(page, app, picture):
    draft(page, picture)
    press(page, "e", Keys.END, " Stable.")
    page.find_elements("css selector", ".row")[2].click()
    assert rows(page)[:2] == [("locked", SENTENCES[0]), ("locked", "Stable.")]
    press(page, "o", "No mass.")
    find(page, "#draft").click()
    until(lambda: status(page).startswith("Filled"))
    assert "No mass." in app.state.asked[-1]["template"]
    assert "Stable." in app.state.asked[-1]["template"]


def test_shades_are_the_models_confidence_and_are_called_that(page, picture):
    draft(page, picture)
    titles = [
        word.get_attribute("title") for word in page.find_elements("css selector", ".word.token")
    ]
    assert titles[:4] == [f"the model's confidence: {share} %" for share in (30, 55, 75, 90)]
    assert "c0" in find(page, ".word").get_attribute("class").split()
    legend = find(page, "#legend").text
    assert "the model's confidence" in legend
    assert "not clinical certainty" in legend


def test_templates_are_kept_only_when_saved(page, picture):
    click(page, "#templates-details summary")
    find(page, "#template-use").click()
    assert template_of(page) == TEMPLATE
    assert page.execute_script("return localStorage.length") == 0
    find(page, "#template-name").send_keys("Mine")
    find(page, "#template-save").click()
    assert json.loads(page.execute_script("return localStorage['llava-templates']")) == [
        {"name": "Mine", "text": TEMPLATE}
    ]
    find(page, "#template-delete").click()
    assert page.execute_script("return localStorage.length") == 0


# --- images --------------------------------------------------------------------------------------


def test_a_window_changes_what_is_shown_and_not_what_is_sent(page, app, picture, dicom):
    add(page, picture)
    add(page, dicom)
    assert not find(page, "#window").is_displayed()
    click(page, ".picture:nth-child(2) .thumbnail-button")
    before = find(page, "#shown").get_attribute("src")
    find(page, "#window-width").send_keys(Keys.PAGE_UP)
    until(lambda: find(page, "#shown").get_attribute("src") != before)
    click(page, "#draft")
    until(lambda: status(page).startswith("Drafted"))
    images = app.state.asked[-1]["images"]
    assert [image["role"] for image in images] == ["frontal", "lateral"]
    assert base64.b64decode(images[1]["data"].partition(",")[2]) == dicom.read_bytes()


def test_an_image_is_zoomed_and_moved_by_keys(page, picture):
    add(page, picture)
    find(page, "#frame").send_keys("++", Keys.ARROW_LEFT)
    assert find(page, "#zoom-text").text == "156 %"
    assert "scale(1.5625)" in find(page, "#shown").get_attribute("style")
    find(page, "#frame").send_keys("0")
    assert find(page, "#zoom-text").text == "100 %"


def test_problems_are_said_where_they_are_with_a_remedy(chrome, address, picture, tmp_path):
    open_page(chrome, address)
    press(chrome, "d")
    assert "no image yet" in find(chrome, "#writing-problem").text
    bad = tmp_path / "notes.txt"
    bad.write_text("not an image")
    find(chrome, "#files").send_keys(str(bad))
    until(lambda: "not a JPEG, PNG or DICOM" in find(chrome, ".picture .problem").text)
    click(chrome, ".remove")
    large = tmp_path / "large.png"
    large.write_bytes(b"\0" * 2_000_001)
    find(chrome, "#files").send_keys(str(large))
    until(lambda: "Save it smaller" in find(chrome, "#image-problem").text)
    add(chrome, picture)
    find(chrome, "[data-field=indication]").send_keys("unreadable")
    click(chrome, "#draft")
    until(lambda: "remove it" in find(chrome, "#writing-problem").text)
    assert find(chrome, "[data-field=indication]").get_attribute("aria-invalid") == "true"
    assert find(chrome, "#writing-problem button").text == "Try again"


def test_a_token_is_asked_for_and_kept_for_the_tab(chrome):
    with running(stub(token="secret")) as url:
        chrome.get(url)
        until(lambda: find(chrome, "#token-dialog").is_displayed())
        find(chrome, "#token").send_keys("secret", Keys.ENTER)
        until(lambda: find(chrome, "#model").text == "stub")
        assert chrome.execute_script("return [sessionStorage.length, localStorage.length]") == [
            1,
            0,
        ]


# --- looks ---------------------------------------------------------------------------------------


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


# --- the reader study's log ----------------------------------------------------------------------


def test_a_finished_case_is_logged_and_its_csv_is_safe(page, app, picture):
    draft(page, picture)
    press(page, "x")
    click(page, "#log-details summary")
    find(page, "#finish").click()
    assert "needs a sample name" in find(page, "#log-problem").text
    find(page, "#sample-id").send_keys("s1")
    find(page, "#finish").click()
    until(lambda: "Logged by the server" in find(page, "#log-status").text)
    row = app.state.asked[-1]
    assert list(row) == [
        "sample_id",
        "images",
        "indication",
        "candidate",
        "final",
        "seconds",
        "edits",
    ]
    assert row["candidate"] == REPORT
    assert row["final"] == REPORT.removeprefix(f"{SENTENCES[0]} ")
    assert [edit["action"] for edit in row["edits"]] == ["draft", "delete"]
    page.execute_script(
        "addEventListener('beforeunload', (e) => e.stopImmediatePropagation(), true)"
    )
    click(page, "#download-cases")


def test_csv_cells_survive_quotes_lines_and_formulas(page):
    import csv

    texts = ["=1+1", "+1", "-2", "@x", " =1", "\t=1", 'a "b", c', "two\nlines", "no; effusion", ""]
    text = value(
        page,
        """const { csv } = await import("/assets/log.js");
        const rows = texts.map((final) => ({ final, seconds: -1.5 }));
        return csv(["final", "seconds"], rows);""",
        texts,
    )
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == ["final", "seconds"]
    assert [row[0] for row in read[1:]] == [f"'{t}" for t in texts[:6]] + texts[6:]
    assert {row[1] for row in read[1:]} == {"-1.5"}
