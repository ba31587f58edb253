"""Where things land: results of other data never in the repository's own folders, files whole or absent."""

import os
import re

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


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "table.csv"
    with paths.atomic(path) as one, paths.atomic(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]  # the one that ended last


def test_files_of_other_programs_stay(tmp_path):
    others = [tmp_path / name for name in (f".table.{'a' * 32}.csv", ".settings.csv", f"{paths.HALF}{'b' * 32}.csv")]
    for file in others:
        file.write_text("half")
        os.utime(file, (1, 1))
    with paths.atomic(tmp_path / "table.csv") as temporary:
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "table.csv"])


def test_two_folders_of_one_name_do_not_share_a_run(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path / "root")

    def run_of(folder):
        monkeypatch.setenv("AGE_DATA", str(folder))
        told = paths.data_name()
        assert paths.run_dir() == paths.tables_dir() == tmp_path / "root" / "runs" / told
        assert paths.data_name() == told  # also when the run is there
        return told

    first, other = tmp_path / "a" / "photos", tmp_path / "b" / "photos"
    assert run_of(first) == "photos"
    assert re.fullmatch("photos-[0-9a-f]{6}", run_of(other))
    assert run_of(first) == "photos" and run_of(other) == run_of(tmp_path / "b" / "." / "photos")
    assert len({run_of(first), run_of(other), run_of(tmp_path / "c" / "photos.csv")}) == 3
    assert (tmp_path / "root" / "runs" / "photos" / "source.txt").read_text() == str(first)


def test_a_run_of_a_former_version_belongs_to_the_first_that_comes(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    for folder, name in (("a/photos", "photos"), ("b/photos", "photos-")):
        monkeypatch.setenv("AGE_DATA", str(tmp_path / folder))
        assert paths.run_dir().name.startswith(name)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_need_names_the_notebook_that_makes_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        paths.need(tmp_path / "labels.csv", "02_labeling")
    one_sentence(error.value, "labels.csv", "run notebook 02_labeling first")
    assert paths.need(tmp_path, "any") == tmp_path
