"""From a file to a clean uint8 RGB picture of 128×128, decoded once."""

import hashlib
import os
import re
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pandas as pd
import pillow_heif
from joblib import Parallel, delayed
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from tqdm import tqdm

from .paths import atomic, run_dir

SIDE = 128  # pixels, the side of every picture that a model sees
VERSION = 2  # of `prepare`: raise it with every change, so that no stale picture is read from the cache
SMALLEST = 32  # pixels; a smaller picture holds no face that could be read
NOISY = 4.0  # grey levels, of `noise_level`: above it notebook 04 shows that denoising helps
BLURRED = 20.0  # of `sharpness`: below it notebook 04 shows that deblurring helps
UPRIGHT = {  # what undoes each EXIF orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
ORIENTATION, PHOTOMETRIC, BITS, PLANES, NEW_SUBFILE_TYPE, DNG = 274, 262, 258, 284, 254, 50706  # tags of EXIF and TIFF
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "HEIF")
GONE = {  # what a path may be that leads to no file, told by a sign; the first that fits
    "://": "is an address, and nothing is downloaded here: save the photo and write its path",
    r"^(?:[A-Za-z]:[\\/]|\\\\)": "is a path of another computer: write it relative to the folder of the photos",
    r"\\x[0-9a-f]{2}": "is a name that is not UTF-8: correct it",
    "": "does not exist: correct the path in the CSV or remove the row",
}
Image.MAX_IMAGE_PIXELS = 120_000_000  # Pillow warns of more, and refuses twice as many: they fill the memory
TiffImagePlugin.OPEN_INFO[b"MM", 1, (1,), 1, (32,), ()] = "I", "I;32B"  # big-endian whole numbers, which it leaves out
pillow_heif.register_heif_opener()


def read_image(path) -> np.ndarray:
    """Return the picture in the file `path` as uint8 RGB `(H, W, 3)`, upright; its content decides, not its name.

    JPEG, PNG, HEIC, AVIF, WebP, TIFF, GIF, BMP, JPEG 2000, PPM; the first picture where there are several.
    Raises `ValueError` that names the file when it is missing, not a picture, damaged, or smaller than 32 pixels.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise OSError(0, "a folder or a device, no file")
        with open(path, "rb") as file:  # of a path Pillow maps some TIFFs, and turns these wrongly
            image = decode(file)
        if min(image.shape[:2]) >= SMALLEST:
            return image
        why = f"has {image.shape[1]}×{image.shape[0]} pixels, too few ({SMALLEST}×{SMALLEST}): replace or remove it"
    except FileNotFoundError:
        why = "does not exist: correct the name or remove it"
    except UnidentifiedImageError:
        why = "holds no picture that can be recognised: replace or remove it"
        if path.suffix.lower() not in Image.registered_extensions():
            why = f"is not a picture file ({path.suffix or 'no suffix'}): save it as JPEG or PNG"
    except Exception as error:  # Pillow has many for the many ways to be damaged, struct.error among them
        said = " ".join(str(getattr(error, "strerror", None) or error).split())
        why = f"cannot be decoded ({said}): replace or remove it"
    raise ValueError(f"{path} {why}.")


def decode(source) -> np.ndarray:
    """Return the picture in `source`, an open file or a `BytesIO`, as `read_image` does. Raises what Pillow raises."""
    with Image.open(source, formats=FORMATS) as file:
        tags = getattr(file, "tag_v2", {})
        if DNG in tags or tags.get(NEW_SUBFILE_TYPE, 0) & 1:
            raise ValueError("a raw photo, of which only a small preview can be read; save it as JPEG")
        if tags.get(PLANES) == 2 and max(tags.get(BITS, (8,))) > 8:  # Pillow and OpenCV would read noise
            raise ValueError("16-bit colours in separate planes; save it with 8 bits")
        zero_is_white = tags.get(PHOTOMETRIC) == 0
        sixteen = file.mode in ("LA", "RGB", "RGBA") and any(";16" in str(tile.args) for tile in file.tile)
        file.load()  # before OpenCV, which returns a truncated file as a half grey picture without an error
        # Of 16-bit colours Pillow takes the upper byte. Where they hold 12 or 8 bits, nearly nothing is in it.
        if file.mode[0] in "IF" or sixteen and np.asarray(file.convert("RGB")).max() < 16:
            source.seek(0)
            values = cv2.imdecode(np.frombuffer(source.read(), np.uint8), cv2.IMREAD_UNCHANGED)
            if values is not None:
                image = Image.fromarray(_to_8_bits(values if values.ndim == 2 else values[..., 2::-1]))
                image = ImageOps.invert(image) if zero_is_white else image
                if file.mode.endswith("A"):
                    image.putalpha(Image.fromarray(_to_8_bits(values[..., 3])))
                return upright(file, image)
        return upright(file)


def upright(file, image=None) -> np.ndarray:
    """Return the loaded Pillow `file`, or `image` in its place, as uint8 RGB `(H, W, 3)`, turned as its EXIF says."""
    # ImageOps.exif_transpose would write all EXIF fields anew, and fails on those that some cameras get wrong.
    try:
        undo = UPRIGHT.get(file.getexif().get(ORIENTATION))
    except Exception:  # nothing but the picture is needed
        undo = None
    white_is_zero = image is None and file.mode[0] == "I" and getattr(file, "tag_v2", {}).get(PHOTOMETRIC) == 0
    image = to_rgb(image or file)
    image = ImageOps.invert(image) if white_is_zero else image  # which Pillow does for 8 bits alone
    return np.asarray(image if undo is None else image.transpose(undo))


def to_rgb(image):
    """Return the Pillow `image` of any mode as one of mode RGB, with 8 bits; transparency is laid on white."""
    if image.mode[0] in "IF":  # Pillow would clip them to white
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(values):
    # No format tells how many bits a camera has filled, so the largest value does: 8, 12, 16 or all. A dark picture of
    # 16 bits stays dark unless its brightest pixel is below a sixteenth of white.
    if values.dtype.kind == "f" or values.min() < 0:  # nobody knows which of them is white
        raise ValueError("fractions or values below zero; save it with 8 or 16 bits")
    largest = np.iinfo(values.dtype).max
    white = next(white for white in (255, 4095, min(65535, largest), largest) if values.max() <= white)
    return (values.astype(np.int64) * 255 // white).astype(np.uint8)


def square(image) -> np.ndarray:
    """Return the largest centred square of `image` `(H, W, 3)`, so that resizing does not stretch the face."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize(image, side=SIDE) -> np.ndarray:
    """Return `image` as `(side, side, 3)`: area averaging to shrink, so that nothing aliases, cubic to enlarge."""
    how = cv2.INTER_AREA if image.shape[0] >= side else cv2.INTER_CUBIC
    return cv2.resize(image, (side, side), interpolation=how)


