"""The web page that finds faces and estimates ages on a phone, without a training: `python -m commands.phone`."""

import argparse
import os
import sys
from pathlib import Path

from helpers import deploy
from helpers.paths import ROOT, run_dir

from . import page


def main(arguments=None):
    """Write the page and say which model is in it. Exits with one sentence when there is no model or no npm."""
    parser = argparse.ArgumentParser(prog="python -m commands.phone", description=__doc__.partition(":")[0] + ".")
    parser.add_argument("--model", type=path_of, help="an ONNX file; the compact one, shipped or trained, if omitted")
    parser.add_argument("--out", type=path_of, help="where the page goes; runs/<data name>/phone.html if omitted")
    options = parser.parse_args(arguments)
    try:
        model, out = options.model or model_for_a_phone(), options.out or run_dir() / "phone.html"
        page.write_page(model, out, page.fetch_runtime())
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, with the model {model}. Copy it to a phone and open it.")


def model_for_a_phone() -> Path:
    """Return the compact model of `data/models`, else that of notebook 09 in 8 bits, else the best that it exported."""
    shipped = sorted((ROOT / "data" / "models").glob("*compact*.onnx"))
    own = sorted((run_dir() / "deploy").glob("compact*int8.onnx"))
    return next(iter(shipped + own), None) or deploy.best_model()


def path_of(text) -> Path:
    """Return the path that a command line names; `~` is the home folder also where the shell leaves it."""
    return Path(os.path.expanduser(text))


if __name__ == "__main__":
    main()
