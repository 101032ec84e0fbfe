"""Records what backbones.rs is tested against: tiny networks of random weights, saved as timm,
transformers, torchvision and open_clip save them, and the features that these compute.

    python3 record.py        (needs torch, timm, transformers, torchvision, open_clip_torch)

Every file is a state of a network as its library names it; `expected.safetensors` holds the images
and the features by the file's name. Written once, with timm 1.0.31, transformers 5.24.0, torchvision
0.29.2, open_clip 3.3.0 and torch 2.15.0.
"""

import json
import pathlib

import open_clip
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

HERE = pathlib.Path(__file__).parent
WIDTH, DEPTH, HEADS, PATCH, SIDE = 16, 2, 4, 4, 16
HF = dict(
    hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=24,
    image_size=SIDE, patch_size=PATCH, layer_norm_eps=1e-5,
)
TIMM = dict(
    img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_ratio=1.5,
)
EXPECTED = {}


def shake(model):
    """Every parameter random, so that no norm, bias or scale is left out unnoticed."""
    generator = torch.Generator().manual_seed(len(EXPECTED))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
            if "norm" in name and name.endswith("weight") or ".ln_" in name and name.endswith("weight"):
                p.add_(1.0)
    return model.eval()


def images(side=SIDE):
    return torch.rand((3, 3, side, side), generator=torch.Generator().manual_seed(side))


def keep(name, model, features, config, rename=lambda state: state, side=SIDE):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    state = {k: v.contiguous() for k, v in rename(model.state_dict()).items()}
    save_file(state, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    with torch.no_grad():
        EXPECTED[name] = features(images(side)).contiguous()


def timm_config(**more):
    return {"architecture": "vit_tiny", "num_features": WIDTH, "model_args": {"num_heads": HEADS, **more},
            "pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}


def pre_logits(model):
    return lambda x: model.forward_head(model.forward_features(x), pre_logits=True)


def of_timm():
    from functools import partial
    from timm.layers import GluMlp
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    clip = partial(torch.nn.LayerNorm, eps=1e-5)
    variants = {
        "timm-plain": (dict(), dict()),
        "timm-registers": (dict(reg_tokens=2, no_embed_class=True, init_values=0.1), dict()),
        "timm-registers-placed": (dict(reg_tokens=2), dict()),
        "timm-clip": (dict(pre_norm=True, norm_layer=clip, act_layer="quick_gelu"),
                      dict(norm_eps=1e-5, act_layer="quick_gelu")),
        "timm-average": (dict(global_pool="avg", fc_norm=True), dict()),
        "timm-gap": (dict(global_pool="avg", fc_norm=False, class_token=False), dict()),
        "timm-siglip": (dict(global_pool="map", class_token=False, act_layer="gelu_tanh"),
                        dict(act_layer="gelu_tanh")),
        "timm-swiglu": (dict(mlp_layer=GluMlp, act_layer=torch.nn.SiLU, mlp_ratio=2.0), dict()),
        "timm-no-qkv-bias": (dict(qkv_bias=False), dict()),
    }
    for name, (args, stated) in variants.items():
        args = {"norm_layer": norm, **TIMM, **args}
        if name == "timm-swiglu":
            args["mlp_layer"] = partial(GluMlp, gate_last=False)
        model = shake(VisionTransformer(num_classes=5, **args))
        keep(name, model, pre_logits(model), timm_config(**stated))
    model = shake(VisionTransformerDistilled(num_classes=5, norm_layer=norm, **TIMM))
    keep("timm-distilled", model, pre_logits(model), timm_config())
    # DINOv2 by its authors: a position for the CLS token, and registers without one.
    model = shake(VisionTransformer(num_classes=0, norm_layer=norm, reg_tokens=2, no_embed_class=True,
                                    init_values=0.1, **TIMM))
    own = torch.randn((1, 1, WIDTH), generator=torch.Generator().manual_seed(7))

    def authors(state):
        state = dict(state)
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([own, state["pos_embed"]], 1)
        state["cls_token"] = state["cls_token"] - own
        state["mask_token"] = torch.zeros(1, WIDTH)
        return state

    keep("dinov2-authors", model, pre_logits(model), timm_config(), authors)


def of_transformers():
    t = transformers

    def save(name, model, features, side=SIDE):
        shake(model)
        folder = HERE / name
        model.save_pretrained(folder)
        with torch.no_grad():
            EXPECTED[name] = features(model, images(side)).contiguous()

    def cls(inner):
        return lambda m, x: getattr(m, inner)(x).last_hidden_state[:, 0] if inner else m(x).last_hidden_state[:, 0]

    save("hf-vit", t.ViTForImageClassification(t.ViTConfig(**HF)), cls("vit"))
    save("hf-mae", t.ViTMAEForPreTraining(t.ViTMAEConfig(
        mask_ratio=0.0, decoder_hidden_size=8, decoder_num_attention_heads=2, decoder_num_hidden_layers=1,
        decoder_intermediate_size=8, **HF)), mae)
    save("hf-deit", t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**HF)),
         lambda m, x: m.deit(x).last_hidden_state[:, :2].mean(1))
    save("hf-dinov2", t.Dinov2Model(t.Dinov2Config(mlp_ratio=2, **HF)), cls(""))
    # Positions of 4 × 4 patches, images of 6 × 6: bicubic, as in all of DINOv2.
    save("hf-dinov2-resized", t.Dinov2Model(t.Dinov2Config(mlp_ratio=2, **HF)), cls(""), 24)
    save("hf-dinov2-swiglu", t.Dinov2Model(t.Dinov2Config(use_swiglu_ffn=True, **HF)), cls(""))
    save("hf-dinov2-registers",
         t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=2, **HF)), cls(""))
    text = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=10,
                bos_token_id=0, eos_token_id=1, pad_token_id=2)
    save("hf-clip", t.CLIPModel(t.CLIPConfig(vision_config=HF, text_config=text, projection_dim=8)),
         lambda m, x: m.vision_model(x).pooler_output)
    save("hf-siglip", t.SiglipModel(t.SiglipConfig(
        vision_config=HF, text_config={**text, "projection_size": WIDTH})),
         lambda m, x: m.vision_model(x).pooler_output)


