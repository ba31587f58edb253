"""One training loop for every model: one-cycle AdamW, bfloat16 where it is fast, averaged weights, best checkpoint."""

import random
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .models import AGES, to_years
from .paths import atomic


def seed_everything(seed: int):
    """Seed Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still draw from it
    torch.manual_seed(seed)


def best_device() -> torch.device:
    """CUDA, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fast_bfloat16(device) -> bool:
    """Whether `device` has arithmetic for bfloat16; without it autocast is slower than float32, not faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))


def age_loss(output, ages, spread=2.0):
    """Return the loss of `output` `(B, 1)` or `(B, len(AGES))` against `ages` in years `(B,)`.

    One output: the mean absolute error. A distribution: cross-entropy to a normal distribution of `spread` years
    around the age, plus the absolute error of its expectation (Gao et al. 2018, DLDL-v2).
    """
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
def predict(model, loader, flip=True):
    """Return the ages in years `(N,)` that `model` gives to the pictures of `loader`, in its order.

    `flip` averages the answer with that for the mirrored face, which costs a second pass.
    """
    device = next(model.parameters()).device
    model.eval()
    years = []
    for batch, _ in loader:
        batch = batch.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            views = [batch, batch.flip(3)] if flip else [batch]
            years.append(torch.stack([to_years(model(view)) for view in views]).mean(0).cpu())
    return torch.cat(years).numpy()


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
    teacher=None,
):
    """Train `model`; leave it with the weights of its best epoch and return the history, one row an epoch.

    Columns: `epoch, train_loss, valid_mae` (years, of the faces as they are, not mirrored: half the time), `lr,
    seconds`. The weights that are validated and kept are an exponential average over steps with `decay`. Stops after
    `patience` epochs without a better `valid_mae`.
    `folder` gets `best.pt` (weights), TensorBoard logs, and `last.pt` after every epoch, from which an interrupted
    training with the same settings goes on to the same result; a finished one removes it.
    `teacher`: a trained network with as many outputs, which the model learns from beside the labels (`distil_loss`).
    Raises `ValueError` when a loader has no batch or `last.pt` is damaged, `FloatingPointError` on divergence.
    """
    if not len(train_loader) or not len(valid_loader):
        raise ValueError("The training or validation part has no picture: check the labels table and the split.")
    lr, weight_decay, decay = float(lr), float(weight_decay), float(decay)  # a checkpoint holds no numbers of NumPy
    folder, device = Path(folder), best_device()
    model.to(device, memory_format=torch.channels_last)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    steps = epochs * len(train_loader)
    # OneCycleLR divides by zero when a quarter of the steps is one step.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=max(steps, 5), pct_start=0.25)
    state = {"model": model, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    settings = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "decay": decay, "steps": steps}
    settings["data"] = repr(train_loader.dataset)
    if teacher is not None:
        settings["teacher"] = True
        teacher.to(device, memory_format=torch.channels_last).eval()
    history = _resume(folder / "last.pt", state, settings, train_loader)
    if not history:  # the curves of a former training would be drawn over these
        shutil.rmtree(folder / "logs", ignore_errors=True)
    log = SummaryWriter(folder / "logs")

    for epoch in range(len(history) + 1, epochs + 1):
        if patience is not None and history and len(history) - _best(history) >= patience:
            break  # asked here, so that a training resumed after its last epoch stops as well
        started = time.perf_counter()
        title = f"epoch {epoch}/{epochs}"
        loss = _train_epoch(model, averaged, train_loader, optimiser, schedule, device, title, teacher)
        truth = np.concatenate([ages.numpy() for _, ages in valid_loader])
        mae = float(np.abs(predict(averaged.module, valid_loader, flip=False) - truth).mean())
        if not np.isfinite([loss, mae]).all():
            raise FloatingPointError(f"The loss is not a number in epoch {epoch}: train with a smaller lr than {lr}.")
        row = {"epoch": epoch, "train_loss": loss, "valid_mae": mae, "lr": schedule.get_last_lr()[0]}
        history.append(row | {"seconds": time.perf_counter() - started})
        for name in ("train_loss", "valid_mae", "lr"):
            log.add_scalar(name, row[name], epoch)
        if _best(history) == epoch:
            _save(folder / "best.pt", {"model": averaged.module.state_dict(), "settings": settings, "epoch": epoch})
        _save(folder / "last.pt", _snapshot(state, settings, history, train_loader))

    log.close()
    (folder / "last.pt").unlink(missing_ok=True)
    load_weights(model, folder / "best.pt")
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


def _train_epoch(model, averaged, loader, optimiser, schedule, device, title, teacher=None):
    model.train()
    total = 0.0
    for batch, ages in tqdm(loader, desc=title, leave=False, mininterval=1):
        batch, ages = batch.to(device, memory_format=torch.channels_last), ages.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            output = model(batch)
            loss = age_loss(output, ages)
            if teacher is not None:
                with torch.no_grad():
                    told = teacher(batch)
                loss = loss + distil_loss(output, told)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(model)
        total += loss.item()
    return total / len(loader)


def _best(history):
    return min(history, key=lambda row: row["valid_mae"])["epoch"]


def _snapshot(state, settings, history, loader):
    saved = {name: part.state_dict() for name, part in state.items()}
    randomness = {"torch": torch.get_rng_state(), "loader": loader.generator.get_state()}
    randomness["cuda"] = torch.cuda.get_rng_state_all()  # dropout draws there; empty without CUDA
    return saved | {"settings": settings, "history": history, "random": randomness}


def _resume(path, state, settings, loader):
    if not path.exists():
        return []
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["settings"] != settings:
            return []  # another training: begin anew
        for name, part in state.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["random"]["torch"])
        torch.cuda.set_rng_state_all(saved["random"]["cuda"][: torch.cuda.device_count()])
        loader.generator.set_state(saved["random"]["loader"])
    except Exception as error:
        raise ValueError(f"{path} is damaged or of another model: delete it to train anew.") from error
    return saved["history"]


def _save(path, content):
    with atomic(path) as temporary:
        torch.save(content, temporary)
