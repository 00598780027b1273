"""Parts of the drafting page: text and shades, templates, images, problems, the study's log."""

import base64
import csv
import io
import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason='the page is served by FastAPI: pip install -e ".[serve]"')
pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")

from browsing import (
    add,
    click,
    draft,
    find,
    open_page,
    press,
    rows,
    status,
    template_of,
    until,
    value,
)
from selenium.webdriver.common.keys import Keys
from stub_api import HOSTILE, REPORT, TEMPLATE, running, stub


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


def test_a_report_that_filled_its_canvas_is_said_to_be_cut_short(page, picture):
    draft(page, picture)
    assert "cut short" not in status(page)
    find(page, "[data-field=indication]").send_keys("cut")
    click(page, "#draft")
    until(lambda: status(page).endswith("It may be cut short: raise gen length under Sampling."))


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


def test_a_window_is_for_the_reader_unless_it_is_given_to_the_model_too(page, app, picture, dicom):
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
    assert not any("window" in image for image in images)
    click(page, "#window-model")
    assert "draft again" in status(page)
    click(page, "#draft")
    until(lambda: status(page).startswith("Drafted"))
    window = app.state.asked[-1]["images"][1]["window"]
    assert window["width"] > 400
    assert window["center"] == 1000


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
    fields = ["sample_id", "images", "indication", "candidate", "final", "seconds", "edits"]
    assert list(row) == fields
    assert row["candidate"] == REPORT
    assert row["final"] == REPORT.removeprefix("The heart is mildly enlarged. ")
    assert [edit["action"] for edit in row["edits"]] == ["draft", "delete"]
    click(page, "#download-cases")


def test_csv_cells_survive_quotes_lines_and_formulas(page):
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


def test_a_fill_changes_nothing_but_the_gaps_whatever_was_edited_before(page):
    assert value(page, (Path(__file__).parent / "random_edits.js").read_text()) == []


def test_the_decoders_of_the_checkpoint_are_offered_and_no_others(page):
    from stub_api import SETTINGS

    offered = page.execute_script(
        "return [...document.querySelector('[data-field=decoder]').options].map((o) => o.value)"
    )
    assert offered == SETTINGS["decoders"] == ["auto", "canvas"]
