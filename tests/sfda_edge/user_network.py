"""A network as a user would bring it: --model user_network:build."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def build(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, num_classes, 1),
    )


def without_norm(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


def of_channels(num_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(num_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, num_classes, 1)
    )


def grey(num_classes: int) -> nn.Module:
    """Of a thermal camera, say."""
    return of_channels(1, num_classes)


def with_depth(num_classes: int) -> nn.Module:
    return of_channels(4, num_classes)


def classifier(num_classes: int) -> nn.Module:
    return nn.Sequential(of_channels(3, num_classes), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def of_other_classes(num_classes: int) -> nn.Module:
    return of_channels(3, num_classes + 2)


def coarse(num_classes: int) -> nn.Module:
    """Leaves the enlargement to whoever uses it."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, num_classes, 3, 2, 1)
    )


def synchronised(num_classes: int) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(build(num_classes))


class Shared(nn.Module):
    """The same layers twice, under two names."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = self.first
        self.classify = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.second(self.first(self.stem(images))))


class Attentive(nn.Module):
    """A small transformer on 8x8 patches; no BatchNorm, and answers for whole patches."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.classify = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images)
        tokens = patches.flatten(2).transpose(1, 2)
        seen = self.norm(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        logits = self.classify(tokens).transpose(1, 2).unflatten(2, patches.shape[2:])
        return functional.interpolate(logits, scale_factor=8, mode="bilinear")


class Undecided(nn.Module):
    """What it computes depends on what it sees: no graph."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(3, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        if images.mean() > 0:
            images = images * 2
        return self.classify(images)


def in_two_parts(num_classes: int, width: int) -> nn.Module:
    """Cannot be built from a number of classes alone."""
    return of_channels(width, num_classes)


def unfinished(num_classes: int) -> nn.Module:
    raise KeyError("layer5")


def no_network(num_classes: int) -> int:
    return num_classes


class Smoothed(nn.Module):
    """Begins with a kernel that nobody shall train."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.full((3, 1, 3, 3), 1 / 9), requires_grad=False)
        self.network = build(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(functional.conv2d(images, self.kernel, padding=1, groups=3))


class Positioned(nn.Module):
    """Adds an encoding of the position that it makes when it first sees a size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = build(num_classes)
        self.weight = nn.Parameter(torch.ones(()))
        self.made: dict[tuple[int, ...], Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        size = tuple(images.shape[2:])
        if size not in self.made:
            self.made[size] = torch.linspace(0, 1, size[0])[:, None].expand(size)
        return self.network(images + self.weight * self.made[size])


def plain_norm(num_classes: int) -> nn.Module:
    """BatchNorm without scales and shifts."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, num_classes, 1)
    )


class Returning(nn.Module):
    """The plain network, whose logits come in another form.

    Attributes:
        form: logits → what the network returns.
    """

    def __init__(self, num_classes, form):
        super().__init__()
        self.inner, self.form = build(num_classes), form

    def forward(self, images):
        return self.form(self.inner(images))


class ModelOutput:
    """As Hugging Face's networks return it."""

    def __init__(self, logits):
        self.logits = logits


def as_dict(num_classes):
    return Returning(num_classes, lambda logits: {"out": logits, "aux": logits[:, :1]})


def as_object(num_classes):
    return Returning(num_classes, ModelOutput)


def as_tuple(num_classes):
    return Returning(num_classes, lambda logits: (logits, logits.mean()))


def as_probabilities(num_classes):
    return Returning(num_classes, lambda logits: logits.softmax(1))


def as_sigmoids(num_classes):
    """Each class by itself, as of several labels a pixel."""
    return Returning(num_classes, torch.sigmoid)


class OneOutput(nn.Module):
    """Of two classes the second one's alone.

    Attributes:
        form: its logit → what the network returns.
    """

    def __init__(self, num_classes, form):
        super().__init__()
        assert num_classes == 2
        self.inner, self.form = build(1), form

    def forward(self, images):
        return self.form(self.inner(images))


def one_logit(num_classes):
    return OneOutput(num_classes, nn.Identity())


def one_probability(num_classes):
    return OneOutput(num_classes, lambda logit: {"out": logit.sigmoid()})


class Closed(nn.Module):
    """Keeps a feature by a hook that is closed over the network: a copy's hook writes into it."""

    def __init__(self, num_classes):
        super().__init__()
        self.inner = build(num_classes)
        self.side = nn.Conv2d(8, num_classes, 1)
        self.kept = {}
        self.inner[0].register_forward_hook(lambda _m, _i, out: self.kept.update(feature=out))

    def forward(self, images):
        logits = self.inner(images)
        return logits + self.side(self.kept["feature"])


class Bound(nn.Module):
    """Runs its layers by a function that is bound to it: a copy runs the original's."""

    def __init__(self, num_classes):
        super().__init__()
        self.inner = build(num_classes)
        self.run = lambda images: self.inner(images)

    def forward(self, images):
        return self.run(images)


_ONLY: list[nn.Module] = []


def always_the_same(num_classes):
    """A function that builds its network once."""
    if not _ONLY:
        _ONLY.append(Bound(num_classes))
    return _ONLY[0]


def as_text(num_classes):
    return Returning(num_classes, lambda logits: "road")


class Random(nn.Module):
    """Dropout that forgets whether the network is trained."""

    def __init__(self, num_classes):
        super().__init__()
        self.inner = build(num_classes)
        self.always = nn.Dropout(0.5)

    def forward(self, images):
        self.always.train()
        return self.always(self.inner(images))


def pooled(num_classes: int) -> nn.Module:
    """As DeepLab's image pooling: BatchNorm of one value for each image and channel."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return nn.Sequential(pool, nn.Upsample((4, 4)), nn.Conv2d(4, num_classes, 1))


class Skipping(nn.Module):
    """Joins what it has halved to what it has not, so that sizes have to be even."""

    def __init__(self, num_classes):
        super().__init__()
        self.down = nn.Conv2d(3, num_classes, 3, 2, 1)
        self.across = nn.Conv2d(3, num_classes, 1)

    def forward(self, images):
        return self.across(images) + functional.interpolate(self.down(images), scale_factor=2)


class Gathering(nn.Module):
    """Returns what a hook has gathered in a dict of the network: a copy's own stays empty."""

    def __init__(self, num_classes):
        super().__init__()
        self.inner = build(num_classes)
        self.kept = {}
        self.inner.register_forward_hook(lambda _m, _i, out: self.kept.update(out=out))

    def forward(self, images):
        self.inner(images)
        found = dict(self.kept)
        self.kept.clear()
        return found
