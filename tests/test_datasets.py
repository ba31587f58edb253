"""The split keeps its promises for any ages and people; the loader hands out what it was given."""

import numpy as np
import pandas as pd
import pytest
import torch
from faces import one_sentence, save, snapshot, toy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
    assert faces["part"].drop_duplicates().tolist() == ["train", "valid", "test"]
    assert dict(zip(faces["path"], faces["part"])) == dict(zip(kept["path"], part))
    assert dict(zip(faces["path"], faces["age"])) == dict(zip(kept["path"], kept["age"]))
    assert (faces["person"] == faces["path"]).all()  # nobody is known, so everybody is somebody else
    for i in (0, 39):
        assert (array[i] == images.prepare(images.read_image(photos / faces["path"][i]))).all()

    datasets.write_splits(kept, part)  # the same bytes again, so that a frozen split shows no change
    assert [(f.name, f.read_bytes()) for f in sorted((paths.run_dir() / "splits").iterdir())] == written
    assert b"\r" not in written[0][1]
    assert snapshot(photos) == before


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


def test_pictures_and_ages_must_be_as_many():
    with pytest.raises(ValueError) as error:
        FaceAgeDataset(*toy(4)[:1], [20, 30])
    one_sentence(error.value, "4 pictures but 2 ages", "same labels table")


@pytest.mark.parametrize(
    "augment", [datasets.mild_augmentation(), datasets.mild_augmentation(shift=4), datasets.strong_augmentation]
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


def test_workers_give_the_same_batches():
    data = FaceAgeDataset(*toy(6))
    assert seen(make_loader(data, 2, train=True, workers=1)) == seen(make_loader(data, 2, train=True))
