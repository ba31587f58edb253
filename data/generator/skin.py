"""The skin, painted on its unrolled map: colour, spots, redness, lines, make-up, stubble; and its fine relief."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from . import mesh, regions
from .ageing import Signs, line_depth, lines_of
from .person import HAIR_COLOURS, Person, stream

TONES = np.array(
    [(241, 210, 190), (224, 177, 148), (188, 135, 104), (129, 87, 64), (78, 52, 41)]
)  # sRGB, light to dark
MELANIN, BLOOD, SHADE = np.array([[0.50, 0.85, 1.05], [0.03, 0.55, 0.45], [0.32, 0.54, 0.60]], np.float32)
LIPSTICKS = np.array([(0.40, 0.045, 0.06), (0.36, 0.10, 0.11), (0.28, 0.04, 0.08), (0.46, 0.16, 0.14)])  # linear RGB


@dataclass(frozen=True)
class Skin:
    """Maps of the unrolled skin `(H, W)`, and the colours of the lips. Colours are linear RGB."""

    paint: np.ndarray  # (H, W, 4): colour, gloss
    relief: np.ndarray  # (H, W, 3): slope along u, slope along v, how deep in a line (0 to 1)
    lips: np.ndarray  # (3,)
    lips_gloss: float


def linear(srgb) -> np.ndarray:
    """Return linear RGB, 0 to 1, of sRGB, 0 to 255."""
    x = np.asarray(srgb, float) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def tone_colour(tone) -> np.ndarray:
    """Return the linear RGB of skin of `tone`, 0 light to 1 dark."""
    logs, place = np.log(0.80 * linear(TONES)), np.clip(tone, 0, 1) * (len(TONES) - 1)
    low = min(int(place), len(TONES) - 2)
    return np.exp(logs[low] + (place - low) * (logs[low + 1] - logs[low]))


def exposure(tone) -> float:
    """Return how bright a camera makes a picture of skin of `tone`: dark skin is exposed longer, yet looks dark."""
    return 0.66 * (tone_colour(tone) @ [0.3, 0.6, 0.1] / 0.4) ** (0.64 - 1)


def exposure_of(person: Person) -> float:
    """Return the exposure of every picture of `person`, also of those that show them in another skin."""
    return exposure(round(person.skin_tone, 3))  # as in the tables


def dimmed(tone) -> float:
    """Return how far eyes, teeth and highlights are dimmed beside skin of `tone`: exposed like it, they glare."""
    return min(1.0, exposure(0.25) / exposure(tone)) ** 0.6


@cache
def _masks() -> dict:
    p = mesh.template().surface

    def blob(*place, **how):
        return regions.blob(p, *place, **how).astype(np.float32)

    masks = {
        "front": regions.front(p),
        "flush": 0.8 * blob(0.42, 6.95, 0.22, 0.20) + 0.9 * blob(0, 6.95, 0.12, 0.10, both=False)
        + 0.35 * blob(0, 6.42, 0.16, 0.14, both=False) + 0.8 * regions.ease(0.80, 0.95, np.abs(p[..., 0])),
        "below_eyes": blob(0.295, 7.115, 0.15, 0.055) + 0.5 * blob(0.17, 7.17, 0.05, 0.06),
        "lids": blob(0.31, 7.37, 0.15, 0.05),
        "liner": blob(0.31, 7.325, 0.17, 0.022),
        "cheeks": blob(0.46, 6.97, 0.16, 0.11),
        "oily": blob(0, 7.72, 0.36, 0.24, both=False) + blob(0, 7.03, 0.09, 0.26, both=False)
        + 0.7 * blob(0.42, 7.02, 0.13, 0.10) + 0.4 * blob(0, 6.45, 0.12, 0.08, both=False),
        "nostrils": blob(0.085, 6.835, 0.042, 0.026),
    }  # fmt: skip
    for kind in ("full", "goatee", "moustache"):
        masks[f"beard_{kind}"] = regions.beard(p, kind)
    return {name: np.asarray(mask, np.float32) for name, mask in masks.items()}


def noise(r, shape, per_dm) -> np.ndarray:
    """Return smooth noise of unit size `shape` `(H, W)`, with `per_dm` lumps a decimetre."""
    size = [max(2, int(np.ceil(n * per_dm / mesh.TEXELS))) for n in shape]
    coarse = r.standard_normal(size).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _draw_lines(person: Person, s: Signs, smile, shape):
    """Return the relief of the lines in decimetres and how deep in a line each texel is, 0 to 1: two `(H, W)`."""
    height, depth = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    by_width = {}
    for line in lines_of(person):
        amount = line_depth(line, s.lines, smile)
        if amount > 1e-5:
            by_width.setdefault((round(line.width, 3), line.ridge), []).append((line.path, amount))
    for (width, ridge), group in by_width.items():
        canvas, sigma = np.zeros(shape, np.float32), width * mesh.TEXELS
        for path, amount in group:
            knots = np.linspace(0, len(path) - 1, 4 * len(path))
            fine = np.stack([np.interp(knots, np.arange(len(path)), path[:, k]) for k in (0, 1)], 1)
            places = np.round(mesh.texel(mesh.on_skin(fine)) * 16).astype(int)
            fading = np.sin(np.pi * np.linspace(0.03, 0.97, len(places))) ** 0.6
            for a, b, f in zip(places[:-1].tolist(), places[1:].tolist(), fading.tolist()):
                cv2.line(canvas, a, b, amount * f, 1, cv2.LINE_8, 4)
        gain = sigma * np.sqrt(2 * np.pi)  # so that blurring a line of one texel keeps its height
        near = gain * cv2.GaussianBlur(canvas, (0, 0), sigma)
        far = 2.2 * gain * cv2.GaussianBlur(canvas, (0, 0), 2.2 * sigma)
        height += ridge * far - (1 + ridge) * near
        depth += near
    return height, np.clip(depth / 0.011, 0, 1.2)


def _paint_brows(colour, person, s, hair_colour):
    """Darken `colour` `(H, W, 3)` below the hairs of the brows, in place."""
    rows = slice(int((mesh.V_MAX - 7.62) * mesh.TEXELS), int((mesh.V_MAX - 7.28) * mesh.TEXELS))
    band = regions.brow(mesh.template().surface[rows], person.brow_height, 1.15 * person.brow)
    band = cv2.GaussianBlur(band.astype(np.float32), (0, 0), 1.2)[..., None] * (0.30 + 0.2 * person.brow)
    hairs = np.minimum(np.array(HAIR_COLOURS[hair_colour]) * 0.9, [0.16, 0.10, 0.062]) * (1 + 0.6 * s.grey)
    colour[rows] += band.clip(0, 0.75) * (hairs - colour[rows])


def _spots(person: Person, s: Signs, shape) -> np.ndarray:
    """Return freckles and, with the sign `skin`, the spots of age: an amount of melanin `(H, W)`."""
    r = stream(person.seed, "spots")
    count = 200
    place = np.stack([r.uniform(-0.66, 0.66, count), r.uniform(6.35, 7.98, count)], 1)
    size, dark, threshold = r.uniform(0.008, 0.022, count), r.uniform(0.15, 0.55, count), r.random(count)
    centre = mesh.texel(mesh.on_skin(place))
    middle = (np.abs(place[:, 0]) < 0.5) & (place[:, 1] > 6.7) & (place[:, 1] < 7.25)
    amount = 0.5 * (middle & (threshold < 0.8 * person.freckles))
    amount = dark * (amount + np.clip((0.42 * s.skin * (1.1 - 0.4 * person.skin_tone) - threshold) * 6, 0, 1))
    spots = np.zeros(shape, np.float32)
    for (x, y), radius, a in zip(np.round(centre * 16).astype(int).tolist(), size * mesh.TEXELS, amount.tolist()):
        if a > 0.01:
            cv2.circle(spots, (x, y), int(radius * 16), a, -1, cv2.LINE_8, 4)
    spots = cv2.GaussianBlur(spots, (0, 0), 1.1)
    moles = r.random(4) < 0.35  # small and dark, and there at every age
    for (x, y), there in zip(mesh.texel(mesh.on_skin(r.uniform((-0.5, 6.4), (0.5, 7.8), (4, 2)))), moles):
        if there:
            cv2.circle(spots, (round(float(x)), round(float(y))), 1, 0.9, -1)
    return spots


def _beard_area(person, factors):
    """Return where the face is shaven or bearded `(H, W)`, nowhere on a woman."""
    masks = _masks()
    if not person.sex:
        return np.zeros_like(masks["front"])
    kind = factors.beard if factors.beard in ("goatee", "moustache") else "full"
    return masks[f"beard_{kind}"]


def _pigments(person, s, factors, r, depth):
    """Return how much melanin, blood and shade each texel has, and its grain: four `(H, W)`.

    `r`: the person's random numbers for it; `depth`: how deep in a line each texel is `(H, W)`, 0 to 1.
    """
    masks, make_up, k = _masks(), factors.make_up, max(s.skin, -0.1)
    shape, covered = depth.shape, 1 - 0.65 * make_up
    patches = noise(r, shape, 3) * 0.5 + noise(r, shape, 7) * 0.4 + noise(r, shape, 14) * 0.3
    dapple = noise(r, shape, 4) * 0.6 + noise(r, shape, 10) * 0.5
    pores, grain = noise(r, shape, 45), noise(r, shape, 20)
    blood = 0.30 * person.redness * (0.8 + 0.5 * k) * masks["flush"] + covered * (0.03 + 0.11 * k) * patches
    blood += 0.16 * make_up * masks["cheeks"] + 0.10 * masks["below_eyes"] * (0.4 + s.eyes)
    melanin = covered * ((0.03 + 0.10 * k) * dapple + _spots(person, s, shape) + 0.012 * grain + 0.11 * k)
    shade = masks["below_eyes"] * (0.16 + 0.42 * max(s.eyes, -0.2)) * (1 - 0.55 * make_up) + 0.60 * depth
    shade += make_up * (0.42 * masks["lids"] + 0.9 * masks["liner"])
    shade += 0.30 * masks["lids"] * max(s.sag, 0) + 1.5 * masks["nostrils"]
    dark = {"none": 0.08 + 0.25 * factors.beard_length, "stubble": 0.65 + 0.55 * factors.beard_length}
    dark = dark.get(factors.beard, 0.6) / (1 + 9 * np.mean(HAIR_COLOURS[factors.hair_colour]))  # fair hair shows less
    shade += _beard_area(person, factors) * dark * (0.85 + 0.25 * pores) * (1 - 0.25 * factors.skin_tone)
    return melanin, blood, shade, 0.6 * grain + 0.7 * pores


def make_skin(person: Person, s: Signs, factors, smile) -> Skin:
    """Return the skin of `person` with the signs of age `s` under `factors`.

    `smile`: 0 to 1, deepens the lines that a smile makes at any age.
    """
    masks, tone, make_up = _masks(), factors.skin_tone, factors.make_up
    # Another skin is as bright as a camera would show it, but eyes, hair, clothes and background stay as they are.
    seen = exposure(tone) / exposure_of(person)
    base, shine = tone_colour(tone) * seen, dimmed(tone) * seen
    height, depth = _draw_lines(person, s, smile, masks["front"].shape)
    melanin, blood, shade, relief = _pigments(person, s, factors, stream(person.seed, "skin"), depth)
    fair = 1 - 0.6 * tone
    absorbed = sum(a[..., None] * c for a, c in zip((fair * melanin, fair * blood, shade), (MELANIN, BLOOD, SHADE)))
    colour = base.astype(np.float32) * np.exp(-absorbed)
    _paint_brows(colour, person, s, factors.hair_colour)
    bearded = np.zeros_like(depth)
    if factors.beard not in ("none", "stubble"):  # below a beard the skin is dark
        hairs = np.array(HAIR_COLOURS[factors.hair_colour]) * 0.85 * (1 + 0.6 * s.grey)
        bearded = (cv2.GaussianBlur(_beard_area(person, factors), (0, 0), 1.5) * (0.8 + 0.06 * relief)).clip(0, 0.9)
        colour += bearded[..., None] * (hairs.astype(np.float32) - colour)

    oily, k = masks["oily"].clip(0, 1), max(s.skin, -0.1)
    gloss = (0.75 + 0.55 * oily - 0.30 * make_up - 0.25 * k) * (1 - 0.85 * bearded)
    height += (0.00045 + 0.0008 * max(k, 0)) * masks["front"] * (1 - 0.5 * oily) * relief * (1 - 0.65 * make_up)
    slope_u, slope_v = np.gradient(height, axis=1) * mesh.TEXELS, -np.gradient(height, axis=0) * mesh.TEXELS
    pale = 0.35 * person.sex + 0.25 * max(s.shape, 0)
    lips = base * (np.array([0.80, 0.52, 0.53]) * (1 - pale) + np.array([0.88, 0.72, 0.70]) * pale)
    lips = lips + 0.75 * make_up * (LIPSTICKS[factors.lipstick] * (1 - 0.45 * tone) * shine - lips)
    return Skin(
        np.dstack([colour, shine * np.clip(gloss, 0.1, 1.5)]).astype(np.float32),
        np.dstack([slope_u, slope_v, depth]).astype(np.float32), lips, shine * (1.0 + 1.2 * make_up),
    )  # fmt: skip


def look_up(maps, uv) -> np.ndarray:
    """Return the values of `maps` `(H, W, C ≤ 4)` at `uv` `(N, 2)` in decimetres: `(N, C)`, bilinear."""
    width = 512  # OpenCV takes no map with more than 32,767 rows
    places = mesh.texel(uv)
    padded = np.zeros((-(-len(places) // width) * width, 2), np.float32)
    padded[: len(places)] = places
    grid = padded.reshape(-1, width, 2)
    found = cv2.remap(maps, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(-1, maps.shape[2])[: len(places)]
