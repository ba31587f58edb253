"""How sure the face detector is: of faces, of turned ones, and of patterns without any; the three scores of align.

`python tests/bench/detector.py [FOLDER]` takes some of the shipped faces, and of the whole photos in FOLDER, of one
person each. Counts alone are printed.
"""

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from faces import page, patterns, place  # noqa: E402

from helpers import align, images, labels, paths  # noqa: E402


def judge(photo):
    """Return the scores of the faces in an upright photo, best first, and whether each of its turns was seen as one."""
    with mock.patch.object(align, "GHOST", 0):
        scores = np.sort(align.detect(photo)[2])[::-1]
    seen = []
    for turn in range(4):
        _, points, found = align.detect(np.rot90(photo, turn))
        across, down = points[found.argmax()][1] - points[found.argmax()][0] if len(points) else (np.nan, np.nan)
        seen.append(-1 if np.isnan(across) else round(np.degrees(np.arctan2(down, across)) / 90 + turn) % 4 == 0)
    return scores, seen


def main():
    """Print, for each kind of photo, what the three scores do to it."""
    demo = labels.find_faces(paths.DEMO)["path"]
    shipped = [images.read_image(paths.DEMO / path) for path in demo[:: len(demo) // 100][:100]]
    kinds = {
        "shipped, as stored": shipped,
        "shipped, on grey": [place(page(400, 400), face, (200, 200), 200) for face in shipped],
        "patterns": list(patterns()),
    }
    if sys.argv[1:]:
        files = sorted(Path(sys.argv[1]).rglob("*.jpg"))
        kinds["photos"] = [images.read_image(file) for file in files[:: max(1, len(files) // 100)]]
    table = {}
    for name, photos in kinds.items():
        scores, seen = zip(*map(judge, photos))
        best, further = np.array([one[0] if len(one) else 0 for one in scores]), np.concatenate([s[1:] for s in scores])
        row = {"photos": len(photos)}
        for level in ("GHOST", "SURE", "CERTAIN"):
            row[f"best face below {level}"] = (best < getattr(align, level)).sum()
            row[f"further faces below {level}"] = f"{(further < getattr(align, level)).sum()} of {len(further)}"
        for turn, one in enumerate(np.array(seen, int).T):
            row[f"turned by {90 * turn}: right, wrong, none"] = (
                f"{(one == 1).sum()}, {(one == 0).sum()}, {(one < 0).sum()}"
            )
        table[name] = row
    print(pd.DataFrame(table).to_string())


if __name__ == "__main__":
    main()
