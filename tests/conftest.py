"""What the tests share. They judge what is committed, so they run on the faces that are shipped."""

import os

import pytest

from helpers import paths

os.environ.pop("AGE_DATA", None)  # before any kernel starts, because the kernels inherit it


@pytest.fixture
def real_photos():
    """The real photos beside the repository; the test is skipped where they are not."""
    folder = paths.ROOT.parent / "shared" / "data" / "utkface"
    if not folder.is_dir():
        pytest.skip("needs the real photos in ../shared/data/utkface")
    return folder
