"""The table of kinds: what people bring, and what is right to do with it. Details are tested beside each helper.

Folders and tables of labelled photos: of each file an age, or a reason that quotes what stands there. Files: a picture,
or a sentence with the remedy. What else is tried: turned, large, doubtful and cropped photos (test_deploy.py), albums
and interrupted work (test_ages.py, test_training.py), names in figures (test_figures.py), models (test_export.py).
"""

import numpy as np
import pandas as pd
import pillow_heif
import pytest
from faces import one_sentence, picture, save
from PIL import Image

from helpers import images, labels

# name of the file → what is right: an age in years, or words of the reason why it is set aside
FOLDERS = {
    "a folder per age": {"25/a.jpg": 25, "26/b.jpg": 26},
    "a folder per age and sex (AFAD)": {"25/111/a.jpg": 25, "26/112/b.jpg": 26},
    "UTKFace": {"25_0_1_20170109.jpg": 25, "26_1_4_20170110.jpg.chip.jpg": 26},
    "FG-NET": {"001A25.JPG": 25, "001A26a.JPG": 26},
    "AgeDB": {"0_MariaCallas_25_f.jpg": 25, "1_CesarRomero_26_m.jpg": 26},
    "CACD": {"25_Robin_Williams_0001.jpg": 25, "26_Robin_Williams_0002.jpg": 26},
    "MORPH": {"009055_1M25.JPG": 25, "009056_0F26.JPG": 26},
    "All-Age-Faces": {"00000A25.jpg": 25, "00001A26.jpg": 26},
    "IMDB-WIKI": {"nm0000001_rm124825600_1950-1-10_1975.jpg": 25, "10000217_1981-09-05_2008.jpg": 26},
    "IMDB-WIKI in its folders": {"37/10000237_1981-05-05_2009.jpg": 28, "01/nm0000001_rm1_1950-1-9_1975.jpg": 25},
    "an age that is in no layout": {"25/a.jpg": 25, "26/b.jpg": 26, "beach/c.jpg": "'beach' is no number of years",
                                    "d.jpg": "lies in no folder"},
    "a folder for several ages": {"25/a.jpg": 25, "26/b.jpg": 26, "20-24/c.jpg": "a range cannot be learnt"},
    "a name with a field too few": {"25_0_1_2017.jpg": 25, "26_1_2_2017.jpg": 26, "27_1_2017.jpg": "[gender]_[race]"},
    "a stray folder": {"25_0_1_2017.jpg": 25, "30/26_1_2_2017.jpg": "folder says 30 and the name (UTKFace) says 26",
                       "30/30_1_2_2017.jpg": 30},
    "ages that nobody has": {"25/a.jpg": 25, "26/b.jpg": 26, "19/c.jpg": "outside 20 to 50", "111/d.jpg": "outside"},
    "odd names": {"25/$a_$b.jpg": 25, "26/写真 (1).jpg": 26, "27/صورة.png": 27, "28/사진 100%.jpg": 28},
}  # fmt: skip

# a cell of the column `age` → an age, or words of the reason
CELLS = {
    "25": 25, "25.9": 25, " 26 ": 26, "1e1": "age 10 is outside", "": "fill it in", "25-32": "'25-32'",
    '"(25, 32)"': "a range", '"34,5"': "'34,5'", "-3": "age -3 is outside", "inf": "'inf'", "thirty": "'thirty'",
    "25 years": "'25 years'", "250": "outside", "1e300": "'1e300'", "3_0": "'3_0'", "more than 70": "a range", "٢٥": 25,
}  # fmt: skip


def judged(source):
    """Return what becomes of every file of `source`: its age, or the reason in the audit."""
    found = labels.find_faces(source)
    kept, audit = labels.set_aside(found, images.inspect(labels.root_of(source), found["path"]))
    return dict(zip(kept["path"], kept["age"])) | dict(zip(audit["path"], audit["reason"]))


def check(told, right):
    if isinstance(right, int):
        assert told == right
    else:
        one_sentence(told, right)


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(tmp_path, kind):
    for i, name in enumerate(FOLDERS[kind]):
        save(tmp_path / name, i)
    told = judged(tmp_path)
    assert set(told) == set(FOLDERS[kind])
    for name, right in FOLDERS[kind].items():
        check(told[name], right)


