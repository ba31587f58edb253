"""Pictures for the tests: small, synthetic, made from a seed, and told apart by the decoder."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def picture(seed=0, size=(48, 40)):
    """Return a smooth random RGB picture, uint8 `(H, W, 3)`; `size` is (H, W)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def save(path, seed=0, **how):
    """Write `picture(seed)` to `path`, with its folder, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, **how)
    return path


def toy(n=32, seed=0):
    """Return `(images, ages)`, uint8 `(n, 128, 128, 3)` and years: the brighter the picture, the older the face."""
    rng = np.random.default_rng(seed)
    ages = np.linspace(20, 50, n).round()
    images = (ages * 4)[:, None, None, None] + rng.normal(0, 10, (n, 128, 128, 3))
    return images.clip(0, 255).astype(np.uint8), ages


def place(photo, face, centre, side, angle=0):
    """Lay the square picture `face` on `photo` at `centre` (x, y), `side` pixels wide and turned; return `photo`."""
    matrix = cv2.getRotationMatrix2D((face.shape[1] / 2, face.shape[0] / 2), angle, side / face.shape[0])
    matrix[:, 2] += np.array(centre) - np.array(face.shape[1::-1]) / 2
    return cv2.warpAffine(face, matrix, photo.shape[1::-1], dst=photo, borderMode=cv2.BORDER_TRANSPARENT)


def page(height, width, colour=(127, 127, 127)):
    """Return a picture of one colour, uint8 `(height, width, 3)`."""
    return np.full((height, width, 3), colour, np.uint8)


def patterns():
    """Yield pictures without a face, uint8 `(400, 400, 3)`: squares, stripes, rings, noise, coloured spots."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:400, :400]
    for period in (7, 16, 40):
        for grey in (255 * ((x // period + y // period) % 2), 127 + 127 * np.sin(2 * np.pi * x / period)):
            yield np.dstack([grey.astype(np.uint8)] * 3)
        yield np.dstack([(127 + 127 * np.sin(np.hypot(x - 200, y - 200) * 3 / period)).astype(np.uint8)] * 3)
    for cells in (8, 12, 20, 30, 50, 80):
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        for how in (cv2.INTER_CUBIC, cv2.INTER_NEAREST):
            yield cv2.resize(coarse, (400, 400), interpolation=how)
        spots = page(400, 400)
        for centre in rng.integers(0, 400, (cells, 2)):
            cv2.circle(spots, centre.tolist(), int(rng.integers(5, 60)), rng.integers(0, 256, 3).tolist(), -1)
        yield spots
    yield rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)


def snapshot(folder):
    """Return name, bytes and time of change of everything in `folder`, to prove that it was left alone."""
    stored = ((p, p.lstat()) for p in sorted(Path(folder).rglob("*")))
    return [(str(p), p.read_bytes() if p.is_file() else None, s.st_mtime_ns, s.st_mode) for p, s in stored]


def one_sentence(text, *parts):
    """Assert that a person can read `text`: one line without a traceback or a repr, which names all `parts`."""
    text = str(text)
    assert "Traceback" not in text and "\n" not in text, text
    for token in ("PosixPath(", "WindowsPath(", "Error(", "<class", " object at 0x", "np.", "dtype"):
        assert token not in text, text
    for part in parts:
        assert str(part) in text, f"{part!r} is not in: {text}"
