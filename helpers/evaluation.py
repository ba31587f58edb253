"""How good an estimate is: errors with intervals, the baselines beside it, and the tables of results."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline

from .labels import AGE_MAX, AGE_MIN
from .paths import atomic, run_dir


def bootstrap_means(values, groups=None, draws=2000) -> np.ndarray:
    """Return `draws` means of `values` `(N,)`: of `groups` (people) drawn with replacement, with all their pictures.

    A picture is its own group if omitted. Source: Field and Welsh 2007, the cluster bootstrap.
    """
    rng, groups = np.random.default_rng(0), np.arange(len(values)) if groups is None else groups
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    # Sums of each person: joining the rows of all that were drawn takes ten times as long.
    sums, sizes = np.bincount(group, np.asarray(values, float)), np.bincount(group)
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(draws))
    return np.array([sums[people].sum() / sizes[people].sum() for people in drawn])


def mean_interval(values, groups=None, draws=2000):
    """Return `(mean, low, high)` of `values` `(N,)` with the 95% bootstrap interval, drawn by `groups` (people)."""
    low, high = np.quantile(bootstrap_means(values, groups, draws), [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def metrics(true, predicted, groups=None) -> dict:
    """Return `mae` with its 95% interval `mae_low, mae_high`, `mse, rmse, cs5, bias` and `n`.

    `true`, `predicted`: years `(N,)`. `groups`: the person of each picture. `cs5`: the share with an error of at most
    5 years; `bias`: the mean of predicted − true. Raises `ValueError` for what cannot be judged.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    if true.shape != predicted.shape:  # (N,) − (N, 1) would quietly become (N, N)
        raise ValueError(f"{predicted.shape} predictions for {true.shape} ages: one number a picture is needed.")
    error = predicted - true
    if len(true) == 0 or not np.isfinite(error).all():
        raise ValueError("No pictures, or a prediction that is not a number: the model diverged or the set is empty.")
    mae, low, high = mean_interval(np.abs(error), groups)
    mse, cs5 = float((error**2).mean()), float((np.abs(error) <= 5).mean())
    found = {"mae": mae, "mae_low": low, "mae_high": high, "mse": mse, "rmse": mse**0.5, "cs5": cs5}
    return found | {"bias": float(error.mean()), "n": len(true)}


def paired_difference(true, predicted, reference, groups=None):
    """Return `(difference, low, high)`: MAE of `predicted` − MAE of `reference`, years, with its 95% interval."""
    # Face by face, so that what makes a face hard for both cancels out.
    return mean_interval(np.abs(np.asarray(predicted) - true) - np.abs(np.asarray(reference) - true), groups)


def conformal_radius(absolute_errors, level=0.9) -> float:
    """Return the half width, years, of intervals that hold the age of a new face with probability `level`.

    It is the ⌈(N + 1) · level⌉-th smallest of `absolute_errors` `(N,)`, of faces that taught and chose nothing. Raises
    `ValueError` when they are too few. Source: Vovk et al. 2005; Lei et al. 2018, split conformal prediction.
    """
    errors = np.sort(np.asarray(absolute_errors, float))
    rank = int(np.ceil(round((len(errors) + 1) * level, 9)))  # 0.9 has no exact binary form: 9.000000001 is meant as 9
    if rank > len(errors):
        least = int(np.ceil(round(level / (1 - level), 9)))
        raise ValueError(f"{len(errors)} faces are too few for {level:.0%} intervals: calibrate on {least} or more.")
    return float(errors[rank - 1])


def age_bands(ages):
    """Return the band of each age, "20-24" to "45-50": five years from the lowest age on, the last one longer."""
    edges = [*range(AGE_MIN, AGE_MAX - 3, 5), AGE_MAX + 1]
    return pd.cut(ages, edges, right=False, labels=[f"{a}-{b - 1}" for a, b in zip(edges, edges[1:])])


def by_age_band(true, predicted) -> pd.DataFrame:
    """Return `n, mae, bias` for each of the `age_bands` of the true age."""
    error = np.asarray(predicted) - np.asarray(true)
    table = pd.DataFrame({"band": age_bands(np.asarray(true)), "error": error, "absolute": np.abs(error)})
    bands = table.groupby("band", observed=False)
    return bands.agg(n=("error", "size"), mae=("absolute", "mean"), bias=("error", "mean"))


def pixels_ridge(images, rows, ages, target_rows) -> np.ndarray:
    """Return the ages that ridge regression gives to `target_rows` by 32×32 grey pixels, in at most 150 PCA parts.

    `images`: uint8 `(N, 128, 128, 3)`; `ages`: years of the training `rows`.
    """
    squares = (images[which].reshape(-1, 32, 4, 32, 4, 3) for which in (rows, target_rows))
    small, target = (square.mean((2, 4, 5)).reshape(-1, 32 * 32) for square in squares)
    model = make_pipeline(PCA(min(150, len(rows) - 1), svd_solver="full"), RidgeCV(10.0 ** np.arange(0, 8)))
    return model.fit(small, ages).predict(target)


def best_possible(ages, offsets, apparent) -> np.ndarray:
    """Return the estimate with the smallest expected absolute error for faces that look `apparent` years old, `(M,)`.

    It knows how old each face looks, how common each age is, and how far looks and age lie apart: the median of the
    posterior distribution of the age. `ages`, `offsets`: of the training faces, in years `(N,)`.
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
