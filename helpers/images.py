"""From a file to a clean uint8 RGB picture of 128×128, decoded once."""

import hashlib
import os
import re
from io import BytesIO
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image, UnidentifiedImageError
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
ORIENTATION, PHOTOMETRIC, SAMPLE_FORMAT, NEW_SUBFILE_TYPE, DNG = 0x0112, 262, 339, 254, 50706  # tags of EXIF and TIFF
BITS, PLANES = 258, 284
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM")  # and HEIC, by pillow-heif
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
GONE = {  # what a path may be that leads to no file, told by a sign; the first that fits
    "://": "is an address, and nothing is downloaded here: save the photo and write its path",
    r"^(?:[A-Za-z]:[\\/]|\\\\)": "is a path of another computer: write it relative to the folder of the photos",
    r"\\x[0-9a-f]{2}": "is a name that is not UTF-8: correct it",
    "": "does not exist: correct the path in the CSV or remove the row",
}
Image.MAX_IMAGE_PIXELS = 120_000_000  # Pillow warns of more, and refuses twice as many: they fill the memory


def read_image(path) -> np.ndarray:
    """Return the picture in the file `path` as uint8 RGB `(H, W, 3)`, upright; its content decides, not its name.

    JPEG, PNG, HEIC, AVIF, WebP, TIFF, GIF, BMP, JPEG 2000, PPM; the first picture where there are several. For colours
    and bits see `to_rgb`. Pillow reads: OpenCV returns a truncated file as a half grey picture without an error.
    Raises `ValueError` that names the file when it is missing, not a picture, damaged, or smaller than 32 pixels.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise OSError(0, "a folder or a device, no file")
        image = decode(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: correct the name or remove it.") from None
    except UnidentifiedImageError:
        if path.suffix.lower() in Image.registered_extensions():
            raise ValueError(f"{path} holds no picture that can be recognised: replace or remove it.") from None
        kind = path.suffix or "no suffix"
        raise ValueError(f"{path} is not a picture file ({kind}): save it as JPEG or PNG.") from None
    except Exception as error:  # Pillow has many for the many ways to be damaged, struct.error among them
        said = getattr(error, "strerror", None) or error  # without the path, which stands in front
        why = " ".join(str(said).split())
        raise ValueError(f"{path} cannot be decoded ({why}): replace or remove it.") from error
    if min(image.shape[:2]) < SMALLEST:
        size = f"{image.shape[1]}×{image.shape[0]}"
        raise ValueError(f"{path} has {size} pixels, too few ({SMALLEST}×{SMALLEST}): replace or remove it.")
    return image


def decode(source) -> np.ndarray:
    """Return the picture in `source`, a path or a `BytesIO`, as `read_image` does. Raises what Pillow raises."""
    with _open(source) as file:
        tags = getattr(file, "tag_v2", {})
        if DNG in tags or tags.get(NEW_SUBFILE_TYPE, 0) & 1:
            raise ValueError("a raw photo, of which only a small preview can be read; save it as JPEG")
        if tags.get(PLANES) == 2 and max(tags.get(BITS, (8,))) > 8:  # Pillow and OpenCV would read noise
            raise ValueError("16-bit colours in separate planes; save it with 8 bits")
        sixteen = file.mode in ("LA", "RGB", "RGBA") and any(";16" in str(tile.args) for tile in file.tile)
        file.load()  # a TIFF is turned by that
        if not sixteen or np.asarray(file.convert("RGB")).max() > 15:
            return upright(file)
    # Of 16-bit colours Pillow takes the upper byte. Where they hold 12 or 8 bits, nearly nothing is in it.
    content = np.frombuffer(_content(source), np.uint8)
    return _to_8_bits(cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)[..., ::-1])


def _content(source):
    return source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes()


def _open(source):
    try:
        return Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        head = _content(source)[:12]
        if head[4:8] != b"ftyp" or head[8:] not in HEIC:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ValueError("HEIC, the format of iPhones, needs: pip install -r requirements.txt") from error
    register_heif_opener()
    return Image.open(source, formats=["HEIF"])


def upright(file) -> np.ndarray:
    """Return the loaded Pillow image `file` as uint8 RGB `(H, W, 3)`, turned as its EXIF orientation says."""
    # ImageOps.exif_transpose would write all EXIF fields anew, and fails on those that some cameras get wrong.
    try:
        undo = UPRIGHT.get(file.getexif().get(ORIENTATION))
    except Exception:  # nothing but the picture is needed
        undo = None
    image = to_rgb(file)
    return np.asarray(image if undo is None else image.transpose(undo))


def to_rgb(image):
    """Return the Pillow `image` of any mode as one of mode RGB; transparency is laid on white.

    Whole numbers of more than 8 bits are scaled to 8. No format tells how many bits a camera has filled, so the largest
    value does: up to 255 are 8 bits, up to 4095 are 12, up to 65535 are 16, more are 32 (signed: 15, 16 and 31). A dark
    picture of 16 bits stays dark unless its brightest pixel is below a sixteenth of white. Raises `ValueError` on
    fractions and on values below zero, of which nobody knows which is white.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip them to white
        tags = getattr(image, "tag_v2", {})
        signed, values = 2 in tags.get(SAMPLE_FORMAT, ()), np.asarray(image).astype(np.int64)
        if getattr(image, "format", None) == "TIFF" and not signed:
            values %= 2**32  # Pillow has no unsigned 32 bits
        if values.min() < 0:
            raise ValueError("pixels below zero; save it with 8 or 16 bits")
        grey = _to_8_bits(values, signed)
        image = Image.fromarray(255 - grey if tags.get(PHOTOMETRIC) == 0 else grey)  # where zero is white
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(values, signed=0):
    largest = values.max()
    bits = next(bits for bits in (8, 12, 16 - signed, 16, 32 - signed) if largest < 2**bits)
    return (values.astype(np.int64) * 255 // (2**bits - 1)).astype(np.uint8)


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

    Each picture is decoded and cleaned once; the result is kept under `runs/<data name>/cache` and made anew when the
    content of a file, their order, or a setting of the preparation differs. Raises what `read_image` raises, and
    `ValueError` when the disk has no room for them.
    """
    root, paths = Path(root), list(paths)
    settings = (VERSION, SIDE, NOISY, BLURRED, denoise.__defaults__, deblur.__defaults__)
    key = hashlib.sha256(repr(settings).encode())
    try:
        for digest in _map(lambda path: hashlib.sha256((root / path).read_bytes()).digest(), paths, "checking"):
            key.update(digest)
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        why = "does not exist any more" if gone else f"cannot be read ({error.strerror})"
        raise ValueError(f"{error.filename} {why}: run the notebooks from 02 again.") from None
    cache = run_dir() / "cache" / f"faces-{key.hexdigest()[:16]}.npy"
    if not cache.exists():
        with atomic(cache) as temporary:  # a name of its own, so that two processes at once do not meet
            array = _reserve(temporary, (len(paths), SIDE, SIDE, 3))

            def fill(i):
                array[i] = prepare(read_image(root / paths[i]))

            list(_map(fill, range(len(paths)), "preparing"))
            array.flush()
            del array  # Windows moves no file that is mapped
    return np.load(cache, mmap_mode="r")


def _reserve(path, shape):
    try:
        array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        if hasattr(os, "posix_fallocate"):  # a full disk, met while a map is written, would kill the process
            with open(path, "rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        needed = f"{np.prod(shape, dtype=float) / 1e9:,.1f} GB of prepared pictures"
        raise ValueError(f"{path.parent} cannot hold {needed} ({error.strerror}): make room there.") from error
    return array


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
    tree, radius, pairs = cKDTree(points), np.sqrt(2 - 2 * alike) + 1e-3, []
    for start in range(0, len(points), 1024):  # blocks keep the list of what is near small
        near = tree.query_ball_point(points[start : start + 1024], radius, workers=-1)
        left = np.repeat(np.arange(start, start + len(near)), [len(found) for found in near])
        right = np.concatenate(near).astype(int)
        close = (left < right) & (np.bitwise_count(bits[left] ^ bits[right]) <= distance)
        small = {i: _thumbnail(images[i]) for i in np.union1d(left[close], right[close])}
        pairs += [(i, j) for i, j in zip(left[close], right[close]) if small[i] @ small[j] > alike]
    left, right = np.array(pairs, int).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(left)), (left, right)), shape=(len(points),) * 2))[1]


def _thumbnail(image):
    grey = cv2.cvtColor(resize(image, 32), cv2.COLOR_RGB2GRAY).ravel().astype(np.float32)
    grey -= grey.mean()
    return grey / (np.linalg.norm(grey) + 1e-6)  # a picture of one colour becomes zero and resembles none


def _inspect_one(root, path):
    if pd.isna(path):
        return {"error": "no path in the CSV: fill it in or remove the row"}
    try:
        image = read_image(Path(root) / path)
    except ValueError as error:
        if not os.path.lexists(Path(root) / path):
            return {"error": f"{path} {next(why for sign, why in GONE.items() if re.search(sign, path))}"}
        return {"error": str(error).replace(f"{Path(root) / path}", str(path))}
    with _open(Path(root) / path) as file:
        stored = {"format": file.format, "mode": file.mode, "width": file.width, "height": file.height}
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    measured = {"brightness": grey.mean(), "contrast": grey.std(), "sharpness": sharpness(image)}
    return stored | measured | {"digest": digest}


def _map(function, items, title):
    # Decoding and OpenCV release Python's lock, so threads use every core without copying the pictures. Joblib takes
    # the next item when a thread is free: all the calls for a million pictures, waiting, would fill the memory.
    results = Parallel(os.cpu_count(), prefer="threads", return_as="generator")(delayed(function)(i) for i in items)
    return tqdm(results, title, len(items), leave=False, mininterval=1)
