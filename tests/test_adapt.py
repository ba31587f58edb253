"""The line through the answers of the shipped network: it is what the file answers, and nothing is lost or replaced."""

import numpy as np
import pandas as pd
import pytest
from faces import one_sentence
from PIL import Image

from commands import adapt
from helpers import deploy, export, labels, paths

pytest.importorskip("facenet_pytorch", reason="needs the face detector: requirements-optional.txt")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A CSV of 48 of the drawn faces; the ages in it are 8 years too high, so a line helps."""
    faces = labels.find_faces(paths.DEMO)[["path", "age", "person"]]
    some, folder = faces.iloc[:: len(faces) // 48][:48], tmp_path_factory.mktemp("known")
    # Names without a number, as that might be taken for an age.
    copies = [folder / f"{chr(97 + i % 26)}{chr(97 + i // 26)}.png" for i in range(48)]
    for path, copy in zip(some["path"], copies):
        Image.open(paths.DEMO / path).save(copy)
    some.assign(path=[str(copy) for copy in copies], age=some["age"] + 8).to_csv(folder / "ages.csv", index=False)
    return folder / "ages.csv"


def test_the_adapted_file_answers_with_the_line_and_knows_its_error(known, tmp_path, capsys):
    out = tmp_path / "adapted.onnx"
    adapt.main([str(known), "--out", str(out)])
    told = capsys.readouterr().out
    assert "as it is" in told and "guessing the median" in told and f"--model {out}" in told
    before, after = export.load(deploy.SHIPPED), export.load(out)
    facts, rng = export.facts_of(after), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    straight = facts["line"]["slope"] * export.years_of(before, pictures) + facts["line"]["offset"]
    np.testing.assert_allclose(export.years_of(after, pictures), straight.clip(20, 60), atol=0.01)
    ends = facts["line"]["slope"] * np.array([20, 60]) + facts["line"]["offset"]
    np.testing.assert_allclose(facts["ages"], ends.clip(20, 60), atol=0.06)
    assert facts["fitted_to"] > 40 and facts["mae"] < facts["half_width"] and "elsewhere" not in facts
    assert facts["margin"] == export.facts_of(before)["margin"] and "fitted to ages.csv" in deploy.origin_of(out)
    content = out.read_bytes()
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(known), "--out", str(out)])
    one_sentence(ended.value, out, "is not replaced")
    assert out.read_bytes() == content
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(known), "--model", str(out), "--out", str(tmp_path / "again.onnx")])
    one_sentence(ended.value, out, "fitted to photos already")


def test_a_line_that_does_not_help_is_not_written(known, tmp_path, monkeypatch):
    ages = np.linspace(20, 50, 40)
    rng = np.random.default_rng(0)
    monkeypatch.setattr(adapt, "answers", lambda model, photos: (ages + rng.normal(0, 0.1, 40), ages, ages.astype(str)))
    monkeypatch.setattr(adapt, "cross_validated", lambda *given: ages + 1)  # the line errs by a year
    out = tmp_path / "adapted.onnx"
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(known), "--out", str(out)])
    one_sentence(ended.value, "nothing was written")
    assert not out.exists()


def test_a_line_that_helps_by_chance_is_not_written(known, tmp_path, monkeypatch, capsys):
    ages = np.linspace(20, 50, 40)
    told, fits = ages + 5, ages + np.tile([2, 7.8], 20)  # better by 0.1 years; 2.9 / √40 is the standard error
    assert np.abs(fits - ages).mean() < np.abs(told - ages).mean()
    monkeypatch.setattr(adapt, "answers", lambda model, photos: (told, ages, ages.astype(str)))
    monkeypatch.setattr(adapt, "cross_validated", lambda *given: fits)
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(known), "--out", str(tmp_path / "adapted.onnx")])
    one_sentence(ended.value, "not clear that the line helps", "add photos")
    assert "changes the MAE by -0.10 ± 0.4" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize("bias, least, most", [(0, 0, 0.15), (-7, 0.85, 1)])
def test_a_line_is_taken_where_it_helps_and_seldom_where_it_cannot(bias, least, most):
    rng, taken = np.random.default_rng(0), []
    for _ in range(60):
        told = rng.uniform(25, 50, 60)
        ages, people = told + rng.normal(0, 6, 60), np.arange(60).astype(str)  # so the answers need no line
        fits = adapt.cross_validated(told + bias, ages, people)
        change, error = adapt.change_of_mae(fits, told + bias, ages, people)
        taken.append(change + error < 0)
    assert least <= np.mean(taken) <= most


@pytest.mark.parametrize("slope, offset", [(1.5, -10), (0.5, 10), (1, 30), (-1, 80)])
def test_no_line_leaves_the_ages_that_the_network_knows(slope, offset, tmp_path):
    before, out = export.load(deploy.SHIPPED), tmp_path / "adapted.onnx"
    adapt.write(deploy.SHIPPED, out, slope, offset, export.facts_of(before))
    pictures = np.random.default_rng(1).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    told, facts = export.years_of(export.load(out), pictures), export.facts_of(export.load(out))
    np.testing.assert_allclose(told, (slope * export.years_of(before, pictures) + offset).clip(20, 60), atol=0.01)
    youngest, oldest = facts["ages"]
    assert 20 <= youngest <= told.min() + 0.1 and told.max() - 0.1 <= oldest <= 60


def test_where_nothing_can_be_written_the_file_is_named(known, tmp_path, monkeypatch):
    ages = np.linspace(20, 50, 40)
    monkeypatch.setattr(adapt, "answers", lambda model, photos: (ages + 5, ages, ages.astype(str)))
    occupied = tmp_path / "notes.txt"
    occupied.write_text("mine")
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(known), "--out", str(occupied / "adapted.onnx")])
    one_sentence(ended.value, occupied / "adapted.onnx", "cannot be written", "--out")
    assert occupied.read_text() == "mine" and list(tmp_path.iterdir()) == [occupied]


def test_too_few_or_unreadable_photos_are_named(known, tmp_path, capsys):
    table, broken = pd.read_csv(known)[:32], tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    table.loc[[0, 1], "path"], table.loc[2, "age"] = str(broken), 75
    table.to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(tmp_path / "few.csv"), "--out", str(tmp_path / "adapted.onnx")])
    one_sentence(ended.value, "few.csv", "photos, and 30 are needed")
    said = capsys.readouterr()
    assert "broken.jpg" in said.out + said.err and "the network knows only ages from 20 to 60: 1" in said.out


def test_photos_of_other_ages_alone_are_not_looked_at(known, tmp_path):
    pd.read_csv(known).assign(age=70).to_csv(tmp_path / "old.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(tmp_path / "old.csv"), "--out", str(tmp_path / "adapted.onnx")])
    one_sentence(ended.value, "old.csv", "30 photos with ages from 20 to 60 are needed (here: 0)")


def test_photos_without_an_age_or_with_several_faces_and_too_few_people_are_told(known, tmp_path, capsys, group):
    table = pd.read_csv(known, dtype={"age": str, "person": str})
    several = tmp_path / "several.png"
    Image.fromarray(group[0]).save(several)
    nothing = tmp_path / "nothing.png"
    Image.fromarray(np.full((200, 200, 3), 128, np.uint8)).save(nothing)
    rows = [{"path": str(several), "age": "30"}, {"path": str(nothing), "age": "30"}, {"path": "", "age": "40"}]
    table.loc[0, "age"], table["person"] = "", "somebody"
    pd.concat([table, pd.DataFrame(rows)]).to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(tmp_path / "some.csv"), "--out", str(tmp_path / "adapted.onnx")])
    said = capsys.readouterr().out
    assert (
        "without a path or an age: 2 (e.g. " in said and "with several faces: 1" in said and "with no face: 1" in said
    )
    one_sentence(ended.value, "some.csv", "10 different people are needed (here: 1)")
