"""Hair of the head: which hairs there are at an age, how they are combed and how they lie; and all hair together."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from . import mesh, regions
from .ageing import Signs, ease
from .facial_hair import make_beard, make_brows
from .person import HAIR_COLOURS, Person, stream
from .strands import GREY, Shell, Strands, at_roots, colours, plant
from .subdivision import normals, unit

WHORL = np.array([0, 8.42, -0.40], np.float32)
TIE = np.array([0, 7.95, -0.95], np.float32)  # where tied hair is held
CURTAIN_Y = np.array([6.0, 6.5, 7.0, 7.4, 7.7, 7.9, 8.02])  # long hair is kept this far from the middle of the face
CURTAIN_X = np.array([0.46, 0.54, 0.60, 0.62, 0.57, 0.44, 0.24])


@dataclass(frozen=True)
class Style:
    """How hair is cut and combed. Lengths in decimetres, shares 0 to 1."""

    count: int
    length: float
    steps: int
    comb: str  # whorl (outward from the crown), part, back, tie
    lift: float  # how much it stands up at the root
    fall: float  # how much it is drawn down, a step
    off: float  # how far above the head the outer strands lie
    clump: float = 0.5  # how much strands gather into locks
    fringe: float = 0.0  # length of the strands over the forehead
    sides: float = 1.0  # length at the sides and back, as a share
    wave: float = 0.0  # decimetres
    curl: float = 0.0  # radius, decimetres
    width: float = 0.016
    cover: float = 0.92  # of the scalp below it
    level: float = 0.0  # height y at which it is cut straight, 0 if it is not

    @property
    def falls(self) -> bool:
        """Whether it is long enough to hang beside the face."""
        return self.length > 1 and self.comb == "part"


STYLES = {
    "buzz": Style(11000, 0.05, 3, "whorl", 0.9, 0.0, 0.005, 0.0, width=0.009, cover=0.80),
    "crop": Style(7000, 0.23, 6, "whorl", 0.75, 0.10, 0.05, 0.45, sides=0.35, width=0.012, cover=0.80),
    "side": Style(5600, 0.50, 9, "part", 0.60, 0.10, 0.12, 0.50, sides=0.30, width=0.013),
    "swept": Style(5600, 0.56, 10, "back", 1.00, 0.05, 0.14, 0.50, sides=0.30, width=0.013),
    "fringe": Style(5600, 0.40, 9, "whorl", 0.55, 0.20, 0.10, 0.55, fringe=0.42, sides=0.40, width=0.013),
    "curly": Style(4200, 0.42, 14, "whorl", 0.80, 0.02, 0.06, 0.30, sides=0.40, curl=0.030, width=0.014),
    "pixie": Style(5600, 0.44, 9, "part", 0.50, 0.18, 0.10, 0.55, fringe=0.50, sides=0.70, width=0.013),
    "bob": Style(3400, 1.55, 16, "part", 0.40, 0.42, 0.11, 0.40, width=0.018, level=6.55),
    "bob_fringe": Style(3400, 1.50, 16, "part", 0.40, 0.42, 0.11, 0.40, fringe=0.62, width=0.018, level=6.60),
    "long": Style(3400, 2.60, 22, "part", 0.40, 0.42, 0.11, 0.40, width=0.018),
    "long_fringe": Style(3400, 2.60, 22, "part", 0.40, 0.42, 0.11, 0.40, fringe=0.64, width=0.018),
    "wavy": Style(3200, 2.30, 24, "part", 0.45, 0.40, 0.16, 0.50, wave=0.055, width=0.018),
    "tied": Style(4200, 1.20, 12, "tie", 0.05, 0.0, 0.02, 0.25, width=0.013),
    "curls": Style(2600, 1.25, 30, "part", 0.55, 0.20, 0.22, 0.45, curl=0.045, width=0.017, level=6.35),
}  # fmt: skip


def _receding(person: Person, s: Signs):
    """Return how far the hairline has gone at the temples (0 to 1) and all along (decimetres)."""
    much = max(s.hair, 0) * (1 if person.sex else 0.4)
    return float(np.clip(person.balding * (0.10 + 1.05 * much), 0, 1)), 0.06 * much


def scalp_cover(person: Person, s: Signs, factors, points) -> np.ndarray:
    """Return how much of the scalp's skin is dark with hair at `points` `(N, 3)` of the template: `(N,)`, 0 to 1."""
    return STYLES[factors.hair_style].cover * regions.scalp(points, *_receding(person, s)) ** 1.3


def scalp_colour(person: Person, s: Signs, factors) -> np.ndarray:
    """Return the linear RGB of the scalp below the hair `(3,)`."""
    pigment = np.array(HAIR_COLOURS[factors.hair_colour])
    return 0.75 * np.exp((1 - 0.8 * s.grey) * np.log(pigment) + 0.8 * s.grey * np.log(GREY))


