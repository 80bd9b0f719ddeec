# Images, splits, few-shot samples, packed evaluation images: everything before the first model.
localrules:
    download,
    split,
    sample,
    pack,


rule download:
    output:
        f"{DATA}/{{dataset}}/verified.json",
    log:
        f"{DATA}/logs/download-{{dataset}}.log",
    retries: 2
    conda:
        "../envs/rmt-bench.yaml"
    params:
        data=data_folder,
        own=own_settings,
        coop=tree_in_place,
    message:
        "download: {wildcards.dataset}"
    shell:
        "python -m data_prep download {wildcards.dataset} --data {params.data} {params.own:q} {params.coop:q} 2> {log}"


rule split:
    input:
        f"{DATA}/{{dataset}}/verified.json",
    output:
        f"{DATA}/{{dataset}}/split.json",
    log:
        f"{DATA}/logs/split-{{dataset}}.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        data=data_folder,
        own=own_settings,
    message:
        "split: {wildcards.dataset}"
    shell:
        "python -m data_prep split {wildcards.dataset} --data {params.data} {params.own:q} --output {output} 2> {log}"


rule sample:
    input:
        f"{DATA}/{{dataset}}/split.json",
    output:
        SAMPLE,
    log:
        f"{LOGS}/sample-{{dataset}}-{{shots}}shot-seed{{seed}}{{classes}}.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        own=own_settings,
        half=half,
    message:
        "sample: {wildcards.dataset}, {wildcards.shots} shots, seed {wildcards.seed}"
    shell:
        "python -m data_prep sample --dataset {wildcards.dataset} --split {input} --shots {wildcards.shots}"
        " --seed {wildcards.seed}{params.half} {params.own:q} --output {output} 2> {log}"


rule pack:
    input:
        split=f"{DATA}/{{dataset}}/split.json",
        verified=f"{DATA}/{{dataset}}/verified.json",
    output:
        images=f"{DATA}/{{dataset}}/pack/{{pixels}}px{{resize}}.npy",
        index=f"{DATA}/{{dataset}}/pack/{{pixels}}px{{resize}}.json",
    log:
        f"{DATA}/logs/pack-{{dataset}}-{{pixels}}px{{resize}}.log",
    wildcard_constraints:
        pixels=r"\d+",
        resize=r"|-squash",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        images=image_folder,
        resize=resize_option,
        own=own_settings,
    message:
        "pack: {wildcards.dataset} at {wildcards.pixels} pixels"
    shell:
        "python -m data_prep pack {wildcards.dataset} --split {input.split} --images {params.images}"
        " --pixels {wildcards.pixels}{params.resize} {params.own:q} --output {output.images} 2> {log}"
