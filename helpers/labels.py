"""From a folder of photos, however it is laid out, to the labels table: one row a picture with its age in years."""

import os
import re
import unicodedata
from pathlib import Path

import pandas as pd

AGE_MIN, AGE_MAX = 20, 50  # years; what the series is about. Everything outside is set aside, with its reason.

# How public data sets write the age and the person into the name of a file. The first that fits counts.
NAMES = {
    "UTKFace": r"(?P<age>\d{1,3})_[01]_[0-4]_\d+.*",  # 34_1_2_20170116.jpg.chip.jpg
    "IMDB-WIKI": r"(?:(?P<person>nm\d+)_rm)?\d+_(?P<born>\d{4}-\d{1,2}-\d{1,2})_(?P<taken>\d{4})",
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
}
RESERVED = {  # columns that the notebooks make: those of a CSV are called own_…
    *("format", "mode", "width", "height", "brightness", "contrast", "sharpness", "digest", "error", "reason", "why"),
    *("part", "found_person", "group", "band", "estimate"),
}
ADIENCE = ("landmark_aligned_face.", "coarse_tilt_aligned_face.")  # whose names tell no age
LAYOUTS = (
    "a folder per age (<folder>/<age>/<picture>), UTKFace names ([age]_[gender]_[race]_[date].jpg), "
    "or a CSV with the columns path,age[,person]"
)


