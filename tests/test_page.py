"""The web page holds all it needs, connects to nothing, and gives Python's answers in a real browser."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from faces import one_sentence
from PIL import Image

from commands import page
from helpers import align, export, images, labels, models, paths

TEMPLATE = (paths.ROOT / "commands" / "phone.html").read_text(encoding="utf-8")
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
    export.write_facts(folder / "int8.onnx", margin=MARGIN, half_width=7.5, mae=4.0, data="demo", ages=[20, 50])
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
    assert names == {"FACTS", "AGES", "DATA", "MODEL", "RUNTIME", "WASM", "DETECTOR", "NETS"} and "{{" not in text
    assert '"half_width": 7.5' in text and "synthetic faces" in text and "only ages from 20 to 50" in text


def test_what_the_model_says_of_itself_ends_no_script(model_file, runtime, tmp_path):
    facts, file = export.facts_of(export.load(model_file)), tmp_path / "model.onnx"
    file.write_bytes(model_file.read_bytes())
    evil = "</script><script>alert(1)</script><!--{{MODEL}}"
    export.write_facts(file, **facts | {"margin": [[evil, 0.4], [0.6, 0.4]], "half_width": evil, "data": evil})
    page.write_page(file, tmp_path / "phone.html", runtime)
    text = (tmp_path / "phone.html").read_text(encoding="utf-8")
    assert text.count("</script>") == TEMPLATE.count("</script>") and "<script>alert" not in text
    shown = json.loads(re.search(r"^const FACTS = (.*);$", text, re.MULTILINE)[1])
    assert shown["half_width"] == evil and shown["margin"][0][0] == evil


@pytest.mark.parametrize("missing", ["margin", "ages"])
def test_a_model_that_lacks_a_fact_is_told(missing, model_file, runtime, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(model_file.read_bytes())
    export.write_facts(file, **export.facts_of(export.load(model_file)) | {missing: None})
    with pytest.raises(ValueError) as error:
        page.write_page(file, tmp_path / "phone.html", runtime)
    one_sentence(error.value, file, "notebook 09_deployment")
    assert not (tmp_path / "phone.html").exists()


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


def digests(monkeypatch, files):
    known = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(page, "FILES", known)


def test_what_was_fetched_is_used_again(runtime, monkeypatch):
    digests(monkeypatch, {name: (runtime / name).read_bytes() for name in page.FILES})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert page.fetch_runtime(runtime) == runtime


def packs(monkeypatch, files):
    """Let npm "fetch" a package of `files` (name → content)."""

    def npm(command, cwd, timeout, **how):
        assert command[1:] == ["pack", "--silent", page.RUNTIME] and timeout
        with tarfile.open(os.path.join(cwd, "package.tgz"), "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"package/dist/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", npm)


def test_an_archive_without_the_files_is_told(tmp_path, monkeypatch):
    packs(monkeypatch, {"other.mjs": b"code"})
    with pytest.raises(OSError) as error:
        page.fetch_runtime(tmp_path / "new")
    one_sentence(error.value, page.RUNTIME)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("right", [True, False])
def test_files_with_another_checksum_are_not_used(right, tmp_path, monkeypatch):
    digests(monkeypatch, {"a.mjs": b"code" if right else b"other code"})
    packs(monkeypatch, {"a.mjs": b"code"})
    (tmp_path / "a.mjs").write_bytes(b"half of a fi")  # what is there but not whole is fetched again
    if right:
        assert (page.fetch_runtime(tmp_path) / "a.mjs").read_bytes() == b"code"
        return
    with pytest.raises(OSError) as error:
        page.fetch_runtime(tmp_path)
    one_sentence(error.value, "a.mjs", page.RUNTIME)


def test_a_fetch_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    def waits(command, timeout, **how):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", waits)
    with pytest.raises(OSError) as error:
        page.fetch_runtime(tmp_path)
    one_sentence(error.value, "could not fetch")


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
    """The page without a face detector, in a browser without a network, and the list of what it asked for."""
    try:
        runtime = page.fetch_runtime()
    except OSError as error:
        pytest.skip(str(error))
    file = tmp_path_factory.mktemp("page") / "phone.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "detector_nets", list)
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
        ours.append(export.years_of(model, align.crop(photo, eyes * photo.shape[0] - 0.5, eyes)[None])[0])
        theirs.append(answer(tab, file))
    assert np.ptp(ours) > 0.5  # the answers differ, so that it means something to agree
    assert np.abs(np.array(ours) - theirs).max() <= 0.1
    assert all(url.startswith(("file:", "blob:")) for url in asked)


def test_an_answer_at_the_end_of_the_ages_is_told(opened, browser, model_file, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(model_file.read_bytes())
    export.write_facts(file, **export.facts_of(export.load(model_file)) | {"ages": [60, 90]})
    page.write_page(file, tmp_path / "phone.html", page.fetch_runtime())
    tab = browser.new_context(offline=True).new_page()
    tab.goto((tmp_path / "phone.html").as_uri())
    Image.fromarray(faces()[0]).save(tmp_path / "face.png")
    assert answer(tab, tmp_path / "face.png") < 62
    assert "the model knows no age below 60: the person may be younger" in tab.locator("#answer").inner_text()


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
