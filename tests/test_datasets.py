"""The split keeps its promises for any ages and people; the loader hands out what it was given."""

import multiprocessing
import pickle
import random
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from faces import one_sentence, save, snapshot, toy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from helpers import datasets, images, labels, paths
from helpers.datasets import FaceAgeDataset, make_loader, merge_rare, split_groups

quick = settings(max_examples=30, deadline=None, derandomize=True)
some_ages = st.lists(st.integers(20, 50), min_size=1, max_size=200)


@st.composite
def people(draw):
    """Ages and people: 10 to 80 people with one to six pictures each."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=10, max_size=80))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    ages = rng.choice(rng.integers(20, 51, draw(st.integers(1, 31))), len(groups))
    return ages, groups


# The split


@quick
@given(people(), st.integers(0, 3))
def test_every_picture_is_in_one_part_and_nobody_is_on_two_sides(faces, seed):
    ages, groups = faces
    part = split_groups(ages, groups, seed)
    assert len(part) == len(ages) and set(part) == set(datasets.PARTS)
    assert pd.Series(part).groupby(groups).nunique().max() == 1
    assert (split_groups(ages, groups, seed) == part).all()
    largest = np.bincount(groups).max()
    for name, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):  # a person cannot be cut to fit
        assert abs((part == name).sum() - share * len(ages)) <= 2 * largest + 2
    renamed = np.array([f"person {g}" for g in groups])
    assert pd.Series(split_groups(ages, renamed, seed)).groupby(groups).nunique().max() == 1


def test_the_shares_and_the_ages_agree_on_a_large_set():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 800, 2000)
    ages = rng.choice(np.arange(20, 51), 2000, p=np.arange(31, 0, -1) / 496)
    part = split_groups(ages, groups)
    shares = pd.Series(part).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.01)
    assert shares["valid"] == pytest.approx(0.1, abs=0.01) and shares["test"] == pytest.approx(0.1, abs=0.01)
    for name in ("valid", "test"):
        for age in range(20, 28):  # the common ones
            assert (part[ages == age] == name).mean() == pytest.approx(0.1, abs=0.04)
    assert (split_groups(ages, groups, seed=1) != part).any()


def test_fewer_pictures_of_an_age_than_parts():
    ages = np.array([20] * 40 + [21] * 2 + [35] + [50] * 40)
    part = split_groups(ages, np.arange(len(ages)))
    assert set(part) == set(datasets.PARTS)
    assert [(part[ages == 20] == name).sum() for name in datasets.PARTS] == [32, 4, 4]


@pytest.mark.parametrize("n", [1, 2, 9])
def test_too_few_people_to_split(n):
    with pytest.raises(ValueError) as error:
        split_groups([20, 30] * 20, [i % n for i in range(40)])
    one_sentence(error.value, f"{n} people or groups", "at least 10")


@quick
@given(people(), st.integers(0, 3), st.booleans())
def test_the_sets_that_a_csv_brings_are_kept_and_only_what_it_lacks_is_drawn(faces, seed, both):
    ages, groups = faces
    rng = np.random.default_rng(seed)
    told = np.where(rng.random(len(ages)) < 0.2, " Test ", "train").astype(object)
    if both:
        told[rng.permutation(len(ages))[:6]] = ["validation", "Val", "valid"] * 2
    is_test, free = told == " Test ", told == "train"
    assume(is_test.sum() >= 4 and len(np.unique(groups[free])) >= 10)
    part = split_groups(ages, groups, seed, told)
    assert ((part == "test") == is_test).all()
    if both:
        assert ((part == "valid") == np.char.startswith(np.char.lower(told.astype(str)), "val")).all()
    else:  # drawn from train, whole people of it
        assert (part[free] == "valid").sum() > 0
        assert pd.Series(part[free]).groupby(groups[free]).nunique().max() == 1
        assert abs((part == "valid").sum() - 0.1 * free.sum()) <= 2 * np.bincount(groups[free]).max() + 2


@pytest.mark.parametrize(
    "told, says",
    [
        (["train"] * 39 + ["held out"], "'held out'"),
        (["train"] * 38 + [None, ""], "''"),
        (["train"] * 37 + ["test"] * 3, "fewer than 4"),
    ],
)
def test_a_csv_whose_sets_cannot_be_used_is_told_so(told, says):
    with pytest.raises(ValueError) as error:
        split_groups([20, 30] * 20, range(40), given=told)
    one_sentence(error.value, says)


def test_ten_pictures_are_enough():
    part = split_groups([20] * 5 + [30] * 5, range(10))
    assert sorted(part) == ["test"] + ["train"] * 8 + ["valid"]


@quick
@given(some_ages, st.integers(1, 12))
def test_rare_ages_join_their_neighbours(ages, least):
    assume(len(ages) >= least)
    classes = pd.Series(merge_rare(ages, least))
    assert len(classes) == len(ages)
    assert classes.value_counts().min() >= least
    table = pd.DataFrame({"age": ages, "of": classes}).drop_duplicates().sort_values("age")
    assert table["age"].is_unique  # an age lies in one class,
    assert table["of"].is_monotonic_increasing  # classes are ranges of ages,
    assert (table["of"] <= table["age"]).all() and set(table["of"]) <= set(ages)  # named by their lowest
    common = [age for age, count in pd.Series(ages).value_counts().items() if count >= least]
    assert len(set(classes)) >= len(common) / 2  # and no larger than they need to be


def test_merge_rare_by_hand():
    assert merge_rare([20] * 3 + [21] * 2 + [22] * 5 + [23], least=4).tolist() == [20] * 5 + [22] * 6
    assert merge_rare([20, 30], least=5).tolist() == [20, 20]
    assert merge_rare([50, 20, 20], least=1).tolist() == [50, 20, 20]


# From photos to the committed split


@pytest.fixture
def photos(monkeypatch, tmp_path):
    """A folder of 40 photos that `AGE_DATA` names, in a root of its own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path / "root")
    folder = tmp_path / "my photos é"
    for i in range(40):
        save(folder / str(20 + i % 4) / f"bild {i}.png", i)
    monkeypatch.setenv("AGE_DATA", str(folder))
    return folder


