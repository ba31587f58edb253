"""Our errors on the split of UTKFace that papers use, beside theirs: `python tests/bench/published.py [RUNS …]`.

RUNS: folders that `AGE_DATA=split.csv AGES=21-60 make run SEED=…` has left, one a seed, each copied aside before the
next one. Their results are collected in tests/bench/published.csv. The table of all runs in there goes into README.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd

from helpers import paths

FILE = Path(__file__).with_name("published.csv")
# MAE as the authors give it. Parameters and what was learnt before: from their code, where it is public.
PAPERS = [
    ("CORAL, ResNet-34 (Cao et al. 2020)", "nothing", "21 million", "5.4", "", ""),
    ("MWR, VGG-16 (Shin et al. 2022)", "ImageNet", "", "4.37", "", ""),
    ("VOLO-D1 on faces (Kuprashevich and Tolstykh 2023)", "not said in its code", "26 million", "4.23", "", ""),
]
COLUMNS = ["model", "pretrained on", "parameters", "MAE, years", "95% interval", "training"]
PRETRAINED = {"face ResNet": "who is who", "compact ResNet": "who is who, and taught by the face ResNet"}


def ours(results):
    """Return the rows of our models, the best last: the mean of the MAE over runs, its deviation, `COLUMNS` as text.

    `results` has the columns run, part, model, mae, mae_low, mae_high, parameters, seconds. The interval is that of
    the first run: what other faces would have changed.
    """
    rows, found = [], results.query("part == 'test'").groupby("model")
    for model in found["mae"].mean().sort_values(ascending=False).index:
        runs = found.get_group(model)
        if runs["run"].nunique() < results["run"].nunique():
            continue  # not trained in every run
        first, deviation = runs.iloc[0], runs["mae"].std()
        mae = f"{runs['mae'].mean():.2f}" + (f" ± {deviation:.2f}" if deviation > 0.005 else "")
        interval, minutes = f"{first['mae_low']:.2f} to {first['mae_high']:.2f}", runs["seconds"].median() / 60
        before = PRETRAINED.get(model.split(",")[0], "nothing")
        trained = f"{minutes:.1f} min" if minutes else ""
        rows.append((model, before, f"{first['parameters']:,}" if first["parameters"] else "", mae, interval, trained))
    return rows


def table(results):
    """Return the table as Markdown: what papers say, then our models."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *PAPERS, *ours(results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(readme, results):
    """Put the table into the file `readme`, between `<!-- published -->` and `<!-- end -->`."""
    text = readme.read_text(encoding="utf-8")
    block = f"<!-- published -->\n{table(results)}\n<!-- end -->"
    text = re.sub(r"<!-- published -->.*?<!-- end -->", lambda _: block, text, flags=re.DOTALL)
    with paths.atomic(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    runs = [pd.read_csv(Path(folder) / "results.csv").assign(run=Path(folder).name) for folder in sys.argv[1:]]
    if FILE.exists():
        known = pd.read_csv(FILE, dtype={"run": str})
        runs = [known[~known["run"].isin([run["run"].iloc[0] for run in runs])], *runs]
    columns = ["run", "part", "model", "mae", "mae_low", "mae_high", "parameters", "seconds", "n"]
    results = pd.concat(runs)[columns].round(6)
    results.to_csv(FILE, index=False)
    write(paths.ROOT / "README.md", results)
    print(f"{results['run'].nunique()} runs: {', '.join(results['run'].unique())}\n\n{table(results)}")
    on_valid = results.query("part == 'valid'").groupby("model")["mae"].agg(["mean", "std"])
    print(f"\nValidation part\n\n{on_valid}")
