"""Figures show the values that they are given, with the labels and the colours that belong to them."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from helpers import figures

FACES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
BANDS = pd.DataFrame({"n": [9, 7], "mae": [4.0, 6.0], "bias": [2.0, -3.0]}, index=["20-24", "25-29"])
HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [6.0, 4, 3], "valid_mae": [6.0, 4, 5], "lr": [1e-4, 1e-3, 0]})
RESULTS = pd.DataFrame(
    {
        "model": ["median", "ResNet"],
        "mae": [7.0, 4],
        "mae_low": [6.0, 3],
        "mae_high": [8.0, 5],
        "parameters": [0, 11_000],
    }
)
CURVE = pd.DataFrame({"value": [4.0, 5], "low": [3.5, 4], "high": [4.5, 6]}, index=[0.8, 1.0])

DRAW = {
    "learning_curves": lambda: figures.learning_curves(HISTORY, 7.4, "SimpleCNN"),
    "learning_curves, other unit": lambda: figures.learning_curves(HISTORY, None, "ResNet", loss_in_years=False),
    "predicted_against_true": lambda: figures.predicted_against_true([20, 30, 50], [25.0, 30, 45], "test", "MAE 3.3"),
    "predicted_against_true, many": lambda: figures.predicted_against_true(
        [20, 50] * 2000, [25.0, 60] * 2000, "test", ""
    ),
    "error_by_age": lambda: figures.error_by_age({"SimpleCNN": BANDS, "ResNet": BANDS}),
    "results_chart": lambda: figures.results_chart(RESULTS),
    "lines": lambda: figures.lines({"SimpleCNN": CURVE, "ResNet": CURVE[["value"]] + 1}, "zoom", "MAE", 1.0, "as is"),
}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plt.switch_backend("agg")
        figures.use_style()
        plt.rcParams["savefig.dpi"] = 40  # fast: what is compared does not depend on it
        yield
    plt.close("all")


def texts(found):
    return [text.get_text() for text in found]


def test_a_figure_is_saved_whole_and_closed(tmp_path):
    figures.show(figures.lines({"SimpleCNN": CURVE}, "zoom", "MAE"), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and not plt.get_fignums()
    assert plt.imread(tmp_path / "a.png").shape[1] == round(0.75 * figures.WIDTH * 40)


@pytest.mark.parametrize("name", DRAW)
def test_no_warning_under_the_cell(name, tmp_path):
    figure = DRAW[name]()
    assert isinstance(figure, Figure) and figure.get_figwidth() <= figures.WIDTH
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "saved.png")
        figure.savefig(tmp_path / "inline.png", bbox_inches="tight")  # how JupyterLab shows a figure


def test_a_model_has_one_colour_and_baselines_are_grey():
    assert figures.colour_of("ResNet-18, from scratch") == figures.colour_of("ResNet-18") == figures.ORANGE
    assert figures.colour_of("face ResNet, frozen") != figures.colour_of("face ResNet, fine-tuned") == figures.GREEN
    assert figures.colour_of("compact ResNet") == figures.PINK and figures.colour_of("median") == figures.GREY
    assert figures.colours_of(["face ResNet", "SimpleCNN"]) == [figures.GREEN, figures.BLUE]
    assert figures.colours_of(["SimpleCNN, seed 1", "SimpleCNN, seed 2"]) == figures.PALETTE[:2]  # else they look alike
    assert figures.colours_of(["median", "SimpleCNN", "best possible"]) == ["0.5", figures.BLUE, "0.25"]


def test_faces_stand_under_their_titles_in_rows():
    figure = figures.face_grid(FACES, ["20", "30", "40"], columns=2, heading="Three faces")
    shown = [(axis.get_title(), axis.images[0].get_array()) for axis in figure.axes if axis.images]
    assert len(figure.axes) == 4 and [title for title, _ in shown] == ["20", "30", "40"]
    assert all((array == face).all() for (_, array), face in zip(shown, FACES))
    assert figure.get_suptitle() == "Three faces"


def test_learning_curves_show_both_errors_and_mark_the_best_epoch():
    figure = figures.learning_curves(HISTORY, 7.4, "SimpleCNN")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["training set"].get_ydata().tolist() == [6, 4, 3]
    assert lines["validation set"].get_ydata().tolist() == [6, 4, 5]
    assert lines["best: 4.00, epoch 2"].get_xdata().tolist() == [2]
    assert set(lines["guess the median: 7.40"].get_ydata()) == {7.4}
    assert figure.axes[0].get_ylabel() == "mean absolute error, years"
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([0.1, 1, 0])
    three = figures.learning_curves(HISTORY, None, "ResNet", loss_in_years=False).axes
    titles = [axis.get_title(loc="left") for axis in three]
    assert titles == ["ResNet: error", "Loss, training set", "Learning rate × 1000"]


def test_predictions_stand_over_true_ages():
    figure = figures.predicted_against_true([20, 30, 50], [25.0, 30, 45], "test set", "MAE 3.3")
    (axis,) = figure.axes
    points = axis.collections[1].get_offsets()
    assert points[:, 1].tolist() == [25, 30, 45] and np.abs(points[:, 0] - [20, 30, 50]).max() < 0.5
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines["median, true age ±2 years"] == [[20, 25], [30, 30], [50, 45]]
    assert lines["no error"] == [[19, 19], [51, 51]] and axis.get_xlim() == axis.get_ylim() == (19, 51)
    assert "MAE 3.3" in texts(axis.texts)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("true age, years", "predicted age, years")


def test_errors_of_each_band_have_the_colour_of_their_model():
    left, right = figures.error_by_age({"ResNet-18": BANDS, "SimpleCNN": BANDS + 1}).axes
    assert texts(left.get_xticklabels()) == ["20-24\nn=9", "25-29\nn=7"]
    for axis, column in ((left, "mae"), (right, "bias")):
        assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [[*BANDS[column]], [*BANDS[column] + 1]]
        assert [line.get_color() for line in axis.lines[:2]] == [figures.ORANGE, figures.BLUE]
    assert (left.get_ylabel(), right.get_ylabel()) == ("MAE, years", "bias, years")


def test_results_are_points_with_intervals_the_first_at_the_top():
    (axis,) = figures.results_chart(RESULTS.assign(model=["median", "ResNet-18, from scratch"])).axes
    intervals, points = axis.lines[::2], axis.lines[1::2]
    assert [line.get_xdata().tolist() for line in intervals] == [[6, 8], [3, 5]]
    assert [line.get_xdata().tolist() for line in points] == [[7], [4]]
    assert [line.get_color() for line in points] == [figures.GREY, figures.ORANGE]
    assert texts(axis.get_yticklabels()) == ["median", "ResNet-18, from scratch\n11,000 parameters"]
    assert texts(axis.texts) == ["7.00 (6.00 to 8.00)", "4.00 (3.00 to 5.00)"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]


def test_lines_have_a_band_where_there_is_one_and_a_mark():
    figure = figures.lines({"SimpleCNN": CURVE, "ResNet-18": CURVE[["value"]] + 1}, "zoom", "MAE", 1.0, "as is")
    (axis,) = figure.axes
    assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [[4, 5], [5, 6]]
    (band,) = axis.collections
    assert band.get_paths()[0].get_extents().get_points().tolist() == [[0.8, 3.5], [1.0, 6.0]]
    assert texts(figure.legends[0].get_texts()) == ["SimpleCNN", "ResNet-18", "as is"]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_ylim()[0]) == ("zoom", "MAE", 0)


# What users call their files and groups

NAMES = {
    "a $ alone": ("a$b", "a$b"),
    "a formula that is none": ("$x_{ $\\frac{", "$x_{ $\\frac{"),
    "Chinese": ("照.jpg", "U+7167.jpg"),
    "Korean": ("남", "U+B0A8"),
    "an emoji": ("\U0001f9ff", "U+1F9FF"),
    "not UTF-8": ("a\udce9.jpg", "aU+DCE9.jpg"),
    "a tab": ("a\tb", "aU+0009b"),
    "Arabic, which Matplotlib joins and turns": ("أحمد.jpg", "أحمد.jpg"),
    "Latin with accents": ("Zoë Ångström", "Zoë Ångström"),
    "Greek and Russian": ("Ωμ Жанна", "Ωμ Жанна"),
    "two lines": ("照\n20 years", "U+7167\n20 years"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_any_name_is_drawn_as_text_without_a_warning(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "close", lambda figure: None)
    plt.rcParams["font.family"] = ["sans-serif"]  # whatever fonts this machine has besides
    (name, drawn), figure = NAMES[kind], plt.figure()
    axis = figure.add_subplot()
    axis.plot([1, 2], [1, 1000], label=name)
    axis.set(title=name, xlabel=name, xticks=[1, 2], xticklabels=[name, "other"], yscale="log")
    axis.legend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.show(figure, tmp_path / "a.png")
    assert [axis.get_title("left"), axis.get_xlabel(), axis.get_xticklabels()[0].get_text()] == [drawn] * 3
    assert texts(axis.get_legend().get_texts()) == [drawn]
    assert not any("$" in label or "mathdefault" in label for label in texts(axis.get_yticklabels()))


def test_a_name_of_letters_that_cannot_be_drawn_stays_short_and_keeps_its_ends():
    plt.rcParams["font.family"] = ["sans-serif"]
    assert figures.legible("照" * 30 + ".jpg") == "U+7167U+7167U+7167U+7…7167.jpg"


def test_fonts_of_the_system_are_used_and_missing_ones_are_not_asked_for():
    present = {font.name for font in figures.font_manager.fontManager.ttflist}
    assert plt.rcParams["font.family"][0] == "sans-serif" and set(plt.rcParams["font.family"][1:]) <= present


def test_more_models_than_colours_are_drawn():
    many = {f"model {i}": BANDS for i in range(12)} | {f"SimpleCNN, seed {i}": BANDS for i in range(12)}
    assert len(figures.error_by_age(many).axes[0].lines) == 24


def test_short_is_one_line():
    assert figures.short("a\n\tb.jpg") == "a  b.jpg"


def test_short_keeps_both_ends_of_a_long_name():
    assert figures.short("a.jpg") == "a.jpg"
    cut = figures.short("IMG_20240101_123456_portrait.jpg", 22)
    assert len(cut) == 22 and cut.startswith("IMG_2024") and cut.endswith("rait.jpg")


def test_own_labels_of_a_logarithmic_axis_stay(tmp_path):
    figure, (own, usual) = plt.subplots(1, 2)
    for axis in (own, usual):
        axis.plot([30, 3199], [5, 3])
        axis.set(xscale="log")
    own.set_xticks([30, 300, 3199], ["30", "300", "all"])
    figures.show(figure, tmp_path / "a.png")
    assert [label.get_text() for label in own.get_xticklabels()] == ["30", "300", "all"]
    assert not [label.get_text() for label in usual.get_xticklabels() if "$" in label.get_text()]
