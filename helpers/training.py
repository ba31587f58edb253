"""One training loop for every model: one-cycle AdamW, bfloat16 where it is fast, averaged weights, best checkpoint.

`python -m helpers.training --data … --model …` trains without a notebook, and the same under torchrun on many GPUs.
"""

import argparse
import ctypes
import os
import platform
import random
import shutil
import signal
import sys
import time
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch.nn import SyncBatchNorm
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .datasets import (
    PARTS,
    FaceAgeDataset,
    load_faces,
    make_loader,
    mild_augmentation,
    rank_and_size,
    strong_augmentation,
)
from .models import AGES, SimpleCNN, face_resnet, resnet, start_at, to_years
from .paths import atomic, data_dir, need, run_dir

# glibc gives freed tensors above 32 MB back to the system, which must fill every page of the next step's with zeros: a
# third of a step and more (`make bench`). So they stay for the next ones. mallopt(3): no block is one of its own
# (option -4, M_MMAP_MAX), free memory at the end of the heap is kept (-1, M_TRIM_THRESHOLD). `fit` gives it back.
GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
if GLIBC:
    for option, value in {-4: 0, -1: 2**31 - 1}.items():
        GLIBC.mallopt(option, value)
# Numbers below 1e-38 count as zero. Weights that no longer learn leave such gradients and averages behind, with which a
# processor calculates many times slower. It stands here because threads take it over when they start.
torch.set_flush_denormal(True)


def known_faces(images):
    """Return the face ResNet, to be trained on pictures that are cropped like `images` uint8 `(N, 128, 128, 3)`."""
    from .features import window_of  # here, since only this needs the detector and what it imports

    return face_resnet(len(AGES), window_of(images))


# What `main` trains, as in notebooks 05 and 06: the network, its augmentation, batch size, learning rate, weight decay.
# With a seed the numbers are those that the notebook has chosen, which its checkpoint tells: NOTEBOOKS says where.
RECIPES = {
    "simple_cnn": (lambda images: SimpleCNN(dropout=0.2), mild_augmentation(), 32, 1e-3, 0.1),
    "resnet18": (lambda images: resnet(len(AGES), pretrained=False)[0], mild_augmentation(), 64, 1.5e-3, 0.05),
    "face_resnet": (known_faces, mild_augmentation(), 64, 2.5e-4, 0.05),
}
NOTEBOOKS = {
    "simple_cnn": ("05_simple_cnn", "simple_cnn"),
    "resnet18": ("06_resnet", "resnet_18_from_scratch"),
    "face_resnet": ("06_resnet", "face_resnet"),
}
AUGMENTATIONS = {"none": None, "mild": mild_augmentation(), "strong": strong_augmentation}


def seed_everything(seed: int):
    """Seed Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still draw from it
    torch.manual_seed(seed)


def best_device() -> torch.device:
    """CUDA, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() and not dist.is_initialized() else "cpu")


