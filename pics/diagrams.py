"""The diagrams of notebook 05, `CNN.png` and `Model_diagram.png`, the residual block of 06, the group photo of 09.

Diagrams are drawn in inches on an empty page, so that text keeps its size and its place.
"""

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patches

from helpers.figures import BLUE, GREEN, ORANGE, PART_COLOURS, RED, WIDTH


def cnn_diagram(shapes):
    """Return a figure of a network as blocks, from the `[(name, shape)]` of its layers: `(C, H, W)`, then `(N,)`.

    A block is as high as its maps and as wide as it has channels, on root scales. The parameters under it are those
    of the 3×3 convolution or the linear layer that makes it, with biases.
    """
    page, middle = _page(3.3), 1.9
    sizes = [_block_size(shape) for _, shape in shapes]
    gap = (WIDTH - 0.75 - sum(width + depth for width, _, depth in sizes)) / (len(shapes) - 1)
    x, total, before = 0.3, 0, None
    for i, ((name, shape), (width, tall, depth)) in enumerate(zip(shapes, sizes)):
        last, count = i == len(shapes) - 1, _layer_parameters(before, shape)
        if before:
            _arrow(page, [(x - gap + 0.08, middle), (x - 0.06, middle)])
            _write(page, x - gap / 2, middle + 0.08, _operation(before, shape, last), 9, va="bottom")
        _block(page, x, middle - tall / 2, width, tall, depth, BLUE if len(shape) == 3 else ORANGE if last else GREEN)
        _write(page, x + (width + depth) / 2, 0.72, name, weight="bold")
        _write(page, x + (width + depth) / 2, 0.52, "×".join(f"{n:,}" for n in (*shape[1:], shape[0])))
        note = "parameters:" if before is None else f"{count:,}" if count else "–"
        _write(page, x + (width + depth) / 2, 0.30, note, 9, color="0.4")
        x, before, total = x + width + depth + gap, shape, total + count
    _write(page, WIDTH - 0.15, 3.2, f"{total:,} parameters", 12, ha="right")
    return page.figure


