"""From any photo to faces and ages: where the faces are, how they are cropped, and what is said of doubtful ones."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from faces import one_sentence, page, patterns, place
from PIL import Image
from skimage.transform import SimilarityTransform

from helpers import align, datasets, deploy, export, images, paths

pytest.importorskip("facenet_pytorch", reason="needs the face detector: requirements-optional.txt")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are too small to share; on a busy machine the threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Where the faces are


def test_every_face_is_found_from_left_to_right(group):
    photo, where = group
    boxes, points, scores = align.detect(photo)
    assert len(boxes) == len(points) == 4 and (scores > align.SURE).all() and (scores <= 1).all()
    for (left, top, right, bottom), (x, y, side) in zip(boxes, where):
        assert abs((left + right) / 2 - x) < 0.2 * side and abs((top + bottom) / 2 - y) < 0.2 * side
        assert 0.25 * side < right - left < 0.9 * side
    for box, (left_eye, right_eye, nose, *_, mouth) in zip(boxes, points):
        assert left_eye[0] < nose[0] < right_eye[0] and left_eye[1] < nose[1] < mouth[1]
        assert (box[:2] < nose).all() and (nose < box[2:]).all()


@pytest.mark.parametrize("factor", [0.5, 4])
def test_the_size_of_the_photo_changes_nothing_but_the_scale(group, factor):
    boxes, points, _ = align.detect(group[0])
    larger, moved, _ = align.detect(cv2.resize(group[0], None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    assert np.abs(larger / factor - boxes).max() < 12
    assert np.abs(moved / factor - points).max() < 6


@pytest.mark.parametrize("shape", [(600, 800), (32, 32), (32, 40_000), (2000, 33)])
def test_a_photo_without_a_face_gives_an_empty_table(model, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for photo in (page(*shape), noise):
        table = deploy.predict(photo, model)
        assert table.empty and list(table.columns) == deploy.COLUMNS


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_photo_that_lies_on_its_side_gives_the_upright_face_or_none(shipped, margin, model, turn):
    """Scans, screenshots: turned, and no EXIF tells. A sideways crop would get a wrong age without a word."""
    found = 0
    for face in shipped[::2]:
        photo = place(page(400, 400), face, (200, 200), 200)
        (upright,) = (align.crop(photo, points, margin) for points in align.detect(photo)[1])
        turned = np.rot90(photo, turn)
        for points in align.detect(turned)[1]:
            assert np.abs(align.crop(turned, points, margin).astype(int) - upright).mean() < 8
            found += 1
        for note in deploy.predict(turned, model)["note"]:
            one_sentence(note, "turned by " + ("90° to the right", "180°", "90° to the left")[turn - 1])
    assert found >= len(shipped[::2]) - 1


def test_a_turned_photo_keeps_its_place(group, model):
    """The boxes are those of the photo as it was given."""
    left, top, right, bottom = deploy.predict(group[0], model).iloc[0][deploy.COLUMNS[:4]]
    width = group[0].shape[1]
    turned = deploy.predict(np.rot90(group[0]), model).astype({name: int for name in deploy.COLUMNS[:4]})
    assert len(turned) == 4
    expected = [top, width - 1 - right, bottom, width - 1 - left]
    assert np.abs(turned[deploy.COLUMNS[:4]].to_numpy() - expected).max(1).min() <= 3


def test_ghosts_on_patterns_stay_out_or_are_told(model):
    for pattern in patterns():
        table = deploy.predict(pattern, model)
        assert table["note"].str.contains("it may be no face").all()


def textured(height, width):
    """Return a picture of soft grey noise without a face."""
    coarse = np.random.default_rng(1).integers(90, 165, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height))


@pytest.mark.parametrize("background", [page, textured])
@pytest.mark.parametrize(
    ("size", "spots"),
    [
        ((4000, 6000), [(400 + 900 * i, 500 + 700 * j) for i in range(6) for j in range(5)]),  # a class
        ((3000, 12_000), [(9000, 2500), (300, 150)]),  # a panorama
        ((12_000, 3000), [(1500, 7000)]),
        ((3000, 4000), [(1000, 900)]),
    ],
)
def test_faces_a_hundred_pixels_wide_are_found_in_large_photos(shipped, background, size, spots):
    photo = background(*size)
    for face, spot in zip(shipped * 2, spots):
        photo = place(photo, face, spot, 100)
    boxes, _, scores = align.detect(photo)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert len(boxes) == len(spots) and (scores >= align.GHOST).all()  # each once, and nothing else
    away = np.abs(centres[:, None] - np.array(spots)).max(2)
    assert (away.min(0) < 15).all() and len(set(away.argmin(0))) == len(spots)
    assert (boxes[:, 2] - boxes[:, 0] < 100).all()


def test_a_face_that_fills_a_large_photo_is_found_once(shipped):
    (box,) = align.detect(place(page(4000, 6000), shipped[0], (3000, 2000), 2500))[0]
    assert 800 < box[2] - box[0] < 2500


@pytest.mark.parametrize("pattern", list(patterns())[::7])
def test_large_patterns_bring_no_sure_ghosts(pattern):
    for photo in (np.tile(pattern, (6, 8, 1)), cv2.resize(pattern, (3200, 2400), interpolation=cv2.INTER_CUBIC)):
        assert (align.detect(photo)[2] < align.SURE).all()


def test_a_photo_of_two_megapixels_is_looked_at_as_before(monkeypatch):
    seen = []
    monkeypatch.setattr(
        align, "_upright_faces", lambda p, _: seen.append(p.shape) or (np.zeros((0, 7, 2)), np.zeros(0))
    )
    align.detect(page(1224, 1632))
    assert seen == [(768 + 2 * 96, 1024 + 2 * 96, 3)] * 4


def test_without_the_detector_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    align.detector.cache_clear()
    with pytest.raises(ImportError) as error:
        align.detector()
    one_sentence(error.value, "pip install --no-deps -r requirements-optional.txt")


# The margin and the crop


def test_the_margin_is_a_property_of_the_pictures(shipped, margin):
    """Pictures with more around the face have their points nearer to the middle, by just as much."""
    looser = [place(page(128, 128), images.prepare(face), (64, 64), 96) for face in shipped]
    expected = (np.array(margin) - 0.5) * 96 / 128 + 0.5
    assert np.abs(np.array(align.margin_of(np.stack(looser))) - expected).max() < 0.012
    (left_x, left_y), (right_x, right_y), *_ = margin
    assert left_x < 0.5 < right_x and abs(left_y - right_y) < 0.02


def test_pictures_without_faces_have_no_margin():
    with pytest.raises(ValueError) as error:
        align.margin_of(np.stack([page(128, 128)] * 3))
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
    back = align.crop(photo, points, margin).astype(int)
    error = np.abs(back - images.prepare(face))[8:-8, 8:-8]
    assert error.mean() < 1.5 and np.quantile(error, 0.99) < 6


def test_a_crop_at_the_border_repeats_the_edge():
    photo = page(100, 100, (10, 20, 30))
    margin = [[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]]
    back = align.crop(photo, np.array(margin) * 200 - [90, 60], margin)
    assert back.shape == (128, 128, 3) and np.abs(back.astype(int) - (10, 20, 30)).max() <= 2


def test_a_photo_wider_than_opencv_turns_is_cropped():
    margin = [[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]]
    photo = page(128, 40_000)
    photo[:, -128:] = smooth()
    back = align.crop(photo, np.array(margin) * 128 + [40_000 - 128 - 0.5, -0.5], margin).astype(int)
    assert np.abs(back - images.prepare(smooth()))[2:-2, 2:-2].mean() < 1


def test_the_crop_has_the_least_squared_error():
    """Over all five points: x' = a·x − b·y + c, y' = b·x + a·y + d, solved directly."""
    rng = np.random.default_rng(0)
    for count in (2, 5, 5, 5):
        points, target = rng.uniform(0, 500, (count, 2)), rng.uniform(0, 128, (count, 2))
        x, y, one, none = *points.T, np.ones(count), np.zeros(count)
        system = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
        (a, b, c, d), *_ = np.linalg.lstsq(system, target.T.ravel())
        found = SimilarityTransform.from_estimate(points, target).params[:2]
        assert found == pytest.approx(np.array([[a, -b, c], [b, a, d]]), abs=1e-6)


# Faces and ages


def test_the_table(group, model):
    table = deploy.predict(group[0], model)
    assert list(table.columns) == deploy.COLUMNS and len(table) == 4
    assert np.allclose(table["high"] - table["age"], 7.5) and np.allclose(table["age"] - table["low"], 7.5)
    assert table["left"].is_monotonic_increasing and (table["note"] == "").all()
    assert deploy.predict(group[0], model).equals(table)


def test_the_age_is_that_of_the_aligned_crop(group, model, margin):
    crops = [align.crop(group[0], points, margin) for points in align.detect(group[0])[1]]
    assert np.allclose(deploy.predict(group[0], model)["age"], export.years_of(model, np.stack(crops)), atol=1e-3)
    assert align.margin_of(np.stack(crops)) == pytest.approx(np.array(margin), abs=0.03)


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


def test_pictures_and_bytes_are_taken_like_files(group, model, tmp_path, monkeypatch):
    expected, exif = deploy.predict(group[0], model), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(group[0]).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert deploy.predict((tmp_path / "turned.png").read_bytes(), model).equals(expected)
    with Image.open(tmp_path / "turned.png") as picture:
        assert deploy.predict(picture, model).equals(expected)
    assert deploy.predict(Image.fromarray(group[0]).convert("RGBA"), model).equals(expected)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    assert deploy.predict("~/turned.png", model).equals(expected)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("https://example.org/me.jpg", "nothing is downloaded here"),
        ("http:/example.org/me.jpg", "nothing is downloaded here"),
        ("~nobody-of-that-name/me.jpg", "does not exist"),
        (b"\xff\xd8\xff half of a file", "cannot be decoded"),
        (b"", "cannot be decoded"),
        (None, "NoneType cannot be read: give uint8 (H, W, 3), or a file"),
        (7, "int cannot be read"),
        ([1, 2], "list cannot be read"),
        (torch.zeros(3, 40, 40), "Tensor cannot be read"),
        (np.zeros((40, 40, 3)), "give uint8 (H, W, 3)"),
        (np.zeros((40, 40, 2), np.uint8), "give uint8 (H, W, 3)"),
        (np.zeros(40, np.uint8), "give uint8 (H, W, 3)"),
    ],
)
def test_what_is_no_picture_is_told(model, wrong, why):
    with pytest.raises(ValueError) as error:
        deploy.predict(wrong, model)
    one_sentence(error.value, why)


def test_a_cropped_face_needs_no_detector(shipped, model, monkeypatch):
    monkeypatch.setattr(deploy, "detect", None)
    for face in shipped[:3]:
        table = deploy.predict(face, model, cropped=True)
        assert list(table.columns) == deploy.COLUMNS and table["score"].isna().all()
        assert table["age"][0] == pytest.approx(export.years_of(model, images.prepare(face)[None])[0])
        assert table.iloc[0][deploy.COLUMNS[:4]].tolist() == [0, 0, face.shape[1], face.shape[0]]
        assert deploy.annotate(face, table).shape == face.shape


def test_an_answer_near_the_ends_is_told(shipped, model_file, model, tmp_path):
    age = deploy.predict(shipped[0], model, cropped=True)["age"][0]
    for ages, why in {(age - 1, 50): "may be younger", (20, age + 1): "may be older", (age - 3, age + 3): ""}.items():
        file = tmp_path / "model.onnx"
        file.write_bytes(model_file.read_bytes())
        export.write_facts(file, **export.facts_of(model) | {"ages": [float(end) for end in ages]})
        for cropped in (True, False):
            (note,) = deploy.predict(shipped[0], file, cropped)["note"]
            one_sentence(note, why)
            assert bool(note) == bool(why)


def test_the_docstring_warns_of_bgr_first():
    assert "RGB" in deploy.predict.__doc__.splitlines()[0] and "BGR" in deploy.predict.__doc__.splitlines()[0]


def test_a_face_cut_by_the_border_is_told(shipped, model):
    face = cv2.resize(shipped[0], (400, 400), interpolation=cv2.INTER_CUBIC)
    left, top, right, bottom = align.detect(face)[0][0].round().astype(int)
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
    table = pd.DataFrame([(*box, 34.2, 27.0, 41.4, 1.0, "")], columns=deploy.COLUMNS)
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


# The model


def test_a_model_without_a_margin_says_what_is_missing(group, model_file, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(model_file.read_bytes())
    export.write_facts(file, margin=None, half_width=1.0, mae=4.0)  # notebook 09 had no detector
    with pytest.raises(ValueError) as error:
        deploy.predict(group[0], file)
    one_sentence(error.value, "notebook 09_deployment", "detector")


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


def test_for_photos_the_own_model_goes_before_the_shipped_one_and_never_that_of_drawn_faces(
    model_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(deploy, "run_dir", lambda: tmp_path / "demo")
    monkeypatch.setattr(deploy, "SHIPPED", tmp_path / "shipped.onnx")

    def made_by_a_run(name, when):
        file = tmp_path / name / "deploy" / "a.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(model_file.read_bytes())
        os.utime(file.parent, (when, when))
        return file

    made_by_a_run("demo", 300)
    with pytest.raises(FileNotFoundError) as error:
        deploy.model_for_photos()
    one_sentence(error.value, tmp_path / "shipped.onnx", "git checkout data/models", "--model")
    (tmp_path / "shipped.onnx").write_bytes(model_file.read_bytes())
    assert deploy.model_for_photos() == tmp_path / "shipped.onnx"
    made_by_a_run("older", 100)
    album = made_by_a_run("album", 200)
    assert deploy.model_for_photos() == album
    monkeypatch.setattr(deploy, "is_demo", lambda: False)  # AGE_DATA names photos without a run
    monkeypatch.setattr(deploy, "run_dir", lambda: tmp_path / "new")
    assert deploy.model_for_photos() == tmp_path / "shipped.onnx"
    new = made_by_a_run("new", 0)
    assert deploy.model_for_photos() == new


def test_a_model_of_another_split_is_passed_over(model_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(deploy, "run_dir", lambda: tmp_path)
    faces = datasets.read_splits()
    (tmp_path / "cache").mkdir()
    for number, count in enumerate((len(faces), 3)):  # those of the split, and other pictures
        file = tmp_path / "cache" / f"faces-{number:016}.npy"
        np.lib.format.open_memmap(file, "w+", np.uint8, (count, 128, 128, 3))
    pictures = np.load(tmp_path / "cache" / f"faces-{0:016}.npy", mmap_mode="r")
    now = repr(datasets.FaceAgeDataset(pictures, faces["age"], np.flatnonzero(faces["part"] == "train")))
    (tmp_path / "deploy").mkdir()
    facts = export.facts_of(export.load(model_file))
    for name, mae, trained_on in (("a", 3.0, now), ("b", 2.0, now.replace("(", "(1")), ("c", 1.0, None)):
        file = tmp_path / "deploy" / f"{name}.onnx"
        file.write_bytes(model_file.read_bytes())
        export.write_facts(file, **facts | {"mae": mae, "trained_on": trained_on})
    assert deploy.best_model() == tmp_path / "deploy" / "a.onnx"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    one_sentence(said[0], tmp_path / "deploy" / "b.onnx", "another split", "notebook 09_deployment")
    monkeypatch.setattr(datasets, "tables_dir", lambda: tmp_path)  # without a split nothing can be told
    assert deploy.best_model() == tmp_path / "deploy" / "c.onnx"


def test_a_pil_picture_of_16_bits_whose_zero_is_white(tmp_path):
    values = np.linspace(0, 65535, 100 * 100).reshape(100, 100).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    read = deploy.as_picture(tmp_path / "a.tif")
    assert read[0, 0, 0] == 255 and read[-1, -1, 0] == 0
    with Image.open(tmp_path / "a.tif") as picture:
        assert np.array_equal(deploy.as_picture(picture), read)


# The models that are shipped for photos

SHIPPED_MODELS = sorted(deploy.SHIPPED.parent.glob("*.onnx"))


def test_two_models_for_photos_are_shipped():
    sizes = {file.name: file.stat().st_size / 1e6 for file in SHIPPED_MODELS}
    assert list(sizes) == ["compact_resnet_photos.onnx", "face_resnet_photos.onnx"]
    assert sizes["face_resnet_photos.onnx"] <= 6 and sizes["compact_resnet_photos.onnx"] <= 0.7


@pytest.mark.parametrize("file", SHIPPED_MODELS, ids=lambda file: file.stem)
def test_a_shipped_model_knows_where_it_comes_from_and_no_machine(file):
    facts = export.facts_of(export.load(file))
    assert facts["ages"] == [20, 60] and facts["data"] == "UTKFace" and len(facts["margin"]) == 5
    assert 0 < facts["mae"] < facts["half_width"] and facts["elsewhere"].keys() == {"mae", "bias", "held"}
    assert b"site-packages" not in file.read_bytes() and str(paths.ROOT).encode() not in file.read_bytes()
    told = deploy.origin_of(file)
    assert told.startswith(f"data{os.sep}models") and "UTKFace" in told and "another source" in told


@pytest.mark.parametrize("file", SHIPPED_MODELS, ids=lambda file: file.stem)
def test_a_shipped_model_is_steady_under_what_happens_to_photos(file, shipped):
    """Drawn faces: their ages mean little to it, but the same face must keep its age in half the size or mirrored."""
    model, faces = export.load(file), np.stack([cv2.resize(face, (128, 128)) for face in shipped])
    years = export.years_of(model, faces)
    halves = [cv2.resize(face, (64, 64), interpolation=cv2.INTER_AREA) for face in faces]
    small = np.stack([cv2.resize(face, (128, 128)) for face in halves])
    assert np.median(np.abs(export.years_of(model, small) - years)) < 3
    assert np.median(np.abs(export.years_of(model, np.ascontiguousarray(faces[:, :, ::-1])) - years)) < 3
    assert years.std() > 0.5 and ((years > 15) & (years < 65)).all()
