"""The pages of ``report``, ``tune`` and ``run --metrics`` in a browser, on a phone and a screen, light and dark."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, free_port
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait
from selenium_axe_python import Axe

PROSAMPLER = Path(sys.executable).with_name("prosampler")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs the packages chromium and chromium-driver")

PHONE, SCREEN = 390, 1280


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of molecules and of texts, and what was tuned, in a folder."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("molecules", "text"):
        prosampler("report", f"pipelines/{name}.toml", "--mini-batches", "20", "--out", folder / f"{name}.html")
    tune = ("tune", "pipelines/precomputed.toml", "--samples", "2000", "--page", folder / "tuned.html")
    prosampler(*tune, "--out", folder / "tuned.toml")
    return folder


def prosampler(*arguments):
    run = subprocess.run([PROSAMPLER, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def show(browser, uri, width, theme):
    """Opens a page at this width, as a phone or a screen has it."""
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get_log("browser")
    browser.get(uri)


def check(browser, width):
    """No error, nothing wider than the page, and texts that can be read."""
    errors = [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
    assert errors == []
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    axe = Axe(browser)
    axe.inject()
    found = axe.run(options={"runOnly": ["color-contrast", "image-alt", "document-title", "html-has-lang"]})
    assert [(of["id"], [node["html"] for node in of["nodes"]]) for of in found["violations"]] == []


def sizes(browser, selector):
    """Width and height of all elements of a selector."""
    script = """return [...document.querySelectorAll(arguments[0])]
        .map(element => element.getBoundingClientRect()).map(place => [place.width, place.height])"""
    return browser.execute_script(script, selector)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, SCREEN])
@pytest.mark.parametrize(("page", "plots"), [("molecules", 3), ("text", 3), ("tuned", 1)])
def test_a_page_can_be_read(browser, pages, page, plots, width, theme):
    show(browser, (pages / f"{page}.html").as_uri(), width, theme)
    check(browser, width)
    drawn = sizes(browser, ".plot svg")
    assert len(drawn) == plots
    assert all(wide > 300 and high > 100 for wide, high in drawn)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 300) == (theme == "dark")


def test_molecules_are_drawn(browser, pages):
    show(browser, (pages / "molecules.html").as_uri(), SCREEN, "light")
    drawn = sizes(browser, ".sample svg")
    assert drawn
    assert all(wide > 40 and high > 40 for wide, high in drawn)


def test_the_picture_of_tune_has_the_points_of_its_json(browser, pages):
    show(browser, (pages / "tuned.html").as_uri(), SCREEN, "light")
    tuning = json.loads(prosampler("tune", "pipelines/precomputed.toml", "--samples", "2000", "--json"))
    points = sizes(browser, ".plot svg circle")
    assert len(points) == len(tuning["tried"]) + 1
    text = browser.execute_script("return document.querySelector('.plot svg').textContent")
    assert "plain shuffle" in text
    assert ("recommended" in text) == (tuning["recommended"] is not None)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_a_run_is_shown_while_it_goes_on(browser, width, theme):
    port = free_port()
    command = [PROSAMPLER, "run", "pipelines/precomputed.toml", "--step-ms", "20", "--quiet"]
    command += ["--metrics", f"127.0.0.1:{port}", "--set", "stream.epochs=1000"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    show(browser, f"http://127.0.0.1:{port}/", width, theme)
                    break
                except Exception:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            browser.get_log("browser")
            wait = WebDriverWait(browser, 60)
            step = "return Number(/mini-batch ([0-9,]+)/.exec(document.getElementById('state').textContent)?.[1])"
            wait.until(lambda b: (b.execute_script(step) or 0) > 0)
            before = browser.execute_script(step)
            wait.until(lambda b: b.execute_script(step) > before)
            wait.until(lambda b: len(sizes(b, ".live canvas")) == 3)
            assert all(wide > 300 and high > 100 for wide, high in sizes(browser, ".live canvas"))
            check(browser, width)
        finally:
            run.kill()
            run.wait()
        wait.until(lambda b: "has ended" in b.execute_script("return document.getElementById('state').textContent"))
