"""From a folder of photos, however it is laid out, to the labels table: one row a picture with its age in years."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from .paths import age_range

try:
    AGE_MIN, AGE_MAX = age_range()  # in years; everything outside is set aside, with its reason
except ValueError as error:  # no command could catch it, since this is an import
    raise SystemExit(str(error)) from None

# How public data sets write the age and the person into the name of a file. The first that fits counts.
NAMES = {
    "UTKFace": r"(?P<age>\d{1,3})_[01]_[0-4]_\d+.*",  # 34_1_2_20170116.jpg.chip.jpg
    "IMDB-WIKI": r"(?P<person>(?:nm)?\d+)(?:_rm\d+)?_(?P<year>\d{4})-(?P<month>\d{1,2})-\d{1,2}_(?P<taken>\d{4})",
    "FG-NET": r"(?P<person>\d{3})A(?P<age>\d{2})[a-z]?",  # 001A25.JPG
    "All-Age-Faces": r"\d{5}A(?P<age>\d{2})",  # 00000A02.jpg
    "MORPH": r"(?P<person>\d{5,6})_\d*[MF](?P<age>\d{2})",  # 009055_1M54.JPG
    "AgeDB": r"\d+_(?P<person>[^\W\d].*)_(?P<age>\d{1,3})_[fm]",  # 0_MariaCallas_35_f.jpg
    "CACD": r"(?P<age>\d{1,3})_(?P<person>[^\W\d].*)_\d{4}",  # 53_Robin_Williams_0001.jpg
}
COLUMNS = {  # of a CSV, and what they are called elsewhere
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "age": ("age", "real_age"),
    "person": ("person", "identity", "subject", "person_id", "subject_id"),
    "own_part": ("part",),  # the set of a split that the CSV brings
}
RESERVED = [  # columns that the series makes: those of a CSV are called own_…
    *("format", "mode", "width", "height", "brightness", "contrast", "sharpness", "digest", "error", "reason", "why"),
    *("part", "found_person", "group", "band", "estimate", "path", "age", "person"),
]
LAYOUTS = (
    "a folder per age (<folder>/<age>/<picture>), UTKFace names ([age]_[gender]_[race]_[date].jpg), "
    "or a CSV with the columns path,age[,person]"
)
TABLES = (".csv", ".tsv", ".txt")
# Ages as 25-32, (25, 32), more than 70 or 60+
RANGE = re.compile(r"^\W*\d{1,3}\s*(?:-|–|to)\s*\d{1,3}\W*$|\(\d+,\s*\d+\)|more than|\d\+")
NO_RANGE = "a range cannot be learnt as an age: give whole years"


def find_layout(source) -> str:
    """Return how the photos in `source` tell their ages: "csv", "folders", or whose names they have, e.g. "UTKFace".

    `source`: a folder, or a CSV. CSVs at the top of a folder that have the columns `path` and `age` go first; of
    folders and names, that by which more files tell an age.
    Raises `FileNotFoundError` when `source` does not exist or holds no file, `ValueError` when nothing tells an age.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: set AGE_DATA to a folder of photos or to a CSV.")
    if source.is_file() or _tables(source):
        return "csv"
    files = _files(source)
    if not files:
        raise FileNotFoundError(f"{source} is empty: put photos there as {LAYOUTS}.")
    told = Counter(layout for file in files for layout in _told(file)[0])
    if told:
        return told.most_common(1)[0][0]
    for table in sorted(source.glob("*.[ct]sv")):
        _read_csv(table)  # the only thing that could have told the ages: says what it lacks
    ranges = f" ({NO_RANGE})" if RANGE.search(Path(files[0]).parent.name) else ""
    raise ValueError(f"Nothing in {source} tells an age, e.g. {files[0]}: lay the photos out as {LAYOUTS}{ranges}.")


