"""A network as an ONNX file gives PyTorch's answers, keeps its facts, and says when it cannot be used."""

import numpy as np
import onnx
import pytest
import torch
from faces import one_sentence, toy

from helpers import datasets, export, models, paths, training

FACTS = {"margin": [[0.4, 0.4], [0.6, 0.4]], "half_width": 7.5, "mae": 4.25, "data": "démo"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are too small to share; on a busy machine the threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(outputs=1):
    model = models.SimpleCNN(output_nodes=outputs, widths=(4, 4, 8, 8), hidden=16, dropout=0.2)
    return models.start_at(model, 35.0)


def untrained(network):
    torch.nn.init.normal_(network.head[-1].weight, std=0.1)  # its own start answers nearly the same to every face
    return network


NETWORKS = {
    "SimpleCNN": tiny,
    "SimpleCNN, a distribution": lambda: tiny(31),
    "ResNet": lambda: models.resnet(31, pretrained=False)[0],
    "face ResNet": lambda: untrained(models.face_network(31, window=(23, 30, 85))),
    "compact ResNet": lambda: untrained(models.compact_resnet(31)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    model = NETWORKS[request.param]()
    for layer in model.modules():  # so that normalisation has the means and variances of this one batch
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 128, 128))
    return model.eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    export.export(network, path)
    export.write_facts(path, **FACTS)
    return path


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return np.concatenate([toy(6)[0], rng.integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)])


def test_the_file_gives_the_answers_of_pytorch(network, file, images):
    loader = datasets.make_loader(datasets.FaceAgeDataset(images, np.zeros(len(images))))
    with torch.no_grad():  # in float32, not what `predict` may use
        expected = torch.cat([models.to_years(network(batch)) for batch, _ in loader]).numpy()
    years = export.years_of(export.load(file, threads=1), images)
    assert years.dtype == np.float32 and years.shape == (9,)
    assert np.ptp(expected) > 0.1  # else any picture would do
    assert np.abs(years - expected).max() <= 0.01


def test_the_network_that_is_exported_stays_as_it_is(tmp_path):
    """In training mode, with its gradients, and able to learn on."""
    network = tiny().train()
    network(torch.randn(4, 3, 128, 128)).sum().backward()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gradients = [weights.grad.clone() for weights in network.parameters()]
    export.export(network, tmp_path / "model.onnx")
    assert all(layer.training for layer in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(weights.grad, old) for weights, old in zip(network.parameters(), gradients))
    network(torch.randn(4, 3, 128, 128)).sum().backward()


def test_the_batch_is_free_and_changes_nothing(file, images):
    model = export.load(file, threads=1)
    together = export.years_of(model, images)
    assert np.abs(export.years_of(model, images, batch=1) - together).max() < 1e-3
    assert np.abs(export.years_of(model, images, batch=4) - together).max() < 1e-3
    (pictures,), (years,) = model.get_inputs(), model.get_outputs()
    assert pictures.type == "tensor(uint8)" and pictures.shape == ["batch", 128, 128, 3]
    assert years.type == "tensor(float)" and years.shape == ["batch"]


def test_the_file_is_one_valid_file_with_its_facts(file):
    onnx.checker.check_model(file, full_check=True)
    assert [other.name for other in file.parent.iterdir()] == [file.name]
    assert export.facts_of(export.load(file)) == FACTS


