"""Elastic layers: built with dimensions, called as ``layer(x, arch)``."""

from boundnas.elastic.activation import Activation, PReLU
from boundnas.elastic.attention import MultiheadAttention
from boundnas.elastic.choice import Choice, Resized
from boundnas.elastic.convolution import Conv1d, Conv2d, Conv3d, Convolution, DepthwiseConv2d
from boundnas.elastic.embedding import Embedding, Parameter
from boundnas.elastic.group_norm import GroupNorm
from boundnas.elastic.layer import ElasticLayer, ElasticModule
from boundnas.elastic.layer_norm import LayerNorm, RMSNorm
from boundnas.elastic.linear import Linear
from boundnas.elastic.normalization import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d
from boundnas.elastic.recurrent import Recurrent
from boundnas.elastic.regularization import AlphaDropout, DropConnect, Dropout, RReLU
from boundnas.elastic.shortcut import Shortcut
from boundnas.elastic.split import Split
from boundnas.elastic.squeeze_excite import SqueezeExcite
from boundnas.elastic.stage import Stage
from boundnas.elastic.transposed import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    TransposedConvolution,
)

__all__ = [
    "Activation",
    "AlphaDropout",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Choice",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Convolution",
    "DepthwiseConv2d",
    "DropConnect",
    "Dropout",
    "ElasticLayer",
    "ElasticModule",
    "Embedding",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "MultiheadAttention",
    "PReLU",
    "Parameter",
    "RMSNorm",
    "RReLU",
    "Recurrent",
    "Resized",
    "Shortcut",
    "Split",
    "SqueezeExcite",
    "Stage",
    "TransposedConvolution",
]
