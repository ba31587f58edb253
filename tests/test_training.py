"""The loop learns, keeps the best, and goes on after an interruption as if there had been none."""

import io
import os
import platform
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from faces import one_sentence, toy
from PIL import Image
from torchvision.transforms import v2

from helpers import checkpoints, models, paths, training
from helpers.datasets import FaceAgeDataset, make_loader, mild_augmentation

# Limits of trained numbers: at least five standard deviations above the mean over seeds and kinds of processor, as
# `python tests/bench/margins.py` measures them.
FEW_STEPS, OVERFITTED, TAUGHT = 0.7, 1.5, 0.9


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are too small to share; on a busy machine the threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(seed=0, outputs=1, dropout=0.2):
    torch.manual_seed(seed)
    model = models.SimpleCNN(output_nodes=outputs, widths=(4, 4, 8, 8), hidden=16, dropout=dropout)
    return models.start_at(model, 35.0)


def loaders(n=16, augment=None, workers=0):
    images, ages = toy(n)
    train = FaceAgeDataset(images, ages, augment=augment)
    return make_loader(train, 4, train=True, seed=3, workers=workers), make_loader(FaceAgeDataset(images, ages), 8)


class Interrupted:
    """A loader that is stopped while it hands out batch `at` of its pass number `epoch`."""

    def __init__(self, loader, epoch, at):
        self.loader, self.epoch, self.at, self.passes = loader, epoch, at, 0
        self.dataset, self.sampler = loader.dataset, loader.sampler

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        self.passes += 1
        for i, batch in enumerate(self.loader):
            if self.passes == self.epoch and i == self.at:
                raise KeyboardInterrupt
            yield batch


def script(monkeypatch, errors):
    """Let the n-th validation of `fit` miss every age by `errors[n]` years."""
    truth, left = toy(16)[1].astype(np.float32), iter(errors)
    monkeypatch.setattr(training, "predict", lambda *_, **__: truth + next(left))


def equal(one, other):
    return all(torch.equal(a, other[name]) for name, a in one.items())


def files(folder):
    return sorted(p.name for p in folder.iterdir())


# The loss


def test_age_loss_of_one_output_is_the_mean_absolute_error():
    loss = training.age_loss(torch.tensor([[30.0], [41.0]]), torch.tensor([33.0, 40.0]))
    assert loss.item() == pytest.approx(2.0)


def test_age_loss_of_a_distribution_is_least_at_the_age():
    ages = torch.tensor([25.0, 40.0])
    right = -((models.AGES - ages[:, None]) ** 2) / 8  # the target itself, spread 2
    at = training.age_loss(right, ages)
    entropy = torch.distributions.Categorical(logits=right).entropy().mean()
    assert at.item() == pytest.approx(entropy.item() + (models.to_years(right) - ages).abs().mean().item(), abs=1e-4)
    for wrong in (right.roll(3, 1), torch.zeros_like(right), right.flip(1)):
        assert training.age_loss(wrong, ages) > at


def test_age_loss_has_finite_gradients_at_the_extremes():
    output = torch.tensor([[1e4] + [-1e4] * 30], requires_grad=True)
    training.age_loss(output, torch.tensor([50.0])).backward()
    assert output.grad.isfinite().all()


# Learning


def few_steps(folder, outputs, seed=0):
    """Train a few steps; return the history, and the last error as a share of the median's."""
    images, ages = toy(32)
    torch.manual_seed(seed)
    model = models.SimpleCNN(output_nodes=outputs, widths=(16, 32, 64, 128), hidden=64)
    models.start_at(model, float(ages.mean()))
    train = make_loader(FaceAgeDataset(images, ages), 8, train=True)
    valid = make_loader(FaceAgeDataset(images, ages), 16)
    history = training.fit(model, train, valid, 5, folder, lr=2e-3, decay=0.5)
    median = np.abs(ages - np.median(ages)).mean()
    return history, np.abs(training.predict(model, valid) - ages).mean() / median


