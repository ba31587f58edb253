"""How fast the processor is, and how much of it each stage uses."""

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from helpers import images, labels, models, paths, training
from helpers.datasets import FaceAgeDataset, make_loader, mild_augmentation

HERE = Path(__file__).parent
DEVICE = torch.device("cpu")
TORCHVISION = v2.Compose(  # what `mild_augmentation` does, for one picture after the other
    [v2.RandomHorizontalFlip(), v2.RandomCrop(128, padding=8, padding_mode="reflect"), v2.ColorJitter(0.2, 0.2)]
)
TOGETHER = {  # trained by two processes: a name of `RECIPES` in commands/train.py, pictures of both together
    "SimpleCNN": ("simple_cnn", 64),
    "SimpleCNN in batches of 512": ("simple_cnn", 512),  # eight times the computing for an exchange of weights
    "ResNet-18": ("resnet18", 64),
}
KEPT = dict(re.findall(r"^export (MALLOC_\w+) := (\d+)", (paths.ROOT / "Makefile").read_text(), re.MULTILINE))
MEMORY = 64 * 2**20  # float32 numbers: several times what the largest caches hold


def times(work, repeat=7):
    """Return the seconds of `repeat` calls of `work`, after one that is not counted."""
    work()
    measured = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        measured.append(time.perf_counter() - started)
    return np.array(measured)


def rates(which=np.median):
    """Return the rates at the median (or `which`) of the times: `{torch.bfloat16: FLOP/s, …}`, memory in bytes/s."""
    flops = {}
    for kind in (torch.bfloat16, torch.float32):
        one, other = torch.randn(2, 2048, 2048).to(kind)
        flops[kind] = 2 * 2048**3 / which(times(lambda one=one, other=other: one @ other, 9))
    source, target = torch.ones(2, MEMORY)  # zeros would all be one page of memory until they are written
    return flops, 3 * 4 * MEMORY / which(times(lambda: target.add_(source), 15))  # two are read, one is written


def trainer(model, batch_size, kind=torch.bfloat16, plain=False):
    """Return a function that trains `model` on one random batch in memory, one step a call, and the FLOP of a step.

    `plain`: without channels last, the fused optimiser, and ReLU after pooling.
    """
    memory = torch.contiguous_format if plain else torch.channels_last
    if plain:
        order = [at for block in range(0, 12, 3) for at in (block, block + 2, block + 1)]
        model = nn.Sequential(*[model.features[at] for at in order], model.head)
    model = model.to(memory_format=memory).train()
    batch = torch.randn(batch_size, 3, 128, 128).to(memory_format=memory)
    ages = torch.full((batch_size,), 35.0)
    optimiser = torch.optim.AdamW(model.parameters(), fused=not plain)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            loss = training.age_loss(model(batch), ages)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return step, counter.get_total_flops()


def networks(flops):
    """Return rows on the share of the matrix-product rate that a training step reaches, and on bfloat16."""
    rows = []
    makes = {
        "SimpleCNN": (models.SimpleCNN, 64),
        "SimpleCNN in batches of 16": (models.SimpleCNN, 16),  # as on the shipped faces; fits better into the caches
        "ResNet-18": (lambda: models.resnet(31, False)[0], 64),
    }
    for name, (make, batch_size) in makes.items():
        step, work = trainer(make(), batch_size)
        slow, _ = trainer(make(), batch_size, torch.float32)
        fast, plain = times(step), times(slow, 3)
        rows.append((f"{name}: share of the bfloat16 matrix-product rate", work / fast / flops[torch.bfloat16], ""))
        rows.append((f"{name}: float32 step against bfloat16 step", np.median(plain) / fast, ""))
        rows.append((f"{name}: step of {batch_size} pictures", fast, "s"))
    return rows


