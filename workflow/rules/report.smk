# Runs to tables, tests, figures, the page, and MLflow as a viewer.
localrules:
    track,
    collect,
    compare,
    masks,
    figures,
    render,


rule track:
    input:
        record_files(),
    output:
        f"{RESULTS}/{BENCHMARK}/tracked.json",
    log:
        f"{LOGS}/track.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        plan=PLAN_JSON,
    message:
        "track: import the runs into MLflow"
    shell:
        "python -m rmt track --plan {params.plan:q} --output {output} 2> {log}"


rule collect:
    input:
        record_files(),
    output:
        f"{RESULTS}/{BENCHMARK}/records.csv",
    log:
        f"{LOGS}/collect.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        plan=PLAN_JSON,
    message:
        "collect: records to one table"
    shell:
        "python -m reports collect --plan {params.plan:q} --output {output} 2> {log}"


rule compare:
    input:
        f"{RESULTS}/{BENCHMARK}/records.csv",
    output:
        f"{RESULTS}/{BENCHMARK}/comparisons.csv",
    log:
        f"{LOGS}/compare.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        plan=PLAN_JSON,
    message:
        "compare: paired tests against the control"
    shell:
        "python -m reports compare --plan {params.plan:q} --records {input} --output {output} 2> {log}"


rule masks:
    input:
        mask_record_files(),
    output:
        parts=f"{RESULTS}/{BENCHMARK}/masks.csv",
        overlaps=f"{RESULTS}/{BENCHMARK}/mask_overlaps.csv",
    log:
        f"{LOGS}/masks.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        plan=PLAN_JSON,
    message:
        "masks: where they fell, and how far they agree"
    shell:
        "python -m reports masks --plan {params.plan:q} --output {output.parts} 2> {log}"


rule figures:
    input:
        masks=masks_file(),
        records=f"{RESULTS}/{BENCHMARK}/records.csv",
        comparisons=f"{RESULTS}/{BENCHMARK}/comparisons.csv",
    output:
        directory(f"{REPORT}/figures"),
    log:
        f"{LOGS}/figures.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        masks=masks_option,
        plan=PLAN_JSON,
    message:
        "figures: draw curves and gains"
    shell:
        "python -m reports figures --plan {params.plan:q} --records {input.records}"
        " --comparisons {input.comparisons} {params.masks:q} --output {output} 2> {log}"


rule render:
    input:
        masks=masks_file(),
        records=f"{RESULTS}/{BENCHMARK}/records.csv",
        comparisons=f"{RESULTS}/{BENCHMARK}/comparisons.csv",
        figures=f"{REPORT}/figures",
    output:
        f"{REPORT}/index.md",
    log:
        f"{LOGS}/render.log",
    conda:
        "../envs/rmt-bench.yaml"
    params:
        masks=masks_option,
        plan=PLAN_JSON,
    message:
        "render: {output}"
    shell:
        "python -m reports render --plan {params.plan:q} --records {input.records}"
        " --comparisons {input.comparisons} --figures {input.figures} {params.masks:q}"
        " --output {output} 2> {log}"
