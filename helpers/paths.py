"""Where things are, and of which ages. `AGE_DATA` names the photos (unset: `data/demo`), `AGES` the ages (20-50)."""

import hashlib
import os
import re
import uuid
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "data" / "demo"
HALF = ".age-half-"  # how the name of a file begins that is not whole yet


def data_dir() -> Path:
    """The folder of photos (or the CSV that lists them) that `AGE_DATA` names; `data/demo` when it is unset."""
    named = os.environ.get("AGE_DATA", "").strip()
    # A relative path is meant from where `make` was called (the root), not from the notebook's own folder.
    return (ROOT / os.path.expanduser(named)).resolve() if named else DEMO


def age_range() -> tuple:
    """The youngest and oldest age in whole years that the series is about, from `AGES`, e.g. `21-60`. Else 20 and 50.

    Raises `ValueError` with the remedy when `AGES` is no such range.
    """
    named = os.environ.get("AGES", "").strip() or "20-50"
    ends = re.fullmatch(r"(\d{1,2})-(\d{1,3})", named)
    if not ends or int(ends[2]) - int(ends[1]) < 5 or int(ends[2]) > 120:
        raise ValueError(
            f"AGES={named} is no range of ages: give two whole years, five or more apart, e.g. AGES=21-60."
        )
    return int(ends[1]), int(ends[2])


def is_demo() -> bool:
    """Whether the notebooks run on the faces that are shipped."""
    return data_dir() == DEMO


def data_name() -> str:
    """A name for the photos that is safe in a path: the last part of `AGE_DATA`, e.g. `utkface`.

    Another folder of the same name, or one that was moved, is called `utkface-` and six digits of a hash of its path.
    Other ages than 20 to 50 have a name and a run of their own, e.g. `utkface-21-60`.
    """
    source = data_dir()
    name = re.sub(r"[^\w.-]+", "_", source.stem if source.suffix == ".csv" else source.name)
    if name == DEMO.name:
        name = name if is_demo() else f"{name}-own"
    if age_range() != (20, 50):
        name = "{}-{}-{}".format(name, *age_range())
    known = ROOT / "runs" / name / "source.txt"
    if known.exists() and known.read_bytes() != os.fsencode(source):
        return f"{name}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:6]}"
    return name


def run_dir(part="") -> Path:
    """`runs/<data name>`, or its folder `part`, made if need be: figures, checkpoints and caches of these photos."""
    folder = ROOT / "runs" / data_name()
    (folder / part).mkdir(parents=True, exist_ok=True)
    if not is_demo() and not (folder / "source.txt").exists():
        (folder / "source.txt").write_bytes(os.fsencode(data_dir()))
    return folder / part


def figs_dir() -> Path:
    """Where the notebooks save figures. `make refresh` copies those of the demo to `figs/`."""
    return run_dir("figs")


def pics_dir() -> Path:
    """Where the notebooks save diagrams and stills. `make refresh` copies those of the demo to `pics/`."""
    return run_dir("pics")


def tables_dir() -> Path:
    """Where `labels.csv` and `splits/` live: `data/` for the shipped faces (committed), else the run's folder."""
    return ROOT / "data" if data_name() == DEMO.name else run_dir()


@contextmanager
def atomic(path):
    """Yield a temporary name beside `path` and move it there when the block ends well; a half file never stays.

    A killed process leaves one hidden file, whose name begins with `HALF`; `run.py` removes those.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each writer has its own name. The suffix stays last, because many writers choose the format by it.
    temporary = path.with_name(f"{HALF}{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def need(path, made_by: str) -> Path:
    """Return `path`, or raise `FileNotFoundError` that names the notebook `made_by` which writes it."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{Path(path).name} is not there yet: run notebook {made_by} first (it writes {path}).")
    return Path(path)
