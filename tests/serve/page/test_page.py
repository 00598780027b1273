"""The drafting page as it is used, from the image to the copied text."""

import base64
import re

import pytest

pytest.importorskip("fastapi", reason='the page is served by FastAPI: pip install -e ".[serve]"')
pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")

from browsing import (
    add,
    click,
    copied,
    draft,
    find,
    open_page,
    pictures,
    press,
    rows,
    shift,
    status,
    template_of,
    until,
)
from selenium.webdriver.common.keys import Keys
from stub_api import FILLS, REPORT, running, stub

from llava.writing.templates import Blank, Template

SENTENCES = [
    "The heart is mildly enlarged.",
    "There is a small left pleural effusion.",
    "No pneumothorax.",
    "The bones are intact.",
]


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
        assert 0 < len(shown.split()) < len(REPORT.split())
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
    click(page, "#audit-result details summary")
    assert find(page, "#audit-reference").text.endswith("missing: Cardiomegaly")
    assert not find(page, "#audit-stale").is_displayed()
    press(page, "x")
    assert find(page, "#audit-stale").is_displayed()


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
