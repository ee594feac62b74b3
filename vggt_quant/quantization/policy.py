"""Which Linears a variant quantizes, and why the others stay in higher precision. Works on any `nn.Module`.

Every `nn.Linear` is either quantized or kept with a stated reason:
1. layers that PyTorch reads directly (`nn.MultiheadAttention.out_proj`, `nn.TransformerEncoderLayer`): its fused code
   takes their `.weight` and never calls the module, so a packed one would break or be ignored;
2. layers that are more than their weight: subclasses, weights that are computed at each call (weight norm, pruning),
   hooks or an overridden `forward`, weights that another layer type (an embedding) shares and needs in full;
3. layers whose name fits a pattern of `ALWAYS_KEPT` (VGGT's tiny ones that write poses, tracks, confidences) or of the
   variant's `policy.keep`;
4. layers narrower than `min_features` on either side: they save little, and their errors reach the output unaveraged
   (the 9-wide pose layer in int8 makes the whole output 2.7-3.6 times worse on a ViT-like block pair).
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from vggt_quant.variants import Policy

READ_DIRECTLY = (nn.MultiheadAttention, nn.TransformerEncoderLayer)

ALWAYS_KEPT = {
    "*camera_head.pose_branch.fc2": "writes the nine pose numbers",
    "*camera_head.embed_pose": "reads the nine pose numbers",
    "*track_head.tracker.updateformer.flow_head": "writes track coordinates",
    "*track_head.tracker.vis_predictor.*": "writes one visibility",
    "*track_head.tracker.conf_predictor.*": "writes one confidence",
}
"""VGGT's layers, by a pattern on the name, and the reason; `Policy.keep` adds to them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The Linears of a model, sorted into quantized and kept."""

    quantized: list[str]
    kept: dict[str, str]
    """Name -> reason."""


def select(model: nn.Module, policy: Policy) -> Selection:
    """Sort every Linear of `model`; one that stands at two names is listed under the first and kept by either."""
    read_directly = {
        child for parent in model.modules() if isinstance(parent, READ_DIRECTLY) for child in parent.modules()
    }
    others = (module for module in model.modules() if not isinstance(module, nn.Linear))
    needed_in_full = {id(parameter) for module in others for parameter in module.parameters(recurse=False)}
    quantized: list[str] = []
    kept: dict[str, str] = {}
    for linear, names in _linears(model).items():
        reason: str | None
        if linear in read_directly:
            reason = "PyTorch reads its weight directly"
        elif id(linear.weight) in needed_in_full:
            reason = "a layer of another kind shares its weight"
        else:
            reason = _more_than_a_weight(linear) or _by_policy(names, linear, policy)
        if reason is None:
            quantized.append(names[0])
        else:
            kept[names[0]] = reason
    return Selection(quantized=quantized, kept=kept)


def _linears(model: nn.Module) -> dict[nn.Linear, list[str]]:
    """Every Linear with all its names."""
    linears: dict[nn.Linear, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear):
            linears.setdefault(module, []).append(name)
    return linears


def _more_than_a_weight(linear: nn.Linear) -> str | None:
    """What a packed layer would lose."""
    if type(linear) is not nn.Linear:
        return f"{type(linear).__name__} is not a plain Linear"
    if not isinstance(linear.weight, nn.Parameter):
        return "its weight is computed from other parameters"
    if not linear.weight.is_floating_point():
        return f"its weight is {linear.weight.dtype}"
    if linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear):
        return "it has hooks or an overridden forward"
    return None


def _by_policy(names: list[str], linear: nn.Linear, policy: Policy) -> str | None:
    for pattern, reason in {**ALWAYS_KEPT, **policy.keep}.items():
        if any(fnmatchcase(name, pattern) for name in names):
            return reason
    if min(linear.in_features, linear.out_features) < policy.min_features:
        return f"narrower than {policy.min_features}"
    return None
