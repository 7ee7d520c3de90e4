"""The one place that knows the faults of the packages the plugin builds on."""

from __future__ import annotations


def apply() -> None:
    """Make MMRazor importable on any supported torch and MMEngine's own checkpoints loadable under safe loading.

    Importing ``mmkd_plugin.registry`` calls it; calling it again changes nothing. Nothing heavy is imported before.

    Raises:
        DistillError: If MMRazor or a package that it imports without declaring it is not installed.
    """
    from mmkd_plugin.compat.allow_list import allow_mmengine_checkpoints
    from mmkd_plugin.compat.quantization import require_mmrazor, stub_quantization

    require_mmrazor()
    stub_quantization()
    allow_mmengine_checkpoints()
