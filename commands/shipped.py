"""Train and export the two networks of `data/models`: `AGES=20-60 AGE_DATA=<UTKFace> python -m commands.shipped`.

Notebooks 02 and 03 must have labelled and split the photos (`make run`). Unlike the networks of notebook 06 these two
must answer for photos of any source. So they see crops, light and files of many kinds, and rare ages more often.
"""

import argparse
import copy
import shutil
import sys
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn
from tqdm import tqdm

from helpers import align, datasets, evaluation, export, features, images, labels, models, paths, training

from .ages import not_done

SEED = 5
# Epochs (of `balanced`, which are twice as long), learning rates of the body and of the head.
RECIPES = {"face_resnet": (3, 2.5e-4, 3e-5), "compact_resnet": (3, 1e-3, 1e-4)}


def main(arguments=None):
    """Train the face ResNet, let the compact one learn from it, and write both in 8 bits with what they know."""
    parser = argparse.ArgumentParser(prog="python -m commands.shipped", description=main.__doc__)
    parser.add_argument("--elsewhere", type=Path, help="photos of another source, with their ages, only to measure on")
    parser.add_argument("--name", help="what the photos are called; the name of the run if omitted")
    parser.add_argument("--out", type=Path, help="a folder to copy both to when they are done, replacing former ones")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--trained", action="store_true", help="train nothing: export and measure what was trained")
    asked = parser.parse_args(arguments)
    try:
        if paths.is_demo():
            raise ValueError("Networks for photos must learn from photos: set AGE_DATA to photos of people.")
        files = make(asked.elsewhere, asked.name or paths.data_name(), asked.seed, asked.trained)
        for file in files if asked.out else ():
            with paths.atomic(asked.out / file.name) as temporary:
                shutil.copyfile(file, temporary)
    except (ImportError, OSError, ValueError, FloatingPointError) as error:
        sys.exit(str(error))