def given_back():
    """Return rows on a step of the SimpleCNN when the C library gives freed memory back, and on a plain loop's step.

    A process each, by turns, because memory that was once kept is not given back any more.
    """
    if platform.libc_ver()[0] != "glibc":
        return []
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    usual["PYTHONPATH"] = f"{HERE}{os.pathsep}{paths.ROOT}"
    variants = {"ours": (KEPT, False), "with memory given back": ({}, False), "of a plain loop": ({}, True)}
    seconds = {name: [] for name in variants}
    for _ in range(3):
        for name, (settings, plain) in variants.items():
            steps = f"print(*speed.times(speed.trainer(speed.models.SimpleCNN(), 32, plain={plain})[0]))"
            code = f"import speed, torch; torch.set_flush_denormal(True); {steps}"
            line = [sys.executable, "-c", code]
            ended = subprocess.run(line, env=usual | settings, stdout=subprocess.PIPE, text=True, check=True)
            seconds[name].append(np.median(np.array(ended.stdout.split(), float)))
    ours = np.array(seconds.pop("ours"))
    return [(f"SimpleCNN: step {name} against ours", np.array(taken) / ours, "") for name, taken in seconds.items()]


def faces(n=None):
    """Return the shipped faces, or every k-th so that they are `n`: the folder, the paths and the ages."""
    table = labels.read_labels(paths.ROOT / "data" / "labels.csv")
    table = table if n is None else table.iloc[np.linspace(0, len(table) - 1, n).round()]
    return paths.DEMO, table["path"].tolist(), table["age"].to_numpy()


def epochs():
    """Return rows on an epoch of the SimpleCNN from the cache against the same steps on a batch in memory."""
    root, names, ages = faces(640)
    prepared = images.prepare_all(root, names)
    model = models.SimpleCNN().to(memory_format=torch.channels_last)
    averaged, optimiser = AveragedModel(model), torch.optim.AdamW(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimiser)
    rows = []
    for workers in (0, 1):
        loader = make_loader(FaceAgeDataset(prepared, ages, augment=mild_augmentation), 32, True, workers=workers)
        memory, seconds = [next(iter(loader))] * len(loader), {"data": [], "memory": []}
        for _ in range(4):  # by turns, so that both meet the same disturbances
            for name, batches in (("data", loader), ("memory", memory)):
                started = time.perf_counter()
                training._train_epoch(model, averaged, batches, optimiser, schedule, DEVICE, "")
                seconds[name].append(time.perf_counter() - started)
        ratio = np.array(seconds["data"][1:]) / seconds["memory"][1:]
        kind = "loaded between the steps" if workers == 0 else "loaded by a process beside"
        rows.append((f"epoch on data against in memory, {kind}", ratio, ""))
        if workers == 0:
            train_epoch = np.median(seconds["memory"]) / len(ages)
            rows.append(("loading and augmenting a picture", 1e3 * times(lambda: list(loader)) / len(ages), "ms"))  # noqa: B023
    return rows, train_epoch  # of a picture


def published(image):
    """Return `image` cleaned as pipelines of the field do it: every picture denoised by non-local means, sharpened."""
    image = cv2.fastNlMeansDenoisingColored(images.resize(images.square(image)), None, 10, 10, 7, 21)
    return images.deblur(image)


def every_time(names, clean, augment):
    """Return the seconds a picture of one epoch that reads and cleans each picture when it is asked for."""
    started = time.perf_counter()
    for name in names:
        picture = clean(images.read_image(paths.DEMO / name))
        FaceAgeDataset(picture[None], [0], augment=augment)[0]
    return (time.perf_counter() - started) / len(names)


