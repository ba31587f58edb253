"""The metrics against examples worked by hand, and what must hold for any numbers."""

import numpy as np
import pandas as pd
import pytest
from faces import one_sentence, toy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import evaluation
from helpers.evaluation import age_bands, bootstrap_rows, by_age_band, metrics, paired_difference, pixels_ridge, record

TRUE = [20, 30, 40, 50]
PREDICTED = [22, 30, 34, 45]  # errors +2, 0, −6, −5

years = st.floats(0, 100)
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
    groups = ["a", "b", "a", "c"]
    for rows in bootstrap_rows(groups, draws=50):
        counts = np.bincount(rows, minlength=4)
        assert counts[0] == counts[2] and counts[0] + counts[1] + counts[3] == 3


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
@given(pairs, st.integers(1, 40))
@example([(20, 0.0, 0)], 31)  # one band for everybody
def test_age_bands_hold_every_picture_once(rows, width):
    true, predicted, _ = map(np.array, zip(*rows))
    table = by_age_band(true, predicted, width)
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
