"""What a training leaves on disk: weights that name the data, the split and the recipe they come from."""

import hashlib
import os

import torch
import torch.distributed as dist

from .datasets import FaceAgeDataset, rank_and_size
from .models import AGES
from .paths import atomic


def names_of(faces) -> dict:
    """Return names for the `data` of a `FaceAgeDataset` (pictures, ages, rows), its `augment`, `teacher` and `ages`."""
    first = faces.ages.reshape(len(faces.ages), -1)[:, 0]  # with a teacher the age is the first of several labels
    data = repr(FaceAgeDataset(faces.images, first, faces.rows))
    teacher = digest(faces.ages[faces.rows].tobytes()) if faces.ages.ndim == 2 else None
    augment = str(getattr(faces.augment, "__name__", faces.augment))
    return {"data": data, "augment": augment, "teacher": teacher, "ages": AGES.tolist()}


def digest(content) -> str:
    """Return a short name for the bytes `content`, another one for others."""
    return hashlib.sha256(content).hexdigest()[:16]


def save(path, content):
    """Write `content` to `path`, whole or not at all."""
    try:
        with atomic(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        why = f"{path} cannot be written ({str(error).splitlines()[0]})"
        raise OSError(f"{why}: make room or let the folder be written to, then start again; it goes on.") from error


def load_weights(model, path, trained_on=None):
    """Load the weights of a `best.pt` into `model` and return it.

    `trained_on`: the `FaceAgeDataset` of the training set now in force; a network of another split may have seen the
    faces that now test it. Raises `ValueError` then, and when the weights are damaged, of another model or other ages.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        settings = dict(saved.get("settings", {}))
        model.load_state_dict(saved["model"])
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} does not hold weights of this model; delete it and train again.") from error
    if trained_on is not None and settings.get("data") != names_of(trained_on)["data"]:
        raise ValueError(f"{path} was trained on other pictures or another split than those of now: train it again.")
    ages = settings.get("ages", AGES.tolist())
    if ages != AGES.tolist():
        raise ValueError(f"{path} was trained for ages from {ages[0]:.0f} to {ages[-1]:.0f}: train it again.")
    return model


def resume(path, state, settings, generator):
    """Fill `state` and the `generator` of the order from the `last.pt` of an interrupted training; return its history.

    It is empty where there is no file, or one with other settings, put aside. Raises `ValueError` when it is damaged.
    """
    rank, size = rank_and_size()
    try:
        received = [torch.load(path, map_location="cpu", weights_only=True) if rank == 0 and path.exists() else None]
        if size > 1:  # the other machines may not see the file
            dist.broadcast_object_list(received)
        saved = received[0]
        if saved is None:
            return []
        if saved["settings"] != settings:
            other = [name for name, value in settings.items() if saved["settings"].get(name) != value]
            if rank == 0:
                print(f"{path} is of a training with other {', '.join(other)}. {put_aside(path.parent)}")
            return []
        for name, part in state.items():
            part.load_state_dict(saved[name])
        generator.set_state(saved["order"])
    except Exception as error:
        raise ValueError(f"{path} is damaged: delete it to train anew.") from error
    if rank == 0:
        print(f"Goes on after epoch {len(saved['history'])}, from {path}.")
    return saved["history"]


def put_aside(folder):
    """Rename the checkpoints in `folder`, so that a new training loses nothing, and return a sentence on it."""
    names = ["former", *(f"former{i}" for i in range(2, 10_000))]
    former = next(name for name in names if not list(folder.glob(f"{name}_*.pt")))
    for path in (folder / "last.pt", folder / "best.pt"):
        if path.exists():
            os.replace(path, path.with_name(f"{former}_{path.name}"))
    return f"This one begins anew; what that one left is kept: {folder / former}_best.pt."
