"""A network, an error, an optimiser and an augmentation of one's own: nothing of the harness is changed or imported."""

import torch
from torch import nn
from torch.nn import functional as F


class Mixer(nn.Module):
    """Two convolutions around a GELU, added to the input: one in space for each channel, one over channels."""

    def __init__(self, width):
        super().__init__()
        self.space = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.channels = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x + self.channels(F.gelu(self.norm(self.space(x))))


def mixer(channels, image_size, *, width=32, depth=2, patch=4):
    """CustomBackbone: a stem of patches, `depth` blocks, then half the resolution and one block more."""
    stem = nn.Conv2d(channels, width, patch, stride=patch)
    deep = nn.Sequential(nn.Conv2d(width, 2 * width, 2, stride=2), Mixer(2 * width))
    return nn.Sequential(stem, *(Mixer(width) for _ in range(depth)), deep)


def charbonnier(prediction, target, hidden, *, eps=0.01):
    """CustomLoss: l1 that is rounded off at zero; one error for each channel and place."""
    return ((prediction - target).square() + eps**2).sqrt()


class Sign(torch.optim.Optimizer):
    """Steps of the learning rate in the direction of an averaged gradient's sign (Lion without its second average)."""

    def __init__(self, groups, momentum):
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in (found for found in group["params"] if found.grad is not None):
                state = self.state[weight]
                mean = state.setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * mean.sign())


def sign(groups, *, momentum=0.9):
    """CustomOptimiser: the groups come with `lr`, `weight_decay` and `scale`."""
    return Sign(groups, momentum)


def dim(images, random, step, steps, *, least=0.6):
    """CustomAugment: each image is darkened by a factor of its own, less and less as training goes on."""
    lightest = least + (1 - least) * step / steps
    return images * (lightest + (1 - lightest) * random(1, 1, 1))
