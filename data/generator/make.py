"""Make the sets: render all pictures of the tables that are not there yet, on all cores."""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import cv2
import pandas as pd
from tqdm import tqdm

from .person import make_person
from .plan import demo_plan, factor_plan, factors_of
from .render import render

SETS = {"demo": (demo_plan, "faces.csv"), "factors": (factor_plan, "factors.csv")}


def write_atomic(path, content: bytes):
    """Write `content` to `path` so that the file is never there in part, whatever happens meanwhile."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def make_picture(root, row):
    """Render the picture of `row` (a mapping, as in the tables) and write it as a JPEG file below `root`."""
    picture = render(make_person(int(row["seed"])), row["age"], factors_of(row))
    written, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(row["quality"])])
    if not written:
        raise OSError(f"{row['path']} could not be encoded as JPEG.")
    write_atomic(Path(root) / row["path"], jpeg.tobytes())


def make_set(root, table: pd.DataFrame, name, workers):
    """Render what is missing of `table` below `root` with that many `workers`, and write the table there as `name`.

    A picture depends on its row alone, so neither the number of workers nor an interruption changes a byte.
    """
    root = Path(root)
    for folder in {root / Path(path).parent for path in table["path"]}:
        folder.mkdir(parents=True, exist_ok=True)
    for left in root.rglob(".*.part"):  # of an interrupted run
        left.unlink()
    write_atomic(root / name, table.to_csv(index=False).encode())
    missing = [row for row in table.to_dict("records") if not (root / row["path"]).exists()]
    with tqdm(total=len(table), initial=len(table) - len(missing), desc=root.name, unit="face") as bar:
        if workers == 1:
            for row in missing:
                make_picture(root, row)
                bar.update()
            return
        # Fresh processes: a fork of one in which OpenCV has started threads can hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(make_picture, root, row) for row in missing]):
                done.result()
                bar.update()


def main(arguments=None):
    """Make the sets that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m data.generator", description=__doc__)
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"which of {', '.join(SETS)}; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1], help="the folder for them")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; all cores by default")
    parser.add_argument("--first", type=int, help="only the first so many pictures of each, to try it")
    chosen = parser.parse_args(arguments)
    # One core a process: the numerics of the workers must not start threads of their own.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    for name in chosen.sets:
        plan, csv = SETS[name]
        make_set(chosen.out / name, plan().head(chosen.first) if chosen.first else plan(), csv, chosen.workers)
