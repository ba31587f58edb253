"""The split into training, validation and test set, and from prepared pictures to batches `(B, 3, 128, 128)`."""

import hashlib
import mmap
import random
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from sklearn.model_selection import StratifiedGroupKFold
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from .images import prepare_all
from .labels import read_labels, root_of
from .paths import atomic, data_dir, need, tables_dir

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, so that pretrained weights see what they know
PARTS = ("train", "valid", "test")


def seed_everything(seed: int):
    """Seed Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still draw from it
    torch.manual_seed(seed)


def mild_augmentation(images, shift=8):
    """Return uint8 `images` `(3, H, W)` or `(B, 3, H, W)`, each mirrored or not, moved by up to `shift` pixels, relit.

    As torchvision's RandomHorizontalFlip, RandomCrop (reflected) and ColorJitter(0.2, 0.2) for one after the other.
    """
    batch = images.reshape(-1, *images.shape[-3:]).movedim(1, -1).numpy()  # (B, H, W, 3), as OpenCV has pictures
    (n, height, width, _), changed = batch.shape, np.empty(batch.shape, np.uint8)
    mirrored, moves = torch.rand(n) < 0.5, torch.randint(2 * shift + 1, (n, 2)).tolist()
    light = torch.empty(n, 2).uniform_(0.8, 1.2).tolist()
    for i, ((top, left), (brightness, contrast)) in enumerate(zip(moves, light)):
        image = cv2.copyMakeBorder(batch[i], shift, shift, shift, shift, cv2.BORDER_REFLECT_101)
        image = image[top : top + height, left : left + width]
        image = cv2.flip(image, 1) if mirrored[i] else image
        grey = np.dot(cv2.mean(image)[:3], (0.299, 0.587, 0.114))
        # brightness · (grey + contrast · (image − grey)), which OpenCV rounds and cuts off at 0 and 255
        cv2.addWeighted(image, brightness * contrast, image, 0, brightness * (1 - contrast) * grey, dst=changed[i])
    return torch.from_numpy(changed).movedim(-1, 1).reshape(images.shape)


def strong_augmentation(image):
    """Return a uint8 `image` `(3, H, W)` mirrored, turned, moved, zoomed, relit, grey or partly hidden, by chance."""
    from torchvision.transforms import v2  # here, because it takes two seconds, which few notebooks need

    changes = [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(8, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.2),
        v2.RandomGrayscale(0.1),
        v2.RandomErasing(p=0.5, scale=(0.02, 0.15), value=127),
    ]
    return v2.Compose(changes)(image)


def to_input(images):
    """Return uint8 `(..., 3, H, W)` as float32, normalised with ImageNet's mean and deviation of each channel."""
    mean, std = torch.tensor([MEAN, STD])[..., None, None]
    return torch.addcmul(-mean / std, images.float(), 1 / (255 * std))  # in one pass over the memory


def check_groups(groups, pictures=40):
    """Raise `ValueError` when `groups`, one for each picture, are too few to be split and then judged as in 07."""
    if len(groups) < pictures:
        raise ValueError(f"{len(groups)} pictures are too few: {pictures} are needed, and hundreds are better.")
    count = len(np.unique(np.asarray(groups, dtype=str)))
    if count < 10:
        raise ValueError(f"{count} people or groups cannot be split 80:10:10: at least 10 are needed; add photos.")


