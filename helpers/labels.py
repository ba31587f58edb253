"""From a folder of photos, however it is laid out, to the labels table: one row a picture with its age in years."""

import os
import re
from pathlib import Path

import pandas as pd

AGE_MIN, AGE_MAX = 20, 50  # years; what the series is about. Everything outside is set aside, with its reason.

PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
UTKFACE = re.compile(r"(\d{1,3})_[01]_[0-4]_\d+")  # [age]_[gender]_[race]_[date]
LAYOUTS = (
    "a folder per age (<folder>/<age>/<picture>), UTKFace names ([age]_[gender]_[race]_[date].jpg), "
    "or a CSV with the columns path,age[,person]"
)


def find_layout(source) -> str:
    """Return how the photos in `source` tell their ages: "csv", "folders" or "utkface", found by looking.

    `source`: a folder, or a CSV. A CSV at the top of a folder that has the columns `path` and `age` goes first.
    Raises `FileNotFoundError` when `source` does not exist or holds no file, `ValueError` when nothing tells an age.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: set AGE_DATA to a folder of photos or to a CSV.")
    if source.is_file() or _csv_of(source):
        return "csv"
    files = _files(source)
    if not files:
        raise FileNotFoundError(f"{source} is empty: put photos there as {LAYOUTS}.")
    if any(_folder_age(file) is not None for file in files):
        return "folders"
    if any(UTKFACE.match(file.name) for file in files):
        return "utkface"
    wrong = next(iter(sorted(source.glob("*.csv"))), None)
    if wrong:
        _read_csv(wrong)  # the only thing that could have told the ages: say what it lacks
    raise ValueError(f"Nothing in {source} tells an age, e.g. {files[0].name}: lay the photos out as {LAYOUTS}.")


def find_faces(source) -> pd.DataFrame:
    """Return every file that `source` offers, before any check: `path` (relative to the root), `age`, `person`, …

    `age` is missing (NA) where it cannot be read. Further columns of a CSV are kept. Sorted by path, so that
    the table is the same on every machine. Raises what `find_layout` raises.
    """
    source, layout = Path(source), find_layout(source)
    if layout == "csv":
        faces = _read_csv(source if source.is_file() else _csv_of(source))
        # Fractions count as the years completed, as people count them: 34.9 is 34.
        faces["age"] = pd.to_numeric(faces["age"], errors="coerce").floordiv(1).astype("Int64")
    else:
        files = _files(source)
        read = _folder_age if layout == "folders" else _name_age
        faces = pd.DataFrame({"path": [_text(f.relative_to(source)) for f in files]})
        faces["age"] = pd.array([read(f) for f in files], dtype="Int64")
    if "person" not in faces:
        faces["person"] = pd.NA
    return faces.sort_values("path", kind="stable", ignore_index=True)


def root_of(source) -> Path:
    """The folder that the paths of the labels table are relative to."""
    return Path(source).parent if Path(source).is_file() else Path(source)


def set_aside(faces, inspected, ages=(AGE_MIN, AGE_MAX)):
    """Return `(labels, audit)`: the faces that can be used, and the others with a `reason` each.

    `faces`: from `find_faces`. `inspected`: from `images.inspect`, the same rows: `error` (text or NA) and `digest`
    (equal for pictures with equal pixels). `ages`: the first and the last age that is kept, in years.
    Of identical pictures with one age the first is kept; with conflicting ages none is, since nobody knows which holds.
    Raises `ValueError` when nothing is left, or only one age.
    """
    reason = inspected["error"].astype("object").where(inspected["error"].notna(), None)

    def mark(where, why):
        where = where & reason.isna()
        reason[where] = why[where] if isinstance(why, pd.Series) else why

    mark(faces["age"].isna(), "no age: neither the folder, the name nor the CSV tells a number of years")
    usable = faces[reason.isna()]
    same = usable.groupby(inspected["digest"][usable.index])
    first = same["path"].transform("first").astype(object)
    conflict = usable[same["age"].transform("nunique") > 1]  # few: a call for each group of a million would take long
    told = conflict.groupby(inspected["digest"][conflict.index])["age"].agg(
        lambda a: "identical pictures with conflicting ages: " + ", ".join(map(str, sorted(set(a))))
    )
    told = inspected["digest"].map(told)
    mark(told.notna(), told)
    out = (faces["age"] < ages[0]) | (faces["age"] > ages[1])
    mark(out.fillna(False), "age " + faces["age"].astype("string") + f" is outside {ages[0]} to {ages[1]}")
    mark(faces.index.isin(usable.index[same.cumcount() > 0]), "identical to " + first)

    labels = faces[reason.isna()].reset_index(drop=True)
    audit = faces.assign(reason=reason)[reason.notna()].reset_index(drop=True)
    if labels.empty:
        example = f", e.g. {audit.path[0]}: {audit.reason[0]}" if len(audit) else ""
        raise ValueError(f"No picture can be used: all {len(audit)} were set aside{example}.")
    if labels["age"].min() == labels["age"].max():
        only = f"All {len(labels)} usable pictures show the age {labels['age'][0]}"
        raise ValueError(f"{only}: add photos of at least one other age.")
    return labels.astype({"age": "int64"}), audit


def read_labels(path) -> pd.DataFrame:
    """Read a labels table or one set of the split, with `age` as whole years and `person` as text."""
    text = dict.fromkeys(("path", "person", "found_person"), "string")
    return pd.read_csv(path, dtype=text | {"age": "int64"}, encoding="utf-8")


def _files(folder):
    found = (f for f in folder.rglob("*") if f.is_file() and "/." not in "/" + f.relative_to(folder).as_posix())
    return sorted(found, key=lambda f: f.relative_to(folder).as_posix())


def _text(path):
    # A name that is not UTF-8 (an old zip) fits into no table: it is written as \xe9, and `inspect` sets it aside.
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _folder_age(file):
    return int(file.parent.name) if re.fullmatch(r"\d{1,3}", file.parent.name) else None


def _name_age(file):
    match = UTKFACE.match(file.name)
    return int(match[1]) if match else None


def _csv_of(folder):
    for file in sorted(folder.glob("*.csv")):
        try:
            header = pd.read_csv(file, nrows=0, encoding="utf-8-sig", encoding_errors="replace", skipinitialspace=True)
        except (pd.errors.ParserError, pd.errors.EmptyDataError):
            continue  # some other table; where nothing else tells the ages, `find_layout` says what it lacks
        if {"path", "age"} <= set(header.columns):
            return file
    return None


def _read_csv(file):
    try:
        table = pd.read_csv(file, dtype="string", encoding="utf-8-sig", skipinitialspace=True, index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        why = f"{file} cannot be read as a CSV ({str(error).strip()})"
        raise ValueError(f"{why}: save it in UTF-8 with the header path,age[,person] and equal rows.") from error
    missing = [name for name in ("path", "age") if name not in table]
    if missing:
        has = ", ".join(table.columns)
        lacks = f"{file} lacks the column {' and '.join(missing)} (it has {has})"
        raise ValueError(f"{lacks}: its header must be path,age[,person].")
    return table
