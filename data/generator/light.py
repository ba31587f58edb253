"""Light: a key lamp with cast shadows, and a room around it of which every point sees its own part (occlusion)."""

from dataclasses import dataclass

import numpy as np

from .raster import dice
from .subdivision import unit

REACH = 1.9  # decimetres around the head that the views from the lights cover
ROOM = 24  # directions from which light of the room comes
MIDDLE = np.array([0, 7.2, 0.3], np.float32)  # of the head


@dataclass(frozen=True)
class View:
    """What a light sees: for each cell of its square view, how far the first thing is."""

    axes: np.ndarray  # (3, 3): right, up, towards the light
    nearest: np.ndarray  # (side, side), height towards the light of the highest point, -inf if none


def axes_of(direction) -> np.ndarray:
    """Return right, up and `direction` (towards the light) as the rows of `(3, 3)`."""
    direction = unit(np.asarray(direction, np.float32))
    helper = np.array([0, 1, 0] if abs(direction[1]) < 0.9 else [0, 0, 1], np.float32)
    right = unit(np.cross(helper, direction))
    return np.stack([right, np.cross(direction, right), direction]).astype(np.float32)


def look(direction, side, points, mesh=None) -> View:
    """Return the `View` from `direction` on loose `points` `(N, 3)` and the quads of `mesh` `(vertices, quads)`."""
    axes = axes_of(direction)
    places = _cells(axes, side, points)
    if mesh is not None:
        corners = _cells(axes, side, mesh[0])[mesh[1]]
        places = np.concatenate([places, dice(corners, spacing=0.9, most=12)[3]])
    nearest = np.full(side * side, -np.inf, np.float32)
    x, y = places[:, 0].astype(np.int64), places[:, 1].astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < side) & (y < side)
    np.maximum.at(nearest, (y * side + x)[inside], np.ascontiguousarray(places[inside, 2], np.float32))
    return View(axes, nearest.reshape(side, side))


def _cells(axes, side, points):
    local = (points - MIDDLE) @ axes.T
    local[:, :2] = (local[:, :2] / (2 * REACH) + 0.5) * side
    return local


TAPS = [(0, 0), (1, 0.5), (-0.5, 1), (-1, -0.5), (0.5, -1), (1.9, -1), (1, 1.9), (-1.9, 1), (-1, -1.9)]


def seen(view, points, margin, soft, taps=TAPS) -> np.ndarray:
    """Return how much of the light `view` reaches `points` `(N, 3)`: `(N,)`, 0 to 1.

    `margin`, `soft`: decimetres that a point may lie below the first thing before its light begins to fade, and over
    which it fades: short on skin, long in hair. `taps`: neighbouring cells over which the shadow's edge is softened.
    """
    side = len(view.nearest)
    places = _cells(view.axes, side, points)
    padded, total = np.pad(view.nearest, 1, constant_values=-np.inf).ravel(), 0
    for dx, dy in taps:
        x = np.clip(places[:, 0] + dx, -1, side).astype(np.int64) + 1
        y = np.clip(places[:, 1] + dy, -1, side).astype(np.int64) + 1
        below = padded[np.minimum(y, side + 1) * (side + 2) + np.minimum(x, side + 1)] - places[:, 2] - margin
        total = total + np.exp(-np.maximum(below, 0) / soft)
    return (total / len(taps)).astype(np.float32)


def room_directions(count=ROOM) -> np.ndarray:
    """Return `count` directions spread evenly over the sphere `(count, 3)`. Source: the Fibonacci lattice."""
    k = np.arange(count) + 0.5
    up, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - up * up)
    return np.stack([flat * np.cos(turn), up, flat * np.sin(turn)], 1).astype(np.float32)


@dataclass(frozen=True)
class Light:
    """The light of one picture. Colours are linear RGB; white light from everywhere in the room would be 1."""

    key: np.ndarray  # (3,), towards the lamp
    key_colour: np.ndarray  # (3,)
    room: np.ndarray  # (ROOM, 3), the colour from each of `room_directions()`
    key_view: View
    room_views: list

    def from_key(self, points, hair=False) -> np.ndarray:
        """Return how much of the lamp reaches `points` `(N, 3)`: `(N,)`, 0 to 1."""
        return seen(self.key_view, points, *((0.03, 0.07, TAPS[:1]) if hair else (0.05, 0.02)))

    def from_room(self, points, point_normals, hair=False) -> np.ndarray:
        """Return the light of the room that falls on `points` with `point_normals` `(N, 3)`: linear RGB `(N, 3)`."""
        total = np.zeros((len(points), 3), np.float32)
        for direction, colour, view in zip(room_directions(), self.room, self.room_views):
            facing = point_normals @ direction
            lit = np.flatnonzero(facing > -0.2 if hair else facing > 0)
            margin, fade = (0.06, 0.2) if hair else (0.08, 0.05)
            reach = seen(view, points[lit], margin, fade, TAPS[:1])
            shape = 0.35 + 0.65 * np.maximum(facing[lit], 0) if hair else facing[lit]
            total[lit] += (reach * shape * (4 / ROOM))[:, None] * colour
        return total


def make_light(azimuth, elevation, strength, warmth, sparse, dense, mesh) -> Light:
    """Return the light of a picture. `azimuth`, `elevation`: degrees, of the lamp, from the camera's axis to the
    picture's right and up; `strength`: 1 is normal; `warmth`: -1 (blue) to 1 (orange). What casts the shadows: `sparse`
    points `(N, 3)` of everything for the room, `dense` points and the quads of `mesh` (vertices, quads) for the lamp.
    """
    a, e = np.radians([azimuth, elevation])
    key = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], np.float32)
    tint = np.array([1 + 0.10 * warmth, 1, 1 - 0.12 * warmth], np.float32)
    directions = room_directions()
    sky, ground = np.array([0.54, 0.56, 0.60]) * tint[::-1], np.array([0.25, 0.215, 0.19]) * tint
    room = ground + (sky - ground) * (0.5 + 0.5 * directions[:, 1:2])
    room = room * (0.75 + 0.45 * np.maximum(directions[:, 2:], 0))  # the side of the camera is brighter than behind
    room = room + 0.55 * np.maximum(directions @ key, 0)[:, None] ** 3 * tint  # the lamp lights the walls around it
    views = [look(d, 60, sparse) for d in directions]
    return Light(key, (1.3 * strength * tint).astype(np.float32), (strength * room).astype(np.float32),
                 look(key, 176, dense, mesh), views)  # fmt: skip
