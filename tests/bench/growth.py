"""What each step costs with more and more pictures: seconds, memory and bytes on disk, each in a process of its own.

`python tests/bench/growth.py [SIZE …]`; the pictures are links to the shipped faces, and blends of two of them where
equal pictures would make the work unlike that of real ones.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SIZES = (1_000, 10_000, 100_000)
STEPS = ("labelling", "duplicates", "splitting", "caching")
ROOT = Path(__file__).resolve().parents[2]


class Blends:
    """`n` pictures, each made of two shipped faces when it is asked for, so that no two are alike."""

    def __init__(self, n):
        from helpers import images, labels

        names = labels.read_labels(ROOT / "data" / "labels.csv")["path"][:200]
        self.faces = [images.prepare(images.read_image(ROOT / "data" / "demo" / name)) for name in names]
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        import cv2

        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(self.n))]
        if i >= self.n:
            raise IndexError(i)
        rng = np.random.default_rng(int(i))
        one, other = rng.choice(len(self.faces), 2, replace=False)
        weight = rng.uniform(0.3, 0.7)
        blend = cv2.addWeighted(self.faces[one], weight, self.faces[other], 1 - weight, 0)
        return np.roll(blend, rng.integers(-12, 13, 2), (0, 1))


def link_faces(folder, n):
    """Lay out `n` pictures as a folder per age: links to the shipped faces, copies where links are impossible."""
    import shutil

    faces = sorted((ROOT / "data" / "demo").glob("*/*"))
    faces = [face for face in faces if face.parent.name.isdigit()]
    faces = faces[:: max(1, len(faces) // n)]  # of all ages, however few are wanted
    for i in range(n):
        face = faces[i % len(faces)]
        link = folder / face.parent.name / f"{i // len(faces)}-{face.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(face, link)
        except OSError:
            shutil.copyfile(face, link)


def memory():
    """The bytes of this process that are not mapped from a file, or 0 where that is not told."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def do(step, n, folder):
    """Do one step with `n` pictures and print what it cost."""
    os.environ["AGE_DATA"] = str(folder / "faces")
    from helpers import datasets, images, labels, paths

    paths.ROOT = folder
    rng = np.random.default_rng(0)
    if step in ("labelling", "caching"):
        link_faces(folder / "faces", n)
    found = labels.find_faces(folder / "faces") if step == "caching" else None
    blends = Blends(n) if step == "duplicates" else None
    before, peak, done = memory(), [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak.append(memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    if step == "labelling":
        found = labels.find_faces(folder / "faces")
        labels.set_aside(found, images.inspect(folder / "faces", found["path"]))
    elif step == "duplicates":
        images.near_duplicates(blends)
    elif step == "splitting":
        datasets.split_groups(rng.integers(20, 51, n), rng.integers(0, n // 2, n))
    else:
        images.prepare_all(folder / "faces", found["path"])
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    disk = sum(file.stat().st_size for file in (folder / "runs").rglob("*") if file.is_file())
    print(json.dumps({"step": step, "n": n, "seconds": seconds, "memory": max(peak) - before, "disk": disk}))


def measure(sizes=SIZES):
    """Return a table: `step, n, seconds, memory` (bytes more than before), `disk` (bytes), `exponent`."""
    import pandas as pd

    rows = []
    for step in STEPS:
        for n in sizes:
            (ROOT / "runs").mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=ROOT / "runs", prefix="bench-") as folder:
                line = [sys.executable, __file__, "--do", step, str(n), folder]
                environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
                ended = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(ended.stdout.splitlines()[-1]))
    table = pd.DataFrame(rows)
    growth = table.groupby("step")[["n", "seconds"]].transform(lambda values: np.log(values).diff())
    return table.assign(exponent=growth["seconds"] / growth["n"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--do"]:
        do(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        print(measure([int(size) for size in sys.argv[1:]] or SIZES).to_string(index=False))
