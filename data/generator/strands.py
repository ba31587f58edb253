"""Strands: where hair is rooted, the shell it lies on, its colour, and how it takes the light."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from . import face, mesh
from .subdivision import unit

GREY = np.array([0.33, 0.32, 0.305])  # linear RGB, of hair without pigment
CENTRE = np.array([0, 7.45, 0.2], np.float32)  # of the shell
ROWS, COLUMNS = 40, 80


@dataclass
class Strands:
    """Hairs or locks of hair. `points` `(S, K, 3)` from root to tip; after `turn_all` as the camera sees them."""

    points: np.ndarray
    outward: np.ndarray  # (S, K, 3), the normal of the surface that they form together
    colour: np.ndarray  # (S, 3), linear RGB
    width: np.ndarray  # (S,), decimetres
    gloss: float = 1.0
    casts: bool = True  # a shadow

    def turn_all(self, turn):
        """Turn the strands with the head, in place. `turn`: yaw, pitch, roll in degrees."""
        shape = self.points.shape
        rest = self.points.reshape(-1, 3)
        tips = face.turn(rest + 0.1 * self.outward.reshape(-1, 3), rest[:, 1], *turn)
        self.points = face.turn(rest, rest[:, 1], *turn).reshape(shape)
        self.outward = unit(tips.reshape(shape) - self.points)

    def shadow_points(self) -> np.ndarray:
        """Return points along the strands, about 0.03 decimetres apart, that cast their shadow `(N, 3)`."""
        if not self.casts:
            return np.zeros((0, 3), np.float32)
        step = np.sqrt(((self.points[:, 1:] - self.points[:, :-1]) ** 2).sum(-1)).mean()
        count = int(np.clip(np.ceil(step / 0.03), 1, 6))
        shares = (np.arange(count) / count)[:, None, None, None]
        return ((1 - shares) * self.points[:, :-1] + shares * self.points[:, 1:]).reshape(-1, 3).astype(np.float32)

    def shade(self, lamp) -> np.ndarray:
        """Return the colour of the strands' points `(S, K, 3)` in the light `lamp`.

        Light runs around a hair: what counts is the angle to its direction. Source: Kajiya and Kay 1989, with the two
        highlights, one of the lamp's colour and one of the hair's, of Marschner et al. 2003.
        """
        shape = self.points.shape
        along = np.empty_like(self.points)
        along[:, :-1] = self.points[:, 1:] - self.points[:, :-1]
        along[:, -1] = along[:, -2]
        along = unit(along).reshape(-1, 3)
        outward = self.outward.reshape(-1, 3)
        every = 2 if shape[1] > 10 else 1  # light changes slowly along a strand
        some = self.points[:, ::every].reshape(-1, 3), self.outward[:, ::every].reshape(-1, 3)
        reach, room = lamp.from_key(some[0], hair=True), lamp.from_room(*some, hair=True)
        repeat = np.minimum(np.arange(shape[1]) // every, len(some[0]) // shape[0] - 1)
        reach = reach.reshape(shape[0], -1)[:, repeat].ravel()
        room = room.reshape(shape[0], -1, 3)[:, repeat].reshape(-1, 3)
        across = np.sqrt(np.maximum(1 - (along @ lamp.key) ** 2, 0))
        lit = (0.30 + 0.70 * np.maximum(outward @ lamp.key + 0.25, 0) / 1.25) * across * reach
        half = unit(lamp.key + np.array([0, 0, 1], np.float32))
        shifted = [unit(along + k * outward) @ half for k in (0.10, -0.16)]
        narrow, wide = ((1 - np.minimum(a * a, 1)) ** p for a, p in zip(shifted, (45, 14)))
        fade = np.linspace(0.72, 1.12, shape[1], dtype=np.float32)[None, :, None]  # darker at the root
        pigment = (self.colour[:, None] * fade).reshape(-1, 3)
        lit, narrow, wide = (x[:, None] * lamp.key_colour for x in (lit, narrow * reach, wide * reach))
        shine = self.gloss * (0.030 * narrow + 0.55 * np.sqrt(pigment) * pigment * wide + 0.35 * pigment * wide)
        return (pigment * (room + lit) + shine).reshape(shape).astype(np.float32)


@cache
def _areas() -> np.ndarray:
    corners = mesh.template().coarse_points[mesh.template().skin.coarse_quads]
    return np.linalg.norm(np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]), axis=1) / 2


def plant(density, count, r):
    """Return `(corners, weights)` of `count` places on the coarse skin, `(S, 4)` each: `(values[corners] · weights)`.

    `density`: of the hair at each coarse point `(N1,)`, which must not depend on age, so that the same hairs come back.
    """
    quads = mesh.template().skin.coarse_quads
    total = np.cumsum(_areas() * density[quads].mean(1))
    chosen = quads[np.minimum(np.searchsorted(total, r.random(count) * total[-1]), len(quads) - 1)]
    s, t = r.random((2, count))
    return chosen, np.stack([(1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t], 1)


def at_roots(planted, values) -> np.ndarray:
    """Return `values` `(N1, C)` of the coarse points at the roots of `plant`: `(S, C)`."""
    corners, weights = planted
    return np.einsum("sk,skc->sc", weights, values[corners]).astype(np.float32)


def colours(r, count, pigment, grey, spread=0.20) -> np.ndarray:
    """Return the colour of `count` strands `(S, 3)`: `pigment` `(3,)`, of which a share `grey` `(S,)` has lost it."""
    threshold = r.random(count)
    share = np.clip(0.5 + (np.asarray(grey) - threshold) * 1.3, 0, 1) * np.clip(3 * np.asarray(grey), 0, 1)
    each = pigment * np.exp(r.normal(0, spread, (count, 1)))
    mixed = np.exp((1 - share[:, None]) * np.log(each) + share[:, None] * np.log(GREY))
    return (mixed * np.exp(r.normal(0, 0.08, (count, 1)))).astype(np.float32)


class Shell:
    """The outside of a head as its distance from `CENTRE` in every direction, so that hair can be kept out of it."""

    def __init__(self, points):
        """`points` `(N, 3)`: of the skin, dense enough for a grid of `ROWS` by `COLUMNS` directions."""
        place, distance, _ = self._place(points)
        reach = np.zeros((ROWS, COLUMNS), np.float32)
        rows, columns = np.round(place).astype(int).T
        np.maximum.at(reach, (rows.clip(0, ROWS - 1), columns % COLUMNS), distance)
        filled = maximum_filter(reach, 3, mode=("nearest", "wrap"))
        reach = np.where(reach > 0, reach, filled)
        self.reach = gaussian_filter(reach, 0.8, mode=("nearest", "wrap"))

    @staticmethod
    def _place(points):
        away = points - CENTRE
        distance = np.sqrt((away * away).sum(-1)) + 1e-6
        row = (np.arcsin((away[..., 1] / distance).clip(-1, 1)) / np.pi + 0.5) * (ROWS - 1)
        column = (np.arctan2(away[..., 0], away[..., 2]) / (2 * np.pi) + 0.5) * COLUMNS
        return np.stack([row, column], -1), distance, away / distance[..., None]

    def height(self, points):
        """Return how far `points` `(N, 3)` are above the head in decimetres `(N,)`, and which way is out `(N, 3)`."""
        place, distance, out = self._place(points)
        low = np.floor(place).astype(int)
        (a, b), (row, column) = (place - low).T, low.T
        row2, column, column2 = np.minimum(row + 1, ROWS - 1), column % COLUMNS, (column + 1) % COLUMNS
        reach = (1 - a) * ((1 - b) * self.reach[row, column] + b * self.reach[row, column2])
        reach = reach + a * ((1 - b) * self.reach[row2, column] + b * self.reach[row2, column2])
        return distance - reach, out.astype(np.float32)