def split_groups(ages, groups, seed=0, given=None) -> np.ndarray:
    """Return "train", "valid" or "test" for each picture, 80:10:10, stratified by age `(N,)` in years.

    Pictures with equal `groups` `(N,)` stay together. `given` `(N,)`: the sets that a CSV brings in its column `part`,
    or None. Then only the sets that it lacks are drawn, each a tenth of its training set.
    Raises `ValueError` with fewer than ten groups to draw from, and when `given` names something else or too few.
    """
    called = {"training": "train", "val": "valid", "validation": "valid", "testing": "test"}
    part = pd.Series("train" if given is None else np.asarray(given), range(len(ages)), dtype="string")
    part = part.fillna("").str.strip().str.lower().replace(called).to_numpy(object)
    if len(wrong := part[~np.isin(part, PARTS)]):
        says = f"{wrong[0]!r} in the column part of the CSV is no set ({len(wrong)} rows)"
        raise ValueError(f"{says}: write train, valid or test into every row, or rename the column.")
    free, ages, groups = np.flatnonzero(part == "train"), np.asarray(ages), np.asarray(groups)
    check_groups(groups[free], pictures=0)
    if few := [name for name in PARTS if 0 < (part == name).sum() < 4]:
        raise ValueError(f"The CSV puts fewer than 4 pictures into {few[0]}: put more there, or none.")
    folds = StratifiedGroupKFold(10, shuffle=True, random_state=seed).split(free, merge_rare(ages[free]), groups[free])
    for name, (_, rows) in zip([name for name in ("test", "valid") if name not in part], folds):
        part[free[rows]] = name
    return part


def merge_rare(ages, least=10) -> np.ndarray:
    """Return a class for each of `ages` `(N,)`, named by its lowest age; each has at least `least` pictures.

    A fold cannot have a share of fewer. Quantiles (`pd.qcut`) would leave a rare age alone between common ones.
    """
    starts, size = [], least
    for age, count in pd.Series(ages).value_counts().sort_index().items():
        if size >= least:
            starts.append(age)
            size = 0
        size += count
    if size < least and len(starts) > 1:  # the oldest are too few for a class of their own
        starts.pop()
    return np.array(starts)[np.searchsorted(starts, ages, side="right") - 1]


def write_splits(labels, part):
    """Write `splits/{train,valid,test}.csv` of `labels`, given the name of the set of each row."""
    for name in PARTS:
        with atomic(tables_dir() / "splits" / f"{name}.csv") as temporary:
            labels[part == name].to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")


def read_splits() -> pd.DataFrame:
    """Return the labels of the three sets and the column `part`; raises `FileNotFoundError` that names notebook 03."""
    files = {name: need(tables_dir() / "splits" / f"{name}.csv", made_by="03_stratified_split") for name in PARTS}
    faces = pd.concat([read_labels(file).assign(part=name) for name, file in files.items()])
    # The order of the labels table: in it notebooks 02 and 03 have cached the prepared pictures and the features.
    return faces.sort_values("path", kind="stable", ignore_index=True)


def people_note(faces) -> str:
    """Return in words what is not known of who is in the pictures of `read_splits`; "" where every person is known."""
    unknown, found = faces["person"].isna().sum(), faces["found_person"].count() if "found_person" in faces else 0
    told = "Each counts as a person of its own, so one person may be in two sets."
    if found:
        told = f"By their faces {found:,} of them seem to show somebody who is in others, too: they stay together."
    return f"Nobody noted who is in {unknown:,} of {len(faces):,} pictures. {told}" if unknown else ""


def load_faces():
    """Return `(images, faces)`: the prepared pictures uint8 `(N, 128, 128, 3)`, mapped, and the table of the split.

    Where nobody knows the person, the group that notebook 03 has found stands in, or else the picture itself.
    """
    faces = read_splits()
    for stand_in in ("found_person", "path"):
        if stand_in in faces:
            faces["person"] = faces["person"].fillna(faces[stand_in])
    return prepare_all(root_of(data_dir()), faces["path"]), faces


