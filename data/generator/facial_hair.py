"""Hair of the face: brows, moustache and beard."""

import numpy as np

from . import regions
from .ageing import ease
from .person import HAIR_COLOURS, stream
from .skin import tone_colour
from .strands import Strands, at_roots, colours, plant
from .subdivision import unit


def make_brows(person, s, factors, rest, coarse, coarse_normals) -> Strands:
    """Return the brows. `rest`, `coarse`, `coarse_normals` `(N1, 3)`: the skin on the template and on the face."""
    r, count = stream(person.seed, "brows"), 560
    planted = plant(regions.brow(rest, person.brow_height, person.brow), count, r)
    place, root, normal = (at_roots(planted, v) for v in (rest, coarse, coarse_normals))
    u = np.clip((np.abs(place[:, :1]) - 0.10) / 0.42, 0, 1)
    side = np.sign(place[:, :1])
    comb = side * [1.0, 0, 0] * (0.45 + u) + np.array([0, 1.0, 0]) * (0.85 - 1.15 * u) + r.normal(0, 0.09, (count, 3))
    direction = unit(comb - normal * ((comb * normal).sum(1, keepdims=True) - 0.12))
    length = r.uniform(0.022, 0.042, count)[:, None]
    points = np.stack([root + normal * 0.004 + direction * length * k for k in (0, 0.5, 1.0)], 1)
    pigment = np.minimum(0.65 * np.array(HAIR_COLOURS[factors.hair_colour]), [0.24, 0.16, 0.09])
    paint = colours(r, count, pigment, np.full(count, 0.35 * s.grey), 0.12)
    paint = (paint**0.8 * tone_colour(factors.skin_tone) ** 0.2).astype(np.float32)  # so thin that skin shows through
    thin = r.random(count) < 0.62 + 0.25 * person.brow  # the thicker the brow, the more hairs
    out = np.repeat(normal[:, None], 3, 1)
    width = np.full(count, 0.006)
    return Strands(points[thin].astype(np.float32), out[thin], paint[thin], width[thin], 0.4, casts=False)


def make_beard(person, s, factors, rest, coarse, coarse_normals) -> Strands:
    """Return the beard of the kind in `factors`: moustache, goatee, short or full; the rest as in `make_brows`."""
    r, count = stream(person.seed, "beard"), 11000
    kind = "full" if factors.beard in ("short", "full") else factors.beard
    where = regions.beard(rest, kind)
    planted = plant(where, count, r)
    place, root, normal = (at_roots(planted, v) for v in (rest, coarse, coarse_normals))
    lie = np.array([0, -1.0, 0.1]) + place * [0.35, 0, 0] + r.normal(0, 0.16, (count, 3))
    full = factors.beard == "full"
    longest = (0.085 if full else 0.038) * (0.8 + 0.6 * factors.beard_length)
    length = (longest * r.uniform(0.5, 1.1, count) * (0.25 + 0.75 * regions.beard(place, kind) ** 2))[:, None]
    length *= 1 - 0.55 * regions.blob(place, 0, 6.74, 0.3, 0.09, both=False)[:, None]  # the moustache is kept short
    bend = np.array([0.0, 0.35, 0.7, 1.0])
    points = root[:, None] + length[:, None] * (bend[:, None] * (0.75 * unit(lie) + 0.55 * normal)[:, None])
    pigment = 0.85 * np.array(HAIR_COLOURS[factors.hair_colour]) * [1.1, 0.95, 0.85]
    grey = np.clip(s.grey * (0.9 + 0.8 * ease(6.7, 6.4, place[:, 1])), 0, 1)  # the chin goes grey first
    paint = colours(r, count, pigment, grey, 0.15)
    keep = r.random(count) < (1.0 if kind == "full" else 0.7)
    out = np.repeat(normal[:, None], 4, 1)
    width = np.full(count, 0.0065)
    return Strands(points[keep].astype(np.float32), out[keep], paint[keep], width[keep], 0.3, casts=full)
