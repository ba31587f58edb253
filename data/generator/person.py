"""A person: what stays the same at every age, drawn from a seed, and how fast which sign of age comes."""

import zlib
from dataclasses import dataclass

import numpy as np

OFFSET_SIGMA = 2.8  # years; of a normal distribution, so a perfect observer of apparent age errs by 2.8·√(2/π) = 2.2
OFFSET_MOST = 8.0  # years
SPREAD, SPREAD_MOST = 0.22, 0.55  # of the shape targets: wide enough to tell people apart, no caricatures
RATES = ("shape", "sag", "lines", "eyes", "skin", "hair")  # the signs of age that come at a rate of their own
SHAPES = [
    *(f"nose/nose-{n}" for n in ("hump", "scale-depth", "scale-horiz", "scale-vert", "volume", "width1", "width2",
                                 "width3", "point", "point-width", "base", "curve", "flaring")),
    *(f"mouth/mouth-{n}" for n in ("scale-horiz", "scale-vert", "lowerlip-volume", "upperlip-volume", "cupidsbow",
                                   "trans", "angles")),
    *(f"chin/chin-{n}" for n in ("bones", "height", "prominent", "width", "jaw-drop")),
    *(f"cheek/{{s}}-cheek-{n}" for n in ("bones", "volume", "inner")),
    *(f"eyes/{{s}}-eye-{n}" for n in ("height2", "scale", "trans", "corner1", "corner2", "eyefold", "push1")),
    *(f"forehead/forehead-{n}" for n in ("nubian", "scale-vert", "temple", "trans")),
    *(f"head/head-{n}" for n in ("fat", "scale-horiz", "scale-vert")),
    *(f"eyebrows/eyebrows-{n}" for n in ("angle", "trans")),
    *(f"ears/{{s}}-ear-{n}" for n in ("scale", "rot", "wing")),
    "neck/neck-scale-horiz",
]  # fmt: skip
QUIET = ("mouth/mouth-angles", "eyebrows", "mouth/mouth-scale", "eyes", "forehead")  # much of these looks like a mood
HEADS = ("oval", "round", "rectangular", "square", "triangular", "diamond", "invertedtriangular")
HAIR_COLOURS = {  # linear RGB
    "black": (0.014, 0.012, 0.012), "darkbrown": (0.045, 0.027, 0.018), "brown": (0.105, 0.058, 0.033),
    "lightbrown": (0.21, 0.125, 0.068), "blonde": (0.42, 0.28, 0.145), "red": (0.25, 0.080, 0.030),
}  # fmt: skip
EYE_COLOURS = {
    "darkbrown": (0.045, 0.021, 0.011), "brown": (0.10, 0.052, 0.023), "hazel": (0.12, 0.095, 0.040),
    "green": (0.11, 0.135, 0.075), "blue": (0.11, 0.17, 0.25), "grey": (0.17, 0.20, 0.22),
}  # fmt: skip
STYLES = {
    0: {"long": 0.20, "long_fringe": 0.12, "wavy": 0.19, "bob": 0.14, "bob_fringe": 0.09, "tied": 0.15, "pixie": 0.06,
        "curls": 0.05},
    1: {"buzz": 0.13, "crop": 0.29, "side": 0.24, "swept": 0.16, "fringe": 0.12, "curly": 0.06},
}  # fmt: skip


