"""How often the intervals hold by way of the detector, over many splits: `python tests/bench/coverage.py` after a run.

The faces of the validation and the test set go through the detector and the crop, as photos do. Then their people are
split again and again into those who calibrate a 90% interval, as many as in notebook 09, and those who check it.
Notebook 09 makes one such split. (This judges the method: the validation set has also chosen the epochs.)
"""

import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from helpers import align, datasets, evaluation, export, images, labels, paths  # noqa: E402

MODELS, SPLITS = ("face_resnet", "compact_resnet_int8", "simplecnn"), 500


def through_the_detector(faces, margin):
    """Return the rows of `faces` in whose file one face was found, and its crops uint8 `(N, 128, 128, 3)`."""
    rows, crops, root = [], [], labels.root_of(paths.data_dir())
    for row in faces.index:
        photo = images.square(images.read_image(root / faces["path"][row]))
        points = align.detect(photo)[1]
        if len(points) == 1:
            rows.append(row)
            crops.append(align.crop(photo, points[0], margin))
    return rows, np.stack(crops)


def coverages(errors, person, calibrating):
    """Return the share of `errors` (years) within the interval, for each of `SPLITS` splits of the people."""
    rng, people, shares = np.random.default_rng(0), np.unique(person), []
    for _ in range(SPLITS):
        calibrates = np.isin(person, rng.permutation(people)[:calibrating])
        radius = evaluation.conformal_radius(errors[calibrates])
        shares.append((errors[~calibrates] <= radius).mean())
    return np.array(shares)


if __name__ == "__main__":
    faces = datasets.load_faces()[1].query("part != 'train'")
    deploy = paths.run_dir() / "deploy"
    rows, crops = through_the_detector(faces, export.facts_of(export.load(deploy / f"{MODELS[0]}.onnx"))["margin"])
    found, half = faces.loc[rows], faces.query("part == 'valid'")["person"].nunique() // 2
    print(f"{len(rows)} of {len(faces)} faces; {half} people calibrate, {found['person'].nunique() - half} check")
    for name in MODELS:
        errors = np.abs(export.years_of(export.load(deploy / f"{name}.onnx"), crops) - found["age"].to_numpy())
        shares = coverages(errors, found["person"].to_numpy(str), half)
        print(f"{name}: {shares.mean():.1%} ± {shares.std():.1%} of the faces in their 90% intervals")