def test_photos_become_a_split_and_prepared_pictures(photos):
    before = snapshot(photos)
    with pytest.raises(FileNotFoundError) as error:
        datasets.load_faces()
    one_sentence(error.value, "run notebook 03_stratified_split first")
    found = labels.find_faces(photos)
    kept, _ = labels.set_aside(found, images.inspect(photos, found["path"]))
    part = split_groups(kept["age"], kept["path"])
    datasets.write_splits(kept, part)
    written = [(f.name, f.read_bytes()) for f in sorted((paths.run_dir() / "splits").iterdir())]
    assert [name for name, _ in written] == ["test.csv", "train.csv", "valid.csv"]

    array, faces = datasets.load_faces()
    assert array.shape == (40, 128, 128, 3)
    assert faces["path"].tolist() == kept["path"].tolist()  # the order in which notebook 03 has prepared them
    assert dict(zip(faces["path"], faces["part"])) == dict(zip(kept["path"], part))
    assert dict(zip(faces["path"], faces["age"])) == dict(zip(kept["path"], kept["age"]))
    assert (faces["person"] == faces["path"]).all()  # nobody is known, so everybody is somebody else
    for i in (0, 39):
        assert (array[i] == images.prepare(images.read_image(photos / faces["path"][i]))).all()

    datasets.write_splits(kept, part)  # the same bytes again, so that a frozen split shows no change
    assert [(f.name, f.read_bytes()) for f in sorted((paths.run_dir() / "splits").iterdir())] == written
    assert b"\r" not in written[0][1]
    assert snapshot(photos) == before


def test_who_is_unknown_is_told_and_replaced_by_what_the_faces_tell(photos):
    found = labels.find_faces(photos)
    kept, _ = labels.set_aside(found, images.inspect(photos, found["path"]))
    part = split_groups(kept["age"], kept["path"])
    assert "Nobody noted who is in 40 of 40 pictures. Each counts" in datasets.people_note(kept)
    datasets.write_splits(kept.assign(found_person=["found-0", "found-0"] + 38 * [pd.NA]), part)
    table = datasets.read_splits()
    assert "By their faces 2 of them" in datasets.people_note(table)
    _, faces = datasets.load_faces()
    assert faces["person"].tolist() == ["found-0", "found-0", *kept["path"][2:]]
    assert datasets.people_note(kept.assign(person="Ada")) == ""  # of the CSV, where everybody is known


