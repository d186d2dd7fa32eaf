"""The eighteen networks of the Keras Applications table, and what timm calls them; `modern` has those beyond it.

The only module with their published numbers. What timm knows (input, normalisation, licence) comes
from timm.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ParamsError
from .modern import LITE, MODERN, modern_of

KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications/"
"""Where the official weights of Keras lie."""


@dataclass(frozen=True)
class KerasFile:
    """An official weights file of Keras.

    Attributes:
        path: below `KERAS_FILES`.
        md5: empty if Keras publishes none.
        kept_as: its name in Keras' own cache, if that is another.
    """

    path: str
    md5: str = ""
    kept_as: str = ""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[1]

    @property
    def cached(self) -> str:
        return self.kept_as or self.name


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network.

    Attributes:
        name: Keras' name.
        megabytes, top1, top5, parameters, depth: the Keras table's; accuracies in percent on ImageNet's validation set,
            parameters in millions.
        timm: the architecture's name in timm.
        frozen: the tag of the timm weights for frozen features; empty if timm has no weights.
        tuned: the tag to start full fine-tuning from.
        published: tag -> (top-1, top-5) in percent at the tag's own input size, from timm's `results-imagenet.csv`,
            commit 7479d45 (larger inputs may do better).
        keras: the official weights with the classifier.
        keras_notop: the official weights without it.
    """

    name: str
    megabytes: int
    top1: float
    top5: float
    parameters: float
    depth: int
    timm: str
    frozen: str
    tuned: str
    published: dict[str, tuple[float, float]]
    keras: KerasFile
    keras_notop: KerasFile

    @property
    def pretrained(self) -> str:
        """The timm name with the tag for frozen features; without a tag where timm has no weights."""
        return f"{self.timm}.{self.frozen}" if self.frozen else self.timm

    @property
    def hidden(self) -> bool:
        """Whether the classifier has hidden layers, so that a file without it lacks what gives the features."""
        return self.timm.startswith("vgg")


def _kernels(folder: str, stem: str, md5: str, notop: str) -> dict[str, KerasFile]:
    """The files of the networks whose weights are named in the usual way."""
    path = f"{folder}/{stem}_weights_tf_dim_ordering_tf_kernels"
    return {"keras": KerasFile(f"{path}.h5", md5), "keras_notop": KerasFile(f"{path}_notop.h5", notop)}


