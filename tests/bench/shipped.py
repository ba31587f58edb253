"""Measure the networks of data/models: `AGES=20-60 AGE_DATA=<UTKFace> python tests/bench/shipped.py --elsewhere <…>`.

Every photo goes through detector, alignment and crop. The test set of `AGE_DATA` has chosen nothing; `--elsewhere` are
photos of another source, with their ages, that no network has learnt from. `--write` puts the tables into the card,
data/models/README.md.
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


def errors(true, answers, people, half_width):
    """Return what the tables say of faces `(N,)`: how many, MAE with its interval, bias, coverage."""
    found = evaluation.metrics(true, answers, people)
    coverage = (np.abs(answers - true) <= half_width).mean()
    mae = "{mae:.2f} [{mae_low:.2f}, {mae_high:.2f}]".format(**found)
    return {"faces": len(true), "MAE, years": mae, "bias": f"{found['bias']:+.2f}", "coverage": f"{coverage:.0%}"}


def by_band(true, answers, people, half_width):
    """Return `errors` for each band of five years of the true age; the last one has all from 45 on."""
    start, rows = (true // 5 * 5).clip(max=45).astype(int), {}
    for first in np.unique(start):
        band = start == first
        last = true.max() if first == 45 else first + 4
        rows[f"{first} to {last:.0f}"] = errors(true[band], answers[band], people[band], half_width)
    return pd.DataFrame(rows).T


def judge(model, faces, crops, again):
    """Return one row of all faces, one of each age band, and what moves the answer: MAE by crop, median change."""
    true, people = faces["age"].to_numpy(float), faces["person"].to_numpy(str)
    half_width = export.facts_of(model)["half_width"]
    years = {tighter: export.years_of(model, kept) for tighter, kept in crops.items()}
    row = errors(true, years[1], people, half_width)
    row |= {"slope": f"{np.polyfit(true, years[1], 1)[0]:.2f}", "half width": f"±{half_width:.1f}"}
    row["guessing the median"] = f"{np.abs(true - np.median(true)).mean():.2f}"
    moves = {f"{tighter} times as tight (MAE)": np.abs(answer - true).mean() for tighter, answer in years.items()}
    for change, kept in again.items():
        moves[change] = np.median(np.abs(export.years_of(model, np.stack([*kept.values()])) - years[1][[*kept]]))
    return row, by_band(true, years[1], people, half_width), pd.Series(moves).map("{:.2f}".format)


def markdown(table, corner=""):
    """Return `table` as lines of Markdown, with the index in the first column, called `corner`."""
    lines = [[corner, *table.columns], ["---"] * (1 + table.shape[1]), *table.reset_index().to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def tables_of(sources, files):
    """Return the tables of the card by name: `all`, one of age bands for each of `sources`, and `moves`."""
    rows, bands, moves = {}, {}, {}
    for source, (faces, root) in sources.items():
        looked = look_at(faces, root, export.facts_of(export.load(files[0]))["margin"])
        print(f"{source}: a face was found in {len(looked[0])} of {len(faces)} photos.")
        for file in files:
            network = file.stem.removesuffix("_photos").replace("_", " ").replace("resnet", "ResNet")
            row, band, moves[f"{source}, {network}"] = judge(export.load(file), *looked)
            rows[len(rows)] = {"photos": source, "network": network} | row
            bands[source] = pd.concat([bands[source], band.drop(columns="faces")], axis=1) if source in bands else band
    found = {"all": markdown(pd.DataFrame(rows).T.set_index("photos"), "photos")}
    found |= {f"bands of {source}": markdown(band, "age") for source, band in bands.items()}
    return found | {"moves": markdown(pd.DataFrame(moves), "change")}


def write(card, tables):
    """Put each of `tables` into the file `card`, between `<!-- its name -->` and `<!-- end -->`."""
    text = card.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, mark, rest = text.partition(f"<!-- {name} -->")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"{card} has no place for the table {name!r}: add <!-- {name} --> and <!-- end -->.")
        text = f"{before}{mark}\n{table}\n{end}{after}"
    with paths.atomic(card) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--elsewhere", type=Path, help="photos of another source")
    parser.add_argument("--elsewhere-name", default="another source", help="what they are called in the tables")
    parser.add_argument("--models", type=Path, default=deploy.SHIPPED.parent)
    parser.add_argument("--write", action="store_true", help="put the tables into data/models/README.md")
    asked = parser.parse_args()
    files = sorted(asked.models.glob("*_photos.onnx"), reverse=True)  # the face ResNet first
    facts = export.facts_of(export.load(files[0]))
    faces = datasets.load_faces()[1]  # with the people whom notebook 03 has found
    sources = {facts["data"]: (faces.query("part == 'test'"), labels.root_of(paths.data_dir()))}
    if asked.elsewhere:
        others = labels.find_faces(asked.elsewhere).dropna(subset=["path", "age"]).reset_index(drop=True)
        others["person"] = others["person"].fillna(others["path"])
        sources[asked.elsewhere_name] = others[others["age"].between(*facts["ages"])], labels.root_of(asked.elsewhere)
    tables = tables_of(sources, files)
    print("\n\n".join(f"# {name}\n\n{table}" for name, table in tables.items()))
    if asked.write:
        write(deploy.SHIPPED.parent / "README.md", tables)
