"""The paper's networks: classifiers of latents, and of pixels to compare them with.

=============  =================================================================  =============
FACResNet      FA-cResNet: latents, with feature adaptation (FA = CAU, then FEU)  fa_cresnet.py
FACResNetY     the same, of y_hat alone                                           fa_cresnet.py
FACResNetPost  the same, FA after the last blocks                                 fa_cresnet.py
CResNet        cResNet: latents, plain residual blocks                            cresnet.py
PixelResNet    ResNet: pixels, Anchors 1 and 2                                    resnet.py
FAResNet       FA-ResNet: pixels, with feature adaptation                         resnet.py
=============  =================================================================  =============

A network takes its sizes as one value (networks.py), which names its FA modules (fa.py,
fa_variants.py), their CAU (cau.py, cau_variants.py) and its poolings (pooling.py). docs/models.md
says how Table 2 pins the networks
down, what the paper leaves open, and which recipe makes which column of Table 3. A class that
mentions no deviation from the paper has none that is known.
"""

from latentset.train.models.blocks import MakeFA
from latentset.train.models.cau import CAU
from latentset.train.models.cau_variants import (
    BiasCAU,
    MaxAverageCAU,
    OneLayerCAU,
    ScaleCAU,
    SharedPoolingCAU,
)
from latentset.train.models.cresnet import CompressedNet, CResNet, Head
from latentset.train.models.fa import FA, MakeCAU, fa_near_identity
from latentset.train.models.fa_cresnet import FACResNet, FACResNetPost, FACResNetY
from latentset.train.models.fa_variants import CAUOnly, FAInner, FAPost, FASkip
from latentset.train.models.feu import FEU
from latentset.train.models.pooling import AttentionPooling, AveragePooling, MaxPooling
from latentset.train.models.pretrained import PretrainableModel, PretrainedReport, load_pretrained
from latentset.train.models.resnet import FAResNet, PixelResNet

__all__ = [
    "CAU",
    "FA",
    "FEU",
    "AttentionPooling",
    "AveragePooling",
    "BiasCAU",
    "CAUOnly",
    "CResNet",
    "CompressedNet",
    "FACResNet",
    "FACResNetPost",
    "FACResNetY",
    "FAInner",
    "FAPost",
    "FAResNet",
    "FASkip",
    "Head",
    "MakeCAU",
    "MakeFA",
    "MaxAverageCAU",
    "MaxPooling",
    "OneLayerCAU",
    "PixelResNet",
    "PretrainableModel",
    "PretrainedReport",
    "ScaleCAU",
    "SharedPoolingCAU",
    "fa_near_identity",
    "load_pretrained",
]
