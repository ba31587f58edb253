"""From any folder to the labels table: nothing is lost, nothing is changed, and every refusal is one clear sentence."""

import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from faces import one_sentence, picture, save, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import images, labels


def table(source):
    """The labels and the audit of a folder, as notebook 02 makes them."""
    found = labels.find_faces(source)
    return labels.set_aside(found, images.inspect(labels.root_of(source), found["path"]))


def two_ages(folder):
    save(folder / "20" / "a.jpg", 1)
    save(folder / "30" / "b.jpg", 2)
    return folder


def reasons(audit):
    return dict(zip(audit["path"], audit["reason"]))


# The three layouts


def test_a_folder_per_age(tmp_path):
    kept, audit = table(two_ages(tmp_path))
    assert kept["path"].tolist() == ["20/a.jpg", "30/b.jpg"] and kept["age"].tolist() == [20, 30]
    assert kept["age"].dtype == "int64" and audit.empty
    assert list(kept) == ["path", "age", "person"] and list(audit) == ["path", "age", "person", "reason"]


def test_utkface_names(tmp_path):
    save(tmp_path / "25_0_1_20170109.jpg", 1)
    save(tmp_path / "part 2" / "26_1_4_20170110.jpg.chip.jpg", 2)
    save(tmp_path / "face.jpg", 3)
    assert labels.find_layout(tmp_path) == "UTKFace"
    kept, audit = table(tmp_path)
    assert kept["age"].tolist() == [25, 26]
    one_sentence(reasons(audit)["face.jpg"], "no age")


def test_a_csv_beside_the_photos_goes_first(tmp_path):
    two_ages(tmp_path)
    (tmp_path / "faces.csv").write_text("path,age,person,camera\n30/b.jpg,41,mia,x\n20/a.jpg,40.9,leo,y\n")
    kept, audit = table(tmp_path)
    assert kept.to_dict("list") == {
        "path": ["20/a.jpg", "30/b.jpg"],
        "age": [40, 41],
        "person": ["leo", "mia"],
        "camera": ["y", "x"],
    }
    assert audit.empty
    pd.testing.assert_frame_equal(table(tmp_path / "faces.csv")[0], kept)


@pytest.mark.parametrize(
    "content",
    [
        "path,age\n20/a.jpg,21\n30/b.jpg,31\n".encode("utf-8-sig"),  # as Excel writes it
        b"path, age\r\n20/a.jpg, 21\r\n30/b.jpg, 31\r\n",
        b"path,age\n20/a.jpg,21,\n30/b.jpg,31,\n",  # a comma too many must not shift the columns
        b'age,note,path\n21,"a, b",20/a.jpg\n31,,30/b.jpg\n',
        b"Path;AGE\n20/a.jpg;21,9\n30/b.jpg;31\n",
        b"image\tage\n20/a.jpg\t21\n30/b.jpg\t31\n",
        "path;age\r\n20/a.jpg;21\r\n30/b.jpg;31\r\n".encode("utf-16"),
    ],
    ids=["byte order mark", "spaces", "trailing commas", "order and quotes", "semicolons", "tabs", "UTF-16"],
)
@pytest.mark.filterwarnings("ignore:Length of header")
def test_a_csv_as_programs_write_it(tmp_path, content):
    two_ages(tmp_path)
    (tmp_path / "list.csv").write_bytes(content)
    kept, audit = table(tmp_path)
    assert dict(zip(kept["path"], kept["age"])) == {"20/a.jpg": 21, "30/b.jpg": 31} and audit.empty


