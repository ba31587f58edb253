"""The figures of notebooks 05 to 08: each is drawn, equal input gives equal files, the diagrams' texts stay apart."""

import warnings
from itertools import combinations

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
SHIPPED = RESULTS.assign(runtime=["PyTorch", "ONNX INT8"], size=[35.1, 0.7], median=[4.0, 0.6])
CURVE = pd.DataFrame({"value": [4.0, 5], "low": [3.5, 4], "high": [4.5, 6]}, index=[0.8, 1.0])
MEANS = pd.Series([24.0, 33, 44], index=[20, 35, 50])
GROUPS = pd.DataFrame(
    [(group, model, 9, 4.0, 3, 5, bias, bias - 1, bias + 1) for group, bias in (("women", -2), ("men", 1))
     for model in ("SimpleCNN", "ResNet")],
    columns=["group", "model", "people", "mae", "mae_low", "mae_high", "bias", "bias_low", "bias_high"],
)  # fmt: skip
COVERAGE = pd.DataFrame(
    [(band, kind, 30, 0.9, 0.8, 0.97, 15.0) for kind in ("constant", "adaptive") for band in ("20-24", "25-29")],
    columns=["band", "kind", "n", "coverage", "low", "high", "width"],
)
SHIFTS = pd.DataFrame(
    [("light", "left", 9, -0.5, -1.0, 0.1, 1.5, 1.2), ("skin_tone", "0.50", 1, 2.0, 2.0, 2.0, np.nan, 2.0)],
    columns=["factor", "level", "people", "shift", "low", "high", "spread", "size"],
)
SIZES = pd.DataFrame({"full recipe": [1.0, 2], "no augmentation": [2.0, 2]}, index=["light", "skin_tone"])


def layers(widths, hidden):
    maps = [(f"block {i}", (width, 128 >> i, 128 >> i)) for i, width in enumerate(widths, 1)]
    return [("input", (3, 128, 128)), *maps, ("flatten", (widths[-1] * 64,)), ("linear", (hidden,)), ("age", (1,))]


FULL, COMPACT = layers((32, 64, 128, 256), 512), layers((16, 32, 64, 128), 64)
DRAW = {
    "cnn_diagram": lambda: figures.cnn_diagram(FULL),
    "cnn_diagram, compact": lambda: figures.cnn_diagram(COMPACT),
    "method_diagram": lambda: figures.method_diagram(FACES),
    "learning_curves": lambda: figures.learning_curves(HISTORY, 7.4, "SimpleCNN"),
    "learning_curves, other unit": lambda: figures.learning_curves(HISTORY, loss_in_years=False),
    "predicted_against_true": lambda: figures.predicted_against_true([20, 30, 50], [25.0, 30, 45], "test", "MAE 3.3"),
    "predicted_against_true, many": lambda: figures.predicted_against_true([20, 50] * 2000, [25.0, 60] * 2000, "test"),
    "error_by_age": lambda: figures.error_by_age({"SimpleCNN": BANDS, "ResNet": BANDS}),
    "results_chart": lambda: figures.results_chart(RESULTS),
    "augmentation_grid": lambda: figures.augmentation_grid(FACES[:2], [FACES, FACES], ["mild", "strong"]),
    "size_and_speed": lambda: figures.size_and_speed(SHIPPED),
    "lines": lambda: figures.lines({"SimpleCNN": CURVE, "ResNet": CURVE[["value"]] + 1}, "zoom", "MAE", 1.0, "as is"),
    "pull_and_calibration": lambda: figures.pull_and_calibration({"ResNet": MEANS}, {"ResNet": MEANS}),
    "groups_chart": lambda: figures.groups_chart(GROUPS),
    "coverage_chart": lambda: figures.coverage_chart(COVERAGE, 0.9),
    "factor_shifts": lambda: figures.factor_shifts({"SimpleCNN": SHIFTS, "ResNet": SHIFTS}),
    "factor_sizes": lambda: figures.factor_sizes(SIZES),
    "heat_maps": lambda: figures.heat_maps({"trained": (FACES, np.eye(4)[:3, None] - 0.5)}, ["20", "30", "40"]),
    "difference_histogram": lambda: figures.difference_histogram([-0.4, -0.3, -0.2], -0.3, -0.4, -0.2, ("A", "B")),
}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plt.switch_backend("agg")
        figures.use_style()
        plt.rcParams["savefig.dpi"] = 40  # fast: what is compared does not depend on it
        yield
    plt.close("all")


