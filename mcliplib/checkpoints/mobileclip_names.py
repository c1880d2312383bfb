"""The names in the released `mobileclip_*.pt` files: bare state dicts of the paper's own code."""

import re

from mcliplib.checkpoints.naming import Layout, Rule


def _network_index(match: re.Match[str]) -> str:
    """All parts stand in one list: stage 0, down, stage 1, down, stage 2, down, positions, stage 3."""
    stage, part = int(match[1]), match[2]
    index = {"downsample": 2 * stage - 1, "position": 2 * stage, "blocks": 2 * stage + (stage == 3)}[part]
    return f"image_encoder.model.network.{index}"


RULES = (
    # image tower, MCi
    Rule(r"^image_encoder\.stem\.(\d)\.(?=(conv|scale)\.(conv|bn)\.|skip\.)", r"image_encoder.model.patch_embed.\1."),
    Rule(r"^image_encoder\.stages\.(\d)\.(downsample|position|blocks)", _network_index),
    Rule(r"\.spatial\.large\.", ".proj.0.lkb_origin."),
    Rule(r"\.spatial\.small\.", ".proj.0.small_conv."),
    Rule(r"\.spatial\.se\.reduce\.", ".proj.0.se.fc1."),
    Rule(r"\.spatial\.se\.expand\.", ".proj.0.se.fc2."),
    Rule(r"\.pointwise\.", ".proj.1."),
    Rule(r"(network\.6)\.conv\.", r"\1.pe."),
    Rule(r"\.token_mixer\.attention\.", ".token_mixer."),
    Rule(r"^image_encoder\.expand\.", "image_encoder.model.conv_exp."),
    Rule(r"^image_encoder\.proj\.weight$", "image_encoder.model.head.proj", Layout.TRANSPOSED),
    # image tower, ViT
    Rule(r"^image_encoder\.stem\.([024])\.", lambda m: f"image_encoder.model.patch_emb.{int(m[1]) // 2}.block."),
    Rule(r"(patch_emb\.\d\.block)\.bn\.", r"\1.norm."),
    Rule(r"(patch_emb\.2\.block)\.", r"\1.conv."),
    Rule(r"^image_encoder\.class_token$", "image_encoder.model.cls_token", Layout.LEADING_TWO),
    Rule(r"^image_encoder\.positions$", "image_encoder.model.pos_embed.pos_embed.pos_embed", Layout.LEADING_TWO),
    Rule(r"^image_encoder\.layers\.", "image_encoder.model.transformer."),
    Rule(r"^image_encoder\.head\.norm\.", "image_encoder.model.post_transformer_norm."),
    Rule(r"^image_encoder\.head\.proj\.weight$", "image_encoder.model.classifier.proj", Layout.TRANSPOSED),
    # text tower
    Rule(r"^text_encoder\.embedding\.", "text_encoder.embedding_layer."),
    Rule(r"^text_encoder\.positions$", "text_encoder.positional_embedding.pos_embed.pos_embed", Layout.LEADING_TWO),
    Rule(r"^text_encoder\.layers\.(\d+)\.(block\.)?", r"text_encoder.transformer.\1."),
    Rule(r"^text_encoder\.head\.norm\.", "text_encoder.final_layer_norm."),
    Rule(r"^text_encoder\.head\.proj\.weight$", "text_encoder.projection_layer", Layout.TRANSPOSED),
    # transformer layers of either tower
    Rule(r"(transformer\.\d+)\.norm1\.", r"\1.pre_norm_mha.0."),
    Rule(r"(transformer\.\d+)\.attention\.qkv\.", r"\1.pre_norm_mha.1.qkv_proj."),
    Rule(r"(transformer\.\d+)\.attention\.proj\.", r"\1.pre_norm_mha.1.out_proj."),
    Rule(r"(transformer\.\d+)\.norm2\.", r"\1.pre_norm_ffn.0."),
    Rule(r"(transformer\.\d+)\.fc1\.", r"\1.pre_norm_ffn.1."),
    Rule(r"(transformer\.\d+)\.fc2\.", r"\1.pre_norm_ffn.4."),
    # convolutional blocks of either tower
    Rule(r"(patch_embed\.\d|\.mixer|proj\.1|conv_exp)\.conv\.", r"\1.rbr_conv.0."),
    Rule(r"(patch_embed\.\d|\.mixer|conv_exp)\.scale\.", r"\1.rbr_scale."),
    Rule(r"(patch_embed\.\d|\.mixer|proj\.1)\.skip\.", r"\1.rbr_skip."),
    Rule(r"(token_mixer)\.norm\.", r"\1.norm.rbr_skip."),
    Rule(r"\.conv_ffn\.", ".convffn."),
    Rule(r"(layer_scale(_\d)?)\.gamma$", r"\1", Layout.PER_CHANNEL),
)
