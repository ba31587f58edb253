"""Execute the notebooks in order on the photos that `AGE_DATA` names and print the table of results: `make run`.

`python run.py --refresh` does it on the faces that are shipped and, when all went well, puts the executed notebooks,
figures and pictures in the place of the committed ones: `make refresh`. `--seed N` trains with another seed than the
one that stands in each notebook.
"""

import argparse
import os
import re
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pandas as pd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

from helpers import datasets, labels, paths

NOTEBOOKS = sorted((paths.ROOT / "notebooks").glob("0*.ipynb"))
SOLUTIONS = paths.ROOT / "notebooks" / "10_solutions.ipynb"  # of the exercises, on the shipped faces
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main(refresh=False, seed=None):
    """Run every notebook, then print the results and what they cost. Exits with one sentence on unusable photos."""
    if refresh:
        os.environ.pop("AGE_DATA", None)
    try:
        faces = labels.find_faces(paths.data_dir())
        datasets.check_groups(faces["person"].fillna(faces["path"]).dropna())
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    out, started = paths.run_dir(), time.perf_counter()
    notebooks = [*NOTEBOOKS, SOLUTIONS] if refresh else NOTEBOOKS
    print(f"{len(notebooks)} notebooks on the photos in {paths.data_dir()}", flush=True)
    run_all(notebooks, out, seed)
    print_results(out / "results.csv")
    if note := datasets.people_note(datasets.read_splits()):
        print(f"\n{note}")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{minutes:.1f} minutes, {peak_memory()}, {size / 1e6:,.0f} MB on disk in {out}")
    if refresh:
        publish(notebooks, out, paths.ROOT)
        write_results(paths.ROOT / "README.md", paths.ROOT / "runs")


def run_all(notebooks, out, seed=None):
    """Execute `notebooks` one after the other and save the copies in the folder `out`.

    One line of progress each. The first that fails ends the program with status 1, its cell and its error; the copy
    up to there is saved too.
    """
    # What a former run left must not pass for a result of this one; checkpoints and caches stay.
    for stale in [out / "results.csv", out / "MODEL_CARD.md", *(out / notebook.name for notebook in notebooks)]:
        stale.unlink(missing_ok=True)
    for stale in (out / "figs", out / "pics", out / "evaluation"):
        shutil.rmtree(stale, ignore_errors=True)
    for half in out.rglob(f"{paths.HALF}*"):  # of a killed process; a young one may belong to another still at work
        with suppress(FileNotFoundError):
            if time.time() - half.stat().st_mtime > 24 * 60 * 60:
                half.unlink()
    width = max((len(notebook.stem) for notebook in notebooks), default=0)
    for notebook in notebooks:
        print(f"{notebook.stem:<{width}}", end="  ", flush=True)
        started = time.perf_counter()
        executed, failure = execute(notebook, seed)
        with paths.atomic(out / notebook.name) as temporary:
            nbformat.write(executed, temporary)
        print(f"{time.perf_counter() - started:7.1f} s  {'FAILED' if failure else 'ok'}", flush=True)
        if failure:
            sys.exit(f"\n{notebook.name} failed at {failure}\n\nExecuted up to there: {out / notebook.name}")


def execute(notebook: Path, seed=None):
    """Return the notebook in the file `notebook`, executed in a fresh kernel, and None or where and why it failed.

    `seed` takes the place of the number in its line `seed = …`, if it has one.
    """
    content, begun = nbformat.read(notebook, as_version=4), []
    for cell in content.cells:
        if cell.cell_type == "code":  # what is stored must not be taken for what this run printed
            cell.outputs, cell.execution_count = [], None
            if seed is not None:
                cell.source = re.sub(r"^seed = \d+", f"seed = {seed}", cell.source, flags=re.MULTILINE)
    client = NotebookClient(
        content,
        # No folder of kernels, so that "python3" is this interpreter and not that of another installation.
        km=AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), transport_encryption="auto"
        ),
        resources={"metadata": {"path": str(notebook.parent)}},
        timeout=None,
        record_timing=False,
        shutdown_kernel="immediate",  # all that is to stay is on the disk; a polite end takes a second or two
        coalesce_streams=True,  # only the last state of a progress bar
        on_cell_execute=lambda cell, cell_index: begun.append(cell),
    )
    try:
        client.execute(cleanup_kc=True)
    except (CellControlSignal, DeadKernelError, AssertionError) as error:  # the last is how nbclient ends at Ctrl-C
        last = COLOURS.sub("", str(error) or "Interrupted.").strip().splitlines()[-15:]
        where = f"cell [{len(begun)}]: {begun[-1].source.strip().splitlines()[0]}" if begun else "its start"
        return content, "\n".join([where, "", *last])
    return content, None


