"""What another processor or seed does to the results: `python tests/bench/spread.py [RUNS …]` prints the spread.

RUNS: folders that `make run` has left, one a run (`runs/demo`, copied aside before the next one). Their results are
collected in tests/bench/spread.csv, and the table is that of all runs in there.
"""

import sys
from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("spread.csv")


def results_of(folder):
    """Return the MAE of every model of a run: `run, model, part, mae`."""
    table = pd.read_csv(folder / "results.csv")[["model", "part", "mae"]]
    shipped = pd.read_csv(folder / "evaluation" / "size_and_speed.csv").query("runtime == 'ONNX INT8'")
    shipped = shipped.assign(model=shipped["model"] + ", INT8", part="test")[["model", "part", "mae"]]
    return pd.concat([table, shipped]).assign(run=folder.name)


def spread(table):
    """Return mean, standard deviation and range of the MAE over runs of what was trained, one row a model and part."""
    found = table.groupby(["part", "model"], sort=False)["mae"].agg(["count", "mean", "std", "min", "max"])
    return found[found["std"] > 0]  # the others have no random number


if __name__ == "__main__":
    tables = [results_of(Path(folder)) for folder in sys.argv[1:]]
    if FILE.exists():
        known = pd.read_csv(FILE)
        tables = [known[~known["run"].isin([table["run"].iloc[0] for table in tables])], *tables]
    table = pd.concat(tables)[["run", "part", "model", "mae"]].round(6)
    table.to_csv(FILE, index=False)
    print(f"{table['run'].nunique()} runs: {', '.join(table['run'].unique())}")
    print(spread(table).round(2).to_string())
