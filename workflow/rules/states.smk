# Needs: the latent of every simulation, one row per frame.
# Makes: clusters/<model>/seed<k>/ (labels, populations, transitions, structures, decoded structures), evaluation/.


localrules:
    summarize_evaluation,


def latents(wildcards):
    folder = f"{STUDY}/latent/{wildcards.model}/seed{wildcards.seed}"
    return [f"{folder}/{name}.parquet" for name in SIMULATIONS]


def all_trajectories(wildcards):
    return [file for name in SIMULATIONS for file in [topology(name), *parts(name).values()]]


rule cluster:
    input:
        latents,
        all_trajectories,  # representatives are cut out of them
        index=f"{STUDY}/frames/index.json",
    output:
        labels=f"{STUDY}/clusters/{{model}}/seed{{seed}}/labels.parquet",
        summary=report(
            f"{STUDY}/clusters/{{model}}/seed{{seed}}/summary.csv",
            caption="../report/states.rst",
            category="States",
            labels={"model": "{model}", "seed": "{seed}", "table": "populations"},
        ),
        transitions=report(
            f"{STUDY}/clusters/{{model}}/seed{{seed}}/transitions.csv",
            caption="../report/transitions.rst",
            category="States",
            labels={"model": "{model}", "seed": "{seed}", "table": "transitions"},
        ),
        about=f"{STUDY}/clusters/{{model}}/seed{{seed}}/cluster.json",
        representatives=directory(f"{STUDY}/clusters/{{model}}/seed{{seed}}/representatives"),
    log:
        f"{STUDY}/logs/cluster/{{model}}.seed{{seed}}.log",
    benchmark:
        f"{STUDY}/benchmarks/cluster/{{model}}.seed{{seed}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=latent_mb,
        runtime=latent_minutes,
    params:
        options=options("cluster"),
        code=code("cluster.py", "states.py", "latents.py", "representatives.py", "original_frames.py"),
        folder=subpath(output.labels, parent=True),
        latent=f"{STUDY}/latent/{{model}}/seed{{seed}}",
    message:
        "Finding states in {wildcards.model}, seed {wildcards.seed}"
    shell:
        "python -m mdlatent.cluster --frames {input.index:q} --latent {params.latent:q} --options {params.options:q}"
        " --output-dir {params.folder:q} --log {log:q}"


rule decode_states:
    input:
        latents,
        all_stored_parts,
        [topology(name) for name in SIMULATIONS],
        index=f"{STUDY}/frames/index.json",
        model=f"{STUDY}/models/{{model}}/seed{{seed}}/model.pt",
        clusters=f"{STUDY}/clusters/{{model}}/seed{{seed}}/cluster.json",
    output:
        directory(f"{STUDY}/clusters/{{model}}/seed{{seed}}/decoded"),
    log:
        f"{STUDY}/logs/decode_states/{{model}}.seed{{seed}}.log",
    benchmark:
        f"{STUDY}/benchmarks/decode_states/{{model}}.seed{{seed}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=frames_mb,
        runtime=latent_minutes,
    params:
        code=model_code("decoded.py", "latent_paths.py", "structures.py", "alignment.py", "latents.py", "splits.py"),
        latent=f"{STUDY}/latent/{{model}}/seed{{seed}}",
    message:
        "Decoding the states of {wildcards.model}, seed {wildcards.seed}"
    shell:
        "python -m mdlatent.decoded --frames {input.index:q} --model {input.model:q} --latent {params.latent:q}"
        " --clusters {input.clusters:q} --output-dir {output:q} --log {log:q}"


rule evaluate:
    input:
        latents,
        index=f"{STUDY}/frames/index.json",
        model=f"{STUDY}/models/{{model}}/seed{{seed}}/config.yaml",
        clusters=f"{STUDY}/clusters/{{model}}/seed{{seed}}/cluster.json",
    output:
        f"{STUDY}/evaluation/{{model}}/seed{{seed}}.json",
    log:
        f"{STUDY}/logs/evaluate/{{model}}.seed{{seed}}.log",
    benchmark:
        f"{STUDY}/benchmarks/evaluate/{{model}}.seed{{seed}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=latent_mb,
        runtime=latent_minutes,
    params:
        code=code("evaluate.py", "latents.py", "states.py"),
        folder=subpath(input.model, parent=True),
        clusters=subpath(input.clusters, parent=True),
        latent=f"{STUDY}/latent/{{model}}/seed{{seed}}",
    message:
        "Measuring {wildcards.model}, seed {wildcards.seed}"
    shell:
        "python -m mdlatent.evaluate --frames {input.index:q} --model {params.folder:q} --latent {params.latent:q}"
        " --clusters {params.clusters:q} --name {wildcards.model} --seed {wildcards.seed} --output {output:q} --log {log:q}"


rule summarize_evaluation:
    input:
        runs("evaluation/{model}/seed{seed}.json"),
    output:
        report(
            f"{STUDY}/evaluation/summary.csv",
            caption="../report/evaluation.rst",
            category="Models",
            labels={"table": "all models and baselines"},
        ),
    log:
        f"{STUDY}/logs/summarize_evaluation.log",
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=500,
        runtime=10,
    params:
        code=code("evaluate.py"),
    message:
        "Putting all models into one table"
    shell:
        "python -m mdlatent.evaluate --summary {input:q} --output {output:q} --log {log:q}"
