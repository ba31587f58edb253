"""From a folder of photos, however it is laid out, to the labels table: one row a picture with its age in years."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pandas as pd

from .paths import age_range

try:
    AGE_MIN, AGE_MAX = age_range()  # in years; everything outside is set aside, with its reason
except ValueError as error:  # no command could catch it, since this is an import
    raise SystemExit(str(error)) from None

# How public data sets write the age and the person into the name of a file. The first that fits counts.
NAMES = {
    "UTKFace": r"(?P<age>\d{1,3})_[01]_[0-4]_\d+.*",  # 34_1_2_20170116.jpg.chip.jpg
    "IMDB-WIKI": r"(?P<person>(?:nm)?\d+)(?:_rm\d+)?_(?P<born>\d{4}-\d{1,2})-\d{1,2}_(?P<taken>\d{4})",
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
    told = Counter(layout for file in files for layout in _told(file.relative_to(source))[0])
    if told:
        return told.most_common(1)[0][0]
    for table in _tables(source, {"age"}) or sorted(source.glob("*.csv")):
        _read_csv(table)  # the only thing that could have told the ages: say what it lacks
    ranges = f" ({NO_RANGE})" if RANGE.search(files[0].parent.name) else ""
    raise ValueError(
        f"Nothing in {source} tells an age, e.g. {files[0].name}: lay the photos out as {LAYOUTS}{ranges}."
    )


def find_faces(source) -> pd.DataFrame:
    """Return every file that `source` offers, before any check: `path` (relative to the root), `age`, `person`, `why`.

    `age` is missing (NA) where it cannot be read or two sources disagree, and then `why` says in words what stands
    there. Of a CSV every row is a file, and its further columns are kept. Sorted by path, so that the table is the same
    on every machine. Raises what `find_layout` raises.
    """
    source, layout = Path(source), find_layout(source)
    if layout == "csv":
        tables = [_read_csv(file) for file in ([source] if source.is_file() else _tables(source))]
        faces = pd.concat(tables, ignore_index=True)
        faces["path"] = _on_disk(faces["path"], root_of(source))
        read, people = _compare(faces["path"], [_age_in(text) for text in faces["age"]]), [None] * len(faces)
    else:
        files = [file.relative_to(source) for file in _files(source)]
        faces = pd.DataFrame({"path": [_text(file) for file in files]})
        told, people = zip(*map(_told, files))
        read = [_settle(found) if found else _untold(file, layout) for file, found in zip(files, told)]
    faces["age"], faces["why"] = pd.array([age for age, _ in read], dtype="Int64"), [why for _, why in read]
    if "person" not in faces:
        faces["person"] = pd.array(people, dtype="string")
    return faces.sort_values("path", kind="stable", ignore_index=True)


def unlisted(source, faces) -> list:
    """Return the files in the folder `source` that no row of `faces` (of `find_faces`) names: its CSV left them out."""
    files = _files(Path(source)) if Path(source).is_dir() else []  # a CSV that is named itself may lie among any files
    names = {_text(file.relative_to(source)) for file in files if file.suffix.lower() not in TABLES}
    return sorted(names - set(faces["path"]))


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
    digest, reason = inspected["digest"], inspected["error"].astype("object").where(inspected["error"].notna(), None)

    def mark(where, why):
        where = where & reason.isna()
        reason[where] = why[where] if isinstance(why, pd.Series) else why

    mark(faces["age"].isna(), faces["why"] if "why" in faces else "no age")
    faces = faces.drop(columns="why", errors="ignore")
    usable = faces[reason.isna()]
    same = usable.groupby(digest[usable.index])
    first = same["path"].transform("first").astype(object)
    conflict = usable[same["age"].transform("nunique") > 1]  # few: a call for each group of a million would take long
    several = conflict.groupby(digest[conflict.index])["age"].agg(lambda a: ", ".join(map(str, sorted(set(a)))))
    told = "identical pictures with conflicting ages: " + digest.map(several).astype(object)
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
    # Which ages the folder and the name of `file` tell, e.g. {"folders": 25, "UTKFace": 25}, and which person or None.
    told, folder = {}, file.parent
    if folder.name in ("111", "112") and re.fullmatch(r"\d{1,3}", folder.parent.name):
        folder = folder.parent  # AFAD has a folder for each sex in that of the age
    if re.fullmatch(r"\d{1,3}", folder.name):
        told["folders"] = int(folder.name)
    end = r"( ?\(\d+\))?(\.\w+)*"
    fits = {layout: re.fullmatch(form + end, file.name, re.IGNORECASE) for layout, form in NAMES.items()}
    layout, match = next(((layout, match) for layout, match in fits.items() if match), (None, None))
    if not match:
        return told, None
    found = match.groupdict()
    if layout == "IMDB-WIKI":
        if folder.name == found["person"][-2:]:
            told.clear()  # that set has a folder for each end of a number, 00 to 99
        year, month = map(int, found["born"].split("-"))
        age = int(found["taken"]) - year - (month > 6)  # taken in the middle of the year, as its authors assume,
        found["age"] = age if abs(told.get("folders", -9) - age) > 1 else told["folders"]  # so known to a year
    return told | {layout: int(found["age"])}, found.get("person")


def _settle(told):
    # The age on which all sources agree to less than a year, or why there is none.
    if max(told.values()) - min(told.values()) < 1:
        return int(min(told.values())), None
    says = {"csv": "the CSV", "folders": "the folder"} | {name: f"the name ({name})" for name in NAMES}
    return None, f"no age: {' and '.join(f'{says[source]} says {age:g}' for source, age in told.items())}; correct one"


def _compare(paths, read):
    # The ages of a CSV, less those that contradict what folders or names tell. Folders of people have numbers, too: so
    # only what agrees with the CSV for half of the files counts as telling an age. IMDB-WIKI's names tell it to a year.
    told = [{} if pd.isna(path) else _told(PurePosixPath(path))[0] for path in paths]
    agrees = defaultdict(list)
    for found, (age, _) in zip(told, read):
        for layout, said in found.items():
            agrees[layout].append(age is not None and abs(said - age) < 1)
    counts = {layout for layout, same in agrees.items() if 2 * sum(same) >= len(same)} - {"IMDB-WIKI"}
    return [
        (age, why) if age is None else _settle({"csv": age} | {name: found[name] for name in found if name in counts})
        for found, (age, why) in zip(told, read)
    ]


def _untold(file, layout):
    folder = file.parent.name
    why = f"the folder {folder!r} is no number of years" if folder else "it lies in no folder that tells an age"
    if layout != "folders":
        form = ", [age]_[gender]_[race]_[date]" if layout == "UTKFace" else ""
        why = f"the name {file.name!r} is not one of {layout}'s{form}"
    return None, f"no age: {why}" + (f"; {NO_RANGE}" if RANGE.search(folder) else "")


def _age_in(text):
    # A cell of a CSV as `(years, None)`, or `(None, why)`.
    if pd.isna(text) or not text.strip():
        return None, "no age in the CSV: fill it in"
    with suppress(ValueError):
        if abs(years := float(text.replace("_", "no number"))) < 1000:
            return years, None
    return None, f"no age: {text!r} in the CSV is no number of years" + (f"; {NO_RANGE}" if RANGE.search(text) else "")


def _on_disk(paths, root):
    # Paths as the disk has them, where a CSV writes them otherwise and a single file fits: with \, in other letter
    # case, with accents that are composed otherwise (macOS), beginning above the root, or without their folder.
    paths = paths.str.strip().str.replace(r"^(?:\./)+", "", regex=True).replace("", pd.NA)
    lost = [path for path in paths.dropna().unique() if not os.path.exists(root / path)]

    def key(path):
        return "/" + unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()

    known, found = {}, {}
    for file in _files(root) if lost else ():
        known.setdefault(key(_text(file).rpartition("/")[2]), []).append(_text(file.relative_to(root)))
    for path in lost:
        whole, named = key(path), known.get("/" + key(path).rpartition("/")[2], [])
        below = whole.rpartition(key(root.resolve().name))[2]
        fits = [name for name in named if key(name) in (whole, below)] or [n for n in named if key(n).endswith(whole)]
        if len(fits) == 1:
            found[path] = fits[0]
    return paths.map(found).astype("string").fillna(paths)


def _tables(folder, columns=frozenset({"path", "age"})):
    # The tables at the top of `folder` that have these columns.
    tables = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in TABLES and file.is_file() and file.name[0] != ".":
            with suppress(pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError):  # some other table
                if columns <= set(_named(pd.read_csv(file, nrows=0, encoding_errors="replace", **_form(file)))):
                    tables.append(file)
    return tables


def _form(file):
    # How a table is written: in UTF-16 where it begins so, with the separator of which its first line has most.
    with open(file, "rb") as opened:
        start = opened.read(4096)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    first = start.decode(encoding, "replace").partition("\n")[0]
    return {"sep": max(",;\t", key=first.count), "encoding": encoding, "skipinitialspace": True}


def _named(columns):
    # The columns as the series calls them: what others call them, and own ones whose names the notebooks need.
    known, named = {column.strip().lower(): column for column in reversed(list(columns))}, []
    ours = {next((known[name] for name in names if name in known), None): column for column, names in COLUMNS.items()}
    for column in columns:
        name = ours.get(column, column)
        while name in named or (column not in ours and name in RESERVED | set(COLUMNS)):
            name = f"own_{name}"
        named.append(name)
    return named


def _read_csv(file):
    form = _form(file)
    try:
        table = pd.read_csv(file, dtype="string", index_col=False, **form)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
        why = f"{file} cannot be read as a CSV ({str(error).strip()})"
        raise ValueError(f"{why}: save it in UTF-8 with the header path,age[,person] and equal rows.") from error
    has, table.columns = ", ".join(table.columns), _named(table.columns)
    if missing := [name for name in ("path", "age") if name not in table]:
        ranges = f" ({NO_RANGE})" if "age" in table and table["age"].str.contains(RANGE).any() else ""
        lacks = f"{file} lacks the column {' and '.join(missing)} (it has {has})"
        raise ValueError(f"{lacks}: its header must be path,age[,person]{ranges}.")
    if form["sep"] != ",":  # so a comma is that of a fraction
        table["age"] = table["age"].str.replace(r"^\s*(\d+),(\d+)\s*$", r"\1.\2", regex=True)
    if "person" in table:  # programs write the number 7 as 7.0 where a cell of its column is empty
        table["person"] = table["person"].str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True).replace("", pd.NA)
    return table
