"""How far the tests' limits of trained numbers lie from luck: `python tests/bench/margins.py [SEEDS]`.

The same trainings as in the tests, with SEEDS seeds (5) on each kind of processor that this one can act as. Ends with
status 1 where a limit is nearer than five standard deviations.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd
import test_export
import test_training

KINDS = ("", "AVX2")  # of processors: as it is, and without bfloat16 and AVX-512


def eight_bits(folder, seed):
    cost, span = test_export.cost_of_eight_bits(folder, *test_export.learn(folder, seed))
    return {"eight bits cost, years": cost, "their answers span, 1/years": 1 / span}


def measured(folder, seed):
    """Return the trained numbers of the tests, by name, for one seed."""
    few = {f"few steps, {n} outputs": test_training.few_steps(folder / f"few{n}", n, seed)[1] for n in (1, 31)}
    taught = {
        f"taught, {n} outputs": test_training.nearer_to_the_teacher(folder / f"taught{n}", n, seed) for n in (1, 31)
    }
    overfitted = {"overfitted, years": test_training.overfitted(folder / "overfitted", seed)[0]}
    return few | taught | eight_bits(folder, seed) | overfitted


LIMITS = {f"few steps, {n} outputs": test_training.FEW_STEPS for n in (1, 31)}
LIMITS |= {f"taught, {n} outputs": test_training.TAUGHT for n in (1, 31)}
LIMITS |= {"eight bits cost, years": test_export.EIGHT_BITS, "their answers span, 1/years": 1}
LIMITS |= {"overfitted, years": test_training.OVERFITTED}


def main(seeds):
    """Measure everything in a process for each kind of processor and seed, and print the table."""
    rows = []
    for kind in KINDS:
        for seed in range(seeds):
            environment = os.environ | ({"ONEDNN_MAX_CPU_ISA": kind} if kind else {})
            line = [sys.executable, __file__, "--one", str(seed)]
            ended = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(eval(ended.stdout.strip().splitlines()[-1]))
            print(kind or "as it is", seed, {name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows).agg(["mean", "std", "max"]).T
    table["limit"] = pd.Series(LIMITS)
    table["standard deviations"] = (table["limit"] - table["mean"]) / table["std"]
    print(table.round(3).to_string())
    if (table["standard deviations"] < 5).any():
        sys.exit("Too near to luck: " + ", ".join(table.index[table["standard deviations"] < 5]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        with tempfile.TemporaryDirectory() as folder:
            print({name: float(value) for name, value in measured(Path(folder), int(sys.argv[2])).items()})
    else:
        main(int((sys.argv[1:] or ["5"])[0]))
