"""Guards on the faces that are shipped: as the table says, nothing to cheat by, something to learn."""

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.feature import hog
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.generator import plan
from helpers import datasets, paths

DATA = paths.ROOT / "data"


@pytest.fixture(scope="module")
def faces():
    return pd.read_csv(DATA / "demo" / "faces.csv")


@pytest.fixture(scope="module")
def pictures(faces):
    return np.stack([cv2.imread(str(DATA / "demo" / path))[..., ::-1] for path in faces["path"]])


def across_people(features, faces):
    """Return the MAE of ridge regression on `features`, each person's ages predicted from those of other people."""
    model = make_pipeline(StandardScaler(), RidgeCV(10.0 ** np.arange(0, 6)))
    predicted = cross_val_predict(model, features, faces["age"], groups=faces["person"], cv=GroupKFold(5))
    return np.abs(predicted - faces["age"]).mean()


def mae_of_the_median(ages):
    return np.abs(ages - np.median(ages)).mean()


@pytest.mark.parametrize(
    "name, table, make", [("demo", "faces", plan.demo_plan), ("factors", "factors", plan.factor_plan)]
)
def test_the_table_is_the_plan_and_every_picture_is_there(name, table, make):
    stored, planned = pd.read_csv(DATA / name / f"{table}.csv", keep_default_na=False), make()
    assert stored.columns.tolist() == planned.columns.tolist()
    for column in planned:
        assert np.array_equal(stored[column].astype(planned[column].dtype), planned[column]), column
    files = {p.relative_to(DATA / name).as_posix(): p for p in (DATA / name).rglob("*.jpg")}
    assert set(files) == set(planned["path"])
    assert all(cv2.imread(str(file)).shape == (160, 160, 3) for file in list(files.values())[::10])
    assert sum(file.stat().st_size for file in files.values()) < 30e6


def test_the_page_states_the_floor_of_this_set(faces):
    floor = faces["apparent_offset"].abs().mean()
    assert 2.0 < floor < 2.5 and f"{floor:.2f} years" in (DATA / "README.md").read_text(encoding="utf-8")


def test_nobody_is_in_two_parts(faces):
    splits = datasets.read_splits()
    assert set(splits["path"]) <= set(faces["path"]) and len(splits) > 0.99 * len(faces)
    person = faces.set_index("path")["person"][splits["path"]].to_numpy()
    assert splits.groupby(person)["part"].nunique().max() == 1


def test_there_is_no_shortcut(faces, pictures):
    grey = pictures.mean(-1)
    edges = np.array([[cv2.Laplacian(picture, cv2.CV_64F).var()] for picture in pictures])
    background = np.concatenate([pictures[:, :24, :24], pictures[:, :24, -24:]], 1).mean((1, 2))
    size = np.array([[(DATA / "demo" / path).stat().st_size] for path in faces["path"]])
    shortcuts = np.hstack([pictures.mean((1, 2)), grey.std((1, 2))[:, None], edges, np.log(edges), background, size])
    assert across_people(shortcuts, faces) > 0.95 * mae_of_the_median(faces["age"])


def test_shapes_and_lines_tell_the_age(faces, pictures):
    small = [cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (128, 128)) for picture in pictures]
    features = np.stack([hog(picture, pixels_per_cell=(16, 16), cells_per_block=(2, 2)) for picture in small])
    assert across_people(features, faces) < 0.85 * mae_of_the_median(faces["age"])


def test_the_pictures_of_a_person_show_one_person(faces, pictures):
    """Face verification on people it has not seen, by the middle of the face: Fisherfaces (Belhumeur et al. 1997).

    A picture must be likelier to resemble one of the same person, years apart, than one of a stranger of the same sex
    and skin tone.
    """
    several = (faces.groupby("person")["path"].transform("size") > 1).to_numpy()
    table, people = faces[several].reset_index(drop=True), faces["person"][several].unique()
    middle = [cv2.cvtColor(picture[40:128, 40:120], cv2.COLOR_RGB2GRAY) for picture in pictures[several]]
    edges = [hog(cv2.resize(face, (64, 64)), pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for face in middle]
    learn = table["person"].isin(people[::2]).to_numpy()
    fisher = make_pipeline(
        PCA(200, random_state=0), LinearDiscriminantAnalysis("eigen", shrinkage=0.1, n_components=60)
    )
    new = table[~learn].reset_index(drop=True)
    met = fisher.fit(np.stack(edges)[learn], table["person"][learn]).transform(np.stack(edges)[~learn])
    met /= np.linalg.norm(met, axis=1, keepdims=True)
    one, other = np.triu_indices(len(new), 1)
    same = new["person"].to_numpy()[one] == new["person"].to_numpy()[other]
    tone, sex = new["skin_tone"].to_numpy(), new["sex"].to_numpy()
    like = (sex[one] == sex[other]) & (np.abs(tone[one] - tone[other]) < 0.15)
    assert roc_auc_score(same[like], (met[one] * met[other]).sum(1)[like]) > 0.8