def find_faces(source) -> pd.DataFrame:
    """Return every file that `source` offers, before any check: `path` (relative to the root), `age`, `person`, `why`.

    `age` is missing (NA) where it cannot be read or two sources disagree, and then `why` says in words what stands
    there. Of a CSV every row is a file, and its further columns are kept. Sorted by path, so that the table is the same
    on every machine. Raises what `find_layout` raises.
    """
    source, layout = Path(source), find_layout(source)
    if layout == "csv":
        faces = pd.concat(map(_read_csv, [source] if source.is_file() else _tables(source)), ignore_index=True)
        faces["path"] = _on_disk(faces["path"], root_of(source))
    else:
        faces = pd.DataFrame({"path": _files(source), "age": ""})
    cells = faces["age"].fillna("").str.strip()
    told = [({}, None) if pd.isna(path) else _told(path) for path in faces["path"]]
    said = pd.DataFrame([ages for ages, _ in told], faces.index, ["csv", "folders", *NAMES], float)
    if layout == "csv":
        said["csv"] = cells.map(_years).astype(float)
        # Folders of people have numbers, too: so only what agrees with the CSV for half of the files counts as telling
        # an age. IMDB-WIKI's names tell it to a year.
        agrees = (said.sub(said["csv"], axis=0).abs() < 1).sum() >= said.notna().sum() / 2
        said = said.loc[:, agrees & (agrees.index != "IMDB-WIKI")].where(said["csv"].notna())
    lowest = said.min(axis=1)
    faces["age"] = np.trunc(lowest.where(said.max(axis=1) - lowest < 1)).astype("Int64")
    unknown, faces["why"] = faces["age"].isna(), None
    rows = zip(said[unknown].to_dict("records"), faces["path"][unknown], cells[unknown])
    faces.loc[unknown, "why"] = [_why(layout, *row) for row in rows]
    if "person" not in faces:
        faces["person"] = pd.array([None if layout == "csv" else person for _, person in told], "string")
    return faces.sort_values("path", kind="stable", ignore_index=True)


def unlisted(source, faces) -> list:
    """Return the files in the folder `source` that no row of `faces` (of `find_faces`) names: its CSV left them out."""
    files = _files(Path(source)) if Path(source).is_dir() else []  # a CSV that is named itself may lie among any files
    return sorted({file for file in files if not file.lower().endswith(TABLES)} - set(faces["path"]))


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
    digest, reason = inspected["digest"].astype("string"), inspected["error"].astype("string")
    if "why" in faces:
        reason, faces = reason.fillna(faces["why"].astype("string")), faces.drop(columns="why")
    usable = faces[reason.isna()]
    same = usable.groupby(digest[usable.index])
    conflict = usable[same["age"].transform("nunique") > 1]  # few: a call for each group of a million would take long
    several = conflict.groupby(digest[conflict.index])["age"].agg(lambda ages: ", ".join(map(str, sorted(set(ages)))))
    outside = "age " + faces["age"].astype("string") + f" is outside {ages[0]} to {ages[1]}"
    copies = "identical to " + same["path"].transform("first").astype("string")
    for why in (
        "identical pictures with conflicting ages: " + digest.map(several).astype("string"),
        outside.mask(faces["age"].between(*ages)),
        copies[same.cumcount() > 0].reindex(faces.index),
    ):
        reason = reason.fillna(why)

    labels = faces[reason.isna()].reset_index(drop=True)
    audit = faces.assign(reason=reason)[reason.notna()].reset_index(drop=True)
    if labels.empty:
        example = f", e.g. {audit.path[0]}: {audit.reason[0].rstrip('.')}" if len(audit) else ""
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
    # The paths in `folder` as text, without hidden ones. A name that is not UTF-8 (an old zip) fits into no table: it
    # is written as \xe9, and `inspect` sets it aside.
    paths = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths if "/." not in f"/{path}")


def _told(path):
    # Which ages the folder and the name of a file tell, e.g. {"folders": 25, "UTKFace": 25}, and which person or None.
    *_, above, folder, name = ["", "", *path.split("/")]
    if folder in ("111", "112") and re.fullmatch(r"\d{1,3}", above):
        folder = above  # AFAD has a folder for each sex in that of the age
    told = {"folders": int(folder)} if re.fullmatch(r"\d{1,3}", folder) else {}
    for layout, form in NAMES.items():
        if match := re.fullmatch(form + r"( ?\(\d+\))?(\.\w+)*", name, re.IGNORECASE):
            found = match.groupdict()
            if layout == "IMDB-WIKI":
                if folder == found["person"][-2:]:
                    told.clear()  # that set has a folder for each end of a number, 00 to 99
                # Taken in the middle of the year, as its authors assume; so the age is known to a year.
                age = int(found["taken"]) - int(found["year"]) - (int(found["month"]) > 6)
                found["age"] = age if abs(told.get("folders", -9) - age) > 1 else told["folders"]
            return told | {layout: int(found["age"])}, found.get("person")
    return told, None


