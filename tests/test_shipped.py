"""What the networks of data/models learn from: every age often enough, every picture changed."""

import numpy as np
import pandas as pd
import pytest
import torch

from commands import shipped


def faces_of(counts):
    """Return a table with so many pictures of each origin and age, named as in UTKFace."""
    rows = [(f"{age}/{age}_0_{origin}_{i}.jpg", age) for (origin, age), n in counts.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["path", "age"])


def test_what_is_rare_in_a_group_of_origin_is_seen_more_often():
    faces = faces_of({(0, 25): 400, (0, 55): 400, (2, 25): 400, (2, 55): 25})
    rows = np.arange(len(faces))
    seen = faces.loc[shipped.balanced(faces, rows)]
    assert len(seen) == 2 * len(faces)
    share = seen["path"].str.extract(r"(\d+)_0_(\d)_").value_counts(normalize=True)
    # The square root of how many there are: 20, 20, 20 and 5 of 65
    assert share["55", "2"] == pytest.approx(5 / 65, abs=0.01)
    assert share["25", "2"] == share["25", "0"] == pytest.approx(20 / 65, abs=0.01)


def test_without_a_power_every_picture_is_seen_equally_often():
    faces = faces_of({(1, 30): 7, (3, 40): 13})
    rows = np.arange(3, 20)
    assert np.array_equal(np.bincount(shipped.balanced(faces, rows, power=0, times=3), minlength=20)[3:], [3] * 17)


def test_no_picture_of_another_set_is_seen():
    faces = faces_of({(0, 25): 50, (0, 55): 3})
    rows = np.arange(0, 53, 2)
    assert set(shipped.balanced(faces, rows)) <= set(rows)


def test_photos_without_such_names_are_balanced_by_age_alone():
    faces = pd.DataFrame({"path": [f"{i}.png" for i in range(110)], "age": [25] * 100 + [55] * 10})
    seen = faces["age"][shipped.balanced(faces, np.arange(110))]
    assert (seen == 55).mean() == pytest.approx(10**0.5 / (10 + 10**0.5), abs=0.02)


def test_the_augmentation_keeps_the_form_and_changes_the_picture():
    torch.manual_seed(0)
    image = torch.randint(256, (3, 128, 128), dtype=torch.uint8)
    before, changed = image.clone(), [shipped.robust_augmentation(image) for _ in range(40)]
    assert all(other.shape == (3, 128, 128) and other.dtype == torch.uint8 for other in changed)
    assert torch.equal(image, before) and len({other.numpy().tobytes() for other in changed}) == 40
    assert any(torch.equal(other[0], other[2]) for other in changed)  # some are grey
