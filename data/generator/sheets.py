"""Contact sheets of the sets, into `pics/`: `python -m data.generator.sheets` (after `make faces`)."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from .make import write_atomic

DATA = Path(__file__).resolve().parents[1]
SIDE, STRIP = 128, 20  # pixels: of a picture on the sheet, and of the line of text under it


def sheet(pictures, titles, columns) -> np.ndarray:
    """Return the files `pictures` side by side, BGR `(rows × 148, columns × 128, 3)`, a title under each."""
    rows = -(-len(pictures) // columns)
    page = np.full((rows * (SIDE + STRIP), columns * SIDE, 3), 255, np.uint8)
    for k, (file, title) in enumerate(zip(pictures, titles)):
        y, x = k // columns * (SIDE + STRIP), k % columns * SIDE
        page[y : y + SIDE, x : x + SIDE] = cv2.resize(cv2.imread(str(file)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        at = (x + 4, y + SIDE + 14)
        cv2.putText(page, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    return page


def by_age(faces: pd.DataFrame):
    """Return 100 pictures of 100 people, sorted by age, as `(rows, titles, columns)`."""
    one = faces.sample(frac=1, random_state=0).drop_duplicates("person").sort_values(["age", "path"], kind="stable")
    one = one.iloc[np.linspace(0, len(one) - 1, 100).round().astype(int)]
    return one, one["age"].astype(str), 10


def by_person(faces: pd.DataFrame):
    """Return the four pictures each of 24 people, as `(rows, titles, columns)`: three people a line."""
    four = faces[faces.groupby("person")["path"].transform("size") == 4].sort_values(["person", "age"])
    some = four.iloc[: 4 * 24]
    return some, some["person"] + ", " + some["age"].astype(str), 12


def by_factor(factors: pd.DataFrame):
    """Return every controlled picture of the two people who have most of them, as `(rows, titles, columns)`."""
    most = factors["person"].value_counts(sort=False).nlargest(2).index
    some = factors[factors["person"].isin(most)]
    return some, (some["factor"] + " " + some["level"]).where(some["factor"] != "baseline", "baseline"), 10


def main():
    """Write the three sheets."""
    faces, factors = (pd.read_csv(DATA / f"{path}.csv") for path in ("demo/faces", "factors/factors"))
    sheets = {
        "age": ("demo", by_age(faces)),
        "person": ("demo", by_person(faces)),
        "factor": ("factors", by_factor(factors)),
    }
    for name, (folder, (rows, titles, columns)) in sheets.items():
        page = sheet([DATA / folder / path for path in rows["path"]], titles, columns)
        jpeg = cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
        write_atomic(DATA.parent / "pics" / f"faces_by_{name}.jpg", jpeg.tobytes())


if __name__ == "__main__":
    main()
