//! How others name the tensors of a ViT, as data. The names on the right are timm's.

/// One way to name the tensors.
pub(super) struct Convention {
    /// Whose it is, for messages.
    pub name: &'static str,
    /// The patch embedding's weight. A network begins where this name and one of `blocks` stand.
    pub patch: &'static str,
    /// A norm of the first block, by the variants there are.
    pub blocks: &'static [&'static str],
    /// From a module or tensor to timm's; `{}` is a block's number. Names that no rule fits stay.
    pub rules: &'static [(&'static str, &'static str)],
}

/// Conventions that are known.
pub(super) const CONVENTIONS: &[Convention] = &[
    Convention {
        name: "timm",
        patch: "patch_embed.proj.weight",
        blocks: &["blocks.0.norm1.weight"],
        rules: &[
            // DINO, DINOv2 and iBOT, by their authors.
            ("register_tokens", "reg_token"),
            ("storage_tokens", "reg_token"),
            ("blocks.{}.mlp.w12", "blocks.{}.mlp.fc1"),
            ("blocks.{}.mlp.w3", "blocks.{}.mlp.fc2"),
            // DeiT III, by its authors.
            ("blocks.{}.gamma_1", "blocks.{}.ls1.gamma"),
            ("blocks.{}.gamma_2", "blocks.{}.ls2.gamma"),
        ],
    },
    Convention {
        name: "Hugging Face transformers (ViT, DeiT, MAE, DINOv2)",
        patch: "embeddings.patch_embeddings.projection.weight",
        blocks: &[
            "encoder.layer.0.layernorm_before.weight",
            "encoder.layer.0.norm1.weight",
            "layers.0.layernorm_before.weight",
        ],
        rules: &[
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.distillation_token", "dist_token"),
            ("embeddings.register_tokens", "reg_token"),
            ("embeddings.mask_token", "mask_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("encoder.layer.{}.layernorm_before", "blocks.{}.norm1"),
            ("encoder.layer.{}.layernorm_after", "blocks.{}.norm2"),
            ("encoder.layer.{}.norm1", "blocks.{}.norm1"),
            ("encoder.layer.{}.norm2", "blocks.{}.norm2"),
            ("encoder.layer.{}.attention.attention.query", "blocks.{}.attn.q"),
            ("encoder.layer.{}.attention.attention.key", "blocks.{}.attn.k"),
            ("encoder.layer.{}.attention.attention.value", "blocks.{}.attn.v"),
            ("encoder.layer.{}.attention.output.dense", "blocks.{}.attn.proj"),
            ("encoder.layer.{}.intermediate.dense", "blocks.{}.mlp.fc1"),
            ("encoder.layer.{}.output.dense", "blocks.{}.mlp.fc2"),
            ("encoder.layer.{}.layer_scale1.lambda1", "blocks.{}.ls1.gamma"),
            ("encoder.layer.{}.layer_scale2.lambda1", "blocks.{}.ls2.gamma"),
            ("encoder.layer.{}.mlp.fc1", "blocks.{}.mlp.fc1"),
            ("encoder.layer.{}.mlp.fc2", "blocks.{}.mlp.fc2"),
            ("encoder.layer.{}.mlp.weights_in", "blocks.{}.mlp.fc1"),
            ("encoder.layer.{}.mlp.weights_out", "blocks.{}.mlp.fc2"),
            // As transformers 5 names them in memory.
            ("encoder.layer.{}.attention.q_proj", "blocks.{}.attn.q"),
            ("encoder.layer.{}.attention.k_proj", "blocks.{}.attn.k"),
            ("encoder.layer.{}.attention.v_proj", "blocks.{}.attn.v"),
            ("encoder.layer.{}.attention.o_proj", "blocks.{}.attn.proj"),
            ("encoder.layer.{}.mlp.gate_proj", "blocks.{}.mlp.fc1_g"),
            ("encoder.layer.{}.mlp.up_proj", "blocks.{}.mlp.fc1_x"),
            ("encoder.layer.{}.mlp.down_proj", "blocks.{}.mlp.fc2"),
            ("layers.{}.layernorm_before", "blocks.{}.norm1"),
            ("layers.{}.layernorm_after", "blocks.{}.norm2"),
            ("layers.{}.attention.q_proj", "blocks.{}.attn.q"),
            ("layers.{}.attention.k_proj", "blocks.{}.attn.k"),
            ("layers.{}.attention.v_proj", "blocks.{}.attn.v"),
            ("layers.{}.attention.o_proj", "blocks.{}.attn.proj"),
            ("layers.{}.mlp", "blocks.{}.mlp"),
            ("layernorm", "norm"),
        ],
    },
    Convention {
        name: "Hugging Face transformers (CLIP, SigLIP)",
        patch: "embeddings.patch_embedding.weight",
        blocks: &["encoder.layers.0.layer_norm1.weight"],
        rules: &[
            ("embeddings.class_embedding", "cls_token"),
            ("embeddings.position_embedding.weight", "pos_embed"),
            ("embeddings.patch_embedding", "patch_embed.proj"),
            ("pre_layrnorm", "norm_pre"),
            ("encoder.layers.{}.layer_norm1", "blocks.{}.norm1"),
            ("encoder.layers.{}.layer_norm2", "blocks.{}.norm2"),
            ("encoder.layers.{}.self_attn.q_proj", "blocks.{}.attn.q"),
            ("encoder.layers.{}.self_attn.k_proj", "blocks.{}.attn.k"),
            ("encoder.layers.{}.self_attn.v_proj", "blocks.{}.attn.v"),
            ("encoder.layers.{}.self_attn.out_proj", "blocks.{}.attn.proj"),
            ("encoder.layers.{}.mlp", "blocks.{}.mlp"),
            ("post_layernorm", "norm"),
            ("head.probe", "attn_pool.latent"),
            ("head.attention.in_proj_weight", "attn_pool.qkv.weight"),
            ("head.attention.in_proj_bias", "attn_pool.qkv.bias"),
            ("head.attention.out_proj", "attn_pool.proj"),
            ("head.layernorm", "attn_pool.norm"),
            ("head.mlp", "attn_pool.mlp"),
        ],
    },
    Convention {
        name: "OpenAI CLIP and open_clip",
        patch: "conv1.weight",
        blocks: &["transformer.resblocks.0.ln_1.weight"],
        rules: &[
            ("class_embedding", "cls_token"),
            ("positional_embedding", "pos_embed"),
            ("conv1", "patch_embed.proj"),
            ("ln_pre", "norm_pre"),
            ("transformer.resblocks.{}.ln_1", "blocks.{}.norm1"),
            ("transformer.resblocks.{}.ln_2", "blocks.{}.norm2"),
            ("transformer.resblocks.{}.attn.in_proj_weight", "blocks.{}.attn.qkv.weight"),
            ("transformer.resblocks.{}.attn.in_proj_bias", "blocks.{}.attn.qkv.bias"),
            ("transformer.resblocks.{}.attn.out_proj", "blocks.{}.attn.proj"),
            ("transformer.resblocks.{}.mlp.c_fc", "blocks.{}.mlp.fc1"),
            ("transformer.resblocks.{}.mlp.c_proj", "blocks.{}.mlp.fc2"),
            ("transformer.resblocks.{}.ls_1.gamma", "blocks.{}.ls1.gamma"),
            ("transformer.resblocks.{}.ls_2.gamma", "blocks.{}.ls2.gamma"),
            ("ln_post", "norm"),
        ],
    },
    Convention {
        name: "torchvision",
        patch: "conv_proj.weight",
        blocks: &["encoder.layers.encoder_layer_0.ln_1.weight"],
        rules: &[
            ("class_token", "cls_token"),
            ("encoder.pos_embedding", "pos_embed"),
            ("conv_proj", "patch_embed.proj"),
            ("encoder.layers.encoder_layer_{}.ln_1", "blocks.{}.norm1"),
            ("encoder.layers.encoder_layer_{}.ln_2", "blocks.{}.norm2"),
            (
                "encoder.layers.encoder_layer_{}.self_attention.in_proj_weight",
                "blocks.{}.attn.qkv.weight",
            ),
            (
                "encoder.layers.encoder_layer_{}.self_attention.in_proj_bias",
                "blocks.{}.attn.qkv.bias",
            ),
            ("encoder.layers.encoder_layer_{}.self_attention.out_proj", "blocks.{}.attn.proj"),
            ("encoder.layers.encoder_layer_{}.mlp.linear_1", "blocks.{}.mlp.fc1"),
            ("encoder.layers.encoder_layer_{}.mlp.linear_2", "blocks.{}.mlp.fc2"),
            ("encoder.layers.encoder_layer_{}.mlp.0", "blocks.{}.mlp.fc1"),
            ("encoder.layers.encoder_layer_{}.mlp.3", "blocks.{}.mlp.fc2"),
            ("encoder.ln", "norm"),
        ],
    },
    Convention {
        name: "MMPreTrain",
        patch: "patch_embed.projection.weight",
        blocks: &["layers.0.ln1.weight"],
        rules: &[
            ("patch_embed.projection", "patch_embed.proj"),
            ("pre_norm", "norm_pre"),
            ("layers.{}.ln1", "blocks.{}.norm1"),
            ("layers.{}.ln2", "blocks.{}.norm2"),
            ("layers.{}.attn.gamma1.weight", "blocks.{}.ls1.gamma"),
            ("layers.{}.ffn.gamma2.weight", "blocks.{}.ls2.gamma"),
            ("layers.{}.attn", "blocks.{}.attn"),
            ("layers.{}.ffn.layers.0.0", "blocks.{}.mlp.fc1"),
            ("layers.{}.ffn.layers.1", "blocks.{}.mlp.fc2"),
            ("ln1", "norm"),
        ],
    },
];

/// Tensors that are one in timm's networks: what they are made of, in order.
pub(super) const JOINED: &[(&str, &[&str])] =
    &[("attn.qkv", &["attn.q", "attn.k", "attn.v"]), ("mlp.fc1", &["mlp.fc1_g", "mlp.fc1_x"])];

/// Parts of names that wrappers (compilation, sharding, checkpointing) put in between.
pub(super) const WRAPPERS: &[&str] =
    &["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

/// Copies of a network beside it: the copy's part of the name, and the original's.
pub(super) const COPIES: &[(&str, &str)] =
    &[("momentum_encoder", "base_encoder"), ("encoder_k", "encoder_q"), ("ema", "")];

/// First parts of names, below a network's own prefix, of what is no part of the features.
pub(super) const LEFT_OUT: &[(&str, &str)] = &[
    ("head", "a classifier"),
    ("heads", "a classifier"),
    ("head_dist", "a classifier"),
    ("fc", "a classifier"),
    ("classifier", "a classifier"),
    ("cls_classifier", "a classifier"),
    ("distillation_classifier", "a classifier"),
    ("linear", "a classifier"),
    ("pre_logits", "a layer before a classifier"),
    ("pooler", "a layer before a classifier"),
    ("projector", "a projection for pre-training"),
    ("predictor", "a projection for pre-training"),
    ("proj", "CLIP's projection"),
    ("mask_token", "the token of masked patches"),
    ("masked_embed", "the token of masked patches"),
    ("decoder", "a decoder"),
    ("decoder_embed", "a decoder"),
    ("decoder_pos_embed", "a decoder"),
    ("decoder_blocks", "a decoder"),
    ("decoder_norm", "a decoder"),
    ("decoder_pred", "a decoder"),
    ("ema", "an average of the network over its training"),
];

/// Parts of names that tell a network that is not supported, and which.
pub(super) const FOREIGN: &[(&str, &str)] = &[
    ("lora_A", "LoRA pairs without their network; merge them into it first"),
    ("lora_down", "LoRA pairs without their network; merge them into it first"),
    (
        "relative_position_bias_table",
        "relative position biases (BEiT, Swin), which are not supported",
    ),
    ("relative_position_bias", "relative position biases (BEiT, Swin), which are not supported"),
    ("q_norm", "norms of queries and keys, which are not supported"),
    ("rope", "rotary positions (DINOv3, EVA-02), which are not supported"),
    ("layer1.0.conv1", "a ResNet; cilbench's backbones are plain ViTs"),
    ("stages.0", "ConvNeXt or the like; cilbench's backbones are plain ViTs"),
    (
        "patch_embed.backbone",
        "a hybrid with a convolutional network before it, which is not supported",
    ),
    ("patch_embed.proj.0", "a stem of several convolutions, which is not supported"),
    ("layers.0.blocks.0", "Swin or the like; cilbench's backbones are plain ViTs"),
    ("embeddings.word_embeddings", "a language model; cilbench's backbones are ViTs of images"),
];