@lru_cache
@torch.enable_grad()  # also when `predict` is the first to ask
def fast_bfloat16(device) -> bool:
    """Return whether a convolution learns faster on `device` under bfloat16 autocast than in float32.

    A CPU is asked once, by a measurement of some 50 ms, because many calculate with bfloat16 but slowly: one
    without AVX-512 took four times as long as in float32. A GPU is asked whether it has the arithmetic.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    features = torch.zeros(4, 64, 32, 32).to(memory_format=torch.channels_last)
    filters = torch.zeros(64, 64, 3, 3, requires_grad=True)  # nothing random, so that a resumed training stays the same
    seconds = {True: [], False: []}
    for bfloat16 in 5 * [True, False]:  # by turns, so that both meet the same disturbances; the least time has fewest
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            F.conv2d(features, filters, padding=1).sum().backward()
        seconds[bfloat16].append(time.perf_counter() - started)
    return min(seconds[True]) < min(seconds[False])


def age_loss(output, ages, spread=2.0):
    """Return the loss of `output` `(B, 1)` or `(B, len(AGES))` against `ages` in years `(B,)`.

    One output: the mean absolute error. A distribution: cross-entropy to a normal distribution of `spread` years
    around the age, plus the absolute error of its expectation (Gao et al. 2018, DLDL-v2).
    `ages` `(B, 1 + outputs)`, as `with_teacher` makes them: the `distil_loss` against the teacher is added.
    """
    if ages.ndim == 2:
        return age_loss(output, ages[:, 0], spread) + distil_loss(output, ages[:, 1:])
    error = F.l1_loss(to_years(output), ages)
    if output.shape[1] == 1:
        return error
    around = torch.softmax(-((AGES.to(ages.device) - ages[:, None]) ** 2) / (2 * spread**2), 1)
    return F.cross_entropy(output.float(), around) + error


def distil_loss(output, told):
    """Return the loss of `output` against what a teacher says of the same pictures, both `(B, 1)` or `(B, len(AGES))`.

    The absolute difference of the two ages; for distributions also their cross-entropy: the teacher tells for which
    faces it is unsure, and between which ages. Source: Hinton et al. 2015. Raises `ValueError` when the heads differ.
    """
    if output.shape != told.shape:
        counts = f"{told.shape[1]} outputs, the model {output.shape[1]}"
        raise ValueError(f"The teacher has {counts}: give both the same head.")
    difference = F.l1_loss(to_years(output), to_years(told))
    if output.shape[1] == 1:
        return difference
    return difference + F.cross_entropy(output.float(), told.float().softmax(1))


@torch.no_grad()
def predict(model, loader, read=to_years):
    """Return the ages in years `(N,)` that `model` gives to the pictures of `loader`, in its order.

    `read` turns the outputs of a batch into what is returned.
    """
    device = next(model.parameters()).device
    model.eval()
    years = []
    for batch, _ in loader:
        batch = batch.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            years.append(read(model(batch)).cpu())
    return torch.cat(years).numpy()


def with_teacher(faces, teacher):
    """Return a `FaceAgeDataset` whose labels are the age and what `teacher` answers, `(1 + outputs,)`, for `age_loss`.

    The teacher sees each picture once, as it is. To ask it anew about every augmented picture would cost more time than
    the learning of a small network.
    """
    plain = FaceAgeDataset(faces.images, faces.ages, faces.rows)
    told = predict(teacher, make_loader(plain, 32), read=torch.Tensor.float)
    labels = np.full((len(faces.ages), 1 + told.shape[1]), np.nan, np.float32)
    labels[faces.rows] = np.column_stack([faces.ages[faces.rows], told])
    return FaceAgeDataset(faces.images, labels, faces.rows, faces.augment)


def fit(
    model,
    train_loader,
    valid_loader,
    epochs,
    folder,
    lr=1e-3,
    weight_decay=0.01,
    patience=None,
    decay=0.99,
    head_lr=None,
):
    """Train `model`; leave it with the weights of its best epoch and return the history, one row an epoch.

    Columns: `epoch, train_loss, valid_mae` (years), `lr, seconds`. The weights that are validated and kept are an
    exponential average over steps with `decay`. Stops after `patience` epochs without a better `valid_mae`.
    `head_lr`: the learning rate of `model.head`, if another than `lr`, for a network of which only the head is new.
    `folder` gets `best.pt` (weights), TensorBoard logs, and `last.pt` after every epoch, from which an interrupted
    training with the same settings goes on to the same result; a finished one removes it. One with other settings
    begins anew and keeps what it finds as `former_last.pt` and `former_best.pt`.
    Under torchrun every process calls this: gradients and the history are those of all, the first one writes the files.
    Raises `ValueError` when a loader has no batch or `last.pt` is damaged, `FloatingPointError` on divergence.
    """
    folder, device, (rank, size) = Path(folder), best_device(), rank_and_size()
    if not len(train_loader) or not len(valid_loader.dataset):
        raise ValueError("The training or validation part has no picture: check the labels table and the split.")
    if len(valid_loader.dataset) < size:
        raise ValueError(
            f"{len(valid_loader.dataset)} faces to validate are too few for {size} processes: start fewer."
        )
    lr, weight_decay, decay = float(lr), float(weight_decay), float(decay)  # a checkpoint holds no numbers of NumPy
    model.to(device, memory_format=torch.channels_last)
    network = _distributed(model, device) if size > 1 else model
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    rates, groups = [lr], [{"params": model.parameters()}]
    if head_lr is not None:
        body = [weights for name, weights in model.named_parameters() if not name.startswith("head.")]
        rates, groups = [lr, float(head_lr)], [{"params": body}, {"params": model.head.parameters()}]
    optimiser = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)
    steps = epochs * len(train_loader)
    # OneCycleLR divides by zero when a quarter of the steps is one step.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=max(steps, 5), pct_start=0.25)
    state = {"model": model, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    settings = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "patience": patience, "decay": decay}
    settings |= {"head_lr": head_lr and float(head_lr)}
    settings |= {"batch_size": train_loader.sampler.batch_size, "steps": steps, "data": repr(train_loader.dataset)}
    history = _resume(folder / "last.pt", state, settings, train_loader)
    if history and rank == 0:
        print(f"Goes on after epoch {len(history)}, from {folder / 'last.pt'}.")
    if not history and rank == 0:  # the curves of a former training would be drawn over these
        shutil.rmtree(folder / "logs", ignore_errors=True)
    log = SummaryWriter(folder / "logs") if rank == 0 else None
    truth = np.concatenate([ages.numpy() for _, ages in valid_loader])

    for epoch in range(len(history) + 1, epochs + 1):
        if patience is not None and history and len(history) - _best(history) >= patience:
            break  # asked here, so that a training resumed after its last epoch stops as well
        started = time.perf_counter()
        if size > 1:  # each process augments in its own way, and a resumed one as if it had not been interrupted
            torch.manual_seed(hash((train_loader.generator.initial_seed(), epoch, rank)))
        title = f"epoch {epoch}/{epochs}"
        trained = _train_epoch(network, averaged, train_loader, optimiser, schedule, device, title)
        if size > 1:  # each has normalised its own share of the batches; all validate what the first one saves
            for buffer in averaged.module.buffers():
                dist.broadcast(buffer, 0)
        errors = np.abs(predict(averaged.module, valid_loader) - truth)
        loss, steps_done, error, faces = _sum(*trained, errors.sum(dtype=float), len(errors))
        loss, mae = loss / steps_done, error / faces
        if not np.isfinite([loss, mae]).all():
            raise FloatingPointError(f"The loss is not a number in epoch {epoch}: train with a smaller lr than {lr}.")
        row = {"epoch": epoch, "train_loss": loss, "valid_mae": mae, "lr": schedule.get_last_lr()[0]}
        history.append(row | {"seconds": time.perf_counter() - started})
        if rank > 0:
            continue
        for name in ("train_loss", "valid_mae", "lr"):
            log.add_scalar(name, row[name], epoch)
        if _best(history) == epoch:
            _save(folder / "best.pt", {"model": averaged.module.state_dict(), "settings": settings, "epoch": epoch})
        if epoch < epochs:  # after the last one there is nothing to go on with
            _save(folder / "last.pt", _snapshot(state, settings, history, train_loader))

    if rank == 0:
        log.close()
        load_weights(model, folder / "best.pt")
    if size > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
    if rank == 0:  # only now, since until then the last epoch can be trained again
        (folder / "last.pt").unlink(missing_ok=True)
    if GLIBC:
        GLIBC.malloc_trim(0)
    return pd.DataFrame(history)


def load_weights(model, path):
    """Load the weights of a `best.pt` into `model` and return it. Raises `ValueError` when they do not fit."""
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} does not hold weights of this model; delete it and train again.") from error
    return model


def main(arguments=None):
    """Train one of the networks on photos that notebooks 02 and 03 have labelled and split, also under torchrun."""
    parser = argparse.ArgumentParser(prog="python -m helpers.training", description=main.__doc__)
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
    make, augment, *numbers = RECIPES[asked.model]
    how = dict(zip(("batch_size", "lr", "weight_decay"), numbers), epochs=15, patience=None, decay=0.99)
    seed, folder, known = 5, run_dir() / "torchrun" / asked.model, None
    if asked.seed is not None:
        notebook, made = NOTEBOOKS[asked.model]
        saved = need(run_dir() / made / "best.pt", notebook)
        known = torch.load(saved, map_location="cpu", weights_only=True, mmap=True)["settings"]
        seed, name = asked.seed, [asked.model, str(asked.seed), asked.augmentation]
        folder = run_dir() / "seeds" / "_".join(filter(None, name))
    images, faces = _join_the_others()
    ages, rows = faces["age"].to_numpy(), {part: np.flatnonzero(faces["part"] == part) for part in PARTS}
    train = FaceAgeDataset(images, ages, rows["train"], augment)
    if known:
        if known["data"] != repr(train) or not how.keys() <= known.keys():
            raise ValueError(f"The {made}/best.pt of these photos is of another split or recipe: run {notebook} again.")
        how = {name: known[name] for name in how}
    how |= {name: value for name, value in vars(asked).items() if name in how and value is not None}
    how["head_lr"] = 5 * how["lr"] if asked.model == "face_resnet" else None
    train.augment = AUGMENTATIONS[asked.augmentation] if asked.augmentation else augment
    train_loader = make_loader(train, how.pop("batch_size"), True, seed, asked.workers)
    valid_loader = make_loader(FaceAgeDataset(images, ages, rows["valid"]), max(128, rank_and_size()[1]))
    seed_everything(seed)
    model = start_at(make(images), ages[rows["train"]].mean(), train.sample())
    again = f"The same command goes on after the last whole epoch, with any number of processes: {folder}."
    if rank_and_size()[0] == 0 and (folder / "best.pt").exists() and not (folder / "last.pt").exists():
        print(f"A former training has left its weights here. {_put_aside(folder)}")
    # torchrun ends the others when one has failed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"Stopped from outside, or another process failed. {again}"))
    try:
        history = fit(model, train_loader, valid_loader, folder=folder, **how)
    except Exception as error:
        if not isinstance(error, (ValueError, FloatingPointError)):  # those say what to do, and would come again
            error.add_note(again)
        raise
    if rank_and_size()[0] == 0:
        print(history.round(3).to_string(index=False))
        print(f"Weights of epoch {_best(history.to_dict('records'))}: {folder / 'best.pt'}")
    if dist.is_initialized():
        dist.destroy_process_group()


def _join_the_others():
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
    return loaded or load_faces(files[dist.get_rank() - local])


def _distributed(model, device):
    if device.type == "cuda":  # on CPUs each process normalises with its own share of the batch
        SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, gradient_as_bucket_view=True)  # no copies back


def _sum(*numbers):
    # Over all processes, on the CPU, because not every device knows float64.
    total = torch.tensor(numbers, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(total)
    return total.tolist()


def _train_epoch(model, averaged, loader, optimiser, schedule, device, title):
    model.train()
    total = 0.0
    if rank_and_size()[0] == 0:
        loader = tqdm(loader, desc=title, leave=False, mininterval=1)
    for batch, ages in loader:
        batch, ages = batch.to(device, memory_format=torch.channels_last), ages.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            loss = age_loss(model(batch), ages)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(model)
        total += loss.item()
    return total, len(loader)


def _best(history):
    return min(history, key=lambda row: row["valid_mae"])["epoch"]


def _snapshot(state, settings, history, loader):
    saved = {name: part.state_dict() for name, part in state.items()}
    randomness = {"torch": torch.get_rng_state(), "loader": loader.generator.get_state()}
    if rank_and_size()[1] == 1:  # dropout draws there; empty without CUDA
        randomness["cuda"] = torch.cuda.get_rng_state_all()
    return saved | {"settings": settings, "history": history, "random": randomness}


def _resume(path, state, settings, loader):
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
                print(f"{path} is of a training with other {', '.join(other)}. {_put_aside(path.parent)}")
            return []
        for name, part in state.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["random"]["torch"])
        if size == 1:  # several seed themselves anew for each epoch
            torch.cuda.set_rng_state_all(saved["random"].get("cuda", [])[: torch.cuda.device_count()])
        loader.generator.set_state(saved["random"]["loader"])
    except Exception as error:
        raise ValueError(f"{path} is damaged or of another model: delete it to train anew.") from error
    return saved["history"]


def _put_aside(folder):
    for path in (folder / "last.pt", folder / "best.pt"):
        if path.exists():
            os.replace(path, path.with_name(f"former_{path.name}"))
    return f"This one begins anew; what that one left is kept: {folder / 'former_best.pt'}."


def _save(path, content):
    with atomic(path) as temporary:
        torch.save(content, temporary)


if __name__ == "__main__":
    main()
