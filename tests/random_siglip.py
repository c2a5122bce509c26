"""A random SigLIP for the tests: its folder in the transformers layout, and what PyTorch makes of it.

python -m tests.random_siglip    # writes tests/golden/siglip.npz anew; needs PyTorch
"""

import json
import tempfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "siglip.npz"
SIZE, LENGTH = 30, 64  # a patch of 8 leaves some pixels over at the edges
WORDS = ("a", "photo", "of", "pizza", "grand", "piano", "sunflower", "dog", "very", "small")
TEXTS = ("a photo of a pizza", "A photo, of a Grand piano!", "dog", "a very small sunflower " * 2)
SPECIAL = ("<pad>", "</s>", "<unk>")
CONFIG = {
    "model_type": "siglip",
    "text_config": {
        "model_type": "siglip_text_model", "vocab_size": 100, "hidden_size": 16, "intermediate_size": 40,
        "num_attention_heads": 2, "num_hidden_layers": 3, "projection_size": 24,
    },
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 64, "num_attention_heads": 3,
        "num_hidden_layers": 2, "image_size": SIZE, "patch_size": 8,
    },
}  # fmt: skip
PREPROCESSOR = {
    "image_processor_type": "SiglipImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
    "size": {"height": SIZE, "width": SIZE}, "resample": 3, "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
TOKENIZER = {
    "tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>",
    "do_lower_case": True, "model_max_length": LENGTH, "model_input_names": ["input_ids"],
}  # fmt: skip


def weights(seed=0, config=None):
    """By PyTorch's names, so drawn that activations keep their size and an error anywhere shows at the end."""
    import transformers

    from craft_jax.blackbox.loaders import parameters

    rng = np.random.default_rng(seed)
    config = config or transformers.SiglipConfig(
        text_config=CONFIG["text_config"], vision_config=CONFIG["vision_config"]
    )

    def draw(name, shape):
        if name == "logit_scale":
            return np.full(shape, np.log(20.0))
        if name == "logit_bias":
            return np.full(shape, -7.5)
        if name.endswith("scale"):
            return rng.uniform(0.5, 1.5, shape)
        if name.endswith("bias"):
            return 0.1 * rng.standard_normal(shape)
        if name.endswith(("embedding", "probe")):
            return rng.standard_normal(shape)
        fan_in = shape[-1] if name.endswith("in_proj_weight") else np.prod(shape[:-1])
        return 1.5 * rng.standard_normal(shape) / np.sqrt(fan_in)

    drawn = {name: np.float32(draw(name, shape)) for name, shape in parameters.siglip_shapes(config).items()}
    return dict(_in_torch(name, value) for name, value in drawn.items())


def _in_torch(name, value):
    above, _, last = name.rpartition(".")
    if last == "kernel":
        return f"{above}.weight", np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T)
    return (f"{above}.weight", value) if last in ("scale", "embedding") else (name, value)


def write_folder(folder, state=None):
    """The model's files."""
    from safetensors.flax import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights() if state is None else state, folder / "model.safetensors", {"format": "pt"})
    files = {"config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR, "tokenizer_config.json": TOKENIZER}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer():
    """A SentencePiece model of some words and all letters, as T5's fast tokenizer is made of one."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [(piece, 0.0) for piece in SPECIAL] + [("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS if len(word) > 1] + [("▁a", -2.5)]
    pieces += [(letter, -6.0) for letter in letters] + [(mark, -6.0) for mark in ".,!-"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def images(count=3, seed=0):
    """Random uint8 squares with coarse and fine structure."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, SIZE // 6, SIZE // 6, 3)).repeat(6, 1).repeat(6, 2)
    return np.clip(coarse + rng.integers(-40, 41, (count, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def by_pytorch(folder, ids, squares):
    """Image features, text features and logits of PyTorch's SiglipModel, as NumPy arrays."""
    import torch
    import transformers

    model = transformers.SiglipModel.from_pretrained(str(folder)).eval()
    pixels = (np.float32(squares) / 255 - np.float32(0.5)) / np.float32(0.5)
    with torch.no_grad():
        tokens = torch.tensor(np.asarray(ids))
        answer = model(input_ids=tokens, pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2)))
        image = model.vision_model(pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2))).pooler_output
        text = model.text_model(input_ids=tokens).pooler_output
    return {"image": image.numpy(), "text": text.numpy(), "logits": answer.logits_per_image.numpy()}


def token_ids(folder, texts=TEXTS):
    """Captions as transformers pads them, by the tokenizer's own post-processor; the texts are canonical by then."""
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    plain = [" ".join("".join(c for c in text.lower() if c not in ",.!").split()) for text in texts]
    return tokenizer(plain, padding="max_length", max_length=LENGTH)["input_ids"]


def _write_golden():
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder))
        ids = np.array(token_ids(Path(folder)))
        np.savez_compressed(GOLDEN, ids=ids, **by_pytorch(folder, ids, images()))


if __name__ == "__main__":
    _write_golden()
