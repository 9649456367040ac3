"""Finding and reading what ships with hwsim (arch/, models/, studies/) and files like it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hwsim.cost import physics
from hwsim.device import Device, validated
from hwsim.errors import InputError
from hwsim.files import read_mapping
from hwsim.formats import nbytes
from hwsim.kernels.sets import KernelSet, kernel_sets
from hwsim.lowering.convnet import ConvNet, lower_convnet
from hwsim.lowering.convnet_file import is_convnet, read_convnet
from hwsim.lowering.model import Model
from hwsim.lowering.spiking import SpikingNetwork, is_spiking, read_spiking

Network = Model | ConvNet | SpikingNetwork
_SYSTEM = re.compile(r"([1-9]\d{0,5})x-(.+)")
_WORDS = frozenset({"name", "description", "generation", "aliases", "source"})
_PROVENANCE = ("source", "fitted", "assumed")


def root(folder: str) -> Path:
    """Where `arch`, `models` or `studies` is: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "data" / folder
    return inside if inside.is_dir() else Path(__file__).parent.parent / folder


def names(folder: str) -> list[str]:
    """All names one can use in `arch` or `models` (file stems), or the studies that hold claims."""
    if folder == "studies":
        return sorted(path.parent.name for path in root(folder).glob("*/claims.yaml"))
    return sorted(path.stem for path in root(folder).glob("*.yaml"))


def find(folder: str, name: str) -> Path:
    """The file behind a name, an alias or a path. InputError names the nearest match."""
    direct = root(folder) / f"{name.lower()}.yaml"
    if re.fullmatch(r"[\w.+-]+", name) and direct.is_file():
        return direct
    if _is_path(name):
        return Path(name)
    found = _aliases(folder).get(name.lower())
    if found:
        return root(folder) / f"{found}.yaml"
    near = get_close_matches(name.lower(), [*names(folder), *_aliases(folder)], 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"{folder}: nothing is named {name[:80]!r}; {hint}accepted: a name of `hwsim list {folder}` or a file")


def _is_path(name: str) -> bool:
    """A file name; not an alias that has a slash ("meta-llama/Llama-3.1-8B") unless there is such a file."""
    if Path(name).suffix in {".yaml", ".yml", ".json"} or Path(name).is_dir():
        return True
    known = {*_aliases("models"), *_aliases("arch")} if "/" in name else set()
    return "/" in name and (Path(name).exists() or name.lower() not in known)


@lru_cache(maxsize=4)
def _aliases(folder: str) -> Mapping[str, str]:
    raw = {name: read_mapping(root(folder) / f"{name}.yaml") for name in names(folder)}
    return {str(alias).lower(): name for name, data in raw.items() for alias in data.get("aliases", ())}


def _known_file(folder: str, name: str) -> Path | None:
    """The file that ships under a name or alias, whatever files of that name there are elsewhere; None for one not known."""
    stem = name.lower() if name.lower() in names(folder) else _aliases(folder).get(name.lower())
    return root(folder) / f"{stem}.yaml" if stem else None


def known_device(name: str) -> Device | None:
    """A device of arch/ by name or alias, never by path, for names that a stranger wrote; None for one not known."""
    path = _known_file("arch", name)
    return _read_device(path) if path else None


def known_model(name: str) -> Model | None:
    """A transformer of models/ by name or alias, never by path, for names that a stranger wrote; None for one not known."""
    path = _known_file("models", name)
    if path is None:
        return None
    raw = read_mapping(path)
    return None if is_convnet(raw) or is_spiking(raw) else _read_model(path)


def load_device(name: str | Path) -> Device:
    """A device by name ("h100"), alias, file, or as a system of n linked ones ("4x-h100")."""
    name = str(name)
    system = _SYSTEM.fullmatch(name)
    if system is None:
        return _read_device(find("arch", name))
    device = _read_device(find("arch", system[2]))
    if int(system[1]) > 1 and not device.wires:
        raise InputError(f"{name}: {device.name} has no links to others; accepted: {device.name}")
    return device.model_copy(update={"count": int(system[1]) * device.count, "name": f"{system[1]}x-{device.name}"})