def sharpness(image) -> float:
    """Return the variance of the Laplacian of the grey picture; low means blurred. Source: Pech-Pacheco et al. 2000."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def noise_level(image) -> float:
    """Return the estimated standard deviation of the noise of `image` in grey levels. Source: Immerkær 1996."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    return float(np.abs(cv2.filter2D(grey, -1, mask)[1:-1, 1:-1]).mean() * np.sqrt(np.pi / 2) / 6)


def denoise(image, strength=8.0) -> np.ndarray:
    """Return `image` uint8 RGB smoothed by a bilateral filter, which averages neighbours of a like colour only.

    How like: `strength` times the noise level of `image`. Source: Tomasi and Manduchi 1998.
    """
    return cv2.bilateralFilter(image, 5, strength * noise_level(image), 2)


def deblur(image, amount=1.0, radius=1.5) -> np.ndarray:
    """Return `image` uint8 RGB sharpened by unsharp masking; `radius` in pixels. Source: Polesel et al. 2000."""
    soft = cv2.GaussianBlur(image, (0, 0), radius)
    return cv2.addWeighted(image, 1 + amount, soft, -amount, 0)


def prepare(image) -> np.ndarray:
    """Return `image` as every model sees it: square, 128×128, cleaned where notebook 04 shows that it helps."""
    image = resize(square(image))
    if noise_level(image) > NOISY:
        return denoise(image)
    return deblur(image) if sharpness(image) < BLURRED else image


