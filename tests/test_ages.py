"""The command for many photos: what it says, what it leaves, and that it takes nothing away."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from faces import one_sentence, page, snapshot
from PIL import Image

from commands import ages
from helpers import align, deploy, export, paths

pytest.importorskip("facenet_pytorch", reason="needs the face detector: requirements-optional.txt")


@pytest.fixture
def album(tmp_path, group, shipped):
    """A folder of two photos with faces, one without, and three files that are no good photos."""
    folder = tmp_path / "album"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(group[0]).save(folder / "group.jpg", quality=95)
    Image.fromarray(shipped[1]).save(folder / "sub" / "group.png")
    Image.fromarray(page(300, 400)).save(folder / "wall.jpg")
    (folder / "broken.jpg").write_bytes((folder / "group.jpg").read_bytes()[:3_000])
    (folder / "notes.txt").write_text("no picture")
    (folder / "page.jpg").write_text("<html>")
    (folder / ".hidden.jpg").write_text("x")
    return folder


def test_a_folder_is_worked_through_whatever_it_holds(album, model_file, tmp_path, capsys):
    before, out = snapshot(album), tmp_path / "annotated"
    ages.main([str(album), "--out", str(out), "--model", str(model_file)])
    table = pd.read_csv(out / "ages.csv", keep_default_na=True)
    assert list(table.columns) == ages.COLUMNS
    faces = table.groupby(table["photo"].str.removeprefix(f"{album}{os.sep}"))["age"].count().to_dict()
    assert faces == {"group.jpg": 4, f"sub{os.sep}group.png": 1} | dict.fromkeys(
        ["broken.jpg", "notes.txt", "page.jpg", "wall.jpg"], 0
    )
    names = ["ages.csv", "group_ages.jpg", "group_ages_2.jpg"]
    assert sorted(file.name for file in out.iterdir()) == names
    assert Image.open(out / "group_ages.jpg").size == (1100, 800)
    said = capsys.readouterr().out.splitlines()
    for name, why in {
        "wall.jpg": "no face was found",
        "broken.jpg": "cannot be decoded",
        "notes.txt": "is not a picture file",
        "page.jpg": "holds no picture",
    }.items():
        (line,) = (line for line in said if str(album / name) in line)
        one_sentence(line, why)
    assert "5 faces in 2 of 6 files" in said[-1]
    assert snapshot(album) == before


@pytest.mark.parametrize("where", ["annotated", "."])
def test_results_inside_the_folder_are_not_read_again(album, model_file, where):
    out = album / where
    for _ in range(2):
        ages.main([str(album), "--out", str(out), "--model", str(model_file)])
        assert pd.read_csv(out / "ages.csv")["photo"].nunique() == 6
        assert len(list(out.glob("*_ages*.jpg"))) == 2


def test_a_photo_beside_its_result_is_not_overwritten(album, model_file):
    before = (album / "group.jpg").read_bytes()
    ages.main([str(album / "group.jpg"), str(album / "group.jpg"), "--out", str(album), "--model", str(model_file)])
    assert (album / "group.jpg").read_bytes() == before
    assert len(pd.read_csv(album / "ages.csv")) == 4  # named twice, done once


def test_a_photo_that_is_too_large_for_the_memory_is_named_and_the_rest_goes_on(
    album, model_file, tmp_path, monkeypatch, capsys
):
    def full(photo, model, cropped):
        if not full.met:
            full.met = True
            raise MemoryError
        return whole(photo, model, cropped)

    whole, full.met = deploy.predict, False
    monkeypatch.setattr(deploy, "predict", full)
    first, second = album / "wall.jpg", album / "group.jpg"
    ages.main([str(first), str(second), "--out", str(tmp_path / "out"), "--model", str(model_file)])
    table = pd.read_csv(tmp_path / "out" / "ages.csv")
    assert table["note"][0] == f"{first}: too large for the memory" and f"{first}: too large" in capsys.readouterr().out
    assert table["age"].notna().any()


def test_the_command_in_a_process_of_its_own(album, model_file, tmp_path):
    command = [sys.executable, "-m", "commands.ages", album / "wall.jpg", album / "gone.jpg"]
    command += ["https://example.org/me.jpg", "--out", tmp_path / "out", "--model", model_file]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=paths.ROOT)
    assert done.returncode == 1  # no face in any of them
    assert f"{album / 'wall.jpg'}: no face was found" in done.stdout
    assert f"{album / 'gone.jpg'} does not exist" in done.stdout
    assert "nothing is downloaded here" in done.stdout
    assert "Traceback" not in done.stderr and "photos: 100%" in done.stderr


@pytest.mark.parametrize("kind", ["missing", "damaged", "none at all"])
def test_without_a_model_the_command_ends_with_one_sentence(kind, album, tmp_path, monkeypatch):
    monkeypatch.setattr(deploy, "run_dir", lambda: tmp_path / "runs")
    file = tmp_path / "model.onnx"
    if kind == "damaged":
        file.write_bytes(b"no model")
    monkeypatch.setattr(deploy, "SHIPPED", tmp_path / "shipped.onnx")
    named = [] if kind == "none at all" else ["--model", str(file)]
    with pytest.raises(SystemExit) as stopped:
        ages.main([str(album), "--out", str(tmp_path / "out"), *named])
    remedy = "git checkout data/models" if kind == "none at all" else "notebook 09_deployment"
    one_sentence(stopped.value.code, remedy)
    assert not (tmp_path / "out").exists()


def test_the_first_line_says_which_model_answers_and_how_far_it_errs(album, model_file, tmp_path, capsys):
    file = tmp_path / "model.onnx"
    for facts, told in [
        ({"data": "demo"}, "drawn faces: for photos of people its ages mean little"),
        ({"data": "utkface"}, "has learnt from utkface and errs there by 4.2 years on average."),
        ({"data": "utkface", "elsewhere": {"mae": 5.31}}, "4.2 years on average, by 5.3 on photos of another source."),
    ]:
        file.write_bytes(model_file.read_bytes())
        export.write_facts(file, **export.facts_of(export.load(model_file)) | {"mae": 4.2} | facts)
        ages.main([str(album / "group.jpg"), "--out", str(tmp_path / "out"), "--model", str(file)])
        one_sentence(capsys.readouterr().out.splitlines()[0], str(file), told)


def test_many_photos_on_all_cores_have_the_same_rows(album, model_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ages.joblib, "cpu_count", lambda: 2)
    tables = []
    for many in (4, 99):  # two processes, one
        monkeypatch.setattr(ages, "MANY", many)
        out = tmp_path / f"out{many}"
        ages.main([str(album), "--out", str(out), "--model", str(model_file)])
        tables.append((out / "ages.csv").read_text(encoding="utf-8"))
        assert len(list(out.glob("*_ages*.jpg"))) == 2
    assert tables[0] == tables[1]


def test_the_command_itself_takes_many_photos(model_file, tmp_path):
    for i in range(ages.MANY + 1):
        save(tmp_path / "faces" / f"{i}.jpg", 5 * i)
    command = [
        sys.executable,
        "-m",
        "commands.ages",
        str(tmp_path / "faces"),
        "--cropped",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([*command, "--model", str(model_file)], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{ages.MANY + 1} faces in {ages.MANY + 1} of {ages.MANY + 1} files" in done.stdout
    assert len(pd.read_csv(tmp_path / "out" / "ages.csv")) == ages.MANY + 1


def test_a_process_that_is_killed_is_told(holiday, model_file, tmp_path, monkeypatch):
    def killed(*_):
        raise ages.TerminatedWorkerError("A worker process was killed by the operating system")

    monkeypatch.setattr(ages, "look_at_all", killed)
    with pytest.raises(SystemExit) as stopped:
        ages.main([str(holiday), "--out", str(tmp_path / "out"), "--model", str(model_file)])
    one_sentence(stopped.value.code, "killed", "goes on")


def test_an_output_folder_that_cannot_be_made_is_told(album, model_file):
    with pytest.raises(SystemExit) as stopped:
        ages.main([str(album), "--out", str(album / "notes.txt"), "--model", str(model_file)])
    one_sentence(stopped.value.code, album / "notes.txt")


# Nothing is lost, nothing is done twice, nothing is replaced


@pytest.fixture
def quick(monkeypatch):
    """A detector's place is taken: one face in every photo. Returns the list of the photos that were looked at."""
    looked = []

    def predict(photo, model, cropped):
        looked.append(photo)
        age = 20 + photo[0, 0, 0] / 10
        return pd.DataFrame([(1, 1, 20, 20, age, age - 5, age + 5, 1.0, "")], columns=deploy.COLUMNS)

    monkeypatch.setattr(deploy, "predict", predict)
    return looked


