"""What a person does on the drafting page, and what they see of it, through a driven browser."""

import time
from contextlib import suppress

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys


def open_page(chrome, address):
    chrome.get(address)
    chrome.execute_script("localStorage.clear()")
    until(lambda: chrome.execute_script("return document.documentElement.dataset.ready"))
    chrome.get_log("browser")


def new_case(chrome):
    """What the button does, which is much faster than to load the page again."""
    chrome.execute_script(
        """confirm = () => true;
        document.getElementById("new-case").click();
        for (const part of document.querySelectorAll("details")) part.open = false;"""
    )
    assert (rows(chrome), pictures(chrome)) == ([], [])


def until(holds, seconds=20.0):
    """The first true value; an element that is not there yet is waited for too."""
    end = time.monotonic() + seconds
    while True:
        with suppress(NoSuchElementException, StaleElementReferenceException):
            if value := holds():
                return value
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.02)


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
        f"(async () => {{ {script}\n}})().then(done)",
        *arguments,
    )


def template_of(chrome):
    return value(
        chrome,
        """const [{ state }, { toTemplate }] = await Promise.all(
          ["store", "report"].map((name) => import(`/assets/${name}.js`)));
        return toTemplate(state.report);""",
    )


def copied(chrome):
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    chrome.execute_cdp_cmd("Browser.grantPermissions", grant)
    find(chrome, "#copy").click()
    until(lambda: status(chrome).startswith("Copied"))
    return value(chrome, "return navigator.clipboard.readText()")
