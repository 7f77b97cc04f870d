"""The report in a real browser: Chromium without a screen, driven by selenium."""

from __future__ import annotations

import json
import shutil

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("agg")

from detectorcal import DetectorCalibrator, DetectorcalWarning, demo
from detectorcal.report import write_report

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not on this machine"),
]

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip

PHONE, DESK = 400, 1400


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, shared_data):
    """Reports: of a simulated CT, of real neutrons, and of a line detector without its sweep."""
    folder = tmp_path_factory.mktemp("reports")
    ct = demo.run(0)
    turned = ct.corrected.view(Turned)
    turned[:, :, 40::50] *= 1.004  # what ring suppression might have done: all pictures there are
    write_report(
        folder / "ct.html", ct.calibrator, sweep=ct.sweep, scan=ct.scan, corrected=turned,
        title="<script>document.title = 'broken'</script>",
    )  # fmt: skip
    with np.load(shared_data / "neutron_wedge_left" / "stepwedge_rows100-700_cols0-750.npz") as file:
        sweep, darks = (np.stack([file[f"{k}_{t}s"] for t in (5, 10, 20, 60, 120)]) for k in ("ob", "dc"))
    with pytest.warns(DetectorcalWarning, match="could not be calibrated"):
        neutrons = DetectorCalibrator(50, reject=6).fit(sweep, dark=darks, dark_per_frame=True)
    write_report(folder / "neutrons.html", neutrons, sweep=sweep, dark=darks, dark_per_frame=True)
    line = DetectorCalibrator(10).fit(ct.sweep[:, 7], dark=ct.calibrator.dark_[7])
    write_report(folder / "line.html", line)
    return {path.stem: path for path in folder.iterdir()}


class Turned(np.ndarray):
    """A scan with its angles, as `open_frames` gives it."""

    angles = np.linspace(0, 180, demo.N_ANGLES, endpoint=False)


def opened(browser, path, width=DESK, scheme="light"):
    browser.get_log("performance"), browser.get_log("browser")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    browser.get(path.as_uri())
    return browser


def shown(browser):
    """The table of the chosen pixel."""
    rows = browser.find_elements("css selector", "#facts tr")
    return {row.find_element("tag name", "th").text: row.find_element("tag name", "td").text for row in rows}


def data_of(browser):
    return json.loads(browser.find_element("id", "data").get_property("textContent"))


def name_of(pixel):
    return (
        f"pixel {pixel['column']}"
        if pixel["row"] is None
        else f"row {pixel['row']}, column {pixel['column']}"
    )


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", ["ct", "neutrons", "line"])
def test_no_error_and_no_request_leaves_the_page(browser, pages, name, width):
    opened(browser, pages[name], width)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    # nothing is wider than the screen, and what is to be touched is large enough
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for control in browser.find_elements("css selector", "button, select"):
        assert control.size["height"] >= 40
    assert browser.title != "broken"
    if name == "ct":  # with all pictures there are
        titles = [title.text for title in browser.find_elements("css selector", "figure h3")]
        assert {"Sinogram after", "Slice after", "What was removed beyond the calibration"} <= set(titles)


def places_of(data):
    """Middles of the pixels on the map, fractions of its width and height."""
    height, length = data["shape"] if len(data["shape"]) == 2 else (1, *data["shape"])
    return np.array(
        [((p["column"] + 0.5) / length, ((p["row"] or 0) + 0.5) / height) for p in data["pixels"]]
    )


CLICK = """
const map = document.getElementById("map"), box = map.getBoundingClientRect();
const at = {clientX: Math.round(box.left + arguments[0] * box.width),
            clientY: Math.round(box.top + arguments[1] * box.height)};
map.dispatchEvent(new MouseEvent("click", {bubbles: true, ...at}));
return [at.clientX - box.left, at.clientY - box.top, box.width, box.height];
"""


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", ["ct", "neutrons", "line"])
def test_a_click_shows_the_right_pixel(browser, pages, name, width):
    opened(browser, pages[name], width)
    data = data_of(browser)
    places = places_of(data)
    rng = np.random.default_rng(0)
    for index in rng.choice(len(places), 5, replace=False):
        *clicked, box_width, box_height = browser.execute_script(CLICK, *places[index])
        box = np.array([box_width, box_height])
        distance = np.linalg.norm(places * box - clicked, axis=1)
        assert distance[index] < 1  # a mouse points at whole pixels of the screen
        pixel = data["pixels"][np.argmin(distance)]
        facts = shown(browser)
        assert facts["pixel"] == name_of(pixel)
        assert facts["coefficient"].startswith(f"{pixel['coef']:.12g}")
        points = browser.find_elements("css selector", "#line circle")
        assert len(points) == len(pixel.get("measured", []))
        if name != "line":
            # the height of a point tells its expected value
            heights = [float(point.get_attribute("cy")) for point in points]
            slope, offset = np.polyfit(pixel["expected"], heights, 1)
            np.testing.assert_allclose(slope * np.array(pixel["expected"]) + offset, heights, atol=1e-6)
            assert slope < 0


def test_a_real_mouse_on_the_map(browser, pages):
    from selenium.webdriver import ActionChains

    opened(browser, pages["neutrons"])
    data = data_of(browser)
    places = places_of(data)
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + 9 * np.eye(len(places))
    lonely = int(np.argmax(apart.min(axis=1)))
    mark = browser.find_elements("css selector", "#map circle:not([id])")[lonely]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).click().perform()
    assert shown(browser)["pixel"] == name_of(data["pixels"][lonely])


def test_keyboard_alone(browser, pages):
    from selenium.webdriver import Keys

    opened(browser, pages["ct"])
    pixels = data_of(browser)["pixels"]
    choice = browser.find_element("id", "pixel")
    browser.execute_script("arguments[0].focus()", choice)
    choice.send_keys(Keys.ARROW_DOWN)
    assert shown(browser)["pixel"] == name_of(pixels[1])
    choice.send_keys(Keys.TAB, Keys.TAB)
    after = browser.switch_to.active_element
    assert after.get_attribute("id") == "next"
    after.send_keys(Keys.ENTER)
    assert shown(browser)["pixel"] == name_of(pixels[2])
    # what a screen reader says
    said = browser.find_element("id", "said")
    assert said.get_attribute("role") == "status"
    assert name_of(pixels[2]) in said.get_property("textContent")


COLOURS = """
const style = (element) => getComputedStyle(element);
return [...document.querySelectorAll(arguments[0])].map((element) => {
  let behind = element;
  while (style(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  return [style(element).color, style(behind).backgroundColor];
});
"""
"""Colour of elements, and of what is behind them."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser, pages, scheme):
    """WCAG 2 asks for a contrast of 4.5 between text and what is behind it."""
    opened(browser, pages["ct"], scheme=scheme)
    words = "h1, .grade, td.note, figcaption, .kind, .rules li, #facts td, button"
    colours = browser.execute_script(COLOURS, words)
    for pair in {tuple(pair) for pair in colours}:
        dark, light = sorted(map(luminance, pair))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair
    # the figures' text is the page's
    text = browser.execute_script("return getComputedStyle(document.querySelector('figure svg text')).fill")
    assert luminance(text) == luminance(browser.execute_script(COLOURS, "h1")[0][0])


def luminance(colour):
    """Relative luminance of "rgb(r, g, b)", by WCAG 2."""
    parts = np.array([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_prints(browser, pages):
    """A few pages of paper, light whatever the screen is."""
    import base64

    opened(browser, pages["ct"], scheme="dark")
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") <= 12
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert luminance(paper) == 1.0
