"""SFDA: "Source-Free Domain Adaptation for Semantic Segmentation", Liu, Zhang, Wang, CVPR 2021.

Two things happen in every step. *Source-free knowledge transfer*: a generator G makes source-like
images on which the student and the frozen source model differ, and the student learns to agree
there, so that it does not forget. *Adaptation*: the student grows certain on the target, and its
hard patches learn to look like easy ones. With S̃ the source model, S the student, x̃ = G(z):

    min_G  L_BNS − α L_MAE − β L_DAD^ss + τ L_DAD^st                              (E10)
    min_S max_D  L_TAR + α L_MAE + β L_DAD^ss + γ L_ADV                           (E15)

The equations' numbers are those of our notes; the paper has no published code. What it leaves open
is a setting, with the reason beside it. Probabilities are those of the classes asked for: where a
class map joins the network's outputs, L_TAR, entropies and D see the joined ones.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sfda_edge.batchnorm.layers import batchnorm_layers, observing_inputs
from sfda_edge.errors import CollapseError, RecipeError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.methods.illustrations import Illustration
from sfda_edge.methods.sfda.attention import (
    AttentionScaling,
    channel_map,
    dual_attention,
    spatial_map,
)
from sfda_edge.methods.sfda.discriminator import PatchDiscriminator
from sfda_edge.methods.sfda.features import FeatureTap, feature_layer
from sfda_edge.methods.sfda.generator import Generator
from sfda_edge.methods.sfda.patches import (
    chosen,
    easy_and_hard,
    patch_entropy,
    split_patches,
    weighted_self_information,
)
from sfda_edge.methods.sfda.pictures import attention_maps, generated_images, patch_grid
from sfda_edge.models import architecture
from sfda_edge.recipes.recipe import require
from sfda_edge.runs.distributed import gathered, local_rows, num_processes, summed
from sfda_edge.task import AdaptationTask
from sfda_edge.training.losses import (
    attention_divergence,
    batch_moments,
    batchnorm_statistics_loss,
    max_square,
    mean_absolute,
)
from sfda_edge.training.optimization import (
    ScheduledOptimizer,
    only_trainable,
    polynomial_decay,
    segmentation_sgd,
)


@dataclass(frozen=True)
class SfdaRecipe:
    """Settings of ``sfda``; the weights' defaults are the paper's.

    Attributes:
        steps: number of batches; the paper's 120 epochs are in ``recipes/published``.
        batch_size: images of a batch, over all processes; the paper's 8.
        learning_rate: of SGD, decaying as (1 − progress)^0.9.
        target_weight: of L_TAR (E1). As written it outweighs the other terms many times and drives
            everything into frequent classes within tens of steps; MaxSquare's own setting is
            0.1 / (2 C).
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
        target_share: share of the target in the BatchNorm statistics, in [0, 1]; the paper leaves
            the source's.
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
    target_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.target_share <= 1, "target_share must be in [0, 1]", self.target_share)
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


MOST_PICTURES = 4
# Times the size of the source's own logits: a student that far away has lost the source.
EXPLODED_ABOVE = 10.0


class Outputs(NamedTuple):
    """A network's outputs: logits (N, C, H, W) and features (N, C', h, w)."""

    logits: Tensor
    features: Tensor