@pytest.mark.parametrize("name", DRAW)
def test_equal_input_gives_equal_files(name, tmp_path):
    figure = DRAW[name]()
    assert isinstance(figure, Figure)
    assert figure.get_figwidth() <= figures.WIDTH
    figures.show(figure, tmp_path / "first.png")
    figures.show(DRAW[name](), tmp_path / "second.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"first.png", "second.png"}  # no temporary file stays


@pytest.mark.parametrize("name", DRAW)
def test_no_warning_under_the_cell(name, tmp_path):
    figure = DRAW[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "saved.png")
        figure.savefig(tmp_path / "inline.png", bbox_inches="tight")  # how JupyterLab shows a figure


@pytest.mark.parametrize("name", ["cnn_diagram", "cnn_diagram, compact", "method_diagram"])
def test_texts_of_a_diagram_stay_apart_and_on_the_page(name):
    figure = DRAW[name]()
    figure.canvas.draw()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(texts) > 15
    boxes = {text: text.get_window_extent() for text in texts}
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text.get_text()
    for one, other in combinations(texts, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())


@pytest.mark.parametrize(("shapes", "total"), [(FULL, "8,778,049 parameters"), (COMPACT, "621,857 parameters")])
def test_diagram_counts_the_parameters(shapes, total):
    assert total in [text.get_text() for text in figures.cnn_diagram(shapes).axes[0].texts]


def test_the_best_epoch_is_marked():
    legend = figures.learning_curves(HISTORY).legends[0]
    assert "best: 4.00, epoch 2" in [text.get_text() for text in legend.get_texts()]


def test_short_keeps_both_ends_of_a_long_name():
    assert figures.short("a.jpg") == "a.jpg"
    cut = figures.short("IMG_20240101_123456_portrait.jpg", 22)
    assert len(cut) == 22 and cut.startswith("IMG_2024") and cut.endswith("rait.jpg")


def test_the_frontier_joins_only_what_nothing_beats_twice():
    table = pd.DataFrame({"model": list("abcd"), "runtime": "r", "size": [1.0, 2, 3, 4], "median": [4.0, 3, 2, 1]})
    table["mae"] = [5.0, 6.0, 4.0, 4.5]
    left, right = figures.size_and_speed(table.assign(mae_low=table["mae"] - 1, mae_high=table["mae"] + 1)).axes
    lines = [[tuple(point) for point in axis.lines[-1].get_xydata()] for axis in (right,)]
    lines += [[tuple(point) for point in line.get_xydata()] for line in left.lines if len(line.get_xdata()) > 1]
    assert lines[0] == [(1.0, 4.5), (2.0, 4.0)]
    assert [(1.0, 5.0), (3.0, 4.0)] in lines


def test_groups_and_factors_are_named_in_the_order_of_their_tables():
    assert [t.get_text() for t in figures.groups_chart(GROUPS).axes[0].get_yticklabels()] == [
        "women\n9 people",
        "men\n9 people",
    ]
    axis = figures.factor_shifts({"ResNet": SHIFTS}).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["light, left", "skin tone, 0.50"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is at the top


def test_a_map_is_red_where_it_is_positive_and_zero_is_white():
    image = figures.heat_maps({"trained": (FACES[:1], np.array([[[4.0, -1]]]))}, ["20"]).axes[0].images[1]
    assert image.get_clim() == (-4, 4) and image.get_cmap().name == "RdBu_r"
