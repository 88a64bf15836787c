"""The command doctor: what this machine offers and which models are at hand."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textlora.cli.options import JsonOption, print_json
from textlora.errors import ModelError
from textlora.settings import ModelSettings

if TYPE_CHECKING:
    from textlora.system.runtime import Environment


def doctor(as_json: JsonOption = False) -> None:
    """Show versions, device, number formats, threads and the models at hand."""
    found = examine()
    if as_json:
        print_json(found)
        return
    environment = found.environment
    print(f"machine    {environment.processor}, {environment.system}")
    print(f"device     {environment.device}, {environment.num_threads} threads")
    print(f"training   {found.training_format}")
    print(f"python     {environment.python}")
    for package, version in environment.packages.items():
        print(f"{package:<15} {version}")
    print(f"embedded:minilm  {found.embedded_model}")
    print(f"cached models    {', '.join(found.cached_models) or 'none'}")


@dataclass(frozen=True)
class Diagnosis:
    """The environment, and what can be used without a network."""

    environment: "Environment"
    training_format: str
    embedded_model: str
    cached_models: tuple[str, ...]


def examine() -> Diagnosis:
    """Look at versions, device, number formats and models; opens no connection."""
    from textlora.model import encoder_files
    from textlora.system.runtime import describe_environment

    environment = describe_environment()
    units = environment.bf16_units
    try:
        folder = encoder_files.locate_encoder(ModelSettings(name=encoder_files.EMBEDDED)).folder
        encoder_files.check_published(folder)
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
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except (CacheNotFound, ValueError):  # not there, or no folder
        return ()
    return tuple(sorted(repo.repo_id for repo in cache.repos if repo.repo_type == "model"))