class FaceAgeDataset(Dataset):
    """Faces and their ages (the field's `CustomDataset`), one by one or a batch at once.

    `images`: uint8 RGB `(N, 128, 128, 3)`, in memory or mapped, or the path of such a file. `ages`: years `(N,)`, or
    `(N, L)` with further labels. `rows`: which of them belong to this set (all when omitted). `augment`: a transform
    on a uint8 tensor `(3, H, W)`, or None. `dataset[i]` is `(float32 (3, 128, 128), normalised; float32 age)`, with a
    list in place of `i` a batch, `(B, 3, 128, 128)` and `(B,)`. Raises `ValueError` when the lengths differ.
    """

    def __init__(self, images, ages, rows=None, augment=None):
        images = np.load(images, mmap_mode="r") if isinstance(images, Path) else images
        if len(images) != len(ages):
            raise ValueError(f"{len(images)} pictures but {len(ages)} ages: make both from the same labels table.")
        self.images, self.ages, self.augment = images, np.asarray(ages, np.float32), augment
        self.rows = np.arange(len(images)) if rows is None else np.asarray(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, tuple):  # of `SharedBatches`, for a worker
            seed, index = index
            seed_everything(seed)
        rows = self.rows[index]
        images = torch.from_numpy(np.take(self.images, rows, axis=0)).movedim(-1, -3)  # a copy of the source
        if self.augment is not None and (images.ndim == 3 or self.augment is mild_augmentation):
            images = self.augment(images)
        elif self.augment is not None:  # other transforms would change all pictures of a batch alike
            images = torch.stack([self.augment(image) for image in images])
        return to_input(images), torch.tensor(self.ages[rows])

    def sample(self, count=128):
        """Return `count` of its pictures at equal distances, `(count, 3, 128, 128)`, normalised but not augmented."""
        return FaceAgeDataset(self.images, self.ages, self.rows)[np.linspace(0, len(self) - 1, count).astype(int)][0]

    def __repr__(self):  # tells two sets apart, so that a training never goes on with other faces
        pictures = Path(getattr(self.images, "filename", None) or "").name  # of the cache: it tells the content
        content = self.ages[self.rows].tobytes() + self.rows.tobytes() + pictures.encode()
        augment = getattr(self.augment, "__name__", self.augment)
        return f"FaceAgeDataset({len(self)} faces, {hashlib.sha256(content).hexdigest()[:16]}, augment={augment})"

    def __reduce__(self):  # a worker that is not forked maps the file anew instead of getting a copy of it
        whole = isinstance(getattr(self.images, "base", None), mmap.mmap)  # and not a slice of it
        images = Path(self.images.filename) if whole else self.images
        return FaceAgeDataset, (images, self.ages, self.rows, self.augment)


def rank_and_size():
    """Return the number of this process and how many train together: `(0, 1)` unless torchrun started several."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class SharedBatches(BatchSampler):
    """The batches that one process would make, and of each the share of this process.

    Unlike those of PyTorch's DistributedSampler they are the same for any number of processes, without repetitions.
    """

    # Whether each has a seed for its worker, so that it draws the same whichever worker it is, or how old.
    seeded = False

    def __iter__(self):
        (rank, size), seed = rank_and_size(), None
        if self.seeded:  # drawn as by a loader without workers, so that the order is the same
            seed = torch.empty((), dtype=torch.int64).random_(generator=self.sampler.generator).item()
        for number, batch in enumerate(super().__iter__()):
            if share := batch[rank::size]:
                yield (hash((seed, number, rank)) % 2**32, share) if self.seeded else share


def make_loader(dataset, batch_size=64, train=False, seed=0, workers=0):
    """Return a `DataLoader`; `train` shuffles (with `seed`) and drops a last batch too small to learn from.

    Under torchrun each process gets its share of every batch. Raises `ValueError` when a training batch has no equal
    shares, since the mean of their gradients would be another.
    """
    size, largest = rank_and_size()[1], min(batch_size, len(dataset))
    if train and largest % size:
        raise ValueError(f"Batches of {largest} have no {size} equal shares: choose a multiple.")
    generator = torch.Generator().manual_seed(seed)
    order = RandomSampler(dataset, generator=generator) if train else SequentialSampler(dataset)
    batches = SharedBatches(order, batch_size, drop_last=train and len(dataset) > batch_size)
    batches.seeded = train and workers > 0
    # Without a batch size of its own the loader asks the dataset for whole batches. It starts workers once, since that
    # may take 20 seconds; what it then draws must not change the order.
    drawn = torch.Generator() if workers else generator
    how = {"num_workers": workers, "persistent_workers": workers > 0, "generator": drawn}
    return DataLoader(dataset, sampler=batches, batch_size=None, **how)