def residual_block():
    """Return a figure of a residual block: `y = relu(x + f(x))`, with `f` of two 3×3 convolutions."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1.5))
    boxes = ["x", "3×3\nconvolution", "batch norm,\nReLU", "3×3\nconvolution", "batch\nnorm", "+", "ReLU", "y"]
    arrow = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, "color": "black"}
    for at, box in enumerate(boxes):
        if len(box) > 1:
            look = {"boxstyle": "round,pad=0.05", "fc": "#dce9f5", "ec": BLUE}
            axis.add_patch(patches.FancyBboxPatch((at - 0.32, -0.3), 0.64, 0.6, **look))
        axis.text(at, 0, box, ha="center", va="center", fontsize=9 if len(box) > 1 else 15)
        if at:
            axis.annotate("", (at - 0.37, 0), (at - 0.63, 0), arrowprops=arrow)
    shortcut = {"arrowstyle": "->", "connectionstyle": "bar,fraction=-0.14", "color": ORANGE, "lw": 2}
    axis.annotate("", (5, 0.2), (0, 0.2), arrowprops=shortcut)
    axis.text(2.5, 1.0, "shortcut: x as it is", ha="center", color=ORANGE)
    axis.text(2.5, -0.75, "f(x)", ha="center")
    axis.set(xlim=(-0.5, 7.5), ylim=(-0.9, 1.5))
    axis.axis("off")
    return figure


def method_diagram(faces):
    """Return a figure of the whole method, from photos to the evaluation; it shows `faces`, uint8 `(H, W, 3)` each."""
    page, top, low = _page(5.4), 4.35, 1.5
    for x, y, title in (
        (0.95, 5.3, "Photos"), (3.1, 5.3, "Labels table"), (5.35, 5.3, "Stratified split"),
        (7.85, 5.3, "Preprocessing"), (1.75, 2.35, "Network"), (3.95, 2.35, "Age in years"), (5.6, 2.35, "Loss"),
        (7.85, 2.35, "Evaluation"),
    ):  # fmt: skip
        _write(page, x, y, title, 12, weight="bold")
    _data(page, faces, top)
    _learning(page, low)
    _evaluation(page, low)
    _arrow(page, [(7.45, 3.42), (7.45, 2.95), (0.4, 2.95), (0.4, low), (0.75, low)], BLUE)
    _write(page, 2.85, 2.99, "training set, batch after batch", color=BLUE, va="bottom")
    _arrow(page, [(6.6, 2.95), (6.6, low), (6.27, low)], BLUE)
    _write(page, 6.67, 2.1, "label\n36", ha="left", color=BLUE)
    _arrow(page, [(5.6, low - 0.33), (5.6, 0.72), (2.25, 0.72), (2.25, low - 0.25)], BLUE)
    _write(page, 3.95, 0.76, "gradient: correct the weights", color=BLUE, va="bottom")
    _arrow(page, [(1.05, low - 0.68), (1.05, 0.22), (7.85, 0.22), (7.85, low - 0.83)], PART_COLOURS["valid"])
    _write(page, 3.95, 0.26, "the weights that are best on the validation set", color=RED, va="bottom")
    _arrow(page, [(8.7, 3.42), (8.7, low), (8.42, low)], GREEN)
    _write(page, 8.62, 2.86, "test set,\nonce, at the end", ha="right", color=GREEN)
    return page.figure


def group_photo(faces, spots, height=420, width=900):
    """Return a photo, uint8 `(height, width, 3)`, of the people in `faces`, uint8 `(side, side, 3)` each.

    `spots`: for each its left edge and side in pixels, and by how many degrees it is turned. They stand on the lower
    edge, and the later ones in front.
    """
    down = np.linspace(0, 1, height)[:, None, None]
    photo = np.broadcast_to((1 - down) * [176, 190, 200] + down * [140, 135, 125], (height, width, 3))  # a plain wall
    for face, (left, side, turned) in zip(faces, spots):
        size = len(face)
        move = cv2.getRotationMatrix2D((size / 2, 0.9 * size), turned, side / size)
        move[:, 2] += left + (side - size) / 2, height - 0.06 * side - 0.9 * size
        person = cv2.warpAffine(face, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
        share = cv2.warpAffine(_person_in(face), move, (width, height))[..., None]
        photo = (1 - share) * photo + share * person
    return photo.round().astype(np.uint8)


def _person_in(face):
    # The share of each pixel of a cropped face that belongs to the person: GrabCut (Rother et al. 2004), which is told
    # where a head and shoulders are sure to be, where they may be, and that the sides are behind them.
    side = len(face)
    mask = np.full((side, side), cv2.GC_PR_BGD, np.uint8)
    for middle, radii, kind in (((0.50, 0.48), (0.34, 0.46), cv2.GC_PR_FGD), ((0.50, 0.46), (0.20, 0.34), cv2.GC_FGD)):
        place = [tuple(int(share * side) for share in pair) for pair in (middle, radii)]
        cv2.ellipse(mask, *place, 0, 0, 360, kind, -1)
    shoulders, neck, rim = int(0.12 * side), int(0.35 * side), int(0.07 * side)
    mask[int(0.90 * side) :, shoulders:-shoulders] = cv2.GC_PR_FGD
    mask[int(0.92 * side) :, neck:-neck] = cv2.GC_FGD
    mask[: int(0.85 * side), :rim] = mask[: int(0.85 * side), -rim:] = cv2.GC_BGD
    cv2.grabCut(np.ascontiguousarray(face), mask, None, None, None, 6, cv2.GC_INIT_WITH_MASK)
    parts = cv2.connectedComponents(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8))[1]
    return cv2.GaussianBlur((parts == parts[side // 2, side // 2]).astype(np.float32), (0, 0), 1)


def _data(page, faces, top):
    """The upper row: photos, their table, the split, and one picture as it enters the network."""
    for i in range(4):
        _picture(page, faces[i % len(faces)], 0.3 + 0.67 * (i % 2), top + 0.02 - 0.67 * (i // 2), 0.63)
    for row, (path, age) in enumerate((("path", "age"), ("21/a.jpg", "21"), ("34/b.jpg", "34"), ("…", "…"))):
        y = top + 0.5 - 0.33 * row
        _box(page, 2.4, y - 0.165, 1.4, 0.33, facecolor="white" if row else "0.93", edgecolor="0.6")
        _write(page, 2.5, y, path, ha="left", va="center")
        _write(page, 3.7, y, age, ha="right", va="center")
    for i, tall in enumerate((0.65, 0.95, 1.1, 0.9, 0.75, 0.6, 0.45)):  # every age is cut in the same proportions
        y = top - 0.55
        for part, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
            _box(page, 4.55 + 0.13 * i, y, 0.11, tall * share, facecolor=PART_COLOURS[part], lw=0)
            y += tall * share
    _write(page, 5.0, top - 0.6, "age")
    for y, part, share in ((-0.3, "train", 80), (0.02, "valid", 10), (0.34, "test", 10)):
        _write(page, 5.55, top + y, f"{part} {share}%", ha="left", va="center", color=PART_COLOURS[part], weight="bold")
    for i, colours in enumerate(("Blues_r", "Greens_r", "Reds_r")):
        _picture(page, faces[0][..., 2 - i], 7.65 - 0.14 * i, top - 0.32 - 0.12 * i, 0.9, cmap=colours)
    _write(page, 7.95, top - 0.64, "128×128, normalised")
    for start, end in ((1.75, 2.3), (3.9, 4.45), (6.5, 7.2)):
        _arrow(page, [(start, top), (end, top)])


def _learning(page, low):
    """The lower row up to the loss: the blocks of the network, its answer, and how far that is off."""
    x = 0.85
    for channels, side in ((3, 128), (32, 64), (64, 32), (128, 16)):
        width, tall, depth = (0.66 * length for length in _block_size((channels, side, side)))
        _block(page, x, low - tall / 2, width, tall, depth, BLUE)
        x += width + depth + 0.08
    page.add_patch(patches.Circle((3.95, low), 0.36, facecolor="white", edgecolor=BLUE, lw=2))
    _write(page, 3.95, low, "34.2", 13, va="center")
    _box(page, 5.0, low - 0.28, 1.2, 0.56, facecolor="white", edgecolor=BLUE, lw=2)
    _write(page, 5.6, low, "|34.2 − 36|", 11, va="center")
    _arrow(page, [(x + 0.05, low), (3.5, low)], BLUE)
    _arrow(page, [(4.4, low), (4.93, low)], BLUE)


def _evaluation(page, low):
    """The last field of the lower row: predicted against true ages."""
    _box(page, 7.35, low - 0.5, 1.0, 1.0, facecolor="white", edgecolor=GREEN, lw=2)
    page.plot([7.4, 8.3], [low - 0.45, low + 0.45], color="0.5", lw=1)
    offsets = (0.02, -0.09, 0.12, -0.03, 0.08, -0.12, 0.05, -0.06)
    page.scatter([7.46 + 0.11 * i for i in range(8)], [low - 0.38 + 0.11 * i + d for i, d in enumerate(offsets)], s=14)
    _write(page, 7.85, low - 0.58, "MAE, CS@5, bias")


def _page(height):
    figure = plt.figure(figsize=(WIDTH, height))
    figure.set_layout_engine("none")  # as an argument of plt.figure it would be forgotten when JupyterLab draws it
    page = figure.add_axes([0, 0, 1, 1], xlim=(0, WIDTH), ylim=(0, height))
    page.axis("off")
    return page


def _write(page, x, y, text, size=10, ha="center", va="top", **style):
    page.text(x, y, text, fontsize=size, ha=ha, va=va, **style)


def _box(page, x, y, width, height, **style):
    page.add_patch(patches.Rectangle((x, y), width, height, **style))


def _arrow(page, points, colour="0.3"):
    """A line through `points` with a head at the last one."""
    page.plot(*zip(*points[:-1]), color=colour, lw=1.6)
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13}
    page.annotate("", points[-1], points[-2], arrowprops=style)


def _picture(page, image, x, y, side, cmap=None):
    page.imshow(image, extent=(x, x + side, y, y + side), cmap=cmap, zorder=3, aspect="auto")
    _box(page, x, y, side, side, fill=False, edgecolor="white", lw=1.5, zorder=3)


def _block(page, x, y, width, tall, depth, colour):
    """A box in oblique view; its depth is drawn to the right and up."""
    up = 0.6 * depth
    right, top = x + width, y + tall
    front = [(x, y), (right, y), (right, top), (x, top)]
    lid = [(x, top), (right, top), (right + depth, top + up), (x + depth, top + up)]
    side = [(right, y), (right + depth, y + up), (right + depth, top + up), (right, top)]
    for corners, strength in ((front, 1.0), (lid, 0.55), (side, 0.75)):
        page.add_patch(patches.Polygon(corners, facecolor="white", edgecolor="none"))
        page.add_patch(patches.Polygon(corners, facecolor=(colour, strength), edgecolor="white", lw=0.8))


def _block_size(shape):
    """Width, height and depth in inches. Roots, because drawn to scale the last maps would vanish beside the first."""
    if len(shape) == 1:
        return 0.16, max(0.16, 0.18 * shape[0] ** 0.25), 0.05
    channels, height, _ = shape
    tall = 1.75 * (height / 128) ** 0.65
    return 0.045 * channels**0.5, tall, 0.2 * tall


def _operation(before, shape, last):
    if len(shape) == 3:
        return "conv 3×3\nmax pool\n2×2\nReLU"
    return "flatten" if len(before) == 3 else "linear" if last else "linear\nReLU"


def _layer_parameters(before, shape):
    if before is None or len(before) > len(shape):
        return 0
    return (before[0] * (9 if len(shape) == 3 else 1) + 1) * shape[0]
