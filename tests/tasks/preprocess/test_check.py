import base64
import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.images.unreadable import Refused
from graft.tasks.preprocess.check import Look, judge, look


@pytest.fixture
def check(tmp_path):
    def run(content, name="a.png", min_side=16, placeholder_share=0.9):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path)
        try:
            seen = look(path)
        except Refused as error:
            return Verdict(str(error), Look())
        return Verdict(judge(seen, min_side, placeholder_share), seen)

    return run


@dataclass(frozen=True)
class Verdict:
    reason: str
    look: Look

    def __getattr__(self, name):
        return getattr(self.look, name)


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def drawn(share, colours=4, side=40):
    """A palette image of which one colour covers `share`, and others take turns on the rest."""
    values = np.zeros(side * side, np.uint8)
    rest = round(side * side * (1 - share))
    values[:rest] = 1 + np.arange(rest) % (colours - 1)
    image = Image.fromarray(values.reshape(side, side), "L").convert("P")
    image.putpalette(list(range(256)) * 3)
    return image


def test_a_sound_image_has_no_reason_against_it(check, noise):
    verdict = check(noise(30, 20))
    assert (verdict.reason, verdict.width, verdict.height, verdict.mode) == ("", 30, 20, "RGB")


def test_an_empty_file_is_rejected(check):
    assert check(b"").reason == "empty file"


def test_a_text_file_is_rejected_as_no_image(check):
    assert check(b"notes about the images").reason == "not an image"


