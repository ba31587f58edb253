"""Trainings in processes of their own: killed at any moment, shared by several, and started with torchrun."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from faces import one_sentence, save, toy

from commands import train as cli
from helpers import datasets, models, paths, training

TOY = paths.ROOT / "tests" / "train_toy.py"


def start(*command, processes=0, root=paths.ROOT, **environment):
    """Run `command` with this Python, by torchrun when `processes` are given, and return what became of it."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)} | environment
    line = [sys.executable, *map(str, [*torchrun, *command])]
    return subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, timeout=900)


def well(*command, **how):
    ended = start(*command, **how)
    assert ended.returncode == 0, ended.stderr
    return ended


def history(folder):
    return pd.read_csv(folder / "history.csv")


def weights(folder):
    return torch.load(folder / "end.pt", weights_only=True)


def epochs_saved(folder):
    return len(torch.load(folder / "last.pt", weights_only=True)["history"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a training by one process, without anything random but the order."""
    folder = tmp_path_factory.mktemp("plain")
    well(TOY, folder, "--plain")
    return folder


# Killed


def test_killed_in_a_step_and_in_two_saves_it_ends_with_the_same_weights(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    well(TOY, whole)
    # In the middle of the eighth step, of six an epoch; of the next save of last.pt; of the next of best.pt.
    for kill, epochs in ((("age_loss", 8), 1), (("last", 1), 1), (("best", 2), 2)):
        assert start(TOY, cut, "--kill", *kill).returncode == -signal.SIGKILL
        assert epochs_saved(cut) == epochs
    well(TOY, cut)
    pd.testing.assert_frame_equal(history(cut), history(whole), check_exact=True)
    for name, value in weights(whole).items():
        assert torch.equal(weights(cut)[name], value), name
    assert not (cut / "last.pt").exists()


# Several processes

TOLERANCE = 0.01  # years; in float32 the same numbers are summed in another order, and nothing else differs


def alike(one, other):
    assert len(one) == len(other)
    for column in ("train_loss", "valid_mae"):
        assert np.abs(one[column] - other[column]).max() < TOLERANCE, column
    assert np.allclose(one["lr"], other["lr"])


def test_two_processes_give_the_metrics_of_one(tmp_path, plain):
    well(TOY, tmp_path, "--plain", processes=2)
    assert np.ptp(history(plain)["valid_mae"]) > 10 * TOLERANCE  # it has moved by far more than may differ
    alike(history(tmp_path), history(plain))
    best = torch.load(tmp_path / "best.pt", weights_only=True)["model"]
    assert all(torch.equal(value, best[name]) for name, value in weights(tmp_path).items())


def test_two_processes_validate_the_network_that_is_saved(tmp_path, monkeypatch):
    well(TOY, tmp_path, "--plain", "--norm", processes=2)
    monkeypatch.setattr(training, "fast_bfloat16", lambda device: False)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), models.SimpleCNN(widths=(4, 4, 8, 8), hidden=16))
    images, ages = toy(48)
    loader = datasets.make_loader(datasets.FaceAgeDataset(images, ages), 10)
    years = training.predict(training.load_weights(network, tmp_path / "best.pt"), loader)
    assert np.abs(years - ages).mean() == pytest.approx(history(tmp_path)["valid_mae"].min(), abs=1e-4)


def test_a_dead_process_ends_the_run_and_another_number_goes_on(tmp_path, plain):
    ended = start(TOY, tmp_path, "--plain", "--kill", "age_loss", 15, 1, processes=2)  # the second one, in epoch 3
    assert ended.returncode != 0
    assert re.search(r"rank\s*: 1 \(local_rank: 1\)", ended.stderr) and "Signal 9 (SIGKILL)" in ended.stderr
    assert epochs_saved(tmp_path) == 2
    well(TOY, tmp_path, "--plain")  # one process goes on
    alike(history(tmp_path), history(plain))


def on_two_machines(folders, *options):
    """Train together as two machines do, each with a torchrun and a folder of its own, and return how both ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    how = ["--nnodes", 2, "--nproc-per-node", 1, "--master-addr", "localhost", "--master-port", port]
    lines = [
        ("-m", "torch.distributed.run", *how, "--node-rank", number, TOY, folder, *options)
        for number, folder in enumerate(folders)
    ]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda line: start(*line), lines))


