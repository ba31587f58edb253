"""The diagrams of notebook 05: their texts stay apart and on the page, and the parameters are counted."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers import figures
from pics import diagrams


def layers(widths, hidden):
    maps = [(f"block {i}", (width, 128 >> i, 128 >> i)) for i, width in enumerate(widths, 1)]
    return [("input", (3, 128, 128)), *maps, ("flatten", (widths[-1] * 64,)), ("linear", (hidden,)), ("age", (1,))]


FACES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
FULL, COMPACT = layers((32, 64, 128, 256), 512), layers((16, 32, 64, 128), 64)
DRAW = {
    "cnn_diagram": lambda: diagrams.cnn_diagram(FULL),
    "cnn_diagram, compact": lambda: diagrams.cnn_diagram(COMPACT),
    "method_diagram": lambda: diagrams.method_diagram(FACES),
    "method_diagram, one face": lambda: diagrams.method_diagram(FACES[:1]),
}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plt.switch_backend("agg")
        figures.use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("name", DRAW)
def test_texts_of_a_diagram_stay_apart_and_on_the_page(name):
    figure = DRAW[name]()
    figure.canvas.draw()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(texts) > 15 and figure.get_figwidth() == figures.WIDTH
    boxes = {text: text.get_window_extent() for text in texts}
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text.get_text()
    for one, other in combinations(texts, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())


@pytest.mark.parametrize(("shapes", "total"), [(FULL, "8,778,049 parameters"), (COMPACT, "621,857 parameters")])
def test_a_diagram_counts_the_parameters(shapes, total):
    assert total in [text.get_text() for text in diagrams.cnn_diagram(shapes).axes[0].texts]


def test_the_residual_block_leads_x_around_f():
    figure = diagrams.residual_block()
    figure.canvas.draw()
    texts = figure.axes[0].texts
    words = [text.get_text() for text in texts]
    assert words[0] == "x" and words.count("3×3\nconvolution") == 2 and "y" in words
    boxes = [text.get_window_extent() for text in texts if text.get_text() not in ("", "f(x)", "shortcut: x as it is")]
    assert all(one.x1 < other.x0 for one, other in zip(boxes, boxes[1:]))  # from left to right, none on another
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_a_group_stands_before_a_wall_with_its_faces_where_they_were_asked_for(shipped):
    photo = diagrams.group_photo(shipped[:2], [(0, 320, 0), (500, 160, 0)], height=300, width=700)
    assert photo.shape == (300, 700, 3) and photo.dtype == np.uint8
    for face, (left, side) in zip(shipped, ((0, 320), (500, 160))):
        middle = round(300 - 0.46 * side), round(left + side / 2)
        nose = face[len(face) // 2, len(face) // 2].astype(int)
        assert np.abs(photo[middle] - nose).max() < 25  # enlarged, so not equal
    wall = photo[:, 400:480].astype(int)
    assert (wall == wall[:, :1]).all() and wall[0].sum() > wall[-1].sum()
