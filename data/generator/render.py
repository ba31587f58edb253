"""The picture: a person at an age under given factors, as pixels. A pure function: nothing else has a part in it."""

from dataclasses import dataclass

import cv2
import numpy as np

from . import eyes, face, glasses, hair, light, mesh, raster, regions, scene, skin
from .ageing import ease, signs
from .person import Person, stream
from .scene import Factors
from .subdivision import normals, unit

SIDE = 160  # pixels
FINE = 3  # samples a pixel, in both directions
BODY_LIFT = 0.035  # decimetres that clothes stand off the skin
TEETH = np.array([1.05, 0.93, 0.75])  # linear RGB; wet, so they are brighter than they are white
CAMERA_AXIS = np.array([0, 0, 1], np.float32)


def render(person: Person, age, factors: Factors) -> np.ndarray:
    """Return the picture of `person` at `age` years under `factors`: uint8 RGB `(160, 160, 3)`."""
    cv2.setNumThreads(1)
    colour, cover = _samples(person, age, factors)
    side = (SIDE, FINE, SIDE, FINE)
    cover = cover.reshape(side).mean((1, 3))[..., None]
    image = colour.reshape(*side, 3).mean((1, 3))
    image += (1 - cover) * scene.make_background(factors.background, SIDE) * 0.9 * factors.light_strength**0.5
    return _sensor(image, factors)


def _sensor(image, factors):
    """Return what the camera makes of linear RGB: a soft shoulder, sRGB, blur, noise, 8 bits."""
    image = np.where(image < 0.6, image, 0.6 + 0.4 * (1 - np.exp(-(image - 0.6) / 0.4))).clip(0, 1)
    image = np.where(image < 0.0031308, 12.92 * image, 1.055 * image ** (1 / 2.4) - 0.055).astype(np.float32)
    if factors.blur > 0.05:
        image = cv2.GaussianBlur(image, (0, 0), factors.blur)
    r = stream(factors.grain, "grain")
    grain = r.standard_normal((SIDE, SIDE, 3), np.float32) + r.standard_normal((SIDE, SIDE, 1), np.float32)
    return (255 * (image + 0.7 * factors.noise * grain)).round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Solid:
    """A mesh that already has its colour: an eye, the lashes, the teeth, a frame."""

    name: str
    points: np.ndarray  # (N, 3)
    quads: np.ndarray  # (F, 4)
    colour: np.ndarray  # (N, 3), linear RGB as it shines
    both_sides: bool = False


@dataclass(frozen=True)
class Body:
    """The skin and the clothes as the camera sees them."""

    coarse: np.ndarray  # (N1, 3)
    points: np.ndarray  # (N2, 3)
    normals: np.ndarray  # (N2, 3)
    edge: np.ndarray  # (N2,), decimetres above the edge of the clothes


def _samples(person, age, f: Factors):
    """Return the light of each sample without the background, `(side², 3)`, and which samples are covered."""
    s, turn = signs(person, age), (f.yaw, f.pitch, f.roll)
    shape = face.shape_face(person, s, f.expression, f.pitch)
    posed = face.turn(shape, shape[:, 1], *turn)
    kind, *cloth = scene.make_clothes(f.clothes)
    body = _make_body(posed, kind)
    locks = hair.make_hair(person, s, f, shape)
    for lock in locks:
        lock.turn_all(turn)
    frame = glasses.make_glasses(f.glasses, shape, turn) if f.glasses != "none" else None
    lamp = _make_light(f, body, locks, frame)

    centres = face.turn(np.array([c for c, _ in face.eyeballs(shape)]), np.full(2, 7.3), *turn)
    camera = scene.make_camera(centres.mean(0), f.zoom, SIDE * FINE)
    up = unit(face.turn(np.array([[0, 8, 0.1]]), np.array([8.0]), *turn)[0] - face.NECK)
    solids = _eyes(person, shape, centres, up, camera, lamp) + [_lashes(posed), _teeth(posed, lamp)]
    if frame:
        solids.append(Solid("frame", frame.points, frame.quads, frame.shade(lamp), both_sides=True))
    solids = {solid.name: solid for solid in solids}

    part, out = mesh.template().skin, raster.Raster(camera.side)
    out.add_quads("skin", camera.project(body.points), part.quads)
    for solid in solids.values():
        out.add_quads(solid.name, camera.project(solid.points), solid.quads, solid.both_sides)
    for k, lock in enumerate(locks):
        raster.add_strands(out, str(k), camera.project(lock.points), lock.width * camera.focal / scene.DISTANCE)
    _hide_teeth(out)
    things, depth = out.resolve()

    image = np.zeros((camera.side**2, 3), np.float32)
    smile = face.SMILES.get(f.expression, 0.0)
    paint = skin.make_skin(person, s, f, smile)
    shone = {str(k): lock.shade(lamp) for k, lock in enumerate(locks)}
    for thing in things:
        if thing.name == "skin":
            cover = hair.scalp_cover(person, s, f, mesh.template().points)
            values = raster.at_quads(thing, part.quads, _skin_values(body, lamp, cover))
            image[thing.cell] = _shade_skin(values, paint, lamp, up, cloth, hair.scalp_colour(person, s, f))
        elif thing.name in solids:
            solid = solids[thing.name]
            colour = skin.dimmed(person.skin_tone) * solid.colour
            image[thing.cell] = raster.at_quads(thing, solid.quads, colour.astype(np.float32))
        else:
            image[thing.cell] = raster.at_strands(thing, shone[thing.name])
    if frame:
        frame.add_lenses(image, depth, camera, lamp)
    return image * skin.exposure_of(person), np.isfinite(depth).astype(np.float32)