def test_a_part_that_is_missing_is_named(photos):
    table = pd.DataFrame({"path": ["a", "b", "c"], "age": [20, 21, 22], "person": pd.NA})
    datasets.write_splits(table, np.array(["train", "valid", "test"]))
    (paths.tables_dir() / "splits" / "valid.csv").unlink()
    with pytest.raises(FileNotFoundError) as error:
        datasets.read_splits()
    one_sentence(error.value, "valid.csv is not there yet", "03_stratified_split")


# Items and batches


def test_an_item_is_normalised_and_its_age_is_in_years():
    pictures = np.zeros((3, 128, 128, 3), np.uint8)
    pictures[1, :, :, 0] = 255
    image, age = FaceAgeDataset(pictures, [20, 30, 40])[1]
    assert image.shape == (3, 128, 128) and image.dtype == torch.float32
    assert age.dtype == torch.float32 and age.item() == 30
    red, green, blue = image.mean((1, 2)).tolist()
    expected = ((1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225)
    assert (red, green, blue) == pytest.approx(expected, abs=1e-5)


def test_rows_choose_the_part_and_the_pictures_stay_as_they_are():
    pictures, ages = toy(10)
    copy = pictures.copy()
    data = FaceAgeDataset(pictures, ages, rows=[7, 2], augment=lambda image: image.fill_(0))
    assert len(data) == 2 and [data[i][1].item() for i in range(2)] == [ages[7], ages[2]]
    assert data[0][0].max() < 0 and (pictures == copy).all()  # an augmentation in place must not reach the source


def test_a_sample_is_spread_over_the_part_and_not_augmented():
    images, ages = toy(20)
    part = FaceAgeDataset(images, ages, np.arange(19, 8, -1), v2.RandomHorizontalFlip(p=1))
    wanted = FaceAgeDataset(images, ages, [19, 17, 14, 12, 9])[[0, 1, 2, 3, 4]][0]
    state = torch.get_rng_state()
    assert torch.equal(part.sample(5), wanted)
    assert torch.equal(torch.get_rng_state(), state)
    assert part.sample(40).shape == (40, 3, 128, 128)  # of few pictures some come twice


def test_a_mapped_file_goes_to_another_process_by_its_name(tmp_path):
    images, ages = toy(100)
    np.save(tmp_path / "faces.npy", images)
    mapped = np.load(tmp_path / "faces.npy", mmap_mode="r")
    packed = pickle.dumps(FaceAgeDataset(mapped, ages, rows=[3, 70]))
    assert len(packed) < 5_000 < images.nbytes
    for source in (mapped, mapped[10:], images):  # a slice of it is not the file
        dataset = FaceAgeDataset(source, ages[-len(source) :], rows=[3, 70])
        other = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(other[[0, 1]][0], dataset[[0, 1]][0])
        assert source is not mapped or repr(other) == repr(dataset)


def test_pictures_and_ages_must_be_as_many():
    with pytest.raises(ValueError) as error:
        FaceAgeDataset(*toy(4)[:1], [20, 30])
    one_sentence(error.value, "4 pictures but 2 ages", "same labels table")


@pytest.mark.parametrize(
    "augment", [datasets.mild_augmentation, partial(datasets.mild_augmentation, shift=4), datasets.strong_augmentation]
)
def test_augmentation_changes_pictures_but_not_their_form(augment):
    pictures, ages = toy(2)
    torch.manual_seed(0)
    plain, varied = FaceAgeDataset(pictures, ages)[0][0], FaceAgeDataset(pictures, ages, augment=augment)
    draws = torch.stack([varied[0][0] for _ in range(4)])
    assert draws.shape == (4, 3, 128, 128) and draws.dtype == torch.float32 and draws.isfinite().all()
    assert len({d.sum().item() for d in draws}) == 4 and not torch.equal(draws[0], plain)
    torch.manual_seed(0)
    assert torch.equal(draws[0], varied[0][0])


def test_a_batch_is_its_items():
    pictures, ages = toy(6)
    data = FaceAgeDataset(pictures, ages, rows=[5, 0, 3, 2])
    batch, years = data[[2, 0, 1]]
    assert batch.shape == (3, 3, 128, 128) and batch.dtype == years.dtype == torch.float32
    for i, item in enumerate((2, 0, 1)):
        assert torch.equal(batch[i], data[item][0]) and years[i] == data[item][1]


def test_to_input_is_what_torchvision_computes():
    levels = torch.arange(256, dtype=torch.uint8).repeat(3, 2).view(3, 2, 256)
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(datasets.MEAN, datasets.STD)])
    for one_or_many in (levels, torch.stack([levels, levels.flip(2)])):
        assert torch.allclose(datasets.to_input(one_or_many), reference(one_or_many), atol=1e-6)


