"""Writes one tiny network into many files, under the names and in the formats that people have.

    python3 names.py         (needs torch, timm, safetensors)

All files in `names/` are the same network; backbones.rs demands one weight id and one set of features
of them. Heads are stated by the command (2). Written once, with torch 2.15.0 and timm 1.0.31.
"""

import argparse
import collections
import json
import pathlib
import re

import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

HERE = pathlib.Path(__file__).parent / "names"


def network():
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=2, mlp_ratio=1.5, num_classes=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3 + ("norm" in name and "weight" in name))
    return model.eval()


def qkv(state):
    """q, k and v apart."""
    out = {}
    for name, value in state.items():
        if ".attn.qkv." in name:
            for part, rows in zip("qkv", value.chunk(3)):
                out[name.replace("qkv", part)] = rows.clone()
        else:
            out[name] = value
    return out


def renamed(state, rules):
    out = {}
    for name, value in state.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        out[name] = value
    return out


def transformers(state):
    return renamed(qkv(state), [
        (r"^head", "classifier"), (r"^cls_token", "embeddings.cls_token"), (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"), (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."), (r"norm1", "layernorm_before"), (r"norm2", "layernorm_after"),
        (r"attn\.q\.", "attention.attention.query."), (r"attn\.k\.", "attention.attention.key."),
        (r"attn\.v\.", "attention.attention.value."), (r"attn\.proj", "attention.output.dense"),
        (r"mlp\.fc1", "intermediate.dense"), (r"mlp\.fc2", "output.dense"),
    ])


def clip_of_transformers(state):
    out = renamed(qkv(state), [
        (r"^cls_token", "embeddings.class_embedding"), (r"^pos_embed", "embeddings.position_embedding.weight"),
        (r"^patch_embed\.proj", "embeddings.patch_embedding"), (r"^norm\.", "post_layernorm."),
        (r"^blocks\.", "encoder.layers."), (r"norm1", "layer_norm1"), (r"norm2", "layer_norm2"),
        (r"attn\.([qkv])\.", r"self_attn.\1_proj."), (r"attn\.proj", "self_attn.out_proj"),
    ])
    out["embeddings.class_embedding"] = out["embeddings.class_embedding"].reshape(-1)
    out["embeddings.position_embedding.weight"] = out["embeddings.position_embedding.weight"][0]
    return out


def open_clip(state):
    out = renamed(state, [
        (r"^cls_token", "class_embedding"), (r"^pos_embed", "positional_embedding"), (r"^patch_embed\.proj", "conv1"),
        (r"^norm\.", "ln_post."), (r"^blocks\.", "transformer.resblocks."), (r"norm([12])", r"ln_\1"),
        (r"attn\.qkv\.", "attn.in_proj_"), (r"attn\.proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
    ])
    out["class_embedding"] = out["class_embedding"].reshape(-1)
    out["positional_embedding"] = out["positional_embedding"][0]
    return out


def torchvision(state):
    return renamed(state, [
        (r"^head", "heads.head"), (r"^cls_token", "class_token"), (r"^pos_embed", "encoder.pos_embedding"),
        (r"^patch_embed\.proj", "conv_proj"), (r"^norm\.", "encoder.ln."),
        (r"^blocks\.", "encoder.layers.encoder_layer_"), (r"norm([12])", r"ln_\1"),
        (r"attn\.qkv\.", "self_attention.in_proj_"), (r"attn\.proj", "self_attention.out_proj"),
        (r"mlp\.fc1", "mlp.0"), (r"mlp\.fc2", "mlp.3"),
    ])


def mmpretrain(state):
    return renamed(state, [
        (r"^head", "head.layers.head"), (r"^patch_embed\.proj", "patch_embed.projection"), (r"^norm\.", "ln1."),
        (r"^blocks\.", "layers."), (r"norm([12])", r"ln\1"), (r"mlp\.fc1", "ffn.layers.0.0"),
        (r"mlp\.fc2", "ffn.layers.1"),
    ])


def prefixed(prefix, state):
    return collections.OrderedDict((prefix + name, value) for name, value in state.items())


def shards(stem, ending, state, save):
    names = sorted(state)
    parts = {1: names[: len(names) // 2], 2: names[len(names) // 2:]}
    files = {n: f"{stem}-{n:05}-of-00002.{ending}" for n in parts}
    for n, part in parts.items():
        save({name: state[name].contiguous() for name in part}, HERE / files[n])
    index = {"metadata": {}, "weight_map": {name: files[n] for n, part in parts.items() for name in part}}
    (HERE / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=1) + "\n")


def main():
    HERE.mkdir(exist_ok=True)
    model = network()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    trunk = {k: v for k, v in state.items() if not k.startswith("head")}
    other = {k: v + 1 for k, v in state.items()}
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, 16, 16)).sum().backward()
    optimizer.step()
    training = {"optimizer": optimizer.state_dict(), "epoch": 3, "args": argparse.Namespace(arch="vit", lr=0.1)}

    save_file(state, HERE / "timm.safetensors")
    save_file({k: v.double() for k, v in state.items()}, HERE / "timm-f64.safetensors")
    save_file(prefixed("_orig_mod.", state), HERE / "compiled.safetensors")
    save_file({re.sub(r"^blocks\.1\.", "blocks.1.1.", re.sub(r"^blocks\.0\.", "blocks.0.0.", k)): v
               for k, v in state.items()}, HERE / "chunks.safetensors")
    torch.save({"model": prefixed("module.", state), **training}, HERE / "distributed.pth")
    torch.save({"state_dict": prefixed("module.", state), **training}, HERE / "before-1.6.pth",
               _use_new_zipfile_serialization=False)
    torch.save(state, HERE / "plain.pt")
    save_file(prefixed("vit.", transformers(state)), HERE / "transformers.safetensors")
    torch.save(transformers(trunk), HERE / "transformers.bin")
    save_file({**prefixed("vision_model.", clip_of_transformers(trunk)),
               "text_model.embeddings.token_embedding.weight": torch.ones(3, 8), "logit_scale": torch.ones(())},
              HERE / "clip-of-transformers.safetensors")
    torch.save({**prefixed("visual.", open_clip(trunk)), "visual.proj": torch.ones(8, 4),
                "transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_scale": torch.ones(())},
               HERE / "open_clip.bin")
    torch.save(torchvision(state), HERE / "torchvision.pth")
    torch.save({"state_dict": prefixed("backbone.", mmpretrain(trunk)), "meta": {"epoch": 1}}, HERE / "mmpretrain.pth")
    torch.save({"state_dict": {**prefixed("module.base_encoder.", state), **prefixed("module.momentum_encoder.", other)},
                **training}, HERE / "moco-v3.pth")
    torch.save({"student": prefixed("module.backbone.", other), "teacher": prefixed("backbone.", trunk), **training},
               HERE / "dino-teacher.pth")
    torch.save({"state_dict": prefixed("model.encoder.", state), "hyper_parameters": {"lr": 0.1},
                "callbacks": {}, "pytorch-lightning_version": "2.0"}, HERE / "lightning.ckpt")
    shards("model", "safetensors", state, save_file)
    shards("pytorch_model", "bin", transformers(trunk), torch.save)


if __name__ == "__main__":
    main()