def make_hair(person: Person, s: Signs, factors, shape) -> list[Strands]:
    """Return the hair of the head, the brows and the beard on a face with vertices `shape` `(5835, 3)`."""
    template = mesh.template()
    part, rest = template.skin, template.coarse_points
    coarse = part.coarse @ shape
    coarse_normals = normals(coarse, part.coarse_quads, part.coarse_adding)
    skin = rest, coarse, coarse_normals
    found = [_scalp_hair(person, s, factors, *skin), make_brows(person, s, factors, *skin)]
    if factors.beard in ("moustache", "goatee", "short", "full"):
        found.append(make_beard(person, s, factors, *skin))
    return found


def _scalp_hair(person, s, factors, rest, coarse, coarse_normals):
    style, r = STYLES[factors.hair_style], stream(person.seed, "scalp")
    planted = plant(regions.scalp(rest, 0.0, -0.03), style.count, r)
    place, root, normal = (at_roots(planted, v) for v in (rest, coarse, coarse_normals))
    threshold, count = r.random(style.count), style.count
    grey = np.clip(s.grey * (1 + 0.7 * ease(8.0, 7.3, place[:, 1])), 0, 1)
    paint = colours(r, count, np.array(HAIR_COLOURS[factors.hair_colour]), grey)
    falls = style.falls
    outer = Shell(coarse[rest[:, 1] > (5.6 if falls and not style.level else 6.75)])  # long hair lies on the shoulders
    points = _grow(person, style, r, outer, place, root, normal)
    width = style.width * np.exp(r.normal(0, 0.2, count))
    keep = threshold < regions.scalp(place, *_receding(person, s)) * (1 if falls else ease(6.85, 7.0, place[:, 1]))
    if falls:  # most of what grows at the back of the head hangs unseen behind it
        keep &= (place[:, 2] > -0.25) | (np.abs(place[:, 0]) > 0.6) | (np.arange(count) % 3 == 0)
    _, outward = outer.height(points.reshape(-1, 3))
    return Strands(points[keep], outward.reshape(points.shape)[keep], paint[keep], width[keep])


def _first_direction(style, place, normal, side):
    """Return the direction in which the hair is combed at the root `(S, 3)`."""
    x, y, z = np.eye(3, dtype=np.float32)
    top = ease(7.85, 8.2, place[:, 1])[:, None]
    if style.comb == "whorl":
        away = unit(place - WHORL)
        return away * (0.35 + 0.65 * top) - y * 0.9 * (1 - top) - z * 0.2 * (1 - top)
    if style.comb == "back":
        return -z * (0.4 + 0.8 * top) - y * 0.8 * (1 - top) + x * 0.15 * np.sign(place[:, :1])
    if style.comb == "tie":
        return -z * 1.0 + 0.2 * y * top - 0.3 * y * (1 - top)
    return side * x * (0.05 + 0.95 * top) + z * 0.12 * top - y * 0.8 * (1 - top) - z * 0.45 * (1 - top)


