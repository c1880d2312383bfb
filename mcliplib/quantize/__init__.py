"""Models in bytes: equalization, static quantization with calibration, weights only."""

from mcliplib.quantize.equalize import correct_bias, equalize
from mcliplib.quantize.static import Quantized, quantize_static, quantize_weights

__all__ = ["Quantized", "correct_bias", "equalize", "quantize_static", "quantize_weights"]
