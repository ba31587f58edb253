"""Glasses: a frame of thin bars fitted to the face, its shadow, and lenses with a faint reflection."""

from dataclasses import dataclass

import cv2
import numpy as np

from . import face, mesh
from .ageing import ease
from .subdivision import normals

KINDS = {  # half width, half height, roundness (2 is an ellipse), width of the bar, of its upper half; decimetres
    "round": (0.235, 0.205, 2.1, 0.014, 0.014),
    "square": (0.265, 0.180, 3.4, 0.022, 0.024),
    "browline": (0.260, 0.190, 2.7, 0.011, 0.034),
}
COLOURS = {"round": (0.16, 0.13, 0.09), "square": (0.015, 0.014, 0.014), "browline": (0.040, 0.020, 0.012)}
RIM = 56  # points around a lens


@dataclass
class Glasses:
    """A frame as quads, turned with the head, and the outlines of both lenses `(RIM, 3)`."""

    points: np.ndarray  # (N, 3)
    quads: np.ndarray  # (F, 4)
    lenses: list
    colour: np.ndarray  # (3,), linear RGB

    def dense(self) -> np.ndarray:
        """Return points on the frame that cast its shadow `(N, 3)`."""
        corners = self.points[self.quads]
        return np.concatenate([(1 - k) * corners[:, 0] + k * corners[:, 1] for k in np.arange(0, 1, 0.2)])

    def shade(self, lamp) -> np.ndarray:
        """Return the colour of the frame's points `(N, 3)` in the light `lamp`."""
        normal = normals(self.points, self.quads)
        facing = np.maximum(normal @ lamp.key, 0)[:, None]
        half = (lamp.key + [0, 0, 1]) / np.linalg.norm(lamp.key + [0, 0, 1])
        shine = 0.25 * np.maximum(normal @ half, 0)[:, None] ** 30
        return self.colour * (0.6 * lamp.room.mean(0) + facing * lamp.key_colour) + shine * lamp.key_colour

    def add_lenses(self, image, depth, camera, lamp):
        """Lay the lenses over `image` `(side², 3)`, in place: a little darker, with a streak of the room in them."""
        side = camera.side
        for outline in self.lenses:
            places = camera.project(outline)
            mask = np.zeros((side, side), np.float32)
            cv2.fillPoly(mask, [np.round(places[:, :2] * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
            mask *= depth > places[:, 2].min() + 0.02  # not over the frame, nor over hair in front of it
            x, y = np.meshgrid(np.arange(side), np.arange(side))
            low, high = places[:, :2].min(0), places[:, :2].max(0)
            slant = ((x - low[0]) + 0.7 * (y - low[1])) / max((high - low).sum(), 1)
            streak = 0.006 + 0.022 * ease(0.10, 0.20, slant) * ease(0.36, 0.28, slant)
            veil = (streak[..., None] * lamp.room.mean(0)).reshape(-1, 3)
            part = mask.reshape(-1, 1)
            image *= 1 - 0.07 * part
            image += (part * veil).astype(np.float32)


def _bar(path, first, second, closed=False):
    """Return points `(4K, 3)` and quads of a bar along `path` `(K, 3)`, with half sides `first`, `second` `(K, 3)`."""
    ring = np.stack([path + first + second, path + first - second, path - first - second, path - first + second], 1)
    count = len(path)
    here = np.arange(count if closed else count - 1)
    after = (here + 1) % count
    sides = [(k, (k + 1) % 4) for k in range(4)]
    quads = [np.stack([4 * here + a, 4 * after + a, 4 * after + b, 4 * here + b], 1) for a, b in sides]
    return ring.reshape(-1, 3), np.concatenate(quads)


def make_glasses(kind, shape, turn) -> Glasses:
    """Return glasses of `kind` fitted to a face with vertices `shape` `(5835, 3)` and turned by `turn` (degrees)."""
    wide, tall, power, bar, brow_bar = KINDS[kind]
    rest = mesh.template().vertices
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    ahead = shape[(x > 0.12) & (x < 0.42) & (y > 7.1) & (y < 7.45) & (rest[:, 2] > 1), 2].max() + 0.02
    eyes = [c for c, _ in face.eyeballs(shape)]
    pieces, lenses, depth = [], [], np.array([0, 0, 0.012])
    angle = np.linspace(0, 2 * np.pi, RIM, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    for centre, ear_rows in zip(eyes, mesh.template().ears):
        side = np.sign(centre[0])
        flat = np.stack([np.sign(c) * np.abs(c) ** (2 / power) * wide, np.sign(s) * np.abs(s) ** (2 / power) * tall], 1)
        place = flat + [centre[0] + 0.012 * side, centre[1] - 0.03]
        rim = np.c_[place, ahead - 0.16 * (place[:, 0] / 0.6) ** 2]
        outward = np.c_[flat / np.linalg.norm(flat, axis=1, keepdims=True), np.zeros(RIM)]
        thick = bar + (brow_bar - bar) * ease(-0.1, 0.5, s)
        pieces.append(_bar(rim, outward * thick[:, None] / 2, np.tile(depth, (RIM, 1)), closed=True))
        lenses.append(rim)
        ear = shape[ear_rows[np.argsort(shape[ear_rows, 1])[-12:]]].mean(0)  # its top, where the bar rests
        hinge = np.array([centre[0] + side * (wide + 0.02), centre[1] + 0.07, rim[:, 2].min()])
        u = np.linspace(0, 1, 8)[:, None]
        temple = hinge + (ear - hinge) * u + np.array([side * 0.05, 0, 0]) * np.sin(np.pi * u)
        pieces.append(_bar(temple, np.tile([0, 0.014, 0], (8, 1)), np.tile([0.008, 0, 0], (8, 1))))
    inner = [eyes[k][0] - np.sign(eyes[k][0]) * (wide - 0.012) for k in (0, 1)]
    u = np.linspace(0, 1, 12)
    bridge = np.stack([inner[0] + (inner[1] - inner[0]) * u, eyes[0][1] + 0.02 + 0.04 * np.sin(np.pi * u),
                       ahead + 0.04 * np.sin(np.pi * u)], 1)  # fmt: skip
    pieces.append(_bar(bridge, np.tile([0, bar / 2, 0], (12, 1)), np.tile(depth, (12, 1))))
    points, quads, start = [], [], 0
    for piece, faces in pieces:
        points.append(piece)
        quads.append(faces + start)
        start += len(piece)
    points = np.concatenate(points)
    heights = np.full(len(points), 7.3)
    turned = [face.turn(rim, np.full(RIM, 7.3), *turn) for rim in lenses]
    return Glasses(face.turn(points, heights, *turn), np.concatenate(quads), turned, np.array(COLOURS[kind]))