@pytest.mark.parametrize("cell", CELLS)
def test_cells_of_a_csv(tmp_path, cell):
    for i, name in enumerate("abc"):
        save(tmp_path / f"{name}.png", i)
    (tmp_path / "list.csv").write_text(f"path,age\na.png,{cell}\nb.png,30\nc.png,31\n")
    check(judged(tmp_path)["a.png"], CELLS[cell])


# how a CSV may write the path sub/Zoë.jpg of the folder photos → that picture, or words of the reason
PATHS = {
    "as on Windows": ("sub\\Zoë.jpg", 25),
    "other letter case": ("SUB/ZOË.JPG", 25),
    "accents as macOS composes them": ("sub/Zoe\u0308.jpg", 25),
    "spaces around": (" sub/Zoë.jpg ", 25),
    "without its folder": ("Zoë.jpg", 25),
    "with the folder of all photos": ("photos/sub/Zoë.jpg", 25),
    "of another computer": ("C:\\me\\photos\\sub\\Zoë.jpg", 25),
    "of another computer and folder": ("C:\\me\\Zoë.jpg", "path of another computer"),
    "an address": ("https://example.org/Zoë.jpg", "nothing is downloaded here"),
    "a file that is not there": ("sub/Zoe.jpg", "sub/Zoe.jpg does not exist: correct the path"),
    "a very long name": (300 * "x", "does not exist"),
    "outside of the folder": ("../Zoë.jpg", "does not exist"),
    "empty": ("", "no path in the CSV"),
    "a folder": ("sub", "cannot be decoded"),
}


@pytest.mark.parametrize("kind", PATHS)
def test_paths_of_a_csv(tmp_path, kind):
    written, right = PATHS[kind]
    for i, name in enumerate(("sub/Zoë.jpg", "b.jpg", "c.jpg")):
        save(tmp_path / "photos" / name, i)
    rows = {"path": [written, "b.jpg", "c.jpg"], "age": [25, 26, 27]}
    pd.DataFrame(rows).to_csv(tmp_path / "photos" / "list.csv", index=False)
    told = judged(tmp_path / "photos")
    assert len(told) == 3 and (told.pop("b.jpg"), told.pop("c.jpg")) == (26, 27)
    ((path, what),) = told.items()
    check(what, right)
    assert right != 25 or path == "sub/Zoë.jpg"


