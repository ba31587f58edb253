"""The shape of one face: the person's build, the signs of age, the expression, and the pose of the head."""

import numpy as np

from . import ageing, mesh
from .ageing import Signs, ease
from .person import Person

EXPRESSIONS = {  # face unit (for both sides where there are two) → weight; all calm
    "neutral": {"mouthSmile": 0.28},
    "smile": {"mouthSmile": 0.60, "cheekSquint": 0.25, "eyeSquint": 0.10, "mouthDimple": 0.10},
    "laugh": {"mouthSmile": 0.72, "mouthUpperUp": 0.75, "mouthLowerDown": 0.35, "jawOpen": 0.10, "cheekSquint": 0.45,
              "eyeSquint": 0.25},
    "frown": {"browDown": 0.30, "mouthFrown": 0.04, "mouthPress": 0.15, "eyeSquint": 0.10},
    "surprised": {"browInnerUp": 0.24, "browOuterUp": 0.45, "eyeWide": 0.30, "jawOpen": 0.13},
}  # fmt: skip
SMILES = {"smile": 0.5, "laugh": 0.9}  # how much each deepens the lines that a smile makes
FEMALE = {  # on top of the macro target, which leaves women with the jaw of a figure seen from afar
    "chin/chin-width": -1.10, "chin/chin-bones": -0.40, "chin/chin-height": -0.25, "head/head-fat": -0.28,
    "cheek/{s}-cheek-volume": -0.25, "eyes/{s}-eye-scale": 0.25, "nose/nose-scale-horiz": -0.35,
    "mouth/mouth-lowerlip-volume": 0.22, "mouth/mouth-upperlip-volume": 0.22, "neck/neck-scale-horiz": -0.40,
}  # fmt: skip
LOOK_MOST = 25.0  # degrees up or down that the file's eyes look at their most
NECK = np.array([0, 6.3, 0.1], np.float32)  # where the head turns


def shape_face(person: Person, s: Signs, expression, pitch=0.0) -> np.ndarray:
    """Return the vertices `(5835, 3)` of `person` with the signs of age `s` and an `expression`, looking ahead.

    The lids follow the eyes, which look at the camera when the head is turned up by `pitch` degrees, down if negative.
    """
    vertices = mesh.template().vertices.copy()
    build = person.weight + 0.08 * max(s.sag, 0)
    mesh.add_macro(vertices, person.maleness, ageing.build_years(s), person.ancestry, build, person.muscle)
    for name, weight in person.shape.items():
        mesh.add_signed(vertices, name, weight)
    for name, weight in FEMALE.items():
        mesh.add_signed(vertices, name, weight * (1 - person.maleness))
    mesh.add_signed(vertices, "mouth/mouth-angles", 0.28)  # the file's mouth is a little grim
    for name, weight in person.heads.items():
        mesh.add(vertices, f"head/head-{name}", weight)
    mesh.add(vertices, "eyes/{s}-eye-epicanthus-in", person.eyelid_fold)
    ageing.age_shape(vertices, person, s)
    for unit, weight in EXPRESSIONS[expression].items():
        for side in ("Left", "Right") if mesh.has_target(f"faceunits/{unit}Left") else ("",):
            uneven = 1 + 0.05 * person.asymmetry[2] * (side == "Left")
            mesh.add(vertices, f"faceunits/{unit}{side}", weight * person.liveliness * uneven)
    for side in ("Left", "Right"):
        mesh.add(vertices, f"faceunits/eyeLook{'Down' if pitch > 0 else 'Up'}{side}", abs(pitch) / LOOK_MOST)
    _make_uneven(vertices, person.asymmetry)
    # The builds differ in height: with the eyes where the template's are, hair, neck and light need not know it.
    return vertices + (_between_eyes(mesh.template().vertices) - _between_eyes(vertices))


def _make_uneven(vertices, asymmetry):
    rest = mesh.template().vertices
    face = ease(0.3, 0.7, rest[:, 2])
    vertices[:, 0] += (0.010 * asymmetry[0] * np.sin(2.2 * rest[:, 1]) * face).astype(np.float32)
    vertices[:, 1] += (0.014 * asymmetry[1] * rest[:, 0] * face).astype(np.float32)


def turn(points, heights, yaw, pitch, roll) -> np.ndarray:
    """Return `points` `(N, 3)` with the head turned by degrees: `yaw` to the picture's right, `pitch` up, `roll`.

    `heights`: y of the points before any turn `(N,)`; the shoulders stay, the neck twists between.
    """
    share = ease(5.9, 6.6, heights)
    a = np.radians(yaw) * (0.35 + 0.65 * share)
    b, c = -np.radians(pitch) * share, np.radians(roll) * (0.2 + 0.8 * share)
    x, y, z = (points - NECK).T
    x, z = x * np.cos(a) + z * np.sin(a), z * np.cos(a) - x * np.sin(a)
    y, z = y * np.cos(b) - z * np.sin(b), z * np.cos(b) + y * np.sin(b)
    x, y = x * np.cos(c) - y * np.sin(c), y * np.cos(c) + x * np.sin(c)
    return (np.stack([x, y, z], 1) + NECK).astype(np.float32)


def _between_eyes(vertices):
    return np.mean([centre for centre, _ in eyeballs(vertices)], axis=0)


def eyeballs(vertices):
    """Return the centre `(3,)` and the radius of both eyeballs, in decimetres, of a face's `vertices`."""
    found = []
    for rows in mesh.template().eyes:
        low, high = vertices[rows].min(0), vertices[rows].max(0)
        radius = (high[1] - low[1]) / 2
        found.append((np.array([*(low + high)[:2] / 2, high[2] - 1.07 * radius], np.float32), float(radius)))
    return found