def prepare_all(root, paths) -> np.ndarray:
    """Return the prepared pictures of `paths` (relative to `root`), uint8 `(N, 128, 128, 3)`, mapped from a file.

    They are kept under `runs/<data name>/cache` and made anew when the content of a file, their order, or a setting of
    the preparation differs. Raises what `read_image` raises, and `ValueError` when a file is gone or the disk is full.
    """
    root, paths = Path(root), list(paths)
    settings = (VERSION, SIDE, NOISY, BLURRED, denoise.__defaults__, deblur.__defaults__)
    key = hashlib.sha256(repr(settings).encode())
    try:
        for digest in _map(lambda path: hashlib.sha256((root / path).read_bytes()).digest(), paths, "checking"):
            key.update(digest)
    except OSError as error:
        why = f"cannot be read any more ({error.strerror})"
        raise ValueError(f"{error.filename} {why}: run the notebooks from 02 again.") from None
    cache = run_dir() / "cache" / f"faces-{key.hexdigest()[:16]}.npy"
    shape, size = (len(paths), SIDE, SIDE, 3), len(paths) * SIDE**2 * 3
    try:
        if not cache.exists():
            with atomic(cache) as temporary, open(temporary, "wb") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                if hasattr(os, "posix_fallocate"):  # so that a full disk is met before the work
                    os.posix_fallocate(file.fileno(), 0, file.tell() + size)
                for image in _map(lambda path: prepare(read_image(root / path)), paths, "preparing"):
                    file.write(image)
    except OSError as error:
        needed = f"{size / 1e9:,.1f} GB of prepared pictures"
        raise ValueError(f"{cache.parent} cannot hold {needed} ({error.strerror}): make room there.") from error
    return np.load(cache, mmap_mode="r")


def inspect(root, paths) -> pd.DataFrame:
    """Return what every file is, one row each, in the order of `paths` (relative to `root`).

    Columns: `format, mode, width, height` as stored; `brightness` and `contrast` (mean and standard deviation of the
    grey levels, 0 to 255), `sharpness`; `digest` (SHA-256 of the decoded pixels); `error` (text, or NA).
    """
    rows = list(_map(lambda path: _inspect_one(root, path), paths, "inspecting"))
    columns = ["format", "mode", "width", "height", "brightness", "contrast", "sharpness", "digest", "error"]
    return pd.DataFrame(rows, columns=columns)


def near_duplicates(images, distance=8, alike=0.95) -> np.ndarray:
    """Return a group number for each of `images` uint8 `(N, H, W, 3)`: equal for pictures that look the same.

    Two pictures are joined when their 64-bit perceptual hashes (pHash, of the library ImageHash) differ in at most
    `distance` bits and their 32×32 grey thumbnails correlate by more than `alike`: hashes alone join strangers in
    the same pose. Groups are the connected components. Brightness and contrast do not matter; mirroring is not seen.
    """
    # Thumbnails that correlate by c lie √(2 − 2c) apart, and no projection takes them further apart. So a tree of a
    # few principal components finds every such pair without comparing all with all; few of what it finds are none.
    sample = np.array([_thumbnail(image) for image in images[:: max(1, len(images) // 1000)]])
    directions = np.linalg.svd(sample, full_matrices=False)[2][:24].T

    def describe(image):
        bits = np.packbits(imagehash.phash(Image.fromarray(image)).hash).view(np.uint64)[0]
        return bits, _thumbnail(image) @ directions

    bits, points = map(np.array, zip(*_map(describe, images, "hashing")))
    pairs = cKDTree(points).query_pairs(np.sqrt(2 - 2 * alike) + 1e-3, output_type="ndarray")
    pairs = pairs[np.bitwise_count(bits[pairs[:, 0]] ^ bits[pairs[:, 1]]) <= distance]
    small = {i: _thumbnail(images[i]) for i in np.unique(pairs)}
    pairs = np.array([(i, j) for i, j in pairs if small[i] @ small[j] > alike], int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(points), len(points)))
    return connected_components(graph)[1]


def _thumbnail(image):
    grey = cv2.cvtColor(resize(image, 32), cv2.COLOR_RGB2GRAY).ravel().astype(np.float32)
    grey -= grey.mean()
    return grey / (np.linalg.norm(grey) + 1e-6)  # a picture of one colour becomes zero and resembles none


def _inspect_one(root, path):
    if pd.isna(path):
        return {"error": "no path in the CSV: fill it in or remove the row"}
    file = Path(root) / path
    try:
        image = read_image(file)
    except ValueError as error:
        if os.path.lexists(file):
            return {"error": str(error).replace(str(file), str(path))}
        return {"error": f"{path} {next(why for sign, why in GONE.items() if re.search(sign, path))}"}
    with Image.open(file, formats=FORMATS) as opened:
        stored = {"format": opened.format, "mode": opened.mode, "width": opened.width, "height": opened.height}
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    measured = {"brightness": grey.mean(), "contrast": grey.std(), "sharpness": sharpness(image)}
    return stored | measured | {"digest": digest}


def _map(function, items, title):
    # Decoding and OpenCV release Python's lock, so threads use every core without copying the pictures. Joblib takes
    # the next item when a thread is free: all the calls for a million pictures, waiting, would fill the memory.
    results = Parallel(os.cpu_count(), prefer="threads", return_as="generator")(delayed(function)(i) for i in items)
    return tqdm(results, title, len(items), leave=False, mininterval=1)
