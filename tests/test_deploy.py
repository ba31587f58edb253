"""From any photo to faces and ages: where the faces are, how they are cropped, what the command says and leaves."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from faces import one_sentence, snapshot
from PIL import Image

from helpers import deploy, export, images, labels, models, paths

pytest.importorskip("facenet_pytorch", reason="needs the face detector: requirements-optional.txt")

GREY = (127, 127, 127)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are too small to share; on a busy machine the threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shipped():
    """Some of the faces that are shipped, uint8 `(160, 160, 3)`."""
    paths_of_faces = labels.find_faces(paths.DEMO)["path"]
    return [images.read_image(paths.DEMO / path) for path in paths_of_faces[:: len(paths_of_faces) // 24]]


@pytest.fixture(scope="module")
def margin(shipped):
    return deploy.margin_of(np.stack([images.prepare(face) for face in shipped]))


@pytest.fixture(scope="module")
def model_file(margin, tmp_path_factory):
    torch.manual_seed(0)
    network = models.SimpleCNN(widths=(4, 4, 8, 8), hidden=16)
    file = tmp_path_factory.mktemp("models") / "tiny.onnx"
    export.export(models.start_at(network, 35.0), file)
    export.write_facts(file, margin=margin, half_width=7.5, mae=4.0, data="demo")
    return file


@pytest.fixture(scope="module")
def model(model_file):
    return export.load(model_file, threads=1)


def place(photo, face, centre, side, angle=0):
    """Lay the square picture `face` on `photo` at `centre` (x, y), `side` pixels wide and turned; return `photo`."""
    matrix = cv2.getRotationMatrix2D((face.shape[1] / 2, face.shape[0] / 2), angle, side / face.shape[0])
    matrix[:, 2] += np.array(centre) - np.array(face.shape[1::-1]) / 2
    return cv2.warpAffine(face, matrix, photo.shape[1::-1], dst=photo, borderMode=cv2.BORDER_TRANSPARENT)


def page(height, width, colour=GREY):
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture(scope="module")
def group(shipped):
    """A photo of four people: different sizes, some turned; and where their pictures lie `(x, y, side)`."""
    where = [(150, 200, 120, 0), (420, 500, 300, -12), (760, 180, 180, 10), (950, 560, 150, 0)]
    photo = page(800, 1100)
    for face, (x, y, side, angle) in zip(shipped[::5], where):
        photo = place(photo, face, (x, y), side, angle)
    return photo, [spot[:3] for spot in where]


# Where the faces are


def test_every_face_is_found_from_left_to_right(group):
    photo, where = group
    boxes, points = deploy.detect(photo)
    assert len(boxes) == len(points) == 4
    for (left, top, right, bottom), (x, y, side) in zip(boxes, where):
        assert abs((left + right) / 2 - x) < 0.2 * side and abs((top + bottom) / 2 - y) < 0.2 * side
        assert 0.25 * side < right - left < 0.9 * side
    for box, (left_eye, right_eye, nose, *_, mouth) in zip(boxes, points):
        assert left_eye[0] < nose[0] < right_eye[0] and left_eye[1] < nose[1] < mouth[1]
        assert (box[:2] < nose).all() and (nose < box[2:]).all()


@pytest.mark.parametrize("factor", [0.5, 4])
def test_the_size_of_the_photo_changes_nothing_but_the_scale(group, factor):
    boxes, points = deploy.detect(group[0])
    larger, moved = deploy.detect(cv2.resize(group[0], None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    assert np.abs(larger / factor - boxes).max() < 12
    assert np.abs(moved / factor - points).max() < 6


@pytest.mark.parametrize("shape", [(600, 800), (32, 32), (32, 40_000), (2000, 33)])
def test_a_photo_without_a_face_gives_an_empty_table(model, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for photo in (page(*shape), noise):
        table = deploy.predict(photo, model)
        assert table.empty and list(table.columns) == deploy.COLUMNS


def test_without_the_detector_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    deploy.detector.cache_clear()
    with pytest.raises(ImportError) as error:
        deploy.detector()
    one_sentence(error.value, "pip install --no-deps -r requirements-optional.txt")


# The margin and the crop


def test_the_margin_is_a_property_of_the_pictures(shipped, margin):
    """Pictures with more around the face have their points nearer to the middle, by just as much."""
    looser = [place(page(128, 128), images.prepare(face), (64, 64), 96) for face in shipped]
    expected = (np.array(margin) - 0.5) * 96 / 128 + 0.5
    assert np.abs(np.array(deploy.margin_of(np.stack(looser))) - expected).max() < 0.012
    (left_x, left_y), (right_x, right_y), *_ = margin
    assert left_x < 0.5 < right_x and abs(left_y - right_y) < 0.02


def test_pictures_without_faces_have_no_margin():
    with pytest.raises(ValueError) as error:
        deploy.margin_of(np.stack([page(128, 128)] * 3))
    one_sentence(error.value, "A face was found in 0 of 3 pictures")


def smooth(side=128):
    coarse = np.random.default_rng(1).integers(40, 216, (7, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("side, angle", [(128, 0), (128, 15), (90, -10), (333, 7), (1500, -15)])
def test_a_crop_undoes_turn_size_and_place(side, angle):
    """The points as they are known, no detector: the picture comes back as it was before it was laid on the photo."""
    face, photo = smooth(512), page(2200, 2300)
    centre = np.array([1000.0, 1100.0])
    photo = place(photo, face, centre, side, angle)
    margin = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]])
    turn = cv2.getRotationMatrix2D((0, 0), angle, side / 512)[:, :2]
    points = (
        margin * 512 - 0.5 - 256
    ) @ turn.T + centre  # a share of the side lies half a pixel before its pixel's number
    back = deploy.crop(photo, points, margin).astype(int)
    error = np.abs(back - images.prepare(face))[8:-8, 8:-8]
    assert error.mean() < 1.5 and np.quantile(error, 0.99) < 6


def test_a_crop_at_the_border_repeats_the_edge():
    photo = page(100, 100, (10, 20, 30))
    margin = [[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]]
    back = deploy.crop(photo, np.array(margin) * 200 - [90, 60], margin)
    assert back.shape == (128, 128, 3) and np.abs(back.astype(int) - (10, 20, 30)).max() <= 2


def test_a_photo_wider_than_opencv_turns_is_cropped():
    margin = [[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]]
    photo = page(128, 40_000)
    photo[:, -128:] = smooth()
    back = deploy.crop(photo, np.array(margin) * 128 + [40_000 - 128 - 0.5, -0.5], margin).astype(int)
    assert np.abs(back - images.prepare(smooth()))[2:-2, 2:-2].mean() < 1


# Faces and ages


def test_the_table(group, model):
    table = deploy.predict(group[0], model)
    assert list(table.columns) == deploy.COLUMNS and len(table) == 4
    assert np.allclose(table["high"] - table["age"], 7.5) and np.allclose(table["age"] - table["low"], 7.5)
    assert table["left"].is_monotonic_increasing and (table["note"] == "").all()
    assert deploy.predict(group[0], model).equals(table)


def test_the_age_is_that_of_the_aligned_crop(group, model, margin):
    crops = [deploy.crop(group[0], points, margin) for points in deploy.detect(group[0])[1]]
    assert np.allclose(deploy.predict(group[0], model)["age"], export.years_of(model, np.stack(crops)), atol=1e-3)
    assert deploy.margin_of(np.stack(crops)) == pytest.approx(np.array(margin), abs=0.03)


def test_formats_and_modes_give_the_same_faces(group, model, tmp_path):
    picture, expected = Image.fromarray(group[0]), deploy.predict(group[0], model)
    picture.save(tmp_path / "a.png")
    assert deploy.predict(tmp_path / "a.png", model).equals(expected)
    alpha = np.dstack([group[0], np.full(group[0].shape[:2], 255, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    assert deploy.predict(tmp_path / "rgba.png", model).equals(expected)
    assert deploy.predict(alpha, model).equals(expected)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side; to be turned by 90° clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert deploy.predict(tmp_path / "turned.png", model).equals(expected)
    picture.convert("L").save(tmp_path / "grey.png")
    grey = deploy.predict(tmp_path / "grey.png", model)
    assert len(grey) == 4 and np.abs(grey[deploy.COLUMNS[:4]] - expected[deploy.COLUMNS[:4]]).to_numpy().max() < 15
    assert deploy.predict(np.asarray(picture.convert("L")), model).equals(grey)


@pytest.mark.parametrize("wrong", [np.zeros((40, 40, 3)), np.zeros((40, 40, 2), np.uint8), np.zeros(40, np.uint8)])
def test_an_array_that_is_no_picture_is_told(model, wrong):
    with pytest.raises(ValueError, match="give uint8") as error:
        deploy.predict(wrong, model)
    assert "\n" not in str(error.value)


def test_a_face_cut_by_the_border_is_told(shipped, model):
    face = cv2.resize(shipped[0], (400, 400), interpolation=cv2.INTER_CUBIC)
    left, top, right, bottom = deploy.detect(face)[0][0].round().astype(int)
    assert deploy.predict(face, model)["note"].tolist() == [""]
    cut = face[:, left + (right - left) // 6 :]
    (note,) = deploy.predict(cut, model)["note"]
    one_sentence(note, "reaches the border")


def test_a_small_face_is_told(shipped, model):
    photo = place(page(500, 700), shipped[0], (300, 200), 70)
    (note,) = deploy.predict(photo, model)["note"]
    one_sentence(note, "pixels wide")


def test_boxes_are_drawn_and_the_rest_is_left(group, model):
    table = deploy.predict(group[0], model)
    drawn = deploy.annotate(group[0], table)
    assert drawn.shape == group[0].shape and drawn.dtype == np.uint8
    changed = (drawn != group[0]).any(2)
    assert all(changed[face.top, face.left] for face in table.itertuples())
    changed[table["top"].min() - 60 : table["bottom"].max() + 60, table["left"].min() - 60 :] = False
    assert not changed.any()
    assert (deploy.annotate(group[0], table.iloc[:0]) == group[0]).all()


@pytest.mark.parametrize("box", [(-5, -5, 30, 30), (0, 0, 99, 79), (90, 70, 140, 120)])
def test_a_box_at_the_border_is_drawn_inside(box):
    table = pd.DataFrame([(*box, 34.2, 27.0, 41.4, "")], columns=deploy.COLUMNS)
    drawn = deploy.annotate(page(80, 100), table)
    assert drawn.shape == (80, 100, 3) and (drawn != 127).any()


BIG = """
import re, sys
from helpers import deploy
table = deploy.predict(sys.argv[1], sys.argv[2])
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())  # ru_maxrss knows that of the parent too
print(len(table), int(peak[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in /proc")
def test_a_hundred_megapixels_fit_into_memory(shipped, model_file, tmp_path):
    photo = place(page(8_660, 11_550), shipped[0], (6_000, 4_000), 3_000)
    Image.fromarray(photo).save(tmp_path / "big.jpg", quality=80)
    small = Image.fromarray(photo[2_000:6_000, 4_000:8_000]).resize((400, 400))
    small.save(tmp_path / "small.jpg")
    used = {}
    for name in ("small", "big"):
        command = [sys.executable, "-c", BIG, tmp_path / f"{name}.jpg", model_file]
        done = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT, check=True)
        assert not done.stderr, done.stderr
        faces, used[name] = map(int, done.stdout.split())
        assert faces == 1
    # In MB: 300 for Pillow's photo and twice that for a moment, while it becomes an array; another copy is too much.
    assert used["big"] - used["small"] < 1_100


# The command


@pytest.fixture
def album(tmp_path, group, shipped):
    """A folder of two photos with faces, one without, and three files that are no good photos."""
    folder = tmp_path / "album"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(group[0]).save(folder / "group.jpg", quality=95)
    Image.fromarray(shipped[1]).save(folder / "sub" / "group.png")
    Image.fromarray(page(300, 400)).save(folder / "wall.jpg")
    (folder / "broken.jpg").write_bytes((folder / "group.jpg").read_bytes()[:3_000])
    (folder / "notes.txt").write_text("no picture")
    (folder / "page.jpg").write_text("<html>")
    (folder / ".hidden.jpg").write_text("x")
    return folder


def test_a_folder_is_worked_through_whatever_it_holds(album, model_file, tmp_path, capsys):
    before, out = snapshot(album), tmp_path / "annotated"
    deploy.main([str(album), "--out", str(out), "--model", str(model_file)])
    table = pd.read_csv(out / "ages.csv", keep_default_na=True)
    assert list(table.columns) == ["photo", *deploy.COLUMNS]
    faces = table.groupby(table["photo"].str.removeprefix(f"{album}{os.sep}"))["age"].count().to_dict()
    assert faces == {"group.jpg": 4, f"sub{os.sep}group.png": 1} | dict.fromkeys(
        ["broken.jpg", "notes.txt", "page.jpg", "wall.jpg"], 0
    )
    assert sorted(file.name for file in out.iterdir()) == ["ages.csv", "group_ages.jpg", "group_ages_2.jpg"]
    assert Image.open(out / "group_ages.jpg").size == (1100, 800)
    said = capsys.readouterr().out.splitlines()
    for name, why in {
        "wall.jpg": "no face was found",
        "broken.jpg": "cannot be decoded",
        "notes.txt": "is not a picture file",
        "page.jpg": "holds no picture",
    }.items():
        (line,) = (line for line in said if str(album / name) in line)
        one_sentence(line, why)
    assert "5 faces in 2 of 6 files" in said[-1]
    assert snapshot(album) == before


@pytest.mark.parametrize("where", ["annotated", "."])
def test_results_inside_the_folder_are_not_read_again(album, model_file, where):
    out = album / where
    for _ in range(2):
        deploy.main([str(album), "--out", str(out), "--model", str(model_file)])
        assert pd.read_csv(out / "ages.csv")["photo"].nunique() == 6
        assert len(list(out.glob("*_ages*.jpg"))) == 2


def test_a_photo_beside_its_result_is_not_overwritten(album, model_file):
    before = (album / "group.jpg").read_bytes()
    deploy.main([str(album / "group.jpg"), str(album / "group.jpg"), "--out", str(album), "--model", str(model_file)])
    assert (album / "group.jpg").read_bytes() == before
    assert len(pd.read_csv(album / "ages.csv")) == 4  # named twice, done once


def test_a_photo_that_is_too_large_for_the_memory_is_named_and_the_rest_goes_on(
    album, model_file, tmp_path, monkeypatch, capsys
):
    def full(photo, model):
        if not full.met:
            full.met = True
            raise MemoryError
        return whole(photo, model)

    whole, full.met = deploy.predict, False
    monkeypatch.setattr(deploy, "predict", full)
    first, second = album / "wall.jpg", album / "group.jpg"
    deploy.main([str(first), str(second), "--out", str(tmp_path / "out"), "--model", str(model_file)])
    table = pd.read_csv(tmp_path / "out" / "ages.csv")
    assert table["note"][0] == f"{first}: too large for the memory" and f"{first}: too large" in capsys.readouterr().out
    assert table["age"].notna().any()


def test_the_command_in_a_process_of_its_own(album, model_file, tmp_path):
    command = [sys.executable, "-m", "helpers.deploy", album / "wall.jpg", album / "gone.jpg"]
    command += ["--out", tmp_path / "out", "--model", model_file]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=paths.ROOT)
    assert done.returncode == 1  # no face in any of them
    assert f"{album / 'wall.jpg'}: no face was found" in done.stdout
    assert f"{album / 'gone.jpg'} does not exist" in done.stdout
    assert "Traceback" not in done.stderr and "photos: 100%" in done.stderr


@pytest.mark.parametrize("kind", ["missing", "damaged", "none exported"])
def test_without_a_model_the_command_ends_with_one_sentence(kind, album, tmp_path, monkeypatch):
    monkeypatch.setattr(deploy, "run_dir", lambda: tmp_path / "runs")
    file = tmp_path / "model.onnx"
    if kind == "damaged":
        file.write_bytes(b"no model")
    named = [] if kind == "none exported" else ["--model", str(file)]
    with pytest.raises(SystemExit) as stopped:
        deploy.main([str(album), "--out", str(tmp_path / "out"), *named])
    one_sentence(stopped.value.code, "notebook 08_deployment")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_margin_says_what_is_missing(album, model_file, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(model_file.read_bytes())
    export.write_facts(file, margin=None, half_width=1.0, mae=4.0)  # notebook 08 had no detector
    with pytest.raises(ValueError) as error:
        deploy.predict(album / "group.jpg", file)
    one_sentence(error.value, "notebook 08_deployment", "detector")


def test_an_output_folder_that_cannot_be_made_is_told(album, model_file):
    with pytest.raises(SystemExit) as stopped:
        deploy.main([str(album), "--out", str(album / "notes.txt"), "--model", str(model_file)])
    one_sentence(stopped.value.code, album / "notes.txt")


def test_the_model_with_the_smallest_error_is_used(model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(deploy, "run_dir", lambda: tmp_path)
    (tmp_path / "deploy").mkdir()
    for name, mae in (("a", 5.0), ("b", 3.0), ("c", 4.0)):
        file = tmp_path / "deploy" / f"{name}.onnx"
        file.write_bytes(model_file.read_bytes())
        export.write_facts(file, margin=[], half_width=1.0, mae=mae)
    (tmp_path / "deploy" / ".d.0.onnx").write_bytes(b"half of a file")  # as a killed export leaves them
    (tmp_path / "deploy" / "e.onnx").write_bytes(b"no model")
    assert deploy.best_model() == tmp_path / "deploy" / "b.onnx"
