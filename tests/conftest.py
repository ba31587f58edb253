"""What the tests share. They judge what is committed, so they run on the faces that are shipped."""

import os

import numpy as np
import pytest
import torch
from faces import page, place

from helpers import paths

os.environ.pop("AGE_DATA", None)  # before any kernel starts, because the kernels inherit it


@pytest.fixture
def real_photos():
    """The real photos beside the repository; the test is skipped where they are not."""
    folder = paths.ROOT.parent / "shared" / "data" / "utkface"
    if not folder.is_dir():
        pytest.skip("needs the real photos in ../shared/data/utkface")
    return folder


# Photos of several people, and a model for them, for the tests of deployment


@pytest.fixture(scope="session")
def shipped():
    """Some of the faces that are shipped, uint8 `(160, 160, 3)`."""
    from helpers import images, labels

    paths_of_faces = labels.find_faces(paths.DEMO)["path"]
    return [images.read_image(paths.DEMO / path) for path in paths_of_faces[:: len(paths_of_faces) // 24]]


@pytest.fixture(scope="session")
def margin(shipped):
    from helpers import align, images

    return align.margin_of(np.stack([images.prepare(face) for face in shipped]))


@pytest.fixture(scope="session")
def model_file(margin, tmp_path_factory):
    from helpers import export, models

    torch.manual_seed(0)
    network = models.SimpleCNN(widths=(4, 4, 8, 8), hidden=16)
    file = tmp_path_factory.mktemp("models") / "tiny.onnx"
    export.export(models.start_at(network, 35.0), file)
    export.write_facts(file, margin=margin, half_width=7.5, mae=4.0, data="demo", ages=[20, 50])
    return file


@pytest.fixture(scope="session")
def model(model_file):
    from helpers import export

    return export.load(model_file, threads=1)


@pytest.fixture(scope="session")
def group(shipped):
    """A photo of four people: different sizes, some turned; and where their pictures lie `(x, y, side)`."""
    where = [(150, 200, 120, 0), (420, 500, 300, -12), (760, 180, 180, 10), (950, 560, 150, 0)]
    photo = page(800, 1100)
    for face, (x, y, side, angle) in zip(shipped[::5], where):
        photo = place(photo, face, (x, y), side, angle)
    return photo, [spot[:3] for spot in where]
