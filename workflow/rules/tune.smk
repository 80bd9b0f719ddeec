# Frozen features, and the runs. Methods on cached features fit a whole dataset in one process, because importing torch
# costs more than their fits; methods that need images are grouped as the config's `fit_grouping` says.
GROUPING = PLAN.config["fit_grouping"]
FIT = (
    "python -m rmt fit --benchmark {BENCHMARK} --protocol {wildcards.protocol} --backbone {wildcards.backbone}"
    " --method {wildcards.method} --use {params.use} --overrides {params.overrides:q} --results {RESULTS}"
    " --device {params.device} --threads {threads}"
)


rule encode:
    message:
        "encode: {wildcards.dataset} by {wildcards.backbone}"
    input:
        pack=pack_file,
        samples=lambda wildcards: sample_files(dataset=wildcards.dataset),
    output:
        FEATURES,
    log:
        f"{LOGS}/encode-{{backbone}}-{{dataset}}.log",
    params:
        images=image_folder,
        views=PLAN.config["views"],
        device=PLAN.config["device"],
    threads: THREADS
    resources:
        gpu=0 if PLAN.config["device"] == "cpu" else 1,
    shell:
        "python -m rmt encode --backbone {wildcards.backbone} --pack {input.pack} --samples {input.samples}"
        " --images {params.images} --views {params.views} --device {params.device} --threads {threads}"
        " --output {output} 2> {log}"


rule fit_once:
    message:
        "fit: {wildcards.method} on {wildcards.dataset}"
    input:
        features=FEATURES,
    output:
        expand(f"{RUN}/{{file}}", file=FILES, shots=0, seed=0, allow_missing=True),
    log:
        f"{LOGS}/fit-{{protocol}}-{{backbone}}-{{dataset}}-{{method}}.log",
    wildcard_constraints:
        method=alternatives(labels("features", few_shot=False) or ["-"]),
    params:
        use=use,
        overrides=overrides,
        effective=effective,
        device="cpu",
    threads: THREADS
    shell:
        f"{FIT} --features {{input.features}} > {{log}} 2>&1"


rule fit_features:
    message:
        "fit: {wildcards.method} on {wildcards.dataset}, all shots and seeds"
    input:
        features=FEATURES,
        samples=lambda wildcards: sample_files(dataset=wildcards.dataset),
    output:
        run_outputs("dataset"),
    log:
        f"{LOGS}/fit-{{protocol}}-{{backbone}}-{{dataset}}-{{method}}.log",
    wildcard_constraints:
        method=alternatives(labels("features") or ["-"]),
    params:
        use=use,
        overrides=overrides,
        effective=effective,
        device="cpu",
    threads: THREADS
    shell:
        f"{FIT} --features {{input.features}} --samples {{input.samples}} > {{log}} 2>&1"


rule fit_images:
    message:
        f"fit: {{wildcards.method}} on {{wildcards.dataset}}, one job per {GROUPING}"
    input:
        pack=pack_file,
        samples=lambda wildcards: sample_files(
            **{name: wildcards[name] for name in ("dataset", "shots", "seed") if name in wildcards.keys()}
        ),
        tower=lambda wildcards: tower_records(wildcards, GROUPING),
    output:
        run_outputs(GROUPING),
    log:
        f"{LOGS}/fit-{{protocol}}-{{backbone}}-{{dataset}}-{{method}}"
        + "".join(f"-{{{axis}}}" for axis in ("shots", "seed") if axis not in grouped_axes(GROUPING))
        + ".log",
    wildcard_constraints:
        method=alternatives(labels("images") or ["-"]),
    params:
        images=image_folder,
        use=use,
        overrides=overrides,
        effective=effective,
        views=PLAN.config["views"],
        device=PLAN.config["device"],
    threads: THREADS
    resources:
        gpu=0 if PLAN.config["device"] == "cpu" else 1,
    shell:
        f"{FIT} --pack {{input.pack}} --images {{params.images}} --views {{params.views}}"
        " --samples {input.samples} > {log} 2>&1"
