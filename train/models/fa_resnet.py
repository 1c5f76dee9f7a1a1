"""FA-ResNet: a pixel-domain ResNet with feature adaptation, an ablation."""

from torch import nn

from latentset.train.models.blocks import Blocks
from latentset.train.models.fa import FA, MakeFA
from latentset.train.models.fa_cresnet import adapted_layer
from latentset.train.models.resnet import PixelNet


class FAResNet(PixelNet):
    """ResNet on pixels with an FA module after the first block of each layer.

    Source: section 5.7, "FA Effect"; Table 3: trained from scratch with decoded images.

    ::

        layer i = block 0 -> FA -> blocks 1…,    i = 1, 2, 3, 4

    Deviations: none known. The paper gives no depth n of the four FEUs: here its 3/4/5 of layers 2
    to 4, and one less in layer1.

    Args:
        num_classes: Number of classes.
        depth: As in ``PixelResNet``, like the two that follow.
        depths: Blocks of layer1 to layer4.
        width: Width of the ResNet.
        n: 3x3 convolutional blocks of the FA modules of layer1 to layer4.
        fa: Makes each FA module.

    Raises:
        RecipeError: A depth, the width, ``n`` or an FA module is not possible.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        depth: int = 50,
        depths: tuple[int, int, int, int] | None = None,
        width: int = 64,
        n: tuple[int, int, int, int] = (2, 3, 4, 5),
        fa: MakeFA = FA,
    ) -> None:
        blocks = Blocks.of(depth, depths, width)
        super().__init__(
            [adapted_layer(blocks, i, n[i - 1], fa) for i in (1, 2, 3, 4)],
            width,
            blocks.features(4),
            num_classes,
        )

    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """The FA modules; a ResNet's checkpoint fills all else."""
        return tuple(m for name, m in self.named_modules() if name.endswith(".fa"))