def find_layout(source) -> str:
    """Return how the photos in `source` tell their ages: "csv", "folders", or whose names they have, e.g. "UTKFace".

    `source`: a folder, or a CSV. A CSV at the top of a folder that has the columns `path` and `age` goes first; of
    folders and names, that by which more files tell an age.
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
    told = pd.Series([name for file in files for name in _told(file.relative_to(source))], dtype=object)
    if len(told):
        return told.mode()[0]
    wrong = next(iter(sorted(source.glob("*.csv"))), None)
    if wrong:
        _read_csv(wrong)  # the only thing that could have told the ages: say what it lacks
    ranges = any(re.fullmatch(r"\D*\d+ ?[-–] ?\d+\D*", f.parent.name) or f.name.startswith(ADIENCE) for f in files)
    note = " Ranges of ages, as of Adience, cannot be learnt as years." if ranges else ""
    raise ValueError(f"Nothing in {source} tells an age, e.g. {files[0].name}: lay the photos out as {LAYOUTS}.{note}")


def find_faces(source) -> pd.DataFrame:
    """Return every file that `source` offers, before any check: `path` (relative to the root), `age`, `person`, `why`.

    `age` is missing (NA) where it cannot be read, and then `why` says in words what stands there instead. Further
    columns of a CSV are kept. Sorted by path, so that the table is the same on every machine. Raises what
    `find_layout` raises.
    """
    source, layout = Path(source), find_layout(source)
    if layout == "csv":
        faces = _read_csv(source if source.is_file() else _csv_of(source))
        faces["path"] = _on_disk(faces["path"], root_of(source))
        read, told = [_age_in(text) for text in faces["age"]], [{}] * len(faces)
    else:
        files = [file.relative_to(source) for file in _files(source)]
        faces = pd.DataFrame({"path": [_text(file) for file in files]})
        told = [_told(file) for file in files]
        read = [_age_of(file, found, layout) for file, found in zip(files, told)]
    faces["age"], faces["why"] = pd.array([age for age, _ in read], dtype="Int64"), [why for _, why in read]
    if "person" not in faces:
        people = [next((person for _, person in found.values() if person), None) for found in told]
        faces["person"] = pd.array(people, dtype="string")
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

    mark(faces["age"].isna(), faces["why"] if "why" in faces else "no age")
    faces = faces.drop(columns="why", errors="ignore")
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
    found = (f for f in folder.rglob("*") if f.is_file() and "/." not in "/" + f.relative_to(folder).as_posix())
    return sorted(found, key=lambda f: f.relative_to(folder).as_posix())


def _text(path):
    # A name that is not UTF-8 (an old zip) fits into no table: it is written as \xe9, and `inspect` sets it aside.
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _told(file):
    # What tells an age: "folders" or the layout of the name → (age, person or None).
    told, folders = {}, [name for name in file.parts[-3:-1] if re.fullmatch(r"\d{1,3}", name)]
    if folders and file.parts[-2] == folders[-1]:
        # AFAD has a folder for each sex, 111 and 112, inside that of the age.
        told["folders"] = int(folders[0] if folders[-1] in ("111", "112") else folders[-1]), None
    for layout, pattern in NAMES.items():
        if match := re.fullmatch(pattern + r"( ?\(\d+\))?(\.\w+)*", file.name):
            found = match.groupdict()
            if "age" in found:
                told[layout] = int(found["age"]), found.get("person")
            elif "folders" not in told:  # a photo was taken in the middle of its year, as that set's authors assume
                year, month, _ = map(int, found["born"].split("-"))
                told[layout] = int(found["taken"]) - year - (month > 6), found["person"]
            break
    return told


def _age_of(file, told, layout):
    if len(ages := {age for age, _ in told.values()}) == 1:
        return ages.pop(), None
    says = [f"the {'folder' if by == 'folders' else f'name ({by})'} says {age}" for by, (age, _) in told.items()]
    lacks = {"folders": f"the folder {file.parent.name or '.'!r} is no number of years"}
    lacks["UTKFace"] = "the name is not one of UTKFace's, [age]_[gender]_[race]_[date]"
    disagree = f"{' and '.join(says)}; correct one"
    return None, f"no age: {disagree if ages else lacks.get(layout, f'the name is not like those of {layout}')}"


def _age_in(text):
    # A cell of a CSV. Fractions count as the years completed, as people count them: 34.9 is 34.
    if pd.isna(text) or not text.strip():
        return None, "no age in the CSV: fill it in"
    try:
        return int(float(text) // 1), None
    except (ValueError, OverflowError):
        ranges = re.fullmatch(r"\D*\d+\s*(-|–|,|to)\s*\d+\D*", text)
        return None, f"no age: {text!r} in the CSV is no number of years" + (" but a range, perhaps" if ranges else "")


def _on_disk(paths, root):
    # Paths as the disk has them, where a CSV writes them otherwise: with \, in other letter case, or with accents that
    # are composed otherwise (macOS).
    paths = paths.str.strip().replace("", pd.NA)
    lost = [path for path in paths.dropna().unique() if not (root / path).exists()]
    known = pd.Series([_text(file.relative_to(root)) for file in _files(root)] if lost else [], dtype=object)
    keys = known.map(_key)
    known = known.set_axis(keys)[~keys.duplicated(keep=False).to_numpy()]  # what two files share tells neither
    return paths.replace({path: known[_key(path)] for path in lost if _key(path) in known.index})


def _key(path):
    return unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()


def _csv_of(folder):
    for file in sorted(folder.glob("*.csv")):
        try:
            header = pd.read_csv(file, nrows=0, encoding="utf-8-sig", encoding_errors="replace", skipinitialspace=True)
        except (pd.errors.ParserError, pd.errors.EmptyDataError):
            continue  # some other table; where nothing else tells the ages, `find_layout` says what it lacks
        if {"path", "age"} <= set(_named(header.columns)):
            return file
    return None


def _named(columns):
    # The columns as the series calls them: what others call them, and own ones whose names the notebooks need.
    known = {column.strip().lower(): column for column in reversed(columns)}
    new = {next((known[name] for name in names if name in known), None): column for column, names in COLUMNS.items()}
    return [new.get(column, f"own_{column}" if column in RESERVED else column) for column in columns]


def _read_csv(file):
    try:
        table = pd.read_csv(file, dtype="string", encoding="utf-8-sig", skipinitialspace=True, index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        why = f"{file} cannot be read as a CSV ({str(error).strip()})"
        raise ValueError(f"{why}: save it in UTF-8 with the header path,age[,person] and equal rows.") from error
    has, table.columns = ", ".join(table.columns), _named(table.columns)
    if "person" in table:  # pandas and Excel write 1 as 1.0 where others are missing
        table["person"] = table["person"].str.replace(r"^(\d+)\.0$", r"\1", regex=True)
    if missing := [name for name in ("path", "age") if name not in table]:
        lacks = f"{file} lacks the column {' and '.join(missing)} (it has {has})"
        raise ValueError(f"{lacks}: its header must be path,age[,person].")
    return table
