"""The networks of tiny-shapes: Stable Diffusion's classes, sized for 64x64 pictures.

Shape letters: B batch, T tokens (24), D text width (128). Latents are float32 [B, 4, 8, 8].
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel

from tokenizer import MAX_TOKENS
from world import PICTURE_SIZE

LATENT_SIZE = PICTURE_SIZE // 8
TEXT_WIDTH = 128


def plain_attention(model):
    """Uses matmul-softmax-matmul attention: its CPU backward is far faster than the fused one's."""
    model.set_attn_processor(AttnProcessor())
    return model


class Float32GroupNorm(torch.nn.GroupNorm):
    """Group normalisation in float32 under autocast: on CPU the bfloat16 kernel is much slower."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float())


def float32_norms(model):
    """Makes a model's group normalisations compute in float32. For training only."""
    for module in model.modules():
        if type(module) is torch.nn.GroupNorm:
            module.__class__ = Float32GroupNorm
    return model


def make_vae() -> AutoencoderKL:
    """Picture [B, 3, 64, 64] in [-1, 1] <-> latent [B, 4, 8, 8]."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 64],
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=PICTURE_SIZE,
    )
    return plain_attention(vae).to(memory_format=torch.channels_last)


def make_unet() -> UNet2DConditionModel:
    """(noisy latent, timestep, text [B, T, D]) -> v, same shape as the latent.

    Three levels, 8x8, 4x4 and 2x2: on so small a grid the zero padding of the convolutions tells
    every pixel where it is, which is what position words need. As in Stable Diffusion the coarsest
    level attends to the text in the middle block only; the finest level does too, which is what
    shape words need.
    """
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=[64, 96, 96],
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # the number of heads, in spite of the name
        norm_num_groups=16,
        # The pooled text joins the time embedding, as in DeepFloyd IF: each block hears each word.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    return plain_attention(unet).to(memory_format=torch.channels_last)


def make_text_encoder(vocabulary_size: int) -> CLIPTextModel:
    """Token ids int64 [B, T] -> last_hidden_state [B, T, D]. Start and end tokens come last."""
    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )
    config._attn_implementation = "eager"
    return CLIPTextModel(config)
