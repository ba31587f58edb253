"""Train and export the two networks of `data/models`: `AGE_DATA=<UTKFace> python -m commands.shipped`.

Notebooks 02 and 03 must have labelled and split the photos (`make run`). Unlike the networks of notebook 06 these two
must answer for photos of any source. So they see crops, light and files of many kinds, and rare ages more often.
"""

import argparse
import copy
import sys
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn
from tqdm import tqdm

from helpers import align, datasets, deploy, evaluation, export, features, images, labels, models, paths, training

SEED = 5
# Epochs (of `balanced`, which are twice as long), learning rates of the body and of the head.
RECIPES = {"face_resnet": (3, 2.5e-4, 3e-5), "compact_resnet": (3, 1e-3, 1e-4)}


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
    """Return the two networks, `complete`, trained, or as a former call has `trained` them.

    The best epoch is that with the smallest error on the rows `chooses`.
    """
    ages, part = faces["age"].to_numpy(), np.flatnonzero(faces["part"] == "train")
    weights = rarity(faces.iloc[part])
    seen = datasets.FaceAgeDataset(pictures, ages, balanced(part, weights), robust_augmentation)
    valid = datasets.make_loader(datasets.FaceAgeDataset(pictures, ages, chooses))
    network, networks = models.face_resnet(1, features.window_of(pictures)), {}
    models.start_at(network, ages[part].mean(), seen.sample())
    for name in RECIPES:
        training.setup(SEED)
        if name == "compact_resnet":
            network = models.compact_resnet(1, teacher=network)
            seen = training.with_teacher(seen, networks["face_resnet"])
        put_head = partial(fit_head, network, pictures, ages, part, weights)
        fine_tune(name, network, put_head, seen, valid, paths.run_dir("shipped") / name, trained)
        networks[name] = complete(network)
    return networks


def fine_tune(name, network, put_head, seen, valid, folder, trained=False):
    """Train `network` with the recipe `name`, or load it from `folder` if that has been `trained`.

    Three things keep what the body knows of faces of other sources: the head begins as ridge regression, not at random
    (`put_head`; Kumar et al. 2022, LP-FT); the face ResNet's body goes half way back to where it began (Wortsman et al.
    2022, WiSE-FT); and the head is fitted anew.
    """
    put_head()
    epochs, lr, head_lr = RECIPES[name]
    start = copy.deepcopy(network.body.state_dict())
    if trained:
        training.load_weights(network, folder / "best.pt", trained_on=seen)
    else:
        loader = datasets.make_loader(seen, train=True, seed=SEED, workers=2)
        print(training.fit(network, loader, valid, epochs, folder, lr, 0.05, head_lr=head_lr).round(3))
    if name == "face_resnet":
        now = network.body.state_dict()
        half = {at: now[at].lerp(start[at], 0.5) for at in now if now[at].is_floating_point()}
        network.body.load_state_dict(now | half)
    put_head()


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
    plain = nn.LayerNorm(norm.normalized_shape, elementwise_affine=False)
    body = nn.Sequential(BothWays(network.body), plain).to(training.best_device(), memory_format=torch.channels_last)
    found = []
    for view in _views():
        loader = datasets.make_loader(datasets.FaceAgeDataset(pictures, ages, rows, view))
        found.append(training.predict(body, loader, read=torch.Tensor.float))
    scale = StandardScaler(copy=False)
    line = Ridge(penalty * last.in_features, solver="cholesky", copy_X=False)
    line.fit(scale.fit_transform(np.concatenate(found)), np.tile(ages[rows], 6), np.tile(weights, 6))
    numbers = {norm.weight: 1 / scale.scale_, norm.bias: -scale.mean_ / scale.scale_}
    numbers |= {last.weight: line.coef_[None], last.bias: line.intercept_}
    with torch.no_grad():
        for parameter, fitted in numbers.items():
            parameter.copy_(torch.as_tensor(fitted))


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
    origin = faces["path"].str.extract(r"/\d+_[01]_([0-4])_\d+[^/]*$")[0].fillna("")  # third in the name of UTKFace
    kind = origin + faces["age"].floordiv(5).astype(str)
    weights = kind.map(kind.value_counts()).to_numpy(float) ** -power
    return np.minimum(weights / weights.mean(), 8)


def balanced(rows, weights, times=2) -> np.ndarray:
    """Return `times` as many of `rows`, each repeated as its weight tells."""
    share = np.cumsum(weights)
    steps = (np.arange(times * len(rows)) + 0.5) / (times * len(rows))  # at equal distances, so nothing is left to luck
    return rows[np.searchsorted(share, steps * share[-1])]


if __name__ == "__main__":
    main()
