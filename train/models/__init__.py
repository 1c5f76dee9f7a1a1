"""The paper's networks: classifiers of latents, and of pixels to compare them with.

=============  =================================================================  =============
FACResNet      FA-cResNet: latents, with feature adaptation (FA = CAU, then FEU)  fa_cresnet.py
FACResNetY     the same, of y_hat alone                                           fa_cresnet.py
FACResNetPost  the same, FA after the last blocks                                 fa_cresnet.py
CResNet        cResNet: latents, plain residual blocks                            cresnet.py
PixelResNet    ResNet: pixels, Anchors 1 and 2                                    resnet.py
FAResNet       FA-ResNet: pixels, with feature adaptation                         resnet.py
=============  =================================================================  =============

A network takes its sizes as one value (networks.py), which names its FA modules (fa.py), their CAU
(cau.py, cau_variants.py) and its poolings (pooling.py). docs/models.md says how Table 2 pins the
networks down, what the paper leaves open, and which recipe makes which column of Table 3. A class
that mentions no deviation from the paper has none that is known.
"""
