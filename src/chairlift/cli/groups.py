"""Which options stand together in a command's help; those in no group stand first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperOption

SERVER: Mapping[str, str] = {
    "Replicas": "front_ends min_replicas max_replicas target_seconds scale_out_delay "
    "scale_in_delay max_wait gpus cpus",
    "Batching": "batching max_batch_size batch_delay_ms policy admission costs",
    "Limits": "max_queue max_queue_per_key max_megapixel_steps max_streams",
    "Access": "api_key api_key_file open_metrics cors_origin ssl_certfile ssl_keyfile",
    "Jobs": "data_dir keep_days keep_gib",
    "Model": "workers device dtype load_format lora offload_text_encoders preview_decoder "
    "attention_backend compile",
    "Operation": "hang_timeout shutdown_timeout log_format log_prompts",
}
GENERATE: Mapping[str, str] = {
    "Pictures": "negative_prompt steps guidance_scale true_cfg_scale guidance_scale_2 "
    "guidance_rescale cfg_truncation cfg_normalization sampler seed n width height frames "
    "output_format output_compression lora",
    "Batching": "batching max_batch_size",
    "Model": "device dtype load_format offload_text_encoders attention_backend compile",
}
BENCH: Mapping[str, str] = {
    "Arrivals": "num_prompts request_rate burstiness max_concurrency num_warmups seed timeout",
    "Requests": "mix workload prompts width height steps n guidance_scale negative_prompt model "
    "extra_body",
    "Objectives": "goodput slo_scale costs",
    "Results": "save_result plot",
}
GROUPS = {"serve": SERVER, "deploy": SERVER, "generate": GENERATE, "bench": BENCH}
"""Of a command: its groups, each with the names of the options in it."""


class GroupedCommand(TyperCommand):
    """A command whose help has its :data:`GROUPS`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        group_of = {
            option: group
            for group, options in GROUPS.get(self.name or "", {}).items()
            for option in options.split()
        }
        for parameter in self.params:
            if isinstance(parameter, TyperOption):
                parameter.rich_help_panel = group_of.get(parameter.name or "")
