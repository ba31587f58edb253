"""One of the processes that train a network together, each with one thread: prints the seconds of a few steps.

`share.py NAME BATCH_SIZE`: a name of `RECIPES` in commands/train.py, pictures of all processes together.
"""

import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist

from commands.train import RECIPES
from helpers import training
from helpers.datasets import FaceAgeDataset, make_loader, mild_augmentation

name, batch_size = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
training.setup(0)
if "LOCAL_RANK" in os.environ:
    dist.init_process_group("gloo")
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (max(batch_size, 128), 128, 128, 3), dtype=np.uint8)
faces = FaceAgeDataset(images, rng.integers(20, 51, len(images)), augment=mild_augmentation)
loader = make_loader(faces, batch_size, train=True)
model = RECIPES[name][0](images).to(memory_format=torch.channels_last)
device = torch.device("cpu")
network = training._distributed(model, device) if training.rank_and_size()[1] > 1 else model  # as `fit` does
optimiser = torch.optim.AdamW(model.parameters(), fused=True)
schedule = torch.optim.lr_scheduler.ConstantLR(optimiser)
averaged = torch.optim.swa_utils.AveragedModel(model)
for _ in range(5):
    started = time.perf_counter()
    training._train_epoch(network, averaged, loader, optimiser, schedule, device, "")
    if training.rank_and_size()[0] == 0:
        print(time.perf_counter() - started, flush=True)
