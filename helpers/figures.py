"""One function per figure: each draws what it is given and returns the figure. One palette, one style."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import patches

# Okabe and Ito 2008: eight colours that colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
PALETTE = [BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK]
PART_COLOURS = {"train": BLUE, "valid": ORANGE, "test": GREEN}
WIDTH = 9.0  # inches, of a full-width figure: readable in the README at half size


def use_style():
    """Set the look that all figures share."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    plt.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 140, "figure.constrained_layout.use": True,
        "axes.titlesize": "medium", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip


def show(figure, path):
    """Save `figure` as the PNG `path`, show it under the cell, and close it."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    # No software version in the file, so that equal pictures are equal files.
    figure.savefig(temporary, metadata={"Software": None})
    os.replace(temporary, path)
    plt.show()
    plt.close(figure)


def short(text, longest=22):
    """Return `text`, with the middle left out when it is longer than `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest - 9]}…{text[-8:]}"


def face_grid(images, titles, columns=9, size=1.15, heading=None):
    """Draw faces uint8 `(H, W, 3)` in rows of `columns`, each under its title (one or two short lines)."""
    rows, lines = -(-len(images) // columns), max(title.count("\n") + 1 if title else 0 for title in titles)
    above = 0.06 + 0.14 * lines + (0.3 / rows if heading else 0)  # inches
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, (size + above) * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles):
        axis.imshow(image)
        axis.set_title(title, fontsize=8, loc="center")
    if heading:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=11)
    return figure


def age_distribution(ages, lowest, highest):
    """Draw how many pictures each age from `lowest` to `highest` has, with the median and the even share marked."""
    counts = [int((ages == age).sum()) for age in range(lowest, highest + 1)]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4))
    axis.bar(range(lowest, highest + 1), counts, color=SKY, width=0.85)
    median, even = ages.median(), sum(counts) / len(counts)
    axis.axvline(median, color=RED, linewidth=2, label=f"median: {median:g} years")
    axis.axhline(even, color=BLACK, linewidth=1.2, linestyle="--", label=f"if even: {even:.0f} pictures an age")
    axis.set(xlabel="age, years", ylabel="pictures", xlim=(lowest - 0.8, highest + 0.8), ylim=(0, 1.25 * max(counts)))
    axis.grid(axis="x", visible=False)
    axis.legend(loc="upper right", ncols=2, fontsize=10, frameon=False)
    return figure


def pull_to_the_middle(median_bands, biases):
    """Draw the MAE of the median per age band, and the bias of estimators per band.

    `median_bands`: a table with `mae` and the bands as index. `biases`: the name of an estimator → its bias per band.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.5))
    left.bar(median_bands.index, median_bands["mae"], color=SKY)
    left.set(title="Everybody is guessed the median age", xlabel="true age, years", ylabel="MAE, years")
    for (name, bias), colour, marker in zip(biases.items(), (RED, BLUE), "os"):
        right.plot(bias.index.astype(str), bias, marker=marker, color=colour, label=name)
    right.axhline(0, color=BLACK, linewidth=1)
    right.set(title="The best guess from a vague clue", xlabel="true age, years", ylabel="bias, years (+ = too old)")
    right.legend(fontsize=10, frameon=False)
    for axis in (left, right):
        axis.grid(axis="x", visible=False)
        axis.tick_params(axis="x", labelsize=10)
    return figure


def over_age(faces, columns, rho):
    """Draw each of `columns` (name → label of the axis) of `faces` over `age`: every picture, and the running mean.

    `rho`: name → Spearman's correlation with the age, for the title.
    """
    figure, axes = plt.subplots(1, len(columns), figsize=(WIDTH, 3.3))
    shift = np.random.default_rng(0).uniform(-0.35, 0.35, len(faces))  # so that pictures of one age do not coincide
    alpha = min(0.6, 12 / len(faces) ** 0.5)
    for axis, (name, label) in zip(axes, columns.items()):
        axis.scatter(faces["age"] + shift, faces[name], s=8, color=SKY, alpha=alpha, linewidths=0, rasterized=True)
        mean = faces.groupby("age")[name].mean().rolling(3, center=True, min_periods=1).mean()
        axis.plot(mean.index, mean, color=RED, linewidth=2.5, label="mean of 3 years")
        axis.set(title=f"{name}: ρ = {rho[name]:+.2f}", xlabel="age, years", ylabel=label)
        axis.grid(visible=False)
        if name == "sharpness":
            axis.set_yscale("log")
    axes[0].legend(fontsize=9, loc="lower left")
    return figure


def table_with_faces(table, faces, widths, heading=None):
    """Draw the rows of `table` as text with the faces uint8 `(H, W, 3)` before them.

    `widths`: the width of each column of `table` in inches.
    """
    row, thumb = 0.62, 0.75
    width, height = thumb + sum(widths), row * (len(table) + 0.75)
    figure = plt.figure(figsize=(width, height + (0.35 if heading else 0)))
    axis = figure.add_subplot()
    axis.set(xlim=(0, width), ylim=(row * len(table), -0.75 * row), aspect="equal")
    axis.axis("off")
    starts = thumb + np.cumsum([0, *widths[:-1]])
    for x, name in zip(starts, table.columns):
        axis.text(x, -0.35 * row, name, weight="bold", va="center", fontsize=11)
    for i, (values, face) in enumerate(zip(table.itertuples(index=False), faces)):
        axis.axhspan(i * row, (i + 1) * row, color="#F3F6F9" if i % 2 == 0 else "white", linewidth=0)
        axis.imshow(face, extent=(0.1, 0.1 + 0.9 * row, (i + 0.95) * row, (i + 0.05) * row), zorder=2)
        for x, value in zip(starts, values):
            axis.text(x, (i + 0.5) * row, str(value), va="center", fontsize=11, family="monospace")
    axis.axhline(0, color=BLACK, linewidth=1.2)
    axis.set(xlim=(0, width), ylim=(row * len(table), -0.75 * row))  # imshow has changed them
    if heading:
        axis.set_title(heading, fontsize=11)
    return figure


def random_against_stratified(shares, worst):
    """Draw the share of each age band in one test part, and the largest error of a share over many splits.

    `shares`: percent, the bands as index, columns `overall, stratified, random`. `worst`: percentage points, one row
    a split, columns `stratified, random`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.6), width_ratios=[3, 2])
    shares[["overall", "stratified", "random"]].plot.bar(ax=left, color=[BLACK, GREEN, ORANGE], width=0.78, rot=0)
    left.set(title="One test part", xlabel="age, years", ylabel="share of the pictures, %")
    left.set_ylim(0, 1.2 * shares[["overall", "stratified", "random"]].to_numpy().max())
    left.tick_params(axis="x", labelsize=10)
    left.legend(fontsize=10, frameon=False, ncols=3, loc="upper center")
    for name, colour in (("stratified", GREEN), ("random", ORANGE)):
        right.hist(worst[name], bins=20, range=(0, worst.to_numpy().max()), color=colour, label=name, alpha=0.85)
    right.set(title=f"{len(worst)} test parts", xlabel="largest error of a share, points", ylabel="splits")
    right.legend(fontsize=10, frameon=False)
    left.grid(axis="x", visible=False)
    return figure


def leak_of_people(leak):
    """Draw the MAE with people ignored and kept together per predictor, and the leak between them with its interval.

    `leak`: years, the predictors as index, columns `people ignored, kept together, leak, low, high`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2), width_ratios=[3, 2])
    mae = leak[["people ignored", "kept together"]]
    mae.rename(lambda name: name.replace(" ", "\n")).plot.bar(ax=left, color=[RED, BLUE], width=0.7, rot=0)
    left.set(title="Fivefold cross-validation", ylabel="MAE, years", ylim=(0, 1.3 * mae.to_numpy().max()))
    left.legend(fontsize=10, frameon=False, ncols=2, loc="upper left")
    left.grid(axis="x", visible=False)
    reach = [leak["leak"] - leak["low"], leak["high"] - leak["leak"]]
    right.errorbar(leak["leak"], leak.index, xerr=reach, fmt="o", color=BLACK, capsize=4)
    right.axvline(0, color=BLACK, linewidth=1)
    right.set(title="What ignoring people hides", xlabel="leak, years of MAE (95% interval)")
    right.set_ylim(len(leak) - 0.5, -0.5)
    for axis in (left, right):
        axis.tick_params(labelsize=10)
    return figure


def part_distributions(faces):
    """Draw the share of each age in the parts train, valid and test, one above the other on common axes.

    `faces`: the split table with `age` and `part`.
    """
    figure, axes = plt.subplots(3, 1, figsize=(WIDTH, 5), sharex=True, sharey=True)
    bins = [age - 0.5 for age in range(faces["age"].min(), faces["age"].max() + 2)]
    for axis, (name, colour) in zip(axes, PART_COLOURS.items()):
        ages = faces.loc[faces["part"] == name, "age"]
        axis.hist(ages, bins, weights=[100 / len(ages)] * len(ages), color=colour, rwidth=0.85)
        axis.axvline(ages.mean(), color=BLACK, linestyle="--", linewidth=1.2)
        axis.set_title(f"{name}: {len(ages)} pictures, mean {ages.mean():.1f} years (dashed)", fontsize=11)
        axis.grid(axis="x", visible=False)
    axes[1].set_ylabel("share of the part, %")
    axes[2].set_xlabel("age, years")
    return figure


# The two diagrams are drawn in inches on an empty page, so that text keeps its size and its place.


def cnn_diagram(shapes):
    """Draw a network as blocks, from the measured `[(name, shape)]` of its layers: `(C, H, W)`, later `(N,)`.

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


def method_diagram(faces):
    """Draw the whole method, from photos to the evaluation, with some of `faces` (uint8 `(H, W, 3)`, one or more)."""
    page, top, low = _page(5.4), 4.35, 1.5
    for x, y, title in (
        (0.95, 5.3, "Photos"), (3.1, 5.3, "Labels table"), (5.35, 5.3, "Stratified split"),
        (7.85, 5.3, "Preprocessing"), (1.75, 2.35, "Network"), (3.95, 2.35, "Age in years"), (5.6, 2.35, "Loss"),
        (7.85, 2.35, "Evaluation"),
    ):  # fmt: skip
        _write(page, x, y, title, 12, weight="bold")

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

    _box(page, 7.35, low - 0.5, 1.0, 1.0, facecolor="white", edgecolor=GREEN, lw=2)
    page.plot([7.4, 8.3], [low - 0.45, low + 0.45], color="0.5", lw=1)
    offsets = (0.02, -0.09, 0.12, -0.03, 0.08, -0.12, 0.05, -0.06)
    page.scatter([7.46 + 0.11 * i for i in range(8)], [low - 0.38 + 0.11 * i + d for i, d in enumerate(offsets)], s=14)
    _write(page, 7.85, low - 0.58, "MAE, CS@5, bias")

    _arrow(page, [(7.45, 3.42), (7.45, 2.95), (0.4, 2.95), (0.4, low), (0.75, low)], BLUE)
    _write(page, 2.85, 2.99, "train part, batch after batch", color=BLUE, va="bottom")
    _arrow(page, [(6.6, 2.95), (6.6, low), (6.27, low)], BLUE)
    _write(page, 6.67, 2.1, "label\n36", ha="left", color=BLUE)
    _arrow(page, [(5.6, low - 0.33), (5.6, 0.72), (2.25, 0.72), (2.25, low - 0.25)], BLUE)
    _write(page, 3.95, 0.76, "gradient: correct the weights", color=BLUE, va="bottom")
    _arrow(page, [(1.05, low - 0.68), (1.05, 0.22), (7.85, 0.22), (7.85, low - 0.83)], PART_COLOURS["valid"])
    _write(page, 3.95, 0.26, "the weights that are best on the valid part", color=RED, va="bottom")
    _arrow(page, [(8.7, 3.42), (8.7, low), (8.42, low)], GREEN)
    _write(page, 8.62, 2.86, "test part,\nonce, at the end", ha="right", color=GREEN)
    return page.figure


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
        return "conv 3×3\nReLU\nmax pool\n2×2"
    return "flatten" if len(before) == 3 else "linear" if last else "linear\nReLU"


def _layer_parameters(before, shape):
    if before is None or len(before) > len(shape):
        return 0
    return (before[0] * (9 if len(shape) == 3 else 1) + 1) * shape[0]


def learning_curves(history, baseline=None, name="", loss_in_years=True):
    """Draw the `history` of `training.fit` (`epoch, train_loss, valid_mae, lr`) and mark its best epoch.

    `baseline`: the MAE in years of guessing the median. `loss_in_years` is false for a loss with another unit, such as
    that of an age distribution: it then gets a panel of its own.
    """
    figure, axes = plt.subplot_mosaic(
        [["error", "lr"]] if loss_in_years else [["error", "loss"], ["error", "lr"]],
        figsize=(WIDTH, 3.6), width_ratios=(2.4, 1),
    )  # fmt: skip
    epochs, error = history["epoch"], axes["error"]
    best = history.loc[history["valid_mae"].idxmin()]
    if baseline is not None:
        error.axhline(baseline, color="0.45", linestyle="--", label=f"guess the median: {baseline:.2f}")
    train = error if loss_in_years else axes["loss"]
    train.plot(epochs, history["train_loss"], color=PART_COLOURS["train"], marker="o", markersize=4, label="train part")
    error.plot(epochs, history["valid_mae"], color=PART_COLOURS["valid"], marker="s", markersize=4, label="valid part")
    label = f"best: {best['valid_mae']:.2f}, epoch {best['epoch']:.0f}"
    error.plot(best["epoch"], best["valid_mae"], "*", color=RED, markersize=16, label=label, linestyle="none")
    error.set(title=f"{name}: error" if name else "Error", ylabel="mean absolute error, years", xlabel="epoch")
    if not loss_in_years:
        axes["loss"].set_title("Loss, train part")
    axes["lr"].plot(epochs, 1000 * history["lr"], color=PINK, marker="o", markersize=4)
    axes["lr"].set(title="Learning rate × 1000", xlabel="epoch", ylim=(0, None))
    for axis in axes.values():
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.tick_params(labelsize=10)
    figure.legend(*error.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def predicted_against_true(true, predicted, title, mae_text="", ages=(20, 50)):
    """Draw the predictions over the true ages (years `(N,)`), the identity, ±5 years and the median by true age."""
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    low, high = min(ages[0], predicted.min()) - 1, max(ages[1], predicted.max()) + 1
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, WIDTH * 0.62))
    line = np.array([low, high])
    axis.fill_between(line, line - 5, line + 5, color=GREEN, alpha=0.15, linewidth=0, label="within 5 years")
    if len(true) > 3000:
        axis.hexbin(true, predicted, gridsize=31, cmap="Blues", mincnt=1, linewidths=0.1, zorder=1.5)
    else:
        shift = np.random.default_rng(0).uniform(-0.3, 0.3, len(true))  # so that pictures of one age do not coincide
        alpha = min(0.7, 12 / len(true) ** 0.5)
        axis.scatter(true + shift, predicted, s=18, color=BLUE, alpha=alpha, linewidths=0, label="a picture")
    axis.plot(line, line, color=BLACK, linewidth=1, linestyle="--", label="no error")
    years = np.unique(true.round())
    medians = [np.median(predicted[np.abs(true - year) <= 2]) for year in years]
    axis.plot(years, medians, color=RED, linewidth=2.5, label="median, true age ±2 years")
    axis.set(xlim=line, ylim=line, aspect="equal", title=title, xlabel="true age, years", ylabel="predicted age, years")
    axis.text(0.98, 0.03, mae_text, transform=axis.transAxes, ha="right", fontsize=11)
    axis.legend(fontsize=10, loc="upper left")
    return figure


def error_by_age(bands):
    """Draw the MAE and the bias of one or more models per age band.

    `bands`: the name of a model → its table of `evaluation.by_age_band`, with `n, mae, bias` and the bands as index.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8))
    first = next(iter(bands.values()))
    places = np.arange(len(first))
    for axis, column in zip(axes, ("mae", "bias")):
        for i, (name, table) in enumerate(bands.items()):
            beside = 0.09 * (i - (len(bands) - 1) / 2)  # so that equal points stay visible
            axis.plot(places + beside, table[column], color=PALETTE[i], marker="osD^vPX*"[i], linewidth=1.5, label=name)
        axis.set_xticks(places, [f"{band}\nn={n}" for band, n in zip(first.index, first["n"])], fontsize=9)
        axis.set(xlabel="true age, years", xlim=(-0.5, len(first) - 0.5))
        axis.grid(axis="x", visible=False)
    axes[1].axhline(0, color=BLACK, linewidth=1)
    axes[0].set(title="How far off", ylabel="MAE, years", ylim=(0, None))
    axes[1].set(title="Too old (+) or too young (−)", ylabel="bias, years")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def results_chart(table):
    """Draw the MAE of each row of `table` with its 95% interval: `model, mae, mae_low, mae_high, parameters`.

    The first row is at the top. Rows without parameters are baselines, in grey.
    """
    colours = [BLUE if count else "0.5" for count in table["parameters"]]
    sizes = [f"\n{count:,.0f} parameters" if count else "" for count in table["parameters"]]
    values = table[["mae", "mae_low", "mae_high"]].to_numpy()
    return _intervals(table["model"] + sizes, values, colours, "{:.2f}", "MAE with 95% interval, years")


def augmentation_grid(originals, variants, names=()):
    """Draw a face per row: the original, then its random variants. All are uint8 `(H, W, 3)`.

    `variants`: for each of `originals` a list, all of the same length; `names`: what to write beside each row.
    """
    columns = 1 + len(variants[0])
    side = WIDTH / (columns + 0.6)
    figure, axes = plt.subplots(
        len(originals), columns + 1, squeeze=False, width_ratios=[1, 0.15, *[1] * (columns - 1)],
        figsize=(WIDTH, side * len(originals) + 0.35),
    )  # fmt: skip
    for row, original, others in zip(axes, originals, variants):
        for axis, image in zip(np.delete(row, 1), [original, *others]):
            axis.imshow(image)
        for axis in row:
            axis.axis("off")
    for row, name in zip(axes, names):
        row[1].text(0.5, 0.5, name, rotation=90, ha="center", va="center", fontsize=10, transform=row[1].transAxes)
    axes[0, 0].set_title("original", fontsize=10, loc="center")
    axes[0, 2].set_title("random variants", fontsize=10)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    return figure


def difference_histogram(draws, difference, low, high, names):
    """Draw the bootstrap `draws` of MAE(first of `names`) − MAE(second), its 95% interval shaded and zero marked."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.75, 3.6))
    axis.hist(draws, bins=40, color=SKY, linewidth=0)
    interval = f"95% interval: {low:+.2f} to {high:+.2f}".replace("-", "−")
    axis.axvspan(low, high, color=BLUE, alpha=0.15, linewidth=0, label=interval)
    axis.axvline(difference, color=BLUE, linewidth=2, label=f"measured: {difference:+.2f}".replace("-", "−"))
    axis.axvline(0, color=BLACK, linewidth=1.5, linestyle="--", label="no difference")
    axis.set(xlabel=f"MAE of {names[0]} − MAE of {names[1]}, years", ylabel="draws")
    axis.set_title(f"Left of zero, {names[0]} is better")
    axis.margins(x=0.08)
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    return figure


def size_and_speed(table):
    """Draw the MAE of each row of `table` over its size and over its latency, a colour a model, a marker a runtime.

    Columns: `model, runtime, size` (MB), `median` (ms a face), `mae, mae_low, mae_high` (years). Left and low is
    better; the line joins those that no other is better than in both.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4), sharey=True)
    colours = dict(zip(dict.fromkeys(table["model"]), PALETTE))
    markers = dict(zip(dict.fromkeys(table["runtime"]), "os^Dv"))
    for axis, column, label in zip(axes, ("size", "median"), ("size, MB", "latency, ms a face on one core")):
        low, high = table[column].min(), table[column].max()
        for row in table.itertuples():
            x, reach = getattr(row, column), [[row.mae - row.mae_low], [row.mae_high - row.mae]]
            axis.errorbar(x, row.mae, reach, color=colours[row.model], alpha=0.35, capsize=3)
            hollow = {"markerfacecolor": "none", "markeredgewidth": 2}  # so that equal points can both be seen
            axis.plot(x, row.mae, markers[row.runtime], color=colours[row.model], markersize=9, **hollow)
        frontier = table.sort_values([column, "mae"])
        frontier = frontier[frontier["mae"] <= frontier["mae"].cummin()].drop_duplicates("mae")
        axis.plot(frontier[column], frontier["mae"], color="0.6", linewidth=1, zorder=0)
        axis.set(xlabel=label, xscale="log", xticks=[x for x in (0.3, 1, 3, 10, 30, 100) if low / 1.3 < x < 1.3 * high])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    axes[0].set_ylabel("MAE with 95% interval, years")
    for name, colour in colours.items():
        axes[0].plot([], [], color=colour, linewidth=7, label=name)
    for name, marker in markers.items():
        axes[0].plot([], [], marker, color="0.4", label=name, markerfacecolor="none", markeredgewidth=2)
    axes[0].plot([], [], color="0.6", linewidth=1, label="no other is better in both")
    figure.legend(loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    return figure


def lines(curves, xlabel, ylabel, mark=None, marked=""):
    """Draw one line per curve: a name → a table with x as index and `value`, with a band where it has `low, high`.

    `mark`: an x that gets a dashed line, which the legend calls `marked`.
    """
    figure, axis = plt.subplots(figsize=(WIDTH * 0.75, 3.8))
    for (name, table), colour in zip(curves.items(), PALETTE):
        axis.plot(table.index, table["value"], color=colour, linewidth=2.2, label=name)
        if "low" in table:
            axis.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.15, linewidth=0)
    if mark is not None:
        axis.axvline(mark, color=BLACK, linewidth=1, linestyle=":", label=marked)
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axis.margins(x=0)
    figure.legend(loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    return figure


def pull_and_calibration(pull, calibration, ages=(20, 50)):
    """Draw the mean estimate over the true age, and the mean true age over the estimate, with the diagonal.

    `pull`, `calibration`: the name of a model → its means in years, with the years of the other axis as index.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.4))
    texts = ("true age, years", "mean estimate, years"), ("estimate, years", "mean true age, years")
    titles = "The pull to the mean", "Calibration: who gets this estimate?"
    for axis, means, title, (xlabel, ylabel) in zip(axes, (pull, calibration), titles, texts):
        axis.plot(ages, ages, color=BLACK, linewidth=1, linestyle="--", label="no error")
        for (name, mean), colour, marker in zip(means.items(), PALETTE, "osD^vP"):
            axis.plot(mean.index, mean, color=colour, marker=marker, markersize=5, linewidth=1.8, label=name)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel, aspect="equal")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def groups_chart(table):
    """Draw MAE and bias of each model in each group, with 95% intervals.

    `table`: a group and model a row, with `group, model, people, mae, mae_low, mae_high, bias, bias_low, bias_high`.
    """
    names, groups = table["model"].unique(), table.drop_duplicates("group")
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.4 + 0.5 * len(groups)), sharey=True)
    for axis, column, label in zip(axes, ("mae", "bias"), ("MAE, years", "bias at equal age, years (+ = too old)")):
        for i, name in enumerate(names):
            one = table[table["model"] == name]
            places = np.arange(len(one)) + 0.22 * (i - (len(names) - 1) / 2)
            axis.hlines(places, one[f"{column}_low"], one[f"{column}_high"], color=PALETTE[i], linewidth=3, alpha=0.5)
            axis.plot(one[column], places, "osD^"[i % 4], color=PALETTE[i], label=name)
        axis.set(xlabel=label, ylim=(len(groups) - 0.4, -0.6))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(groups)), [f"{g}\n{n} people" for g, n in zip(groups["group"], groups["people"])])
    axes[0].tick_params(axis="y", labelsize=10)
    axes[1].axvline(0, color=BLACK, linewidth=1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def coverage_chart(table, promised):
    """Draw per age band how many faces the intervals hold, with the `promised` share, and how wide they are.

    A model ("ResNet-18" of the kind "ResNet-18, constant") has a marker, a way to make intervals a colour.
    `table`: a band and kind of interval a row, with `band, kind, n, coverage, low, high, width` (shares; years).
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8))
    first = table.drop_duplicates("band")
    models, ways = (list(dict.fromkeys(kind.rpartition(", ")[part] for kind in table["kind"])) for part in (0, 2))
    for i, (kind, one) in enumerate(table.groupby("kind", sort=False)):
        model, _, way = kind.rpartition(", ")
        colour, marker = PALETTE[ways.index(way)], "os^D"[models.index(model) % 4]
        places = np.arange(len(one)) + 0.12 * (i - (table["kind"].nunique() - 1) / 2)
        axes[0].vlines(places, 100 * one["low"], 100 * one["high"], color=colour, linewidth=3, alpha=0.5)
        axes[0].plot(places, 100 * one["coverage"], marker, color=colour, label=kind)
        line = ["-", "--", ":", "-."][models.index(model) % 4]
        axes[1].plot(places, one["width"], line, color=colour, marker=marker, linewidth=1.5)
    axes[0].axhline(100 * promised, color=BLACK, linestyle="--", linewidth=1, label="promised")
    axes[0].set(title="Do they hold?", ylabel="intervals with the true age, %", ylim=(None, 101))
    axes[1].set(title="What they cost", ylabel="mean width, years", ylim=(0, 1.1 * table["width"].max()))
    for axis in axes:
        axis.set_xticks(range(len(first)), [f"{b}\nn={n}" for b, n in zip(first["band"], first["n"])], fontsize=9)
        axis.set_xlabel("true age, years")
        axis.grid(axis="x", visible=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def factor_shifts(tables):
    """Draw the mean shift of each level of each factor with its 95% interval (thick) and its spread (thin).

    `tables`: the name of a model → its table of `evaluation.factor_shifts`, all with the same rows.
    """
    first = next(iter(tables.values()))
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.31 * len(first)))
    for i, (name, table) in enumerate(tables.items()):
        places, colour = np.arange(len(table)) + 0.26 * (i - (len(tables) - 1) / 2), PALETTE[i]
        spread = table["spread"].fillna(0)
        axis.hlines(places, table["shift"] - spread, table["shift"] + spread, color=colour, linewidth=1, alpha=0.6)
        axis.hlines(places, table["low"], table["high"], color=colour, linewidth=4, alpha=0.5)
        axis.plot(table["shift"], places, "osD^"[i % 4], color=colour, markersize=6, label=name)
    for edge in np.flatnonzero(first["factor"].ne(first["factor"].shift())):
        axis.axhline(edge - 0.5, color="0.75", linewidth=1)
    labels = first["factor"].map(_factor) + ", " + first["level"].astype(str)
    axis.set_yticks(range(len(first)), labels, fontsize=10)
    axis.axvline(0, color=BLACK, linewidth=1)
    axis.set(ylim=(len(first) - 0.5, -0.5), xlabel="shift of the estimate, years (+ = looks older)")
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def factor_sizes(table):
    """Draw how far each factor moves the estimates of each network: mean absolute shifts in years.

    `table`: the factors as index, a network a column.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1.2 + 0.5 * len(table)))
    table.rename(index=_factor).plot.barh(ax=axis, color=PALETTE, width=0.75, legend=False)
    axis.invert_yaxis()
    axis.set(xlabel="mean absolute shift, years of age that it imitates", ylabel="")
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def heat_maps(rows, titles):
    """Draw maps over pictures, red where positive, blue where negative, on one scale a row.

    `rows`: a name → `(pictures, maps)`, uint8 `(N, H, W, 3)` and any `(N, h, w)`; `titles`: one for each of the N.
    """
    width = 0.8 * WIDTH
    size = width, (width / len(titles) - 0.02) * len(rows) + 0.35
    figure, axes = plt.subplots(len(rows), len(titles), squeeze=False, figsize=size)
    for line, (name, (pictures, maps)) in zip(axes, rows.items()):
        most = np.abs(maps).max() or 1.0
        for axis, picture, one in zip(line, pictures, maps):
            extent = (0, picture.shape[1], picture.shape[0], 0)
            axis.imshow(picture.mean(-1), cmap="gray", vmin=0, vmax=255, extent=extent)
            axis.imshow(one, cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.5, extent=extent, interpolation="bicubic")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=10)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=10, loc="center")
    return figure


def _factor(name):
    return {"quality": "JPEG quality"}.get(name, name.replace("_", " "))


def _intervals(names, values, colours, form, label):
    """A row per name: a dot and its interval `(value, low, high)`, printed at the right."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1.0 + 0.5 * len(names)))
    for i, ((value, low, high), colour) in enumerate(zip(values, colours)):
        axis.plot([low, high], [i, i], color=colour, linewidth=3, solid_capstyle="round", alpha=0.55)
        axis.plot(value, i, "o", color=colour, markersize=9)
        text = f"{form} ({form} to {form})".format(value, low, high).replace("-", "−")
        axis.text(1.02, i, text, transform=axis.get_yaxis_transform(), va="center", fontsize=10)
    axis.set_yticks(range(len(names)), names, fontsize=10)
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel=label)
    axis.grid(axis="y", visible=False)
    return figure


def where_cleaning_helps(noise_curve, levels, noisy, blur_curve, sharp, blurred):
    """Draw the gain of denoising over the noise level and of deblurring over sharpness, with the thresholds.

    `noise_curve`: `estimate` (grey levels), `bilateral`, `non-local means` (dB). `blur_curve`: `sharpness`,
    `gain` (dB). `levels`, `sharp`: the same measures of the clean pictures. `noisy`, `blurred`: the thresholds.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.8))
    for name, colour, marker in (("bilateral", BLUE, "o"), ("non-local means", ORANGE, "s")):
        left.plot(noise_curve["estimate"], noise_curve[name], marker=marker, color=colour, label=name)
    left.set(title="Denoise", xlabel="estimated noise, grey levels", ylabel="gain in PSNR, dB")
    right.scatter(blur_curve["sharpness"], blur_curve["gain"], s=6, color=BLUE, alpha=0.25, linewidths=0)
    right.plot([], [], "o", color=BLUE, label="blurred pictures")
    right.set(title="Deblur", xlabel="sharpness (variance of the Laplacian)", xscale="log")
    right.set_ylim(np.quantile(blur_curve["gain"], 0.005) - 1, None)
    clean_bins = {left: np.linspace(0, max(noise_curve["estimate"]), 60), right: np.logspace(0, 3.5, 36)}
    for axis, clean, threshold in ((left, levels, noisy), (right, sharp, blurred)):
        axis.axhline(0, color=BLACK, linewidth=1)
        axis.axvline(threshold, color=RED, linestyle="--", linewidth=1.8, label="threshold")
        behind = axis.twinx()
        behind.hist(clean, clean_bins[axis], color="0.75", linewidth=0, zorder=0)
        behind.set(yticks=[], ylim=(0, 4 * behind.get_ylim()[1]))
        behind.grid(False)
        axis.set_zorder(behind.get_zorder() + 1)
        axis.patch.set_visible(False)
        axis.plot([], [], color="0.75", linewidth=6, label="clean pictures")
        axis.legend(fontsize=9, frameon=False, loc="upper right" if axis is right else "lower right")
    return figure
