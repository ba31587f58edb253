"""The line through the answers of the shipped network: it is what the file answers, and nothing is lost or replaced."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from faces import one_sentence

from commands import adapt
from helpers import deploy, export, labels, paths

pytest.importorskip("facenet_pytorch", reason="needs the face detector: requirements-optional.txt")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A CSV of 48 of the drawn faces with their ages."""
    faces = labels.find_faces(paths.DEMO)[["path", "age", "person"]]
    some = faces.iloc[:: len(faces) // 48][:48]
    file = tmp_path_factory.mktemp("known") / "ages.csv"
    some.assign(path=[str(paths.DEMO / path) for path in some["path"]]).to_csv(file, index=False)
    return file


def test_the_adapted_file_answers_with_the_line_and_knows_its_error(known, tmp_path, capsys):
    out = tmp_path / "adapted.onnx"
    adapt.main([str(known), "--out", str(out)])
    told = capsys.readouterr().out
    assert "as it is" in told and "guessing the median" in told and f"--model {out}" in told
    before, after = export.load(deploy.SHIPPED), export.load(out)
    facts, rng = export.facts_of(after), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    straight = facts["line"]["slope"] * export.years_of(before, pictures) + facts["line"]["offset"]
    np.testing.assert_allclose(export.years_of(after, pictures), straight, atol=0.01)
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
    monkeypatch.setattr(adapt, "cross_val_predict", lambda *given, **how: ages + 1)  # the line errs by a year
    out = tmp_path / "adapted.onnx"
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(known), "--out", str(out)])
    one_sentence(ended.value, "Nothing was written")
    assert not out.exists()


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
    table = pd.read_csv(known)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    old = tmp_path / "old.jpg"  # of another name, since the folder tells an age, too
    old.write_bytes(Path(table["path"][1]).read_bytes())
    table.loc[0, "path"], table.loc[1, ["path", "age"]] = str(broken), [str(old), 75]
    table[:20].to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        adapt.main([str(tmp_path / "few.csv"), "--out", str(tmp_path / "adapted.onnx")])
    one_sentence(ended.value, "few.csv", "18 photos, and 30 are needed")
    said = capsys.readouterr()
    assert "broken.jpg" in said.out + said.err and "knows ages from 20 to 60" in said.out
