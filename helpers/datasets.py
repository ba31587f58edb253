"""The split into parts, and from the array of prepared pictures to batches `(B, 3, 128, 128)`."""

import hashlib

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from .images import SIDE, prepare_all
from .labels import read_labels, root_of
from .paths import atomic, data_dir, need, tables_dir

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, so that pretrained weights see what they know

to_input = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

strong_augmentation = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(8, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.2),
        v2.RandomGrayscale(0.1),
        v2.RandomErasing(p=0.5, scale=(0.02, 0.15), value=127),
    ]
)

PARTS = ("train", "valid", "test")


def mild_augmentation(shift=8):
    """Return a transform of a uint8 tensor `(3, H, W)`: mirrored or not, moved by up to `shift` pixels, relit."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(SIDE, padding=shift, padding_mode="reflect"),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
        ]
    )


def check_groups(groups):
    """Raise `ValueError` when `groups` are too few to be split 80:10:10 without one of them on two sides."""
    count = len(np.unique(np.asarray(groups, dtype=str)))
    if count < 10:
        raise ValueError(f"{count} people or groups cannot be split 80:10:10: at least 10 are needed; add photos.")


def split_groups(ages, groups, seed=0) -> np.ndarray:
    """Return "train", "valid" or "test" for each picture, 80:10:10, stratified by age, no group on two sides.

    `ages`: years `(N,)`. `groups`: anything that is equal for pictures that must stay together `(N,)`.
    Ages with fewer pictures than ten folds go where they fit. Raises `ValueError` with fewer than ten groups.
    """
    check_groups(groups)
    ages, groups = np.asarray(ages), np.asarray(groups)
    # Rare ages are put with their neighbours, because a fold cannot have a share of fewer pictures than folds.
    folds = StratifiedGroupKFold(10, shuffle=True, random_state=seed).split(ages, merge_rare(ages), groups)
    part = np.full(len(ages), "train", dtype=object)
    for name, (_, rows) in zip(("test", "valid"), folds):
        part[rows] = name
    return part


def merge_rare(ages, least=10) -> np.ndarray:
    """Return a class for each of `ages` so that every class has at least `least` pictures: neighbours are merged."""
    classes, size = {}, 0
    for age, count in pd.Series(ages).value_counts().sort_index().items():
        if not classes or size >= least:
            current, size = age, 0
        classes[age] = current
        size += count
    if size < least:  # the oldest are too few for a class of their own: they join the one below
        below = max((c for c in classes.values() if c != current), default=current)
        classes = {age: below if c == current else c for age, c in classes.items()}
    return np.array([classes[age] for age in ages])


def write_splits(labels, part):
    """Write `splits/{train,valid,test}.csv` of `labels`, given the name of the part of each row."""
    for name in PARTS:
        with atomic(tables_dir() / "splits" / f"{name}.csv") as temporary:
            labels[part == name].to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")


def read_splits() -> pd.DataFrame:
    """Return the labels of the three parts as one table with the column `part`, in the order train, valid, test.

    Raises `FileNotFoundError` that names notebook 03 when the split has not been made.
    """
    folder = need(tables_dir() / "splits", made_by="03_stratified_split")
    tables = [read_labels(need(folder / f"{name}.csv", "03_stratified_split")).assign(part=name) for name in PARTS]
    return pd.concat(tables, ignore_index=True)


def load_faces():
    """Return `(images, faces)`: the prepared pictures uint8 `(N, 128, 128, 3)`, mapped, and the table of the split.

    Where nobody knows the person, a picture counts as a person of its own.
    """
    faces = read_splits()
    faces["person"] = faces["person"].fillna(faces["path"])
    return prepare_all(root_of(data_dir()), faces["path"]), faces


class FaceAgeDataset(Dataset):
    """Faces and their ages, picture by picture (the field's `CustomDataset`).

    `images`: uint8 RGB `(N, 128, 128, 3)`, in memory or mapped. `ages`: years `(N,)`. `rows`: which of them belong to
    this part (all when omitted). `augment`: a transform on a uint8 tensor `(3, H, W)`, or None.
    An item is `(float32 (3, 128, 128), normalised; float32 age in years)`. Raises `ValueError` when the lengths differ.
    """

    def __init__(self, images, ages, rows=None, augment=None):
        if len(images) != len(ages):
            raise ValueError(f"{len(images)} pictures but {len(ages)} ages: make both from the same labels table.")
        self.images, self.ages, self.augment = images, np.asarray(ages, np.float32), augment
        self.rows = np.arange(len(images)) if rows is None else np.asarray(rows)

    def __len__(self):
        return len(self.rows)

    def __repr__(self):  # tells two sets apart, so that a training never goes on with other faces
        digest = hashlib.sha256(self.ages[self.rows].tobytes() + self.rows.tobytes()).hexdigest()[:16]
        return f"FaceAgeDataset({len(self)} faces, {digest}, augment={self.augment})"

    def __getitem__(self, index):
        row = self.rows[index]
        image = torch.from_numpy(np.array(self.images[row])).permute(2, 0, 1)
        if self.augment is not None:
            image = self.augment(image)
        return to_input(image), torch.tensor(self.ages[row])


def make_loader(dataset, batch_size=64, train=False, seed=0, workers=0):
    """Return a `DataLoader`; `train` shuffles (with `seed`) and drops a last batch too small to learn from."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=train,
        drop_last=train and len(dataset) > batch_size,
        generator=torch.Generator().manual_seed(seed),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
