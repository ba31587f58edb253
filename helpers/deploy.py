"""A photo in, faces and ages out, on this machine alone. For many photos: `python -m commands.ages holidays/`."""

import os
import re
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from .align import SURE, crop, detect
from .datasets import FaceAgeDataset, read_splits
from .export import MADE_BY, facts_of, load, years_of
from .images import decode, prepare, read_image, to_rgb, upright
from .paths import DEMO, ROOT, is_demo, run_dir

SHIPPED = ROOT / "data" / "models" / "face_resnet_photos.onnx"
DRAWN = re.compile(rf"{DEMO.name}(-\d+-\d+)?")  # the names of runs on the shipped faces, of any range of ages
COLUMNS = ["left", "top", "right", "bottom", "age", "low", "high", "score", "note"]
NO_FACE = "no face was found: cut out the part with the face; for one cropped face say cropped=True (--cropped)"


def best_model(run=None) -> Path:
    """Return the ONNX file in `deploy` of the folder `run` (that of `AGE_DATA`) with the smallest validation error.

    Passes over what a killed export left and, with a sentence, what was trained on another split than the present one.
    Raises `FileNotFoundError` that names the notebook when there is no other.
    """
    errors, sets = {}, set()  # the names of the present training set, one for each cache of its pictures
    caches = (run_dir() / "cache").glob(f"faces-{16 * '?'}.npy") if run is None else ()
    for file in caches:  # to read the photos would take minutes
        with suppress(FileNotFoundError, ValueError):  # without a split, or of other pictures
            faces = read_splits()
            sets.add(repr(FaceAgeDataset(file, faces["age"], np.flatnonzero(faces["part"] == "train"))))
    run = run or run_dir()
    for file in sorted((run / "deploy").glob("[!.]*.onnx")):
        with suppress(ValueError):
            facts = facts_of(load(file))
            if sets and facts.get("trained_on") not in sets:
                print(f"{file} was trained on another split than the present one: run {MADE_BY} again.")
            else:
                errors[file] = facts["mae"]
    if not errors:
        raise FileNotFoundError(f"No model in {run / 'deploy'} yet: run {MADE_BY}, or name one with --model.")
    return min(errors, key=errors.get)


def model_for_photos() -> Path:
    """Return the ONNX file for photos of people: the best of a run on photos, else the one that is shipped for them.

    The run is that of `AGE_DATA`, or the latest one if that is unset. No model of the drawn faces is taken.
    Raises `FileNotFoundError` with the remedy when there is neither.
    """
    others = sorted(run_dir().parent.glob("*/deploy"), key=lambda folder: -folder.stat().st_mtime)
    others = [folder.parent for folder in others if not DRAWN.fullmatch(folder.parent.name)]
    for run in others if is_demo() else [None]:
        with suppress(FileNotFoundError):
            return best_model(run)
    if not SHIPPED.is_file():
        raise FileNotFoundError(f"{SHIPPED} is missing: get it back with git checkout data/models, or name a --model.")
    return SHIPPED


def origin_of(file) -> str:
    """Return in words what the model in the ONNX file `file` has learnt from, and its error. Raises as `load` does."""
    facts, file = facts_of(load(file)), Path(file).resolve()
    file = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    if DRAWN.fullmatch(facts.get("data", "")):
        return f"{file} has learnt from drawn faces: for photos of people its ages mean little"
    text = f"{file} has learnt from {facts.get('data', 'photos')} and errs there by {facts['mae']:.1f} years on average"
    if elsewhere := facts.get("elsewhere"):
        text += f", by {elsewhere['mae']:.1f} on photos of another source"
    return text


