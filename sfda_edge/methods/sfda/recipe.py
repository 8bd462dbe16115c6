"""SfdaRecipe: every weight of the paper, and what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sfda_edge.methods.sfda.attention import (
    AttentionScaling,
)
from sfda_edge.recipes.recipe import TargetShare, require, require_target_share


@dataclass(frozen=True)
class SfdaRecipe:
    """Settings of ``sfda``; the weights' defaults are the paper's.

    Attributes:
        steps: number of batches; the paper's 120 epochs are in ``recipes/published``.
        batch_size: images of a batch, over all processes; the paper's 8.
        learning_rate: of SGD, decaying as (1 − progress)^0.9.
        target_weight: of L_TAR (E1). As written it outweighs the other terms many times; without
            batch_statistics it drives everything into frequent classes within tens of steps.
            MaxSquare's own setting is 0.1 / (2 C).
        output_weight: α, of L_MAE (E4).
        attention_weight: β, of L_DAD^ss (E8).
        target_attention_weight: τ, of L_DAD^st (E9).
        statistics_weight: of L_BNS (E3).
        adversarial_weight: γ, of L_ADV (E14): a mean over patches, where our notes have a sum over
            the batch_size · K² / 2 hard ones; multiply by that for the sum.
        patches_per_side: K; the paper finds 3 to 5 alike, 1 switches the patch module off.
        outputs: what L_MAE compares. Open in the paper; logits as in DFAD and the authors' ZAQ.
        bounded_generator: maximise log(1 + L) in E10 instead of L, which has no bound (DFAD does so
            for CamVid); false for E10 as written.
        attention_scaling: of the features before E5 and E6, as ``attention.py`` says. Open; to unit
            length as in the authors' ZAQ.
        patch_maps: what the discriminator sees. Open; IntraDA, whose letter I the paper borrows,
            shows weighted self-information.
        student_steps: student steps to one of the generator. Open; 5 as in DFAD and the authors'
            ZAQ.
        noise_size, generator_learning_rate, discriminator_learning_rate: of Adam. The notes' 0.1
            is implausible for Adam; 1e-3 is DFAD's and ZAQ's, 1e-4 ADVENT's.
        fake_hw: size of the fake images.
        batch_statistics: normalise the student, while it trains, by the statistics of each batch,
            targets and fakes apart, and let the running ones follow the target, as ``train()`` does
            in PyTorch; false for running statistics throughout. Open in the paper.
        target_share: share of the target in the BatchNorm statistics before the first step, in
            [0, 1], or "auto": found without labels; the paper leaves the source's.
        seed: of the order of images, the noise, and the networks' initial weights.
    """

    steps: int = 200
    batch_size: int = 8
    learning_rate: float = 2.5e-4
    target_weight: float = 1.0
    output_weight: float = 1.0
    attention_weight: float = 0.5
    target_attention_weight: float = 0.5
    statistics_weight: float = 1.0
    adversarial_weight: float = 0.01
    patches_per_side: int = 4
    outputs: Literal["logits", "probabilities"] = "logits"
    bounded_generator: bool = True
    attention_scaling: AttentionScaling = "unit"
    patch_maps: Literal["self-information", "probabilities"] = "self-information"
    student_steps: int = 5
    noise_size: int = 256
    generator_learning_rate: float = 1e-3
    discriminator_learning_rate: float = 1e-4
    fake_hw: tuple[int, int] = (128, 256)
    batch_statistics: bool = True
    target_share: TargetShare = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_target_share(self.target_share)
        rates = (
            self.learning_rate,
            self.generator_learning_rate,
            self.discriminator_learning_rate,
        )
        require(min(rates) > 0, "learning rates must be above 0", min(rates))
        require(min(self._weights) >= 0, "weights must not be below 0", min(self._weights))
        counts = (
            self.steps,
            self.batch_size,
            self.student_steps,
            self.patches_per_side,
            self.noise_size,
        )
        require(
            min(counts) >= 1,
            "steps, batch_size, student_steps, patches_per_side and noise_size must be at least 1",
        )
        require(
            not self.has_patches or self.batch_size >= 2,
            "the patch module compares images: batch_size must be at least 2",
        )
        require(
            not self.batch_statistics or self.batch_size >= 2,
            "a batch has statistics of its own from two images on: batch_size must be at least 2",
        )
        require(
            not any(side % 16 for side in self.fake_hw),
            "fake_hw must be multiples of 16",
            self.fake_hw,
        )

    @property
    def _weights(self) -> tuple[float, ...]:
        return (
            self.target_weight,
            self.output_weight,
            self.attention_weight,
            self.target_attention_weight,
            self.statistics_weight,
            self.adversarial_weight,
        )

    @property
    def has_generator(self) -> bool:
        """Whether any term of the student looks at fake images."""
        return self.output_weight > 0 or self.attention_weight > 0

    @property
    def has_patches(self) -> bool:
        """Whether the patch module is on."""
        return self.adversarial_weight > 0 and self.patches_per_side > 1