def _read_device(path: Path) -> Device:
    plain, origin = _extended(path, ())
    plain.setdefault("name", path.stem)
    written = {where: text for where, (text, _) in origin.items()}
    provenance = {where: source for where, (_, source) in origin.items()}
    plain |= {"provenance": provenance, "written": written, "kernels": _kernels_of(plain, str(path))}
    device: Device = validated(Device, plain, str(path))
    for name, unit in device.units.items():
        try:
            physics(unit.cost)
        except InputError as error:
            raise InputError(f"{path}: units.{name}.{error}") from error
    return device


def _kernels_of(plain: Mapping[str, Any], where: str) -> Mapping[str, tuple[KernelSet, ...]]:
    """Kernel models for devices whose units are priced by them, a device's own before those of its generation."""
    units = plain.get("units")
    priced = ("gpu", "microcontroller")
    asked = isinstance(units, dict) and any(isinstance(unit, dict) and unit.get("cost") in priced for unit in units.values())
    shared = _kernels(str(plain.get("generation", ""))) if asked else {}
    own = plain.get("kernels", {})
    if not isinstance(own, dict):
        raise InputError(f"{where}: kernels: {str(own)[:40]!r}; accepted: a mapping of kernel families to their sets")
    found = {family: _sets(family, sets, f"{where}: kernels.{family}") for family, sets in own.items()}
    return {family: (*found.get(family, ()), *shared.get(family, ())) for family in {**shared, **found}}


@cache
def _kernels(generation: str) -> Mapping[str, tuple[KernelSet, ...]]:
    """The fitted kernel models of an architecture generation, by family: arch/kernels/GENERATION/FAMILY.yaml."""
    folder = root("arch") / "kernels" / generation
    if not re.fullmatch(r"[a-z0-9-]+", generation) or not folder.is_dir():
        return {}
    return {
        path.stem: _sets(path.stem, read_mapping(path).get("sets"), f"{path}: sets") for path in sorted(folder.glob("*.yaml"))
    }


def _sets(family: str, raw: Any, where: str) -> tuple[KernelSet, ...]:
    """The sets of a list; of `{like: GENERATION, because: ...}` those of that generation, with the reason before their own."""
    if not isinstance(raw, dict):
        return kernel_sets(family, raw, where)
    folder = root("arch") / "kernels"
    having = sorted(path.parent.name for path in folder.glob(f"*/{family}.yaml"))
    like, because = raw.get("like"), raw.get("because")
    if raw.keys() != {"like", "because"} or not isinstance(because, str) or like not in having:
        raise InputError(f"{where}: {str(raw)[:80]}; accepted: a list of sets, or like: ({', '.join(having)}) and because: (why)")
    path = folder / like / f"{family}.yaml"
    theirs = kernel_sets(family, read_mapping(path).get("sets"), f"{path}: sets")  # a list: no chain of likes
    return tuple(replace(one, fitted=f"{because}; {one.fitted}") for one in theirs)


