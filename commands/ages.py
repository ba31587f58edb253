"""The ages of the faces in many photos: `python -m commands.ages photo.jpg holidays/ --out annotated/`."""

import argparse
import hashlib
import os
import re
import sys
from contextlib import suppress
from io import BytesIO
from itertools import count
from pathlib import Path

import cv2
import pandas as pd
from PIL import Image
from tqdm import tqdm

from helpers import align, deploy, export

COLUMNS = ["photo", *deploy.COLUMNS, "digest"]  # the last one tells whether photo, model or option have changed since
HEADER = ",".join(COLUMNS)
MARK = b"drawn by commands.ages of age-from-faces"  # in each picture that is written, so that no photo is taken for one


def main(arguments=None):
    """Estimate the ages in all photos that the command line names. Exits with one sentence when nothing can be done."""
    options = options_of(arguments)
    try:
        file = options.model or deploy.best_model()
        model, kind = export.load(file), hashlib.sha256(file.read_bytes() + bytes([options.cropped])).digest()
        if not options.cropped:
            align.detector()
        options.out.mkdir(parents=True, exist_ok=True)
        table = table_in(options.out)
        faces = faces_in(table)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    files, found, former = files_in(options.photos), [], 0
    try:
        for photo in tqdm(files, desc="photos", unit="photo", disable=len(files) < 2):
            name, now = shown(photo.absolute()), digest(photo, kind)
            if now and (name, now) in faces:
                former += 1
            else:
                rows, final = look_at(photo, model, options)
                now = now if final else ""  # so that it is tried again
                if (name, now) not in faces:
                    append(table, rows.assign(photo=name, digest=now))
                faces[name, now] = int(rows["age"].notna().sum())
            found.append(faces[name, now])
    except OSError as error:  # of the table: a full disk, a program that holds it open
        sys.exit(f"{table} cannot be written ({error.strerror}): the same command goes on from here.")
    except KeyboardInterrupt:
        sys.exit(f"Stopped: the same command goes on from here; {table} lists what is done.")
    before = f", {former} of them done before" if former else ""
    done = sum(number > 0 for number in found)
    say(f"{sum(found)} faces in {done} of {len(files)} files{before}; {table} lists them.")
    if not done:
        sys.exit(1)


def options_of(arguments):
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m commands.ages",
        description="Find the faces in photos and estimate their ages. Everything happens on this machine, and no file "
        "is replaced. Stopped, the same command goes on where it was.",
    )
    parser.add_argument("photos", nargs="+", type=path_of, help="photos, and folders of photos")
    parser.add_argument("--out", type=path_of, default="annotated", help="folder for ages.csv and photos with boxes")
    parser.add_argument("--model", type=path_of, help="an ONNX file of notebook 09; the best one if omitted")
    parser.add_argument("--cropped", action="store_true", help="each photo is one face, cropped like those of training")
    return parser.parse_args(arguments)


def look_at(photo, model, options):
    """Return the rows for one photo and whether they are final; say what is in them and save the photo with boxes."""
    try:
        picture = deploy.as_picture(photo)
        table = deploy.predict(picture, model, options.cropped)
        if table.empty:
            say(f"{photo}: {deploy.NO_FACE}.")
            return pd.DataFrame([{"age": float("nan"), "note": "no face was found"}]), True
        drawn = BytesIO()
        Image.fromarray(deploy.annotate(picture, table)).save(drawn, "JPEG", quality=90, comment=MARK)
        save(options.out, f"{photo.stem}_ages", drawn.getvalue())
    except (OSError, ValueError, MemoryError, cv2.error) as error:
        why = str(error) or "too large for the memory"  # a MemoryError says nothing
        why = why if str(photo) in why else f"{photo}: {why}"
        say(why)
        return pd.DataFrame([{"age": float("nan"), "note": shown(why)}]), isinstance(error, ValueError)
    found = [f"{face.age:.0f} ({face.low:.0f} to {face.high:.0f})" for face in table.itertuples()]
    say(f"{photo}: {', '.join(found)} years" + "".join(f"; {note}" for note in table["note"].unique() if note))
    return table, True


