"""The figures that several notebooks draw: each function draws what it is given. One palette, one style."""

import re
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.ticker import LogFormatter, LogFormatterMathtext, NullFormatter

from .labels import AGE_MAX, AGE_MIN
from .paths import atomic

# Okabe and Ito 2008: eight colours that colour-blind readers can tell apart.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000"]
BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK = PALETTE
PART_COLOURS = {"train": BLUE, "valid": ORANGE, "test": GREEN}
# A model has one colour in every figure; names that go on, as "ResNet-18, from scratch", are of the same model.
COLOURS = {
    "SimpleCNN": BLUE, "ResNet-18": ORANGE, "face ResNet, frozen": SKY, "face ResNet": GREEN, "compact ResNet": PINK,
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
    for text in figure.findobj(plt.Text):
        text.set_text(legible(text.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        # Matplotlib writes powers of ten as formulas, which the style switches off.
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(LogFormatter())
        if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
            axis.set_minor_formatter(NullFormatter())
        names = [label.get_text() for label in axis.get_ticklabels()]
        if names != [legible(name) for name in names]:
            axis.set_ticks(axis.get_ticklocs(), [legible(name) for name in names])
    with atomic(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})  # no version: equal pictures are equal files
    plt.show()
    plt.close(figure)


def legible(text):
    """Return `text` as it can be drawn: letters that no font has by their number, as U+4E2D."""
    families = [font_manager.FontProperties(family=[name]) for name in plt.rcParams["font.family"]]
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in families]
    known = {letter for letter in {*text} if letter == "\n" or any(font.get_char_index(ord(letter)) for font in fonts)}
    drawn = "".join(letter if letter in known else f"U+{ord(letter):04X}" for letter in text)
    return drawn if drawn == text else "\n".join(short(line, 30) for line in drawn.split("\n"))


def short(text, longest=22):
    """Return `text` on one line, with the middle left out when it is longer than `longest` characters."""
    text = re.sub(r"\s", " ", str(text))
    return text if len(text) <= longest else f"{text[: longest - 9]}…{text[-8:]}"


def colour_of(name):
    """Return the colour of the model `name`, by the first name in `COLOURS` that it begins with; grey without one."""
    return next((colour for model, colour in COLOURS.items() if name.startswith(model)), GREY)


def colours_of(names):
    """Return a colour for each of `names`: that of its model, greys for baselines; the palette where models repeat."""
    models = [colour for colour in map(colour_of, names) if colour != GREY]
    if len(set(models)) < len(models):
        return [colour for _, colour in zip(names, cycle(PALETTE))]
    greys = cycle([GREY, "0.25", "0.7", "0.4"])
    return [next(greys) if colour == GREY else colour for colour in map(colour_of, names)]


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


def learning_curves(history, baseline, name, loss_in_years=True):
    """Return a figure of the `history` of `training.fit` (`epoch, train_loss, valid_mae, lr`), its best epoch marked.

    `baseline`: the MAE in years of guessing the median, or None. A loss in another unit gets a panel of its own.
    """
    panels = [["error", "lr"]] if loss_in_years else [["error", "loss"], ["error", "lr"]]
    figure, axes = plt.subplot_mosaic(panels, figsize=(WIDTH, 3.6), width_ratios=(2.4, 1))
    error, rate, loss = axes["error"], axes["lr"], axes.get("loss", axes["error"])
    epochs, best = history["epoch"], history.loc[history["valid_mae"].idxmin()]
    dots = {"marker": "o", "markersize": 4}
    if baseline is not None:
        error.axhline(baseline, color="0.45", linestyle="--", label=f"guess the median: {baseline:.2f}")
    loss.plot(epochs, history["train_loss"], color=PART_COLOURS["train"], label="training set", **dots)
    error.plot(epochs, history["valid_mae"], color=PART_COLOURS["valid"], label="validation set", **dots)
    label = f"best: {best['valid_mae']:.2f}, epoch {best['epoch']:.0f}"
    error.plot(best["epoch"], best["valid_mae"], "*", color=RED, markersize=16, label=label)
    rate.plot(epochs, 1000 * history["lr"], color=PINK, **dots)
    loss.set(title="Loss, training set")
    error.set(title=f"{name}: error", ylabel="mean absolute error, years", xlabel="epoch")
    rate.set(title="Learning rate × 1000", xlabel="end of epoch", ylim=(0, None))
    for axis in axes.values():
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.tick_params(labelsize=10)
    figure.legend(*error.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def predicted_against_true(true, predicted, title, mae_text):
    """Return a figure of predictions over true ages (years `(N,)`), with the diagonal, ±5 years and running medians."""
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    ends = np.array([min(AGE_MIN, predicted.min()) - 1, max(AGE_MAX, predicted.max()) + 1])
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, WIDTH * 0.62))
    axis.fill_between(ends, ends - 5, ends + 5, color=GREEN, alpha=0.15, linewidth=0, label="within 5 years")
    if len(true) > 3000:
        axis.hexbin(true, predicted, gridsize=31, cmap="Blues", mincnt=1, linewidths=0.1, zorder=1.5)
    else:
        shift = np.random.default_rng(0).uniform(-0.3, 0.3, len(true))  # so that pictures of one age do not coincide
        alpha = min(0.7, 12 / len(true) ** 0.5)
        axis.scatter(true + shift, predicted, s=18, color=BLUE, alpha=alpha, linewidths=0, label="a picture")
    axis.plot(ends, ends, color=BLACK, linewidth=1, linestyle="--", label="no error")
    years = np.unique(true.round())
    medians = [np.median(predicted[np.abs(true - year) <= 2]) for year in years]
    axis.plot(years, medians, color=RED, linewidth=2.5, label="median, true age ±2 years")
    axis.set(xlim=ends, ylim=ends, aspect="equal", title=title, xlabel="true age, years", ylabel="predicted age, years")
    axis.text(0.98, 0.03, mae_text, transform=axis.transAxes, ha="right", fontsize=11)
    axis.legend(fontsize=10, loc="upper left")
    return figure


