"""How good an estimate is: errors with intervals, the baselines beside it, what moves it, and the tables of results."""

import numpy as np
import pandas as pd
from mapie.conformity_scores import ResidualNormalisedScore
from mapie.regression import SplitConformalRegressor
from scipy.stats import permutation_test
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.metrics import mean_absolute_error, mean_squared_error
from sklearn.pipeline import make_pipeline

from .labels import AGE_MAX, AGE_MIN
from .paths import atomic, run_dir

DRAWS = 2000


def bootstrap_means(values, groups=None, draws=DRAWS) -> np.ndarray:
    """Return `draws` means of `values` `(N,)`, each of groups (people) drawn with replacement, with all their pictures.

    A picture is its own person when `groups` is omitted.
    """
    rng, groups = np.random.default_rng(0), np.arange(len(values)) if groups is None else groups
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    # Sums of each person, because joining the rows of all that were drawn takes ten times as long.
    sums, sizes = np.bincount(group, np.asarray(values, float)), np.bincount(group)
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(draws))
    return np.array([sums[people].sum() / sizes[people].sum() for people in drawn])


def metrics(true, predicted, groups=None) -> dict:
    """Return `mae` with its 95% interval `mae_low, mae_high`, `mse, rmse, cs5, bias`, in years, and `n`.

    `true`, `predicted`: years `(N,)`. `groups`: the person of each picture (a picture is its own person if omitted).
    `cs5` is the share with an error of at most 5 years; `bias` the mean of predicted − true.
    Raises `ValueError` for no pictures, lengths that differ or a number that is not finite.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    if true.shape != predicted.shape:  # (N,) − (N, 1) would quietly become (N, N)
        raise ValueError(f"{predicted.shape} predictions for {true.shape} ages: one number a picture is needed.")
    if len(true) == 0 or not np.isfinite(predicted - true).all():
        raise ValueError("No pictures, or a prediction that is not a number: the model diverged or the part is empty.")
    error = predicted - true
    _, low, high = mean_interval(np.abs(error), groups)
    mse = mean_squared_error(true, predicted)
    found = {"mae": mean_absolute_error(true, predicted), "mae_low": low, "mae_high": high}
    found |= {"mse": mse, "rmse": mse**0.5, "cs5": float((np.abs(error) <= 5).mean()), "bias": float(error.mean())}
    return found | {"n": len(true)}


def paired_difference(true, predicted, reference, groups=None):
    """Return `(difference, low, high)`: the MAE of `predicted` minus that of `reference`, with its 95% interval.

    Both are judged on the same draws of the same pictures, so what makes a face hard for both cancels out.
    """
    gap = np.abs(np.asarray(predicted) - true) - np.abs(np.asarray(reference) - true)
    return mean_interval(gap, groups)


def mean_interval(values, groups=None, draws=DRAWS):
    """Return `(mean, low, high)` of `values` `(N,)` with the 95% bootstrap interval, drawn by `groups` (people)."""
    low, high = np.quantile(bootstrap_means(values, groups, draws), [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def group_p(values, inside, people):
    """Return the p-value of a group's mean against that of all others, by exchanging people between the two.

    `values`: years `(N,)`; `inside`: whether a picture belongs to the group, the same for all pictures of a person.
    Each person counts once, with the mean of their pictures. Raises `ValueError` with fewer than two people on a side.
    """
    each = pd.DataFrame({"value": values, "inside": inside}).groupby(np.asarray(people, dtype=str)).mean()
    sides = [each["value"][each["inside"] == side].to_numpy() for side in (1, 0)]
    if min(map(len, sides)) < 2:
        raise ValueError(f"{len(sides[0])} people in the group, {len(sides[1])} outside: at least two each are needed.")

    def difference(a, b, axis):
        return a.mean(axis) - b.mean(axis)

    return float(permutation_test(sides, difference, vectorized=True, n_resamples=DRAWS, rng=0).pvalue)


def conformal_intervals(true, known, target_known, score="constant", level=0.9):
    """Return the ends `(low, high)`, years `(M,)`, of intervals that hold the true age with probability `level`.

    Split conformal prediction, by MAPIE. `known` `(N, k)`: of the calibration faces with the ages `true` `(N,)`, the
    estimate and then whatever hints at its error; `target_known` `(M, k)`: the same of new faces of the same kind.
    `score`: "constant" gives everybody the same width; "scaled" a width in proportion to the last column, positive;
    "learnt" one in proportion to the error that a linear regression of its logarithm on all columns expects, fitted on
    half of the calibration faces. Raises `ValueError` with too few faces for `level`.
    """
    least = int(np.ceil(round(1 / (1 - level), 6))) * (2 if score == "learnt" else 1)
    if len(true) < least:
        raise ValueError(f"{len(true)} calibration faces are too few for {level:.0%} intervals: take at least {least}.")
    columns = np.eye(np.shape(known)[1])
    # MAPIE wants regressors; these two return the first and the last column.
    estimate, scale = (LinearRegression(fit_intercept=False).fit(columns, column) for column in columns[[0, -1]])
    scores = {
        "constant": "absolute",
        "scaled": ResidualNormalisedScore(scale, prefit=True),
        "learnt": ResidualNormalisedScore(split_size=0.5, random_state=0),
    }
    model = SplitConformalRegressor(estimate, level, scores[score]).conformalize(known, true)
    return tuple(model.predict_interval(target_known)[1][:, :, 0].T)


def banded_intervals(true, estimate, target_estimate, level=0.9):
    """Return the ends `(low, high)`, years `(M,)`, of intervals that hold the true age with `level` in every age band.

    Label-conditional conformal prediction (Vovk et al. 2005; MAPIE has none): an age stays possible for a new face
    unless its distance from the estimate is among the outermost, (1 − level) / 2 on either side, of the calibration
    faces of that age's band. The interval spans what is possible; all ages when a face is like none of these.
    `true`, `estimate`: of the calibration faces `(N,)`; `target_estimate` `(M,)`: of new faces of the same kind.
    """
    ages, error = np.arange(AGE_MIN, AGE_MAX + 1), np.asarray(true, float) - estimate
    gap = ages - np.asarray(target_estimate, float)[:, None]
    possible = np.zeros(gap.shape, bool)
    for band in age_bands(ages).categories:
        known = np.sort(error[age_bands(np.asarray(true)) == band])
        # The new face is counted in. With too few faces nothing is known of the outermost: the ends stay open.
        cut = int(round((len(known) + 1) * (1 - level) / 2, 6))
        low, high = (known[cut - 1], known[-cut]) if cut else (-np.inf, np.inf)
        possible |= (age_bands(ages) == band) & (low <= gap) & (gap <= high)
    return ages[possible.argmax(1)], ages[::-1][possible[:, ::-1].argmax(1)]


def factor_shifts(factors, years) -> pd.DataFrame:
    """Return what each level of each factor does to an estimate, one row a level in the order of `factors`.

    `factors`: a picture a row with `person, factor, level`; each person has one with the factor "baseline", from which
    the others differ by one level. `years`: the estimates `(N,)`. Columns: `factor, level, people`, the mean `shift`
    from the baseline in years with its 95% interval `low, high`, its `spread` (standard deviation over people) and its
    `size` (mean absolute shift). Raises `ValueError` when a person has no baseline.
    """
    table = factors[["person", "factor", "level"]].assign(years=np.asarray(years, float))
    base, changed = (table[(table["factor"] == "baseline") == side] for side in (True, False))
    shift = changed["years"] - changed["person"].map(base.set_index("person")["years"])
    if shift.isna().any():
        raise ValueError(f"{changed['person'][shift.isna()].iloc[0]} has no picture with the factor baseline: add it.")
    rows = []
    for (factor, level), one in shift.groupby([changed["factor"], changed["level"]], sort=False):
        row = dict(zip(("shift", "low", "high"), mean_interval(one)), spread=one.std(), size=one.abs().mean())
        rows.append({"factor": factor, "level": level, "people": len(one), **row})
    return pd.DataFrame(rows)


def age_bands(ages, width=5):
    """Return the band of each age, "20-24" to "45-50": `width` years from the lowest age on, the last one longer."""
    edges = [*range(AGE_MIN, max(AGE_MIN + 1, AGE_MAX + 2 - width), width), AGE_MAX + 1]
    return pd.cut(ages, edges, right=False, labels=[f"{a}-{b - 1}" for a, b in zip(edges, edges[1:])])


def by_age_band(true, predicted, width=5) -> pd.DataFrame:
    """Return `n, mae, bias` for each band of `width` years of the true age."""
    error = np.asarray(predicted) - np.asarray(true)
    table = pd.DataFrame({"band": age_bands(np.asarray(true), width), "error": error, "absolute": np.abs(error)})
    bands = table.groupby("band", observed=False)
    return bands.agg(n=("error", "size"), mae=("absolute", "mean"), bias=("error", "mean"))


def pixels_ridge(images, rows, ages, target_rows) -> np.ndarray:
    """Return the ages that ridge regression on the pixels gives to `target_rows`: 32×32 grey, at most 150 PCA parts.

    The baseline without a network. `images`: uint8 `(N, 128, 128, 3)`; `ages`: years of the training `rows`.
    """

    def small(which):
        return images[which].reshape(len(which), 32, 4, 32, 4, 3).mean((2, 4, 5)).reshape(len(which), -1)

    model = make_pipeline(PCA(min(150, len(rows) - 1), svd_solver="full"), RidgeCV(10.0 ** np.arange(0, 8)))
    return model.fit(small(rows), ages).predict(small(target_rows))


def best_possible(ages, offsets, apparent) -> np.ndarray:
    """Return the estimate with the smallest expected absolute error for faces that look `apparent` years old, `(M,)`.

    Nobody can do better on the shipped faces: it knows how old each face looks, how common each age is, and how far
    looks and age lie apart, but not which way they differ for this person. It is the median of the posterior
    distribution of the age. `ages`, `offsets`: of the training faces, in years `(N,)`.
    """
    candidates, prior = np.unique(ages, return_counts=True)
    gap = np.asarray(apparent, float)[:, None] - candidates
    posterior = prior * np.exp(-(((gap - np.mean(offsets)) / np.std(offsets)) ** 2) / 2)
    return candidates[(posterior.cumsum(1) >= posterior.sum(1, keepdims=True) / 2).argmax(1)].astype(float)


def record(model: str, measured: dict, parameters=0, seconds=0.0, part="test") -> pd.DataFrame:
    """Write a model's row into `runs/<data name>/results.csv` in place of its former one, and return the table."""
    path = run_dir() / "results.csv"
    row = {"model": model, "part": part, **measured, "parameters": parameters, "seconds": round(seconds, 1)}
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    rows = {(other["model"], other["part"]): other for other in rows} | {(model, part): row}
    table = pd.DataFrame(sorted(rows.values(), key=lambda row: row["model"] == "best possible"))  # no model: last
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
    return table


def save_table(table, name):
    """Write `table` as `runs/<data name>/evaluation/<name>.csv`: what a figure shows, in numbers."""
    with atomic(run_dir() / "evaluation" / f"{name}.csv") as temporary:
        table.to_csv(temporary)