# The augmentation of whole batches, against torchvision's for one picture after the other

REFERENCE = v2.Compose(
    [v2.RandomHorizontalFlip(), v2.RandomCrop(128, 8, padding_mode="reflect"), v2.ColorJitter(0.2, 0.2)]
)


def vary(picture, n, seed=0):
    """Return `n` mild variants of `picture` uint8 `(H, W, 3)`, made in one batch, and `n` by torchvision."""
    image = torch.from_numpy(picture).permute(2, 0, 1)
    torch.manual_seed(seed)
    mine = datasets.mild_augmentation(image.expand(n, -1, -1, -1))
    return mine, torch.stack([REFERENCE(image) for _ in range(n)])


def test_mild_shifts_are_uniform_and_half_is_mirrored():
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[60, 40] = 200  # mirrored it lies in column 87
    for variants in vary(picture, 800):
        row, column = np.divmod(variants[:, 0].flatten(1).argmax(1).numpy(), 128)
        mirrored = column > 64
        right = np.where(mirrored, 87 - column, column - 40)
        assert mirrored.mean() == pytest.approx(0.5, abs=0.07)
        for moved in (60 - row, right):
            values, counts = np.unique(moved, return_counts=True)
            assert values.tolist() == list(range(-8, 9))
            assert counts.min() > 20 and counts.max() < 75  # 47 expected, ± 4 standard deviations
        assert abs(np.corrcoef(row, right)[0, 1]) < 0.15 and abs(np.corrcoef(row, mirrored)[0, 1]) < 0.15


def test_mild_light_is_that_of_torchvision():
    flat, bars = np.full((128, 128, 3), 100, np.uint8), np.full((128, 128, 3), 60, np.uint8)
    bars[::2] = 140
    brightness = [variants[:, 0, 64, 64].double().numpy() for variants in vary(flat, 400)]
    spread = [(v[:, 0].amax((1, 2)).double() - v[:, 0].amin((1, 2))).numpy() for v in vary(bars, 400)]
    for values in brightness:  # contrast leaves an even picture as it is: 100 × 0.8 … 1.2
        assert 79 <= values.min() < 83 and 117 < values.max() <= 120
        assert values.mean() == pytest.approx(100, abs=2.5) and values.std() == pytest.approx(40 / 12**0.5, abs=1)
    for values in spread:  # 80 × brightness × contrast
        assert 80 * 0.64 - 2 <= values.min() < 80 * 0.72 and 80 * 1.3 < values.max() <= 80 * 1.44 + 2
        assert values.mean() == pytest.approx(80, abs=3)
    for mine, theirs in (brightness, spread):
        assert np.abs(np.quantile(mine, [0.1, 0.5, 0.9]) - np.quantile(theirs, [0.1, 0.5, 0.9])).max() < 6


def test_mild_borders_are_reflected_and_channels_stay_apart():
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(128), np.arange(128)[:, None]
    image = torch.from_numpy(picture).permute(2, 0, 1)
    torch.manual_seed(0)
    for variant in datasets.mild_augmentation(image.expand(20, -1, -1, -1), shift=0):  # nothing to reflect
        red, green, blue = variant.float()
        steps = red.diff(dim=1)
        assert (steps >= 0).all() or (steps <= 0).all()  # mirrored or not
        assert (green.diff(dim=0) >= 0).all() and (green == green[:, :1]).all() and blue.max() == blue.min()
    mine, reference = vary(picture, 200)
    for variants in (mine, reference):
        rows = variants[:, 1, :, 0].float().diff(dim=1).sign()  # it falls where it is reflected
        assert ((rows < 0).sum(1) <= 8).all() and ((rows < 0).sum(1) > 0).any()


def test_pictures_of_a_batch_differ_and_a_seed_repeats_them():
    image = torch.from_numpy(toy(1)[0][0]).permute(2, 0, 1)
    batch, augment = image.expand(8, -1, -1, -1), datasets.mild_augmentation
    torch.manual_seed(3)
    first, second = augment(batch), augment(batch)
    assert len({variant.numpy().tobytes() for variant in torch.cat([first, second])}) == 16
    torch.manual_seed(3)
    assert torch.equal(augment(batch), first)
    assert augment(image).shape == image.shape and augment(image).dtype == torch.uint8
    assert (batch == image).all()
    data = FaceAgeDataset(*toy(4), augment=augment)
    assert repr(data).endswith("augment=mild_augmentation)")  # without an address: checkpoints are compared by it