@pytest.fixture
def holiday(tmp_path):
    """A folder of five photos of one colour each."""
    for i in range(5):
        save(tmp_path / "holiday" / f"{i}.jpg", 50 * i)
    return tmp_path / "holiday"


def save(file, grey):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(page(40, 50, (grey, grey, grey))).save(file)


def photos(table):
    return [os.path.basename(name) for name in pd.read_csv(table)["photo"]]


@pytest.mark.parametrize("how", [KeyboardInterrupt, RuntimeError])
def test_after_ctrl_c_or_a_crash_the_rows_are_there_and_the_next_run_goes_on(
    how, holiday, model_file, tmp_path, quick, monkeypatch
):
    whole, arguments = deploy.predict, [str(holiday), "--out", str(tmp_path / "out"), "--model", str(model_file)]

    def stops(photo, model, cropped):
        if len(quick) == 3:
            raise how
        return whole(photo, model, cropped)

    monkeypatch.setattr(deploy, "predict", stops)
    with pytest.raises(SystemExit if how is KeyboardInterrupt else how) as stopped:
        ages.main(arguments)
    if how is KeyboardInterrupt:
        one_sentence(stopped.value.code, "goes on", tmp_path / "out" / "ages.csv")
    assert photos(tmp_path / "out" / "ages.csv") == ["0.jpg", "1.jpg", "2.jpg"]
    monkeypatch.setattr(deploy, "predict", whole)
    before = snapshot(tmp_path / "out")
    ages.main(arguments)
    assert len(quick) == 5 and photos(tmp_path / "out" / "ages.csv") == [f"{i}.jpg" for i in range(5)]
    after = snapshot(tmp_path / "out")
    assert [row for row in after if row in before] == [row for row in before if "ages.csv" not in row[0]]
    assert len(list((tmp_path / "out").glob("*_ages.jpg"))) == 5


