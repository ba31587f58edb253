"""The eyes: balls with an iris that look at the camera."""

import numpy as np

from .ageing import ease
from .person import EYE_COLOURS, stream
from .subdivision import unit

RINGS = np.r_[np.linspace(0, 0.62, 44), np.linspace(0.66, 1.7, 18)].astype(np.float32)  # radians from the gaze
TURNS = np.linspace(0, 2 * np.pi, 56, endpoint=False).astype(np.float32)
PUPIL, IRIS = 0.160, 0.445  # radians; an iris is 12 mm wide


def ball_quads() -> np.ndarray:
    """Return the quads `(F, 4)` of a ball of `RINGS` by `TURNS`, facing outward."""
    n = len(TURNS)
    ring, turn = np.arange(len(RINGS) - 1)[:, None] * n, np.arange(n)[None]
    after = (turn + 1) % n
    return np.stack([ring + turn, ring + n + turn, ring + n + after, ring + after], -1).reshape(-1, 4)


def make_eye(person, centre, radius, gaze, up):
    """Return `(points, normals, colour)` of an eyeball, each `(N, 3)`; colours are linear RGB.

    `gaze`: the direction it looks in `(3,)`; `up`: of the head `(3,)`.
    """
    right = unit(np.cross(up, gaze))
    up = np.cross(gaze, right)
    angle, turn = (m.ravel() for m in np.meshgrid(RINGS, TURNS, indexing="ij"))
    local = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], 1)
    normal = local @ np.stack([right, up, gaze])
    bulge = 1 + 0.045 * ease(0.55, 0.0, angle)
    fibres = stream(person.seed, "iris").normal(0, 1, len(TURNS))
    fibre = np.tile(fibres, len(RINGS)) * ease(PUPIL, 0.3, angle)
    ring = (angle - PUPIL) / (IRIS - PUPIL)
    iris = np.array(EYE_COLOURS[person.eye_colour]) * (1.25 - 0.35 * ring + 0.16 * fibre)[:, None]
    iris = iris * (1 - 0.65 * ease(0.72, 1.0, ring))[:, None]  # the dark ring around it
    white = np.array([0.57, 0.525, 0.495]) - np.outer(ease(0.7, 1.2, angle), [0.06, 0.15, 0.15])
    colour = iris + ease(IRIS - 0.03, IRIS + 0.035, angle)[:, None] * (white - iris)
    colour = colour + ease(PUPIL + 0.025, PUPIL - 0.02, angle)[:, None] * (0.004 - colour)
    return centre + normal * (radius * bulge)[:, None], normal, np.clip(colour, 0, 1)


def shade_eye(normal, colour, light, room, reach, lid_dark):
    """Return the colour of the eye's points `(N, 3)` in the `Light` `light`, with its highlights.

    `room`: light of the room there `(N, 3)`; `reach`: how much of the lamp comes there; `lid_dark`: the shadow of the
    upper lid and its lashes, 0 to 1, all `(N,)` or `(N, 3)`.
    """
    facing = np.maximum(normal @ light.key, 0) * (0.35 + 0.65 * reach)
    lit = colour * (1.1 * room + 0.8 * facing[:, None] * light.key_colour) * (1 - lid_dark)[:, None]
    lamp = light.key.copy()  # a highlight is seen wherever the lamp is: the eye is wet and round, and lamps are wide
    lamp[:2] = np.clip(lamp[:2], -0.45, 0.45)
    half = unit(unit(lamp + [0, 0.15, 0]) + np.array([0, 0, 1.0]))
    shine = ease(0.989, 0.9945, normal @ half) * (1 - lid_dark)
    sheen = 0.05 * np.maximum(normal @ half, 0) ** 30
    return lit + (0.55 * shine + sheen * reach)[:, None] * light.key_colour
