"""`make run` on small notebooks: what it saves, how it fails, and the table at the end."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import uuid

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import run
from helpers import labels, paths

PUBLISHED = runpy.run_path(str(paths.ROOT / "tests" / "bench" / "published.py"))


def write(folder, name, *sources):
    """Write a notebook with a code cell for each of `sources` and return its path."""
    path = folder / "notebooks" / name
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A title"), *map(new_code_cell, sources)]), path)
    return path


def printed(path):
    return [[output.get("text") for output in cell.outputs] for cell in nbformat.read(path, 4).cells[1:]]


def row(model, part="test", **other):
    return {"model": model, "part": part, "mae": 5.126, "mae_low": 4.8, "mae_high": 5.5, "mse": 40.0, "rmse": 6.32,
            "cs5": 0.567, "bias": -0.251, "n": 60, "parameters": 8778049, "seconds": 61.2} | other  # fmt: skip


def test_a_good_notebook_leaves_its_executed_copy(tmp_path, capsys, monkeypatch):
    other = tmp_path / "jupyter" / "kernels" / "python3"  # a kernel of the same name of another installation
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["/nowhere/python"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    good = write(tmp_path, "01_good.ipynb", "import os, sys", "print(sys.executable, os.getcwd())")
    before = good.read_bytes()
    run.run_all([good], tmp_path / "out")
    assert printed(tmp_path / "out" / "01_good.ipynb") == [[], [f"{sys.executable} {good.parent}\n"]]
    assert good.read_bytes() == before
    assert re.search(r"^01_good +\d+\.\d s  ok$", capsys.readouterr().out, re.MULTILINE)


def test_a_failing_notebook_is_named_with_its_cell_and_stops_the_run(tmp_path, capsys):
    bad = write(tmp_path, "02_bad.ipynb", "print('before')", "# why\n1 / 0", "print('after')")
    later = write(tmp_path, "03_later.ipynb", "print('never')")
    out = tmp_path / "out"
    (out / "figs").mkdir(parents=True)
    (out / "evaluation").mkdir()
    for stale in ("results.csv", "MODEL_CARD.md", "03_later.ipynb", "figs/old.png", "evaluation/old.csv"):
        (out / stale).write_text("of a former run")
    with pytest.raises(SystemExit) as stopped:
        run.run_all([bad, later], out)
    message = stopped.value.code  # a text: Python prints it and exits with status 1
    assert "02_bad.ipynb failed at cell [2]: # why" in message
    assert "ZeroDivisionError: division by zero" in message and "\x1b" not in message
    assert printed(out / "02_bad.ipynb")[0] == ["before\n"]
    assert re.search(r"^02_bad .* FAILED$", capsys.readouterr().out, re.MULTILINE)
    assert [file.name for file in out.rglob("*")] == ["02_bad.ipynb"]


def test_old_halves_of_killed_processes_are_cleared_away(tmp_path):
    cache = tmp_path / "out" / "cache"
    cache.mkdir(parents=True)
    old, young, mine = (cache / name for name in (f"{paths.HALF}a.npy", f"{paths.HALF}b.npy", ".settings.npy"))
    for file in (old, young, mine):
        file.touch()
    for file in (old, mine):
        os.utime(file, (1, 1))
    run.run_all([], tmp_path / "out")
    assert sorted(cache.iterdir()) == sorted([young, mine])  # a young one may belong to a process still at work


def test_another_seed_takes_the_place_of_the_one_in_the_notebook(tmp_path):
    notebook = write(tmp_path, "01_seed.ipynb", "seed = 5  # why\nother_seed = 5\nprint(seed, other_seed)")
    for seed, told in ((None, "5 5\n"), (7, "7 5\n")):
        run.run_all([notebook], tmp_path / "out", seed)
        assert printed(tmp_path / "out" / "01_seed.ipynb") == [[told]]
    seeded = [path.stem[:2] for path in run.NOTEBOOKS if re.search(r'"seed = \d+', path.read_text(encoding="utf-8"))]
    assert seeded == ["05", "06"]  # those that train


def test_a_kernel_that_dies_is_reported(tmp_path):
    dead = write(tmp_path, "01_dead.ipynb", "import os", "os._exit(9)")
    with pytest.raises(SystemExit, match=r"(?s)cell \[2\]: os\._exit.*died"):
        run.run_all([dead], tmp_path / "out")


FEW = [f"{20 + i}_0_0_2017.jpg" for i in range(30)]


@pytest.mark.parametrize("content", [None, [], ["holiday.jpg"], FEW], ids=["missing", "empty", "no ages", "few"])
def test_unusable_photos_get_one_sentence(tmp_path, monkeypatch, content):
    photos = tmp_path / "photos of no use é"
    if content is not None:
        photos.mkdir()
        for name in content:
            (photos / name).touch()
    monkeypatch.setenv("AGE_DATA", str(photos))
    with pytest.raises(SystemExit) as ended:
        run.main()
    told = ended.value.code
    assert "\n" not in told and (str(photos) in told or "30 pictures are too few" in told)
    assert not (paths.ROOT / "runs" / "photos_of_no_use_é").exists()


def test_the_command_ends_with_one_sentence_and_status_1(tmp_path):
    command = [sys.executable, paths.ROOT / "run.py"]
    missing = os.environ | {"AGE_DATA": str(tmp_path / "missing")}
    done = subprocess.run(command, env=missing, capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_the_real_photos_are_usable(real_photos):
    assert labels.find_layout(real_photos) == "folders"


def test_the_series_runs_on_a_few_other_photos(tmp_path, monkeypatch):
    """All notebooks, on forty pictures in a folder an age, of which nothing but the age is known."""
    photos = tmp_path / f"some photos {uuid.uuid4().hex}"  # a name under which nobody has results that could be lost
    for file in sorted(paths.DEMO.rglob("*.jpg"))[::99]:
        copy = photos / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    monkeypatch.setenv("AGE_DATA", str(photos))
    out = paths.run_dir()
    try:
        run.run_all(run.NOTEBOOKS, out)
        assert {"results.csv", "MODEL_CARD.md", "audit.csv", "labels.csv"} <= {file.name for file in out.iterdir()}
        results = pd.read_csv(out / "results.csv")
        assert {"median", "SimpleCNN", "ResNet-18, from scratch"} <= set(results["model"])
        assert results["mae"].between(0, 100).all()  # years, and a number
    finally:
        shutil.rmtree(out)


def test_the_table_of_results(tmp_path, capsys):
    rows = [row("median", parameters=0, seconds=0.0), row("SimpleCNN"), row("SimpleCNN", "valid", mae=4.0)]
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    run.print_results(tmp_path / "results.csv")
    test, valid = capsys.readouterr().out.split("Validation part")
    assert re.search(r"SimpleCNN +5\.13 \[4\.80, 5\.50\] +6\.32 +57% +-0\.25 +8,778,049 +61 s", test)
    assert "median" in test and "4.00" not in test
    assert "4.00" in valid and "median" not in valid


def test_publishing_replaces_notebooks_pictures_and_the_model_card(tmp_path):
    notebook = write(tmp_path, "01_good.ipynb", "print(1)")
    out, figs = tmp_path / "out", tmp_path / "figs"
    run.run_all([notebook], out)
    for folder, name in (
        (out / "figs", "new.png"),
        (out / "pics", "still.png"),
        (figs, "old.png"),
        (figs, "notes.txt"),
        (figs, "bench.png"),  # of make bench, not of a notebook
    ):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (out / "MODEL_CARD.md").write_text("# Model card")
    run.publish([notebook], out, tmp_path)
    assert (tmp_path / "MODEL_CARD.md").read_text() == "# Model card"
    assert printed(notebook) == [["1\n"]]
    assert nbformat.read(notebook, 4).metadata.language_info == {"name": "python"}
    assert sorted(file.name for file in figs.iterdir()) == ["bench.png", "new.png", "notes.txt"]
    assert (tmp_path / "pics" / "still.png").exists()


def test_every_requirement_is_exact_and_has_its_reason():
    lines = (paths.ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in wanted if not re.fullmatch(r"[\w-]+==[\d.]+  # .+", line)] == []
    hooks = (paths.ROOT / ".pre-commit-config.yaml").read_text()
    pins = dict(line.split("  #")[0].split("==") for line in wanted)
    assert all(f"rev: {prefix}{pins[name]}\n" in hooks for name, prefix in (("ruff", "v"), ("nbstripout", "")))


def test_the_table_beside_papers_is_that_of_the_stored_runs():
    results = pd.read_csv(PUBLISHED["FILE"], dtype={"run": str})
    assert results["run"].nunique() >= 3
    block = f"<!-- published -->\n{PUBLISHED['table'](results)}\n<!-- end -->"
    assert block in (paths.ROOT / "README.md").read_text(encoding="utf-8")


def test_a_model_of_the_table_beside_papers_has_mean_and_deviation_of_its_runs():
    runs = [row("face ResNet", run="1", mae=4.0, seconds=60.0), row("face ResNet", run="2", mae=4.2, seconds=120.0)]
    (told,) = PUBLISHED["ours"](pd.DataFrame([*runs, row("face ResNet", "valid", run="1", mae=9.0)]))
    assert told == ("face ResNet", "who is who", "8,778,049", "4.10 ± 0.14", "4.80 to 5.50", "1.5 min")
    (told,) = PUBLISHED["ours"](pd.DataFrame([row("median", run="1", parameters=0, seconds=0.0)]))
    assert told[1:4] == ("nothing", "", "5.13") and told[-1] == ""


def test_the_readme_gets_the_results_it_asks_for_and_keeps_the_rest(tmp_path):
    row = {"part": "test", "mae": 7.0, "mae_low": 6.0, "mae_high": 8.0, "rmse": 8.0, "cs5": 0.4}
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    row |= {"bias": -1.25, "parameters": 0, "seconds": 0, "n": 61}
    rows = [row | {"model": "median"}, row | {"model": "SimpleCNN"}]
    pd.DataFrame(rows).to_csv(tmp_path / "runs" / "demo" / "results.csv", index=False)
    readme, other = tmp_path / "README.md", "<!-- results: other test -->\nold\n<!-- end -->"
    readme.write_text(f"before\n<!-- results: demo test -->\nold\n<!-- end -->\nafter\n{other}\n")
    run.write_results(readme, tmp_path / "runs")
    text = readme.read_text()
    assert "| median | 7.00 [6.00, 8.00] |  | 40% | – | – |\n" in text
    assert re.search(r"\| SimpleCNN \| 7\.00 \[6\.00, 8\.00\] \| \d\.\d\d ± \d\.\d\d \|", text)
    assert "| 40% | – | – |\n<!-- end -->\nafter" in text  # the spread of what was trained stands beside its number
    assert text.startswith("before") and other in text
    once = text
    run.write_results(readme, tmp_path / "runs")
    assert readme.read_text() == once


def test_the_results_tell_how_far_each_model_is_above_the_best_possible(tmp_path):
    rows = {"model": ["median", "net", "best possible"], "part": "test", "mae": [7.0, 3.5, 2.0]}
    rows |= {name: 1.0 for name in ("mae_low", "mae_high", "rmse", "cs5", "bias", "parameters", "seconds", "n")}
    pd.DataFrame(rows).to_csv(tmp_path / "known.csv")
    pd.DataFrame(rows).iloc[:2].to_csv(tmp_path / "unknown.csv")
    assert run.results_table(tmp_path / "known.csv", "test")["above the best possible"].tolist() == ["5.00", "1.50", ""]
    assert "above the best possible" not in run.results_table(tmp_path / "unknown.csv", "test")
