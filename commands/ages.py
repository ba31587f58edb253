"""The ages of the faces in many photos: `python -m commands.ages photo.jpg holidays/ --out annotated/`."""

import argparse
import hashlib
import os
import re
import sys
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from itertools import count
from pathlib import Path

import cv2
import joblib
import pandas as pd
from joblib.externals.loky.process_executor import TerminatedWorkerError
from PIL import Image
from tqdm import tqdm

from helpers import align, deploy, export

COLUMNS = ["photo", *deploy.COLUMNS, "digest"]  # the last one tells whether photo, model or option have changed since
HEADER = ",".join(COLUMNS)
MARK = b"drawn by commands.ages of age-from-faces"  # in each picture that is written, so that no photo is taken for one
MANY = 40  # photos: with so many it pays to start a process for each core, which takes some seconds


def main(arguments=None):
    """Estimate the ages in all photos that the command line names. Exits with one sentence when nothing can be done."""
    options = options_of(arguments)
    try:
        file = options.model or deploy.model_for_photos()
        say(f"Model: {deploy.origin_of(file)}.")
        if not options.cropped:
            align.detector()
        options.out.mkdir(parents=True, exist_ok=True)
        table = table_in(options.out)
        done = faces_in(table)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    kind = hashlib.sha256(file.read_bytes() + bytes([options.cropped])).digest()
    files = files_in(options.photos)
    try:
        found, former = look_at_all(files, file, kind, options, table, done)
    except OSError as error:  # of the table: a full disk, a program that holds it open
        sys.exit(f"{table} cannot be written ({error.strerror}): the same command goes on from here.")
    except TerminatedWorkerError:
        sys.exit("A process was killed, perhaps for want of memory: the same command goes on from here.")
    except KeyboardInterrupt:
        sys.exit(f"Stopped: the same command goes on from here; {table} lists what is done.")
    before = f", {former} of them done before" if former else ""
    with_faces, faces = sum(number > 0 for number in found), "1 face" if sum(found) == 1 else f"{sum(found)} faces"
    say(f"{faces} in {with_faces} of {len(files)} files{before}; {table} lists them.")
    if not with_faces:
        sys.exit(1)


def look_at_all(files, model_file, kind, options, table, done):
    """Look at `files` that are not `done` yet, on all cores if there are many, and write `table` as the rows come.

    Return how many faces each has, and how many had been done before.
    """
    found, former, jobs = [], 0, joblib.cpu_count() if len(files) >= MANY else 1
    bar = tqdm(total=len(files), desc="photos", unit="photo", disable=len(files) < 2)
    with bar, joblib.Parallel(jobs, return_as="generator") as parallel:
        for start in range(0, len(files), MANY):
            part = {photo: (shown(photo.absolute()), digest(photo, kind)) for photo in files[start : start + MANY]}
            new = [photo for photo, (name, now) in part.items() if not now or (name, now) not in done]
            former += len(part) - len(new)
            bar.update(len(part) - len(new))
            looks = (joblib.delayed(look_at)(photo, model_file, options.cropped, int(jobs > 1)) for photo in new)
            for photo, (rows, final, said, drawn) in zip(new, parallel(looks)):
                try:
                    if drawn:
                        save(options.out, f"{photo.stem}_ages", drawn)
                except OSError as error:
                    rows, final, said = not_done(photo, error)
                say(said)
                name, now = part[photo]
                now = now if final else ""  # so that it is tried again
                part[photo] = name, now
                if (name, now) not in done:
                    append(table, rows.assign(photo=name, digest=now))
                done[name, now] = int(rows["age"].notna().sum())
                bar.update()
            found += [done[key] for key in part.values()]
    return found, former


def options_of(arguments):
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m commands.ages",
        description="Find the faces in photos and estimate their ages. Everything happens on this machine, and no file "
        "is replaced. If it is interrupted, give the same command again: it continues where it stopped.",
    )
    parser.add_argument("photos", nargs="+", type=path_of, help="photos, and folders of photos")
    parser.add_argument("--out", type=path_of, default="annotated", help="folder for ages.csv and photos with boxes")
    parser.add_argument(
        "--model", type=path_of, help="an ONNX file; that for photos if omitted: yours, else the shipped one"
    )
    parser.add_argument("--cropped", action="store_true", help="each photo is one face, cropped like those of training")
    return parser.parse_args(arguments)


def look_at(photo, model_file, cropped, threads):
    """Return the rows for one photo, whether they are final, what to say, and a JPEG with boxes or b""."""
    try:
        picture = deploy.as_picture(photo)
        table = deploy.predict(picture, model_in(model_file, threads), cropped)
        if table.empty:
            rows = pd.DataFrame([{"age": float("nan"), "note": "no face was found"}])
            return rows, True, f"{photo}: {deploy.NO_FACE}.", b""
        drawn = BytesIO()
        Image.fromarray(deploy.annotate(picture, table)).save(drawn, "JPEG", quality=90, comment=MARK)
    except (OSError, ValueError, MemoryError, cv2.error) as error:
        return *not_done(photo, error), b""
    found = [f"{face.age:.0f} ({face.low:.0f} to {face.high:.0f})" for face in table.itertuples()]
    notes = "".join(f"; {note}" for note in table["note"].unique() if note)
    return table, True, f"{photo}: {', '.join(found)} years{notes}", drawn.getvalue()


def not_done(photo, error):
    """Return the row for a photo that ended in `error`, whether that is final, and what to say of it."""
    why = str(error) or "too large for the memory"  # a MemoryError says nothing
    why = why if str(photo) in why else f"{photo}: {why}"
    return pd.DataFrame([{"age": float("nan"), "note": shown(why)}]), isinstance(error, ValueError), why


@lru_cache
def model_in(file, threads):
    """Return the model in `file`, read once in each process."""
    return export.load(file, threads)


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
    from commands.ages import main  # by this name other processes find what it calls

    main()
