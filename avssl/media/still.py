"""A still picture from a file that nobody vouches for."""

from __future__ import annotations

import os

import numpy as np

from avssl.errors import MediaError
from avssl.media.limits import DEFAULT_LIMITS, Limits

EXTENSIONS = frozenset(("jpg", "jpeg", "png", "webp", "bmp"))
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow tries no other: many of its readers are old and seldom used


def read_still(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """RGB uint8 [H, W, 3], turned upright as the camera noted; what is transparent becomes white.

    Raises MediaError: `unreadable`, `not-media`, `too-large` (before its pixels are decoded), `corrupt`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = os.fspath(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise MediaError(name, "too-large", f"{width}x{height} pixels are more than {limits.max_pixels}")
            upright = ImageOps.exif_transpose(image).convert("RGBA")
            ground = Image.new("RGBA", upright.size, "white")
            return np.array(Image.alpha_composite(ground, upright).convert("RGB"))
    except UnidentifiedImageError:
        raise MediaError(name, "not-media", f"is no picture that is read here ({', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise MediaError(name, "too-large", str(error)) from None
    except OSError as error:
        if error.errno is not None:
            raise MediaError(name, "unreadable", f"cannot be read: {error.strerror}") from None
        raise MediaError(name, "corrupt", f"its pixels cannot be decoded ({error})") from None
    except (SyntaxError, ValueError) as error:  # Pillow's other ways to say that a file is damaged
        raise MediaError(name, "corrupt", f"its pixels cannot be decoded ({error})") from None