def make(elsewhere, data, seed=SEED, trained=False) -> list:
    """Train both networks on the photos of `AGE_DATA`, called `data`; return their ONNX files in the run's folder.

    Each file holds its error and interval on half of the people of the validation set, and its error on the photos
    `elsewhere` (a folder or a CSV, or None). The other half chooses the epoch. `trained`: as for `train`.
    """
    align.detector()  # before the training, as it may be missing
    pictures, faces = datasets.load_faces()
    ages = [int(faces["age"].min()), int(faces["age"].max())]
    if elsewhere:
        others = labels.find_faces(elsewhere).dropna(subset=["path", "age"])
        others = others[others["age"].between(*ages)]
        if others.empty:
            raise ValueError(f"{elsewhere}: no photo has an age from {ages[0]} to {ages[1]}: add photos.")
    valid = faces[faces["part"] == "valid"]
    calibrates = valid["person"].astype(str).isin(valid["person"].astype(str).unique()[::2])
    networks = train(pictures, faces, valid[~calibrates].index, seed, trained)
    margin = align.margin_of(pictures[faces["part"] == "train"])
    _, crops, true = through_the_detector(valid[calibrates], labels.root_of(paths.data_dir()), margin)
    if elsewhere:
        _, their_crops, their_ages = through_the_detector(others, labels.root_of(elsewhere), margin)
    files = []
    for name, network in networks.items():
        whole, small, file = (paths.run_dir("shipped") / f"{name}{end}.onnx" for end in ("", "_int8", "_photos"))
        export.export(network, whole)
        # The pixels of validation pictures tell how large activations become; their ages play no part.
        export.quantise(whole, small, pictures[valid.index[:: max(1, len(valid) // 128)]])
        model = export.load(small, facts=False)
        error = np.abs(export.years_of(model, crops) - true)
        facts = {"mae": float(error.mean()), "half_width": evaluation.conformal_radius(error), "margin": margin}
        facts |= {"ages": ages, "data": data, "recipe": RECIPES[name], "seed": seed}
        facts |= {"trained_on": f"{(faces['part'] == 'train').sum()} pictures"}
        if elsewhere:
            error = export.years_of(model, their_crops) - their_ages
            held = float((np.abs(error) <= facts["half_width"]).mean())
            facts["elsewhere"] = {"mae": float(np.abs(error).mean()), "bias": float(error.mean()), "held": held}
        export.write_facts(small, **facts)
        files.append(small.replace(file))  # only now, so that no file is without its facts
        print(f"{file}, {file.stat().st_size / 1e6:.2f} MB: {facts}")
    return files


def train(pictures, faces, valid_rows, seed=SEED, trained=False) -> dict:
    """Return both networks by name, `complete`; with `trained` they have the weights of a former call.

    `pictures`, `faces`: as from `datasets.load_faces`. The best epoch has the smallest error on `valid_rows` `(M,)`.
    Raises what `training.fit` or, with `trained`, `training.load_weights` raises.
    """
    ages, part = faces["age"].to_numpy(), np.flatnonzero(faces["part"] == "train")
    weights = rarity(faces.iloc[part])
    seen = datasets.FaceAgeDataset(pictures, ages, balanced(part, weights), robust_augmentation)
    valid = datasets.make_loader(datasets.FaceAgeDataset(pictures, ages, valid_rows))
    network, networks = models.face_resnet(1, features.window_of(pictures)), {}
    models.start_at(network, ages[part].mean(), seen.sample())  # for its first layer, since the head is fitted below
    for name in RECIPES:
        training.setup(seed)
        if name == "compact_resnet":
            network = models.compact_resnet(1, teacher=network)
            seen = training.with_teacher(seen, networks["face_resnet"])
        refit_head = partial(fit_head, network, pictures, ages, part, weights)
        folder = paths.run_dir("shipped") / f"seed_{seed}" / name
        fine_tune(name, network, refit_head, seen, valid, folder, seed, trained)
        networks[name] = complete(network)
    return networks


def fine_tune(name, network, refit_head, seen, valid, folder, seed=SEED, trained=False):
    """Train `network` with the recipe `name`, or take the weights in `folder` if it was `trained` before.

    `seen`: the training faces; `valid`: a loader. `refit_head()` fits the head to what the body makes of faces.
    Three things keep what the body knows of faces of other sources: the head begins as ridge regression, not at random
    (Kumar et al. 2022, LP-FT); the face ResNet's body goes half way back to where it began (Wortsman et al. 2022,
    WiSE-FT); and the head is fitted anew.
    """
    network.to(training.best_device(), memory_format=torch.channels_last)
    refit_head()
    epochs, lr, head_lr = RECIPES[name]
    start = copy.deepcopy(network.body.state_dict())
    if trained:
        training.load_weights(network, folder / "best.pt", trained_on=seen)
    else:
        loader = datasets.make_loader(seen, train=True, seed=seed, workers=2)
        print(training.fit(network, loader, valid, epochs, folder, lr, 0.05, head_lr=head_lr).round(3))
    if name == "face_resnet":
        now = network.body.state_dict()
        half = {at: now[at].lerp(start[at], 0.5) for at in now if now[at].is_floating_point()}
        network.body.load_state_dict(now | half)
    refit_head()


class BothWays(nn.Module):
    """The mean of what `body` makes of pictures `(B, 3, H, W)` and of their mirror images."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, pictures):
        return self.body(torch.cat([pictures, pictures.flip(3)])).unflatten(0, (2, -1)).mean(0)


def complete(network):
    """Return `network`, a face ResNet with one output, as it answers: both ways, and with no age it has never seen."""
    return nn.Sequential(BothWays(network.body), *network.head, nn.Hardtanh(*models.AGES[[0, -1]].tolist()))


def fit_head(network, pictures, ages, rows, weights, penalty=30):
    """Fit the head of `network`, a face ResNet with one output, to what its body makes of `pictures[rows]`.

    Ridge regression on the age, each feature standardised, each picture with its weight `(len(rows),)`; `penalty`: its
    strength for each feature. A picture is seen six times: as it is, tighter, looser, wider, taller and grey. Training
    all layers spoils the last one for photos of other sources more than the layers before it, and to fit it anew puts
    that right (Kirichenko et al. 2023).
    """
    norm, _, last = network.head
    body = nn.Sequential(BothWays(network.body), nn.LayerNorm(norm.normalized_shape, elementwise_affine=False))
    found = []
    for view in _views():
        loader = datasets.make_loader(datasets.FaceAgeDataset(pictures, ages, rows, view))
        found.append(training.predict(body, loader, read=torch.Tensor.float))
    scale = StandardScaler(copy=False)
    ridge = Ridge(penalty * last.in_features, solver="cholesky", copy_X=False)
    times = len(found)
    ridge.fit(scale.fit_transform(np.concatenate(found)), np.tile(ages[rows], times), np.tile(weights, times))
    numbers = {norm.weight: 1 / scale.scale_, norm.bias: -scale.mean_ / scale.scale_}
    numbers |= {last.weight: ridge.coef_[None], last.bias: ridge.intercept_}
    with torch.no_grad():
        for parameter, fitted in numbers.items():
            parameter.copy_(torch.as_tensor(fitted))


def through_the_detector(faces, root, margin):
    """Look for the face in each photo of the table `faces`, and keep those that show exactly one.

    Return their positions in the table `(N,)`, their crops uint8 `(N, 128, 128, 3)` and their ages in years `(N,)`.
    Prints what cannot be read and how many photos show no face or several. Raises `ValueError` when none is left.
    """
    rows, crops, left_out = [], [], Counter()
    for row, path in enumerate(tqdm(faces["path"])):
        try:
            photo = images.read_image(root / path)
            points = align.detect(photo)[1]
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            tqdm.write(not_done(root / path, error)[2])
            continue
        if len(points) == 1:
            crops.append(align.crop(photo, points[0], margin))
            rows.append(row)
        else:
            left_out["several faces" if len(points) else "no face"] += 1
    for what, number in left_out.items():
        print(f"Photos left out, with {what}: {number}")
    if not rows:
        raise ValueError(f"{root}: exactly one face was found in none of {len(faces)} photos: give others.")
    return np.array(rows), np.stack(crops), faces["age"].to_numpy(float)[rows]


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


@lru_cache
def _views():
    from torchvision.transforms import v2

    crops = v2.CenterCrop(128), v2.CenterCrop(102), v2.Pad(16, padding_mode="reflect")  # 1, 1.25, 0.8 times as tight
    stretched = [v2.Compose([v2.Resize(sides), v2.CenterCrop(128)]) for sides in ((128, 160), (160, 128))]
    return [v2.Compose([view, v2.Resize((128, 128))]) for view in (*crops, *stretched, v2.Grayscale(3))]


def robust_augmentation(image):
    """Return a uint8 `image` `(3, 128, 128)` as another camera, crop or file might show it, by chance."""
    return _robust()(image)


def rarity(faces, power=0.5) -> np.ndarray:
    """Return a weight for each row of `faces` `(N,)`: ages which are rare in a group of origin weigh more.

    In UTKFace (20 to 60) people who are called Asian are 30 years old on average, others 35, and half of all are below
    32. A network learns that, too, and makes older people of other sources younger. A picture's weight is the number of
    pictures of its origin and age (in steps of five years) to the power of `-power`, at most eight times the mean.
    """
    origin = faces["path"].str.extract(r"(?:^|/)\d+_[01]_([0-4])_\d+[^/]*$")[0].fillna("")  # in UTKFace's names
    kind = origin + faces["age"].floordiv(5).astype(str)
    weights = kind.map(kind.value_counts()).to_numpy(float) ** -power
    return np.minimum(weights / weights.mean(), 8)


def balanced(rows, weights, times=2) -> np.ndarray:
    """Return `times * N` of `rows` `(N,)`, each as often as its share of `weights` `(N,)` asks."""
    share = np.cumsum(weights)
    steps = (np.arange(times * len(rows)) + 0.5) / (times * len(rows))  # at equal distances, so nothing is left to luck
    return rows[np.searchsorted(share, steps * share[-1])]


if __name__ == "__main__":
    main()
