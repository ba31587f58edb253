"""Which pictures there are: the tables of the set and of the controlled sets, with every factor as a value."""

from dataclasses import asdict, fields

import numpy as np
import pandas as pd

from .person import Person, choose, make_person, stream
from .scene import Factors

AGES = np.arange(20, 51)  # years
PICTURES, PICTURES_PER_PERSON = 4000, {1: 320, 2: 480, 3: 480, 4: 320}  # so 1,600 people
APART = 4  # years, at least, between two pictures of a person
DEMO_SEED, FACTOR_SEED = 100_000, 200_000  # of the first person of each set; the others follow
REDRAWN = (204, 320, 354, 360, 390, 588, 622, 951, 1061, 1423, 1514, 1583)  # nearest to caricatures: drawn again
DEMO_QUALITY = 90  # of the JPEG files
FACTOR_PEOPLE = 100

# factor → level → the values that differ from the person's baseline
LEVELS = {
    "light": {
        "left": dict(light_azimuth=-75.0, light_elevation=10.0),
        "right": dict(light_azimuth=75.0, light_elevation=10.0),
        "above": dict(light_azimuth=0.0, light_elevation=72.0), "below": dict(light_azimuth=0.0, light_elevation=-40.0),
        "dim": dict(light_strength=0.4),
    },
    "expression": {name: dict(expression=name) for name in ("smile", "laugh", "frown", "surprised")},
    "make_up": {"light": dict(make_up=0.4), "strong": dict(make_up=1.0)},  # women only; the baseline has none
    "skin_tone": {f"{tone:.2f}": dict(skin_tone=tone) for tone in (0.0, 0.25, 0.5, 0.75, 1.0)},
    "pose": {"left": dict(yaw=-25.0), "right": dict(yaw=25.0), "up": dict(pitch=13.0), "down": dict(pitch=-13.0)},
    "glasses": {"on": dict(glasses="square")},
    "blur": {"1 px": dict(blur=1.0), "2 px": dict(blur=2.0)},
    "noise": {"0.02": dict(noise=0.02), "0.05": dict(noise=0.05)},
    "quality": {"30": dict(quality=30), "10": dict(quality=10)},
}  # fmt: skip
FACTOR_SHARE = {"light": 60, "expression": 55, "make_up": 50, "skin_tone": 50, "pose": 55, "glasses": 70, "blur": 50,
                "noise": 50, "quality": 50}  # people who get each  # fmt: skip


def age_counts() -> dict[int, int]:
    """Return how many pictures of each age the set has: fewer at 23, most around 30, thinning out after 44."""
    share = 1 + 0.22 * np.exp(-(((AGES - 30) / 6) ** 2)) - 0.45 * (AGES == 23) - 0.075 * np.maximum(AGES - 44, 0)
    exact = share / share.sum() * PICTURES
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact)[: PICTURES - counts.sum()]] += 1
    return dict(zip(AGES.tolist(), counts.tolist()))


def _ages_of_people(r) -> list[list[int]]:
    """Return the ages of each person's pictures, `APART` years apart: dealt out, then exchanged until all fit."""
    owner = np.repeat(np.arange(sum(PICTURES_PER_PERSON.values())), np.repeat(*zip(*PICTURES_PER_PERSON.items())))
    ages = r.permutation(np.repeat(list(age_counts()), list(age_counts().values()))).tolist()
    rows = [np.flatnonzero(owner == person).tolist() for person in range(owner[-1] + 1)]

    def clashes(picture, age):
        return any(other != picture and abs(ages[other] - age) < APART for other in rows[owner[picture]])

    waiting = [p for p in range(len(ages)) if clashes(p, ages[p])]
    while waiting:
        one = waiting.pop()
        while clashes(one, ages[one]):
            other = int(r.integers(len(ages)))
            if owner[other] != owner[one] and not (clashes(one, ages[other]) or clashes(other, ages[one])):
                ages[one], ages[other] = ages[other], ages[one]
    return [sorted(ages[p] for p in person) for person in rows]


