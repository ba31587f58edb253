"""Catmull-Clark subdivision of a quad mesh as one sparse matrix, and vertex normals. Source: Catmull and Clark 1978."""

import numpy as np
from scipy import sparse


def ones(rows, columns, shape) -> sparse.csr_matrix:
    """Return the sparse matrix of `shape` with a 1 (or a sum of them) at each of `rows`, `columns`."""
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)


def catmull_clark(count, quads):
    """Return `(refine, finer)`: the sparse matrix `(M, count)` from old to new vertices, and the new quads `(4F, 4)`.

    `count`: the number of old vertices, each of which some quad uses. `quads`: their vertices `(F, 4)`, in order.
    New vertices come as old vertices (moved), edge points, face points. Every row of `refine` sums to 1.
    Borders are smoothed along themselves, so a cut-off mesh keeps its outline.
    """
    faces = len(quads)
    first, second = quads.ravel(), np.roll(quads, -1, axis=1).ravel()
    key = np.minimum(first, second).astype(np.int64) * count + np.maximum(first, second)
    key, edge_of_side = np.unique(key, return_inverse=True)
    ends, edges = np.stack([key // count, key % count], 1), len(key)
    face_of_side, edge_of_end = np.repeat(np.arange(faces), 4), np.repeat(np.arange(edges), 2)

    face_point = ones(face_of_side, first, (faces, count)) / 4
    middle = ones(edge_of_end, ends.ravel(), (edges, count)) / 2
    edge_faces = ones(edge_of_side, face_of_side, (edges, faces))
    inner = np.asarray(edge_faces.sum(1)).ravel() == 2
    edge_point = sparse.diags(1 - 0.5 * inner) @ middle + sparse.diags(0.25 * inner) @ edge_faces @ face_point

    corner_faces = ones(first, face_of_side, (count, faces))
    corner_edges = ones(ends.ravel(), edge_of_end, (count, edges))
    valence = np.asarray(corner_faces.sum(1)).ravel()
    neighbours = np.asarray(corner_edges.sum(1)).ravel()
    moved = (
        sparse.diags(1 / valence**2) @ corner_faces @ face_point
        + sparse.diags(2 / (valence * neighbours)) @ corner_edges @ middle
        + sparse.diags((valence - 3) / valence)
    )
    corner_rim = corner_edges @ sparse.diags((~inner).astype(np.float32))
    rims = np.asarray(corner_rim.sum(1)).ravel()
    on_rim = rims > 0
    along_rim = 0.5 * sparse.identity(count) + sparse.diags(0.5 / np.maximum(rims, 1)) @ corner_rim @ middle
    vertex_point = sparse.diags((~on_rim).astype(np.float32)) @ moved + sparse.diags(on_rim.astype(float)) @ along_rim

    refine = sparse.vstack([vertex_point, edge_point, face_point]).tocsr().astype(np.float32)
    side = edge_of_side.reshape(faces, 4) + count
    centre = np.repeat(np.arange(faces)[:, None] + count + edges, 4, axis=1)
    return refine, np.stack([quads, side, centre, np.roll(side, 1, axis=1)], -1).reshape(-1, 4)


def incidence(count, quads) -> sparse.csr_matrix:
    """Return the sparse `(count, F)` that adds up, for each vertex, what its quads hold."""
    return ones(quads.ravel(), np.repeat(np.arange(len(quads)), 4), (count, len(quads)))


def neighbour_mean(count, quads) -> sparse.csr_matrix:
    """Return the sparse `(count, count)` that averages each vertex with those it shares an edge with."""
    first, second = quads.ravel(), np.roll(quads, -1, axis=1).ravel()
    near = ones(np.r_[first, second], np.r_[second, first], (count, count)) + 2 * sparse.identity(count)
    return (sparse.diags(1 / np.asarray(near.sum(1)).ravel()) @ near).tocsr().astype(np.float32)


def cross(a, b) -> np.ndarray:
    """Return the cross products of the rows of `a` and `b` `(N, 3)`, several times faster than `np.cross`."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)


def unit(vectors) -> np.ndarray:
    """Return `vectors` `(..., 3)` with length 1; the zero vector stays zero."""
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(-1, keepdims=True)), 1e-9)


def normals(points, quads, adding=None) -> np.ndarray:
    """Return the unit normal of each vertex `(N, 3)`: the sum of its quads' normals, weighted by their area.

    `adding`: `incidence(len(points), quads)`, made once for a mesh that is used often.
    """
    adding = incidence(len(points), quads) if adding is None else adding
    return unit(adding @ cross(points[quads[:, 2]] - points[quads[:, 0]], points[quads[:, 3]] - points[quads[:, 1]]))