def _grow(person, style, r, outer, place, root, normal):
    """Return strands `(S, K, 3)` from `root` `(S, 3)`; `place`: the same roots on the template."""
    count, steps, down = len(root), style.steps, np.array([0, -1, 0], np.float32)
    side = np.where(place[:, :1] > person.parting, 1.0, -1.0).astype(np.float32)
    leader = np.arange(0, count, 26)
    _, nearest = cKDTree(np.c_[place[leader], 2 * side[leader]]).query(np.c_[place, 2 * side])
    own = leader[nearest]  # each strand belongs to the lock of the nearest leader
    fringe = np.zeros(count, bool)
    length = style.length * r.uniform(0.72, 1.08, count)[own] * r.uniform(0.88, 1.05, count)
    length *= style.sides + (1 - style.sides) * ease(7.45, 8.12, place[:, 1])
    if style.comb == "tie":
        length = np.minimum(length, 1.1 * np.sqrt(((TIE - root) ** 2).sum(1)))
    if style.fringe:
        edge = r.uniform(-0.06, 0.06, count)
        fringe = (place[:, 2] > 0.70 + edge) & (np.abs(place[:, 0]) < 0.50 + edge) & (place[:, 1] > 7.7)
        behind = (1.25 - place[:, 2]).clip(0, 0.5)  # rooted farther back, they must reach farther
        length = np.where(fringe, style.fringe * (0.85 + 0.9 * behind) * r.uniform(0.9, 1.08, count), length)
    jitter = r.normal(0, 0.10, (count, 3)) + r.normal(0, 0.09, (count, 3))[own] * (style.comb != "tie")
    away = _first_direction(style, place, normal, side)
    ahead = np.stack([0.25 * side[:, 0] + 0.2 * place[:, 0], np.full(count, -0.3), np.full(count, 1.0)], 1)
    away = np.where(fringe[:, None], ahead, away)
    lift = style.lift * (0.35 + 0.65 * ease(7.6, 8.1, place[:, 1:2]))
    direction = unit(normal * lift + away + jitter).astype(np.float32)
    off = style.off * r.uniform(0.15, 1.0, count)[own] + 0.008 * r.random(count) + 0.006
    step = (length / (steps - 1)).astype(np.float32)
    points, q = np.empty((count, steps, 3), np.float32), root.copy()
    points[:, 0] = q
    falls = style.falls
    for k in range(1, steps):
        fall = np.where(fringe, 0.35, style.fall * min(1.0, 0.25 + 0.15 * k))
        direction = unit(direction + fall[:, None] * down)
        if style.comb == "tie":
            share = ease(0, 0.6, k / steps)
            direction = unit(0.5 * direction + 0.6 * unit((1 - share) * WHORL + share * TIE - q))
        q = q + direction * step[:, None]
        if falls:
            q = _draw_curtain(q, step, fringe, side[:, 0])
        height, out = outer.height(q)
        cling = np.clip((height - off) * 4, 0, 0.5) * (ease(7.0, 7.6, q[:, 1]) if falls else 1) * (1.5 - style.lift)
        direction = unit(direction - out * cling[:, None]).astype(np.float32)
        lack = np.clip(off * min(1.0, 0.4 * k) - height, 0, 0.3).astype(np.float32)
        q = q + out * lack[:, None]
        inward = np.minimum((direction * out).sum(1), 0) * (lack > 0)
        direction = unit(direction - out * inward[:, None])
        points[:, k] = q
    points = _gather(style, r, person, points, own, outer)
    if style.level:
        low = points[..., 1] < style.level + r.normal(0, 0.03, count)[own][:, None]
        last = np.where(low.any(1), low.argmax(1), steps - 1)
        points = points[np.arange(count)[:, None], np.minimum(np.arange(steps), last[:, None])]
    if falls:
        x, y, z = np.moveaxis(points, -1, 0)
        limit = np.interp(y, CURTAIN_Y, CURTAIN_X) * ease(8.0, 7.75, y) * ease(-0.2, 0.2, z)
        inside = (np.abs(x) < limit) & ~fringe[:, None]
        points[..., 0] = np.where(inside, limit * np.sign(x + 0.01 * side), x)
    return points


def _draw_curtain(q, step, fringe, side):
    """Return `q` with the strands that would hang over the face drawn aside and back."""
    limit = np.interp(q[:, 1], CURTAIN_Y, CURTAIN_X)
    across = np.where(np.abs(q[:, 0]) > 0.03, np.sign(q[:, 0]), side)
    inside = (q[:, 2] > np.where(q[:, 1] < 6.9, 0.0, 0.30)) & (q[:, 1] < 8.02) & (np.abs(q[:, 0]) < limit) & ~fringe
    moved = np.minimum(limit, np.abs(q[:, 0]) + 1.7 * step)
    q[:, 0] = np.where(inside, across * moved, q[:, 0])
    q[:, 2] -= np.where(inside & (q[:, 2] > 0.55), 0.45 * step, 0)
    return q


def _gather(style, r, person, points, own, outer):
    """Return strands gathered into the locks of their leaders `own`, with waves and curls."""
    count, steps = points.shape[:2]
    t = np.linspace(0, 1, steps, dtype=np.float32)[None, :, None]
    pull = style.clump * r.uniform(0.6, 1.1, (count, 1, 1)).astype(np.float32)
    points = points + pull * t**0.8 * (points[own] - points)
    curl = style.curl + (0.022 * max(0, person.curl - 0.35) if style.length < 0.6 and style.steps > 5 else 0)
    if not (style.wave or curl):
        return points.astype(np.float32)
    along = unit(np.gradient(points, axis=1))
    _, out = outer.height(points.reshape(-1, 3))
    out = out.reshape(points.shape)
    sideways = unit(np.stack([along[..., 1] * out[..., 2] - along[..., 2] * out[..., 1],
                              along[..., 2] * out[..., 0] - along[..., 0] * out[..., 2],
                              along[..., 0] * out[..., 1] - along[..., 1] * out[..., 0]], -1))  # fmt: skip
    phase = (r.uniform(0, 2 * np.pi, count)[own] + r.normal(0, 0.35, count))[:, None, None]
    length = style.length * t
    if style.wave:
        bend = style.wave * np.sin(2 * np.pi * length / 0.62 + phase) * np.minimum(1, 2.5 * t)
        points = points + bend * (sideways + 0.5 * out)
    if curl:
        turn = 2 * np.pi * length / (4.2 * curl) + phase
        points = points + curl * np.minimum(1, 4 * t) * (np.sin(turn) * sideways + (0.6 + np.cos(turn)) * out)
    return points.astype(np.float32)
