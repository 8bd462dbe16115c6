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
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sfda_edge.batchnorm.global_batch import batch_mode, batch_moments
from sfda_edge.batchnorm.layers import batchnorm_layers, observing_inputs
from sfda_edge.errors import CollapseError, RecipeError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.methods.illustrations import Illustration
from sfda_edge.methods.sfda.attention import channel_map, dual_attention, spatial_map
from sfda_edge.methods.sfda.features import FeatureTap, feature_layer
from sfda_edge.methods.sfda.generator import Generator
from sfda_edge.methods.sfda.intra_domain import IntraDomainPatches
from sfda_edge.methods.sfda.patches import patch_entropy
from sfda_edge.methods.sfda.pictures import attention_maps, generated_images, patch_grid
from sfda_edge.methods.sfda.recipe import SfdaRecipe
from sfda_edge.models import architecture
from sfda_edge.runs.distributed import local_rows, num_processes, summed
from sfda_edge.task import AdaptationTask
from sfda_edge.training.losses import (
    attention_divergence,
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

MOST_PICTURES = 4
_STATISTICS_MOMENTUM = 0.1  # PyTorch's default
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
        self.student_norms = batchnorm_layers(self.model)
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
        self.patches = IntraDomainPatches(task, recipe)
        self.optimizers["discriminator"] = self.patches.optimizer

    # ---- the two networks on images

    def _student_outputs(self, images: Tensor) -> Outputs:
        return Outputs(self.task.logits(self.model, images), self.student_tap.take())

    def _training_outputs(self, images: Tensor, momentum: float = 0.0) -> Outputs:
        """The student as it trains: by default its running statistics stay as they are."""
        if not self.recipe.batch_statistics:
            return self._student_outputs(images)
        with batch_mode(self.student_norms, momentum):
            return self._student_outputs(images)

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
            losses["discriminator"] = self.patches.train(probabilities, step)
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
        student = self._training_outputs(fakes)
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
                "times the size of the source's outputs"
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
            features = self._training_outputs(self.task.inputs(small)).features
        scaling = self.recipe.attention_scaling
        spatial, channel = (
            attention_divergence(alike(source_features, scaling), alike(features, scaling))
            for alike in (spatial_map, channel_map)
        )
        return spatial + channel

    def _train_student(self, target: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        """E15; returns the target's probabilities, detached, for the discriminator."""
        recipe = self.recipe
        inputs = self.task.inputs(target)
        logits = self._training_outputs(inputs, momentum=_STATISTICS_MOMENTUM).logits
        probabilities = self.task.probabilities(logits)
        terms = {"target": recipe.target_weight * max_square(probabilities)}
        if recipe.has_generator:
            with torch.no_grad():
                fakes = self._fakes()
                source = self._source_outputs(fakes)
            output, attention = self._disagreement(source, self._training_outputs(fakes))
            terms["output"] = recipe.output_weight * output
            terms["attention"] = recipe.attention_weight * attention
        if recipe.has_patches:
            terms["adversarial"] = recipe.adversarial_weight * self.patches.adversarial(
                probabilities
            )
        loss = torch.stack(list(terms.values())).sum()
        self.optimizers["student"].minimize(loss, step)
        logged = {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}
        return probabilities.detach(), {**logged, "pixels_used": 1.0}

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
            "discriminator_weights": self.patches.discriminator.state_dict(),
        }
        return {**super().state(), **networks}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore generator, discriminator and all optimizers."""
        self.generator.load_state_dict(state["generator_weights"])
        self.patches.discriminator.load_state_dict(state["discriminator_weights"])
        super().restore(state)
