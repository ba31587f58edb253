"""Fit the shipped network to photos of yours whose ages you know: `python -m commands.adapt <photos with ages>`.

A straight line through its answers is fitted to the ages. Nothing is trained. 30 photos are the least, and a few
hundred are better: `tests/bench/start.py` compares this with a training. The ages are given as for `AGE_DATA`
(data/YOUR_PHOTOS.md).
"""

import argparse
import sys

import numpy as np
import onnx
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold, cross_val_predict

from helpers import deploy, evaluation, export, labels, paths

from .phone import path_of
from .shipped import through_the_detector

LEAST, PEOPLE = 30, 10  # photos with one face, and of how many people, as there are ten folds


def main(arguments=None):
    """Write the adapted model, and print how far it errs on photos that the line was not fitted to."""
    parser = argparse.ArgumentParser(prog="python -m commands.adapt", description=__doc__.partition(":")[0] + ".")
    parser.add_argument("photos", type=path_of, help="a folder or a CSV that gives the age in each photo")
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
    fits = cross_validated(told, ages, people).clip(*export.facts_of(model)["ages"])  # as `write` has it
    errors = {"as it is": np.abs(told - ages), "with a line fitted": np.abs(fits - ages)}
    errors["guessing the median"] = np.abs(np.median(ages) - ages)
    print(f"{len(ages)} photos of {len(np.unique(people))} people; the line is tested on those it was not fitted to:")
    for name, error in errors.items():
        print("{}: MAE {:.2f} years [{:.2f}, {:.2f}]".format(name, *evaluation.mean_interval(error, people)))
    change, error = change_of_mae(fits, told, ages, people)
    print(f"The line changes the MAE by {change:+.2f} ± {error:.2f} years (standard error).")
    if change + error >= 0:
        sys.exit("It is not clear that the line helps, so nothing was written: add photos, or do without it.")
    line, facts = LinearRegression().fit(told[:, None], ages), export.facts_of(model)
    facts |= {"mae": float(errors["with a line fitted"].mean()), "fitted_to": len(ages)}
    facts |= {"half_width": evaluation.conformal_radius(errors["with a line fitted"])}
    facts |= {"data": f"{facts.get('data', 'photos')}, fitted to {options.photos.resolve().name}"}
    facts.pop("elsewhere", None)  # an error of the network as it was
    try:
        write(options.model, options.out, float(line.coef_[0]), float(line.intercept_), facts)
    except OSError as error:
        sys.exit(f"{options.out} cannot be written ({error.strerror}): name another file with --out.")
    print(f"{options.out} is written: python -m commands.ages --model {options.out} <photos>")


def cross_validated(told, ages, people):
    """Return what lines make of the answers `told` of people they were not fitted to, in years `(N,)`."""
    return cross_val_predict(LinearRegression(), told[:, None], ages, groups=people, cv=GroupKFold(PEOPLE))


def change_of_mae(fits, told, ages, people):
    """Return the MAE of `fits` minus that of `told` and its standard error by people, both in years.

    With few photos many a line that cannot help seems to. So a change is believed only where it is larger than its
    standard error (Breiman et al. 1984, the one-standard-error rule).
    """
    change = np.abs(fits - ages) - np.abs(told - ages)
    return float(change.mean()), float(evaluation.bootstrap_means(change, people).std())


def answers(model, photos):
    """Return the answers of `model` to the photos with one face, their ages, both in years `(N,)`, and people `(N,)`.

    Prints how many photos are left out, and why. Raises `ValueError` when too few are left.
    """
    facts, faces = export.facts_of(model), labels.find_faces(photos)
    if facts["margin"] is None or "ages" not in facts:
        raise ValueError("The model does not say how faces are cropped, or which ages it knows: name another --model.")
    unknown = faces["age"].isna() | faces["path"].isna()
    if unknown.any():
        why = "".join(f" (e.g. {why})" for why in faces["why"].dropna()[:1])
        print(f"Photos left out, without a path or an age: {unknown.sum()}{why}")
    faces = faces[~unknown]
    known, range_of_ages = faces["age"].between(*facts["ages"]), "ages from {} to {}".format(*facts["ages"])
    if not known.all():
        print(f"Photos left out, since the network knows only {range_of_ages}: {(~known).sum()}")
    faces = faces[known]
    if len(faces) < LEAST:
        raise ValueError(f"{photos}: {LEAST} photos with {range_of_ages} are needed (here: {len(faces)}): add photos.")
    rows, crops, ages = through_the_detector(faces, labels.root_of(photos), facts["margin"])
    if len(rows) < LEAST:
        raise ValueError(f"{photos}: one face was found in {len(rows)} photos, and {LEAST} are needed: add photos.")
    people = faces["person"].fillna(faces["path"]).to_numpy(str)[rows]
    if (count := len(np.unique(people))) < PEOPLE:
        raise ValueError(f"{photos}: {PEOPLE} different people are needed (here: {count}): add photos of others.")
    return export.years_of(model, crops).astype(float), ages, people


def write(model, out, slope, offset, facts):
    """Write the ONNX file `model` to `out`, its answers multiplied by `slope` and moved by `offset` years.

    They stay within the ages of `facts`, which the file gets, too.
    """
    whole, ends = onnx.load(model), np.array(facts["ages"], float)
    answer = whole.graph.output[0].name
    for step in whole.graph.node:
        step.output[:] = [f"{name}_before" if name == answer else name for name in step.output]
    numbers = {"slope": slope, "offset": offset, "youngest": ends[0], "oldest": ends[1]}
    for name, value in numbers.items():
        whole.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    node = onnx.helper.make_node
    straighten = [node("Mul", [f"{answer}_before", "slope"], ["product"]), node("Add", ["product", "offset"], ["line"])]
    whole.graph.node.extend([*straighten, node("Clip", ["line", "youngest", "oldest"], [answer])])
    reached = np.sort(slope * ends + offset).clip(*ends).round(1).tolist()  # of the ages that it knew before
    facts = facts | {"ages": reached, "line": {"slope": slope, "offset": offset}}
    with paths.atomic(out) as temporary:
        onnx.save(whole, temporary)
        export.write_facts(temporary, **facts)


if __name__ == "__main__":
    main()
