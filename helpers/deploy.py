"""A photo in, faces and ages out, on this machine alone: `python -m helpers.deploy photo.jpg --out annotated/`."""

import argparse
import re
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from .export import MADE_BY, facts_of, load, years_of
from .images import SIDE, prepare, read_image, to_rgb
from .paths import atomic, run_dir

COLUMNS = ["left", "top", "right", "bottom", "age", "low", "high", "note"]
RESULT = re.compile(r".*_ages(_\d+)?\.jpg|ages\.csv")  # what the command writes


@lru_cache
def detector():
    """Return the face detector MTCNN (Zhang et al. 2016), whose weights lie in the package facenet-pytorch."""
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        remedy = "pip install --no-deps -r requirements-optional.txt"
        raise ImportError(f"The face detector facenet-pytorch is not installed: {remedy}") from error
    return MTCNN(keep_all=True, min_face_size=40, device="cpu")


def detect(photo):
    """Return the faces in `photo` uint8 RGB `(H, W, 3)`, from left to right: `(boxes (N, 4), points (N, 5, 2))`.

    In pixels; a box is left, top, right, bottom; the points are the eyes, the tip of the nose and the corners of the
    mouth, each pair from left to right. Finds upright faces from about a 25th of the longer side on.
    """
    size = np.array(photo.shape[1::-1])
    small = np.maximum(1, (size * min(1, 1024 / size.max())).round()).astype(int)
    # On a tight crop the points are wrong by several pixels; with room around it they are right.
    rim = max(24, int(small.min()) // 8)  # 24: the detector needs 40 pixels
    picture = cv2.resize(photo, small.tolist(), interpolation=cv2.INTER_AREA)
    picture = cv2.copyMakeBorder(picture, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=(127, 127, 127))
    boxes, _, points = detector().detect(picture, landmarks=True)
    if boxes is None:
        return np.zeros((0, 4)), np.zeros((0, 5, 2))
    order = np.argsort(boxes[:, 0], kind="stable")
    corners, points = (array[order].astype(float).reshape(len(boxes), -1, 2) for array in (boxes, points))
    return ((corners - rim) * size / small).reshape(-1, 4), (points - rim) * size / small


def margin_of(images, sample=100) -> list:
    """Return where the five points of a face lie in prepared pictures: `[[x, y], …]`, as shares of the side.

    The medians over `sample` of `images`, uint8 `(N, 128, 128, 3)`. This is the margin that a photo must be cropped
    with for a model that has learnt from them. Raises `ValueError` when most of them show no face, or several.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, sample).astype(int))
    found = [detect(np.asarray(images[i]))[1] for i in chosen]
    found = [points[0] for points in found if len(points) == 1]
    if 2 * len(found) < len(chosen):
        raise ValueError(f"A face was found in {len(found)} of {len(chosen)} pictures, too few to measure the margin.")
    return ((np.median(found, axis=0) + 0.5) / images.shape[1]).round(4).tolist()


def crop(photo, points, margin) -> np.ndarray:
    """Return the face at `points` `(K, 2)` of `photo` as the models know it: uint8 `(128, 128, 3)`, upright, prepared.

    Turned, scaled and shifted so that the points come to lie where `margin` has them, with the least squared error.
    """
    # As complex numbers, turning and scaling is one factor: target = factor · source + shift.
    source, target = (np.asarray(p, float) @ [1, 1j] for p in (np.asarray(points) + 0.5, margin))
    spread = source - source.mean()
    factor = np.vdot(spread, target) / np.vdot(spread, spread)
    side = int(np.clip(round(1 / abs(factor)), SIDE, 8 * SIDE))  # about as many pixels as the photo has there
    factor *= side
    half = 0.5 + 0.5j  # shares count from the corner of a pixel, OpenCV from its middle
    shift = side * target.mean() - factor * source.mean() + factor * half - half
    matrix = np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
    # Only the part around the face: OpenCV turns no picture that is wider than 32,767 pixels.
    corners = np.array([[[0, 0], [side, 0], [0, side], [side, side]]], float)
    corners = cv2.transform(corners, cv2.invertAffineTransform(matrix))[0]
    low = np.clip(np.floor(corners.min(0)) - 2, 0, np.array(photo.shape[1::-1]) - 1).astype(int)
    high = np.maximum(np.ceil(corners.max(0)) + 3, low + 1).astype(int)
    near = photo[low[1] : high[1], low[0] : high[0]]
    matrix[:, 2] += matrix[:, :2] @ low
    return prepare(cv2.warpAffine(near, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def best_model() -> Path:
    """Return the ONNX file in `runs/<data name>/deploy` with the smallest error on the validation part.

    What a killed export left is passed over. Raises `FileNotFoundError` that names the notebook when there is none.
    """
    errors = {}
    for file in sorted((run_dir() / "deploy").glob("[!.]*.onnx")):
        with suppress(ValueError):
            errors[file] = facts_of(load(file))["mae"]
    if not errors:
        raise FileNotFoundError(f"No model in {run_dir() / 'deploy'} yet: run {MADE_BY}, or name one with --model.")
    return min(errors, key=errors.get)


def predict(photo, model=None) -> pd.DataFrame:
    """Return the faces in `photo` from left to right: the box in pixels, the age and its interval in years, a note.

    `photo`: a file, or a picture uint8 `(H, W)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA. `model`: from `load`, or an ONNX
    file; the best that notebook 08 exported if omitted. Columns: `left, top, right, bottom, age, low, high, note`; no
    row when no face is found. The interval holds nine of ten ages of people like those of the validation part, all ages
    together; at the youngest and oldest ages fewer (notebook 07).
    Raises `ValueError` or `FileNotFoundError` with the remedy for what cannot be read.
    """
    model = model if hasattr(model, "run") else load(model or best_model())
    photo = as_picture(photo)
    boxes, points = detect(photo)
    if not len(boxes):
        return pd.DataFrame(columns=COLUMNS)
    facts = facts_of(model)
    if facts["margin"] is None:
        raise ValueError(f"The model does not know how faces are cropped: run {MADE_BY} again with the face detector.")
    ages = years_of(model, np.stack([crop(photo, face, facts["margin"]) for face in points])).astype(float)
    table = pd.DataFrame(boxes.round().astype(int), columns=COLUMNS[:4])
    table["age"], table["low"], table["high"] = ages, ages - facts["half_width"], ages + facts["half_width"]
    table["note"] = [note_on(box, photo.shape) for box in boxes]
    return table


def as_picture(photo) -> np.ndarray:
    """Return `photo`, a file or an array in grey, RGB or RGBA, as uint8 RGB `(H, W, 3)`. Raises `ValueError`."""
    if not isinstance(photo, np.ndarray):
        return read_image(photo)
    if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or photo.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"A picture of {photo.dtype} {photo.shape} cannot be read: give uint8 (H, W, 3), or a file.")
    return np.asarray(to_rgb(Image.fromarray(photo)))


def note_on(box, shape) -> str:
    """Return in words why the estimate for the face in `box`, of a photo of `shape`, is to be trusted less, or ""."""
    left, top, right, bottom = box
    rim = 0.005 * max(shape[:2])
    if left < rim or top < rim or right > shape[1] - rim or bottom > shape[0] - rim:
        return "the face reaches the border of the photo, so a part may be cut off: trust the age less"
    if right - left < 40:
        return f"the face is only {right - left:.0f} pixels wide: trust the age less"
    return ""


def annotate(photo, table) -> np.ndarray:
    """Return `photo` (as for `predict`) as uint8 RGB `(H, W, 3)` with a box and an age for each row of `table`."""
    picture = Image.fromarray(as_picture(photo))
    draw = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 400))
    for face in table.itertuples():
        box = (face.left, face.top, face.right, face.bottom)
        draw.rectangle(box, outline="#0072B2", width=line)
        font = ImageFont.load_default(max(12, 6 * line, (face.right - face.left) // 7))
        text = f"{face.age:.0f} ({face.low:.0f} to {face.high:.0f})"
        width, height = (round(1.2 * length) for length in draw.textbbox((0, 0), text, font)[2:])
        left = max(0, min(face.left, picture.width - width))
        top = face.top - height if face.top >= height else face.bottom  # below, where there is no room above
        top = max(0, min(top, picture.height - height))
        draw.rectangle((left, top, left + width, top + height), fill="#0072B2")
        draw.text((left + width / 2, top + height / 2), text, "white", font, anchor="mm")
    return np.asarray(picture)


def files_in(sources, out):
    """Return the files that `sources` name: a folder for all in it but hidden files and former results in `out`."""
    files = []
    for source in sources:
        if not source.is_dir():
            files.append(source)
            continue
        inside = sorted(file for file in source.rglob("*") if file.is_file())
        shown = [file for file in inside if "/." not in f"/{file.relative_to(source).as_posix()}"]
        files += [
            file for file in shown if not (RESULT.fullmatch(file.name) and out.resolve() in file.resolve().parents)
        ]
    return list(dict.fromkeys(files))


def unused(name, taken):
    """Return `name`, with a number where it is in the set `taken` already, and put it there."""
    stem, suffix, number = Path(name).stem, Path(name).suffix, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}{suffix}"
    taken.add(name)
    return name


def say(text):
    """Print `text` beside the progress bar; what a terminal cannot show of a file name becomes a question mark."""
    tqdm.write(text.encode("utf-8", "replace").decode())


# The command


def main(arguments=None):
    """Estimate the ages in all photos that the command line names. Exits with one sentence when nothing can be done."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.deploy",
        description="Find the faces in photos and estimate their ages. Everything happens on this machine.",
    )
    parser.add_argument("photos", nargs="+", type=Path, help="photos, and folders of photos")
    parser.add_argument(
        "--out", type=Path, default=Path("annotated"), help="folder for ages.csv and the photos with boxes"
    )
    parser.add_argument("--model", type=Path, help="an ONNX file of notebook 08; the best one if omitted")
    options = parser.parse_args(arguments)
    try:
        model = load(options.model or best_model())
        detector()
        options.out.mkdir(parents=True, exist_ok=True)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    files, rows, taken = files_in(options.photos, options.out), [], set()
    for file in tqdm(files, desc="photos", unit="photo", disable=len(files) < 2):
        try:
            photo = read_image(file)
            table = predict(photo, model)
            if table.empty:
                say(f"{file}: no face was found; a face must be upright and at least a 25th of the photo wide.")
                table = pd.DataFrame([{"note": "no face was found"}])
            else:
                with atomic(options.out / unused(f"{file.stem}_ages.jpg", taken)) as temporary:
                    Image.fromarray(annotate(photo, table)).save(temporary, quality=90)
                ages = [f"{face.age:.0f} ({face.low:.0f} to {face.high:.0f})" for face in table.itertuples()]
                say(f"{file}: {', '.join(ages)} years")
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            told = str(error) or "too large for the memory"  # a MemoryError says nothing
            told = told if str(file) in told else f"{file}: {told}"
            say(told)
            table = pd.DataFrame([{"note": told}])
        rows.append(table.assign(photo=str(file)))
    table = pd.concat(rows) if rows else pd.DataFrame()
    table = table.reindex(columns=["photo", *COLUMNS]).astype({name: "Int64" for name in COLUMNS[:4]})
    with atomic(options.out / "ages.csv") as temporary:
        table.round(1).to_csv(temporary, index=False, encoding="utf-8", errors="replace")
    done = table["photo"][table["age"].notna()].nunique()
    say(f"{table['age'].count()} faces in {done} of {len(files)} files; {options.out / 'ages.csv'} lists them.")
    if not done:
        sys.exit(1)


if __name__ == "__main__":
    main()
