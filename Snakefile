# The door. An include resets the default target, so the root needs one rule of its own to name it.
include: "workflow/Snakefile"


rule default:
    default_target: True
    input:
        rules.all.input,
