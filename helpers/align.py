"""Where the faces are in a photo, and how they are cropped like the pictures that a network has learnt from."""

from functools import lru_cache

import cv2
import numpy as np
from skimage.transform import SimilarityTransform

from .images import SIDE, prepare

# Scores of the detector, as measured by tests/bench/detector.py. With less than GHOST there is no face, with less than
# SURE there may be none; a photo whose best face has less than CERTAIN may lie on its side.
GHOST, SURE, CERTAIN = 0.9, 0.995, 0.9995
LARGEST = 9_000_000  # pixels that the detector is given: half a panorama of 12,000×3,000, in a second


@lru_cache
def detector():
    """Return the face detector MTCNN (Zhang et al. 2016). Raises `ImportError` without the package facenet-pytorch."""
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        remedy = "pip install --no-deps -r requirements-optional.txt"
        raise ImportError(f"The face detector facenet-pytorch is not installed: {remedy}") from error
    return MTCNN(keep_all=True, min_face_size=40, device="cpu")


def detect(photo):
    """Return the faces in `photo` uint8 RGB `(H, W, 3)` from left to right: boxes `(N, 4)`, points and scores `(N,)`.

    In pixels; a box is left, top, right, bottom; points `(N, 5, 2)` are the eyes, the tip of the nose and the corners
    of the mouth. Finds faces from about a 25th of the longer side on, in photos of 2,048 pixels and more from 50 to
    100 pixels on. A photo that lies on its side is turned so that the detector, which knows upright faces, is surest.
    """
    size = np.array(photo.shape[1::-1])
    half = min(0.5, np.sqrt(LARGEST / size.prod(dtype=float)))  # for small faces in large photos, such as of a class
    small = np.maximum(1, (size * min(1, max(1024 / size.max(), half))).round()).astype(int)
    # On a tight crop the points are wrong by several pixels; with room around it they are right.
    rim = max(24, int(small.min()) // 8)  # 24: the detector needs 40 pixels
    picture = cv2.resize(photo, small.tolist(), interpolation=cv2.INTER_AREA)
    picture = cv2.copyMakeBorder(picture, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=(127, 127, 127))
    found = [_upright_faces(picture, 0)]
    if found[0][1].max(initial=0) < CERTAIN:
        found += [_upright_faces(picture, turn) for turn in (1, 2, 3)]
    spots, scores = max(found, key=lambda one: one[1].max(initial=0))
    spots = (spots - rim) * size / small
    boxes = np.concatenate([spots[:, :2].min(1), spots[:, :2].max(1)], 1)
    order = np.argsort(boxes[:, 0], kind="stable")
    return boxes[order], spots[order, 2:], scores[order]


def _upright_faces(picture, turn):
    # Found in `picture` after so many quarter turns: where box and points lie before them, (N, 7, 2), and the scores.
    boxes, scores, points = detector().detect(np.ascontiguousarray(np.rot90(picture, turn)), landmarks=True)
    if boxes is None:
        return np.zeros((0, 7, 2)), np.zeros(0)
    spots = np.concatenate([boxes.reshape(-1, 2, 2), points], 1).astype(float)
    across, down = np.abs(points[:, 1] - points[:, 0]).T  # from eye to eye; in a sideways face they seem to lie upright
    stands = (down < across) & (points[:, :2, 1].mean(1) < points[:, 3:, 1].mean(1))
    for before in reversed(range(turn)):
        spots = np.stack([picture.shape[1 - before % 2] - 1 - spots[..., 1], spots[..., 0]], -1)
    kept = stands & (scores >= GHOST)
    return spots[kept], scores[kept].astype(float)


def margin_of(images, sample=100) -> list:
    """Return where the five points of a face lie in prepared pictures: `[[x, y], …]`, as shares of the side.

    The medians over `sample` of `images`, uint8 `(N, 128, 128, 3)`. A photo must be cropped with this margin for a
    model that has learnt from them. Raises `ValueError` when most of them show no face, or several.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, sample).astype(int))
    found = [detect(np.asarray(images[i]))[1] for i in chosen]
    found = [points[0] for points in found if len(points) == 1]
    if 2 * len(found) < len(chosen):
        raise ValueError(f"A face was found in {len(found)} of {len(chosen)} pictures, too few to measure the margin.")
    return ((np.median(found, axis=0) + 0.5) / images.shape[1]).round(4).tolist()


def crop(photo, points, margin) -> np.ndarray:
    """Return the face at `points` `(K, 2)` of `photo` as the models know it: uint8 `(128, 128, 3)`, upright, prepared.

    The points come to lie where `margin` has them, with the least squared error (Umeyama 1991).
    """
    points, margin = np.asarray(points, float), np.array(margin)
    scale = SimilarityTransform.from_estimate(points, margin).scale
    side = int(np.clip(round(1 / scale), SIDE, 8 * SIDE))  # about as many pixels as the photo has there
    # Shares count from the corner of a pixel, OpenCV from its middle.
    change = SimilarityTransform.from_estimate(points, side * margin - 0.5)
    # Only the part around the face: OpenCV turns no picture that is wider than 32,767 pixels.
    corners = change.inverse([[0, 0], [side, 0], [0, side], [side, side]])
    low = np.clip(np.floor(corners.min(0)) - 2, 0, np.array(photo.shape[1::-1]) - 1).astype(int)
    high = np.maximum(np.ceil(corners.max(0)) + 3, low + 1).astype(int)
    near = photo[low[1] : high[1], low[0] : high[0]]
    matrix = change.params[:2]
    matrix[:, 2] += matrix[:, :2] @ low
    return prepare(cv2.warpAffine(near, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
