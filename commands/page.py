"""The model as one web page that estimates an age on the device that opens it, without a network."""

import base64
import gzip
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import redirect_stdout
from functools import lru_cache
from hashlib import sha256
from io import StringIO
from pathlib import Path

import torch

from helpers.align import CERTAIN, GHOST, LARGEST, SURE, detector
from helpers.export import MADE_BY, facts_of, load
from helpers.images import BLURRED, NOISY
from helpers.paths import ROOT, atomic

RUNTIME = "onnxruntime-web@1.30.0"  # the npm package (MIT) that runs ONNX models in a browser
FILES = {  # of it, with their SHA-256
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


def fetch_runtime(folder=ROOT / "runs" / "onnxruntime-web-1.30.0") -> Path:
    """Return `folder` with the two files of onnxruntime-web that a page needs, fetched with npm if they are not there.

    Raises `OSError` with the remedy without npm or a network, and when the files are not those that are known.
    """
    if all((folder / name).exists() and _digest((folder / name).read_bytes()) == FILES[name] for name in FILES):
        return folder
    if not shutil.which("npm"):
        raise OSError(f"The page needs {RUNTIME}: install npm (a part of Node.js) and run this again.")
    with tempfile.TemporaryDirectory() as place:
        command = [shutil.which("npm"), "pack", "--silent", RUNTIME]
        try:
            subprocess.run(command, cwd=place, capture_output=True, check=True, timeout=300)
            with tarfile.open(next(Path(place).glob("*.tgz"))) as archive:
                found = {name: archive.extractfile(f"package/dist/{name}").read() for name in FILES}
        except Exception as error:  # of npm, the network, the time limit or the archive
            raise OSError(f"npm could not fetch {RUNTIME} in five minutes: run this again with a network.") from error
    if wrong := [name for name in FILES if _digest(found[name]) != FILES[name]]:
        raise OSError(
            f"npm fetched another {wrong[0]} than that of {RUNTIME}, so it is not used: check npm's registry."
        )
    for name, content in found.items():
        with atomic(folder / name) as temporary:
            temporary.write_bytes(content)
    return folder


def write_page(model_file, page, runtime):
    """Write the web page `page` that holds the model in `model_file` (ONNX) and the files of the folder `runtime`.

    It takes a photo, finds the faces as `align.detect` does, crops them with the margin of the training pictures and
    estimates. Where it finds none, or was written without facenet-pytorch, a person marks the eyes.
    Raises what `load` raises, and `ValueError` when the model does not know how faces are cropped.
    """
    facts = facts_of(load(model_file))
    if not facts["margin"] or not facts.get("ages"):
        raise ValueError(f"{model_file} lacks the margin or the ages: run {MADE_BY} again with the face detector.")
    shown = {name: facts[name] for name in ("margin", "half_width", "ages")}
    shown |= {"scores": [GHOST, SURE, CERTAIN], "largest": LARGEST}
    parts = {
        "FACTS": json.dumps(shown | {"noisy": NOISY, "blurred": BLURRED}).replace("<", "\\u003c"),  # ends no script
        "AGES": "{:.0f} to {:.0f}".format(*facts["ages"]),
        "DATA": "synthetic faces, so it is a demonstration" if facts.get("data") == "demo" else "photos",
        "MODEL": _packed(model_file),
        "RUNTIME": _packed(runtime / "ort.wasm.bundle.min.mjs"),
        "WASM": _packed(runtime / "ort-wasm-simd-threaded.wasm"),
        "DETECTOR": Path(__file__).with_name("phone_faces.js").read_text(encoding="utf-8"),
        "NETS": json.dumps(detector_nets()),
    }
    text = Path(__file__).with_name("phone.html").read_text(encoding="utf-8")
    with atomic(page) as temporary:
        temporary.write_text(re.sub(r"{{(\w+)}}", lambda name: parts[name[1]], text), encoding="utf-8")


@lru_cache
def detector_nets() -> list:
    """Return the three networks of the face detector as ONNX, packed for the page; none without facenet-pytorch."""
    try:
        mtcnn = detector()
    except ImportError as missing:
        print(f"The page will not find faces by itself, a person must mark the eyes: {missing}")
        return []
    free, many, nets = torch.export.Dim.DYNAMIC, {0: torch.export.Dim("faces", min=1)}, []
    with tempfile.TemporaryDirectory() as place, redirect_stdout(StringIO()):  # the exporter tells every step
        for net, shape, dims, outputs in (
            (mtcnn.pnet, (1, 3, 65, 72), {2: free, 3: free}, ["change", "sure"]),
            (mtcnn.rnet, (2, 3, 24, 24), many, ["change", "sure"]),
            (mtcnn.onet, (2, 3, 48, 48), many, ["change", "points", "sure"]),
        ):
            how = {"input_names": ["pixels"], "output_names": outputs, "external_data": False, "verbose": False}
            torch.onnx.export(net, (torch.zeros(shape),), f"{place}/net.onnx", dynamic_shapes=(dims,), **how)
            nets.append(_packed(f"{place}/net.onnx"))
    return nets


def _packed(file):
    return base64.b64encode(gzip.compress(Path(file).read_bytes(), mtime=0)).decode()


def _digest(content):
    return sha256(content).hexdigest()