def test_killed_while_it_writes(holiday, model_file, tmp_path, quick):
    arguments = [str(holiday), "--out", str(tmp_path / "out"), "--model", str(model_file)]
    ages.main(arguments)
    table = tmp_path / "out" / "ages.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-20])
    ages.main(arguments)
    assert len(quick) == 6 and table.read_bytes() == whole


def test_results_of_other_photos_stay(holiday, model_file, tmp_path, quick, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--model", str(model_file)]
    ages.main([str(holiday / "0.jpg"), *arguments])
    save(tmp_path / "party" / "0.jpg", 70)
    ages.main([str(tmp_path / "party"), *arguments])
    assert photos(tmp_path / "out" / "ages.csv") == ["0.jpg", "0.jpg"]
    assert sorted(file.name for file in (tmp_path / "out").glob("*.jpg")) == ["0_ages.jpg", "0_ages_2.jpg"]
    ages.main([str(holiday), *arguments])
    assert len(quick) == 6
    assert "5 faces in 5 of 5 files, 1 of them done before" in capsys.readouterr().out


def test_a_photo_that_has_changed_and_another_model_are_done_anew(holiday, model_file, tmp_path, quick):
    arguments = [str(holiday / "1.jpg"), "--out", str(tmp_path / "out"), "--model", str(model_file)]
    ages.main(arguments)
    ages.main(arguments)
    assert len(quick) == 1
    save(holiday / "1.jpg", 90)
    ages.main(arguments)
    ages.main([*arguments, "--cropped"])
    (tmp_path / "other.onnx").write_bytes(model_file.read_bytes())
    export.write_facts(tmp_path / "other.onnx", **export.facts_of(export.load(model_file)) | {"mae": 3.5})
    ages.main([*arguments[:3], "--model", str(tmp_path / "other.onnx")])
    assert len(quick) == 4 and photos(tmp_path / "out" / "ages.csv") == ["1.jpg"] * 4


@pytest.mark.parametrize("where", [".", "out"])
def test_files_with_the_names_of_results_are_photos_like_others_and_stay(holiday, model_file, where, quick):
    """Also with `--out` inside the album."""
    out = holiday / where
    save(out / "0_ages.jpg", 120)
    (out / "ages.csv").write_text("name,age\nme,34\n")
    (out / "ages_2.csv").write_text("")
    before, arguments = snapshot(holiday), [str(holiday), "--out", str(out), "--model", str(model_file)]
    for _ in range(2):
        ages.main(arguments)
        assert len(quick) == 6  # the photo 0_ages.jpg too, and no result
        made = {"ages_3.csv", "0_ages_2.jpg", "0_ages_ages.jpg", *(f"{i}_ages.jpg" for i in range(1, 5))}
        stays = [row for row in snapshot(holiday) if os.path.basename(row[0]) not in made]
        assert [row[:2] for row in stays] == [row[:2] for row in before]
        assert {file.name for file in out.iterdir()} >= made


def test_what_could_not_be_done_is_tried_again(holiday, model_file, tmp_path, quick, monkeypatch, capsys):
    arguments = [str(tmp_path / "late.jpg"), str(holiday), "--out", str(tmp_path / "out"), "--model", str(model_file)]
    whole = deploy.annotate

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(deploy, "annotate", full)
    for _ in range(2):
        with pytest.raises(SystemExit):
            ages.main(arguments)
        said = capsys.readouterr().out
        assert "late.jpg does not exist" in said and said.count("No space left on device") == 5
        assert len(photos(tmp_path / "out" / "ages.csv")) == 6
    monkeypatch.setattr(deploy, "annotate", whole)
    save(tmp_path / "late.jpg", 10)
    ages.main(arguments)
    assert "6 faces in 6 of 6 files" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_not_utf8_is_done_once(holiday, model_file, tmp_path, quick):
    os.rename(os.fsencode(holiday / "0.jpg"), os.fsencode(holiday) + b"/caf\xe9.jpg")
    for _ in range(2):
        ages.main([str(holiday), "--out", str(tmp_path / "out"), "--model", str(model_file)])
    assert len(quick) == 5 and len(photos(tmp_path / "out" / "ages.csv")) == 5


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name", ["a\nb", "$HOME {0} %s", "年齢 😀 عمر", "x" * 250, "年" * 80, 'q"u,ote', "-dash", "a_ages"]
)
def test_names_of_all_kinds_are_done_once_and_keep_their_result(name, tmp_path, model_file, quick, monkeypatch):
    monkeypatch.setattr(sys, "stdout", open(os.devnull, "w", encoding="ascii"))  # a terminal that knows no such letters
    save(tmp_path / "album" / f"{name}.jpg", 50)
    for _ in range(2):
        ages.main([str(tmp_path / "album"), "--out", str(tmp_path / "album" / "out"), "--model", str(model_file)])
    assert len(quick) == 1 and pd.read_csv(tmp_path / "album" / "out" / "ages.csv")["age"].notna().tolist() == [True]
    assert len(list((tmp_path / "album" / "out").glob("*.jpg"))) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_links_to_nowhere_loops_and_pipes_are_listed(holiday, model_file, tmp_path, quick):
    (holiday / "loop.jpg").symlink_to(holiday / "loop.jpg")
    (holiday / "gone.jpg").symlink_to(holiday / "nowhere")
    (holiday / "self").symlink_to(holiday)
    os.mkfifo(holiday / "pipe.jpg")
    ages.main([str(holiday), "--out", str(tmp_path / "out"), "--model", str(model_file)])
    table = pd.read_csv(tmp_path / "out" / "ages.csv")
    assert table["age"].notna().sum() == 5 and len(table) == 8
    for name in ("loop.jpg", "gone.jpg", "pipe.jpg"):
        (note,) = table["note"][table["photo"].str.endswith(name)]
        one_sentence(note, name, "remove it")


def test_cropped_faces_need_no_detector(shipped, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(align, "detector", None)
    Image.fromarray(shipped[0]).save(tmp_path / "face.png")
    ages.main([str(tmp_path / "face.png"), "--cropped", "--out", str(tmp_path / "out"), "--model", str(model_file)])
    table = pd.read_csv(tmp_path / "out" / "ages.csv")
    assert table["age"].notna().all() and table["score"].isna().all()
