"""A trained network as one ONNX file: pixels in, years out, in float32 or INT8, with what a user of it must know."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from torch import nn

from .datasets import MEAN, STD
from .images import SIDE
from .models import to_years
from .paths import atomic

MADE_BY = "notebook 09_deployment"


class FromPixels(nn.Module):
    """A network with the preprocessing inside: uint8 `(B, 128, 128, 3)` in, years `(B,)` out."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN).repeat(SIDE))
        self.register_buffer("std", 255 * torch.tensor(STD).repeat(SIDE))

    def forward(self, pictures):
        # Rows of 384 numbers in place of 128 pixels: ONNX Runtime is slow at broadcasting three numbers.
        rows = (pictures.flatten(2).float() - self.mean) / self.std
        return to_years(self.network(rows.view(pictures.shape).permute(0, 3, 1, 2)))


def export(network, path):
    """Write a copy of `network` with its preprocessing to the ONNX file `path`; the network stays as it is."""
    whole = FromPixels(copy.deepcopy(network)).cpu().eval()
    pictures, batch = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8), {0: torch.export.Dim("batch", min=1)}
    how = {"input_names": ["pictures"], "output_names": ["years"], "external_data": False}  # one file
    with atomic(path) as temporary:
        torch.onnx.export(whole, (pictures,), temporary, dynamic_shapes=(batch,), verbose=False, **how)
        model = onnx.load(temporary)
        for part in (model.graph, *model.graph.node, *model.graph.value_info):
            part.ClearField("metadata_props")  # where each line of the code lies on this machine, a fifth of a megabyte
        onnx.save(model, temporary)


def quantise(path, quantised, images):
    """Write the model in the ONNX file `path` to `quantised` with weights and activations of 8 bits.

    `images`: uint8 `(N, 128, 128, 3)`, faces that show how large activations become; a hundred do. The last layer
    calculates in float32 with weights of 16 bits, as eight bits would know only steps of a tenth of a year.
    """
    with atomic(quantised) as temporary:
        quantization.quant_pre_process(path, temporary)
        model = onnx.load(temporary)
        last = [node.name for node in model.graph.node if node.op_type in ("Gemm", "MatMul")][-1]
        batches = ({"pictures": np.asarray(images[i : i + 16])} for i in range(0, len(images), 16))
        reader = SimpleNamespace(get_next=lambda: next(batches, None))
        # With Relu and Clip (ReLU6) an activation becomes a part of the layer before it: quicker, and finer steps.
        layers = ["Conv", "Relu", "Clip", "MaxPool", "Add", "GlobalAveragePool", "Gemm", "MatMul"]
        how = {"per_channel": True, "activation_type": quantization.QuantType.QUInt8, "nodes_to_exclude": [last]}
        # Seven bits of weights: on a CPU without VNNI sums of eight would overflow, so it would answer differently.
        quantization.quantize_static(model, temporary, reader, op_types_to_quantize=layers, reduce_range=True, **how)
        model = onnx.load(temporary)
        (head,) = (node for node in model.graph.node if node.name == last)
        (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == head.input[1])
        half = onnx.numpy_helper.to_array(weights).astype(np.float16)
        weights.CopyFrom(onnx.numpy_helper.from_array(half, f"{weights.name}_16_bits"))
        cast = onnx.helper.make_node("Cast", [weights.name], [head.input[1]], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        onnx.save(model, temporary)


def write_facts(path, **facts):
    """Make `facts` the metadata of the ONNX file `path`, as JSON. A photo needs `margin, half_width, mae, ages`."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {name: json.dumps(fact) for name, fact in facts.items()})
    with atomic(path) as temporary:
        onnx.save(model, temporary)


def facts_of(model) -> dict:
    """Return what `write_facts` stored in the file that `model`, from `load`, was read from."""
    return {name: json.loads(text) for name, text in model.get_modelmeta().custom_metadata_map.items()}


def load(path, threads=0, facts=True):
    """Return the model in the ONNX file `path`, ready to run on the CPU with `threads` (0: one for each core).

    `facts=False` also takes one that `write_facts` has not seen yet.
    Raises `FileNotFoundError` or `ValueError` with the remedy when there is none, or it is damaged or of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: run {MADE_BY}, which exports the models.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        model = onnxruntime.InferenceSession(Path(path).read_bytes(), options, providers=["CPUExecutionProvider"])
        known = model.get_modelmeta().custom_metadata_map
    except Exception as error:  # ONNX Runtime has an exception of its own for each way to be damaged
        raise ValueError(f"{path} is not an ONNX model, or damaged: export it again with {MADE_BY}.") from error
    puts = [(put.name, put.type, put.shape[1:]) for put in (*model.get_inputs(), *model.get_outputs())]
    if puts != [("pictures", "tensor(uint8)", [SIDE, SIDE, 3]), ("years", "tensor(float)", [])]:
        raise ValueError(f"{path} is a model of another kind, not from pictures to years: export it with {MADE_BY}.")
    if facts and not {"margin", "half_width", "mae"} <= known.keys():
        raise ValueError(f"{path} does not say how a face is cropped: export it with {MADE_BY}.")
    return model


def years_of(model, images, batch=32) -> np.ndarray:
    """Return the ages in years `(N,)` that `model` gives to `images` uint8 `(N, 128, 128, 3)`."""
    parts = [model.run(None, {"pictures": np.asarray(images[i : i + batch])}) for i in range(0, len(images), batch)]
    return np.concatenate([years for (years,) in parts])
