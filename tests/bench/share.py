"""One of the processes that train the SimpleCNN together, each with one thread: prints the seconds of a few steps."""

import os
import time

import numpy as np
import torch
import torch.distributed as dist

from helpers import models, training
from helpers.datasets import FaceAgeDataset, make_loader, mild_augmentation

torch.set_num_threads(1)
if "LOCAL_RANK" in os.environ:
    dist.init_process_group("gloo")
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (256, 128, 128, 3), dtype=np.uint8)
loader = make_loader(FaceAgeDataset(images, rng.integers(20, 51, 256), augment=mild_augmentation()), 64, train=True)
model, device = models.SimpleCNN().to(memory_format=torch.channels_last), torch.device("cpu")
network = training._distributed(model, device) if dist.is_initialized() else model
optimiser = torch.optim.AdamW(model.parameters(), fused=True)
schedule = torch.optim.lr_scheduler.ConstantLR(optimiser)
averaged = torch.optim.swa_utils.AveragedModel(model)
for _ in range(5):
    started = time.perf_counter()
    training._train_epoch(network, averaged, loader, optimiser, schedule, device, "")
    if training.rank_and_size()[0] == 0:
        print(time.perf_counter() - started, flush=True)