def error_by_age(bands):
    """Return a figure of MAE and bias per age band. `bands`: a model's name → its table of `evaluation.by_age_band`."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8))
    first = next(iter(bands.values()))
    for axis, column in zip(axes, ("mae", "bias")):
        for i, (name, colour) in enumerate(zip(bands, colours_of(bands))):
            places = np.arange(len(first)) + 0.09 * (i - (len(bands) - 1) / 2)  # so that equal points stay visible
            axis.plot(places, bands[name][column], color=colour, marker="osD^vPX*"[i % 8], label=name)
        axis.set_xticks(range(len(first)), [f"{band}\nn={n}" for band, n in first["n"].items()], fontsize=9)
        axis.set(xlabel="true age, years", xlim=(-0.5, len(first) - 0.5))
        axis.grid(axis="x", visible=False)
    axes[0].set(title="How far off", ylabel="MAE, years", ylim=(0, None))
    axes[1].set(title="Too old (+) or too young (−)", ylabel="bias, years")
    axes[1].axhline(0, color=BLACK, linewidth=1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def results_chart(table):
    """Return a figure of the errors in `table` (`model, mae, mae_low, mae_high, parameters`), the first at the top."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1.0 + 0.5 * len(table)))
    for i, row in enumerate(table.itertuples()):
        axis.plot([row.mae_low, row.mae_high], [i, i], color=colour_of(row.model), linewidth=3, alpha=0.55)
        axis.plot(row.mae, i, "o", color=colour_of(row.model), markersize=9)
        text = f"{row.mae:.2f} ({row.mae_low:.2f} to {row.mae_high:.2f})"
        axis.text(1.02, i, text, transform=axis.get_yaxis_transform(), va="center", fontsize=10)
    sizes = [f"\n{count:,.0f} parameters" if count else "" for count in table["parameters"]]
    axis.set_yticks(range(len(table)), table["model"] + sizes, fontsize=10)
    axis.set(ylim=(len(table) - 0.4, -0.6), xlabel="MAE with 95% interval, years")
    axis.grid(axis="y", visible=False)
    return figure


def lines(curves, xlabel, ylabel, mark=None, marked=""):
    """Return a figure of `curves`, a name → a table of `value` over x, perhaps with a band of `low, high`.

    `mark`: an x with a dashed line, which the legend calls `marked`.
    """
    figure, axis = plt.subplots(figsize=(WIDTH * 0.75, 3.8))
    for (name, table), colour in zip(curves.items(), colours_of(curves)):
        axis.plot(table.index, table["value"], color=colour, linewidth=2.2, label=name)
        if "low" in table:
            axis.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.15, linewidth=0)
    if mark is not None:
        axis.axvline(mark, color=BLACK, linewidth=1, linestyle=":", label=marked)
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axis.margins(x=0)
    figure.legend(loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    return figure