def stream(seed, name) -> np.random.Generator:
    """Return the random numbers of `seed` for the purpose `name`: a new purpose never shifts another's numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))


@dataclass(frozen=True)
class Person:
    """A fixed identity. Lengths in decimetres; amounts from 0 to 1 unless said otherwise."""

    seed: int
    sex: int  # 0 female, 1 male
    maleness: float  # of the shape
    ancestry: np.ndarray  # (3,), shares of the three macro targets, sum 1
    skin_tone: float  # 0 light to 1 dark
    shape: dict  # target → signed weight
    heads: dict  # form of the head → weight
    weight: float
    muscle: float
    eyelid_fold: float
    asymmetry: np.ndarray  # (3,), about ±1
    eye_colour: str
    hair_colour: str
    hair_style: str
    parting: float  # decimetres, x of the parting
    curl: float
    brow: float  # thickness, about 1
    brow_height: float
    beard_habit: str  # none, stubble, moustache, goatee, short, full
    wears_glasses: bool
    freckles: float
    redness: float  # about 1
    balding: float  # how much of the hairline goes with age
    grey_age: float  # years of apparent age at which half of the hair is grey
    liveliness: float  # strength of the expressions, about 1
    rates: dict  # sign of age → rate, mean 1
    apparent_offset: float  # years that the person looks older (+) or younger (-) than they are


def make_person(seed) -> Person:
    """Return the person of `seed`, always the same one."""
    r = stream(seed, "build")
    sex = int(r.random() < 0.5)
    maleness = float(np.clip(sex + (1 - 2 * sex) * abs(r.normal(0, 0.12)), 0, 1))
    ancestry = r.dirichlet([0.4, 0.4, 0.5])
    tone = float(np.clip(ancestry @ [0.80, 0.33, 0.13] + r.normal(0, 0.10), 0.0, 1.0))
    r = stream(seed, "shape")
    shape = {n: _clipped(r, SPREAD * (0.5 if n.startswith(QUIET) else 1), SPREAD_MOST) for n in SHAPES}
    heads = {str(h): abs(_clipped(r, 0.2, 0.5)) for h in r.choice(HEADS, 2, replace=False)}
    build = dict(
        weight=float(np.clip(r.normal(0.48, 0.14), 0.15, 0.85)), muscle=float(np.clip(r.normal(0.5, 0.13), 0.15, 0.85)),
        eyelid_fold=float(ancestry[1] * r.uniform(0.3, 0.9)), asymmetry=np.clip(r.normal(0, 0.7, 3), -1.5, 1.5),
        liveliness=float(r.uniform(0.8, 1.15)),
    )  # fmt: skip
    return Person(
        seed, sex, maleness, ancestry, tone, shape, heads, **build,
        **_looks(stream(seed, "looks"), sex, tone, ancestry), **_ageing(stream(seed, "ageing"), sex),
    )  # fmt: skip


def _clipped(r, sigma, most):
    return float(np.clip(r.normal(0, sigma), -most, most))


def choose(r, chances) -> str:
    """Return a key of `chances` (name → chance, not normalised), drawn with one number of `r`."""
    total = np.cumsum(list(chances.values()))
    return list(chances)[int(np.searchsorted(total, r.random() * total[-1]))]


def _looks(r, sex, tone, ancestry):
    fair = max(0.0, 1 - 2.3 * tone)
    hair = {"black": 0.15 + 1.6 * tone + ancestry[1], "darkbrown": 0.5 + 0.4 * tone, "brown": 0.7 * fair + 0.1,
            "lightbrown": 0.6 * fair, "blonde": 0.55 * fair, "red": 0.13 * fair}  # fmt: skip
    eyes = {"darkbrown": 0.3 + 2 * tone, "brown": 0.5, "hazel": 0.25 * fair, "green": 0.15 * fair, "blue": 0.55 * fair,
            "grey": 0.15 * fair}  # fmt: skip
    curl = float(np.clip(r.beta(1.2, 4) + 0.75 * ancestry[0] ** 2, 0, 1))
    return dict(
        eye_colour=choose(r, eyes), hair_colour=choose(r, hair), hair_style=choose(r, STYLES[sex]),
        parting=float(r.choice([-1, 1]) * r.uniform(0.04, 0.34)), curl=curl,
        brow=float(r.uniform(0.50, 0.82) + 0.33 * sex), brow_height=float(r.normal(0, 0.012)),
        beard_habit=choose(r, {"none": 0.45, "stubble": 0.22, "moustache": 0.05, "goatee": 0.08, "short": 0.13,
                               "full": 0.07}) if sex else "none",
        wears_glasses=bool(r.random() < 0.2), freckles=float(r.random() ** 2 * (tone < 0.3)),
        redness=float(r.uniform(0.5, 1.2)),
    )  # fmt: skip


def _ageing(r, sex):
    offset = float(np.clip(r.normal(0, OFFSET_SIGMA), -OFFSET_MOST, OFFSET_MOST))
    rates = np.clip(r.normal(1, 0.18, len(RATES)), 0.6, 1.45)
    rates /= rates.mean()  # a person whose every sign comes early is older-looking: that is the offset's part alone
    return dict(
        balding=float(max(0, r.random() - 0.3) / 0.7 if sex else 0.15 * r.random()),
        grey_age=float(r.normal(55, 4.5)), rates=dict(zip(RATES, rates.tolist())), apparent_offset=offset,
    )  # fmt: skip
