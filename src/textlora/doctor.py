"""What this machine offers and which models are at hand."""

from dataclasses import dataclass

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from textlora import encoderfiles
from textlora.errors import ModelError
from textlora.runtime import Environment, describe_environment
from textlora.settings import ModelSettings


@dataclass(frozen=True)
class Diagnosis:
    """The environment, and what can be used without a network."""

    environment: Environment
    training_format: str
    embedded_model: str
    cached_models: tuple[str, ...]


def examine() -> Diagnosis:
    """Look at versions, device, number formats and models; opens no connection."""
    environment = describe_environment()
    units = environment.bf16_units
    try:
        folder = encoderfiles.locate_encoder(ModelSettings(name=encoderfiles.EMBEDDED)).folder
        embedded = f"ok, in {folder}"
    except ModelError as error:
        embedded = str(error)
    return Diagnosis(
        environment=environment,
        training_format=f"bf16 ({units})" if units else "fp32 (no bfloat16 units)",
        embedded_model=embedded,
        cached_models=_list_cached_models(),
    )


def _list_cached_models() -> tuple[str, ...]:
    try:
        cache = scan_cache_dir()
    except (CacheNotFound, ValueError):  # not there, or no folder
        return ()
    return tuple(sorted(repo.repo_id for repo in cache.repos if repo.repo_type == "model"))
