"""From how many photos on fine-tuning pays: `AGE_DATA=<photos> python tests/bench/few_photos.py` after a run.

Draws of so many training photos; ridge regression on frozen features against the fine-tuned face ResNet, both judged on
the validation set. Fine-tuning takes the recipe of notebook 06, and as many epochs as give 160 steps, but
3 to 30.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from helpers import datasets, features, models, training  # noqa: E402

COUNTS, DRAWS, BATCH = (300, 1000, 3000), 2, 32


def tuned(images, ages, some, valid, seed):
    """Return the validation MAE in years of a face ResNet that is fine-tuned on the rows `some`."""
    training.setup(seed)
    network = models.face_resnet(len(models.AGES), features.window_of(images))
    seen = datasets.FaceAgeDataset(images, ages, some, datasets.mild_augmentation)
    models.start_at(network, ages[some].mean(), seen.sample())
    epochs = int(np.clip(160 * BATCH / len(some), 3, 30))
    train = datasets.make_loader(seen, BATCH, train=True, seed=seed)
    judge = datasets.make_loader(datasets.FaceAgeDataset(images, ages, valid))
    with tempfile.TemporaryDirectory() as folder:
        how = {"lr": 2.5e-4, "weight_decay": 0.05, "decay": 0.98, "head_lr": 1.25e-3}
        history = training.fit(network, train, judge, epochs, folder, **how)
    return history["valid_mae"].iloc[-1]  # not the best epoch, which the validation set would have chosen


if __name__ == "__main__":
    images, faces = datasets.load_faces()
    known, ages = features.load_features(images), faces["age"].to_numpy()
    train, valid = (np.flatnonzero(faces["part"] == part) for part in ("train", "valid"))
    rows = []
    for count in COUNTS:
        for draw in range(DRAWS):
            some = np.random.default_rng(draw).choice(train, min(count, len(train)), replace=False)
            frozen = features.ridge().fit(known[some], ages[some]).predict(known[valid])
            error = {"frozen": float(np.abs(frozen - ages[valid]).mean())}
            error["tuned"] = float(tuned(images, ages, some, valid, draw))
            rows.append({"photos": count, "draw": draw} | error)
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).groupby("photos")[["frozen", "tuned"]].agg(["mean", "min", "max"]).round(2))
