"""Fit the shipped network to photos of yours whose ages you know: `python -m commands.adapt <photos with ages>`.

A straight line through its answers is fitted to the ages. Nothing is trained. 30 photos are the least, and a few
hundred are better: `tests/bench/start.py` compares this with a training. The ages are told as for `AGE_DATA`
(data/YOUR_PHOTOS.md).
"""

import argparse
import sys

import numpy as np
import onnx
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold, cross_val_predict

from helpers import datasets, deploy, evaluation, export, labels, paths

from .phone import path_of
from .shipped import through_the_detector

LEAST = 30  # photos with one face


def main(arguments=None):
    """Write the adapted model, and print how far it errs on photos that the line was not fitted to."""
    parser = argparse.ArgumentParser(prog="python -m commands.adapt", description=__doc__.partition(":")[0] + ".")
    parser.add_argument("photos", type=path_of, help="a folder or a CSV that tells the age in each photo")
    parser.add_argument("--model", type=path_of, default=deploy.SHIPPED, help="the ONNX file to begin with")
    parser.add_argument("--out", type=path_of, default="adapted.onnx", help="where the adapted model goes")
    options = parser.parse_args(arguments)
    try:
        if options.out.exists():
            raise FileExistsError(f"{options.out} exists and is not replaced: name another file with --out.")
        model = export.load(options.model)
        if "line" in export.facts_of(model):
            raise ValueError(f"{options.model} was fitted to photos already: begin with the network before that.")
        told, ages, people = answers(model, options.photos)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    fits = cross_val_predict(LinearRegression(), told[:, None], ages, groups=people, cv=GroupKFold(10))
    errors = {"as it is": np.abs(told - ages), "with a line fitted": np.abs(fits - ages)}
    errors["guessing the median"] = np.abs(np.median(ages) - ages)
    print(f"{len(ages)} photos of {len(np.unique(people))} people; the line is tested on those it was not fitted to:")
    for name, error in errors.items():
        print("{}: MAE {:.2f} years [{:.2f}, {:.2f}]".format(name, *evaluation.mean_interval(error, people)))
    if errors["with a line fitted"].mean() >= errors["as it is"].mean():
        sys.exit("The line does not help: take the network as it is. Nothing was written.")
    line = LinearRegression().fit(told[:, None], ages)
    facts = export.facts_of(model) | {"mae": float(errors["with a line fitted"].mean())}
    facts |= {"half_width": evaluation.conformal_radius(errors["with a line fitted"])}
    facts |= {"data": f"{facts.get('data', 'photos')}, fitted to {options.photos.name}", "fitted_to": len(ages)}
    facts.pop("elsewhere", None)  # an error of the network as it was
    try:
        write(options.model, options.out, float(line.coef_[0]), float(line.intercept_), facts)
    except OSError as error:
        sys.exit(f"{options.out} cannot be written ({error.strerror}): name another file with --out.")
    print(f"{options.out} is written: python -m commands.ages --model {options.out} <photos>")


def answers(model, photos):
    """Return the answers of `model` to the photos with one face `(N,)`, their ages `(N,)` and people `(N,)`."""
    facts, faces = export.facts_of(model), labels.find_faces(photos).dropna(subset="age")
    known = faces["age"].between(*facts["ages"])
    if not known.all():
        print("{} photos are left out: the network knows ages from {} to {}.".format((~known).sum(), *facts["ages"]))
    faces = faces[known]
    met, crops, ages = through_the_detector(faces, labels.root_of(photos), facts["margin"])
    if len(met) < LEAST:
        raise ValueError(f"{photos}: one face was found in {len(met)} photos, and {LEAST} are needed: add photos.")
    people = faces["person"].fillna(faces["path"]).to_numpy(str)[met]
    datasets.check_groups(people, LEAST)
    return export.years_of(model, crops).astype(float), ages, people


def write(model, out, slope, offset, facts):
    """Write the ONNX file `model` to `out`, its answers multiplied by `slope` and moved by `offset` years."""
    whole = onnx.load(model)
    answer = whole.graph.output[0].name
    for node in whole.graph.node:
        node.output[:] = [f"{name}_before" if name == answer else name for name in node.output]
    of_line = {"slope": slope, "offset": offset}
    for name, value in of_line.items():
        whole.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    whole.graph.node.append(onnx.helper.make_node("Mul", [f"{answer}_before", "slope"], ["straightened"]))
    whole.graph.node.append(onnx.helper.make_node("Add", ["straightened", "offset"], [answer]))
    with paths.atomic(out) as temporary:
        onnx.save(whole, temporary)
    export.write_facts(out, **facts, line=of_line)


if __name__ == "__main__":
    main()
