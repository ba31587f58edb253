"""The metrics against examples worked by hand, and what must hold for any numbers."""

import ast
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from faces import one_sentence, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import evaluation, models, paths
from helpers.evaluation import (
    age_bands,
    bootstrap_means,
    by_age_band,
    conformal_radius,
    mean_interval,
    metrics,
    paired_difference,
    pixels_ridge,
    record,
    save_table,
)

TRUE = [20, 30, 40, 50]
PREDICTED = [22, 30, 34, 45]  # errors +2, 0, −6, −5

years = st.floats(0, 100, allow_subnormal=False)  # training lets the processor count them as zero
pairs = st.lists(st.tuples(st.integers(20, 50), years, st.integers(0, 5)), min_size=1, max_size=40)
quick = settings(max_examples=15, deadline=None, derandomize=True)


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation, "run_dir", lambda: tmp_path)
    return tmp_path


def test_metrics_by_hand():
    measured = metrics(TRUE, PREDICTED)
    assert measured["mae"] == 13 / 4
    assert measured["mse"] == 65 / 4 and measured["rmse"] == pytest.approx(4.031129)
    assert measured["cs5"] == 3 / 4  # an error of exactly five years counts as a hit
    assert measured["bias"] == -9 / 4
    assert measured["n"] == 4
    assert list(measured) == ["mae", "mae_low", "mae_high", "mse", "rmse", "cs5", "bias", "n"]


def test_the_interval_is_that_of_the_bootstrap():
    errors = np.random.default_rng(0).exponential(5, 400)
    measured = metrics(np.zeros(400), errors)
    half = 1.96 * errors.std() / 20  # the normal approximation, good at this size
    assert measured["mae_low"] == pytest.approx(errors.mean() - half, abs=0.08)
    assert measured["mae_high"] == pytest.approx(errors.mean() + half, abs=0.08)
    assert metrics(np.zeros(400), errors) == measured  # the same every time


def test_pictures_of_one_person_widen_the_interval():
    errors = np.repeat(np.random.default_rng(0).exponential(5, 40), 10)
    alone, together = metrics(np.zeros(400), errors), metrics(np.zeros(400), errors, np.repeat(np.arange(40), 10))
    ratio = (together["mae_high"] - together["mae_low"]) / (alone["mae_high"] - alone["mae_low"])
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)
    assert together["mae"] == alone["mae"]


def test_the_bootstrap_draws_whole_people():
    means = bootstrap_means([0, 6, 12, 60], ["a", "b", "a", "c"], draws=200)
    # Three people are drawn, each with all their pictures; of a, b and c once each the mean is 78 / 4.
    possible = {
        (12 * a + 6 * b + 60 * c) / (2 * a + b + c) for a in range(4) for b in range(4 - a) for c in [3 - a - b]
    }
    assert {*means.round(9)} == {round(mean, 9) for mean in possible}


@quick
@given(pairs)
def test_what_holds_for_any_metrics(rows):
    true, predicted, people = map(np.array, zip(*rows))
    for groups in (None, people):
        m = metrics(true, predicted, groups)
        assert m["mae"] >= 0 and 0 <= m["cs5"] <= 1 and m["n"] == len(rows)
        assert abs(m["bias"]) <= m["mae"] + 1e-9
        assert m["mae"] <= m["rmse"] + 1e-9 and m["rmse"] ** 2 == pytest.approx(m["mse"])
        assert m["mae_low"] <= m["mae_high"] + 1e-9
    m = metrics(true, predicted)
    assert m["mae_low"] - 1e-9 <= m["mae"] <= m["mae_high"] + 1e-9