def test_names_with_spaces_and_accents(tmp_path):
    names = ["20/Zoë Müller 1.jpg", "30/été – 写真.png", '31/it\'s, 100% "me".jpg']
    for i, name in enumerate(names):
        save(tmp_path / "my photos é" / name, i)
    kept, audit = table(tmp_path / "my photos é")
    assert sorted(kept["path"]) == sorted(names) and audit.empty
    kept.to_csv(tmp_path / "labels.csv", index=False)
    assert labels.read_labels(tmp_path / "labels.csv")["path"].tolist() == kept["path"].tolist()


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path):
    two_ages(tmp_path)
    try:
        shutil.copy(tmp_path / "20" / "a.jpg", os.fsencode(tmp_path / "20") + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes no such name")
    kept, audit = table(tmp_path)
    assert len(kept) == 2
    one_sentence(reasons(audit)["20/caf\\xe9.jpg"], "not UTF-8")
    audit.to_csv(tmp_path / "audit.csv", encoding="utf-8")  # fails for a name with a stray byte


# Folders that cannot be used


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        labels.find_faces(tmp_path / "nowhere")
    one_sentence(error.value, tmp_path / "nowhere", "AGE_DATA")


@pytest.mark.parametrize("inside", [[], ["20", "21/22"], [".hidden.jpg"], [".cache/20/a.jpg"]])
def test_an_empty_folder(tmp_path, inside):
    for name in inside:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch() if name.endswith("jpg") else (tmp_path / name).mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        labels.find_faces(tmp_path)
    one_sentence(error.value, tmp_path, "is empty", "a folder per age")


def test_a_folder_with_no_ages(tmp_path):
    save(tmp_path / "holiday" / "beach.jpg")
    with pytest.raises(ValueError) as error:
        labels.find_faces(tmp_path)
    one_sentence(error.value, tmp_path, "beach.jpg", "a folder per age", "UTKFace", "CSV")


def test_one_age_only(tmp_path):
    for i in range(3):
        save(tmp_path / "25" / f"{i}.jpg", i)
    with pytest.raises(ValueError) as error:
        table(tmp_path)
    one_sentence(error.value, "All 3 usable pictures", "age 25", "add photos")


def test_nothing_usable(tmp_path):
    save(tmp_path / "19" / "a.jpg")
    (tmp_path / "20").mkdir()
    (tmp_path / "20" / "b.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError) as error:
        table(tmp_path)
    one_sentence(error.value, "all 2 were set aside", "19/a.jpg", "outside 20 to 50")


def test_every_picture_damaged(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "20").mkdir(exist_ok=True)
        (tmp_path / "20" / name).write_bytes(b"not a picture")
    with pytest.raises(ValueError) as error:
        table(tmp_path)
    one_sentence(error.value, "all 2 were set aside", "20/a.jpg", "replace or remove it")


# CSVs that cannot be used


@pytest.mark.parametrize(
    "content, says",
    [
        ("path\na.jpg\n", "lacks the column age"),
        ("picture,years\na.jpg,20\n", "lacks the column path and age (it has picture, years)"),
        ("user_id\timage_id\tage\n7\ta.jpg\t(25, 32)\n", "a range cannot be learnt as an age: give whole years"),
        ("", "cannot be read as a CSV"),
        ("path,age\na.jpg,20\nb.jpg,30\n\nc.jpg,31,x,y\n", "line 5"),
        ("path,age\ncafé.jpg,20\n".encode("latin-1"), "save it in UTF-8"),
    ],
    ids=["no age", "other names", "ranges", "empty", "ragged", "latin-1"],
)
@pytest.mark.filterwarnings("ignore:Length of header")
def test_a_csv_that_cannot_be_read(tmp_path, content, says):
    save(tmp_path / "a.jpg")
    file = tmp_path / "list of faces.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for source in (file, tmp_path):  # named itself, or found as the only thing that could tell the ages
        with pytest.raises(ValueError) as error:
            labels.find_faces(source)
        one_sentence(error.value, file, says, "path,age[,person]")


def test_a_picture_instead_of_a_csv(tmp_path):
    with pytest.raises(ValueError) as error:
        labels.find_faces(save(tmp_path / "a.jpg"))
    one_sentence(error.value, "a.jpg", "cannot be read as a CSV")


def test_a_csv_without_rows(tmp_path):
    (tmp_path / "f.csv").write_text("path,age\n")
    with pytest.raises(ValueError) as error:
        table(tmp_path)
    one_sentence(error.value, "No picture can be used")


def test_csv_rows_that_cannot_be_used_are_listed(tmp_path):
    two_ages(tmp_path)
    rows = ["20/a.jpg,20", "30/b.jpg,30", "gone.jpg,25", ",26", "  ,27", "30/b.jpg,", "20/a.jpg,old", "20,28"]
    (tmp_path / "faces.csv").write_text("path,age\n" + "\n".join(rows) + "\n")
    kept, audit = table(tmp_path)
    assert kept["path"].tolist() == ["20/a.jpg", "30/b.jpg"] and len(kept) + len(audit) == len(rows)
    why = audit.set_index(audit["path"].fillna("none"))["reason"]
    one_sentence(why["gone.jpg"], "gone.jpg does not exist", "correct")
    assert why["none"].str.contains("no path in the CSV: fill it in").all() and len(why["none"]) == 2
    one_sentence(why["30/b.jpg"], "no age")
    one_sentence(why["20/a.jpg"], "no age")
    one_sentence(why["20"], "20")


def test_a_row_given_twice_counts_once(tmp_path):
    two_ages(tmp_path)
    (tmp_path / "faces.csv").write_text("path,age\n20/a.jpg,20\n30/b.jpg,30\n20/a.jpg,20\n")
    kept, audit = table(tmp_path)
    assert kept["path"].tolist() == ["20/a.jpg", "30/b.jpg"]
    assert reasons(audit) == {"20/a.jpg": "identical to 20/a.jpg"}


@pytest.mark.parametrize("content", [b"name,size\nx,1\n", b"", b"caf\xe9;1\n", b"path\n1\n"])
def test_some_other_csv_does_not_get_in_the_way_of_age_folders(tmp_path, content):
    two_ages(tmp_path)
    (tmp_path / "notes.csv").write_bytes(content)
    assert labels.find_layout(tmp_path) == "folders"
    kept, audit = table(tmp_path)
    assert len(kept) == 2
    one_sentence(reasons(audit)["notes.csv"], "notes.csv is not a picture file (.csv)", "JPEG or PNG")


# Layouts of public sets, and sources that contradict each other


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("folders", {"25/111/a.jpg": (25, None), "26/112/b.jpg": (26, None)}),  # AFAD: a folder for each sex
        ("FG-NET", {"001A25.JPG": (25, "001"), "002A33b.JPG": (33, "002")}),
        ("AgeDB", {"0_MariaCallas_35_f.jpg": (35, "MariaCallas"), "12_Li Na_30_f.jpg": (30, "Li Na")}),
        ("CACD", {"49_Robin_Williams_0001.jpg": (49, "Robin_Williams"), "23_Zoë_K._0012.jpg": (23, "Zoë_K.")}),
        ("MORPH", {"009055_1M44.JPG": (44, "009055"), "00000_00F21.JPG": (21, "00000")}),
        ("All-Age-Faces", {"00000A22.jpg": (22, None), "07381A40.jpg": (40, None)}),
        ("IMDB-WIKI", {"nm0000001_rm12_1949-5-10_1998.jpg": (49, "nm0000001"), "77_1981-11-05_2009.jpg": (27, "77")}),
        ("UTKFace", {"34_1_2_20170116.jpg.chip.jpg": (34, None), "35_0_0_2017 (1).jpg": (35, None)}),
    ],
)
def test_the_layouts_of_public_sets(tmp_path, layout, names):
    for i, name in enumerate(names):
        save(tmp_path / "faces" / name, i)
    assert labels.find_layout(tmp_path) == layout
    kept, audit = table(tmp_path)
    read = {path.removeprefix("faces/"): (age, None if pd.isna(who) else who) for path, age, who in
            zip(kept["path"], kept["age"], kept["person"])}  # fmt: skip
    assert read == names and audit.empty


