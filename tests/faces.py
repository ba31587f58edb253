"""Pictures for the tests: small, synthetic, made from a seed, and told apart by the decoder."""

from pathlib import Path

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
