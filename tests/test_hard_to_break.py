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
    "an age that is in no layout": {"25/a.jpg": 25, "26/b.jpg": 26, "beach/c.jpg": "'beach' is no number of years"},
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
    "25 years": "'25 years'", "250": "outside",
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


@pytest.mark.parametrize("written", ["sub\\Zoë.jpg", "SUB/ZOË.JPG", "sub/Zoe\u0308.jpg", " sub/Zoë.jpg "])
def test_paths_of_a_csv(tmp_path, written):
    save(tmp_path / "sub" / "Zoë.jpg", 1)
    save(tmp_path / "b.jpg", 2)
    pd.DataFrame({"path": [written, "b.jpg"], "age": [25, 26]}).to_csv(tmp_path / "list.csv", index=False)
    assert judged(tmp_path) == {"sub/Zoë.jpg": 25, "b.jpg": 26}


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
    "C:\\photos\\a.jpg": "is a path of a Windows computer: write it relative",
    "\\\\server\\a.jpg": "is a path of a Windows computer: write it relative",
    "https://example.org/a.jpg": "is an address: nothing is downloaded here",
    "gone.jpg": "gone.jpg does not exist: correct the name",
}


@pytest.mark.parametrize("path", UNREADABLE)
def test_paths_that_lead_nowhere(tmp_path, path):
    for i, name in enumerate("bc"):
        save(tmp_path / f"{name}.png", i)
    (tmp_path / "list.csv").write_text(f"path,age,person\n{path},25,1\nb.png,30,2.0\nc.png,31,2\n")
    check(judged(tmp_path)[path], UNREADABLE[path])
    assert labels.find_faces(tmp_path).set_index("path")["person"][["b.png", "c.png"]].tolist() == ["2", "2"]


@pytest.mark.parametrize("name", ["20-29/a.jpg", "landmark_aligned_face.2.11_b.jpg"])
def test_ranges_of_ages_are_named(tmp_path, name):
    save(tmp_path / name)
    with pytest.raises(ValueError) as error:
        labels.find_faces(tmp_path)
    one_sentence(error.value, "tells an age", "Ranges of ages")
