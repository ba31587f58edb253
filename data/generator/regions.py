"""Where on the head something is: soft masks, 0 to 1, over points `(..., 3)` of the template in decimetres."""

import numpy as np

from .ageing import ease

# The hairline, as seen from above the head: degrees from the front, and the height y where the hair begins there.
HAIRLINE_TURN = np.radians([0, 20, 36, 50, 62, 72, 82, 98, 114, 138, 180])
HAIRLINE_Y = np.array([7.98, 7.97, 7.91, 7.73, 7.54, 7.30, 7.34, 7.42, 6.98, 6.74, 6.64])


def front(points):
    """Return how much `points` belong to the front of the face."""
    return ease(0.55, 0.80, points[..., 2])


def blob(points, x, y, width, height, both=True):
    """Return a Gaussian around (`x`, `y`) as seen from the front, and around its mirror image if `both`."""
    across = np.abs(points[..., 0]) if both else points[..., 0]
    return np.exp(-(((across - x) / width) ** 2) - ((points[..., 1] - y) / height) ** 2) * front(points)


def brow(points, height, thickness):
    """Return the eyebrows. `height`: decimetres above the usual; `thickness`: about 1."""
    x = np.abs(points[..., 0])
    u = np.clip((x - 0.10) / 0.42, 0, 1)
    middle = 7.430 + height + 0.052 * np.sin(2.5 * u) - 0.026 * u
    band = np.exp(-(((points[..., 1] - middle) / (0.020 * thickness * (1 - 0.55 * u**2))) ** 4))
    return band * ease(0.075, 0.14, x) * ease(0.55, 0.46, x) * front(points)


def beard(points, kind="full"):
    """Return where a beard of `kind` grows: stubble, short or full; goatee; moustache."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    lip = blob(points, 0, 6.765, 0.24, 0.048, both=False) * 1.3
    lip = lip + 0.6 * blob(points, 0.29, 6.64, 0.07, 0.12)  # down both sides of the mouth
    chin = ease(6.545, 6.47, y) * ease(0.46, 0.26, x) * ease(0.55, 0.85, z) + blob(points, 0, 6.53, 0.05, 0.05, False)
    under = ease(6.05, 6.22, y + 0.25 * (z - 1))
    if kind == "moustache":
        return np.clip(lip - blob(points, 0.27, 6.60, 0.06, 0.08), 0, 1)
    if kind == "goatee":
        return np.clip(lip + chin, 0, 1) * under
    edge = 6.76 - 0.32 * ease(0.62, 0.30, x)  # of the cheeks, from the ear down to the corner of the mouth
    jaw = ease(edge + 0.05, edge - 0.06, y) * ease(0.30, 0.50, z) * ease(0.22, 0.34, x)
    side = ease(7.10, 6.70, y) * ease(0.58, 0.66, x) * ease(0.28, 0.40, z) * ease(0.95, 0.75, z)
    return np.clip(lip + chin + jaw + side, 0, 1) * under


def scalp(points, receding, high):
    """Return where the hair of the head grows. `receding`: 0 to 1, temples first; `high`: decimetres, all along."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    turn = np.arctan2(np.abs(x), z - 0.42)
    line = np.interp(turn, HAIRLINE_TURN, HAIRLINE_Y) + high * (turn < 1.2)
    temples = np.exp(-(((turn - np.radians(34)) / 0.27) ** 2))
    line = line + receding * (0.40 * temples + 0.16 * np.exp(-((turn / 0.5) ** 2)))
    crown = np.exp(-(((x / 0.45) ** 2 + ((z - 0.10) / 0.6) ** 2) ** 2)) * (y > 8.0)
    return ease(-0.035, 0.055, y - line) * (1 - 0.9 * ease(0.6, 1.0, receding) * crown)


def neckline(points, kind):
    """Return the decimetres above the edge of the clothes, below 0 where they cover. `kind`: crew, v or shirt."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    edge = 5.97 - 0.27 * np.clip(z - 0.1, 0, 1) ** 1.3 - 0.08 * ease(0.3, 0.6, x) * (z > 0.2)
    if kind == "v":
        edge = edge - 0.30 * ease(0.36, 0.0, x) * ease(0.3, 0.7, z)
    if kind == "shirt":
        edge = edge - 0.16 * ease(0.12, 0.0, x) * ease(0.3, 0.7, z) + 0.05
    return y - edge