@pytest.mark.parametrize("outputs", [1, 31])
def test_a_few_steps_lower_the_loss(tmp_path, outputs):
    history, of_median = few_steps(tmp_path, outputs)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert list(history) == ["epoch", "train_loss", "valid_mae", "lr", "seconds"]
    assert of_median < FEW_STEPS


def overfitted(folder, seed=0):
    """Learn four pictures of noise by heart; return the last and the first training error, in years."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)  # noise: only memory tells the ages
    data = FaceAgeDataset(images, [22, 47, 35, 28])
    torch.manual_seed(seed)
    model = models.start_at(models.SimpleCNN(widths=(8, 16, 16, 32), hidden=64), 33.0)
    history = training.fit(model, make_loader(data, 4, True), make_loader(data, 4), 60, folder, 3e-3, 0.0, decay=0.5)
    return history["train_loss"].iloc[-5:].mean(), history["train_loss"].iloc[0]


def test_one_batch_can_be_overfitted(tmp_path):
    last, first = overfitted(tmp_path)
    assert first > 5 and last < OVERFITTED


def test_predict_keeps_the_order_and_leaves_the_model_in_eval():
    images, ages = toy(10)
    loader = make_loader(FaceAgeDataset(images, ages), 4)
    model = small(dropout=0.5).train()
    years = training.predict(model, loader)
    assert years.shape == (10,) and years.dtype == np.float32 and not model.training
    with torch.no_grad():
        one_by_one = [models.to_years(model(image[None])).item() for image, _ in loader.dataset]
    assert np.abs(years - one_by_one).max() < 0.25  # bfloat16 where it is fast


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only oneDNN on x86-64 can be told to leave bfloat16 out")
def test_bfloat16_is_left_out_where_it_is_slow():
    """A processor without its arithmetic calculates with it all the same, four times as slowly (measured)."""
    code = "import torch; from helpers.training import fast_bfloat16; print(fast_bfloat16(torch.device('cpu')))"
    for kind in ("AVX2", "AVX512_CORE_VNNI"):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": kind}
        ended = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, env=environment, stdout=subprocess.PIPE)
        assert ended.stdout == b"False\n"


def test_what_is_fast_is_measured_once_and_before_no_gradient_is_wanted(monkeypatch):
    training.fast_bfloat16.cache_clear()
    with torch.no_grad():
        first = training.fast_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(training.F, "conv2d", None)  # a second measurement would fail
    assert training.fast_bfloat16(torch.device("cpu")) is first


def test_what_is_fast_is_measured_without_a_random_number():
    training.fast_bfloat16.cache_clear()
    before = torch.get_rng_state()
    training.fast_bfloat16(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_everything_repeats_the_draws():
    def draws():
        return torch.rand(2).tolist(), np.random.rand(2).tolist()  # noqa: NPY002

    training.seed_everything(1)
    first = draws()
    assert draws() != first
    training.seed_everything(1)
    assert draws() == first


def test_setup_seeds_and_lets_tiny_numbers_count_as_zero():
    code = (
        "import torch; from helpers import training; tiny = lambda: (torch.tensor([1e-38]) / 100).item() > 0\n"
        "before = tiny(); training.setup(3); print(before, tiny(), torch.initial_seed())"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, stdout=subprocess.PIPE, text=True)
    assert ended.stdout.split() == ["True", "False", "3"]  # and the import alone changes nothing


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep memory")
def test_with_the_makefiles_variables_freed_memory_is_kept_for_the_next_tensors():
    variables = re.findall(r"^export (MALLOC_\w+) := (\d+)", (paths.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(variables) == 2
    code = (
        "import resource, torch\nfaults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for step in range(20):\n    torch.ones(2**24); at = faults() if step == 9 else at if step > 9 else 0\n"
        "print(faults() - at)"
    )  # 64 MB in 16,384 pages, freed at once
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, check=True).stdout)
        for env in (plain, plain | dict(variables))
    )
    assert kept < 16_384 < given_back


# Checkpoints


def test_the_best_epoch_is_kept(tmp_path, monkeypatch):
    script(monkeypatch, [5.0, 3.0, 4.0, 3.5])
    model, kept = small(), []
    save = checkpoints.save

    def spy(path, content):
        kept.append((path.name, content["epoch"] if path.name == "best.pt" else len(content["history"])))
        save(path, content)

    monkeypatch.setattr(checkpoints, "save", spy)
    history = training.fit(model, *loaders(), 4, tmp_path)
    assert history["valid_mae"].tolist() == pytest.approx([5.0, 3.0, 4.0, 3.5], abs=1e-5)
    assert [k for k in kept if k[0] == "best.pt"] == [("best.pt", 1), ("best.pt", 2)]
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["epoch"] == 2 and equal(best["model"], model.state_dict())
    assert files(tmp_path) == ["best.pt", "logs"]  # nothing temporary, and no last.pt of a finished training


def test_training_stops_early(tmp_path, monkeypatch):
    script(monkeypatch, [5.0, 3.0, 4.0, 3.0, 2.0])
    history = training.fit(small(), *loaders(), 9, tmp_path, patience=2)
    assert history["epoch"].tolist() == [1, 2, 3, 4]


def test_numbers_of_numpy_are_taken_and_go_on(tmp_path):
    best = pd.Series({"lr": 1e-3, "weight_decay": 0.01, "decay": 0.9, "head_lr": 2e-3})  # as a search hands them over
    how = {name: best[name] for name in best.index} | {"patience": np.int64(3)}
    train, valid = loaders()
    with pytest.raises(KeyboardInterrupt):
        training.fit(small(), Interrupted(train, 2, 1), valid, np.int64(3), tmp_path, **how)
    history = training.fit(small(), *loaders(), 3, tmp_path, **{name: value.item() for name, value in how.items()})
    assert history["epoch"].tolist() == [1, 2, 3]
    assert files(tmp_path) == ["best.pt", "logs"]  # the same settings: nothing was put aside
    training.load_weights(small(), tmp_path / "best.pt")


def test_the_head_can_learn_faster_than_the_rest(tmp_path):
    model, before = small(), small().state_dict()
    training.fit(model, *loaders(), 2, tmp_path, lr=1e-9, weight_decay=0.0, head_lr=1e-2, decay=0.0)
    moved = {name: (value - before[name]).abs().max() for name, value in model.state_dict().items()}
    assert all((change > 1e-4) == name.startswith("head.") for name, change in moved.items())


@pytest.mark.parametrize("epochs, n", [(1, 4), (1, 16), (2, 8), (4, 4), (3, 4)])
def test_the_shortest_trainings(tmp_path, epochs, n):
    assert len(training.fit(small(), *loaders(n), epochs, tmp_path)) == epochs


AUGMENT = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.2)])


@pytest.mark.parametrize("epoch, at, workers", [(1, 2, 0), (2, 0, 0), (3, 1, 0), (3, 3, 0), (1, 1, 2), (3, 1, 2)])
def test_resuming_gives_what_an_uninterrupted_training_gives(tmp_path, epoch, at, workers, capsys):
    training.seed_everything(5)
    model = small()
    how = {"decay": 0.8, "head_lr": 3e-3}
    whole = training.fit(model, *loaders(augment=AUGMENT, workers=workers), 4, tmp_path / "whole", **how)

    training.seed_everything(5)
    train, valid = loaders(augment=AUGMENT, workers=workers)
    with pytest.raises(KeyboardInterrupt):
        training.fit(small(), Interrupted(train, epoch, at), valid, 4, tmp_path / "cut", **how)
    assert set(files(tmp_path / "cut")) <= {"best.pt", "last.pt", "logs"}
    if epoch > 1:  # a new process: other weights, other random state, until the checkpoint is read
        training.seed_everything(99)
        again = small(seed=7)
    else:  # nothing was saved yet: the notebook begins anew
        training.seed_everything(5)
        again = small()
    workers = workers and workers + 1  # another number of them changes nothing
    resumed = training.fit(again, *loaders(augment=AUGMENT, workers=workers), 4, tmp_path / "cut", **how)
    assert (f"Goes on after epoch {epoch - 1}" in capsys.readouterr().out) == (epoch > 1)

    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), whole.drop(columns="seconds"), check_exact=True)
    assert equal(again.state_dict(), model.state_dict())
    assert files(tmp_path / "cut") == ["best.pt", "logs"]


def test_a_training_cut_after_its_last_epoch_does_not_train_on(tmp_path, monkeypatch):
    script(monkeypatch, [3.0, 4.0, 5.0, 1.0])
    monkeypatch.setattr(training, "load_weights", lambda *_: pytest.fail("cut"))
    last = {}
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda path, content: (save(path, content), last.update({path: content})))
    with pytest.raises(pytest.fail.Exception):
        training.fit(small(), *loaders(), 9, tmp_path, patience=2)
    save(tmp_path / "last.pt", last[tmp_path / "last.pt"])  # as if it was killed before it could tidy up
    monkeypatch.undo()
    history = training.fit(small(), *loaders(), 9, tmp_path, patience=2)
    assert history["epoch"].tolist() == [1, 2, 3]


def a_picture(_):
    file = io.BytesIO()
    Image.fromarray(toy(1)[0][0]).save(file, "png")
    return file.getvalue()


class Harmful:
    def __reduce__(self):
        return os.abort, ()


def a_pickle_with_code(_):
    file = io.BytesIO()
    torch.save({"model": Harmful()}, file)
    return file.getvalue()


def without_weights(_):
    file = io.BytesIO()
    torch.save([1, 2], file)
    return file.getvalue()


DAMAGES = [lambda b: b[:-200], lambda b: b"", lambda b: b"hello" * 9, a_picture, a_pickle_with_code, without_weights]


def cut(folder):
    """Leave a `last.pt` of one epoch in `folder`."""
    train, valid = loaders()
    with pytest.raises(KeyboardInterrupt):
        training.fit(small(), Interrupted(train, 2, 1), valid, 4, folder)
    return folder / "last.pt"


def test_other_settings_begin_anew_and_lose_nothing(tmp_path, capsys):
    cut(tmp_path)
    former = {name: (tmp_path / f"{name}.pt").read_bytes() for name in ("last", "best")}
    history = training.fit(small(), *loaders(), 2, tmp_path)
    told = capsys.readouterr().out
    assert "of a training with other epochs, steps. This one begins anew" in told and "former_best.pt" in told
    assert all((tmp_path / f"former_{name}.pt").read_bytes() == content for name, content in former.items())
    assert "former2_best.pt" in checkpoints.put_aside(tmp_path)  # a third training does not replace what the first left
    assert (tmp_path / "former_best.pt").read_bytes() == former["best"] and (tmp_path / "former2_best.pt").exists()
    training_alone = training.fit(small(), *loaders(), 2, tmp_path / "alone")
    assert history["train_loss"].tolist() == training_alone["train_loss"].tolist()


def test_other_faces_begin_anew(tmp_path):
    cut(tmp_path)
    train, valid = loaders()
    train.dataset.ages = train.dataset.ages[::-1].copy()
    history = training.fit(small(), train, valid, 4, tmp_path)
    train.sampler.sampler.generator.manual_seed(3)
    alone = training.fit(small(), train, valid, 4, tmp_path / "alone")
    assert len(history) == 4
    assert history["train_loss"].tolist() == alone["train_loss"].tolist()


def test_checkpoints_need_no_code_to_be_loaded(tmp_path):
    saved = torch.load(cut(tmp_path), weights_only=True)
    assert {"model", "averaged", "optimiser", "schedule", "settings", "history", "order"} == set(saved)
    assert len(saved["history"]) == 1 and saved["settings"]["lr"] == 1e-3
    assert torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_pt_is_named(tmp_path, damage):
    path = cut(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError) as error:
        training.fit(small(), *loaders(), 4, tmp_path)
    one_sentence(error.value, path, "delete it to train anew")


def other_loss(output, ages):
    return ((models.to_years(output) - ages) ** 2).mean()


@pytest.mark.parametrize("other", ["model", "dropout", "seed", "loss", "ages", "augment", "teacher"])
def test_a_training_of_another_kind_is_not_gone_on_with(tmp_path, monkeypatch, capsys, other):
    cut(tmp_path)
    model, (train, valid) = small(), loaders(augment=mild_augmentation if other == "augment" else None)
    if other in ("model", "dropout"):
        model = small(outputs=31) if other == "model" else small(dropout=0.3)
    if other == "seed":
        train = make_loader(train.dataset, 4, train=True, seed=4)
    if other == "loss":
        monkeypatch.setattr(training, "age_loss", other_loss)
    if other == "ages":
        monkeypatch.setattr(checkpoints, "AGES", models.AGES + 1)
    if other == "teacher":
        train = make_loader(training.with_teacher(train.dataset, small(seed=1)), 4, train=True, seed=3)
    former = (tmp_path / "best.pt").read_bytes()
    assert len(training.fit(model, train, valid, 4, tmp_path)) == 4
    told = "model" if other == "dropout" else other
    one_sentence(capsys.readouterr().out.strip(), f"of a training with other {told}. This one begins anew")
    assert (tmp_path / "former_best.pt").read_bytes() == former


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_best_pt_is_named(tmp_path, damage):
    cut(tmp_path)
    path = tmp_path / "best.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError) as error:
        training.load_weights(small(), path)
    one_sentence(error.value, path, "delete it and train again")


def test_weights_of_another_model_are_refused(tmp_path):
    cut(tmp_path)
    with pytest.raises(ValueError) as error:
        training.load_weights(small(outputs=31), tmp_path / "best.pt")
    one_sentence(error.value, "does not hold weights of this model")
    with pytest.raises(FileNotFoundError):
        training.load_weights(small(), tmp_path / "none.pt")


def test_weights_of_other_widths_are_refused(tmp_path):
    cut(tmp_path)
    with pytest.raises(ValueError) as error:
        training.load_weights(models.SimpleCNN(widths=(4, 4, 8, 16), hidden=16), tmp_path / "best.pt")
    one_sentence(error.value, tmp_path / "best.pt", "does not hold weights of this model")


def test_weights_of_other_ages_are_refused(tmp_path, monkeypatch):
    cut(tmp_path)
    monkeypatch.setattr(checkpoints, "AGES", models.AGES + 5)  # as many ages, each of them shifted
    with pytest.raises(ValueError) as error:
        training.load_weights(small(), tmp_path / "best.pt")
    one_sentence(error.value, tmp_path / "best.pt", "for ages from 20 to 50", "train it again")


def test_weights_say_on_which_faces_they_were_trained(tmp_path):
    cut(tmp_path)
    images, ages = toy(16)
    for same in (FaceAgeDataset(images, ages), FaceAgeDataset(images, ages, augment=mild_augmentation)):
        training.load_weights(small(), tmp_path / "best.pt", trained_on=same)
    older = ages + (np.arange(16) == 3)
    for other in (FaceAgeDataset(images, ages, np.arange(15)), FaceAgeDataset(images, older)):
        with pytest.raises(ValueError) as error:
            training.load_weights(small(), tmp_path / "best.pt", trained_on=other)
        one_sentence(error.value, tmp_path / "best.pt", "another split", "train it again")


def test_a_network_that_learnt_from_a_teacher_names_the_same_faces(tmp_path):
    train, valid = loaders()
    taught = make_loader(training.with_teacher(train.dataset, small(seed=1)), 16, train=True)
    training.fit(small(), taught, valid, 1, tmp_path)
    training.load_weights(small(), tmp_path / "best.pt", trained_on=train.dataset)


def test_weights_without_a_note_of_their_faces_are_refused_only_where_it_is_asked_for(tmp_path):
    torch.save({"model": small().state_dict()}, tmp_path / "best.pt")
    training.load_weights(small(), tmp_path / "best.pt")
    with pytest.raises(ValueError) as error:
        training.load_weights(small(), tmp_path / "best.pt", trained_on=loaders()[0].dataset)
    one_sentence(error.value, "another split")


# What cannot be trained


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_diverging_training_stops_and_names_the_learning_rate(tmp_path):
    with pytest.raises(FloatingPointError) as error:
        training.fit(small(), *loaders(), 3, tmp_path, lr=1e30)
    one_sentence(error.value, "epoch 1", "smaller lr", "1e+30")
    assert "best.pt" not in files(tmp_path) and "last.pt" not in files(tmp_path)


def test_a_nan_in_the_validation_stops_as_well(tmp_path, monkeypatch):
    script(monkeypatch, [3.0, float("nan")])
    with pytest.raises(FloatingPointError):
        training.fit(small(), *loaders(), 3, tmp_path)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"lr": 0.0}, "lr is 0.0: give a number above 0"),
        ({"lr": -1e-3}, "lr is -0.001"),
        ({"lr": "1e-3"}, "lr is '1e-3'"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": None}, "lr is None"),
        ({"head_lr": 0}, "head_lr is 0"),
        ({"epochs": 0}, "epochs is 0: give a whole number above 0"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"patience": 0}, "patience is 0: give a whole number above 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1: give a number above 0"),
        ({"decay": 1.0}, "decay is 1.0: give a number above 0 and below 1"),
    ],
)
def test_a_setting_with_which_nothing_can_be_trained_is_named(tmp_path, wrong, told):
    with pytest.raises(ValueError) as error:
        training.fit(small(), *loaders(), **{"epochs": 2, "folder": tmp_path} | wrong)
    one_sentence(error.value, told)
    assert not files(tmp_path)


@pytest.mark.parametrize("age", [float("nan"), 19.0, 75.0, -1.0, float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_an_age_that_no_network_knows_is_refused(tmp_path, which, age):
    images, ages = toy(8)
    ages[3] = age
    pair = list(loaders(8))
    pair[which] = make_loader(FaceAgeDataset(images, ages), 4, train=not which)
    with pytest.raises(ValueError) as error:
        training.fit(small(), *pair, 1, tmp_path)
    one_sentence(error.value, "1 of 8 faces have no usable age", f"an age of {age:g}", "20 to 50")
    pair[which] = make_loader(FaceAgeDataset(images, ages, [0, 1, 2, 4]), 4, train=not which)
    training.fit(small(), *pair, 1, tmp_path)  # one that is in no set does no harm


def test_a_batch_larger_than_the_set_is_the_whole_set(tmp_path):
    images, ages = toy(6)
    loader = make_loader(FaceAgeDataset(images, ages), 64, train=True)
    assert len(training.fit(small(), loader, loader, 2, tmp_path)) == 2


def test_answers_that_are_all_alike_are_told(tmp_path, monkeypatch, recwarn):
    training.fit(small(), *loaders(), 2, tmp_path / "apart", decay=0.5)
    assert not [one for one in recwarn if "same age" in str(one.message)]
    monkeypatch.setattr(training, "predict", lambda *_, **__: np.full(16, 34.5, np.float32))
    with pytest.warns(UserWarning, match="answers nearly the same age for every face.*smaller lr"):
        training.fit(small(), *loaders(), 1, tmp_path / "alike")


def test_where_all_faces_have_one_age_answers_may_be_alike(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(training, "predict", lambda *_, **__: np.full(8, 34.5, np.float32))
    loader = make_loader(FaceAgeDataset(toy(8)[0], np.full(8, 35)), 4, train=True)
    training.fit(small(), loader, make_loader(loader.dataset, 8), 1, tmp_path)
    assert not [one for one in recwarn if "same age" in str(one.message)]


def test_a_gpu_that_calculates_wrongly_is_left_alone(monkeypatch):
    right = training._batch_on("cpu")
    monkeypatch.setattr(training.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(training.torch.backends.mps, "is_available", lambda: True)
    for told, device in (
        (right, "mps"),
        (right * (1 + 1e-4), "mps"),
        (right.roll(1), "cpu"),
        (right * torch.nan, "cpu"),
    ):
        monkeypatch.setattr(training, "_batch_on", lambda where, told=told: told if where == "mps" else right)
        assert training.best_device().type == device
    assert right.abs().mean() > 0.1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_full_disk_keeps_the_former_file_and_gives_the_remedy(tmp_path, monkeypatch, error):
    cut(tmp_path)
    former = [(tmp_path / name).read_bytes() for name in ("best.pt", "last.pt")]

    def full(content, temporary):
        temporary.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError) as told:
        training.fit(small(), *loaders(), 4, tmp_path)
    one_sentence(told.value, tmp_path, ".pt cannot be written", "make room")
    assert [(tmp_path / name).read_bytes() for name in ("best.pt", "last.pt")] == former
    assert files(tmp_path) == ["best.pt", "last.pt", "logs"]
    monkeypatch.undo()
    assert len(training.fit(small(), *loaders(), 4, tmp_path)) == 4


@pytest.mark.parametrize("which", [0, 1])
def test_an_empty_part_is_refused(tmp_path, which):
    images, ages = toy(8)
    pair = list(loaders(8))
    pair[which] = make_loader(FaceAgeDataset(images, ages, rows=[]), 4)
    with pytest.raises(ValueError) as error:
        training.fit(small(), *pair, 1, tmp_path)
    one_sentence(error.value, "has no picture", "split")


# Distillation


def nearer_to_the_teacher(folder, outputs, seed=0):
    """Return how far a taught network is from its teacher, as a share of how far one trained alone is."""
    torch.manual_seed(7)
    teacher = models.start_at(models.SimpleCNN(output_nodes=outputs, widths=(4, 4, 8, 8), hidden=16), 28.0)
    train, valid = loaders(16)
    taught = make_loader(training.with_teacher(train.dataset, teacher), 16, train=True)
    told, apart = training.predict(teacher, valid), {}
    for name, batches in {"alone": train, "taught": taught}.items():
        model = small(seed, outputs, dropout=0.0)
        training.fit(model, batches, valid, 16, folder / name, lr=3e-3, decay=0.5)
        apart[name] = np.abs(training.predict(model, valid) - told).mean()
    assert not any(parameter.grad is not None for parameter in teacher.parameters())
    return apart["taught"] / apart["alone"]


@pytest.mark.parametrize("outputs", [1, 31])
def test_a_taught_model_comes_nearer_to_its_teacher(tmp_path, outputs):
    assert nearer_to_the_teacher(tmp_path, outputs) < TAUGHT


@pytest.mark.parametrize("outputs", [1, 31])
def test_a_teachers_answers_stand_beside_the_ages_of_its_part_only(outputs):
    images, ages = toy(12)
    teacher, part = small(outputs=outputs), FaceAgeDataset(images, ages, [7, 2, 5], mild_augmentation)
    taught = training.with_teacher(part, teacher)
    assert repr(taught) != repr(part)  # so that a training never goes on with another teacher
    assert taught.rows.tolist() == [7, 2, 5]
    assert taught.augment is part.augment
    labels = taught[[0, 1, 2]][1]
    assert labels.shape == (3, 1 + outputs)
    assert labels[:, 0].tolist() == [ages[i] for i in (7, 2, 5)]
    assert np.isnan(taught.ages[[0, 1, 3, 4]]).all()
    plain = FaceAgeDataset(images, ages, [7, 2, 5])[[0, 1, 2]][0]
    teacher.eval()
    with torch.no_grad():
        answers = teacher(plain)
    torch.testing.assert_close(labels[:, 1:], answers, rtol=0.02, atol=0.3)  # bfloat16 where that is fast
    loss = training.age_loss(answers, labels)
    alone, told = training.age_loss(answers, labels[:, 0]), training.distil_loss(answers, labels[:, 1:])
    torch.testing.assert_close(loss, alone + told)


def test_a_distillation_between_different_heads_is_refused():
    with pytest.raises(ValueError) as error:
        training.distil_loss(torch.zeros(4, 1), torch.zeros(4, 31))
    one_sentence(error.value, "31 outputs", "give both the same head")


def test_the_distillation_is_smallest_where_both_agree():
    torch.manual_seed(0)
    told = torch.randn(4, 31)
    least = training.distil_loss(told, told)
    assert all(training.distil_loss(told + torch.randn(4, 31), told) > least for _ in range(20))
    assert training.distil_loss(torch.tensor([[30.0], [40.0]]), torch.tensor([[31.0], [37.0]])) == 2
