"""The tables of data/models/README.md: `AGE_DATA=<UTKFace> python tests/bench/shipped.py --elsewhere <other photos>`.

Every photo goes through detector, alignment and crop. The test set of `AGE_DATA` has chosen nothing; `--elsewhere` are
photos of another source, with their ages, that no network has learnt from.
"""

import argparse
import sys
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from helpers import align, datasets, deploy, evaluation, export, images, labels, paths  # noqa: E402

TIGHTER = (0.8, 0.9, 1, 1.1, 1.25)


def as_jpeg(photo, quality=60):
    """Return `photo` after it was stored as a JPEG of this quality."""
    file = BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    return images.decode(file)


CHANGES = {
    "half the size": lambda photo: cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "JPEG of quality 60": as_jpeg,
    "moved by 3 pixels": lambda photo: np.pad(photo, ((3, 0), (3, 0), (0, 0)), "edge")[:-3, :-3],
    "grey": lambda photo: np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, 2),
    "15% wider": lambda photo: cv2.resize(photo, None, fx=1.15, fy=1),
}


def largest_face(photo):
    """Return the five points of the largest face in `photo`, or None."""
    boxes, points, _ = align.detect(photo)
    return points[np.argmax(boxes[:, 2] - boxes[:, 0])] if len(boxes) else None


def look_at(faces, root, margin, changed=100):
    """Return the faces with a face found, their crops by tightness, and of some of them those after each change."""
    met, crops, again = [], {tighter: [] for tighter in TIGHTER}, {change: {} for change in CHANGES}
    some = set(faces.sample(min(changed, len(faces)), random_state=0).index)
    for row in tqdm(faces.index):
        photo = images.read_image(root / faces["path"][row])
        if (points := largest_face(photo)) is None:
            continue
        for tighter, kept in crops.items():
            kept.append(align.crop(photo, points, (0.5 + tighter * (np.array(margin) - 0.5)).tolist()))
        for change, alter in CHANGES.items() if row in some else ():
            other = alter(photo)
            if (points := largest_face(other)) is not None:
                again[change][len(met)] = align.crop(other, points, margin)
        met.append(row)
    return faces.loc[met], {tighter: np.stack(kept) for tighter, kept in crops.items()}, again


def judge(model, faces, crops, again):
    """Return errors by age band, errors by tightness of the crop, and the median change of the age by each change."""
    truth, half_width = faces["age"].to_numpy(float), export.facts_of(model)["half_width"]
    years = {tighter: export.years_of(model, kept) for tighter, kept in crops.items()}
    error, table = years[1] - truth, {}
    for band in ["all", *range(20, 50, 5)]:
        rows = np.full(len(truth), True) if band == "all" else (truth // 5 * 5).clip(max=45) == band
        groups = faces["person"].fillna(faces["path"])[rows]
        found = evaluation.metrics(truth[rows], years[1][rows], groups)
        name = band if band == "all" else f"{band} to {band + (5 if band == 45 else 4)}"
        median = np.abs(truth[rows] - np.median(truth)).mean()
        held = (np.abs(error[rows]) <= half_width).mean()
        mae = "{mae:.2f} [{mae_low:.2f}, {mae_high:.2f}]".format(**found)
        table[name] = [rows.sum(), mae, f"{error[rows].mean():+.2f}", f"{held:.0%}", f"{median:.2f}"]
    bands = pd.DataFrame(table, index=["faces", "MAE", "bias", "in the interval", "guessing the median"]).T
    tightness = {f"{tighter} times as tight": np.abs(answer - truth).mean() for tighter, answer in years.items()}
    moved = {
        change: np.median(np.abs(export.years_of(model, np.stack([*kept.values()])) - years[1][[*kept]]))
        for change, kept in again.items()
    }
    slope = np.polyfit(truth, years[1], 1)[0]
    return bands, *(pd.Series(found).map("{:.2f}".format) for found in (tightness, moved)), slope


def markdown(table):
    """Return `table` as lines of Markdown."""
    rows = [
        ["", *map(str, table.columns)],
        ["---"] * (1 + table.shape[1]),
        *([name, *map(str, row)] for name, row in zip(table.index, table.to_numpy())),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--elsewhere", type=Path, help="photos of another source")
    parser.add_argument("--models", type=Path, default=deploy.SHIPPED.parent)
    asked = parser.parse_args()
    files = sorted(asked.models.glob("*.onnx"))
    margin = export.facts_of(export.load(files[0]))["margin"]
    sources = {paths.data_name(): (datasets.read_splits().query("part == 'test'"), labels.root_of(paths.data_dir()))}
    if asked.elsewhere:
        others = labels.find_faces(asked.elsewhere).dropna(subset="age").reset_index(drop=True)
        sources["another source"] = others, labels.root_of(asked.elsewhere)
    for source, (faces, root) in sources.items():
        looked = look_at(faces, root, margin)
        print(f"\n# {source}: a face found in {len(looked[0])} of {len(faces)} photos")
        for file in files:
            bands, tightness, moved, slope = judge(export.load(file), *looked)
            print(f"\n## {file.name}, slope {slope:.2f}\n\n{markdown(bands)}\n")
            print(markdown(tightness.to_frame("MAE")) + "\n")
            print(markdown(moved.to_frame("median change, years")))