@quick
@given(pairs)
def test_a_perfect_prediction(rows):
    true = np.array([r[0] for r in rows])
    m = metrics(true, true)
    assert (m["mae"], m["mae_low"], m["mae_high"], m["rmse"], m["bias"], m["cs5"]) == (0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize(
    "true, predicted",
    [([], []), ([20, 30], [20, np.nan]), ([20, 30], [20, np.inf]), ([20, np.nan], [20, 30]), ([20, 30], [20])],
)
def test_numbers_that_cannot_be_judged_are_refused(true, predicted):
    with pytest.raises(ValueError) as error:
        metrics(true, predicted)
    one_sentence(error.value)


def test_a_column_of_predictions_is_not_spread_over_all_ages():
    with pytest.raises(ValueError) as error:
        metrics(TRUE, np.array(PREDICTED)[:, None])
    one_sentence(error.value, "(4, 1)", "one number a picture")


# Comparisons


def test_paired_difference_is_negative_when_the_first_is_better():
    true = np.linspace(20, 50, 60)
    worse, better = true + np.tile([8.0, -6.0], 30), true + np.tile([3.0, -2.0], 30)
    difference, low, high = paired_difference(true, better, worse)
    assert difference == pytest.approx(2.5 - 7) and low <= difference <= high < 0
    back, back_low, back_high = paired_difference(true, worse, better)
    assert (back, back_low, back_high) == pytest.approx((-difference, -high, -low), abs=1e-9)
    assert paired_difference(true, worse, worse) == (0, 0, 0)


@quick
@given(pairs, st.integers(0, 5))
def test_paired_difference_is_the_difference_of_the_maes(rows, seed):
    true, predicted, people = map(np.array, zip(*rows))
    reference = true + np.random.default_rng(seed).normal(0, 5, len(true))
    difference = paired_difference(true, predicted, reference, people)[0]
    assert difference == pytest.approx(metrics(true, predicted)["mae"] - metrics(true, reference)["mae"], abs=1e-9)


def test_pairing_removes_what_makes_a_face_hard_for_both():
    rng = np.random.default_rng(0)
    true, hard = np.full(300, 30.0), rng.exponential(8, 300)
    _, low, high = paired_difference(true, true + hard, true + hard + 1)
    alone = metrics(true, true + hard)
    assert high - low < 0.01 * (alone["mae_high"] - alone["mae_low"])


def test_age_bands_by_hand():
    table = by_age_band([20, 24, 25, 45, 50], [21, 21, 25, 40, 60])
    assert table.index.tolist() == ["20-24", "25-29", "30-34", "35-39", "40-44", "45-50"]
    assert table["n"].tolist() == [2, 1, 0, 0, 0, 2]
    assert table.loc["20-24", ["mae", "bias"]].tolist() == [2, -1]
    assert table.loc["45-50", ["mae", "bias"]].tolist() == [7.5, 2.5]
    assert table.loc["30-34", ["mae", "bias"]].isna().all()


@quick
@given(pairs)
def test_age_bands_hold_every_picture_once(rows):
    true, predicted, _ = map(np.array, zip(*rows))
    table = by_age_band(true, predicted)
    assert table["n"].sum() == len(rows)
    assert (table["mae"].fillna(0) * table["n"]).sum() == pytest.approx(np.abs(predicted - true).sum())


# The baseline and the table


@pytest.mark.parametrize("n", [240, 20])
def test_pixels_ridge_beats_the_median_on_what_can_be_learnt(n):
    images, ages = toy(n)
    order = np.random.default_rng(0).permutation(n)
    train, test = order[: n // 2], order[n // 2 :]
    predicted = pixels_ridge(images, train, ages[train], test)
    assert predicted.shape == (len(test),)
    median = np.abs(ages[test] - np.median(ages[train])).mean()
    assert np.abs(predicted - ages[test]).mean() < 0.3 * median


def test_record_adds_and_replaces_rows(runs):
    measured = metrics(TRUE, PREDICTED)
    record("median", measured)
    record("SimpleCNN", measured, parameters=8_778_049, seconds=61.26)
    record("SimpleCNN", measured, part="valid")
    table = record("median", measured | {"mae": 9.0})
    assert sorted(zip(table["model"], table["part"])) == [
        ("SimpleCNN", "test"),
        ("SimpleCNN", "valid"),
        ("median", "test"),
    ]
    stored = pd.read_csv(runs / "results.csv")
    pd.testing.assert_frame_equal(stored, table, check_dtype=False)
    rows = stored[stored["part"] == "test"].set_index("model")
    assert rows.loc["median", "mae"] == 9.0
    assert rows.loc["SimpleCNN", ["parameters", "seconds"]].tolist() == [8_778_049, 61.3]
    assert [p.name for p in runs.iterdir()] == ["results.csv"]


def test_a_record_that_fails_leaves_the_former_table(runs, monkeypatch):
    record("median", metrics(TRUE, PREDICTED))
    before = (runs / "results.csv").read_bytes()

    def half(table, path, **_):
        path.write_text("model,pa")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(OSError):
        record("ResNet", metrics(TRUE, PREDICTED))
    assert (runs / "results.csv").read_bytes() == before
    assert [p.name for p in runs.iterdir()] == ["results.csv"]


def test_age_bands_take_every_age_of_the_series_and_no_other():
    bands = age_bands(np.array([20, 24, 25, 44, 45, 50, 19, 51]))
    assert [str(band) for band in bands] == ["20-24", "20-24", "25-29", "40-44", "45-50", "45-50", "nan", "nan"]
    assert list(age_bands(pd.Series([30])).cat.categories) == list(bands.categories)


# What notebook 07 asks


def test_bootstrap_intervals_hold_the_truth_as_often_as_they_promise():
    """Skewed errors; three pictures a person share what makes them hard. Drawn by person 95%, by picture far less."""
    rng, held = np.random.default_rng(0), {"person": 0, "picture": 0}
    people, trials = np.repeat(np.arange(60), 3), 300
    for _ in range(trials):
        errors = np.repeat(rng.exponential(4, 60), 3) + rng.exponential(1, 180)  # their true mean is 5
        for unit, groups in (("person", people), ("picture", None)):
            _, low, high = mean_interval(errors, groups, draws=300)
            held[unit] += low <= 5 <= high
    assert 0.90 <= held["person"] / trials <= 0.98
    assert held["picture"] / trials < 0.85


def test_mean_interval_is_that_of_the_metrics():
    errors, people = np.random.default_rng(0).exponential(5, 30), np.repeat(np.arange(10), 3)
    measured = metrics(np.zeros(30), errors, people)
    assert mean_interval(errors, people) == (measured["mae"], measured["mae_low"], measured["mae_high"])


def test_conformal_radius_by_hand():
    """Nine errors of 1 to 9 years: for 80% of new faces the eighth smallest is needed, ⌈0.8 · (9 + 1)⌉."""
    errors = [3, 1, 2, 9, 8, 7, 4, 5, 6]
    assert conformal_radius(errors, 0.8) == 8
    assert conformal_radius(errors, 0.75) == 8 and conformal_radius(errors, 0.5) == 5
    assert conformal_radius(errors, 0.9) == conformal_radius(errors) == 9  # and not one more by rounding


@quick
@given(st.lists(years, min_size=19, max_size=60), st.floats(0.1, 0.95))
def test_a_radius_is_one_of_the_errors_and_holds_enough_of_them(errors, level):
    radius = conformal_radius(errors, level)
    assert isinstance(radius, float) and radius in errors
    assert (np.array(errors) <= radius).mean() >= level - 1e-9
    assert radius <= conformal_radius(errors, 0.95)


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_intervals_hold_what_they_promise_on_exchangeable_faces(level):
    """Skewed errors. Their mean coverage over many calibrations lies between level and level + 1 / (n + 1)."""
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        errors = rng.exponential(3, 250)
        held.append((errors[50:] <= conformal_radius(errors[:50], level)).mean())
    assert level - 0.01 <= np.mean(held) <= level + 1 / 51 + 0.01


def test_errors_divided_by_their_scale_make_intervals_that_hold_hard_faces_too():
    rng, held = np.random.default_rng(0), {"constant": [], "scaled": []}
    for _ in range(100):
        scale = rng.uniform(1, 6, 400)
        errors = np.abs(scale * rng.normal(0, 1, 400))
        hard = scale[200:] > 4
        held["constant"].append((errors[200:] <= conformal_radius(errors[:200]))[hard].mean())
        radius = conformal_radius(errors[:200] / scale[:200]) * scale[200:]
        held["scaled"].append((errors[200:] <= radius)[hard].mean())
    assert np.mean(held["constant"]) < 0.85
    assert 0.88 <= np.mean(held["scaled"]) <= 0.93


@pytest.mark.parametrize("level, least", [(0.9, 9), (0.8, 4), (0.5, 1)])
def test_too_few_calibration_faces_are_refused(level, least):
    assert conformal_radius(np.ones(least), level) == 1
    with pytest.raises(ValueError) as error:
        conformal_radius(np.ones(least - 1), level)
    one_sentence(error.value, f"{least - 1} faces", f"{least} or more")


def test_a_table_is_saved_as_it_is(runs):
    save_table(pd.DataFrame({"mae": [4.5]}, index=pd.Index(["ResNet"], name="model")), "bands")
    assert (runs / "evaluation" / "bands.csv").read_text() == "model,mae\nResNet,4.5\n"
    assert [p.name for p in (runs / "evaluation").iterdir()] == ["bands.csv"]


def test_nobody_does_better_than_the_best_possible_estimate():
    rng = np.random.default_rng(0)
    ages = np.r_[rng.integers(20, 51, 4000), np.full(4000, 30)]  # 30 is common
    offsets = rng.normal(0, 2.7, len(ages))
    best = evaluation.best_possible(ages[::2], offsets[::2], (ages + offsets)[1::2])
    error = np.abs(best - ages[1::2]).mean()
    assert error < np.abs(offsets[1::2]).mean() - 0.3  # who takes the apparent age for the age does not know this
    for moved in (-1, 1):
        assert error < np.abs(best + moved - ages[1::2]).mean()


# What notebooks 07 and 08 teach in cells: their functions, as they stand there


def from_notebook(stem, *names, **given):
    """Return the functions `names` of a notebook as one namespace, which finds `given` in place of its variables."""
    cells = nbformat.read(paths.ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    tree = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert {node.name for node in found} == {*names}
    space = {"np": np, "pd": pd, "torch": torch, "cv2": cv2, "evaluation": evaluation, "models": models} | given
    exec(compile(ast.Module(found, []), stem, "exec"), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def test_a_group_that_differs_is_told_from_one_that_does_not():
    cell = from_notebook("07_evaluation", "exchange", "p_value")
    rng, people = np.random.default_rng(0), np.repeat(np.arange(60), 2)
    inside, values = people < 20, rng.normal(0, 1, 120)
    assert cell.p_value(cell.exchange(values + 2 * inside, inside, people)) < 0.01
    assert cell.p_value(cell.exchange(values, inside, people)) > 0.05
    # By hand: a person counts once, with the mean of their pictures.
    assert cell.exchange([1.0, 3, 6, 7], np.array([True, True, False, False]), [*"aabc"], 1)[0] == 2 - 6.5


def test_p_values_are_even_where_nothing_differs():
    """By person; pictures counted as people would find a difference far too often."""
    cell = from_notebook("07_evaluation", "exchange", "p_value")
    rng, people = np.random.default_rng(0), np.repeat(np.arange(30), 4)
    inside, wrong = people < 10, {"person": 0, "picture": 0}
    for _ in range(200):
        values = np.repeat(rng.normal(0, 2, 30), 4) + rng.normal(0, 1, 120)
        for unit, groups in (("person", people), ("picture", np.arange(120))):
            wrong[unit] += cell.p_value(cell.exchange(values, inside, groups, 400)) < 0.1
    assert 0.04 <= wrong["person"] / 200 <= 0.17
    assert wrong["picture"] / 200 > 0.25


def test_intervals_of_every_band_hold_in_every_band_what_others_hold_on_average():
    """Estimates that regress to the mean, as those of all networks: at the ends a constant width holds too few."""
    held, age, years = {name: [] for name in ("constant", "every band")}, {}, {}
    cell = from_notebook("07_evaluation", "every_band", age=age, years={"CNN": years}, level=0.9)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        ages = rng.integers(20, 51, 1200)
        told = 35 + 0.5 * (ages - 35) + rng.normal(0, 2.5, 1200)
        for side, values in ((age, ages), (years, told)):
            side.update({"calibrate": values[:600], "test": values[600:]})
        radius = conformal_radius(np.abs(ages - told)[:600])
        ends = {"every band": cell.every_band("CNN", "test"), "constant": (told[600:] - radius, told[600:] + radius)}
        for name, (low, high) in ends.items():
            inside = pd.Series((low <= age["test"]) & (age["test"] <= high))
            held[name].append(inside.groupby(age_bands(age["test"]), observed=True).mean())
    mean = {name: pd.concat(found, axis=1).mean(axis=1) for name, found in held.items()}
    assert mean["constant"].min() < 0.8
    assert 0.89 < mean["every band"].min()


def test_a_face_that_is_like_no_other_may_have_any_age():
    age = {"calibrate": np.repeat(np.arange(20, 51), 9)}
    years = {"CNN": {"calibrate": age["calibrate"] + 1.0, "new": np.array([30.0, 90.0])}}
    cell = from_notebook("07_evaluation", "every_band", age=age, years=years, level=0.9)
    low, high = cell.every_band("CNN", "new")  # everybody was told a year too much
    assert low.tolist() == [29, 20] and high.tolist() == [29, 50]
    age["calibrate"], years["CNN"]["calibrate"] = age["calibrate"][:45], years["CNN"]["calibrate"][:45]
    low, high = cell.every_band("CNN", "new")  # of ages over 24 nothing is known, so none is ruled out
    assert low.tolist() == [25, 25] and high.tolist() == [50, 50]


def test_the_scale_is_the_standard_deviation_of_the_distribution():
    cell = from_notebook("07_evaluation", "deviation")
    logits = torch.full((2, len(models.AGES)), -100.0)
    logits[0, [5, 15]] = 0  # 25 and 35, even
    logits[1, 3] = 0  # sure
    assert cell.deviation(logits).tolist() == pytest.approx([5.0, 0.1], abs=1e-2)  # never zero: it is divided by


def test_shifts_are_those_from_the_same_persons_baseline():
    rows = [("b", "baseline"), ("a", "light"), ("a", "baseline"), ("b", "light"), ("a", "blur")]
    factors = pd.DataFrame(rows, columns=["person", "factor"])
    calm = (factors["factor"] == "baseline").to_numpy()
    cell = from_notebook("08_robustness", "shifts_of", factors=factors, calm=calm)
    table = cell.shifts_of(np.array([40.0, 33, 30, 39, 28]))
    assert table["person"].tolist() == [*"aba"] and table["shift"].tolist() == [3, -1, -2]


def test_a_crop_is_tighter_or_looser_around_the_same_centre():
    cell = from_notebook("08_robustness", "zoomed")
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    picture[:, 32:96, 32:96] = 200  # a square of half the side
    for zoom in (0.8, 1.0, 1.4):
        side = np.sqrt((cell.zoomed(picture, zoom)[0, :, :, 0] > 100).sum())
        assert side == pytest.approx(64 * zoom, abs=1)
    assert np.array_equal(cell.zoomed(picture, 1.0), picture)


def test_only_the_square_is_covered():
    rng = np.random.default_rng(0)
    faces, mean = rng.integers(0, 128, (2, 128, 128, 3), dtype=np.uint8), np.full((128, 128, 3), 200, np.uint8)
    cell = from_notebook("08_robustness", "covered", mean_face=mean, side=32)
    before, changed = faces.copy(), cell.covered(faces, 16, 48)
    assert (changed[:, 16:48, 48:80] == 200).all() and (changed == 200).sum() == 2 * 32 * 32 * 3
    assert np.array_equal(faces, before)


def test_a_table_of_the_model_card_is_markdown():
    cell = from_notebook("08_robustness", "as_table", "with_interval")
    table = pd.DataFrame({"model": ["a"], "mae": [1.234], "mae_low": [1.0], "mae_high": [2.0], "n": [7]})
    assert cell.as_table(table[["model", "mae", "n"]]) == "| model | mae | n |\n| --- | --- | --- |\n| a | 1.23 | 7 |\n"
    groups = pd.DataFrame({"group": ["who: a|b"], "people": [5]})  # as a column of a CSV may call them
    assert cell.as_table(groups).splitlines()[2] == r"| who: a\|b | 5 |"
    assert cell.with_interval(table, "mae") == ["1.23 [1.00, 2.00]"]