def _make_body(posed, kind) -> Body:
    part, rest = mesh.template().skin, mesh.template().points
    coarse = part.coarse @ posed
    points = part.fine @ coarse
    edge = regions.neckline(rest, kind).astype(np.float32)
    off = (BODY_LIFT * ease(0.012, -0.012, edge))[:, None].astype(np.float32)
    points += normals(points, part.quads, part.adding) * off
    return Body(coarse, points, normals(points, part.quads, part.adding), edge)


def _make_light(f: Factors, body, locks, frame):
    """Return the light of the picture, with what stands in its way: the body, the hair, the glasses."""
    strands = np.concatenate([lock.shadow_points() for lock in locks])
    rims = [frame.dense()] if frame else []
    sparse = np.concatenate([body.coarse, strands[::3], *rims]).astype(np.float32)
    dense = np.concatenate([strands, *rims]).astype(np.float32)
    angles = f.light_azimuth, f.light_elevation
    return light.make_light(*angles, f.light_strength, f.light_warmth, sparse, dense,
                            (body.points, mesh.template().skin.quads))  # fmt: skip


def _eyes(person, shape, centres, up, camera, lamp) -> list[Solid]:
    """Return both eyes, looking at the camera, in the shadow of their lids."""
    found = []
    for k, (centre, (_, radius)) in enumerate(zip(centres, face.eyeballs(shape))):
        gaze = unit(camera.centre + [0, 0, scene.DISTANCE] - centre)
        ball, outward, paint = eyes.make_eye(person, centre, radius, gaze, up)
        above = (ball - centre) @ up / radius
        shade = 0.10 + 0.55 * ease(0.10, 0.52, above) + 0.15 * ease(-0.25, -0.5, above)
        room = lamp.from_room(centre[None] + [0, 0, 0.2], CAMERA_AXIS[None])
        colour = eyes.shade_eye(outward, paint, lamp, room, lamp.from_key(ball + [0, 0, 0.05]), shade)
        found.append(Solid(f"eye{k}", ball, eyes.ball_quads(), colour))
    return found


def _lashes(posed) -> Solid:
    part = mesh.template().others["lashes"]
    points = part.fine @ (part.coarse @ posed)
    return Solid("lashes", points, part.quads, np.full((len(points), 3), 0.01), both_sides=True)


def _teeth(posed, lamp) -> Solid:
    """Return the teeth, a little lower and farther out than the mesh has them, so that a laugh shows them."""
    part = mesh.template().others["teeth"]
    points = part.fine @ (part.coarse @ posed)
    facing = np.maximum(normals(points, part.quads, part.adding) @ lamp.key, 0)[:, None]
    points = points + np.array([0, -0.035, 0.015], np.float32)
    room = lamp.from_room(points + [0, 0, 0.25], np.tile(CAMERA_AXIS, (len(points), 1)))
    return Solid("teeth", points, part.quads, TEETH * (0.8 * room + 0.25 * facing * lamp.key_colour))


def _hide_teeth(out):
    """Leave the teeth only where the mouth is open: in a small jaw their ends would come through the chin."""
    things, part = {thing.name: thing for thing in out.things}, mesh.template().skin
    if "teeth" in things:
        skin_there, teeth = things["skin"], things["teeth"]
        inside = raster.at_quads(skin_there, part.quads, mesh.template().masks["inside-mouth"][:, None])[:, 0]
        shut = np.zeros(out.side**2, bool)
        shut[skin_there.cell[inside < 0.3]] = True
        out.things[out.things.index(teeth)] = teeth.only(~shut[teeth.cell])