def test_a_truncated_jpeg_is_rejected_as_damaged(check, noise):
    content = encoded(noise(64, 64), "JPEG")
    assert check(content[: len(content) // 2], "a.jpg").reason.startswith("damaged:")


def test_a_png_with_a_wrong_checksum_is_rejected_as_damaged(check, noise):
    content = bytearray(encoded(noise(64, 64), "PNG"))
    content[60] ^= 1
    assert check(bytes(content)).reason.startswith("damaged:")


def test_an_image_of_one_pixel_is_rejected_as_too_small(check):
    assert check(Image.new("RGB", (1, 1))).reason == "too small: 1 x 1 px, the shorter side needs 16"


@pytest.mark.parametrize(("size", "sound"), [((16, 40), True), ((40, 15), False)])
def test_the_shorter_side_decides(check, noise, size, sound):
    assert (check(noise(*size)).reason == "") is sound


def test_an_image_of_one_colour_is_rejected_as_blank(check):
    assert check(Image.new("RGB", (32, 32), (9, 9, 9))).reason.startswith("blank")


def test_a_drawn_gif_of_mostly_one_colour_is_rejected_as_a_placeholder(check):
    reason = check(drawn(0.95), "a.gif").reason
    assert reason == "placeholder: one of its 4 colours covers 95% of the picture"


def test_a_drawing_without_a_colour_that_dominates_is_kept(check):
    assert check(drawn(0.8), "a.gif").reason == ""


def test_a_photograph_saved_with_a_palette_is_kept(check):
    assert check(drawn(0.92, colours=100), "a.gif").reason == ""


def test_the_share_that_makes_a_placeholder_can_be_changed(check):
    assert check(drawn(0.8), "a.gif", placeholder_share=0.7).reason.startswith("placeholder")


def test_width_and_height_are_those_of_the_upright_image(check, noise):
    exif = Image.Exif()
    exif[0x0112] = 6
    verdict = check(encoded(noise(40, 20), "JPEG", exif=exif), "a.jpg")
    assert (verdict.width, verdict.height) == (20, 40)


@pytest.mark.parametrize(("form", "mode"), [("L", "L"), ("P", "P"), ("RGBA", "RGBA")])
def test_the_mode_is_the_files_own(check, noise, form, mode):
    assert check(noise().convert(form)).mode == mode


def test_a_lossless_copy_in_another_format_has_the_same_pixels(check, noise):
    assert check(noise(), "a.png").pixels == check(noise(), "a.bmp").pixels


def test_one_changed_value_is_other_pixels(check, noise):
    changed = noise()
    changed.putpixel((3, 3), (0, 0, 1))
    assert check(noise(), "a.png").pixels != check(changed, "b.png").pixels


def test_the_same_bytes_in_another_shape_are_other_pixels(check, noise):
    pixels = np.asarray(noise(32, 64))
    tall, wide = Image.fromarray(pixels), Image.fromarray(pixels.reshape(32, 64, 3))
    assert check(tall, "a.png").pixels != check(wide, "b.png").pixels


def test_a_picture_of_too_many_pixels_is_rejected_and_not_decoded(check, noise, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert check(noise(40, 40)).reason.startswith("too large")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF"])
def test_no_damage_to_a_file_stops_the_check(check, noise, form):
    sound = encoded(noise(24, 24), form)
    for place in range(0, min(len(sound), 400), 3):
        content = bytearray(sound)
        content[place] ^= 0xFF
        check(bytes(content), f"a.{form.lower()}")


def test_exif_data_that_make_no_sense_do_not_stop_the_check(check, noise):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "abc"
    content = encoded(noise(24, 24), "JPEG", exif=exif)
    senseless = content.replace(b"\x01\x0f\x00\x02", b"\x01\x00\x00\x02")  # a width that is a word
    assert senseless != content
    check(senseless, "a.jpg")


def ramp():
    y, x = np.mgrid[0:24, 0:40]
    return Image.fromarray(np.dstack([x * 6, y * 10, (x * y) % 256]).astype(np.uint8))


LYING_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/4QAiRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEy"
    "ccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAYACgDASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8"
    "QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdI"
    "SUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+"
    "Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAAAAAAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJB"
    "UQdhcRMiMoEIFEKRobHBCSMzUvAVYnLRChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6goOEhY"
    "aHiImKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq8vP09fb3+Pn6/9oADAMBAAIRAxEAPwDg"
    "o7TParUdl7VqQ2me1aENl7VNBe1OejjLGNHYe1W49P8A9mtgW6xnG3LelTx2sj+304raaw8Hy7vsj2cPjG+plJpwAywA+tFbsdiiY3YFFYuVNO"
    "zjFer/AOGPYp4x23KtvaZxxV8W3loMD5j0oorkoVZQwspxeun4tI/LKNSTkie3seMkVZS3ZjhBgeveiiom3TUIQ0vv3Paw9WT1LEdmicEZb0FF"
    "FFccqs4zlCGiTtsv1uexTqS5T//Z"
)

GOLDEN = {
    "JPEG on its side": (lambda: LYING_JPEG, "aea1f831b9f008f3b135ea3b09084ec4"),
    "RGB": (lambda: encoded(ramp(), "PNG"), "42f76600e7ce7dbcc5e091074494da58"),
    "grey": (lambda: encoded(ramp().convert("L"), "PNG"), "14f30bf1656a713d09ad9f1b768fbbf1"),
    "palette": (
        lambda: encoded(ramp().quantize(9, dither=Image.Dither.NONE), "PNG"),
        "4f1acd808e8d66a11d8055c8ef48e664",
    ),
    "transparent": (lambda: encoded(transparent(), "PNG"), "325fae90a49b9452271a06546763f333"),
    "16 bits": (lambda: encoded(deep(), "PNG"), "a14a4bce4655912798aec24eb617aafc"),
}


def transparent():
    image = ramp().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 24), Image.Resampling.NEAREST))
    return image


def deep():
    return Image.fromarray((np.arange(960).reshape(24, 40) * 60).astype(np.uint16))


@pytest.mark.parametrize("form", GOLDEN)
def test_the_hash_of_pixels_is_what_it_has_always_been(check, form):
    """Splits depend on it: a change in decoding, ours or Pillow's, would move images between them."""
    content, expected = GOLDEN[form]
    assert check(content()).pixels == expected


