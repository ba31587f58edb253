"""One training loop for every model: that of notebook 05 with what a long training needs, also on many GPUs."""

import time
import warnings
from functools import lru_cache
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from . import checkpoints
from .checkpoints import load_weights
from .datasets import FaceAgeDataset, make_loader, rank_and_size, seed_everything
from .models import AGES, to_years

ALL_ALIKE = "The network answers nearly the same age for every face: take a smaller lr, more epochs or less decay."


def setup(seed: int):
    """Seed everything and set what this machine needs: once, before anything is calculated."""
    # Numbers below 1e-38, of weights that no longer learn, are slow: zero. Threads take this over when they start.
    torch.set_flush_denormal(True)
    seed_everything(seed)


def best_device() -> torch.device:
    """Return CUDA, else MPS where it answers as the CPU does (some batches it has got wrong), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    mps = torch.backends.mps.is_available() and not dist.is_initialized()
    right = mps and torch.allclose(_batch_on("mps"), _batch_on("cpu"), rtol=1e-2, atol=1e-3)  # NaN is close to nothing
    return torch.device("mps" if right else "cpu")


@torch.enable_grad()
def _batch_on(device):
    # The answers and the gradient of one layer, without a random number, so that a seed means the same everywhere.
    how = {"device": device, "memory_format": torch.channels_last}
    batch = torch.arange(2 * 3 * 32 * 32.0).sin().view(2, 3, 32, 32).to(**how)
    filters = torch.arange(8 * 3 * 3 * 3.0).cos().view(8, 3, 3, 3).to(**how).requires_grad_()
    answers = F.relu(F.max_pool2d(F.conv2d(batch, filters, padding=1), 2))
    answers.square().mean().backward()
    return torch.cat([answers.detach().flatten().cpu(), filters.grad.flatten().cpu()])


@lru_cache
@torch.enable_grad()  # also when `predict` is the first to ask
def fast_bfloat16(device) -> bool:
    """Return whether a convolution learns faster on `device` under bfloat16 autocast: on many CPUs it is far slower."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.zeros(4, 64, 32, 32).to(memory_format=torch.channels_last)
    filters = torch.zeros(64, 64, 3, 3, requires_grad=True)  # nothing random, so that a resumed training stays the same
    seconds = {True: [], False: []}
    for bfloat16 in 15 * [True, False]:  # by turns, so that both meet the same disturbances; the least time has fewest
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
    """Return the loss of `output` against a teacher's for the same pictures, both `(B, 1)` or `(B, len(AGES))`.

    The difference of the two ages, and the cross-entropy of distributions (Hinton et al. 2015). Raises `ValueError`
    when the heads differ.
    """
    if output.shape != told.shape:
        raise ValueError(f"The teacher has {told.shape[1]} outputs, not {output.shape[1]}: give both the same head.")
    difference = F.l1_loss(to_years(output), to_years(told))
    return difference if output.shape[1] == 1 else difference + F.cross_entropy(output.float(), told.float().softmax(1))


@torch.no_grad()
def predict(model, loader, read=to_years):
    """Return what `read` makes of the outputs of `model` for `loader`, in its order: the ages in years `(N,)`."""
    device = next(model.parameters()).device
    model.eval()
    years = []
    for batch, _ in loader:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            years.append(read(model(batch.to(device, memory_format=torch.channels_last))).cpu())
    return torch.cat(years).numpy()


def with_teacher(faces, teacher):
    """Return a `FaceAgeDataset` whose labels are the age and the answer of `teacher`, `(1 + outputs,)`."""
    # It sees each picture once, not augmented: to ask about every epoch's takes longer than to train a small network.
    rows = np.unique(faces.rows)
    told = predict(teacher, make_loader(FaceAgeDataset(faces.images, faces.ages, rows), 32), torch.Tensor.float)
    labels = pd.DataFrame(np.column_stack([faces.ages[rows], told]), rows).reindex(range(len(faces.ages)))
    return FaceAgeDataset(faces.images, labels.to_numpy(np.float32), faces.rows, faces.augment)


def settings_of(model, train_loader, **how) -> dict:
    """Return what a checkpoint notes: `how` a training is done (options of `fit`), on which faces and for which ages.

    `loss` is the `age_loss` of fixed outputs. Raises `ValueError` when nothing can be trained with a number of `how`.
    """
    how = {name: value.item() if hasattr(value, "item") else value for name, value in how.items()}
    for name, value in how.items():  # PyTorch would end in a traceback, or train nothing without a word
        if value is None and name in ("patience", "head_lr"):
            continue
        whole, below = name in ("epochs", "patience"), 1 if name == "decay" else np.inf
        fits = isinstance(value, int if whole else Real) and 0 <= value < below
        if not fits or value == 0 and name not in ("weight_decay", "decay"):
            wanted = "whole number above 0" if whole else "number above 0" + " and below 1" * (below == 1)
            raise ValueError(f"{name} is {value!r}: give a {wanted}.")
    how |= {"batch_size": int(train_loader.sampler.batch_size), "steps": how["epochs"] * len(train_loader)}
    how |= {"seed": train_loader.sampler.sampler.generator.initial_seed()} | checkpoints.names_of(train_loader.dataset)
    losses = [age_loss(torch.zeros(1, outputs), torch.tensor([30.0])).item() for outputs in (1, len(AGES))]
    return how | {"model": checkpoints.digest(repr(model).encode()), "loss": losses}