def test_a_stray_number_folder_takes_no_age_away(tmp_path):
    source = tmp_path / "30"  # the source itself is called like an age, too
    for i, name in enumerate(["21_0_0_2017.jpg", "22_1_3_2017.jpg", "30/23_0_1_2017.jpg", "30/30_0_1_2018.jpg"]):
        save(source / name, i)
    kept, audit = table(source)
    assert dict(zip(kept["path"], kept["age"])) == {
        "21_0_0_2017.jpg": 21,
        "22_1_3_2017.jpg": 22,
        "30/30_0_1_2018.jpg": 30,
    }
    one_sentence(reasons(audit)["30/23_0_1_2017.jpg"], "folder says 30", "name (UTKFace) says 23", "correct one")


def test_folders_of_imdb_wiki_are_no_ages(tmp_path):
    save(tmp_path / "wiki_crop" / "37" / "10000237_1981-05-05_2009.jpg", 1)  # the last digits of the number
    save(tmp_path / "wiki_crop" / "48" / "10000548_1950-04-04_1990.jpg", 2)
    kept, audit = table(tmp_path)
    assert kept["age"].tolist() == [28, 40] and audit.empty
    save(tmp_path / "ages" / "28" / "10000237_1981-08-05_2009.jpg", 1)  # an age, which this name tells to a year
    save(tmp_path / "ages" / "40" / "10000548_1960-04-04_1990.jpg", 2)
    save(tmp_path / "ages" / "41" / "10000549_1949-04-04_1990.jpg", 3)
    kept, audit = table(tmp_path / "ages")
    assert kept["age"].tolist() == [28, 41]
    one_sentence(audit["reason"][0], "folder says 40", "name (IMDB-WIKI) says 30")