def files_in(sources):
    """Return the files that `sources` name: a folder for all in it but hidden files and results of this command."""
    files = []
    for folder in sources:
        if not folder.is_dir():
            files.append(folder)
            continue
        inside = sorted(file for file in folder.rglob("*") if not file.is_dir())  # a link to nowhere is listed, too
        inside = [file for file in inside if "/." not in f"/{file.relative_to(folder).as_posix()}"]
        files += [file for file in inside if not is_result(file)]
    return list(dict.fromkeys(files))


def is_result(file) -> bool:
    """Return whether this command has written `file`, which its content tells: a photo may have such a name."""
    try:
        if re.fullmatch(r"ages(_\d+)?\.csv", file.name):
            with open(file, encoding="utf-8", errors="replace") as lines:
                return lines.readline().strip() == HEADER
        if re.fullmatch(r"(?s).*_ages(_\d+)?\.jpg", file.name):
            with Image.open(file) as picture:
                return picture.info.get("comment") == MARK
    except Exception:  # Pillow has many; what cannot be read is none
        return False
    return False


def names(folder, stem, suffix):
    """Yield `stem`, `stem`_2, `stem`_3, … in `folder`."""
    yield from (folder / (stem + (f"_{number}" if number > 1 else "") + suffix) for number in count(1))


def save(folder, stem, content):
    """Write `content` under the first name `stem`….jpg that is free; of a long name the beginning must do."""
    stem = stem if len(os.fsencode(stem)) < 200 else os.fsdecode(os.fsencode(stem)[:180]) + "…_ages"
    for file in names(folder, stem, ".jpg"):
        try:
            with open(file, "xb") as new:
                new.write(content)
            return
        except FileExistsError:
            continue


def table_in(folder) -> Path:
    """Return the table of this command in `folder`, begun if need be; `ages_2.csv` where `ages.csv` is another one."""
    for file in names(folder, "ages", ".csv"):
        with suppress(FileExistsError), open(file, "x", encoding="utf-8", newline="\n") as new:
            new.write(HEADER + "\n")
        if is_result(file):
            return file


def faces_in(table) -> dict:
    """Return how many faces each photo in `table` has, by its path and digest; a line that was cut off is removed."""
    content = table.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(table, content.rfind(b"\n") + 1)
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False, encoding_errors="replace")
    except ValueError as error:
        raise ValueError(f"{table} is damaged: rename it, and a new one is begun.") from error
    return (rows["age"] != "").groupby([rows["photo"], rows["digest"]]).sum().to_dict()


def append(table, rows):
    """Write `rows` at the end of `table` at once, so that a crash or Ctrl-C loses nothing of what is done."""
    rows = rows.reindex(columns=COLUMNS).astype({name: "Int64" for name in COLUMNS[1:5]})
    rounded, whole = rows.round({"age": 1, "low": 1, "high": 1, "score": 4}), table.stat().st_size
    try:
        with open(table, "ab") as file:
            file.write(rounded.to_csv(index=False, header=False, lineterminator="\n").encode("utf-8", "replace"))
    except OSError:  # a full disk: some of the faces of a photo would pass for all
        os.truncate(table, whole)
        raise


def digest(photo, kind) -> str:
    """Return a digest of the file `photo` and of `kind`, that of the model; "" where it cannot be read."""
    with suppress(OSError):
        if photo.is_file():  # a pipe would wait for ever
            return hashlib.sha256(kind + photo.read_bytes()).hexdigest()[:12]
    return ""


def path_of(text) -> Path:
    """Return the path that a command line names; `~` is the home folder also where the shell leaves it."""
    return Path(os.path.expanduser(text))


def shown(text) -> str:
    """Return `text` as a table can show it: what is not UTF-8 in a file's name, or no character, is a question mark."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "?", str(text))


def say(text):
    """Print `text` beside the progress bar; a question mark stands for what the terminal cannot show."""
    coding = sys.stdout.encoding or "utf-8"
    tqdm.write(shown(text).encode(coding, "replace").decode(coding))


if __name__ == "__main__":
    main()
