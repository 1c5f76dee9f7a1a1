"""The settings of Table 3: what each ablation of FA-cResNet is called, and what it changes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One column of Table 3: FA-cResNet with one thing changed.

    Source: section 5.7, Table 3.
    """

    group: str
    """The experiment it belongs to, as in the head of Table 3."""
    name: str
    """Its unique name in recipes and results, such as ``cau-position-skip``."""
    title: str
    """Its name in Table 3."""
    model: dict[str, Any] = field(hash=False)
    """Keys of a recipe's table ``model`` that it changes."""
    default: bool = False
    """Whether the paper's FA-cResNet has it. Of the FEU's depths two do: 2/3/4 at quality 1,
    3/4/5 at all others."""

    @property
    def assignments(self) -> tuple[str, ...]:
        """Values of ``latentset train RECIPE --set``, one each: ``model.KEY=VALUE``, no spaces."""
        return tuple(f"model.{key}={_toml(value)}" for key, value in self.model.items())


SETTINGS: tuple[Setting, ...] = (
    Setting("Input", "input-y", "ŷ", {"kind": "fa-cresnet-y"}),
    Setting("Input", "input-y-sigma", "ŷ & σ̂", {"kind": "fa-cresnet"}, default=True),
    Setting("FA Effect", "fa-effect-resnet", "FA-ResNet", {"kind": "fa-resnet", "n": (2, 3, 4, 5)}),
    Setting("FA Effect", "fa-effect-cresnet", "FA-cResNet", {"kind": "fa-cresnet"}, default=True),
    Setting("FA Module", "fa-module-cau", "CAU", {"fa": "cau"}),
    Setting("FA Module", "fa-module-feu", "FEU", {"fa": "feu"}),
    Setting("FA Module", "fa-module-fa", "FA", {"fa": "pre"}, default=True),
    Setting("FA Position", "fa-position-pre", "pre", {"kind": "fa-cresnet"}, default=True),
    Setting("FA Position", "fa-position-post", "post", {"kind": "fa-cresnet-post"}),
    Setting("CAU Pooling Function", "cau-pooling-max", "max", {"cau": "max"}),
    Setting("CAU Pooling Function", "cau-pooling-avg", "avg", {"cau": "avg"}),
    Setting("CAU Pooling Function", "cau-pooling-max-avg", "max&avg", {"cau": "max-avg"}),
    Setting("CAU Pooling Function", "cau-pooling-1att", "1att", {"cau": "shared"}),
    Setting("CAU Pooling Function", "cau-pooling-2att", "2att", {"cau": "affine"}, default=True),
    Setting("CAU Position", "cau-position-pre", "pre", {"fa": "pre"}, default=True),
    Setting("CAU Position", "cau-position-skip", "skip", {"fa": "skip"}),
    Setting("CAU Position", "cau-position-inner", "inner", {"fa": "inner"}),
    Setting("CAU Position", "cau-position-post", "post", {"fa": "post"}),
    Setting("CAU Module", "cau-module-scale", "scale", {"cau": "scale"}),
    Setting("CAU Module", "cau-module-bias", "bias", {"cau": "bias"}),
    Setting("CAU Module", "cau-module-affine", "affine", {"cau": "affine"}, default=True),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-1fc", "1fc", {"cau": "one-fc"}),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-r1", "r1", {"r": 1}),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-r2", "r2", {"r": 2}),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-r4", "r4", {"r": 4}),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-r8", "r8", {"r": 8}),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-r16", "r16", {"r": 16}, default=True),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-r32", "r32", {"r": 32}),
    Setting("CAU Bottleneck Architecture", "cau-bottleneck-r64", "r64", {"r": 64}),
    Setting("FEU Architecture", "feu-depth-2-2-2", "2/2/2", {"n": (2, 2, 2)}),
    Setting("FEU Architecture", "feu-depth-1-2-3", "1/2/3", {"n": (1, 2, 3)}),
    Setting("FEU Architecture", "feu-depth-3-3-3", "3/3/3", {"n": (3, 3, 3)}),
    Setting("FEU Architecture", "feu-depth-2-3-4", "2/3/4", {"n": (2, 3, 4)}, default=True),
    Setting("FEU Architecture", "feu-depth-4-4-4", "4/4/4", {"n": (4, 4, 4)}),
    Setting("FEU Architecture", "feu-depth-3-4-5", "3/4/5", {"n": (3, 4, 5)}, default=True),
    Setting("FEU Architecture", "feu-depth-5-5-5", "5/5/5", {"n": (5, 5, 5)}),
    Setting("FEU Architecture", "feu-depth-4-5-6", "4/5/6", {"n": (4, 5, 6)}),
)
"""Every column of Table 3, group by group in its order; each group has a default."""


def _toml(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
