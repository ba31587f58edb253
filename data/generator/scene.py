"""What is around the person: the factors of one picture, the camera, the background, the clothes."""

from dataclasses import dataclass

import cv2
import numpy as np

from .person import stream

WIDTH = 2.62  # decimetres that the picture shows at the depth of the eyes
DISTANCE = 11.0  # decimetres from the camera to the eyes


@dataclass(frozen=True)
class Factors:
    """Everything in a picture that is neither the person nor their age. Degrees are to the picture's right and up."""

    skin_tone: float = 0.25  # 0 light to 1 dark
    hair_style: str = "crop"
    hair_colour: str = "brown"
    beard: str = "none"  # none, stubble, moustache, goatee, short, full
    beard_length: float = 0.3  # 0 to 1; of "none": how long ago it was shaven
    make_up: float = 0.0  # 0 to 1
    lipstick: int = 0  # which of `skin.LIPSTICKS`
    glasses: str = "none"  # none, round, square, browline
    expression: str = "neutral"  # a key of `face.EXPRESSIONS`
    yaw: float = 0.0  # degrees
    pitch: float = 0.0  # degrees
    roll: float = 0.0  # degrees
    zoom: float = 1.0
    light_azimuth: float = 25.0  # degrees, 0 is at the camera
    light_elevation: float = 30.0  # degrees
    light_strength: float = 1.0
    light_warmth: float = 0.0  # -1 blue to 1 orange
    blur: float = 0.35  # pixels, standard deviation
    noise: float = 0.006  # of white, standard deviation
    quality: int = 88  # of the JPEG file
    background: int = 0  # a seed
    clothes: int = 0  # a seed
    grain: int = 0  # a seed, of the noise


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along -z. `side`: samples; `focal`: samples."""

    centre: np.ndarray  # (3,), what it looks at
    side: int
    focal: float

    def project(self, points) -> np.ndarray:
        """Return x and y in samples and the depth in decimetres `(N, 3)` of `points` `(N, 3)`."""
        offset = points - self.centre
        depth = DISTANCE - offset[..., 2]
        scale = self.focal / depth
        x, y = self.side / 2 + offset[..., 0] * scale, self.side / 2 - offset[..., 1] * scale
        return np.stack([x, y, depth], -1).astype(np.float32)


def make_camera(eyes, zoom, side) -> Camera:
    """Return the camera for a face whose point between the eyes is at `eyes` `(3,)`."""
    centre = np.array([0.8 * eyes[0], eyes[1] - 0.16, eyes[2]], np.float32)
    return Camera(centre, side, side * DISTANCE / WIDTH * zoom)


CLOTHES = np.array([
    (0.03, 0.03, 0.035), (0.55, 0.55, 0.54), (0.04, 0.07, 0.16), (0.25, 0.05, 0.05), (0.08, 0.13, 0.08),
    (0.30, 0.24, 0.16), (0.14, 0.14, 0.15), (0.20, 0.32, 0.45), (0.10, 0.10, 0.12), (0.45, 0.30, 0.28),
])  # fmt: skip


def make_clothes(seed):
    """Return `(kind, colour, second, collar)` of the clothes: "crew", "v" or "shirt", the colours of the cloth and of
    the collar `(3,)`, and how wide the collar is in decimetres.
    """
    r = stream(seed, "clothes")
    kind = str(r.choice(["crew", "v", "shirt"], p=[0.5, 0.2, 0.3]))
    colour, other = (np.clip(CLOTHES[r.integers(len(CLOTHES))] * np.exp(r.normal(0, 0.2, 3)), 0.01, 0.65) for _ in "ab")
    return kind, colour, other if r.random() < 0.25 else 1.2 * colour, {"crew": 0.05, "v": 0.05, "shirt": 0.16}[kind]


def make_background(seed, side) -> np.ndarray:
    """Return a softly blurred background, linear RGB `(side, side, 3)`: wall, room, lights, leaves, or sky."""
    r = stream(seed, "background")
    kind = str(r.choice(["wall", "room", "lights", "leaves", "sky", "panels"], p=[0.25, 0.25, 0.12, 0.16, 0.1, 0.12]))
    image = _KINDS[kind](r, side)
    tilt = np.linspace(-1, 1, side)
    slope = r.normal(0, 0.25, 2)
    image = image * np.exp(slope[0] * tilt[:, None, None] + slope[1] * tilt[None, :, None])
    return np.clip(image, 0.002, 1.2).astype(np.float32)


def _hue(r, low, high, colourful=0.17):
    return np.exp(r.uniform(np.log(low), np.log(high))) * np.exp(r.normal(0, colourful, 3))


def _plain(r, side, low=0.06, high=0.6):
    return np.ones((side, side, 3)) * _hue(r, low, high)


def _soft(image, sigma):
    return cv2.GaussianBlur(image, (0, 0), float(sigma), borderType=cv2.BORDER_REPLICATE)


def _wall(r, side):
    lumps = _soft(r.normal(0, 1, (side, side)), side / 8)
    return _plain(r, side) * np.exp(0.12 * lumps / lumps.std())[..., None]


def _room(r, side):
    image = _plain(r, side, 0.05, 0.4)
    for _ in range(int(r.integers(5, 11))):  # furniture, pictures, windows, doors
        x, y, w, h = r.uniform(-0.2, 1, 1)[0], r.uniform(-0.2, 0.9), r.uniform(0.08, 0.5), r.uniform(0.15, 0.8)
        a, b = (int(x * side), int(y * side)), (int((x + w) * side), int((y + h) * side))
        cv2.rectangle(image, a, b, _hue(r, 0.02, 0.8).tolist(), -1)
    return _soft(image, side * r.uniform(0.02, 0.05))


def _lights(r, side):
    image = _plain(r, side, 0.01, 0.05)
    for _ in range(int(r.integers(14, 36))):
        spot = np.zeros_like(image)
        centre = (int(r.uniform(0, side)), int(r.uniform(0, side)))
        cv2.circle(spot, centre, int(side * r.uniform(0.02, 0.06)), _hue(r, 0.08, 0.6, 0.35).tolist(), -1)
        image += spot
    return _soft(image, side * 0.012)


def _leaves(r, side):
    image = np.ones((side, side, 3)) * _hue(r, 0.04, 0.15, 0.1) * [0.7, 1.1, 0.45]
    for _ in range(int(r.integers(90, 160))):
        centre, axes = (int(r.uniform(0, side)), int(r.uniform(0, side))), (int(r.uniform(4, 16)), int(r.uniform(3, 9)))
        green = _hue(r, 0.02, 0.45, 0.12) * [0.75 + 0.3 * r.random(), 1.1, 0.4]
        cv2.ellipse(image, centre, axes, float(r.uniform(0, 180)), 0, 360, green.tolist(), -1)
    return _soft(image, side * r.uniform(0.02, 0.04))


def _sky(r, side):
    up = np.linspace(1, 0, side)[:, None, None]
    sky = np.array([0.42, 0.58, 0.85]) * r.uniform(0.5, 1) * (0.6 + 0.4 * up) + 0.2 * (1 - up)
    image = np.ones((side, side, 3)) * sky
    horizon = r.uniform(0.4, 0.9)
    image[int(horizon * side) :] = _hue(r, 0.04, 0.3)
    for _ in range(int(r.integers(2, 7))):  # houses or trees on it
        x, w, h = r.uniform(0, 1), r.uniform(0.1, 0.3), r.uniform(0.05, 0.4)
        a, b = (int((x - w) * side), int((horizon - h) * side)), (int((x + w) * side), side)
        cv2.rectangle(image, a, b, _hue(r, 0.03, 0.3).tolist(), -1)
    return _soft(image, side * r.uniform(0.025, 0.05))


def _panels(r, side):
    image = _plain(r, side, 0.06, 0.45)
    step, tall = int(side * r.uniform(0.07, 0.25)), int(side * r.uniform(0.06, 0.5))
    joint = _hue(r, 0.03, 0.4).tolist()
    shift = int(r.integers(0, step))
    for row, y in enumerate(range(0, side + tall, tall)):
        cv2.line(image, (0, y), (side, y), joint, 2)
        for x in range(shift + row % 2 * step // 2 - step, side, step):
            shade = (image[0, 0] * r.uniform(0.75, 1.2)).tolist()
            cv2.rectangle(image, (x + 1, y - tall), (x + step - 1, y - 1), shade, -1)
    return _soft(image, side * r.uniform(0.012, 0.03))


_KINDS = {"wall": _wall, "room": _room, "lights": _lights, "leaves": _leaves, "sky": _sky, "panels": _panels}
