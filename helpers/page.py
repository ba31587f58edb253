"""The model as one web page that estimates an age on the device that opens it, without a network."""

import base64
import gzip
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .export import facts_of, load
from .images import BLURRED, NOISY
from .paths import ROOT, atomic

RUNTIME = "onnxruntime-web@1.30.0"  # the npm package (MIT) that runs ONNX models in a browser
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def fetch_runtime(folder=ROOT / "runs" / "onnxruntime-web-1.30.0") -> Path:
    """Return `folder` with the two files of onnxruntime-web that a page needs, fetched with npm if they are not there.

    Raises `OSError` with the remedy without npm or a network.
    """
    if all((folder / name).exists() for name in FILES):
        return folder
    if not shutil.which("npm"):
        raise OSError(f"The page needs {RUNTIME}: install npm (a part of Node.js) and run this again.")
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [shutil.which("npm"), "pack", "--silent", RUNTIME], cwd=place, capture_output=True, encoding="utf-8"
        )
        packed = next(Path(place).glob("*.tgz"), None)
        if done.returncode or not packed:
            raise OSError(f"npm could not fetch {RUNTIME}: run this again with a network.")
        with tarfile.open(packed) as archive:
            for name in FILES:
                with atomic(folder / name) as temporary, archive.extractfile(f"package/dist/{name}") as content:
                    temporary.write_bytes(content.read())
    return folder


def write_page(model_file, page, runtime):
    """Write the web page `page` that holds the model in `model_file` (ONNX) and the files of the folder `runtime`.

    It takes a photo, lets a person mark the eyes, crops it with the margin of the training pictures and estimates.
    Raises what `load` raises.
    """
    facts = facts_of(load(model_file))
    shown = {"margin": facts["margin"][:2], "half_width": facts["half_width"], "noisy": NOISY, "blurred": BLURRED}
    parts = {
        "FACTS": json.dumps(shown),
        "DATA": "synthetic faces, so it is a demonstration" if facts.get("data") == "demo" else "photos",
        "MODEL": _packed(model_file),
        "RUNTIME": _packed(runtime / FILES[0]),
        "WASM": _packed(runtime / FILES[1]),
    }
    text = Path(__file__).with_name("phone.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace("{{" + name + "}}", part)
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _packed(file):
    return base64.b64encode(gzip.compress(Path(file).read_bytes(), mtime=0)).decode()