class Sfda(AdaptationMethod):
    """The student, the frozen source model, the generator and the patch discriminator."""

    name = "sfda"
    needs_batchnorm = True

    def __init__(self, task: AdaptationTask, recipe: SfdaRecipe) -> None:
        super().__init__(task, recipe)
        layer = feature_layer(task.model, task.spec)
        stride = architecture(task.spec.architecture).stride
        if any(side < 16 or side % stride for side in recipe.fake_hw):
            raise RecipeError(f"fake_hw must be multiples of the network's {stride}")
        if recipe.has_patches and recipe.patches_per_side > min(task.half_hw):
            height, width = task.spec.input_hw
            raise RecipeError(
                f"patches_per_side {recipe.patches_per_side} leaves nothing of {width}x{height}"
            )
        self.source = copy.deepcopy(task.model).eval().requires_grad_(False)
        self.source_norms = batchnorm_layers(self.source)
        self.source_tap = FeatureTap(self.source, layer)
        self.student_tap = FeatureTap(self.model, layer)
        sgd = segmentation_sgd(self.model, recipe.learning_rate)
        schedule = polynomial_decay(recipe.steps)
        self.optimizers = {"student": ScheduledOptimizer(task.fabric, sgd, schedule)}
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self._build_opponents()

    def _build_opponents(self) -> None:
        recipe, task = self.recipe, self.task
        self.generator = task.placed(Generator(recipe.noise_size, recipe.fake_hw))
        adam = torch.optim.Adam(
            self.generator.parameters(), recipe.generator_learning_rate, betas=(0.5, 0.999)
        )
        self.optimizers["generator"] = ScheduledOptimizer(task.fabric, adam)
        positions = recipe.patches_per_side**2
        self.discriminator = task.placed(PatchDiscriminator(task.num_classes, positions))
        adam = torch.optim.Adam(
            self.discriminator.parameters(),
            recipe.discriminator_learning_rate,
            betas=(0.9, 0.99),
        )
        self.optimizers["discriminator"] = ScheduledOptimizer(task.fabric, adam)

    # ---- the two networks on images

    def _student_outputs(self, images: Tensor) -> Outputs:
        return Outputs(self.task.logits(self.model, images), self.student_tap.take())

    def _source_outputs(self, images: Tensor) -> Outputs:
        return Outputs(self.task.logits(self.source, images), self.source_tap.take())

    def _fakes(self) -> Tensor:
        """x̃ = G(z) as network input (E2): this process's rows of the global batch."""
        noise = torch.randn(self.batch_size, self.recipe.noise_size)
        with self.task.fabric.autocast():
            images = self.generator(local_rows(noise).to(self.task.device))
        return self.task.inputs(images.float())

    # ---- the step

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Train the generator every ``student_steps``, the student, then the discriminator."""
        recipe = self.recipe
        logged: dict[str, float] = {}
        if recipe.has_generator and step % recipe.student_steps == 0:
            logged |= self._train_generator(images, step)
        probabilities, losses = self._train_student(images, step)
        if recipe.has_patches:
            losses["discriminator"] = self._train_discriminator(probabilities, step)
        return logged | losses

    def _train_generator(self, target: Tensor, step: int) -> dict[str, float]:
        """E10."""
        with only_trainable(self.model):
            return self._descend_generator(target, step)

    def _descend_generator(self, target: Tensor, step: int) -> dict[str, float]:
        recipe, fakes = self.recipe, self._fakes()
        seen: defaultdict[str, list[Tensor]] = defaultdict(list)
        with observing_inputs(self.source_norms, lambda name, x: seen[name].append(x)):
            source = self._source_outputs(fakes)
        student = self._student_outputs(fakes)
        moments = {name: batch_moments(*inputs) for name, inputs in seen.items()}
        statistics = batchnorm_statistics_loss(moments, self.source_norms)
        output, attention = self._disagreement(source, student)
        self._require_bounded(output, source.logits)
        likeness = self._likeness(source.features, target)
        loss = (
            recipe.statistics_weight * statistics
            - recipe.output_weight * self._bounded(output)
            - recipe.attention_weight * self._bounded(attention)
            + recipe.target_attention_weight * likeness
        )
        self.optimizers["generator"].minimize(loss, step)
        return {"generator": loss.item(), "statistics": statistics.item()}

    def _require_bounded(self, output: Tensor, logits: Tensor) -> None:
        """See that the two have not been driven apart without end.

        Of logits alone: probabilities and attention have bounds of their own.

        Raises:
            CollapseError: their logits differ by many times the source's own size.
        """
        apart, size = (summed(value.detach()) for value in (output, logits.abs().mean()))
        ratio = float(apart / size.clamp_min(1e-12))
        if self.recipe.outputs == "logits" and ratio > EXPLODED_ABOVE:
            raise CollapseError(
                f"the generator explodes: on its images student and source differ by {ratio:.0f} "
                "times the size of the source's answers"
            )

    def _bounded(self, distance: Tensor) -> Tensor:
        """log(1 + L) of the global L, of which ``distance`` is this process's part."""
        if not self.recipe.bounded_generator:
            return distance
        return (summed(distance) / num_processes()).log1p()

    def _disagreement(self, source: Outputs, student: Outputs) -> tuple[Tensor, Tensor]:
        """L_MAE (E4) and L_DAD^ss (E8)."""
        first, second = source.logits, student.logits
        if self.recipe.outputs == "probabilities":
            first, second = self.task.probabilities(first), self.task.probabilities(second)
        zero = first.new_zeros(())
        attention = zero
        if self.recipe.attention_weight:
            scaling = self.recipe.attention_scaling
            attention = mean_absolute(
                dual_attention(source.features, scaling), dual_attention(student.features, scaling)
            )
        output = mean_absolute(first, second) if self.recipe.output_weight else zero
        return output, attention

    def _likeness(self, source_features: Tensor, target: Tensor) -> Tensor:
        """L_DAD^st (E9): the fakes' attention in S̃ should be the target's in the student.

        The spatial maps need equal shapes, so the target is seen at the fakes' size.
        """
        if not self.recipe.target_attention_weight:
            return source_features.new_zeros(())
        small = functional.interpolate(
            target.float(), self.recipe.fake_hw, mode="bilinear", antialias=True
        )
        with torch.no_grad():
            features = self._student_outputs(self.task.inputs(small)).features
        scaling = self.recipe.attention_scaling
        spatial, channel = (
            attention_divergence(alike(source_features, scaling), alike(features, scaling))
            for alike in (spatial_map, channel_map)
        )
        return spatial + channel

    def _train_student(self, target: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        """E15; returns the target's probabilities, detached, for the discriminator."""
        recipe = self.recipe
        logits = self.task.logits(self.model, self.task.inputs(target))
        probabilities = self.task.probabilities(logits)
        terms = {"target": recipe.target_weight * max_square(probabilities)}
        if recipe.has_generator:
            with torch.no_grad():
                fakes = self._fakes()
                source = self._source_outputs(fakes)
            output, attention = self._disagreement(source, self._student_outputs(fakes))
            terms["output"] = recipe.output_weight * output
            terms["attention"] = recipe.attention_weight * attention
        if recipe.has_patches:
            terms["adversarial"] = recipe.adversarial_weight * self._adversarial(probabilities)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizers["student"].minimize(loss, step)
        logged = {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}
        return probabilities.detach(), {**logged, "pixels_used": 1.0}

    # ---- intra-domain patches

    def _patches(self, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All patch maps (N, K², C, h, w) of the global batch; which are easy and which hard.

        At half the input size: networks answer at half to an eighth of it and interpolate, so that
        full maps hold nothing more and cost the discriminator more than the student itself.
        """
        everything = gathered(self.task.half_size(probabilities))
        easy, hard = easy_and_hard(patch_entropy(everything.detach(), self.recipe.patches_per_side))
        maps = everything
        if self.recipe.patch_maps == "self-information":
            maps = weighted_self_information(everything)
        return split_patches(maps, self.recipe.patches_per_side), easy, hard

    def _adversarial(self, probabilities: Tensor) -> Tensor:
        """−log D(k, hard): hard patches should look easy (E14, the practical reading of ADVENT)."""
        patches, _, hard = self._patches(probabilities)
        with only_trainable(self.discriminator):
            answers = self.discriminator(*chosen(patches, hard))
        return functional.softplus(-answers).mean()

    def _train_discriminator(self, probabilities: Tensor, step: int) -> float:
        """Easy patches are 1, hard ones 0 (E14)."""
        patches, easy, hard = self._patches(probabilities)
        for_easy = self.discriminator(*chosen(patches, easy))
        for_hard = self.discriminator(*chosen(patches, hard))
        loss = (functional.softplus(-for_easy).mean() + functional.softplus(for_hard).mean()) / 2
        self.optimizers["discriminator"].minimize(loss, step)
        return loss.item()

    # ---- the run

    @torch.no_grad()
    def illustrations(self) -> list[Illustration]:
        """The generator's images; attention; which patches are hard."""
        torch.manual_seed(self.recipe.seed)
        count = min(self.batch_size, MOST_PICTURES)
        noise = torch.randn(count, self.recipe.noise_size, device=self.task.device)
        images = self.task.target.images(self.task.target.spread(count))
        found: list[Illustration] = []
        if self.recipe.has_generator:
            fakes = self.generator(noise)
            logits = self._source_outputs(self.task.inputs(fakes)).logits
            found.append(generated_images(fakes, self.task.probabilities(logits)))
        outputs = self._student_outputs(self.task.inputs(images))
        maps = spatial_map(outputs.features, self.recipe.attention_scaling)
        found.append(attention_maps(images, maps, outputs.features.shape[2:]))
        if self.recipe.has_patches:
            per_side = self.recipe.patches_per_side
            entropies = patch_entropy(self.task.probabilities(outputs.logits), per_side)
            found.append(patch_grid(images, entropies, per_side))
        return found

    def state(self) -> dict[str, Any]:
        """Generator, discriminator and all optimizers."""
        networks = {
            "generator_weights": self.generator.state_dict(),
            "discriminator_weights": self.discriminator.state_dict(),
        }
        return {**super().state(), **networks}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore generator, discriminator and all optimizers."""
        self.generator.load_state_dict(state["generator_weights"])
        self.discriminator.load_state_dict(state["discriminator_weights"])
        super().restore(state)
