"""MCt against a plain, slow restatement of the text tower, written from its description and the released names.

No package has MCt. This one is NumPy in float64 with loops over tokens, reads the tensors of the released format,
and shares no code with the package.
"""

import math

import numpy as np
import pytest
import torch

import mcliplib
from mcliplib.checkpoints.formats import to_format
from tests.conftest import randomize_

HEAD_DIM = 64
erf = np.vectorize(math.erf)


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def layer_norm(x, w, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def batch_norm(x, w, name):
    deviation = np.sqrt(w[f"{name}.running_var"] + 1e-5)
    return (x - w[f"{name}.running_mean"]) / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def along_tokens(x, kernel):
    """Depthwise convolution [T, C] with [C, 1, 1, K], zeros beyond both ends."""
    reach = kernel.shape[3] // 2
    y = np.zeros_like(x)
    for t in range(len(x)):
        for k in range(kernel.shape[3]):
            if 0 <= t + k - reach < len(x):
                y[t] += x[t + k - reach] * kernel[:, 0, 0, k]
    return y


def repmixer_block(x, w, name):
    mixer = f"{name}.token_mixer.mixer"
    mixed = batch_norm(along_tokens(x, w[f"{mixer}.rbr_conv.0.conv.weight"]), w, f"{mixer}.rbr_conv.0.bn")
    mixed = mixed + batch_norm(x, w, f"{mixer}.rbr_skip")
    normed = batch_norm(x, w, f"{name}.token_mixer.norm.rbr_skip")
    x = x + w[f"{name}.token_mixer.layer_scale"].ravel() * (mixed - normed)
    ffn = f"{name}.convffn"
    y = batch_norm(along_tokens(x, w[f"{ffn}.conv.conv.weight"]), w, f"{ffn}.conv.bn")
    y = gelu(y @ w[f"{ffn}.fc1.weight"][:, :, 0, 0].T + w[f"{ffn}.fc1.bias"])
    y = y @ w[f"{ffn}.fc2.weight"][:, :, 0, 0].T + w[f"{ffn}.fc2.bias"]
    return x + w[f"{name}.layer_scale"].ravel() * y


def attention(x, w, name):
    qkv = x @ w[f"{name}.qkv_proj.weight"].T + w[f"{name}.qkv_proj.bias"]
    width = x.shape[1]
    q, k, v = qkv[:, :width], qkv[:, width : 2 * width], qkv[:, 2 * width :]
    out = np.zeros_like(x)
    for start in range(0, width, HEAD_DIM):
        head = slice(start, start + HEAD_DIM)
        scores = np.exp(q[:, head] @ k[:, head].T / math.sqrt(HEAD_DIM))  # every token sees every token
        out[:, head] = scores / scores.sum(axis=1, keepdims=True) @ v[:, head]
    return out @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def transformer_layer(x, w, name):
    x = x + attention(layer_norm(x, w, f"{name}.pre_norm_mha.0"), w, f"{name}.pre_norm_mha.1")
    y = layer_norm(x, w, f"{name}.pre_norm_ffn.0")
    y = gelu(y @ w[f"{name}.pre_norm_ffn.1.weight"].T + w[f"{name}.pre_norm_ffn.1.bias"])
    return x + y @ w[f"{name}.pre_norm_ffn.4.weight"].T + w[f"{name}.pre_norm_ffn.4.bias"]


def encode_text(tokens, w, layers):
    """One text's ids [T] to its feature."""
    x = w["embedding_layer.weight"][tokens] + w["positional_embedding.pos_embed.pos_embed"][0, 0]
    for index in range(layers):
        block = repmixer_block if index in (0, layers - 1) else transformer_layer
        x = block(x, w, f"transformer.{index}")
    return layer_norm(x, w, "final_layer_norm")[int(np.argmax(tokens))] @ w["projection_layer"]


@pytest.mark.parametrize(("name", "layers"), [("mobileclip_nano", 4), ("mobileclip_s0", 6)])
def test_mct(name, layers):
    torch.manual_seed(0)
    model = randomize_(mcliplib.create_model(name)).double()
    named = to_format(model.state_dict(), model.config, "mobileclip")
    w = {key.removeprefix("text_encoder."): value.numpy() for key, value in named.items() if "text_encoder." in key}
    tokens = mcliplib.get_tokenizer(name)(["a red flag", "ein blauer Vogel über dem Meer", ""])
    with torch.no_grad():
        ours = model.encode_text(tokens).numpy()
        folded = mcliplib.reparameterize(model).encode_text(tokens).numpy()
    restated = np.stack([encode_text(row, w, layers) for row in tokens.numpy()])
    assert np.linalg.norm(ours - restated) < 1e-10 * np.linalg.norm(restated)
    assert np.linalg.norm(folded - restated) < 1e-10 * np.linalg.norm(restated)
