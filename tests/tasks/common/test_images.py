import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from tasks.common.engine import Engine
from tasks.common.errors import DataError
from tasks.common.images import EvalTransform, UnreadableImage, decode, load

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AWKWARD = [(31, 97), (640, 480), (225, 224), (33, 500), (500, 33), (256, 256), (224, 224), (1, 1), (223, 301), (99, 64)]
GEOMETRIES = [
    ("center", 224, 224, 0.875),
    ("center", 160, 160, 0.95),
    ("center", 224, 224, 1.0),
    ("center", 128, 192, 0.9),
    ("squash", 224, 224, 0.875),
    ("squash", 96, 160, 0.95),
    ("border", 224, 224, 0.9),
    ("border", 128, 192, 1.0),
]


def transform_of(mode, height, width, crop_pct, interpolation="bicubic"):
    return EvalTransform(height, width, crop_pct, mode, interpolation, MEAN, STD)


def timm_pixels(image, transform):
    """The pixels that timm's own evaluation transform gives, before normalisation: uint8 (H, W, 3)."""
    import timm.data

    theirs = timm.data.create_transform(
        input_size=(3, transform.height, transform.width),
        is_training=False,
        crop_pct=transform.crop_pct,
        crop_mode=transform.crop_mode,
        interpolation=transform.interpolation,
        mean=transform.mean,
        std=transform.std,
        normalize=False,
    )
    return np.asarray(theirs(image)).transpose(1, 2, 0)


def assert_parity(ours, theirs):
    """DESIGN 3: at most 2 grey levels anywhere, fewer than 0.5 % of the values different."""
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.005


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("mode", "height", "width", "crop_pct"), GEOMETRIES)
@pytest.mark.parametrize("size", AWKWARD, ids=lambda s: f"{s[0]}x{s[1]}")
def test_the_geometry_is_timms(photo, size, mode, height, width, crop_pct, interpolation):
    image = photo(*size)
    transform = transform_of(mode, height, width, crop_pct, interpolation)
    assert_parity(transform(image), timm_pixels(image, transform))


def test_the_transform_of_a_network_is_the_one_of_its_own_pretraining(tiny_network, photo):
    import timm.data

    from tasks.common.backbones.network import eval_transform

    ours = eval_transform(tiny_network)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(tiny_network), normalize=False)
    image = photo(301, 187)
    assert_parity(ours(image), np.asarray(theirs(image)).transpose(1, 2, 0))


FILES = {
    "grey JPEG": lambda p: encoded(p.convert("L"), "JPEG"),
    "progressive JPEG": lambda p: encoded(p, "JPEG", progressive=True),
    "CMYK JPEG": lambda p: encoded(p.convert("CMYK"), "JPEG"),
    "palette PNG": lambda p: encoded(p.quantize(50), "PNG"),
    "GIF": lambda p: encoded(p.quantize(50), "GIF"),
    "black and white PNG": lambda p: encoded(p.convert("1"), "PNG"),
    "WebP": lambda p: encoded(p, "WEBP"),
    "BMP": lambda p: encoded(p, "BMP"),
    "RGB PNG": lambda p: encoded(p, "PNG"),
    "TIFF": lambda p: encoded(p, "TIFF"),
    "compressed TIFF": lambda p: encoded(p, "TIFF", compression="tiff_lzw"),
    "4:4:4 JPEG": lambda p: encoded(p, "JPEG", quality=95, subsampling=0),
    "lossless WebP": lambda p: encoded(p, "WEBP", lossless=True),
}


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("size", [(31, 97), (640, 480)], ids=str)
def test_a_file_becomes_the_pixels_that_timm_sees(photo, form, size):
    content = FILES[form](photo(*size))
    transform = transform_of("center", 160, 160, 0.95)
    with Image.open(io.BytesIO(content)) as image:
        theirs = timm_pixels(image.convert("RGB"), transform)
    assert_parity(transform(decode(content)), theirs)


