"""The page finds the faces itself, as Python does, and `python -m commands.phone` writes it without a training."""

import re
import shutil

import numpy as np
import pytest
from faces import one_sentence, page, place
from PIL import Image
from test_page import answer, browser, faces, model_file  # noqa: F401  (fixtures)

from commands import page as web
from commands import phone
from helpers import deploy, export, paths


@pytest.fixture(scope="module")
def opened(browser, model_file, tmp_path_factory):  # noqa: F811
    """The page in a browser without a network, the list of what it asked for, and the model that is in it."""
    tab, asked = opened_page(browser, model_file, tmp_path_factory.mktemp("page") / "phone.html")
    return tab, asked, export.load(model_file, threads=1)


def opened_page(browser, model, file):  # noqa: F811
    """Write the page of `model` to `file`; return the tab that shows it, and the list of what it asks a network for."""
    pytest.importorskip("facenet_pytorch", reason="needs the face detector of requirements-optional.txt")
    try:
        web.write_page(model, file, web.fetch_runtime())
    except OSError as error:
        pytest.skip(str(error))
    tab, asked = browser.new_context(offline=True).new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("websocket", lambda socket: asked.append(socket.url))
    tab.goto(file.as_uri())
    return tab, asked


def ages(tab, file, put="#file"):
    """Return the ages that the page tells for the photo `file`."""
    tab.set_input_files(put, file)
    tab.locator("#answer[data-years]").wait_for(timeout=120_000)
    return [float(years) for years in tab.locator("#answer").get_attribute("data-years").split()]


def group(count, height=600, width=900):
    """Return a photo of `count` faces, each turned a little, from left to right."""
    photo = page(height, width, (120, 140, 160))
    for i, face in enumerate(faces(count)):
        place(
            photo, face, ((i + 0.5) * width / count, height * (0.4 + 0.2 * (i % 2))), width / (count + 0.5), 8 * i - 10
        )
    return photo


def same(tab, model, file):
    """Assert that the page gives Python's answers for `file`, with their notes, and return them."""
    ours, theirs = deploy.predict(file, model), ages(tab, file)
    assert len(ours) == len(theirs) > 0
    assert np.abs(ours["age"] - theirs).max() <= 0.3
    text = tab.locator("#answer").inner_text()
    assert all(note in text for notes in ours["note"] for note in notes.split("; "))
    return ours