def cleaning(train_picture, epochs=10):
    """Return rows on ten epochs with the cache against cleaning every picture in every epoch, one after the other."""
    root, names, ages = faces()
    made, loaded, same, other = [], [], [], []
    version = images.VERSION
    for _ in range(3):
        images.VERSION += 1000  # another setting, so that the cache is made anew
        begun, started = time.time(), time.perf_counter()
        prepared = images.prepare_all(root, names)
        made.append((time.perf_counter() - started) / len(names))
        loader = make_loader(FaceAgeDataset(prepared, ages, augment=mild_augmentation), 32, True)
        started = time.perf_counter()
        for _ in range(epochs):
            for _ in loader:
                pass
        loaded.append((time.perf_counter() - started) / len(names))
        for file in (paths.run_dir() / "cache").glob("faces-*.npy"):
            if file.stat().st_mtime >= begun:  # only what this made
                file.unlink()
        same.append(epochs * every_time(names[::4], images.prepare, TORCHVISION))
        other.append(epochs * every_time(names[::40], published, TORCHVISION))
    images.VERSION = version
    once, same, other = np.array(made) + np.array(loaded), np.array(same), np.array(other)
    trained = epochs * train_picture
    return [
        ("ten epochs of pictures: our cleaning every time against once", same / once, ""),
        ("ten epochs of pictures: non-local means every time against once", other / once, ""),
        ("the same with the training: our cleaning", (same + trained) / (once + trained), ""),
        ("the same with the training: non-local means", (other + trained) / (once + trained), ""),
        ("preparing a picture for the cache", 1e3 * np.array(made), "ms"),
    ]


def processes():
    """Return rows on the speed-up of two processes over one, each with one thread: 2 would be ideal."""
    rows = []
    for name, what in TOGETHER.items():
        seconds = {count: shared(count, *what) for count in (1, 2)}
        share = np.median(seconds[1]) / seconds[2] / 2
        rows.append((f"two processes against one, {name}: share of the ideal speed-up", share, ""))
    return rows


def shared(count, name, batch_size):
    """Return the seconds of epochs of `count` processes that train network `name` together on random pictures."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT), "TQDM_DISABLE": "1"}
    line = [sys.executable, *torchrun, str(HERE / "share.py"), name, str(batch_size)]
    ended = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return np.array(ended.stdout.split(), float)[2:]  # until then the memory grows


def stages(prepared, ages):
    """Return, for the roofline, `name → (FLOP, bytes, seconds)` of the stages of a training step of the SimpleCNN."""
    batch_size, found = 32, {}
    model = models.SimpleCNN()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)] + [model.head[2]]
    sides = (128, 64, 32, 16, None)
    for i, (layer, side) in enumerate(zip(layers, sides)):
        shape = (batch_size, layer.in_channels, side, side) if side else (batch_size, layer.in_features)
        batch = torch.randn(shape).to(torch.bfloat16)
        batch = batch.to(memory_format=torch.channels_last) if side else batch
        batch.requires_grad_(i > 0)
        layer = layer.to(torch.bfloat16)
        gradient = torch.ones_like(layer(batch))

        def work(layer=layer, batch=batch, gradient=gradient):
            layer(batch).backward(gradient)

        with FlopCounterMode(display=False) as counter:
            work()
        passes = 3 if i > 0 else 2  # forward, gradient of the weights, gradient of the input
        moved = passes * 2 * (batch.numel() + gradient.numel() + layer.weight.numel())
        name = f"convolution {i + 1}" if side else "linear 16,384 → 512"
        found[name] = counter.get_total_flops(), moved, np.median(times(work))
    weights = nn.Parameter(torch.randn(8_778_049))
    weights.grad = torch.randn_like(weights)
    optimiser = torch.optim.AdamW([weights], fused=True)
    # A weight, its gradient and two moments are read, three of them written; about 12 operations.
    found["AdamW"] = 12 * weights.numel(), 7 * 4 * weights.numel(), np.median(times(optimiser.step))
    data = FaceAgeDataset(prepared, ages, augment=mild_augmentation)
    rows, pixels = list(range(batch_size)), batch_size * 3 * 128 * 128
    # A byte is read and written as it is moved, relit and normalised, to four bytes; about 4 operations.
    found["load and augment"] = 4 * pixels, 10 * pixels, np.median(times(lambda: data[rows]))
    return found
