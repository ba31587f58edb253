"""From quads and strands to samples: all is diced into points finer than a sample, and the nearest point wins."""

from dataclasses import dataclass, field

import numpy as np

SPACING = 0.72  # samples between the points of a surface: under 1/√2, so that no sample of it stays empty
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


def dice(corners, spacing=SPACING, most=60):
    """Return `(quad, s, t, place)` for points that cover quads evenly.

    `corners`: `(F, 4, 3)`, x and y in samples, depth. `quad`: row of `corners` `(N,)`; `s`, `t`: where in it, 0 to 1;
    `place`: `(N, 3)`. Quads that need the same number of points are diced together, so the loop is short.
    """
    edge = np.roll(corners, -1, axis=1)[..., :2] - corners[..., :2]
    length = np.sqrt((edge * edge).sum(-1))
    across = np.clip(np.ceil(np.maximum(length[:, 0], length[:, 2]) / spacing), 1, most).astype(np.int64)
    along = np.clip(np.ceil(np.maximum(length[:, 1], length[:, 3]) / spacing), 1, most).astype(np.int64)
    key = across * 64 + along
    order = np.argsort(key, kind="stable")
    kinds, starts = np.unique(key[order], return_index=True)
    quad, s, t, place = [], [], [], []
    for kind, rows in zip(kinds, np.split(order, starts[1:])):
        i, j = np.divmod(np.arange((kind // 64) * (kind % 64)), kind % 64)
        a, b = ((i + 0.5) / (kind // 64)).astype(np.float32), ((j + 0.5) / (kind % 64)).astype(np.float32)
        weights = corner_weights(a, b)
        flat = corners[rows].transpose(0, 2, 1).reshape(-1, 4) @ weights.T  # one product for all quads of this kind
        place.append(flat.reshape(len(rows), 3, -1).transpose(0, 2, 1).reshape(-1, 3))
        quad.append(np.repeat(rows, len(a)))
        s.append(np.tile(a, len(rows)))
        t.append(np.tile(b, len(rows)))
    return np.concatenate(quad), np.concatenate(s), np.concatenate(t), np.concatenate(place)


def corner_weights(s, t) -> np.ndarray:
    """Return the bilinear weights of the four corners `(N, 4)` at `s` (first to second corner) and `t`."""
    return np.stack([(1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t], -1)


@dataclass
class Samples:
    """The points of one thing: which sample each falls on, its depth, and what it takes to look up the rest."""

    name: str
    cell: np.ndarray  # (N,)
    depth: np.ndarray  # (N,) float32, positive
    row: np.ndarray  # (N,), of the quad or the strand
    s: np.ndarray  # (N,) across a quad, or how wide of a strand's middle
    t: np.ndarray  # (N,) along a quad, or along a strand

    def only(self, which):
        """Return those points that `which` (rows or a mask) picks."""
        arrays = (self.cell, self.depth, self.row, self.s, self.t)
        return Samples(self.name, *(array[which] for array in arrays))


@dataclass
class Raster:
    """A square of `side`² samples that collects points and finds the nearest one in each."""

    side: int
    things: list = field(default_factory=list)

    def add(self, name, row, s, t, place):
        """Add points at `place` `(N, 3)`: x and y in samples, depth in decimetres from the camera."""
        x, y = np.floor(place[:, 0]).astype(np.int64), np.floor(place[:, 1]).astype(np.int64)
        inside = np.flatnonzero((x >= 0) & (x < self.side) & (y >= 0) & (y < self.side))
        cell = (y[inside] * self.side + x[inside]).astype(np.int64)
        depth = np.ascontiguousarray(place[inside, 2], np.float32)
        self.things.append(Samples(name, cell, depth, row[inside], s[inside], t[inside]))

    def add_quads(self, name, places, quads, both_sides=False):
        """Add the quads that face the camera and touch the picture. `places`: `(N, 3)`; `quads`: `(F, 4)`."""
        corners = places[quads]
        first, second = corners[:, 2, :2] - corners[:, 0, :2], corners[:, 3, :2] - corners[:, 1, :2]
        turning = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
        low, high = corners[..., :2].min(1), corners[..., :2].max(1)
        seen = ((turning < 0) | both_sides) & (high > 0).all(1) & (low < self.side).all(1)
        rows = np.flatnonzero(seen)
        if len(rows):
            quad, s, t, place = dice(corners[rows])
            self.add(name, rows[quad], s, t, place)

    def resolve(self):
        """Return the things with only those points that won, and the depth of each sample `(side, side)`, inf if empty.

        Depth (positive floats sort like their bits) and number are packed into one integer, so that the smallest
        decides, and equal depths are decided by the order in which they came: always the same way.
        """
        cell = np.concatenate([t.cell for t in self.things])
        depth = np.concatenate([t.depth for t in self.things])
        packed = (depth.view(np.uint32).astype(np.uint64) << np.uint64(32)) | np.arange(len(cell), dtype=np.uint64)
        best = np.full(self.side**2, EMPTY)
        np.minimum.at(best, cell, packed)
        hit = best != EMPTY
        winner = (best[hit] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        nearest = np.full(self.side**2, np.inf, np.float32)
        nearest[hit] = depth[winner]
        winner.sort()
        won, start = [], 0
        for t in self.things:
            rows = winner[np.searchsorted(winner, start) : np.searchsorted(winner, start + len(t.cell))] - start
            won.append(t.only(rows))
            start += len(t.cell)
        return won, nearest.reshape(self.side, self.side)


def at_quads(samples, quads, values) -> np.ndarray:
    """Return `values` `(V, C)` of the vertices at the points of `samples`: `(N, C)`, bilinear in each quad."""
    corners = quads[samples.row]
    weights = corner_weights(samples.s, samples.t).astype(np.float32)
    out = weights[:, :1] * values[corners[:, 0]]
    for k in (1, 2, 3):
        out += weights[:, k : k + 1] * values[corners[:, k]]
    return out


def at_strands(samples, values) -> np.ndarray:
    """Return `values` `(S, K, C)` of the strands at the points of `samples`: `(N, C)`, linear along each strand."""
    steps = values.shape[1] - 1
    k = np.minimum(samples.t * steps, steps - 1e-3).astype(np.int64)
    share = (samples.t * steps - k)[:, None]
    return (1 - share) * values[samples.row, k] + share * values[samples.row, k + 1]


def add_strands(raster, name, places, width):
    """Add strands `places` `(S, K, 3)` to `raster`, `width` `(S,)` samples wide at the root, narrower to the tip."""
    steps = places.shape[1] - 1
    length = np.sqrt(((places[:, 1:, :2] - places[:, :-1, :2]) ** 2).sum(-1)).sum(1)
    count = max(2, int(np.ceil(np.percentile(length, 90) * 0.9)))
    t = ((np.arange(count) + 0.5) / count).astype(np.float32)
    k = np.minimum(t * steps, steps - 1e-3).astype(np.int64)
    share = (t * steps - k)[None, :, None].astype(np.float32)
    middle = (1 - share) * places[:, k] + share * places[:, k + 1]
    along = places[:, k + 1, :2] - places[:, k, :2]
    along /= np.maximum(np.sqrt((along * along).sum(-1, keepdims=True)), 1e-6)
    row = np.broadcast_to(np.arange(len(places))[:, None], middle.shape[:2])
    for lane in range(int(np.ceil(width.max()))):
        off = (lane + 1) // 2 * (1 - 2 * (lane % 2))  # 0, -1, 1, -2, …
        keep = 2 * abs(off) < width[:, None] * (1.05 - 0.6 * t**2)[None]
        place = middle[keep]
        place[:, 0] -= off * along[..., 1][keep]
        place[:, 1] += off * along[..., 0][keep]
        raster.add(name, row[keep], np.full(len(place), off, np.float32), np.broadcast_to(t, row.shape)[keep], place)
