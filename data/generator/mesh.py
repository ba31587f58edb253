"""The head: its mesh and shape targets (CC0, see LICENSE-head.md), subdivided, with a map of the skin unrolled.

Lengths are in decimetres: x to the person's left, y up, z out of the face. Eyes at y 7.3, chin at 6.4, crown at 8.5.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from .subdivision import catmull_clark, incidence, neighbour_mean

TEXELS = 150  # of the unrolled skin, a decimetre: a little finer than the samples of the picture
U_MAX, V_MIN, V_MAX = 1.75, 5.9, 8.5  # decimetres, the unrolled skin reaches from -U_MAX to U_MAX and V_MIN to V_MAX
AXIS_Z, RADIUS = 0.25, 0.95  # decimetres, of the upright cylinder around the head on which the skin is unrolled
ANCESTRY = ("african", "asian", "caucasian")  # the names of the three sets of macro targets in the file


@dataclass(frozen=True)
class Part:
    """A piece of the mesh subdivided twice: `fine @ (coarse @ vertices)` are its points."""

    coarse: sparse.csr_matrix  # (N1, 5835)
    fine: sparse.csr_matrix  # (N2, N1)
    coarse_quads: np.ndarray  # (F1, 4)
    quads: np.ndarray  # (F2, 4)
    coarse_adding: sparse.csr_matrix  # (N1, F1), for the normals
    adding: sparse.csr_matrix  # (N2, F2)


@dataclass(frozen=True)
class Template:
    """What all people share: vertices `(5835, 3)`, parts, masks `(N2,)` of the skin, the unrolled skin."""

    vertices: np.ndarray
    skin: Part
    others: dict  # name → Part: lashes_upper, teeth
    masks: dict  # lips, ears, inside-mouth, eyelids → (N2,), 0 to 1
    eyes: tuple  # the vertices of the left and of the right eyeball
    ears: tuple  # the vertices of the left and of the right ear
    points: np.ndarray  # (N2, 3), of the skin
    coarse_points: np.ndarray  # (N1, 3)
    uv: np.ndarray  # (N2, 2), decimetres on the unrolled skin
    soften: sparse.csr_matrix  # (N2, N2), averages neighbours
    surface: np.ndarray  # (H, W, 3), the place on the template that each texel shows
    front: cKDTree  # of the front of the face, by x and y
    front_u: np.ndarray  # the u of its points


@cache
def _file() -> dict:
    with np.load(Path(__file__).with_name("head_cc0.npz")) as arrays:
        return dict(arrays)


@cache
def target(name):
    """Return `(vertices, offsets)` of a shape target: `(K,)` and `(K, 3)` in decimetres. Raises `KeyError`."""
    return _file()[f"i|{name}"].astype(np.int64), (_file()[f"d|{name}"] / 1000).astype(np.float32)


def has_target(name) -> bool:
    """Return whether the file has the shape target `name`."""
    return f"i|{name}" in _file()


def add(vertices, name, weight):
    """Add `weight` times the target `name` to `vertices` `(5835, 3)`, in place. `{s}` in it stands for both sides."""
    if abs(weight) < 1e-4:
        return
    for full in [name.format(s="l"), name.format(s="r")] if "{s}" in name else [name]:
        rows, offsets = target(full)
        vertices[rows] += np.float32(weight) * offsets


OPPOSITES = [("incr", "decr"), ("up", "down"), ("out", "in"), ("convex", "concave"), ("forward", "backward")]


def add_signed(vertices, name, weight):
    """Add a pair of opposite targets, such as nose-hump-incr and -decr, by the sign of `weight`, in place."""
    for more, less in OPPOSITES:
        if has_target(f"{name.format(s='l')}-{more}"):
            return add(vertices, f"{name}-{more if weight > 0 else less}", abs(weight))
    raise KeyError(name)


def add_macro(vertices, maleness, years, ancestry, weight, muscle):
    """Add the targets of the whole build, in place: `maleness`, `weight` and `muscle` 0 to 1, `ancestry` sums to 1.

    The file has a young (25 years) and an old (90 years) shape; between them it is linear.
    """
    old = np.clip((years - 25) / 65, -0.1, 1)
    builds = [
        (f"{m}muscle-{w}weight", mm * ww)
        for m, mm in _thirds(muscle).items()
        for w, ww in _thirds(weight).items()
        if mm * ww > 0
    ]
    for sex, share in (("female", 1 - maleness), ("male", maleness)):
        for stage, part in (("young", 1 - old), ("old", old)):
            for name, third in zip(ANCESTRY, ancestry):
                add(vertices, f"macrodetails/{name}-{sex}-{stage}", share * part * third)
            for build, amount in builds:
                add(vertices, f"macrodetails/universal-{sex}-{stage}-{build}", share * part * amount)


def _thirds(x):
    return {"min": max(0, 1 - 2 * x), "average": 1 - abs(2 * x - 1), "max": max(0, 2 * x - 1)}


def unroll(points) -> np.ndarray:
    """Return `(u, v)` in decimetres `(N, 2)` of `points` `(N, 3)` of the template: around a cylinder, and up."""
    return np.stack([RADIUS * np.arctan2(points[:, 0], points[:, 2] - AXIS_Z), points[:, 1]], 1)


def texel(uv) -> np.ndarray:
    """Return the column and row, not rounded, of `(u, v)` on the unrolled skin `(N, 2)`."""
    return np.stack([(uv[:, 0] + U_MAX) * TEXELS - 0.5, (V_MAX - uv[:, 1]) * TEXELS - 0.5], 1).astype(np.float32)


def on_skin(xy) -> np.ndarray:
    """Return the `(u, v)` of places on the template's face that are given by x and y as seen from the front."""
    xy = np.asarray(xy, float)
    distance, near = template().front.query(xy, k=3)
    share = 1 / (distance + 1e-4)
    return np.stack([(template().front_u[near] * share).sum(1) / share.sum(1), xy[:, 1]], 1)