def _skin_values(body, lamp, scalp) -> np.ndarray:
    """Return what `_shade_skin` needs of each point of the skin `(N2, 13)`."""
    template = mesh.template()
    part = template.skin
    outward = normals(body.coarse, part.coarse_quads, part.coarse_adding)
    room = part.fine @ lamp.from_room(body.coarse + 0.01 * outward, outward)
    reach = template.soften @ lamp.from_key(body.points)
    lit = room + _scatter(np.maximum(body.normals @ lamp.key, 0) * reach, template.soften) * lamp.key_colour
    lips, mouth = template.masks["lips"], template.soften @ template.masks["inside-mouth"]
    return np.column_stack([body.normals, lit, reach, template.uv, body.edge, lips, mouth, scalp]).astype(np.float32)


def _scatter(lit, soften):
    """Return light that falls on the skin `(N,)` as it comes out again `(N, 3)`: red spreads farthest below it."""
    blue = soften @ lit
    green = soften @ (soften @ blue)
    red = green
    for _ in range(5):
        red = soften @ red
    return np.stack([0.25 * lit + 0.75 * red, 0.4 * lit + 0.6 * green, 0.6 * lit + 0.4 * blue], 1)


def _shade_skin(values, paint, lamp, up, cloth, scalp_colour):
    """Return linear RGB `(N, 3)` of samples of skin, lips, mouth, scalp and clothes; `values` as of `_skin_values`."""
    normal, lit, reach = unit(values[:, :3]), values[:, 3:6], values[:, 6]
    uv, edge, lips, mouth, scalp = values[:, 7:9], values[:, 9], *values[:, 10:13].T
    albedo_gloss, relief = skin.look_up(paint.paint, uv), skin.look_up(paint.relief, uv)
    albedo, gloss, deep = albedo_gloss[:, :3], albedo_gloss[:, 3], relief[:, 2]
    covered = ease(0.006, -0.006, edge)

    tall = unit(up - normal * (normal @ up)[:, None])
    wide = np.stack([tall[:, 1] * normal[:, 2] - tall[:, 2] * normal[:, 1],
                     tall[:, 2] * normal[:, 0] - tall[:, 0] * normal[:, 2],
                     tall[:, 0] * normal[:, 1] - tall[:, 1] * normal[:, 0]], 1)  # fmt: skip
    bare = ((1 - covered) * (1 - 0.6 * lips))[:, None]
    bent = unit(normal - bare * (relief[:, :1] * wide + relief[:, 1:2] * tall))
    before, after = np.maximum(normal @ lamp.key, 0), np.maximum(bent @ lamp.key, 0)
    lit = lit + ((after - before) * reach)[:, None] * lamp.key_colour * np.array([0.6, 0.8, 0.9], np.float32)
    lit = lit * (1 + 0.5 * ((bent - normal) @ up))[:, None] * (1 - 0.25 * np.minimum(deep, 1))[:, None]

    on_lips = ease(0.30, 0.75, lips)[:, None] * (1 - mouth[:, None])
    albedo = albedo + 0.9 * on_lips * (paint.lips - albedo)
    gloss = gloss + on_lips[:, 0] * (paint.lips_gloss - gloss)
    inside = ease(0.06, 0.55, mouth)[:, None]
    albedo = albedo + inside * (np.array([0.10, 0.025, 0.025]) - albedo)
    lit = lit * (1 - 0.75 * inside)
    albedo = albedo + (scalp * (1 - covered))[:, None] * (scalp_colour - albedo)

    colour, second, collar = cloth
    weave = np.where((edge > -collar)[:, None], second, colour)
    weave = weave * (1 - 0.5 * ease(0.016, 0.008, np.abs(edge + collar)))[:, None]  # the seam of the collar
    albedo = albedo + covered[:, None] * (weave - albedo)

    half = unit(lamp.key + CAMERA_AXIS)
    facing = np.maximum(bent @ half, 0)
    rim = (1 - np.maximum(bent[:, 2], 0)) ** 3
    shine = (0.09 * facing**12 + 0.10 * facing**45) * (after > 0) * reach * (1 + 2 * rim)
    shine = shine[:, None] * lamp.key_colour + (0.035 * rim * (0.4 + 0.6 * reach))[:, None] * lamp.room.mean(0)
    matt = (gloss * (1 - covered) * (1 - 0.8 * scalp) * (1 - inside[:, 0]) * (1 - 0.4 * deep.clip(0, 1)))[:, None]
    return albedo * lit + matt * shine
