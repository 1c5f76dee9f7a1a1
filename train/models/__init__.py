"""The paper's networks: classifiers of latents, and of pixels to compare them with.

=============  =================================================================  =============
FACResNet      FA-cResNet: latents, with feature adaptation (FA = CAU, then FEU)  fa_cresnet.py
FACResNetY     the same, of y_hat alone                                           fa_cresnet.py
FACResNetPost  the same, FA after the last blocks                                 fa_cresnet.py
CResNet        cResNet: latents, plain residual blocks                            cresnet.py
PixelResNet    ResNet: pixels, Anchors 1 and 2                                    resnet.py
FAResNet       FA-ResNet: pixels, with feature adaptation                         resnet.py
=============  =================================================================  =============

networks.py holds their sizes, as a recipe gives them; docs/models.md says what the paper leaves
open. A class that mentions no deviation from the paper has none that is known.
"""