def test_the_code_of_the_detector_names_no_other_place():
    code = (paths.ROOT / "commands" / "phone_faces.js").read_text(encoding="utf-8")
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|import|</script|{{", code)


def test_ten_faces_are_found_and_get_the_ages_of_python(opened, tmp_path):
    tab, asked, model = opened
    shown = []
    for i, face in enumerate(faces()):
        photo = place(page(480, 640, (90, 120, 110)), face, (200 + 25 * i, 220 + 5 * i), 150 + 15 * i, 4 * i - 20)
        Image.fromarray(photo).save(tmp_path / f"{i}.jpg", quality=92)
        shown += same(tab, model, tmp_path / f"{i}.jpg")["age"].tolist()
    assert len(shown) == 10 and np.ptp(shown) > 0.5  # the answers differ, so that it means something to agree
    assert asked and all(url.startswith(("file:", "blob:")) for url in asked)


def test_all_faces_of_a_photo_are_told_from_left_to_right(opened, tmp_path):
    tab, _, model = opened
    Image.fromarray(group(4)).save(tmp_path / "group.png")
    assert len(same(tab, model, tmp_path / "group.png")) == 4
    lines = tab.locator("#answer").inner_text().splitlines()
    assert lines[0] == "From left to right:" and [line[0] for line in lines[1:]] == list("1234")


def test_the_shipped_compact_network_answers_on_the_page_as_in_python(browser, tmp_path):  # noqa: F811
    file = deploy.SHIPPED.with_name("compact_resnet_photos.onnx")
    tab, _ = opened_page(browser, file, tmp_path / "phone.html")
    Image.fromarray(group(5)).save(tmp_path / "group.png")
    assert len(same(tab, export.load(file, threads=1), tmp_path / "group.png")) == 5


def test_a_photo_larger_than_a_screen_gives_the_same_answer(opened, tmp_path):
    tab, _, model = opened
    large = Image.fromarray(group(5)).resize((4000, 2600), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=92)
    assert len(same(tab, model, tmp_path / "large.jpg")) == 5


@pytest.mark.parametrize("orientation, turn", [(3, 180), (6, 90), (8, 270)])
def test_a_photo_that_the_camera_turned_is_upright_again(orientation, turn, opened, tmp_path):
    tab, _, model = opened
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(group(2)).rotate(turn, expand=True).save(tmp_path / "turned.jpg", quality=92, exif=tags)
    assert "turned" not in "".join(same(tab, model, tmp_path / "turned.jpg")["note"])


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_photo_that_lies_on_its_side_is_turned_and_that_is_told(turn, opened, tmp_path):
    tab, _, model = opened
    Image.fromarray(group(2)).rotate(turn, expand=True).save(tmp_path / "side.png")
    assert all("the photo was turned" in note for note in same(tab, model, tmp_path / "side.png")["note"])


def test_a_face_that_is_small_or_cut_off_gets_the_note_of_python(opened, tmp_path):
    tab, _, model = opened
    photo = place(page(700, 900), faces()[3], (300, 300), 70)
    Image.fromarray(place(photo, faces()[5], (870, 400), 260)).save(tmp_path / "notes.png")
    notes = " ".join(same(tab, model, tmp_path / "notes.png")["note"])
    assert "pixels wide" in notes and "border" in notes


def test_without_a_face_a_person_marks_the_eyes(opened, tmp_path):
    tab, asked, model = opened
    Image.fromarray(page(300, 400)).save(tmp_path / "wall.png")
    assert deploy.predict(tmp_path / "wall.png", model).empty
    answer(tab, tmp_path / "wall.png")
    assert "No face was found: drag the circles onto the eyes" in tab.locator("#answer").inner_text()
    Image.fromarray(group(1)).save(tmp_path / "face.png")  # the next photo is looked at as if nothing had been
    same(tab, model, tmp_path / "face.png")
    assert "drag" not in tab.locator("#answer").inner_text()
    assert all(url.startswith(("file:", "blob:")) for url in asked)


def test_a_person_may_mark_the_eyes_instead(opened, tmp_path):
    tab, _, _ = opened
    Image.fromarray(group(1)).save(tmp_path / "face.png")
    found = answer(tab, tmp_path / "face.png")
    tab.locator("#mark").click()
    tab.get_by_text("Drag the circles onto the two eyes").wait_for()
    tab.locator("#answer[data-years]").wait_for()
    assert float(tab.locator("#answer").get_attribute("data-years")) != found


def test_the_camera_gives_a_photo_like_a_file(opened, tmp_path):
    tab, _, _ = opened
    Image.fromarray(group(1)).save(tmp_path / "face.png")
    assert ages(tab, tmp_path / "face.png", "#camera") == ages(tab, tmp_path / "face.png")


def test_without_the_detector_the_page_is_written_and_the_remedy_is_told(model_file, tmp_path, monkeypatch, capsys):  # noqa: F811
    def missing():
        raise ImportError("facenet-pytorch is not installed: pip install it")

    monkeypatch.setattr(web, "detector", missing)
    web.detector_nets.cache_clear()
    for name in web.FILES:
        (tmp_path / name).write_bytes(b"code")
    web.write_page(model_file, tmp_path / "phone.html", tmp_path)
    web.detector_nets.cache_clear()
    assert "for (const packed of [])" in (tmp_path / "phone.html").read_text(encoding="utf-8")
    one_sentence(capsys.readouterr().out.strip(), "mark the eyes", "facenet-pytorch")


@pytest.fixture
def writes(monkeypatch, tmp_path):
    """Let `commands.phone` write one line instead of the page, and look for shipped models below `tmp_path`."""
    monkeypatch.setattr(web, "fetch_runtime", lambda: tmp_path)
    monkeypatch.setattr(web, "write_page", lambda model, out, runtime: out.write_text(f"with {model}"))
    monkeypatch.setattr(phone, "ROOT", tmp_path)
    monkeypatch.setattr(phone, "run_dir", lambda: tmp_path)
    monkeypatch.setattr(deploy, "best_model", lambda: tmp_path / "best.onnx")
    return tmp_path


def test_the_command_takes_the_model_given_else_a_compact_one_else_the_best(writes, capsys):
    phone.main([])
    assert (writes / "phone.html").read_text() == f"with {writes / 'best.onnx'}"
    own = writes / "deploy" / "compact_resnet_int8.onnx"
    shipped = writes / "data" / "models" / "compact_int8.onnx"
    for file in (own, shipped):
        file.parent.mkdir(parents=True)
        file.touch()
        phone.main([])
        assert (writes / "phone.html").read_text() == f"with {file}"
    phone.main(["--model", str(writes / "mine.onnx"), "--out", str(writes / "mine.html")])
    assert (writes / "mine.html").read_text() == f"with {writes / 'mine.onnx'}"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and "best.onnx" in said[0] and str(shipped) in said[2] and "mine.onnx" in said[3]


@pytest.mark.parametrize("missing", ["model", "npm"])
def test_the_command_ends_with_one_sentence(missing, writes, monkeypatch):
    monkeypatch.undo()
    if missing == "npm":
        monkeypatch.setattr(shutil, "which", lambda name: None)
        monkeypatch.setattr(web, "FILES", {"other.mjs": "0"})
    with pytest.raises(SystemExit) as end:
        phone.main(["--model", str(writes / "none.onnx"), "--out", str(writes / "page.html")])
    one_sentence(end.value.code, "install npm" if missing == "npm" else "does not exist")
    assert not (writes / "page.html").exists()