def test_facts_are_replaced_and_the_model_stays(file, images, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(file.read_bytes())
    export.write_facts(copy, **FACTS | {"mae": 3.0})
    model = export.load(copy, threads=1)
    assert export.facts_of(model) == FACTS | {"mae": 3.0}
    assert (export.years_of(model, images) == export.years_of(export.load(file, threads=1), images)).all()


# A limit of a trained number, in years: five standard deviations from the mean of `python tests/bench/margins.py`.
EIGHT_BITS = 0.3


def learn(folder, seed=0):
    """Train a compact network that tells dark from bright; write it in float32 and INT8; return pictures and ages."""
    images, ages = toy(48)
    torch.manual_seed(seed)
    loader = datasets.make_loader(datasets.FaceAgeDataset(images, ages), 16, train=True)
    network = models.SimpleCNN(widths=(16, 32, 64, 128), hidden=64)
    models.start_at(network, 35.0, loader.dataset.sample())
    training.fit(network, loader, loader, 20, folder / "fit", lr=2e-3, decay=0.5)
    export.export(network, folder / "float32.onnx")
    export.quantise(folder / "float32.onnx", folder / "int8.onnx", images[::2])
    for name in ("float32", "int8"):
        export.write_facts(folder / f"{name}.onnx", **FACTS)
    return images, ages


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compact")
    return folder, *learn(folder)


def cost_of_eight_bits(folder, images, ages):
    """Return by how many years the MAE of the two files that `learn` wrote differs, and the range of the answers."""
    years = {name: export.years_of(export.load(folder / f"{name}.onnx"), images) for name in ("float32", "int8")}
    exact, rounded = (np.abs(estimate - ages).mean() for estimate in years.values())
    return abs(rounded - exact), np.ptp(years["float32"])


def test_eight_bits_cost_little_accuracy_and_most_of_the_size(learnt):
    folder, images, ages = learnt
    cost, span = cost_of_eight_bits(folder, images, ages)
    assert span > 1  # it tells the pictures apart, so the comparison means something
    assert cost <= EIGHT_BITS
    assert (folder / "int8.onnx").stat().st_size <= 800_000 < (folder / "float32.onnx").stat().st_size / 3


def test_weights_have_eight_bits_but_those_of_the_last_layer(learnt):
    model = onnx.load(learnt[0] / "int8.onnx")
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 6
    for node in layers[:-1]:
        assert made_by[node.input[1]].op_type == "DequantizeLinear"
        assert weights[made_by[node.input[1]].input[0]] == onnx.TensorProto.INT8
    assert made_by[layers[-1].input[1]].op_type == "Cast"
    assert weights[made_by[layers[-1].input[1]].input[0]] == onnx.TensorProto.FLOAT16


def test_the_files_tell_nothing_of_the_machine(learnt):
    for file in sorted(learnt[0].glob("*.onnx")):
        assert b"site-packages" not in file.read_bytes() and str(paths.ROOT).encode() not in file.read_bytes()


def test_eight_bits_know_more_than_steps(learnt):
    years = export.years_of(export.load(learnt[0] / "int8.onnx"), learnt[1])
    assert len(np.unique(years)) > 40


# What cannot be used


def test_a_missing_file_names_the_notebook(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        export.load(tmp_path / "gone.onnx")
    one_sentence(error.value, tmp_path / "gone.onnx", "notebook 09_deployment")


@pytest.mark.parametrize("content", ["text", "empty", "truncated", "checkpoint"])
def test_a_damaged_file_is_told(learnt, tmp_path, content):
    path, good = tmp_path / "bad.onnx", (learnt[0] / "float32.onnx").read_bytes()
    made = {"text": b"a page in its place", "empty": b"", "truncated": good[: len(good) // 2]}
    path.write_bytes(made[content] if content in made else (learnt[0] / "fit" / "best.pt").read_bytes())
    with pytest.raises(ValueError) as error:
        export.load(path)
    one_sentence(error.value, path, "export it again with notebook 09_deployment")


def test_a_model_without_facts_is_told(tmp_path):
    export.export(tiny(), tmp_path / "bare.onnx")
    with pytest.raises(ValueError) as error:
        export.load(tmp_path / "bare.onnx")
    one_sentence(error.value, tmp_path / "bare.onnx", "does not say how a face is cropped")
    export.quantise(tmp_path / "bare.onnx", tmp_path / "bare_int8.onnx", toy(4)[0])
    with pytest.raises(ValueError, match="does not say how a face is cropped"):
        export.load(tmp_path / "bare_int8.onnx")
    for name in ("bare", "bare_int8"):
        assert export.years_of(export.load(tmp_path / f"{name}.onnx", facts=False), toy(2)[0]).shape == (2,)


def test_a_failed_export_leaves_the_former_file(tmp_path, learnt):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the former one")
    with pytest.raises(Exception, match="."):
        export.export(torch.nn.Linear(3, 1), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.onnx", b"the former one")]


@pytest.mark.parametrize("kind", ["name", "type", "shape", "output"])
def test_a_model_of_another_kind_is_told(tmp_path, kind):
    given = {"name": "pictures", "type": onnx.TensorProto.UINT8, "shape": ["batch", 128, 128, 3]}
    other = {"name": "input", "type": onnx.TensorProto.FLOAT, "shape": ["batch", 3, 224, 224]}
    given |= {kind: other[kind]} if kind in other else {}
    put = onnx.helper.make_tensor_value_info(given["name"], given["type"], given["shape"])
    out = onnx.helper.make_tensor_value_info("logits" if kind == "output" else "years", given["type"], given["shape"])
    nodes = [onnx.helper.make_node("Identity", [put.name], [out.name])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "other", [put], [out]),
        ir_version=8,
        opset_imports=[onnx.helper.make_opsetid("", 17)],
    )
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError) as error:
        export.load(tmp_path / "other.onnx", facts=False)
    one_sentence(error.value, tmp_path / "other.onnx", "another kind", "notebook 09_deployment")
