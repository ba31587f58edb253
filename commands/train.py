"""Train one of the networks without a notebook, on one processor or on many GPUs, once more with another seed or not.

`python -m commands.train --data … --model …`, and the same under torchrun.
"""

import argparse
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from helpers import checkpoints, training
from helpers.datasets import (
    PARTS,
    FaceAgeDataset,
    load_faces,
    make_loader,
    mild_augmentation,
    rank_and_size,
    read_splits,
    strong_augmentation,
)
from helpers.models import AGES, SimpleCNN, face_resnet, resnet, start_at
from helpers.paths import data_dir, need, run_dir


def known_faces(images):
    """Return the face ResNet, to be trained on pictures that are cropped like `images` uint8 `(N, 128, 128, 3)`."""
    from helpers.features import window_of  # here, since only this needs the detector and what it imports

    return face_resnet(len(AGES), window_of(images))


# What `main` trains, as in notebooks 05 and 06: the network, its augmentation, batch size, learning rate, weight decay.
# With a seed the numbers are those that the notebook has chosen, which its checkpoint tells: NOTEBOOKS says where.
RECIPES = {
    "simple_cnn": (lambda images: SimpleCNN(dropout=0.2), mild_augmentation, 32, 1e-3, 0.1),
    "resnet18": (lambda images: resnet(len(AGES), pretrained=False)[0], mild_augmentation, 64, 1.5e-3, 0.05),
    "face_resnet": (known_faces, mild_augmentation, 64, 2.5e-4, 0.05),
}
NOTEBOOKS = {
    "simple_cnn": ("05_simple_cnn", "simple_cnn"),
    "resnet18": ("06_resnet", "resnet_18_from_scratch"),
    "face_resnet": ("06_resnet", "face_resnet"),
}
AUGMENTATIONS = {"none": None, "mild": mild_augmentation, "strong": strong_augmentation}


def main(arguments=None):
    """Train one of the networks on photos that notebooks 02 and 03 have labelled and split, also under torchrun."""
    asked = read_arguments(arguments)
    images, faces = join_the_others()
    ages, rows = faces["age"].to_numpy(), {part: np.flatnonzero(faces["part"] == part) for part in PARTS}
    make, augment, *_ = RECIPES[asked.model]
    train = FaceAgeDataset(images, ages, rows["train"], augment)
    seed, folder, how = settings(asked, train)
    train.augment = AUGMENTATIONS[asked.augmentation] if asked.augmentation else augment
    train_loader = make_loader(train, how.pop("batch_size"), True, seed, asked.workers)
    valid_loader = make_loader(FaceAgeDataset(images, ages, rows["valid"]), max(128, rank_and_size()[1]))
    training.setup(seed)
    model = start_at(make(images), ages[rows["train"]].mean(), train.sample())
    again = f"The same command goes on after the last whole epoch, with any number of processes: {folder}."
    if rank_and_size()[0] == 0 and (folder / "best.pt").exists() and not (folder / "last.pt").exists():
        print(f"A former training has left its weights here. {checkpoints.put_aside(folder)}")
    # torchrun ends the others when one has failed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"Stopped from outside, or another process failed. {again}"))
    try:
        history = training.fit(model, train_loader, valid_loader, folder=folder, **how)
    except Exception as error:
        if not isinstance(error, (ValueError, FloatingPointError)):  # those say what to do, and would come again
            error.add_note(again)
        raise
    if rank_and_size()[0] == 0:
        print(history.round(3).to_string(index=False))
        best = history.loc[history["valid_mae"].idxmin(), "epoch"]
        print(f"Weights of epoch {best}: {folder / 'best.pt'}")
    if dist.is_initialized():
        dist.barrier()  # nobody leaves while another still listens, or a thread of gloo may abort that one
        dist.destroy_process_group()


def read_arguments(arguments=None):
    """Return what the command line asks for; exits with a sentence where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m commands.train", description=main.__doc__)
    parser.add_argument("--data", help="folder or CSV of photos; AGE_DATA if omitted, else the shipped faces")
    parser.add_argument("--model", choices=RECIPES, default="simple_cnn")
    parser.add_argument("--epochs", type=int, help="15 if omitted")
    parser.add_argument("--batch-size", type=int, help="pictures of all processes together")
    parser.add_argument("--lr", type=float, help="the largest learning rate")
    parser.add_argument("--augmentation", choices=AUGMENTATIONS, help="that of the notebooks if omitted")
    parser.add_argument("--seed", type=int, help="train again what notebook 05 or 06 has trained, with another seed")
    parser.add_argument("--workers", type=int, default=0, help="how many load pictures beside each process")
    asked = parser.parse_args(arguments)
    if asked.data:
        os.environ["AGE_DATA"] = str(Path(asked.data).expanduser().absolute())
    if not data_dir().exists():
        parser.error(f"{data_dir()} does not exist: give a folder or CSV of photos")
    if any(number is not None and number < 1 for number in (asked.epochs, asked.batch_size)):
        parser.error("--epochs and --batch-size begin at 1")
    return asked


def settings(asked, train):
    """Return the seed, the folder and the settings of the training that is `asked` for on the faces `train`.

    With a seed they are those of the notebook's checkpoint. Raises `ValueError` when that is of other faces.
    """
    how = dict(
        zip(("batch_size", "lr", "weight_decay"), RECIPES[asked.model][2:]), epochs=15, patience=None, decay=0.99
    )
    seed, folder = 5, run_dir() / "torchrun" / asked.model
    if asked.seed is not None:
        notebook, made = NOTEBOOKS[asked.model]
        saved = need(run_dir() / made / "best.pt", notebook)
        known = torch.load(saved, map_location="cpu", weights_only=True, mmap=True)["settings"]
        here = checkpoints.names_of(train)
        if {name: known.get(name) for name in here} != here or not how.keys() <= known.keys():
            raise ValueError(f"The {made}/best.pt of these photos is of another split or recipe: run {notebook} again.")
        how, seed = {name: known[name] for name in how}, asked.seed
        folder = run_dir() / "seeds" / "_".join(filter(None, [asked.model, str(seed), asked.augmentation]))
    how |= {name: value for name, value in vars(asked).items() if name in how and value is not None}
    return seed, folder, how | {"head_lr": 5 * how["lr"] if asked.model == "face_resnet" else None}


def join_the_others():
    """Return the pictures and the table of the split, after torchrun's processes have found each other."""
    if "LOCAL_RANK" not in os.environ:
        return load_faces()
    local = int(os.environ["LOCAL_RANK"])
    gpus = torch.cuda.device_count()
    if gpus:
        if local >= gpus:
            raise ValueError(f"There are {gpus} GPUs here, fewer than processes: use --nproc-per-node {gpus}.")
        torch.cuda.set_device(local)
    # Gloo beside nccl, because metrics are summed on the CPU; without a name there would be nccl alone.
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    # The first of a machine may have many pictures to prepare while the others wait; a step may not take that long.
    waiting = dist.new_group(timeout=timedelta(hours=12), backend="gloo")
    loaded, files = load_faces() if local == 0 else None, [None] * dist.get_world_size()
    dist.all_gather_object(files, str(loaded[0].filename) if loaded else None, waiting)
    # The others map the file of the first one of their machine; to check all photos again would read them all again.
    return loaded or (np.load(files[dist.get_rank() - local], mmap_mode="r"), read_splits())


if __name__ == "__main__":
    main()
