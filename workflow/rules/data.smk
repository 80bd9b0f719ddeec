# Images, splits, few-shot samples, packed evaluation images: everything before the first model.
localrules:
    download,
    split,
    sample,
    pack,


rule download:
    message:
        "download: {wildcards.dataset}"
    output:
        f"{DATA}/{{dataset}}/verified.json",
    log:
        f"{DATA}/logs/download-{{dataset}}.log",
    retries: 2
    shell:
        "python -m data_prep download {wildcards.dataset} --data {DATA} 2> {log}"


rule split:
    message:
        "split: {wildcards.dataset}"
    input:
        f"{DATA}/{{dataset}}/verified.json",
    output:
        f"{DATA}/{{dataset}}/split.json",
    log:
        f"{DATA}/logs/split-{{dataset}}.log",
    shell:
        "python -m data_prep split {wildcards.dataset} --data {DATA} --output {output} 2> {log}"


rule sample:
    message:
        "sample: {wildcards.dataset}, {wildcards.shots} shots, seed {wildcards.seed}"
    input:
        f"{DATA}/{{dataset}}/split.json",
    output:
        SAMPLE,
    log:
        f"{LOGS}/sample-{{dataset}}-{{shots}}shot-seed{{seed}}.log",
    shell:
        "python -m data_prep sample --dataset {wildcards.dataset} --split {input} --shots {wildcards.shots}"
        " --seed {wildcards.seed} --output {output} 2> {log}"


rule pack:
    message:
        "pack: {wildcards.dataset} at {wildcards.pixels} pixels"
    input:
        split=f"{DATA}/{{dataset}}/split.json",
        verified=f"{DATA}/{{dataset}}/verified.json",
    output:
        images=f"{DATA}/{{dataset}}/pack/{{pixels}}px.npy",
        index=f"{DATA}/{{dataset}}/pack/{{pixels}}px.json",
    log:
        f"{DATA}/logs/pack-{{dataset}}-{{pixels}}px.log",
    params:
        images=image_folder,
    wildcard_constraints:
        pixels=r"\d+",
    shell:
        "python -m data_prep pack {wildcards.dataset} --split {input.split} --images {params.images}"
        " --pixels {wildcards.pixels} --output {output.images} 2> {log}"
