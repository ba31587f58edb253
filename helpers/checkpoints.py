"""What a training leaves on disk: weights that name the data, the split and the recipe they come from."""

import hashlib
import math
import os
from numbers import Integral, Real

import torch
import torch.distributed as dist

from .datasets import FaceAgeDataset, rank_and_size
from .models import AGES
from .paths import atomic


def describe(model, train_loader, how) -> dict:
    """Return the settings that a checkpoint notes: `how` a training is done, on which faces, and for which ages.

    `data` names the pictures, their ages and which of them are the training set; `augment` and `teacher` tell how they
    were shown and whether another network's answers were learnt as well; `model` stands for the layers with their
    dropout, `ages` for the years of the outputs, `seed` for the order. Numbers of NumPy become Python's.
    Raises `ValueError` when nothing can be trained with one of the numbers.
    """
    faces = train_loader.dataset
    how = {name: value.item() if hasattr(value, "item") else value for name, value in how.items()}
    for name, value in how.items():
        _check(name, value)
    how |= {"batch_size": int(train_loader.sampler.batch_size), "steps": how["epochs"] * len(train_loader)}
    how |= {"seed": train_loader.generator.initial_seed(), "data": data_of(faces), "augment": augment_of(faces)}
    how |= {"teacher": _digest(faces.ages[faces.rows].tobytes()) if faces.ages.ndim == 2 else None}
    return how | {"model": _digest(repr(model).encode()), "ages": AGES.tolist()}


def data_of(faces) -> str:
    """Return a name for the pictures, ages and rows of a `FaceAgeDataset`, whatever its augmentation and teacher."""
    first = faces.ages.reshape(len(faces.ages), -1)[:, 0]  # with a teacher the age is the first of several labels
    return repr(FaceAgeDataset(faces.images, first, faces.rows))


def augment_of(faces) -> str:
    """Return a name for the augmentation of a `FaceAgeDataset`: a function's own, else all that it is made of."""
    return str(getattr(faces.augment, "__name__", faces.augment))


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

    `trained_on`: the `FaceAgeDataset` of the training set now in force. A network that was trained on another split
    may have seen the faces that now test it. Raises `ValueError` with the remedy then, and when the weights are
    damaged, of another model or for other ages.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        settings = dict(saved.get("settings", {}))
        model.load_state_dict(saved["model"])
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} does not hold weights of this model; delete it and train again.") from error
    if trained_on is not None and settings.get("data") != data_of(trained_on):
        raise ValueError(f"{path} was trained on other pictures or another split than those of now: train it again.")
    ages = settings.get("ages", AGES.tolist())
    if ages != AGES.tolist():
        raise ValueError(f"{path} was trained for ages from {ages[0]:.0f} to {ages[-1]:.0f}: train it again.")
    return model


def resume(path, state, settings, generator):
    """Fill `state` and the `generator` of the order from the `last.pt` of an interrupted training; return its history.

    The history is empty where there is none, or one with other settings, which is put aside. Raises `ValueError` when
    it is damaged.
    """
    rank, size = rank_and_size()
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True) if rank == 0 and path.exists() else None
        if size > 1:  # the other machines may not see the file
            received = [saved]
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


def _check(name, value):
    # Text, NaN or a negative number would end in a traceback of PyTorch, or train nothing without a word.
    kind, range_of = (Integral, "whole number above 0") if name in ("epochs", "patience") else (Real, "number above 0")
    fits = isinstance(value, kind) and math.isfinite(value) and value > 0
    if name in ("weight_decay", "decay"):
        range_of = "number from 0 to below 1" if name == "decay" else "number of 0 or more"
        fits = value == 0 or fits and (name != "decay" or value < 1)
    if not fits and not (value is None and name in ("patience", "head_lr")):
        raise ValueError(f"{name} is {value!r}: give a {range_of}.")


def _digest(content):
    return hashlib.sha256(content).hexdigest()[:16]
