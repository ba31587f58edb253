"""What the networks of data/models learn from: every age often enough, every picture changed."""

import copy
import runpy
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from faces import one_sentence, toy
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from commands import shipped
from helpers import datasets, evaluation, export, features, images, labels, models, paths, training


def faces_of(counts):
    """Return a table with so many pictures of each origin and age, named as in UTKFace."""
    rows = [(f"{age}/{age}_0_{origin}_{i}.jpg", age) for (origin, age), n in counts.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["path", "age"])


def test_what_is_rare_in_a_group_of_origin_is_seen_more_often():
    faces = faces_of({(0, 25): 400, (0, 55): 400, (2, 25): 400, (2, 55): 25})
    rows = np.arange(len(faces))
    seen = faces.loc[shipped.balanced(rows, shipped.rarity(faces))]
    assert len(seen) == 2 * len(faces)
    share = seen["path"].str.extract(r"(\d+)_0_(\d)_").value_counts(normalize=True)
    # The square root of how many there are: 20, 20, 20 and 5 of 65
    assert share["55", "2"] == pytest.approx(5 / 65, abs=0.01)
    assert share["25", "2"] == share["25", "0"] == pytest.approx(20 / 65, abs=0.01)


def test_without_a_power_every_picture_is_seen_equally_often():
    faces = faces_of({(1, 30): 7, (3, 40): 13})
    rows = np.arange(3, 20)
    seen = shipped.balanced(rows, shipped.rarity(faces.iloc[rows], power=0), times=3)
    assert np.array_equal(np.bincount(seen, minlength=20)[3:], [3] * 17)


def test_no_picture_of_another_set_is_seen():
    faces = faces_of({(0, 25): 50, (0, 55): 3})
    rows = np.arange(0, 53, 2)
    assert set(shipped.balanced(rows, shipped.rarity(faces.iloc[rows]))) <= set(rows)


def test_photos_without_such_names_are_balanced_by_age_alone():
    faces = pd.DataFrame({"path": [f"{i}.png" for i in range(110)], "age": [25] * 100 + [55] * 10})
    seen = faces["age"][shipped.balanced(np.arange(110), shipped.rarity(faces))]
    assert (seen == 55).mean() == pytest.approx(10**0.5 / (10 + 10**0.5), abs=0.02)


def test_the_origin_is_read_from_names_in_one_folder_as_well():
    faces = faces_of({(0, 25): 400, (0, 55): 400, (2, 25): 400, (2, 55): 25})
    flat = faces.assign(path=faces["path"].str.split("/").str[1])
    np.testing.assert_array_equal(shipped.rarity(flat), shipped.rarity(faces))


def test_no_picture_weighs_more_than_eight_times_the_mean():
    weights = shipped.rarity(faces_of({(0, 25): 5000, (0, 55): 1}), power=1)
    assert weights[-1] == 8 and np.ptp(weights[:-1]) == 0


@pytest.fixture
def compact():
    """A compact network with random weights, 60 pictures, and their ages: the brighter, the older."""
    pictures, ages = toy(60)
    torch.manual_seed(0)
    network = models.compact_resnet(1)
    return models.start_at(network, 30, datasets.FaceAgeDataset(pictures, ages).sample(32)), pictures, ages


def answers(network, pictures):
    return training.predict(network, datasets.make_loader(datasets.FaceAgeDataset(pictures, np.zeros(len(pictures)))))


def test_the_head_is_fitted_and_the_body_stays(compact):
    network, pictures, ages = compact
    before = copy.deepcopy(network.body.state_dict())
    shipped.fit_head(network, pictures, ages, np.arange(0, 60, 2), np.ones(30), penalty=0.02)
    assert all(torch.equal(now, before[name]) for name, now in network.body.state_dict().items())
    unseen = np.abs(answers(shipped.complete(network), pictures) - ages)[1::2]
    assert unseen.mean() < 0.2 * np.abs(ages - np.median(ages)).mean()  # of brightness one sees the age


def test_the_head_is_ridge_regression_on_what_the_body_makes_of_six_views(compact):
    network, pictures, ages = compact
    weights = np.linspace(0.5, 1.5, 60)
    shipped.fit_head(network, pictures, ages, np.arange(60), weights, penalty=0.5)
    frame = {"top": 16, "bottom": 16, "left": 16, "right": 16, "borderType": cv2.BORDER_REFLECT_101}
    views = [
        lambda picture: picture,
        lambda picture: cv2.resize(picture[13:115, 13:115], (128, 128)),
        lambda picture: cv2.resize(cv2.copyMakeBorder(picture, **frame), (128, 128), interpolation=cv2.INTER_AREA),
        lambda picture: cv2.resize(picture, (160, 128))[:, 16:144],
        lambda picture: cv2.resize(picture, (128, 160))[16:144],
        lambda picture: np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, 2),
    ]
    seen = datasets.to_input(
        torch.tensor(np.stack([see(one) for see in views for one in pictures])).permute(0, 3, 1, 2)
    )
    with torch.no_grad():
        both = (network.body(seen) + network.body(seen.flip(3))) / 2
    plain = functional.layer_norm(both, (640,)).numpy()
    line = make_pipeline(StandardScaler(), Ridge(320))
    line.fit(plain, np.tile(ages, 6), ridge__sample_weight=np.tile(weights, 6))
    told = line.predict(plain[:60]).clip(20, 50)
    assert np.abs(answers(shipped.complete(network), pictures) - told).max() < 0.5


