import io
from contextlib import suppress

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.images.decode import UnreadableImage, WrongForm, pixels_of
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import EvalTransform, load

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


def decode_bands(content, channels):
    with Reading(channels).image(content) as picture:
        return picture


def decode(content):
    return decode_bands(content, 3)[0]


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

    from graft.tasks.common.backbones.network import eval_transform

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


def test_bytes_that_are_no_image_are_an_error():
    with pytest.raises(UnreadableImage, match="cannot identify"):
        decode(b"not an image")


def test_a_truncated_image_is_an_error(photo):
    content = encoded(photo(200, 200), "JPEG")
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(content[: len(content) // 2])


def test_a_file_that_is_gone_is_an_error_for_the_user(tmp_path):
    with pytest.raises(DataError, match="cannot be read, though it could"):
        load(tmp_path / "gone.png", None, transform_of("center", 32, 32, 1.0), Reading())


def test_a_damaged_file_is_an_error_for_the_user(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(DataError, match=r"a\.png"):
        load(tmp_path / "a.png", None, transform_of("center", 32, 32, 1.0), Reading())


def test_a_transform_survives_json():
    import json
    from dataclasses import asdict

    transform = transform_of("border", 128, 192, 0.9)
    assert EvalTransform.from_dict(json.loads(json.dumps(asdict(transform)))) == transform


@pytest.fixture(scope="module")
def tiny_engine(tiny_graph):
    return Engine(tiny_graph.xml)


def test_the_features_of_the_graph_are_those_of_the_torch_network_on_timms_pixels(
    tiny_graph, tiny_engine, tiny_network, photo
):
    import timm.data
    import torch

    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(tiny_network))
    images = [photo(*size) for size in AWKWARD if size != (1, 1)]
    with torch.inference_mode():
        a_ND = tiny_network(torch.stack([theirs(image) for image in images])).numpy().astype(np.float64)
    b_ND = tiny_engine(np.stack([tiny_graph.spec.transform(image) for image in images])).astype(np.float64)
    cosine = (a_ND * b_ND).sum(axis=1) / np.linalg.norm(a_ND, axis=1) / np.linalg.norm(b_ND, axis=1)
    assert cosine.min() >= 0.9999
    assert np.abs(a_ND - b_ND).max() <= 1e-3 * np.abs(a_ND).max()


@pytest.mark.parametrize("form", FILES)
def test_the_features_of_a_file_are_those_that_timm_gives(tiny_graph, tiny_engine, tiny_network, photo, form):
    import timm.data
    import torch

    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(tiny_network))
    contents = [FILES[form](photo(*size)) for size in [(640, 480), (333, 500), (31, 97)]]
    images = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    with torch.inference_mode():
        a_ND = tiny_network(torch.stack([theirs(image) for image in images])).numpy().astype(np.float64)
    ours = np.stack([tiny_graph.spec.transform(decode(content)) for content in contents])
    b_ND = tiny_engine(ours).astype(np.float64)
    cosine = (a_ND * b_ND).sum(axis=1) / np.linalg.norm(a_ND, axis=1) / np.linalg.norm(b_ND, axis=1)
    assert cosine.min() >= 0.9999


def array_file(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def bands_of(photo, width, height, count):
    """(height, width, count) of uint8: photographs' bands, each unlike the others."""
    pixels = np.asarray(photo(width, height))
    return np.dstack([np.roll(pixels[..., c % 3], 5 * c, axis=0) for c in range(count)])


@pytest.mark.parametrize("form", FILES)
def test_one_channel_is_what_pil_makes_grey_of_a_file(photo, form):
    content = FILES[form](photo(31, 40))
    (grey,) = decode_bands(content, 1)
    assert grey.mode == "L"
    assert np.array_equal(grey, decode(content).convert("L"))


def test_a_grey_file_keeps_its_values(photo):
    image = photo(31, 40).convert("L")
    assert np.array_equal(decode_bands(encoded(image, "PNG"), 1)[0], image)


def test_transparent_grey_is_composited_on_white():
    (grey,) = decode_bands(encoded(Image.new("LA", (4, 4), (10, 0)), "PNG"), 1)
    assert (np.asarray(grey) == 255).all()


def test_sixteen_bit_grey_read_as_grey_keeps_its_high_byte():
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    (grey,) = decode_bands(encoded(Image.fromarray(values), "PNG"), 1)
    assert np.array_equal(grey, values // 256)


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("CMYK", "TIFF"), ("RGBA", "TIFF"), ("LA", "PNG")])
def test_other_bands_are_taken_as_they_are(photo, mode, form):
    values = bands_of(photo, 31, 40, len(Image.new(mode, (1, 1)).getbands()))
    content = encoded(Image.fromarray(values, mode), form)
    assert np.array_equal(pixels_of(decode_bands(content, values.shape[2])), values)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_an_image_of_its_bands(photo, count, order):
    values = bands_of(photo, 31, 40, count)
    assert np.array_equal(pixels_of(decode_bands(array_file(values.copy(order)), count)), values)


def test_an_array_of_two_axes_is_grey(photo):
    values = bands_of(photo, 31, 40, 1)
    assert np.array_equal(pixels_of(decode_bands(array_file(values[..., 0]), 1)), values)


def test_an_array_is_known_by_its_first_bytes_and_not_by_its_name(photo, tmp_path):
    values = bands_of(photo, 31, 40, 5)
    (tmp_path / "a.bin").write_bytes(array_file(values))
    assert np.array_equal(pixels_of(decode_bands((tmp_path / "a.bin").read_bytes(), 5)), values)


@pytest.mark.parametrize(
    ("mode", "channels", "message"),
    [
        ("RGB", 4, r"3 bands \(RGB\), needed 4"),
        ("RGB", 5, r"3 bands \(RGB\), needed 5"),
        ("RGBA", 2, r"4 bands \(RGBA\), needed 2"),
        ("P", 2, r"1 bands \(P\), needed 2"),
    ],
)
def test_an_image_of_other_bands_is_an_error_that_says_which(photo, mode, channels, message):
    with pytest.raises(WrongForm, match=message):
        decode_bands(encoded(photo(8, 8).convert(mode), "PNG"), channels)


@pytest.mark.parametrize(
    ("values", "channels", "message"),
    [
        (np.zeros((8, 8, 5), np.uint8), 3, r"5 bands \(array\), needed 3"),
        (np.zeros((8, 8, 3), np.uint8), 1, r"3 bands \(array\), needed 1"),
        (np.zeros((8, 8, 5), np.float32), 5, r"array of float32, shape \(8, 8, 5\), needed uint8"),
        (np.zeros((2, 8, 8, 5), np.uint8), 5, r"shape \(2, 8, 8, 5\)"),
        (np.zeros((0, 8, 5), np.uint8), 5, r"shape \(0, 8, 5\)"),
    ],
    ids=["bands", "colour for grey", "floats", "four axes", "no pixels"],
)
def test_an_array_that_is_no_such_image_is_an_error_that_says_why(values, channels, message):
    with pytest.raises(WrongForm, match=message):
        decode_bands(array_file(values), channels)


class Trap:
    """Unpickling it would show."""

    ran = False

    def __reduce__(self):
        return setattr, (Trap, "ran", True)


def test_an_array_of_objects_is_refused_and_not_unpickled():
    stream = io.BytesIO()
    np.save(stream, np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match="allow_pickle"):
        decode_bands(stream.getvalue(), 1)
    assert not Trap.ran


def test_no_damage_to_an_array_is_more_than_an_error(photo):
    sound = array_file(bands_of(photo, 9, 7, 5))
    for place in range(130):
        for change in (0xFF, 0x01, 0x10):
            content = bytearray(sound)
            content[place] ^= change
            with suppress(UnreadableImage):
                decode_bands(bytes(content), 5)
    for length in range(6, len(sound), 7):
        with pytest.raises(UnreadableImage):
            decode_bands(sound[:length], 5)


def test_an_array_that_claims_more_than_memory_holds_is_an_error():
    stream = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**7, 10**7, 5)}
    np.lib.format.write_array_header_1_0(stream, claim)
    with pytest.raises(UnreadableImage):
        decode_bands(stream.getvalue() + bytes(64), 5)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