def predict(photo, model=None, cropped=False) -> pd.DataFrame:
    """Return the faces in `photo`, which must be RGB: BGR, as OpenCV reads it, cannot be seen and gives other ages.

    From left to right, one row each: the box in pixels (`left, top, right, bottom`), `age` and its interval `low, high`
    in years, the detector's `score`, and a `note` on what to mind. No row when no face is found. Nine of ten intervals
    hold for people like those of the validation set, fewer at the youngest and oldest ages (notebook 07).
    `photo`: as for `as_picture`. `model`: from `load`, or an ONNX file; `model_for_photos` if omitted. `cropped`: the
    photo is one face, cropped like the training pictures, so none is looked for.
    Raises `ValueError` or `FileNotFoundError` with the remedy for what cannot be read.
    """
    model = model if hasattr(model, "run") else load(model or model_for_photos())
    photo, facts = as_picture(photo), facts_of(model)
    if cropped:
        boxes, scores, crops, notes = np.array([[0, 0, *photo.shape[1::-1]]]), [np.nan], [prepare(photo)], [[]]
    elif facts["margin"] is None:
        raise ValueError(f"The model does not know how faces are cropped: run {MADE_BY} again with the face detector.")
    else:
        boxes, points, scores = detect(photo)
        crops = [crop(photo, face, facts["margin"]) for face in points]
        notes = [notes_on(*face, photo.shape) for face in zip(boxes, points, scores)]
    if not len(boxes):
        return pd.DataFrame(columns=COLUMNS)
    table = pd.DataFrame(boxes.round().astype(int), columns=COLUMNS[:4])
    table["age"] = years_of(model, np.stack(crops)).astype(float)
    table["low"], table["high"] = table["age"] - facts["half_width"], table["age"] + facts["half_width"]
    ends = [note_on_age(age, facts.get("ages")) for age in table["age"]]
    return table.assign(score=scores, note=["; ".join([*said, *end]) for said, end in zip(notes, ends)])


def as_picture(photo) -> np.ndarray:
    """Return `photo` as uint8 RGB `(H, W, 3)`, upright. Raises `ValueError`.

    It may be a file, its bytes, a PIL picture, or uint8 `(H, W)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA.
    """
    if isinstance(photo, (str, os.PathLike)):
        if re.match(r"\w\w+:/", str(photo)):
            raise ValueError(f"{photo} is an address: nothing is downloaded here, so save the photo and name the file.")
        return read_image(os.path.expanduser(photo))
    if isinstance(photo, (bytes, Image.Image)):
        try:
            return decode(BytesIO(photo)) if isinstance(photo, bytes) else upright(photo)
        except Exception as error:  # Pillow has many for the many ways to be damaged
            raise ValueError("The picture cannot be decoded: give the bytes of a whole JPEG or PNG file.") from error
    if getattr(photo, "dtype", None) != np.uint8 or photo.ndim not in (2, 3) or photo.shape[2:] not in ((), (3,), (4,)):
        what = f"A picture of {photo.dtype} {photo.shape}" if isinstance(photo, np.ndarray) else type(photo).__name__
        raise ValueError(f"{what} cannot be read: give uint8 (H, W, 3), or a file.")
    return np.asarray(to_rgb(Image.fromarray(photo)))


def notes_on(box, points, score, shape) -> list:
    """Return in words why the estimate for a face that was found in a photo of `shape` is to be trusted less."""
    (left, top, right, bottom), rim, notes = box, 0.005 * max(shape[:2]), []
    across, down = points[1] - points[0]  # from eye to eye
    if turned := round(np.degrees(np.arctan2(down, across)) / 90) % 4:
        notes.append(f"the photo was turned by {('90° to the left', '180°', '90° to the right')[turned - 1]}")
    if score < SURE:
        notes.append(f"it may be no face (score {score:.2f})")
    if left < rim or top < rim or right > shape[1] - rim or bottom > shape[0] - rim:
        notes.append("the face reaches the border of the photo, so a part may be cut off: trust the age less")
    if right - left < 40:
        notes.append(f"the face is only {right - left:.0f} pixels wide: trust the age less")
    return notes


def note_on_age(age, ages) -> list:
    """Return in words that `age` is within two years of the ends of `ages`, the youngest and oldest of the training."""
    if ages and age < ages[0] + 2:
        return [f"the model knows no age below {ages[0]:.0f}: the person may be younger"]
    if ages and age > ages[1] - 2:
        return [f"the model knows no age above {ages[1]:.0f}: the person may be older"]
    return []


def annotate(photo, table) -> np.ndarray:
    """Return `photo` (as for `predict`) as uint8 RGB `(H, W, 3)` with a box and an age for each row of `table`."""
    picture = Image.fromarray(as_picture(photo))
    draw = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 400))
    for face in table.itertuples():
        draw.rectangle((face.left, face.top, face.right, face.bottom), outline="#0072B2", width=line)
        font = ImageFont.load_default(max(12, 6 * line, (face.right - face.left) // 7))
        text = f"{face.age:.0f} ({face.low:.0f} to {face.high:.0f})"
        width, height = (round(1.2 * length) for length in draw.textbbox((0, 0), text, font)[2:])
        left = max(0, min(face.left, picture.width - width))
        top = face.top - height if face.top >= height else face.bottom  # below, where there is no room above
        top = max(0, min(top, picture.height - height))
        draw.rectangle((left, top, left + width, top + height), fill="#0072B2")
        draw.text((left + width / 2, top + height / 2), text, "white", font, anchor="mm")
    return np.asarray(picture)
