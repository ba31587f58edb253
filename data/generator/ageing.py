"""What age does to a face: the signs, the shape that follows from them, and the lines with the age of their onset.

All signs are driven by the apparent age alone (years + the person's offset) at the person's own rates, and only grow.
"""

from dataclasses import dataclass

import numpy as np

from . import mesh
from .person import RATES, Person, stream

STRENGTH = 0.80  # of all signs; 1 was the sketch's, whose 50 looked 60


@dataclass(frozen=True)
class Signs:
    """How far each sign of age has come: 0 at an apparent 20 years, about `STRENGTH` at 50."""

    years: float  # apparent age
    shape: float  # fullness going, features growing; most of it early
    sag: float  # lids, cheeks, jaw; most of it late
    lines: float
    eyes: float  # bags and shadows below the eyes
    skin: float  # spots, unevenness, dullness; more of it early
    hair: float  # receding; more of it early
    grey: float  # share of grey hair, 0 to 1


def signs(person: Person, age) -> Signs:
    """Return the signs of age of `person` at `age` years."""
    years = age + person.apparent_offset
    t = (years - 20) / 30
    bend = dict(shape=1.2, sag=0.05, lines=0.7, eyes=1.0, skin=0.8, hair=0.8)
    come = {name: STRENGTH * person.rates[name] * curve(t, bend[name]) for name in RATES}
    grey = 1 / (1 + np.exp(-(years - person.grey_age) * person.rates["hair"] / 5.5))
    return Signs(years, grey=float(grey), **come)


def curve(t, bend) -> float:
    """Return growth from 0 at `t` 0 to 1 at `t` 1, and on beyond. `bend`: > 0 early, < 0 late growth; not 0."""
    return float(np.expm1(-bend * t) / np.expm1(-bend))


def ease(low, high, x):
    """Return 0 below `low`, 1 above `high`, smooth between (cubic Hermite)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def age_shape(vertices, person: Person, s: Signs):
    """Add to the mesh `vertices` `(5835, 3)` what age does to the shape, in place."""
    full, sag, lines, bags = 0.9 - s.shape, max(s.sag, 0), max(s.lines, 0), max(s.eyes, -0.2)
    mesh.add(vertices, "head/head-age-incr", 0.22 * max(s.shape, 0))
    mesh.add_signed(vertices, "cheek/{s}-cheek-volume", 0.40 * full - 0.08)  # from round to lean …
    mesh.add_signed(vertices, "head/head-fat", 0.16 * full - 0.05)
    mesh.add_signed(vertices, "cheek/{s}-cheek-inner", 0.12 - 0.38 * s.shape)
    mesh.add_signed(vertices, "mouth/mouth-upperlip-volume", -0.02 - 0.45 * s.shape)
    mesh.add_signed(vertices, "mouth/mouth-lowerlip-volume", -0.04 - 0.40 * s.shape)
    mesh.add_signed(vertices, "eyes/{s}-eye-scale", 0.10 - 0.22 * s.shape)
    mesh.add_signed(vertices, "nose/nose-scale-vert", 0.20 * s.shape - 0.06)
    mesh.add_signed(vertices, "ears/{s}-ear-scale", 0.25 * s.shape - 0.05)
    mesh.add(vertices, "nose/nose-point-down", 0.25 * sag)
    mesh.add(vertices, "neck/neck-double-incr", 0.8 * sag * person.weight)
    mesh.add(vertices, "mouth/mouth-laugh-lines-in", 0.3 * lines)
    mesh.add(vertices, "mouth/mouth-angles-down", 0.05 * sag)
    mesh.add(vertices, "cheek/{s}-cheek-trans-down", 0.42 * sag)
    mesh.add(vertices, "eyes/{s}-eye-eyefold-down", 0.5 * sag)
    mesh.add(vertices, "eyes/{s}-eye-height2-decr", 0.28 * sag)
    mesh.add_signed(vertices, "eyes/{s}-eye-bag", 0.6 * bags) if bags > 0 else None


def build_years(s: Signs) -> float:
    """Return the age in years that the macro targets get: they are linear to 90, and tuned for full-body figures."""
    return 22 + 25 * s.shape


@dataclass(frozen=True)
class Line:
    """A crease: where it runs on the template's face, how wide and deep it becomes, and when."""

    path: np.ndarray  # (K, 2), x and y in decimetres as seen from the front
    width: float  # decimetres, standard deviation of its profile
    depth: float  # decimetres, when it has come entirely
    onset: float  # of the sign `lines`, where it begins
    span: float  # until it has come entirely
    ridge: float = 0.4  # height of the skin pushed up beside it, as a share of the depth
    smile: float = 0.0  # how much of it a full smile shows at any age


