"""The report page in a real browser, opened from the disk: it draws, it answers, it asks the network for nothing."""

import base64
import json
import shutil

import pytest

from conformer_study import conformer_study  # noqa: F401  (a fixture)
from report_study import small_study  # noqa: F401  (a fixture)
from support import missing

pytestmark = pytest.mark.browser

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    # WebGL without a graphics card
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
]  # fmt: skip
READY_MS = 120_000
# What the graphics driver says about its own speed is not about the page.
HARMLESS = ("GPU stall due to ReadPixels", "willReadFrequently")
FIGURES = ("comparison", "map", "lanes", "populations", "timescales", "ck", "loss", "kl")
# Where the medoid of state 1 of the first model is drawn, in pixels of the window.
MEDOID_ON_SCREEN = """() => {
    const plot = document.getElementById("map-plot"), box = plot.getBoundingClientRect();
    const { xaxis, yaxis } = plot._fullLayout, run = DATA.runs[0];
    const [x, y] = MapView.axes.slice(0, 2).map((name) => run.states[1].medoid[run.axes.indexOf(name)]);
    return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y)];
}"""
LOOK = "JSON.stringify(byId('map-plot').data.map((trace) => [trace.name, trace.marker.colorscale]))"
COUNT_COLOURS = """async (picture) => {
    const bytes = Uint8Array.from(atob(picture), (sign) => sign.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const canvas = new OffscreenCanvas(image.width, image.height), drawing = canvas.getContext("2d");
    drawing.drawImage(image, 0, 0);
    return new Set(new Uint32Array(drawing.getImageData(0, 0, image.width, image.height).data.buffer)).size;
}"""
PANELS = """() => [DATA.comparison.panels.map((panel) => panel.metric),
    byId("comparison-plot").data.filter((trace) => trace.mode === "markers").length]"""
CHOSEN = """() => byId("sweep-plot").layout.annotations.filter((note) => note.text.includes("<b>")).length"""
AXIS_TITLES = """(id) => {
    const shape = document.getElementById(id).layout;
    return Object.keys(shape).filter((key) => /axis/.test(key)).map((key) => (shape[key].title || {}).text || "");
}"""


