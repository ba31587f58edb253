"""Seconds and memory of `commands.ages` for an album of photos with two faces each: `python tests/bench/album.py 500`.

The command runs as a user would start it, with the network that ships for photos. Its memory is that of all its
processes together, without what is mapped from files.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil  # ipykernel brings it
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests import faces  # noqa: E402

HEIGHT, WIDTH = 1250, 1600


def make_album(folder, n):
    """Write `n` JPEGs with two drawn faces each on a background of their own."""
    drawn, rng = sorted((ROOT / "data" / "demo").rglob("*.jpg")), np.random.default_rng(0)
    for number in range(n):
        photo = np.asarray(Image.fromarray(faces.picture(number)).resize((WIDTH, HEIGHT)))
        photo = np.clip(photo + rng.normal(0, 6, photo.shape), 0, 255).astype(np.uint8)  # the grain of a camera
        for x, file in zip((450, 1150), rng.choice(drawn, 2)):
            faces.place(photo, np.asarray(Image.open(file).convert("RGB")), (x, 600), int(rng.integers(250, 450)))
        Image.fromarray(photo).save(folder / f"{number:04d}.jpg", quality=90)


def own_memory(process):
    """Return the bytes of `process` and its children that belong to no file and to one of them alone."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().uss
        except psutil.Error:  # it has just ended
            continue
    return total


def measure(n):
    """Return a row for each second or so of the command: seconds, photos done, bytes of memory."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "photos").mkdir()
        make_album(folder / "photos", n)
        line = [sys.executable, "-m", "commands.ages", str(folder / "photos"), "--out", str(folder / "out")]
        started, log = time.perf_counter(), folder / "log"
        with open(log, "w") as said:
            command = subprocess.Popen(line, cwd=ROOT, stdout=said, stderr=said)
            while command.poll() is None:
                time.sleep(0.5)
                done = len(list((folder / "out").glob("*_ages.jpg")))
                if command.poll() is None:
                    rows.append((time.perf_counter() - started, done, own_memory(psutil.Process(command.pid))))
        if command.returncode:
            sys.exit(log.read_text()[-2000:])
        print(log.read_text().splitlines()[-1])
    return pd.DataFrame(rows, columns=["seconds", "done", "bytes"])


if __name__ == "__main__":
    n = int(sys.argv[1]) if sys.argv[1:] else 500
    rows = measure(n)
    print(f"{n} photos, {rows['seconds'].iloc[-1] / n:.3f} s a photo, the start included")
    fifth = rows["done"].mul(5).sub(1).floordiv(n).clip(lower=0)
    memory = (rows.groupby(fifth)["bytes"].median() / 1e6).round().astype(int)
    print(f"memory, median over each fifth of the photos: {', '.join(map(str, memory))} MB")
    print(f"the last fifth has {memory.iloc[-1] / memory.iloc[1]:.2f} times the memory of the second")