def line_depth(line: Line, lines, smile=0.0) -> float:
    """Return the depth of `line` in decimetres, given the sign `lines` and `smile` 0 to 1."""
    return line.depth * max(float(ease(line.onset, line.onset + line.span, lines)), smile * line.smile)


def _mirror(path, side):
    return np.asarray(path, float) * [side, 1]


def lines_of(person: Person) -> list[Line]:
    """Return all lines that `person` will ever get, each with its own place, depth and onset."""
    r = stream(person.seed, "lines")
    found = []
    count = int(r.integers(3, 6))
    for k in range(count):  # across the forehead
        u, half, sway = np.linspace(-1, 1, 15), r.uniform(0.28, 0.46), r.uniform(0, 6)
        y = 7.63 + 0.27 * (k + 0.5) / count + r.normal(0, 0.012) + 0.022 * np.cos(3 * u) * r.choice([-1, 1])
        path = np.stack([u * half + r.normal(0, 0.03), y + 0.008 * np.sin(7 * u + sway)], 1)
        found.append(Line(path, r.uniform(0.011, 0.015), 0.0080 * r.uniform(0.5, 1.2), r.uniform(0.0, 0.4), 0.8))
    for side in (-1, 1):
        top = r.uniform(0.05, 0.08)
        frown = [(0.06 + r.normal(0, 0.008), 7.42), (0.05, 7.5), (top, 7.58)]
        found.append(Line(_mirror(frown, side), 0.012, 0.0085 * r.uniform(0.3, 1.2), r.uniform(0.15, 0.35), 0.8))
        for k in range(int(r.integers(3, 5))):  # crow's feet
            angle, length, u = np.radians(-36 + 23 * k + r.normal(0, 5)), r.uniform(0.12, 0.19), np.linspace(0, 1, 6)
            path = np.stack([0.515 + u * length * np.cos(angle), 7.205 + 0.035 * k + u * length * np.sin(angle)], 1)
            found.append(Line(_mirror(path, side), 0.0095, 0.0070 * r.uniform(0.6, 1.2), r.uniform(0.0, 0.3), 0.75,
                              smile=0.35))  # fmt: skip
        path = np.array([(0.185, 6.97), (0.245, 6.89), (0.30, 6.79), (0.335, 6.69), (0.345, 6.60)])
        path = _mirror(path + r.normal(0, 0.007, (5, 2)), side)  # from the nose to the mouth
        deep = r.uniform(0.75, 1.2)
        found.append(Line(path, 0.032, 0.015 * deep, -0.35, 1.35, 0.7, smile=0.6))
        found.append(Line(path, 0.013, 0.0075 * deep, 0.0, 0.95, smile=0.4))
        path = _mirror([(0.285, 6.58), (0.305, 6.49), (0.30, 6.40)], side)  # from the corner of the mouth down
        found.append(Line(path, 0.020, 0.009 * r.uniform(0.6, 1.2), r.uniform(0.2, 0.45), 0.75))
        path = np.array([(0.155, 7.17), (0.21, 7.10), (0.29, 7.06), (0.38, 7.075), (0.455, 7.13)])
        found.append(Line(_mirror(path + [0, 0.045], side), 0.009, 0.006 * r.uniform(0.5, 1.2), 0.05, 0.9))
        path = _mirror([(0.15, 7.15), (0.20, 7.06), (0.29, 6.98)], side)  # the tear trough
        found.append(Line(path, 0.026, 0.011 * r.uniform(0.6, 1.2), -0.2, 1.3, 0.5))
        for k in range(3):  # above the upper lip
            x = 0.06 + 0.06 * k + r.normal(0, 0.01)
            found.append(Line(_mirror([(x, 6.77), (x * 1.05, 6.71)], side), 0.008, 0.005, r.uniform(0.45, 0.65), 0.6))
    for k in range(2):  # around the neck
        u = np.linspace(-1, 1, 13)
        path = np.stack([0.42 * u, 6.08 - 0.13 * k - 0.05 * np.cos(1.5 * u) + r.normal(0, 0.01)], 1)
        found.append(Line(path, 0.015, 0.011 * r.uniform(0.5, 1.2), r.uniform(0.1, 0.3), 0.9))
    return found
