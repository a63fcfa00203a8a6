"""Files of pre-trained weights: where they are looked for, and how they are read without running anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from emobench.downloads import offline
from emobench.errors import WeightsError, first_line, unknown

_WRAPPER = "module."  # of DataParallel and DistributedDataParallel
FILES = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The pre-trained file that some arguments of a model need, as found before anything starts."""

    name: str  # as the user or the library calls it
    looked_for: str  # path, or cache and file
    path: Path | None  # where it lies; None: not here
    download: bool  # whether the library fetches it at the first use; False when offline or meant by path
    how: str  # what to do where it is missing
    guides: str | None = None  # family of the network that it makes a guide of, as of a perceptual loss; None: of none
    url: str | None = None  # where torch hub fetches it from; None: another library's matter
    page: str | None = None  # where another library fetches it from, as a person opens it

    def require(self) -> None:
        """Raise a WeightsError where the file is neither here nor can be fetched."""
        if self.path is None and not self.download:
            raise WeightsError(f"weights {self.name} not found; looked for {self.looked_for}. {self.how}")


def is_path(weights: str) -> bool:
    """Whether `weights` means a file or folder of the user rather than a name that a library knows."""
    return weights.endswith(FILES) or weights.startswith((".", "/", "~")) or Path(weights).exists()


def by_path(weights: str) -> WeightFile:
    """What is known of weights that the user names by path."""
    path = Path(weights).expanduser()
    how = "Check the path, or set weights to a name that the library knows or to none (training from scratch)."
    return WeightFile(name=weights, looked_for=str(path), path=path if path.exists() else None, download=False, how=how)


def from_torch_hub(name: str, url: str) -> WeightFile:
    """What is known of a file that torchvision or timm fetches from `url` into torch hub's folder."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    how = f"Fetch {url} and put it there, run once without --offline, or set weights to a path or to none."
    return WeightFile(
        name=name,
        looked_for=str(path),
        path=path if path.exists() else None,
        download=not offline(),
        how=how,
        url=url,
    )


def by_name_or_path(weights: str, urls: Mapping[str, str]) -> WeightFile:
    """What is known of weights that torchvision publishes, or that the user names by path.

    Args:
        weights: a path, or a key of `urls`.
        urls: torchvision's names for the weights of one architecture, and their addresses.

    Raises:
        WeightsError: it is neither.
    """
    if is_path(weights):
        return by_path(weights)
    if weights not in urls:
        raise WeightsError(f"{unknown('weights', weights, urls)}. A path ends with one of {', '.join(FILES)}.")
    return from_torch_hub(weights, urls[weights])


def from_hugging_face(name: str, repository: str, files: Iterable[str], also: Iterable[str] = ()) -> WeightFile:
    """What is known of a file of a Hugging Face repository.

    Args:
        name: what the user wrote.
        repository: "google/vit-base-patch16-224-in21k".
        files: the weight file under each of its names, the preferred one first.
        also: further files without which it is of no use, such as config.json.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    files = list(files)
    cached = [try_to_load_from_cache(repository, file) for file in files]
    found = next((Path(path) for path in cached if isinstance(path, str)), None)
    if not all(isinstance(try_to_load_from_cache(repository, file), str) for file in also):
        found = None
    return WeightFile(
        name=name,
        looked_for=f"{' or '.join(files)} of {repository} in {constants.HF_HUB_CACHE}",
        page=f"https://huggingface.co/{repository}",
        path=found,
        download=not offline(),
        how=f"Run `hf download {repository}` where there is a network and copy that cache (HF_HOME names another one), "
        "run once without --offline, or set weights to a path or to none.",
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch state dict, on the CPU, nothing in it executed.

    A state dict may lie under the key "state_dict" or "model" of the file, and be that of a network in PyTorch's
    DataParallel, which puts "module." before every name.

    Raises:
        WeightsError: the file is missing, truncated, carries code, or holds something else than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _unwrapped(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch.load says "Weights only load failed"; a text file ends here too.
        raise WeightsError(
            f"{path}: refused, not a file of tensors only; nothing in it was executed ({first_line(error)}). "
            "Save the network's state_dict() anew, best as .safetensors."
        ) from None
    except Exception as error:  # zip, JSON and header errors of either format; all mean that it cannot be read
        raise WeightsError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {first_line(error)}). Fetch the file again."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: holds no state dict of tensors. Save the network's state_dict().")
    return _unwrapped(content)


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the name of DataParallel's own module, where all its names begin with it."""
    wrapped = tensors and all(name.startswith(_WRAPPER) for name in tensors)
    return {name.removeprefix(_WRAPPER) if wrapped else name: value for name, value in tensors.items()}


def tensors_of(file: WeightFile) -> dict[str, Tensor]:
    """The tensors of a weight file, fetched by torch hub first where it is not here and may be.

    Raises:
        WeightsError: it is missing and cannot be fetched, or cannot be read.
    """
    file.require()
    if file.path is not None:
        return read_weights(file.path)
    assert file.url is not None
    try:
        # A name with "-" and eight digits carries the start of its sha256, which is compared.
        tensors = torch.hub.load_state_dict_from_url(
            file.url, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"weights {file.name} could not be fetched ({first_line(error)}). {file.how}") from None
    return dict(tensors)


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path | str, fresh: Iterable[str]) -> None:
    """Copy tensors into a network; everything outside `fresh` must be there in the right shape.

    Args:
        network: what receives them, in place.
        tensors: name → tensor, as `read_weights` gives them.
        path: the file, for the error.
        fresh: prefixes of names that keep their initial values, such as the head of another set of classes.

    Raises:
        WeightsError: names that are missing, unknown, or of another shape.
    """
    fresh = tuple(fresh)
    check_names(network, tensors, path, fresh)
    own = network.state_dict()
    given = {name: value for name, value in tensors.items() if not name.startswith(fresh)}
    shapes = [
        f"{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}"
        for name, value in given.items()
        if value.shape != own[name].shape
    ]
    if shapes:
        raise _misfit(path, [_some("has other shapes:", shapes)])
    network.load_state_dict(given, strict=False)


def check_names(network: nn.Module, tensors: Mapping[str, Tensor], path: Path | str, fresh: Iterable[str]) -> None:
    """Raise a WeightsError where a file lacks tensors of a network or holds others, those under `fresh` aside."""
    fresh = tuple(fresh)
    own = {name for name in network.state_dict() if not name.startswith(fresh)}
    # Files older than PyTorch 0.4.1 lack BatchNorm's step counters, which only matter without a momentum.
    missing = sorted(name for name in own - tensors.keys() if not name.endswith("num_batches_tracked"))
    extra = sorted(name for name in tensors.keys() - own if not name.startswith(fresh))
    if missing or extra:
        raise _misfit(path, [_some("lacks", missing), _some("has besides", extra)])


def _misfit(path: Path | str, faults: list[str]) -> WeightsError:
    return WeightsError(
        f"{path}: not weights of this architecture: it {'; '.join(filter(None, faults))}. "
        "Name the file that fits, or change the model's arguments to those of the file."
    )


def _some(verb: str, names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} {', '.join(names[:3])}{rest}" if names else ""
