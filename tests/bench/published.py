"""Our errors on the published split of UTKFace beside those of papers: `python tests/bench/published.py [RUNS …]`.

RUNS: folders that `AGES=21-60 AGE_DATA=<split.csv> make run SEED=…` has left, one a seed, each copied aside before the
next one. Their results are collected in tests/bench/published.csv, and the table is that of all runs in there.
"""

import sys
from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("published.csv")
PAPERS = pd.DataFrame(  # MAE as their authors give it, parameters in millions
    [
        ("CORAL, ResNet-34 (Cao et al. 2020)", "nothing", 21, "5.4"),
        ("MWR, VGG-16 (Shin et al. 2022)", "ImageNet", None, "4.37"),
        ("VOLO-D1 on faces (Kuprashevich and Tolstykh 2023, MiVOLO)", "ImageNet, then ages of IMDB", 26, "4.23"),
    ],
    columns=["model", "pretrained on", "millions of parameters", "MAE, years"],
)
PRETRAINED = {"face ResNet": "who is who in 3 million photos", "compact ResNet": "the same, and distilled"}


def ours(results):
    """Return a row for each model: its MAE on the test part over the runs, mean and standard deviation."""
    found = results.query("part == 'test'").groupby("model", sort=False)
    rows = []
    for model, runs in found:
        first, several = runs.iloc[0], f" ± {runs['mae'].std():.2f}" if runs["mae"].std() > 0.005 else ""
        rows.append(
            {
                "model": model,
                "pretrained on": PRETRAINED.get(model.split(",")[0], "nothing"),
                "millions of parameters": round(first["parameters"] / 1e6, 1) or None,
                "MAE, years": f"{runs['mae'].mean():.2f}{several} [{first['mae_low']:.2f}, {first['mae_high']:.2f}]",
                "minutes of training": round(runs["seconds"].mean() / 60, 1) or None,
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    runs = [pd.read_csv(Path(folder) / "results.csv").assign(run=Path(folder).name) for folder in sys.argv[1:]]
    if FILE.exists():
        known = pd.read_csv(FILE)
        runs = [known[~known["run"].isin([run["run"].iloc[0] for run in runs])], *runs]
    results = pd.concat(runs)[["run", "model", "part", "mae", "mae_low", "mae_high", "parameters", "seconds", "n"]]
    results.round(6).to_csv(FILE, index=False)
    table = pd.concat([PAPERS, ours(results)], ignore_index=True).fillna("").astype(str)
    print(f"{results['run'].nunique()} runs: {', '.join(results['run'].unique())}; intervals are those of the first\n")
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
