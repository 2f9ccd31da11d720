"""Model files: what lies on a server's disk, and the shelf it lies on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fleet.simulator.naming import name_key, short_name

_ONE_SLOT: Final = ("mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe")
ONE_SLOT_FAMILIES: Final = frozenset((*_ONE_SLOT, "nemotron_h", "nemotron_h_moe", "nemotron_h_omni"))
"""Families that Ollama gives one slot whatever it is told, as it does embedding models."""
EPOCH: Final = 1_767_225_600.0
"""When simulated models were made (wall clock, seconds), unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One installed model. Equal names and sizes give equal digests on every simulated server."""

    name: str
    size: int
    digest: str
    weights: str
    """Digest of the weights blob: copies share it, and with it one runner."""
    family: str = "llama"
    capabilities: tuple[str, ...] = ("completion", "tools")
    parameter_size: str = "8.0B"
    quantization: str = "Q4_K_M"
    context_length: int = 131_072
    embedding_length: int = 768
    modified_at: float = EPOCH
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def embeds_only(self) -> bool:
        return "completion" not in self.capabilities

    @property
    def one_slot(self) -> bool:
        """Whether its runner never has more than one slot."""
        return self.embeds_only or self.family in ONE_SLOT_FAMILIES


def sha256(text: str) -> str:
    """Digest of a text, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def model_file(name: str, size: int, *, capabilities: tuple[str, ...] | None = None) -> ModelFile:
    """A plausible file for a name: `embed` in it makes an embedding model, `vision`/`llava` adds vision,
    `think`/`r1`/`qwen3` adds thinking, `whisper` adds audio. Raises `InvalidName`."""
    short = short_name(name)
    guessed = capabilities or _capabilities(short)
    embeds = "completion" not in guessed
    return ModelFile(
        name=short,
        size=size,
        digest=sha256(f"manifest {short} {size}"),
        weights=sha256(f"weights {short} {size}"),
        family="nomic-bert" if embeds else "llama",
        capabilities=guessed,
        parameter_size="137M" if embeds else "8.0B",
        quantization="F16" if embeds else "Q4_K_M",
        context_length=2048 if embeds else 131_072,
    )


def _capabilities(name: str) -> tuple[str, ...]:
    if "embed" in name or "bert" in name:
        return ("embedding",)
    extra = [
        (("vision", "llava"), "vision"),
        (("think", "r1", "qwen3"), "thinking"),
        (("whisper",), "audio"),
    ]
    return ("completion", "tools", *(what for hints, what in extra if any(hint in name for hint in hints)))


class Shelf:
    """The installed models of one server, found by name whatever its case."""

    def __init__(self, files: Iterable[ModelFile]) -> None:
        self._files = {name_key(file.name): file for file in files}

    def __iter__(self) -> Iterator[ModelFile]:
        """Newest first, as Ollama lists them."""
        return iter(sorted(self._files.values(), key=lambda file: -int(file.modified_at)))

    def __len__(self) -> int:
        return len(self._files)

    def find(self, name: str) -> ModelFile | None:
        """The file of that name. Raises `InvalidName`."""
        return self._files.get(name_key(name))

    def put(self, file: ModelFile) -> None:
        self._files[name_key(file.name)] = file

    def copy(self, source: ModelFile, name: str, modified_at: float) -> ModelFile:
        """A second name for the same blobs. Raises `InvalidName`."""
        twin = replace(source, name=short_name(name), modified_at=modified_at)
        self.put(twin)
        return twin

    def remove(self, name: str) -> bool:
        """Forget a name; False if it was unknown. Raises `InvalidName`."""
        return self._files.pop(name_key(name), None) is not None
