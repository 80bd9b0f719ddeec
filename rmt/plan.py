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

NEW_CLASSES = ("base_to_new", "cross_dataset")
"""Protocols that ask for classes that were not trained on."""

SCHEMA = Path(__file__).resolve().parent.parent / "workflow" / "schemas" / "config.schema.yaml"


class ConfigError(UserError):
    """A mistake in the config: one line that names the key, the value and the closest valid name."""


@dataclass(frozen=True)
class PlannedMethod:
    """One entry of the config's `methods`: its label, the registered method, what it stands on, its differences.

    `below` is the label of the method whose finished run of the same cell it stands on, None for the frozen CLIP.
    """

    label: str
    use: str
    below: str | None
    overrides: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Only a recipe that selects on the test set may be called so, and it must.

        Raises:
            ConfigError: the label hides it, or claims it wrongly.
        """
        says = self.label.partition("+")[0].endswith(registry.ORACLE)
        if self.use in registry.METHODS and says != self.entry.oracle:
            does, must = ("selects", "must") if self.entry.oracle else ("does not select", "may not")
            raise ConfigError(
                f"key 'methods.{self.label}': {self.use!r} {does} on the test set, so its label {must} end in "
                f"{registry.ORACLE!r}"
            )

    @property
    def entry(self) -> registry.Method:
        """The registry's entry."""
        return registry.METHODS[self.use]

    @property
    def needs(self) -> str:
        """ "images" for what runs the image tower, "features" for what reads cached frozen features."""
        return "images" if self.below else self.entry.needs

    @property
    def transfers(self) -> bool:
        """Whether it can answer for classes that it was not trained on."""
        entry = self.entry
        bound = entry.bound_by is not None and (
            dict(self.overrides).get(entry.bound_by) or self._default(entry.bound_by)
        )
        return entry.transfers and not bound

    def _default(self, name: str) -> Any:
        return self.entry.defaults[name].value

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
        below = self.methods[method.below] if method.below else None
        name = registry.display_label(method.use, below.use if below else None)
        plain = method.use if below is None else f"{method.use}+{below.use}"
        return name if label == plain else f"{name} ({label})"

    def trained_on(self, protocol: str) -> list[str]:
        """The datasets that a protocol trains on."""
        if protocol == "domain_shift":
            return [name for name in self.config["datasets"] if catalog.shifts_of(name)]
        if protocol == "cross_dataset":
            return self.config["sources"] or self.config["datasets"]
        return self.config["datasets"]

    def targets(self, protocol: str, dataset: str) -> list[str]:
        """Other datasets on which the runs of a protocol on a dataset are evaluated, each by its own prompts."""
        if protocol == "domain_shift":
            return catalog.shifts_of(dataset)
        if protocol == "cross_dataset":
            return [name for name in self.config["datasets"] if name != dataset]
        return []

    def evaluation_sets(self, protocol: str, dataset: str) -> list[str]:
        """Names of the evaluation sets of a protocol's runs on a dataset, as in records and predictions."""
        if protocol == "base_to_new":
            return ["base", "new"]
        return ["test", *self.targets(protocol, dataset)]

    @property
    def evaluated(self) -> list[str]:
        """Every dataset whose test images are needed, those that are trained on first."""
        found = dict.fromkeys(self.config["datasets"])
        for protocol in self.config["protocols"]:
            for name in self.trained_on(protocol):
                found |= dict.fromkeys(self.targets(protocol, name))
        return list(found)

    def takes_part(self, label: str, protocol: str) -> bool:
        """Whether a method can be evaluated under a protocol: one that is bound to its classes cannot answer for
        others."""
        method = self.methods[label]
        below = self.methods[method.below] if method.below else None
        return protocol not in NEW_CLASSES or (method.transfers and (below is None or below.transfers))

    def identities(self, label: str | None = None, dataset: str | None = None) -> list[Identity]:
        """The planned runs, of one method or dataset or of all; what uses no shots and seeds is planned once, as 0."""
        found = []
        for protocol in self.config["protocols"]:
            for backbone in self.config["backbones"]:
                for name in self.trained_on(protocol):
                    for method in self.methods.values():
                        if label not in (None, method.label) or dataset not in (None, name):
                            continue
                        if not self.takes_part(method.label, protocol):
                            continue
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
        return f"key 'methods': label {error.instance!r} must be lower_snake, or LABEL+BELOW"
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
        base, _, below = label.partition("+")
        key = f"methods.{label}"
        use = entry.pop("use", base)
        _check_name(key if use == base else f"{key}.use", use, registry.METHODS)
        if below:
            _check_stack(key, use, below, entries)
        defaults = registry.METHODS[use].defaults
        for name, value in entry.items():
            _check_name(f"{key}.{name}", name, defaults) if defaults else _refuse_any(key, name)
            sample = defaults[name].resolve(config["datasets"][0], config["shots"][0])
            _check_type(f"{key}.{name}", value, sample)
        planned[label] = PlannedMethod(label, use, below or None, entry)
    return planned


def _check_stack(key: str, use: str, below: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
    stands_on = registry.METHODS[use].stands_on
    if not stands_on:
        stackable = [name for name, method in registry.METHODS.items() if method.stands_on]
        raise ConfigError(f"key {key!r}: {use!r} cannot be stacked; stackable: {', '.join(stackable)}")
    alone = [name for name in entries if "+" not in name]
    if below not in alone:
        raise ConfigError(
            f"key {key!r}: it stands on {below!r}, which is not among the methods{did_you_mean(below, alone)}"
        )
    lower = entries[below].get("use", below)
    if lower in registry.METHODS and registry.METHODS[lower].offers not in stands_on:
        fitting = [name for name, method in registry.METHODS.items() if method.offers in stands_on]
        raise ConfigError(
            f"key {key!r}: {use!r} cannot stand on {below!r}, only on {', '.join(fitting)} and their variants"
        )


def _protocols(plan: Plan) -> None:
    """Check that every protocol has datasets to train on and methods to compare."""
    config = plan.config
    for name in config["sources"] or []:
        _check_name("sources", name, config["datasets"])
    for protocol in config["protocols"]:
        if not plan.trained_on(protocol):
            having = [name for name in catalog.DATASETS if catalog.shifts_of(name)]
            raise ConfigError(
                f"key 'protocols': {protocol} needs a dataset with shifted test sets among `datasets`: "
                f"{', '.join(having)}"
            )
        if protocol == "cross_dataset" and len(config["datasets"]) < 2:
            raise ConfigError("key 'protocols': cross_dataset needs at least two datasets")
        if not any(plan.takes_part(label, protocol) for label in plan.methods):
            raise ConfigError(
                f"key 'protocols': {protocol} asks for classes that were not trained on, which none of the methods "
                "can answer for"
            )


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
    plan = Plan(full, methods)
    _protocols(plan)
    return plan


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