def test_with_a_large_penalty_the_head_answers_the_weighted_mean(compact):
    network, pictures, ages = compact
    weights = np.where(ages > 40, 3.0, 1.0)
    shipped.fit_head(network, pictures, ages, np.arange(60), weights, penalty=1e9)
    np.testing.assert_allclose(answers(network, pictures), np.average(ages, weights=weights), atol=0.01)


def test_a_complete_network_answers_alike_for_mirrored_faces_and_within_its_ages(compact):
    network, pictures, ages = compact
    shipped.fit_head(network, pictures, 3 * ages - 70, np.arange(60), np.ones(60), penalty=0.02)  # -10 to 80
    told = answers(shipped.complete(network), pictures)
    mirrored = answers(shipped.complete(network), np.ascontiguousarray(pictures[:, :, ::-1]))
    np.testing.assert_allclose(told, mirrored, atol=0.5)  # bfloat16 may round the two halves of a batch otherwise
    assert told.min() == 20 and told.max() == 50 and 25 < np.median(told) < 45


def test_the_augmentation_keeps_the_form_and_changes_the_picture():
    torch.manual_seed(0)
    image = torch.randint(256, (3, 128, 128), dtype=torch.uint8)
    before, changed = image.clone(), [shipped.robust_augmentation(image) for _ in range(40)]
    assert all(other.shape == (3, 128, 128) and other.dtype == torch.uint8 for other in changed)
    assert torch.equal(image, before) and len({other.numpy().tobytes() for other in changed}) == 40
    assert any(torch.equal(other[0], other[2]) for other in changed)  # some are grey


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A run on 80 drawn faces that count as photos, with short recipes. Return its folder, pictures and table."""
    pytest.importorskip("facenet_pytorch", reason="needs the face detector: requirements-optional.txt")
    pytest.importorskip("face_recognition_models", reason="needs dlib's weights: requirements-optional.txt")
    table = labels.find_faces(paths.DEMO).iloc[::4]
    table = table.sort_values("person", kind="stable")[:80].reset_index(drop=True)
    table["part"] = np.where(table["person"] <= table["person"].iloc[47], "train", "valid")
    pictures = np.stack([images.prepare(images.read_image(paths.DEMO / path)) for path in table["path"]])
    monkeypatch.setattr(datasets, "load_faces", lambda: (pictures, table))
    monkeypatch.setattr(features, "run_dir", lambda: tmp_path)
    monkeypatch.setattr(paths, "run_dir", lambda part: tmp_path / part)
    monkeypatch.setattr(paths, "is_demo", lambda: False)
    monkeypatch.setattr(shipped, "RECIPES", {"face_resnet": (1, 2.5e-4, 3e-5), "compact_resnet": (1, 1e-3, 1e-4)})
    (tmp_path / "shipped").mkdir()
    return tmp_path, pictures, table


def test_the_command_trains_both_networks_and_writes_what_they_know(photos, monkeypatch, capsys):
    """One short training on a few drawn faces; it must end in two models of photos that answer within their ages."""
    folder, pictures, table = photos
    elsewhere = folder / "elsewhere.csv"
    others = table[-12:].assign(path=[str(paths.DEMO / path) for path in table["path"][-12:]])
    others[["path", "age"]].to_csv(elsewhere, index=False)
    years, out = [], folder / "out"
    for arguments in (["--elsewhere", str(elsewhere)], ["--trained"]):  # the second call comes to the same
        shipped.main(["--out", str(out), "--name", "some photos", *arguments])
        told = capsys.readouterr().out
        for name in shipped.RECIPES:
            file = out / f"{name}_photos.onnx"
            assert str(folder / "shipped" / file.name) in told
            facts, model = export.facts_of(export.load(file)), export.load(file)
            assert facts["ages"] == [table["age"].min(), table["age"].max()] and facts["data"] == "some photos"
            assert 0 < facts["mae"] < facts["half_width"]
            assert ("elsewhere" in facts) == ("--elsewhere" in arguments)
            years.append(export.years_of(model, pictures))
            wild = export.years_of(model, np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8))
            assert ((wild >= 20) & (wild <= 50)).all()
        monkeypatch.setattr(training, "fit", None)  # so that another training would fail
    np.testing.assert_allclose(years[:2], years[2:], atol=0.5)
    assert years[0].std() > 1


def test_the_body_of_the_face_resnet_goes_half_way_back(photos):
    folder, pictures, table = photos
    ages = table["age"].to_numpy()
    network = models.start_at(
        models.face_resnet(1, features.window_of(pictures)), 35, datasets.FaceAgeDataset(pictures, ages).sample(32)
    )
    start = copy.deepcopy(network.body.state_dict())
    seen = datasets.FaceAgeDataset(pictures, ages, np.arange(48))
    valid = datasets.make_loader(datasets.FaceAgeDataset(pictures, ages, np.arange(48, 80)))
    shipped.fine_tune("face_resnet", network, lambda: None, seen, valid, folder / "shipped")
    best = torch.load(folder / "shipped" / "best.pt", weights_only=True)["model"]
    moved = 0
    for name, now in network.body.state_dict().items():
        if now.is_floating_point():
            torch.testing.assert_close(now.cpu(), (start[name] + best[f"body.{name}"]) / 2)
            moved += not torch.equal(now.cpu(), start[name])
    assert moved > 20


def test_a_file_without_its_facts_replaces_nothing(photos, monkeypatch):
    folder, _, table = photos
    (folder / "out").mkdir()
    former = {folder / part / f"{name}_photos.onnx" for part in ("out", "shipped") for name in shipped.RECIPES}
    for file in former:
        file.write_bytes(b"the former one")
    torch.manual_seed(0)
    monkeypatch.setattr(shipped, "train", lambda *given: {"face_resnet": shipped.complete(models.compact_resnet(1))})
    monkeypatch.setattr(evaluation, "conformal_radius", raises)
    with pytest.raises(SystemExit) as ended:
        shipped.main(["--out", str(folder / "out")])
    one_sentence(ended.value, "too few")
    assert all(file.read_bytes() == b"the former one" for file in former)


def raises(errors):
    raise ValueError(f"{len(errors)} faces are too few for intervals: add photos.")


def test_photos_of_other_ages_are_refused_before_the_training(photos, monkeypatch):
    folder, _, table = photos
    table[:3].assign(path=[str(paths.DEMO / path) for path in table["path"][:3]], age=70).to_csv(folder / "old.csv")
    monkeypatch.setattr(labels, "find_faces", lambda source: pd.read_csv(source))
    with pytest.raises(SystemExit) as ended:
        shipped.main(["--elsewhere", str(folder / "old.csv")])
    one_sentence(ended.value, "old.csv", "no photo has an age from")


def test_drawn_faces_make_no_networks_for_photos(tmp_path):
    with pytest.raises(SystemExit) as ended:
        shipped.main(["--out", str(tmp_path)])
    one_sentence(ended.value, "AGE_DATA")
    assert not list(tmp_path.iterdir())


def rows_of_the_card():
    """Return the cells of each row of the card's first table of errors."""
    card = (paths.ROOT / "data/models/README.md").read_text(encoding="utf-8")
    lines = card.partition("<!-- all -->\n")[2].partition("\n<!-- end -->")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_readme_quotes_the_card():
    readme = " ".join((paths.ROOT / "README.md").read_text(encoding="utf-8").split())
    (mae, median), (mae_there, median_there) = [
        (float(row[3].split()[0]), float(row[-1])) for row in rows_of_the_card() if row[1] == "face ResNet"
    ]
    assert f"it errs by {mae:.1f} years on average, where guessing the median errs by {median:.1f}" in readme
    assert f"it errs by {mae_there:.1f} (median: {median_there:.1f})" in readme


