"""Decoders of masked-image models, one file for each kind."""

from zoo.decoders.mae import MAEDecoder as MAEDecoder
from zoo.positions import sincos_positions as sincos_positions
