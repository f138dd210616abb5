"""Gymnasium's own wrappers by their names in gin: `gym_environment.wrappers = [@TimeLimit]`.

Without those that are no part of one environment's task inside a vector environment:
Autoreset (tfdrl resets), RecordVideo, HumanRendering and RenderCollection (they take `render`
over, see `tfdrl-evaluate --video`), and the conversions to and from Jax and Torch.
"""

from __future__ import annotations

import gin
from gymnasium import wrappers

gin.external_configurable(wrappers.AtariPreprocessing, module="gymnasium.wrappers")
gin.external_configurable(wrappers.DelayObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.DtypeObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.DiscretizeObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.FilterObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.FlattenObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.FrameStackObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.GrayscaleObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.TransformObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.MaxAndSkipObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.NormalizeObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.AddRenderObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.ResizeObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.ReshapeObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.RescaleObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.TimeAwareObservation, module="gymnasium.wrappers")
gin.external_configurable(wrappers.ClipAction, module="gymnasium.wrappers")
gin.external_configurable(wrappers.DiscretizeAction, module="gymnasium.wrappers")
gin.external_configurable(wrappers.TransformAction, module="gymnasium.wrappers")
gin.external_configurable(wrappers.RescaleAction, module="gymnasium.wrappers")
gin.external_configurable(wrappers.StickyAction, module="gymnasium.wrappers")
gin.external_configurable(wrappers.ClipReward, module="gymnasium.wrappers")
gin.external_configurable(wrappers.TransformReward, module="gymnasium.wrappers")
gin.external_configurable(wrappers.NormalizeReward, module="gymnasium.wrappers")
gin.external_configurable(wrappers.TimeLimit, module="gymnasium.wrappers")
gin.external_configurable(wrappers.PassiveEnvChecker, module="gymnasium.wrappers")
gin.external_configurable(wrappers.OrderEnforcing, module="gymnasium.wrappers")
gin.external_configurable(wrappers.RecordEpisodeStatistics, module="gymnasium.wrappers")
gin.external_configurable(wrappers.AddWhiteNoise, module="gymnasium.wrappers")
gin.external_configurable(wrappers.ObstructView, module="gymnasium.wrappers")
if hasattr(wrappers, "RepeatAction"):  # since Gymnasium 1.3
    gin.external_configurable(wrappers.RepeatAction, module="gymnasium.wrappers")
