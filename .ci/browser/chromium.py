"""Chromium, driven by WebDriver: what a person does, and what they see."""

import json
import os
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from checks.report import wait_for

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
          "--disable-background-networking", "--disable-component-update", "--no-first-run")


def _element(driver, text, kinds, scope):
    """The first seen element of these kinds whose text, or label, is this."""
    return driver.execute_script(
        """
        const [text, kinds, scope] = arguments;
        const open = [...document.querySelectorAll("dialog[open]")].at(-1);
        const root = scope ?? open ?? document;
        const name = (node) => (node.getAttribute("aria-label") ?? node.textContent).trim();
        const seen = (node) => node.getClientRects().length > 0 && !node.disabled;
        const all = [...root.querySelectorAll(kinds)].filter(seen);
        return all.find((node) => name(node) === text) ?? all.find((node) => name(node).startsWith(text)) ?? null;
        """, text, kinds, scope)


class Browser:
    """One window. Use it in a `with` block."""

    def __init__(self, base, out):
        self.base = base
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.downloads = Path(tempfile.mkdtemp(prefix="tg-downloads-"))
        options = Options()
        options.binary_location = os.environ.get("TIDEGATE_CI_CHROMIUM", "/usr/bin/chromium")
        for flag in _FLAGS:
            options.add_argument(flag)
        # The certificate is the gateway's own.
        options.accept_insecure_certs = True
        options.add_experimental_option("prefs", {
            "download.default_directory": str(self.downloads), "download.prompt_for_download": False})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = os.environ.get("TIDEGATE_CI_CHROMEDRIVER", "/usr/bin/chromedriver")
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(30)
        self.driver.set_script_timeout(120)
        self.size(1440, 900)
        for permission in ("clipboard-read", "clipboard-write"):
            self.driver.execute_cdp_cmd("Browser.setPermission", {
                "permission": {"name": permission}, "setting": "granted", "origin": base})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    # Where it is.

    def size(self, width, height):
        """The size of the page, in pixels of CSS."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})

    def go(self, path):
        """Opens a page of the dashboard."""
        # A form that was changed asks before it is left.
        self.driver.execute_script("window.addEventListener('beforeunload', (e) => e.stopImmediatePropagation(), true)")
        self.driver.get(self.base + path)

    def theme(self, name):
        """Switches the page to `light` or `dark`, as its button does."""
        self.driver.execute_script(
            """
            document.documentElement.dataset.theme = arguments[0];
            dispatchEvent(new Event("themechange"));
            """, name)

    @property
    def path(self):
        """The path of the page."""
        return self.driver.execute_script("return location.pathname")

    def wait_path(self, path, seconds=20):
        """Waits until the page is this one."""
        wait_for(f"the page is {path}, not {self.driver.current_url}", lambda: self.path == path, seconds)

    # What is seen.

    def text(self, css="main"):
        """The text of an element as it is seen; empty where it is not there."""
        return self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def wait_text(self, text, seconds=20, css="body"):
        """Waits until a text is seen."""
        try:
            wait_for(f"{text!r} is seen", lambda: text in self.text(css), seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is: {self.text(css)[:600]!r}") from None

    def js(self, script, *arguments):
        """Runs a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def find(self, css):
        """An element that is there, or `None`."""
        found = self.driver.find_elements(By.CSS_SELECTOR, css)
        return found[0] if found else None

    def wait_find(self, css, seconds=20):
        """Waits for an element."""
        return wait_for(f"{css} is there", lambda: self.find(css), seconds)

    # What is done.

    def click(self, text, kinds="button, a, [role=tab], summary", within=None, seconds=15):
        """Clicks what says this: in the open dialog, if there is one."""
        def probe():
            scope = self.find(within) if within else None
            element = _element(self.driver, text, kinds, scope)
            if element is None:
                return False
            try:
                self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
                element.click()
            except (StaleElementReferenceException, WebDriverException):
                return False
            return True
        wait_for(f"{text!r} can be clicked", probe, seconds)

    def control(self, label, within=None):
        """The control with this label."""
        return self.driver.execute_script(
            """
            const [label, within] = arguments;
            const open = [...document.querySelectorAll("dialog[open]")].at(-1);
            const root = (within && document.querySelector(within)) ?? open ?? document;
            for (const each of root.querySelectorAll("label")) {
              if (each.textContent.trim() === label) return each.control ?? document.getElementById(each.htmlFor);
            }
            return [...root.querySelectorAll("input, select, textarea")].find((each) => each.getAttribute("aria-label") === label) ?? null;
            """, label, within)

    def value(self, label):
        """What the control with this label holds; `None` where there is none, or it was just made anew."""
        control = self.control(label)
        try:
            return None if control is None else control.get_attribute("value")
        except StaleElementReferenceException:
            return None

    def fill(self, label, text, within=None):
        """Types into the control with this label, in place of what is there."""
        def typed():
            control = self.control(label, within)
            if control is None:
                return False
            try:
                self._type(control, text)
            except WebDriverException:
                # The form was made anew meanwhile.
                return False
            return True
        wait_for(f"the control {label!r} can be filled", typed, 15)

    def _type(self, control, text):
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus(); arguments[0].select?.()", control)
        if control.tag_name != "select":
            # Typed over what is selected: a cleared control would already be a change.
            control.send_keys(text or Keys.DELETE)
            return
        self.driver.execute_script(
            """
            const [control, text] = arguments;
            const option = [...control.options].find((each) => each.textContent === text || each.value === text);
            if (!option) throw new Error(`no choice ${text}`);
            control.value = option.value;
            control.dispatchEvent(new Event("input", { bubbles: true }));
            control.dispatchEvent(new Event("change", { bubbles: true }));
            """, control, text)

    def keys(self, *keys):
        """Presses keys, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def clipboard(self):
        """What was copied."""
        self.driver.execute_script("window.focus()")
        return self.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], (e) => arguments[0]('! ' + e))")

    def downloaded(self, name, seconds=20):
        """The text of a file that was downloaded."""
        path = self.downloads / name
        wait_for(f"{name} is downloaded", lambda: path.exists() and path.stat().st_size, seconds)
        return path.read_text(encoding="utf-8")

    # What went wrong unseen.

    def complaints(self):
        """Errors of scripts and breaches of the policy since the last look, as the browser's console shows them."""
        noise = ("favicon",)
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries
                if entry["level"] == "SEVERE" and not any(word in entry["message"] for word in noise)]

    # Pictures.

    def picture(self, name):
        """Keeps a picture of the whole page."""
        width, height = self.js("return [innerWidth, Math.min(5000, document.documentElement.scrollHeight)]")
        before = self.js("return innerHeight")
        self.size(width, max(height, before))
        # Plots are drawn when they are seen.
        wait_for("the plots are drawn", lambda: self.js(
            """
            return [...document.querySelectorAll(".plot .canvas")].every((each) => !each.getClientRects().length || each.getBoundingClientRect().top > innerHeight
              || each.querySelector(".main-svg") || (each.querySelector(".empty:not([hidden])")?.textContent ?? "Loading…") !== "Loading…");
            """), 20)
        time.sleep(0.4)
        self.driver.save_screenshot(str(self.out / f"{name}.png"))
        self.size(width, before)

    def axe(self, script):
        """What the accessibility tool finds, as `rule: place` of each."""
        self.driver.execute_script(script)
        found = self.driver.execute_async_script(
            """
            const done = arguments[0];
            axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] })
              .then((result) => done(JSON.stringify(result.violations.map((each) => [each.id, each.nodes.slice(0, 3).map((node) => node.target.join(" ") + " " + (node.any[0]?.message ?? ""))]))),
                    (error) => done(JSON.stringify([["axe", [String(error)]]])));
            """)
        return [f"{rule}: {'; '.join(places)[:400]}" for rule, places in json.loads(found)]
