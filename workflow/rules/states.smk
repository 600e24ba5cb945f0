# Needs: the latent of every simulation, one row per frame.
# Makes: clusters/<model>/seed<k>/ (labels, populations, transitions, parameters tried, structures, decoded
# structures), evaluation/.


localrules:
    summarize_evaluation,
    compare_seeds,


MEASURES = ("agreement", "contacts", "intervals", "kinetics", "markov", "neighbourhood", "structure")


def latents(wildcards):
    return latent_tables(f"{STUDY}/latent/{wildcards.model}/seed{wildcards.seed}")


def all_trajectories(wildcards):
    return of_each(SIMULATIONS, f"{STUDY}/frames/{{batch}}.json", lambda name: [topology(name), *parts(name).values()])


def all_topologies(wildcards):
    return of_each(SIMULATIONS, f"{STUDY}/frames/{{batch}}.json", lambda name: [topology(name)])


def several_seeds():
    """Models whose states can be compared between seeds."""
    return [name for name in MODELS if len(seeds(name)) > 1]


def all_records():
    """What was measured of every run, and between the seeds of a model."""
    return runs("evaluation/{model}/seed{seed}.json") + [
        f"{STUDY}/evaluation/{name}/seeds.json" for name in several_seeds()
    ]


def seeds_of(pattern):
    """`pattern` with {seed} filled in for every seed of the rule's model."""

    def paths(wildcards):
        return [f"{STUDY}/" + pattern.format(model=wildcards.model, seed=seed) for seed in seeds(wildcards.model)]

    return paths


def lags():
    """Of the section `evaluate`, only what the linear map of slow motion depends on."""
    return {"lag_frames": CONFIG["evaluate"]["lag_frames"]}


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
        sweep=report(
            f"{STUDY}/clusters/{{model}}/seed{{seed}}/sweep.csv",
            caption="../report/sweep.rst",
            category="States",
            labels={"model": "{model}", "seed": "{seed}", "table": "parameters tried"},
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
        code=code(
            "cluster.py",
            "stability.py",
            "states.py",
            "density.py",
            "spanning_tree.py",
            "latents.py",
            "representatives.py",
            "original_frames.py",
        ),
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
        all_topologies,
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
        code=model_code(
            "decoded.py",
            "latent_paths.py",
            "structures.py",
            "alignment.py",
            "small_matrices.py",
            "latents.py",
            "splits.py",
        ),
        latent=f"{STUDY}/latent/{{model}}/seed{{seed}}",
    message:
        "Decoding the states of {wildcards.model}, seed {wildcards.seed}"
    shell:
        "python -m mdlatent.decoded --frames {input.index:q} --model {input.model:q} --latent {params.latent:q}"
        " --clusters {input.clusters:q} --output-dir {output:q} --log {log:q}"


rule fit_tica:
    input:
        index=f"{STUDY}/frames/index.json",
        parts=all_stored_parts(),
    output:
        f"{STUDY}/evaluation/tica.npz",
    log:
        f"{STUDY}/logs/fit_tica.log",
    benchmark:
        f"{STUDY}/benchmarks/fit_tica.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=tica_mb,
        runtime=frames_minutes,
    params:
        options=options("split", evaluate=lags()),
        # Ten at least, so that a model with a few more dimensions is no reason to measure all others again.
        dim=max(10, *(model["latent_dim"] for model in MODELS.values())),
        code=code("fit_tica.py", "models/tica.py", "models/principal.py", "splits.py"),
    message:
        "Fitting the slowest linear coordinates, to compare models with"
    shell:
        "python -m mdlatent.fit_tica --frames {input.index:q} --dim {params.dim} --options {params.options:q}"
        " --output {output:q} --log {log:q}"


rule evaluate:
    input:
        latents,
        all_stored_parts(),
        index=f"{STUDY}/frames/index.json",
        model=f"{STUDY}/models/{{model}}/seed{{seed}}/config.yaml",
        weights=f"{STUDY}/models/{{model}}/seed{{seed}}/model.pt",
        clusters=f"{STUDY}/clusters/{{model}}/seed{{seed}}/cluster.json",
        tica=f"{STUDY}/evaluation/tica.npz",
    output:
        records=f"{STUDY}/evaluation/{{model}}/seed{{seed}}.json",
        kinetics=f"{STUDY}/evaluation/{{model}}/seed{{seed}}.kinetics.json",
    log:
        f"{STUDY}/logs/evaluate/{{model}}.seed{{seed}}.log",
    benchmark:
        f"{STUDY}/benchmarks/evaluate/{{model}}.seed{{seed}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=evaluate_mb,
        runtime=frames_minutes,
    params:
        options=options("evaluate"),
        code=code(
            "evaluate.py",
            "held_out.py",
            "reference_states.py",
            "latents.py",
            "states.py",
            "structures.py",
            "alignment.py",
            "small_matrices.py",
            *(f"metrics/{name}.py" for name in MEASURES),
        ),
        folder=subpath(input.model, parent=True),
        clusters=subpath(input.clusters, parent=True),
        latent=f"{STUDY}/latent/{{model}}/seed{{seed}}",
    message:
        "Measuring {wildcards.model}, seed {wildcards.seed}"
    shell:
        "python -m mdlatent.evaluate --frames {input.index:q} --model {params.folder:q} --latent {params.latent:q}"
        " --clusters {params.clusters:q} --tica {input.tica:q} --name {wildcards.model} --seed {wildcards.seed}"
        " --options {params.options:q} --kinetics {output.kinetics:q} --output {output.records:q} --log {log:q}"


rule compare_seeds:
    input:
        labels=seeds_of("clusters/{model}/seed{seed}/labels.parquet"),
        about=seeds_of("clusters/{model}/seed{seed}/cluster.json"),
        index=f"{STUDY}/frames/index.json",
    output:
        f"{STUDY}/evaluation/{{model}}/seeds.json",
    log:
        f"{STUDY}/logs/compare_seeds/{{model}}.log",
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=latent_mb,
        runtime=grows(10),
    params:
        code=code("compare_seeds.py", "metrics/agreement.py"),
        folders=seeds_of("clusters/{model}/seed{seed}"),
    message:
        "Comparing the states of the seeds of {wildcards.model}"
    shell:
        "python -m mdlatent.compare_seeds --name {wildcards.model} --clusters {params.folders:q} --output {output:q}"
        " --log {log:q}"


rule summarize_evaluation:
    input:
        all_records(),
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
        code=code("evaluation_table.py"),
    message:
        "Putting all models into one table"
    shell:
        "python -m mdlatent.evaluate --summary {input:q} --output {output:q} --log {log:q}"
