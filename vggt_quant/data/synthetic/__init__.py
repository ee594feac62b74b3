"""Rendered scenes whose cameras, depths and points are known exactly: rooms, the rays that photograph them, folders."""

from vggt_quant.data.synthetic.folders import draw_scenes

__all__ = ["draw_scenes"]
