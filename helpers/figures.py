"""The figures that several notebooks draw: each function draws what it is given. One palette, one style."""

import os
import re
from functools import lru_cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

# Okabe and Ito 2008: eight colours that colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
PALETTE = [BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK]
PART_COLOURS = {"train": BLUE, "valid": ORANGE, "test": GREEN}
# A model has one colour in every figure; names that go on, as "ResNet-18, from scratch", are of the same model.
COLOURS = {
    "SimpleCNN": BLUE, "ResNet-18": ORANGE, "face ResNet": GREEN, "face ResNet, frozen": SKY, "compact ResNet": PINK,
}  # fmt: skip
GREY = "0.5"  # of baselines
WIDTH = 9.0  # inches, of a full-width figure: readable in the README at half size
# Fonts that systems come with, for the letters of names that the usual font lacks.
FONTS = [
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "WenQuanYi Zen Hei", "Noto Sans Arabic",
    "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Symbol", "Arial Unicode MS",
]  # fmt: skip


def use_style():
    """Set the look that all figures share."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    present = {font.name for font in font_manager.fontManager.ttflist}
    plt.rcParams.update({
        "font.family": ["sans-serif", *(name for name in FONTS if name in present)],
        "text.parse_math": False,  # the $ in the name of a file or a group is a $
        "figure.dpi": 80, "savefig.dpi": 140, "figure.constrained_layout.use": True,
        "axes.titlesize": "medium", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip


def show(figure, path):
    """Save `figure` as the PNG `path`, show it under the cell, and close it. Its texts become `legible`."""
    path = Path(path)
    _make_legible(figure)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    # No software version in the file, so that equal pictures are equal files.
    figure.savefig(temporary, metadata={"Software": None})
    os.replace(temporary, path)
    plt.show()
    plt.close(figure)


def legible(text):
    """Return `text` as it can be drawn: letters that no font has by their number, as U+4E2D."""
    known = _letters(tuple(plt.rcParams["font.family"]))
    drawn = "".join(c if ord(c) in known or c == "\n" else f"U+{ord(c):04X}" for c in text)
    return drawn if len(drawn) == len(text) else "\n".join(short(line, 30) for line in drawn.split("\n"))


@lru_cache
def _letters(families):
    # All that the fonts can draw, as numbers: what is missing would be an empty box, and a warning.
    files = [font_manager.findfont(font_manager.FontProperties(family=[name])) for name in families]
    return set().union(*(font_manager.get_font(file).get_charmap() for file in files))


def _make_legible(figure):
    for text in figure.findobj(plt.Text):
        text.set_text(legible(text.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        # Matplotlib writes powers of ten as formulas, which the style switches off.
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(LogFormatter())
        if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=True))
        names = [label.get_text() for label in axis.get_ticklabels()]
        if names != [legible(name) for name in names]:
            axis.set_ticks(axis.get_ticklocs(), [legible(name) for name in names])


def colour_of(name):
    """Return the colour of the model `name`, by the longest name in `COLOURS` that it begins with; grey without one."""
    known = [model for model in COLOURS if name.startswith(model)]
    return COLOURS[max(known, key=len)] if known else GREY


def colours_of(names):
    """Return a colour for each of `names`: that of its model, greys for baselines; the palette where models repeat."""
    colours, greys = [colour_of(name) for name in names], iter(["0.5", "0.25", "0.7", "0.4"])
    models = [colour for colour in colours if colour != GREY]
    if len(set(models)) < len(models):
        return [PALETTE[i % len(PALETTE)] for i in range(len(colours))]
    return [next(greys, GREY) if colour == GREY else colour for colour in colours]


def _label(name):
    return f" {short(name, 40)}" if str(name).startswith("_") else short(name, 40)  # Matplotlib hides a leading _


def short(text, longest=22):
    """Return `text` on one line, with the middle left out when it is longer than `longest` characters."""
    text = re.sub(r"\s", " ", str(text))
    return text if len(text) <= longest else f"{text[: longest - 9]}…{text[-8:]}"


def face_grid(images, titles, columns=9, size=1.15, heading=None):
    """Return a figure of faces uint8 `(H, W, 3)` in rows of `columns`, each under its title (one or two lines)."""
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


def learning_curves(history, baseline=None, name="", loss_in_years=True):
    """Return a figure of the `history` of `training.fit` (`epoch, train_loss, valid_mae, lr`), its best epoch marked.

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
    train, dots = error if loss_in_years else axes["loss"], {"marker": "o", "markersize": 4}
    train.plot(epochs, history["train_loss"], color=PART_COLOURS["train"], label="training set", **dots)
    error.plot(epochs, history["valid_mae"], color=PART_COLOURS["valid"], label="validation set", **dots)
    label = f"best: {best['valid_mae']:.2f}, epoch {best['epoch']:.0f}"
    error.plot(best["epoch"], best["valid_mae"], "*", color=RED, markersize=16, label=label, linestyle="none")
    error.set(title=f"{name}: error" if name else "Error", ylabel="mean absolute error, years", xlabel="epoch")
    if not loss_in_years:
        axes["loss"].set_title("Loss, training set")
    axes["lr"].plot(epochs, 1000 * history["lr"], color=PINK, **dots)
    axes["lr"].set(title="Learning rate × 1000", xlabel="epoch", ylim=(0, None))
    for axis in axes.values():
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.tick_params(labelsize=10)
    figure.legend(*error.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def predicted_against_true(true, predicted, title, mae_text="", ages=(20, 50)):
    """Return a figure of predictions over true ages (years `(N,)`), with the diagonal, ±5 years and running medians."""
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
    """Return a figure of the MAE and the bias of one or more models per age band.

    `bands`: the name of a model → its table of `evaluation.by_age_band`, with `n, mae, bias` and the bands as index.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8))
    first = next(iter(bands.values()))
    places = np.arange(len(first))
    for axis, column in zip(axes, ("mae", "bias")):
        for i, ((name, table), colour) in enumerate(zip(bands.items(), colours_of(bands))):
            beside = 0.09 * (i - (len(bands) - 1) / 2)  # so that equal points stay visible
            look = {"color": colour, "marker": "osD^vPX*"[i % 8], "linewidth": 1.5, "label": _label(name)}
            axis.plot(places + beside, table[column], **look)
        axis.set_xticks(places, [f"{band}\nn={n}" for band, n in zip(first.index, first["n"])], fontsize=9)
        axis.set(xlabel="true age, years", xlim=(-0.5, len(first) - 0.5))
        axis.grid(axis="x", visible=False)
    axes[1].axhline(0, color=BLACK, linewidth=1)
    axes[0].set(title="How far off", ylabel="MAE, years", ylim=(0, None))
    axes[1].set(title="Too old (+) or too young (−)", ylabel="bias, years")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def results_chart(table):
    """Return a figure of the MAE of each row of `table` with its 95% interval, the first row at the top.

    Columns: `model, mae, mae_low, mae_high` (years) and `parameters`, 0 for a baseline.
    """
    sizes = [f"\n{count:,.0f} parameters" if count else "" for count in table["parameters"]]
    figure, axis = plt.subplots(figsize=(WIDTH, 1.0 + 0.5 * len(table)))
    for i, row in enumerate(table.itertuples()):
        colour, text = colour_of(row.model), f"{row.mae:.2f} ({row.mae_low:.2f} to {row.mae_high:.2f})"
        axis.plot([row.mae_low, row.mae_high], [i, i], color=colour, linewidth=3, alpha=0.55)
        axis.plot(row.mae, i, "o", color=colour, markersize=9)
        axis.text(1.02, i, text, transform=axis.get_yaxis_transform(), va="center", fontsize=10)
    axis.set_yticks(range(len(table)), table["model"] + sizes, fontsize=10)
    axis.set(ylim=(len(table) - 0.4, -0.6), xlabel="MAE with 95% interval, years")
    axis.grid(axis="y", visible=False)
    return figure


def lines(curves, xlabel, ylabel, mark=None, marked=""):
    """Return a figure with a line per curve: a name → a table with x as index and `value`, and a band of `low, high`.

    `mark`: an x that gets a dashed line, which the legend calls `marked`.
    """
    figure, axis = plt.subplots(figsize=(WIDTH * 0.75, 3.8))
    for (name, table), colour in zip(curves.items(), colours_of(curves)):
        axis.plot(table.index, table["value"], color=colour, linewidth=2.2, label=_label(name))
        if "low" in table:
            axis.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.15, linewidth=0)
    if mark is not None:
        axis.axvline(mark, color=BLACK, linewidth=1, linestyle=":", label=marked)
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axis.margins(x=0)
    figure.legend(loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    return figure