def mae(model, x):
    # The encoder without its shuffling of patches, which changes no CLS token beyond rounding.
    return model.vit(x).last_hidden_state[:, 0]


def of_torchvision():
    model = shake(torchvision.models.VisionTransformer(
        image_size=SIDE, patch_size=PATCH, num_layers=DEPTH, num_heads=HEADS, hidden_dim=WIDTH, mlp_dim=24,
        num_classes=5))

    def features(x):
        x = model._process_input(x)
        x = torch.cat([model.class_token.expand(x.shape[0], -1, -1), x], 1)
        return model.encoder(x)[:, 0]

    keep("torchvision", model, features, {"num_heads": HEADS, "layer_norm_eps": 1e-6, "hidden_act": "gelu"})


def of_open_clip():
    for name, quick in [("open-clip", False), ("openai-clip", True)]:
        vision = dict(image_size=SIDE, layers=DEPTH, width=WIDTH, head_width=WIDTH // HEADS, patch_size=PATCH,
                      mlp_ratio=1.5)
        text = dict(context_length=8, vocab_size=10, width=8, heads=2, layers=1)
        model = shake(open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text, quick_gelu=quick))
        tower = model.visual
        tower.proj.data.zero_()
        tower.output_dim = WIDTH

        def features(x, tower=tower):
            proj, tower.proj = tower.proj, None
            out = tower(x)
            tower.proj = proj
            return out

        keep(name, model, features, None)
        config = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick},
                  "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
        (HERE / name / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    of_timm()
    of_transformers()
    of_torchvision()
    of_open_clip()
    EXPECTED["images"] = images()
    EXPECTED["images.24"] = images(24)
    save_file({k: v.float() for k, v in EXPECTED.items()}, HERE / "expected.safetensors")