def test_a_csv_that_contradicts_folders_or_names_is_told(tmp_path):
    for i, name in enumerate(["25_0_1_2017.jpg", "26_0_1_2017.jpg", "27_0_1_2017.jpg"]):
        save(tmp_path / name, i)
    (tmp_path / "list.csv").write_text("path,age\n25_0_1_2017.jpg,25.7\n26_0_1_2017.jpg,26\n27_0_1_2017.jpg,35\n")
    kept, audit = table(tmp_path)
    assert kept["age"].tolist() == [25, 26]
    one_sentence(audit["reason"][0], "the CSV says 35 and the name (UTKFace) says 27", "correct one")


def test_folders_of_people_are_no_ages(tmp_path):
    for i in range(4):  # one of them happens to be as old as the folder's number says
        save(tmp_path / str(20 + i) / "a.jpg", i)
    (tmp_path / "list.csv").write_text("path,age\n20/a.jpg,41\n21/a.jpg,42\n22/a.jpg,22\n23/a.jpg,44\n")
    kept, audit = table(tmp_path)
    assert kept["age"].tolist() == [41, 42, 22, 44] and audit.empty


def test_all_tables_at_the_top_are_read(tmp_path):
    for i, name in enumerate(["train/000.jpg", "train/001.jpg", "test/002.jpg"]):
        save(tmp_path / name, i)
    (tmp_path / "gt_train.csv").write_text("file_name,real_age\n000.jpg,25\n001.jpg,26\n")  # as APPA-REAL has them
    (tmp_path / "gt_test.CSV").write_text("file_name,real_age\n002.jpg,27\n")
    (tmp_path / "notes.txt").write_text("Ages are in the tables, and the path is that of a photo.")
    kept, audit = table(tmp_path)
    assert dict(zip(kept["path"], kept["age"])) == {"train/000.jpg": 25, "train/001.jpg": 26, "test/002.jpg": 27}
    assert audit.empty


def test_a_path_without_its_folder_must_fit_one_file_only(tmp_path):
    for i, name in enumerate(["a/1.jpg", "b/1.jpg", "b/2.jpg", "3.jpg"]):
        save(tmp_path / name, i)
    (tmp_path / "list.csv").write_text("path,age\n1.jpg,25\n2.jpg,26\n3.jpg,27\nc/3.jpg,28\n")
    kept, audit = table(tmp_path)
    assert kept["path"].tolist() == ["3.jpg", "b/2.jpg"] and set(audit["path"]) == {"1.jpg", "c/3.jpg"}


def test_numbers_of_people_are_the_same_with_and_without_a_point(tmp_path):
    two_ages(tmp_path)
    (tmp_path / "list.csv").write_text("path,age,person\n20/a.jpg,20,007.0\n30/b.jpg,30, 007 \n")
    assert table(tmp_path)[0]["person"].tolist() == ["007", "007"]


