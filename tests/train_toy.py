"""A small training in a process of its own, which the tests kill: `python tests/train_toy.py FOLDER [options]`.

`--kill age_loss|last|best N [RANK]` ends the process with SIGKILL at the N-th loss (in the middle of a step) or the
N-th save of last.pt or best.pt (in the middle of a file); of the process RANK when there are several.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faces import toy

from helpers import models, training
from helpers.datasets import FaceAgeDataset, make_loader, mild_augmentation


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(where, call):
    """Let this process die in the middle of the `call`-th call of `where`."""
    calls, loss, save = [], training.age_loss, torch.save

    def count():
        calls.append(where)
        return len(calls) == call

    def dying_loss(output, ages):
        return die() if output.requires_grad and count() else loss(output, ages)  # and not one of `settings_of`

    def dying_save(content, path):
        save(content, path)
        if where == ("last" if "history" in content else "best") and count():
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    if where == "age_loss":
        training.age_loss = dying_loss
    else:
        torch.save = dying_save


parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--plain", action="store_true", help="no augmentation, no dropout, float32")
parser.add_argument("--norm", action="store_true", help="batch normalisation in front of the network")
parser.add_argument("--kill", nargs="+")
asked = parser.parse_args()

torch.set_num_threads(1)
if "LOCAL_RANK" in os.environ:
    dist.init_process_group("gloo")
if asked.kill and int(os.environ.get("RANK", 0)) == int((*asked.kill, 0)[2]):
    kill_at(asked.kill[0], int(asked.kill[1]))
if asked.plain:  # in bfloat16 the rounding of other sums grows within some epochs to half a year
    training.fast_bfloat16 = lambda device: False
training.setup(5)
images, ages = toy(48)
model = models.SimpleCNN(widths=(4, 4, 8, 8), hidden=16, dropout=0.0 if asked.plain else 0.2)
train = FaceAgeDataset(images, ages, augment=None if asked.plain else mild_augmentation)
loaders = make_loader(train, 8, train=True, seed=3), make_loader(FaceAgeDataset(images, ages), 10)
model = models.start_at(model, 35.0)
model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), model) if asked.norm else model
history = training.fit(model, *loaders, 4, asked.folder, lr=3e-3, decay=0.8)
asked.folder.mkdir(parents=True, exist_ok=True)  # of another machine than the first
torch.save({name: value.clone() for name, value in model.state_dict().items()}, asked.folder / "end.pt")
if training.rank_and_size()[0] == 0:
    history.drop(columns="seconds").to_csv(asked.folder / "history.csv", index=False)
if dist.is_initialized():
    dist.barrier()  # nobody leaves while another still listens, or a thread of gloo may abort that one
    dist.destroy_process_group()
