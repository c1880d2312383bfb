"""The names in open_clip's files: timm's image tower under `visual.trunk`, CLIP's text tower under `text`."""

from mcliplib.checkpoints.naming import Layout, Rule

RULES = (
    Rule(r"^image_encoder\.", "visual.trunk."),
    # image tower, timm's FastVit
    Rule(r"^visual\.trunk\.proj\.", "visual.trunk.head.fc."),
    Rule(r"\.downsample\.spatial\.large\.", ".downsample.proj.0.large_conv."),
    Rule(r"\.downsample\.spatial\.small\.", ".downsample.proj.0.small_conv."),
    Rule(r"\.downsample\.spatial\.se\.", ".downsample.proj.0.se."),
    Rule(r"\.downsample\.pointwise\.", ".downsample.proj.1."),
    Rule(r"\.position\.conv\.", ".pos_emb.pos_enc."),
    Rule(r"\.token_mixer\.attention\.", ".token_mixer."),
    Rule(r"^visual\.trunk\.expand\.", "visual.trunk.final_conv."),
    Rule(r"\.se\.reduce\.", ".se.fc1."),
    Rule(r"\.se\.expand\.", ".se.fc2."),
    Rule(r"(trunk\.stem\.\d|\.mixer|proj\.1|final_conv)\.conv\.(?=(conv|bn)\.)", r"\1.conv_kxk.0."),
    Rule(r"(trunk\.stem\.\d|\.mixer|final_conv)\.scale\.", r"\1.conv_scale."),
    Rule(r"(trunk\.stem\.\d|\.mixer|proj\.1)\.skip\.", r"\1.identity."),
    Rule(r"\.token_mixer\.norm\.", ".token_mixer.norm.identity."),
    Rule(r"\.conv_ffn\.", ".mlp."),
    Rule(r"\.gamma$", ".gamma", Layout.PER_CHANNEL),
    # image tower, timm's VisionTransformer
    Rule(r"trunk\.stem\.0\.weight$", "trunk.patch_embed.proj.weight"),
    Rule(
        r"trunk\.stem\.([024])\.(?=(conv|bn|weight|bias)\b)", lambda m: f"trunk.patch_embed.backbone.{int(m[1]) // 2}."
    ),
    Rule(r"(backbone\.2)\.", r"\1.conv."),
    Rule(r"trunk\.class_token$", "trunk.cls_token", Layout.LEADING_TWO),
    Rule(r"trunk\.positions$", "trunk.pos_embed", Layout.LEADING_ONE),
    Rule(r"trunk\.layers\.", "trunk.blocks."),
    Rule(r"(trunk\.blocks\.\d+)\.attention\.", r"\1.attn."),
    Rule(r"(trunk\.blocks\.\d+)\.(fc[12])\.", r"\1.mlp.\2."),
    Rule(r"trunk\.head\.norm\.", "trunk.norm."),
    Rule(r"trunk\.head\.proj\.", "trunk.head."),
    # text tower
    Rule(r"^text_encoder\.embedding\.", "text.token_embedding."),
    Rule(r"^text_encoder\.positions$", "text.positional_embedding"),
    Rule(r"^text_encoder\.head\.norm\.", "text.ln_final."),
    Rule(r"^text_encoder\.head\.proj\.weight$", "text.text_projection", Layout.TRANSPOSED),
    Rule(r"^text_encoder\.layers\.", "text.transformer.resblocks."),
    Rule(r"(resblocks\.\d+)\.norm([12])\.", r"\1.ln_\2."),
    Rule(r"(resblocks\.\d+)\.attention\.qkv\.", r"\1.attn.in_proj_"),
    Rule(r"(resblocks\.\d+)\.attention\.proj\.", r"\1.attn.out_proj."),
    Rule(r"(resblocks\.\d+)\.fc1\.", r"\1.mlp.c_fc."),
    Rule(r"(resblocks\.\d+)\.fc2\.", r"\1.mlp.c_proj."),
)
