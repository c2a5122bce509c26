"""OpenAI's ResNet CLIP in PyTorch, written from the paper's description as the tests' yardstick.

Its modules bear the names of OpenAI's state dict. Images are [N, 3, size, size], batch norms are kept apart, and the
text encoder pads every caption: all that the package does otherwise.
"""

import torch
from torch import nn


def convolution(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class Bottleneck(nn.Module):
    def __init__(self, inputs, inner, stride):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = convolution(inner, inner, 3), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = convolution(inner, 4 * inner, 1), nn.BatchNorm2d(4 * inner)
        self.pool = nn.AvgPool2d(stride)
        self.downsample = None
        if stride > 1 or inputs != 4 * inner:
            self.downsample = nn.Sequential(convolution(inputs, 4 * inner, 1), nn.BatchNorm2d(4 * inner))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.pool(y)))
        shortcut = x if self.downsample is None else self.downsample(self.pool(x))
        return torch.relu(y + shortcut)


class AttentionPool(nn.Module):
    """Attention by PyTorch's own function, with all positions as queries; the output of the mean is kept."""

    def __init__(self, positions, width, heads, features):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(positions, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, features)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positional_embedding
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.c_proj(attended.transpose(1, 2).flatten(2))[:, 0]


class ModifiedResNet(nn.Module):
    def __init__(self, a):
        super().__init__()
        half = a.width // 2
        self.conv1, self.bn1 = convolution(3, half, 3, stride=2), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = convolution(half, half, 3), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = convolution(half, a.width, 3), nn.BatchNorm2d(a.width)
        self.avgpool = nn.AvgPool2d(2)
        inputs = a.width
        for stage, blocks in enumerate(a.layers):
            inner, made = a.width * 2**stage, []
            for block in range(blocks):
                made.append(Bottleneck(inputs, inner, 2 if stage and not block else 1))
                inputs = 4 * inner
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        positions = (a.image_size // 32) ** 2 + 1
        self.attnpool = AttentionPool(positions, inputs, inputs // a.head_width, a.embed_dim)

    def forward(self, x):
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = torch.relu(norm(conv(x)))
        x = self.avgpool(x)
        return self.attnpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class TextBlock(nn.Module):
    def __init__(self, width, heads, activation):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("act", activation)
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x):
        causal = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=causal)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, a):
        super().__init__()
        activation = QuickGELU() if a.quick_gelu else nn.GELU()
        self.resblocks = nn.Sequential(
            *(TextBlock(a.text_width, a.text_heads, activation) for _ in range(a.text_layers))
        )

    def forward(self, x):
        return self.resblocks(x)


class ResNetClip(nn.Module):
    """A CLIP of the given `resnet_architecture.Architecture`, in inference mode."""

    def __init__(self, a):
        super().__init__()
        self.visual = ModifiedResNet(a)
        self.token_embedding = nn.Embedding(a.vocab_size, a.text_width)
        self.positional_embedding = nn.Parameter(torch.zeros(a.context_length, a.text_width))
        self.transformer = Transformer(a)
        self.ln_final = nn.LayerNorm(a.text_width)
        self.text_projection = nn.Parameter(torch.zeros(a.text_width, a.embed_dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.eval()

    def encode_image(self, pixels):
        return self.visual(pixels)

    def encode_text(self, ids):
        x = self.ln_final(self.transformer(self.token_embedding(ids) + self.positional_embedding))
        return x[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection

    def forward(self, pixels, ids):
        image, text = self.encode_image(pixels), self.encode_text(ids)
        image, text = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
        return self.logit_scale.exp() * image @ text.T


def with_weights(architecture, weights):
    """The yardstick with given weights under OpenAI's names, as NumPy arrays."""
    model = ResNetClip(architecture)
    state = {name: torch.from_numpy(value).float() for name, value in weights.items()}
    absent, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in absent)
    return model


def pixels_of(squares, mean, std):
    """Normalised [N, 3, size, size] from uint8 [N, size, size, 3]."""
    scaled = torch.from_numpy(squares.copy()).float().permute(0, 3, 1, 2) / 255
    return (scaled - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
