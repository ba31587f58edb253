"""The face ResNet and the compact ResNet of a run, trained again: `python tests/bench/other_seeds.py SEED …`.

Needs a finished `make run`, from whose checkpoints it reads the settings. The errors go into tests/bench/spread.csv.
A seed takes about two minutes on two cores. `make run SEED=1` does the same for all notebooks, in ten.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import datasets, export, features, models, paths, training

FILE = Path(__file__).with_name("spread.csv")


def train(network, folder, seed, images, ages, rows, teacher=None):
    """Train `network` with the settings of the checkpoint in `folder` of the run, from the seed."""
    how = torch.load(paths.run_dir() / folder / "best.pt", weights_only=True)["settings"]
    chosen = {name: how[name] for name in ("epochs", "lr", "weight_decay", "decay", "head_lr")}
    faces = datasets.FaceAgeDataset(images, ages, rows["train"], datasets.mild_augmentation)
    faces = training.with_teacher(faces, teacher) if teacher else faces
    valid = datasets.make_loader(datasets.FaceAgeDataset(images, ages, rows["valid"]), 32)
    with tempfile.TemporaryDirectory() as kept:
        training.fit(network, datasets.make_loader(faces, how["batch_size"], True, seed), valid, folder=kept, **chosen)
    return network


def errors(name, network, images, ages, rows):
    """Return the MAE of a network on both parts, and in 8 bits on the test part: `(part, model, mae)`."""
    found, faces = [], {part: np.array(images[rows[part]]) for part in ("valid", "test")}
    with tempfile.TemporaryDirectory() as folder:
        float32, int8 = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        export.export(network, float32)
        export.quantise(float32, int8, faces["valid"][np.linspace(0, len(faces["valid"]) - 1, 128).astype(int)])
        for part, model, file in (("valid", name, float32), ("test", name, float32), ("test", f"{name}, INT8", int8)):
            years = export.years_of(export.load(file, facts=False), faces[part])
            found.append((part, model, np.abs(years - ages[rows[part]]).mean()))
    return found


if __name__ == "__main__":
    images, table = datasets.load_faces()
    ages, outputs = table["age"].to_numpy(), len(models.AGES)
    rows = {part: np.flatnonzero(table["part"] == part) for part in datasets.PARTS}
    found = []
    for seed in map(int, sys.argv[1:]):
        training.setup(seed)
        sample = datasets.FaceAgeDataset(images, ages, rows["train"]).sample()
        large = models.start_at(models.face_resnet(outputs, features.window_of(images)), ages.mean(), sample)
        train(large, "face_resnet", seed, images, ages, rows)
        training.seed_everything(seed)
        small = train(models.compact_resnet(outputs, large), "compact_resnet", seed, images, ages, rows, large)
        for name, network in {"face ResNet": large, "compact ResNet": small}.items():
            found += [(f"training {seed}", *one) for one in errors(name, network, images, ages, rows)]
            print(*found[-3:], sep="\n", flush=True)
    known = pd.read_csv(FILE)
    new = pd.DataFrame(found, columns=["run", "part", "model", "mae"])
    pd.concat([known[~known["run"].isin(new["run"])], new]).round(6).to_csv(FILE, index=False)