def draw_factors(person: Person, number) -> Factors:
    """Return the factors of the picture `number` of `person`, drawn without regard to age and rounded as in a table."""
    r = stream(person.seed, f"picture {number}")
    glasses = choose(r, {"round": 1, "square": 1, "browline": 0.7})
    beard = choose(r, {person.beard_habit: 0.8, "none": 0.12, "stubble": 0.08}) if person.sex else "none"
    values = dict(
        make_up=max(0.0, r.uniform(-0.7, 1.0)) * (1 - person.sex), lipstick=int(r.integers(4)),
        beard=beard, beard_length=r.random(),
        glasses=glasses if r.random() < (0.7 if person.wears_glasses else 0.02) else "none",
        expression=choose(r, {"neutral": 0.42, "smile": 0.30, "laugh": 0.16, "frown": 0.07, "surprised": 0.05}),
        yaw=np.clip(r.normal(0, 11), -28, 28), pitch=np.clip(r.normal(0, 5), -12, 12), roll=r.normal(0, 2.5),
        zoom=r.uniform(0.95, 1.06), light_azimuth=np.clip(r.normal(0, 38), -85, 85), light_elevation=r.uniform(5, 58),
        light_strength=np.exp(r.normal(0, 0.18)), light_warmth=r.normal(0, 0.6), blur=r.uniform(0.25, 0.75),
        noise=r.uniform(0.002, 0.013), quality=DEMO_QUALITY,
    )  # fmt: skip
    seeds = {name: int(r.integers(2**31)) for name in ("background", "clothes", "grain")}
    values = {k: round(float(v), 3) if isinstance(v, float) else v for k, v in values.items()}
    return Factors(**values, **seeds, **_lasting(person))


def baseline(person: Person) -> Factors:
    """Return the factors against which each level of the controlled sets is held: calm, frontal, evenly lit."""
    r = stream(person.seed, "baseline")
    seeds = {name: int(r.integers(2**31)) for name in ("background", "clothes", "grain")}
    return Factors(beard=person.beard_habit, **seeds, **_lasting(person))


def _lasting(person):
    return dict(skin_tone=round(person.skin_tone, 3), hair_style=person.hair_style, hair_colour=person.hair_colour)


def _row(path, person, name, age, factors, **more):
    return dict(path=path, person=name, age=age, sex=("female", "male")[person.sex], **more, **asdict(factors),
                apparent_offset=round(person.apparent_offset, 2), seed=person.seed)  # fmt: skip


def demo_plan() -> pd.DataFrame:
    """Return one row a picture of the set: its path below `data/demo`, the person, their age, every factor.

    `apparent_offset`: how many years the person looks older (+) or younger (-) than they are. No picture shows it apart
    from the age, so even who reads the apparent age without an error is off by its mean absolute value.
    """
    rows = []
    for k, ages in enumerate(_ages_of_people(stream(DEMO_SEED, "ages"))):
        person = make_person(DEMO_SEED + k + 10_000 * (k in REDRAWN))
        for number, age in enumerate(ages):
            factors = draw_factors(person, number)
            rows.append(_row(f"{age}/{k:04d}_{number}.jpg", person, f"p{k:04d}", age, factors))
    return pd.DataFrame(rows)


def factor_plan() -> pd.DataFrame:
    """Return one row a picture of the controlled sets below `data/factors`: as `demo_plan`, with `factor` and `level`.

    Every person has a baseline, and pictures at the same age in which exactly one factor differs from it.
    """
    people, seed = {0: [], 1: []}, FACTOR_SEED
    while min(map(len, people.values())) < FACTOR_PEOPLE // 2:  # as many women as men
        person = make_person(seed)
        people[person.sex].append(person)
        seed += 1
    people = [p for pair in zip(people[0], people[1]) for p in pair][:FACTOR_PEOPLE]
    r = stream(FACTOR_SEED, "factors")
    ages = r.permutation(np.round(np.linspace(AGES[0], AGES[-1], FACTOR_PEOPLE)).astype(int)).tolist()
    chosen = {}
    for factor, share in FACTOR_SHARE.items():
        able = [k for k, p in enumerate(people) if factor != "make_up" or p.sex == 0]
        chosen[factor] = set(r.permutation(able)[:share].tolist())
    rows = []
    for k, (person, age) in enumerate(zip(people, ages)):
        base, name = baseline(person), f"f{k:03d}"
        rows.append(_row(f"{name}/baseline.jpg", person, name, age, base, factor="baseline", level="baseline"))
        for factor, levels in LEVELS.items():
            for level, changed in levels.items() if k in chosen[factor] else ():
                path = f"{name}/{factor}_{level.replace(' ', '')}.jpg"
                factors = Factors(**{**asdict(base), **changed})
                rows.append(_row(path, person, name, age, factors, factor=factor, level=level))
    return pd.DataFrame(rows)


def factors_of(row) -> Factors:
    """Return the `Factors` of a `row` (a mapping) of either table."""
    return Factors(**{f.name: row[f.name] for f in fields(Factors)})