def test_two_machines_without_a_common_disk_go_on_when_one_has_died(tmp_path, plain):
    first, second = folders = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    ended = on_two_machines(folders, "--plain", "--kill", "age_loss", 15, 1)  # the second one, in epoch 3
    assert all(one.returncode != 0 for one in ended)
    assert any("Signal 9 (SIGKILL)" in one.stderr for one in ended)
    assert epochs_saved(first) == 2 and not any(second.iterdir())  # only the first machine writes
    ended = on_two_machines(folders, "--plain")
    for one in ended:
        assert one.returncode == 0, one.stderr
    alike(history(first), history(plain))
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A copy of the helpers and 40 photos with their split, so that nothing is written into this repository."""
    root, folder = tmp_path / "root", tmp_path / "my photos é"
    for package in ("helpers", "commands"):
        shutil.copytree(paths.ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    names = [save(folder / str(20 + i % 8) / f"{i}.png", i).relative_to(folder).as_posix() for i in range(40)]
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setenv("AGE_DATA", str(folder))
    table = pd.DataFrame({"path": names, "age": [20 + i % 8 for i in range(40)], "person": pd.NA})
    datasets.write_splits(table, np.array(["train"] * 32 + ["valid"] * 4 + ["test"] * 4))
    return root, folder


def test_the_command_trains_with_two_processes(photos):
    root, folder = photos
    train = ["-m", "commands.train", "--data", folder, "--epochs", 1, "--batch-size", 8]
    ended = well(*train, processes=2, root=root)
    assert re.search(r"^ *1 +\d+\.\d+ +\d+\.\d+", ended.stdout, re.MULTILINE)  # epoch, loss, error
    assert ended.stdout.count("Weights of epoch 1") == 1  # by the first process only
    assert (root / "runs" / "my_photos_é" / "torchrun" / "simple_cnn" / "best.pt").exists()


def test_a_second_training_keeps_what_the_first_has_left(photos, monkeypatch, capsys):
    def network(images):
        return models.SimpleCNN(widths=(4, 4, 8, 8), hidden=16, dropout=0.2)

    monkeypatch.setitem(cli.RECIPES, "simple_cnn", (network, None, 8, 1e-3, 0.1))
    folder = paths.run_dir() / "torchrun" / "simple_cnn"
    cli.main(["--epochs", "1"])
    first = (folder / "best.pt").read_bytes()
    assert "begins anew" not in capsys.readouterr().out
    cli.main(["--epochs", "2"])
    assert (folder / "former_best.pt").read_bytes() == first and (folder / "best.pt").read_bytes() != first
    assert "A former training has left its weights here. This one begins anew" in capsys.readouterr().out


@pytest.mark.parametrize("gpus, local", [(2, 1), (0, 1), (1, 1)])
def test_the_processes_talk_by_gpu_and_by_cpu(monkeypatch, gpus, local):
    asked = []
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(device))
    monkeypatch.setattr(cli.dist, "init_process_group", lambda *how: asked.append(*how))
    monkeypatch.setattr(cli.dist, "new_group", lambda **how: pytest.fail("enough"))
    if local >= gpus > 0:
        with pytest.raises(ValueError) as error:
            cli.join_the_others()
        return one_sentence(error.value, "There are 1 GPUs here", "--nproc-per-node 1")
    with pytest.raises(pytest.fail.Exception):
        cli.join_the_others()
    *device, backend = asked
    knows = dist.distributed_c10d.BackendConfig(backend).get_device_backend_map()
    assert knows["cpu"] == "gloo"  # on which `fit` adds
    assert device == ([] if gpus == 0 else [local]) and (gpus == 0 or knows["cuda"] == "nccl")


def test_only_the_first_process_of_a_machine_reads_the_photos(photos):
    root, folder = photos
    train = ["-m", "commands.train", "--data", folder, "--epochs", 1, "--batch-size", 8]
    counts = "import commands.train, helpers.images as i\nread = i.Path.read_bytes\n"
    (root / "counted.py").write_text(counts + READING)
    well(root / "counted.py", *train[2:], processes=2, root=root)
    assert sorted(int(file.read_text()) for file in root.glob("read_*")) == [0, 40]


READING = """
import os, pathlib
seen = []
i.Path.read_bytes = lambda path: (seen.append(path) if path.suffix == ".png" else None, read(path))[1]
commands.train.main()
pathlib.Path(__file__).with_name("read_" + os.environ["RANK"]).write_text(str(len(seen)))
"""


def test_the_command_names_what_is_missing_or_has_no_equal_shares(photos, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--data", str(photos[1].parent / "none")])
    assert f"{photos[1].parent / 'none'} does not exist" in capsys.readouterr().err
    assert not (paths.ROOT / "runs" / "none").exists()
    with pytest.raises(SystemExit):
        cli.main(["--data", str(photos[1]), "--epochs", "0"])
    assert "--epochs and --batch-size begin at 1" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError) as error:
        cli.main(["--data", str(photos[1] / "20")])
    one_sentence(error.value, "run notebook 03_stratified_split first")
    monkeypatch.setattr(datasets, "rank_and_size", lambda: (0, 2))
    with pytest.raises(ValueError) as error:
        cli.main(["--data", str(photos[1]), "--batch-size", "7"])
    one_sentence(error.value, "Batches of 7 have no 2 equal shares", "choose a multiple")


def notebook_training(lr=2e-3):
    """Train as a notebook does: the network of the recipe with numbers of its own. Return the folder."""
    images, faces = datasets.load_faces()
    ages, rows = faces["age"].to_numpy(), {part: np.flatnonzero(faces["part"] == part) for part in datasets.PARTS}
    make, augment, *_ = cli.RECIPES["simple_cnn"]
    train = datasets.FaceAgeDataset(images, ages, rows["train"], augment)
    valid = datasets.make_loader(datasets.FaceAgeDataset(images, ages, rows["valid"]), 128)
    training.seed_everything(5)
    model = models.start_at(make(images), ages[rows["train"]].mean(), train.sample())
    folder = paths.run_dir() / "simple_cnn"
    training.fit(model, datasets.make_loader(train, 8, True, seed=5), valid, 3, folder, lr, 0.03, patience=2, decay=0.8)
    return folder


def test_a_seed_trains_again_what_the_notebook_has_trained(photos, monkeypatch):
    def network(images):
        return models.SimpleCNN(widths=(4, 4, 8, 8), hidden=16, dropout=0.2)

    monkeypatch.setitem(cli.RECIPES, "simple_cnn", (network, datasets.mild_augmentation, 32, 1e-3, 0.1))
    with pytest.raises(FileNotFoundError) as error:
        cli.main(["--seed", "5"])
    one_sentence(error.value, "best.pt is not there yet", "run notebook 05_simple_cnn first")

    def best(folder):
        return torch.load(folder / "best.pt", weights_only=True)

    first, seeds = best(notebook_training()), paths.run_dir() / "seeds"
    for command in ("--seed 5", "--seed 6", "--seed 5 --augmentation none"):
        cli.main(command.split())
    same, other, plain = (best(seeds / f"simple_cnn_{name}") for name in ("5", "6", "5_none"))
    assert same["settings"] == first["settings"] == other["settings"] | {"seed": 5}
    assert all(torch.equal(value, same["model"][name]) for name, value in first["model"].items())
    assert not all(torch.equal(value, other["model"][name]) for name, value in first["model"].items())
    assert plain["settings"] == first["settings"] | {"augment": "None"}

    monkeypatch.setitem(cli.RECIPES, "simple_cnn", (network, datasets.strong_augmentation, 32, 1e-3, 0.1))
    with pytest.raises(ValueError) as error:
        cli.main(["--seed", "6"])
    one_sentence(error.value, "simple_cnn/best.pt", "run 05_simple_cnn again")


@pytest.mark.parametrize(
    "name, notebook, network",
    [
        ("simple_cnn", "05_simple_cnn", r"start_at\((models\.SimpleCNN\(.*?\)), ages\[rows"),
        ("resnet18", "06_resnet", r'"ResNet-18, from scratch": lambda: (.*?)}'),
    ],
)
def test_the_recipes_are_those_of_the_notebooks(name, notebook, network):
    cells = nbformat.read(paths.ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    known = {"models": models, "datasets": datasets, "n": len(models.AGES)}
    augment = "datasets.mild_augmentation"
    assert augment in code
    assert repr(cli.RECIPES[name][0](None)) == repr(eval(re.findall(network, code)[-1], known))
    assert repr(cli.RECIPES[name][1]) == repr(eval(augment, known))


def test_resnet18_is_trained_without_a_notebook(photos, monkeypatch):
    def network(images):
        return models.resnet(len(models.AGES), pretrained=False)[0]

    monkeypatch.setitem(cli.RECIPES, "resnet18", (network, None, 8, 1e-3, 0.05))
    cli.main(["--model", "resnet18", "--epochs", "1"])
    saved = torch.load(paths.run_dir() / "torchrun" / "resnet18" / "best.pt", weights_only=True)
    assert saved["settings"]["head_lr"] is None and saved["settings"]["lr"] == 1e-3


def test_the_face_resnet_is_fine_tuned_as_in_notebook_06():
    cells = nbformat.read(paths.ROOT / "notebooks" / "06_resnet.ipynb", as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    _, augment, _, lr, weight_decay = cli.RECIPES["face_resnet"]
    assert f'face_resnet: {{"epochs": 5, "lr": {lr:.1e}, "head_lr": {5e4 * lr:g}e-4}}'.replace("e-04", "e-4") in code
    assert f"weight_decay={weight_decay}" in code and repr(augment) == repr(datasets.mild_augmentation)


def test_an_interrupted_command_says_how_to_go_on(photos):
    root, folder = photos
    line = [sys.executable, "-m", "commands.train", "--data", str(folder), "--epochs", "1000", "--batch-size", "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    running = subprocess.Popen(line, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
    checkpoint = root / "runs" / "my_photos_é" / "torchrun" / "simple_cnn" / "last.pt"
    while not checkpoint.exists() and running.poll() is None:
        time.sleep(0.1)
    running.terminate()
    assert "The same command goes on after the last whole epoch" in running.communicate(timeout=600)[1]
    assert running.returncode == 1 and epochs_saved(checkpoint.parent) >= 1
