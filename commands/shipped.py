"""Train and export the two networks of `data/models`: `AGE_DATA=<UTKFace> python -m commands.shipped`.

Notebooks 02 and 03 must have labelled and split the photos (`make run`). Unlike the networks of notebook 06 these two
must answer for photos of any source. So they see crops, light and files of many kinds, and rare ages more often.
"""

import argparse
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers import align, datasets, deploy, evaluation, export, features, images, labels, models, paths, training

SEED = 5
# Epochs (of `balanced`, which are twice as long), learning rates of the body and of the head. With three epochs and
# 2.5e-4 the face ResNet errs by as much: 0.05 years less on the validation set, 0.1 more on other photos.
RECIPES = {"face_resnet": (2, 7e-5, 1e-3), "compact_resnet": (2, 1e-3, None)}


def main(arguments=None):
    """Train the face ResNet, let the compact one learn from it, and write both in 8 bits with what they know."""
    parser = argparse.ArgumentParser(prog="python -m commands.shipped", description=main.__doc__)
    parser.add_argument("--elsewhere", type=Path, help="photos of another source, with their ages, only to measure on")
    parser.add_argument("--out", type=Path, default=deploy.SHIPPED.parent, help="a folder; data/models if omitted")
    parser.add_argument("--trained", action="store_true", help="train nothing: export and measure what was trained")
    asked = parser.parse_args(arguments)
    try:
        pictures, faces = datasets.load_faces()
        elsewhere = labels.find_faces(asked.elsewhere).dropna(subset="age") if asked.elsewhere else None
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    valid = faces[faces["part"] == "valid"]
    calibrates = valid["person"].astype(str).isin(valid["person"].astype(str).unique()[::2])  # they choose no epoch
    networks = train(pictures, faces, valid[~calibrates].index, asked.trained)
    margin = align.margin_of(pictures[faces["part"] == "train"])
    _, crops, ages = through_the_detector(valid[calibrates], labels.root_of(paths.data_dir()), margin)
    if asked.elsewhere:
        _, others, their_ages = through_the_detector(elsewhere, labels.root_of(asked.elsewhere), margin)
    for name, network in networks.items():
        file, whole = asked.out / f"{name}_photos.onnx", paths.run_dir("shipped") / f"{name}.onnx"
        export.export(network, whole)
        export.quantise(whole, file, pictures[valid.index[:: max(1, len(valid) // 128)]])
        model = export.load(file, facts=False)
        error = np.abs(export.years_of(model, crops) - ages)
        facts = {"mae": float(error.mean()), "half_width": evaluation.conformal_radius(error), "margin": margin}
        facts |= {"ages": [int(faces["age"].min()), int(faces["age"].max())], "data": "UTKFace"}
        facts |= {"recipe": RECIPES[name], "trained_on": f"{(faces['part'] == 'train').sum()} pictures"}
        if asked.elsewhere:
            error = export.years_of(model, others) - their_ages
            held = float((np.abs(error) <= facts["half_width"]).mean())
            facts["elsewhere"] = {"mae": float(np.abs(error).mean()), "bias": float(error.mean()), "held": held}
        export.write_facts(file, **facts)
        print(f"{file}, {file.stat().st_size / 1e6:.2f} MB: {facts}")


def train(pictures, faces, chooses, trained=False):
    """Return the two networks, trained, or as a former call has `trained` them.

    The best epoch is that with the smallest error on the rows `chooses`.
    """
    ages, n = faces["age"].to_numpy(), len(models.AGES)
    rows = balanced(faces, np.flatnonzero(faces["part"] == "train"))
    seen = datasets.FaceAgeDataset(pictures, ages, rows, robust_augmentation)
    valid = datasets.make_loader(datasets.FaceAgeDataset(pictures, ages, chooses))
    networks = {"face_resnet": models.face_resnet(n, features.window_of(pictures))}
    models.start_at(networks["face_resnet"], ages[rows].mean(), seen.sample())
    for name, (epochs, lr, head_lr) in RECIPES.items():
        training.setup(SEED)
        if name == "compact_resnet":
            networks[name] = models.compact_resnet(n, networks["face_resnet"])
            seen = training.with_teacher(seen, networks["face_resnet"])
        loader, folder = datasets.make_loader(seen, train=True, seed=SEED, workers=2), paths.run_dir("shipped") / name
        if trained:
            training.load_weights(networks[name], folder / "best.pt", trained_on=seen)
            continue
        print(training.fit(networks[name], loader, valid, epochs, folder, lr, 0.05, head_lr=head_lr).round(3))
    return networks


def through_the_detector(faces, root, margin):
    """Look for the face in each photo of the table `faces`; those in which one is found are met.

    Return which rows were met `(N,)`, their crops uint8 `(N, 128, 128, 3)` and ages `(N,)`. Prints what cannot be read.
    """
    met, crops = [], []
    for row, path in enumerate(tqdm(faces["path"])):
        try:
            photo = images.read_image(root / path)
        except (OSError, ValueError) as error:
            tqdm.write(str(error))
            continue
        points = align.detect(photo)[1]
        if len(points) == 1:
            crops.append(align.crop(photo, points[0], margin))
            met.append(row)
    return np.array(met, int), np.array(crops), faces["age"].to_numpy(float)[met]


@lru_cache
def _robust():
    from torchvision.transforms import v2  # here, because it takes two seconds

    stretched = v2.RandomChoice([v2.Resize((128, 148)), v2.Resize((148, 128))])  # 15% wider or taller
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomApply([stretched], 0.3),
            v2.CenterCrop(128),
            v2.RandomAffine(10, (0.05, 0.05), (0.8, 1.25), interpolation=v2.InterpolationMode.BILINEAR, fill=127),
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03),
            v2.RandomGrayscale(0.15),
            v2.RandomApply([v2.RandomResize(32, 112), v2.Resize((128, 128))], 0.4),  # a small face, enlarged
            v2.RandomApply([v2.JPEG((25, 90))], 0.4),
            v2.RandomErasing(p=0.25, scale=(0.02, 0.12), value=127),
        ]
    )


def robust_augmentation(image):
    """Return a uint8 `image` `(3, 128, 128)` as another camera, crop or file might show it, by chance."""
    return _robust()(image)


def balanced(faces, rows, power=0.5, times=2) -> np.ndarray:
    """Return `times` as many of `rows`, repeated so that ages which are rare in a group of origin become less rare.

    In UTKFace (20 to 60) people who are called Asian are 30 years old on average, others 35, and half of all are below
    32. A network learns that, too, and makes older people of other sources younger. A picture's weight is the number of
    pictures of its origin and age (in steps of five years) to the power of `-power`, at most eight times the mean.
    """
    origin = faces["path"].str.extract(r"/\d+_[01]_([0-4])_\d+[^/]*$")[0].fillna("")  # third in the name of UTKFace
    kind = (origin + faces["age"].floordiv(5).astype(str)).iloc[rows]
    weight = kind.map(kind.value_counts()).to_numpy(float) ** -power
    share = np.cumsum(np.minimum(weight / weight.mean(), 8))
    steps = (np.arange(times * len(rows)) + 0.5) / (times * len(rows))  # at equal distances, so nothing is left to luck
    return rows[np.searchsorted(share, steps * share[-1])]


if __name__ == "__main__":
    main()