@pytest.fixture(scope="session")
def chromium():
    try:
        from playwright import sync_api as playwright
    except ImportError:
        missing("the Python package playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("Chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """A page opened from its file, with what it said and asked for."""

    def __init__(self, browser, file, width=1440):
        self.messages: list[str] = []
        self.requests: list[str] = []
        # What leaves the disk is noted and refused.
        self.context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.wait()

    def wait(self) -> None:
        self.page.wait_for_selector("body[data-ready]", timeout=READY_MS)

    def choose(self, model: str) -> None:
        self.page.click(f"#choose button[data-value='{model}']")
        self.page.wait_for_selector(f"body[data-ready^='{model}/']", timeout=READY_MS)

    def check(self) -> None:
        """No error, no warning of the page's own, no request but that for the page itself."""
        said = [text for text in self.messages if not any(words in text for words in HARMLESS)]
        assert said == []
        asked = [url for url in self.requests if not url.startswith(("data:", "blob:"))]
        assert len(asked) == 1 and asked[0].startswith("file://"), asked

    def colours(self, selector: str) -> int:
        """How many different colours a part of the page shows."""
        picture = base64.b64encode(self.page.locator(selector).screenshot()).decode()
        blank = self.context.new_page()
        found = blank.evaluate(COUNT_COLOURS, picture)
        blank.close()
        return found


@pytest.fixture
def opened(chromium, small_study):  # noqa: F811
    result = Opened(chromium, small_study.page)
    yield result
    result.context.close()


def test_it_opens_from_the_disk_without_any_request(opened):
    for name in (*FIGURES, "transitions"):
        assert opened.page.locator(f"#{name}-plot .main-svg").count() > 0, name
        assert opened.page.get_attribute(f"#{name}-plot", "aria-label"), name
    for name in ("whole", "state", "difference"):
        assert opened.colours(f"#matrix-{name}") > 50
    opened.check()


def test_points_change_colour(opened):
    page = opened.page
    seen = set()
    for color in ("state", "simulation", "time", "split", "error"):
        page.click(f"#map-tools button[data-value='{color}']")
        assert page.get_attribute(f"#map-tools button[data-value='{color}']", "aria-pressed") == "true"
        seen.add(page.evaluate(LOOK))
        assert opened.colours("#map-plot") > 20
    assert len(seen) == 5
    opened.check()


def test_a_row_of_the_table_shows_the_structures_of_its_state(opened):
    page = opened.page
    assert page.get_attribute("#viewer", "data-models") == "5"
    assert page.evaluate("Viewer.atoms") == 5 * 154  # hydrogens are not drawn
    first = page.locator("#viewer").screenshot()
    page.click("#states-table tr[data-state='1']")
    assert page.get_attribute("#viewer", "data-state") == "1"
    assert page.locator("#states-table tr.chosen").get_attribute("data-state") == "1"
    assert page.locator("#matrix-state-title").inner_text().startswith("State 1")
    page.wait_for_timeout(300)
    assert page.locator("#viewer").screenshot() != first
    assert opened.colours("#viewer") > 100
    page.click("#viewer-tools button:has-text('Medoid')")
    assert page.get_attribute("#viewer", "data-models") == "1"
    page.click("#viewer-tools button:has-text('Sticks')")
    assert opened.colours("#viewer") > 100
    opened.check()


def test_the_keyboard_reaches_the_states(opened):
    opened.page.focus("#states-table tr[data-state='1']")
    opened.page.keyboard.press("Enter")
    assert opened.page.get_attribute("#viewer", "data-state") == "1"


def test_a_point_of_the_map_shows_its_state(opened):
    page = opened.page
    page.locator("#map-plot").scroll_into_view_if_needed()
    place = page.evaluate(MEDOID_ON_SCREEN)
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(*place)
    page.wait_for_timeout(500)
    page.mouse.click(*place)
    page.wait_for_function("document.getElementById('viewer').dataset.state === '1'")
    opened.check()


def test_structures_can_be_saved_from_the_page(opened, small_study, tmp_path):  # noqa: F811
    with opened.page.expect_download() as download:
        opened.page.click("#viewer-caption a[role='button']")
    download.value.save_as(tmp_path / "saved.pdb")
    beside = opened.page.get_attribute("#viewer-caption a", "href")
    texts = [(tmp_path / "saved.pdb").read_text(), (small_study.folder / beside).read_text()]
    plain = [text.replace("-0.000", " 0.000") for text in texts]
    assert plain[0] == plain[1]


def test_models_of_one_two_and_three_dimensions(opened):
    page = opened.page
    opened.choose("pca_distances-d3")
    assert page.locator("#map-tools select").count() == 2
    page.click("#map-tools button[data-value='3']")
    page.wait_for_selector("#map-plot .gl-container canvas")
    assert page.locator("#map-tools select").count() == 3
    assert opened.colours("#map-plot") > 50
    page.click("#map-tools button[data-value='2']")
    page.select_option("#map-tools select >> nth=0", "z2")
    assert page.evaluate("document.getElementById('map-plot').layout.xaxis.title.text") == "z2 (nm)"
    assert page.locator("#no-curves").is_visible() and not page.locator("#curves").is_visible()
    opened.choose("pca_distances-d1")
    assert page.locator("#map-tools select").count() == 0
    assert page.evaluate("document.getElementById('map-plot').layout.yaxis.title.text") == "z0 (nm)"
    opened.choose("conv2d-d2")
    assert page.locator("#curves").is_visible()
    opened.check()


def test_the_learning_curve_has_ticks_that_can_be_read(opened):
    opened.choose("conv2d-d2")
    ticks = [float(text) for text in opened.page.locator("#loss-plot .ytick text").all_text_contents()]
    assert len(ticks) >= 3
    drawn = opened.page.evaluate("document.getElementById('loss-plot').data.flatMap((trace) => trace.y)")
    assert min(drawn) / 1.3 < min(ticks) < max(ticks) < max(drawn) * 1.3


def test_every_axis_has_a_unit_or_says_that_it_has_none(opened):
    titles = [title for name in FIGURES for title in opened.page.evaluate(AXIS_TITLES, f"{name}-plot")]
    for title in titles:
        assert title in ("", "epoch", "frame") or "(" in title, title


def test_models_are_compared_in_panels(opened):
    panels, n_drawn = opened.page.evaluate(PANELS)
    assert {"heldout_rmsd", "contacts_recovered", "vamp2_ratio_to_tica", "noise_fraction"} <= set(panels)
    assert n_drawn == 3 * len(panels)  # three models, each with one seed
    assert not opened.page.locator("#sweep-card").is_visible()  # both parameters are given
    opened.check()


def test_the_choice_of_parameters_is_shown(chromium, small_study, tmp_path):  # noqa: F811
    study = small_study.copy(tmp_path / "small")
    study.cluster("conv2d-d2", min_cluster_size="auto", min_samples="auto")
    study.write()
    opened = Opened(chromium, study.page)
    assert opened.page.locator("#sweep-plot .main-svg").count() > 0
    assert opened.page.evaluate(CHOSEN) == 1
    assert (
        opened.page.evaluate("byId('sweep-plot').layout.annotations.filter((note) => /<b>/.test(note.text)).length")
        == 1
    )
    opened.choose("pca_distances-d3")
    assert not opened.page.locator("#sweep-card").is_visible()
    opened.check()
    opened.context.close()


def test_simulations_one_by_one(opened):
    page = opened.page
    page.select_option("#lanes-tools select", "1")
    assert "second" in page.locator("#lanes-caption").inner_text()
    page.select_option("#lanes-tools select", "all")
    assert "One line per simulation" in page.locator("#lanes-caption").inner_text()
    opened.check()


@pytest.mark.parametrize("width", [1440, 800, 420])
def test_conformers_are_drawn(chromium, conformer_study, width):  # noqa: F811
    opened = Opened(chromium, conformer_study.page, width)
    page = opened.page
    for name, n in (("coverage", 4), ("rotatable", 2)):  # two generators; recall and precision of each in the first
        assert page.evaluate(f"byId('{name}-plot').data.length") == n
        assert page.get_attribute(f"#{name}-plot", "aria-label")
        for title in page.evaluate(AXIS_TITLES, f"{name}-plot"):
            assert "(" in title, title
        box = page.locator(f"#{name}-plot").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    recall = page.evaluate("byId('rotatable-plot').data[0].y")
    page.focus("#rotatable-tools button[data-value='precision']")
    page.keyboard.press("Enter")
    assert page.get_attribute("#rotatable-tools button[data-value='precision']", "aria-pressed") == "true"
    assert page.evaluate("byId('rotatable-plot').data[0].y") != recall
    assert page.locator("nav a[href='#conformers']").count() == 1
    opened.check()
    opened.context.close()


@pytest.mark.parametrize("width", [800, 420])
def test_nothing_sticks_out_of_a_narrow_window(chromium, small_study, width):  # noqa: F811
    opened = Opened(chromium, small_study.page, width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    box = opened.page.locator("#map-plot").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    opened.check()
    opened.context.close()


def test_no_state_is_said_plainly(chromium, small_study, tmp_path):  # noqa: F811
    study = small_study.copy(tmp_path / "small")
    study.cluster("conv2d-d2", min_cluster_size=790)
    study.write()
    message = json.loads((study.folder / "clusters/conv2d-d2/seed0/cluster.json").read_text())["message"]
    opened = Opened(chromium, study.page)
    assert opened.page.locator("#no-states").inner_text() == message
    assert not opened.page.locator("#states-card").is_visible()
    assert not opened.page.locator("#viewer-card").is_visible()
    assert opened.colours("#map-plot") > 5
    opened.choose("pca_distances-d3")  # which has states
    assert opened.page.locator("#viewer-card").is_visible() and not opened.page.locator("#no-states").is_visible()
    opened.check()
    opened.context.close()


def test_names_are_text_not_markup(chromium, small_study, tmp_path):  # noqa: F811
    study = small_study.copy(tmp_path / "small")
    study.cluster("conv2d-d2", min_cluster_size=790)
    path = study.folder / "clusters/conv2d-d2/seed0/cluster.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"message": "<b>bold</b></script>"}))
    study.write()
    opened = Opened(chromium, study.page)
    assert opened.page.locator("#no-states").inner_text() == "<b>bold</b></script>"
    opened.check()
    opened.context.close()