CATALOGUE = (
    Entry(
        name="Xception", megabytes=88, top1=79.0, top5=94.5, parameters=22.9, depth=81,
        timm="legacy_xception", frozen="tf_in1k", tuned="tf_in1k",
        published={"tf_in1k": (79.050, 94.386)},
        **_kernels("xception", "xception", "0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97"),
    ),
    Entry(
        name="VGG16", megabytes=528, top1=71.3, top5=90.1, parameters=138.4, depth=16,
        timm="vgg16", frozen="tv_in1k", tuned="tv_in1k",
        published={"tv_in1k": (71.600, 90.398)},
        **_kernels("vgg16", "vgg16", "64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"),
    ),
    Entry(
        name="VGG19", megabytes=549, top1=71.3, top5=90.0, parameters=143.7, depth=19,
        timm="vgg19", frozen="tv_in1k", tuned="tv_in1k",
        published={"tv_in1k": (72.400, 90.878)},
        **_kernels("vgg19", "vgg19", "cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"),
    ),
    Entry(
        name="ResNet50", megabytes=98, top1=74.9, top5=92.1, parameters=25.6, depth=107,
        timm="resnet50", frozen="tv_in1k", tuned="a1h_in1k",
        published={"tv_in1k": (76.156, 92.866), "a1h_in1k": (79.260, 94.498)},
        **_kernels("resnet", "resnet50", "2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
    ),
    Entry(
        name="ResNet101", megabytes=171, top1=76.4, top5=92.8, parameters=44.7, depth=209,
        timm="resnet101", frozen="tv_in1k", tuned="a1h_in1k",
        published={"tv_in1k": (77.404, 93.552), "a1h_in1k": (81.950, 95.760)},
        **_kernels("resnet", "resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
    ),
    Entry(
        name="ResNet152", megabytes=232, top1=76.6, top5=93.1, parameters=60.4, depth=311,
        timm="resnet152", frozen="tv_in1k", tuned="a1h_in1k",
        published={"tv_in1k": (78.330, 94.046), "a1h_in1k": (82.818, 96.124)},
        **_kernels("resnet", "resnet152", "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    ),
    Entry(
        name="ResNet50V2", megabytes=98, top1=76.0, top5=93.0, parameters=25.6, depth=103,
        timm="resnetv2_50", frozen="a1h_in1k", tuned="a1h_in1k",
        published={"a1h_in1k": (80.406, 95.084)},
        **_kernels("resnet", "resnet50v2", "3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"),
    ),
    Entry(
        name="ResNet101V2", megabytes=171, top1=77.2, top5=93.8, parameters=44.7, depth=205,
        timm="resnetv2_101", frozen="a1h_in1k", tuned="a1h_in1k",
        published={"a1h_in1k": (82.042, 95.866)},
        **_kernels("resnet", "resnet101v2", "6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"),
    ),
    Entry(
        name="ResNet152V2", megabytes=232, top1=78.0, top5=94.2, parameters=60.4, depth=307,
        timm="resnetv2_152", frozen="", tuned="",
        published={},
        **_kernels("resnet", "resnet152v2", "a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"),
    ),
    Entry(
        name="InceptionV3", megabytes=92, top1=77.9, top5=93.7, parameters=23.9, depth=189,
        timm="inception_v3", frozen="tf_in1k", tuned="tf_in1k",
        published={"tf_in1k": (77.866, 93.640)},
        **_kernels(
            "inception_v3", "inception_v3", "9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"
        ),
    ),
    Entry(
        name="InceptionResNetV2", megabytes=215, top1=80.3, top5=95.3, parameters=55.9, depth=449,
        timm="inception_resnet_v2", frozen="tf_in1k", tuned="tf_in1k",
        published={"tf_in1k": (80.446, 95.306)},
        **_kernels(
            "inception_resnet_v2", "inception_resnet_v2",
            "e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4",
        ),
    ),
    Entry(
        name="MobileNet", megabytes=16, top1=70.4, top5=89.5, parameters=4.3, depth=55,
        timm="mobilenetv1_100", frozen="ra4_e3600_r224_in1k", tuned="ra4_e3600_r224_in1k",
        published={"ra4_e3600_r224_in1k": (75.384, 92.312)},
        keras=KerasFile("mobilenet/mobilenet_1_0_224_tf.h5"),
        keras_notop=KerasFile("mobilenet/mobilenet_1_0_224_tf_no_top.h5"),
    ),
    Entry(
        name="MobileNetV2", megabytes=14, top1=71.3, top5=90.1, parameters=3.5, depth=105,
        timm="mobilenetv2_100", frozen="ra_in1k", tuned="ra_in1k",
        published={"ra_in1k": (72.936, 91.002)},
        keras=KerasFile("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"),
        keras_notop=KerasFile("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
    ),
    Entry(
        name="DenseNet121", megabytes=33, top1=75.0, top5=92.3, parameters=8.1, depth=242,
        timm="densenet121", frozen="tv_in1k", tuned="ra_in1k",
        published={"tv_in1k": (74.748, 92.154), "ra_in1k": (75.576, 92.648)},
        **_kernels("densenet", "densenet121", "9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"),
    ),
    Entry(
        name="DenseNet169", megabytes=57, top1=76.2, top5=93.2, parameters=14.3, depth=338,
        timm="densenet169", frozen="tv_in1k", tuned="tv_in1k",
        published={"tv_in1k": (75.922, 92.976)},
        **_kernels("densenet", "densenet169", "d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"),
    ),
    Entry(
        name="DenseNet201", megabytes=80, top1=77.3, top5=93.6, parameters=20.2, depth=402,
        timm="densenet201", frozen="tv_in1k", tuned="tv_in1k",
        published={"tv_in1k": (77.284, 93.480)},
        **_kernels("densenet", "densenet201", "1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    ),
    Entry(
        name="NASNetMobile", megabytes=23, top1=74.4, top5=91.9, parameters=5.3, depth=389,
        timm="nasnetamobile", frozen="", tuned="",
        published={},
        keras=KerasFile("nasnet/NASNet-mobile.h5", "020fb642bf7360b370c678b08e0adf61", "nasnet_mobile.h5"),
        keras_notop=KerasFile(
            "nasnet/NASNet-mobile-no-top.h5", "1ed92395b5b598bdda52abe5c0dbfd63", "nasnet_mobile_no_top.h5"
        ),
    ),
    Entry(
        name="NASNetLarge", megabytes=343, top1=82.5, top5=96.0, parameters=88.9, depth=533,
        timm="nasnetalarge", frozen="tf_in1k", tuned="tf_in1k",
        published={"tf_in1k": (82.636, 96.060)},
        keras=KerasFile("nasnet/NASNet-large.h5", "11577c9a518f0070763c2b964a382f17", "nasnet_large.h5"),
        keras_notop=KerasFile(
            "nasnet/NASNet-large-no-top.h5", "d81d89dc07e6e56530c4e77faddd61b5", "nasnet_large_no_top.h5"
        ),
    ),
)  # fmt: skip


def entry_of(backbone: str) -> Entry | None:
    """The entry of a Keras name (upper and lower case alike) or of a timm name, with or without a tag."""
    architecture = backbone.split(".")[0]
    return next((e for e in CATALOGUE if e.name.lower() == backbone.lower() or e.timm == architecture), None)


def short_names() -> list[str]:
    """The names of all listed networks, of the Keras table and beyond."""
    return [entry.name for entry in (*CATALOGUE, *MODERN, *LITE)]


def timm_name(backbone: str, weights: str) -> str:
    """timm's name of the network that `features.backbone` and `features.weights` ask for.

    Raises:
        ParamsError: Keras weights are requested for a network that Keras does not have.
    """
    entry = entry_of(backbone)
    if weights == "keras" or weights.startswith("keras:"):
        if entry is None:
            raise ParamsError(
                "params.yaml: `features.weights` asks for Keras weights, which there are for eighteen networks only",
                got=backbone,
                allowed=", ".join(e.name for e in CATALOGUE),
                todo="name one of them in `features.backbone`, or use other weights",
            )
        return entry.timm
    if entry is not None and entry.name.lower() == backbone.lower():
        return entry.pretrained
    modern = modern_of(backbone)
    return modern.timm if modern is not None else backbone