def results_table(path, part):
    """Return the rows of `part` ("test" or "valid") in the results file `path` as text, ready to be read."""
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["part"])
    rows = rows[rows["part"] == part]
    if rows.empty:
        return rows
    table = pd.DataFrame(
        {
            "model": rows["model"],
            "MAE": [f"{r.mae:.2f} [{r.mae_low:.2f}, {r.mae_high:.2f}]" for r in rows.itertuples()],
            "RMSE": rows["rmse"].map("{:.2f}".format),
            "CS@5": rows["cs5"].map("{:.0%}".format),
            "bias": rows["bias"].map("{:+.2f}".format),
            "parameters": rows["parameters"].map(lambda n: f"{n:,.0f}" if n else "–"),
            "training": rows["seconds"].map(lambda s: f"{s:,.0f} s" if s else "–"),
            "faces": rows["n"],
        }
    )
    best = rows["model"] == "best possible"
    if best.any():  # known of the shipped faces only
        above = rows["mae"] - rows.loc[best, "mae"].item()
        table.insert(2, "above the best possible", above.map("{:.2f}".format).mask(best, ""))
    return table


def print_results(path):
    """Print the table of results in the file `path`: the test part, and the validation part if it was recorded."""
    for part, name in (("test", "Test"), ("valid", "Validation")):
        table = results_table(path, part)
        if len(table):
            table["model"] = table["model"].str.ljust(table["model"].str.len().max())
            print(f"\n{name} part; errors in years, MAE with its 95% interval\n\n{table.to_string(index=False)}")


def spread(part):
    """Return, in words, mean and standard deviation of each model's MAE over trainings (tests/bench/spread.csv)."""
    runs = pd.read_csv(paths.ROOT / "tests" / "bench" / "spread.csv").query("part == @part")
    found = runs.groupby("model")["mae"].agg(["mean", "std"]).query("std >= 0.005")
    return found["mean"].map("{:.2f}".format) + found["std"].map(" ± {:.2f}".format)


def write_results(readme, runs):
    """Write the results that the file `readme` asks for (`<!-- results: NAME PART -->`) where `runs` holds that run.

    The charts of that run that it shows (`figs/NAME/…png`) are copied beside it.
    """
    text = readme.read_text(encoding="utf-8")
    for block, name, part in re.findall(r"(<!-- results: (\S+) (\w+) -->.*?<!-- end -->)", text, flags=re.DOTALL):
        table = results_table(runs / name / "results.csv", part)
        if len(table):
            table = table[["model", "MAE", "CS@5", "parameters", "training"]]
            if name == paths.DEMO.name:
                table.insert(2, "several trainings", table["model"].map(spread(part)).fillna(""))
            rows = [table.columns, ["---"] * len(table.columns), *table.astype(str).to_numpy()]
            lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
            text = text.replace(block, f"<!-- results: {name} {part} -->\n{lines}\n<!-- end -->")
    for name, file in re.findall(r"figs/(\w+)/([\w.-]+\.png)", text):
        if (runs / name / "figs" / file).exists():  # charts of other photos than the shipped ones
            with paths.atomic(readme.parent / "figs" / name / file) as temporary:
                shutil.copyfile(runs / name / "figs" / file, temporary)
    with paths.atomic(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


def publish(notebooks, out, root):
    """Put the copies, figures, pictures and model card in `out` in the place of those committed under `root`."""
    for notebook in notebooks:
        content = nbformat.read(out / notebook.name, as_version=4)
        for cell in content.cells:
            if cell.cell_type == "code":  # what is left of a progress bar is no result
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        # Versions of Python and states of widgets would differ with every machine.
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        content.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
        with paths.atomic(notebook) as temporary:
            nbformat.write(content, temporary)
    for folder in ("figs", "pics"):
        made = {file.name for file in (out / folder).glob("*.png")}
        for name in made:
            with paths.atomic(root / folder / name) as temporary:
                shutil.copyfile(out / folder / name, temporary)
        for file in (root / folder).glob("*.png"):
            if file.name not in made | {"bench.png"}:  # which make bench draws
                file.unlink()
    if (out / "MODEL_CARD.md").exists():  # notebook 08 writes it
        with paths.atomic(root / "MODEL_CARD.md") as temporary:
            shutil.copyfile(out / "MODEL_CARD.md", temporary)


def peak_memory() -> str:
    """Return, in words, the largest memory that any one kernel held."""
    try:
        import resource
    except ImportError:  # Windows
        return "peak memory unknown"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return f"peak memory {peak * (1 if sys.platform == 'darwin' else 1024) / 1e9:.1f} GB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Execute the notebooks in order and print the table of results.")
    parser.add_argument("--refresh", action="store_true", help="on the shipped faces; replace what is committed")
    parser.add_argument("--seed", type=int, help="train with this seed instead of those of the notebooks")
    asked = parser.parse_args()
    if asked.refresh and asked.seed is not None:
        parser.error("--refresh takes the seeds of the notebooks: leave --seed out")
    main(asked.refresh, asked.seed)