def fit(model, train, valid, epochs, folder, lr=1e-3, weight_decay=0.01, patience=None, decay=0.99, head_lr=None):
    """Train `model`; leave it with the weights of its best epoch and return the history, one row an epoch.

    Columns: `epoch, train_loss, valid_mae` (years), `lr, seconds`. `train`, `valid`: loaders. What is validated and
    kept is an exponential average of the weights over steps with `decay`. Stops after `patience` epochs without a
    better `valid_mae`. `head_lr`: another learning rate for `model.head`, where only that is new.
    `folder` gets `best.pt` (weights, `settings_of`), TensorBoard logs, and until the end `last.pt`, from which an
    interrupted training goes on to the same result; with other settings it begins anew and keeps what it finds.
    Under torchrun every process calls this: gradients and the history are those of all, the first one writes the files.
    Raises `ValueError` on faces or files that cannot be used, `FloatingPointError` on divergence.
    """
    folder, device, (rank, size) = Path(folder), best_device(), rank_and_size()
    _check_faces(train, valid, size)
    how = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "patience": patience, "decay": decay}
    settings = settings_of(model, train, **how, head_lr=head_lr)
    epochs, patience = settings["epochs"], settings["patience"]
    model.to(device, memory_format=torch.channels_last)
    network = _distributed(model, device) if size > 1 else model
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings["decay"]), use_buffers=True)
    optimiser, schedule = _one_cycle(model, settings)
    state = {"model": model, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    history = checkpoints.resume(folder / "last.pt", state, settings, train.sampler.sampler.generator)
    log = SummaryWriter(folder / "logs", purge_step=len(history) + 1) if rank == 0 else None  # hides former curves
    truth = np.concatenate([ages.numpy() for _, ages in valid])

    for epoch in range(len(history) + 1, epochs + 1):
        former = [row["valid_mae"] for row in history]
        if patience is not None and former and len(former) - 1 - np.argmin(former) >= patience:
            break  # asked here, so that a training resumed after its last epoch stops as well
        started = time.perf_counter()
        torch.manual_seed(hash((settings["seed"], epoch, rank)))  # a resumed one augments as an uninterrupted one
        trained = _train_epoch(network, averaged, train, optimiser, schedule, device, f"epoch {epoch}/{epochs}")
        if size > 1:  # each has normalised its own share of the batches; all validate what the first one saves
            for buffer in averaged.module.buffers():
                dist.broadcast(buffer, 0)
        answers = predict(averaged.module, valid)
        errors = np.abs(answers - truth)
        sums = torch.tensor([*trained, errors.sum(dtype=float), len(errors)], dtype=torch.float64)
        if size > 1:
            dist.all_reduce(sums)
        loss, steps, error, faces = sums.tolist()
        row = {"epoch": epoch, "train_loss": loss / steps, "valid_mae": error / faces, "lr": schedule.get_last_lr()[0]}
        if not np.isfinite([*row.values()]).all():
            raise FloatingPointError(f"The loss is not a number in epoch {epoch}: train with a smaller lr than {lr}.")
        if rank == 0 and answers.std() < 0.01 * truth.std():
            warnings.warn(ALL_ALIKE, stacklevel=2)
        history.append(row | {"seconds": time.perf_counter() - started})
        if rank > 0:
            continue
        for name in ("train_loss", "valid_mae", "lr"):
            log.add_scalar(name, row[name], epoch)
        if row["valid_mae"] < min(former, default=np.inf):
            best = {"model": averaged.module.state_dict(), "settings": settings, "epoch": epoch}
            checkpoints.save(folder / "best.pt", best)
        if epoch < epochs:  # after the last one there is nothing to go on with
            last = {"settings": settings, "history": history, "order": train.sampler.sampler.generator.get_state()}
            checkpoints.save(folder / "last.pt", last | {name: part.state_dict() for name, part in state.items()})

    if rank == 0:
        log.close()
        load_weights(model, folder / "best.pt")
    if size > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
    if rank == 0:  # only now, since until then the last epoch can be trained again
        (folder / "last.pt").unlink(missing_ok=True)
    return pd.DataFrame(history)


def _check_faces(train, valid, size):
    if not len(train) or len(valid.dataset) < size:
        which = "The training part has no picture, or the validation part fewer than one for each process"
        raise ValueError(f"{which}: check the labels table and the split.")
    for faces in (train.dataset, valid.dataset):
        ages = faces.ages[faces.rows].reshape(len(faces), -1)[:, 0]
        wrong = ages[~((ages >= AGES[0].item()) & (ages <= AGES[-1].item()))]  # NaN as well
        if len(wrong):
            known = f"an age of {wrong[0]:g}, and the networks know {AGES[0]:.0f} to {AGES[-1]:.0f} years"
            raise ValueError(f"{len(wrong)} of {len(faces)} faces have no usable age, e.g. {known}: leave them out.")


def _distributed(model, device):
    if device.type == "cuda":  # on CPUs each process normalises with its own share of the batch
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)  # no copies back


def _one_cycle(model, settings):
    # AdamW (Loshchilov and Hutter 2019), its rate rising and falling once over all steps (Smith 2018).
    rates, groups = [settings["lr"]], [{"params": model.parameters()}]
    if settings["head_lr"] is not None:
        body = [weights for name, weights in model.named_parameters() if not name.startswith("head.")]
        rates, groups = [*rates, settings["head_lr"]], [{"params": body}, {"params": model.head.parameters()}]
    optimiser = torch.optim.AdamW(groups, weight_decay=settings["weight_decay"], fused=True)
    steps = max(settings["steps"], 5)  # OneCycleLR divides by zero when a quarter of the steps is one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.25)
    return optimiser, schedule


def _train_epoch(model, averaged, loader, optimiser, schedule, device, title):
    model.train()
    total = 0.0
    if rank_and_size()[0] == 0:
        loader = tqdm(loader, desc=title, leave=False, mininterval=1)
    for batch, ages in loader:
        batch, ages = batch.to(device, memory_format=torch.channels_last), ages.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            loss = age_loss(model(batch), ages)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(model)
        total += loss.item()
    return total, len(loader)