def test_the_card_has_the_half_widths_of_the_files():
    for name, called in {"face_resnet": "face ResNet", "compact_resnet": "compact ResNet"}.items():
        facts = export.facts_of(export.load(paths.ROOT / f"data/models/{name}_photos.onnx"))
        widths = [row[-2] for row in rows_of_the_card() if row[1] == called]
        assert widths == 2 * [f"±{facts['half_width']:.1f}"]


def test_the_bench_writes_the_tables_of_the_card(tmp_path):
    bench = SimpleNamespace(**runpy.run_path(str(paths.ROOT / "tests" / "bench" / "shipped.py")))
    card = tmp_path / "card.md"
    card.write_text("before\n<!-- all -->\nold\n<!-- end -->\nafter\n<!-- moves -->\n<!-- end -->\n")
    rng = np.random.default_rng(0)
    true = rng.integers(20, 61, 200).astype(float)
    bands = bench.by_band(true, true + 1, np.arange(200).astype(str), 0.5)
    assert list(bands.index)[-1] == "45 to 60" and bands["faces"].sum() == 200
    assert set(bands["bias"]) == {"+1.00"} and set(bands["coverage"]) == {"0%"}
    young = bench.by_band(true[true < 33], true[true < 33], np.arange((true < 33).sum()).astype(str), 0.5)
    assert list(young.index) == ["20 to 24", "25 to 29", "30 to 34"] and set(young["coverage"]) == {"100%"}
    bench.write(card, {"all": bench.markdown(bands, "age"), "moves": "moved"})
    text = card.read_text()
    assert text.startswith("before\n<!-- all -->\n| age | faces |") and "old" not in text and "\nafter\n" in text
    assert text.endswith("<!-- moves -->\nmoved\n<!-- end -->\n")
    with pytest.raises(ValueError, match="no place for the table 'other'"):
        bench.write(card, {"other": ""})
    assert card.read_text() == text