def _part(vertices, quads) -> Part:
    used, compact = np.unique(quads, return_inverse=True)
    pick = sparse.csr_matrix((np.ones(len(used), np.float32), (np.arange(len(used)), used)), (len(used), len(vertices)))
    coarse, coarse_quads = catmull_clark(len(used), compact.reshape(-1, 4))
    fine, fine_quads = catmull_clark(coarse.shape[0], coarse_quads)
    coarse = (coarse @ pick).tocsr()
    adding = incidence(coarse.shape[0], coarse_quads), incidence(fine.shape[0], fine_quads)
    return Part(coarse, fine, coarse_quads, fine_quads, *adding)


@cache
def template() -> Template:
    """Return the head that every person starts from. Takes about a second, once."""
    file = _file()
    vertices, quads, group = file["verts"].astype(np.float32), file["faces"].astype(np.int64), file["group"]
    low, wide = vertices[quads, 1].min(1), np.abs(vertices[quads, 0]).max(1)
    skin = _part(vertices, quads[(group == "body") & (low > 5.1) & (wide < 2.2)])
    lashes = np.char.find(group, "eyelashes-2") >= 0
    teeth = np.char.find(group, "teeth") >= 0
    others = {"lashes": _part(vertices, quads[lashes]), "teeth": _part(vertices, quads[teeth])}
    coarse_points = skin.coarse @ vertices
    points = skin.fine @ coarse_points
    masks = {k[5:]: np.clip(skin.fine @ (skin.coarse @ v), 0, 1) for k, v in file.items() if k.startswith("mask|")}

    outside = masks["inside-mouth"] < 0.3
    uv = unroll(points)
    columns, rows = int(2 * U_MAX * TEXELS), int((V_MAX - V_MIN) * TEXELS)
    u, v = (np.arange(columns) + 0.5) / TEXELS - U_MAX, V_MAX - (np.arange(rows) + 0.5) / TEXELS
    grid = np.stack(np.meshgrid(u, v), -1)
    _, near = cKDTree(uv[outside]).query(grid.reshape(-1, 2))
    front = outside & (points[:, 2] > 0.5)
    cell = np.floor(points[:, :2] / 0.06).astype(int) @ [1000, 1]  # of each cell of the front view, only the surface
    _, cell = np.unique(cell, return_inverse=True)
    foremost = np.full(cell.max() + 1, -np.inf, np.float32)
    np.maximum.at(foremost, cell[front], points[front, 2])
    front &= points[:, 2] > foremost[cell] - 0.09
    eyes = file["eyeL"].astype(int), file["eyeR"].astype(int)
    ear = file["mask|ears"] > 0.5
    ears = tuple(np.flatnonzero(ear & (vertices[:, 0] * side > 0)) for side in (1, -1))
    surface = points[outside][near].reshape(rows, columns, 3)
    soften = neighbour_mean(len(points), skin.quads)
    return Template(
        vertices, skin, others, masks, eyes, ears, points, coarse_points, uv, soften, surface,
        cKDTree(points[front, :2]), uv[front, 0],
    )  # fmt: skip