def natural(width, height, seed=0):
    """Detail at every scale, as photographs have it, and a sensor's noise."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for octave in range(2, 9):
        coarse = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        planes = [
            np.asarray(Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC))
            for c in range(3)
        ]
        total += np.stack(planes, axis=-1) * 160 / 2 ** (octave - 1)
    total += rng.normal(scale=4, size=total.shape)
    return Image.fromarray((128 + total).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_a_crop_is_what_pil_gives_for_photographs_of_any_shape(interpolation):
    rng = np.random.default_rng(3)
    transform = transform_of("center", 96, 96, 0.9, interpolation)
    for number in range(40):
        image = natural(*map(int, rng.integers(100, 420, 2)), seed=number)
        assert_parity(transform(image), timm_pixels(image, transform))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied(photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(61, 40), "JPEG", exif=exif)
    upright = decode(content)
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(upright, ImageOps.exif_transpose(image))
    assert upright.size == ((61, 40) if orientation < 5 else (40, 61))


def test_an_image_on_its_side_is_turned_the_right_way():
    lying = Image.new("RGB", (40, 20), "black")
    lying.paste("white", (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side: turn it clockwise
    upright = np.asarray(decode(encoded(lying, "PNG", exif=exif)))
    assert upright.shape == (40, 20, 3)
    assert (upright[0] == 255).all()
    assert (upright[-1] == 0).all()


def test_transparent_pixels_show_white():
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert (np.asarray(decode(encoded(image, "PNG"))) == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(photo):
    image = photo(20, 20).convert("RGBA")
    image.putalpha(128)
    expected = np.asarray(photo(20, 20)) * (128 / 255) + 255 * (127 / 255)
    assert np.abs(np.asarray(decode(encoded(image, "PNG"))) - expected).max() <= 1


def test_grey_with_transparency_is_composited_on_white():
    image = Image.new("LA", (4, 4), (10, 0))
    assert (np.asarray(decode(encoded(image, "PNG"))) == 255).all()


def test_a_transparent_palette_colour_shows_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    assert (np.asarray(decode(encoded(image, "PNG", transparency=1))) == 255).all()
    assert (np.asarray(decode(encoded(image, "PNG", transparency=0)))[..., 0] == 200).all()


def test_the_transparent_colour_of_an_rgb_png_shows_white():
    image = Image.new("RGB", (4, 4), (200, 0, 0))
    assert (np.asarray(decode(encoded(image, "PNG", transparency=(200, 0, 0)))) == 255).all()


def test_sixteen_bit_grey_keeps_its_high_byte():
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    pixels = np.asarray(decode(encoded(Image.fromarray(values), "PNG")))
    assert np.array_equal(pixels[..., 0], values // 256)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pixels = np.asarray(decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    assert (pixels == (255, 0, 0)).all()


def test_bytes_and_a_path_give_the_same_image(photo, tmp_path):
    photo(40, 30).save(tmp_path / "a.jpg")
    assert np.array_equal(decode(tmp_path / "a.jpg"), decode((tmp_path / "a.jpg").read_bytes()))


def test_bytes_that_are_no_image_are_an_error():
    with pytest.raises(UnreadableImage, match="cannot identify"):
        decode(b"not an image")


def test_a_truncated_image_is_an_error(photo):
    content = encoded(photo(200, 200), "JPEG")
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(content[: len(content) // 2])


def test_a_file_that_is_gone_is_an_error_for_the_user(tmp_path):
    with pytest.raises(DataError, match="cannot be read, though it could"):
        load(tmp_path / "gone.png", transform_of("center", 32, 32, 1.0))


def test_a_damaged_file_is_an_error_for_the_user(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(DataError, match=r"a\.png"):
        load(tmp_path / "a.png", transform_of("center", 32, 32, 1.0))


def test_a_transform_survives_json():
    import json
    from dataclasses import asdict

    transform = transform_of("border", 128, 192, 0.9)
    assert EvalTransform.from_dict(json.loads(json.dumps(asdict(transform)))) == transform


def test_the_features_of_the_graph_are_those_of_the_torch_network_on_timms_pixels(tiny_graph, tiny_network, photo):
    import timm.data
    import torch

    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(tiny_network))
    images = [photo(*size) for size in AWKWARD if size != (1, 1)]
    with torch.inference_mode():
        a_ND = tiny_network(torch.stack([theirs(image) for image in images])).numpy().astype(np.float64)
    b_ND = Engine(tiny_graph.xml)(np.stack([tiny_graph.spec.transform(image) for image in images])).astype(np.float64)
    cosine = (a_ND * b_ND).sum(axis=1) / np.linalg.norm(a_ND, axis=1) / np.linalg.norm(b_ND, axis=1)
    assert cosine.min() >= 0.9999
    assert np.abs(a_ND - b_ND).max() <= 1e-3 * np.abs(a_ND).max()


@pytest.mark.parametrize("form", FILES)
def test_the_features_of_a_file_are_those_that_timm_gives(tiny_graph, tiny_network, photo, form):
    import timm.data
    import torch

    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(tiny_network))
    contents = [FILES[form](photo(*size)) for size in [(640, 480), (333, 500), (31, 97)]]
    images = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    with torch.inference_mode():
        a_ND = tiny_network(torch.stack([theirs(image) for image in images])).numpy().astype(np.float64)
    ours = np.stack([tiny_graph.spec.transform(decode(content)) for content in contents])
    b_ND = Engine(tiny_graph.xml)(ours).astype(np.float64)
    cosine = (a_ND * b_ND).sum(axis=1) / np.linalg.norm(a_ND, axis=1) / np.linalg.norm(b_ND, axis=1)
    assert cosine.min() >= 0.9999