def test_reasons_quote_what_stands_there(tmp_path):
    save(tmp_path / "25_0_0_2017.jpg", 1)
    save(tmp_path / "26_0_0_2017.jpg", 2)
    save(tmp_path / "61_1_20170109142408075.jpg", 3)
    one_sentence(reasons(table(tmp_path)[1])["61_1_20170109142408075.jpg"], "no age", "[age]_[gender]_[race]_[date]")
    rows = [
        "25_0_0_2017.jpg,25",
        "26_0_0_2017.jpg,26",
        "a.jpg,25-32",
        'b.jpg,"34,5"',
        "c.jpg,old",
        "d.jpg,inf",
        "e.jpg,-3",
    ]
    (tmp_path / "list.csv").write_text("path,age\n" + "\n".join(rows) + "\n")
    for i, name in enumerate("abcde"):
        save(tmp_path / f"{name}.jpg", 10 + i)
    why = reasons(table(tmp_path)[1])
    one_sentence(why["a.jpg"], "'25-32'", "a range")
    one_sentence(why["b.jpg"], "'34,5'")
    one_sentence(why["c.jpg"], "'old'")
    one_sentence(why["d.jpg"], "'inf'")
    assert why["e.jpg"] == "age -3 is outside 20 to 50"


def test_a_csv_may_write_a_path_otherwise_than_the_disk(tmp_path):
    save(tmp_path / "Fotos" / "Zoe\u0308.jpg", 1)  # e and two dots, as macOS composes it
    save(tmp_path / "b.JPG", 2)
    (tmp_path / "list.csv").write_text(
        "Path,real_age,subject\nFotos\\Zo\u00eb.jpg,25,1\nb.jpg,26,2\n", encoding="utf-8"
    )
    kept, audit = table(tmp_path)
    assert audit.empty and kept["path"].tolist() == ["Fotos/Zoe\u0308.jpg", "b.JPG"]
    assert kept["person"].tolist() == ["1", "2"]


def test_files_that_a_csv_leaves_out_are_told(tmp_path):
    two_ages(tmp_path)
    save(tmp_path / "30" / "c.jpg", 3)
    (tmp_path / "list.csv").write_text("path,age\n./20/a.jpg,20\n30\\b.jpg,30\n")
    assert labels.unlisted(tmp_path, labels.find_faces(tmp_path)) == ["30/c.jpg"]
    assert labels.unlisted(tmp_path / "list.csv", labels.find_faces(tmp_path)) == []


def test_own_columns_of_a_csv_keep_apart_from_those_of_the_notebooks(tmp_path):
    two_ages(tmp_path)
    (tmp_path / "list.csv").write_text(
        "path,age,width,sharpness,error,part,camera\n20/a.jpg,20,1,2,3,4,x\n30/b.jpg,30,5,6,7,8,y\n"
    )
    found = labels.find_faces(tmp_path)
    kept, audit = labels.set_aside(found, images.inspect(tmp_path, found["path"]))
    assert {"own_width", "own_sharpness", "own_error", "own_part", "camera"} <= set(kept) and audit.empty
    (tmp_path / "list.csv").write_text("Path,path,age,width,own_width\n20/a.jpg,1,20,2,3\n30/b.jpg,4,30,5,6\n")
    kept, _ = table(tmp_path)
    assert kept.columns.is_unique and kept["path"].tolist() == ["20/a.jpg", "30/b.jpg"]
    assert not set(kept) & {"width", "sharpness", "error", "part"}
    (tmp_path / "list.csv").write_text("Path;Age;Part\n20/a.jpg;20;train\n30/b.jpg;30;test\n")
    assert table(tmp_path)[0]["own_part"].tolist() == ["train", "test"]


# What is set aside