# tables that are not as the series writes them → the ages of a.png and b.png, or words of the refusal
TABLES = {
    "semicolons and decimal commas": ("path;age\na.png;25,5\nb.png;30\n", [25, 30]),
    "tabs": ("path\tage\na.png\t25\nb.png\t30\n", [25, 30]),
    "Excel's UTF-16": ("path\tage\na.png\t25\nb.png\t30\n".encode("utf-16"), [25, 30]),
    "Excel's byte order mark": ("path,age\na.png,25\nb.png,30\n".encode("utf-8-sig"), [25, 30]),
    "other names of the columns": ("File,real_age,identity\na.png,25,x\nb.png,30,y\n", [25, 30]),
    "a row twice": ("path,age\na.png,25\nb.png,30\na.png,25\n", [25, 30]),
    "columns that the notebooks make": ("path,age,part,error,why\na.png,25,1,2,3\nb.png,30,1,2,3\n", [25, 30]),
    "no header": ("a.png,25\nb.png,30\n", "lacks the column path and age (it has a.png, 25)"),
    "old Windows letters": ("path,age,who\na.png,25,Zoë\nb.png,30,\n".encode("cp1252"), "save it in UTF-8"),
    "ranges (Adience)": ("user_id\toriginal_image\tage\nx\ta.png\t(25, 32)\n", "a range cannot be learnt"),
    "ranges (FairFace)": ("file,age,race\na.png,20-29,x\nb.png,30-39,y\n", "a range cannot be learnt"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_tables(tmp_path, kind):
    content, right = TABLES[kind]
    for i, name in enumerate("ab"):
        save(tmp_path / f"{name}.png", i)
    (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(right, list):
        found = labels.find_faces(tmp_path)
        kept, _ = labels.set_aside(found, images.inspect(tmp_path, found["path"]))
        assert kept["path"].tolist() == ["a.png", "b.png"] and kept["age"].tolist() == right
    else:
        with pytest.raises(ValueError) as error:
            judged(tmp_path)
        one_sentence(error.value, right)


def test_one_picture_with_two_ages(tmp_path):
    for i, name in enumerate("abc"):
        save(tmp_path / f"{name}.png", i)
    (tmp_path / "list.csv").write_text("path,age\na.png,25\na.png,35\nb.png,30\nc.png,31\n")
    one_sentence(judged(tmp_path)["a.png"], "conflicting ages: 25, 35")


FACE = Image.fromarray(picture(1))
DEEP = np.asarray(FACE.convert("L")).astype(np.uint16)


def heic(path):
    pillow_heif.from_pillow(FACE).save(path)


# a kind of file → its name, how it is written, and what is right: the grey level of the picture, or words of the reason
FILES = {
    "JPEG": ("a.jpg", FACE.save, "read"),
    "a photo of an iPhone": ("a.heic", heic, "read"),
    "a photo of an iPhone under another name": ("a.jpg", heic, "read"),
    "AVIF": ("a.avif", FACE.save, "read"),
    "jfif": ("a.jfif", lambda path: FACE.save(path, "JPEG"), "read"),
    "a name without a suffix": ("a", lambda path: FACE.save(path, "PNG"), "read"),
    "an odd suffix": ("a.txt", lambda path: FACE.save(path, "PNG"), "read"),
    "16 bits": ("a.png", lambda path: Image.fromarray(DEEP * 257).save(path), "read"),
    "16 bits that hold 12": ("a.png", lambda path: Image.fromarray(DEEP * 16).save(path), "read"),
    "16 bits that hold 8": ("a.tif", lambda path: Image.fromarray(DEEP).save(path), "read"),
    "32-bit whole numbers": ("a.tif", lambda path: Image.fromarray(DEEP.astype(np.int32) * 2**23).save(path), "read"),
    "fractions": ("a.tif", lambda path: Image.fromarray(DEEP / np.float32(255)).save(path), "8 or 16 bits"),
    "a text": ("a.jpg", lambda path: path.write_text("no picture"), "replace or remove it"),
    "half a file": (
        "a.jpg",
        lambda path: (FACE.save(path), path.write_bytes(path.read_bytes()[:900])),
        "cannot be decoded",
    ),
    "an empty file": ("a.png", lambda path: path.touch(), "replace or remove it"),
    "a folder with the name of a picture": ("a.jpg", lambda path: path.mkdir(), "folder"),
    "a picture too small": ("a.png", lambda path: FACE.resize((8, 8)).save(path), "too few"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files(tmp_path, kind):
    name, write, right = FILES[kind]
    write(tmp_path / name)
    if right == "read":
        levels = images.read_image(tmp_path / name).mean()
        assert levels == pytest.approx(np.asarray(FACE.convert("L")).mean(), abs=12)
    else:
        with pytest.raises(ValueError) as error:
            images.read_image(tmp_path / name)
        one_sentence(error.value, tmp_path / name, right)


UNREADABLE = {
    "C:\\photos\\a.jpg": "is a path of another computer: write it relative",
    "\\\\server\\a.jpg": "is a path of another computer: write it relative",
    "https://example.org/a.jpg": "is an address, and nothing is downloaded here",
    "gone.jpg": "gone.jpg does not exist: correct the path",
}


@pytest.mark.parametrize("path", UNREADABLE)
def test_paths_that_lead_nowhere(tmp_path, path):
    for i, name in enumerate("bc"):
        save(tmp_path / f"{name}.png", i)
    (tmp_path / "list.csv").write_text(f"path,age,person\n{path},25,1\nb.png,30,2.0\nc.png,31,2\n")
    check(judged(tmp_path)[path], UNREADABLE[path])
    assert labels.find_faces(tmp_path).set_index("path")["person"][["b.png", "c.png"]].tolist() == ["2", "2"]


def test_ranges_of_ages_are_named(tmp_path):
    save(tmp_path / "20-29" / "a.jpg")
    with pytest.raises(ValueError) as error:
        labels.find_faces(tmp_path)
    one_sentence(error.value, "tells an age", "a range cannot be learnt")
