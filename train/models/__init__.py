"""The paper's networks: classifiers of latents, and of pixels to hold them against.

=============  =================================================================  =============
FACResNet      FA-cResNet: latents, with feature adaptation (FA = CAU, then FEU)  fa_cresnet.py
FACResNetY     the same, of y_hat alone                                           fa_cresnet.py
FACResNetPost  the same, FA after the last blocks                                 fa_cresnet.py
CResNet        cResNet: latents, plain residual blocks                            cresnet.py
PixelResNet    ResNet: pixels, Anchors 1 and 2                                    resnet.py
FAResNet       FA-ResNet: pixels, with feature adaptation                         fa_resnet.py
=============  =================================================================  =============

An FA module is made by a class (``FA``, those of fa_variants.py, ``FEU``) that is given to the
network; a CAU (``CAU``, those of cau_variants.py) by one that is given to the FA module; a pooling
(pooling.py) by one that is given to the CAU. docs/models.md says how Table 2 pins the networks
down, what the paper leaves open, and which recipe makes which column of Table 3.
"""

from latentset.train.models.adoption import AdoptingModel, AdoptionReport, adopt_weights
from latentset.train.models.cau import CAU
from latentset.train.models.cau_variants import (
    BiasCAU,
    MaxAverageCAU,
    OneLayerCAU,
    ScaleCAU,
    SharedPoolingCAU,
)
from latentset.train.models.cresnet import CompressedNet, CResNet
from latentset.train.models.fa import FA, MakeCAU, MakeFA, fa_near_identity
from latentset.train.models.fa_cresnet import FACResNet, FACResNetPost, FACResNetY
from latentset.train.models.fa_resnet import FAResNet
from latentset.train.models.fa_variants import CAUOnly, FAInner, FAPost, FASkip
from latentset.train.models.feu import FEU
from latentset.train.models.head import Head
from latentset.train.models.pooling import AttentionPooling, AveragePooling, MaxPooling
from latentset.train.models.resnet import PixelResNet

__all__ = [
    "CAU",
    "FA",
    "FEU",
    "AdoptingModel",
    "AdoptionReport",
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
    "ScaleCAU",
    "SharedPoolingCAU",
    "adopt_weights",
    "fa_near_identity",
]