def _extended(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    """What `path` says on top of what it `extends:`, and where each number comes from: an inherited one keeps its source."""
    if path.resolve() in seen:
        chain = " -> ".join(step.stem for step in (*seen, path))
        raise InputError(f"{path}: extends: goes in a circle ({chain})")
    raw = dict(read_mapping(path))
    base = raw.pop("extends", None)
    own, own_origin = _split_provenance(raw, str(raw.get("source", "")), "", str(path))
    if base is None:
        return own, own_origin
    if not isinstance(base, str) or not re.fullmatch(r"[\w.+-]+", base):
        raise InputError(f"{path}: extends: {base!r}; accepted: a name in arch/ or of a file beside this one")
    parent, origin = _extended(_base(path, base), (*seen, path.resolve()))
    plain = _merged({key: value for key, value in parent.items() if key not in {"name", "aliases", "description"}}, own)
    return plain, {where: source for where, source in {**origin, **own_origin}.items() if _present(plain, where)}


def read_values(path: Path) -> dict[str, Any]:
    """The values of a file of arch/ without their provenance, which is checked."""
    return _split_provenance(read_mapping(path), "", "", str(path))[0]


def _present(plain: Mapping[str, Any], path: str) -> bool:
    node: Any = plain
    for step in path.split("."):
        if not isinstance(node, dict) or step not in node:
            return False
        node = node[step]
    return True


def _base(path: Path, name: str) -> Path:
    """The file that `path` extends: beside it, or in arch/."""
    sibling = path.parent / f"{name}.yaml"
    try:
        return sibling if sibling.is_file() else find("arch", name)
    except InputError as error:
        raise InputError(f"{path}: extends: {error}") from error


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` over `base`: mappings merged, null removes; a variant holds only its difference."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return result


def _split_provenance(
    node: Mapping[str, Any], source: str, path: str, where: str
) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    """Plain values on one side, {path: (number as written, where it comes from)} on the other."""
    source = str(node.get("source", source))
    plain: dict[str, Any] = {}
    origin: dict[str, tuple[str, str]] = {}
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and "value" in value:
            plain[key], origin[here] = _as_text(value["value"]), (str(value["value"]), _own_provenance(value, here, where))
        elif isinstance(value, dict):
            plain[key], below = _split_provenance(value, source, here, where)
            origin.update(below)
        else:
            plain[key] = _as_text(value)
            if key not in _WORDS and (isinstance(value, int | float) or re.match(r"\s*[+-]?\.?\d", str(value))):
                origin[here] = (str(value), source)
    return plain, origin


def _as_text(value: Any) -> Any:
    """Numbers of a file as text, so that one that needs a unit and has none is refused; floats are for Python code."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _own_provenance(value: Mapping[str, Any], here: str, where: str) -> str:
    unknown = set(value) - {"value", "range", *_PROVENANCE}
    kinds = [kind for kind in _PROVENANCE if kind in value]
    if unknown or len(kinds) != 1:
        given = ", ".join(sorted(map(str, value)))
        raise InputError(f"{where}: {here}: has {given}; accepted: value, one of source, fitted or assumed, and range")
    tail = f" (range {value['range']})" if "range" in value else ""
    return f"{'' if kinds[0] == 'source' else kinds[0] + ': '}{value[kinds[0]]}{tail}"


def load_model(name: str | Path) -> Network:
    """A network by name ("mixtral-8x7b"), alias, or file: a Hugging Face config.json, unchanged, a models/*.yaml, or an .onnx.

    Convolutional networks of models/ come in any width and resolution: "mobilenetv2:width=0.35,resolution=144".
    """
    plain, changes = _variant(str(name))
    if plain.lower().endswith(".onnx"):
        from hwsim.lowering.onnx_file import read_onnx

        return read_onnx(Path(plain))
    path = find("models", plain)
    raw = read_mapping(path)
    if is_convnet(raw):
        return read_convnet(raw, f"{path.stem}{str(name)[len(plain) :]}", str(path), changes)
    if changes:
        raise InputError(f"models: {str(name)[:80]!r}: {path.stem} is no convolutional network; accepted: {plain}")
    if is_spiking(raw):
        return read_spiking(raw, str(raw.get("name", path.stem)), str(path))
    return _read_model(path)


def _variant(name: str) -> tuple[str, dict[str, float]]:
    """ "mobilenetv2:width=0.35" -> ("mobilenetv2", {"width": 0.35})."""
    found = re.fullmatch(r"(.+?):((?:\w+=\d*\.?\d+,?)+)", name)
    if found is None:
        return name, {}
    return found[1], {key: float(value) for key, value in re.findall(r"(\w+)=(\d*\.?\d+)", found[2])}


def load_transformer(name: str | Path) -> Model:
    """A transformer by name or file. InputError for another kind of network."""
    found = load_model(name)
    if isinstance(found, Model):
        return found
    kind = "a convolutional network" if isinstance(found, ConvNet) else "a network of events, without tokens"
    raise InputError(f"model: {found.name} is {kind}; accepted: a transformer")


def load_convnet(name: str | Path) -> ConvNet:
    """A convolutional network by name or file. InputError for another kind of network."""
    found = load_model(name)
    if isinstance(found, ConvNet):
        return found
    raise InputError(f"model: {found.name} has no feature maps; accepted: a convolutional network")


def _read_model(path: Path) -> Model:
    from hwsim.lowering.huggingface import config_fields, read_config

    raw = read_mapping(path)
    name = path.parent.name if path.stem == "config" and path.parent.name else path.stem
    return read_config(config_fields(raw), str(raw.get("name", name)), str(path))


def describe(name: str) -> dict[str, Any]:
    """Every number of a model or device by name or file, with its source: the JSON document of `hwsim show`."""
    if _is_device(name):
        return _describe_device(load_device(name))
    found = load_model(name)
    if isinstance(found, SpikingNetwork):
        return _describe_spiking(found)
    return _describe_model(found) if isinstance(found, Model) else _describe_convnet(found)


def _is_device(name: str) -> bool:
    """A name is looked up in arch/ first; a YAML file is a device when it has what only devices have."""
    plain = _variant(_SYSTEM.sub(r"\2", name))[0]
    if plain.lower().endswith(".onnx"):
        return False
    if _is_path(plain):
        return not plain.endswith(".json") and not {"units", "memories", "extends"}.isdisjoint(read_mapping(Path(plain)))
    known = [*names("arch"), *_aliases("arch")]
    models = [*names("models"), *_aliases("models")]
    if plain.lower() in known or plain.lower() in models:
        return plain.lower() in known
    near = get_close_matches(plain.lower(), [*known, *models], 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"show: nothing is named {name[:80]!r}; {hint}accepted: a name of `hwsim list` or a file")


def _describe_device(device: Device) -> dict[str, Any]:
    numbers = [{"path": path, "value": device.written.get(path, ""), "source": text} for path, text in device.provenance.items()]
    return {
        "arch": device.name,
        "description": device.description,
        "aliases": list(device.aliases),
        "count": device.count,
        "numbers": numbers,
    }


def _describe_spiking(net: SpikingNetwork) -> dict[str, Any]:
    from dataclasses import asdict

    fixed = {"parameters": net.parameters, "trainable_parameters": net.trainable_parameters, "macs_per_sample": net.macs}
    return {"model": net.name, **fixed, **{key: value for key, value in asdict(net).items() if key != "name"}}


def _describe_model(model: Model) -> dict[str, Any]:
    from dataclasses import asdict

    per_token = model.kv_elements_per_token() * nbytes(model.precision.kv)
    layers = [{"count": count, **asdict(layer)} for layer, count in model.layers]
    return {
        "model": model.name, "parameters": model.parameters, "active_parameters": model.active_parameters,
        "active_parameters_without_embedding": model.active_parameters_without_embedding,
        "kv_bytes_per_token": per_token, "num_layers": model.num_layers, "hidden": model.hidden, "vocab": model.vocab,
        "tied": model.tied, "max_context": model.max_context, "precision": asdict(model.precision), "layers": layers,
        "source": model.source, "notes": list(model.notes),
    }  # fmt: skip


def _describe_convnet(net: ConvNet) -> dict[str, Any]:
    peak = max(float(op.workspace) for op in lower_convnet(net))  # in 8 bit, every result a map of its own
    layers = [
        {"name": layer.name, "kind": layer.kind, "into": list(layer.into), "out": list(layer.out), "kernel": list(layer.kernel),
         "stride": list(layer.stride), "groups": layer.groups, "macs": layer.macs, "parameters": layer.parameters}
        for layer in net.layers
    ]  # fmt: skip
    return {
        "model": net.name, "parameters": net.parameters, "active_parameters": net.parameters, "kv_bytes_per_token": 0,
        "macs": net.macs,
        "peak_activation_bytes": peak, "image": list(net.image), "num_layers": len(net.layers), "layers": layers,
        "source": net.source, "notes": list(net.notes),
    }  # fmt: skip
