"""Where to begin with few photos of another source: `AGES=20-60 AGE_DATA=<UTKFace> python tests/bench/start.py`.

Notebooks 02 and 03 must have labelled and split the photos. One source has enough labels, so it is split in two by the
third number in the names of UTKFace: what its authors called a person's origin. A face ResNet is fine-tuned on the
people who are not called Asian, with the recipe of `commands.shipped`, and plays the network that is shipped. Then
there are few photos of people who are called Asian. Is it better to begin with this network, or with the one that knows
no age? The MAE is that of the people who were not drawn.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from commands import shipped  # noqa: E402
from helpers import datasets, features, models, training  # noqa: E402

COUNTS, DRAWS, TUNED, BATCH = (30, 100, 300), 20, 2, 32


def features_of(network, images, rows):
    """Return the features of the rows, the mean over a picture and its mirror image."""
    seen = [
        training.predict(network.body, loader(images[rows][:, :, ::step]), read=torch.Tensor.float) for step in (1, -1)
    ]
    return np.mean(seen, 0)


def loader(pictures):
    """Return a loader of pictures whose ages play no part."""
    return datasets.make_loader(datasets.FaceAgeDataset(pictures, np.zeros(len(pictures))), 64)


def tuned(network, images, ages, some, judged, seed, head_lr=1.25e-3):
    """Fine-tune a copy of `network` on the rows `some`; return the MAE of the rows `judged` in years."""
    training.setup(seed)
    seen = datasets.FaceAgeDataset(images, ages, some, datasets.mild_augmentation)
    train = datasets.make_loader(seen, BATCH, train=True, seed=seed)
    # The epoch is chosen on what it learns from, which in the end means the last one.
    few = datasets.make_loader(datasets.FaceAgeDataset(images, ages, some))
    epochs = int(np.clip(160 * BATCH / len(some), 3, 30))
    with tempfile.TemporaryDirectory() as folder:
        how = {"lr": 2.5e-4, "weight_decay": 0.05, "decay": 0.98, "head_lr": head_lr, "patience": None}
        training.fit(network, train, few, epochs, folder, **how)
    return error(training.predict(network, loader(images[judged])), ages[judged])


def error(answers, true):
    """Return the mean absolute error in years."""
    return float(np.abs(answers - true).mean())


if __name__ == "__main__":
    images, faces = datasets.load_faces()
    ages = faces["age"].to_numpy()
    new = faces["path"].str.contains(r"(?:^|/)\d+_[01]_2_\d+[^/]*$").to_numpy()
    old = np.flatnonzero((faces["part"] == "train") & ~new)
    old_valid = np.flatnonzero((faces["part"] == "valid") & ~new)
    pool = np.flatnonzero(faces["part"].isin(["train", "valid"]) & new)
    n, window = len(models.AGES), features.window_of(images)
    print(f"{len(old)} photos to learn from before, {len(pool)} of the other source", flush=True)

    weights = shipped.rarity(faces.iloc[old])
    rows = shipped.balanced(old, weights)
    seen = datasets.FaceAgeDataset(images, ages, rows, shipped.robust_augmentation)
    training.setup(shipped.SEED)
    before = models.start_at(models.face_resnet(1, window), ages[rows].mean(), seen.sample())
    refit_head = partial(shipped.fit_head, before, images, ages, old, weights)
    valid = datasets.make_loader(datasets.FaceAgeDataset(images, ages, old_valid))
    with tempfile.TemporaryDirectory() as folder:
        shipped.fine_tune("face_resnet", before, refit_head, seen, valid, Path(folder))

    weights_before = before.state_dict()
    its_features = features_of(before, images, pool)
    untrained_features = features_of(models.face_resnet(n, window), images, pool)
    as_it_is, found = training.predict(shipped.complete(before), loader(images[pool])), []
    person = pd.factorize(faces["person"].iloc[pool].astype(str))[0]
    for count in COUNTS:
        for draw in range(DRAWS):
            order = np.random.default_rng(draw).permutation(person.max() + 1)
            some = np.isin(person, order[np.bincount(person)[order].cumsum() <= count])
            few, true = ages[pool[some]], ages[pool[~some]]
            line = np.polyfit(as_it_is[some], few, 1)
            row = {"photos": count, "median of the drawn": error(np.median(few), true)}
            row["its answers"] = error(as_it_is[~some], true)
            row["its answers, a line fitted"] = error(np.polyval(line, as_it_is[~some]), true)
            for name, seen in {"untrained features": untrained_features, "its features": its_features}.items():
                row[f"{name}, ridge"] = error(features.ridge().fit(seen[some], few).predict(seen[~some]), true)
            if count == COUNTS[-1] and draw < TUNED:
                network = models.face_resnet(n, window)
                models.start_at(network, few.mean(), datasets.FaceAgeDataset(images, ages, pool[some]).sample())
                row["untrained, fine-tuned"] = tuned(network, images, ages, pool[some], pool[~some], draw)
                network = models.face_network(1, window)
                network.load_state_dict(weights_before)
                row["it, fine-tuned"] = tuned(network, images, ages, pool[some], pool[~some], draw, 3e-5)
            found.append(row)
            print({name: round(value, 2) for name, value in row.items()}, flush=True)
    means = pd.DataFrame(found).astype(float).groupby("photos").agg(["mean", "std"])
    print(means.round(2).T.to_string())
