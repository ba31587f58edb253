"""What the face ResNet sees in every picture, computed once and kept; and who is who by it."""

import hashlib
import mmap
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.cluster.hierarchy import complete, fcluster
from scipy.sparse.csgraph import connected_components
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import radius_neighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from .align import margin_of
from .datasets import FaceAgeDataset, make_loader
from .models import face_resnet, face_window
from .paths import atomic, run_dir
from .training import best_device, predict

VERSION = 1  # of the features: raise it when they change, so that no stale ones are read from the cache
SAME_PERSON = 0.35  # Euclidean distance of `person_numbers`: notebook 03 measures what is found below it


def load_features(images) -> np.ndarray:
    """Return the features of `images` uint8 `(N, 128, 128, 3)` by the untrained face ResNet: float32 `(N, 3136)`.

    Each is the mean over a picture and its mirror image. They are kept beside the prepared pictures, and computed anew
    when those or the window differ. Raises what `window_of` and `models.face_resnet` raise.
    """
    window = window_of(images)
    cache = _cache(images, f"features{VERSION}-{'-'.join(map(str, window))}")
    if not cache.exists():
        body = face_resnet(window=window).body.to(best_device(), memory_format=torch.channels_last)
        body.register_forward_hook(lambda body, faces, seen: (seen + body.forward(faces[0].flip(3))) / 2)
        loader = make_loader(FaceAgeDataset(images, np.zeros(len(images))), 64)
        features = predict(body, tqdm(loader, "features", leave=False, mininterval=1), read=torch.Tensor.float)
        with atomic(cache) as temporary:
            np.save(temporary, features)
    return np.load(cache, mmap_mode="r")


def window_of(images) -> tuple:
    """Return the `face_window` of prepared pictures uint8 `(N, 128, 128, 3)`. Raises what `align.margin_of` raises."""
    cache = _cache(images, "window")
    if not cache.exists():
        with atomic(cache) as temporary:
            np.save(temporary, face_window(margin_of(images)))
    return tuple(np.load(cache).tolist())


def _cache(images, what):
    # The name of the file of prepared pictures tells their content. A slice of it has that name, too, so it is hashed.
    whole = isinstance(getattr(images, "base", None), mmap.mmap)
    name = Path(images.filename).stem if whole else hashlib.sha256(np.ascontiguousarray(images)).hexdigest()[:16]
    return run_dir() / "cache" / f"{name}-{what}.npy"


def ridge(strength=3136):
    """Return the untrained linear model that reads an age from features: ridge regression on its root.

    Errors grow with the age, hence the root. `strength`: of the penalty; as many as columns do well from 300 faces on.
    """
    line = make_pipeline(StandardScaler(), Ridge(strength, solver="cholesky"))
    return TransformedTargetRegressor(line, func=np.sqrt, inverse_func=np.square, check_inverse=False)


def find_people(numbers, closer=SAME_PERSON) -> np.ndarray:
    """Return a group for each picture `(N,)`: equal for pictures that seem to show one person.

    `numbers`: from `models.person_numbers`, `(N, 128)`. All pictures of a group are closer than `closer` to each other
    (complete linkage): somebody who looks like two strangers does not tie them together.
    """
    # Only what chains of near pairs link is clustered: all distances at once would be 40 GB for 100,000 pictures.
    numbers = np.asarray(numbers, np.float32)
    linked = connected_components(radius_neighbors_graph(numbers, (closer**2 + 1e-4) ** 0.5))[1]  # 1e-4: rounding
    group = np.zeros(len(numbers), int)
    for rows in pd.Series(linked).groupby(linked).indices.values():
        if len(rows) > 1:
            group[rows] = fcluster(complete(numbers[rows]), closer, "distance")
    return np.unique([linked, group], axis=1, return_inverse=True)[1].ravel()
