# Frozen features, and the runs. Methods on cached features fit a whole dataset in one process, because importing torch
# costs more than their fits; methods that need images are grouped as the config's `fit_grouping` says.
GROUPING = PLAN.config["fit_grouping"]
FIT = (
    "python -m rmt fit --benchmark {params.benchmark} --protocol {wildcards.protocol} --backbone {wildcards.backbone}"
    "{params.own_backbone} --method {wildcards.method} --use {params.use} --overrides {params.overrides:q} --results {params.results}"
    " --device {params.device} --threads {threads}"
)


rule encode:
    input:
        pack=pack_file,
        weights=weights_file,
        samples=lambda wildcards: sample_files(dataset=wildcards.dataset),
    output:
        FEATURES,
    log:
        f"{LOGS}/encode-{{backbone}}-{{dataset}}.log",
    conda:
        "../envs/rmt-bench.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=job_memory("encode"),
        runtime=job_runtime("encode"),
    params:
        images=image_folder,
        views=PLAN.config["views"],
        device=PLAN.config["device"],
        own_backbone=own_backbone,
    message:
        "encode: {wildcards.dataset} by {wildcards.backbone}"
    shell:
        "python -m rmt encode --backbone {wildcards.backbone}{params.own_backbone} --pack {input.pack} --samples {input.samples}"
        " --images {params.images} --views {params.views} --device {params.device} --threads {threads}"
        " --output {output} 2> {log}"


rule fit_once:
    input:
        features=FEATURES,
        targets=target_features,
    output:
        expand(f"{RUN}/{{file}}", file=FILES, shots=0, seed=0, allow_missing=True),
    log:
        f"{LOGS}/fit-{{protocol}}-{{backbone}}-{{dataset}}-{{method}}.log",
    wildcard_constraints:
        method=alternatives(labels("features", few_shot=False) or ["-"]),
    conda:
        "../envs/rmt-bench.yaml"
    threads: THREADS
    resources:
        mem_mb=job_memory("fit_once"),
        runtime=job_runtime("fit_once"),
    params:
        benchmark=BENCHMARK,
        own_backbone=own_backbone,
        results=results_folder,
        use=use,
        overrides=overrides,
        effective=effective,
        device="cpu",
        targets=targets_option,
    message:
        "fit: {wildcards.method} on {wildcards.dataset}"
    shell:
        f"{FIT} --features {{input.features}} {{params.targets:q}} > {{log}} 2>&1"


rule fit_features:
    input:
        features=FEATURES,
        targets=target_features,
        samples=lambda wildcards: sample_files(
            wildcards.protocol, dataset=wildcards.dataset
        ),
    output:
        run_outputs("dataset"),
    log:
        f"{LOGS}/fit-{{protocol}}-{{backbone}}-{{dataset}}-{{method}}.log",
    wildcard_constraints:
        method=alternatives(labels("features") or ["-"]),
    conda:
        "../envs/rmt-bench.yaml"
    threads: THREADS
    resources:
        mem_mb=job_memory("fit_features"),
        runtime=job_runtime("fit_features"),
    params:
        benchmark=BENCHMARK,
        own_backbone=own_backbone,
        results=results_folder,
        use=use,
        overrides=overrides,
        effective=effective,
        device="cpu",
        targets=targets_option,
    message:
        "fit: {wildcards.method} on {wildcards.dataset}, all shots and seeds"
    shell:
        f"{FIT} --features {{input.features}} {{params.targets:q}} --samples {{input.samples}} > {{log}} 2>&1"


rule fit_images:
    input:
        pack=pack_file,
        weights=weights_file,
        targets=target_packs,
        samples=lambda wildcards: sample_files(
            wildcards.protocol,
            **{
                name: wildcards[name]
                for name in ("dataset", "shots", "seed")
                if name in wildcards.keys()
            },
        ),
        below=lambda wildcards: records_below(wildcards, GROUPING),
    output:
        run_outputs(GROUPING),
    log:
        f"{LOGS}/fit-{{protocol}}-{{backbone}}-{{dataset}}-{{method}}"
        + "".join(
            f"-{{{axis}}}"
            for axis in ("shots", "seed")
            if axis not in grouped_axes(GROUPING)
        )
        + ".log",
    wildcard_constraints:
        method=alternatives(labels("images") or ["-"]),
    conda:
        "../envs/rmt-bench.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=job_memory("fit_images"),
        runtime=job_runtime("fit_images"),
    params:
        images=image_folder,
        benchmark=BENCHMARK,
        own_backbone=own_backbone,
        results=results_folder,
        use=use,
        overrides=overrides,
        effective=effective,
        views=PLAN.config["views"],
        device=PLAN.config["device"],
        targets=targets_option,
    message:
        f"fit: {{wildcards.method}} on {{wildcards.dataset}}, one job per {GROUPING}"
        + "".join(
            f", {axis} {{wildcards.{axis}}}"
            for axis in ("shots", "seed")
            if axis not in grouped_axes(GROUPING)
        )
    shell:
        f"{FIT} --pack {{input.pack}} --images {{params.images}} --views {{params.views}} {{params.targets:q}}"
        " --samples {input.samples} > {log} 2>&1"