def test_identical_pictures(tmp_path):
    two_ages(tmp_path)
    save(tmp_path / "20" / "copy.png", 5)
    Image.open(tmp_path / "20" / "copy.png").save(tmp_path / "20" / "copy.bmp")  # other bytes, equal pixels
    for age in ("40", "41"):
        save(tmp_path / age / "same.png", 6)
    kept, audit = table(tmp_path)
    assert kept["path"].tolist() == ["20/a.jpg", "20/copy.bmp", "30/b.jpg"]
    conflict = "identical pictures with conflicting ages: 40, 41"
    assert reasons(audit) == {
        "20/copy.png": "identical to 20/copy.bmp",
        "40/same.png": conflict,
        "41/same.png": conflict,
    }


def test_ages_out_of_range_and_without_a_number(tmp_path):
    two_ages(tmp_path)
    for i, folder in enumerate(["19", "51", "0", "50", "unsorted", "1234"]):
        save(tmp_path / folder / "x.jpg", 10 + i)
    kept, audit = table(tmp_path)
    assert sorted(kept["age"]) == [20, 30, 50]
    why = reasons(audit)
    for age in ("0", "19", "51"):
        assert why[f"{age}/x.jpg"] == f"age {age} is outside 20 to 50"
    assert why["unsorted/x.jpg"].startswith("no age") and why["1234/x.jpg"].startswith("no age")


def test_the_photos_are_left_alone(tmp_path):
    two_ages(tmp_path)
    (tmp_path / "20" / "bad.jpg").write_bytes((tmp_path / "20" / "a.jpg").read_bytes()[:400])
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "30" / "turned.jpg", 3, exif=exif)
    before = snapshot(tmp_path)
    kept, audit = table(tmp_path)
    assert len(kept) == 3 and len(audit) == 1
    assert snapshot(tmp_path) == before


def test_the_counts_of_repeated_labels_that_notebook_02_quotes(real_photos):
    table = real_photos.parent / "utkface_duplicate_ages.csv"  # the ages of identical pictures in the original UTKFace
    if not table.exists():
        pytest.skip("needs ../shared/data/utkface_duplicate_ages.csv")
    ages = pd.read_csv(table).groupby("group")["age"].nunique()
    assert (len(ages), (ages > 1).sum()) == (375, 205)


# Properties

kinds = st.sampled_from(["good", "good", "twin", "damaged", "text", "tiny"])
files = st.lists(st.tuples(st.sampled_from(["19", "20", "21", "35", "50", "51", "x"]), kinds), min_size=1, max_size=12)


def build(folder, plan, order):
    for i in order:
        age, kind = plan[i]
        path = Path(folder) / age / f"{i}.png"
        save(path, seed=99 if kind == "twin" else i)
        if kind == "damaged":
            path.write_bytes(path.read_bytes()[:300])
        elif kind == "text":
            path.write_text("no picture")
        elif kind == "tiny":
            Image.fromarray(picture(i)[:1, :1]).save(path)
    return folder


@settings(max_examples=12, deadline=None, derandomize=True)
@given(plan=files, shuffled=st.randoms(use_true_random=False))
def test_nothing_is_lost_and_the_order_on_disk_does_not_matter(plan, shuffled):
    plan = [("20", "good"), ("50", "good"), *plan]
    order = list(range(len(plan)))
    shuffled.shuffle(order)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        found = labels.find_faces(build(one, plan, range(len(plan))))
        kept, audit = labels.set_aside(found, images.inspect(one, found["path"]))
        again = table(build(two, plan, order))
        # Nothing is lost, and nothing is in both.
        assert sorted([*kept["path"], *audit["path"]]) == sorted(found["path"])
        assert len(found) == len(plan)
        for reason in audit["reason"]:
            one_sentence(reason)
        # Only pictures that can be used are kept.
        good = {f"{age}/{i}.png" for i, (age, kind) in enumerate(plan) if kind in ("good", "twin")}
        assert set(kept["path"]) <= good and kept["age"].between(20, 50).all()
        # The same table from the same files in another order, and from the table itself.
        pd.testing.assert_frame_equal(again[0], kept)
        pd.testing.assert_frame_equal(again[1], audit)
        same, nothing = labels.set_aside(kept, images.inspect(one, kept["path"]))
        pd.testing.assert_frame_equal(same, kept, check_dtype=False)
        assert nothing.empty
