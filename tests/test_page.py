"""The web page holds all it needs, connects to nothing, and gives Python's answers in a real browser."""

import re
import shutil
import sys

import numpy as np
import pytest
import torch
from faces import one_sentence
from PIL import Image

from helpers import deploy, export, images, labels, models, page, paths

TEMPLATE = (paths.ROOT / "helpers" / "phone.html").read_text(encoding="utf-8")
MARGIN = [[0.38, 0.41], [0.61, 0.42], [0.5, 0.56], [0.4, 0.67], [0.58, 0.67]]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A compact network in INT8 whose answers differ from face to face, as `phone.html` holds one."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = models.compact_resnet(len(models.AGES))
    torch.nn.init.normal_(network.head[-1].weight, std=0.1)  # its own start answers nearly the same to every face
    export.export(network, folder / "float32.onnx")
    export.quantise(folder / "float32.onnx", folder / "int8.onnx", np.stack([images.prepare(face) for face in faces()]))
    export.write_facts(folder / "int8.onnx", margin=MARGIN, half_width=7.5, mae=4.0, data="demo")
    return folder / "int8.onnx"


def faces(count=10):
    paths_of_faces = labels.find_faces(paths.DEMO)["path"]
    return [images.read_image(paths.DEMO / path) for path in paths_of_faces[:: len(paths_of_faces) // count][:count]]


@pytest.fixture
def runtime(tmp_path):
    """Two files in place of those of onnxruntime-web."""
    for name in page.FILES:
        (tmp_path / name).write_bytes(b"code of " + name.encode())
    return tmp_path


def test_the_page_names_no_other_place():
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(|fetch\(", TEMPLATE)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', TEMPLATE)[1]
    assert "default-src 'none'" in policy and "connect-src" not in policy  # so the default holds for connections


def test_everything_is_put_in_its_place(model_file, runtime, tmp_path):
    page.write_page(model_file, tmp_path / "phone.html", runtime)
    text = (tmp_path / "phone.html").read_text(encoding="utf-8")
    names = set(re.findall(r"\{\{(\w+)\}\}", TEMPLATE))
    assert names == {"FACTS", "DATA", "MODEL", "RUNTIME", "WASM"} and "{{" not in text
    assert '"half_width": 7.5' in text and "synthetic faces" in text


def test_without_npm_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OSError) as error:
        page.fetch_runtime(tmp_path)
    one_sentence(error.value, page.RUNTIME, "install npm")


def test_without_a_network_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)
    with pytest.raises(OSError) as error:
        page.fetch_runtime(tmp_path)
    one_sentence(error.value, "could not fetch", page.RUNTIME)


def test_what_was_fetched_is_used_again(runtime, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert page.fetch_runtime(runtime) == runtime


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; the tests are skipped where it, its driver or onnxruntime-web is not there."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    if not shutil.which("chromium"):
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser, model_file, tmp_path_factory):
    """The page in a browser without a network, and the list of what it asked for."""
    try:
        runtime = page.fetch_runtime()
    except OSError as error:
        pytest.skip(str(error))
    file = tmp_path_factory.mktemp("page") / "phone.html"
    page.write_page(model_file, file, runtime)
    context = browser.new_context(offline=True)
    tab, asked = context.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    return tab, asked


def answer(tab, file):
    tab.set_input_files("#file", file)
    # Not by wait_for_function: it evaluates text in the page, which the page's policy forbids.
    tab.locator("#answer[data-years]").wait_for(timeout=120_000)
    return float(tab.locator("#answer").get_attribute("data-years"))


def test_the_browser_gives_the_answers_of_python(opened, model_file, tmp_path):
    (tab, asked), model = opened, export.load(model_file, threads=1)
    eyes, ours, theirs = np.array(MARGIN[:2]), [], []
    for i, face in enumerate(faces()):
        file = tmp_path / f"{i}.jpg"
        Image.fromarray(face).save(file, quality=92)
        photo = images.read_image(file)
        ours.append(export.years_of(model, deploy.crop(photo, eyes * photo.shape[0] - 0.5, eyes)[None])[0])
        theirs.append(answer(tab, file))
    assert np.ptp(ours) > 0.5  # the answers differ, so that it means something to agree
    assert np.abs(np.array(ours) - theirs).max() <= 0.1
    assert all(url.startswith(("file:", "blob:")) for url in asked)


def test_an_eye_that_is_dragged_changes_the_answer_and_is_let_go(opened, tmp_path):
    tab, _ = opened
    Image.fromarray(faces()[0]).save(tmp_path / "face.png")
    before, box = answer(tab, tmp_path / "face.png"), tab.locator("canvas").bounding_box()
    x, y = (box[side] + share * box[length] for side, share, length in zip("xy", MARGIN[0], ("width", "height")))
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 0.15 * box["width"], y, steps=4)
    tab.mouse.up()
    tab.wait_for_timeout(1000)
    after = float(tab.locator("#answer").get_attribute("data-years"))
    assert after != before
    tab.mouse.move(x, y + 0.2 * box["height"], steps=4)  # the button is up, so nothing is held any more
    tab.wait_for_timeout(500)
    assert float(tab.locator("#answer").get_attribute("data-years")) == after


def test_a_file_that_is_no_picture_is_told(opened, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    opened[0].set_input_files("#file", tmp_path / "notes.jpg")
    opened[0].get_by_text("notes.jpg is no picture").wait_for()
