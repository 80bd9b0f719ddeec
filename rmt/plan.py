"""What a benchmark consists of: the config checked against schema, catalog and registry, and the explicit list of runs.

Used by the Snakefile before the first job, and by `collect` to know which runs should exist.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from data_prep import catalog, own
from rmt import registry
from rmt.errors import UserError, did_you_mean
from rmt.records import Identity

SCHEMA = Path(__file__).resolve().parent.parent / "workflow" / "schemas" / "config.schema.yaml"


class ConfigError(UserError):
    """A mistake in the config: one line that names the key, the value and the closest valid name."""


@dataclass(frozen=True)
class PlannedMethod:
    """One entry of the config's `methods`: its label, the registered method, the tower below it, its differences."""

    label: str
    use: str
    tower: str | None
    overrides: Mapping[str, Any]

    @property
    def entry(self) -> registry.Method:
        """The registry's entry."""
        return registry.METHODS[self.use]

    @property
    def needs(self) -> str:
        """ "images" for what runs the image tower, "features" for what reads cached frozen features."""
        return "images" if self.tower else self.entry.needs

    def hyperparameters(self, dataset: str, shots: int) -> dict[str, Any]:
        """Effective hyperparameters of one cell: the registry's defaults with the config's differences."""
        values = {name: default.resolve(dataset, shots) for name, default in self.entry.defaults.items()}
        return json.loads(json.dumps(values | dict(self.overrides)))


@dataclass(frozen=True)
class Plan:
    """A checked config."""

    config: Mapping[str, Any]
    methods: Mapping[str, PlannedMethod]

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return self.config["benchmark"]

    @property
    def datasets(self) -> dict[str, catalog.Dataset]:
        """Every dataset that may be named: the catalog's and the config's own."""
        return catalog.DATASETS | {name: own.entry(name, one) for name, one in self.config["own_datasets"].items()}

    @property
    def control(self) -> str:
        """Label that the others are compared with."""
        named = self.config["control"]
        return named or ("r_amt" if "r_amt" in self.methods else next(iter(self.methods)))

    def display(self, label: str) -> str:
        """Name of a method for tables and figures; a variant shows its own label too."""
        method = self.methods[label]
        tower = self.methods[method.tower] if method.tower else None
        name = registry.display_label(method.use, tower.use if tower else None)
        plain = method.use if tower is None else f"{method.use}+{tower.use}"
        return name if label == plain else f"{name} ({label})"

    def identities(self, label: str | None = None, dataset: str | None = None) -> list[Identity]:
        """The planned runs, of one method or dataset or of all; what uses no shots and seeds is planned once, as 0."""
        found = []
        for protocol in self.config["protocols"]:
            for backbone in self.config["backbones"]:
                for name in [dataset] if dataset else self.config["datasets"]:
                    for method in [self.methods[label]] if label else self.methods.values():
                        few_shot = method.entry.few_shot
                        for shots in self.config["shots"] if few_shot else [0]:
                            for seed in self.config["seeds"] if few_shot else [0]:
                                found.append(
                                    Identity(self.benchmark, protocol, backbone, name, method.label, shots, seed)
                                )
        return found


@cache
def schema() -> dict[str, Any]:
    """The config's JSON schema, with descriptions and defaults."""
    return yaml.safe_load(SCHEMA.read_text())


def _explain(error: Any) -> str:
    key = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        unknown = [name for name in error.instance if name not in known]
        above = f"{key}: " if key else ""
        return f"{above}unknown key {unknown[0]!r}{did_you_mean(unknown[0], known)}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{f'{key}: ' if key else ''}key {missing[0]!r} is missing"
    if error.validator == "enum":
        return f"key {key!r}: {error.instance!r} is not valid; valid: {', '.join(map(str, error.validator_value))}"
    if error.validator == "type":
        expected = error.validator_value
        expected = " or ".join(expected) if isinstance(expected, list) else expected
        return f"key {key!r}: expected {expected}, got {type(error.instance).__name__} {error.instance!r}"
    if "propertyNames" in error.absolute_schema_path and "own_backbones" in error.absolute_schema_path:
        return f"key 'own_backbones': name {error.instance!r} must be lower_snake"
    if "propertyNames" in error.absolute_schema_path and "own_datasets" in error.absolute_schema_path:
        return f"key 'own_datasets': name {error.instance!r} must be lower_snake"
    if "propertyNames" in error.absolute_schema_path:
        return f"key 'methods': label {error.instance!r} must be lower_snake, or LABEL+TOWER"
    return f"key {key!r}: {error.message}"


def _check_name(key: str, name: str, valid: Iterable[str]) -> None:
    if name not in valid:
        raise ConfigError(f"key {key!r}: unknown name {name!r}{did_you_mean(name, valid)}")