def _years(cell):
    # The number in a cell of a CSV, or None.
    with suppress(ValueError):
        if abs(years := float(cell.replace("_", "no number"))) < 1000:
            return years


def _why(layout, said, path, cell):
    # Why a file has no age: two sources disagree (`said`: which says what), or what stands where it should be.
    called = {"csv": "the CSV", "folders": "the folder"} | {names: f"the name ({names})" for names in NAMES}
    if says := [f"{called[source]} says {age:g}" for source, age in said.items() if pd.notna(age)]:
        return f"no age: {' and '.join(says)}; correct one"
    *_, folder, name = ["", *str(path).split("/")]
    if layout == "csv":
        why = f"{cell!r} in the CSV is no number of years" if cell else "its cell in the CSV is empty: fill it in"
    elif layout == "folders":
        why = f"the folder {folder!r} is no number of years" if folder else "it lies in no folder that tells an age"
    else:
        form = ", [age]_[gender]_[race]_[date]" if layout == "UTKFace" else ""
        why = f"the name {name!r} is not one of {layout}'s{form}"
    return f"no age: {why}" + (f"; {NO_RANGE}" if RANGE.search(cell if layout == "csv" else folder) else "")


def _on_disk(paths, root):
    # Paths as the disk has them, where a CSV writes them otherwise and a single file fits: with \, in other letter
    # case, with accents that are composed otherwise (macOS), beginning above the root, or without their folder.
    paths = paths.str.strip().str.replace(r"^(?:\./)+", "", regex=True).replace("", pd.NA)
    lost = [path for path in paths.dropna().unique() if not os.path.exists(root / path)]

    def key(path):
        return "/" + unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()

    ends, found = defaultdict(set), {}  # the files by each end of their paths: /20/a.jpg and /a.jpg
    for file in _files(root) if lost else ():
        for slash in re.finditer("/", key(file)):
            ends[key(file)[slash.start() :]].add(file)
    for path in lost:
        whole = key(path)
        below = whole.rpartition(key(root.resolve().name))[2]
        fits = {file for file in ends[whole] | ends[below] if key(file) in (whole, below)} or ends[whole]
        if len(fits) == 1:
            (found[path],) = fits
    return paths.map(found).astype("string").fillna(paths)


def _tables(folder):
    # The tables at the top of `folder` that have the columns `path` and `age`.
    tables = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in TABLES and file.is_file() and file.name[0] != ".":
            with suppress(ValueError):  # some other table
                _read_csv(file, nrows=0, encoding_errors="replace")
                tables.append(file)
    return tables


def _read_csv(file, **how):
    # A table with the columns `path`, `age` and whatever else it has, all as text.
    with open(file, "rb") as opened:
        start = opened.read(4096)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    separator = max(",;\t", key=start.decode(encoding, "replace").partition("\n")[0].count)
    how |= {"sep": separator, "encoding": encoding, "skipinitialspace": True}
    try:
        table = pd.read_csv(file, dtype="string", index_col=False, **how)
    except ValueError as error:  # pandas' own and UnicodeError are such
        why = f"{file} cannot be read as a CSV ({str(error).strip()})"
        raise ValueError(f"{why}: save it in UTF-8 with the header path,age[,person] and equal rows.") from error
    known, has = {column.strip().lower(): column for column in reversed(table.columns)}, ", ".join(table.columns)
    names = {column: f"own_{column}" for column in RESERVED}
    for name, others in COLUMNS.items():
        names[next((known[other] for other in others if other in known), None)] = name
    table = table.rename(columns=names)
    table = table.loc[:, ~table.columns.duplicated()]
    if missing := [name for name in ("path", "age") if name not in table]:
        ranges = f" ({NO_RANGE})" if "age" in table and table["age"].str.contains(RANGE).any() else ""
        lacks = f"{file} lacks the column {' and '.join(missing)} (it has {has})"
        raise ValueError(f"{lacks}: its header must be path,age[,person]{ranges}.")
    if separator != ",":  # so a comma is that of a fraction
        table["age"] = table["age"].str.replace(r"^\s*(\d+),(\d+)\s*$", r"\1.\2", regex=True)
    if "person" in table:  # programs write the number 7 as 7.0 where a cell of its column is empty
        table["person"] = table["person"].str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True).replace("", pd.NA)
    return table
