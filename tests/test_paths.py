"""Where things land: results of other data never in the repository's own folders, files whole or absent."""

import os

import pytest
from faces import one_sentence

from helpers import paths


def test_without_the_variable_the_shipped_faces_are_meant(monkeypatch):
    monkeypatch.delenv("AGE_DATA", raising=False)
    assert paths.is_demo() and paths.data_dir() == paths.ROOT / "data" / "demo" and paths.data_name() == "demo"
    assert paths.tables_dir() == paths.ROOT / "data"
    monkeypatch.setenv("AGE_DATA", "  ")
    assert paths.is_demo()


@pytest.mark.parametrize("named", ["data/demo", "./data/demo/", "data/../data/demo"])
def test_the_shipped_faces_are_known_by_any_spelling(monkeypatch, named):
    monkeypatch.setenv("AGE_DATA", named)
    assert paths.is_demo()


@pytest.mark.parametrize(
    "named, name",
    [
        ("photos", "photos"),
        ("my photos, été", "my_photos_été"),
        ("list.csv", "list"),
        ("a/demo", "demo-own"),
        ("demo.csv", "demo-own"),
    ],
)
def test_results_of_other_photos_go_to_a_folder_of_their_own(monkeypatch, tmp_path, named, name):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("AGE_DATA", str(tmp_path / named))
    assert paths.data_dir() == tmp_path / named
    assert paths.data_name() == name
    assert paths.run_dir() == paths.tables_dir() == tmp_path / "runs" / name
    for folder in (paths.figs_dir(), paths.pics_dir()):
        assert folder.is_dir() and folder.parent == paths.run_dir()


def test_a_relative_path_is_meant_from_the_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGE_DATA", "photos")
    assert paths.data_dir() == paths.ROOT / "photos"


def test_atomic_replaces_the_file_at_the_end_and_only_then(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with paths.atomic(path) as temporary:
        temporary.write_text("one")
        assert temporary.suffix == ".csv" and not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(KeyboardInterrupt), paths.atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_writers_of_one_file_do_not_meet_and_old_halves_are_cleared_away(tmp_path):
    path = tmp_path / "table.csv"
    with paths.atomic(path) as one, paths.atomic(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]  # the one that ended last

    with pytest.raises(KeyboardInterrupt), paths.atomic(path) as temporary:
        old, young = (temporary.with_name(f".other.{letter * 32}.csv") for letter in "ab")
        raise KeyboardInterrupt
    mine = tmp_path / ".settings.csv"  # not ours
    for file in (old, young, mine):
        file.write_text("half")
    for file in (old, mine):
        os.utime(file, (1, 1))
    with paths.atomic(path) as temporary:
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([path, young, mine])


def test_need_names_the_notebook_that_makes_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        paths.need(tmp_path / "labels.csv", "02_labeling")
    one_sentence(error.value, "labels.csv", "run notebook 02_labeling first")
    assert paths.need(tmp_path, "any") == tmp_path
