"""The paper's networks: classifiers of latents, and of pixels to hold them against.

=============  ==================================================================  ==============
FACResNet      FA-cResNet: latents, with feature adaptation (FA = CAU, then FEU)   cresnet.py
CResNet        cResNet: latents, plain residual blocks                             cresnet.py
PixelResNet    ResNet: pixels, Anchors 1 and 2                                     resnet.py
=============  ==================================================================  ==============

docs/models.md says how Table 2 pins them down, and what the paper leaves open.
"""

from latentset.train.models.adoption import AdoptingModel, AdoptionReport, adopt_weights
from latentset.train.models.cau import CAU, AttentionPooling
from latentset.train.models.cresnet import CompressedNet, CResNet, FACResNet
from latentset.train.models.fa import FA
from latentset.train.models.feu import FEU
from latentset.train.models.head import Head
from latentset.train.models.resnet import PixelResNet

__all__ = [
    "CAU",
    "FA",
    "FEU",
    "AdoptingModel",
    "AdoptionReport",
    "AttentionPooling",
    "CResNet",
    "CompressedNet",
    "FACResNet",
    "Head",
    "PixelResNet",
    "adopt_weights",
]