def _check_type(key: str, value: Any, default: Any) -> None:
    """A hyperparameter's value must be of its default's kind; a whole number passes for a real one."""
    kinds: dict[type, tuple[type, ...]] = {float: (int, float), tuple: (list, tuple)}
    allowed = kinds.get(type(default), (type(default),))
    if not isinstance(value, allowed) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise ConfigError(
            f"key {key!r}: expected {allowed[-1].__name__} like {default!r}, got {type(value).__name__} {value!r}"
        )


def _datasets(config: Mapping[str, Any]) -> None:
    """Check the names of datasets, and the own ones among them."""
    for name, settings in config["own_datasets"].items():
        try:
            own.entry(name, settings)
        except own.BadOwnData as error:
            raise ConfigError(f"key 'own_datasets': {error}") from error
    for name in config["datasets"]:
        _check_name("datasets", name, [*catalog.DATASETS, *config["own_datasets"]])
        if name in catalog.DATASETS and not catalog.DATASETS[name].trainable:
            raise ConfigError(f"key 'datasets': {name!r} has test images only, nothing can be trained on it")


def _methods(config: Mapping[str, Any]) -> dict[str, PlannedMethod]:
    planned: dict[str, PlannedMethod] = {}
    entries = {label: dict(entry or {}) for label, entry in config["methods"].items()}
    for label, entry in entries.items():
        base, _, tower = label.partition("+")
        key = f"methods.{label}"
        use = entry.pop("use", base)
        _check_name(key if use == base else f"{key}.use", use, registry.METHODS)
        if tower:
            if use not in registry.STACKABLE:
                raise ConfigError(f"key {key!r}: {use!r} cannot be stacked; stackable: {', '.join(registry.STACKABLE)}")
            towers = [name for name in entries if "+" not in name]
            if tower not in towers:
                raise ConfigError(
                    f"key {key!r}: it needs the tower {tower!r}, which is not among the methods"
                    f"{did_you_mean(tower, towers)}"
                )
            tuned = entries[tower].get("use", tower)
            if tuned in registry.METHODS and not registry.METHODS[tuned].masks:
                raise ConfigError(f"key {key!r}: {tower!r} does not tune the image tower, so nothing stacks on it")
        defaults = registry.METHODS[use].defaults
        for name, value in entry.items():
            _check_name(f"{key}.{name}", name, defaults) if defaults else _refuse_any(key, name)
            sample = defaults[name].resolve(config["datasets"][0], config["shots"][0])
            _check_type(f"{key}.{name}", value, sample)
        planned[label] = PlannedMethod(label, use, tower or None, entry)
    return planned


def _refuse_any(key: str, name: str) -> None:
    raise ConfigError(f"key '{key}.{name}': this method has no hyperparameters")


def _add_own_backbones(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Make the config's own backbones known to this process."""
    for name, entry in entries.items():
        try:
            registry.add_own_backbone(name, **entry)
        except ValueError as error:
            raise ConfigError(f"key 'own_backbones.{name}': {error}") from error


def _check_towers(backbones: Iterable[str], methods: Mapping[str, PlannedMethod]) -> None:
    """Methods that reach into the towers need towers of open_clip's own classes."""
    reaching = [label for label, method in methods.items() if method.needs == "images"]
    for name in backbones:
        if reaching and not registry.BACKBONES[name].own_towers:
            raise ConfigError(
                f"key 'backbones': the towers of {name!r} are not open_clip's own classes, so masks and contexts "
                f"cannot reach into them: leave out {', '.join(reaching)}, or use a config of its own"
            )


def check(config: Mapping[str, Any]) -> Plan:
    """Fill in defaults and check a config: the schema first, then names against catalog and registry.

    Raises:
        ConfigError: for the first mistake found.
    """
    properties = schema()["properties"]
    errors = sorted(jsonschema.Draft202012Validator(schema()).iter_errors(dict(config)), key=lambda e: len(e.path))
    if errors:
        raise ConfigError(_explain(errors[0]))
    full = {name: spec["default"] for name, spec in properties.items() if "default" in spec} | dict(config)
    _datasets(full)
    _add_own_backbones(full["own_backbones"])
    for name in full["backbones"]:
        _check_name("backbones", name, registry.BACKBONES)
    methods = _methods(full)
    _check_towers(full["backbones"], methods)
    if full["control"] is not None:
        _check_name("control", full["control"], methods)
    return Plan(full, methods)


def load(path: Path) -> Plan:
    """Read and check a YAML config.

    Raises:
        ConfigError: naming the file and the mistake.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, see workflow/config/README.md")
    try:
        return check(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