@pytest.mark.parametrize("augment", [datasets.mild_augmentation, datasets.strong_augmentation, REFERENCE])
def test_every_picture_of_a_loaded_batch_is_changed_in_its_own_way(augment):
    pictures = np.repeat(toy(1, seed=2)[0], 6, axis=0)
    copy = pictures.copy()
    torch.manual_seed(0)
    loader = make_loader(FaceAgeDataset(pictures, [30] * 6, augment=augment), 6, train=True)
    batch, _ = next(iter(loader))
    assert len({image.numpy().tobytes() for image in batch}) == 6 and (pictures == copy).all()


def seen(loader):
    return [ages.tolist() for _, ages in loader]


def test_the_loader_keeps_the_order_of_a_test_part_and_shuffles_training():
    pictures = np.zeros((10, 128, 128, 3), np.uint8)
    data = FaceAgeDataset(pictures, np.arange(20, 30))
    assert seen(make_loader(data, 4)) == [[20, 21, 22, 23], [24, 25, 26, 27], [28, 29]]
    loader = make_loader(data, 4, train=True, seed=1)
    first, second = seen(loader), seen(loader)
    assert [len(b) for b in first] == [4, 4] and first != second
    assert seen(make_loader(data, 4, train=True, seed=1)) == first
    assert seen(make_loader(data, 4, train=True, seed=2)) != first
    assert [len(b) for b in seen(make_loader(data, 64, train=True))] == [10]  # fewer than a batch is a batch


def test_workers_of_several_processes_augment_each_in_their_own_way(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    data, met = FaceAgeDataset(images, np.full(8, 30), augment=datasets.mild_augmentation), {}
    for rank in (0, 1):
        monkeypatch.setattr(datasets, "rank_and_size", lambda rank=rank: (rank, 1))
        met[rank] = next(iter(make_loader(data, 8, train=True, workers=1)))[0]
    assert not torch.equal(met[0], met[1])
    monkeypatch.setattr(datasets, "rank_and_size", lambda: (0, 1))
    assert torch.equal(met[0], next(iter(make_loader(data, 8, train=True, workers=1)))[0])


def test_workers_give_the_same_batches_in_every_epoch():
    data = FaceAgeDataset(*toy(6))
    loaders = make_loader(data, 2, train=True, workers=2), make_loader(data, 2, train=True)
    for _ in range(3):
        assert seen(loaders[0]) == seen(loaders[1])
    assert seen(make_loader(data, 2, workers=1)) == seen(make_loader(data, 2))


def anything(image):
    """A change that draws from all three sources of chance."""
    return (image + random.randrange(80) + np.random.randint(80) + torch.randint(80, ())).to(torch.uint8)  # noqa: NPY002


def test_workers_are_started_once_and_draw_anew_in_each_epoch():
    data, met = FaceAgeDataset(*toy(6), augment=anything), {}
    for workers, start in ((2, None), (1, "spawn")):  # as on this system, and as on macOS and Windows
        loader = make_loader(data, 2, train=True, workers=workers)
        loader.multiprocessing_context = start
        others, pids, batches = set(multiprocessing.active_children()), [], []
        for _ in range(2):
            batches += [batch for batch, _ in loader]
            pids.append({worker.pid for worker in set(multiprocessing.active_children()) - others})
        assert pids[0] == pids[1] and len(pids[0]) == workers
        met[workers] = torch.cat(batches)
        assert len({picture.numpy().tobytes() for picture in met[workers]}) == 12
        del loader
    assert torch.equal(met[1], met[2])  # whichever worker makes a batch


def test_the_committed_split_of_the_shipped_faces_can_be_made_again():
    """From the committed labels: no seed, library or line of the split has changed since."""
    found, faces = labels.find_faces(paths.DEMO), labels.read_labels(paths.ROOT / "data" / "labels.csv")
    assert all((found[column] == faces[column]).all() for column in ("path", "age", "person"))
    alike = {"p1122": "p0131"}  # the one pair of near-duplicates that notebook 03 finds: two people who look the same
    part = split_groups(faces["age"], pd.factorize(faces["person"].replace(alike))[0])
    frozen = datasets.read_splits()
    assert frozen["path"].tolist() == faces["path"].tolist() and frozen["part"].tolist() == part.tolist()