def looked_at(path, values, channels):
    np.save(path, values)
    return look(path, channels)


def bands(noise, count, size=(30, 20)):
    return np.dstack([np.asarray(noise(*size, seed=c))[..., 0] for c in range(count)])


def test_an_array_is_a_sound_image_of_its_bands(noise, tmp_path):
    seen = looked_at(tmp_path / "a.npy", bands(noise, 5), 5)
    assert (judge(seen, 16, 0.9), seen.width, seen.height, seen.mode) == ("", 30, 20, "array")


@pytest.mark.parametrize(("channels", "sound"), [(1, True), (3, True), (4, False), (5, False)])
def test_a_photograph_can_be_grey_or_rgb_but_not_more(noise, tmp_path, channels, sound):
    noise().save(tmp_path / "a.png")
    fault = look(tmp_path / "a.png", channels).fault
    assert fault == ("" if sound else f"wrong form: 3 bands (RGB), needed {channels}")


def test_an_array_of_other_bands_is_rejected_with_both_numbers(noise, tmp_path):
    assert looked_at(tmp_path / "a.npy", bands(noise, 5), 3).fault == "wrong form: 5 bands (array), needed 3"


def test_an_array_of_floats_is_rejected(noise, tmp_path):
    fault = looked_at(tmp_path / "a.npy", bands(noise, 5) / 255, 5).fault
    assert fault == "wrong form: array of float64, shape (20, 30, 5), needed uint8 (H, W, C)"


def test_a_damaged_array_is_rejected_as_damaged(noise, tmp_path):
    np.save(tmp_path / "a.npy", bands(noise, 5))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    assert look(tmp_path / "a.npy", 5).fault.startswith("damaged: ")


def test_an_array_is_blank_only_if_every_band_is(noise, tmp_path):
    flat = np.full((20, 30, 5), (1, 2, 3, 4, 5), np.uint8)
    assert judge(looked_at(tmp_path / "a.npy", flat, 5), 16, 0.9).startswith("blank")
    flat[3, 3, 4] = 0
    assert judge(looked_at(tmp_path / "b.npy", flat, 5), 16, 0.9) == ""


def test_a_grey_image_of_one_value_is_blank(tmp_path):
    Image.new("L", (32, 32), 9).save(tmp_path / "a.png")
    assert judge(look(tmp_path / "a.png", 1), 16, 0.9).startswith("blank")


def test_one_changed_value_in_the_last_band_is_other_pixels(noise, tmp_path):
    values = bands(noise, 5)
    first = looked_at(tmp_path / "a.npy", values, 5)
    values[7, 7, 4] ^= 1
    assert looked_at(tmp_path / "b.npy", values, 5).pixels != first.pixels


def test_a_grey_image_and_its_rgb_copy_have_the_same_pixels_when_read_as_grey(noise, tmp_path):
    noise().convert("L").save(tmp_path / "a.png")
    noise().convert("L").convert("RGB").save(tmp_path / "b.png")
    assert look(tmp_path / "a.png", 1).pixels == look(tmp_path / "b.png", 1).pixels


def test_one_jpeg_with_other_exif_has_the_same_pixels(check, noise, tmp_path):
    plain = encoded(noise(), "JPEG")
    exif = Image.Exif()
    exif[0x010F], exif[0x0132] = "Maker", "2026:01:02 03:04:05"  # Make, DateTime
    payload = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    segment = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    tagged = plain[:2] + segment + plain[2:]
    with Image.open(io.BytesIO(tagged)) as image:
        assert image.getexif()[0x010F] == "Maker"
    assert check(plain, "a.jpg").pixels == check(tagged, "b.jpg").pixels


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM"])
def test_a_lossless_copy_under_another_format_has_the_same_pixels(check, noise, form):
    assert check(encoded(noise(), "PNG")).pixels == check(encoded(noise(), form), f"a.{form.lower()}").pixels