@pytest.mark.parametrize(("mode", "height", "width", "crop_pct"), GEOMETRIES)
def test_every_band_is_resized_as_if_it_were_alone(photo, count, mode, height, width, crop_pct):
    values = bands_of(photo, 223, 301, count)
    transform = of_bands(mode, height, width, crop_pct, count)
    pixels = transform(*decode_bands(array_file(values), count))
    assert pixels.shape == (height, width, count)
    assert pixels.dtype == np.uint8
    for c in range(count):
        alone = EvalTransform(height, width, crop_pct, mode, "bicubic", (transform.mean[c],), (1.0,))
        assert np.array_equal(pixels[..., c], alone(Image.fromarray(values[..., c]))[..., 0])


def of_bands(mode, height, width, crop_pct, count):
    mean = tuple(0.2 + 0.1 * c for c in range(count))
    return EvalTransform(height, width, crop_pct, mode, "bicubic", mean, (1.0,) * count)


def test_grey_has_the_geometry_of_rgb(photo):
    image = photo(301, 223).convert("L")
    grey = of_bands("center", 96, 96, 0.9, 1)(image)
    assert np.array_equal(grey[..., 0], transform_of("center", 96, 96, 0.9)(image.convert("RGB"))[..., 0])


def test_a_border_is_each_bands_own_mean(photo):
    transform = of_bands("border", 64, 128, 1.0, 5)
    pixels = transform(*decode_bands(array_file(bands_of(photo, 40, 80, 5)), 5))
    assert pixels[0, 0].tolist() == [round(255 * value) for value in transform.mean]


def test_alpha_does_not_darken_what_it_covers():
    """PIL's own resize of RGBA multiplies by alpha: colours under transparency would be lost."""
    image = Image.new("RGBA", (60, 60), (200, 100, 50, 0))
    image.paste((200, 100, 50, 255), (0, 0, 30, 60))
    pixels = of_bands("squash", 32, 32, 1.0, 4)(*decode_bands(encoded(image, "PNG"), 4))
    assert (pixels[..., :3] == (200, 100, 50)).all()


def test_a_file_is_loaded_with_the_channels_of_the_transform(photo, tmp_path):
    photo(40, 40).save(tmp_path / "a.png")
    shapes = [
        load(tmp_path / "a.png", None, of_bands("center", 32, 32, 1.0, count), Reading(count)).shape for count in (1, 3)
    ]
    assert shapes == [(32, 32, 1), (32, 32, 3)]


def test_a_file_whose_bands_have_changed_is_an_error_for_the_user(photo, tmp_path):
    photo(40, 40).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png") as caught:
        load(tmp_path / "a.png", None, of_bands("center", 32, 32, 1.0, 5), Reading(5))
    assert caught.value.got == "3 bands (RGB), needed 5"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n10 10 scale\nshowpage\n%%EOF\n"


def test_a_format_that_another_program_would_decode_is_never_opened(monkeypatch):
    """For EPS, PIL starts Ghostscript, which executes the file."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    with pytest.raises(UnreadableImage):
        decode(EPS)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "TGA", "ICO"])
def test_common_formats_are_decoded(name):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 40)).save(buffer, name)
    assert decode(buffer.getvalue()).size == (16, 16)
