"""`AGES` sets the range of ages: labels, heads, loss, bands, figures and the run's folder follow it."""

import json
import os
import subprocess
import sys

import pytest
from faces import one_sentence

from helpers import paths

ASK = """
import json
import numpy as np, pandas as pd, torch
from helpers import evaluation, labels, models, paths, training
n = len(models.AGES)
sure = torch.full((2, n), -30.0)  # of the youngest and of the oldest age
sure[0, 0] = sure[1, -1] = 30
ends = torch.tensor([models.AGES[0], models.AGES[-1]])
print(json.dumps({
    "name": paths.data_name(),
    "tables": paths.tables_dir().relative_to(paths.ROOT).as_posix(),
    "outputs": n,
    "years": models.to_years(sure).tolist(),
    "right": training.age_loss(sure, ends).item() < training.age_loss(sure.flip(0), ends).item(),
    "bands": list(evaluation.age_bands(np.arange(labels.AGE_MIN, labels.AGE_MAX + 1)).categories),
}))
"""


def told_with(ages, code=ASK):
    """Return how Python ends that runs `code` with `AGES` set to `ages`."""
    environment = {name: value for name, value in os.environ.items() if name != "AGE_DATA"} | {"AGES": ages}
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=paths.ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "ages, name, bands",
    [
        ("20-50", "demo", ["20-24", "25-29", "30-34", "35-39", "40-44", "45-50"]),
        ("21-60", "demo-21-60", ["21-25", "26-30", "31-35", "36-40", "41-45", "46-50", "51-55", "56-60"]),
        ("18-25", "demo-18-25", ["18-25"]),
    ],
)
def test_heads_loss_bands_and_folders_follow_the_range(ages, name, bands):
    done = told_with(ages)
    assert done.returncode == 0, done.stderr
    told, (low, high) = json.loads(done.stdout), map(int, ages.split("-"))
    assert told["name"] == name
    assert told["tables"] == ("data" if name == "demo" else f"runs/{name}")  # the committed tables stay as they are
    assert told["outputs"] == high - low + 1
    assert told["years"] == pytest.approx([low, high])
    assert told["right"]
    assert told["bands"] == bands


@pytest.mark.parametrize("ages", ["abc", "50-20", "20", "20-22", "20-500", "-5-20", "20 to 50"])
def test_what_is_no_range_is_told_before_anything_runs(ages):
    whole = "import runpy; runpy.run_path('run.py', run_name='__main__')"  # which imports this first, in some seconds
    done = told_with(ages, whole if ages == "abc" else "import helpers.labels")
    assert done.returncode == 1
    one_sentence(done.stderr.strip(), ages, "AGES=21-60")


def test_ages_outside_the_range_are_set_aside_with_it_in_the_reason(tmp_path):
    code = f"""
import pandas as pd
from helpers import labels
faces = labels.find_faces({str(tmp_path)!r})
inspected = pd.DataFrame({{"path": faces["path"], "error": None, "digest": faces["path"]}})
kept, audit = labels.set_aside(faces, inspected)
print(kept["age"].tolist(), *audit["reason"], sep=";")
"""
    for age in (17, 18, 25, 26):
        (tmp_path / str(age)).mkdir()
        (tmp_path / str(age) / "a.jpg").write_bytes(b"x")
    done = told_with("18-25", code)
    assert done.stdout.startswith("[18, 25];"), done.stderr
    assert done.stdout.count("18") == 3 and done.stdout.count("25") == 3
