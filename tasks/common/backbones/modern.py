"""Networks beyond the Keras table that are worth a try, and those of the weights packages.

What timm knows (input, parameters, normalisation) comes from timm. The licence is kept here too, so that it is known
without importing timm; a test compares it with the installed timm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .spec import Output


@dataclass(frozen=True, kw_only=True)
class Modern:
    """One network with its weights.

    Attributes:
        name: short, also for `features.backbone`.
        timm: timm's name with the tag of the weights for frozen features.
        tuned: timm's name with the tag to start fine-tuning from; empty if it is the same.
        data: what it was pre-trained on, and how.
        licence: as timm's pretrained config states it.
        when: when to choose it, in one line.
        output: the recommended `features.output`.
        image_size: the recommended `features.image_size` in pixels, where the size of pre-training is not the best
            choice for most data; None otherwise.
        published: timm name -> (top-1, top-5) in percent on ImageNet's validation set at the size of pre-training, from
            timm's `results-imagenet.csv`, commit 7479d45. Weights without an ImageNet-1k classifier have none.
    """

    name: str
    timm: str
    tuned: str = ""
    data: str
    licence: str
    when: str
    output: Output = "pre_logits"
    image_size: int | None = None
    published: dict[str, tuple[float, float]] = field(default_factory=dict)


_LVD = "LVD-142M, 142 million images without labels (DINOv2)"
_IN22K = "ImageNet-22k, 21,841 classes"
_IN1K = "ImageNet-1k, 1,000 classes"

MODERN = (
    Modern(
        name="DINOv2-S", timm="vit_small_patch14_dinov2.lvd142m",
        data=_LVD, licence="apache-2.0",
        when="few images, or pictures unlike ImageNet: learned without labels, so nothing is tuned to its classes",
        output="class_and_patch_mean", image_size=224,
    ),
    Modern(
        name="DINOv2-B", timm="vit_base_patch14_dinov2.lvd142m",
        data=_LVD, licence="apache-2.0",
        when="as DINOv2-S, where accuracy matters more than speed",
        output="class_and_patch_mean", image_size=224,
    ),
    Modern(
        name="DINOv2-S-reg", timm="vit_small_patch14_reg4_dinov2.lvd142m",
        data=_LVD, licence="apache-2.0",
        when="as DINOv2-S, where the patch tokens matter: small objects, saliency maps",
        output="class_and_patch_mean", image_size=224,
    ),
    Modern(
        name="DINOv2-B-reg", timm="vit_base_patch14_reg4_dinov2.lvd142m",
        data=_LVD, licence="apache-2.0",
        when="as DINOv2-B, where the patch tokens matter",
        output="class_and_patch_mean", image_size=224,
    ),
    Modern(
        name="SigLIP2-B", timm="vit_base_patch16_siglip_224.v2_webli",
        data="WebLI, images with their captions from the web (SigLIP 2)", licence="apache-2.0",
        when="what a caption would name: products, scenes, documents, drawings, logos",
    ),
    Modern(
        name="EVA02-S", timm="eva02_small_patch14_336.mim_in22k_ft_in1k", tuned="eva02_small_patch14_224.mim_in22k",
        data="ImageNet-22k without labels (masked images), then ImageNet-1k", licence="mit",
        when="photographs like those of ImageNet, with few parameters but a larger input",
        published={"eva02_small_patch14_336.mim_in22k_ft_in1k": (85.760, 97.610)},
    ),
    Modern(
        name="EVA02-B", timm="eva02_base_patch14_448.mim_in22k_ft_in22k", tuned="eva02_base_patch14_224.mim_in22k",
        data="ImageNet-22k, first without labels (masked images), then with its 21,841 classes", licence="mit",
        when="many fine-grained classes of natural objects, on a GPU: the input has 448 pixels",
    ),
    Modern(
        name="MobileNetV4-S", timm="mobilenetv4_conv_small.e2400_r224_in1k",
        data=_IN1K, licence="apache-2.0",
        when="the fastest on a CPU or a phone",
        published={"mobilenetv4_conv_small.e2400_r224_in1k": (73.730, 91.426)},
    ),
    Modern(
        name="MobileNetV4-M", timm="mobilenetv4_conv_medium.e500_r256_in1k",
        data=_IN1K, licence="apache-2.0",
        when="many images on a CPU, with more accuracy than MobileNetV4-S",
        published={"mobilenetv4_conv_medium.e500_r256_in1k": (79.922, 95.186)},
    ),
    Modern(
        name="MobileNetV4-HM", timm="mobilenetv4_hybrid_medium.e200_r256_in12k",
        data="ImageNet-12k, 11,821 classes", licence="apache-2.0",
        when="as MobileNetV4-M, slower, pre-trained on many more classes",
    ),
    Modern(
        name="ConvNeXt-T", timm="convnext_tiny.fb_in22k",
        data=_IN22K, licence="apache-2.0",
        when="an all-round choice for photographs that also fine-tunes well",
    ),
    Modern(
        name="ConvNeXt-S", timm="convnext_small.fb_in22k",
        data=_IN22K, licence="apache-2.0",
        when="as ConvNeXt-T, larger and slower",
    ),
    Modern(
        name="ConvNeXt-B", timm="convnext_base.fb_in22k",
        data=_IN22K, licence="apache-2.0",
        when="as ConvNeXt-S, larger and slower still",
    ),
)  # fmt: skip

LITE = (
    Modern(
        name="tf_efficientnet_lite0", timm="tf_efficientnet_lite0",
        data=_IN1K, licence="apache-2.0",
        when="the default: small and fast, and its weights are installed with Graft",
        published={"tf_efficientnet_lite0.in1k": (74.846, 92.180)},
    ),
    Modern(
        name="tf_efficientnet_lite1", timm="tf_efficientnet_lite1",
        data=_IN1K, licence="apache-2.0",
        when="as lite0, more accurate and slower",
        published={"tf_efficientnet_lite1.in1k": (76.672, 93.232)},
    ),
    Modern(
        name="tf_efficientnet_lite2", timm="tf_efficientnet_lite2",
        data=_IN1K, licence="apache-2.0",
        when="as lite1, more accurate and slower still",
        published={"tf_efficientnet_lite2.in1k": (77.472, 93.744)},
    ),
)  # fmt: skip
"""The networks whose weights Python packages contain, under the names without a tag that the packages are known by."""

Group = Literal["Keras table", "modern networks", "installed packages", "other networks"]


def modern_of(backbone: str) -> Modern | None:
    """The entry of a short name (upper and lower case alike), or of the timm name of its weights."""
    names = (backbone, backbone.partition(".")[0])  # those of packages are without a tag
    return next((e for e in (*MODERN, *LITE) if backbone.lower() == e.name.lower() or e.timm in names), None)
